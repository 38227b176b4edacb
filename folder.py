"""Your own images: a folder that split.py made, or any folder with one folder a class.

    python folder.py DIR -model convnext -bs 64

DIR is one of
    DIR/train/<class>/..., DIR/test/<class>/... and, if you like, DIR/val/<class>/...   (what split.py makes)
    DIR/<class>/...                        0.2 of each class is held out for testing, names sorted, seed 42
    DIR/..., with --labels labels.csv      the file says what is in each image (file,label[,split][,group])
The classes are the folders, or the labels in the file. Where DIR has a val/ (valid/, validation/), it chooses the
epoch; else a tenth of the training images is held out for that. Groups that split.py kept together, or that the file
has, stay together.
"""

from __future__ import annotations

import re
import shlex
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

from common import Choice, Dataset, RawSplits, ReadOptions, main
from engine.cli import folder
from engine.data.names import composed, loose, nfc, told_apart
from engine.data.split_output import SPLIT_FILE, read_record
from engine.errors import (
    LevelError,
    Refuse,
    UserError,
    agreeing,
    counted,
    listed,
    one_line,
    reason_of,
    refusing,
)
from engine.paths import exists, is_dir, is_link, script_path
from engine.readers.class_folders import (
    alike,
    by_composed_name,
    check_unused,
    class_part,
    group_of,
    list_classes,
    split_listed,
)
from engine.readers.label_file import read_labelled
from engine.readers.label_table import require_label_file
from engine.readers.layout import layout_notes
from engine.readers.walk import Listing, folder_of_folders, folders_in, helpers_in

VALIDATION = ("val", "valid", "validation")
NEARLY = ("train", "training", "test", "testing", *VALIDATION)  # in capitals or not: names that people give to parts
TEST_SIZE = 0.2
MOST_LETTERS = 40  # of the folder's name, in names that are made of it: file systems take 255 bytes


def read(options: ReadOptions, labels: Path | None = None) -> RawSplits:
    """Both layouts, or images that the file `labels` labels; the classes are sorted by name."""
    root = options.folder
    require_folder(root)
    try:
        if labels is not None:
            return read_labelled(options, labels, TEST_SIZE)
        parts = find_parts(root)
        require_level(root, parts)
        return read_parts(root, parts, options) if parts else split_here(root, options)
    except LevelError as error:
        command = shlex.join(["python", script_path("folder.py"), str(error.inside), "--check"])
        raise LevelError(f"{error}:\n  {command}", error.inside) from error
    except OSError as error:
        raise UserError(f"{error.filename or root} can't be read: {reason_of(error)}. Make it readable.") from error


def find_parts(root: Path) -> list[str]:
    """The folders that are parts, train/ first; none where there are class folders alone."""
    there = folders_in(root)
    parts = [name for name in ("train", "test", *VALIDATION) if name in there]
    near = [name for name in there if name not in parts and name.lower() in NEARLY]
    if near and (parts or len(near) == len(there)):
        spelled = {name: name.lower().removesuffix("ing") for name in near}
        moves = [
            shlex.join(["mv", "-n", str(root / name), str(root / right)])
            for name, right in spelled.items()
            if right not in there
        ]
        raise UserError(
            f"{root} has {', '.join(near)}. Expected train/, test/ and perhaps val/, spelled so: rename these, or, if "
            f"they are classes, put them into a folder with all the other classes.{listed(moves)}"
        )
    if not set(parts) & {"train", "test"}:
        return []
    if "test" not in parts:
        raise UserError(
            f"{root} has {' and '.join(parts)}, but no test. Expected both train/ and test/, or class folders alone, "
            f"none of them called so, which are then split.{ways_to_a_test_part(root, parts)}"
        )
    if "train" not in parts:
        raise UserError(
            f"{root} has {' and '.join(parts)}, but no train. Expected both train/ and test/, or class folders "
            f"alone, none of them called so, which are then split."
        )
    if len(parts) > 3:
        raise UserError(f"{root} has {', '.join(parts)}. Expected one validation folder: remove the others.")
    return parts


