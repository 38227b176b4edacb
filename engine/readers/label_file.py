"""Images in a folder, in whatever folders of it, with their labels in a file: the common form of Kaggle's sets."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from engine.data.declaration import ReadOptions
from engine.data.file_kinds import IMAGE_SUFFIXES, PLUGINS, suffix_of
from engine.data.names import loose
from engine.data.part import Part, RawSplits
from engine.data.splits import fewest_names, split_groups
from engine.errors import Refuse, UserError, agreeing, counted, listed, one_line, raised, refusing
from engine.readers.class_folders import alike, check_unused, class_part, split_classes
from engine.readers.label_table import LabelTable, Row, in_order, read_label_table
from engine.readers.layout import layout_notes, stem_of
from engine.readers.walk import Files

MOST_SHOWN = 120  # letters of a path that a list has, in a message


@dataclass(frozen=True)
class Labelled:
    """The images of a folder that a file of labels lists, and what it says of them."""

    classes: dict[str, list[str]]  # label -> sorted paths below the folder
    sizes: dict[str, int]  # image -> bytes
    parts: dict[str, str]  # image -> "train", "val" or "test"; empty, where the file does not say
    groups: dict[str, str] | None  # image -> group; None, where the file does not say
    missing: tuple[str, ...]  # listed, and not there
    differences: tuple[str, ...]  # why the data are not all that the file lists, beside missing images
    notes: tuple[str, ...]
    table: LabelTable


def list_labelled(root: Path, path: Path, allow_partial: bool, refuse: Refuse = raised) -> Labelled:
    """What the file of labels `path` says of the images below `root`, each of which is opened.

    UserError: the file can't be understood, or leaves open which image it means. `refuse` has what does not keep the
    rest from being looked at: two things are said of one image; or (unless `allow_partial`) images are not there, have
    no label, or are of formats that nothing here reads.
    """
    partly = (lambda _: None) if allow_partial else refuse
    files = Files(root, refuse)
    finder = _Finder(files.entries)
    table = read_label_table(path, lambda text: bool(finder.find(text)))
    rows, missing = _rows_of_images(root, path, finder, table)
    differences = []
    if missing:
        lack = f"{counted(len(missing), 'file')} that {path} lists {agreeing(len(missing), 'are')} not in {root}"
        partly(_lacking(f"{lack}:{listed(_short(name) for name in missing)}", "Put these there"))
    with refusing(refuse):
        _require_agreeing(path, rows)
    found = {name: own[0] for name, own in rows.items()}
    if blank := [name for name, row in found.items() if not row.label]:
        lack = f"{counted(len(blank), 'image')} without a label in {path}"
        partly(_lacking(f"{lack}:{listed(sorted(blank))}", "Give these a label"))
        differences.append(lack)
    listing = files.chosen(name for name, row in found.items() if row.label)
    others, notes = check_unused(root, [listing], allow_partial, refuse)
    found = {name: found[name] for name in sorted(listing.sizes)}
    classes: dict[str, list[str]] = {label: [] for label in in_order({row.label for row in found.values()})}
    for name, row in found.items():
        classes[row.label].append(name)
    lost = in_order({row.label for row in table.rows if row.label} - classes.keys())
    if lost:
        lack = f"{counted(len(lost), 'class', 'have')} no image that can be used: {', '.join(map(one_line, lost[:9]))}"
        partly(_lacking(f"{path}: {lack}", "Add images"))
        differences.append(lack)
    if len(classes) < 2:
        has = f"a single label, {one_line(*classes)}" if classes else "no image with a label"
        raise UserError(f"{path} has {has}, of what is in {root}. Expected two labels or more.")
    return Labelled(
        classes,
        listing.sizes,
        {name: row.part for name, row in found.items()} if table.split else {},
        {name: row.group for name, row in found.items()} if table.group else None,
        tuple(missing),
        (*differences, *others),
        (*_notes(path, files, table, rows), *notes, *alike(classes), *layout_notes({"": list(found)})),
        table,
    )


def _lacking(problem: str, remedy: str) -> UserError:
    return UserError(f"{problem}\n{remedy}, remove their lines, or go on without them with --allow-partial.")


class _Finder:
    """Which of the files that are there a list means, however it writes their paths."""

    def __init__(self, names: Iterable[str]) -> None:
        self.names = frozenset(names)
        self._called: dict[str, list[str]] = {}
        self._stems: dict[str, list[str]] = {}
        for name in sorted(self.names):
            own = name.rpartition("/")[2]
            self._called.setdefault(loose(own), []).append(name)
            if stem_of(own) != own:
                self._stems.setdefault(loose(stem_of(own)), []).append(name)

    def find(self, text: str) -> list[str]:
        """The paths of the files that `text` can mean: one, unless it is missing or could be several.

        It may lack the suffix, or folders that lead to the file, or have some that lead to where the files are.
        """
        wanted = [part for part in text.replace("\\", "/").split("/") if part not in ("", ".", "..")]
        if not wanted:
            return []
        if "/".join(wanted) in self.names:
            return ["/".join(wanted)]
        for names in (self._called, self._stems):
            found = names.get(loose(wanted[-1]), ())
            shared = {name: shared_folders(name.split("/")[:-1], wanted[:-1]) for name in found}
            most = max(shared.values(), default=-1)
            if most >= 0:
                return [name for name, number in shared.items() if number == most]
        return []


def shared_folders(one: Sequence[str], other: Sequence[str]) -> int:
    """How many of the last folders of two paths are the same, of which one must be the end of the other; else -1."""
    own, others = list(map(loose, one)), list(map(loose, other))
    number = min(len(own), len(others))
    return number if own[len(own) - number :] == others[len(others) - number :] else -1


def _rows_of_images(
    root: Path, path: Path, finder: _Finder, table: LabelTable
) -> tuple[dict[str, list[Row]], list[str]]:
    """The lines of each image that is there, and the files that are not."""
    rows: dict[str, list[Row]] = {}
    missing: dict[str, None] = {}
    several = {}
    for row in table.rows:
        found = finder.find(row.file)
        if len(found) > 1:
            several[row.file] = found
        elif found:
            rows.setdefault(found[0], []).append(row)
        else:
            missing[row.file] = None
    if several:
        lines = [f"{_short(text)}: {', '.join(names[:3])}" for text, names in several.items()]
        raise UserError(
            f"{counted(len(lines), 'file')} that {path} lists could be several of those in {root}:{listed(lines)}\n"
            "Expected one of each. Write their paths, with suffix, into the list, or give the folder that has but "
            "those that are listed."
        )
    if not rows:
        there = next((name for name in sorted(finder.names) if _looks_like_image(name)), "no image")
        raise UserError(
            f"None of the {counted(len(missing), 'file')} that {path} lists is in {root}. It lists "
            f"{_short(next(iter(missing)))}, say, and in the folder there is {one_line(there)}. Expected the names of "
            "files, or their paths below the folder: is it another folder, or another list?"
        )
    return rows, list(missing)


def _require_agreeing(path: Path, rows: Mapping[str, Sequence[Row]]) -> None:
    """Raise UserError where the file says two things of one image."""
    lines = []
    for name, own in rows.items():
        if len(set(map(_said, own))) > 1:
            said = [f"{' '.join(filter(None, _said(row)))} (line {row.line:,})" for row in own[:4]]
            lines.append(f"{name}: {', '.join(said)}")
    if lines:
        raise UserError(
            f"{path} says different things of {counted(len(lines), 'image')}:{listed(lines)}\nExpected one line each: "
            "remove those that are wrong."
        )


def _said(row: Row) -> tuple[str, str, str]:
    return row.label, row.part, row.group


def _notes(path: Path, files: Files, table: LabelTable, rows: Mapping[str, Sequence[Row]]) -> list[str]:
    notes = []
    if again := sum(len(own) > 1 and len(set(map(_said, own))) == 1 for own in rows.values()):
        notes.append(f"{counted(again, 'image')} {agreeing(again, 'are')} listed more than once, alike: used once")
    unlisted = sum(_looks_like_image(name) for name in files.entries.keys() - rows.keys())
    called = one_line(path.name)
    if unlisted:
        notes.append(f"{counted(unlisted, 'image')} that {called} does not list {agreeing(unlisted, 'are')} not used")
    if table.unused:
        names = ", ".join(map(one_line, table.unused[:9])) + (", ..." if len(table.unused) > 9 else "")
        notes.append(f"columns of {called} that are not used: {names}")
    return notes


def _looks_like_image(name: str) -> bool:
    return suffix_of(name) in IMAGE_SUFFIXES or suffix_of(name) in PLUGINS


def _short(text: str) -> str:
    return one_line(text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}...")


def read_labelled(options: ReadOptions, path: Path, test_size: float) -> RawSplits:
    """The images below the folder that `path` labels; without parts in it, `test_size` of each class is for testing."""
    root = options.folder
    labelled = list_labelled(root, path, options.allow_partial, options.refuse)
    notes = []
    if labelled.parts:
        _require_parts(path, labelled)
        parts = labelled.parts
    elif options.folds:  # which divide all anew, and may be possible where a test part is not
        parts = {name: "train" if number else "test" for number, name in enumerate(labelled.sizes)}
    else:
        parts = _held_out(path, labelled, test_size)
        how = (
            f"no parts in {one_line(path.name)}: {test_size:.0%} of each class was held out for testing "
            f"({'by group' if labelled.groups else 'names sorted'}, seed 42)"
        )
        notes.append(how)
    if "val" in parts.values() and options.protocol == "paper":
        notes.append("under the paper protocol test chooses the epoch: the rows of val are not used")
    divided = {part: _part(root, labelled, parts, part) for part in sorted(set(parts.values()))}
    return RawSplits(
        tuple(labelled.classes),
        divided["train"],
        divided["test"],
        divided.get("val"),
        checksums={path.name: f"sha256:{labelled.table.sha256}"},
        # what was refused above is not refused again
        missing=labelled.missing if options.allow_partial else (),
        differences=labelled.differences if options.allow_partial else (),
        notes=(*notes, *labelled.notes),
    )


def _part(root: Path, labelled: Labelled, parts: Mapping[str, str], part: str) -> Part:
    images = {label: [name for name in names if parts[name] == part] for label, names in labelled.classes.items()}
    made = class_part(root, "", tuple(labelled.classes), images)
    groups = labelled.groups
    return replace(made, groups=[groups[name] for name in made.names]) if groups is not None else made


def _require_parts(path: Path, labelled: Labelled) -> None:
    there = sorted(set(labelled.parts.values()))
    if lacking := [part for part in ("train", "test") if part not in there]:
        raise UserError(
            f"{path}: its column {one_line(labelled.table.split)} has {' and '.join(there)}, but no "
            f"{' and no '.join(lacking)}. Expected both train and test, and val if you like; or no such column: remove "
            "or rename it, and a part of each class is held out for testing."
        )


def _held_out(path: Path, labelled: Labelled, test_size: float) -> dict[str, str]:
    """Image -> "train" or "test"; a group is in one of them."""
    if labelled.groups is not None:
        found = split_groups(labelled.classes, labelled.groups, {"train": 1 - test_size, "test": test_size}, 42)
        return {name: part for part, names in found.items() for name in names}
    least = fewest_names(test_size)
    small = [f"{label}: {len(names):,}" for label, names in labelled.classes.items() if len(names) < least]
    if small:
        raise UserError(
            f"Too few images in {path} to hold any out for testing ({counted(len(small), 'class')}):{listed(small)}\n"
            f"Expected {least} or more in each class. Add images, or remove the class."
        )
    train, test = split_classes(labelled.classes, test_size)
    held = {name for names in test.values() for name in names}
    return {name: "test" if name in held else "train" for names in (*train.values(), *test.values()) for name in names}
