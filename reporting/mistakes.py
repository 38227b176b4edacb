"""The mistakes of a cell that are worth a look: its worst errors and likely label errors, as thumbnails."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from engine.files import DAMAGED_ARRAYS, read_small
from engine.records.mistakes import LIKELIEST, WORST, likely_label_errors, probabilities_of
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


@dataclass(frozen=True, eq=False)
class Mistakes:
    """The test images of a run, and which of those that it got wrong there are pictures of."""

    entry: Entry
    names: npt.NDArray[np.str_]  # (N,)
    predictions: Predictions  # of N images
    rows: npt.NDArray[np.int64]  # (M,), of the pictures, those that it was surest of first
    tiles: npt.NDArray[np.uint8]  # (M, H, W, 3)

    @property
    def which(self) -> int | str:
        """What the page calls the run."""
        entry = self.entry
        return f"{entry.seed}, fold {entry.fold.number} of {entry.fold.of}" if entry.fold else entry.seed


def read_mistakes(entry: Entry) -> Mistakes | None:
    """What a run's errors.npz and predictions.npz say; None where the former is not there, but for a fold.

    A fold of which nothing was wrong still tells how sure the model is of each class.

    Raises ValueError where the files are damaged, don't fit each other or are not those of the record.
    """
    folder, images, classes = entry.folder, entry.version.test_images, len(entry.version.classes)
    content = None
    try:
        content = read_small(folder / ERRORS, LARGEST_BYTES)
    except FileNotFoundError:
        if not entry.fold or not (folder / PREDICTIONS).exists():
            return None
    except (OSError, ValueError) as problem:
        raise ValueError(f"the worst errors can't be shown: {problem}") from problem
    try:
        tiles, rows = np.zeros((0, 1, 1, 3), np.uint8), np.zeros(0, np.int64)
        if content is not None:
            require_named(entry, ERRORS, content)
            tiles, rows = arrays(content, ("tiles", "rows"), LARGEST_BYTES)
        most = predictions_bytes(images, classes)
        of_all = read_small(folder / PREDICTIONS, most)
        require_named(entry, PREDICTIONS, of_all)
        names, labels, logits = arrays(of_all, ("names", "labels", "logits"), most)
        predictions = Predictions(logits, labels)
        if tiles.shape[:1] + tiles.shape[3:] != (len(rows), 3) or tiles.dtype != np.uint8:
            raise ValueError(f"tiles {tiles.shape} for {len(rows)} rows")
        if predictions.classes != classes or names.shape != (predictions.images,):
            raise ValueError(f"names {names.shape} and logits {logits.shape}, of {classes} classes")
        least, sides = 0 if content is None else 1, tiles.shape[1:3]
        if not least <= len(rows) <= MOST_TILES or max(sides) > MOST_PIXELS or min(sides) < 1:
            raise ValueError(f"tiles {tiles.shape}, expected {MOST_TILES} of {MOST_PIXELS} pixels at most")
        if predictions.correct[rows].any() or len(set(rows.tolist())) < len(rows):
            raise ValueError("they are of other predictions")
    except DAMAGED_ARRAYS as problem:
        raise ValueError(f"the worst errors can't be shown: {clean(str(problem))}") from problem
    surest = np.argsort(predictions.log_odds_against[rows], kind="stable")
    return Mistakes(entry, names, predictions, rows[surest], tiles[surest])


def pictures(several: Sequence[Mistakes], side: int) -> dict[str, Any]:
    """The worst errors of the first of `several` runs that has any, and the likely label errors of all of them.

    They are a run, or its folds, of which one at least has pictures.

    `sprite` is a picture that holds `columns` tiles in a row, `tile` the width and height of each, `side` the longer of
    both, in pixels. `tiles` are the worst errors, which come first in it; `suspects` have their place there (`at`), or
    None where there is no picture.
    """
    which = next(of for of, each in enumerate(several) if len(each.rows))
    first = several[which]
    worst = [(which, row) for row in first.rows[:WORST].tolist()]
    labels = np.concatenate([each.predictions.labels for each in several])
    probabilities = np.concatenate([_probabilities(each) for each in several])
    found = likely_label_errors(probabilities, labels)
    begins = np.cumsum([0, *(each.predictions.images for each in several)])
    likeliest = []
    for row in found.rows[:LIKELIEST].tolist():
        of = int(np.searchsorted(begins, row, "right")) - 1
        likeliest.append((of, row - int(begins[of])))
    has = [{row: place for place, row in enumerate(each.rows.tolist())} for each in several]
    shown = dict.fromkeys([*worst, *((of, row) for of, row in likeliest if row in has[of])])
    at = {key: place for place, key in enumerate(shown)}
    wide, high = _tile_size(first.tiles.shape[2], first.tiles.shape[1], side)
    suspects = [
        {
            "at": at.get((of, row)),
            "given": int(labels[place]),
            "suggested": suggested,
            "probabilities": [round(float(probabilities[place, label]), 4) for label in (labels[place], suggested)],
            "name": shortened(str(several[of].names[row])),
        }
        for (of, row), place, suggested in zip(likeliest, found.rows.tolist(), found.suggested.tolist(), strict=False)
    ]
    return {
        "sprite": f"data:image/webp;base64,{_row([several[of].tiles[has[of][row]] for of, row in shown], wide, high)}",
        "columns": len(shown),
        "tile": [wide, high],
        "of": first.which,
        "tiles": _worst(first),
        "suspects": suspects,
        "suspected": [len(found.rows), len(labels)],
    }


def _worst(run: Mistakes) -> list[dict[str, Any]]:
    rows = run.rows[:WORST]
    confidence = run.predictions.probabilities[rows].max(axis=1)
    labels, predicted = run.predictions.labels[rows], run.predictions.predicted[rows]
    of_each = zip(labels.tolist(), predicted.tolist(), confidence.tolist(), run.names[rows].tolist(), strict=True)
    return [
        {"true": true, "predicted": predicted, "confidence": round(sure, 4), "name": shortened(str(name))}
        for true, predicted, sure, name in of_each
    ]


def _probabilities(run: Mistakes) -> npt.NDArray[np.float64]:
    temperature, _ = run.entry.calibration or (None, None)
    return probabilities_of(run.predictions.logits, run.predictions.labels, temperature)


def _tile_size(width: int, height: int, side: int) -> tuple[int, int]:
    # in steps of the blocks in which WebP loses detail, so that no tile's colours run into the next
    wide, high = (max(16, round(length * side / max(width, height) / 16) * 16) for length in (width, height))
    return wide, high


def _row(tiles: Sequence[npt.NDArray[np.uint8]], wide: int, high: int) -> str:
    picture = Image.new("RGB", (wide * len(tiles), high))
    for index, tile in enumerate(tiles):
        picture.paste(Image.fromarray(tile).resize((wide, high), Image.Resampling.BILINEAR), (index * wide, 0))
    file = io.BytesIO()
    picture.save(file, "WEBP", quality=QUALITY, method=4)
    return base64.b64encode(file.getvalue()).decode()
