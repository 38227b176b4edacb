"""What a file or folder is, by its name and first bytes."""

import struct
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from engine.data.file_kinds import HEAD, Kind, format_of, is_conflict_copy, is_helper_folder, kind_of, what_else
from engine.data.images import decode
from tests.engine.data.pictures import COLOURS, encoded


def kind(name: str, head: bytes = b"") -> Kind:
    return kind_of(name, lambda: head[:HEAD])


@pytest.mark.parametrize(
    "format_", ["JPEG", "PNG", "GIF", "TIFF", "BMP", "WEBP", "JPEG2000", "AVIF", "PPM", "QOI", "DDS", "SGI"]
)
@pytest.mark.parametrize("name", ["photo", "photo.JPG_large", "photo.jpg?w=300", "1.2.840.10008", "photo.1"])
def test_what_pillow_writes_is_an_image_under_any_name(format_: str, name: str) -> None:
    Image.init()
    if format_ not in Image.SAVE:
        pytest.skip(f"this Pillow writes no {format_}")
    data = encoded(Image.fromarray(COLOURS), format_)
    assert format_of(data[:HEAD])
    assert kind(name, data) == "image"


def test_a_sun_raster_is_an_image_where_pillow_reads_it(tmp_path: Path) -> None:
    data = struct.pack(">8I", 0x59A66A95, 7, 5, 24, 120, 3, 0, 0)  # rows of an even number of bytes
    data += np.pad(COLOURS.reshape(5, 21), ((0, 0), (0, 1))).tobytes()
    assert kind("a.ras", data) == "image"
    (tmp_path / "a.ras").write_bytes(data)
    np.testing.assert_array_equal(decode(tmp_path / "a.ras"), COLOURS)


@pytest.mark.parametrize("name", ["a.dcm", "a.DICOM", "a.tga", "a.jpe", "a.jp2", "a.avif", "a.apng", "a.JFIF"])
def test_a_usual_suffix_is_enough(name: str) -> None:
    assert kind(name) == "image"


def test_dicom_is_known_by_its_preamble_and_its_directory_is_none() -> None:
    head = b"\0" * 128 + b"DICM" + b"\2\0" * 50
    assert kind("IM0001", head) == "image"
    assert kind("DICOMDIR", head) == "other"


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("README", b"BMW is a car, and this is a text of some length"),
        ("README", b"P5 patients in all"),
        ("README", "Größe".encode()),
        ("notes.txt", encoded(Image.fromarray(COLOURS), "PNG")),
        ("Thumbs.db", b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + b"\0" * 200),
        ("desktop.ini", b"[.ShellClassInfo]"),
        ("labels.csv", b"1,2"),
        ("paper.pdf", b"%PDF-1.7"),
        ("film.mp4", b"\0\0\0\x20ftypisom\0\0\2\0isomiso2avc1mp41"),
        ("film", b"\0\0\0\x14ftypqt  \0\0\0\0qt  "),
        ("weights.pt", b"PK\3\4"),
        ("table.npy", b"\x93NUMPY\1\0"),
        ("folder.ico", b"\0\0\1\0"),
        ("photo.jpg~", encoded(Image.fromarray(COLOURS), "JPEG")),
        ("photo.jpg_original", encoded(Image.fromarray(COLOURS), "JPEG")),
        ("photo.jpg.part", encoded(Image.fromarray(COLOURS), "JPEG")),
        ("MVI_1.THM", encoded(Image.fromarray(COLOURS), "JPEG")),
        ("empty", b""),
    ],
)
def test_what_is_no_image(name: str, head: bytes) -> None:
    assert kind(name, head) == "other"


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("a.nef", b"MM\0*"),  # a TIFF, in which Pillow finds a thumbnail
        ("a.dng", b"II*\0"),
        ("a.psd", b"8BPS"),
        ("a", b"8BPS\0\1"),
        ("a.svg", b"<svg"),
        ("a.eps", b"%!PS"),
        ("a.fits", b"SIMPLE"),
        ("a.pam", b"P7"),
    ],
)
def test_what_looks_like_an_image_and_is_not_read(name: str, head: bytes) -> None:
    assert kind(name, head) == "unused image"


HEIC, JXL = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", b"\0\0\0\x0cJXL \r\n\x87\n"


@pytest.mark.parametrize(("name", "head"), [("a.heic", HEIC), ("a", HEIC), ("a.HIF", HEIC), ("a.jxl", JXL), ("a", JXL)])
def test_what_takes_a_package(name: str, head: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    for package in ("pillow_heif", "pillow_jxl"):
        monkeypatch.setitem(sys.modules, package, None)
    assert kind(name, head) == "unused image"
    for package in ("pillow_heif", "pillow_jxl"):
        monkeypatch.setitem(sys.modules, package, np)  # any that is there
    assert kind(name, head) == "image"


@pytest.mark.parametrize("brand", [b"avif", b"avis", b"mif1"])
def test_avif_is_no_heif(brand: bytes) -> None:
    assert format_of(b"\0\0\0\x1cftyp" + brand + b"\0\0\0\0mif1avifmiaf") == "AVIF"


def test_a_git_lfs_pointer() -> None:
    head = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a214614ab2935c943\nsize 9\n"
    assert kind("a.png", head) == "placeholder"
    assert what_else(head).endswith("git lfs pull")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        (".a.jpg.icloud", "placeholder"),
        ("a.HEIC.nextcloud", "placeholder"),
        ("a.png.owncloud", "placeholder"),
        (".notes.txt.icloud", "other"),
        ("a.icloud", "other"),
    ],
)
def test_what_stands_for_an_image_on_a_server(name: str, expected: Kind) -> None:
    assert kind(name) == expected


@pytest.mark.parametrize(
    "name",
    """@eaDir|#recycle|@Recycle|@Recently-Snapshot|$RECYCLE.BIN|System Volume Information|lost+found|.Trash-1000
.Trashes|.AppleDouble|__MACOSX|.ipynb_checkpoints|.dropbox.cache|.stversions|_gsdata_|~snapshot|.snapshot|.thumbnails
thumbnails|found.000|Network Trash Folder""".replace("\n", "|").split("|"),
)
def test_helper_folders(name: str) -> None:
    assert is_helper_folder(name)


@pytest.mark.parametrize("name", ["cat", "trash", "Recycling", "snapshot", "found", "train", "_", "eadir", "recycled"])
def test_class_folders_are_no_helpers(name: str) -> None:
    """TrashNet has a class `trash`, a set of gestures can have `thumbs`, one of waste `recycled`."""
    assert not is_helper_folder(name)
    assert not is_helper_folder("thumbs")
    assert is_helper_folder("RECYCLED")  # as Windows writes it


def test_thumbnails_inside_a_class() -> None:
    assert is_helper_folder("Thumbs", inside_class=True)


@pytest.mark.parametrize(
    ("name", "copy"),
    [
        ("cat (Ann's conflicted copy 2024-05-01).jpg", True),
        ("cat (conflicted copy 2024-05-01 101112).jpg", True),
        ("cat.sync-conflict-20240501-101112-ABCDEFG.jpg", True),
        ("cat (1).jpg", False),
        ("conflict.jpg", False),
    ],
)
def test_conflict_copies(name: str, copy: bool) -> None:
    assert is_conflict_copy(name) == copy
