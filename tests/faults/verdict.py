"""What came of a case, and the table of what came of all."""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from tests.faults.programs import Undisturbed, names
from tests.faults.zygote import Ended, World

# column -> what is counted in it
COLUMNS = {
    "lost": "lost",
    "wrong": "wrong numbers",
    "traceback": "traceback shown",
    "outside": "wrote outside its folders",
    "hung": "hung",
    "other": "else",  # an exit code that is none of the project's, a message that does not help, something left behind
}
SEEN = {0: "done", 2: "refused (2)", 3: "failed (3)", 130: "interrupted (130)", -9: "killed", -15: "killed"}
ALLOWED = frozenset(SEEN)
MESSAGE = re.compile("^error: |failed", re.MULTILINE)  # a grid lists the cells that failed


@dataclass
class Verdict:
    """What came of a case. problems: pairs of a column and what was found."""

    kind: str
    case: int
    row: str  # of the table
    title: str
    seen: list[str] = field(default_factory=list)
    times: int = 1  # that something befell the program
    problems: list[tuple[str, str]] = field(default_factory=list)

    def add(self, column: str, what: str) -> None:
        """Note a problem."""
        assert column in COLUMNS
        self.problems.append((column, what))

    def judge(self, ended: Ended, allowed: Iterable[int] = ALLOWED) -> None:
        """What any process must keep to."""
        self.seen.append(SEEN.get(ended.code, f"exit code {ended.code}"))
        if ended.hung:
            self.add("hung", f"for {ended.seconds:.0f} s: {ended.problems[-300:]}")
        elif ended.code not in allowed:
            self.add("other", f"exit code {ended.code}: {ended.problems[-300:]}")
        if "Traceback" in ended.said or "Fatal Python error" in ended.said:
            self.add("traceback", ended.said[ended.said.find("Traceback") :][-700:])
        elif ended.code in (2, 3) and not ended.hung and not MESSAGE.search(ended.said):
            self.add("other", f"exit code {ended.code} without a message: {ended.said[-300:]}")
        for path in ended.outside:
            self.add("outside", path)

    def judge_surroundings(self, world: World) -> None:
        """That what is none of a process's own was left alone."""
        beside = [path.name for path in world.beside.iterdir()]
        if beside != ["theirs.txt"] or (world.beside / "theirs.txt").read_text() != "not to be touched\n":
            self.add("outside", f"{world.beside} holds {beside}")

    def judge_end(self, world: World, alone: Undisturbed, damaged: bool = False) -> None:
        """That a world holds what it holds when nothing befalls the program; after damage, there may be more."""
        program = alone.program
        try:
            found = program.numbers(world.place)
        except Exception as problem:
            self.add("lost", f"what was made can't be read: {type(problem).__name__}: {problem}")
            return
        for name in alone.numbers.keys() | (set() if damaged else found.keys()):
            if damaged and found.get(name, {}).get("checksums") == {}:
                found[name]["checksums"] = alone.numbers[name]["checksums"]  # none is known, and none is claimed
            if alone.numbers.get(name) != found.get(name):
                column = "lost" if name not in found else "wrong"
                self.add(column, f"{name}: {differences(alone.numbers.get(name), found.get(name))}")
        new = {
            name for name in names(world) - alone.left if not name.endswith(".lock")
        }  # which say nothing by being there
        left = {name for name in new if not damaged or name.endswith(".tmp")}
        if left:
            self.add("other", f"left behind: {sorted(left)[:5]}")


def differences(expected: object, found: object) -> str:
    """The first of them, in short."""
    if isinstance(expected, dict) and isinstance(found, dict):
        return "; ".join(
            f"{name}: {differences(expected.get(name), found.get(name))}"
            for name in sorted(expected.keys() | found.keys(), key=str)
            if expected.get(name) != found.get(name)
        )[:300]
    return f"{str(found)[:80]} instead of {str(expected)[:80]}"


def table(verdicts: Sequence[Verdict]) -> str:
    """A row for each kind of fault."""
    rows: dict[str, list[Verdict]] = defaultdict(list)
    for verdict in verdicts:
        rows[verdict.row].append(verdict)
    head = ["what befalls it", "cases", "what the user sees", *COLUMNS.values()]
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    for name, of_row in rows.items():
        seen = Counter(word for verdict in of_row for word in verdict.seen[:1])
        words = ", ".join(word if len(of_row) == 1 else f"{word} {count:,}" for word, count in seen.most_common())
        times = sum(verdict.times for verdict in of_row)
        counts = [sum(any(column == key for key, _ in verdict.problems) for verdict in of_row) for column in COLUMNS]
        lines.append("| " + " | ".join([name, f"{times:,}", words, *map(str, counts)]) + " |")
    return "\n".join(lines)


def found(verdicts: Sequence[Verdict], seed: int, most: int = 3) -> str:
    """What went wrong: by row and column the first cases, each with the command that shows it again."""
    lines: dict[tuple[str, str], list[str]] = defaultdict(list)
    for verdict in verdicts:
        for column, what in dict(reversed(verdict.problems)).items():
            again = f"`{verdict.kind} --seed {seed} --case {verdict.case}`"
            what = re.sub(
                r"/[\w./-]*/(?=[\w.-])", ".../", re.sub(r"\s+", " ", what)
            )  # whatever the machine's folders are
            what = what[-200:].replace("|", "\\|").replace("<", "&lt;")
            lines[verdict.row, COLUMNS[column]].append(f"{again} ({verdict.title}): {what}")
    return "\n".join(
        f"- {row}, {column}, {len(cases)}:\n" + "\n".join(f"  - {case}" for case in cases[:most])
        for (row, column), cases in lines.items()
    )
