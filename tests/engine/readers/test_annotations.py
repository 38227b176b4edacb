"""The parts that a dataset's own lists make."""

import csv
import io
import json
import os
import struct
import tarfile
import zlib
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.io import savemat

from engine.errors import UserError
from engine.readers import annotations
from engine.readers.annotations import (
    listed_part,
    read_columns,
    read_csv,
    read_json,
    read_lines,
    read_matlab,
    read_table,
    whole_numbers,
)


def test_a_folder_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "images").symlink_to("images")
    with pytest.raises(UserError, match="images can't be read: too many levels of symbolic links"):
        listed_part(tmp_path, ["images/1.png"], [0])


@pytest.mark.parametrize("names", [["a/1.png", "b/1.png", "a/1.png"], ["1.png", "1.png"]])
def test_a_list_that_names_an_image_twice_is_told(tmp_path: Path, names: Sequence[str]) -> None:
    for name in set(names):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=f"name {names[0]} twice"):
        listed_part(tmp_path, names, [0] * len(names))


@pytest.mark.parametrize(
    "name",
    [
        "../1.png",
        "/etc/1.png",
        "a/../../1.png",
        "./1.png",
        "a//1.png",
        "a\\1.png",
        "",
        "a\0.png",
        "\ud800.png",
        "n" * 256,
        "a/" + "n" * 100_000,
    ],
)
def test_a_list_that_leads_elsewhere_is_told(tmp_path: Path, name: str) -> None:
    """An image from outside would be trained on, in silence, if it happened to be there."""
    (tmp_path / "1.png").touch()
    (tmp_path / "images").mkdir()
    with pytest.raises(UserError, match="is no path of an image below it"):
        listed_part(tmp_path / "images", [name], [0])


