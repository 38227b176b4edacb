"""How two backbones differ on the test images that each of their runs got right."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import numpy as np

from reporting import statistics
from reporting.comparable import Repeats
from reporting.entry import Entry
from reporting.fields import clean
from reporting.predictions import Outcome, one_after_another, outcome
from reporting.statistics import LEVEL, Difference


def compare(a: Repeats, b: Repeats) -> Difference:
    """How two backbones compare on one dataset whose seeds, or folds, are at least two: training and test images vary.

    The p-value is the largest of three, so a difference is claimed where none of them could be chance: a t test over
    seeds; one over seeds and test images together, whose variance is the sum of both, as that of a bootstrap which
    draws seeds and images (Owen 2007, "The pigeonhole bootstrap", Annals of Applied Statistics 1, 386-411, which finds
    it never too small on average); and an exact one over the images, which small test parts need. The images are paired
    where the predictions of all runs are there and fit, else taken for two samples.

    Of folds with fewer than FEWEST_SEEDS seeds, the first is the corrected t test over folds; those are of other test
    images, too, so there is no second.
    """
    first, second = a.scores(), b.scores()
    if shared := statistics.shared_seeds(first, second):
        first, second = ({seed: of[seed] for seed in shared} for of in (first, second))
    ours, theirs = (math.fsum(of.values()) / len(of) for of in (first, second))
    folds = min(len(first), len(second)) < statistics.FEWEST_SEEDS and bool(a.runs[0].folds)
    if folds:
        tested = max(_tested(a), _tested(b))
        seeds = statistics.over_folds(a.by_fold(), b.by_fold(), tested)
    else:
        seeds = statistics.over_seeds(first, second)
    difference = ours - theirs
    by_seeds = statistics.t_test(difference, seeds)
    if by_seeds >= LEVEL:  # whatever the images say
        return Difference(by_seeds)
    runs = [[entry for entry in of.runs if entry.seed in kept] for of, kept in ((a, first), (b, second))]
    outcomes, problems = fitting(runs)
    if not outcomes:
        images = a.runs[0].version.test_images
        spread, exact = statistics.of_two_samples(ours, theirs, images), statistics.fisher(ours, theirs, images)
        both = seeds if folds else statistics.together(seeds, spread)
        return Difference(max(by_seeds, exact, statistics.t_test(difference, both)), None, True, problems)
    hits = [np.sum([outcomes[entry.run].right for entry in several], axis=0, dtype=np.int64) for several in runs]
    whole = hits[0] * len(runs[1]) - hits[1] * len(runs[0])
    spread = statistics.over_images(whole / (len(runs[0]) * len(runs[1])))
    both = seeds if folds else statistics.together(seeds, spread)
    p = max(by_seeds, statistics.sign_flips(whole), statistics.t_test(difference, both))
    return Difference(p, int(np.count_nonzero(whole)))


def _tested(cell: Repeats) -> float:
    """Test images for each that a training on a fold was given."""
    trainings = cell.trainings
    return sum(of.version.test_images for of in trainings) / max(1, sum(of.used_images for of in trainings))


def fitting(runs: Sequence[Sequence[Entry]]) -> tuple[dict[str, Outcome], tuple[tuple[str, str], ...]]:
    """Return the outcomes of all these runs, or none and why, where one is missing or they are of different images."""
    found: dict[str, Outcome] = {}
    problems = []
    for entry in (entry for several in runs for entry in several):
        parts = []
        for training in entry.trainings:
            try:
                read = outcome(training)
                if read is None:
                    return {}, ()
                parts.append(read)
            except (OSError, ValueError) as problem:
                problems.append((training.run, clean(str(problem))))
        if len(parts) == len(entry.trainings):
            found[entry.run] = one_after_another(parts) if entry.folds else parts[0]
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
    by_folds = [name for name, cell in cells.items() if cell.runs[0].folds and cell.enough]
    return statistics.marks(scores, lambda first, other: compare(cells[first], cells[other]), by_folds)
