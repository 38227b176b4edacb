# mypy: disable-error-code="func-returns-value"
"""folder.py: a user's own images, in the layouts that it takes, and what it says of those that it does not."""

import json
import os
import re
import shlex
import shutil
import unicodedata
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

import breakhis
import datasets
import folder
import split
from common import Choice, RawSplits, ReadOptions
from engine.data import cache
from engine.data.folds import fold_of
from engine.data.split_output import FIELDS
from engine.data.splits import split_hash
from engine.errors import UserError
from engine.records.run_folder import Run
from reporting.collect import collect
from reporting.comparable import divide
from tests.conftest import Command, only_run

Prepare = Callable[[Path], object]

QUICK = "-model tiny -bs 4 --weights none --epochs 1 --size 16 --plan off"


def picture(path: Path, seed: int, size: tuple[int, int] = (20, 16)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def tree(root: Path, *folders: str, images: int = 6) -> None:
    """Class folders with so many different images each."""
    for number, name in enumerate(folders):
        for index in range(images):
            picture(root / name / f"{index}.png", 1000 * number + index)


def parted(root: Path, *parts: str) -> None:
    tree(root, *(f"{part}/{name}" for part in parts or ("train", "test") for name in ("cat", "dog")))


def repaint(root: Path) -> None:
    """No two images of the same pixels."""
    for number, path in enumerate(sorted(root.rglob("*.png"))):
        picture(path, number)


def read(root: Path) -> RawSplits:
    return folder.dataset(root).read(ReadOptions(root))


def record(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((only_run(out) / "record.json").read_text())
    return found


def said(output: str, what: str) -> list[str]:
    """The printed lines that begin so, without that."""
    return [line.removeprefix(what).strip() for line in output.splitlines() if line.startswith(what)]


def test_a_class_without_test_images_is_told_beside_the_result(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parted(tmp_path / "pets", "train", "val", "test")
    for path in [*(tmp_path / "pets/test/cat").iterdir(), *(tmp_path / "pets/val/dog").iterdir()]:
        path.write_bytes(b"")
    assert command(f"pets {QUICK} --allow-partial", folder.DATASET) == 0
    expected = [
        "1 of 2 classes has no val image, on which no epoch is chosen: dog",
        "1 of 2 classes has no test image, of which the result says nothing: cat",
    ]
    assert record(tmp_path / "runs")["dataset"]["notes"] == expected
    printed = capsys.readouterr().out
    assert said(printed, "note") == expected
    assert "1 of 2 classes has no test image" in printed.splitlines()[-1]


def test_a_small_class_beside_a_large_one_is_told(tmp_path: Path, command: Command) -> None:
    tree(tmp_path / "pets/train", "cat", images=3)
    tree(tmp_path / "pets/train", "cow", "dog", images=22)
    tree(tmp_path / "pets/test", "cat", "dog", "cow", images=2)
    repaint(tmp_path / "pets")
    assert command(f"pets {QUICK}", folder.DATASET) == 0
    assert record(tmp_path / "runs")["dataset"]["notes"] == [
        "imbalance: 20 training images of cow, 2 of cat. Top-1 says little of small classes: see balanced accuracy "
        "and recall (--class-weights balanced trains, --select balanced_accuracy chooses by all alike)"
    ]


def test_more_shots_than_there_are_images_are_all_of_them(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is trained, what the screen says and what the report calls it: one budget, with the folder's own val."""
    parted(tmp_path / "pets", "train", "val", "test")
    tree(tmp_path / "pets/train", "cow", images=2)
    tree(tmp_path / "pets/val", "cow", images=1)
    tree(tmp_path / "pets/test", "cow", images=1)
    repaint(tmp_path / "pets")
    for flags in ("", "--shots 6", "--shots 100", "--fraction 0.99", "--shots 5", "--fraction 0.5", "--fraction 0.51"):
        assert command(f"pets {QUICK} {flags}", folder.DATASET) == 0
    printed = capsys.readouterr().out
    counts = [line for line in printed.splitlines() if line.startswith("pets:")]
    assert counts[:4] == ["pets: train 14, val 13, test 13, 3 classes"] * 4
    assert counts[4] == "pets: train 14 (9 to train + 3 val, up to 5 a class), test 13, 3 classes"
    assert said(printed, "note") == [
        "shots 6: no class has more than 6 training images, so this is the run of all training images",
        "shots 100: no class has more than 6 training images, so this is the run of all training images",
        "fraction 0.99: no class has more than 6 training images, so this is the run of all training images",
        "shots 5: 1 of 3 classes has fewer training images, 2, all of which are used",
        *["1 of 3 classes has no val image, on which no epoch is chosen: cow"] * 2,
    ]
    splits = [json.loads(path.read_text())["dataset"]["split"] for path in tmp_path.glob("runs/*/*/*/record.json")]
    assert sorted(Counter(splits).values()) == [1, 2, 4]
    groups, apart = divide(collect(tmp_path / "runs", ignore=tmp_path / "report").entries)
    assert [str(budget) for budget in groups[0].budgets] == ["all", "5 shots", "0.5 of train"]
    assert len(apart) == 4
    assert all("the same cell and seed" in line["reason"] for line in apart)


def test_what_split_made(command: Command, tmp_path: Path) -> None:
    tree(tmp_path / "pets", "cat", "dog", images=20)
    assert split.main(["--input_dir", "pets", "--output_dir", "parts", "--val_size", "0.1"]) == 0
    assert command(f"parts {QUICK}", folder.DATASET) == 0
    found = record(tmp_path / "runs")
    assert found["dataset"]["counts"] == {"available": 26, "train": 26, "val": 4, "test": 10}
    assert found["dataset"]["classes"] == ["cat", "dog"]
    assert (found["dataset"]["partial"], found["dataset"]["published"], found["dataset"]["notes"]) == (False, False, [])
    made = json.loads((only_run(tmp_path / "runs") / "split.json").read_text())["parts"]
    listed = json.loads((tmp_path / "parts" / "split.json").read_text())["files"]
    for ours, theirs in (("train", "train"), ("val", "val"), ("test", "test")):
        assert {name for name, _ in made[ours]} == {f"{theirs}/{name}" for name in listed[theirs]}
    assert command(f"parts {QUICK}", folder.DATASET) == 0
    only_run(tmp_path / "runs")


def test_groups_of_split_stay_together(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """split.py keeps patients on one side of its split, and the hold-out of a run does the same."""
    monkeypatch.chdir(tmp_path)
    for patient in range(12):
        for shot in range(4):
            picture(tmp_path / "scans" / "ab"[patient % 2] / f"p{patient:02}_{shot}.png", patient * 10 + shot)
    line = ["--input_dir", "scans", "--output_dir", "parts", "--group_regex", r"^(p\d+)_"]
    assert split.main(line) == 0
    found = read(tmp_path / "parts")
    assert found.train.groups is not None
    assert {re.match(r"p\d+", Path(n).name)[0] for n in found.train.names} == set(found.train.groups)  # type: ignore[index]
    from engine.data.load import divide

    parts = divide(found, "honest", 0)
    assert not set(parts.train.groups or ()) & set(parts.val.groups or ())
    assert not set(parts.train.groups or ()) & set(parts.test.groups or ())


def grouped(tmp_path: Path) -> Path:
    """A split.json as split.py writes it of two patients in each class, and their images."""
    names = [f"{name}/p{patient}_{shot}.png" for name in ("cat", "dog") for patient in "12" for shot in "ab"]
    for number, name in enumerate(names):
        picture(tmp_path / "scans" / name, number)
    line = ["--input_dir", str(tmp_path / "scans"), "--output_dir", str(tmp_path / "parts"), "--test_size", "0.5"]
    assert split.main([*line, "--group_regex", r"^(p\d+)_"]) == 0
    return tmp_path / "parts" / "split.json"


def edited(change: Callable[[Any], object], signed: bool = True) -> Callable[[Path], None]:
    def edit(path: Path) -> None:
        content = json.loads(path.read_text())
        if not signed:  # as earlier versions wrote it
            del content["sha256"]
        change(content)
        path.write_text(json.dumps(content))

    return edit


OLD = [
    ("hash", lambda c: c.update(hash="0" * 64)),
    ("hash", lambda c: c["files"]["train"].popitem()),
    ("hash", lambda c: c["classes"].reverse()),
    ("groups", lambda c: c.update(groups=None)),
    ("groups", lambda c: c["groups"].popitem()),
    ("groups", lambda c: c["groups"].update({next(iter(c["groups"])): "p3"})),
    ("groups", lambda c: c["options"].update(group_regex="^p")),
    ("group_regex", lambda c: c["options"].update(group_regex=None)),
    ("unterminated", lambda c: c["options"].update(group_regex="(")),
    ("lacks hash", lambda c: c.pop("hash")),
    ("lacks files, format", lambda c: [c.pop(key) for key in ("files", "format")]),
    ("format", lambda c: c.update(format="1")),
    ("AttributeError", lambda c: c.update(files=[[]])),
    ("TypeError", lambda c: c.update(classes=7)),
    ("TypeError", lambda c: c.update(classes=[[]])),
    ("KeyError", lambda c: c.update(options={"group": 1})),
]
CHANGES = [(why, edited(change, signed=False)) for why, change in OLD] + [
    ("checksum", edited(lambda c: (c.update(groups=None), c["options"].update(group_regex=None)))),
    ("checksum", edited(lambda c: c["options"].update(random_state=7))),
    ("nested", lambda path: path.write_text('{"groups":' * 100_000)),
    ("line", lambda path: path.write_bytes(path.read_bytes()[:-30])),
    ("utf-8", lambda path: path.write_bytes(b"\xff\xfe")),
]


@pytest.mark.parametrize(("why", "change"), CHANGES)
def test_a_split_that_was_changed_is_refused_by_name(
    tmp_path: Path, why: str, change: Callable[[Path], object]
) -> None:
    """None ungroups the images, or is taken for another program's, in silence."""
    path = grouped(tmp_path)
    change(path)
    with pytest.raises(UserError, match=rf"{path} is not as split\.py wrote it: .*{why}.*Run split\.py again"):
        read(path.parent)


def test_a_split_of_an_earlier_version_is_read(tmp_path: Path) -> None:
    path = grouped(tmp_path)
    edited(lambda content: None, signed=False)(path)
    assert set(read(path.parent).train.groups or ()) < {"p1", "p2"}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=3),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2),
    max_leaves=5,
)


def read_any_split(content: bytes, root: Path) -> None:
    """Read what may be no split.json at all: it is split.py's, another program's, or refused."""
    (root / "split.json").write_bytes(content)
    with suppress(UserError):
        folder.read_split(root, ["train/cat/0.png"])


@settings(max_examples=80, deadline=None)
@given(changes=st.dictionaries(st.sampled_from(sorted(FIELDS)), JSON, max_size=3), cut=st.integers(0, 400))
def test_any_split_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, changes: dict[str, Any], cut: int
) -> None:
    content = json.dumps({**made({"train": {"cat/0.png": 1}, "test": {"dog/1.png": 2}}), **changes}).encode()
    read_any_split(content[: cut if cut > 350 else None], tmp_path_factory.getbasetemp())


@pytest.mark.parametrize("validation", ["val", "valid", "validation"])
def test_a_tree_of_other_making(tmp_path: Path, validation: str) -> None:
    parted(tmp_path, "train", validation, "test")
    (tmp_path / "README.md").write_text("words")
    others: list[Any] = [{"of": "another program"}, {}, [], None]
    for other in others:
        (tmp_path / "split.json").write_text(json.dumps(other))
        found = read(tmp_path)
    assert found.val is not None
    assert (len(found.train), len(found.val), len(found.test)) == (12, 12, 12)
    assert found.val.names[0] == f"{validation}/cat/0.png"
    assert found.notes == ()
    (tmp_path / "extra").mkdir()
    assert read(tmp_path).notes == ("extra/ is none of the parts and is not used",)
    assert found.train.labels.tolist() == [0] * 6 + [1] * 6


def test_class_folders_alone_are_split(command: Command, tmp_path: Path, capsys: Any) -> None:
    tree(tmp_path / "pets", "cat", "dog", "a class, (with) ünusual name", images=10)
    assert command(f"pets {QUICK}", folder.DATASET) == 0
    assert "note       no test/ folder: 20% of each class was held out" in capsys.readouterr().out
    found = record(tmp_path / "runs")
    assert found["dataset"]["counts"]["available"] == 24
    assert found["dataset"]["counts"]["test"] == 6
    assert found["dataset"]["classes"] == ["a class, (with) ünusual name", "cat", "dog"]
    assert found["dataset"]["name"] == "pets"


def test_the_folder_stays_as_it_was(command: Command, tmp_path: Path) -> None:
    parted(tmp_path / "pets")
    before = sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "pets").rglob("*"))
    assert command(f"{tmp_path / 'pets'} {QUICK}", folder.DATASET) == 0
    assert sorted((path, path.stat().st_mtime_ns) for path in (tmp_path / "pets").rglob("*")) == before


