"""The images that an export is checked on: some of the run's test part, if that is still at hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

import folder
from datasets import DATASETS
from engine.data.declaration import Dataset
from engine.data.images import load
from engine.data.load import read
from engine.data.part import Part, Pixels
from engine.errors import RunError, UnreadableError, UserError, counted
from engine.files import DAMAGED_ARRAYS
from engine.inference.checkpoint import Trained
from engine.paths import with_home
from engine.records.schema import PREDICTIONS, Record

MOST = 8
GONE = (UserError, RunError, UnreadableError, *DAMAGED_ARRAYS)  # what reading images that were moved or changed raises


@dataclass(frozen=True)
class Images:
    """Pixels as the run stored them, uint8 (N, H, W, 3), and what they are of."""

    pixels: Pixels
    what: str


def images_of(trained: Trained) -> Images:
    """Some of the images that the run was tested on; where they can't be had, noise, of which `what` says why."""
    try:
        found = _test_images(trained)
        return Images(np.stack(found), f"{counted(len(found), 'test image')} of the run")
    except GONE as problem:
        reason = str(problem).partition("\n")[0]
        shape = (MOST, *trained.preprocessing.stored_size, 3)
        noise = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
        return Images(noise, f"{MOST} images of noise, as the test part of the run is not at hand ({reason})")


def _test_images(trained: Trained) -> list[Pixels]:
    record = trained.record
    dataset, config = _dataset(record), record["config"]
    data_dir = Path(with_home(config["data_dir"]))
    raw = read(dataset, data_dir, True, record["protocol"], fetch=False, folds=config.get("folds"))
    names = _tested(trained.path.parent / PREDICTIONS) or list(raw.test.names)
    found: list[Pixels] = []
    # with --folds, the files' own parts are divided anew
    for part in (raw.test, raw.train, *([raw.val] if raw.val else [])):
        place = {name: row for row, name in enumerate(part.names)}
        rows = [place[name] for name in _some(names) if name in place]
        found += _pixels(part.take(np.array(rows, dtype=np.int64)), trained)
        if len(found) >= min(MOST, len(names)):
            return found
    raise UserError("its images have other names now")


def _dataset(record: Record) -> Dataset:
    """The declaration that the run was of. UserError: it is of no script here, or the folder is gone."""
    key = record["dataset"]["key"]
    if key in DATASETS:
        return DATASETS[key]
    if not key.startswith("folder-"):
        raise UserError(f"{key} is a dataset of another script")
    place = Path(with_home(record["dataset"].get("place") or record["config"]["data_dir"]))
    labels = record["config"].get("labels")
    return folder.labelled(place, Path(with_home(labels))) if labels else folder.existing(place)


def _tested(predictions: Path) -> list[str]:
    """The names of the images that the run was tested on; none where the file beside its checkpoint is gone."""
    if not predictions.is_file():
        return []
    with np.load(predictions, allow_pickle=False) as arrays:
        return [str(name) for name in arrays["names"]]


def _some(names: Sequence[str]) -> list[str]:
    """At most MOST of them, from all over: where classes follow each other, of several."""
    rows = np.linspace(0, len(names) - 1, min(MOST, len(names))).round().astype(int)
    return [names[row] for row in rows]


def _pixels(part: Part, trained: Trained) -> list[Pixels]:
    """Each image at the stored size."""
    decoded = trained.preprocessing.decode
    if isinstance(part.images, Sequence):
        return [decoded(load(reference)) for reference in part.entries(part.references)]
    return [decoded(pixels) for pixels in part.pixels()]
