"""runs/<dataset>/<backbone>/<run id>/: the files of a run, every one of them whole or absent."""

from __future__ import annotations

import csv
import errno
import io
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, TypeVar

import filelock
import numpy as np
from torch import nn

from engine.console import say
from engine.errors import RunError, UserError, reason_of
from engine.files import DAMAGED_ARRAYS, atomic, digest, json_digest, set_aside, write_json, write_text
from engine.models.names import folder_name
from engine.paths import without_home
from engine.records import checkpoint
from engine.records.describe import Outcome, calibrated, results, tiles_of_errors
from engine.records.identity import is_other_seed, matches
from engine.records.printed import result_line
from engine.records.run_lock import LostLockError, RunLock
from engine.records.schema import (
    BUSY,
    CHECKPOINT,
    ERRORS,
    HISTORY,
    PREDICTIONS,
    PREVIOUS,
    RECORD,
    SCHEMA,
    SPLIT,
    OtherSchemaError,
    RecordError,
    as_record,
    now,
    read_record,
)
from engine.records.tensorboard import EVENTS, Events
from engine.training.plan import Plan
from engine.training.state import State

Made = TypeVar("Made")
FILES = (RECORD, CHECKPOINT, PREVIOUS, HISTORY, PREDICTIONS, ERRORS, SPLIT)
LOST = "is lost"
FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)


