"""Which test images each run got right, by its predictions, and how two backbones differ on them."""

from __future__ import annotations

import hashlib
import math
import zipfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from engine.files import DAMAGED_ARRAYS
from engine.records.metrics import Predictions
from engine.records.schema import PREDICTIONS
from reporting import statistics
from reporting.comparable import Repeats
from reporting.entry import Entry
from reporting.fields import clean
from reporting.statistics import LEVEL, Difference, Spread

MOST_KEPT = 20_000  # runs whose outcomes are kept for the next report of --serve
LARGEST_BYTES = 1 << 20  # of an array beyond what its images and classes take: names are as long as one likes
BYTES_OF_NAME = 4 * 4096  # a path, as NumPy keeps text


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a run's predictions say of the images, these in the order of their names."""

    images: str  # digest of their names and labels
    right: npt.NDArray[np.bool_]
    places: npt.NDArray[np.int64]  # of the confusion matrix, as Results has them
    counts: npt.NDArray[np.int64]


def outcome(entry: Entry) -> Outcome | None:
    """Return what a finished run's predictions.npz says; None where there is no such file.

    Raises ValueError where it can't be read, or is not what the record was made from: another confusion matrix.
    """
    path = entry.folder / PREDICTIONS
    if entry.results is None or not path.exists():
        return None
    if not path.is_file():  # a pipe would be waited for without end
        raise ValueError("not a regular file")
    status = path.stat()
    classes = len(entry.version.classes)
    read = _outcome(path, status.st_mtime_ns, status.st_size, entry.version.test_images, classes)
    if isinstance(read, str):
        raise ValueError(read)
    order = np.argsort(entry.results.places)
    same = np.array_equal(read.places, entry.results.places[order])
    if not same or not np.array_equal(read.counts, entry.results.counts[order]):
        raise ValueError("its predictions are not those that the record counts")
    return read


@lru_cache(MOST_KEPT)
def _outcome(path: Path, time: int, size: int, images: int, classes: int) -> Outcome | str:
    """Return what the file says, or why it can't be read; `time` and `size` tell it from an earlier one of its name."""
    try:
        with zipfile.ZipFile(path) as content:
            held = sum(part.file_size for part in content.infolist())
        if held > LARGEST_BYTES + images * (8 * classes + 8 + BYTES_OF_NAME):
            raise ValueError(f"{held:,} bytes for {images:,} images of {classes:,} classes")
        with np.load(path, allow_pickle=False) as content:
            names, labels, logits = (content[part] for part in ("names", "labels", "logits"))
        if names.shape != (images,) or logits.shape != (images, classes):
            raise ValueError(f"names {names.shape} and logits {logits.shape}: {images:,} images, {classes:,} classes")
        predictions = Predictions(logits, labels)
    except DAMAGED_ARRAYS as problem:
        return f"can't be read: {clean(str(problem))}"
    order, digest = _by_name(names, names.tobytes())
    places, counts = np.unique(labels.astype(np.int64) * classes + predictions.predicted, return_counts=True)
    of_images = hashlib.blake2b(digest + labels[order].astype("<i8").tobytes(), digest_size=16).hexdigest()
    return Outcome(of_images, predictions.correct[order], places, counts.astype(np.int64))


_orders: dict[bytes, tuple[npt.NDArray[np.int64], bytes]] = {}


def _by_name(names: npt.NDArray[np.str_], raw: bytes) -> tuple[npt.NDArray[np.int64], bytes]:
    """Return the images' order by name, and a digest of the sorted names; the same for all runs on a dataset."""
    key = hashlib.blake2b(raw, digest_size=16).digest()
    if key not in _orders:
        order = np.argsort(names, kind="stable")
        again = names[order]
        if (again[1:] == again[:-1]).any():  # images that can't be told apart by name: only this very order pairs them
            order, again = np.arange(len(names)), names
        _orders[key] = order, hashlib.blake2b(again.tobytes(), digest_size=16).digest()
    return _orders[key]


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
