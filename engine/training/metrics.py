"""Predictions -> metrics."""

from typing import Any

import numpy as np
import numpy.typing as npt
from sklearn.metrics import confusion_matrix, f1_score, roc_auc_score

BINS = 15


def evaluate(logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> dict[str, Any]:
    """Metrics of `logits` (N, C) against true `labels` (N,) in 0..C-1, ready for JSON.

    Fractions from 0 to 1; `nll` in nats per image. The prediction is the first of the highest logits, and of equal
    logits the lower class ranks first in top-5 (None unless C > 5). Classes that no label names (partial data)
    have recall None; balanced accuracy, macro-F1 and AUROC are means over the classes that are there.
    `auroc`: for C = 2 of the probability of class 1, else the mean of one class against the rest; the chance that
    a random image of the class scores above one of the rest, ties counting half; None if all labels are equal.
    `ece`: expected calibration error, sum over m of |B_m| / N * |accuracy(B_m) - confidence(B_m)| with the images
    binned by the probability of the predicted class into 15 equal intervals ((m-1)/15, m/15]; Guo et al. 2017,
    "On Calibration of Modern Neural Networks", arXiv:1706.04599, equation 3.
    `confusion_matrix`: C x C counts, a row per true class, a column per predicted one.
    ValueError: no images, fewer than two classes, shapes or labels that do not fit, logits that are not finite.
    """
    if logits.ndim != 2 or labels.shape != logits.shape[:1]:
        raise ValueError(f"expected logits (N, C) and labels (N,), found {logits.shape} and {labels.shape}")
    images, classes = logits.shape
    if images == 0 or classes < 2:
        raise ValueError(f"nothing to evaluate: logits {logits.shape}")
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0 or labels.max() >= classes:
        raise ValueError(f"labels must be integers from 0 to {classes - 1}")
    if not np.isfinite(logits).all():
        broken = int((~np.isfinite(logits).all(axis=1)).sum())
        raise ValueError(f"the logits of {broken:,} of {images:,} images are not finite")

    log_probabilities = _log_softmax(logits)
    probabilities = np.exp(log_probabilities)
    predictions = logits.argmax(axis=1)
    correct = predictions == labels
    matrix = confusion_matrix(labels, predictions, labels=np.arange(classes))
    present = np.flatnonzero(matrix.sum(axis=1))
    recalls = matrix.diagonal()[present] / matrix.sum(axis=1)[present]
    per_class: list[float | None] = [None] * classes
    for index, recall in zip(present, recalls, strict=True):
        per_class[index] = float(recall)

    return {
        "images": images,
        "top1": float(correct.mean()),
        "top5": _top5(logits, labels) if classes > 5 else None,
        "balanced_accuracy": float(recalls.mean()),
        "macro_f1": float(f1_score(labels, predictions, labels=present, average="macro", zero_division=0.0)),
        "auroc": _auroc(probabilities, labels, present),
        "nll": float(-log_probabilities[np.arange(images), labels].mean()),
        "ece": _ece(probabilities.max(axis=1), correct),
        "per_class_recall": per_class,
        "confusion_matrix": matrix.tolist(),
    }


def _log_softmax(logits: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    shifted = logits.astype(np.float64)
    shifted -= shifted.max(axis=1, keepdims=True)
    shifted -= np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return shifted


def _top5(logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> float:
    own = np.take_along_axis(logits, labels[:, None], axis=1)
    lower = np.arange(logits.shape[1]) < labels[:, None]
    ahead = (logits > own) | ((logits == own) & lower)
    return float((ahead.sum(axis=1) < 5).mean())


def _auroc(
    probabilities: npt.NDArray[np.float64], labels: npt.NDArray[np.int64], present: npt.NDArray[np.int64]
) -> float | None:
    if len(present) < 2:
        return None
    scored = [1] if probabilities.shape[1] == 2 else present
    return float(np.mean([roc_auc_score(labels == index, probabilities[:, index]) for index in scored]))


def _ece(confidence: npt.NDArray[np.float64], correct: npt.NDArray[np.bool_]) -> float:
    inner_edges = np.arange(1, BINS) / BINS
    bins = np.digitize(confidence, inner_edges, right=True)
    gap = np.bincount(bins, weights=correct.astype(np.float64) - confidence, minlength=BINS)
    return float(np.abs(gap).sum() / len(confidence))
