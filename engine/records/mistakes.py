"""Which test images are worth a look: those that the model was surest of and wrong, and likely label errors."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from engine.training.calibration import scaled
from engine.training.metrics import Labels, Logits, Predictions

WORST = 12  # wrong predictions whose images are kept
LIKELIEST = 12  # label errors whose images are kept

Probabilities = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Suspects:
    """Images whose label is likely wrong, the likeliest first."""

    rows: Labels  # (M,), their places among all images
    suggested: Labels  # (M,), the class that each is likely of


def probabilities_of(logits: Logits, labels: Labels, temperature: float | None) -> Probabilities:
    """(N, C), of logits divided by the temperature; None: as they are. Raises ValueError as Predictions does."""
    return Predictions(scaled(logits, temperature), labels).probabilities


def likely_label_errors(probabilities: Probabilities, labels: Labels) -> Suspects:
    """Confident learning (Northcutt et al. 2021, "Confident learning: estimating uncertainty in dataset labels").

    probabilities: (N, C), by a model that was not trained on these images. labels: (N,), as they are given.

    A class is likely for an image whose probability of it is at least the mean of that of all images with its label
    (equation 1 there). Those images are named of which the likeliest such class, and the predicted one, are not the
    given one; first those whose given class has the least probability (its self-confidence), which found more of
    labels that were changed at random than the normalised margin did: docs/probabilities.md.
    """
    images, classes = probabilities.shape
    own = probabilities[np.arange(images), labels]
    counts = np.bincount(labels, minlength=classes)
    sums = np.bincount(labels, weights=own, minlength=classes)
    thresholds = np.where(counts > 0, sums / np.maximum(counts, 1), np.inf)
    likely = np.where(probabilities >= thresholds, probabilities, -1.0)
    suggested = likely.argmax(axis=1)
    named = (likely.max(axis=1) >= 0) & (suggested != labels) & (probabilities.argmax(axis=1) != labels)
    rows = np.flatnonzero(named)
    rows = rows[np.argsort(own[rows], kind="stable")]
    return Suspects(rows, suggested[rows])


def worst_rows(logits: Logits, labels: Labels) -> Labels:
    """The rows of the (at most WORST) wrong predictions with the highest probability, highest first.

    logits: (N, C). labels: (N,).
    """
    predictions = Predictions(logits, labels)
    wrong = np.flatnonzero(~predictions.correct)
    # by the odds, which tell probabilities apart that are all rounded to 1
    return wrong[np.argsort(predictions.log_odds_against[wrong], kind="stable")[:WORST]]


def rows_to_keep(logits: Logits, labels: Labels, temperature: float | None) -> Labels:
    """The rows whose images are kept: worst_rows(), and then those of the LIKELIEST label errors that are no such."""
    worst = worst_rows(logits, labels)
    suspects = likely_label_errors(probabilities_of(logits, labels, temperature), labels).rows[:LIKELIEST]
    return np.concatenate([worst, suspects[~np.isin(suspects, worst)]])
