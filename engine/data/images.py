"""One image, whatever its format -> RGB, uint8: one decoder for train, validation and test.

The rules, for every dataset alike:

- The format is known by a file's content, not by its name; what has none that is known is DICOM if its suffix says so.
  HEIF and JPEG XL take a package.
- EXIF rotation is applied: pixels are the way round that a viewer shows them.
- Grey becomes three equal channels. Transparent pixels are laid on white (but for the one transparent grey that a
  16-bit PNG can have); of an image that is wholly transparent the colours are taken, and ODDITY says so. CMYK and
  palettes are converted.
- 16-bit grey becomes 8 bits by dividing by 257, that is, scaled by what the type can hold, not by what an image uses.
  Of 16-bit colours, which Pillow doesn't read in full, the higher byte is taken. Where few of the bits are used, the
  image is as dark as that makes it, and ODDITY says so.
- TIFF: where white is 0, at any depth, the image is inverted. A fourth band is transparency if the file says so and it
  can be a mask; any other, such as near infrared, is left out, and ODDITY says so.
- An image has at most MOST_PIXELS, and what its header says of its size must fit in memory before more of it is read.
- A file of which a part is missing is not read, also where its decoder would fill the rest in:
  engine/data/missing_pixels.py. Damage within a JPEG can't be told from an odd picture.
- Of several frames the first is taken. Colour profiles (ICC) are not applied.
- DICOM: as engine/data/dicom.py says.
- Resizing is bilinear with antialiasing, to exactly the height and width asked for; the aspect ratio gives way.
"""

from __future__ import annotations

import errno
import hashlib
import importlib
import math
import os
import re
import struct
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import (
    ExifTags,
    GifImagePlugin,
    Image,
    ImagePalette,
    PngImagePlugin,
    TiffImagePlugin,
    UnidentifiedImageError,
    features,
)

from engine.data.dicom import decode_dicom
from engine.data.file_kinds import DICOM_SUFFIXES, HEAD, Plugin, format_of, is_dicom, plugin_of, what_else
from engine.data.memory import RAN_OUT, TooLargeError, require_room
from engine.data.missing_pixels import require_rest, require_strips
from engine.data.part import HDF5Image, Pixels, Reference
from engine.errors import UnreadableError, UserError
from engine.files import open_regular

# A run's identity has DECODER, which is raised when pixels can become others by resizing; what decoding makes of a file
# is told by the digests in the split's hash, so that runs of files that are read as before are still found. Kept
# pixels know the files alone: KEPT is raised when the same file can give other pixels, and all are decoded anew.
DECODER = 1
KEPT = 4
HDF5_CACHE_BYTES = 128 << 20
# of one image: five times what the largest cameras have, and what takes a minute to decode
MOST_PIXELS = 10**9
PIXEL_BYTES = 25  # that a pixel takes at most until it is resized: of a WebP with transparency; a JPEG's takes 10
ODDITY = "oddity"  # what an image that load() returns has under this name in its `info`, if it is not ""

# Pillow's limits are meant for pictures that strangers send to a server. These are the user's own, and MOST_PIXELS is
# asked of them; text beside the pixels is bounded, as it is all unpacked in memory
Image.MAX_IMAGE_PIXELS = None
PngImagePlugin.MAX_TEXT_CHUNK = 64 << 20
PngImagePlugin.MAX_TEXT_MEMORY = 256 << 20
# 16 bits, big-endian, white is 0: the one such grey that Pillow knows in the other order of bytes alone
TiffImagePlugin.OPEN_INFO.setdefault((b"MM", 0, (1,), 1, (16,), ()), ("I;16B", "I;16B"))


# What a file may be, whatever it is called. Pillow knows more, and for PostScript it starts another program.
FORMATS = (
    *("JPEG", "PNG", "BMP", "DIB", "GIF", "TIFF", "WEBP", "PPM", "JPEG2000", "AVIF", "QOI", "DDS", "PCX", "SGI", "SUN"),
    *("HEIF", "JXL"),  # of other packages
    "TGA",  # last: it has no mark to be known by
)


def decode(reference: Reference) -> Pixels:
    """The image (H, W, 3) at its own size, which may be read-only. Errors as those of load()."""
    return np.asarray(load(reference))


def load(reference: Reference, room: float = math.inf) -> Pixels | Image.Image:
    """The image at its own size, as its decoder gives it: uint8 (H, W, 3), which may be read-only, or Pillow's RGB.

    UnreadableError: it can't be decoded; TooLargeError, where that would take more than `room` bytes, or more than
    there are. UserError: the package that reads it is missing, or the HDF5 file that it is a part of can't be opened.
    """
    path = reference.path if isinstance(reference, HDF5Image) else reference
    try:
        if isinstance(reference, HDF5Image):
            return _decode_hdf5(reference, room)
        return _load_file(reference, room)
    except (UnreadableError, UserError):
        raise
    except MemoryError as error:
        raise TooLargeError(RAN_OUT) from error
    # a damaged file can make a decoder raise nearly anything
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
            raise  # the machine's fault, not the image's
        raise UnreadableError(_reason(error, path)) from error


