"""Parts of a dataset out of its lists of images and its class folders."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from engine.dataset import Contents, Part
from engine.errors import UserError
from engine.folders import list_classes
from engine.splits import fewest_names, split_names


def listed_part(
    root: Path, names: Sequence[str], labels: Sequence[int], groups: Sequence[str] | None = None
) -> tuple[Part, tuple[str, ...]]:
    """The images `names`, paths below `root`, as far as they are there; and the names of those that are not."""
    if len(set(names)) < len(names):
        twice = next(name for name, times in Counter(names).items() if times > 1)
        raise UserError(f"the lists in {root} name {twice} twice. Put the published lists in their place.")
    there: set[str] = set()
    for folder in {name.rpartition("/")[0] for name in names}:
        try:
            with os.scandir(root / folder) as entries:
                there.update(f"{folder}/{entry.name}".lstrip("/") for entry in entries)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            reason = (error.strerror or str(error)).lower()
            raise UserError(f"{root / folder} can't be read: {reason}. Make it readable, or get it again.") from error
    kept = [index for index, name in enumerate(names) if name in there]
    part = Part(
        images=[root / names[index] for index in kept],
        labels=np.array([labels[index] for index in kept], dtype=np.int64),
        names=[names[index] for index in kept],
        groups=None if groups is None else [groups[index] for index in kept],
    )
    return part, tuple(name for name in names if name not in there)


def class_part(root: Path, folder: str, classes: Sequence[str], images: Mapping[str, Sequence[str]]) -> Part:
    """The images of class folders in `root / folder`, as `list_classes` names them, of the given `classes`."""
    prefix = f"{folder}/" if folder else ""
    names = [f"{prefix}{name}" for label in classes for name in images.get(label, ())]
    labels = [label for label, name in enumerate(classes) for _ in images.get(name, ())]
    return Part([root / name for name in names], np.array(labels, dtype=np.int64), names)


def split_classes(classes: Mapping[str, Sequence[str]], test_size: float) -> tuple[dict[str, list[str]], ...]:
    """Class -> names of the train and of the test part: every class split alone by `split_names`, seed 42.

    A class that is too small to be split, as partial data can have it, is for training.
    """
    train: dict[str, list[str]] = {}
    test: dict[str, list[str]] = {}
    for name, images in classes.items():
        if len(images) < fewest_names(test_size):
            train[name], test[name] = sorted(images), []
        else:
            parts = split_names(images, test_size)
            train[name], test[name] = parts["train"], parts["test"]
    return train, test


def read_and_split(root: Path, test_size: float) -> Contents:
    """A dataset without an official split: class folders in `root`, of which `test_size` of each is for testing."""
    listing = list_classes(root)
    classes = tuple(sorted(listing.classes))
    train, test = (class_part(root, "", classes, images) for images in split_classes(listing.classes, test_size))
    return Contents(classes, train, test)
