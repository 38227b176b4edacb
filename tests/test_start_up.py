"""`--help` and a mistake in a command are answered before anything is imported that takes seconds."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

import datasets
from engine.paths import PROJECT

SLOW = {
    "torch",
    "onnx",
    "onnxruntime",
    "safetensors",
    "timm",
    "torchvision",
    "sklearn",
    "scipy",
    "plotly",
    "matplotlib",
    "pandas",
    "wavemix",
    "h5py",
    "pydicom",
}

SCRIPTS = (*datasets.SCRIPTS, "folder", "datasets", "export", "grid", "predict", "rank", "report", "split")

# in one process, since a start is what takes longest: the exit code of each command, and what has been imported
PROGRAM = """
import contextlib, importlib, io, sys

def run(script, *arguments):
    module = importlib.import_module(script)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()) as problems:
        try:
            if hasattr(module, "DATASET"):
                common.main(module.DATASET, arguments)
            code = module.main(arguments)
        except SystemExit as end:
            code = end.code or 0
    print(script, *arguments, "->", code, problems.getvalue().partition(chr(10))[0][:60])

import common
for line in sys.stdin.read().splitlines():
    run(*line.split())
print("imported", *sorted(set(sys.argv[1:]) & set(sys.modules)))
"""

MISTAKES = {
    "cifar10 -model resnt": "error: unknown backbone",
    "cifar10 -modle resnet": "error: unknown flag -modle. Did you mean -model?",
    "cifar10 -model resnet --epoch 1": "error: unknown flag --epoch. Did you mean --epochs?",
    "cifar10 -model resnet --out README.md/runs": "error: --out README.md/runs",
    "cifar10": "error: the following arguments are required",
    "cifar10 -model resnet -bs 0": "error: argument -bs",
    "cifar10 -model resnet --weights nowhere.pth": "error: --weights nowhere.pth",
    "cifar10 -model wavemix --size 33": "error: wavemix can't take",
    "cifar10 -model resnet --recipe cosine --patience 3": "error: --patience can't be used",
    "breakhis -model resnet --magnification 41": "error: argument --magnification",
    "folder nowhere -model resnet": "error: nowhere does not exist",
    "grid --datasets cifar11": "error: unknown dataset",
    "grid --datasets cifar10 --models resnt": "error: unknown backbone",
    "grid --datasets cifar10 --seeds 4-1": "error: --seeds 4-1",
    "rank cifar11": "error: unknown dataset",
    "rank ./nowhere": "error: ./nowhere: no such folder",
    "rank cifar10 --models resnt swin": "error: unknown backbone",
    "rank cifar10 --models resnet": "error: resnet alone can't be ranked",
    "rank cifar10 --budget 30m": "error: --budget is for the search",
    "rank cifar10 --fine-tune --budget 90": "error: argument --budget",
    "rank breakhis": "error: breakhis names 4 datasets",
    "predict nowhere photo.jpg": "error: nowhere: no such run",
    "predict docs nowhere.jpg": "error: nowhere.jpg: no such file or folder",
    "predict docs docs/report.png --top 0": "error: argument --top",
    "datasets cifar11": "error: unknown dataset",
    "report nowhere": "error: there is no folder",
    "split --input_dir nowhere --output_dir out": "error: --input_dir nowhere",
    "export runs --to onx out": "error: argument --to: invalid choice",
    "export runs out": "error: the following arguments are required: --to",
}


def test_nothing_slow_is_imported() -> None:
    helps = [f"{script} --help" for script in SCRIPTS]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM, *SLOW],
        input="\n".join([*helps, *MISTAKES]),
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    )
    *answers, imported = done.stdout.splitlines()
    assert imported == "imported"
    for line, answer in zip(helps, answers, strict=False):
        assert answer.strip() == f"{line} -> 0"
    for (line, message), answer in zip(MISTAKES.items(), answers[len(helps) :], strict=True):
        assert answer.startswith(f"{line} -> 2 {message}"), answer


# in every Python process that is started with this in its path
ALONE = """
import os, sys

def refuse(event, details):
    asked = event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr", "socket.sendto")
    # the names of a machine's own sockets are texts
    if asked or (event == "socket.connect" and isinstance(details[1], tuple)):
        with open(os.environ["ASKED"], "a") as log:
            log.write(f"{sys.argv}: {event} {details[1:]}\\n")
        raise ConnectionRefusedError("no network here")

