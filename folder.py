"""Your own images: a folder that split.py made, or any folder with one folder a class.

    python folder.py DIR -model convnext -bs 64

DIR is one of
    DIR/train/<class>/..., DIR/test/<class>/... and, if you like, DIR/val/<class>/...   (what split.py makes)
    DIR/<class>/...                        0.2 of each class is held out for testing, names sorted, seed 42
The classes are the folders. Where DIR has a val/ (valid/, validation/), it chooses the epoch; else a tenth of the
training images is held out for that. Groups that split.py kept together stay together.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from common import Choice, Dataset, RawSplits, ReadOptions, main
from engine.cli import folder
from engine.errors import UserError, agreeing, counted, listed, reason_of
from engine.readers.class_folders import Listing, class_part, group_of, list_classes, split_listed

VALIDATION = ("val", "valid", "validation")
NEARLY = ("train", "training", "test", "testing", *VALIDATION)  # in capitals or not: names that people give to parts
TEST_SIZE = 0.2
MOST_LETTERS = 40  # of the folder's name, in names that are made of it: file systems take 255 bytes


def read(options: ReadOptions) -> RawSplits:
    """Both layouts; the classes are sorted by name."""
    root = options.folder
    require_folder(root)
    try:
        parts = find_parts(root)
        if not parts:
            return split_here(root)
        return read_parts(root, parts, options.protocol)
    except OSError as error:
        raise UserError(f"{error.filename or root} can't be read: {reason_of(error)}. Make it readable.") from error


def folders_in(place: Path) -> list[str]:
    """The names of the visible folders in `place`."""
    hidden = (".", "__MACOSX")
    return sorted(entry.name for entry in place.iterdir() if entry.is_dir() and not entry.name.startswith(hidden))


def find_parts(root: Path) -> list[str]:
    """The folders that are parts, train/ first; none where there are class folders alone."""
    there = folders_in(root)
    parts = [name for name in ("train", "test", *VALIDATION) if name in there]
    near = [name for name in there if name not in parts and name.lower() in NEARLY]
    if near and (parts or len(near) == len(there)):
        raise UserError(
            f"{root} has {', '.join(near)}. Expected train/, test/ and perhaps val/, spelled so: rename these, or, if "
            "they are classes, put them into a folder with all the other classes."
        )
    if not set(parts) & {"train", "test"}:
        return []
    if lacking := [name for name in ("train", "test") if name not in parts]:
        raise UserError(
            f"{root} has {' and '.join(parts)}, but no {lacking[0]}. Expected both train/ and test/, or class folders "
            f"alone, none of them called so, which are then split."
        )
    if len(parts) > 3:
        raise UserError(f"{root} has {', '.join(parts)}. Expected one validation folder: remove the others.")
    return parts


def split_here(root: Path) -> RawSplits:
    """Class folders alone: a part of each is held out for testing."""
    listing = list_classes(root)
    small = [f"{name}: {len(images):,}" for name, images in listing.classes.items() if len(images) < 2]
    if small:
        raise UserError(
            f"Too few images to hold any out for testing ({counted(len(small), 'class')}):{listed(small)}\nExpected 2 "
            "or more in each class. Add images, or remove the class."
        )
    raw = split_listed(root, listing.classes, TEST_SIZE)
    note = f"no test/ folder: {TEST_SIZE:.0%} of each class was held out for testing (names sorted, seed 42)"
    return replace(raw, notes=(note, *loose_notes({"": listing})))


def loose_notes(listings: Mapping[str, Listing]) -> list[str]:
    """What is said of images that lie beside the class folders."""
    return [
        f"{counted(listing.loose, 'image')} in no class folder{f' of {part}/' if part else ''} "
        f"{agreeing(listing.loose, 'are')} not used"
        for part, listing in listings.items()
        if listing.loose
    ]


def read_parts(root: Path, order: list[str], protocol: str) -> RawSplits:
    """The parts, each with a folder for every class."""
    names = {part: set(folders_in(root / part)) for part in order}
    if lines := [
        f"{name}: in {part if name in names[part] else 'train'}/, not in {'train' if name in names[part] else part}/"
        for part in order
        for name in sorted(names[part] ^ names["train"])
    ]:
        raise UserError(f"The classes of {root} differ between its parts:{listed(lines)}\nExpected the same in each.")
    if len(names["train"]) == 1:
        raise UserError(f"{root} has a single class, {names['train'].pop()}. Expected two or more: add a class folder.")
    listings = {part: list_classes(root / part) for part in order}
    images_of = {part: listing.classes for part, listing in listings.items()}
    classes = tuple(sorted(images_of["train"]))
    parts = {part: class_part(root, part, classes, images) for part, images in images_of.items()}
    groups, missing = read_split(root, [name for part in parts.values() for name in part.names])
    if groups:
        parts = {key: replace(part, groups=[groups[name] for name in part.names]) for key, part in parts.items()}
    notes = [f"{name}/ is none of the parts and is not used" for name in folders_in(root) if name not in order]
    notes += loose_notes(listings)
    val = next((parts[part] for part in VALIDATION if part in parts), None)
    if val is not None and protocol == "paper":
        notes.append("under the paper protocol test chooses the epoch: the validation folder is not used")
    return RawSplits(classes, parts["train"], parts["test"], val, missing=missing, notes=tuple(notes))


def read_split(root: Path, names: list[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return what split.py noted: the group of each of `names`, if it grouped them; the images that are gone since."""
    path = root / "split.json"
    if not path.exists():
        return {}, ()
    try:
        split = json.loads(path.read_text("utf-8"))
        if not isinstance(split, dict) or not {"format", "hash", "files"} <= split.keys():
            return {}, ()  # another program's
        files = {f"{part}/{name}" for part, images in split["files"].items() for name in images}
        # images that came later are grouped by the same rule
        pattern = re.compile(split["options"]["group_regex"]) if split["groups"] is not None else None
    except (ValueError, AttributeError, KeyError, TypeError, re.error) as error:
        raise UserError(
            f"{path} is not as split.py wrote it ({type(error).__name__}: {error}). Remove it, which ungroups the "
            "images, or run split.py again."
        ) from error
    missing = tuple(sorted(files.difference(names)))
    if pattern is None:
        return {}, missing
    groups = {name: group_of(name, pattern) for name in names}
    if lost := [name for name, group in groups.items() if group is None]:
        raise UserError(
            f"{counted(len(lost), 'image', 'have')} no group: the regular expression that split.py was given, "
            f"{pattern.pattern!r}, does not match their names:{listed(lost)}\nRename or remove them, or split again."
        )
    return {name: group for name, group in groups.items() if group is not None}, missing


