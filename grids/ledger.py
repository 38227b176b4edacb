"""What is done, interrupted and failed: from the runs' records, and from the failures kept in OUT/grid."""

from __future__ import annotations

import fcntl
import os
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

from engine.code_hash import code_of
from engine.errors import RunError, UserError, reason_of
from engine.files import read_json, write_json
from engine.models.weights_folder import digest_of, is_path
from engine.paths import writable
from engine.records.identity import other_codes
from engine.records.printed import RECORD_LINE, result_line
from engine.records.schema import GRID_FOLDER, RECORD, Record, RecordError, Status, now, read_record
from grids.cells import Cell, key_of
from grids.images import split_of

MENDABLE = UserError.exit_code  # what scripts end with where the user can mend it
REASON_LETTERS = 1000
LARGEST_FAILURE = 1 << 20  # bytes: 50 lines of 64 KiB together, escaped
HEARTBEAT = ".heartbeat"  # how the names of the files end that cells leave signs of life in


@dataclass(frozen=True)
class Failure:
    """Why a cell failed, as OUT/grid/<cell id>.json keeps it."""

    cell: str
    dataset: str
    model: str
    seed: int
    budget: str
    exit_code: int | None  # negative: the signal that ended it; None: nobody saw its end
    reason: str
    tail: list[str]  # the last lines that it printed
    at: str  # UTC, ISO 8601
    command: list[str]
    retried: bool = False  # a grid has started it again, and has not seen its end


def failure_now(cell: Cell, exit_code: int | None, reason: str, tail: Sequence[str]) -> Failure:
    """The failure of `cell` that has just been seen."""
    config = cell.config
    named = (cell.id, cell.dataset.key, cell.row, config.seed, cell.budget)
    return Failure(*named, exit_code, reason, list(tail), now(), ["python", *cell.command])


@dataclass(frozen=True)
class Standing:
    """How far a cell has come."""

    status: str  # "done", "failed", "interrupted" or "new"
    record: Record | None = None
    failure: Failure | None = None
    other_images: bool = False  # there are records that would be the cell's if they were of the images that lie there
    other_code: bool = False  # `record` was made, or begun, by other code than what is here

    @property
    def remarks(self) -> list[str]:
        """What is to be said of its records, if anything."""
        remarks = {OTHER_CODE: self.other_code, OTHER_IMAGES: self.other_images}
        return [remark for remark, holds in remarks.items() if holds]


OTHER_CODE = "made by other code than what is here: --rerun makes such cells anew"
OTHER_IMAGES = "recorded of other images, or of images that have yet to be decoded here: their scripts will tell"


def grid_folder(out: Path) -> Path:
    """Where the grid keeps its own files: failures, logs, locks."""
    return out / GRID_FOLDER


def make_folder(out: Path) -> None:
    """Make the grid's own folder. UserError: it can't be written to."""
    folder = grid_folder(out)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        problem = "" if writable(folder) else "permission denied"
    except OSError as error:
        problem = reason_of(error)
    if problem:
        raise UserError(f"{folder} can't be written to: {problem}. --out chooses another folder.")


