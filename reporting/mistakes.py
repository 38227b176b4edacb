"""The worst errors of a run as thumbnails: one picture that holds them in a row."""

from __future__ import annotations

import base64
import io
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from engine.files import DAMAGED_ARRAYS, read_small
from engine.records.schema import ERRORS, PREDICTIONS
from engine.training.metrics import Predictions
from reporting.entry import Entry
from reporting.fields import clean, shortened
from reporting.files import MIB, arrays
from reporting.predictions import predictions_bytes, require_named

LARGEST_BYTES = 16 * MIB  # of the errors' file
MOST_TILES, MOST_PIXELS = 64, 1024
QUALITY = 70  # of WebP
SIDES_PIXELS = ((40, 96), (120, 64), (10**9, 48))  # up to so many pictures in a report: the longer side of a tile


def side_pixels(pictures: int) -> int:
    """The longer side of a tile in a report with so many pictures: all of them together take some 3 MB at most."""
    return next(side for most, side in SIDES_PIXELS if pictures <= most)


def worst_errors(entry: Entry, side: int) -> dict[str, Any] | None:
    """Return the errors of a run's errors.npz, worst first, with their picture; None where there is no such file.

    `tile` is the width and height of each of them in the picture, `side` the longer of both, in pixels. Raises
    ValueError where the files are damaged, don't fit each other or are not those of the record.
    """
    folder, images, classes = entry.folder, entry.version.test_images, len(entry.version.classes)
    try:
        content = read_small(folder / ERRORS, LARGEST_BYTES)
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as problem:
        raise ValueError(f"the worst errors can't be shown: {problem}") from problem
    try:
        require_named(entry, ERRORS, content)
        tiles, rows = arrays(content, ("tiles", "rows"), LARGEST_BYTES)
        most = predictions_bytes(images, classes)
        of_all = arrays(read_small(folder / PREDICTIONS, most), ("names", "labels", "logits"), most)
        names, labels, logits = (part[rows] for part in of_all)
        predictions = Predictions(logits, labels)
        if tiles.shape[:1] + tiles.shape[3:] != (len(rows), 3) or tiles.dtype != np.uint8:
            raise ValueError(f"tiles {tiles.shape} for {len(rows)} rows")
        if predictions.classes != classes:
            raise ValueError(f"logits {logits.shape} of {classes} classes")
        if len(rows) > MOST_TILES or max(tiles.shape[1:3]) > MOST_PIXELS:
            raise ValueError(f"tiles {tiles.shape}, expected {MOST_TILES} of {MOST_PIXELS} pixels at most")
        if predictions.correct.any() or len(set(rows.tolist())) < len(rows):
            raise ValueError("they are of other predictions")
        confidence = predictions.probabilities.max(axis=1)
        wide, high = _tile_size(tiles.shape[2], tiles.shape[1], side)
        shown = zip(labels.tolist(), predictions.predicted.tolist(), confidence.tolist(), names.tolist(), strict=True)
        return {
            "sprite": f"data:image/webp;base64,{_row(tiles, wide, high)}",
            "tile": [wide, high],
            "of": f"{entry.seed}, fold {entry.fold.number} of {entry.fold.of}" if entry.fold else entry.seed,
            "tiles": [
                {"true": true, "predicted": predicted, "confidence": round(sure, 4), "name": shortened(str(name))}
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
