"""Class folders on disk, the images in them, and the parts of a dataset that are made of them."""

import os
import re
import stat
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from engine.data.names import composed, nfc
from engine.data.part import Part, RawSplits
from engine.data.splits import fewest_names, split_names
from engine.errors import UserError, listed

IMAGE_SUFFIXES = frozenset(
    [".bmp", ".dcm", ".gif", ".jfif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"]
)


@dataclass
class Listing:
    """The images in class folders; nothing in it depends on the order in which the file system names them."""

    classes: dict[str, list[str]] = field(default_factory=dict)  # class -> sorted "class/sub/image.png"
    sizes: dict[str, int] = field(default_factory=dict)  # image -> bytes
    loose: int = 0  # images that lie in no class folder
    ignored: Counter[str] = field(default_factory=Counter)  # suffix, or "hidden" -> files that are no images


def list_classes(root: Path, allow_empty: bool = False) -> Listing:
    """Find the images of every class folder in `root`, at any depth.

    Every image is opened, so that all that can't be read is known before anything is made of them.

    UserError: something can't be read, a folder is reached twice, no class folder, a class folder without images
    (unless `allow_empty`).
    """
    walk = _Walk(root)
    while walk.pending:
        walk.enter(walk.pending.pop())
    if walk.unreadable:
        raise UserError(
            f"Unusable in {root} ({len(walk.unreadable):,}):{listed(sorted(walk.unreadable))}\n"
            "Expected readable files and folders with UTF-8 names. Repair or remove these."
        )
    listing = walk.listing
    for image in sorted(listing.sizes):
        listing.classes[image.partition("/")[0]].append(image)
    _check_classes(root, listing, allow_empty)
    return listing


class _Walk:
    """What has been seen of the folders below `root`, and what is still to be seen."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.pending = [""]  # paths of folders below the root
        self.listing = Listing()
        self.unreadable: list[str] = []
        self._folders: dict[tuple[int, int], str] = {}
        self._files: dict[tuple[int, int], str] = {}

    def enter(self, folder: str) -> None:
        """Look at all that is in a folder. Raises UserError where it was reached before, by another way."""
        try:
            status = (self.root / folder).stat()
            with os.scandir(self.root / folder) as entries:
                ordered = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            self.unreadable.append(f"{folder or self.root}/: {error.strerror}")
            return
        # a link back to a folder above would be walked for ever, and a second way to a folder would put its images
        # on both sides of the split
        first = self._folders.setdefault((status.st_dev, status.st_ino), folder)
        if first != folder:
            raise UserError(
                f"{self.root / folder} and {self.root / first} are the same folder, so its images would be split twice."
                " Expected every folder once: remove the link."
            )
        for entry in ordered:
            self._look_at(entry, folder)

    def _look_at(self, entry: os.DirEntry[str], folder: str) -> None:
        name = f"{folder}/{entry.name}".lstrip("/")
        if entry.name.startswith(".") or entry.name == "__MACOSX":
            self.listing.ignored["hidden"] += 1
        elif _is_folder(entry):
            self.pending.append(name)
            if not folder:
                self.listing.classes[name] = []
        elif problem := _problem(entry, name):
            self.unreadable.append(f"{name}: {problem}")
        elif not _is_image(entry.name):
            self.listing.ignored[Path(name).suffix.lower() or "no suffix"] += 1
        elif not folder:
            self.listing.loose += 1
        else:
            status = entry.stat()
            twin = self._files.setdefault((status.st_dev, status.st_ino), name)
            if twin != name:
                self.unreadable.append(f"{name}: the same file as {twin}, and could land on the other side")
            self.listing.sizes[name] = status.st_size


def group_of(name: str, pattern: re.Pattern[str]) -> str | None:
    """What `pattern` finds in an image's own name, composed: its first group (...) if it has one, else all of it."""
    match = pattern.search(nfc(name.rpartition("/")[2]))
    return match and match[1 if pattern.groups else 0]


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_image(name: str) -> bool:
    return Path(name).suffix.lower() in IMAGE_SUFFIXES


def _problem(entry: os.DirEntry[str], name: str) -> str | None:
    """Why a file can't be used; None: it can, or it is no image and nobody misses it."""
    try:
        # also for other names: a broken link can be a class folder on a disk that isn't mounted
        mode = entry.stat().st_mode
        if not _is_image(entry.name):
            return None
        if not stat.S_ISREG(mode):
            return "not a regular file"
        name.encode()
        with Path(entry.path).open("rb", buffering=0) as file:
            file.read(1)
    except UnicodeEncodeError:
        return "its name is not UTF-8"
    except OSError as error:
        return "a link to nothing" if entry.is_symlink() and not Path(entry.path).exists() else error.strerror
    return None


def _check_classes(root: Path, listing: Listing, allow_empty: bool) -> None:
    layout = f"Expected one folder per class: {root}/cat/1.jpg, {root}/dog/2.jpg, ..."
    if not listing.classes:
        found = f"{listing.loose:,} images but no class folders" if listing.loose else "no class folders"
        raise UserError(f"Found {found} in {root}. {layout} Move each image into a folder named after its class.")
    composed(listing.classes, root)
    empty = [name for name, images in listing.classes.items() if not images]
    if empty and not allow_empty:
        raise UserError(
            f"Found no images in {len(empty):,} of the {len(listing.classes):,} class folders of {root}:"
            f"{listed(empty)}\nExpected images ({' '.join(sorted(IMAGE_SUFFIXES))}) in each."
            " Add them or remove the folders."
        )
    if len(listing.classes) == 1:
        only = root / next(iter(listing.classes))
        raise UserError(
            f"Found a single class folder in {root}: {only.name}. {layout}"
            f" If the classes are the folders inside {only.name}, give that: {only}"
        )
    if {name.lower() for name in listing.classes} <= {"train", "val", "valid", "validation", "test"}:
        raise UserError(
            f"Found the folders {', '.join(listing.classes)} in {root}: it looks split already. {layout}"
            f" To split one part further, give that part: {root / min(listing.classes, key=len)}"
        )


def class_folders(folder: Path, allow_partial: bool) -> dict[str, list[str]]:
    """Class -> images, of a published dataset's class folders. UserError: no such folder, or what list_classes says."""
    if not folder.is_dir():
        raise UserError(f"{folder} is missing: it holds a folder for each class. Get the dataset whole.")
    return by_composed_name(list_classes(folder, allow_empty=allow_partial).classes)


def by_composed_name(classes: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Class -> images, where each class has the name by which classes of several folders are compared."""
    return {nfc(name): images for name, images in classes.items()}


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