def read_records(paths: Iterable[Path], damaged: list[str] | None = None) -> list[Record]:
    """The records that can be read; `damaged` takes a line for each of the others.

    One that is done is one whose result its script can print.
    """
    records: list[Record] = []
    for path in paths:
        try:
            record = read_record(path)
            if record and record_key(record):
                if record["status"] == "done":
                    result_line(record)
                records.append(record)
        except (RecordError, KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as problem:
            if damaged is not None:
                what = str(problem) if isinstance(problem, RecordError) else f"{type(problem).__name__}: {problem}"
                damaged.append(f"{path}: {shortened(what)}")
    return records


def all_records(out: Path, damaged: list[str] | None = None) -> list[Record]:
    """The records of every run under `out`; `damaged` as read_records() has it."""
    return read_records(sorted(out.glob(f"*/*/*/{RECORD}")), damaged)


def own_records(cell: Cell) -> list[Record]:
    """The records of the cell's own dataset, backbone and seed."""
    return read_records(sorted(cell.folder.glob(f"*-seed{cell.config.seed}-*/{RECORD}")))


def record_named(printed: Sequence[str]) -> Record | None:
    """The record of the run that a script named last in what it printed."""
    folders = [line.removeprefix(RECORD_LINE) for line in printed if line.startswith(RECORD_LINE)]
    records = read_records(Path(folder) / RECORD for folder in folders[-1:])
    return records[0] if records else None


def record_key(record: Record) -> str:
    """The key of the cells that the record belongs to."""
    return key_of(record["dataset"]["key"], record["dataset"]["version"], record["config"])


def by_key(records: Iterable[Record]) -> dict[str, list[Record]]:
    """The records of each key."""
    grouped: dict[str, list[Record]] = {}
    for record in records:
        grouped.setdefault(record_key(record), []).append(record)
    return grouped


def standing(cell: Cell, records: Iterable[Record]) -> Standing:
    """How far `cell` has come; `records` are those with its key."""
    candidates = [record for record in records if _asked_for(record, cell)]
    by_status = {record["status"]: record for record in candidates if _of_these_images(record, cell)}
    found = _standing(cell, by_status)
    other_images = not by_status and bool(candidates)
    return replace(found, other_code=_is_of_other_code(found.record, cell), other_images=other_images)


def _is_of_other_code(record: Record | None, cell: Cell) -> bool:
    if record is None:
        return False
    code = code_of(cell.dataset.read, cell.backbone.source, cell.backbone.arguments)
    return bool(other_codes(record, code))


def _standing(cell: Cell, by_status: Mapping[Status, Record]) -> Standing:
    if "done" in by_status:
        return Standing("done", by_status["done"])
    failure = read_failure(cell)
    if failure and failure.retried:
        return Standing("interrupted", by_status.get("running"))
    if failure is None and "failed" in by_status:  # its script was started by hand
        failure = failure_now(cell, RunError.exit_code, shortened(str(by_status["failed"].get("error"))), ())
    if failure is not None:
        return Standing("failed", by_status.get("failed"), failure)
    return Standing("interrupted", by_status["running"]) if "running" in by_status else Standing("new")


def to_be_tried(found: Standing, retry_failed: bool) -> bool:
    """Whether such a cell is run: one that failed by what the user can mend always, since looking again takes seconds.

    What crashed, hung or diverged, perhaps after hours, is tried again only if the user says so.
    """
    if found.status == "failed":
        return retry_failed or by_mistake(found)
    return found.status != "done"


def by_mistake(found: Standing) -> bool:
    """Whether the cell failed by what the user can mend."""
    return found.failure is not None and found.failure.exit_code == MENDABLE


def start_over(found: Standing) -> Standing:
    """How far a cell has come that is to be run anew."""
    return found if found.status == "failed" else Standing("new", found.record)


def standing_now(cell: Cell) -> Standing:
    """How far `cell` has come, read anew."""
    return standing(cell, by_key(own_records(cell)).get(cell.key, ()))


def _asked_for(record: Record, cell: Cell) -> bool:
    """Whether the cell asks for data, and begins from weights, such as those of a record with its key."""
    if record["dataset"].get("partial") and not cell.config.allow_partial:
        return False
    weights = cell.config.weights
    return not is_path(weights) or record["backbone"].get("weights_sha256") == _digest(weights)


def _of_these_images(record: Record, cell: Cell) -> bool:
    """Whether the images that lie there now are known to be those of the record.

    A dataset that was whole, and has counts, is what its declaration says.
    """
    known = cell.dataset.expected(cell.config.protocol)
    if known and all(known) and not record["dataset"].get("partial"):
        return True
    split = split_of(cell)
    return split is not None and record["dataset"].get("split") == split


@cache
def _digest(path: str) -> str:
    return digest_of(Path(path))


def read_failure(cell: Cell) -> Failure | None:
    """The failure that is kept of `cell`, if any."""
    try:
        kept = Failure(**read_json(_failure_path(cell), LARGEST_FAILURE))
    except (OSError, ValueError, TypeError):
        return None
    lines = [kept.reason, *kept.tail] if isinstance(kept.tail, list) else [None]
    return kept if all(isinstance(line, str) for line in lines) else None


def keep_failure(cell: Cell, failure: Failure) -> None:
    """Write it down, in the place of an earlier one."""
    write_json(_failure_path(cell), asdict(failure))


def mark_retried(cell: Cell, failure: Failure) -> None:
    """The cell is tried again; what is kept says so until its end, since its record says "failed" for a while."""
    keep_failure(cell, replace(failure, retried=True))


def drop_failure(cell: Cell) -> None:
    """The cell is done."""
    with suppress(OSError):  # its record says more
        _failure_path(cell).unlink(missing_ok=True)


def _failure_path(cell: Cell) -> Path:
    return grid_folder(cell.config.out) / f"{cell.id}.json"


def take(cell: Cell) -> int | None:
    """The descriptor of the cell's locked lock file; None: another grid, or a run that one left behind, is at it.

    The lock lasts until every process that has the descriptor has closed it, if only by its end.
    """
    return _locked(grid_folder(cell.config.out) / f"{cell.id}.lock")


def clear_leftovers(out: Path) -> None:
    """Remove what killed grids, and the processes that were killed with them, left of cells that nobody is at.

    That is signs of life, and failures that were being written.
    """
    folder = grid_folder(out)
    left = {path: path.name.partition(HEARTBEAT)[0] for path in folder.glob(f"*{HEARTBEAT}*")}
    left |= {path: path.name[1:].partition(".json.")[0] for path in folder.glob(".*.json.*.tmp")}
    for path, cell in left.items():
        with suppress(OSError):
            lock = _locked(path.with_name(f"{cell}.lock"))
            if lock is not None:
                try:
                    path.unlink()
                finally:
                    os.close(lock)


def _locked(path: Path) -> int | None:
    """The descriptor of a lock file, locked; None: another process has it."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        os.close(descriptor)
        return None
    except BaseException:
        os.close(descriptor)
        raise
    return descriptor


def shortened(text: str, most: int = REASON_LETTERS) -> str:
    """A message in a line of at most so many letters, cut at the end of a word where there is one."""
    if len(text) <= most:
        return text
    whole = text[: most - 3].rpartition(" ")[0]
    return f"{(whole or text[: most - 3]).rstrip(' ,;:')}..."
