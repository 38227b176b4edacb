"""Class folders: whether what lies in them is what it should be, and the parts of a dataset that are made of them."""

import re
import shlex
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import numpy as np

from engine.data.file_kinds import (
    IMAGE_SUFFIXES,
    PLUGINS,
)
from engine.data.names import composed, nfc
from engine.data.part import Part, RawSplits
from engine.data.splits import fewest_names, split_names
from engine.data.twins import near_twins
from engine.errors import LevelError, Refuse, UserError, listed, one_line, raised, refusing
from engine.paths import script_path
from engine.readers.layout import is_kind_of_file, is_part
from engine.readers.walk import Listing, Walk, folder_of_folders, folders_in

MOST_UNUSED = 0.01  # of the files that look like images
LAYOUT = "Expected one folder per class: {root}/cat/1.jpg, {root}/dog/2.jpg, ..."
TABLE = re.compile(r"(?i)^(?!\.|test|.*submission).*\.(csv|tsv)$")  # may label images; Kaggle's others do not


def list_classes(
    root: Path,
    allow_empty: bool = False,
    allow_twins: bool = False,
    skip: Collection[str] = (),
    refuse: Refuse = raised,
    part: bool = False,
) -> Listing:
    """Find the images of every class folder in `root`, at any depth, but for the class folders in `skip`.

    Every image is opened, so that all that can't be read is known before anything is made of them.

    UserError: no class folders. `refuse` has the UserErrors of what can do without what is wrong: something can't be
    read, a folder is reached twice, or a file (unless `allow_twins`), a class folder is without images (unless
    `allow_empty`). A `part` can have a single class: whoever has all parts compares them.
    """
    walk = Walk(root, allow_twins, skip)
    while walk.pending:
        with refusing(refuse):
            walk.enter(walk.pending.pop())
    with refusing(refuse):
        walk.require_usable()
    listing = walk.close()
    for image in sorted(listing.sizes):
        listing.classes[image.partition("/")[0]].append(image)
    if not part and not allow_empty and len(listing.classes) > 1:
        with_images = [name for name, images in listing.classes.items() if images]
        _check_single(root, with_images, f"Found images in a single folder of {root}")
    _check_classes(root, listing, allow_empty, refuse)
    if not part:
        _check_level(root, listing)
    return listing


def group_of(name: str, pattern: re.Pattern[str]) -> str | None:
    """What `pattern` finds in an image's own name, composed: its first group (...) if it has one, else all of it."""
    match = pattern.search(nfc(name.rpartition("/")[2]))
    return match and match[1 if pattern.groups else 0]


def _check_classes(root: Path, listing: Listing, allow_empty: bool, refuse: Refuse) -> None:
    layout = LAYOUT.format(root=root)
    if not listing.classes:
        found = f"{listing.loose:,} images but no class folders" if listing.loose else "no class folders"
        raise UserError(
            f"Found {found} in {root}. {layout} Move each image into a folder named after its class; or let folder.py "
            f"--labels take a CSV file that says what is in each.{labels_command(root)}"
        )
    with refusing(refuse):
        composed(listing.classes, root)
    if len(listing.classes) > 1 and all(map(is_kind_of_file, listing.classes)):
        raise UserError(
            f"Found {', '.join(listing.classes)} in {root}, which are called after what is in them and not after "
            f"classes, as where images have masks or boxes. {layout} Sort the images into such folders, or give the "
            f"folder in there that holds them.{labels_command(root)}"
        )
    empty = [name for name, images in listing.classes.items() if not images]
    if empty and not allow_empty:
        refuse(
            UserError(
                f"Found no images in {len(empty):,} of the {len(listing.classes):,} class folders of {root}:"
                f"{listed(empty)}\nExpected images ({' '.join(sorted(IMAGE_SUFFIXES))}) in each."
                f"{_reminder(listing)} Add them or remove the folders."
            )
        )


def _check_level(root: Path, listing: Listing) -> None:
    """Raise UserError where the folders are no classes: a single one, or parts."""
    layout = LAYOUT.format(root=root)
    if len(listing.classes) == 1:
        found = f"Found a single class folder in {root}"
        only = _check_single(root, [*listing.classes], found)
        raise UserError(f"{found}: {only}. {layout} Add a folder for each other class.{labels_command(root)}")
    if all(map(is_part, listing.classes)):
        raise UserError(
            f"Found the folders {', '.join(listing.classes)} in {root}: it looks split already. {layout}"
            f" If these are parts, folder.py takes them as train/, test/ and val/: rename them so. To split one part"
            f" further, give that part: {root / min(listing.classes, key=len)}{labels_command(root)}"
        )


def _check_single(root: Path, names: Sequence[str], found: str) -> str:
    """Return the first of `names`, or "". LevelError: it is the only one, and may hold the class folders."""
    if len(names) == 1 and (inside := folder_of_folders(root / names[0])):
        message = f"{found}: {names[0]}. {LAYOUT.format(root=root)}"
        raise LevelError(f"{message} If the classes are the folders inside {names[0]}, give {inside}", inside)
    return names[0] if names else ""


def labels_command(root: Path) -> str:
    """What is said of the one file that may label the images: the command that takes it; "" without one."""
    for place in (root, root.absolute().parent):
        names: list[str] = []
        with suppress(OSError):
            names = [entry.name for entry in place.iterdir() if TABLE.search(entry.name) and entry.is_file()]
        if len(names) == 1:
            file = place / names[0]
            command = shlex.join(["python", script_path("folder.py"), str(root), "--labels", str(file), "--check"])
            return f"\nIf {one_line(names[0])} says what is in each image:\n  {command}"
    return ""