def test_a_table_with_two_lines_for_one_image_is_told(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_text("\ufeff1 a b\r\n\r\n2\tc\r\n")
    assert read_table(path) == {"1": "a b", "2": "c"}
    path.write_text("1 3\n2 4\n1 5\n")
    with pytest.raises(UserError, match=r"damaged or another file: it has '1' in several lines"):
        read_table(path)


@pytest.mark.parametrize("row", ["b", "b\n", '"b'])
def test_a_row_that_was_cut_off_is_told(tmp_path: Path, row: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(f"patientId,x,Target\na,,0\n{row}")
    with pytest.raises(UserError, match=r"the row 'b.*' has too few columns"):
        read_csv(path, "patientId", "Target")


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    for name in ("a/1.png", "b/2.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    part, missing = listed_part(tmp_path, ["a/1.png", "a/9.png", "c/1.png", "b/2.png"], [3, 3, 4, 5])
    assert (part.names, part.labels.tolist()) == (["a/1.png", "b/2.png"], [3, 5])
    assert part.references == [tmp_path / "a" / "1.png", tmp_path / "b" / "2.png"]
    assert missing == ("a/9.png", "c/1.png")


@pytest.mark.parametrize(
    ("listed", "there"),
    [
        ("caf\u00e9/caf\u00e9.jpg", "cafe\u0301/cafe\u0301.jpg"),
        ("cafe\u0301/1.jpg", "caf\u00e9/1.jpg"),
        ("a/1.jpg", "a/1.JPG"),
        ("a/1.png", "A/1.PNG"),
        ("a/1.jpeg", "a/1.jpg"),
        ("A/IMAGE_1.JPG", "a/image_1.jpg"),
    ],
)
def test_a_listed_image_in_other_letters(tmp_path: Path, listed: str, there: str) -> None:
    """It keeps the listed name, which the run's id is made of, and is opened by its own."""
    (tmp_path / there).parent.mkdir()
    (tmp_path / there).touch()
    part, missing = listed_part(tmp_path, [listed], [0])
    assert (part.names, part.references, missing) == ([listed], [tmp_path / there], ())


def test_names_of_which_a_disk_holds_both_forms(tmp_path: Path) -> None:
    """Each is itself; what could be either of two is neither."""
    for name in ("caf\u00e9.jpg", "cafe\u0301.jpg", "B.jpg", "b.JPG", "C.jpg"):
        (tmp_path / name).touch()
    part, missing = listed_part(tmp_path, ["caf\u00e9.jpg", "cafe\u0301.jpg", "b.jpg", "c.jpg", "c.JPG"], [0] * 5)
    assert part.references == [tmp_path / "caf\u00e9.jpg", tmp_path / "cafe\u0301.jpg"]
    assert missing == ("b.jpg", "c.jpg", "c.JPG")


def test_a_pipe_is_no_image(tmp_path: Path) -> None:
    """It would be waited for; a link to nothing is told of by whoever decodes it."""
    os.mkfifo(tmp_path / "1.png")
    (tmp_path / "2.png").symlink_to(tmp_path / "1.png")
    (tmp_path / "3.png").symlink_to(tmp_path / "nothing")
    part, missing = listed_part(tmp_path, ["1.png", "2.png", "3.png"], [0, 1, 2])
    assert (part.names, missing) == (["3.png"], ("1.png", "2.png"))


def test_a_list_that_another_program_saved(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n')
    assert read_json(tmp_path / "a.json") == {"a": 1}


def element(kind: int, body: bytes) -> bytes:
    return struct.pack("<II", kind, len(body)) + body + bytes(-len(body) % 8)


def matrix(kind: int, dimensions: tuple[int, ...], *rest: bytes, name: bytes = b"") -> bytes:
    sizes = struct.pack(f"<{len(dimensions)}i", *dimensions)
    head = element(6, struct.pack("<II", kind, 0)) + element(5, sizes) + element(1, name)
    return element(14, b"".join([head, *rest]))


def matlab(*elements: bytes) -> bytes:
    return b"MATLAB 5.0".ljust(124) + struct.pack("<H", 0x100) + b"IM" + b"".join(elements)


def nested(depth: int) -> bytes:
    """Cells in cells, made from without, as from within it takes the square of the depth."""
    head = matrix(1, (1, 1))[8:]
    size = len(matrix(6, (1, 1))) + depth * (len(head) + 8)
    levels = [struct.pack("<II", 14, size - (len(head) + 8) * level - 8) + head for level in range(depth)]
    return b"".join(levels) + matrix(6, (1, 1))


CELL, STRUCT, DOUBLE = 1, 2, 6
FIELD = (element(5, struct.pack("<i", 8)), element(1, b"a".ljust(8, b"\0")))
MATLAB = {
    "deep": matlab(matrix(CELL, (1, 1), nested(60_000), name=b"labels")),
    "deep, compressed": matlab(element(15, zlib.compress(matrix(CELL, (1, 1), nested(60_000), name=b"labels")))),
    "many cells": matlab(matrix(CELL, (1 << 28, 1), name=b"labels")),
    "many structures": matlab(matrix(STRUCT, (1 << 28, 1), *FIELD, name=b"labels")),
    "many structures of nothing": matlab(matrix(STRUCT, (1 << 28, 1), FIELD[0], element(1, b""), name=b"labels")),
    "many numbers": matlab(matrix(DOUBLE, (1 << 20, 1 << 20), element(9, bytes(8)), name=b"labels")),
    "a bomb": matlab(element(15, zlib.compress(bytes(80 << 20)))),
    "another array": matlab(matrix(DOUBLE, (2, 1), element(9, bytes(16)), name=b"other")),
    "a single value": matlab(matrix(DOUBLE, (1, 1), element(9, bytes(8)), name=b"labels")),
    "cut": matlab(matrix(DOUBLE, (2, 1), element(9, bytes(16)), name=b"labels"))[:-8],
    "a header alone": matlab(),
    "small": matlab(struct.pack("<II", 1 << 16 | 14, 0)),
    "no name": matlab(element(14, element(6, bytes(8)))),
    "a kind of value that is none": matlab(matrix(DOUBLE, (2, 1), element(4096, b""), name=b"labels")),
    "flags of no length": matlab(element(14, element(6, b"") + element(5, bytes(8)) + element(1, b"labels"))),
    "a sparse one": matlab(matrix(5, (1 << 30, 1 << 30), name=b"labels")),
    "fewer than it states": matlab(matrix(CELL, (3, 1), matrix(DOUBLE, (1, 1), element(9, bytes(8))), name=b"labels")),
    "HDF5": b"MATLAB 7.3".ljust(124) + struct.pack("<H", 0x200) + b"IM" + bytes(400),
    "nothing": b"",
}


@pytest.mark.parametrize("kind", MATLAB)
def test_a_matlab_file_that_states_more_than_it_has(tmp_path: Path, kind: str) -> None:
    (tmp_path / "a.mat").write_bytes(MATLAB[kind])
    with pytest.raises(UserError, match=r"a\.mat is damaged or another file"):
        read_matlab(tmp_path / "a.mat", "labels")


def test_matlab_files_as_they_are(tmp_path: Path, shared_data: Path) -> None:
    for compressed in (True, False):
        content = {"labels": np.arange(1, 300), "names": np.array(["a", "b c"], dtype=object), "x": np.zeros(0)}
        savemat(tmp_path / "a.mat", content, do_compression=compressed)
        labels, names = read_matlab(tmp_path / "a.mat", "labels", "names")
        assert whole_numbers(tmp_path, labels) == list(range(1, 300))
        assert names.tolist() == ["a", "b c"]
        with tarfile.open(tmp_path / "lists.tar", "w") as archive:
            archive.add(tmp_path / "a.mat", "in/a.mat")
        assert read_matlab(tmp_path / "lists.tar" / "a.mat", "labels")[0].tolist() == labels.tolist()
    (annotations,) = read_matlab(shared_data / "stanford_cars" / "devkit" / "cars_train_annos.mat", "annotations")
    assert {"fname", "class"} <= set(annotations.dtype.names)


@pytest.mark.parametrize("values", [[2**31], [-(2**40)], [1.5], [float("nan")], ["1"], [[1, 2]]])
def test_numbers_that_are_none(values: list[Any]) -> None:
    with pytest.raises(UserError, match=r"a\.mat is damaged or another file: it has"):
        whole_numbers(Path("a.mat"), np.array(values))


Read = Callable[[Path], object]
READERS: dict[str, Read] = {
    "lines": read_lines,
    "columns": lambda path: read_columns(path, 2),
    "table": read_table,
    "CSV": lambda path: read_csv(path, "name", "label"),
    "JSON": read_json,
    "MATLAB": lambda path: read_matlab(path, "labels"),
}
LINE = b"x" * 10_000_000
LISTS = [
    ("lines", b""),
    ("lines", b"\xff\xfea\0"),
    ("lines", b"a\0b"),
    ("columns", LINE),
    ("table", (b"x " + LINE + b"\n") * 2),
    ("table", b"a b\na c"),
    ("CSV", b"name,label\na\n"),
    ("CSV", b"name\na\n"),
    ("CSV", b"name,label,label\na,1,2\n"),
    ("CSV", b"name,label\n"),
    ("CSV", b"name,label\n" + LINE + b",1\n"),
    ("CSV", b'name,label\n"' + LINE),
    ("CSV", b"name,label\na,1\0\n"),
    ("JSON", b"[" * 100_000),
    ("JSON", b'{"a": NaN}'),
    ("JSON", b"[" + b"9" * 5000 + b"]"),
    ("JSON", b"null"),
    ("JSON", b'"' + LINE),
]


@pytest.mark.parametrize(("kind", "content"), LISTS)
def test_a_list_that_is_none(tmp_path: Path, kind: str, content: bytes) -> None:
    """One sentence, however long its lines are."""
    (tmp_path / "list").write_bytes(content)
    with pytest.raises(UserError, match=r"list is damaged or another file") as told:
        READERS[kind](tmp_path / "list")
    assert len(str(told.value)) < 800


@pytest.mark.parametrize("kind", READERS)
def test_what_is_no_file_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(UserError, match="no regular file"):
        READERS[kind](tmp_path / "pipe")
    monkeypatch.setattr(annotations, "MOST_BYTES", 5)
    (tmp_path / "large").write_bytes(b"larger")
    with pytest.raises(UserError, match="larger than 5 bytes"):
        READERS[kind](tmp_path / "large")


def read_any_list(content: bytes, folder: Path, kind: str) -> None:
    """Read what may be no list of that kind: it is one, or refused."""
    (folder / "list").write_bytes(content)
    with suppress(UserError):
        READERS[kind](folder / "list")


def whole() -> dict[str, bytes]:
    buffer = io.BytesIO()
    savemat(
        buffer, {"labels": np.arange(1, 20), "names": np.array([("a", 1)], dtype=[("fname", "O"), ("class", "i4")])}
    )
    text = io.StringIO()
    csv.writer(text).writerows([["name", "label"], ["a,b", "1"], ['c"', "2"]])
    lines = b"1 a/b.jpg\n2 a c.jpg\n"
    named = {"CSV": text.getvalue().encode(), "JSON": json.dumps({"a": ["b/c", 1.5, None]}).encode()}
    return {"lines": lines, "columns": lines, "table": lines, "MATLAB": buffer.getvalue(), **named}


WHOLE = whole()


@settings(max_examples=150, deadline=None)
@given(
    kind=st.sampled_from(sorted(READERS)),
    changes=st.lists(st.tuples(st.integers(0, 1000), st.binary(min_size=1, max_size=8)), max_size=3),
    end=st.integers(0, 3000),
)
def test_any_list_is_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, kind: str, changes: list[tuple[int, bytes]], end: int
) -> None:
    content = bytearray(WHOLE[kind])
    for place, other in changes:
        content[place % len(content) : place % len(content) + len(other)] = other
    read_any_list(bytes(content[:end]), tmp_path_factory.getbasetemp(), kind)
