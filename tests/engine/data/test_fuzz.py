"""Whatever bytes a file has, its decoder, or the reader of a cache's manifest, answers or says why not.

decode_bytes() and read_manifest() take the bytes of a file as a fuzzer makes them.
"""

import json
import tempfile
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as some
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit

from engine.data.cache import Cache, _images, decode_all
from engine.data.decode_pool import quiet
from engine.data.images import load
from engine.data.part import Part, RawSplits
from engine.errors import UnreadableError
from engine.files import DamagedError
from tests.engine.data.pictures import PLACES, SMOOTH, encoded, save
from tests.engine.data.test_dicom import dicom

ROOM = 64 << 20  # bytes that an image may take

Edits = list[tuple[int, int]]
EDITS = some.lists(some.tuples(some.integers(0, 2**16), some.integers(-3, 255)), min_size=1, max_size=8)


def mutated(data: bytes, edits: Edits) -> bytes:
    """`data` with a byte set for each edit, at a place; a negative one cuts, doubles or leaves out what lies there."""
    changed = bytearray(data)
    for where, what in edits:
        place = where % max(1, len(changed))
        if what == -1:
            del changed[place:]
        elif what == -2:
            changed[place:place] = changed[place:][:999]
        elif what == -3:
            del changed[place : place + 7]
        elif changed:
            changed[place] = what
    return bytes(changed)


def decode_bytes(data: bytes, suffix: str = "") -> None:
    """Decode a file of these bytes: nothing but UnreadableError comes of it, and no image beyond ROOM."""
    with tempfile.NamedTemporaryFile(suffix=suffix) as file, suppress(UnreadableError), quiet():
        file.write(data)
        file.flush()
        pixels = np.asarray(load(Path(file.name), ROOM))
        assert pixels.dtype == np.uint8
        assert pixels.shape[2:] == (3,)
        assert pixels.nbytes <= ROOM


@cache
def seeds() -> dict[str, list[bytes]]:
    """Small files, by format."""
    colours, grey = Image.fromarray(SMOOTH[:9, :7]), Image.fromarray(SMOOTH[:9, :7, 0])
    wide, palette = Image.fromarray(SMOOTH[:9, :7, 0].astype(np.uint16) * 200), Image.fromarray(PLACES).convert("P")
    found = {
        "PNG": [encoded(image, "PNG") for image in (colours, grey, wide, palette)],
        "TIFF": [
            *(encoded(image, "TIFF") for image in (colours, wide, palette, colours.convert("CMYK"))),
            *(encoded(colours, "TIFF", compression=how) for how in ("tiff_lzw", "tiff_adobe_deflate", "packbits")),
        ],
        "GIF": [encoded(palette, "GIF"), encoded(palette, "GIF", save_all=True, append_images=[palette, palette])],
        "WEBP": [encoded(colours, "WEBP"), encoded(colours, "WEBP", lossless=True)],
        "JPEG": [encoded(colours, "JPEG"), encoded(grey, "JPEG", progressive=True)],
        "BMP": [encoded(colours, "BMP"), encoded(palette, "BMP")],
        "DICOM": [],
    }
    compressed = dicom(SMOOTH[..., 0])
    compressed.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    compressed.PixelData = encapsulate([encoded(Image.fromarray(SMOOTH[..., 0]), "JPEG")])
    plain = dicom(SMOOTH[:9, :7, 0], WindowCenter=90, WindowWidth=80, RescaleSlope=2, RescaleIntercept=-9)
    for header in (plain, dicom(SMOOTH[:9, :8]), compressed):
        with tempfile.TemporaryFile() as file:
            header.save_as(file, enforce_file_format=True)
            file.seek(0)
            found["DICOM"].append(file.read())
    return found


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "DICOM"])
def test_images(kind: str) -> None:
    @settings(max_examples=60, deadline=None, database=None, derandomize=True)
    @given(some.sampled_from(seeds()[kind]), EDITS)
    def check(seed: bytes, edits: Edits) -> None:
        decode_bytes(mutated(seed, edits), ".dcm" if kind == "DICOM" else "")

    check()


@settings(max_examples=60, deadline=None, database=None, derandomize=True)
@given(some.binary(max_size=300), some.sampled_from(["", ".dcm", ".png"]))
def test_any_bytes(data: bytes, suffix: str) -> None:
    decode_bytes(data, suffix)


def read_manifest(folder: Path, data: bytes) -> None:
    """Read these bytes as the manifest of the cache in `folder`, made if need be: it is as it was, or is damaged."""
    images = RawSplits(("a", "b"), _part(folder, range(3)), _part(folder, range(3, 5)))
    kept = Cache(folder / "cache", "toy-4x4", (4, 4), _images(images))
    if not (folder / "cache").exists():
        decode_all(images, "toy", (4, 4), folder / "cache", False)
    (path,) = (folder / "cache").glob("*.json")
    whole = path.read_bytes()
    expected = kept._found(0)
    assert expected is not None
    path.write_bytes(data)
    with suppress(DamagedError):
        found = kept._found(0)
        assert found is not None
        assert found[1] == expected[1]
    path.write_bytes(whole)


def _part(folder: Path, numbers: range) -> Part:
    paths = [folder / f"{number}.png" for number in numbers]
    for path in paths:
        if not path.exists():
            save(path, 1)
    return Part(paths, np.zeros(len(paths), np.int64), [path.name for path in paths])


def test_manifests(tmp_path: Path) -> None:
    read_manifest(tmp_path, b"")
    (path,) = (tmp_path / "cache").glob("*.json")
    whole = path.read_bytes()
    anything = some.recursive(
        some.none() | some.booleans() | some.floats() | some.integers() | some.text(max_size=3),
        lambda inner: some.lists(inner, max_size=4) | some.dictionaries(some.text(max_size=3), inner, max_size=4),
        max_leaves=8,
    )
    fields = some.dictionaries(some.sampled_from(sorted(json.loads(whole))), anything, max_size=3)

    @settings(max_examples=80, deadline=None, database=None, derandomize=True)
    @given(EDITS.map(lambda edits: mutated(whole, edits)) | fields.map(lambda changed: altered(whole, changed)))
    def check(data: bytes) -> None:
        read_manifest(tmp_path, data)

    check()


def altered(manifest: bytes, changed: dict[str, Any]) -> bytes:
    """A manifest with other fields."""
    return json.dumps({**json.loads(manifest), **changed}).encode()
