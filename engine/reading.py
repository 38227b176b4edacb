"""A dataset's files -> labelled images, checked against its declaration -> the parts that a protocol works with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.dataset import Contents, Dataset, Part, Source
from engine.download import obtain
from engine.errors import UserError
from engine.splits import hold_out, split_hash

PARTS = ("fit", "select", "test")
HELD_OUT = 0.1  # of the training images, under the `honest` protocol


@dataclass(frozen=True)
class Parts:
    """What a run works with. `select` chooses the epoch; under the `paper` protocol it is the test part itself."""

    fit: Part
    select: Part
    test: Part
    hash: str  # of every name, label and pixel in every part, and of the class names


def read(dataset: Dataset, data_dir: Path, allow_partial: bool) -> tuple[Contents, list[str]]:
    """The dataset's contents, and in what they differ from the declaration (nothing, unless `allow_partial`).

    Raises UserError when the files are missing, unreadable, or not all there.
    """
    folder = obtain(dataset, data_dir)
    contents = dataset.read(Source(folder, allow_partial))
    if len(contents.classes) < 2:
        raise UserError(f"{dataset.name} in {folder} has {len(contents.classes)} classes; it takes at least 2 classes.")
    for name, part in (("train", contents.train), ("test", contents.test)):
        _check_part(part, f"{dataset.name}: the {name} part", len(contents.classes))
    differences = [
        f"{len(part):,} {name} images instead of {published:,}"
        for name, part, published in (
            ("train", contents.train, dataset.train_images),
            ("test", contents.test, dataset.test_images),
        )
        if len(part) != published
    ]
    if len(contents.classes) != dataset.classes:
        differences.append(f"{len(contents.classes)} classes instead of {dataset.classes}")
    differences += contents.differences
    if differences and not allow_partial:
        raise UserError(
            f"{dataset.name} in {folder} is not the published dataset: {'; '.join(differences)}.\n"
            f"Get it whole (delete what is there, and it is fetched again where it can be), or train on what there is "
            f"with --allow-partial: the record is then marked partial."
        )
    return contents, differences


def _check_part(part: Part, what: str, classes: int) -> None:
    if len(part) == 0:
        raise UserError(f"{what} has no images.")
    if not len(part.images) == len(part.labels) == len(part.names) == len(set(part.names)):
        raise ValueError(f"{what}: images, labels and unique names do not agree in number")
    if part.images.dtype != np.uint8 or part.images.ndim != 4 or part.images.shape[3] != 3:
        raise ValueError(f"{what}: images must be uint8 (N, H, W, 3), not {part.images.dtype} {part.images.shape}")
    if part.labels.min() < 0 or part.labels.max() >= classes:
        raise UserError(f"{what} has labels from {part.labels.min()} to {part.labels.max()}, but {classes} classes.")


def divide(contents: Contents, protocol: str, seed: int) -> Parts:
    """The parts under `protocol`: "honest" holds a validation part out of train, "paper" selects on test."""
    fit, select, test = contents.train, contents.select, contents.test
    if protocol == "paper":
        select = test
    elif select is None:
        keep, held = hold_out(fit.labels, fit.groups, HELD_OUT, seed)
        fit, select = fit.take(keep), fit.take(held)
    parts = {"fit": fit, "select": select, "test": test}
    pixels = hashlib.sha256(json.dumps(contents.classes).encode())
    for part in parts.values():
        pixels.update(np.ascontiguousarray(part.images).data)
    listed = {name: _listed(part) for name, part in parts.items()}
    return Parts(fit, select, test, split_hash(listed, pixels.hexdigest()))


def _listed(part: Part) -> list[tuple[str, int]]:
    return list(zip(part.names, part.labels.tolist(), strict=True))


def split_json(parts: Parts, classes: tuple[str, ...], protocol: str, seed: int) -> Mapping[str, Any]:
    """The content of split.json: which image is in which part."""
    return {
        "hash": parts.hash,
        "protocol": protocol,
        "seed": seed,
        "classes": list(classes),
        "parts": {name: _listed(getattr(parts, name)) for name in PARTS},
    }
