"""What is said of how far an order of backbones can be trusted: by the records that are here, else by the literature.

The figures of the literature are those of tables that others published, see LITERATURE.
"""

from __future__ import annotations

from collections.abc import Mapping

from engine.errors import counted
from reporting.agreement import FIRSTS, ORDER, PRIOR, Assessment, Interval, Measure
from reporting.statistics import SAMPLES
from reporting.truth import FEWEST_BACKBONES
from reporting.words import OWN, capital, listed

LABELS = {
    ORDER: "rank.py's order",
    PRIOR: "ImageNet top-1",
    "knn1": "1-NN",
    "knn5": "5-NN",
    "probe": "probe",
    "logme": "LogME",
    "hscore": "H-score",
}
PRIOR_WORDS = "ImageNet accuracy alone"
MEDICAL = "medical"  # a domain
# of each backbone: a bootstrap over n seeds has (n - 1) / n of the variance, which of 10 is 5 % off a deviation
SEEDS_ENOUGH = 10
# computed from published tables of ten CNNs on eight natural-image sets (Transfer-Learning-Library c4aa59e, SFDA
# eb1eee0): weighted tau with fine-tuned accuracy, and points lost by the best of the first three
LITERATURE = (
    "What is honest to expect, from ten CNNs on eight sets of natural images that others published: weighted tau 0.72 "
    "for ImageNet accuracy alone, 0.67 for LogME, 0.65 for the H-score, and 0.54 for another laboratory's fine-tuning "
    "of the same networks, so the truth itself is not sharper than that.",
    "There, the best of the first three by ImageNet accuracy, or by LogME, lost nothing to the best of all: train the "
    "first three, not the first alone.",
)
FAILS = (
    "{} such scores are known to fail: of 13 scores on 11 datasets all suffered there (arXiv 2405.20420), and of seven "
    "on three medical tasks none was reliable (arXiv 2308.07444). Only fine-tuning says which is best."
)


def sentences(assessment: Assessment) -> list[str]:
    """How far to trust a result, in plain words: what its own dataset's records say, or that there are none."""
    medical = medical_words(assessment.result.dataset.domain)
    if assessment.truth is None:
        return [f"Nothing to hold this order against: {assessment.reason}.", *LITERATURE, *medical]
    return [_agreement(assessment), *_by_score(assessment), *_noise(assessment), *medical]


def medical_words(domain: str) -> list[str]:
    """That scores fail on medical images, where these are such; where nobody says what they are, that too."""
    if domain == MEDICAL:
        return [FAILS.format("On medical images")]
    return [FAILS.format("Should these images be medical:")] if domain == OWN else []


def interval_words(interval: Interval, digits: int) -> str:
    """A number with its interval: 0.71 (95 % 0.40 to 0.90)."""
    value, low, high = (number(each, digits) for each in (interval.value, interval.low, interval.high))
    return f"{value} (95 % {low} to {high})"


def number(value: float, digits: int) -> str:
    """A number with so many decimals, and no minus before a 0."""
    return f"{value if abs(value) >= 0.5 * 10**-digits else 0:.{digits}f}"


def _agreement(assessment: Assessment) -> str:
    truth, measures = assessment.truth, assessment.measures
    assert truth is not None
    fewest, most = truth.seeds
    seeds = f"{counted(most, 'seed')} each" if fewest == most else f"{fewest} to {most} seeds"
    ordered, trained = len(assessment.result.order), len(truth.cells)
    backbones = counted(trained, "backbone") if trained == ordered else f"only {trained} of the {ordered} backbones"
    size = "x".join(map(str, truth.size))
    other = f", at {size} pixels" if truth.size != tuple(assessment.result.dataset.size) else ""
    search = truth.setting.search
    short = f", in short runs of a search ({search}) and no full trainings" if search else ""
    where = f"these images have been fine-tuned already ({backbones}, {seeds}{other}{short})"
    return (
        f"Where {where}: this order agrees with weighted tau {_tau(measures[ORDER])}, {_prior(assessment)}. "
        f"{capital(_loss(measures[ORDER].regret, trained == ordered))}"
        f"{_prior_loss(measures[PRIOR])}."
    )


def _tau(measure: Measure) -> str:
    return interval_words(measure.tau, 2) if measure.tau else "not known, all being equal,"


def _prior(assessment: Assessment) -> str:
    """How the static prior agrees, of the backbones of which it is known; and the order, of the same."""
    prior, of_order = assessment.measures[PRIOR], assessment.order_of_known
    if prior.backbones < FEWEST_BACKBONES:
        return f"{PRIOR_WORDS} can't be held beside it, being known of {prior.backbones or 'none'} of them"
    if not of_order:
        return f"{PRIOR_WORDS} {_tau(prior)}"
    same = f"{of_order.tau.value:.2f}" if of_order.tau else "no tau"
    known = f"of the {prior.backbones} of which it is known"
    return f"{PRIOR_WORDS}, {known}, {_tau(prior)}, where this order has {same}"


def _loss(regret: Mapping[int, Interval], all_trained: bool) -> str:
    """What the first ones lose; of backbones that were not trained, nobody knows."""
    whose, best = ("its", "the best") if all_trained else ("their", "the best of these")
    first, *more = (interval_words(regret[k], 1) for k in FIRSTS if k in regret)
    value, _, ends = first.partition(" ")
    text = f"{whose} first loses {value} points to {best} {ends}"
    return text + "".join(f", the best of {whose} first three {three}" for three in more)


def _prior_loss(prior: Measure) -> str:
    if not prior.regret:
        return ""
    points = [number(prior.regret[k].value, 1) for k in FIRSTS if k in prior.regret]
    return f"; by {PRIOR_WORDS} it is {' and '.join(points)}"


def _by_score(assessment: Assessment) -> list[str]:
    taus = [
        f"{LABELS[kind]} {measure.tau.value:.2f}"
        for kind, measure in assessment.measures.items()
        if kind not in (ORDER, PRIOR) and measure.tau
    ]
    return [f"Each score by itself, weighted tau: {listed(taus, len(taus))}."] if taus else []


def _noise(assessment: Assessment) -> list[str]:
    """What the intervals are of."""
    truth = assessment.truth
    assert truth is not None
    images = counted(truth.images, "test image")
    noise = (
        f"the {images}, the same for all backbones"
        if assessment.paired
        else f"binomial noise of {images}, the predictions of some runs not being there or not fitting"
    )
    alone = truth.seeds[1] == 1
    over = f"{noise}, not over seeds, of which there is one" if alone else f"seeds and {noise}"
    few = "" if alone or truth.seeds[0] >= SEEDS_ENOUGH else " Of so few seeds, they are rather too narrow."
    return [f"Intervals: {SAMPLES:,} bootstrap samples over {over}.{few}"]
