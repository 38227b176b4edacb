"""--check of images of the user's own: all that a run would refuse, and all that is worth a look, at once."""

from __future__ import annotations

import re
import shlex
import shutil
import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from engine.console import say
from engine.data.declaration import Dataset
from engine.data.folds import fold_of
from engine.data.load import DecodeOptions, contradiction_notes, divide, images_of, read, with_pixels
from engine.data.overlap import contradictions, same_pixels
from engine.data.part import PARTS, RawSplits, Splits
from engine.errors import MOST_LISTED, UserError, agreeing, counted, listed, one_line, refusing
from engine.paths import script_path

FEW = 10  # training images of a class, below which little can be expected of it
MOST_ROWS = 12  # of the table of classes; of more, the smallest and the largest
MOST_LETTERS = 40  # of a class's name in the table
WIDEST = 120  # columns


@dataclass
class Inspection:
    """What there is to say of images."""

    splits: Splits | None = None  # what a run would work with, before anything is left out
    problems: list[UserError] = field(default_factory=list)  # what it would refuse
    notes: list[str] = field(default_factory=list)  # what is worth a look; what follows the first line is a list
    images: int = 0  # that were looked at

    def refuse(self, problem: UserError) -> None:
        """Keep what is to be mended, each thing once."""
        if str(problem) not in map(str, self.problems):
            self.problems.append(problem)


def check_images(
    dataset: Dataset, data_dir: Path, seed: int, options: DecodeOptions, fold: tuple[int, int] | None = None
) -> None:
    """Print what there is, and what is worth a look; every image is decoded, as the run does, and kept for it.

    fold: of how many, and which; None: the parts are those of the files. UserError: all that a run would refuse.
    """
    found = inspect(dataset, data_dir, seed, options, fold)
    if found.splits:
        parts = [part for part in PARTS if not (part == "val" and options.protocol == "paper")]
        of = f"; here fold {fold[1]} of {fold[0]}" if fold else ""
        looked = f"{dataset.name}: {counted(found.images, 'image')}, each opened and decoded{of}"
        say(looked, table(found.splits, parts))
    if found.notes:
        say("", "Worth a look:", *(_wrapped(_with_place(note, dataset), "- ") for note in found.notes))
    if found.problems:
        number = counted(len(found.problems), "thing")
        lines = [_wrapped(_shortened(str(problem)), f"{place}. ") for place, problem in enumerate(found.problems, 1)]
        elsewhere = str(found.problems[-1]).endswith(
            " --check"
        )  # the command for the folder, or the file, that is meant
        then = "then the command above" if elsewhere else "then the same command again"
        raise UserError("\n".join([f"{number} to mend before a run:", *lines, f"not ready: {number} to mend, {then}"]))


def ready_line(script: str, arguments: Sequence[str], model: str) -> str:
    """The last line of a check without a problem: the command that trains; `model` is "" where none was chosen."""
    words = [word for word in arguments if word != "--check"]
    command = ["python", script_path(f"{script}.py"), *words, *([] if model else ["-model", "convnext"])]
    return f"ready: {shlex.join(command)}"


def inspect(
    dataset: Dataset, data_dir: Path, seed: int, options: DecodeOptions, fold: tuple[int, int] | None = None
) -> Inspection:
    """All that there is to say of the user's own images, by the functions that a run goes through."""
    found = Inspection()
    options = replace(options, refuse=found.refuse)
    with refusing(found.refuse):  # what leaves nothing more to be looked at
        folds = fold and fold[0]
        raw = read(dataset, data_dir, options.allow_partial, options.protocol, folds=folds, refuse=found.refuse)
        raw = fold_of(raw, *fold) if fold else raw
        found.notes = _notes(raw, options)
        found.splits = splits = _divided(raw, seed, options)
        found.notes += _small_classes(splits)
        images = images_of(dataset, raw, options)
        if images:
            found.images = len(images.digests)
            whole = Splits(raw.classes, *(images.part(part) for part in (raw.train, raw.val or raw.test, raw.test)))
            sides = raw.fold_of or dict.fromkeys(splits.test.names, 1)
            duplicates = _duplicates(whole, sides, options.allow_partial)
            raw, _ = with_pixels(dataset, raw, splits, images, options)
            pairs = contradictions(whole)
            details = {note: f": remove the wrong one{listed(pairs)}" for note in contradiction_notes(pairs)}
            found.notes = [note + details.get(note, "") for note in _notes(raw, options)]
            found.notes += [*duplicates, *_small_classes(splits)]
    return found


def _notes(raw: RawSplits, options: DecodeOptions) -> list[str]:
    """What a run says; its differences are refused, but for --allow-partial."""
    return [*raw.notes, *(raw.differences if options.allow_partial else ())]


