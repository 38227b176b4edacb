"""One image, whatever its format -> RGB, uint8: one decoder for train, validation and test.

The rules, for every dataset alike:

- The format is told by a file's content, not by its name; only DICOM files are known by their suffix.
- EXIF rotation is applied: pixels are the way round that a viewer shows them.
- Grey becomes three equal channels. Transparent pixels are laid on white (but for the one transparent grey that a
  16-bit PNG can have). CMYK and palettes are converted.
- 16-bit grey becomes 8 bits by dividing by 257, that is, scaled by what the type can hold, not by what an image uses.
  Of 16-bit colours, which Pillow doesn't read in full, the higher byte is taken.
- Of several frames the first is taken.
- DICOM: rescale slope and window (or VOI table) as stored; MONOCHROME1 is inverted; without a window, the stored bits
  are the range.
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

from engine.data.declaration import Reference, HDF5Image
from engine.errors import UserError

DECODER = 1  # raised when the same file can give other pixels
HDF5_CACHE_BYTES = 128 << 20

Pixels = npt.NDArray[np.uint8]


class UnreadableError(Exception):
    """An image that can't be decoded; the message says why, without its name."""


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
            return _decode_dicom(reference)
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
    found = hashlib.sha1(repr(pixels.shape).encode(), usedforsecurity=False)
    found.update(np.ascontiguousarray(pixels).data)
    return found.hexdigest()[:32]


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


def _decode_dicom(path: Path) -> Pixels:
    try:
        import pydicom
        from pydicom.errors import InvalidDicomError
        from pydicom.pixels.processing import apply_color_lut
        from pydicom.pixels.utils import pixel_array
    except ImportError as error:
        raise UserError(f"DICOM images such as {path} are read by a package: pip install 'pydicom>=3.0'") from error
    try:
        header = pydicom.dcmread(path)
    except InvalidDicomError as error:
        raise UnreadableError("empty" if path.stat().st_size == 0 else "not a DICOM file") from error
    if "PixelData" not in header:
        raise UnreadableError("a DICOM file without pixels")
    stored = pixel_array(header, index=0)  # also YBR -> RGB
    photometric = str(header.get("PhotometricInterpretation", "")).strip()
    if photometric == "PALETTE COLOR":
        colours = apply_color_lut(stored, header)
        return _scaled(colours[..., :3], 0, np.iinfo(colours.dtype).max)
    if stored.ndim == 3:
        if stored.shape[2] != 3:
            raise UnreadableError(f"{photometric} of {stored.shape[2]} samples, which nothing here converts to RGB")
        return _scaled(stored, 0, 2 ** int(header.BitsStored) - 1)
    grey = _dicom_grey(stored, header)
    if photometric == "MONOCHROME1":
        grey = 255 - grey
    return np.repeat(grey[..., None], 3, axis=2)


def _dicom_grey(stored: npt.NDArray[Any], header: Any) -> Pixels:
    """(H, W), black to white as the header says; MONOCHROME1 is not yet inverted."""
    from pydicom.pixels.processing import apply_windowing

    bits, signed = int(header.BitsStored), bool(header.get("PixelRepresentation", 0))
    values, low, high = stored, -(2.0 ** (bits - 1)) if signed else 0.0, 2.0 ** (bits - signed) - 1
    slope, intercept = header.get("RescaleSlope"), header.get("RescaleIntercept")
    if table := header.get("ModalityLUTSequence"):
        values, low, high = _looked_up(values, table[0])
    elif slope is not None and intercept is not None:
        values = values * float(slope) + float(intercept)
        low, high = low * float(slope) + float(intercept), high * float(slope) + float(intercept)
    if table := header.get("VOILUTSequence"):
        return _scaled(*_looked_up(values, table[0]))
    if header.get("WindowCenter") is not None and header.get("WindowWidth") is not None:
        # what is below the window becomes `low` and what is above it `high`, even where a slope < 0 has swapped these
        return _scaled(apply_windowing(values, header), low, high)
    return _scaled(values, min(low, high), max(low, high))


def _looked_up(values: npt.NDArray[Any], item: Any) -> tuple[npt.NDArray[Any], float, float]:
    """`values` through an item's LUTData, and the range of what comes out.

    Not pydicom's apply_voi: where the table holds 8 bits, it takes the positions modulo 256.
    """
    length, first, bits = (int(number) for number in item.LUTDescriptor)
    data = item.LUTData
    if isinstance(data, bytes):
        data = np.frombuffer(data, np.uint8 if len(data) < 2 * (length or 65_536) else np.dtype("<u2"))
    table = np.asarray(data)[: length or 65_536]
    positions = np.round(values).astype(np.int64) - first
    return table[positions.clip(0, len(table) - 1)], 0.0, 2.0**bits - 1


def _scaled(values: npt.NDArray[Any], low: float, high: float) -> Pixels:
    share = (values.astype(np.float64) - low) / ((high - low) or 1)
    return np.round(share.clip(0, 1) * 255).astype(np.uint8)


def open_hdf5(path: Path) -> Any:
    """The h5py.File at `path`, which stays open. UserError: the package is missing, or the file can't be opened."""
    try:
        import h5py  # noqa: F401 (its absence is to be told before anything about the file)
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