def require_level(root: Path, parts: Sequence[str]) -> None:
    """Raise UserError where what is looked for, the parts or the class folders in each, lies a level below."""
    if not parts:
        folders = {name: folder_of_folders(root / name) for name in folders_in(root)}
        holding = [place for place in folders.values() if place and has_parts(place)]
        if holding and len(holding) < len(folders):
            raise LevelError(
                f"{root} has no train/ and test/, but folders in it have: {', '.join(map(str, holding))}. Expected the "
                "folder that holds the parts. Give that",
                holding[0],
            )
        return
    inner = {part: folders_in(root / part) for part in parts}
    single = {
        part: names[0] for part, names in inner.items() if len(names) == 1 and folder_of_folders(root / part / names[0])
    }
    if len(single) == len(parts) or "train" in single:
        moves = [
            f"mv -n {shlex.quote(f'{root}/{part}/{name}')}/* {shlex.quote(f'{root}/{part}/')} && "
            f"rmdir {shlex.quote(f'{root}/{part}/{name}')}"
            for part, name in single.items()
        ]
        raise UserError(
            f"{root} has a single folder in {' and in '.join(f'{part}/' for part in single)}, with the class folders "
            f"inside it. Expected these in the part itself, as in {root}/train/cat/1.jpg. To move them one level up:"
            f"{listed(moves)}"
        )


def has_parts(place: Path) -> bool:
    """Whether a folder has train/ and test/ in it, or what people call so."""
    names = {name.lower() for name in folders_in(place)}
    return bool(names & {"train", "training"}) and len(names & set(NEARLY)) > 1


def split_here(root: Path, options: ReadOptions) -> RawSplits:
    """Class folders alone: a part of each is held out for testing."""
    listing = list_classes(root, refuse=options.refuse)
    differences, notes = check_unused(root, [listing], options.allow_partial, options.refuse)
    small = [f"{name}: {len(images):,}" for name, images in listing.classes.items() if len(images) == 1]
    if small:
        options.refuse(
            UserError(
                f"Too few images to hold any out for testing ({counted(len(small), 'class')}):{listed(small)}\n"
                "Expected 2 or more in each class. Add images, or remove the class."
            )
        )
    raw = split_listed(root, by_composed_name(listing.classes), TEST_SIZE)
    how = [f"no test/ folder: {TEST_SIZE:.0%} of each class was held out for testing (names sorted, seed 42)"]
    notes += [*alike(raw.classes), *layout_notes(listing.classes)]
    notes = [*([] if options.folds else how), *loose_notes({"": listing}), *notes]
    return replace(raw, differences=tuple(differences), notes=tuple(notes))


def loose_notes(listings: Mapping[str, Listing]) -> list[str]:
    """What is said of images that lie beside the class folders."""
    return [
        f"{counted(listing.loose, 'image')} in no class folder{f' of {part}/' if part else ''} "
        f"{agreeing(listing.loose, 'are')} not used"
        for part, listing in listings.items()
        if listing.loose
    ]


def read_parts(root: Path, order: list[str], options: ReadOptions) -> RawSplits:
    """The parts, each with a folder for every class."""
    names = {}
    for part in order:
        with refusing(options.refuse):
            composed(folders_in(root / part), root / part)
        names[part] = {nfc(name) for name in folders_in(root / part)}
    require_classes(root, names, options.refuse)
    listings = {part: list_classes(root / part, refuse=options.refuse, part=True) for part in order}
    whole = [*listings.values(), helpers_in(root)]
    differences, unused = check_unused(root, whole, options.allow_partial, options.refuse)
    images_of = {part: by_composed_name(listing.classes) for part, listing in listings.items()}
    classes = tuple(sorted(set().union(*images_of.values())))
    parts = {part: class_part(root, part, classes, images) for part, images in images_of.items()}
    groups: dict[str, str] = {}
    missing: tuple[str, ...] = ()
    with refusing(options.refuse):
        groups, missing = read_split(root, [name for part in parts.values() for name in part.names])
    if groups:
        parts = {key: replace(part, groups=[groups[name] for name in part.names]) for key, part in parts.items()}
    notes = [
        f"{one_line(name)}/ is none of the parts and is not used" for name in folders_in(root) if name not in order
    ]
    if options.folds:
        notes.append(f"folds: the images of {', '.join(f'{part}/' for part in order)} are taken together")
    notes += loose_notes(listings) + unused + alike(classes)
    notes += [f"{part}/: {note}" for part, listing in listings.items() for note in layout_notes(listing.classes)]
    val = next((parts[part] for part in VALIDATION if part in parts), None)
    if val is not None and options.protocol == "paper":
        notes.append("under the paper protocol test chooses the epoch: the validation folder is not used")
    return RawSplits(
        classes,
        parts["train"],
        parts["test"],
        val,
        missing=missing,
        differences=tuple(differences),
        notes=tuple(notes),
    )