def _divided(raw: RawSplits, seed: int, options: DecodeOptions) -> Splits:
    """The parts; the validation part is empty where none can be held out, which is refused."""
    with refusing(options.refuse):
        return divide(raw, options.protocol, seed, options.budget)
    return Splits(raw.classes, raw.train, raw.train.take(np.array([], dtype=np.int64)), raw.test)


def _duplicates(whole: Splits, sides: Mapping[str, int], allow_partial: bool) -> list[str]:
    """A note on the images with the pixels of another of their class, as far as a run does not refuse them.

    That it does, unless `allow_partial`, where they are on two of the `sides`.
    """
    same = []
    for images in same_pixels(whole):
        for label in sorted({label for _, label in images}):
            names = [name for name, own in images if own == label]
            if len(names) > 1 and (allow_partial or len({sides.get(name) for name in names}) == 1):
                same.append(" = ".join(names))
    if not same:
        return []
    more = sum(line.count(" = ") for line in same)
    return [
        f"{counted(more, 'image', 'have')} the pixels of another of the same class: remove one of each two"
        f"{listed(same)}"
    ]


def _small_classes(splits: Splits) -> list[str]:
    """A note on the classes with fewer than FEW training images."""
    counts = np.bincount(splits.train.labels, minlength=len(splits.classes)).tolist()
    small = sorted((count, name) for name, count in zip(splits.classes, counts, strict=True) if count < FEW)
    if not small:
        return []
    lines = [f"{name}: {counted(count, 'training image')}" for count, name in small]
    share = f"{len(small):,} of {counted(len(counts), 'class')} {agreeing(len(small), 'have')}"
    return [f"{share} fewer than {FEW} training images: add images, or expect little of them{listed(lines)}"]


def table(splits: Splits, parts: Sequence[str]) -> str:
    """The images of each class and part, a line a class; of many classes, the smallest and the largest."""
    counts = np.array(
        [np.bincount(getattr(splits, part).labels, minlength=len(splits.classes)) for part in parts]
    ).transpose()
    order = list(range(len(counts)))
    left_out = len(counts) - MOST_ROWS
    if left_out > 1:
        by_size = sorted(order, key=lambda label: (int(counts[label].sum()), splits.classes[label]))
        order = [*by_size[: MOST_ROWS // 2], *by_size[-MOST_ROWS // 2 :]]
    rows = [(_cut(splits.classes[label]), *(f"{number:,}" for number in counts[label].tolist())) for label in order]
    if left_out > 1:
        rows.insert(MOST_ROWS // 2, (f"... {left_out:,} of sizes between ...", *("" for _ in parts)))
    total = (counted(len(counts), "class"), *(f"{number:,}" for number in counts.sum(axis=0).tolist()))
    rows = [("class", *parts), *rows, total]
    width = max(len(row[0]) for row in rows)
    return "\n".join((row[0].ljust(width) + "".join(cell.rjust(9) for cell in row[1:])).rstrip() for row in rows)


def _cut(name: str) -> str:
    name = one_line(name)
    return name if len(name) <= MOST_LETTERS else f"{name[: MOST_LETTERS - 3]}..."


def _shortened(message: str) -> str:
    """A message of whose lists only the first MOST_LISTED lines are left, and how many the others are."""
    lines: list[str] = []
    row = 0  # of a list
    for line in [*message.split("\n"), ""]:
        if row > MOST_LISTED and not line.startswith(" "):
            lines.append(f"  ... and {row - MOST_LISTED:,} more")
        row = row + 1 if line.startswith(" ") else 0
        if row <= MOST_LISTED:
            lines.append(line)
    return "\n".join(lines[:-1])


def _with_place(note: str, dataset: Dataset) -> str:
    """A note that ends in a command, with that in a line of its own: notes in a record know the folder as DIR alone."""
    match = re.fullmatch(r"(.*): python folder\.py (.*) --check", note)
    if not match or not dataset.own_folder:
        return note
    place = dataset.own_folder / shlex.split(match[2])[0].removeprefix("DIR/")
    return f"{match[1]}:\n  {shlex.join(['python', script_path('folder.py'), str(place), '--check'])}"


def _wrapped(text: str, mark: str) -> str:
    """A text within the terminal's width, behind `mark`; lines of lists, such as commands, stay whole."""
    width = min(shutil.get_terminal_size().columns, WIDEST)
    blank = " " * len(mark)
    lines: list[str] = []
    for line in text.split("\n"):
        if line.startswith(" "):
            lines.append(blank + line)
        else:
            lines += textwrap.wrap(
                line,
                width,
                initial_indent=blank if lines else mark,
                subsequent_indent=blank,
                break_long_words=False,
                break_on_hyphens=False,
            )
    return "\n".join(lines)
