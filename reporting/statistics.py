"""Intervals, ties, ranks and tests. Demšar 2006 is "Statistical Comparisons of Classifiers over Multiple Data Sets",
Journal of Machine Learning Research 7, 1-30."""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
from scipy import special, stats

LEVEL = 0.05
FEWEST_SEEDS = 3
FEWEST_DATASETS = 5
# of a two-sided test of signs, and of signed ranks, whose p over n differences is 2 / 2^n at least: 0.0625 with five
FEWEST_SIGNS = 6
FEWEST_PAIRS = 5  # of a paired t test: with 3 it has 2 degrees of freedom, and calls even large differences ties
MOST_EXACT = 1000  # images that differ, of an exact test of signs; with more, the normal distribution is as good
SAMPLES = 2000  # of a bootstrap
DIGITS = 7  # of a fraction that is shown as a percentage with two decimals: its rounding twice is not seen
EQUAL = 1e-12  # accuracies that differ by less do so by rounding
TESTS_OF_MEANS = (
    "t tests over seeds and test images together, or over folds, and exact tests over the images, paired by image, "
    "Holm-corrected"
)

Numbers = npt.NDArray[np.float64]
Whole = npt.NDArray[np.int64]
Scores = Mapping[int, float]  # seed -> value


def interval(values: Sequence[float], most: float = 1.0) -> tuple[float, float] | None:
    """Student's 95 % confidence interval of the mean, clipped to 0 and `most`; None under two values."""
    if len(values) < 2:
        return None
    mean, half = _mean(values), half_interval(values)
    return max(0.0, mean - half), min(most, mean + half)


def half_interval(values: Sequence[float]) -> float:
    """Half of Student's 95 % interval of the mean of two values or more."""
    return student(len(values)) * float(np.std(values, ddof=1)) / math.sqrt(len(values))


@lru_cache
def point(level: float) -> float:
    """So many deviations a normal distribution lies beyond, on both sides together, at a share of `level`."""
    return float(stats.norm.ppf(1 - level / 2))


def wilson(share: float, images: int, z: float | None = None) -> tuple[float, float] | None:
    """The interval of a share of so many images, those being a sample of all there could be; None without images.

    It is that of 95 %, or of `z` deviations.

    Wilson 1927, "Probable inference, the law of succession, and statistical inference", Journal of the American
    Statistical Association 22, 209-212. The mean over seeds is still one of as many images as the test part has.
    """
    if images < 1:
        return None
    z = point(LEVEL) if z is None else z
    middle, scale = share + z * z / (2 * images), 1 + z * z / images
    half = z * math.sqrt(share * (1 - share) / images + (z / (2 * images)) ** 2)
    return max(0.0, (middle - half) / scale), min(1.0, (middle + half) / scale)


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


def shared_seeds(a: Scores, b: Scores) -> list[int]:
    """The seeds that both have, where they are enough for a paired test; else none."""
    shared = sorted(a.keys() & b.keys())
    return shared if len(shared) >= FEWEST_PAIRS else []


@dataclass(frozen=True)
class Spread:
    """The variance of a difference of two means, with its degrees of freedom."""

    variance: float
    freedom: float


def over_seeds(a: Scores, b: Scores) -> Spread:
    """How far the difference of two means over seeds varies with the seeds: paired where five are shared, else Welch's.

    Welch 1947, "The generalization of 'Student's' problem", Biometrika 34, 28-35.
    """
    if shared := shared_seeds(a, b):
        differences = [a[seed] - b[seed] for seed in shared]
        return Spread(float(np.var(differences, ddof=1)) / len(shared), len(shared) - 1)
    parts = [Spread(float(np.var(list(of.values()), ddof=1)) / len(of), len(of) - 1) for of in (a, b)]
    return together(*parts)


def over_folds(a: Sequence[float], b: Sequence[float], tested: float) -> Spread:
    """How far the difference of two means over the same K folds varies with both training and test images.

    The trainings share most of their images, so the variance of the mean is not the folds' s^2 / K, but corrected:
    (1 / K + tested) s^2, with K - 1 degrees of freedom. tested: test images for each that a training was given, which
    is 1 / (K - 1) where that is given all others.
    Nadeau & Bengio 2003, "Inference for the generalization error", Machine Learning 52, 239-281.
    """
    differences = np.subtract(a, b)
    folds = len(differences)
    return Spread(float(np.var(differences, ddof=1)) * (1 / folds + tested), folds - 1)


def together(*parts: Spread) -> Spread:
    """Independent variances added up; degrees of freedom by Satterthwaite 1946, Biometrics Bulletin 2, 110-114."""
    variance = math.fsum(part.variance for part in parts)
    weighed = math.fsum(part.variance**2 / part.freedom for part in parts if part.variance > 0)
    return Spread(variance, variance**2 / weighed if weighed > 0 else math.inf)


def t_test(difference: float, spread: Spread) -> float:
    """Two-sided p-value of a difference by Student's t distribution."""
    if abs(difference) < EQUAL:
        return 1.0
    deviation = math.sqrt(spread.variance)
    if deviation < EQUAL:  # the t statistic is infinite
        return 0.0
    below = -abs(difference) / deviation
    return float(2 * (special.stdtr(spread.freedom, below) if spread.freedom < math.inf else special.ndtr(below)))