def test_an_image_added_makes_another_run(command: Command, tmp_path: Path) -> None:
    parted(tmp_path / "pets")
    assert command(f"pets {QUICK}", folder.DATASET) == 0
    picture(tmp_path / "pets" / "train" / "cat" / "new.png", 77)
    assert command(f"pets {QUICK}", folder.DATASET) == 0
    assert len(list((tmp_path / "runs").glob("*/*/*/record.json"))) == 2


def test_check_decodes_what_the_run_then_finds(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """What it says of the data is what the run says, and none of its work is lost."""
    parted(tmp_path / "pets")
    assert command(f"pets {QUICK} --check", folder.DATASET) == 0
    checked = capsys.readouterr().out
    assert "ok: data: 10 train and 2 val images" in checked
    assert checked.splitlines()[-1] == f"ready: python folder.py pets {QUICK} --device cpu"
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "torch") == ["data", "pets"]
    monkeypatch.setattr(cache, "decode_rows", None)
    assert command(f"pets {QUICK}", folder.DATASET) == 0
    ran = capsys.readouterr().out
    begin = checked.splitlines().index("pets: train 12 (10 to train + 2 val), test 12, 2 classes")
    assert [line for line in ran.splitlines() if line in checked.splitlines()] == checked.splitlines()[
        begin : begin + 5
    ]


