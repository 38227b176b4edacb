"""Every image format decoded to the RGB pixels that a viewer shows, or refused with a reason."""

import fcntl
import io
import os
import re
import struct
import sys
import tracemalloc
import zlib
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any, Literal

import h5py
import numpy as np
import numpy.typing as npt
import pytest
import torch
from PIL import Image, ImageCms, ImageFile, PngImagePlugin, __version__
from torchvision.transforms.v2 import functional

from engine.data.decode_pool import quiet
from engine.data.images import ODDITY, decode, digest, load, open_hdf5, resize
from engine.data.memory import RAN_OUT, TooLargeError
from engine.data.part import HDF5Image, Pixels
from engine.errors import UnreadableError, UserError
from tests.engine.data.pictures import (
    COLOURS,
    GREY,
    PALETTE_COLOURS,
    PLACES,
    SMOOTH,
    TABLE,
    WIDE,
    encoded,
    three,
    unreadable,
    without_rights,
)

NEW_PILLOW = pytest.mark.skipif(int(__version__.partition(".")[0]) < 13, reason="Pillow before 13 refuses it")

ALPHA = np.where(np.arange(7) < 3, 0, 255).astype(np.uint8) + np.zeros((5, 1), np.uint8)
BITS = np.arange(35).reshape(5, 7) % 3 == 0
PALETTE = Image.fromarray(PLACES).convert("P")
PALETTE.putdata(PLACES.ravel().tolist())
PALETTE.putpalette(TABLE.tobytes())
NARROWED = np.round(WIDE / 257)


def png(bits: int, kind: int, values: list[int]) -> bytes:
    """A PNG one pixel high, for what Pillow reads and does not write. kind: 0 grey, 2 RGB, 4 grey + alpha, 6 RGBA."""
    width = len(values) // {0: 1, 2: 3, 4: 2, 6: 4}[kind]
    row = struct.pack(f">B{len(values)}{'H' if bits == 16 else 'B'}", 0, *values)
    chunks = [
        (b"IHDR", struct.pack(">IIBBBBB", width, 1, bits, kind, 0, 0, 0)),
        (b"IDAT", zlib.compress(row)),
        (b"IEND", b""),
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data)) for name, data in chunks
    )


@pytest.fixture
def decoded(tmp_path: Path) -> Callable[..., Pixels]:
    """Decodes bytes as a file of some name."""

    def run(data: bytes, name: str = "image.png") -> Pixels:
        (tmp_path / name).write_bytes(data)
        pixels = decode(tmp_path / name)
        assert pixels.dtype == np.uint8
        assert pixels.shape[2:] == (3,)
        return pixels

    return run


@pytest.mark.parametrize("kind", ["PNG", "BMP", "TIFF", "GIF"])
@pytest.mark.parametrize(
    ("image", "expected"),
    [
        pytest.param(Image.fromarray(GREY), three(GREY), id="grey"),
        pytest.param(Image.fromarray(BITS), three(BITS * 255), id="1-bit"),
        pytest.param(PALETTE, PALETTE_COLOURS, id="palette"),
    ],
)
def test_grey_bits_and_palettes(
    kind: str, image: Image.Image, expected: Pixels, decoded: Callable[..., Pixels]
) -> None:
    np.testing.assert_array_equal(decoded(encoded(image, kind)), expected)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("BMP", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "tiff_adobe_deflate"}),
        ("WEBP", {"lossless": True}),
        ("PPM", {}),
        ("TGA", {}),
    ],
)
def test_colours_come_out_as_they_went_in(kind: str, options: dict[str, Any], decoded: Callable[..., Pixels]) -> None:
    np.testing.assert_array_equal(decoded(encoded(Image.fromarray(COLOURS), kind, **options)), COLOURS)


@pytest.mark.parametrize(
    ("image", "kind", "opaque"),
    [
        pytest.param(Image.fromarray(np.stack([GREY, ALPHA], 2)), "PNG", three(GREY), id="LA"),
        pytest.param(Image.fromarray(np.stack([GREY, ALPHA], 2)), "TIFF", three(GREY), id="LA in TIFF"),
        pytest.param(Image.fromarray(np.dstack([COLOURS, ALPHA])), "PNG", COLOURS, id="RGBA"),
        pytest.param(Image.fromarray(np.dstack([COLOURS, ALPHA])), "TIFF", COLOURS, id="RGBA in TIFF"),
        pytest.param(Image.fromarray(np.dstack([COLOURS, ALPHA])), "WEBP", COLOURS, id="RGBA in WebP"),
    ],
)
def test_what_is_transparent_is_white(
    image: Image.Image, kind: str, opaque: Pixels, decoded: Callable[..., Pixels]
) -> None:
    options = {"lossless": True} if kind == "WEBP" else {}
    expected = np.where(ALPHA[..., None] == 0, 255, opaque)
    np.testing.assert_array_equal(decoded(encoded(image, kind, **options)), expected)


@pytest.mark.parametrize("kind", ["PNG", "GIF"])
def test_a_palettes_transparent_colour_is_white(kind: str, decoded: Callable[..., Pixels]) -> None:
    pixels = decoded(encoded(PALETTE, kind, transparency=1))
    np.testing.assert_array_equal(pixels, np.where(PLACES[..., None] == 1, 255, PALETTE_COLOURS))


def test_a_palette_with_an_alpha_of_each_colour(decoded: Callable[..., Pixels]) -> None:
    pixels = decoded(encoded(PALETTE, "PNG", transparency=bytes([255, 0, 255, 255])))
    np.testing.assert_array_equal(pixels, np.where(PLACES[..., None] == 1, 255, PALETTE_COLOURS))


