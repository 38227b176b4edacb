"""Which images a command means, in which order, and what is said of those that can't be opened."""

from __future__ import annotations

import io
import os
from collections.abc import Iterable
from pathlib import Path

import pytest

from engine.errors import UserError
from predicting.inputs import Inputs
from tests.predicting.conftest import picture


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def found(*words: str, stdin: bytes = b"") -> list[str]:
    """The paths, with the problem of each that has one."""
    inputs = Inputs(words, io.BytesIO(stdin))
    inputs.require()
    return [f"{each.path}: {each.problem}" if each.problem else each.path for each in inputs]


def touch(*names: str) -> None:
    for name in names:
        Path(name).parent.mkdir(parents=True, exist_ok=True)
        Path(name).write_bytes(b"")


def refused(words: Iterable[str]) -> str:
    with pytest.raises(UserError) as problem:
        found(*words)
    return str(problem.value)


@pytest.mark.usefixtures("place")
def test_a_folder_is_walked_in_the_order_of_its_paths() -> None:
    touch("a/b.jpg", "a/b/2.png", "a/b/1.png", "a/b-1.png", "a/.hidden.png", "a/.git/x.png", "a/@eaDir/x.png")
    touch("a/notes.txt", "a/b/thumbs/x.png", "a/x.bak")
    assert found("a") == ["a/b-1.png", "a/b.jpg", "a/b/1.png", "a/b/2.png"] == sorted(found("a"))


@pytest.mark.usefixtures("place")
def test_a_photograph_without_a_suffix_is_one_in_a_folder() -> None:
    picture(Path("a/1.png"), 0)
    Path("a/1.png").rename("a/photo")
    Path("a/script").write_text("no image")
    assert found("a") == ["a/photo"]


@pytest.mark.usefixtures("place")
def test_what_looks_like_an_image_and_is_not_read_is_named() -> None:
    touch("a/1.jpg", "a/1.cr2", "a/2.cr2", "a/3.svg", "a/4.jpg.nextcloud")
    raw, drawing, elsewhere = found("a")[1:]
    assert raw.startswith("a/2.cr2: a format that nothing here reads")
    assert drawing.startswith("a/3.svg: ")
    assert "still on the server" in elsewhere


@pytest.mark.usefixtures("place")
def test_links_pipes_and_folders_that_may_not_be_read() -> None:
    touch("a/1.jpg")
    Path("a/loop").symlink_to(".")
    Path("a/none.jpg").symlink_to("nowhere")
    os.mkfifo("a/pipe.jpg")
    assert found("a") == ["a/1.jpg", "a/none.jpg: a link to nothing", "a/pipe.jpg: not a regular file"]


@pytest.mark.usefixtures("place")
def test_patterns() -> None:
    touch("a/x/1.jpg", "a/x/2.txt", "a/y/1.jpg", "a/y/z/3.jpg", "a/.b/1.jpg", "b/1.jpg", "a/0.jpg")
    assert found("a/*/*.jpg") == ["a/x/1.jpg", "a/y/1.jpg"]
    assert found("a/**/*.jpg") == ["a/0.jpg", "a/x/1.jpg", "a/y/1.jpg", "a/y/z/3.jpg"]
    assert found("a/*") == ["a/0.jpg", "a/x/1.jpg", "a/y/1.jpg", "a/y/z/3.jpg"]
    assert found("?/1.jpg") == ["b/1.jpg"]
    assert found("a/**") == ["a/0.jpg", "a/x/1.jpg", "a/y/1.jpg", "a/y/z/3.jpg"]
    assert found(f"{Path.cwd()}/b/*") == [f"{Path.cwd()}/b/1.jpg"]


@pytest.mark.usefixtures("place")
def test_a_file_whose_name_is_a_pattern_is_itself() -> None:
    touch("[1].jpg", "1.jpg")
    assert found("[1].jpg") == ["[1].jpg"]


@pytest.mark.usefixtures("place")
def test_stdin_has_paths_as_they_are() -> None:
    touch("a b.jpg", "./x/ü.jpg")
    lines = b"a b.jpg\r\n\nx/\xc3\xbc.jpg\nnowhere.jpg\nx\nb\0d\n\xff.jpg\n"
    assert found("-", stdin=lines) == [
        "a b.jpg",
        "x/ü.jpg",
        "nowhere.jpg: no such file or directory",
        "x: a folder, no image",
        "b\0d: no path: it has a NUL in it",
        "\udcff.jpg: no such file or directory",
    ]


@pytest.mark.usefixtures("place")
def test_twice_the_same_is_twice_answered_in_the_order_of_the_words() -> None:
    touch("b/1.jpg", "a.jpg")
    inputs = Inputs(["b", "a.jpg", "b/1.jpg", "b"], io.BytesIO())
    assert [each.path for each in inputs] == ["b/1.jpg", "a.jpg", "b/1.jpg", "b/1.jpg"]
    assert inputs.number is None
    assert Inputs(["a.jpg", "a.jpg"], io.BytesIO()).number == 2


@pytest.mark.usefixtures("place")
def test_words_that_mean_nothing() -> None:
    touch("photos/x.txt", "photos/y.md", "my photos/1.jpg")
    Path("empty").mkdir()
    os.mkfifo("pipe")
    assert "Did you mean photos?" in refused(["phots"])
    assert "photos holds no image. Of what is there, 1 .md, 1 .txt are none." in refused(["photos"])
    assert "empty holds no image" in refused(["empty"])
    assert "*.jpg matches no image" in refused(["*.jpg"])
    assert "pipe: not a regular file" in refused(["pipe"])
    assert "/dev/null: not a regular file" in refused(["/dev/null"])
    assert "in quotes: 'my photos'" in refused(["my", "photos"])
    assert "is a shell variable not set?" in refused([""])
    assert "stdin can be read once" in refused(["-", "-"])
    with pytest.raises(UserError, match="nothing came from stdin"):
        found("-")


@pytest.mark.usefixtures("place")
def test_a_million_names_are_not_held_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of stdin a line at a time is read."""
    monkeypatch.setattr("predicting.inputs._problem", lambda _: "")
    lines = (b"%d.jpg\n" % number for number in range(10**6))
    inputs = Inputs(["-"], lines)  # type: ignore[arg-type]
    each = iter(inputs)
    assert [next(each).path for _ in range(3)] == ["0.jpg", "1.jpg", "2.jpg"]
    assert next(lines) == b"3.jpg\n"
