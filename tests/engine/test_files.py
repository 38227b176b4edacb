"""Where files go."""

import os
import subprocess
from pathlib import Path

import pytest

from engine import files
from engine.errors import UserError, counted


def test_a_folder_that_may_not_be_made_is_refused_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is there may hold a finished run, which is only shown."""
    monkeypatch.setattr(files, "writable", lambda folder: False)
    files.check_output(tmp_path)
    with pytest.raises(UserError, match="no permission to write in"):
        files.check_output(tmp_path / "new" / "runs")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((1, "image"), "1 image"),
        ((2000, "image"), "2,000 images"),
        ((0, "class"), "0 classes"),
        ((1, "class", "have"), "1 class has"),
        ((2, "image", "are"), "2 images are"),
        ((5, "epoch"), "5 epochs"),
        ((5, "batch"), "5 batches"),
        ((1, "image", "differ"), "1 image differs"),
    ],
)
def test_one_is_said_of_one(words: tuple[int, str] | tuple[int, str, str], expected: str) -> None:
    assert counted(*words) == expected


def test_what_a_killed_process_left_of_a_file_is_removed_when_it_is_written_again(tmp_path: Path) -> None:
    """But not what a process writes, here or elsewhere."""
    dead = subprocess.Popen(["true"])
    dead.wait()
    names = {".page.html.{}.tmp": False, ".other.html.{}.tmp": True, ".page.html.more.tmp": True}
    for name in names:
        (tmp_path / name.format(dead.pid)).touch()
    theirs, fresh = tmp_path / f".page.html.{os.getppid()}.tmp", tmp_path / f".page.html.0{dead.pid}.tmp"
    theirs.touch()
    for path in tmp_path.iterdir():
        os.utime(path, (0, 0))
    fresh.touch()
    files.write_text(tmp_path / "page.html", "x")
    assert {name: (tmp_path / name.format(dead.pid)).exists() for name in names} == names
    assert theirs.exists()
    assert fresh.exists()


def test_a_small_file_is_read_and_nothing_else_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "state.json"
    path.write_text('\ufeff{"a": [1, null]}', "utf-8")
    (tmp_path / "link").symlink_to(path)
    assert files.read_json(tmp_path / "link") == {"a": [1, None]}
    with pytest.raises(ValueError, match="larger than 5 bytes"):
        files.read_small(path, 5)
    os.mkfifo(tmp_path / "pipe")
    for strange in (tmp_path / "pipe", Path(os.devnull), tmp_path):
        with pytest.raises(ValueError, match="no regular file"):
            files.read_small(strange)
    with pytest.raises(FileNotFoundError, match="absent"):
        files.read_small(tmp_path / "absent")


@pytest.mark.parametrize(
    "content",
    [b"[" * 100_000, b'{"a":' * 100_000, b"NaN", b"[-Infinity]", b"\xff\xfe", b"", b"{", b"9" * 5000],
    ids=["lists", "objects", "nan", "infinity", "no UTF-8", "nothing", "cut", "digits"],
)
def test_json_that_is_none_has_a_reason(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "state.json").write_bytes(content)
    with pytest.raises(ValueError, match=r"."):
        files.read_json(tmp_path / "state.json")


@pytest.mark.skipif(not Path("/proc/1").is_dir(), reason="no such file system here")
@pytest.mark.timeout(20)
def test_a_lock_that_can_t_be_made_is_not_waited_for() -> None:
    with pytest.raises(OSError, match="No such file"), files.locked(Path("/proc/1/x.lock"), "another is at it"):
        pass
