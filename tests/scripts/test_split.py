"""split.py: class folders -> train, val and test, whole or not at all, whatever happens meanwhile."""

import errno
import json
import os
import platform
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

import split
from engine import files
from engine.paths import PROJECT
from engine.readers.class_folders import list_classes

Run = Callable[..., "Result"]


class Result:
    """What a run returned and printed."""

    def __init__(self, code: int, out: str, err: str) -> None:
        self.code, self.out, self.err = code, out, err

    def refused(self, *expected: str) -> None:
        """The run ended as the user's mistake, in one message that holds what is expected."""
        assert self.code == 2, self.err
        assert self.err.startswith("error: ")
        assert self.err.count("error: ") == 1
        assert "Traceback" not in self.err
        for text in expected:
            assert text in self.err


@pytest.fixture
def run(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> Run:
    """split.py in this process, from `in` to `out` in the test's folder if the flags say nothing else."""

    def call(*flags: str, source: Path | str = tmp_path / "in", output: Path | str = tmp_path / "out") -> Result:
        code = split.main(["--input_dir", str(source), "--output_dir", str(output), *flags])
        captured = capsys.readouterr()
        return Result(code, captured.out, captured.err)

    return call


def fill(folder: Path, **classes: int | list[str]) -> Path:
    """Class folders with so many images, or with these files; a file's content is its name."""
    for name, content in classes.items():
        for file in [f"{n}.png" for n in range(content)] if isinstance(content, int) else content:
            path = folder / name / file
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{name}/{file}", encoding="utf-8")
    return folder


def files_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir())


def read_record(folder: Path) -> dict[str, Any]:
    content = json.loads((folder / "split.json").read_text("utf-8"))
    assert isinstance(content, dict)
    return content


def test_train_and_test(run: Run, tmp_path: Path) -> None:
    fill(tmp_path / "in", cat=10, dog=11)
    result = run("--test_size", "0.2")
    assert (result.code, result.err) == (0, "")
    out = tmp_path / "out"
    assert {part: len(files_in(out / part)) for part in ("train", "test")} == {"train": 16, "test": 5}
    assert len(files_in(out / "test" / "dog")) == 3
    assert sorted(path.name for path in out.iterdir()) == ["split.json", "test", "train"]
    for part in ("train", "test"):
        assert all((out / part / name).read_text("utf-8") == name for name in files_in(out / part))
    assert sorted(files_in(out / "train") + files_in(out / "test")) == files_in(tmp_path / "in")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]

    record = read_record(out)
    assert record["classes"] == ["cat", "dog"]
    assert record["counts"] == {"train": {"cat": 8, "dog": 8}, "test": {"cat": 2, "dog": 3}}
    assert record["options"] == {
        "test_size": 0.2,
        "val_size": 0.0,
        "random_state": 42,
        "group_regex": None,
        "link": "copy",
    }
    assert {part: sorted(names) for part, names in record["files"].items()} == {
        part: files_in(out / part) for part in ("train", "test")
    }
    sizes = {**record["files"]["train"], **record["files"]["test"]}
    assert all(size == len(name) for name, size in sizes.items())
    last = result.out.splitlines()[-1]
    assert last == f"Split 21 images into 16 train, 5 test; listed in {out / 'split.json'}"


def test_train_val_and_test_with_breakhis_sizes(run: Run, tmp_path: Path) -> None:
    fill(tmp_path / "in", benign=62, malignant=137)
    assert run("--test_size", "0.2", "--val_size", "0.1", "--link", "soft").code == 0
    assert read_record(tmp_path / "out")["counts"] == {
        "train": {"benign": 43, "malignant": 95},
        "val": {"benign": 6, "malignant": 14},
        "test": {"benign": 13, "malignant": 28},
    }


def test_difficult_names_and_nested_folders(run: Run, tmp_path: Path) -> None:
    names = ["a, b (c).JPG", "ü 日本.jpeg", "sub/x.Tiff", "sub/deeper/x.tiff", "100%.webp", "-dash.png", "{0}'\".bmp"]
    fill(tmp_path / "in", **{"Corn (maize), grey": names, "Größe": names, "cat": names, "Cat": names})
    assert run("--test_size", "0.3").code == 0
    out = tmp_path / "out"
    assert sorted(files_in(out / "train") + files_in(out / "test")) == files_in(tmp_path / "in")
    assert read_record(out)["classes"] == ["Cat", "Corn (maize), grey", "Größe", "cat"]


