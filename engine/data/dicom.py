"""One DICOM image -> RGB, uint8.

Rescale slope and window (or VOI table) are taken as stored; MONOCHROME1 is inverted; without a window, the stored bits
are the range.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.data.part import Pixels
from engine.errors import UnreadableError, UserError


def decode_dicom(path: Path) -> Pixels:
    """The first image (H, W, 3) of a DICOM file.

    UnreadableError: it can't be decoded; pydicom raises nearly anything else. UserError: the package is missing.
    """
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
    try:
        stored = pixel_array(header, index=0)  # also YBR -> RGB
    except RuntimeError as error:
        if "missing dependencies" not in str(error):
            raise
        coding = header.file_meta.TransferSyntaxUID.name
        raise UnreadableError(f"{coding} is read by a package: pip install 'pylibjpeg[all]'") from error
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