@NEW_PILLOW
def test_a_palette_whose_own_colours_have_alpha(decoded: Callable[..., Pixels]) -> None:
    """TGA: 35 places in a table of 256 BGRA colours, from the top."""
    header = struct.pack("<BBBHHBHHHHBB", 0, 1, 1, 0, 4, 32, 0, 0, 7, 5, 8, 0x20)
    table = bytes([0, 0, 0, 255, 3, 20, 250, 0, 40, 200, 4, 255, 255, 255, 255, 255])
    pixels = decoded(header + table + PLACES.astype(np.uint8).tobytes())
    np.testing.assert_array_equal(pixels, np.where(PLACES[..., None] == 1, 255, PALETTE_COLOURS))


def test_a_palette_beside_an_alpha_channel(decoded: Callable[..., Pixels]) -> None:
    image = PALETTE.convert("PA")
    image.putalpha(Image.fromarray(ALPHA))
    assert image.mode == "PA"
    pixels = decoded(encoded(image, "TIFF"), "image.tif")
    np.testing.assert_array_equal(pixels, np.where(ALPHA[..., None] == 0, 255, PALETTE_COLOURS))


def test_half_transparent_is_halfway_to_white(decoded: Callable[..., Pixels]) -> None:
    pixels = decoded(encoded(Image.new("RGBA", (2, 2), (0, 100, 200, 128)), "PNG"))
    np.testing.assert_allclose(pixels[0, 0], [127, 177, 227], atol=1)


@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg(progressive: bool, decoded: Callable[..., Pixels]) -> None:
    data = encoded(Image.fromarray(SMOOTH), "JPEG", quality=95, subsampling=0, progressive=progressive)
    pixels = decoded(data, "image.jpg")
    assert Image.open(io.BytesIO(data)).mode == "RGB"
    assert np.abs(pixels.astype(int) - SMOOTH).mean() < 2


def test_cmyk_jpeg(decoded: Callable[..., Pixels]) -> None:
    """Adobe stores the inks inverted: a decoder that misses it gives the negative."""
    data = encoded(Image.fromarray(SMOOTH).convert("CMYK"), "JPEG", quality=95)
    assert Image.open(io.BytesIO(data)).mode == "CMYK"
    assert np.abs(decoded(data, "image.jpg").astype(int) - SMOOTH).mean() < 3


@pytest.mark.parametrize("mode", ["CMYK", pytest.param("YCbCr", marks=NEW_PILLOW)])
def test_other_colour_spaces_in_tiff(mode: str, decoded: Callable[..., Pixels]) -> None:
    pixels = decoded(encoded(Image.fromarray(COLOURS).convert(mode), "TIFF"), "image.tif")
    np.testing.assert_allclose(pixels.astype(int), COLOURS, atol=3)


