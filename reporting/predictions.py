"""What a run's predictions say of the test images, and whether they are those that its record was made from."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.files import read_small
from engine.records.schema import PREDICTIONS
from engine.training.metrics import METRICS, Predictions
from reporting.entry import Entry
from reporting.fields import clean
from reporting.files import LARGEST_ARRAYS, MIB, arrays

# probabilities that a prediction can be asked to have at least
THRESHOLDS = (0.0, *(step / 100 for step in range(1, 100)), 0.995, 0.999, 0.9999)
MOST_KEPT = 20_000  # runs whose outcomes are kept for the next report of --serve
MOST_ORDERS = 100  # of images by name, of which every dataset has one
BYTES_OF_NAME = 4 * 4096  # a path, as NumPy keeps text
CLOSE = 1e-4  # metrics that differ by less, of 1 or of themselves, do so by rounding
# those that follow from the confusion matrix, which is compared; and for AUROC, which takes longer than all others,
# earlier versions ranked images by probabilities, many of them rounded to 1
NOT_RECOMPUTED = ("top1", "balanced_accuracy", "macro_f1", "auroc")


class MisfitError(ValueError):
    """The file can be read, but is not what the record was made from; the message says why."""


@dataclass(frozen=True, eq=False)
class Outcome:
    """What a run's predictions say of the images, these in the order of their names."""

    images: str  # digest of their names and labels
    right: npt.NDArray[np.bool_]
    places: npt.NDArray[np.int64]  # of the confusion matrix, as Results has them
    counts: npt.NDArray[np.int64]
    values: Mapping[str, float]  # by metric; empty where the record names the file's sha256
    sha256: str  # of the file
    kept: npt.NDArray[np.int64]  # (2, thresholds), images that are as sure as each of THRESHOLDS, and the right of them


def predictions_bytes(images: int, classes: int) -> int:
    """The most bytes that the file can have, or unpack to."""
    return min(LARGEST_ARRAYS, MIB + images * (8 * classes + 8 + BYTES_OF_NAME))


def require_kinds(names: npt.NDArray[Any], logits: npt.NDArray[Any], images: int, classes: int) -> None:
    """Raise ValueError unless these are a name and so many logits for each of the images."""
    if names.shape != (images,) or logits.shape != (images, classes):
        raise ValueError(
            f"names {names.shape} and logits {logits.shape}: {images:,} images, {classes:,} classes expected"
        )
    if names.dtype.kind != "U" or logits.dtype.kind != "f":
        raise ValueError(f"names {names.dtype} and logits {logits.dtype}, expected text and numbers")


def require_named(entry: Entry, name: str, content: bytes) -> None:
    """Raise MisfitError unless `content` is that of the file which the record means by `name`, as far as it says."""
    named, found = entry.files.get(name), hashlib.sha256(content).hexdigest()
    if named not in (None, found):
        raise MisfitError(f"not the file that the record names: its sha256 is {found:.8}, not {named:.8}")


def outcome(entry: Entry) -> Outcome | None:
    """Return what a finished run's predictions.npz says; None where there is no such file.

    Raises OSError and ValueError where it can't be read, of these MisfitError where it can, but is not what the record
    was made from.
    """
    path = entry.folder / PREDICTIONS
    results = entry.results
    if results is None:
        return None
    try:
        status = path.stat()
    except FileNotFoundError:
        return None
    images, classes = entry.version.test_images, len(entry.version.classes)
    named = entry.files.get(PREDICTIONS)
    temperature, _ = entry.calibration or (1.0, None)
    read = _outcome(path, (status.st_mtime_ns, status.st_size), images, classes, named is None, temperature)
    if isinstance(read, str):
        raise ValueError(read)
    if named not in (None, read.sha256):
        raise MisfitError(f"not the file that the record names: its sha256 is {read.sha256[:8]}, not {named:.8}")
    order = np.argsort(results.places)
    same = np.array_equal(read.places, results.places[order])
    if not same or not np.array_equal(read.counts, results.counts[order]):
        raise MisfitError("its predictions are not those that the record counts")
    for name, value in results.values.items():
        own = read.values.get(name, value)
        if not abs(own - value) <= CLOSE * max(1, abs(own)):  # which no NaN is
            raise MisfitError(f"by its predictions, {METRICS[name].label} is {own:.4f}, by the record {value:.4f}")
    return read


