"""How well an order of backbones, or a score, agreed with real fine-tuning: weighted tau, regret, their intervals."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import combinations, islice

import numpy as np
import numpy.typing as npt

from reporting import outcomes
from reporting.entry import Entry
from reporting.rank_results import SCORES, RankResult
from reporting.statistics import LEVEL, SAMPLES, Numbers
from reporting.truth import FEWEST_BACKBONES, Truth, find_truth

ORDER, PRIOR = "order", "prior"  # beside SCORES: what rank.py says, and the ImageNet top-1 of the weights
FIRSTS = (1, 3)  # of how many first ones the regret is said
MOST_TIES = 1000  # ways to choose the first ones among equals, of which the mean is taken
MOST_DRAWN = 1_000_000  # numbers of a bootstrap in memory at once: 8 MB, and some such arrays
ENDS = (100 * LEVEL / 2, 100 * (1 - LEVEL / 2))

Ranked = Mapping[str, float | None]  # backbone -> a value of which more is better; None: not known


@dataclass(frozen=True)
class Interval:
    """A number with the ends of its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Measure:
    """How a score agrees with fine-tuning."""

    backbones: int  # of which both are known
    tau: Interval | None  # weighted; None under FEWEST_BACKBONES, or where all are equal
    # points of top-1, by how many of the first ones are trained: of as many as there are, it would be 0 by itself
    regret: Mapping[int, Interval]


@dataclass(frozen=True)
class Assessment:
    """What real fine-tuning says of a result of rank.py."""

    result: RankResult
    truth: Truth | None
    reason: str  # why there is no truth
    measures: Mapping[str, Measure] = field(default_factory=dict)  # by ORDER, PRIOR and SCORES; empty without truth
    measured: Mapping[str, Interval] = field(default_factory=dict)  # mean test top-1 in percent, by backbone
    order_of_known: Measure | None = None  # of the order, over the backbones of which PRIOR is known; None: all
    paired: bool = False  # whether test images were drawn in pairs; else their noise is binomial


def as_scores(order: Sequence[str]) -> dict[str, float]:
    """An order, the best first, as values of which more is better: minus its ranks."""
    return {name: -float(rank) for rank, name in enumerate(order, 1)}


def weighted_tau(scores: Ranked, truth: Mapping[str, float]) -> float | None:
    """The weighted rank correlation of a score with the truth, -1 to 1, over the backbones of which both are known.

    Vigna 2015, "A weighted correlation index for rankings with ties": Kendall's tau whose pairs weigh the more the
    better they are placed (hyperbolic, additive), mean of the weights by either's ranks, as scipy.stats.weightedtau
    has it. None under FEWEST_BACKBONES, or where all of one are equal.
    """
    names = _known(scores, truth)
    if len(names) < FEWEST_BACKBONES:
        return None
    values, true = (np.array([of[name] for name in names], np.float64) for of in (scores, truth))
    tau = float(weighted_taus(values, true[None])[0])
    return None if np.isnan(tau) else tau


def weighted_taus(values: Numbers, truths: Numbers) -> Numbers:
    """The weighted tau of values (N) with each of many truths (S, N), at once, since scipy takes 0.6 ms for one.

    NaN where all of one are equal.
    """
    x, y = np.broadcast_to(values, truths.shape), truths
    above, right = np.triu_indices(truths.shape[1], 1)
    signs_x, signs_y = (np.sign(of[:, above] - of[:, right]) for of in (x, y))
    taus = []
    for keys in ((y, x), (x, y)):
        weights = np.empty(truths.shape)
        places = np.broadcast_to(1.0 / np.arange(truths.shape[1], 0, -1), truths.shape)
        np.put_along_axis(weights, np.lexsort(keys, axis=-1), places, axis=1)
        pairs = weights[:, above] + weights[:, right]
        both = (pairs * signs_x * signs_y).sum(axis=1)
        spread = (pairs * signs_x**2).sum(axis=1) * (pairs * signs_y**2).sum(axis=1)
        with np.errstate(invalid="ignore"):  # 0 / 0 is the NaN that is promised
            taus.append(both / np.sqrt(spread))
    return np.asarray((taus[0] + taus[1]) / 2)


def regret(scores: Ranked, truth: Mapping[str, float], k: int) -> float:
    """Points of top-1 that the best of the first `k` by a score is below the best of all in the truth (shares).

    Of equals at the end of the first `k`, the mean over which of them are taken. Where the score is not known, a
    backbone is none of the first. NaN where it is known of none.
    """
    names = list(truth)
    values = [scores.get(name) for name in names]
    return float(_regrets(values, np.array([[truth[name] for name in names]]), k)[0])


def _regrets(values: Sequence[float | None], truths: Numbers, k: int) -> Numbers:
    """As regret(), of each of many truths (S, N)."""
    known = sorted((value for value in values if value is not None), reverse=True)
    if not known:
        return np.full(len(truths), np.nan)
    last = known[min(k, len(known)) - 1]
    sure = [index for index, value in enumerate(values) if value is not None and value > last]
    equal = [index for index, value in enumerate(values) if value == last]
    ways = [[*sure, *rest] for rest in islice(combinations(equal, min(k, len(known)) - len(sure)), MOST_TIES)]
    best = np.mean([truths[:, way].max(axis=1) for way in ways], axis=0)
    return np.asarray(100 * (truths.max(axis=1) - best))


