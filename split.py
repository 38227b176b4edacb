r"""Split class folders into train/, test/ and, if you like, val/ folders.

    python split.py --input_dir IN --output_dir OUT --test_size 0.2
    python split.py --input_dir IN --output_dir OUT --test_size 0.2 --val_size 0.1 --random_state 42
    python split.py --input_dir IN --output_dir OUT --group_regex "^(patient\d+)_" --dry_run
    python split.py --input_dir IN --labels labels.csv --output_dir OUT

IN holds one folder per class: IN/cat/1.jpg, IN/dog/2.jpg. OUT gets the same class folders in OUT/train and
OUT/test, and OUT/split.json, which lists every image and its part. Every class is split alone, and its held-out
part is rounded up. The same names and options give the same split on every computer. IN stays as it is. With
--labels, a CSV file says what is in each image (file,label[,group]), in whatever folders of IN they lie.
"""

import argparse
import os
import re
import shlex
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine.cli import Help, Parser, folder, run_command
from engine.console import say
from engine.data.file_kinds import is_helper_folder
from engine.data.names import loose, nfc
from engine.data.split_output import FORMAT, SPLIT_FILE, check_apart, check_output, write
from engine.data.splits import fewest_names, split_groups, split_hash, split_names
from engine.errors import UserError, counted, disk_errors_explained, listed, one_line
from engine.paths import why_no_name
from engine.readers.class_folders import alike, by_kind, check_unused, group_of, list_classes
from engine.readers.label_file import Labelled, list_labelled
from engine.readers.label_table import require_label_file
from engine.readers.layout import layout_notes
from engine.readers.walk import Listing


def parser() -> Parser:
    """The command line."""
    command_line = Parser(
        prog="split.py",
        description=__doc__,
        formatter_class=Help,
        allow_abbrev=False,
    )
    add = command_line.add_argument
    add("--input_dir", required=True, type=folder, metavar="IN", help="one folder per class, with images at any depth")
    add(
        "--labels",
        type=folder,
        metavar="FILE",
        help="a CSV file that labels the images, in place of class folders: columns file, label and, if you like, group"
        " (what must stay together)",
    )
    add("--output_dir", required=True, type=folder, metavar="OUT", help="a new or empty folder")
    add("--test_size", type=float, default=0.2, metavar="X", help="share of each class for test/ (default: 0.2)")
    add("--val_size", type=float, default=0.0, metavar="X", help="share of each class for val/ (default: no val/)")
    add("--random_state", type=int, default=42, metavar="N", help="seed: another one, another split (default: 42)")
    add(
        "--group_regex",
        metavar="REGEX",
        help="images stay together whose file names give the same match: the first (...) group if there is one,"
        " else all that matches. Sizes are then met as nearly as the groups allow",
    )
    add(
        "--link",
        choices=("hard", "soft", "copy"),
        default="copy",
        help="how images get into OUT (default: copy). Links take no space; soft ones break when IN moves, hard"
        " ones need IN and OUT on one disk",
    )
    add(
        "--allow_partial",
        "--allow-partial",
        action="store_true",
        help="go on where more than a hundredth of what looks like images is of formats that nothing here reads",
    )
    add("--dry_run", action="store_true", help="print the counts and write nothing")
    add("--overwrite", action="store_true", help="replace OUT if it is an earlier output of split.py")
    return command_line


def main(argv: Sequence[str] | None = None) -> int:
    """Split as the command line says. Returns 0, or 2 for the user's mistake, 3 for a failure, 130 for Ctrl-C."""

    def command() -> None:
        options = parser().parse_args(argv)
        advice = "Nothing half-written is left. Expected an input that can be read, and an output folder"
        advice += f" that can be written to, with room for {'links' if options.link != 'copy' else 'copies'}:"
        advice += " mend that, or choose another --output_dir."
        with disk_errors_explained("can't use", options.output_dir, advice):
            split(options)

    return run_command(command, "interrupted; no half-written output is left")