def require_classes(root: Path, names: Mapping[str, Collection[str]], refuse: Refuse) -> None:
    """Refuse parts that have not the same classes: `names` has theirs, composed. UserError: a part has none."""
    train = set(names["train"])
    for part, found in names.items():
        if len(train) > 1 and not train & set(found) and len(found) < 2:  # Kaggle's are in test/, or in test/test/
            raise UserError(unlabelled(root, part, list(names)))
    differing = {part: train ^ set(found) for part, found in names.items()}
    shown = told_apart(name for found in differing.values() for name in found)
    if lines := [
        f"{shown[name]}: in {part if name in names[part] else 'train'}/, not in "
        f"{'train' if name in names[part] else part}/"
        for part, found in differing.items()
        for name in sorted(found)
    ]:
        refuse(
            UserError(
                f"The classes of {root} differ between its parts:{listed(lines)}\nExpected the same in each. Rename or "
                "add what is missing; or put all images of a class into one folder and let split.py divide them."
            )
        )
    if len(train) == 1:
        raise UserError(f"{root} has a single class, {train.pop()}. Expected two or more: add a class folder.")


def unlabelled(root: Path, part: str, order: Sequence[str]) -> str:
    """The message for a part without class folders, as the test part of a Kaggle competition is."""
    files = sum(entry.is_file() for entry in (root / part).rglob("[!.]*"))
    aside = f"\n  {shlex.join(['mv', '-n', str(root / part), str(root / 'unlabelled')])}"
    rest = [name for name in order if name != part]
    more = "" if "test" in rest else ways_to_a_test_part(root, rest)
    return (
        f"{root / part} has {files:,} files, but none of the class folders of train/: images without labels can't be "
        f"tested on. Expected {part}/<class>/..., or none. If they have no labels, as in Kaggle's competitions, put "
        f"them aside:{aside}{more}"
    )


def ways_to_a_test_part(root: Path, order: Sequence[str]) -> str:
    """The commands that make one, a line each; "" where train/ has no classes."""
    if len(folders_in(root / "train")) < 2:
        return ""
    above = root if root.name else root.resolve()
    out = above.with_name(f"{above.name}-split")
    folders = ["--input_dir", str(root / "train"), "--output_dir", str(out)]
    ways = [shlex.join(["python", script_path("split.py"), *folders, "--test_size", str(TEST_SIZE)])]
    ways[0] += f"   # holds {TEST_SIZE:.0%} of train/ out; then folder.py {shlex.quote(str(out))}"
    if val := next((name for name in VALIDATION if name in order), None):
        rename = shlex.join(["mv", "-n", str(root / val), str(root / "test")])
        ways.insert(0, f"{rename}   # {val}/ is tested on; a tenth of train/ then chooses the epoch")
    return f"\n{'One of these makes' if len(ways) > 1 else 'This makes'} a test part:{listed(ways)}"


