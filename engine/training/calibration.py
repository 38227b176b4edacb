"""Temperature scaling: one number, fitted on the validation part, that logits are divided by for probabilities.

Guo et al. 2017, "On calibration of modern neural networks", arXiv:1706.04599, section 4.2.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.training.metrics import METRICS, Labels, Logits, Predictions

FEWEST = 20  # images: a temperature fitted on fewer makes probabilities worse about as often as better
LOWEST, HIGHEST = 0.05, 20.0  # temperatures: of one that would lie outside, the nearest


def calibration(logits: Logits, labels: Labels) -> dict[str, Any] | None:
    """The temperature for logits (N, classes) of the validation part, with their NLL and ECE there before and after it.

    None where there are fewer than FEWEST images. Raises ValueError as Predictions does.
    """
    before = Predictions(logits, labels)
    if before.images < FEWEST:
        return None
    temperature = fitted_temperature(before)
    after = Predictions(scaled(logits, temperature), labels)
    return {
        "temperature": temperature,
        "images": before.images,
        "nll_before": METRICS["nll"].compute(before),
        "nll_after": METRICS["nll"].compute(after),
        "ece_before": METRICS["ece"].compute(before),
        "ece_after": METRICS["ece"].compute(after),
    }


def scaled(logits: Logits, temperature: float | None) -> npt.NDArray[np.float64]:
    """The logits divided by the temperature; None: as they are."""
    return np.asarray(logits, np.float64) / (temperature or 1.0)


def fitted_temperature(predictions: Predictions) -> float:
    """The T from LOWEST to HIGHEST with the least NLL of softmax(logits / T), but for half an image more.

    That half is divided among the classes which are not the label (Jeffreys' prior; Platt 1999, "Probabilistic outputs
    for support vector machines", smooths the labels likewise). Where all images are right, the NLL would fall without
    end as T goes to 0, and all probabilities would be 1.
    """
    from scipy.optimize import brentq

    logits, images = predictions.below_highest, predictions.images
    own = logits[np.arange(images), predictions.labels]
    other = (logits.sum(axis=1) - own) / (predictions.classes - 1)
    share = 0.5 / (images + 1)
    target = ((1 - share) * own + share * other).mean()

    def slope(log_temperature: float) -> float:
        """Of the NLL, which is convex in 1 / T, by that."""
        weights = np.exp(logits * math.exp(-log_temperature))
        return float(((weights * logits).sum(axis=1) / weights.sum(axis=1)).mean() - target)

    lowest, highest = math.log(LOWEST), math.log(HIGHEST)
    if slope(lowest) <= 0:
        return LOWEST
    if slope(highest) >= 0:
        return HIGHEST
    return math.exp(brentq(slope, lowest, highest, xtol=1e-9))
