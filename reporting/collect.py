"""A folder of runs -> what a report keeps of each record, and a line for each file that is none."""

from __future__ import annotations

import json
import os
import shlex
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.errors import UserError
from engine.files import read_small
from engine.records.schema import CHECKPOINT, GRID_FOLDER, HISTORY, RANK_FOLDER, RECORD, SPLIT, RecordError
from reporting import rank_results
from reporting.entry import Entry, read_entry
from reporting.fields import clean, shortened
from reporting.rank_results import Found

LARGEST_FAILURE = 1 << 20  # bytes of one of grid.py's files
LONGEST_TAIL = 10_000  # letters that a cell printed last
MOST_WORDS = 200  # of a cell's command
MOST_DEPTH = 50  # of folders; a run's lies three deep
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
    failed: list[dict[str, str]] = field(default_factory=list)  # cell, reason, tail; what it was of, where it says so
    ranked: list[Found] = field(default_factory=list)  # what rank.py found out, the newest first


def collect(runs: Path, ignore: Path | None = None) -> Collected:
    """Read every record below `runs`, one at a time, in the order of their paths; `ignore` is a folder to leave alone.

    Raises UserError where there is no folder or nothing in it that a report could show.
    """
    if not os.access(runs, os.F_OK):
        raise UserError(f"there is no folder {runs}, where records were expected. {HOW_TO_MAKE_RECORDS}")
    if not runs.is_dir():
        raise UserError(f"{runs} is a file. Expected the folder that holds the records. {HOW_TO_MAKE_RECORDS}")
    collected = Collected()
    shared: dict[Any, Any] = {}
    for folder, files in _folders(runs, ignore, collected):
        if folder == runs / GRID_FOLDER:
            _read_failures(folder, files, collected)
        elif folder == runs / RANK_FOLDER:
            read = rank_results.in_folder(folder, files)
            collected.ranked, collected.skipped = read.found, [*collected.skipped, *read.skipped]
        elif RECORD in files:
            path = folder / RECORD
            try:
                entry = read_entry(path, _name(folder, runs), shared)
            except RecordError as problem:
                collected.skipped.append({"path": _name(path, runs), "reason": shortened(str(problem))})
            else:
                collected.entries += [entry] if entry else []
                if entry is None and path.is_symlink():
                    reason = "a link to a file that is not there"
                    collected.skipped.append({"path": _name(path, runs), "reason": reason})
        elif runs / RANK_FOLDER not in folder.parents:  # rank.py keeps there what it likes
            _name_strangers(folder, files, runs, collected)
    if not collected.entries and not collected.failed and not collected.ranked:
        lines = [f"{line['path']}: {line['reason']}" for line in collected.skipped[:MOST_NAMED]]
        what = "nothing but files that are no records" if lines else "nothing"
        raise UserError("\n".join([f"found {what} in {runs}, no record. {HOW_TO_MAKE_RECORDS}", *lines]))
    return collected


def _folders(runs: Path, ignore: Path | None, collected: Collected) -> Iterator[tuple[Path, list[str]]]:
    """Every folder with the files that are not hidden; nothing below a run's own folder, none twice through links."""
    seen: set[tuple[int, int]] = set()
    left_alone = ignore.resolve() if ignore else None

    def complain(problem: OSError) -> None:
        reason = f"can't be read: {problem.strerror}"
        collected.skipped.append({"path": clean(str(problem.filename)), "reason": reason})

    for place, folders, files in os.walk(runs, onerror=complain, followlinks=True):
        try:
            state = Path(place).stat()
        except OSError as problem:  # it went away meanwhile
            complain(problem)
            folders.clear()
            continue
        if (state.st_dev, state.st_ino) in seen or (left_alone and Path(place).resolve() == left_alone):
            folders.clear()
            continue
        seen.add((state.st_dev, state.st_ino))
        if RECORD in files or len(Path(place).parts) - len(runs.parts) > MOST_DEPTH:
            folders.clear()
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        yield Path(place), sorted(name for name in files if not name.startswith("."))


def _name_strangers(folder: Path, files: list[str], runs: Path, collected: Collected) -> None:
    if {SPLIT, HISTORY, CHECKPOINT} & set(files):
        collected.skipped.append({"path": _name(folder, runs), "reason": f"a run without {RECORD}"})
    elif len(files) > MOST_NAMED:
        reason = f"{len(files):,} files that are no records"
        collected.skipped.append({"path": _name(folder, runs), "reason": reason})
    else:
        collected.skipped += [{"path": _name(folder / file, runs), "reason": "no record"} for file in files]


def _read_failures(folder: Path, files: list[str], collected: Collected) -> None:
    """Cells that grid.py could not finish; its other files are not the report's business."""
    for file in files:
        if not file.endswith(".json"):
            continue
        try:
            content = json.loads(read_small(folder / file, LARGEST_FAILURE))
        except (OSError, ValueError, RecursionError) as problem:
            reason = clean(f"can't be read: {problem}")
            collected.skipped.append({"path": f"{GRID_FOLDER}/{clean(file)}", "reason": reason})
            continue
        if isinstance(content, dict) and content.get("reason"):
            cell = shortened(str(content.get("cell") or file.removesuffix(".json")))
            tail = content.get("tail") or ""
            text = "\n".join(map(str, tail)) if isinstance(tail, list) else str(tail)
            reason = shortened(str(content["reason"]), lines=True)
            collected.failed.append({"cell": cell, "reason": reason, "tail": clean(text[-LONGEST_TAIL:], lines=True)})
            named = [name for name in ("dataset", "model", "seed", "budget") if content.get(name) is not None]
            collected.failed[-1] |= {name: shortened(str(content[name])) for name in named}
            command = content.get("command")
            if isinstance(command, list) and len(command) <= MOST_WORDS:
                collected.failed[-1]["command"] = clean(shlex.join(map(str, command)))


def _name(path: Path, runs: Path) -> str:
    inside = path.relative_to(runs)
    return clean(str(inside if inside.parts else path.resolve().name))
