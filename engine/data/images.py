"""One image, whatever its format -> RGB, uint8: one decoder for train, validation and test.

The rules, for every dataset alike:

- The format is known by a file's content, not by its name; only DICOM files are known by their suffix.
- EXIF rotation is applied: pixels are the way round that a viewer shows them.
- Grey becomes three equal channels. Transparent pixels are laid on white (but for the one transparent grey that a
  16-bit PNG can have). CMYK and palettes are converted.
- 16-bit grey becomes 8 bits by dividing by 257, that is, scaled by what the type can hold, not by what an image uses.
  Of 16-bit colours, which Pillow doesn't read in full, the higher byte is taken.
- Of several frames the first is taken.
- DICOM: as engine/data/dicom.py says.
- Resizing is bilinear with antialiasing, to exactly the height and width asked for; the aspect ratio gives way.
"""

from __future__ import annotations

import errno
import hashlib
import re
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import ExifTags, Image, UnidentifiedImageError

from engine.data.part import HDF5Image, Pixels, Reference
from engine.errors import UnreadableError, UserError

DECODER = 1  # raised when the same file can give other pixels
HDF5_CACHE_BYTES = 128 << 20


def decode(reference: Reference) -> Pixels:
    """The image (H, W, 3) at its own size, which may be read-only. Errors as those of load()."""
    return np.asarray(load(reference))


def load(reference: Reference) -> Pixels | Image.Image:
    """The image at its own size, as its decoder gives it: uint8 (H, W, 3), which may be read-only, or Pillow's RGB.

    UnreadableError: it can't be decoded. UserError: the package that reads it is missing, or the HDF5 file that it is
    a part of can't be opened.
    """
    path = reference.path if isinstance(reference, HDF5Image) else reference
    try:
        if isinstance(reference, HDF5Image):
            return _decode_hdf5(reference)
        if reference.suffix.lower() in (".dcm", ".dicom"):
            from engine.data.dicom import decode_dicom

            return decode_dicom(reference)
        with Image.open(reference) as image:
            return _to_rgb(_upright(image))
    except (UnreadableError, UserError, MemoryError):
        raise
    # a damaged file can make a decoder raise nearly anything
    except Exception as error:
        if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
            raise  # the machine's fault, not the image's
        raise UnreadableError(_reason(error, path)) from error


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


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode == "I":
        return Image.fromarray(_to_8_bits(np.asarray(image))).convert("RGB")
    if image.mode == "F":
        raise UnreadableError("its pixels are floating-point numbers, of which nothing says what is white")
    if image.has_transparency_data:
        see_through = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), see_through).convert("RGB")
    return image if image.mode == "RGB" else image.convert("RGB")


def _to_8_bits(grey: npt.NDArray[Any]) -> Pixels:
    if grey.min() < 0 or grey.max() > 65_535:
        raise UnreadableError(f"its pixels go from {grey.min()} to {grey.max()}, more than 16 bits hold")
    return np.round(grey / 257).astype(np.uint8)


def _reason(error: Exception, path: Path) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    if isinstance(error, UnidentifiedImageError):
        return "empty" if path.stat().st_size == 0 else "not an image of a known format"
    # str() of a KeyError puts its message in quotes
    message = error.args[0] if isinstance(error, KeyError) and error.args else error
    without_objects = re.sub(r" ?<[^<>]* at 0x[0-9a-f]+>", "", str(message))
    return " ".join(without_objects.split())[:300] or type(error).__name__


def open_hdf5(path: Path) -> Any:
    """The h5py.File at `path`, which stays open. UserError: the package is missing, or the file can't be opened."""
    try:
        import h5py  # noqa: F401 (its absence is to be said before anything about the file)
    except ImportError as error:
        raise UserError(f"{path} is read by a package: pip install 'h5py>=3.10'") from error
    try:
        with path.open("rb"):  # h5py says in a paragraph that it is a folder, or that it may not be read
            modified = path.stat().st_mtime_ns
        return _open_hdf5(path, modified)
    except OSError as error:
        raise UserError(f"{path} can't be read as HDF5: {_reason(error, path)}. Get it again.") from error


@lru_cache(maxsize=1)
def _open_hdf5(path: Path, _: int) -> Any:
    import h5py

    return h5py.File(path, rdcc_nbytes=HDF5_CACHE_BYTES)


@lru_cache(maxsize=1)
def _open_array(file: Any, name: str) -> Any:
    # stays open: a chunk that holds several images would otherwise be unpacked again for each of them
    return file[name]


def _decode_hdf5(reference: HDF5Image) -> Pixels:
    array = _open_array(open_hdf5(reference.path), reference.array)
    if not hasattr(array, "shape"):
        raise UnreadableError(f"{reference.array} is not an array")
    pixels = np.asarray(array[reference.index])
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise UnreadableError(f"{pixels.dtype} {pixels.shape} instead of uint8 (height, width, 3)")
    return pixels
