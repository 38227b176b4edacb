"""Files of which a part is missing, though their decoder takes the rest for black, for grey or for noise."""

from __future__ import annotations

import math
import os
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, JpegImagePlugin, PngImagePlugin, TiffImagePlugin, WebPImagePlugin

from engine.errors import UnreadableError

# more than the end of pixels that are packed has of them; an interrupted copy leaves zeros up to the size of the whole
ZEROS = 512
UNPACKED = 1 << 20  # bytes that are unpacked at a time
PASSES = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


def require_strips(image: Image.Image) -> None:
    """Raise UnreadableError where a TIFF without compression, not loaded yet, lacks some of its strips or tiles.

    Of one that is compressed its decoder notices. A single strip needs no size: some programs write a wrong one.
    """
    if not isinstance(image, TiffImagePlugin.TiffImageFile) or image.tag_v2.get(259, 1) != 1:
        return
    tags = image.tag_v2
    wide, high = tags[256], tags[257]
    tiled = 324 in tags
    places, sizes = (tags[324], tags.get(325)) if tiled else (tags.get(273, ()), tags.get(279))
    needed = math.ceil(high / (tags[323] if tiled else min(tags.get(278, high), high)))
    needed *= math.ceil(wide / tags[322]) if tiled else 1
    needed *= tags.get(277, 1) if tags.get(284) == 2 else 1
    there = len(places) if sizes is None else sum(size > 0 for size in sizes)
    if there < needed and needed > 1:
        raise UnreadableError(f"{there:,} of its {needed:,} strips or tiles of pixels are there, the rest is missing")


def require_rest(path: Path, image: Image.Image) -> None:
    """Raise UnreadableError where the pixels of an image, which is loaded, do not go on to its end in the file."""
    if isinstance(image, PngImagePlugin.PngImageFile):
        if not np.asarray(image.crop(_last_row(image))).any():  # nearly always it is not all black, and no more is read
            _require_rows(path)
    elif isinstance(image, JpegImagePlugin.JpegImageFile | WebPImagePlugin.WebPImageFile) and _ends_in_zeros(path):
        content = path.read_bytes()
        # in a JPEG's pixels neither mark can occur; before them a thumbnail has its own
        jpeg_ends = content.rfind(b"\xff\xd9") > content.rfind(b"\xff\xda")
        if not jpeg_ends if isinstance(image, JpegImagePlugin.JpegImageFile) else _webp_breaks_off(content):
            raise UnreadableError("its end is zeros, as an interrupted copy or a crash leaves them")


def _last_row(image: Image.Image) -> tuple[int, int, int, int]:
    """The box of the row that is stored last: with interlacing one of those of odd numbers."""
    row = image.height - 1
    row -= int(bool(image.info.get("interlace")) and row % 2 == 0 and row > 0)
    return 0, row, image.width, row + 1


def _require_rows(path: Path) -> None:
    """Raise UnreadableError where a PNG's packed pixels, which end without a fault, are fewer than its size takes."""
    content = path.read_bytes()
    chunks = list(_chunks(content))
    header = next(data for name, data in chunks if name == b"IHDR")
    wide, high = (int.from_bytes(header[place : place + 4], "big") for place in (0, 4))
    bits = header[8] * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[header[9]]
    passes = PASSES if header[12] else ((0, 0, 1, 1),)
    needed = 0
    for top, left, down, across in passes:
        columns, rows = -(-(wide - left) // across), -(-(high - top) // down)
        needed += rows * (1 + -(-columns * bits // 8)) if columns > 0 and rows > 0 else 0
    unpacker, there = zlib.decompressobj(), 0
    for name, data in chunks:
        packed = bytes(data) if name == b"IDAT" else b""
        while packed and there < needed:  # no more is unpacked: a small file can hold any number of zeros
            there += len(unpacker.decompress(packed, UNPACKED))
            packed = unpacker.unconsumed_tail
    if there < needed:
        raise UnreadableError(f"only {there / needed:.0%} of its pixels are there, the rest is missing")


def _chunks(content: bytes) -> Iterator[tuple[bytes, memoryview]]:
    """The chunks of a PNG: name and data."""
    view, place = memoryview(content), 8
    while place + 8 <= len(content):
        size = int.from_bytes(view[place : place + 4], "big")
        yield bytes(view[place + 4 : place + 8]), view[place + 8 : place + 8 + size]
        place += 12 + size


def _ends_in_zeros(path: Path) -> bool:
    with path.open("rb") as file:
        if file.seek(0, os.SEEK_END) <= ZEROS:
            return False
        file.seek(-ZEROS, os.SEEK_END)
        return not any(file.read(ZEROS))


def _webp_breaks_off(content: bytes) -> bool:
    """Whether the packed pixels of a WebP, which other chunks may follow, end in zeros."""
    place = 12
    while place + 8 <= len(content):
        name, size = content[place : place + 4], int.from_bytes(content[place + 4 : place + 8], "little")
        data = content[place + 8 : place + 8 + size]
        if name in (b"VP8 ", b"VP8L", b"ANMF") and len(data) > ZEROS and not any(data[-ZEROS:]):
            return True
        place += 8 + size + size % 2
    return False