def _reminder(listing: Listing) -> str:
    found = f" Not used: {by_kind(listing.unused)}, which look like images." if listing.unused else ""
    return found + "".join(f" {remedy}." for remedy in sorted(listing.remedies))


def by_kind(kinds: Mapping[str, int]) -> str:
    """ "2 .psd, 1 .svg" """
    return ", ".join(f"{number:,} {one_line(kind)}" for kind, number in sorted(kinds.items()))


def check_unused(
    root: Path, listings: Iterable[Listing], allow_partial: bool, refuse: Refuse = raised
) -> tuple[list[str], list[str]]:
    """What is said of the files below `root` that are not used: what makes the data partial, and what is but noted.

    `refuse` has the UserError (unless `allow_partial`) of more than MOST_UNUSED of what looks like images, or of a
    single placeholder of an image that lies elsewhere.
    """
    whole = Listing()
    used = 0
    for listing in listings:
        used += len(listing.sizes)
        whole.unused += listing.unused
        whole.beside += listing.beside
        whole.ignored += listing.ignored
        whole.foreign += listing.foreign
        whole.remedies |= listing.remedies
    differences, notes, unused = [], [], whole.unused.total()
    said = f"not used, but like images: {by_kind(whole.unused)}"
    remedies = "".join(f" {remedy}." for remedy in sorted(whole.remedies))
    if unused > MOST_UNUSED * (used + unused) or whole.unused["as placeholder"]:
        if allow_partial:
            differences.append(said)
        else:
            refuse(
                UserError(
                    f"Of {used + unused:,} files in {root} that look like images, {unused:,} would not be used: "
                    f"{by_kind(whole.unused)}.{remedies} Expected formats that are read: convert these (to PNG, say), "
                    "move them elsewhere, or go on without them with --allow-partial."
                )
            )
    elif unused:
        others = bool(whole.unused.keys() - PLUGINS.keys())
        notes.append(f"{said}.{remedies}" + " What else is here can be saved as PNG, say, by what made it" * others)
    if whole.beside:
        notes.append(f"not used, beside images of the same name: {by_kind(whole.beside)}")
    if kinds := {kind: number for kind, number in whole.ignored.items() if kind != "hidden"}:
        notes.append(f"not used, as they are no images: {by_kind(kinds)}")
    if whole.foreign:
        notes.append(f"not used, as other programs left them: {by_kind(whole.foreign)}")
    return differences, notes


def alike(classes: Iterable[str]) -> list[str]:
    """A note for the names of classes that are perhaps meant to be the same: see near_twins()."""
    return [
        f"{' and '.join(map(repr, names))} are taken for different classes: if they are not, give them one name"
        for names in near_twins(classes)
    ]


def class_folders(folder: Path, allow_partial: bool, published: Collection[str] = ()) -> Listing:
    """A published dataset's class folders; where most are called as `published`, the others are none and are left out.

    One file under two names is no reason to refuse it: programs that save space make such links, and images of the same
    pixels are found later. UserError: no such folder, or what list_classes and check_unused say.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is missing: it holds a folder for each class. Get the dataset whole.")
    there = folders_in(folder)
    strangers = [name for name in there if nfc(name) not in published]
    if 2 * len(strangers) > len(there):  # called otherwise altogether, in another copy
        strangers = []
    listing = list_classes(folder, allow_partial, True, strangers)
    listing.classes = by_composed_name(listing.classes)
    if allow_partial:
        for name in [name for name, images in listing.classes.items() if not images and name not in published]:
            del listing.classes[name]
            listing.strangers += (name,)
    return listing


def with_notes(raw: RawSplits, folder: Path, listings: Mapping[str, Listing], allow_partial: bool) -> RawSplits:
    """`raw`, and what is said of all that lies in a published dataset's class folders and is not used.

    `listings` has what class_folders found, by the path in `folder` where it looked. UserError: as check_unused.
    """
    bare = [replace(listing, ignored=Counter()) for listing in listings.values()]
    differences, notes = check_unused(folder, bare, allow_partial)
    for part, listing in listings.items():
        notes += [f"{part}{one_line(name)}/ is none of the classes and is not used" for name in listing.strangers]
    return replace(raw, differences=(*raw.differences, *differences), notes=(*raw.notes, *notes))


def by_composed_name(classes: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Class -> images, where each class has the name by which classes of several folders are compared."""
    merged: dict[str, list[str]] = {}
    for name, images in classes.items():  # a check goes on where two folders have such a name
        merged.setdefault(nfc(name), []).extend(images)
    return merged


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


def read_and_split(root: Path, test_size: float, allow_partial: bool, published: Collection[str] = ()) -> RawSplits:
    """A dataset without an official split: class folders in `root`, of which `test_size` of each is for testing.

    `published` are the classes' names, if they are known: other folders are then none.
    """
    listing = class_folders(root, allow_partial, published)
    return with_notes(split_listed(root, listing.classes, test_size), root, {"": listing}, allow_partial)


def split_listed(root: Path, images: Mapping[str, Sequence[str]], test_size: float) -> RawSplits:
    """`read_and_split` of class folders that have been listed: class -> images."""
    classes = tuple(sorted(images))
    train, test = (class_part(root, "", classes, part) for part in split_classes(images, test_size))
    return RawSplits(classes, train, test)