def split(options: argparse.Namespace) -> None:
    """Check everything, show the counts, then write."""
    check_sizes(options)
    source, output = check_places(options)
    say(f"Reading {one_line(str(source))}", go_on=True)
    images = class_folders(source, options) if options.labels is None else labelled_images(source, options)
    listing, groups = images.listing, images.groups
    check_apart(source, output, images.originals.values())
    parts = split_by_class(listing, options) if groups is None else split_by_group(listing, groups, options)

    say(table(listing, parts), go_on=True)
    if groups is not None:
        say(f"{counted(len(set(groups.values())), 'group')}, each in one part", go_on=True)
    if listing.loose:
        say(f"{counted(listing.loose, 'image')} outside the class folders left out", go_on=True)
    if listing.unused:
        say(f"Left out, but like images: {by_kind(listing.unused)}", go_on=True)
    if listing.ignored:
        say(f"{counted(listing.ignored.total(), 'other file')} ignored: {by_kind(listing.ignored)}", go_on=True)
    if listing.foreign:
        say(f"Left out, as other programs left them: {by_kind(listing.foreign)}", go_on=True)
    if listing.beside:
        say(f"Left out, beside images of the same name: {by_kind(listing.beside)}", go_on=True)
    for note in images.notes:
        say(note, go_on=True)
    if options.dry_run:
        say("Dry run: nothing written", go_on=True)
        return

    say(f"Writing {one_line(str(output))} (--link {options.link})", go_on=True)
    originals = {name: source / path for name, path in images.originals.items()}
    write(originals, output, parts, options.link, record(images, parts, options), options.overwrite)
    counts = ", ".join(f"{len(names):,} {part}" for part, names in parts.items())
    listed_in = one_line(str(output / SPLIT_FILE))
    say(f"Split {counted(len(listing.sizes), 'image')} into {counts}; listed in {listed_in}", go_on=True)


def check_sizes(options: argparse.Namespace) -> None:
    """UserError unless every part gets a share, and scikit-learn can take the seed."""
    test_size, val_size = options.test_size, options.val_size
    if not 0 < test_size < 1:
        raise UserError(f"--test_size is {test_size}. Expected a share between 0 and 1, such as 0.2.")
    if not 0 <= val_size < 1:
        raise UserError(f"--val_size is {val_size}. Expected a share between 0 and 1, such as 0.1, or 0 for no val/.")
    if test_size + val_size >= 1:
        raise UserError(
            f"--test_size {test_size} and --val_size {val_size} leave nothing for train/."
            " Expected a sum below 1: lower one of them."
        )
    if not 0 <= options.random_state < 2**32:
        raise UserError(f"--random_state is {options.random_state}. Expected a whole number from 0 to {2**32 - 1}.")


def check_places(options: argparse.Namespace) -> tuple[Path, Path]:
    """The resolved input and output folders. UserError: the one can't be read, or the other not made."""
    source, output = Path(os.path.realpath(options.input_dir)), Path(os.path.realpath(options.output_dir))
    if not source.is_dir():
        wrong = "is a file" if source.exists() else "does not exist"
        raise UserError(f"--input_dir {options.input_dir} {wrong}. Expected a folder with one folder per class in it.")
    check_output(source, output, options.overwrite)
    return source, output


@dataclass(frozen=True)
class Images:
    """What is split."""

    listing: Listing  # by what they will be called: "class/image.png"
    originals: Mapping[str, str]  # that name -> the path below the input folder
    groups: dict[str, str] | None  # that name -> what must stay together; None: each image alone
    notes: list[str]
    labels: dict[str, Any] | None = None  # what is recorded of the file of labels, if there is one


def class_folders(source: Path, options: argparse.Namespace) -> Images:
    """The images of the class folders in `source`. UserError: as list_classes(), check_unused() and find_groups()."""
    listing = list_classes(source)
    check_unused(source, [listing], options.allow_partial)
    groups = None if options.group_regex is None else find_groups(listing, options.group_regex)
    originals = {name: name for name in listing.sizes}
    return Images(listing, originals, groups, alike(listing.classes) + layout_notes(listing.classes))


def labelled_images(source: Path, options: argparse.Namespace) -> Images:
    """The images below `source` that a file labels, called as in class folders.

    UserError: as list_labelled(); no folder can have a label's name; or the file says more than is asked for.
    """
    require_label_file(options.labels, options.input_dir)
    found = list_labelled(source, options.labels, options.allow_partial)
    check_labels(found, options)
    # by their own names, unless two of a class have the same
    names = [f"{label}/{loose(name.rpartition('/')[2])}" for label, own in found.classes.items() for name in own]
    whole = len(set(names)) < len(names)
    called = {
        name: f"{label}/{name if whole else name.rpartition('/')[2]}"
        for label, own in found.classes.items()
        for name in own
    }
    listing = Listing(
        {label: sorted(called[name] for name in own) for label, own in found.classes.items()},
        {called[name]: size for name, size in found.sizes.items()},
    )
    groups = None if found.groups is None else {called[name]: group for name, group in found.groups.items()}
    if options.group_regex is not None:
        groups = find_groups(listing, options.group_regex)
    labels = {"file": options.labels.name, "sha256": found.table.sha256, "group": found.table.group or None}
    missing = [f"{counted(len(found.missing), 'listed file')} not there: left out"] if found.missing else []
    originals = {new: name for name, new in called.items()}
    return Images(listing, originals, groups, [*missing, *found.differences, *found.notes], labels)


