"""How well frozen features tell the classes apart: nearest neighbours, a linear probe, LogME and the H-score.

Every score is a pure function of features F (N x D; float16, float32 or float64, never overwritten), labels (N whole
numbers, 0-based) and, where images must not be told from their like, groups (N strings, such as patients). Higher is
better. Classes of which there is no image count for nothing.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np

from engine.errors import counted
from ranking.probe import fold_count, probe, probe_of
from ranking.scaling import (
    Features,
    Groups,
    Numbers,
    Single,
    Whole,
    class_codes,
    countable,
    group_codes,
    kernel,
    lonely_classes,
    one_hot,
    products,
    standardised,
)

__all__ = [
    "SCORES",
    "Score",
    "Scored",
    "all_scores",
    "hscore",
    "knn",
    "logme",
    "lonely_classes",
    "probe",
    "standardised",
]

SIMILARITIES = 4_000_000  # in memory at a time: 16 MB, and twice as much to order them
NEIGHBOURS = 5
ROUNDS = 11  # of LogME's fixed point, as its authors have it
CONVERGED = 1e-3  # relative change of alpha / beta
TINY = 1e-5  # added to LogME's denominators, as its authors do
ROUNDING = 1e-12  # relative: of sums in float64
LEAST_SHRINKAGE = 1e-9  # keeps the covariance definite where Ledoit and Wolf's formula asks for none


@dataclass(frozen=True)
class Score:
    """A score as tables show it."""

    label: str
    meaning: str
    bounds: str
    source: str


SCORES = {
    "knn1": Score(
        "1-NN",
        "accuracy of the nearest other image, leave one out",
        "0 to 1",
        "Cover & Hart 1967, IEEE Transactions on Information Theory 13, 21-27",
    ),
    "knn5": Score("5-NN", "accuracy of the majority of five, leave one out", "0 to 1", "Cover & Hart 1967"),
    "probe": Score(
        "probe",
        "cross-validated accuracy of a linear classifier",
        "0 to 1",
        "Hoerl & Kennard 1970, Technometrics 12, 55-67",
    ),
    "logme": Score(
        "LogME",
        "log evidence of a linear model, per image",
        "none",
        "You et al. 2021, arXiv 2102.11005",
    ),
    "hscore": Score(
        "H-score",
        "variance between classes over shrunk covariance",
        "0 to classes - 1",
        "Ibrahim et al. 2021, arXiv 2110.06893",
    ),
}


@dataclass(frozen=True)
class Scored:
    """The scores of one backbone's features."""

    values: dict[str, float | None]  # by the names of SCORES; None: the notes say why
    notes: list[str]  # sentences
    seconds: dict[str, float]  # knn1 and knn5 come together: each has the seconds of both


def all_scores(features: Features, labels: Whole, groups: Groups = None, seed: int = 0) -> Scored:
    """Every score of features (N x D), with what was left out.

    A score that the data don't allow is None, and a note says why. UserError where a feature is not finite.
    """
    scaled = standardised(features)
    notes = _notes(scaled.shape[1], labels, groups)
    values: dict[str, float | None] = {}
    seconds: dict[str, float] = {}
    for names, score in (
        (("knn1", "knn5"), lambda: _knn(scaled, labels, groups) or (None, None)),
        (("probe",), lambda: (probe_of(scaled, labels, groups, seed),)),
        (("logme",), lambda: (_logme(scaled, labels),)),
        (("hscore",), lambda: (_hscore(scaled, labels),)),
    ):
        start = time.perf_counter()
        values |= dict(zip(names, score(), strict=True))
        seconds |= dict.fromkeys(names, time.perf_counter() - start)
    return Scored(values, notes, seconds)


def _notes(varying: int, labels: Whole, groups: Groups) -> list[str]:
    """What a reader of the scores must know about the data behind them, in sentences."""
    classes, notes = len(np.unique(labels)), []
    unit = "image" if groups is None else "group"
    if classes < 2:
        notes.append(f"No score says anything about {counted(classes, 'class')}: at least 2 are needed.")
    if not varying:
        notes.append("No score can be had: every feature is the same for all images.")
    lonely = lonely_classes(labels, groups)
    if lonely and classes - len(lonely) >= 2:
        notes.append(
            f"k-NN and probe: images of {counted(len(lonely), 'class')} with a single {unit} can't be told right, and "
            "are not counted."
        )
    elif lonely or classes < 2:
        notes.append(f"k-NN and probe need at least 2 classes of 2 {unit}s or more.")
    elif fold_count(labels, groups) < 3:
        notes.append("The probe's regularisation is a fixed one: there are too few images to choose it by inner folds.")
    return notes


