"""Intervals, ties, ranks and tests. Demšar 2006 is "Statistical Comparisons of Classifiers over Multiple Data Sets",
Journal of Machine Learning Research 7, 1-30."""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy import stats

LEVEL = 0.05
FEWEST_SEEDS = 3
FEWEST_DATASETS = 5
FEWEST_PAIRS = 5  # of a paired t test: with 3 it has 2 degrees of freedom, and calls even large differences ties
SAMPLES = 2000  # of a bootstrap
DIGITS = 7  # of a fraction that is shown as a percentage with two decimals: its rounding twice is not seen
EQUAL = 1e-12  # accuracies that differ by less do so by rounding
TESTS_OF_MEANS = f"Welch's t tests over seeds, paired ones where {FEWEST_PAIRS} seeds are shared, Holm-corrected"

Numbers = npt.NDArray[np.float64]
Scores = Mapping[int, float]  # seed -> value


def interval(values: Sequence[float], most: float = 1.0) -> tuple[float, float] | None:
    """Student's 95 % confidence interval of the mean, clipped to 0 and `most`; None under two values."""
    if len(values) < 2:
        return None
    mean, half = _mean(values), student(len(values)) * float(np.std(values, ddof=1)) / math.sqrt(len(values))
    return max(0.0, mean - half), min(most, mean + half)


@lru_cache
def student(values: int) -> float:
    """The 97.5 % point of Student's t distribution for the mean of so many values."""
    return float(stats.t.ppf(1 - LEVEL / 2, values - 1))


def half_of_mean(halves: Sequence[float]) -> float:
    """Half the interval of the mean of independent means, of half the interval of each.

    Standard errors add up in quadrature: JCGM 100:2008, "Guide to the expression of uncertainty in measurement",
    section 5.1.2. Here each has Student's factor for its own seeds; with the effective degrees of freedom of
    section G.4, the interval of means over equally many seeds would be no wider.
    """
    return math.hypot(*halves) / len(halves)


def same_mean(a: Scores, b: Scores) -> float:
    """Two-sided p-value of equal means: a paired t test over shared seeds where there are five, else Welch's."""
    shared = sorted(a.keys() & b.keys())
    paired = len(shared) >= FEWEST_PAIRS
    if paired:
        first, second = [a[seed] for seed in shared], [b[seed] for seed in shared]
        constant = np.ptp(np.subtract(first, second)) < EQUAL
    else:
        first, second = list(a.values()), list(b.values())
        constant = np.ptp(first) < EQUAL and np.ptp(second) < EQUAL
    if constant:  # the t statistic is 0 / 0, or infinite
        return 1.0 if abs(_mean(first) - _mean(second)) < EQUAL else 0.0
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # nearly equal differences, whose tiny p is right
        test = stats.ttest_rel(first, second) if paired else stats.ttest_ind(first, second, equal_var=False)
    return float(test.pvalue)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values corrected for how many they are: Holm 1979, Scandinavian Journal of Statistics 6."""
    corrected, worst = [0.0] * len(p_values), 0.0
    for place, index in enumerate(np.argsort(p_values, kind="stable")):
        worst = max(worst, min(1.0, (len(p_values) - place) * p_values[index]))
        corrected[index] = worst
    return corrected


def marks(scores: Mapping[str, Scores]) -> dict[str, str]:
    """Backbone -> "best", "tied" (not significantly below the best) or "", for one dataset.

    A tie is claimed only where both have three seeds; nothing is best where it is alone.
    """
    unmarked = dict.fromkeys(scores, "")
    if len(scores) < 2:
        return unmarked
    means = {name: _mean(list(values.values())) for name, values in scores.items()}
    highest = max(means.values())
    best = [name for name, mean in means.items() if highest - mean < EQUAL]
    first = max(best, key=lambda name: len(scores[name]))
    others = [
        name for name in scores if name not in best and min(len(scores[name]), len(scores[first])) >= FEWEST_SEEDS
    ]
    corrected = holm([same_mean(scores[first], scores[name]) for name in others])
    tied = [name for name, p in zip(others, corrected, strict=True) if p >= LEVEL]
    return unmarked | dict.fromkeys(best, "best") | dict.fromkeys(tied, "tied")


def ranks(scores: Numbers) -> Numbers:
    """Ranks (N, k) of scores (N datasets, k backbones), 1 for the highest; equal ones share the mean of theirs."""
    return np.asarray(stats.rankdata(-np.round(scores, 12), axis=1))


@dataclass(frozen=True)
class Friedman:
    """The tests of equal average ranks."""

    chi2: float
    p: float
    f: float | None  # None where it is infinite: the ranks are the same on every dataset
    p_f: float


def friedman(scores: Numbers) -> Friedman:
    """Friedman's test of scores (N datasets, k > 2 backbones), and Iman and Davenport's, which is less conservative.

    chi2 = 12 N / (k (k + 1)) * (sum of the squared average ranks - k (k + 1)^2 / 4), with k - 1 degrees of freedom;
    F = (N - 1) chi2 / (N (k - 1) - chi2), with k - 1 and (k - 1) (N - 1). Demšar 2006, section 3.2.2: like his, it is
    not corrected for ties, which makes it cautious.
    """
    datasets, backbones = scores.shape
    average = ranks(scores).mean(axis=0)
    spread = float((average**2).sum()) - backbones * (backbones + 1) ** 2 / 4
    chi2 = max(0.0, 12 * datasets / (backbones * (backbones + 1)) * spread)
    p = float(stats.chi2.sf(chi2, backbones - 1))
    rest = datasets * (backbones - 1) - chi2
    if rest < 1e-9:
        return Friedman(chi2, p, None, 0.0)
    f = (datasets - 1) * chi2 / rest
    return Friedman(chi2, p, f, float(stats.f.sf(f, backbones - 1, (backbones - 1) * (datasets - 1))))


def critical_difference(backbones: int, datasets: int) -> float:
    """Average ranks that differ by less are not distinguishable: Nemenyi's test. Demšar 2006, section 3.2.2.

    CD = q sqrt(k (k + 1) / (6 N)), with q the studentised range's point for k groups divided by sqrt(2).
    """
    return _studentised_range(backbones) * math.sqrt(backbones * (backbones + 1) / (6 * datasets))


@lru_cache
def _studentised_range(groups: int) -> float:
    return float(stats.studentized_range.ppf(1 - LEVEL, groups, np.inf)) / math.sqrt(2)


def cliques(average: Mapping[str, float], difference: float) -> list[list[str]]:
    """The largest sets of several backbones whose average ranks differ by less than `difference`, the best first."""
    names = sorted(average, key=lambda name: (average[name], name))
    largest: list[list[str]] = []
    for index, first in enumerate(names):
        clique = [name for name in names[index:] if average[name] - average[first] < difference]
        if len(clique) > 1 and not (largest and clique[-1] in largest[-1]):
            largest.append(clique)
    return largest


def signed_rank(a: Numbers, b: Numbers) -> float:
    """Two-sided p-value of Wilcoxon's signed-rank test of two backbones over datasets. Demšar 2006, section 3.1.3."""
    differences = np.round(a - b, 12)
    return float(stats.wilcoxon(differences).pvalue) if differences.any() else 1.0