def test_check_without_a_cache_writes_nothing(command: Command, tmp_path: Path) -> None:
    parted(tmp_path / "pets")
    assert command(f"pets {QUICK} --check --no-cache", folder.DATASET) == 0
    assert [path.name for path in tmp_path.iterdir() if path.name != "torch"] == ["pets"]


def test_a_file_copied_into_test_is_refused_before_anything_is_decoded(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    parted(tmp_path / "pets")
    shutil.copy(tmp_path / "pets/train/cat/3.png", tmp_path / "pets/test/cat/same.png")
    monkeypatch.setattr(cache, "decode_rows", None)
    for flags in ("", "--protocol paper"):
        assert command(f"pets {QUICK} {flags}", folder.DATASET) == 2
        message = capsys.readouterr().err
        assert "1 image outside the test part with the same content as a test image" in message
        assert "train/cat/3.png = test/cat/same.png" in message


def reencoded(root: Path) -> None:
    """The pixels of a training image in another file."""
    parted(root)
    with Image.open(root / "train/cat/3.png") as image:
        image.save(root / "test/cat/same.bmp")


# what only all images, decoded, show; what is on the command line; what the message says
REFUSED: list[tuple[Prepare, str, str]] = [
    (reencoded, "", "train/cat/3.png = test/cat/same.bmp"),
    (lambda r: (parted(r), (r / "train/cat/5.png").write_bytes(b"x")), "", "train/cat/5.png: text, no image"),
    (
        lambda r: (parted(r), [path.write_bytes(b"x") for path in (r / "test").glob("*/*")]),
        "--allow-partial",
        "no image of the test part can be read",
    ),
    (lambda r: (parted(r), (r.parent / "runs").write_text("")), "", "is a file"),
    (lambda r: (parted(r), (r.parent / "c").write_text("")), "--cache-dir c", "decoded images can't be kept"),
]


@pytest.mark.parametrize(("prepare", "flags", "expected"), REFUSED)
def test_check_refuses_what_the_run_refuses(
    command: Command, tmp_path: Path, capsys: Any, prepare: Prepare, flags: str, expected: str
) -> None:
    prepare(tmp_path / "pets")
    messages = []
    for check in ("--check", ""):
        assert command(f"pets {QUICK} {flags} {check}", folder.DATASET) == 2
        messages.append(" ".join(capsys.readouterr().err.split()))
    checked, ran = messages
    assert expected in ran
    assert ran.removeprefix("error: ") in checked


def test_unreadable_images_are_all_named_or_left_out(command: Command, tmp_path: Path, capsys: Any) -> None:
    parted(tmp_path / "pets")
    bad = {"train/cat/bad.jpg": b"", "train/dog/cut.png": b"", "test/dog/text.jpg": b"no image"}
    bad["train/dog/cut.png"] = (tmp_path / "pets" / "train" / "dog" / "0.png").read_bytes()[:-40]
    for name, content in bad.items():
        (tmp_path / "pets" / name).write_bytes(content)
    assert command(f"pets {QUICK}", folder.DATASET) == 2
    message = capsys.readouterr().err
    assert all(name in message for name in bad)
    assert "3 of 27 images can't be read" in message
    assert not (tmp_path / "runs").exists()
    assert command(f"pets {QUICK} --allow-partial", folder.DATASET) == 0
    found = record(tmp_path / "runs")
    assert found["dataset"]["partial"] is True
    assert found["dataset"]["counts"]["test"] == 12
    total, *said = found["dataset"]["differences"]
    assert total == "3 images left out: they can't be read"
    assert sorted(line.partition(" can't be read: ")[0] for line in said) == sorted(bad)


@pytest.mark.parametrize("parts", [("",), ("train/", "test/")])
def test_what_looks_like_images_and_is_not_used(
    parts: tuple[str, ...], command: Command, tmp_path: Path, capsys: Any
) -> None:
    tree(tmp_path / "pets", *(f"{part}{name}" for part in parts for name in ("cat", "dog")))
    images = 12 * len(parts)
    for name in ("cat/raw1.nef", "cat/raw2.nef", "dog/work3.psd", "dog/words.txt", "dog/@eaDir/1.png"):
        (tmp_path / "pets" / parts[0] / name).parent.mkdir(exist_ok=True)
        (tmp_path / "pets" / parts[0] / name).write_bytes(b"what Pillow does not read")
    assert command(f"pets {QUICK}", folder.DATASET) == 2
    message = f"Of {images + 3} files in {tmp_path / 'pets'} that look like images, 3 would not be used: 2 .nef, 1 .psd"
    assert message in capsys.readouterr().err
    assert command(f"pets {QUICK} --allow-partial", folder.DATASET) == 0
    found = record(tmp_path / "runs")["dataset"]
    assert found["partial"] is True
    assert found["differences"] == ["not used, but like images: 2 .nef, 1 .psd"]
    words = ["not used, as they are no images: 1 .txt", "not used, as other programs left them: 1 @eaDir/"]
    assert found["notes"][-2:] == words


def test_a_folder_whose_name_has_several_lines_has_a_name_of_one(tmp_path: Path) -> None:
    (tmp_path / "pets\n\x1b[31m").mkdir()
    assert folder.dataset(tmp_path / "pets\n\x1b[31m").name == r"pets\n\x1b[31m"
    assert folder.dataset(tmp_path / "café #1").name == "café #1"


@pytest.mark.parametrize("helper", ["@eaDir", "#recycle", "System Volume Information"])
def test_helper_folders_beside_parts_and_classes(helper: str, tmp_path: Path) -> None:
    parted(tmp_path)
    tree(tmp_path, helper, f"train/{helper}", f"test/cat/{helper}")
    found = read(tmp_path)
    assert found.classes == ("cat", "dog")
    assert (len(found.train), len(found.test)) == (12, 12)
    assert found.notes == (f"not used, as other programs left them: 3 {helper}/",)


@pytest.mark.parametrize("other", ["Cat", "cat ", " CAT"])
def test_names_of_classes_that_hardly_differ_are_told(other: str, tmp_path: Path) -> None:
    tree(tmp_path, "cat", "dog", other)
    assert f"{' and '.join(map(repr, sorted(['cat', other])))} are taken for different classes" in " ".join(
        read(tmp_path).notes
    )


def test_images_of_12_bits_are_told(command: Command, tmp_path: Path, capsys: Any) -> None:
    tree(tmp_path / "scans", "cat", "dog")
    for index in range(3):
        pixels = np.random.default_rng(index).integers(0, 4096, (20, 16), dtype=np.uint16)
        Image.fromarray(pixels).save(tmp_path / "scans" / "cat" / f"deep{index}.tif")
    assert command(f"scans {QUICK}", folder.DATASET) == 0
    assert "3 of 15 images: stored with 16 bits or more but with no value beyond 12 bits" in capsys.readouterr().out
    notes = record(tmp_path / "runs")["dataset"]["notes"]
    assert any(note.startswith("3 of 15 images: stored with 16 bits") for note in notes)


def test_copies_across_parts_are_refused_or_left_out(command: Command, tmp_path: Path, capsys: Any) -> None:
    parted(tmp_path / "pets")
    shutil.copy(tmp_path / "pets/test/cat/3.png", tmp_path / "pets/train/cat/same.png")
    assert command(f"pets {QUICK}", folder.DATASET) == 2
    message = capsys.readouterr().err
    assert "train/cat/same.png = test/cat/3.png" in message
    assert not (tmp_path / "runs").exists()
    assert command(f"pets {QUICK} --allow-partial", folder.DATASET) == 0
    found = record(tmp_path / "runs")["dataset"]
    assert found["counts"]["train"] + found["counts"]["val"] == 12
    assert found["partial"] is True
    assert found["differences"][0].endswith("image left out: the same pixels as a test image")


def test_the_paper_protocol_tells_of_copies(command: Command, tmp_path: Path, capsys: Any) -> None:
    parted(tmp_path / "pets")
    shutil.copy(tmp_path / "pets/test/cat/3.png", tmp_path / "pets/train/cat/same.png")
    assert command(f"pets {QUICK} --protocol paper", folder.DATASET) == 2
    assert "train/cat/same.png = test/cat/3.png" in capsys.readouterr().err
    assert command(f"pets {QUICK} --protocol paper --allow-partial", folder.DATASET) == 0
    assert "leakage: 1 of 12 test images (8.3%) is tied to training images" in capsys.readouterr().out
    assert record(tmp_path / "runs")["dataset"]["differences"][0].startswith("leakage: ")


def remove(root: Path, *names: str) -> None:
    for name in names:
        shutil.rmtree(root / name)


def note(root: Path, content: object) -> None:
    parted(root)
    (root / "split.json").write_text(content if isinstance(content, str) else json.dumps(content))


def made(files: dict[str, dict[str, int]], **changes: object) -> dict[str, object]:
    """What split.py writes, of cats and dogs, with changes."""
    labels = {"cat": 0, "dog": 1}
    labelled = {part: [(name, labels.get(name[:3], 2)) for name in names] for part, names in files.items()}
    options = {"test_size": 0.2, "val_size": 0.0, "random_state": 42, "group_regex": None, "link": "copy"}
    content: dict[str, object] = {"format": 1, "hash": split_hash(labelled), "options": options, "counts": {}}
    return {**content, "classes": [*labels], "files": files, "groups": None, **changes}


# what lies in the folder, what else is on the command line, what the message says
BAD: list[tuple[Prepare, str, str]] = [
    (lambda r: None, "", "does not exist"),
    (lambda r: r.write_text("x"), "", "is a file"),
    (lambda r: r.mkdir(), "", "no class folders"),
    (lambda r: picture(r / "1.png", 1), "", "1 images but no class folders"),
    (lambda r: tree(r, "cat"), "", "a single class folder"),
    (lambda r: (r / "a").mkdir(parents=True), "", "no images in 1 of the 1 class folders"),
    (lambda r: (tree(r, "cat", "dog"), (r / "cow").mkdir()), "", "cow"),
    (lambda r: parted(r, "train"), "", "but no test"),
    (lambda r: parted(r, "test"), "", "but no train"),
    (lambda r: parted(r, "train", "val"), "", "but no test"),
    (lambda r: parted(r, "train", "test", "val", "valid"), "", "Expected one validation folder"),
    (lambda r: (parted(r), remove(r, "test/dog")), "", "dog: in train/, not in test/"),
    (lambda r: (parted(r), remove(r, "test/dog", "train/dog")), "", "a single class, cat"),
    (lambda r: (parted(r), remove(r, "train/dog")), "", "dog: in test/, not in train/"),
    (lambda r: (parted(r), tree(r, "test/cow")), "", "cow: in test/, not in train/"),
    (lambda r: (parted(r, "train", "val", "test"), tree(r, "val/cow")), "", "cow: in val/, not in train/"),
    (lambda r: (parted(r), (r / "train/cow").mkdir()), "", "cow"),
    (lambda r: (parted(r), (r / "train/cat/a.png").symlink_to("nothing")), "", "a link to nothing"),
    (lambda r: (tree(r, "cat", "dog"), (r / "cow").symlink_to("cat")), "", "the same folder"),
    (lambda r: (parted(r), os.link(r / "train/cat/0.png", r / "train/dog/x.png")), "", "the same file"),
    (lambda r: (parted(r), (r / "train/cat/x.png").mkdir()), "--allow-partial --bad", "--bad"),
    (lambda r: (parted(r), os.mkfifo(r / "train/cat/pipe.png")), "", "not a regular file"),
    (lambda r: (parted(r), (r / "test/cat/0.png").write_bytes(b"\x89PNG\r\n")), "", "test/cat/0.png: "),
    (lambda r: (parted(r), (r / "test/cat/0.png").write_bytes(b"")), "--check", "test/cat/0.png: empty"),
    (lambda r: note(r, {"format": 1, "hash": "", "files": 3}), "", "split.json is not as split.py"),
    (
        lambda r: note(r, {"format": 1, "hash": "", "files": {"train": 3}, "groups": None}),
        "",
        "split.json is not as split.py",
    ),
    (
        lambda r: note(r, {"format": 1, "hash": "", "files": {"train": {"a": 1}}}),
        "",
        "split.json is not as split.py",
    ),
    (lambda r: note(r, "{"), "", "split.json is not as split.py"),
    (lambda r: note(r, made({"train": {"cat/9.png": 1}})), "", "missing of the listed images: 1: train/cat/9.png"),
    (lambda r: note(r, made({"train": {"cat/0.png": 1}}, format=2)), "", "format is 2, and this version reads 1"),
    (lambda r: note(r, made({"train": {"cat/0.png": 1}}, hash="0")), "", "its hash is that of other files"),
    (lambda r: note(r, made({"train": {"cow/0.png": 1}})), "", "split.json is not as split.py wrote it: KeyError"),
    (lambda r: (parted(r), os.mkfifo(r / "split.json")), "", "no regular file. Run split.py again; or remove it"),
    (lambda r: tree(r, "cat", "dog", images=1), "", "Too few images to hold any out for testing"),
    (lambda r: tree(r, "cat", "dog", images=2), "", "Nothing can be held out"),
    (lambda r: parted(r), "--cache-dir ''", "the path is empty"),
    (lambda r: parted(r), "--cache-dir pets/train", "--cache-dir pets/train lies in"),
    (lambda r: (parted(r), (r.parent / "f").touch()), "--cache-dir f", "--cache-dir chooses another folder"),
    (lambda r: parted(r), "--cache-dir /proc/nowhere", "--cache-dir chooses another folder"),
    (lambda r: parted(r), "--magnification 40", "--magnification"),
    (lambda r: parted(r), "second", "second"),
    (lambda r: parted(r), "--size 0", "--size"),
    (lambda r: parted(r), "--size 1", "can't take images of 1x1"),
    (lambda r: parted(r), "-bs 1", "batch normalisation"),
    (lambda r: parted(r), "--data-dir elsewhere", "--data-dir"),
    (lambda r: parted(r, "Train", "Test"), "", "has Test, Train. Expected train/, test/"),
    (lambda r: parted(r, "train", "test", "Val"), "", "has Val. Expected train/, test/"),
    (lambda r: parted(r, "training", "testing"), "", "has testing, training. Expected train/, test/"),
    (lambda r: tree(r, "train", "bus", "tram"), "", "but no test"),
    (lambda r: parted(r, "val"), "", "a single class folder"),
]


@pytest.mark.parametrize(("prepare", "flags", "expected"), BAD)
def test_a_folder_that_can_not_be_used(
    command: Command, tmp_path: Path, capsys: Any, prepare: Prepare, flags: str, expected: str
) -> None:
    prepare(tmp_path / "pets")
    before = sorted(path for path in (tmp_path / "pets").rglob("*"))
    assert command(f"pets {QUICK} {flags}", folder.DATASET) == 2
    printed = capsys.readouterr()
    assert expected in printed.err
    assert printed.err.count("error: ") == 1
    assert "Traceback" not in printed.err
    assert not (tmp_path / "runs").exists()
    assert sorted(path for path in (tmp_path / "pets").rglob("*")) == before
    assert not list(tmp_path.rglob("*.tmp"))


def told(root: Path) -> str:
    """What the user is told of a folder that can't be used."""
    with pytest.raises(UserError) as caught:
        read(root)
    return str(caught.value)


ONE, TWO = "caf\u00e9", "cafe\u0301"  # the same to whoever reads them


def test_classes_are_the_same_however_their_accents_are_written(tmp_path: Path) -> None:
    tree(tmp_path / "pets", f"train/{ONE}", "train/dog", f"test/{TWO}", "test/dog", images=3)
    found = read(tmp_path / "pets")
    assert found.classes == (ONE, "dog")
    assert found.test.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert [Path(str(image)).exists() for image in found.test.references] == [True] * 6
    assert found.test.names[0] == f"test/{TWO}/0.png"


@pytest.mark.parametrize("place", ["train/", ""])
def test_two_classes_that_read_the_same_are_shown_apart(tmp_path: Path, place: str) -> None:
    tree(tmp_path, *(f"{place}{name}" for name in (ONE, TWO, "dog")), *(["test/dog"] if place else []), images=3)
    message = told(tmp_path)
    for fact in (r"'cafe\u0301' and 'caf\xe9'", str(tmp_path / place), "move what is in one"):
        assert fact in message


@pytest.mark.parametrize(
    ("train", "test", "shown"),
    [
        ("cat", "Cat", ["'cat': in train/", "'Cat': in test/"]),
        ("cat", "cat ", ["'cat': in train/", "'cat ': in test/"]),
        ("a b", "a\u00a0b", ["'a b': in train/", r"'a\xa0b': in test/"]),
        ("cat", "cat\u200b", ["'cat': in train/", r"'cat\u200b': in test/"]),
        ("cat", "bird", ["  cat: in train/", "  bird: in test/"]),
    ],
)
def test_names_that_differ_and_look_the_same(tmp_path: Path, train: str, test: str, shown: list[str]) -> None:
    tree(tmp_path, f"train/{train}", "train/dog", f"test/{test}", "test/dog", images=2)
    message = told(tmp_path)
    for line in shown:
        assert line in message


def test_a_split_that_macos_renamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its files are there, in the same groups, though their names have other characters."""
    monkeypatch.chdir(tmp_path)
    for number in range(8):
        for shot in range(2):
            picture(
                tmp_path / "scans" / ["b\u00e9te", "c"][number % 2] / f"\u00e9{number}_{shot}.png", 10 * number + shot
            )
    assert split.main(["--input_dir", "scans", "--output_dir", "parts", "--group_regex", "^(\u00e9\\d)_"]) == 0
    before = read(tmp_path / "parts")
    for path in sorted((tmp_path / "parts").rglob("*"), key=lambda path: -len(path.parts)):
        path.rename(path.with_name(unicodedata.normalize("NFD", path.name)))
    after = read(tmp_path / "parts")
    assert before.missing == after.missing == ()
    assert before.classes == after.classes
    for part in ("train", "test"):
        old, new = getattr(before, part), getattr(after, part)
        assert sorted(old.groups) == sorted(new.groups)
    assert next((tmp_path / "parts" / "train").rglob("*.png")).unlink() is None
    assert len(read(tmp_path / "parts").missing) == 1


def test_the_same_split_however_the_accents_are_written(tmp_path: Path) -> None:
    names = ["e", "\u00e9", "f", "z", "ea", "\u00e9a", "fa", "\u00fc"]
    found = []
    for form in ("NFC", "NFD"):
        for kind in ("a", "b"):
            for number, name in enumerate(names):
                picture(tmp_path / form / kind / f"{unicodedata.normalize(form, name)}.png", number + ord(kind))
        found.append([unicodedata.normalize("NFC", name) for name in read(tmp_path / form).test.names])
    assert found[0] == found[1]
    assert folder.dataset(tmp_path / ONE).key == folder.dataset(tmp_path / TWO).key
    assert folder.dataset(tmp_path / ONE).name == folder.dataset(tmp_path / TWO).name


@pytest.mark.parametrize(("given", "there"), [(ONE, TWO), ("pets", "Pets")])
def test_a_folder_whose_name_reads_the_same(tmp_path: Path, given: str, there: str) -> None:
    (tmp_path / there).mkdir()
    with pytest.raises(UserError) as caught:
        folder.existing(tmp_path / given)
    assert f"does not exist, but {there!a} is there, which differs from {given!a}" in str(caught.value)


@pytest.mark.parametrize("inside", ["", "test/", "unknown/"])
@pytest.mark.parametrize("val", [True, False])
def test_an_unlabelled_test_part(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, inside: str, val: bool) -> None:
    """As Kaggle's competitions have it: the commands of the message make a folder that is read."""
    monkeypatch.chdir(tmp_path)
    root = tmp_path / "my pets"
    parted(root, "train", *(["val"] if val else []))
    for number in range(4):
        picture(root / "test" / f"{inside}{number}.png", 500 + number)
    message = told(Path("my pets"))
    assert "my pets/test has 4 files, but none of the class folders of train/" in message
    assert "mv -n 'my pets/test' 'my pets/unlabelled'" in message
    carry_out(message)
    found = read(Path("my pets") if val else Path("my pets-split"))
    assert found.classes == ("cat", "dog")
    assert len(found.test) == (12 if val else 4)


def carry_out(message: str) -> None:
    """Do what the first lines with mv say, or the line with split.py where there is no other."""
    lines = [line.strip().partition("   #")[0] for line in message.splitlines()]
    for line in (line for line in lines if line.startswith("mv -n ")):
        _, _, old, new = shlex.split(line)
        Path(old).rename(new)
    if not Path(shlex.split(lines[-1])[3]).with_name("test").exists():
        assert split.main(shlex.split(lines[-1])[2:]) == 0


@pytest.mark.parametrize("name", ["val", "valid", "validation"])
def test_train_and_val_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.chdir(tmp_path)
    parted(tmp_path / "pets", "train", name)
    message = told(Path("pets"))
    assert "pets has train and " in message
    assert f"mv -n pets/{name} pets/test" in message
    assert "python split.py --input_dir pets/train --output_dir pets-split --test_size 0.2" in message
    carry_out(message)
    assert len(read(Path("pets")).test) == 12


def test_train_alone_from_within(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parted(tmp_path / "pets", "train")
    monkeypatch.chdir(tmp_path / "pets")
    message = told(Path())
    assert f"--input_dir train --output_dir {tmp_path / 'pets-split'}" in message
    carry_out(message)
    assert len(read(tmp_path / "pets-split").test) == 4


@pytest.mark.parametrize(
    ("line", "choice", "expected"),
    [
        ("-model tiny", folder.DATASET, "DIR"),
        ("'' -model tiny", folder.DATASET, "the path is empty"),
        ("-model tiny --magnification", breakhis.DATASET, "--magnification"),
        ("-model tiny --magnification 50", breakhis.DATASET, "40, 100, 200, 400"),
        ("-model tiny --magnification 40x", breakhis.DATASET, "--magnification"),
        (
            "-model tiny --magnification 200 --data-dir absent/deep --weights none",
            breakhis.DATASET,
            "BreaKHis_v1.tar.gz",
        ),
        ("DIR -model tiny", breakhis.DATASET, "DIR"),
    ],
)
def test_a_wrong_choice(
    command: Command, capsys: Any, monkeypatch: pytest.MonkeyPatch, line: str, choice: Choice, expected: str
) -> None:
    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    assert command(line, choice) == 2
    printed = capsys.readouterr().err
    assert expected in printed
    assert "Traceback" not in printed


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["nosuch"], "unknown dataset 'nosuch'"),
        (["food"], "Did you mean food101?"),
        (["--data-dir", ""], "the path is empty"),
        (["--nosuch"], "--nosuch"),
    ],
)
def test_datasets_with_a_wrong_command_line(capsys: Any, arguments: list[str], expected: str) -> None:
    assert datasets.main(arguments) == 2
    printed = capsys.readouterr()
    assert expected in printed.err
    assert not printed.out


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({}, "lacks ans, images"),
        ({"images": np.zeros((3, 4, 4, 3), np.uint8)}, "lacks ans"),
        ({"images": np.zeros((3, 4, 4, 3), np.uint8), "ans": np.zeros(2, np.uint8)}, "N whole numbers"),
        (b"no HDF5", "can't be read as HDF5"),
        (b"", "can't be read as HDF5"),
    ],
)
def test_galaxies_in_another_file(tmp_path: Path, content: Any, expected: str) -> None:
    import galaxy10
    from engine.errors import UserError

    path = tmp_path / "Galaxy10_DECals.h5"
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        with h5py.File(path, "w") as file:
            for name, array in content.items():
                file[name] = array
    with pytest.raises(UserError, match=expected):
        galaxy10.DATASET.read(ReadOptions(tmp_path))