def read_split(root: Path, names: list[str]) -> tuple[dict[str, str], tuple[str, ...]]:
    """Return what split.py noted: the group of each of `names`, if it grouped them; the images that are gone since."""
    path = root / SPLIT_FILE
    try:
        split = read_record(path)
        if split is None:
            return {}, ()
        files = Counter(nfc(f"{part}/{name}") for part, images in split["files"].items() for name in images)
        known, regex = split["groups"] or {}, split["options"]["group_regex"]
        # images that came later are grouped by the same rule
        pattern = None if regex is None else re.compile(nfc(regex))
        if pattern and any(group_of(name, pattern) != group for name, group in known.items()):
            raise ValueError("its groups are not those of its option group_regex")
        if not all(isinstance(group, str) for group in known.values()):
            raise ValueError("it has groups that are no text")
    except (ValueError, TypeError, re.error) as error:
        raise UserError(
            f"{path} is not as split.py wrote it: {str(error)[:300]}. Run split.py again; or remove it, if the folders "
            "are as you want them, which ungroups the images."
        ) from error
    missing = tuple(sorted(files - Counter(map(nfc, names))))
    if not known:
        return {}, missing
    if pattern:
        why = f"the regular expression that split.py was given, {pattern.pattern!r}, does not match their names"
        groups = {name: group_of(name, pattern) for name in names}
    else:
        why = "the file of labels that split.py was given does not list them"
        listed_as = {nfc(name): group for name, group in known.items()}
        groups = {name: listed_as.get(nfc(name.partition("/")[2])) for name in names}
    if lost := [name for name, group in groups.items() if group is None]:
        raise UserError(
            f"{counted(len(lost), 'image', 'have')} no group: {why}:{listed(lost)}\nRename or remove them, or split "
            "again."
        )
    return {name: group for name, group in groups.items() if group is not None}, missing


def require_folder(root: Path) -> None:
    """Raise UserError where `root` is no folder."""
    if not is_dir(root):
        wrong = "is a file" if exists(root) else "does not exist"
        if is_link(root) and not exists(root):
            wrong = f"is a link to {root.readlink()}, where there is nothing"
        above = root.absolute().parent
        there = [entry.name for entry in above.iterdir()] if is_dir(above) else []
        if near := [name for name in there if loose(name) == loose(root.name) and name != root.name]:
            wrong += f", but {' and '.join(map(ascii, near))} is there, which differs from {root.name!a}"
        raise UserError(
            f"{one_line(str(root))} {wrong}. Expected a folder with images: one folder a class, or train/ and test/."
        )


def existing(root: Path) -> Dataset:
    """The declaration of what lies in `root`. Raises UserError where there is no such folder."""
    require_folder(root)
    return dataset(root)


def labelled(root: Path, labels: Path) -> Dataset:
    """The declaration of the images in `root` that a file labels. Raises UserError where there is no such file."""
    require_label_file(labels, root)
    return dataset(root, labels)


def dataset(root: Path, labels: Path | None = None) -> Dataset:
    """The declaration of what lies in `root`; nobody but its owner knows the counts.

    With `labels`, a file that says what is in each image, it is another dataset than without, or by another file.
    """
    name = nfc(root.resolve().name)
    key, shown = in_key(name, MOST_LETTERS) or "root", one_line(name) or str(root)
    if labels is not None:
        key = f"{key[: MOST_LETTERS // 2]}-{in_key(nfc(labels.stem), MOST_LETTERS // 2)}"
        shown += f" ({one_line(nfc(labels.name))})"
    return Dataset(
        key=f"folder-{key}",
        script="folder",
        name=shown,
        version="1",
        domain="own",
        classes=0,
        train_images=0,
        test_images=0,
        size=(256, 256),
        augment="trivial",
        mean=(0.485, 0.456, 0.406),
        std=(0.229, 0.224, 0.225),
        read=read if labels is None else partial(read, labels=labels),
        split="the folder's own",
        licence="your own",
        citation="",
        page="",
        recipe="fast",  # the best of three where they were measured, and the shortest: docs/recipes.md
        own_folder=root.resolve(),
        labelled=partial(labelled, root) if labels is None else None,
    )


def in_key(name: str, most: int) -> str:
    """The name as it can be a part of a folder's, of at most so many letters."""
    return re.sub(r"[^\w.-]+", "_", name)[:most]


DATASET = Choice(
    "DIR",
    {
        "type": folder,
        "help": "train/, test/ and perhaps val/ with class folders in each; class folders alone; or images in any "
        "folders, with --labels",
    },
    existing,
    example=dataset(Path("/DIR")),
)

if __name__ == "__main__":
    main(DATASET)
