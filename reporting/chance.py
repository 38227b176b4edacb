"""What guessing gives on a test part, and whether a backbone does better."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reporting.comparable import Repeats
from reporting.fields import shortened
from reporting.statistics import EQUAL, FEWEST_SEEDS, LEVEL, interval, point, wilson

LONGEST_NAME = 60  # letters of a class's, in a sentence
ABOUT_EQUAL = 1.1  # the largest class of a test part whose classes are of one size, in shares of the mean


@dataclass(frozen=True)
class Chance:
    """The best that can be had without a look at the images: to answer always with the largest class."""

    share: float  # of the test images that this gets right
    largest: str  # the name of that class
    classes: int  # that have test images
    equal: bool  # whether they are of about one size, so that it does not matter which is answered

    @property
    def words(self) -> str:
        """The beginning of a sentence that ends with `share`."""
        if self.equal:
            some = "up to " if self.share * self.classes > 1 + EQUAL else ""
            return f"guessing among {self.classes} classes gives {some}".rstrip()
        return f"always answering \N{LEFT DOUBLE QUOTATION MARK}{self.largest}\N{RIGHT DOUBLE QUOTATION MARK} gives"


def chance_of(cell: Repeats) -> Chance:
    """What guessing gives on the test part of these runs."""
    of_class = _test_images(cell)
    present = int(np.count_nonzero(of_class))
    share = float(of_class.max() / of_class.sum())
    largest = shortened(cell.runs[0].version.classes[int(of_class.argmax())], LONGEST_NAME)
    return Chance(share, largest, present, share * present <= ABOUT_EQUAL)


def beats_chance(cell: Repeats, chance: Chance, backbones: int = 1) -> bool:
    """Whether these runs are better than guessing by more than chance gives: the test images', and that of the seeds.

    Where that is asked of several `backbones`, each has to be the surer (Bonferroni): of eleven that guess, one would
    else seem to do better every fourth time.

    Of classes of different sizes, it is enough that the mean of their recalls is: to find a rare class may cost more
    of the large one than it brings.
    """
    z = point(LEVEL / backbones)
    return _above(cell, "top1", _lowest(cell, z), chance.share) or (
        not chance.equal and _above(cell, "balanced_accuracy", _lowest_balanced(cell, z), 1 / chance.classes)
    )


def balanced_accuracy(cell: Repeats) -> float | None:
    """The mean recall of the classes, over seeds; None where a record does not say it."""
    values = list(cell.scores("balanced_accuracy").values())
    return float(np.mean(values)) if len(values) == len(cell.runs) else None


def _above(cell: Repeats, metric: str, lowest: float, chance: float) -> bool:
    values = list(cell.scores(metric).values())
    ends = interval(values) if len(values) >= FEWEST_SEEDS else None  # of two seeds it is wider than all that there is
    return lowest > chance and (ends is None or ends[0] > chance)


def _lowest(cell: Repeats, z: float) -> float:
    ends = wilson(cell.mean(), cell.runs[0].version.test_images, z)
    return ends[0] if ends else 0.0


def _lowest_balanced(cell: Repeats, z: float) -> float:
    """The lower end of the interval of the mean recall, z deviations wide, the test images of each class a sample.

    Each recall is taken with z^2 more images, since a class may have very few: Agresti & Coull 1998, "Approximate is
    better than 'exact' for interval estimation of binomial proportions", The American Statistician 52, 119-126. Theirs
    are half of them right; here as many are as guessing gives, or what never finds a rare class would seem to.
    """
    of_class = _test_images(cell)
    present = of_class > 0
    images = of_class[present].astype(np.float64)
    recalls = np.mean([entry.results.recall[present] for entry in cell.runs if entry.results], axis=0)
    shares = (recalls * images + z * z / len(images)) / (images + z * z)
    variance = float((shares * (1 - shares) / (images + z * z)).sum()) / len(images) ** 2
    return float(shares.mean()) - z * math.sqrt(variance)


def _test_images(cell: Repeats) -> npt.NDArray[np.int64]:
    """The test images of each class."""
    results = cell.runs[0].results
    assert results is not None
    classes = len(cell.runs[0].version.classes)
    return np.bincount(results.places // classes, results.counts, classes).astype(np.int64)