def test_no_test_image_can_be_read(command: Command, tmp_path: Path, capsys: Any) -> None:
    parted(tmp_path / "pets")
    for path in (tmp_path / "pets" / "test").rglob("*.png"):
        path.write_bytes(b"no image")
    assert command(f"pets {QUICK} --allow-partial", folder.DATASET) == 2
    assert "no image of the test part can be read" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_an_image_that_split_placed_is_gone(command: Command, tmp_path: Path, capsys: Any) -> None:
    tree(tmp_path / "pets", "cat", "dog", images=20)
    assert split.main(["--input_dir", "pets", "--output_dir", "parts"]) == 0
    gone = sorted((tmp_path / "parts" / "train" / "cat").iterdir())[0]
    gone.unlink()
    assert command(f"parts {QUICK}", folder.DATASET) == 2
    message = capsys.readouterr().err
    assert f"parts in {tmp_path / 'parts'} is not as split.py left it" in message
    assert f"train/cat/{gone.name}" in message
    assert "published" not in message
    assert "delete" not in message


def test_folders_of_the_same_name_do_not_share_a_cache(command: Command, tmp_path: Path) -> None:
    for number, place in enumerate(("a", "b")):
        tree(tmp_path / place / "pets", "cat", "dog", images=8 + number)
        assert command(f"{place}/pets {QUICK}", folder.DATASET) == 0
    assert len(list((tmp_path / "data" / "folder" / ".cache").glob("*.npy"))) == 2


