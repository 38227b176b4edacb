"""A dataset's files -> labelled images, checked against its declaration -> the parts that a protocol works with."""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from engine.data.declaration import RawSplits, Dataset, Part, ReadOptions
from engine.data.download import obtain, present, seen_checksums
from engine.data.locate import wanted
from engine.data.splits import Budget, few_of_each, hold_out, split_hash
from engine.errors import UserError
from engine.readers.class_folders import listed

PARTS = ("fit", "select", "test")
MOST_CLASSES = 12  # that are named when their images are not all there
HELD_OUT = 0.1  # of the training images, under the `honest` protocol


@dataclass(frozen=True)
class Parts:
    """What a run works with. `select` chooses the epoch; under the `paper` protocol it is the test part itself."""

    classes: tuple[str, ...]
    fit: Part
    select: Part
    test: Part

    def __iter__(self) -> Iterator[Part]:
        return iter((self.fit, self.select, self.test))

    def map(self, change: Callable[[Part], Part]) -> Parts:
        """The parts, each changed."""
        test = change(self.test)
        return Parts(self.classes, change(self.fit), test if self.select is self.test else change(self.select), test)

    @cached_property
    def hash(self) -> str:
        """Of every name and label in every part, of the pixels, once they are decoded, and of the class names."""
        fingerprint = hashlib.sha256(json.dumps(self.classes).encode())
        for part in self:
            for digest in part.entries(part.digests) if part.digests is not None else ():
                fingerprint.update(digest.encode())
        listed = {name: _listed(getattr(self, name)) for name in PARTS}
        return split_hash(listed, fingerprint.hexdigest())


def read(dataset: Dataset, data_dir: Path, allow_partial: bool, protocol: str, fetch: bool = True) -> RawSplits:
    """The dataset's contents; its `differences` are all those from the declaration (none, unless `allow_partial`).

    Raises UserError when the files are missing (and, unless `fetch`, when they have yet to be downloaded or
    extracted), unreadable, or not all there.
    """
    if not fetch and not present(dataset, data_dir):
        wanted(dataset, data_dir)
        raise UserError(
            f"{dataset.name} is not in {data_dir.absolute()}, or not extracted yet. The command without --check "
            "fetches and extracts it first."
        )
    folder = dataset.place or obtain(dataset, data_dir)
    contents = dataset.read(ReadOptions(folder, allow_partial, protocol))
    if len(contents.classes) < 2:  # before counts, which say less
        raise UserError(f"{dataset.name} in {folder} has {len(contents.classes)} classes; it takes at least 2 classes.")
    found = differences(dataset, contents, protocol)
    if found and not allow_partial:
        if dataset.own:
            problem, remedy = "as split.py left it", "Put these back, or split again"
        else:
            problem = "the published dataset"
            remedy = "Get it whole (delete what is there, and it is fetched again where it can be)"
        raise UserError(
            f"{dataset.name} in {folder} is not {problem}:{listed(found)}\n{remedy}, or train on what there is with "
            "--allow-partial: the record is then marked partial."
        )
    for name, part in (("train", contents.train), ("test", contents.test)):
        _check_part(part, f"{dataset.name} in {folder}: the {name} part", len(contents.classes))
    if contents.select is not None and protocol == "honest":
        _check_part(contents.select, f"{dataset.name} in {folder}: the validation part", len(contents.classes))
    checksums = seen_checksums(dataset, data_dir) | dict(contents.checksums)
    return replace(contents, checksums=checksums, differences=tuple(found))