def test_other_files_are_ignored_and_counted(run: Run, tmp_path: Path) -> None:
    source = fill(tmp_path / "in", cat=5, dog=5)
    fill(source, cat=["Thumbs.db", "notes.txt", "._1.png", ".DS_Store", ".hidden/9.png", "README"])
    fill(source, __MACOSX=["cat/._1.png"])
    fill(source, **{".git": ["x.png"], ".": ["labels.txt", "preview.png"]})
    result = run()
    assert result.code == 0
    assert sum(len(names) for names in read_record(tmp_path / "out")["files"].values()) == 10
    assert "1 image outside the class folders left out" in result.out
    assert "8 other files ignored: 1 .db, 2 .txt, 4 hidden, 1 no suffix" in result.out
    assert "Left out, as other programs left them: 1 __MACOSX/" in result.out


def test_what_looks_like_an_image_and_is_not_read(run: Run, tmp_path: Path) -> None:
    fill(tmp_path / "in", cat=["raw.nef", "1.jpg", "2.jpg", "3.jpg"], dog=5)
    run().refused("1 would not be used: 1 .nef", "--allow-partial")
    result = run("--allow_partial")
    assert "Left out, but like images: 1 .nef" in result.out
    assert sum(len(names) for names in read_record(tmp_path / "out")["files"].values()) == 8


def test_same_seed_same_bytes_whatever_the_file_system_says(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "in", **{f"class {n}": [f"{m}/{n}.png" for m in range(12)] for n in range(5)})
    fill(tmp_path / "elsewhere", **{f"class {n}": [f"{m}/{n}.png" for m in range(12)] for n in range(5)})
    assert run("--val_size", "0.1", output=tmp_path / "first").code == 0
    scandir = os.scandir
    shuffled = 0

    @contextmanager
    def shuffle(path: Any) -> Iterator[Iterator[os.DirEntry[str]]]:
        nonlocal shuffled
        shuffled += Path(path).is_relative_to(tmp_path / "elsewhere")
        with scandir(path) as entries:
            found = list(entries)
        random.Random(shuffled).shuffle(found)
        yield iter(found)

    monkeypatch.setattr(os, "scandir", shuffle)
    assert run("--val_size", "0.1", source=tmp_path / "elsewhere", output=tmp_path / "second").code == 0
    monkeypatch.undo()
    assert shuffled == 66  # every folder once: the input, 5 classes, 12 in each
    first, second = ((tmp_path / name / "split.json").read_bytes() for name in ("first", "second"))
    assert first == second
    assert run("--val_size", "0.1", "--random_state", "43", output=tmp_path / "third").code == 0
    assert read_record(tmp_path / "third")["hash"] != read_record(tmp_path / "first")["hash"]


def test_images_are_listed_in_the_order_of_their_characters(tmp_path: Path) -> None:
    fill(tmp_path / "in", b=["Z.png", "a/z.png", "a.png", "ä.png", "a/b/1.png", "10.png", "9.png"], a=1, B=1)
    listing = list_classes(tmp_path / "in")
    assert list(listing.classes) == ["B", "a", "b"]
    found = listing.classes["b"]
    assert found == ["b/10.png", "b/9.png", "b/Z.png", "b/a.png", "b/a/b/1.png", "b/a/z.png", "b/ä.png"]


def test_hash_changes_when_a_file_is_renamed(run: Run, tmp_path: Path) -> None:
    fill(tmp_path / "in", cat=5, dog=5)
    assert run(output=tmp_path / "first").code == 0
    (tmp_path / "in/cat/4.png").rename(tmp_path / "in/cat/5.png")
    assert run(output=tmp_path / "second").code == 0
    assert read_record(tmp_path / "first")["hash"] != read_record(tmp_path / "second")["hash"]


@pytest.mark.parametrize("link", ["hard", "soft", "copy"])
def test_links(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, link: str) -> None:
    fill(tmp_path / "in", cat=5, dog=4)
    (tmp_path / "elsewhere.png").write_bytes(b"fifth")
    (tmp_path / "in/dog/4.png").symlink_to("../../elsewhere.png")
    monkeypatch.chdir(tmp_path)
    assert run("--link", link, source="in", output="deep/er/out").code == 0
    out = tmp_path / "deep/er/out"
    assert read_record(out)["options"]["link"] == link
    for part in ("train", "test"):
        for name in files_in(out / part):
            path, original = out / part / name, tmp_path / "in" / name
            assert path.read_bytes() == original.read_bytes()
            assert path.is_symlink() == (link == "soft")
            assert path.samefile(original) == (link != "copy")


