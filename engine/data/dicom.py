"""One DICOM image -> RGB, uint8.

Rescale slope and window (or VOI table) are taken as stored; MONOCHROME1 is inverted; without a window, the stored bits
are the range. Of several frames the first is taken.

What the header says is not believed where it can't be right: pixels that are compressed are of the header's size, its
numbers are finite, and what it makes of the pixels leaves more than one grey of several.
"""

from __future__ import annotations

import io
import math
import zlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from engine.data.memory import require_room
from engine.data.part import Pixels
from engine.errors import UnreadableError, UserError

PIXEL_BYTES = 40  # that a pixel takes at most until it is 8 bits: of three colours, or of grey through a window
LARGEST = 1e30  # no number in a header is larger, or its inverse: of squares of it there are still digits
META_START = 144  # bytes of a file before what its FileMetaInformationGroupLength counts
UNPACKED = 1 << 20  # bytes that are unpacked at a time
GREYS = ("MONOCHROME1", "MONOCHROME2")
COLOURS = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_ICT", "YBR_RCT")  # what pydicom makes RGB of


def decode_dicom(path: Path, room: float = math.inf) -> Pixels:
    """The first image (H, W, 3) of a DICOM file.

    UnreadableError: it can't be decoded, or not in `room` bytes; pydicom raises nearly anything else. UserError: the
    package is missing.
    """
    try:
        import pydicom
        from pydicom.errors import InvalidDicomError
        from pydicom.pixels.utils import pixel_array
    except ImportError as error:
        raise UserError(f"DICOM images such as {path} are read by a package: pip install 'pydicom>=3.0'") from error
    try:
        _require_room_to_inflate(path, room)
        header = pydicom.dcmread(path)
    except InvalidDicomError as error:
        raise UnreadableError("empty" if path.stat().st_size == 0 else "not a DICOM file") from error
    if "PixelData" not in header:
        raise UnreadableError("a DICOM file without pixels")
    _require_room_for_pixels(header, room)
    try:
        stored = pixel_array(header, index=0)  # also YBR -> RGB
    except RuntimeError as error:
        if "missing dependencies" not in str(error):
            raise
        coding = header.file_meta.TransferSyntaxUID.name
        raise UnreadableError(f"{coding} is read by a package: pip install 'pylibjpeg[all]'") from error
    return _to_rgb(stored, header)


def _to_rgb(stored: npt.NDArray[Any], header: Any) -> Pixels:
    from pydicom.pixels.processing import apply_color_lut

    photometric = str(header.get("PhotometricInterpretation", "")).strip()
    if photometric == "PALETTE COLOR":
        colours = apply_color_lut(stored, header)
        return _scaled(colours[..., :3], 0, np.iinfo(colours.dtype).max)
    if photometric not in (GREYS if stored.ndim == 2 else COLOURS):
        samples = 1 if stored.ndim == 2 else stored.shape[2]
        raise UnreadableError(
            f"its PhotometricInterpretation is {photometric!r} of {samples} samples, which nothing here makes RGB"
        )
    if stored.ndim == 3:
        return _scaled(stored, 0, 2 ** int(header.BitsStored) - 1)
    grey = _dicom_grey(stored, header)
    if photometric == "MONOCHROME1":
        grey = 255 - grey
    return np.repeat(grey[..., None], 3, axis=2)


def _require_room_to_inflate(path: Path, room: float) -> None:
    """Raise UnreadableError where a deflated file, which is unpacked as a whole, takes more than `room` bytes."""
    from pydicom.filereader import read_file_meta_info
    from pydicom.uid import DeflatedExplicitVRLittleEndian

    meta = read_file_meta_info(path)
    if meta.get("TransferSyntaxUID") != DeflatedExplicitVRLittleEndian:
        return
    unpacker, unpacked = zlib.decompressobj(-zlib.MAX_WBITS), 0
    with path.open("rb") as file:
        file.seek(META_START + int(meta.FileMetaInformationGroupLength))
        while not unpacker.eof and (packed := unpacker.unconsumed_tail or file.read(UNPACKED)):
            unpacked += len(unpacker.decompress(packed, UNPACKED))
            # pydicom unpacks it as a whole, and copies what is in it
            require_room(f"more than {unpacked:,} bytes, packed into a file,", 3 * unpacked, room)


def _require_room_for_pixels(header: Any, room: float) -> None:
    """Raise UnreadableError where an image takes more than `room` bytes, or is of another size than its header says."""
    high, wide = (int(header.get(name) or 0) for name in ("Rows", "Columns"))
    require_room(f"{wide:,} x {high:,} pixels", PIXEL_BYTES * high * wide, room)
    coding = header.file_meta.get("TransferSyntaxUID")
    size = _size_of_stream(_first_frame(header)) if coding and coding.is_encapsulated else None
    if size and size != (wide, high):
        raise UnreadableError(f"its pixels are {size[0]:,} x {size[1]:,}, but its header says {wide:,} x {high:,}")


