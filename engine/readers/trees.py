"""Parts of a dataset out of its lists of images and its class folders."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from engine.data.declaration import RawSplits, Part
from engine.data.splits import fewest_names, split_names
from engine.errors import UserError
from engine.readers.annotations import damaged
from engine.readers.class_folders import list_classes


def listed_part(root: Path, names: Sequence[str], labels: Sequence[int]) -> tuple[Part, tuple[str, ...]]:
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
    )
    return part, tuple(name for name in names if name not in there)


def part_by_folder(
    root: Path, lists: Mapping[Path, Sequence[str]]
) -> tuple[tuple[str, ...], list[Part], tuple[str, ...]]:
    """A part for each of `lists` of "<class>/<image>", paths below `root`: the classes, the parts, and what is missing.

    UserError, which names the list: an entry of another form.
    """
    for path, names in lists.items():
        if strange := [name for name in names if name.count("/") != 1]:
            raise damaged(path, f"{strange[0]!r} is not <class>/<image>")
    classes = tuple(sorted({name.partition("/")[0] for names in lists.values() for name in names}))
    labels = {name: label for label, name in enumerate(classes)}
    found = [listed_part(root, names, [labels[name.partition("/")[0]] for name in names]) for names in lists.values()]
    return classes, [part for part, _ in found], tuple(name for _, missing in found for name in missing)


def class_folders(folder: Path, allow_partial: bool) -> dict[str, list[str]]:
    """Class -> images, of a published dataset's class folders. UserError: no such folder, or what list_classes says."""
    if not folder.is_dir():
        raise UserError(f"{folder} is missing: it holds a folder for each class. Get the dataset whole.")
    return list_classes(folder, allow_empty=allow_partial).classes


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


def read_and_split(root: Path, test_size: float, allow_partial: bool) -> RawSplits:
    """A dataset without an official split: class folders in `root`, of which `test_size` of each is for testing."""
    return split_listed(root, class_folders(root, allow_partial), test_size)


def split_listed(root: Path, images: Mapping[str, Sequence[str]], test_size: float) -> RawSplits:
    """`read_and_split` of class folders that have been listed: class -> images."""
    classes = tuple(sorted(images))
    train, test = (class_part(root, "", classes, part) for part in split_classes(images, test_size))
    return RawSplits(classes, train, test)
