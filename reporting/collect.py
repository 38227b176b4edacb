"""A folder of runs -> what a report keeps of each record, and a line for each file that is none."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.errors import UserError
from reporting.entry import Entry, NotARecordError, clean, content_of, read_entry, why_unreadable

MOST_NAMED = 5  # strange files of one folder
HOW_TO_MAKE_RECORDS = (
    "Make one: `make demo`, or `python digits.py -model shufflenet -bs 32 --weights auto`. "
    "Records that lie elsewhere: python report.py DIR"
)


@dataclass
class Collected:
    """All that was found in a folder of runs."""

    entries: list[Entry] = field(default_factory=list)
    skipped: list[dict[str, str]] = field(default_factory=list)  # path, reason
    failed: list[dict[str, str]] = field(default_factory=list)  # cell, reason, tail


def collect(runs: Path, ignore: Path | None = None) -> Collected:
    """Read every record below `runs`, one at a time, in the order of their paths; `ignore` is a folder to leave alone.

    Raises UserError where there is no folder or nothing in it that a report could show.
    """
    if not runs.exists():
        raise UserError(f"there is no folder {runs}, where records were expected. {HOW_TO_MAKE_RECORDS}")
    if not runs.is_dir():
        raise UserError(f"{runs} is a file. Expected the folder that holds the records. {HOW_TO_MAKE_RECORDS}")
    found = Collected()
    shared: dict[Any, Any] = {}
    for folder, files in _folders(runs, ignore, found):
        if folder == runs / "grid":
            _read_failures(folder, files, found)
        elif "record.json" in files:
            path = folder / "record.json"
            try:
                found.entries.append(read_entry(path, _name(folder, runs), shared))
            except NotARecordError as problem:
                found.skipped.append({"path": _name(path, runs), "reason": str(problem)})
        else:
            _name_strangers(folder, files, runs, found)
    if not found.entries and not found.failed:
        lines = [f"{line['path']}: {line['reason']}" for line in found.skipped[:MOST_NAMED]]
        what = "nothing but files that are no records" if lines else "nothing"
        raise UserError("\n".join([f"found {what} in {runs}, no record. {HOW_TO_MAKE_RECORDS}", *lines]))
    return found


def _folders(runs: Path, ignore: Path | None, found: Collected) -> Iterator[tuple[Path, list[str]]]:
    """Every folder with the files that are not hidden; nothing below a run's own folder, none twice through links."""
    seen: set[tuple[int, int]] = set()
    left_alone = ignore.resolve() if ignore else None

    def complain(problem: OSError) -> None:
        found.skipped.append({"path": clean(problem.filename), "reason": f"can't be read: {problem.strerror}"})

    for place, folders, files in os.walk(runs, onerror=complain, followlinks=True):
        state = Path(place).stat()
        if (state.st_dev, state.st_ino) in seen or (left_alone and Path(place).resolve() == left_alone):
            folders.clear()
            continue
        seen.add((state.st_dev, state.st_ino))
        if "record.json" in files:
            folders.clear()
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield Path(place), sorted(name for name in files if not name.startswith("."))


def _name_strangers(folder: Path, files: list[str], runs: Path, found: Collected) -> None:
    if {"split.json", "history.csv", "checkpoint.pt"} & set(files):
        found.skipped.append({"path": _name(folder, runs), "reason": "a run without record.json"})
    elif len(files) > MOST_NAMED:
        reason = f"{len(files):,} files that are no records"
        found.skipped.append({"path": _name(folder, runs), "reason": reason})
    else:
        found.skipped += [{"path": _name(folder / file, runs), "reason": "no record"} for file in files]


def _read_failures(folder: Path, files: list[str], found: Collected) -> None:
    """Cells that grid.py could not finish; its other files are not the report's business."""
    for file in files:
        if not file.endswith(".json"):
            continue
        try:
            content = json.loads(content_of(folder / file))
        except (NotARecordError, ValueError, RecursionError) as problem:
            found.skipped.append({"path": f"grid/{clean(file)}", "reason": why_unreadable(problem)})
            continue
        if isinstance(content, dict) and content.get("reason"):
            cell = clean(str(content.get("cell") or file.removesuffix(".json")))
            reason, tail = clean(str(content["reason"]), lines=True), clean(str(content.get("tail") or ""), lines=True)
            found.failed.append({"cell": cell, "reason": reason, "tail": tail})


def _name(path: Path, runs: Path) -> str:
    inside = path.relative_to(runs)
    return clean(str(inside if inside.parts else path.resolve().name))
