"""One image, whatever its format -> RGB, uint8: one decoder for train, validation and test.

The rules, for every dataset alike:

- The format is told by a file's content, not by its name; only DICOM files are known by their suffix.
- EXIF rotation is applied: pixels are the way round that a viewer shows them.
- Grey becomes three equal channels. Transparent pixels are laid on white. CMYK and palettes are converted.
- 16 bits a channel become 8 by dividing by 257, that is, scaled by what the type can hold, not by what an image uses.
- Of several frames the first is taken.
- DICOM: rescale slope and window as stored; MONOCHROME1 is inverted; without a window, the stored bits are the range.
- Resizing is bilinear with antialiasing, to exactly the height and width asked for; the aspect ratio gives way.
"""

from __future__ import annotations

import hashlib
import struct
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from engine.dataset import Reference, Slice
from engine.errors import UserError

DECODER = 1  # raised when the same file can give other pixels
HDF5_CACHE_BYTES = 128 << 20

Pixels = npt.NDArray[np.uint8]


class UnreadableError(Exception):
    """An image that can't be decoded; the message says why, without its name."""


def decode(reference: Reference) -> Pixels:
    """The image (H, W, 3) at its own size. Raises UnreadableError, and UserError when a reader's package is missing."""
    if isinstance(reference, Slice):
        return _decode_hdf5(reference)
    try:
        if reference.suffix.lower() in (".dcm", ".dicom"):
            return _decode_dicom(reference)
        with Image.open(reference) as image:
            return np.asarray(_to_rgb(_upright(image)))
    except (UnreadableError, UserError):
        raise
    # a damaged file can make a decoder raise nearly anything
    except Exception as error:
        raise UnreadableError(_reason(error, reference)) from error


def resize(pixels: Pixels, size: tuple[int, int]) -> Pixels:
    """The image (H, W, 3) at `size`, height and width."""
    if pixels.shape[:2] == size:
        return pixels
    return np.asarray(Image.fromarray(pixels).resize((size[1], size[0]), Image.Resampling.BILINEAR))


def digest(pixels: Pixels) -> str:
    """What tells the image (H, W, 3) from every other, at its own size: 32 hexadecimal digits."""
    found = hashlib.blake2b(repr(pixels.shape).encode(), digest_size=16)
    found.update(np.ascontiguousarray(pixels).data)
    return found.hexdigest()


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except (SyntaxError, ValueError, KeyError, TypeError, struct.error, ZeroDivisionError):
        return image  # EXIF data that can't be read, beside pixels that perhaps can


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode == "I":
        return Image.fromarray(_to_8_bits(np.asarray(image))).convert("RGB")
    if image.mode == "F":
        raise UnreadableError("its pixels are floating-point numbers, of which nothing says what is white")
    if image.mode in ("LA", "La", "PA", "RGBA", "RGBa") or "transparency" in image.info:
        see_through = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, "white"), see_through).convert("RGB")
    return image.convert("RGB")


def _to_8_bits(grey: npt.NDArray[Any]) -> Pixels:
    if grey.min() < 0 or grey.max() > 65_535:
        raise UnreadableError(f"its pixels go from {grey.min()} to {grey.max()}, more than 16 bits hold")
    return np.round(grey / 257).astype(np.uint8)


def _reason(error: Exception, path: Path) -> str:
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    if isinstance(error, UnidentifiedImageError):
        return "empty" if path.stat().st_size == 0 else "not an image of a known format"
    return str(error).partition("\n")[0][:200] or type(error).__name__


def _decode_dicom(path: Path) -> Pixels:
    try:
        import pydicom
        from pydicom.pixels.processing import apply_color_lut, apply_modality_lut, apply_voi_lut
        from pydicom.pixels.utils import pixel_array
    except ImportError as error:
        raise UserError(f"DICOM images such as {path} are read by a package: pip install 'pydicom>=3.0'") from error
    header = pydicom.dcmread(path)
    if "PixelData" not in header:
        raise UnreadableError("a DICOM file without pixels" if len(header) else "not a DICOM file")
    stored = pixel_array(header, index=0)  # also YBR -> RGB
    photometric = str(header.get("PhotometricInterpretation", "")).strip()
    if photometric == "PALETTE COLOR":
        stored = apply_color_lut(stored, header)
        return (stored / 257).round().astype(np.uint8) if stored.dtype == np.uint16 else stored
    bits = int(header.BitsStored)
    if stored.ndim == 3:
        return _scaled(stored, 0, 2**bits - 1)
    rescaled = apply_modality_lut(stored, header)
    signed = int(header.get("PixelRepresentation", 0))
    ends = np.array([-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] if signed else [0, 2**bits - 1])
    # what the stored bits can hold, in the units after rescaling: windowing maps its window onto the same range
    low, high = sorted(float(value) for value in apply_modality_lut(ends, header))
    if "VOILUTSequence" in header:
        low, high = 0.0, float(2 ** int(header.VOILUTSequence[0].LUTDescriptor[2]) - 1)
    grey = _scaled(apply_voi_lut(rescaled, header), low, high)
    if photometric == "MONOCHROME1":
        grey = 255 - grey
    return np.repeat(grey[..., None], 3, axis=2)


def _scaled(values: npt.NDArray[Any], low: float, high: float) -> Pixels:
    share = (values.astype(np.float64) - low) / max(high - low, 1)
    return np.round(share.clip(0, 1) * 255).astype(np.uint8)


def open_hdf5(path: Path) -> Any:
    """The h5py.File at `path`, which stays open. UserError: the package is missing, or the file is damaged."""
    try:
        import h5py  # noqa: F401 (its absence is to be told before anything about the file)
    except ImportError as error:
        raise UserError(f"{path} is read by a package: pip install 'h5py>=3.10'") from error
    try:
        return _open_hdf5(path, path.stat().st_mtime_ns)
    except OSError as error:
        raise UserError(
            f"{path} can't be read as HDF5: {error.strerror or str(error).partition(chr(10))[0]}. Get it again."
        ) from error


@lru_cache(maxsize=1)
def _open_hdf5(path: Path, _: int) -> Any:
    import h5py

    # chunks that hold several images would otherwise be unpacked again for each of them
    return h5py.File(path, rdcc_nbytes=HDF5_CACHE_BYTES)


def _decode_hdf5(reference: Slice) -> Pixels:
    try:
        pixels = np.asarray(open_hdf5(reference.path)[reference.array][reference.index])
    except (OSError, KeyError, ValueError, IndexError) as error:
        raise UnreadableError(str(error).partition("\n")[0]) from error
    if pixels.dtype != np.uint8 or pixels.ndim != 3 or pixels.shape[2] != 3:
        raise UnreadableError(f"{pixels.dtype} {pixels.shape} instead of uint8 (height, width, 3)")
    return pixels
