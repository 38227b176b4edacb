"""What is done, interrupted and failed: from the runs' records, and from the failures kept in OUT/grid."""

from __future__ import annotations

import fcntl
import json
import os
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path

from engine.errors import RunError, UserError, reason_of
from engine.files import digest, write_json
from engine.paths import writable
from engine.records.schema import GRID_FOLDER, RECORD, Record, RecordError, now, read_record
from grids.cells import Cell, key_of


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
    named = (cell.id, cell.dataset.key, config.model, config.seed, cell.budget)
    return Failure(*named, exit_code, reason, list(tail), now(), ["python", *cell.command])


@dataclass(frozen=True)
class Standing:
    """How far a cell has come."""

    status: str  # "done", "failed", "interrupted" or "new"
    record: Record | None = None
    failure: Failure | None = None


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


def read_records(paths: Iterable[Path]) -> list[Record]:
    """The records that can be read: what is wrong with another one, its script will say."""
    records: list[Record] = []
    for path in paths:
        try:
            record = read_record(path)
            if record and record_key(record):
                records.append(record)
        except (RecordError, KeyError, TypeError, ValueError, AttributeError):
            continue
    return records


def all_records(out: Path) -> list[Record]:
    """The records of every run under `out`."""
    return read_records(sorted(out.glob(f"*/*/*/{RECORD}")))


def own_records(cell: Cell) -> list[Record]:
    """The records of the cell's own dataset, backbone and seed."""
    config = cell.config
    folder = config.out / cell.dataset.key / config.model
    return read_records(sorted(folder.glob(f"*-seed{config.seed}-*/{RECORD}")))


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
    by_status = {record["status"]: record for record in records if _belongs(record, cell)}
    if "done" in by_status:
        return Standing("done", by_status["done"])
    failure = read_failure(cell)
    if failure and failure.retried:
        return Standing("interrupted", by_status.get("running"))
    if failure is None and "failed" in by_status:  # its script was started by hand
        failure = failure_now(cell, RunError.exit_code, str(by_status["failed"].get("error")), ())
    if failure is not None:
        return Standing("failed", by_status.get("failed"), failure)
    return Standing("interrupted", by_status["running"]) if "running" in by_status else Standing("new")


def standing_now(cell: Cell) -> Standing:
    """How far `cell` has come, read anew."""
    return standing(cell, by_key(own_records(cell)).get(cell.key, ()))


def _belongs(record: Record, cell: Cell) -> bool:
    """Whether a record with the cell's key is of the data that the cell is to be run on."""
    if record["dataset"].get("partial") and not cell.config.allow_partial:
        return False
    weights = cell.config.weights
    if Path(weights).is_file() and record["backbone"]["weights_sha256"] != _digest(weights):
        return False
    place = cell.dataset.own_folder
    # folders of one name are told apart by what the command named
    command = record.get("environment", {}).get("command", [])
    return place is None or any(Path(word).resolve() == place for word in command[1:])


@cache
def _digest(path: str) -> str:
    return digest(Path(path))


def read_failure(cell: Cell) -> Failure | None:
    """The failure that is kept of `cell`, if any."""
    try:
        kept = json.loads(_failure_path(cell).read_text("utf-8"))
        return Failure(**kept)
    except (OSError, ValueError, TypeError):
        return None


def keep_failure(cell: Cell, failure: Failure) -> None:
    """Write it down, in the place of an earlier one."""
    write_json(_failure_path(cell), asdict(failure))


def mark_retried(cell: Cell, failure: Failure) -> None:
    """The cell is tried again; what is kept says so until its end, since its record says "failed" for a while."""
    keep_failure(cell, replace(failure, retried=True))


def drop_failure(cell: Cell) -> None:
    """The cell is done."""
    _failure_path(cell).unlink(missing_ok=True)


def _failure_path(cell: Cell) -> Path:
    return grid_folder(cell.config.out) / f"{cell.id}.json"


def take(cell: Cell) -> int | None:
    """The descriptor of the cell's locked lock file; None: another grid, or a run that one left behind, is at it.

    The lock lasts until every process that has the descriptor has closed it, if only by its end.
    """
    path = grid_folder(cell.config.out) / f"{cell.id}.lock"
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