def _load_file(path: Path, room: float) -> Pixels | Image.Image:
    size = path.stat().st_size
    require_room(f"the file's {size:,} bytes", size, room)  # some decoders take it as a whole
    if path.suffix.lower() in DICOM_SUFFIXES and not format_of(_head(path)):
        return decode_dicom(path, room)
    try:
        return _open(path, room)
    except UnidentifiedImageError:
        head = _head(path)
        if is_dicom(head):
            return decode_dicom(path, room)
        if plugin := plugin_of(head):
            _register(plugin)
            return _open(path, room)
        raise


def _open(path: Path, room: float) -> Image.Image:
    with Image.open(path, formats=_formats()) as image:  # which has read the header alone
        pixels = image.width * image.height
        said = f"{image.width:,} x {image.height:,} pixels"
        if pixels > MOST_PIXELS:
            raise UnreadableError(f"{said} are more than {MOST_PIXELS:,}: make it smaller, or cut it")
        require_room(*_needed(image, said), room)
        require_strips(image)
        how = _Stored.of(image)
        _correct_tiff(image, how.deep)
        # of a GIF whose first frame is smaller than the whole, the rest shows what lies behind it
        frame = image.tile[0][1] if isinstance(image, GifImagePlugin.GifImageFile) and image.tile else None
        upright = _upright(image)
        require_rest(path, image)
        shown = _to_rgb(upright, how)
        if frame and frame != (0, 0, *shown.size):
            part = shown.crop(frame)
            shown = Image.new("RGB", shown.size, "white")
            shown.paste(part, frame[:2])
        return shown


def _needed(image: Image.Image, size: str) -> tuple[str, int]:
    """What takes the most memory of an image that is not loaded yet, and how much: `size` is what it is, in words."""
    pixels = image.width * image.height
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        wide, high = (int(image.tag_v2.get(tag, 0)) for tag in (322, 323))
        if wide * high > pixels:  # a tile is unpacked as a whole, also where the image is but a corner of it
            return f"{size} in tiles of {wide:,} x {high:,}", PIXEL_BYTES * wide * high
    return size, PIXEL_BYTES * pixels


def _formats() -> list[str]:
    """Those of FORMATS that can be read here."""
    Image.init()  # nothing, after the first time
    return [name for name in FORMATS if name in Image.OPEN]


def _correct_tiff(image: Image.Image, deep: bool) -> None:
    """Let a TIFF that is not loaded yet be read as what it is where Pillow takes it for something else."""
    if not isinstance(image, TiffImagePlugin.TiffImageFile):
        return
    # a colour after the other, with 16 bits: Pillow would read the bytes of each as pixels of 8
    if deep and image.tag_v2.get(284) == 2:
        order = f";16{'B' if image.tag_v2.prefix == b'MM' else 'L'}"
        tiles: list[Any] = image.tile
        bands = [tile for tile in tiles if tile.args[0] in ("R", "G", "B", "A")]  # none: a library reads it, and right
        image.tile = [tile._replace(args=(tile.args[0] + order, *tile.args[1:])) for tile in bands] or tiles
    # a palette whose colours have 8 bits, as some programs write it, though 16 are the rule: all would be black
    colours = image.tag_v2.get(320, ())
    if image.mode == "P" and colours and max(colours) < 256:
        image.palette = ImagePalette.raw("RGB;L", bytes(colours))