@pytest.mark.parametrize("kind", ["hard", "soft"])
def test_one_image_by_two_names_could_land_on_both_sides(run: Run, tmp_path: Path, kind: str) -> None:
    fill(tmp_path / "in", cat=5, dog=5)
    if kind == "hard":
        os.link(tmp_path / "in/cat/1.png", tmp_path / "in/cat/twin.png")
    else:
        (tmp_path / "in/cat/twin.png").symlink_to("1.png")
    run().refused("cat/twin.png: the same file as cat/1.png" if kind == "hard" else "the same file as")


def test_hard_links_to_another_disk(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "in", cat=5, dog=5)

    def refuse(*_: Any, **__: Any) -> None:
        raise OSError(errno.EXDEV, os.strerror(errno.EXDEV))

    monkeypatch.setattr(os, "link", refuse)
    run("--link", "hard").refused("cross-device", "--link soft or --link copy")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_dry_run_writes_nothing(run: Run, tmp_path: Path) -> None:
    fill(tmp_path / "in", cat=10, dog=1200)
    result = run("--dry_run", "--val_size", "0.1")
    assert result.code == 0
    assert [line.split() for line in result.out.splitlines()[1:5]] == [
        ["class", "images", "train", "val", "test"],
        ["cat", "10", "6", "1", "3"],
        ["dog", "1,200", "839", "120", "241"],
        ["all", "1,210", "845", "121", "244"],
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_groups_stay_together_across_classes(run: Run, tmp_path: Path) -> None:
    names = [f"patient{n}_{m}.png" for n in range(20) for m in range(3)]
    fill(tmp_path / "in", benign=names[:36], malignant=names[24:])
    result = run("--val_size", "0.2", "--group_regex", r"^(patient\d+)_")
    assert result.code == 0
    assert "20 groups, each in one part" in result.out
    record = read_record(tmp_path / "out")
    assert record["groups"]["benign/patient3_1.png"] == "patient3"
    seen = {part: {record["groups"][name] for name in names} for part, names in record["files"].items()}
    assert set().union(*seen.values()) == {f"patient{n}" for n in range(20)}
    assert sum(map(len, seen.values())) == 20
    assert all(count["benign"] in range(3, 25) for count in record["counts"].values())
    assert sum(record["counts"]["train"].values()) == pytest.approx(0.6 * 72, abs=4)


def test_a_regex_without_a_group_takes_all_that_matches(run: Run, tmp_path: Path) -> None:
    fill(tmp_path / "in", cat=["a1.png", "a2.png", "b1.png"], dog=["a3.png", "b2.png", "b3.png"])
    assert run("--group_regex", "^[ab]", "--test_size", "0.5").code == 0
    groups = read_record(tmp_path / "out")["groups"]
    assert set(groups.values()) == {"a", "b"}
    assert {path.name[0] for path in (tmp_path / "out/test").rglob("*.png")} in ({"a"}, {"b"})


def test_a_regex_looks_at_the_name_not_the_folder(run: Run, tmp_path: Path) -> None:
    fill(tmp_path / "in", p1=["s1/a.png", "s2/b.png"], p2=["s1/a.png", "s2/b.png"])
    run("--group_regex", r"[ps]\d").refused("p1/s1/a.png", "Without a match")


@pytest.mark.parametrize(
    ("regex", "expected"),
    [
        ("(", "not a regular expression"),
        (r"^(\d)?x?", "Without a match"),
        (r"^(a\d)", "cat/none.png"),
        ("", "dog: none in test; 1 group in all"),
        ("^[ab]", "cat: none in test; 1 group in all"),
    ],
)
def test_wrong_groups(run: Run, tmp_path: Path, regex: str, expected: str) -> None:
    fill(tmp_path / "in", cat=["a1.png", "a2.png"], dog=["a1.png", "b1.png"])
    if "a" in expected and "none.png" in expected:
        fill(tmp_path / "in", cat=["none.png"])
    run("--group_regex", regex).refused(expected)
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


@pytest.mark.parametrize(
    "flags",
    [
        ["--test_size", "0"],
        ["--test_size", "1"],
        ["--test_size", "-0.1"],
        ["--test_size", "nan"],
        ["--test_size", "inf"],
        ["--test_size", "20"],
        ["--test_size", "much"],
        ["--val_size", "-0.1"],
        ["--val_size", "1"],
        ["--val_size", "nan"],
        ["--test_size", "0.7", "--val_size", "0.3"],
        ["--random_state", "-1"],
        ["--random_state", "4294967296"],
        ["--random_state", "0.5"],
        ["--link", "symlink"],
        ["--val", "0.1"],
        ["--unknown"],
    ],
    ids=" ".join,
)
def test_wrong_flags(run: Run, tmp_path: Path, flags: list[str]) -> None:
    fill(tmp_path / "in", cat=20, dog=20)
    run(*flags).refused(flags[-2] if len(flags) > 1 else flags[-1])
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_missing_flags(capsys: pytest.CaptureFixture[str]) -> None:
    assert split.main([]) == 2
    error = capsys.readouterr().err
    assert "--input_dir, --output_dir" in error
    assert error.count("\n") == 1


def test_help(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        split.main(["--help"])
    assert end.value.code == 0
    text = capsys.readouterr().out
    flags = "input_dir output_dir test_size val_size random_state group_regex link dry_run overwrite"
    assert all(f"--{flag}" in text for flag in flags.split())


def test_wrong_inputs(run: Run, tmp_path: Path) -> None:
    source = tmp_path / "in"
    run().refused("does not exist")
    run(source="").refused("--input_dir: the path is empty")
    source.write_text("")
    run().refused("is a file")
    source.unlink()
    source.mkdir()
    run().refused("Found no class folders", "Expected one folder per class")
    fill(source, **{".": 3})
    run().refused("3 images but no class folders")
    fill(source, images=["cat/1.png", "cat/2.png", "dog/1.png"])
    run().refused("a single class folder", f"{source}/images")
    fill(source, cat=["1.txt"])
    (source / "dog").mkdir()
    run().refused("images in a single folder of", f"{source}/images")
    fill(source, cow=2)
    run().refused("2 of the 4 class folders", "\n  cat\n  dog\n")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_input_that_is_split_already(run: Run, tmp_path: Path) -> None:
    fill(tmp_path / "in", train=["cat/1.png", "cat/2.png"], val=["cat/3.png", "cat/4.png"])
    run().refused("split already")


def test_small_classes_are_named_with_the_number_needed(run: Run, tmp_path: Path) -> None:
    fill(tmp_path / "in", cat=6, dog=1, cow=7)
    run().refused("dog: 1", "at least 2")
    result = run("--val_size", "0.1")
    result.refused("cat: 6", "dog: 1", "at least 7")
    assert "cow" not in result.err
    fill(tmp_path / "in", cat=7, dog=7)
    assert run("--val_size", "0.1").code == 0


def test_unusable_files_are_all_listed(run: Run, tmp_path: Path) -> None:
    source = fill(tmp_path / "in", cat=5, dog=5)
    for n in range(30):
        (source / f"cat/broken{n:02}.jpg").symlink_to("nowhere")
    os.mkfifo(source / "cat/a pipe.png")
    (source / "itself").symlink_to("itself")
    result = run()
    result.refused("(32)", "cat/a pipe.png: not a regular file", "cat/broken18.jpg: a link to nothing", "and 12 more")
    assert "broken19" not in result.err
    assert [path.name for path in tmp_path.iterdir()] == ["in"]
    shutil.rmtree(source / "cat")
    run().refused("itself: a link to nothing")


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_files_without_permission(run: Run, tmp_path: Path) -> None:
    source = fill(tmp_path / "in", cat=5, dog=5, cow=5)
    (source / "cat/1.png").chmod(0)
    (source / "dog").chmod(0)
    try:
        run().refused("cat/1.png: Permission denied", "dog/: Permission denied")
    finally:
        (source / "dog").chmod(0o700)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems refuse such names themselves")
def test_names_that_are_not_utf8(run: Run, tmp_path: Path) -> None:
    source = fill(tmp_path / "in", cat=5, dog=5)
    (source / os.fsdecode(b"cat/\xff.png")).touch()
    run().refused("not UTF-8", "\\udcff.png")


def test_a_class_whose_name_is_not_utf8(run: Run, tmp_path: Path) -> None:
    source = fill(tmp_path / "in", cat=5, dog=5)
    image = source / os.fsdecode(b"caf\xe9") / "1.png"
    image.parent.mkdir()
    image.touch()
    run().refused("not UTF-8", "caf\\udce9/: ")
    assert not (tmp_path / "out").exists()


def test_a_locale_without_utf8_reads_no_names(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """ASCII makes halves of characters of them, Latin-1 other letters, which would be another class in the record."""
    source = fill(tmp_path / "in", cat=5, dog=5)
    monkeypatch.setattr(sys, "getfilesystemencoding", lambda: "iso8859-1")
    assert run("--dry_run").code == 0
    fill(source, tür=5, cat=["tür.png"])
    run(source=tmp_path / "tür").refused("read as iso8859-1, by the locale: put PYTHONUTF8=1 before the command")
    run().refused("Unusable", "(2)", "read as iso8859-1, by the locale: put PYTHONUTF8=1 before the command")


def test_names_are_shown_in_one_line_and_give_a_terminal_no_commands(run: Run, tmp_path: Path) -> None:
    """A sheet of names could otherwise be forged, or what was printed before be changed."""
    names = ["new\nline", "red\x1b[31m", "right\u202eleft", "back\rwards", "tab\t"]
    source = fill(tmp_path / "in", **dict.fromkeys(names, 5))
    (source / "image\x07.png").touch()
    done = run()
    assert done.code == 0
    lines = [line for line in done.out.splitlines() if line.split()[1:] == ["5", "4", "1"]]
    assert sorted(line.split()[0] for line in lines) == sorted(ascii(name)[1:-1] for name in names)
    assert done.out.replace("\n", "").isprintable()
    assert sorted(read_record(tmp_path / "out")["classes"]) == sorted(names)
    fill(source, **{"few\n\x1b[2J": 1})
    refused = run(output=tmp_path / "other")
    refused.refused("few\\n\\x1b[2J: 1")
    assert refused.err.replace("\n", "").isprintable()


def test_an_output_of_the_longest_name(run: Run, tmp_path: Path) -> None:
    fill(tmp_path / "in", cat=5, dog=5)
    assert run(output=tmp_path / ("ü" * 127)).code == 0
    assert run("--overwrite", output=tmp_path / ("ü" * 127)).code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "ü" * 127]
    run(output=tmp_path / ("x" * 256)).refused("is longer than this disk takes names or paths")


def test_linked_folders(run: Run, tmp_path: Path) -> None:
    source = fill(tmp_path / "in", cat=5)
    fill(tmp_path / "elsewhere", dog=5)
    (source / "dog").symlink_to(tmp_path / "elsewhere/dog")
    assert run().code == 0
    assert len(files_in(tmp_path / "out/train/dog")) == 4
    (source / "cat/loop").symlink_to(source)
    run("--dry_run", "--overwrite").refused("same folder", str(source / "cat/loop"))
    (source / "cat/loop").unlink()
    (source / "wolf").symlink_to("dog")
    run("--dry_run", "--overwrite").refused("same folder")


def test_outputs_that_overlap_the_input(run: Run, tmp_path: Path) -> None:
    source = fill(tmp_path / "in", cat=5, dog=5)
    before = files_in(tmp_path)
    run(output=source).refused("the same folder")
    run(output=source / "cat/..").refused("the same folder")
    run(output=source / "out").refused("lies in the input")
    run(source=source / "cat", output=source).refused("lies in the output")
    (tmp_path / "link").symlink_to(source)
    run(output=tmp_path / "link/out").refused("lies in the input")
    run(output="").refused("--output_dir: the path is empty")
    (tmp_path / "link").unlink()
    assert files_in(tmp_path) == before


def test_outputs_that_cannot_be_made(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "in", cat=5, dog=5)
    (tmp_path / "file").write_text("mine")
    run(output=tmp_path / "file").refused("is a file")
    run(output=tmp_path / "file/out").refused("is a file")
    (tmp_path / "out").mkdir()
    monkeypatch.setattr(os.path, "ismount", lambda path: path == tmp_path / "out")
    run().refused("mount point")
    monkeypatch.undo()
    access = os.access
    monkeypatch.setattr(os, "access", lambda path, mode: mode != os.W_OK | os.X_OK and access(path, mode))
    run(output=tmp_path / "a/b/out").refused(f"No permission to write in {tmp_path}")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_output_without_permission(run: Run, tmp_path: Path) -> None:
    fill(tmp_path / "in", cat=5, dog=5)
    (tmp_path / "locked").mkdir(mode=0o500)
    run(output=tmp_path / "locked/out").refused("No permission to write")
    (tmp_path / "locked").chmod(0)
    run(output=tmp_path / "locked/deep/out").refused("No permission to write")


def test_an_empty_output_folder_will_do(run: Run, tmp_path: Path) -> None:
    fill(tmp_path / "in", cat=5, dog=5)
    (tmp_path / "out").mkdir()
    assert run().code == 0
    assert read_record(tmp_path / "out")["classes"] == ["cat", "dog"]


def test_overwrite_replaces_an_earlier_split_and_nothing_else(run: Run, tmp_path: Path) -> None:
    out = tmp_path / "out"
    fill(tmp_path / "in", cat=5, dog=5)
    for content in ({"notes.txt": "x"}, {"split.json": "{}"}, {"split.json": "[1"}, {".git": ""}):
        out.mkdir()
        for name, text in content.items():
            (out / name).write_text(text)
        run().refused("did not make", *content)
        run("--overwrite").refused("did not make", *content)
        assert files_in(out) == list(content)
        shutil.rmtree(out)

    assert run().code == 0
    first = files_in(out)
    run("--random_state", "1").refused("already holds a split", "--overwrite")
    assert files_in(out) == first
    assert run("--random_state", "1", "--overwrite").code == 0
    assert files_in(out) != first
    assert read_record(out)["options"]["random_state"] == 1
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]

    (out / "my notes.txt").write_text("")
    run("--overwrite").refused("my notes.txt")
    assert "my notes.txt" in files_in(out)


@pytest.mark.parametrize("link", ["copy", "hard", "soft"])
def test_overwrite_takes_no_file_that_was_added_to_a_part_or_changed_there(run: Run, tmp_path: Path, link: str) -> None:
    fill(tmp_path / "in", cat=5, dog=5)
    assert run("--link", link).code == 0
    (tmp_path / "out" / "train" / ".DS_Store").touch()
    assert run("--link", link, "--overwrite").code == 0

    image = next((tmp_path / "out" / "train" / "cat").iterdir())
    image.write_bytes(b"cropped")  # of a link, the input is what has changed
    refused = run("--link", link, "--overwrite", "--random_state", "1")
    assert refused.code == (2 if link == "copy" else 0)
    if link == "copy":
        refused.refused("did not make", f"train/cat/{image.name}")
        assert image.read_bytes() == b"cropped"
        shutil.rmtree(tmp_path / "out")
        assert run("--link", link).code == 0

    for added in ("train/cat/mine.png", "test/dog/notes/of mine.txt"):
        path = tmp_path / "out" / added
        path.parent.mkdir(exist_ok=True)
        path.write_text("mine")
        run("--link", link, "--overwrite").refused("did not make", added)
        assert path.read_text() == "mine"
        path.unlink()
    assert run("--link", link, "--overwrite").code == 0


@pytest.mark.parametrize("left", ["@eaDir/split.json@SynoEAStream", ".DS_Store", "Thumbs.db", "._train"])
def test_what_a_system_leaves_in_the_output_is_no_obstacle(left: str, run: Run, tmp_path: Path) -> None:
    fill(tmp_path / "in", cat=5, dog=5)
    for flags in ((), ("--overwrite",)):
        (tmp_path / "out" / left).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / left).touch()
        assert run(*flags).code == 0
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["split.json", "test", "train"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


@pytest.mark.parametrize("left", ["#recycle/my.png", ".Trash-1000/my.png", ".stversions/my.png", "@Recycle/my.png"])
def test_what_is_in_the_trash_of_the_output_is_not_lost(left: str, run: Run, tmp_path: Path) -> None:
    fill(tmp_path / "in", cat=5, dog=5)
    (tmp_path / "out" / left).parent.mkdir(parents=True)
    (tmp_path / "out" / left).touch()
    run().refused("did not make", left.partition("/")[0])
    run("--overwrite").refused("did not make", left.partition("/")[0])
    assert (tmp_path / "out" / left).exists()


def test_overwrite_keeps_images_that_the_input_only_links_to(run: Run, tmp_path: Path) -> None:
    fill(tmp_path / "in", cat=5, dog=5)
    assert run().code == 0
    other = fill(tmp_path / "other", cat=5)
    (other / "dog").symlink_to(tmp_path / "out/train/dog")
    run("--overwrite", source=other).refused("links into", "dog/")
    assert (tmp_path / "out/split.json").exists()


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (
            OSError(errno.ENOSPC, "No space left", "out"),
            3,
            "can't use out: no space left. Nothing half-written is left",
        ),
        (OSError(errno.EDQUOT, "Quota exceeded", "out"), 3, "with room for copies"),
        (OSError(errno.EROFS, "Read-only", "out"), 2, "can't use out: read-only. Nothing half-written is left"),
        (PermissionError(errno.EACCES, "Denied", "in/a"), 2, "can't use in/a: denied. Nothing half-written is left"),
        (KeyboardInterrupt(), 130, "interrupted"),
    ],
)
def test_a_failure_leaves_all_as_it_was(
    run: Run,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    overwrite: bool,
    error: BaseException,
    code: int,
    message: str,
) -> None:
    fill(tmp_path / "in", cat=5, dog=5)
    if overwrite:
        assert run("--random_state", "7").code == 0
    before = files_in(tmp_path)
    copy, copies = shutil.copyfile, 0

    def fail(source: Path, target: Path) -> None:
        nonlocal copies
        copies += 1
        if copies == 5:
            raise error
        copy(source, target)

    monkeypatch.setattr(shutil, "copyfile", fail)
    result = run(*["--overwrite"] * overwrite)
    assert (result.code, copies) == (code, 5)
    assert message in result.err
    assert result.err.count("\n") == 1
    assert files_in(tmp_path) == before
    assert (tmp_path / "out").exists() == overwrite