def test_check_fetches_nothing(command: Command, tmp_path: Path, capsys: Any) -> None:
    """Food-101 has 5 GB: whoever asks whether a run would work does not ask for that."""
    assert command("-model tiny --weights none --check", breakhis.DATASET) == 2
    printed = capsys.readouterr().err
    assert "BreakHis 40x is not in" in printed
    assert "without --check" in printed
    assert not (tmp_path / "data").exists()


def test_check_refuses_an_archive_that_the_run_would(command: Command, tmp_path: Path, capsys: Any) -> None:
    (tmp_path / "data" / "breakhis").mkdir(parents=True)
    (tmp_path / "data" / "breakhis" / "BreaKHis_v1.tar.gz").write_bytes(b"<html>log in</html>")
    assert command("-model tiny --weights none --check", breakhis.DATASET) == 2
    assert "BreaKHis_v1.tar.gz is no archive" in capsys.readouterr().err


def test_a_patient_in_two_parts_is_refused(command: Command, tmp_path: Path, capsys: Any) -> None:
    """An image that came after the split belongs to its group as those before it do."""
    for patient in range(12):
        for shot in range(4):
            picture(tmp_path / "scans" / "ab"[patient % 2] / f"p{patient:02}_{shot}.png", patient * 10 + shot)
    assert split.main(["--input_dir", "scans", "--output_dir", "parts", "--group_regex", r"^(p\d+)_"]) == 0
    assert command(f"parts {QUICK}", folder.DATASET) == 0
    shutil.rmtree(tmp_path / "runs")
    held = sorted((tmp_path / "parts" / "test" / "a").iterdir())[0].name.partition("_")[0]
    picture(tmp_path / "parts" / "train" / "a" / f"{held}_9.png", 999)
    for flags in ("", "--allow-partial", "--check"):
        assert command(f"parts {QUICK} {flags}", folder.DATASET) == 2
        assert "of the same group as one in the test part" in capsys.readouterr().err
    (tmp_path / "parts" / "train" / "a" / f"{held}_9.png").rename(tmp_path / "parts" / "train" / "a" / "new.png")
    assert command(f"parts {QUICK}", folder.DATASET) == 2
    assert "1 image has no group" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_pixels_changed_in_place_are_noticed(command: Command, tmp_path: Path) -> None:
    """Same name, same size, same time of change, as unpacked archives often have."""
    for name in ("cat", "dog"):
        for index in range(8):
            picture(tmp_path / "pets" / name / f"{index}.bmp", index + 100 * (name == "cat"))
            os.utime(tmp_path / "pets" / name / f"{index}.bmp", (0, 0))
    assert command(f"pets {QUICK}", folder.DATASET) == 0
    picture(tmp_path / "pets" / "cat" / "0.bmp", 77)
    os.utime(tmp_path / "pets" / "cat" / "0.bmp", (0, 0))
    assert command(f"pets {QUICK}", folder.DATASET) == 0
    assert len(list((tmp_path / "runs").glob("*/*/*/record.json"))) == 2