def sampled(truth: Truth) -> tuple[Numbers, bool]:
    """What other seeds and other test images would have given: mean top-1 (SAMPLES, backbones), in `truth`'s order.

    Seeds are drawn with replacement within each backbone, and test images with replacement, the same for all backbones
    (Owen 2007, see reporting/outcomes.py); where the predictions of a run are not there, or are of other images, the
    noise of the images is binomial and independent instead. The second part says whether images were paired. The same
    numbers for the same records. One seed says nothing of other seeds: then the images alone vary.
    """
    random = np.random.default_rng(0)
    cells = list(truth.cells.values())
    shares = [_shares_of_seeds(len(cell.runs), random) for cell in cells]
    found, _ = outcomes.fitting([cell.runs for cell in cells])
    if not found or not truth.images:
        scores = [np.array([cell.scores()[run.seed] for run in cell.runs]) for cell in cells]
        means = np.stack([share @ of for share, of in zip(shares, scores, strict=True)], axis=1)
        noisy = random.binomial(max(1, truth.images), np.clip(means, 0, 1)) / max(1, truth.images)
        return np.asarray(noisy, np.float64), False
    hits = np.array([found[run.run].right for cell in cells for run in cell.runs])
    drawn = _over_images(hits, random)
    ends = np.cumsum([len(cell.runs) for cell in cells])
    parts = np.split(drawn, ends[:-1], axis=1)
    return np.stack([(share * part).sum(axis=1) for share, part in zip(shares, parts, strict=True)], axis=1), True


def _shares_of_seeds(seeds: int, random: np.random.Generator) -> Numbers:
    """How much each seed counts in each sample, (SAMPLES, seeds)."""
    return np.asarray(random.multinomial(seeds, [1 / seeds] * seeds, SAMPLES) / seeds)


def _over_images(hits: npt.NDArray[np.bool_], random: np.random.Generator) -> Numbers:
    """The top-1 of each run (SAMPLES, runs) on images drawn with replacement; `hits` (runs, images).

    Images that the same runs got right are alike: of each such kind it is counted how often it is drawn.
    """
    kinds, of_image = np.unique(np.packbits(hits, axis=0), axis=1, return_inverse=True)
    right = np.unpackbits(kinds, axis=0, count=len(hits)).T.astype(np.float64)
    of_image, several, total = of_image.ravel(), kinds.shape[1], hits.shape[1]
    step = max(1, MOST_DRAWN // total)
    drawn = []
    for start in range(0, SAMPLES, step):
        samples = min(step, SAMPLES - start)
        places = of_image[random.integers(0, total, (samples, total))] + several * np.arange(samples)[:, None]
        times = np.bincount(places.ravel(), minlength=samples * several).reshape(samples, several)
        drawn.append(times @ right / total)
    return np.concatenate(drawn)


def assess(result: RankResult, entries: Iterable[Entry]) -> Assessment:
    """Hold a result against the records of its dataset; `entries` as find_truth() takes them."""
    weights = {backbone.name: backbone.weights_sha256 for backbone in result.backbones}
    truth, reason = find_truth(entries, result.dataset.key, result.dataset.test_part, weights)
    if truth is None:
        return Assessment(result, None, reason)
    means, (samples, paired) = np.array(list(truth.means.values())), sampled(truth)
    measured = {
        name: _interval(100 * mean, 100 * column)
        for name, mean, column in zip(truth.cells, means.tolist(), samples.T, strict=True)
    }
    scores = {kind: [of.get(name) for name in truth.cells] for kind, of in scores_of(result).items()}
    measures = {kind: _measure(values, means, samples) for kind, values in scores.items()}
    order_of_known = None
    if None in scores[PRIOR]:
        known = [None if prior is None else rank for rank, prior in zip(scores[ORDER], scores[PRIOR], strict=True)]
        order_of_known = _measure(known, means, samples)
    return Assessment(result, truth, "", measures, measured, order_of_known, paired)


def scores_of(result: RankResult) -> dict[str, dict[str, float | None]]:
    """All that backbones can be ordered by, by ORDER, PRIOR and SCORES: values by backbone of which more is better."""
    of_order: dict[str, float | None] = dict(as_scores(result.order))
    kinds = {ORDER: of_order, PRIOR: {backbone.name: backbone.top1 for backbone in result.backbones}}
    return kinds | {kind: {each.name: each.scores.get(kind) for each in result.backbones} for kind in SCORES}


def _measure(values: Sequence[float | None], means: Numbers, samples: Numbers) -> Measure:
    """How values agree with mean accuracies (N), with intervals by samples (SAMPLES, N) of these."""
    known = [index for index, value in enumerate(values) if value is not None]
    tau = None
    if len(known) >= FEWEST_BACKBONES:
        of_known = np.array([values[index] for index in known], np.float64)
        taus = weighted_taus(of_known, samples[:, known])
        value = float(weighted_taus(of_known, means[None, known])[0])
        tau = None if np.isnan(value) else _interval(value, taus[~np.isnan(taus)])
    regrets = {
        k: _interval(float(_regrets(values, means[None], k)[0]), _regrets(values, samples, k))
        for k in FIRSTS
        if known and k < len(values)
    }
    return Measure(len(known), tau, regrets)


def _interval(value: float, samples: Numbers) -> Interval:
    """A percentile interval, Efron & Tibshirani 1993, chapter 13."""
    low, high = np.percentile(samples, ENDS).tolist() if len(samples) else (value, value)
    return Interval(value, low, high)


def _known(scores: Ranked, truth: Mapping[str, float]) -> list[str]:
    return [name for name in truth if scores.get(name) is not None]
