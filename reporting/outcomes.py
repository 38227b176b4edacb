"""How two backbones differ on the test images that each of their runs got right."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from reporting import statistics
from reporting.comparable import Repeats
from reporting.entry import Entry
from reporting.fields import clean
from reporting.predictions import Outcome, outcome
from reporting.statistics import LEVEL, Difference, Spread


def compare(a: Repeats, b: Repeats) -> Difference:
    """How two backbones compare on one dataset whose seeds are at least two each: training and test images both vary.

    The p-value is the largest of three, so a difference is claimed where none of them could be chance: a t test over
    seeds; one over seeds and test images together, whose variance is the sum of both, as that of a bootstrap which
    draws seeds and images (Owen 2007, "The pigeonhole bootstrap", Annals of Applied Statistics 1, 386-411, which finds
    it never too small on average); and an exact one over the images, which small test parts need. The images are paired
    where the predictions of all runs are there and fit, else taken for two samples.
    """
    first, second = a.scores(), b.scores()
    if shared := statistics.shared_seeds(first, second):
        first, second = ({seed: of[seed] for seed in shared} for of in (first, second))
    ours, theirs = (math.fsum(of.values()) / len(of) for of in (first, second))
    difference, seeds = ours - theirs, statistics.over_seeds(first, second)
    by_seeds = statistics.t_test(difference, seeds)
    if by_seeds >= LEVEL:  # whatever the images say
        return Difference(by_seeds)
    runs = [[entry for entry in of.runs if entry.seed in kept] for of, kept in ((a, first), (b, second))]
    outcomes, problems = _fitting(runs)
    if not outcomes:
        images = a.runs[0].version.test_images
        spread, exact = statistics.of_two_samples(ours, theirs, images), statistics.fisher(ours, theirs, images)
        return Difference(_largest(by_seeds, difference, seeds, spread, exact), None, True, problems)
    hits = [np.sum([outcomes[entry.run].right for entry in several], axis=0, dtype=np.int64) for several in runs]
    whole = hits[0] * len(runs[1]) - hits[1] * len(runs[0])
    spread = statistics.over_images(whole / (len(runs[0]) * len(runs[1])))
    p = _largest(by_seeds, difference, seeds, spread, statistics.sign_flips(whole))
    return Difference(p, int(np.count_nonzero(whole)))


def _largest(by_seeds: float, difference: float, seeds: Spread, images: Spread, exact: float) -> float:
    return max(by_seeds, exact, statistics.t_test(difference, statistics.together(seeds, images)))


def _fitting(runs: Sequence[Sequence[Entry]]) -> tuple[dict[str, Outcome], tuple[tuple[str, str], ...]]:
    """Return the outcomes of all these runs, or none and why, where one is missing or they are of different images."""
    found: dict[str, Outcome] = {}
    problems = []
    for entry in (entry for several in runs for entry in several):
        try:
            read = outcome(entry)
            if read is None:
                return {}, ()
            found[entry.run] = read
        except (OSError, ValueError) as problem:
            problems.append((entry.run, clean(str(problem))))
    if problems:
        return {}, tuple(problems)
    reference = runs[0][0].run
    for run, of in found.items():
        if of.images != found[reference].images:
            problems.append((run, f"not paired: its test images are not named and labelled as those of {reference}"))
    return ({} if problems else found), tuple(problems)


def marks(cells: Mapping[str, Repeats]) -> tuple[dict[str, str], dict[str, Difference]]:
    """The marks of backbones on one dataset, by name, and the tests behind them: see statistics.marks."""
    scores = {name: cell.scores() for name, cell in cells.items()}
    return statistics.marks(scores, lambda first, other: compare(cells[first], cells[other]))
