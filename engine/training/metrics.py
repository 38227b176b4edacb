"""The metrics of a run: one entry each, from which evaluate(), the record's schema and the report take them."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

Logits = npt.NDArray[np.floating[Any]]
Labels = npt.NDArray[np.int64]
Whole = npt.NDArray[np.signedinteger[Any]]

BINS = 15  # of the expected calibration error
MEANS_OF_FOLDS = ("auroc", "ece")  # that pooled() does not give as all images together would have them


class Predictions:
    """Logits (N, C) and true labels (N,) in 0..C-1, and what follows from them.

    The prediction is the first of the highest logits. Raises ValueError: no images, fewer than two classes, shapes or
    labels that do not fit, logits that are not finite.
    """

    def __init__(self, logits: Logits, labels: Labels) -> None:
        if logits.ndim != 2 or labels.shape != logits.shape[:1]:
            raise ValueError(f"expected logits (N, C) and labels (N,), found {logits.shape} and {labels.shape}")
        self.images, self.classes = logits.shape
        if self.images == 0 or self.classes < 2:
            raise ValueError(f"nothing to evaluate: logits {logits.shape}")
        if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0 or labels.max() >= self.classes:
            raise ValueError(f"labels must be integers from 0 to {self.classes - 1}")
        if not np.isfinite(logits).all():
            broken = int((~np.isfinite(logits).all(axis=1)).sum())
            raise ValueError(f"the logits of {broken:,} of {self.images:,} images are not finite")
        self.logits, self.labels = logits, labels
        self.predicted: Labels = logits.argmax(axis=1)
        self.correct: npt.NDArray[np.bool_] = self.predicted == labels

    @cached_property
    def below_highest(self) -> npt.NDArray[np.float64]:
        """(N, C), how far each logit lies below its image's highest; 0 or less."""
        shifted = self.logits.astype(np.float64)
        shifted -= shifted.max(axis=1, keepdims=True)
        return shifted

    @cached_property
    def log_odds_against(self) -> npt.NDArray[np.float64]:
        """(N,), log((1 - p) / p) of the predicted class, which tells p apart that are all rounded to 1."""
        # in the order of their size, so that the same logits in another order add up to the same
        others = np.sort(self.below_highest, axis=1)[:, :-1]
        second = others[:, -1]
        against: npt.NDArray[np.float64] = second + np.log(np.exp(others - second[:, None]).sum(axis=1))
        return against

    @cached_property
    def log_probabilities(self) -> npt.NDArray[np.float64]:
        """(N, C), natural logarithms."""
        return self.below_highest - np.log1p(np.exp(self.log_odds_against))[:, None]

    def log_odds(self, index: int) -> npt.NDArray[np.float64]:
        """(N,), log(p / (1 - p)) of the class `index`: it orders images as p does, without rounding to 1.

        In float64, every p is 1 from a margin of 37 between the logits on.
        """
        own = self.below_highest[:, index]
        others = 1 + np.maximum(0, np.exp(self.log_odds_against) - np.exp(own))  # the highest among them gives the 1
        return np.where(own == 0, -self.log_odds_against, own - np.log(others))

    @cached_property
    def probabilities(self) -> npt.NDArray[np.float64]:
        """(N, C), which sum to 1 in each row."""
        return np.exp(self.log_probabilities)

    @cached_property
    def confusion(self) -> npt.NDArray[np.int64]:
        """(C, C) counts, a row per true class, a column per predicted one."""
        places = self.labels * self.classes + self.predicted
        return np.bincount(places, minlength=self.classes**2).reshape(self.classes, self.classes)

    @cached_property
    def present(self) -> Labels:
        """The classes that some label names."""
        return np.flatnonzero(self.confusion.sum(axis=1))

    @cached_property
    def recalls(self) -> npt.NDArray[np.float64]:
        """The recall of each present class."""
        recalls: npt.NDArray[np.float64] = (
            self.confusion.diagonal()[self.present] / self.confusion.sum(axis=1)[self.present]
        )
        return recalls


@dataclass(frozen=True)
class Metric:
    """One number that says how good predictions are, and how it is shown."""

    label: str  # what tables and plots call it
    description: str
    compute: Callable[[Predictions], float | None]  # None: it can't be said of such predictions
    digits: int  # that are shown
    percent: bool = False
    higher_is_better: bool = True
    most: float = 1.0  # the least is 0
    optional: bool = False  # whether compute() can give None
    reported: bool = True

    def text(self, value: float) -> str:
        """The metric with its value, as a run prints it: top-1 97.50%."""
        return f"{self.label} {value:.{self.digits}{'%' if self.percent else 'f'}}"


def _top5(predictions: Predictions) -> float | None:
    if predictions.classes <= 5:
        return None
    logits, labels = predictions.logits, predictions.labels
    own = np.take_along_axis(logits, labels[:, None], axis=1)
    lower = np.arange(logits.shape[1]) < labels[:, None]
    ahead = (logits > own) | ((logits == own) & lower)
    return float((ahead.sum(axis=1) < 5).mean())


def _macro_f1(predictions: Predictions) -> float:
    confusion, present = predictions.confusion, predictions.present
    named = confusion.sum(axis=0) + confusion.sum(axis=1)  # as often as a class is true or predicted: 2 TP + FP + FN
    return float((2 * confusion.diagonal()[present] / named[present]).mean())