class Run:
    """One run's folder, found by what the run is; `rerun` disregards what lies there.

    With `tensorboard`, an event file is kept there as well.

    identity: all that can change the run's numbers, "dataset", and in "asked" the flags. A folder whose record has the
    same identity is the run's own, whatever version of this project gave it its name. Raises UserError when the record
    that lies in the folder can't be read.
    """

    resumable = True

    def __init__(self, out: Path, identity: Mapping[str, Any], rerun: bool = False, tensorboard: bool = False) -> None:
        asked = identity["asked"]
        name = f"{asked.get('protocol', 'honest')}-seed{asked.get('seed', 0)}"
        name += f"-fold{asked['fold']}of{asked['folds']}" if "folds" in asked else ""
        new = f"{name}-{json_digest(identity)[:10]}"
        siblings = out / identity["dataset"] / folder_name(asked["model"])
        self.folder = siblings / new
        if not self.folder.exists():
            self.folder = _earlier(siblings, name, identity) or self.folder
        self.id = self.folder.name
        self.rerun = rerun
        self.tensorboard = tensorboard
        self._identity = identity
        self._events: Events | None = None
        self._seen: Mapping[str, Any] = {}
        self._split: Mapping[str, Any] = {}
        self._lock: RunLock | None = None
        self._ids = {self.id}  # by which its files may know it
        if not rerun:
            self._mend()
        self.record: dict[str, Any] = {} if rerun else self._read()

    def _mend(self) -> None:
        """Make a record that is lost or damaged anew of what the checkpoint says, if it is of this run."""
        path = self.folder / RECORD
        try:
            damage = "" if read_record(path) else LOST
        except OtherSchemaError:
            return
        except RecordError as problem:
            damage = f"is damaged ({problem})"
        record = checkpoint.record_in(self.folder) if damage else None
        if record is None:
            if damage == LOST and checkpoint.has_checkpoint(self.folder):
                raise UserError(
                    f"{self.folder} holds a {CHECKPOINT} that does not say of what run it is, and no {RECORD}. Put "
                    "that back, or start over with --rerun."
                )
            return
        try:
            whole = matches(as_record(record), self._identity)
        except (RecordError, KeyError, TypeError, AttributeError):
            whole = False
        if not whole:
            raise UserError(
                f"{self.folder} holds the {CHECKPOINT} of another run. Move it away, or start over with --rerun."
            )
        with self._locked():
            aside = f", set aside as {set_aside(path).name}" if os.path.lexists(path) else ""
            self.record = record
            if record["status"] == "done":
                self.record["files"] = {**record.get("files", {}), CHECKPOINT: digest(self.folder / CHECKPOINT)}
            self._write_record()
            say(f"note       {path} {damage}{aside}: made anew of what {CHECKPOINT} says")

    def _read(self) -> dict[str, Any]:
        """The record that lies in the folder; {} where there is none."""
        path = self.folder / RECORD
        try:
            record: dict[str, Any] = {**(read_record(path) or {})}
            record.pop("checksum", None)  # of what it says as yet
            if record.get("status") == "done":
                result_line(record)
            elif record and self._resumable(record):
                int(Plan(**record["plan"]).threads)
                float(record["lr"])
                record.setdefault("sweep", None)
            if record and not matches(record, self._identity):
                raise UserError(
                    f"{path} is the record of another run ({record['run']!r:.80}). Move it away, or start over with "
                    "--rerun."
                )
        except RecordError as problem:
            wrong = f"{path} is not a readable record: {problem}"
            raise UserError(f"{wrong}. Start the run over with --rerun.") from problem
        except (KeyError, TypeError, ValueError, AttributeError, ArithmeticError) as problem:
            wrong = f"{path} is a damaged record ({type(problem).__name__}: {problem})"
            raise UserError(f"{wrong}. Start the run over with --rerun.") from problem
        return record

    @property
    def done(self) -> bool:
        """Whether an earlier command finished this run."""
        return self.record.get("status") == "done"

    @property
    def interrupted(self) -> bool:
        """Whether an earlier command left epochs, or learning rates that were tried, to go on from."""
        return not self.rerun and bool(self.record) and not self.done and self._resumable(self.record)

    def _resumable(self, record: Mapping[str, Any]) -> bool:
        return checkpoint.has_checkpoint(self.folder) or bool(record.get("sweep"))

    @property
    def strange_files(self) -> list[str]:
        """The files beside a finished run's record that are not those which it wrote; one may be gone."""
        return [name for name, sha256 in self.record.get("files", {}).items() if self._is_other(name, sha256)]

    def _is_other(self, name: str, sha256: str) -> bool:
        path = self.folder / name
        try:
            return path.exists() and not (path.is_file() and digest(path) == sha256)
        except OSError:
            return True

    @property
    def sweep(self) -> list[dict[str, Any]]:
        """What --lr-sweep has tried so far."""
        return self.record.get("sweep") or []

    @contextmanager
    def writing(
        self, description: Mapping[str, Any], split: Mapping[str, Any], seen: Collection[str] | None
    ) -> Iterator[None]:
        """Hold the run's folder, alone, with a record that says "running"; an error that comes through is noted in it.

        seen: the digests of all images that train or choose the weights, for the checkpoint; None: nobody knows.
        Raises UserError when the folder can't be written to or another process is at it.
        """
        self._seen, self._split = checkpoint.seen_images(seen), split
        with self._locked():
            interrupted = self.interrupted
            self.record = {} if self.rerun else self._read()
            if self.done:
                raise UserError("another process has just finished this run: the same command again shows it")
            if self.interrupted != interrupted:
                raise UserError("another process has just been at this run: the same command again goes on from there")
            if not self.interrupted:
                if not self.rerun and (self.folder / HISTORY).exists():
                    lost = f"{CHECKPOINT} is" if self.record else f"{RECORD} and {CHECKPOINT} are"
                    say(f"note       {self.folder} holds epochs of this run, but its {lost} gone: it begins anew")
                self._remove(*FILES, *(path.name for path in self.folder.glob(EVENTS)))
            # what a kill left of a file that was being written
            self._remove(*(path.name for path in self.folder.glob(".*.tmp")))
            earlier = self.record if self.interrupted else {"started": now(), "resumed": [], **description}
            if self.interrupted:
                self._ids.add(earlier["run"])  # somebody may have renamed the folder
                earlier["resumed"].append({"at": now(), "environment": description["environment"]})
            self.record = {"schema": SCHEMA, "run": self.id, "status": "running", "error": None, "finished": None}
            self.record |= description
            self.record |= {key: earlier[key] for key in ("started", "resumed", "environment", "sweep", "lr")}
            self.record["search"] = earlier.get("search")  # what it was begun for, whoever goes on with it
            self._write_split()
            self._write_record()
            try:
                yield
            except LostLockError:
                raise
            except Exception as problem:
                error = without_home(f"{type(problem).__name__}: {problem}")
                self.record |= {"status": "failed", "error": error, "finished": now()}
                self._write_record()
                raise

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            self._lock = RunLock(self.folder / ".lock")
        except filelock.Timeout:
            raise UserError(f"{BUSY}: {self.folder}. Wait for it, or stop it.") from None
        except OSError as problem:
            place = f"the record can't be written to {self.folder}: {problem.strerror}"
            raise UserError(f"{place}. --out chooses another folder.") from problem
        try:
            yield
        finally:
            self._lock.release()

    def _remove(self, *names: str) -> None:
        for name in names:
            try:
                (self.folder / name).unlink(missing_ok=True)
            except OSError as problem:
                raise UserError(f"{self.folder / name} can't be removed: {problem.strerror}. Remove it.") from problem

    def other_seed(self, device_name: str) -> Mapping[str, Any] | None:
        """The record of the first run that differs in its seed or fold alone and was trained on such a device, if any.

        One that has finished an epoch: by then its plan has been chosen. Its plan is one that can be followed.
        """
        found = []
        for path in self.folder.parent.glob(f"*/{CHECKPOINT}"):
            try:
                record = read_record(path.with_name(RECORD)) if path.parent != self.folder else None
                # after the comma, of a processor: how many threads there were to be had
                if record and record["plan"]["device_name"].partition(",")[0] == device_name.partition(",")[0]:
                    usable = Plan(**record["plan"]).sound and is_other_seed(record, self._identity)
                    found += [(str(record["started"]), int(record["seed"]), record)] if usable else []
            except (RecordError, KeyError, TypeError, ValueError, AttributeError):  # what is wrong, a report says
                continue
        return min(found, key=lambda each: each[:2])[2] if found else None

    def change_plan(self, plan: Plan) -> None:
        """Record that the run goes on by another plan, and let a resume keep that one."""
        self.record["plan"] = asdict(plan)
        self._write_record()

    def keep_sweep(self, rows: Sequence[Mapping[str, Any]], chosen: float | None = None) -> None:
        """Record what --lr-sweep has tried so far and, once it is chosen, the learning rate to go on with."""
        self.record["sweep"] = list(rows)
        if chosen:
            self.record["lr"] = chosen
        self._write_record()

    def snapshot(self) -> dict[str, Any] | None:
        """What the last save() was given, or None before the first."""
        return checkpoint.read_checkpoint(self.folder, self._ids)

    def save(self, snapshot: Mapping[str, Any]) -> None:
        """Everything that a resume needs in checkpoint.pt, and the history as far as it goes."""
        content = checkpoint.unfinished(snapshot, self.record, self._seen)
        self._write(lambda: checkpoint.write_checkpoint(self.folder, content))
        self._keep_history(snapshot["state"]["history"])

    def finish(self, model: nn.Module, state: State, outcome: Outcome) -> None:
        """Write predictions and the final checkpoint; the record, which then says "done", comes last.

        Its metrics are those of the predictions as they are read again.
        """
        # of a run that was cut off after its last epoch was saved, it may lack the epochs since the save before
        self._keep_history(state.history)
        self._write(lambda: self._save_predictions(outcome))
        self._write(lambda: self._save_errors(outcome))
        self._write_split()  # what befell it since the beginning would have its digest in the record
        outcome = self._as_written(outcome)
        selection, test, costs = results(self.record, state, outcome)
        self.record |= {"selection": selection, "test": test, "calibration": calibrated(outcome)}
        self.record["costs"] |= costs
        self.record |= {
            "status": "done",
            "finished": now(),
            "files": self._write(lambda: self._digests(HISTORY, PREDICTIONS, ERRORS, SPLIT)),
        }
        content = checkpoint.finished(model, asdict(state), self.record, self._seen)
        self._write(lambda: checkpoint.write_checkpoint(self.folder, content))
        self._remove(PREVIOUS)
        self.record["files"] |= self._write(lambda: self._digests(CHECKPOINT))
        self._write_record()

    def _as_written(self, outcome: Outcome) -> Outcome:
        """The outcome with the predictions that the folder holds. RunError: they are not those that were written."""
        path = self.folder / PREDICTIONS
        try:
            with np.load(path) as kept:
                labels, logits = kept["labels"], kept["logits"]
        except DAMAGED_ARRAYS as problem:
            raise RunError(f"{path} can't be read after it was written: {problem}. Is the disk sound?") from problem
        if not (np.array_equal(labels, outcome.test.labels) and np.array_equal(logits, outcome.logits)):
            raise RunError(f"{path} does not hold what was written. Is the disk sound?")
        return replace(outcome, logits=logits)

    def _digests(self, *names: str) -> dict[str, str]:
        """The sha256 of those of the folder's files that are there."""
        return {name: digest(self.folder / name) for name in names if (self.folder / name).exists()}

    def _write_record(self) -> None:
        summed = {**self.record, "checksum": json_digest(self.record)}
        self._write(lambda: write_json(self.folder / RECORD, summed))

    def _write_split(self) -> None:
        self._write(lambda: write_json(self.folder / SPLIT, self._split))

    def _keep_history(self, history: Sequence[Mapping[str, Any]]) -> None:
        """Write it as a table and, where they are asked for or there are some already, as events."""
        self._write(lambda: self._write_history(history))
        if self.tensorboard or self._events or any(self.folder.glob(EVENTS)):
            self._write(lambda: self._add_events(history))

    def _add_events(self, history: Sequence[Mapping[str, Any]]) -> None:
        if self._events is None:
            self._events = Events(self.folder)
        self._events.add(history)

    def _write_history(self, history: Sequence[Mapping[str, Any]]) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, list(history[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)
        write_text(self.folder / HISTORY, text.getvalue())

    def _save_predictions(self, outcome: Outcome) -> None:
        with atomic(self.folder / PREDICTIONS) as file:
            names = np.array(outcome.test.names)
            np.savez_compressed(file, names=names, labels=outcome.test.labels, logits=outcome.logits)

    def _save_errors(self, outcome: Outcome) -> None:
        errors = tiles_of_errors(outcome)
        if errors is None:
            return self._remove(ERRORS)
        with atomic(self.folder / ERRORS) as file:
            np.savez_compressed(file, tiles=errors["tiles"], rows=errors["rows"])
        return None

    def _write(self, action: Callable[[], Made]) -> Made:
        assert self._lock is not None
        self._lock.require()
        try:
            return action()
        except (OSError, RuntimeError) as problem:  # torch.save finds some things wrong itself
            place, reason, number = self.folder, f"{problem}", 0
            if isinstance(problem, OSError):
                place = problem.filename2 or problem.filename or place
                reason, number = reason_of(problem), problem.errno or 0
            if number == errno.EISDIR:
                raise UserError(f"{place} is a folder, where the run has a file. Remove it.") from problem
            raise RunError(
                f"the record can't be written to {place}: {reason}. What was saved before is whole: "
                f"{'make room, and' if number in FULL else 'once that is mended,'} the same command goes on from there."
            ) from problem


def _earlier(siblings: Path, name: str, identity: Mapping[str, Any]) -> Path | None:
    """The folder in which a run with that identity lies already, under another name; None: there is none."""
    for path in sorted(siblings.glob(f"{name}-*/{RECORD}")):
        try:
            record = read_record(path)
            if record and matches(record, identity):
                return path.parent
        except (RecordError, KeyError, TypeError, AttributeError):  # what is wrong with it, a report says
            continue
    return None