def differences(dataset: Dataset, contents: RawSplits, protocol: str) -> list[str]:
    """In what `contents` are not what the declaration says, each in a line."""
    found = []
    expected = dataset.expected(protocol)
    parts = {"train": contents.train, "test": contents.test} if len(expected) == 2 else {"": None}
    for (name, part), published in zip(parts.items(), expected, strict=False):
        images = len(contents.train) + len(contents.test) if part is None else len(part)
        if images != published:
            found.append(f"{images:,} {name} images instead of {published:,}".replace("  ", " "))
    if dataset.classes and len(contents.classes) != dataset.classes:
        found.append(f"{len(contents.classes)} classes instead of {dataset.classes}")
    select = len(contents.select) if contents.select is not None else 0
    if dataset.val_images and select != dataset.val_images:
        found.append(f"{select:,} validation images instead of {dataset.val_images:,}")
    found += contents.differences
    if contents.missing:
        found.append(f"missing of the listed images: {len(contents.missing):,}: {_some(contents.missing)}")
    if lines := _class_lines(dataset, contents):
        found += lines[:MOST_CLASSES]
        if len(lines) > MOST_CLASSES:
            found.append(f"and so on, for {len(lines):,} classes in all")
    return found


def _class_lines(dataset: Dataset, contents: RawSplits) -> list[str]:
    """The classes that have not as many images as they should."""
    counted: Counter[str] = Counter()
    for part in (contents.train, contents.test):
        counted.update(contents.classes[label] for label in part.labels.tolist() if label < len(contents.classes))
    if not dataset.class_images:
        return []
    if isinstance(dataset.class_images, int):
        expected = dict.fromkeys(contents.classes, dataset.class_images)
    else:
        expected = dict(dataset.class_images)
    return [
        f"class {name}: {counted[name]:,} images instead of {expected.get(name, 0):,}"
        for name in sorted(expected.keys() | counted)
        if counted[name] != expected.get(name, 0)
    ]


def _some(names: tuple[str, ...], most: int = 3) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")


def _check_part(part: Part, what: str, classes: int) -> None:
    if len(part) == 0:
        raise UserError(f"{what} has no images. Expected some: get the images that belong there.")
    images = len(part.images) if part.rows is None else len(part.rows)
    if not images == len(part.labels) == len(part.names) == len(set(part.names)):
        raise ValueError(f"{what}: images, labels and unique names do not agree in number")
    pixels = part.images
    if isinstance(pixels, np.ndarray) and (pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] != 3):
        raise ValueError(f"{what}: images must be uint8 (N, H, W, 3), not {pixels.dtype} {pixels.shape}")
    if part.labels.min() < 0 or part.labels.max() >= classes:
        raise UserError(f"{what} has labels from {part.labels.min()} to {part.labels.max()}, but {classes} classes.")


def divide(contents: RawSplits, protocol: str, seed: int, budget: Budget = None) -> Parts:
    """The parts under `protocol`: "honest" holds a validation part out of train, "paper" selects on test.

    With a `budget` the training images are so many of each class (an int) or such a share of them (a float), and the
    validation part is among them, as it must be for whoever has no more: one of the dataset's own is not used.
    """
    fit, select, test = contents.train, contents.select, contents.test
    if budget is not None:
        fit, select = fit.take(few_of_each(fit.labels, fit.groups, budget, seed)), None
    if protocol == "paper":
        select = test
    elif select is None:
        try:
            keep, held = hold_out(fit.labels, fit.groups, HELD_OUT, seed)
        except UserError as problem:
            if budget is None:
                raise
            raise UserError(f"{problem}\nOr allow more of them: a larger --shots or --fraction.") from problem
        fit, select = fit.take(keep), fit.take(held)
    return Parts(contents.classes, fit, select, test)


def _listed(part: Part) -> list[tuple[str, int]]:
    return list(zip(part.names, part.labels.tolist(), strict=True))


def split_json(parts: Parts, protocol: str, seed: int) -> Mapping[str, Any]:
    """The content of split.json: which image is in which part."""
    return {
        "hash": parts.hash,
        "protocol": protocol,
        "seed": seed,
        "classes": list(parts.classes),
        "parts": {name: _listed(getattr(parts, name)) for name in PARTS},
    }
