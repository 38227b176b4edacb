"""However predict.py ends, what --out names is whole or as it was, and the exit code says how it ended."""

from __future__ import annotations

import errno
import os
import signal
import sys
from collections.abc import Generator, Iterator
from pathlib import Path
from typing import Any

import pytest

import predict
from engine.data.part import Pixels
from predicting import outputs, work
from predicting.decoding import Stream
from tests.predicting.conftest import Ask

real = work.predicted


@pytest.fixture
def kept() -> Iterator[Path]:
    """Answers of an earlier command, which nothing but whole new ones may replace."""
    path = Path("answers.csv")
    path.write_text("path,class,kept")
    yield path
    assert path.read_text() == "path,class,kept"
    assert [each.name for each in Path().glob("*answers*")] == ["answers.csv"]


def stopping(problem: BaseException) -> Any:
    """predicted(), that ends after a batch."""

    def predicted(*given: Any) -> Generator[Any, None, None]:
        yield next(real(*given))
        raise problem

    return predicted


@pytest.mark.parametrize(
    ("problem", "code", "words"),
    [
        (KeyboardInterrupt(), 130, "interrupted. What --out and --explain name is written whole or not at all."),
        (MemoryError(), 3, "out of memory"),
        (OSError(errno.EIO, "Input/output error", "photos"), 3, "input/output error"),
    ],
)
def test_an_end_in_between(
    ask: Ask, run: Path, kept: Path, monkeypatch: pytest.MonkeyPatch, problem: BaseException, code: int, words: str
) -> None:
    monkeypatch.setattr(work, "predicted", stopping(problem))
    said = ask(f"{run} pets/test --out {kept} --explain overlays")
    assert said.code == code
    assert words in said.problems
    assert "Traceback" not in said.problems
    assert not list(Path().glob("*overlays*"))
    assert not list(Path().glob(".*overlays*"))


def test_overlays_that_the_disk_does_not_take(ask: Ask, run: Path, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        said = ask(f"{run} pets/test --out {kept} --explain overlays")
    assert said.code == 3
    assert "can't write overlays: no space left on device. Make room, or let --explain name" in said.problems
    assert not list(Path().glob(".*overlays*"))


def test_overlays_go_where_a_link_leads_to(ask: Ask, run: Path) -> None:
    Path("elsewhere").mkdir()
    for name in ("elsewhere", "nowhere"):
        Path("link").unlink(missing_ok=True)
        Path("link").symlink_to(name)
        assert ask(f"{run} pets/test/cat/15.png --csv --explain link").code == 0
        assert Path("link").is_symlink()
        assert [path.name for path in Path(name).iterdir()] == ["000001-15.png.png"]


def test_a_disk_that_becomes_full(ask: Ask, run: Path, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("engine.files.os.fsync", full)
    said = ask(f"{run} pets/test --out {kept}")
    assert said.code == 3
    assert "can't write answers.csv: no space left on device. Make room, or let --out name" in said.problems


def test_a_reader_that_is_gone(ask: Ask, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As after `| head`."""
    for form in ("", "--csv", "--json"):
        reader, writer = os.pipe()
        os.close(reader)
        with monkeypatch.context() as patch, os.fdopen(writer, "w") as gone:
            patch.setattr(sys, "stdout", gone)
            words = [str(run), "pets/test", "--device", "cpu", *form.split()]
            assert predict.main(words) == 130


def test_ctrl_c_while_images_are_decoded(ask: Ask, run: Path, kept: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(self: Stream, file: int, row: int, pixels: Pixels) -> None:
        os.kill(os.getpid(), signal.SIGINT)

    monkeypatch.setattr(Stream, "_read", interrupted)
    assert ask(f"{run} pets/test --out {kept}").code == 130


def test_rows_that_stdout_does_not_take(ask: Ask, run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch, Path("/dev/full").open("w") as full:
        patch.setattr(sys, "stdout", full)
        assert predict.main([str(run), "pets/test", "--device", "cpu", "--csv"]) == 3


def test_a_terminal_is_given_no_commands(monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    with outputs.writing(None) as write:
        write("\x1b[2J,ä\nb\n")
    assert capfd.readouterr().out == "\\x1b[2J,ä\nb\n"