def _auroc(predictions: Predictions) -> float | None:
    from scipy.stats import rankdata

    if len(predictions.present) < 2:
        return None
    areas = []
    for index in [1] if predictions.classes == 2 else predictions.present:
        of_class = predictions.labels == index
        count = int(of_class.sum())
        # Mann and Whitney's U over all pairs, which is the area under the curve (Hanley & McNeil 1982, Radiology 143);
        # scikit-learn, which draws the curve, takes ten times as long for each of thousands of classes
        ranks = rankdata(predictions.log_odds(index))
        areas.append((ranks[of_class].sum() - count * (count + 1) / 2) / (count * (predictions.images - count)))
    return float(np.mean(areas))


def _nll(predictions: Predictions) -> float:
    return float(-predictions.log_probabilities[np.arange(predictions.images), predictions.labels].mean())


def _ece(predictions: Predictions) -> float:
    """sum over m of |B_m| / N * |accuracy(B_m) - confidence(B_m)|, with bin m of images in ((m-1)/15, m/15]."""
    confidence = predictions.probabilities.max(axis=1)
    bins = np.digitize(confidence, np.arange(1, BINS) / BINS, right=True)
    gap = np.bincount(bins, weights=predictions.correct.astype(np.float64) - confidence, minlength=BINS)
    return float(np.abs(gap).sum() / len(confidence))


METRICS: dict[str, Metric] = {
    "top1": Metric(
        "top-1",
        "share of images whose highest logit is the label's",
        lambda predictions: float(predictions.correct.mean()),
        digits=2,
        percent=True,
    ),
    "top5": Metric(
        "top-5",
        "share of images whose label is among the five highest logits, of equals the lower class first; null unless "
        "there are more than five classes",
        _top5,
        digits=2,
        percent=True,
        optional=True,
        reported=False,
    ),
    "balanced_accuracy": Metric(
        "balanced accuracy",
        "mean recall over the classes that the test part has",
        lambda predictions: float(predictions.recalls.mean()),
        digits=2,
        percent=True,
    ),
    "macro_f1": Metric("macro-F1", "mean F1 over the classes that the test part has", _macro_f1, digits=4),
    "auroc": Metric(
        "AUROC",
        "the chance that a random image of the class scores above one of the rest, ties counting half: of class 1 for "
        "two classes, else the mean of one class against the rest; null if all labels are equal",
        _auroc,
        digits=4,
        optional=True,
    ),
    "nll": Metric(
        "NLL", "mean negative log-likelihood, nats per image", _nll, digits=3, higher_is_better=False, most=math.inf
    ),
    "ece": Metric(
        "ECE",
        "expected calibration error: the probability of the predicted class against accuracy, in 15 equal-width bins "
        "(Guo et al. 2017, arXiv:1706.04599, equation 3)",
        _ece,
        digits=2,
        percent=True,
        higher_is_better=False,
    ),
}


def of_confusion(places: Whole, images: Whole, classes: int) -> tuple[dict[str, float], npt.NDArray[np.float64]]:
    """Those metrics that follow from a confusion matrix, and the recall of each class, NaN without test images.

    places: (M,), row * classes + column of what is not 0, once or several times, to be added up. images: (M,), what
    stands there. Raises ValueError: nothing.
    """
    true, predicted = np.divmod(places, classes)
    of_class, named = (np.bincount(part, images, classes) for part in (true, predicted))
    right = np.bincount(true, images * (true == predicted), classes)
    present = np.flatnonzero(of_class)
    if not len(present):
        raise ValueError("a confusion matrix without images")
    recalls = np.full(classes, np.nan)
    recalls[present] = right[present] / of_class[present]
    values = {
        "top1": float(right.sum() / of_class.sum()),
        "balanced_accuracy": float(recalls[present].mean()),
        "macro_f1": float((2 * right[present] / (of_class + named)[present]).mean()),
    }
    return values, recalls


def pooled(values: Sequence[Mapping[str, float | None]], images: Sequence[int]) -> dict[str, float]:
    """The mean of each metric over test parts, weighted by their images; one that a part lacks is absent.

    Of top-1 and NLL, means over images, it is that of all images together; of AUROC and ECE it is the mean alone, since
    scores of different models are in no common order (Forman & Scholz 2010, "Apples-to-apples in cross-validation
    studies", ACM SIGKDD Explorations 12, 49-57). What follows from counts, such as macro-F1, is of_confusion()'s of the
    sum of all matrices, likewise.
    """
    columns = {name: [value for of in values if (value := of.get(name)) is not None] for name in METRICS}
    return {
        name: float(np.average(column, weights=images))
        for name, column in columns.items()
        if len(column) == len(values)
    }


def evaluate(logits: Logits, labels: Labels) -> dict[str, Any]:
    """Every metric of `logits` (N, C) against true `labels` (N,), and what it rests on, ready for JSON.

    `per_class_recall` has None for a class that no label names (partial data). `confusion` has the entries of the
    confusion matrix that are not 0: true class, predicted class and images, each a list. Raises ValueError as
    Predictions does.
    """
    predictions = Predictions(np.asarray(logits), np.asarray(labels))
    recalls: list[float | None] = [None] * predictions.classes
    for index, recall in zip(predictions.present.tolist(), predictions.recalls.tolist(), strict=True):
        recalls[index] = recall
    rows, columns = np.nonzero(predictions.confusion)
    return {
        "images": predictions.images,
        **{name: metric.compute(predictions) for name, metric in METRICS.items()},
        "per_class_recall": recalls,
        "confusion": {
            "true": rows.tolist(),
            "predicted": columns.tolist(),
            "images": predictions.confusion[rows, columns].tolist(),
        },
    }
