"""The worst errors of a run as thumbnails: one picture that holds them in a row."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from engine.files import DAMAGED_ARRAYS
from engine.records.metrics import Predictions
from engine.records.schema import ERRORS, PREDICTIONS
from reporting.fields import clean

QUALITY = 70  # of WebP
SIDES_PIXELS = ((40, 96), (120, 64), (10**9, 48))  # up to so many pictures in a report: the longer side of a tile


def side_pixels(pictures: int) -> int:
    """The longer side of a tile in a report with so many pictures: all of them together take some 3 MB at most."""
    return next(side for most, side in SIDES_PIXELS if pictures <= most)


def worst_errors(folder: Path, seed: int, classes: int, side: int) -> dict[str, Any] | None:
    """Return the errors of a run's errors.npz, worst first, with their picture; None where there is no such file.

    `tile` is the width and height of each of them in the picture, `side` the longer of both, in pixels. Raises
    ValueError where the files are damaged or don't fit each other.
    """
    if not (folder / ERRORS).is_file():
        return None
    try:
        if not (folder / PREDICTIONS).is_file():  # a pipe would be waited for without end
            raise ValueError(f"{PREDICTIONS} is missing, or not a regular file")
        with np.load(folder / ERRORS, allow_pickle=False) as errors:
            tiles, rows = errors["tiles"], errors["rows"]
        with np.load(folder / PREDICTIONS, allow_pickle=False) as content:
            names, labels, logits = (content[part][rows] for part in ("names", "labels", "logits"))
        predictions = Predictions(logits, labels)
        if tiles.shape[:1] + tiles.shape[3:] != (len(rows), 3) or tiles.dtype != np.uint8:
            raise ValueError(f"tiles {tiles.shape} for {len(rows)} rows")
        if predictions.classes != classes:
            raise ValueError(f"logits {logits.shape} of {classes} classes")
        confidence = predictions.probabilities.max(axis=1)
        wide, high = _tile_size(tiles.shape[2], tiles.shape[1], side)
        shown = zip(labels.tolist(), predictions.predicted.tolist(), confidence.tolist(), names.tolist(), strict=True)
        return {
            "sprite": f"data:image/webp;base64,{_row(tiles, wide, high)}",
            "tile": [wide, high],
            "of": seed,
            "tiles": [
                {"true": true, "predicted": predicted, "confidence": round(sure, 4), "name": clean(str(name))}
                for true, predicted, sure, name in shown
            ],
        }
    except DAMAGED_ARRAYS as problem:
        raise ValueError(f"the worst errors can't be shown: {clean(str(problem))}") from problem


def _tile_size(width: int, height: int, side: int) -> tuple[int, int]:
    # in steps of the blocks in which WebP loses detail, so that no tile's colours run into the next
    wide, high = (max(16, round(length * side / max(width, height) / 16) * 16) for length in (width, height))
    return wide, high


def _row(tiles: npt.NDArray[np.uint8], wide: int, high: int) -> str:
    picture = Image.new("RGB", (wide * len(tiles), high))
    for index, tile in enumerate(tiles):
        picture.paste(Image.fromarray(tile).resize((wide, high), Image.Resampling.BILINEAR), (index * wide, 0))
    file = io.BytesIO()
    picture.save(file, "WEBP", quality=QUALITY, method=4)
    return base64.b64encode(file.getvalue()).decode()