def require_folder(root: Path) -> None:
    """Raise UserError where `root` is no folder."""
    if not root.is_dir():
        wrong = "is a file" if root.exists() else "does not exist"
        raise UserError(f"{root} {wrong}. Expected a folder with images: one folder a class, or train/ and test/.")


def existing(root: Path) -> Dataset:
    """The declaration of what lies in `root`. Raises UserError where there is no such folder."""
    require_folder(root)
    return dataset(root)


def dataset(root: Path) -> Dataset:
    """The declaration of what lies in `root`; nobody but its owner knows the counts."""
    return Dataset(
        key="folder-" + (re.sub(r"[^\w.-]+", "_", root.resolve().name)[:MOST_LETTERS] or "root"),
        script="folder",
        name=root.resolve().name or str(root),
        version="1",
        domain="own",
        classes=0,
        train_images=0,
        test_images=0,
        size=(256, 256),
        augment="trivial",
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        read=read,
        split="the folder's own",
        licence="your own",
        citation="",
        page="",
        recipe="cosine",  # the better one where it was measured: docs/recipes.md
        own_folder=root.resolve(),
    )


DATASET = Choice(
    "DIR",
    {"type": folder, "help": "train/, test/ and perhaps val/ with class folders in each; or class folders alone"},
    existing,
    example=dataset(Path("/DIR")),
)

if __name__ == "__main__":
    main(DATASET)