def over_images(differences: Numbers) -> Spread:
    """How far the mean of differences by image varies with the images."""
    images = len(differences)
    return Spread(float(np.var(differences, ddof=1)) / images if images > 1 else 0.0, max(1, images - 1))


def of_two_samples(first: float, second: float, images: int) -> Spread:
    """How far the difference of two shares varies with the images, as if each had a sample of so many of its own."""
    variance = (first * (1 - first) + second * (1 - second)) / max(1, images - 1)
    return Spread(variance, max(1, 2 * (images - 1)))


def sign_flips(differences: Whole) -> float:
    """Two-sided p-value of no difference on any image: the share of all ways to turn signs around with as large a sum.

    Of differences of -1, 0 and 1, those of one seed, this is McNemar's exact test; of the sums over several seeds,
    Fisher's and Pitman's permutation test of paired samples. It is exact up to MOST_EXACT images that differ: the
    product of the sums' characteristic functions, turned back. Pitman 1937, "Significance tests which may be applied to
    samples from any populations", Supplement to the Journal of the Royal Statistical Society 4, 119-130.
    """
    if not differences.sum():
        return 1.0
    units = differences[differences != 0] // np.gcd.reduce(differences)
    sizes, images = np.unique(np.abs(units), return_counts=True)
    found, differing = abs(int(units.sum())), len(units)
    if differing > MOST_EXACT:
        return float(2 * stats.norm.sf(found / math.sqrt(float((sizes.astype(np.float64) ** 2 * images).sum()))))
    most = int((sizes * images).sum())
    angles = 2 * np.pi * np.arange(2 * most + 1) / (2 * most + 1)
    shares = np.fft.fft(np.prod(np.cos(np.outer(sizes, angles)) ** images[:, None], axis=0)).real / len(angles)
    return float(np.clip(2 * shares[found : most + 1].sum(), 2.0 ** (1 - differing), 1.0))


def fisher(first: float, second: float, images: int) -> float:
    """Two-sided p-value of Fisher's exact test of two shares of so many images, each a sample of its own."""
    right = sorted(round(share * images) for share in (first, second))
    both = sum(right)
    hits = np.arange(max(0, both - images), min(images, both) + 1)
    # the hypergeometric distribution, which is symmetric for samples of one size
    logs = -sum(special.gammaln(count + 1) for count in (hits, images - hits, both - hits, images - both + hits))
    shares = np.exp(logs - logs.max())
    return min(1.0, float(2 * shares[hits >= right[1]].sum() / shares.sum()))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values corrected for how many they are: Holm 1979, Scandinavian Journal of Statistics 6."""
    corrected, worst = [0.0] * len(p_values), 0.0
    for place, index in enumerate(np.argsort(p_values, kind="stable")):
        worst = max(worst, min(1.0, (len(p_values) - place) * p_values[index]))
        corrected[index] = worst
    return corrected


@dataclass(frozen=True)
class Difference:
    """How two backbones compare on one dataset."""

    p: float
    differing: int | None = None  # test images that tell them apart; None: no test was paired by image
    unpaired: bool = False  # whether a test was made that should have been paired
    problems: tuple[tuple[str, str], ...] = ()  # runs whose predictions can't be used, with the reason


def marks(
    scores: Mapping[str, Scores], compare: Callable[[str, str], Difference], by_folds: Collection[str] = ()
) -> tuple[dict[str, str], dict[str, Difference]]:
    """Backbone -> "best" (the highest mean), "tied" (not significantly below it) or "", for one dataset; and the tests.

    `compare` gives how the best and another differ, as the second part has it by the other's name. A tie is claimed
    only where both have three seeds, or are `by_folds`; nothing is best where it is alone.
    """
    unmarked = dict.fromkeys(scores, "")
    if len(scores) < 2:
        return unmarked, {}
    means = {name: _mean(list(values.values())) for name, values in scores.items()}
    highest = max(means.values())
    best = [name for name, mean in means.items() if highest - mean < EQUAL]
    first = max(best, key=lambda name: len(scores[name]))
    enough = {name for name, values in scores.items() if len(values) >= FEWEST_SEEDS}.union(by_folds)
    others = [name for name in scores if name not in best and {name, first} <= enough]
    tests = {name: compare(first, name) for name in others}
    corrected = holm([test.p for test in tests.values()])
    tied = [name for name, p in zip(others, corrected, strict=True) if p >= LEVEL]
    return unmarked | dict.fromkeys(best, "best") | dict.fromkeys(tied, "tied"), tests


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


def datasets_for(difference: float, backbones: int) -> int:
    """How many datasets it takes until average ranks that differ by so much are distinguishable; see above."""
    return math.ceil((critical_difference(backbones, 1) / difference) ** 2)


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


def smallest_signed_rank(differing: int) -> float:
    """The smallest p-value that the signed-rank test can give where so many datasets differ, all the same way."""
    return min(1.0, 2.0 ** (1 - differing))


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
