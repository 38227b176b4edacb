"""reporting/output.py: of a report's files, all are new or none is."""

import errno
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

import report
from engine.errors import RunError, UserError
from engine.paths import PROJECT
from reporting import output
from reporting.output import write_report
from tests.reporting import synthetic

NAMES = ("report.html", "results.csv", "results.md", "results.tex", "runs.csv")


def files(generation: str) -> dict[str, str]:
    return {name: f"{generation} of {name} <title>Which backbone? \n" * 1000 for name in NAMES}


def generations(out: Path) -> list[str]:
    """Of each file, the generation; each must be whole."""
    found = [(out / name).read_text().split()[0] for name in NAMES]
    assert all((out / name).read_text() == files(g)[name] for name, g in zip(NAMES, found, strict=True))
    return found


def forked(work: Callable[[], object]) -> int:
    """The number of a process that does `work`, and ends with 0 if that raises nothing."""
    child = os.fork()
    if child == 0:
        try:
            work()
            os._exit(0)
        finally:
            os._exit(1)
    return child


def ended(child: int) -> int:
    return os.waitpid(child, 0)[1]


def killed_at(number: int, out: Path) -> None:
    """Write the files, and die of a kill at the numbered one of what reaches the disk."""
    done = 0

    def counting(real: Callable[..., object]) -> Callable[..., object]:
        def counted(*arguments: object) -> object:
            nonlocal done
            done += 1
            if done == number:
                os.kill(os.getpid(), signal.SIGKILL)
            return real(*arguments)

        return counted

    os.fsync = counting(os.fsync)  # type: ignore[assignment]
    Path.replace = counting(Path.replace)  # type: ignore[assignment,method-assign]
    write_report(out, files("new"))


def test_a_kill_at_any_moment_leaves_every_file_whole_and_the_next_report_clears_up(tmp_path: Path) -> None:
    seen = set()
    for number in range(1, 3 * len(NAMES) + 2):
        write_report(tmp_path, files("old"))
        status = ended(forked(lambda number=number: killed_at(number, tmp_path)))  # type: ignore[misc]
        seen.add(tuple(generations(tmp_path)))
        assert (status == 0) == (number == 3 * len(NAMES) + 1)
        write_report(tmp_path, files("old"))
        assert sorted(path.name for path in tmp_path.iterdir()) == sorted(NAMES)
    assert {("old",) * len(NAMES), ("new",) * len(NAMES)} < seen
    assert len(seen) == len(NAMES) + 1  # between those that take their places one after another


def test_of_two_reports_at_once_one_has_all_files(tmp_path: Path) -> None:
    def write(generation: str) -> None:
        for _ in range(10):
            write_report(tmp_path, files(generation))

    children = [forked(lambda generation=generation: write(generation)) for generation in ("one", "two")]  # type: ignore[misc]
    assert [ended(child) for child in children] == [0, 0]
    assert len(set(generations(tmp_path))) == 1


def test_a_report_that_was_stopped_is_not_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(output, "PATIENCE_SECONDS", 0.1)
    with output._alone(tmp_path) as first, output._alone(tmp_path) as second:
        assert (first, second) == (True, False)
        write_report(tmp_path, files("new"))
    assert generations(tmp_path) == ["new"] * len(NAMES)


@pytest.mark.parametrize(
    ("number", "kind", "said"),
    [
        (errno.ENOSPC, RunError, "no space left on device"),
        (errno.EDQUOT, RunError, "quota exceeded"),
        (errno.EIO, RunError, "input/output error"),
        (errno.EROFS, UserError, "read-only file system"),
        (errno.EACCES, UserError, "permission denied"),
    ],
)
def test_what_the_disk_refuses_leaves_the_report_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int, kind: type[Exception], said: str
) -> None:
    write_report(tmp_path, files("old"))
    left = 2

    def fsync(descriptor: int) -> None:
        nonlocal left
        left -= 1
        if left < 0:
            raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "fsync", fsync)
    with pytest.raises(kind, match=rf"the report can't be written to {tmp_path}: .*{said}. --out chooses") as problem:
        write_report(tmp_path, files("new"))
    assert "make room" not in str(problem.value)
    assert generations(tmp_path) == ["old"] * len(NAMES)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(NAMES)


def test_a_folder_in_the_place_of_a_file(tmp_path: Path) -> None:
    write_report(tmp_path, files("old"))
    (tmp_path / "results.csv").unlink()
    (tmp_path / "results.csv").mkdir()
    with pytest.raises(UserError, match=r"results.csv is a folder, where the report has a file"):
        write_report(tmp_path, files("new"))
    assert (tmp_path / "results.tex").read_text() == files("old")["results.tex"]


def test_a_link_in_the_place_of_a_file_is_replaced_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("mine")
    write_report(tmp_path, files("old"))
    (tmp_path / "results.csv").unlink()
    (tmp_path / "results.csv").symlink_to(tmp_path / "mine.txt")
    write_report(tmp_path, files("new"))
    assert (tmp_path / "mine.txt").read_text() == "mine"
    assert generations(tmp_path) == ["new"] * len(NAMES)


def test_a_folder_that_goes_away_while_it_is_read_or_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def gone(*_: object, **__: object) -> None:
        raise FileNotFoundError(errno.ENOENT, "No such file or directory", "runs")

    monkeypatch.setattr("reporting.collect.collect", gone)
    (tmp_path / "runs").mkdir()
    assert report.main([str(tmp_path / "runs"), "--out", str(tmp_path / "out")]) == 3
    error = capsys.readouterr().err
    assert error.startswith("error: [Errno 2] No such file or directory: 'runs'.")
    assert error.count("\n") == 1
    assert report.main([str(tmp_path / ("x" * 300))]) == 2


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="Linux has it")
def test_output_that_cannot_be_written_is_said_in_a_line(tmp_path: Path) -> None:
    synthetic.make(tmp_path / "runs", datasets=["ucmerced"], backbones=["swin"], seeds=1, errors=False)
    with Path("/dev/full").open("w") as full:
        printed = subprocess.run(
            [sys.executable, PROJECT / "report.py", tmp_path / "runs", "--out", tmp_path / "out"],
            stdout=full,
            stderr=subprocess.PIPE,
            text=True,
        )
    assert (printed.returncode, printed.stderr.count("\n")) == (3, 1)
    assert printed.stderr.startswith("error: the output can't be written: [Errno 28]")
    assert (tmp_path / "out" / "report.html").exists()


def test_what_no_report_wrote_is_not_replaced(tmp_path: Path) -> None:
    """A user's own results, in a folder that is taken for the report's by mistake."""
    page = "<!doctype html>\n<title>Which backbone? DTD</title>"
    files = {"report.html": page, "results.csv": "new"}
    (tmp_path / "results.csv").write_text("mine")
    for own in ("", "<title>My page</title>"):
        if own:
            (tmp_path / "report.html").write_text(own)
        with pytest.raises(UserError, match=r"results\.csv, but no page of an earlier report"):
            write_report(tmp_path, files)
        assert (tmp_path / "results.csv").read_text() == "mine"
    (tmp_path / "report.html").write_text(page)
    write_report(tmp_path, files)
    assert (tmp_path / "results.csv").read_text() == "new"