def test_contradicting_labels_are_told(command: Command, tmp_path: Path) -> None:
    parted(tmp_path / "pets")
    shutil.copy(tmp_path / "pets/train/cat/3.png", tmp_path / "pets/train/dog/same.png")
    assert command(f"pets {QUICK}", folder.DATASET) == 0
    assert "1 image of the same pixels under different classes" in record(tmp_path / "runs")["dataset"]["notes"]


def test_a_class_that_cannot_be_learnt_is_told(command: Command, tmp_path: Path) -> None:
    parted(tmp_path / "pets")
    for path in (tmp_path / "pets" / "train" / "cat").iterdir():
        path.write_bytes(b"")
    assert command(f"pets {QUICK} --allow-partial", folder.DATASET) == 0
    found = record(tmp_path / "runs")["dataset"]
    assert found["notes"][0] == "1 of 2 classes has no train image, which can't be learnt: cat"
    assert found["partial"] is True


def test_records_and_caches_do_not_go_among_the_images(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """They would be classes the next time."""
    tree(tmp_path / "pets", "cat", "dog")
    monkeypatch.chdir(tmp_path / "pets")
    for place in (".", str(tmp_path / "pets")):
        assert command(f"{place} {QUICK}", folder.DATASET) == 2
        assert "--out runs lies in" in capsys.readouterr().err
    assert command(f". {QUICK} --out ../runs", folder.DATASET) == 2
    assert "--cache-dir data/folder/.cache lies in" in capsys.readouterr().err
    assert sorted(path.name for path in (tmp_path / "pets").iterdir()) == ["cat", "dog"]
    assert command(f". {QUICK} --out ../runs --cache-dir ../cache", folder.DATASET) == 0
    assert record(tmp_path / "runs")["dataset"]["name"] == "pets"


def test_a_long_name_and_loose_images(command: Command, tmp_path: Path) -> None:
    root = tmp_path / ("\u6570\u636e" * 40)
    tree(root, "cat", "dog")
    picture(root / "loose.png", 5)
    assert command(f"{root} {QUICK}", folder.DATASET) == 0
    assert "1 image in no class folder is not used" in record(tmp_path / "runs")["dataset"]["notes"]


def test_allow_partial_alone_marks_nothing_partial(command: Command, tmp_path: Path) -> None:
    """A copy within training and validation is left out of the one with or without the flag."""
    parted(tmp_path / "pets", "train", "val", "test")
    shutil.copy(tmp_path / "pets/train/cat/3.png", tmp_path / "pets/val/cat/same.png")
    assert command(f"pets {QUICK} --allow-partial", folder.DATASET) == 0
    found = record(tmp_path / "runs")["dataset"]
    assert found["partial"] is False
    assert found["notes"] == ["1 validation image left out: the same pixels as a training image"]


FOLDS = f"pets {QUICK} --folds 3"


def folds_of(out: Path) -> dict[int, dict[str, Any]]:
    """The records of all folds, by their number."""
    records = [json.loads(path.read_text()) for path in out.glob("*/*/*/record.json")]
    return {of["config"]["fold"]: of for of in records}


def test_folds_run_one_after_another_and_end_with_all_of_them(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree(tmp_path / "pets", "cat", "cow", "dog", images=7)
    assert command(FOLDS, folder.DATASET) == 0
    printed = capsys.readouterr().out
    assert [line for line in printed.splitlines() if line.startswith("pets, fold")] == [
        f"pets, fold {fold} of 3: train 14 (11 to train + 3 val), test 7, 3 classes" for fold in (1, 2, 3)
    ]
    # of a test part that was made for one run alone, nothing is said
    once = "folds: all 21 images are divided into 3 by class (names sorted, seed 42); each is tested once"
    assert said(printed, "note") == [once] * 3
    *_, last, pooled = printed.splitlines()
    assert last.startswith("tiny on pets, fold 3 of 3, 7 test images: top-1 ")
    assert pooled.startswith("tiny on pets, 3 folds, 21 images, each tested once: top-1 ")
    assert pooled.endswith("[AUROC and ECE: mean over folds; not pretrained]")
    records = folds_of(tmp_path / "runs")
    right = sum(of["test"]["top1"] * of["test"]["images"] for of in records.values())
    assert f"top-1 {right / 21:.2%}" in pooled
    assert len({of["dataset"]["division"] for of in records.values()}) == 1
    assert len({of["dataset"]["test_part"] for of in records.values()}) == 3
    assert sorted(Path(of["run"]).name[:21] for of in records.values()) == [
        f"honest-seed0-fold{n}of3" for n in (1, 2, 3)
    ]
    parts = [json.loads(path.read_text())["parts"] for path in tmp_path.glob("runs/*/*/*/split.json")]
    tested = sorted(name for each in parts for name, _ in each["test"])
    assert tested == sorted(f"{name}/{index}.png" for name in ("cat", "cow", "dog") for index in range(7))
    assert all(len({name for images in each.values() for name, _ in images}) == 21 for each in parts)
    assert len(list(tmp_path.glob("data/**/*.npy"))) == 1

    # again: nothing is trained, all of it is told
    assert command(FOLDS, folder.DATASET) == 0
    again = capsys.readouterr().out.splitlines()
    assert len(again) == 10
    assert again[-2:] == [last, pooled]
    # a fold alone is the very run of it, of the same numbers
    assert command(f"{FOLDS} --fold 2", folder.DATASET) == 0
    assert len(capsys.readouterr().out.splitlines()) == 3
    assert command(f"{FOLDS} --fold 2 --out alone", folder.DATASET) == 0
    assert folds_of(tmp_path / "alone")[2]["test"] == records[2]["test"]


def test_weights_of_one_fold_have_seen_the_others_test_images(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree(tmp_path / "pets", "cat", "cow", "dog", images=7)
    assert command(f"{FOLDS} --fold 1 --out earlier", folder.DATASET) == 0
    (weights,) = (tmp_path / "earlier").glob("*/*/*/checkpoint.pt")
    assert command(f"{FOLDS} --weights {weights}", folder.DATASET) == 0
    pooled = capsys.readouterr().out.splitlines()[-1]
    assert "3 folds, 21 images, each tested once" in pooled
    assert "its weights have seen 14 of the 21 test images" in pooled


def test_folds_go_on_with_the_one_that_failed(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    tree(tmp_path / "pets", "cat", "dog", images=7)
    whole = Path(tmp_path / "whole")
    assert command(f"{FOLDS} --epochs 3 --out {whole}", folder.DATASET) == 0
    pooled = capsys.readouterr().out.splitlines()[-1]
    saves = []

    def interrupted(run: Run, snapshot: Any) -> None:
        saves.append(run.id)
        save(run, snapshot)
        if len(saves) == 5:
            raise KeyboardInterrupt

    save = Run.save
    monkeypatch.setattr("engine.training.saving.MOST_LOST", 0.0)
    monkeypatch.setattr(Run, "save", interrupted)
    assert command(f"{FOLDS} --epochs 3", folder.DATASET) == 130
    assert {fold: of["status"] for fold, of in folds_of(tmp_path / "runs").items()} == {1: "done", 2: "running"}
    capsys.readouterr()
    assert command(f"{FOLDS} --epochs 3", folder.DATASET) == 0
    printed = capsys.readouterr().out
    assert "(goes on from where it was)" in printed
    assert printed.splitlines()[-1] == pooled
    tests = [{fold: of["test"] for fold, of in folds_of(out).items()} for out in (whole, tmp_path / "runs")]
    assert tests[0] == tests[1]


def test_the_parts_of_a_folder_are_taken_together(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    parted(tmp_path / "pets", "train", "val", "test")
    repaint(tmp_path / "pets")
    assert command(f"{FOLDS} --check", folder.DATASET) == 0
    printed = capsys.readouterr().out
    assert printed.splitlines()[0] == "pets: 36 images, each opened and decoded; here fold 1 of 3"
    assert "\npets, fold 1 of 3: train 24 (22 to train + 2 val), test 12, 2 classes\n" in printed
    assert said(printed, "note")[0] == "folds: the images of train/, test/, val/ are taken together"
    assert "fold 2" not in printed
    assert not (tmp_path / "runs").exists()
    assert command(f"{FOLDS} --shots 5", folder.DATASET) == 0
    assert {of["dataset"]["counts"]["train"] for of in folds_of(tmp_path / "runs").values()} == {8}


def test_copies_in_two_folds_are_refused_before_the_first_is_trained(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tree(tmp_path / "pets", "cat", "dog", images=9)
    numbers = fold_of(read(tmp_path / "pets"), 3, 1).fold_of
    one, other = (next(name for name in numbers if "dog" in name and numbers[name] == fold) for fold in (2, 3))
    pixels = Image.open(tmp_path / "pets" / one)
    pixels.save(tmp_path / "pets" / other, compress_level=1)
    assert command("pets --folds 3 --check", folder.DATASET) == 2
    problems = capsys.readouterr().err
    assert problems.startswith("error: 1 thing to mend before a run:")
    assert one in problems
    assert other in problems
    assert command(FOLDS, folder.DATASET) == 2
    problem = capsys.readouterr().err
    assert problem.startswith(
        "error: 1 image with the same pixels as one in another fold, so the result would flatter:"
    )
    assert one in problem
    assert other in problem
    assert not (tmp_path / "runs").exists()
    assert command(f"{FOLDS} --allow-partial", folder.DATASET) == 0
    assert "partial data: not to be compared" in capsys.readouterr().out.splitlines()[-1]
    assert {fold: of["dataset"]["partial"] for fold, of in folds_of(tmp_path / "runs").items()} == {
        1: False,
        2: True,
        3: True,
    }


def test_folds_keep_the_groups_of_split_together(command: Command, tmp_path: Path, shared_data: Path) -> None:
    """Real photographs, grouped by the thousand of their number, some groups with images of all classes."""
    for name in ("Forest", "River", "Highway"):
        for path in sorted((shared_data / f"eurosat/2750/{name}").iterdir())[::4]:
            (tmp_path / "land" / name).mkdir(parents=True, exist_ok=True)
            shutil.copy(path, tmp_path / "land" / name)
    line = ["--input_dir", "land", "--output_dir", "pets", "--group_regex", r"_(\d)"]
    assert split.main(line) == 0
    assert command(FOLDS, folder.DATASET) == 0
    seen: dict[str, set[int]] = {}
    parts = [json.loads(path.read_text())["parts"] for path in tmp_path.glob("runs/*/*/*/split.json")]
    for number, each in enumerate(parts):
        of = {part: {re.search(r"_(\d)", name)[1] for name, _ in images} for part, images in each.items()}  # type: ignore[index]
        assert not of["test"] & (of["train"] | of["val"])
        assert not of["val"] & of["train"]
        for group in of["test"]:
            seen.setdefault(group, set()).add(number)
    assert all(len(numbers) == 1 for numbers in seen.values())
    assert len(seen) == 8
    notes = folds_of(tmp_path / "runs")[1]["dataset"]["notes"]
    assert any(
        note.startswith("folds: all 72 images are divided into 3 by class and by group, of which") for note in notes
    )


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        ("--fold 2", "--fold 2 needs --folds: of how many?"),
        ("--folds 3 --fold 4", "--fold 4 of --folds 3. Expected a number from 1 to 3."),
        ("--folds 1", "'1' is not a whole number from 2 to 20"),
        ("--folds 3 --protocol paper", "--folds can't be used with --protocol paper"),
        ("--folds 15", "--folds 15: 1 fold would have no image, of 14 images"),
    ],
)
def test_folds_that_can_t_be(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: str, says: str
) -> None:
    tree(tmp_path / "pets", "cat", "dog", images=7)
    assert command(f"pets {QUICK} {flags}", folder.DATASET) == 2
    assert says in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