def test_lab_tiff_is_converted(decoded: Callable[..., Pixels]) -> None:
    to_lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    lab = ImageCms.applyTransform(Image.fromarray(SMOOTH // 2 + 60), to_lab)
    assert lab is not None
    pixels = decoded(encoded(lab, "TIFF"), "image.tif")
    assert np.abs(pixels.astype(int) - (SMOOTH // 2 + 60)).mean() < 3


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(encoded(Image.fromarray(WIDE), "PNG"), id="PNG"),
        pytest.param(encoded(Image.fromarray(WIDE), "TIFF"), id="little-endian TIFF"),
        pytest.param(encoded(Image.frombytes("I;16B", (7, 5), WIDE.astype(">u2").tobytes()), "TIFF"), id="big-endian"),
        pytest.param(encoded(Image.fromarray(WIDE.astype(np.int32)), "TIFF"), id="32 bits that 16 would hold"),
        pytest.param(b"P5 7 5 65535\n" + WIDE.astype(">u2").tobytes(), id="PGM"),
    ],
)
def test_16_bit_grey_is_scaled_by_what_the_type_holds(data: bytes, decoded: Callable[..., Pixels]) -> None:
    np.testing.assert_array_equal(decoded(data), three(NARROWED))


def tiff(order: Literal["<", ">"], pixels: npt.NDArray[Any], bits: int, **tags: tuple[int, ...]) -> bytes:
    """An uncompressed TIFF of one strip. order: "<" or ">"; `tags` has further ones, as t338=(0,)."""
    height, width, bands = (*pixels.shape, 1)[:3]
    data = pixels.astype(pixels.dtype.newbyteorder(order)).tobytes()
    entries = {256: (width,), 257: (height,), 258: (bits,) * bands, 259: (1,), 273: (8,), 277: (bands,), 278: (height,)}
    entries |= {279: (len(data),), **{int(name[1:]): values for name, values in tags.items()}}
    start = 8 + len(data) + len(data) % 2
    later = start + 2 + 12 * len(entries) + 4
    table, extra = struct.pack(f"{order}H", len(entries)), b""
    for tag, values in sorted(entries.items()):
        packed = struct.pack(f"{order}{len(values)}H", *values)
        if len(packed) > 4:
            extra, packed = extra + packed, struct.pack(f"{order}I", later + len(extra))
        table += struct.pack(f"{order}HHI", tag, 3, len(values)) + packed.ljust(4, b"\0")
    magic = b"II*\0" if order == "<" else b"MM\0*"
    return magic + struct.pack(f"{order}I", start) + data.ljust(start - 8, b"\0") + table + b"\0" * 4 + extra


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("pixels", "bits"), [(GREY, 8), (WIDE, 16)])
def test_a_tiff_in_which_white_is_zero(
    order: Literal["<", ">"], pixels: npt.NDArray[Any], bits: int, decoded: Callable[..., Pixels]
) -> None:
    shown = three(np.round(pixels / (257 if bits == 16 else 1)))
    np.testing.assert_array_equal(decoded(tiff(order, pixels, bits, t262=(1,))), shown)
    np.testing.assert_array_equal(decoded(tiff(order, pixels, bits, t262=(0,))), 255 - shown)


def test_a_tiff_of_12_bits_is_scaled_by_what_these_hold(decoded: Callable[..., Pixels]) -> None:
    values = [0, 4095, 2056, 1028]
    packed = bytes(int(digits, 16) for digits in re.findall("..", "".join(f"{value:03x}" for value in values)))
    data = tiff("<", np.frombuffer(packed, np.uint8)[None], 12, t262=(1,))
    width = struct.pack("<HHI", 256, 3, 1)
    data = data.replace(width + struct.pack("<H", 6), width + struct.pack("<H", 4))
    assert decoded(data)[0, :, 0].tolist() == [0, 255, 128, 64]


def oddity(path: Path) -> str:
    image = load(path)
    assert isinstance(image, Image.Image)
    return str(image.info[ODDITY])


@pytest.mark.parametrize(
    ("values", "bits"),
    [
        (WIDE, 0),
        (WIDE // 16, 12),
        (WIDE // 4, 14),
        (WIDE // 64, 10),
        (WIDE // 257, 8),
        (np.dstack([WIDE // 16] * 3), 12),
        (np.dstack([WIDE] * 3), 0),
        (GREY, 0),
    ],
)
@pytest.mark.parametrize("white_is_zero", [False, True])
def test_12_bits_in_a_file_of_16_are_told(
    values: npt.NDArray[Any], bits: int, white_is_zero: bool, tmp_path: Path
) -> None:
    """The tag that states the highest value is not to change how an image is shown, by the specification."""
    if values.ndim == 3 and white_is_zero:
        return
    photometric = 2 if values.ndim == 3 else 0 if white_is_zero else 1
    (tmp_path / "image.tif").write_bytes(tiff("<", values, 8 * values.dtype.itemsize, t262=(photometric,), t281=(1,)))
    said = oddity(tmp_path / "image.tif")
    assert (f"no value beyond {bits} bits" in said) if bits else said == ""


NEAR_INFRARED = np.random.default_rng(3).integers(1, 255, (5, 7), dtype=np.uint8)


@pytest.mark.parametrize("depth", [8, 16])
@pytest.mark.parametrize("extra", [None, 0, 2])
def test_near_infrared_is_no_transparency(depth: int, extra: int | None, tmp_path: Path) -> None:
    pixels = np.dstack([COLOURS, NEAR_INFRARED]).astype(np.uint8 if depth == 8 else np.uint16)
    tags = {} if extra is None else {"t338": (extra,)}
    (tmp_path / "image.tif").write_bytes(tiff("<", pixels * (1 if depth == 8 else 257), depth, t262=(2,), **tags))
    np.testing.assert_array_equal(decode(tmp_path / "image.tif"), COLOURS)
    if extra != 0:  # which Pillow leaves out itself
        assert "fourth band that is no transparency" in oddity(tmp_path / "image.tif")


def test_a_mask_is_transparency_if_a_tiff_says_so(decoded: Callable[..., Pixels]) -> None:
    pixels = np.dstack([COLOURS, ALPHA])
    white = np.where(ALPHA[..., None] == 0, 255, COLOURS)
    np.testing.assert_array_equal(decoded(tiff("<", pixels, 8, t262=(2,), t338=(2,))), white)
    np.testing.assert_array_equal(decoded(tiff("<", pixels, 8, t262=(2,))), COLOURS)


def test_a_tiff_of_numbers_with_a_sign(tmp_path: Path) -> None:
    (tmp_path / "image.tif").write_bytes(tiff("<", GREY, 8, t262=(1,), t339=(2,)))
    assert "have a sign" in unreadable(tmp_path / "image.tif")
    (tmp_path / "image.tif").write_bytes(tiff("<", (WIDE // 2).astype(np.int16), 16, t262=(1,), t339=(2,)))
    np.testing.assert_array_equal(decode(tmp_path / "image.tif"), three(np.round(WIDE // 2 / (32_767 / 255))))


def test_a_tiff_of_more_bands_than_pillow_reads(tmp_path: Path) -> None:
    (tmp_path / "image.tif").write_bytes(tiff("<", np.zeros((5, 7, 13), np.uint8), 8, t262=(1,)))
    assert "TIFF, but damaged, or of a kind that Pillow doesn't read" in unreadable(tmp_path / "image.tif")


@pytest.mark.parametrize("bands", [3, 4])
@pytest.mark.parametrize("order", ["<", ">"])
def test_16_bit_colours_one_after_the_other(
    order: Literal["<", ">"], bands: int, decoded: Callable[..., Pixels]
) -> None:
    """Pillow takes the two bytes of each for two pixels."""
    planes = np.random.default_rng(5).integers(0, 65_536, (bands, 5, 7)).astype(np.uint16)
    size, extra = 2 * 5 * 7, {"t338": (0,)} if bands == 4 else {}
    layout = {"t256": (7,), "t257": (5,), "t258": (16,) * bands, "t277": (bands,), "t278": (5,), "t284": (2,)}
    places = {"t273": tuple(8 + band * size for band in range(bands)), "t279": (size,) * bands}
    data = tiff(order, planes.reshape(-1, 7), 16, t262=(2,), **layout, **places, **extra)
    np.testing.assert_array_equal(decoded(data), planes[:3].transpose(1, 2, 0) >> 8)


def test_a_tiff_palette_of_8_bit_colours_is_not_black(decoded: Callable[..., Pixels]) -> None:
    colours = np.zeros((256, 3), np.uint16)
    colours[:4] = TABLE
    for scale in (1, 257):
        data = tiff("<", PLACES, 8, t262=(3,), t320=tuple((scale * colours).T.ravel().tolist()))
        np.testing.assert_array_equal(decoded(data), PALETTE_COLOURS)


def test_32_bits_with_values_of_8_are_told(tmp_path: Path) -> None:
    Image.fromarray(GREY.astype(np.int32)).save(tmp_path / "image.tif")
    assert "no value beyond 8 bits" in oddity(tmp_path / "image.tif")


@pytest.mark.parametrize(("kind", "options"), [("PNG", {}), ("TGA", {}), ("WEBP", {"lossless": True, "exact": True})])
def test_of_what_is_wholly_transparent_the_colours(kind: str, options: dict[str, Any], tmp_path: Path) -> None:
    """A fourth byte that is not used is 0 everywhere; laid on white, every such image would be blank."""
    path = tmp_path / "image.tga"
    path.write_bytes(encoded(Image.fromarray(np.dstack([COLOURS, np.zeros((5, 7), np.uint8)])), kind, **options))
    np.testing.assert_array_equal(decode(path), COLOURS)
    assert "wholly transparent" in oddity(path)
    path.write_bytes(encoded(Image.new("RGBA", (7, 5)), kind, **options))  # no colours either
    assert (decode(path) == 255).all()
    assert oddity(path) == ""


@pytest.mark.parametrize(
    ("kind", "values", "expected"),
    [
        (2, [0, 200, 65_535, 33_023, 1285, 256], [[0, 0, 255], [128, 5, 1]]),
        (4, [1285, 65_535, 1285, 0], [[5, 5, 5], [255, 255, 255]]),
        (6, [256, 512, 1024, 65_535, 0, 0, 0, 0], [[1, 2, 4], [255, 255, 255]]),
    ],
)
def test_16_bit_colours_keep_their_higher_byte(
    kind: int, values: list[int], expected: list[list[int]], decoded: Callable[..., Pixels]
) -> None:
    assert decoded(png(16, kind, values)).tolist() == [expected]


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (np.array([[0, 65_536]], np.int32), "go from 0 to 65536, more than 16 bits hold"),
        (np.array([[-1, 5]], np.int32), "go from -1 to 5"),
        (np.array([[0.0, 1.0]], np.float32), "floating-point"),
    ],
)
def test_numbers_without_a_white(values: npt.NDArray[Any], reason: str, tmp_path: Path) -> None:
    Image.fromarray(values).save(tmp_path / "image.tif")
    assert reason in unreadable(tmp_path / "image.tif")


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "WEBP", "PNG"])
def test_of_several_frames_the_first(kind: str, decoded: Callable[..., Pixels]) -> None:
    frames = [Image.new("RGB", (4, 3), colour) for colour in ((10, 200, 30), (255, 0, 0), (0, 0, 255))]
    options = {"lossless": True} if kind == "WEBP" else {}
    data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
    assert getattr(Image.open(io.BytesIO(data)), "n_frames", 1) == 3
    assert (decoded(data) == (10, 200, 30)).all()


def test_a_gif_whose_first_frame_is_a_part_of_it(decoded: Callable[..., Pixels]) -> None:
    data = bytearray(encoded(PALETTE, "GIF"))
    data[6:10] = struct.pack("<HH", 9, 6)
    place = data.index(b",\0\0\0\0" + struct.pack("<HH", 7, 5))
    data[place + 1 : place + 5] = struct.pack("<HH", 2, 1)
    expected = np.full((6, 9, 3), 255, np.uint8)
    expected[1:, 2:] = PALETTE_COLOURS
    np.testing.assert_array_equal(decoded(bytes(data)), expected)


@pytest.mark.parametrize(
    ("kind", "name"),
    [("PNG", "image.jpg"), ("PNG", "image.dat"), ("BMP", "image.JPEG"), ("TIFF", "image.png"), ("PNG", "image")],
)
def test_the_content_tells_the_format(kind: str, name: str, decoded: Callable[..., Pixels]) -> None:
    np.testing.assert_array_equal(decoded(encoded(Image.fromarray(COLOURS), kind), name), COLOURS)


@pytest.mark.parametrize("name", ["image.JPEG", "image.tif", "image.PNG"])
def test_a_jpeg_of_any_name(name: str, decoded: Callable[..., Pixels]) -> None:
    data = encoded(Image.fromarray(SMOOTH), "JPEG")
    np.testing.assert_array_equal(decoded(data, name), np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("shape", [(247, 254), (254, 247)])
def test_odd_tiff_tiles(shape: tuple[int, int], decoded: Callable[..., Pixels]) -> None:
    """The size of some of UC Merced's."""
    tile = np.random.default_rng(1).integers(0, 256, (*shape, 3), dtype=np.uint8)
    np.testing.assert_array_equal(decoded(encoded(Image.fromarray(tile), "TIFF"), "image.tif"), tile)


STORED_AS = {  # orientation -> how the upright picture has to be turned for it to say so
    1: lambda upright: upright,
    2: lambda upright: upright[:, ::-1],
    3: lambda upright: upright[::-1, ::-1],
    4: lambda upright: upright[::-1],
    5: lambda upright: upright.transpose(1, 0, 2),
    6: lambda upright: np.rot90(upright),
    7: lambda upright: upright[::-1, ::-1].transpose(1, 0, 2),
    8: lambda upright: np.rot90(upright, -1),
}


@pytest.mark.parametrize("orientation", STORED_AS)
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "WEBP", "JPEG"])
def test_exif_orientation(kind: str, orientation: int, decoded: Callable[..., Pixels]) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    upright = COLOURS if kind != "JPEG" else SMOOTH
    stored = Image.fromarray(np.ascontiguousarray(STORED_AS[orientation](upright)))
    options = {"lossless": True} if kind == "WEBP" else {"quality": 95, "subsampling": 0} if kind == "JPEG" else {}
    pixels = decoded(encoded(stored, kind, exif=exif, **options))
    assert pixels.shape == upright.shape
    assert np.abs(pixels.astype(int) - upright).mean() < (2 if kind == "JPEG" else 1e-9)


def exif_of(*entries: tuple[int, int, int, int]) -> bytes:
    """EXIF of raw (tag, type, count, value) entries, whole or not."""
    listed = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(entries)) + listed + b"\0\0\0\0"


@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0",
        b"Exif\0\0MM",
        b"Exif\0\0nonsense that is no TIFF header",
        b"Exif\0\0II*\0\xff\xff\xff\xff",
        b"Exif\0\0II*\0\x08\0\0\0\xff\xff",
        exif_of((0x0112, 3, 1, 0)),
        exif_of((0x0112, 3, 1, 99)),
        exif_of((0x0112, 2, 4, 0x00787878)),
        exif_of((0x0112, 5, 1, 99_999)),
    ],
)
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_broken_exif_beside_good_pixels(exif: bytes, decoded: Callable[..., Pixels]) -> None:
    assert (decoded(encoded(Image.fromarray(COLOURS), "PNG", exif=exif)) == COLOURS).all()
    data = encoded(Image.fromarray(SMOOTH), "JPEG", exif=exif)
    plain = encoded(Image.fromarray(SMOOTH), "JPEG")
    np.testing.assert_array_equal(decoded(data), decoded(plain))


@pytest.mark.parametrize("damaged", [(0x8769, 4, 1, 99_999), (0x011A, 2, 3, 0x00FFFEFD), (0xA217, 13, 1, 7)])
def test_the_orientation_counts_beside_damaged_tags(
    damaged: tuple[int, int, int, int], decoded: Callable[..., Pixels]
) -> None:
    exif = exif_of((0x0112, 3, 1, 6), damaged)
    stored = Image.fromarray(np.ascontiguousarray(STORED_AS[6](COLOURS)))
    np.testing.assert_array_equal(decoded(encoded(stored, "PNG", exif=exif)), COLOURS)


@pytest.fixture
def hdf5(tmp_path: Path) -> Path:
    """Seven images, three in a chunk, and what is no image."""
    with h5py.File(tmp_path / "images.h5", "w") as file:
        images = np.random.default_rng(2).integers(0, 256, (7, 6, 5, 3), dtype=np.uint8)
        file.create_dataset("images", data=images, chunks=(3, 6, 5, 3), compression="gzip")
        file["floats"] = np.zeros((7, 6, 5, 3), np.float32)
        file["grey"] = np.zeros((7, 6, 5), np.uint8)
        file["four"] = np.zeros((7, 6, 5, 4), np.uint8)
        file["number"] = 7
        file.create_group("group")
    return tmp_path / "images.h5"


def test_hdf5(hdf5: Path) -> None:
    with h5py.File(hdf5) as file:
        expected = file["images"][:]
    for index in (0, 6, 2, 3, 2):
        np.testing.assert_array_equal(decode(HDF5Image(hdf5, "images", index)), expected[index])


@pytest.mark.parametrize(
    ("array", "index", "reason"),
    [
        ("images", 7, r"Index \(7\) out of range"),
        ("floats", 0, r"float32 \(6, 5, 3\) instead of uint8"),
        ("grey", 0, r"uint8 \(6, 5\) instead of uint8"),
        ("four", 0, r"uint8 \(6, 5, 4\) instead of uint8"),
        ("number", 0, r"int64 \(\) instead of uint8"),
        ("group", 0, "group is not an array"),
        ("none", 0, "^Unable to .*'none' doesn't exist"),
    ],
)
def test_no_image_in_hdf5(array: str, index: int, reason: str, hdf5: Path) -> None:
    with pytest.raises(UnreadableError, match=reason):
        decode(HDF5Image(hdf5, array, index))


@pytest.mark.parametrize("how", ["external", "virtual", "link"])
def test_hdf5_that_shows_the_bytes_of_another_file(tmp_path: Path, hdf5: Path, how: str) -> None:
    secret = tmp_path / "secret.bin"
    secret.write_bytes(bytes(range(90)) * 7)
    with h5py.File(tmp_path / "other.h5", "w") as file:
        if how == "external":
            file.create_dataset("images", (7, 6, 5, 3), np.uint8, external=[(str(secret), 0, h5py.h5f.UNLIMITED)])
        elif how == "virtual":
            layout = h5py.VirtualLayout((7, 6, 5, 3), np.uint8)
            layout[:] = h5py.VirtualSource(str(hdf5), "images", (7, 6, 5, 3))
            file.create_virtual_dataset("images", layout)
        else:
            file["images"] = h5py.ExternalLink(str(hdf5), "images")
    with pytest.raises(UserError, match="'images' refers to another file"):
        decode(HDF5Image(tmp_path / "other.h5", "images", 0))


def test_hdf5_that_unpacks_to_more_than_there_is_room_for(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "images.h5", "w") as file:
        file.create_dataset("wide", (3, 100_000, 90_000, 3), np.uint8, chunks=(1, 100, 100, 3))
        file.create_dataset("chunk", (900_000, 2, 3, 3), np.uint8, chunks=(900_000, 2, 3, 3), compression="gzip")
    for array, size in (("wide", "100,000 x 90,000"), ("chunk", "2 x 3")):
        with pytest.raises(TooLargeError, match=f"^{size} pixels take up to .* more than the 0.0 GB"):
            load(HDF5Image(tmp_path / "images.h5", array, 0), 1e7)


def test_a_damaged_chunk_spoils_its_images_alone(hdf5: Path) -> None:
    with h5py.File(hdf5) as file:
        expected, chunk = file["images"][:], file["images"].id.get_chunk_info(1)
    data = bytearray(hdf5.read_bytes())
    data[chunk.byte_offset : chunk.byte_offset + chunk.size] = b"\xaa" * chunk.size
    hdf5.write_bytes(data)
    unreadable(HDF5Image(hdf5, "images", 3))
    np.testing.assert_array_equal(decode(HDF5Image(hdf5, "images", 6)), expected[6])


@pytest.mark.parametrize("damage", ["half", "empty", "text", "folder", "absent"])
def test_not_hdf5(damage: str, hdf5: Path) -> None:
    data = hdf5.read_bytes()
    hdf5.unlink()
    if damage == "folder":
        hdf5.mkdir()
    elif damage != "absent":
        hdf5.write_bytes({"half": data[: len(data) // 2], "empty": b"", "text": b"a text\n" * 999}[damage])
    with pytest.raises(UserError) as caught:
        decode(HDF5Image(hdf5, "images", 0))
    assert str(caught.value).startswith(f"{hdf5} can't be read as HDF5: ")
    assert "\n" not in str(caught.value)
    assert "0x" not in str(caught.value)


def test_an_hdf5_file_that_another_program_writes(hdf5: Path) -> None:
    with hdf5.open("rb") as other:
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="HDF5_USE_FILE_LOCKING=FALSE") as caught:
            decode(HDF5Image(hdf5, "images", 0))
    assert "Get it again" not in str(caught.value)
    decode(HDF5Image(hdf5, "images", 0))


def test_an_hdf5_file_on_a_disk_without_locks(hdf5: Path) -> None:
    """A disk that knows no locks can't be had here: what matters is how the file is opened."""
    assert open_hdf5(hdf5).id.get_access_plist().get_file_locking() == (True, True)


def test_a_replaced_hdf5_file_is_read_again(hdf5: Path) -> None:
    decode(HDF5Image(hdf5, "images", 0))
    other = hdf5.with_name("other.h5")
    with h5py.File(other, "w") as file:
        file["images"] = np.full((1, 2, 2, 3), 9, np.uint8)
    os.utime(other, ns=(1, 1))
    other.replace(hdf5)
    assert (decode(HDF5Image(hdf5, "images", 0)) == np.full((2, 2, 3), 9)).all()


NOISE = Image.fromarray(np.random.default_rng(4).integers(0, 256, (64, 64, 3), dtype=np.uint8))
JPEG = encoded(NOISE, "JPEG")
PNG = encoded(NOISE, "PNG")


@pytest.mark.parametrize("left", [2, 10, 300, len(JPEG) // 2, len(JPEG) - 100])
def test_truncated_jpeg(left: int, tmp_path: Path) -> None:
    (tmp_path / "image.jpg").write_bytes(JPEG[:left])
    unreadable(tmp_path / "image.jpg")


@pytest.mark.parametrize("left", [4, 8, 20, 33, 60, len(PNG) // 2, len(PNG) - 100])
def test_truncated_png(left: int, tmp_path: Path) -> None:
    (tmp_path / "image.png").write_bytes(PNG[:left])
    unreadable(tmp_path / "image.png")


@pytest.mark.parametrize("kind", ["GIF", "TIFF", "BMP", "WEBP"])
def test_other_truncated_files(kind: str, tmp_path: Path) -> None:
    data = encoded(NOISE, kind)
    (tmp_path / "image").write_bytes(data[: len(data) * 3 // 4])
    unreadable(tmp_path / "image")


def test_damaged_pixels(tmp_path: Path) -> None:
    damaged = bytearray(PNG)
    damaged[len(PNG) // 2 : len(PNG) // 2 + 500] = b"\xff" * 500
    (tmp_path / "image.png").write_bytes(damaged)
    unreadable(tmp_path / "image.png")


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty"),
        (b"<html>404</html>", "a web page, as servers answer instead of an image"),
        (b"Not found", "text, no image"),
        (
            b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 9\n",
            "a git-lfs pointer instead of the image: git lfs pull",
        ),
        (b"\0" * 5000, "not an image of a known format"),
    ],
)
def test_no_image(data: bytes, reason: str, tmp_path: Path) -> None:
    (tmp_path / "image.png").write_bytes(data)
    assert unreadable(tmp_path / "image.png") == reason


def test_a_picture_too_large_to_be_one(tmp_path: Path) -> None:
    """A header of 50 bytes that asks for 16 GB."""
    data = png(8, 2, [1, 2, 3]).replace(struct.pack(">II", 1, 1), struct.pack(">II", 73_000, 73_000))
    header = data[12:29]
    (tmp_path / "image.png").write_bytes(data[:29] + struct.pack(">I", zlib.crc32(header)) + data[33:])
    assert "73,000 x 73,000 pixels are more than 1,000,000,000" in unreadable(tmp_path / "image.png")


def test_a_large_picture_is_no_attack(tmp_path: Path) -> None:
    """One line of a PNG of 200 megapixels: its size is not what is wrong with it."""
    data = png(8, 0, [0] * 20_000).replace(struct.pack(">II", 20_000, 1), struct.pack(">II", 20_000, 10_000))
    (tmp_path / "image.png").write_bytes(data[:29] + struct.pack(">I", zlib.crc32(data[12:29])) + data[33:-30])
    assert "truncated" in unreadable(tmp_path / "image.png")


@pytest.mark.parametrize("compressed", [False, True])
def test_a_png_with_much_text(compressed: bool, decoded: Callable[..., Pixels]) -> None:
    information = PngImagePlugin.PngInfo()
    information.add_itxt("prompt", "x" * (3 << 20), zip=compressed)
    np.testing.assert_array_equal(decoded(encoded(Image.fromarray(COLOURS), "PNG", pnginfo=information)), COLOURS)


@pytest.mark.parametrize("name", ["image.png", "image.dcm"])
def test_no_file(name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    assert unreadable(path) == "no such file or directory"
    path.symlink_to(tmp_path / "nothing")
    assert unreadable(path) == "no such file or directory"
    path.unlink()
    path.mkdir()
    assert unreadable(path) == "is a directory"


def test_no_permission(tmp_path: Path) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(PNG)
    decode(path)  # Pillow's plugins lie where only this user may read, perhaps
    with without_rights(path):
        assert unreadable(path) == "permission denied"
    decode(path)


@pytest.mark.parametrize(
    ("package", "reference", "line"),
    [
        ("h5py", HDF5Image(Path("a.h5"), "images", 0), "pip install 'h5py>="),
        ("pydicom", Path("a.dcm"), "pip install 'pydicom>="),
    ],
)
def test_a_package_that_is_missing(
    package: str, reference: Path | HDF5Image, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("a.dcm").write_bytes(bytes(128) + b"DICM")
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(UserError, match=line):
        decode(reference)


def heif(pixels: npt.NDArray[np.uint8]) -> bytes:
    """What begins as HEIF does, with pixels as the package below has them."""
    return struct.pack(">I4s4sI8sHH", 24, b"ftyp", b"heic", 0, b"mif1heic", *pixels.shape[:2]) + pixels.tobytes()


class Heif(ImageFile.ImageFile):
    """The part of a package for Pillow that these tests need."""

    format = "HEIF"

    def _open(self) -> None:
        assert self.fp is not None
        height, width = struct.unpack(">HH", self.fp.read(28)[24:])
        self._mode, self._size = "RGB", (width, height)
        self.tile = [ImageFile._Tile("raw", (0, 0, width, height), 28, ("RGB", 0, 1))]


@pytest.fixture
def heif_package(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stands in for the package that reads HEIF."""
    monkeypatch.setattr(Image, "ID", [*Image.ID])
    monkeypatch.setattr(Image, "OPEN", {**Image.OPEN})
    package = ModuleType("pillow_heif")
    package.__dict__["register_heif_opener"] = lambda: Image.register_open(
        "HEIF", Heif, lambda start: start[8:12] == b"heic"
    )
    package.__spec__ = ModuleSpec("pillow_heif", None)
    monkeypatch.setitem(sys.modules, "pillow_heif", package)


@pytest.mark.parametrize("name", ["image.heic", "image.jpg", "image"])
@pytest.mark.usefixtures("heif_package")
def test_heif_is_read_where_its_package_is_installed(name: str, decoded: Callable[..., Pixels]) -> None:
    np.testing.assert_array_equal(decoded(heif(COLOURS), name), COLOURS)


@pytest.mark.parametrize(
    ("data", "line"),
    [
        (heif(COLOURS), "HEIC (HEIF) is read by a package: pip install pillow-heif (or save it as JPEG)"),
        (
            b"\0\0\0\x0cJXL \r\n\x87\n",
            "JPEG XL is read by a package: pip install pillow-jxl-plugin (or save it as JPEG)",
        ),
    ],
)
def test_a_package_for_pillow_that_is_missing(
    data: bytes, line: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for package in ("pillow_heif", "pillow_jxl"):
        monkeypatch.setitem(sys.modules, package, None)
    (tmp_path / "image.jpg").write_bytes(data)
    assert unreadable(tmp_path / "image.jpg") == line


@pytest.mark.parametrize("size", [(8, 8), (33, 57), (96, 20), (40, 48), (64, 128)])
def test_resize(size: tuple[int, int]) -> None:
    noise = np.random.default_rng(3).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    found = resize(noise, size)
    assert found.shape == (*size, 3)
    expected = functional.resize(functional.to_image(noise.copy()), list(size), antialias=True)
    torch.testing.assert_close(functional.to_image(found.copy()), expected, atol=1, rtol=0)
    pillow = Image.fromarray(noise).resize(size[::-1], Image.Resampling.BILINEAR)
    np.testing.assert_array_equal(found, np.asarray(pillow))


def test_digests_differ_where_pixels_or_shape_do() -> None:
    images = [COLOURS, COLOURS[::-1], COLOURS.reshape(7, 5, 3), COLOURS.copy(), np.asfortranarray(COLOURS)]
    images[3][0, 0, 0] ^= 1
    found = [digest(image) for image in images]
    assert len(set(found)) == 4
    assert found[0] == found[4]
    assert all(len(text) == 32 for text in found)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ""])
def test_no_other_program_is_started(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str) -> None:
    """Pillow would have Ghostscript draw PostScript, whatever its file is called."""
    path = tmp_path / f"photo{suffix}"
    with io.BytesIO() as file:
        Image.new("RGB", (4, 4)).save(file, "EPS")
        path.write_bytes(file.getvalue())
    with Image.open(path) as image:
        assert image.format == "EPS"
    monkeypatch.setattr("PIL.EpsImagePlugin.Ghostscript", lambda *_: pytest.fail("it was started"))
    unreadable(path)


BOMB = png(8, 0, [0])
ROW = len(b"\x89PNG\r\n\x1a\n") + 8  # where a PNG's width lies


def sized(wide: int, high: int) -> bytes:
    """A PNG that says that it is so large."""
    header = b"IHDR" + struct.pack(">II", wide, high) + BOMB[ROW + 8 : ROW + 13]
    return BOMB[:12] + header + struct.pack(">I", zlib.crc32(header)) + BOMB[ROW + 17 :]


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "TIFF", "BMP", "GIF", "WEBP", "PPM", "TGA", "JPEG2000", "QOI", "PCX"])
def test_what_an_image_takes_is_known_before_it_is_decoded(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if kind not in Image.SAVE:
        pytest.skip("this Pillow does not write it")
    (tmp_path / "image").write_bytes(encoded(Image.fromarray(SMOOTH), kind))
    load(tmp_path / "image", 40 * 48 * 25)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda _: pytest.fail("decoded"))
    with pytest.raises(TooLargeError, match=r"^48 x 40 pixels take up to 0\.0 GB of memory, more than "):
        load(tmp_path / "image", 40 * 48 * 25 - 1)


@pytest.mark.parametrize(
    ("size", "reason"),
    [
        ((13_000, 13_000), "^13,000 x 13,000 pixels take up to 4.2 GB of memory, more than the 2.0 GB that are left"),
        ((65_500, 65_500), "^65,500 x 65,500 pixels are more than 1,000,000,000: make it smaller, or cut it"),
        ((2**31 - 1, 2**31 - 1), "^2,147,483,647 x 2,147,483,647 pixels are more than 1,000,000,000"),
    ],
)
def test_bombs(size: tuple[int, int], reason: str, tmp_path: Path) -> None:
    (tmp_path / "image.png").write_bytes(sized(*size))
    with pytest.raises(UnreadableError, match=reason):
        load(tmp_path / "image.png", 2e9)


def test_a_jpeg_that_says_it_is_huge(tmp_path: Path) -> None:
    data = encoded(Image.fromarray(SMOOTH), "JPEG")
    start = data.index(b"\xff\xc0")
    (tmp_path / "image.jpg").write_bytes(data[: start + 5] + struct.pack(">HH", 65_500, 65_500) + data[start + 9 :])
    assert unreadable(tmp_path / "image.jpg").startswith("65,500 x 65,500 pixels are more than 1,000,000,000")


def test_an_image_100_000_pixels_wide(decoded: Callable[..., Pixels]) -> None:
    wide = np.tile(COLOURS, (1, 15_000, 1))[:, :100_000]
    np.testing.assert_array_equal(decoded(encoded(Image.fromarray(wide), "PNG")), wide)


def test_memory_that_runs_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: Any) -> None:
        raise MemoryError

    (tmp_path / "image.png").write_bytes(png(8, 0, [1, 2]))
    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    assert unreadable(tmp_path / "image.png") == RAN_OUT


def test_a_colour_profile_that_unpacks_to_much(tmp_path: Path) -> None:
    profile = b"iCCPx\0\0" + zlib.compress(bytes(65 << 20), 1)
    chunk = struct.pack(">I", len(profile) - 4) + profile + struct.pack(">I", zlib.crc32(profile))
    data = png(8, 0, [7, 200])
    (tmp_path / "image.png").write_bytes(data[:33] + chunk + data[33:])
    assert unreadable(tmp_path / "image.png") == (
        "it holds too much text, or too large a colour profile, beside its pixels: save it anew without that"
    )


@pytest.mark.parametrize("name", ["image.png", "image.jpg", "image.dcm", "image.txt", "image"])
@pytest.mark.parametrize("kind", ["PNG", "TIFF", "GIF", "BMP", "WEBP", "JPEG"])
def test_a_wrong_suffix_is_of_no_account(kind: str, name: str, decoded: Callable[..., Pixels]) -> None:
    data = encoded(Image.fromarray(SMOOTH), kind)
    np.testing.assert_array_equal(decoded(data, name), decoded(data, f"right.{kind.lower()}"))


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "GIF", "BMP", "WEBP", "JPEG", "PPM", "TGA", "JPEG2000"])
@pytest.mark.parametrize("share", [0, 0.01, 0.5, 0.9])
def test_cut_files(kind: str, share: float, tmp_path: Path) -> None:
    image = np.random.default_rng(0).integers(0, 256, (40, 48, 3), dtype=np.uint8)
    data = encoded(Image.fromarray(image), kind)
    (tmp_path / "image").write_bytes(data[: int(share * len(data))])
    with quiet():
        reason = unreadable(tmp_path / "image")
    assert "decoder object" not in reason
    assert (reason == "empty") is (share == 0)


def tiled(tile: int) -> bytes:
    """A grey TIFF of 48x40 pixels, white, in the corner of a single deflated tile."""
    packed = zlib.compress(b"\xff" * tile * tile)
    tags = {256: 48, 257: 40, 258: 8, 259: 8, 262: 1, 277: 1, 322: tile, 323: tile, 324: 8, 325: len(packed)}
    entries = b"".join(struct.pack("<HHII", tag, 4, 1, value) for tag, value in tags.items())
    return struct.pack("<2sHI", b"II", 42, 8 + len(packed)) + packed + struct.pack("<H", len(tags)) + entries + bytes(4)


def test_a_tile_that_is_larger_than_its_image(tmp_path: Path) -> None:
    (tmp_path / "image.tif").write_bytes(tiled(64))
    np.testing.assert_array_equal(np.asarray(load(tmp_path / "image.tif", 1e6)), np.full((40, 48, 3), 255))
    (tmp_path / "image.tif").write_bytes(tiled(8192))
    assert (tmp_path / "image.tif").stat().st_size < 1e5
    reason = "^48 x 40 pixels in tiles of 8,192 x 8,192 take up to 1.7 GB of memory, more than the 0.1 GB"
    with pytest.raises(TooLargeError, match=reason):
        load(tmp_path / "image.tif", 1e8)


def test_a_file_that_is_larger_than_there_is_room_for(tmp_path: Path) -> None:
    """Some decoders take the file as a whole, of which most can be a hole."""
    (tmp_path / "image.webp").write_bytes(encoded(Image.fromarray(SMOOTH), "WEBP"))
    os.truncate(tmp_path / "image.webp", 10**10)
    with pytest.raises(
        TooLargeError, match=r"^the file's 10,000,000,000 bytes take up to 10\.0 GB of memory, more than"
    ):
        load(tmp_path / "image.webp", 1e9)


def test_of_packed_zeros_no_more_are_unpacked_than_there_are_pixels(tmp_path: Path) -> None:
    rows = zlib.compress(bytes(300 << 20), 1)
    data = BOMB[:33] + struct.pack(">I", len(rows)) + b"IDAT" + rows + struct.pack(">I", zlib.crc32(b"IDAT" + rows))
    (tmp_path / "image.png").write_bytes(data + BOMB[-12:])
    tracemalloc.start()
    try:
        assert decode(tmp_path / "image.png").tolist() == [[[0, 0, 0]]]
        assert tracemalloc.get_traced_memory()[1] < 20e6
    finally:
        tracemalloc.stop()


def test_what_a_decoder_did_not_expect_is_damage(tmp_path: Path) -> None:
    image = tiled(64).replace(struct.pack("<HHII", 322, 4, 1, 64), struct.pack("<HHII", 322, 4, 1, 0))
    image = image.replace(struct.pack("<HHII", 259, 4, 1, 8), struct.pack("<HHII", 259, 4, 1, 1))
    (tmp_path / "image.tif").write_bytes(image)
    assert unreadable(tmp_path / "image.tif").startswith("damaged (")