def test_the_old_output_comes_back_when_the_last_rename_fails(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "in", cat=5, dog=5)
    assert run("--random_state", "7").code == 0
    before = files_in(tmp_path)
    rename = Path.rename

    def fail(path: Path, target: Path) -> Path:
        if path.name.endswith(".partial"):
            raise OSError(errno.EIO, "Input/output error")
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", fail)
    assert run("--overwrite").code == 3
    assert files_in(tmp_path) == before


def test_an_output_that_another_run_made_meanwhile_is_kept(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fill(tmp_path / "in", cat=5, dog=5)

    def late(path: Path, content: Any) -> None:
        files.write_json(path, content)
        fill(tmp_path / "out", theirs=1)

    monkeypatch.setattr("engine.data.split_output.write_json", late)
    run().refused("made by another program while this one worked", "--overwrite")
    assert files_in(tmp_path / "out") == ["theirs/0.png"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_two_names_that_the_disk_takes_for_one(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    fill(tmp_path / "in", cat=5, dog=5)
    monkeypatch.setattr(os.path, "lexists", lambda path: path.name == "3.png")
    run().refused("3.png", "capitals")
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


SLOW = """
import shutil, signal, sys, time
import split
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job starts with it ignored
copy = shutil.copyfile
shutil.copyfile = lambda source, target: (time.sleep(0.05), copy(source, target))
sys.exit(split.main(sys.argv[1:]))
"""


@contextmanager
def slow_run(tmp_path: Path, *flags: str) -> Iterator[subprocess.Popen[str]]:
    """split.py in a process of its own, slowed down, when it has copied a few images."""
    # groups, of one image each, since these are divided without scikit-learn, whose import takes seconds
    command = [sys.executable, "-c", SLOW, "--input_dir", "in", "--output_dir", "out", "--group_regex", ".*", *flags]
    process = subprocess.Popen(
        command, cwd=tmp_path, env={**os.environ, "PYTHONPATH": str(PROJECT)}, stderr=subprocess.PIPE, text=True
    )
    try:
        limit = time.monotonic() + 60
        while not list(tmp_path.glob(".out.*.partial/*/*/*")):
            assert process.poll() is None
            assert time.monotonic() < limit
            time.sleep(0.02)
        yield process
    finally:
        process.kill()
        process.communicate()


def finished_process() -> int:
    """The number of a process that runs no more."""
    process = subprocess.Popen(["true"])
    process.wait()
    return process.pid


def test_interrupt(tmp_path: Path) -> None:
    fill(tmp_path / "in", cat=100, dog=100)
    with slow_run(tmp_path) as process:
        process.send_signal(signal.SIGINT)
        _, error = process.communicate(timeout=60)
    assert process.returncode == 130
    assert error == "error: interrupted; no half-written output is left\n"
    assert [path.name for path in tmp_path.iterdir()] == ["in"]


def test_kill_leaves_the_old_output_and_the_next_run_cleans_up(run: Run, tmp_path: Path) -> None:
    fill(tmp_path / "in", cat=100, dog=100)
    assert run("--random_state", "7").code == 0
    before = files_in(tmp_path / "out")
    with slow_run(tmp_path, "--overwrite") as process:
        # a run beside one that is alive leaves its folder alone
        assert run("--random_state", "7", "--overwrite").code == 0
        assert list(tmp_path.glob(".out.*.partial"))
        process.kill()
        process.wait()
    (left,) = tmp_path.glob(".out.*")
    assert left.name.endswith(".partial")
    assert not (left / "split.json").exists()
    assert files_in(tmp_path / "out") == before
    assert run("--overwrite").code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_the_command_that_was_killed_between_the_two_renames_ends_well_when_it_is_given_again(
    run: Run, tmp_path: Path
) -> None:
    fill(tmp_path / "in", cat=5, dog=5)
    assert run("--random_state", "7").code == 0
    base = f".out.{platform.node()}.{finished_process()}"
    (tmp_path / "out").rename(tmp_path / f"{base}.old")
    (tmp_path / f"{base}.partial").mkdir()
    assert run("--overwrite").code == 0
    assert run(output=tmp_path / "other").code == 0
    assert files_in(tmp_path / "out") == files_in(tmp_path / "other")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "other", "out"]


def test_kill_between_the_two_renames(run: Run, tmp_path: Path) -> None:
    fill(tmp_path / "in", cat=5, dog=5)
    assert run("--random_state", "7").code == 0
    before = files_in(tmp_path / "out")
    base = f".out.{platform.node()}.{finished_process()}"
    (tmp_path / "out").rename(tmp_path / f"{base}.old")
    fill(tmp_path / f"{base}.partial", train=3)
    run().refused("is now back")
    assert files_in(tmp_path / "out") == before
    assert run("--overwrite").code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_strangers_beside_the_output_are_left_alone(run: Run, tmp_path: Path) -> None:
    fill(tmp_path / "in", cat=5, dog=5)
    number = finished_process()
    names = [f".out.another-computer.{number}.partial", ".out.partial", f".outer.x.{number}.partial", "out.1.partial"]
    for name in names:
        (tmp_path / name).mkdir()
    assert run().code == 0
    assert all((tmp_path / name).is_dir() for name in names)


def test_the_real_command(tmp_path: Path) -> None:
    fill(tmp_path / "in", cat=5, dog=5, 日本=5)
    # by groups, of one image each, which takes no scikit-learn
    command = [sys.executable, str(PROJECT / "split.py"), "--group_regex", ".*", "--input_dir", "in", "--output_dir"]
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run([*command, "out"], cwd=tmp_path, capture_output=True, text=True, env=environment)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines()[-1].startswith("Split 15 images into 12 train, 3 test")
    done = subprocess.run([*command, "in/out"], cwd=tmp_path, capture_output=True, text=True)
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert done.stdout == ""


@pytest.mark.slow
def test_ten_thousand_images_are_quick(run: Run, tmp_path: Path) -> None:
    for n in range(10):
        folder = tmp_path / "in" / f"class {n}"
        folder.mkdir(parents=True)
        for m in range(1000):
            (folder / f"{m}.png").touch()
    start = time.process_time()
    assert run("--dry_run").code == 0
    assert time.process_time() - start < 5
    assert run("--link", "soft").code == 0
    assert read_record(tmp_path / "out")["counts"]["test"] == {f"class {n}": 200 for n in range(10)}


@pytest.mark.parametrize("flags", [[], ["--dry_run"], ["--help"], ["--val_size", "2"]])
def test_whoever_reads_the_output_may_be_gone(flags: list[str], tmp_path: Path) -> None:
    """As after `| head -1`: the split is made all the same, and nothing is said of the pipe."""
    fill(tmp_path / "in", cat=5, dog=5)
    theirs, ours = os.pipe()
    os.close(theirs)
    line = [sys.executable, str(PROJECT / "split.py"), "--input_dir", "in", "--output_dir", "out", *flags]
    with os.fdopen(ours, "wb") as gone:
        done = subprocess.run(line, cwd=tmp_path, stdout=gone, stderr=subprocess.PIPE, text=True)
    assert done.returncode == (2 if "2" in flags else 0)
    assert done.stderr.startswith("error: --val_size") if "2" in flags else done.stderr == ""
    assert (tmp_path / "out").exists() is (not flags)
    if not flags:
        assert len(files_in(tmp_path / "out")) == 11