def knn(features: Features, labels: Whole, groups: Groups = None) -> tuple[float, float] | None:
    """The top-1 accuracies, 0 to 1, of the nearest neighbour and of the majority of five, leave one out.

    Nearest by the cosine of standardised features; of classes with equally many of the five, the one that is nearest.
    A neighbour of the image's own group does not count: with groups, it is leave one group out. Images of
    `lonely_classes` can't be right, and are left out of the mean; they stay neighbours of the others, whom they may
    mislead, as they would in use. None where fewer than two classes remain or all features are the same.
    Cover & Hart 1967, "Nearest neighbor pattern classification", IEEE Transactions on Information Theory 13, 21-27.
    """
    return _knn(standardised(features), labels, groups)


def _knn(scaled: Single, labels: Whole, groups: Groups) -> tuple[float, float] | None:
    asked = countable(labels, groups)
    if asked is None or not scaled.shape[1]:
        return None
    lengths = np.sqrt(np.einsum("nd,nd->n", scaled, scaled))
    scaled = scaled / np.where(lengths > 0, lengths, np.float32(1))[:, None]
    codes = group_codes(labels, groups)
    right = np.zeros(2, np.int64)
    rows = max(1, SIMILARITIES // len(labels))
    for first in range(0, len(asked), rows):
        queries = asked[first : first + rows]
        similar = scaled[queries] @ scaled.T
        similar[codes[queries, None] == codes] = -np.inf
        right += [(voted == labels[queries]).sum() for voted in _votes(similar, labels)]
    return float(right[0] / len(asked)), float(right[1] / len(asked))


def _votes(similar: Single, labels: Whole) -> tuple[Whole, Whole]:
    """The classes by the nearest and by the majority of five, of similarities (Q x N) with -inf where none counts."""
    last = min(NEIGHBOURS, similar.shape[1])
    near = np.argpartition(-similar, last - 1, axis=1)[:, :last]
    values = np.take_along_axis(similar, near, axis=1)
    order = np.argsort(-values, axis=1, kind="stable")
    near, values = np.take_along_axis(near, order, axis=1), np.take_along_axis(values, order, axis=1)
    voters = np.where(values > -np.inf, labels[near], -1)
    equal = (voters[:, :, None] == voters[:, None, :]) & (voters >= 0)[:, :, None]
    # the first of the largest counts belongs to the nearest of the tied
    winner = equal.sum(axis=2).argmax(axis=1)
    return voters[:, 0], np.take_along_axis(voters, winner[:, None], axis=1)[:, 0]


def logme(features: Features, labels: Whole) -> float | None:
    """The logarithm of the evidence of a linear model of each class, over N, as a mean over classes; no bounds.

    Singular values of which the square is below the largest's by max(N, D) roundings of float64 are dropped: what a
    Gram matrix holds below that is noise. None under two classes, or where all features are the same.
    You, Liu, Wang & Long 2021, "LogME", International Conference on Machine Learning, arXiv 2102.11005.
    """
    return _logme(standardised(features), labels)


def _logme(scaled: Single, labels: Whole) -> float | None:
    classes = class_codes(labels)
    if not scaled.shape[1] or len(np.unique(classes)) < 2:
        return None
    sigma, squares = _spectrum(scaled, one_hot(classes))
    rests = np.bincount(classes) - squares.sum(axis=0)
    return float(np.mean([evidence(sigma, *of, len(scaled)).value for of in zip(squares.T, rests, strict=True)]))


def _spectrum(scaled: Single, targets: Single) -> tuple[Numbers, Numbers]:
    """Squared singular values (k,) of features (N x D), and the squares (k x C) of U' Y, by the smaller side."""
    by_image = scaled.shape[0] <= scaled.shape[1]
    gram, sums = (kernel(scaled), targets.astype(np.float64)) if by_image else products(scaled, targets)
    values, vectors = np.linalg.eigh(gram)
    kept = values > values[-1] * max(scaled.shape) * np.finfo(np.float64).eps
    squares = (vectors[:, kept].T @ sums) ** 2
    return values[kept], squares if by_image else squares / values[kept, None]


class Evidence(NamedTuple):
    """A linear model's log evidence over N, with the precisions of its weights and of its noise."""

    value: float
    alpha: float
    beta: float


def evidence(sigma: Numbers, squares: Numbers, rest: float, images: int) -> Evidence:
    """The log evidence, over N, of y under N(0, 1 / beta + F F' / alpha), at the alpha and beta that maximise it.

    sigma: F's squared singular values (k,), squares: (U' y)^2 (k,), rest: |y|^2 less their sum. That of the D - k
    other directions is D - k times ln alpha in the determinant, which cancels D / 2 ln alpha but for k of it. m2 and e
    are those of the last alpha and beta, with which the value is exactly the normal distribution's.
    You et al. 2021, section 4, with the fixed point of You et al. 2022, arXiv 2110.10545.
    """
    alpha = beta = ratio = 1.0
    for _ in range(ROUNDS):
        gamma = float((sigma / (sigma + ratio)).sum())
        weight, error = _fit(sigma, squares, rest, ratio)
        alpha, beta = gamma / (weight + TINY), (images - gamma) / (error + TINY)
        before, ratio = ratio, alpha / beta
        if abs(ratio - before) <= CONVERGED * before:
            break
    weight, error = _fit(sigma, squares, rest, ratio)
    determinant = float(np.log1p(sigma / ratio).sum())
    value = images * np.log(beta / (2 * np.pi)) - determinant - beta * error - alpha * weight
    return Evidence(float(value) / (2 * images), alpha, beta)


def _fit(sigma: Numbers, squares: Numbers, rest: float, ratio: float) -> tuple[float, float]:
    """|w|^2 and |y - F w|^2 of the weights w that are likeliest at a ratio of alpha to beta."""
    return float((sigma * squares / (ratio + sigma) ** 2).sum()), float(
        (squares / (1 + sigma / ratio) ** 2).sum() + rest
    )


def hscore(features: Features, labels: Whole) -> float | None:
    """tr(S^-1 (1 - shrinkage) B), from 0 to classes - 1: B is the covariance of class means, S the shrunk covariance.

    S = (1 - shrinkage) F' F / N + shrinkage I tr(F' F) / (N D), with the shrinkage of Ledoit & Wolf 2004, "A
    well-conditioned estimator for large-dimensional covariance matrices", Journal of Multivariate Analysis 88, 365-411.
    None under two classes, or where all features are the same. Of fewer images than dimensions it says little: on 600
    photographs of ten dishes with 1,280 features, an untrained MobileNetV2 has 8.2, those trained on ImageNet 7.4.
    Ibrahim, Ponomareva & Mazumder 2021, "Newer is not always better", arXiv 2110.06893.
    """
    return _hscore(standardised(features), labels)


def _hscore(scaled: Single, labels: Whole) -> float | None:
    from scipy.linalg import cho_factor, cho_solve

    classes = class_codes(labels)
    counts = np.bincount(classes)
    if not scaled.shape[1] or len(counts) < 2:
        return None
    images, targets = len(scaled), one_hot(classes)
    by_image = images <= scaled.shape[1]
    if by_image:  # F (a F' F + b)^-1 F' = (a F F' + b)^-1 F F'
        gram = kernel(scaled)
        left = targets / counts
        right = gram @ left
    else:
        gram, sums = products(scaled, targets)
        left = right = sums / counts
    shrinkage = max(LEAST_SHRINKAGE, _shrinkage(scaled, gram))
    system = gram * ((1 - shrinkage) / images)
    system.flat[:: len(system) + 1] += shrinkage * np.trace(gram) / (images * scaled.shape[1])
    solved = cho_solve(cho_factor(system, overwrite_a=True), right)
    between = float(((left * solved).sum(axis=0) * counts).sum()) / images
    return float(min(max((1 - shrinkage) * between, 0.0), len(counts) - 1))  # beyond these by rounding alone


def _shrinkage(scaled: Single, gram: Numbers) -> float:
    """What sklearn.covariance.ledoit_wolf_shrinkage returns, of centred features (N x D) with F' F or F F' at hand.

    That has two more products of all features, a second per backbone at 2,000 x 2,048: but the sum of all elements of
    sum(x x')^2 is that of |x|^4, and the norm of F' F is that of F F'.
    """
    images, dimensions = scaled.shape
    spread = np.einsum("nd,nd->n", scaled, scaled, dtype=np.float64)
    mean = float(spread.sum()) / (images * dimensions)
    norm = float((gram**2).sum()) / images**2
    distance = norm - dimensions * mean**2
    if distance <= ROUNDING * norm:  # the covariance is what it would be drawn to, as with one dimension
        return 0.0
    noise = max(float((spread**2).sum()) / images - norm, 0.0) / images
    return float(min(noise / distance, 1.0))
