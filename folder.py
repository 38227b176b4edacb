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
from pathlib import Path

from common import Choice, Contents, Dataset, Part, Source, main
from engine.arguments import folder
from engine.errors import UserError
from engine.folders import list_classes, listed
from engine.trees import class_part, read_and_split

VALIDATION = ("val", "valid", "validation")
TEST_SIZE = 0.2


def read(source: Source) -> Contents:
    """Both layouts; the classes are sorted by name."""
    root = source.folder
    if not root.is_dir():
        wrong = "is a file" if root.exists() else "does not exist"
        raise UserError(f"{root} {wrong}. Expected a folder with images: one folder a class, or train/ and test/.")
    there = {part for part in ("train", "test", *VALIDATION) if (root / part).is_dir()}
    if not there & {"train", "test"}:
        contents = read_and_split(root, TEST_SIZE, allow_partial=False)
        note = f"no test/ folder: {TEST_SIZE:.0%} of each class was held out for testing (names sorted, seed 42)"
        return Contents(contents.classes, contents.train, contents.test, notes=(note,))
    if lacking := {"train", "test"} - there:
        raise UserError(
            f"{root} has {' and '.join(sorted(there))}, but no {lacking.pop()}. Expected both train/ and test/, or "
            "class folders alone, which are then split."
        )
    if len(there) > 3:
        raise UserError(f"{root} has {', '.join(sorted(there))}. Expected one validation folder: remove the others.")
    order = [part for part in ("train", "test", *VALIDATION) if part in there]
    names = {part: class_names(root / part) for part in order}
    if lines := [
        f"{name}: in {part if name in names[part] else 'train'}/, not in {'train' if name in names[part] else part}/"
        for part in order
        for name in sorted(names[part] ^ names["train"])
    ]:
        raise UserError(f"The classes of {root} differ between its parts:{listed(lines)}\nExpected the same in each.")
    found = {part: list_classes(root / part).classes for part in order}
    classes = tuple(sorted(found["train"]))
    groups, missing = read_split(root, found)
    parts = {part: grouped(class_part(root, part, classes, images), groups) for part, images in found.items()}
    return Contents(
        classes,
        parts["train"],
        parts["test"],
        next((parts[p] for p in VALIDATION if p in parts), None),
        missing=missing,
    )


def class_names(part: Path) -> set[str]:
    """The names of the class folders."""
    return {entry.name for entry in part.iterdir() if entry.is_dir() and not entry.name.startswith((".", "__MACOSX"))}


def read_split(root: Path, found: dict[str, dict[str, list[str]]]) -> tuple[dict[str, str], tuple[str, ...]]:
    """What split.py noted: image -> group, and the images that it put there and that are gone since."""
    path = root / "split.json"
    if not path.exists():
        return {}, ()
    try:
        split = json.loads(path.read_text("utf-8"))
        if not isinstance(split, dict) or not {"format", "hash", "files"} <= split.keys():
            return {}, ()  # another program's
        files = {f"{part}/{name}": name for part, images in split["files"].items() for name in images}
        groups = {place: str(split["groups"][name]) for place, name in files.items()} if split["groups"] else {}
    except (OSError, ValueError, AttributeError, KeyError, TypeError) as error:
        raise UserError(
            f"{path} is not as split.py wrote it ({type(error).__name__}: {error}). Remove it, which ungroups the "
            "images, or run split.py again."
        ) from error
    there = {f"{part}/{name}" for part, images in found.items() for names in images.values() for name in names}
    return groups, tuple(sorted(files.keys() - there))


def grouped(part: Part, groups: dict[str, str]) -> Part:
    """The part with the groups of its images; an image that has none is its own."""
    if not groups:
        return part
    return Part(part.images, part.labels, part.names, [groups.get(name, f"image {name}") for name in part.names])


def dataset(root: Path) -> Dataset:
    """The declaration of what lies in `root`; nobody but its owner knows the counts."""
    return Dataset(
        key="folder-" + (re.sub(r"[^\w.-]+", "_", root.resolve().name) or "root"),
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
        published=False,
        own=True,
        place=root.absolute(),
    )


DATASET = Choice(
    "DIR",
    {"type": folder, "help": "train/, test/ and perhaps val/ with class folders in each; or class folders alone"},
    dataset,
    example=dataset(Path("DIR")),
)

if __name__ == "__main__":
    main(DATASET)