def _head(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(HEAD)


def _register(plugin: Plugin) -> None:
    """Let Pillow know of a package. UnreadableError: it is not installed."""
    try:
        package = importlib.import_module(plugin.module)
    except ImportError as error:
        raise UnreadableError(plugin.remedy) from error
    # the package for JPEG XL does it when it is imported
    getattr(package, "register_heif_opener", lambda: None)()


def resize(image: Pixels | Image.Image, size: tuple[int, int]) -> Pixels:
    """The image (H, W, 3) at `size`, height and width."""
    if isinstance(image, np.ndarray):
        if image.shape[:2] == size:
            return image
        image = Image.fromarray(image)
    # to its own size it makes no more than a copy
    return np.asarray(image.resize((size[1], size[0]), Image.Resampling.BILINEAR))


def digest(image: Pixels | Image.Image) -> str:
    """What tells the image from every other, at its own size: 32 hexadecimal digits."""
    pixels = np.asarray(image)
    # the fastest in Python's library, twice as fast as BLAKE2 where the processor has instructions for it; nobody gains
    # by two images of one digest
    hasher = hashlib.sha1(repr(pixels.shape).encode(), usedforsecurity=False)
    hasher.update(np.ascontiguousarray(pixels).data)
    return hasher.hexdigest()[:32]


_TRANSPOSED = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def _upright(image: Image.Image) -> Image.Image:
    image.load()  # which turns a TIFF by itself
    try:
        # not ImageOps.exif_transpose: it also writes the other tags anew, which fails where one of them is damaged
        how = _TRANSPOSED.get(image.getexif().get(ExifTags.Base.Orientation, 1))
    # EXIF data that can't be read, beside pixels that can: they raise nearly anything
    except Exception:
        return image
    return image if how is None else image.transpose(how)


class _Stored(NamedTuple):
    """How a file stores its pixels, as far as their mode, once they are loaded, does not tell."""

    deep: bool  # 16 bits a sample, or 32
    white: int  # the highest value of a grey that takes more than 8 bits
    inverted: bool  # 0 is white, which Pillow turns around up to 8 bits alone
    signed: bool
    fourth: bool  # TIFF colours with a fourth band: transparency, if `declared`
    declared: bool

    @classmethod
    def of(cls, image: Image.Image) -> _Stored:
        """What an image that is not loaded yet says of itself."""
        tiles = getattr(image, "tile", None)
        arguments = tiles[0][3] if tiles else None
        raw = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
        deep = isinstance(raw, str) and (";16" in raw or ";32" in raw)
        if isinstance(image, TiffImagePlugin.TiffImageFile):
            deep = deep or max(image.tag_v2.get(258, (1,))) == 16
        if not isinstance(image, TiffImagePlugin.TiffImageFile):
            return cls(deep, 65_535, False, False, False, False)
        tags = image.tag_v2
        bits, signed = tags.get(258, (1,))[0], tags.get(339, (1,))[0] == 2
        white = 2 ** (bits - signed) - 1 if bits in (12, 16) else 65_535
        return cls(deep, white, tags.get(262) == 0, signed, image.mode == "RGBA", bool(tags.get(338)))


def _to_rgb(image: Image.Image, how: _Stored) -> Image.Image:
    oddity = ""
    if image.mode.startswith("I;16") or image.mode == "I":
        grey = np.asarray(image)
        oddity = _few_bits(int(grey.max())) if how.deep and how.white == 65_535 else ""
        image = Image.fromarray(_to_8_bits(grey, how)).convert("RGB")
    elif image.mode == "F":
        raise UnreadableError(
            "its pixels are floating-point numbers, of which nothing says what is white: store it with 8 or 16 bits"
        )
    elif how.signed:
        raise UnreadableError("its 8-bit numbers have a sign, which nothing here reads: store it without")
    elif image.has_transparency_data and not (how.fourth and not _is_mask(image, how)):
        see_through = image.convert("RGBA")
        extremes: Any = see_through.getextrema()
        if extremes[3] == (0, 0) and any(low != high for low, high in extremes[:3]):
            oddity, image = TRANSPARENT, see_through.convert("RGB")
        else:
            image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), see_through).convert("RGB")
    else:
        oddity = FOURTH_BAND if how.fourth else ""
        image = image if image.mode == "RGB" else image.convert("RGB")
        if how.deep and not oddity:
            oddity = _few_bits(256 * int(np.asarray(image).max()))
    image.info[ODDITY] = oddity
    return image


FOURTH_BAND = "stored with a fourth band that is no transparency, such as near infrared: it is not used"


TRANSPARENT = "wholly transparent, as programs leave a fourth band that they do not use: their colours are taken"


def _is_mask(image: Image.Image, how: _Stored) -> bool:
    """Whether a TIFF's fourth band says what is transparent: most of it would be wholly so, or not at all.

    A band that the file does not declare as one is none, by the TIFF 6.0 specification (ExtraSamples).
    """
    counts = image.getchannel("A").histogram()
    return how.declared and 2 * (counts[0] + counts[255]) >= sum(counts)


def _few_bits(highest: int) -> str:
    """What is said of an image of 16 bits whose highest value is so low that fewer were meant, perhaps."""
    for bits in (8, 10, 12, 14):
        if 0 < highest < 2**bits:
            return (
                f"stored with 16 bits or more but with no value beyond {bits} bits, and so of {2 ** (bits - 8):,} of "
                "256 greys at most. Where that is all that the camera has, stretch them to 16 bits"
            )
    return ""


