"""How many test images are kept, and how many of these are right, where less sure predictions are rejected."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.records.schema import PREDICTIONS
from reporting import statistics
from reporting.entry import Entry
from reporting.fields import clean
from reporting.predictions import THRESHOLDS, outcome

TABLE = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99)  # those thresholds that the table beside the plot has
STEP = 0.01  # of the images, that points of the curve are apart at least
FEWEST_KEPT = 10  # images of a seed: of fewer, a curve would show chance


def coverage(runs: Sequence[Entry], skipped: list[dict[str, str]]) -> dict[str, Any] | None:
    """The share of test images kept, and the accuracy of those, by the least probability that is asked for.

    Of `runs`, the seeds of a cell, those together that have their predictions, each calibrated by its own temperature.
    `table` has Wilson's intervals of the accuracy, for as many images as a seed keeps in the mean. None where no seed
    has predictions; adds to `skipped` those that can't be used.
    """
    found = {run: kept for run in runs if (kept := _kept(run, skipped)) is not None}
    if not found:
        return None
    trainings = [training for run in found for training in run.trainings]
    kept = np.sum(list(found.values()), axis=0)
    curve: list[list[float]] = []
    table: list[list[float | None]] = []
    for threshold, (images, right) in zip(THRESHOLDS, kept.T.tolist(), strict=True):
        share = _rounded(images / int(kept[0, 0]))
        accuracy = right / images if images else None
        enough = accuracy is not None and images >= FEWEST_KEPT * len(found)
        if enough and (not curve or curve[-1][1] - share >= STEP or threshold in TABLE):
            curve.append([threshold, share, _rounded(right / images)])
        if threshold in TABLE:
            interval = None if accuracy is None else statistics.wilson(accuracy, round(images / len(found)))
            ends = [None, None] if interval is None else [_rounded(end) for end in interval]
            table.append([threshold, share, None if accuracy is None else _rounded(accuracy), *ends])
    return {"seeds": [run.seed for run in found], "curve": curve, "table": table, **_calibration(trainings)}


def _kept(run: Entry, skipped: list[dict[str, str]]) -> npt.NDArray[np.int64] | None:
    """As Outcome has it; of all folds together. None: predictions are missing or can't be used."""
    kept = np.zeros((2, len(THRESHOLDS)), np.int64)
    for training in run.trainings:
        try:
            read = outcome(training)
        except (OSError, ValueError) as problem:
            skipped.append({"path": f"{training.run}/{PREDICTIONS}", "reason": clean(str(problem))})
            return None
        if read is None:
            return None
        kept += read.kept
    return kept


def _rounded(share: float) -> float:
    return round(share, statistics.DIGITS)


def _calibration(trainings: Sequence[Entry]) -> dict[str, Any]:
    """The temperatures, none where a training has none, and the mean ECE of test by the logits as they are and after.

    Of trainings without a temperature, probabilities are those of the logits.
    """
    known = [training.calibration for training in trainings if training.calibration]
    if len(known) < len(trainings):
        return {"temperatures": [], "ece": None}
    raw = [training.results.values["ece"] for training in trainings if training.results]
    means = [float(np.mean(values)) for values in (raw, [ece for _, ece in known])]
    return {"temperatures": [round(of, 3) for of, _ in known], "ece": [_rounded(mean) for mean in means]}