sys.addaudithook(refuse)
"""


@pytest.fixture
def alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where what asks for the network is noted, in every process that is started."""
    (tmp_path / "path").mkdir()
    (tmp_path / "path" / "sitecustomize.py").write_text(ALONE)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path / "path"))
    monkeypatch.setenv("ASKED", str(tmp_path / "asked"))
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path / "asked"


def test_what_asks_for_the_network_is_noted(alone: Path) -> None:
    program = "import urllib.request; urllib.request.urlopen('http://127.0.0.1:9')"
    done = subprocess.run([sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "getaddrinfo" in alone.read_text()


def test_no_command_asks_for_the_network_to_say_what_it_does(alone: Path) -> None:
    helps = [f"{script} --help" for script in SCRIPTS]
    lines = [*helps, "datasets", "report nowhere"]
    done = subprocess.run(
        [sys.executable, "-c", PROGRAM], input="\n".join(lines), cwd=PROJECT, capture_output=True, text=True, check=True
    )
    assert done.stdout.count("-> 0") > len(datasets.SCRIPTS)
    assert not alone.exists()


@pytest.mark.slow
def test_nor_to_train_and_to_report(alone: Path, tmp_path: Path) -> None:
    """With all that they import: PyTorch, scikit-learn, the plots."""
    few = ["--weights", "none", "--lr", "1e-6", "--shots", "4", "-bs", "20", "--epochs", "1", "--size", "32"]
    grid = ["grid.py", "--datasets", "digits", "--models", "shufflenet", "mobilenet", *few, "--out", f"{tmp_path}/runs"]
    for command in (grid, ["report.py", f"{tmp_path}/runs", "--out", f"{tmp_path}/report"]):
        done = subprocess.run([sys.executable, *command], cwd=PROJECT, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
    assert (tmp_path / "report" / "report.html").is_file()
    assert len([*tmp_path.glob("runs/digits/*/*/record.json")]) == 2
    assert not alone.exists(), alone.read_text()


@pytest.mark.parametrize(
    ("package", "line"),
    [
        ("tqdm", "digits.py -model shufflenet"),
        ("numpy", "split.py --help"),
        ("torch", "digits.py -model shufflenet"),
        ("torch", "grid.py --datasets digits"),
        ("torch", "rank.py digits"),
    ],
)
def test_an_interruption_while_packages_are_imported_is_no_fault(package: str, line: str, tmp_path: Path) -> None:
    """From the first import of a package on, which takes seconds on a slow disk, and however it takes an exception."""
    (tmp_path / f"{package}.py").write_text(
        "import os, signal\ntry: os.kill(os.getpid(), 2)\nexcept BaseException: 1 / 0\n"
    )
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, *line.split()], cwd=PROJECT, env=environment, capture_output=True, text=True)
    assert (done.returncode, "Traceback" in done.stderr) == (130, False), done.stderr


def test_a_program_that_imports_this_one_keeps_its_own_way_to_end() -> None:
    program = "import signal, common; print(signal.getsignal(signal.SIGINT) is signal.default_int_handler)"
    done = subprocess.run([sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert done.stdout == "True\n"


def test_the_first_package_that_a_script_imports_is_ours() -> None:
    """Since that is what takes Ctrl-C without a traceback."""
    for path in PROJECT.glob("*.py"):
        imported = [
            node for node in ast.parse(path.read_text("utf-8")).body if isinstance(node, ast.Import | ast.ImportFrom)
        ]
        names = [node.module or "" if isinstance(node, ast.ImportFrom) else node.names[0].name for node in imported]
        own = [name for name in names if name.partition(".")[0] not in sys.stdlib_module_names]
        assert own[0].partition(".")[0] in ("common", "engine"), path


def test_a_command_can_be_interrupted_while_it_imports(monkeypatch: pytest.MonkeyPatch) -> None:
    import common
    from tests import toy

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("engine.run.fine_tune", interrupt)
    monkeypatch.setitem(common.BACKBONES, "tiny", toy.TINY)
    with pytest.raises(SystemExit) as end:
        common.main(toy.dataset(), ["-model", "tiny"])
    assert end.value.code == 130