def _to_8_bits(grey: npt.NDArray[Any], how: _Stored) -> Pixels:
    if grey.min() < 0 or grey.max() > 65_535:
        raise UnreadableError(f"its pixels go from {grey.min()} to {grey.max()}, more than 16 bits hold")
    scaled = np.round(grey / (how.white / 255)).clip(0, 255).astype(np.uint8)
    return 255 - scaled if how.inverted else scaled


_OPTIONAL = {"AVIF": "avif", "JPEG 2000": "jpg_2000", "WebP": "webp"}  # what a Pillow can be built without


def has_remedy(reason: str) -> bool:
    """Whether the reason for which an image can't be read says what to do, so that to get it again is wrong advice."""
    return any(words in reason for words in ("pip install", "git lfs pull", "make it smaller"))


def _reason(error: Exception, path: Path) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    if isinstance(error, UnidentifiedImageError):
        head = _head(path)
        found = format_of(head)
        if found in _OPTIONAL and not features.check(_OPTIONAL[found]):
            return f"{found}, which this Pillow can't read: pip install --upgrade pillow"
        if found and path.stat().st_size > HEAD:
            return f"{found}, but damaged, or of a kind that Pillow doesn't read: other bits, bands or compression"
        return what_else(head) or "not an image of a known format"
    if "MAX_TEXT" in str(error):
        return "it holds too much text, or too large a colour profile, beside its pixels: save it anew without that"
    if "decoder object" in str(error):  # as Pillow says it of a WebP
        return "damaged, or a part of it is missing"
    # str() of a KeyError puts its message in quotes
    message = error.args[0] if isinstance(error, KeyError) and error.args else error
    if isinstance(error, AssertionError | ArithmeticError | TypeError | struct.error):  # of no decoder that expected it
        message = f"damaged ({message or type(error).__name__})"
    without_objects = re.sub(r" ?<[^<>]* at 0x[0-9a-f]+>", "", str(message))
    return " ".join(without_objects.split())[:300] or type(error).__name__


def open_hdf5(path: Path) -> Any:
    """The h5py.File at `path`, which stays open. UserError: the package is missing, or the file can't be opened."""
    try:
        import h5py  # noqa: F401 (its absence is to be said before anything about the file)
    except ImportError as error:
        raise UserError(f"{path} is read by a package: pip install 'h5py>=3.10'") from error
    try:
        with open_regular(path) as file:  # h5py says in a paragraph that it is a folder, or that it may not be read
            modified = os.fstat(file.fileno()).st_mtime_ns
        return _open_hdf5(path, modified)
    except OSError as error:
        if re.search(r"unable to lock|already open", str(error)):
            raise UserError(
                f"{path} is in use, or its disk can't lock files: {_reason(error, path)}. Close the program that writes"
                " to it. If there is none: HDF5_USE_FILE_LOCKING=FALSE before the command reads it without a lock, and "
                "`h5clear -s` takes the mark away that a program which broke down left in it."
            ) from error
        raise UserError(f"{path} can't be read as HDF5: {_reason(error, path)}. Get it again.") from error


@lru_cache(maxsize=1)
def _open_hdf5(path: Path, _: int) -> Any:
    import h5py

    # on a disk that knows no locks it is read without one
    locking = {"locking": "best-effort"} if h5py.version.hdf5_version_tuple >= (1, 14, 0) else {}
    return h5py.File(path, rdcc_nbytes=HDF5_CACHE_BYTES, **locking)


def array_of(file: Any, name: str) -> Any:
    """What the h5py.File calls `name`. UserError: its numbers would come from another file, as HDF5 can have it.

    KeyError: there is nothing of that name.
    """
    found = file[name]
    elsewhere = found.file.filename != file.filename or getattr(found, "is_virtual", False)
    if elsewhere or getattr(found, "external", None):
        raise UserError(f"{file.filename}: {name!r} refers to another file, which is not read. Get the published file.")
    return found


@lru_cache(maxsize=1)
def _open_array(file: Any, name: str) -> Any:
    # stays open: a chunk that holds several images would otherwise be unpacked again for each of them
    return array_of(file, name)


def _decode_hdf5(reference: HDF5Image, room: float) -> Pixels:
    array = _open_array(open_hdf5(reference.path), reference.array)
    if not hasattr(array, "shape"):
        raise UnreadableError(f"{reference.array} is not an array")
    shape = array.shape[1:]
    if array.dtype != np.uint8 or len(shape) != 3 or shape[2] != 3:
        raise UnreadableError(f"{array.dtype} {shape} instead of uint8 (height, width, 3)")
    # a chunk is unpacked as a whole
    needed = PIXEL_BYTES * math.prod(shape[:2]) + math.prod(array.chunks or (0,))
    require_room(f"{shape[0]:,} x {shape[1]:,} pixels", needed, room)
    return np.asarray(array[reference.index])