def check_labels(found: Labelled, options: argparse.Namespace) -> None:
    """UserError unless the labels can be folders' names, and the file leaves the split to split.py."""
    as_it_is = shlex.join(["python", "folder.py", str(options.input_dir), "--labels", str(options.labels)])
    if found.table.split:
        raise UserError(
            f"{options.labels} has parts, in its column {one_line(found.table.split)}: {as_it_is} takes them as they "
            "are. To split anew, remove or rename that column."
        )
    if found.groups is not None and options.group_regex is not None:
        raise UserError(
            f"{options.labels} has groups, in its column {one_line(found.table.group)}, and --group_regex makes others."
            " Leave out --group_regex, or rename that column."
        )
    unfit = [
        label
        for label in found.classes
        if re.search(r"[/\\]|^\.", label)
        or is_helper_folder(label)
        or len(os.fsencode(label)) > 255
        or why_no_name(label)
    ]
    if unfit:
        raise UserError(
            f"{options.labels} has labels that can't be the names of class folders ({len(unfit):,}):{listed(unfit)}\n"
            "Expected names without slashes, that begin with no dot. Rename these, or let folder.py take the file as it"
            f" is: {as_it_is}"
        )


def split_by_class(listing: Listing, options: argparse.Namespace) -> dict[str, list[str]]:
    """Part -> image names; every class is split alone. UserError: a class is too small to fill every part."""
    needed = fewest_names(options.test_size, options.val_size)
    small = [f"{name}: {len(images):,}" for name, images in listing.classes.items() if len(images) < needed]
    if small:
        raise UserError(
            f"Too few images in a class ({len(small):,}):{listed(small)}\nExpected at least {needed:,} in each, so"
            " that every part gets one at these sizes. Add images, remove the class, or choose other sizes."
        )
    parts: dict[str, list[str]] = {}
    for images in listing.classes.values():
        for part, names in split_names(images, options.test_size, options.val_size, options.random_state).items():
            parts.setdefault(part, []).extend(names)
    return parts


def find_groups(listing: Listing, regex: str) -> dict[str, str]:
    """Image name -> what the regex finds in the file's own name. UserError: a wrong regex, or a name without it."""
    try:
        pattern = re.compile(nfc(regex))
    except re.error as error:
        raise UserError(f"--group_regex {regex!r} is not a regular expression: {error}. Correct it.") from None
    groups, lost = {}, []
    for name in sorted(listing.sizes):
        group = group_of(name, pattern)
        if group is None:
            lost.append(name)
        else:
            groups[name] = group
    if lost:
        raise UserError(
            f"Without a match for --group_regex {regex!r} ({len(lost):,}):{listed(lost, 5)}\n"
            "Expected a match in each file's own name. Correct the regex or rename the files."
        )
    return groups


def split_by_group(listing: Listing, groups: dict[str, str], options: argparse.Namespace) -> dict[str, list[str]]:
    """Part -> image names, no group in two parts. UserError: a part gets no image of some class."""
    shares = {"train": 1 - options.test_size - options.val_size, "val": options.val_size, "test": options.test_size}
    if not options.val_size:
        del shares["val"]
    return split_groups(listing.classes, groups, shares, options.random_state)


def count(listing: Listing, parts: dict[str, list[str]]) -> dict[str, dict[str, int]]:
    """Part -> class -> images."""
    counts = {part: Counter(name.partition("/")[0] for name in names) for part, names in parts.items()}
    return {part: {name: counts[part][name] for name in listing.classes} for part in parts}


def table(listing: Listing, parts: dict[str, list[str]]) -> str:
    """The counts, one line a class."""
    counts = count(listing, parts)
    rows = [("class", "images", *parts)]
    for name, images in listing.classes.items():
        rows.append((one_line(name), f"{len(images):,}", *(f"{counts[part][name]:,}" for part in parts)))
    rows.append(("all", f"{len(listing.sizes):,}", *(f"{len(names):,}" for names in parts.values())))
    width = max(len(row[0]) for row in rows)
    return "\n".join(row[0].ljust(width) + "".join(cell.rjust(10) for cell in row[1:]) for row in rows)


def record(images: Images, parts: dict[str, list[str]], options: argparse.Namespace) -> dict[str, Any]:
    """What split.json says: under "files" stand part -> image -> bytes."""
    listing = images.listing
    labels = {name: label for label, name in enumerate(listing.classes)}
    labelled = {part: [(name, labels[name.partition("/")[0]]) for name in names] for part, names in parts.items()}
    chosen = {name: getattr(options, name) for name in ("test_size", "val_size", "random_state", "group_regex", "link")}
    return {
        "format": FORMAT,
        "hash": split_hash(labelled),
        "options": chosen if images.labels is None else {**chosen, "labels": images.labels},
        "classes": list(listing.classes),
        "counts": count(listing, parts),
        "files": {part: {name: listing.sizes[name] for name in sorted(names)} for part, names in parts.items()},
        "groups": images.groups,
    }


if __name__ == "__main__":
    sys.exit(main())