def _first_frame(header: Any) -> bytes:
    from pydicom.encaps import get_frame

    return get_frame(header.PixelData, 0, number_of_frames=int(header.get("NumberOfFrames") or 1))


def _size_of_stream(stream: bytes) -> tuple[int, int] | None:
    """Width and height that compressed pixels say of themselves; None: it is no JPEG of any kind.

    Pillow does not know JPEG of 12 or 16 bits, nor JPEG-LS.
    """
    place = 2
    while stream.startswith(b"\xff\xd8") and place + 9 <= len(stream) and stream[place] == 0xFF:
        marker = stream[place + 1]
        if marker == 0xF7 or (0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC)):
            high, wide = (int.from_bytes(stream[place + at : place + at + 2], "big") for at in (5, 7))
            return wide, high
        # a marker can be filled with others of its first byte
        place += 1 if marker == 0xFF else 2 + int.from_bytes(stream[place + 2 : place + 4], "big")
    try:
        with Image.open(io.BytesIO(stream), formats=["JPEG2000"]) as image:
            return image.width, image.height
    except UnidentifiedImageError:
        return None


def _number(header: Any, name: str) -> float | None:
    """An attribute, the first of several; None: it is absent or empty. UnreadableError: it can't be meant."""
    try:
        value = header.get(name)
        first = value[0] if isinstance(value, Sequence) and not isinstance(value, str) and len(value) else value
        if first is None or first == "" or first == []:
            return None
        number = float(first)
    except (TypeError, ValueError, OverflowError) as error:
        raise UnreadableError(f"its {name} is no number") from error
    if number and not 1 / LARGEST <= abs(number) <= LARGEST:
        raise UnreadableError(f"its {name} is {number}, which no image can be scaled by")
    return number


def _dicom_grey(stored: npt.NDArray[Any], header: Any) -> Pixels:
    """(H, W), black to white as the header says; MONOCHROME1 is not yet inverted."""
    from pydicom.pixels.processing import apply_windowing

    bits, signed = int(header.BitsStored), bool(header.get("PixelRepresentation", 0))
    values, low, high = stored, -(2.0 ** (bits - 1)) if signed else 0.0, 2.0 ** (bits - signed) - 1
    slope, intercept = _number(header, "RescaleSlope"), _number(header, "RescaleIntercept")
    if table := header.get("ModalityLUTSequence"):
        values, low, high = _looked_up(values, table[0])
    elif slope is not None and intercept is not None:
        values = values * slope + intercept
        low, high = low * slope + intercept, high * slope + intercept
        if values.min() == values.max() and stored.min() < stored.max():
            raise UnreadableError(f"its RescaleSlope {slope:g} and RescaleIntercept {intercept:g} leave a single grey")
    if table := header.get("VOILUTSequence"):
        return _scaled(*_looked_up(values, table[0]))
    if _number(header, "WindowCenter") is not None and _number(header, "WindowWidth") is not None:
        # what is below the window becomes `low` and what is above it `high`, even where a slope < 0 has swapped these
        return _scaled(apply_windowing(values, header), low, high)
    return _scaled(values, min(low, high), max(low, high))


def _looked_up(values: npt.NDArray[Any], item: Any) -> tuple[npt.NDArray[Any], float, float]:
    """`values` through an item's LUTData, and the range of what comes out.

    Not pydicom's apply_voi: where the table holds 8 bits, it takes the positions modulo 256.
    """
    length, first, bits = (int(number) for number in item.LUTDescriptor)
    if not 1 <= bits <= 16:
        raise UnreadableError(f"a table of its greys has {bits} bits instead of 1 to 16")
    data = item.LUTData
    if isinstance(data, bytes):
        data = np.frombuffer(data, np.uint8 if len(data) < 2 * (length or 65_536) else np.dtype("<u2"))
    table = np.asarray(data)[: length or 65_536]
    if len(table) < (length or 65_536):
        raise UnreadableError(f"a table of its greys is shorter than its {length or 65_536:,} entries")
    positions = np.round(values).astype(np.int64) - first
    return table[positions.clip(0, len(table) - 1)], 0.0, 2.0**bits - 1


def _scaled(values: npt.NDArray[Any], low: float, high: float) -> Pixels:
    share = values.astype(np.float64)
    share -= low
    share /= (high - low) or 1
    np.clip(share, 0, 1, out=share)
    share *= 255
    return np.round(share, out=share).astype(np.uint8)
