"""Files of which a part is missing, though their decoder would take the rest for black, for grey or for noise."""

import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.data.images import decode
from tests.engine.data.pictures import encoded, unreadable
from tests.engine.data.test_images import tiff

NOISE = np.random.default_rng(6).integers(0, 256, (64, 64, 3), dtype=np.uint8)


def png(rows: bytes, interlaced: bool = False, high: int = 64) -> bytes:
    """A PNG of 64 columns that has these packed rows, whatever its header says."""
    header = struct.pack(">IIBBBBB", 64, high, 8, 2, 0, 0, interlaced)
    packed = zlib.compress(rows)
    chunks = [(b"IHDR", header), (b"IDAT", packed[:50]), (b"IDAT", packed[50:]), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


def rows_of(pixels: Any) -> bytes:
    return b"".join(b"\0" + row.tobytes() for row in pixels)


def passes_of(pixels: Any) -> bytes:
    """The rows of the seven passes of an interlaced PNG: https://www.w3.org/TR/png-3/#8Interlace"""
    parts = [(0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1)]
    return b"".join(rows_of(pixels[top::down, left::across]) for top, left, down, across in parts)


@pytest.mark.parametrize("lost", [1, 16, 31])
@pytest.mark.parametrize("interlaced", [False, True])
def test_a_png_of_too_few_rows(interlaced: bool, lost: int, tmp_path: Path) -> None:
    """Its packed pixels end without a fault, so that Pillow takes the rest for black."""
    path = tmp_path / "image.png"
    whole = passes_of(NOISE) if interlaced else rows_of(NOISE)
    path.write_bytes(png(whole, interlaced))
    np.testing.assert_array_equal(decode(path), NOISE)
    path.write_bytes(png(whole[: -lost * 193], interlaced))
    assert "of its pixels are there, the rest is missing" in unreadable(path)


@pytest.mark.parametrize("interlaced", [False, True])
@pytest.mark.parametrize("high", [1, 2, 3, 63])
def test_a_png_that_is_black_at_its_end(interlaced: bool, high: int, tmp_path: Path) -> None:
    black = NOISE[:high].copy()
    black[high // 2 :] = 0
    path = tmp_path / "image.png"
    path.write_bytes(png(passes_of(black) if interlaced else rows_of(black), interlaced, high))
    np.testing.assert_array_equal(decode(path), black)


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "I;16"])
def test_black_pngs_of_other_kinds_are_whole(mode: str, tmp_path: Path) -> None:
    image = Image.new(mode, (13, 5))
    image.save(tmp_path / "image.png")
    assert decode(tmp_path / "image.png").shape == (5, 13, 3)


KINDS: list[tuple[str, dict[str, Any]]] = [
    ("JPEG", {}),
    ("JPEG", {"progressive": True}),
    ("WEBP", {}),
    ("WEBP", {"lossless": True}),
    ("WEBP", {"exif": b"Exif" + b"\0" * 2000}),
]


@pytest.mark.parametrize(("kind", "options"), KINDS)
def test_a_file_whose_rest_is_zeros(kind: str, options: dict[str, Any], tmp_path: Path) -> None:
    """As an interrupted copy, a crash or a card without room leaves it: of the right size, and half of it."""
    data = encoded(Image.fromarray(NOISE), kind, **options)
    path = tmp_path / "image"
    path.write_bytes(data)
    decode(path)
    end = data.find(b"EXIF") if "exif" in options else len(data)
    path.write_bytes(data[: end // 2] + b"\0" * (end - end // 2) + data[end:])
    reason = unreadable(path)
    assert ("truncated" if "progressive" in options else "zeros") in reason  # some decoders do notice


def test_zeros_behind_the_end_do_no_harm(tmp_path: Path) -> None:
    thumbnail = b"Exif\0\0" + encoded(Image.fromarray(NOISE[:8, :8]), "JPEG")
    for options in ({}, {"exif": thumbnail}):
        (tmp_path / "image.jpg").write_bytes(encoded(Image.fromarray(NOISE), "JPEG", **options) + b"\0" * 4096)
        assert decode(tmp_path / "image.jpg").shape == NOISE.shape


@pytest.mark.parametrize("tags", [{"t279": (6144, 0)}, {"t273": (8,), "t279": (6144,)}])
def test_a_tiff_that_lacks_a_strip(tags: dict[str, Any], tmp_path: Path) -> None:
    layout: dict[str, Any] = {"t262": (2,), "t278": (32,), "t273": (8, 8 + 6144), "t279": (6144, 6144)}
    (tmp_path / "image.tif").write_bytes(tiff("<", NOISE, 8, **layout))
    np.testing.assert_array_equal(decode(tmp_path / "image.tif"), NOISE)
    (tmp_path / "image.tif").write_bytes(tiff("<", NOISE, 8, **layout | tags))
    assert unreadable(tmp_path / "image.tif").startswith("1 of its 2 strips or tiles of pixels are there")
