"""Class folders on disk, and the images in them."""

import os
import re
import stat
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from engine.errors import UserError

IMAGE_SUFFIXES = frozenset(
    [".bmp", ".dcm", ".gif", ".jfif", ".jpeg", ".jpg", ".pgm", ".png", ".ppm", ".tif", ".tiff", ".webp"]
)
MOST_LISTED = 20


@dataclass
class Listing:
    """The images in class folders; nothing in it depends on the order in which the file system names them."""

    classes: dict[str, list[str]] = field(default_factory=dict)  # class -> sorted "class/sub/image.png"
    sizes: dict[str, int] = field(default_factory=dict)  # image -> bytes
    loose: int = 0  # images that lie in no class folder
    ignored: Counter[str] = field(default_factory=Counter)  # suffix, or "hidden" -> files that are no images


def listed(items: Iterable[str], most: int = MOST_LISTED) -> str:
    """One indented line an item, for an error message; beyond `most` items a count of the others."""
    items = iter(items)
    lines = list(islice(items, most))
    more = sum(1 for _ in items)
    return "".join(f"\n  {line}" for line in lines) + (f"\n  ... and {more:,} more" if more else "")


def list_classes(root: Path, allow_empty: bool = False) -> Listing:
    """Find the images of every class folder in `root`, at any depth.

    Every image is opened, so that all that can't be read is known before anything is made of them.

    UserError: something can't be read, a folder is reached twice, no class folder, a class folder without images
    (unless `allow_empty`).
    """
    listing = Listing()
    unreadable: list[str] = []
    images: list[str] = []
    seen: dict[tuple[int, int], str] = {}
    files: dict[tuple[int, int], str] = {}
    pending = [""]
    while pending:
        folder = pending.pop()
        try:
            status = (root / folder).stat()
            with os.scandir(root / folder) as entries:
                found = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            unreadable.append(f"{folder or root}/: {error.strerror}")
            continue
        # a link back to a folder above would be walked for ever, and a second way to a folder would put its images
        # on both sides of the split
        first = seen.setdefault((status.st_dev, status.st_ino), folder)
        if first != folder:
            raise UserError(
                f"{root / folder} and {root / first} are the same folder, so its images would be split twice."
                " Expected every folder once: remove the link."
            )
        for entry in found:
            name = f"{folder}/{entry.name}".lstrip("/")
            if entry.name.startswith(".") or entry.name == "__MACOSX":
                listing.ignored["hidden"] += 1
            elif _is_folder(entry):
                pending.append(name)
                if not folder:
                    listing.classes[name] = []
            elif problem := _problem(entry, name):
                unreadable.append(f"{name}: {problem}")
            elif not _is_image(entry.name):
                listing.ignored[Path(name).suffix.lower() or "no suffix"] += 1
            elif not folder:
                listing.loose += 1
            else:
                status = entry.stat()
                twin = files.setdefault((status.st_dev, status.st_ino), name)
                if twin != name:
                    unreadable.append(f"{name}: the same file as {twin}, and could land on the other side")
                images.append(name)
                listing.sizes[name] = status.st_size

    if unreadable:
        raise UserError(
            f"Unusable in {root} ({len(unreadable):,}):{listed(sorted(unreadable))}\n"
            "Expected readable files and folders with UTF-8 names. Repair or remove these."
        )
    for image in sorted(images):
        listing.classes[image.partition("/")[0]].append(image)
    _check_classes(root, listing, allow_empty)
    return listing


def group_of(name: str, pattern: re.Pattern[str]) -> str | None:
    """What `pattern` finds in an image's own name: its first group (...) if it has one, else all that matches."""
    match = pattern.search(name.rpartition("/")[2])
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