def one_after_another(outcomes: Sequence[Outcome]) -> Outcome:
    """What the predictions of all folds say, the images of the first fold before those of the second."""
    digests = [of.images for of in outcomes]
    return Outcome(
        hashlib.blake2b("".join(digests).encode(), digest_size=16).hexdigest(),
        np.concatenate([of.right for of in outcomes]),
        np.concatenate([of.places for of in outcomes]),
        np.concatenate([of.counts for of in outcomes]),
        {},
        "",
        np.sum([of.kept for of in outcomes], axis=0),
    )


@lru_cache(MOST_KEPT)
def _outcome(
    path: Path, mark: tuple[int, int], images: int, classes: int, metrics: bool, temperature: float
) -> Outcome | str:
    """Return what the file says, with `metrics` these too, or why it can't be read.

    `mark`, its time and size, tells it from an earlier one of its name.
    """
    most = predictions_bytes(images, classes)
    try:
        content = read_small(path, most)
        names, labels, logits = arrays(content, ("names", "labels", "logits"), most)
        require_kinds(names, logits, images, classes)
        predictions = Predictions(logits, labels)
    except (OSError, ValueError) as problem:
        return f"can't be read: {clean(str(problem))}"
    order, digest = _by_name(names, names.tobytes())
    places, counts = np.unique(labels.astype(np.int64) * classes + predictions.predicted, return_counts=True)
    of_images = hashlib.blake2b(digest + labels[order].astype("<i8").tobytes(), digest_size=16).hexdigest()
    return Outcome(
        of_images,
        predictions.correct[order],
        places,
        counts.astype(np.int64),
        _values(predictions) if metrics else {},
        hashlib.sha256(content).hexdigest(),
        _kept(predictions, temperature),
    )


def _kept(predictions: Predictions, temperature: float) -> npt.NDArray[np.int64]:
    probabilities = 1 / np.exp(predictions.below_highest / temperature).sum(axis=1)  # of the predicted class
    least = np.searchsorted(THRESHOLDS, probabilities, "right") - 1  # the highest that it reaches
    counts = [np.bincount(least[of], minlength=len(THRESHOLDS)) for of in (slice(None), predictions.correct)]
    return np.cumsum(np.stack(counts)[:, ::-1], axis=1)[:, ::-1].astype(np.int64)


def _values(predictions: Predictions) -> dict[str, float]:
    with np.errstate(all="ignore"):  # logits can be as large as they like
        values = {
            name: metric.compute(predictions)
            for name, metric in METRICS.items()
            if metric.reported and name not in NOT_RECOMPUTED
        }
    return {name: value for name, value in values.items() if value is not None}


_orders: dict[bytes, tuple[npt.NDArray[np.int64], bytes]] = {}


def _by_name(names: npt.NDArray[np.str_], raw: bytes) -> tuple[npt.NDArray[np.int64], bytes]:
    """Return the images' order by name, and a digest of the sorted names; the same for all runs on a dataset."""
    key = hashlib.blake2b(raw, digest_size=16).digest()
    if len(_orders) > MOST_ORDERS:
        _orders.clear()
    if key not in _orders:
        order = np.argsort(names, kind="stable")
        again = names[order]
        if (again[1:] == again[:-1]).any():  # images that can't be told apart by name: only this very order pairs them
            order, again = np.arange(len(names)), names
        _orders[key] = order, hashlib.blake2b(again.tobytes(), digest_size=16).digest()
    return _orders[key]