@dataclass(frozen=True)
class Bootstrap:
    """A difference of two backbones, a - b."""

    low: float  # 95 % interval
    high: float
    better: float  # share of the samples in which a is ahead; draws count half


def paired_bootstrap(differences: Sequence[Sequence[float]]) -> Bootstrap:
    """Differences by dataset and shared seed -> their mean over datasets, by a percentile bootstrap of 2,000 samples.

    Two levels, since datasets differ more than seeds do: datasets are drawn with replacement, and then, within each
    that was drawn, seeds. Efron & Tibshirani 1993, "An Introduction to the Bootstrap", chapters 8 and 13.
    """
    counts = np.array([len(values) for values in differences])
    padded = np.zeros((len(counts), counts.max()))
    for index, values in enumerate(differences):
        padded[index, : len(values)] = values
    which, where = _draws(len(counts), int(counts.max()))
    drawn = counts[which]
    inside = np.arange(padded.shape[1]) < drawn[..., None]
    picked = padded[which[..., None], (where * drawn[..., None]).astype(np.int64)]
    samples = ((picked * inside).sum(axis=2) / drawn).mean(axis=1)
    low, high = np.percentile(samples, [100 * LEVEL / 2, 100 * (1 - LEVEL / 2)])
    ahead = float((samples > EQUAL).mean() + (np.abs(samples) <= EQUAL).mean() / 2)
    return Bootstrap(float(low), float(high), ahead)


@lru_cache(maxsize=8)
def _draws(datasets: int, seeds: int) -> tuple[npt.NDArray[np.int64], Numbers]:
    """Datasets (SAMPLES, N), and numbers from 0 to 1 (SAMPLES, N, S) that choose seeds: the same for every pair."""
    random = np.random.default_rng(0)
    return random.integers(0, datasets, (SAMPLES, datasets)), random.random((SAMPLES, datasets, seeds))


def pareto(costs: Sequence[float | None], values: Sequence[float | None]) -> list[bool]:
    """Which of some backbones no other one beats: at least as high in value and as low in cost, and better in one.

    One that lacks either neither beats nor is on the front.
    """
    points = [
        None if cost is None or value is None else (cost, -value) for cost, value in zip(costs, values, strict=True)
    ]
    known = {point for point in points if point}
    return [
        point is not None and not any(o[0] <= point[0] and o[1] <= point[1] for o in known - {point})
        for point in points
    ]


def _mean(values: Sequence[float] | Numbers) -> float:
    return float(np.mean(values))
