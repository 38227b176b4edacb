"""The checkpoints that are asked for: one, or several whose probabilities are averaged."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import common
from engine.config import FLAGS, MACHINE, asked
from engine.errors import UserError, counted, one_line
from engine.inference.checkpoint import EXPECTED, Trained
from engine.paths import exists, is_dir
from engine.records.schema import CHECKPOINT, RECORD, Record, RecordError, read_record

DEPTH = 3  # levels below a folder at which runs are looked for: DATASET/BACKBONE/RUN


@dataclass(frozen=True)
class Chosen:
    """The checkpoints that a command names, and what is said of what was left out."""

    members: tuple[Trained, ...]
    notes: tuple[str, ...] = ()

    @property
    def classes(self) -> tuple[str, ...]:
        """Their names, in the order of the logits, which is that of every member."""
        return self.members[0].classes

    @property
    def name(self) -> str:
        """What the answer is by, in words: a backbone, or several."""
        names = [each.record["backbone"]["name"] for each in self.members]
        counts = [(name, len([*same])) for name, same in groupby(sorted(names))]
        shown = " and ".join(name if number == 1 else f"{number} x {name}" for name, number in counts)
        return shown if len(names) == 1 else f"the mean of {shown}"


def choose(text: str) -> Chosen:
    """What `text` names: a run's folder, a checkpoint, a folder that holds several runs, or several with commas.

    UserError: one can't be used, or they can't be taken together.
    """
    paths = [Path(part).expanduser() for part in ([text] if exists(Path(text).expanduser()) else text.split(","))]
    found, notes = [], []
    for path in paths:
        folders, left_out = _runs_in(path)
        found += folders
        notes += left_out
    if twice := [path for path, number in Counter(path.resolve() for path in found).items() if number > 1]:
        raise UserError(f"{text} names {twice[0]} twice. Name each run once.")
    members = tuple(common.load(path) for path in found)
    _require_alike(found, members)
    return Chosen(members, tuple(notes))


def _runs_in(path: Path) -> tuple[list[Path], list[str]]:
    """The runs that a path means, and a line for each that has not ended."""
    if not is_dir(path) or (path / CHECKPOINT).exists() or (path / RECORD).exists():
        return [path], []
    for depth in range(1, DEPTH + 1):
        records = sorted(path.glob("/".join(["*"] * depth + [RECORD])))
        if records:
            return _of_folder(path, records)
    raise UserError(f"{path} holds no {CHECKPOINT}, and no run that has one. {EXPECTED}")


def _of_folder(path: Path, places: Sequence[Path]) -> tuple[list[Path], list[str]]:
    """Those runs of a folder that have ended. UserError: none has, or they are not one setting's seeds and folds."""
    notes, done = [], list[tuple[Path, Record]]()
    for place in places:
        try:
            record = read_record(place)
        except RecordError as problem:
            raise UserError(f"{place}: {problem}. Name the runs that you mean, with commas between them.") from problem
        if record and record["status"] == "done":
            done.append((place.parent, record))
        else:
            notes.append(f"left out   {place.parent}: it has not ended")
    if not done:
        raise UserError(f"{path}: none of {counted(len(places), 'run')} in it has ended. Let one finish first.")
    folders = sorted({folder.parent for folder, _ in done})
    if len(folders) > 1:
        lines = "".join(f"\n  {one_line(str(folder))}" for folder in folders)
        raise UserError(f"{path} holds runs of several backbones or datasets. Name one of them:{lines}")
    settings = [_setting(record) for _, record in done]
    names = {name for setting in settings for name in setting}
    if differ := sorted(name for name in names if len({repr(setting.get(name)) for setting in settings}) > 1):
        lines = "".join(f"\n  {one_line(str(folder))}" for folder, _ in done)
        raise UserError(
            f"{path} holds runs of different settings ({', '.join(differ)}). Name those that you mean, with commas "
            f"between them:{lines}"
        )
    return [folder for folder, _ in done], notes


def _setting(record: Record) -> dict[str, Any]:
    """What was asked for, beside what the members of an ensemble may differ in."""
    own = {name for name, known in FLAGS.items() if known.metadata["role"] == MACHINE} | {"seed", "fold"}
    flags = {name: value for name, value in asked(record["config"]).items() if name not in own}
    return {"weights": record["backbone"]["weights"], **flags}


def _require_alike(paths: Sequence[Path], members: Sequence[Trained]) -> None:
    first = members[0]
    for path, member in zip(paths, members, strict=True):
        if member.classes != first.classes:
            same = sorted(member.classes) == sorted(first.classes)
            how = "the same classes in another order" if same else _difference(first.classes, member.classes)
            raise UserError(
                f"{paths[0]} and {path} can't be taken together: {how}. Expected checkpoints that were trained on one "
                "dataset."
            )
        if member.preprocessing.stored_size != first.preprocessing.stored_size:
            one, other = ("x".join(map(str, each.preprocessing.stored_size)) for each in (first, member))
            raise UserError(
                f"{paths[0]} and {path} can't be taken together: images are decoded to {one} for the one and to "
                f"{other} for the other. Expected checkpoints that were trained with one --size."
            )


def _difference(one: Sequence[str], other: Sequence[str]) -> str:
    for which, names in (("first", set(one) - set(other)), ("other", set(other) - set(one))):
        if names:
            return f"{counted(len(names), 'class')} of the {which} alone, such as {one_line(min(names))}"
    return f"{len(one):,} classes and {len(other):,}"
