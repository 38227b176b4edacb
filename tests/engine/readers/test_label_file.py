"""Labels in a file, as people and Kaggle have them: understood without a doubt, or refused with what was found."""

import os
import re
import sys
import unicodedata
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common import RawSplits, ReadOptions
from engine.data.folds import fold_of
from engine.errors import UserError
from engine.readers.label_file import list_labelled, read_labelled

NAMES = [f"img_{number:02}.jpg" for number in range(20)]


def fill(root: Path, *names: str, content: bytes = b"an image") -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder with twenty images, as far as their names tell."""
    fill(tmp_path / "photos", *NAMES)
    return tmp_path / "photos"


def table(photos: Path, *lines: str, encoding: str = "utf-8") -> Path:
    path = photos.parent / "labels.csv"
    path.write_bytes("\n".join(lines).encode(encoding))
    return path


def pets(names: Sequence[str] = NAMES, form: str = "{name},{label}") -> list[str]:
    """A line for each file, cats and dogs in turn."""
    return [form.format(name=name, label=("cat", "dog")[index % 2]) for index, name in enumerate(names)]


def read(photos: Path, *lines: str, allow_partial: bool = False, encoding: str = "utf-8") -> RawSplits:
    return read_labelled(ReadOptions(photos, allow_partial), table(photos, *lines, encoding=encoding), 0.2)


def labels_of(raw: RawSplits) -> dict[str, str]:
    return {
        name: raw.classes[label]
        for part in (raw.train, raw.test, raw.val)
        if part
        for name, label in part.labelled_names
    }


def refused(photos: Path, lines: Sequence[str], *says: str, allow_partial: bool = False) -> None:
    with pytest.raises(UserError) as problem:
        read(photos, *lines, allow_partial=allow_partial)
    for text in says:
        assert text in str(problem.value)


EXPECTED = {name: ("cat", "dog")[index % 2] for index, name in enumerate(NAMES)}
STEMS = [name.removesuffix(".jpg") for name in NAMES]


@pytest.mark.parametrize(
    "lines",
    [
        ["file,label", *pets()],
        pets(),
        ["Image ID;Breed", *pets(form="{name};{label}")],
        ["filename\tclass", *pets(form="{name}\t{label}"), "", "  "],
        ['"file", "label"', *pets(form='"{name}", "{label}"')],
        ["image_id,label", *pets(STEMS)],
        pets(STEMS),
        ["path,target", *pets(form="./train/{name},{label}")],
        ["path,target", *pets(form="C:\\data\\photos\\{name},{label}")],
        ["path,target", *pets(form="/kaggle/input/pets/{name},{label}")],
        ["label,image", *pets(form="{label},{name}")],
        [",image,label", *pets(form="7,{name},{label}")],
        ["id,image_id,label", *pets(form="7,{name},{label}")],
        ["id_code,what", *pets(form="{name},{label}")],
        ["file,label", *pets([name.upper() for name in NAMES])],
        ["file,label", *pets(form=" {name} , {label} ")],
        ["file,label,split", *pets(NAMES[:12], "{name},{label},train"), *pets(NAMES[12:], "{name},{label},Test")],
        [*pets(NAMES[:12], "{name},{label},training"), *pets(NAMES[12:], "{name},{label},testing")],
        ["image,cat,dog", *(f"{name},{1 - index % 2},{index % 2}" for index, name in enumerate(STEMS))],
        ["image,cat,cow,dog", *(f"{name},{1 - index % 2}.0,0.0,{index % 2}.0" for index, name in enumerate(STEMS))],
    ],
)
@pytest.mark.parametrize("ends", ["\n", "\r\n", "\r"])
def test_the_forms_that_lists_have(photos: Path, lines: list[str], ends: str) -> None:
    found = read(photos, ends.join(lines), encoding="utf-8-sig" if ends == "\r\n" else "utf-8")
    assert labels_of(found) == EXPECTED
    assert found.classes == ("cat", "dog")
    assert (len(found.train), len(found.test)) in ((16, 4), (12, 8))


def test_the_split_is_that_of_the_same_images_in_class_folders(photos: Path) -> None:
    """Names, their order, labels and parts are those that folder.py has of class folders."""
    import folder

    inside = [f"{EXPECTED[name]}/{name}" for name in NAMES]
    fill(photos.parent / "pets", *inside)
    ours = read_labelled(
        ReadOptions(photos.parent / "pets"), table(photos, *(f"{name},{name[:3]}" for name in inside)), 0.2
    )
    theirs = folder.read(ReadOptions(photos.parent / "pets"))
    for mine, other in ((ours.train, theirs.train), (ours.test, theirs.test)):
        assert mine.labelled_names == other.labelled_names
        assert mine.images == other.images
    assert ours.classes == theirs.classes
    assert list(ours.checksums) == ["labels.csv"]
    assert ours.notes == ("no parts in labels.csv: 20% of each class was held out for testing (names sorted, seed 42)",)


def test_parts_of_the_list(photos: Path) -> None:
    parts = [*["train"] * 10, *["dev"] * 4, *["test"] * 6]
    lines = ["file,label,subset", *(f"{line},{part}" for line, part in zip(pets(), parts, strict=True))]
    found = read(photos, *lines)
    assert found.val is not None
    assert [sorted(part.names) for part in (found.train, found.val, found.test)] == [
        NAMES[:10],
        NAMES[10:14],
        NAMES[14:],
    ]
    assert found.notes == ()
    paper = read_labelled(ReadOptions(photos, protocol="paper"), photos.parent / "labels.csv", 0.2)
    assert paper.notes == ("under the paper protocol test chooses the epoch: the rows of val are not used",)


def test_groups_stay_together(photos: Path) -> None:
    lines = ["file,label,patient_id", *(f"{line},p{index // 4}" for index, line in enumerate(pets()))]
    found = read(photos, *lines)
    assert found.train.groups is not None
    assert found.test.groups is not None
    assert not set(found.train.groups) & set(found.test.groups)
    assert (len(found.train), len(found.test)) == (16, 4)
    for name, group in zip(found.train.names, found.train.groups, strict=True):
        assert group == f"p{NAMES.index(name) // 4}"
    of_one = [f"{line},{'rex' if 'dog' in line else index}" for index, line in enumerate(pets())]
    refused(photos, ["file,label,group", *of_one], "dog: none in test; 1 group in all", "Add images of other groups")
    refused(photos, [*lines[:3], f"{NAMES[2]},cat,", *lines[4:]], "(1)", "line 4 has no group")


def test_labels_of_every_kind(photos: Path) -> None:
    texts = ["dog/wolf", "a, b", "Gebäude", "scab frog_eye_leaf_spot", ".x"]
    lines = ["file,label", *(f'{name},"{texts[index % 5]}"' for index, name in enumerate(NAMES))]
    assert read(photos, *lines).classes == tuple(sorted(texts))
    apart = [unicodedata.normalize(form, "é") for form in ("NFC", "NFD")]
    lines = ["file,label", *(f"{name},{[*apart, 'x', 'X'][index % 4]}" for index, name in enumerate(NAMES))]
    found = read(photos, *lines)
    assert found.classes == ("X", "x", "é")
    assert "'X' and 'x' are taken for different classes: if they are not, give them one name" in found.notes
    numbers = ["10", "9", "1", "0"]
    lines = ["file,label", *(f"{name},{numbers[index % 4]}" for index, name in enumerate(NAMES))]
    assert read(photos, *lines).classes == ("0", "1", "9", "10")


def test_where_the_images_lie_plays_no_part(photos: Path) -> None:
    """In nested folders, beside others that the list does not have, the list itself among them."""
    fill(photos, "cat/x.jpg", "deep/er/y.png", "unlisted/1.jpg", "unlisted/2.png", "readme.txt", ".x.jpg")
    (photos / "labels.csv").write_text(
        "\n".join(["file,label,age", *pets(form="{name},{label},7"), "y,cat,7", "cat/x,dog,"])
    )
    found = read_labelled(ReadOptions(photos), photos / "labels.csv", 0.2)
    assert labels_of(found) == EXPECTED | {"deep/er/y.png": "cat", "cat/x.jpg": "dog"}
    assert found.notes[1:] == (
        "2 images that labels.csv does not list are not used",
        "columns of labels.csv that are not used: age",
    )


def test_a_name_that_could_be_several_files(photos: Path) -> None:
    fill(photos, "a/x.jpg", "b/x.jpg", "y.jpg", "y.png")
    refused(photos, [*pets(), "x.jpg,cat", "y,dog"], "2 files", "x.jpg: a/x.jpg, b/x.jpg", "y: y.jpg, y.png")
    assert labels_of(read(photos, *pets(), "b/x.jpg,cat", "some/where/a/x.jpg,cat", "y.png,dog"))["b/x.jpg"] == "cat"


def test_files_that_are_not_there(photos: Path) -> None:
    fill(photos, "train/other.jpg")
    lines = [*pets(), "gone.jpg,cat", "test/other.jpg,cat", "../../etc/passwd,dog", "\u202egpj.exe,cat"]
    refused(photos, lines, "4 files", "gone.jpg", "../../etc/passwd", r"\u202egpj", "--allow-partial")
    found = read(photos, *lines, allow_partial=True)
    assert found.missing == ("gone.jpg", "test/other.jpg", "../../etc/passwd", "\u202egpj.exe")
    assert labels_of(found) == EXPECTED
    refused(
        photos, ["file,label", "a.png,cat", "b.png,dog"], "None of the 2 files", "a.png, say", "there is img_00.jpg"
    )


def test_lines_that_say_nothing(photos: Path) -> None:
    lines = ["file,label", f"{NAMES[0]},", f"{NAMES[1]},NaN", *pets()[2:]]
    refused(photos, lines, "2 images without a label", "img_00.jpg", "Give these a label", "--allow-partial")
    found = read(photos, *lines, allow_partial=True)
    assert len(labels_of(found)) == 18
    assert found.differences[0].startswith("2 images without a label")
    refused(photos, ["file,label", ",cat", *pets()], "line 2 names no file")


def test_a_file_that_is_listed_twice(photos: Path) -> None:
    assert "1 image is listed more than once, alike: used once" in read(photos, *pets(), "IMG_00.JPG,cat").notes
    refused(photos, [*pets(), "img_00,dog"], "different things of 1 image", "img_00.jpg: cat (line 1), dog (line 21)")
    lines = ["file,label,split", *(f"{line},{'test' if index > 9 else 'train'}" for index, line in enumerate(pets()))]
    refused(photos, [*lines, "img_00.jpg,cat,test"], "img_00.jpg: cat train (line 2), cat test (line 22)")


UNCLEAR = {
    "unknown names": (["foto,what", *pets(form="x{name}x,{label}")], "Its columns: foto, what. Expected a first line"),
    "two labels": (
        ["file,breed,species", *pets(form="{name},{label},{label}")],
        "which of breed and species is the label",
    ),
    "two files": (["path,filename,label", *pets(form="x,{name},{label}")], "which of path and filename is the file"),
    "no label": (["file,age,weight", *pets(form="{name},3,{label}")], "which of its columns is the label"),
    "part of a third": ([*pets(form="{name},{label},seven")], "what its columns are"),
    "five columns": ([*pets(form="{name},{label},train,7,7")], "what its columns are"),
    "a single column": (["file", *NAMES], "has a single column (file)"),
    "nothing": ([], "is empty"),
    "a first line": (["file,label"], "nothing below it"),
    "unknown parts": (
        ["file,label,split", *pets(form="{name},{label},x")],
        "its column split has what is no part:\n  x: 20",
    ),
    "no parts": (["file,label,split", *pets(form="{name},{label},")], "nothing: 20 lines"),
    "no test": (["file,label,set", *pets(form="{name},{label},val")], "has val, but no train and no test"),
    "several in a cell": (["file,label", *pets(form="{name},{label}|cow")], "line 2: cat|cow\n"),
    "several columns": (["file,cat,dog", *pets(form="{name},1,1")], "line 2: cat and dog\n"),
    "shares": (["file,cat,dog", *pets(form="{name},0.3,0.7")], "which of its columns is the label"),
    "too many cells": (["file,label", *pets(), "a,b,c"], "line 22 has 3 columns, the first 2 columns"),
    "an open quote": (["file,label", *pets(), '"a'], "line 22: unexpected end of data"),
    "a label of lines": (["file,label", *pets(), f'{NAMES[0]},"a\nb"'], r"line 23: a\nb, which is no name"),
    "a long label": (["file,label", *pets(form="{name},{label}" + "x" * 300)], "which is no name"),
    "a cell without end": (["file,label", f"{NAMES[0]},{'x' * 200_000}"], "field larger than field limit"),
    "small classes": (["file,label", f"{NAMES[0]},x", *pets()[1:]], "Too few images"),
    "a single label": (["file,label", *pets()[::2]], "has a single label, cat, of what is in"),
}


@pytest.mark.parametrize("kind", UNCLEAR)
def test_what_can_not_be_understood_is_refused(photos: Path, kind: str) -> None:
    lines, says = UNCLEAR[kind]
    refused(photos, lines, str(photos.parent / "labels.csv"), says)


def test_a_quote_that_is_not_closed_is_named_where_it_opens(photos: Path) -> None:
    refused(photos, ["file,label", *pets()[:3], pets()[3].replace(",", ',"'), *pets()[4:]], "begins in line 5")


def test_folds_are_possible_where_a_test_part_of_groups_is_not(photos: Path) -> None:
    """Five patients with two diseases each, every disease in two patients: no two parts have them all."""
    lines = [f"{name},d{(index // 4 + index % 2) % 5},p{index // 4}" for index, name in enumerate(NAMES)]
    refused(photos, ["file,label,group", *lines], "A class does not reach every part")
    raw = read_labelled(ReadOptions(photos, folds=5), photos.parent / "labels.csv", 0.2)
    for fold in range(1, 6):
        divided = fold_of(raw, 5, fold)
        assert len(divided.test) == 4
        assert len(set(divided.train.labels.tolist())) == 5


def test_the_numbers_of_folds_are_no_parts(photos: Path) -> None:
    found = read(photos, "file,label,fold", *(f"{line},{index % 5}" for index, line in enumerate(pets())))
    assert "columns of labels.csv that are not used: fold" in found.notes
    parts = read(
        photos, "file,label,fold", *(f"{line},{'test' if i > 9 else 'train'}" for i, line in enumerate(pets()))
    )
    assert sorted(parts.test.names) == NAMES[10:]


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ("file,label\nGröße.jpg,cat".encode("latin-1"), "line 2 has the byte 0xf6, as files of Windows"),
        ("file,label".encode("utf-16"), "is in UTF-16"),
        (b"a.jpg,cat\0", "or no text"),
        (b"PK\x03\x04...", "a workbook"),
        (b"", "is empty"),
    ],
)
def test_a_file_that_is_no_list(photos: Path, content: bytes, says: str) -> None:
    (photos.parent / "labels.csv").write_bytes(content)
    with pytest.raises(UserError, match=re.escape(says)):
        read_labelled(ReadOptions(photos), photos.parent / "labels.csv", 0.2)


def test_what_is_no_file(photos: Path) -> None:
    os.mkfifo(photos.parent / "pipe")
    (photos.parent / "link.csv").symlink_to("nowhere.csv")
    for name, says in {
        "photos": "is a folder",
        "nothing.csv": "does not exist",
        "pipe": "is no regular file",
        "link.csv": "is a link to nowhere.csv, where there is nothing",
    }.items():
        with pytest.raises(UserError, match=f"--labels .*{name} {says}"):
            read_labelled(ReadOptions(photos), photos.parent / name, 0.2)


def test_listed_files_that_can_not_be_used(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    fill(photos, "x.heic", content=b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    refused(
        photos,
        [*pets(), "x,cat"],
        "1 .heic. HEIC (HEIF) is read by a package: pip install pillow-heif (or save it as JPEG).",
        "--allow-partial",
    )
    found = read(photos, *pets(), "x,cow", allow_partial=True)
    assert labels_of(found) == EXPECTED
    assert found.differences == (
        "1 class has no image that can be used: cow",
        "not used, but like images: 1 .heic",
    )
    fill(photos, "words.txt")
    (photos / "gone.jpg").symlink_to("nowhere")
    os.link(photos / NAMES[0], photos / "twin.jpg")
    refused(
        photos,
        [*pets(), "words.txt,cat", "gone.jpg,cat", "twin.jpg,cat"],
        "Unusable in",
        "(3)",
        "words.txt: no image",
        "gone.jpg: a link to nothing",
        "twin.jpg: the same file as img_00.jpg",
    )
    assert labels_of(read(photos, *pets())) == EXPECTED  # what is not listed is nobody's loss


@pytest.fixture(scope="module")
def some(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("some") / "photos"
    fill(folder, *NAMES)
    return folder


WORDS = st.sampled_from(
    [
        "file",
        "label",
        "split",
        *NAMES[:4],
        "cat",
        "train",
        "test",
        "0",
        "1",
        "nan",
        '"',
        ",",
        ";",
        "\t",
        "\n",
        "\r",
        "../",
    ]
)


def read_any_labels(content: bytes, photos: Path) -> None:
    """Read what may be no file of labels at all: it is read, or refused."""
    path = photos.parent / "any.csv"
    path.write_bytes(content)
    with suppress(UserError):
        found = list_labelled(photos, path, True)
        assert set(found.sizes) <= {*NAMES}
    with suppress(UserError):
        read_labelled(ReadOptions(photos, True), path, 0.2)


@settings(max_examples=150, deadline=None)
@given(words=st.lists(WORDS | st.text(max_size=4), max_size=40), raw=st.binary(max_size=8))
def test_any_list_is_read_or_refused(some: Path, words: list[str], raw: bytes) -> None:
    read_any_labels("".join(words).encode("utf-8", "surrogatepass") + raw, some)


@settings(max_examples=100, deadline=None)
@given(cells=st.lists(st.tuples(st.sampled_from(NAMES), WORDS, WORDS), min_size=1, max_size=20))
def test_any_cells_are_read_or_refused(some: Path, cells: list[tuple[str, ...]]) -> None:
    lines = [
        "file,label,group",
        *(",".join(cell.replace('"', "").strip(",;\n\r\t") or "x" for cell in row) for row in cells),
    ]
    read_any_labels("\n".join(lines).encode(), some)


def test_thousands_of_images_take_a_moment(photos: Path) -> None:
    """No step of it grows with the square of the images."""
    import time

    for number in range(3000):
        (photos / f"{number:05}.jpg").write_bytes(b"x")
    lines = ["id,label", *(f"{number:05},{number % 3}" for number in range(3000))]
    begin = time.perf_counter()
    found = read(photos, *lines)
    assert time.perf_counter() - begin < 5
    assert np.bincount(found.train.labels).tolist() == [800, 800, 800]
