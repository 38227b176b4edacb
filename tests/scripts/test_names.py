"""Names of folders and images as nobody should give them: taken as they are, and never given to the terminal raw."""

from __future__ import annotations

import os
import sys
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import filelock
import pytest

import folder
import split
from engine.cli import run_command
from engine.console import table
from engine.errors import CONTROLS
from engine.files import locked
from engine.readers.layout import layout_notes
from tests.conftest import Command, only_run
from tests.scripts.test_folder import picture

EVIL = "a\nINJECTED: done\x1b[2J"
NAMES = (
    *(EVIL, "\u202egnp.\u2028x", "=cmd|' C'!A0", "-rf", "--allow-partial", "\U0001f600", "n" * 255, "x\ry", "\x9b31m"),
    *("tab\there", "<script>", "%s{}%(x)s", "\x1b]0;title\x07", "caf\u00e9"),
)


def fill(root: Path, names: tuple[str, ...] = NAMES, images: int = 6) -> Path:
    for number, name in enumerate(names):
        for image in range(images):
            picture(root / name / "image.png", 100 * number + image)
            (root / name / "image.png").rename(root / name / f"{image}\nINJECTED\x1b[31m.png")
    return root


def require_plain(text: str) -> None:
    assert not CONTROLS.search(text.replace("\n", "")), ascii(text)
    assert not [line for line in text.split("\n") if line.startswith("INJECTED")]


def test_class_folders_of_any_name(command: Command, tmp_path: Path, capsys: Any) -> None:
    """They go through split.py, --check and a run, each as a class of its own."""
    source, out = fill(tmp_path / EVIL, images=4), tmp_path / f"out{EVIL}"
    assert split.main(["--input_dir", str(source), "--output_dir", str(out), "--val_size", "0.25"]) == 0
    line = "-model tiny -bs 8 --weights none --epochs 1 --size 16 --plan off"
    for place, flags in ((source, "--check"), (out, "")):
        (tmp_path / "link").unlink(missing_ok=True)
        (tmp_path / "link").symlink_to(place)
        assert command(f"link {line} {flags}", folder.DATASET) == 0
    printed = capsys.readouterr()
    require_plain(printed.out + printed.err)
    assert "14 classes" in printed.out
    assert only_run(tmp_path / "runs")


def lose(root: Path) -> None:
    for image in (root / EVIL).iterdir():
        image.unlink()


def dangle(root: Path) -> None:
    for image in (root / EVIL).iterdir():
        image.unlink()
        image.symlink_to("nothing")


WRONG: list[Callable[[Path], object]] = [
    lose,
    dangle,
    lambda root: os.link(next((root / EVIL).iterdir()), root / NAMES[1] / "x.png"),
    lambda root: [(root / EVIL / f"{n}.x\nINJECTED\x1b").write_bytes(b"8BPS") for n in range(9)],
]


@pytest.mark.parametrize("number", range(len(WRONG)))
def test_messages_with_names_in_them(tmp_path: Path, capsys: Any, number: int) -> None:
    root = fill(tmp_path / "in", NAMES[:3])
    WRONG[number](root)
    assert split.main(["--input_dir", str(root), "--output_dir", str(tmp_path / "out")]) == 2
    printed = capsys.readouterr()
    require_plain(printed.out + printed.err)


@pytest.mark.parametrize("arguments", [[f"--{EVIL}"], [EVIL], ["--link", EVIL], ["--test_size", EVIL]])
def test_a_command_line_with_names_in_it(capsys: Any, arguments: list[str]) -> None:
    assert split.main(["--input_dir", "in", "--output_dir", "out", *arguments]) == 2
    assert not CONTROLS.search(capsys.readouterr().err.replace("\n", ""))


def test_what_python_prints_itself(capsys: Any) -> None:
    def fail() -> int:
        sys.stderr.write(warnings.formatwarning(EVIL, UserWarning, "file", 1))
        raise LookupError(EVIL)

    assert run_command(fail) == 3
    printed = capsys.readouterr().err
    assert printed.count("INJECTED") >= 2
    assert "Traceback" in printed
    assert not CONTROLS.search(printed.replace("\n", ""))


def test_a_wait_in_a_folder_of_any_name(tmp_path: Path, capsys: Any) -> None:
    lock = filelock.FileLock(tmp_path / "lock", thread_local=False)
    lock.acquire()
    threading.Timer(0.05, lock.release).start()
    with locked(tmp_path / "lock", EVIL):
        require_plain(capsys.readouterr().err)


def test_lines_that_are_put_together_of_names() -> None:
    require_plain(table([(EVIL, EVIL), ("a", "b")]))
    images = {"a": [f"a/{EVIL}/1.png", f"a/{EVIL}/1_mask.png", "a/x/1.png"], "b": [f"b/{EVIL}/2.png", "b/x/1.png"]}
    notes = layout_notes(images)
    assert len(notes) == 2
    require_plain("\n".join(notes))
