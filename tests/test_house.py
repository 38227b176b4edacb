"""The shape of the house: which way imports point, and how large a room may be."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest

from engine.paths import PROJECT

# Rooms, the lowest first: a room imports those of earlier lines alone. The rooms of a line know nothing of each other.
ORDER = (
    ("engine.errors", "engine.paths"),
    ("engine.processes",),
    ("engine.console", "engine.files", "engine.environment", "engine.device", "engine.code_hash"),
    ("engine.cli",),
    ("engine.data",),
    ("engine.readers", "engine.models"),
    ("engine.training",),
    ("engine.config",),
    ("engine.command_line",),
    ("engine.records",),
    ("engine.inference",),
    ("engine.run", "engine.doc_tables"),
    ("common",),
    ("<datasets>", "folder"),
    ("datasets",),
    ("grids", "reporting"),
    ("ranking", "predicting", "exporting"),
    ("grid", "rank", "report", "split", "predict", "export"),
    ("benchmarks",),
)
LEVEL = {room: level for level, rooms in enumerate(ORDER) for room in rooms}

MOST_LINES = 60  # of a function
MOST_PARAMETERS = 7  # of a function, without self
MOST_MODULES = 14  # side by side in engine/


@cache
def modules() -> dict[str, Path]:
    """Every module of the project, without the tests."""
    files = [*PROJECT.glob("*.py")]
    for package in ("engine", "grids", "ranking", "reporting", "predicting", "exporting", "benchmarks"):
        files += (PROJECT / package).rglob("*.py")
    return {".".join(path.relative_to(PROJECT).with_suffix("").parts).removesuffix(".__init__"): path for path in files}


@cache
def imports(module: str) -> frozenset[str]:
    """The project's own modules that a module imports, at the top or later, for types too."""
    found = set()
    for node in ast.walk(ast.parse(modules()[module].read_text("utf-8"))):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module}: a relative import"
            found |= {str(node.module), *(f"{node.module}.{alias.name}" for alias in node.names)}
    own = found & modules().keys()
    # "from engine.data import part" imports engine.data.part; its package says nothing of its own
    return frozenset(name for name in own if name != module and modules()[name].name != "__init__.py")


def room(module: str) -> str:
    """Where a module lies, as ORDER calls it."""
    top, _, rest = module.partition(".")
    if top == "engine":
        return f"engine.{rest.partition('.')[0]}" if rest else top
    if top in LEVEL:
        return top
    return "<datasets>"


def test_every_room_has_its_place() -> None:
    assert {room(module) for module in modules() if module != "engine"} == LEVEL.keys()


def test_imports_point_down() -> None:
    """None of a module that stands above or beside its own room."""
    up = [
        f"{module} imports {other}"
        for module in modules()
        for other in imports(module)
        if room(other) != room(module) and LEVEL[room(other)] >= LEVEL[room(module)]
    ]
    assert up == []


def test_no_cycles() -> None:
    try:
        TopologicalSorter({module: imports(module) for module in modules()}).prepare()
    except CycleError as cycle:
        pytest.fail(" <- ".join(cycle.args[1]))


def test_an_arrow_that_points_up_and_a_cycle_are_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    more = {"engine.files": {"engine.data.cache"}, "engine.data.part": {"engine.data.load"}}
    real = imports

    def with_two_more(module: str) -> frozenset[str]:
        return real(module) | more.get(module, set())

    monkeypatch.setitem(globals(), "imports", with_two_more)
    with pytest.raises(AssertionError, match=r"engine\.files imports engine\.data\.cache"):
        test_imports_point_down()
    with pytest.raises(pytest.fail.Exception, match=r"engine\.data\.load"):
        test_no_cycles()


def functions(path: Path) -> Iterator[tuple[str, int, int]]:
    """Name, lines and parameters of every function in a Python file."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            taken = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
            parameters = [argument.arg for argument in taken if argument.arg not in ("self", "cls")]
            assert node.end_lineno is not None
            yield node.name, node.end_lineno - node.lineno + 1, len(parameters)


def test_functions_are_short() -> None:
    files = [*modules().values(), *(PROJECT / "tests").rglob("*.py")]
    sizes = [(f"{path.name} {name}", lines, count) for path in files for name, lines, count in functions(path)]
    assert [f"{name}: {lines} lines" for name, lines, _ in sizes if lines > MOST_LINES] == []
    assert [f"{name}: {count} parameters" for name, _, count in sizes if count > MOST_PARAMETERS] == []


# as prettier sets them: a function ends at the first bracket that stands where its line began
BEGINS = re.compile(r"^( *)(?:async )?function \w*\(|^( *)(?:const|let) \w+ = (?:async )?(?:\([^)]*\)|\w+) => \{$")
PARAMETERS = re.compile(r"\bfunction \w*\(((?:[^()]|\([^()]*\))*)\) \{|\(((?:[^()]|\([^()]*\))*)\) =>")


def javascript_functions(text: str) -> Iterator[tuple[str, int]]:
    """The first line of every function with a name, and how many lines it has."""
    lines = text.split("\n")
    for number, line in enumerate(lines):
        if match := BEGINS.match(line):
            indent = match[1] if match[1] is not None else match[2]
            end = next(later for later in range(number, len(lines)) if re.match(rf"{indent}\}}", lines[later]))
            yield line.strip(), end - number + 1


def parameters(taken: str) -> int:
    """How many parameters of a JavaScript function are in its brackets: what is destructured counts once."""
    while (inner := re.sub(r"[{\[(][^{}\[\]()]*[}\])]", "_", taken)) != taken:
        taken = inner
    return len([part for part in taken.split(",") if part.strip()])


def test_functions_of_the_page_are_short() -> None:
    texts = {path.name: path.read_text("utf-8") for path in (PROJECT / "reporting" / "page").glob("*.js")}
    sizes = [(name, *pair) for name, text in texts.items() for pair in javascript_functions(text)]
    assert len(sizes) > 50
    assert [size for size in sizes if size[2] > MOST_LINES] == []
    brackets = [
        (name, found[1] or found[2] or "") for name, text in texts.items() for found in PARAMETERS.finditer(text)
    ]
    assert max(parameters(taken) for _, taken in brackets) > 3
    assert [each for each in brackets if parameters(each[1]) > MOST_PARAMETERS] == []
    assert parameters("id, { caption, rows = [1, 2] }, (a, b) = c, d") == 4


def test_engine_is_not_a_heap() -> None:
    assert len([*(PROJECT / "engine").glob("*.py")]) <= MOST_MODULES
