"""runs/<dataset>/<backbone>/<run id>/: what a run leaves behind, every file of it whole or absent."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import statistics
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import filelock
import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from engine.config import Config
from engine.data.batches import Batches
from engine.data.declaration import RawSplits, Dataset, Part
from engine.data.images import resize
from engine.data.load import PARTS, Parts
from engine.environment import environment
from engine.errors import RunError, UserError
from engine.files import atomic, write_json, write_text
from engine.models.backbone import Backbone, macs
from engine.models.weights import Weights
from engine.records.tensorboard import EVENTS, Events
from engine.training.plan import Plan
from engine.training.recipe import Recipe
from engine.training.state import State

FILES = ("record.json", "checkpoint.pt", "history.csv", "predictions.npz", "errors.npz", "split.json")
BUSY = "another process is at this run already"
WORST = 12  # wrong predictions whose images are kept
TILE = 64  # pixels: the longer side of such an image, at most
SCHEMA = 1  # raised when a field of record.json changes its meaning; record.schema.json describes it


class Run:
    """One run's folder, found by what the run is; `rerun` disregards what lies there.

    With `tensorboard`, an event file is kept there as well.

    identity: all that can change the run's numbers, "dataset", "model", "protocol" and "seed" among it. Raises
    UserError when the record that lies in the folder can't be read.
    """

    saves = True  # what fit() saves here can be gone on from

    def __init__(self, out: Path, identity: Mapping[str, Any], rerun: bool = False, tensorboard: bool = False) -> None:
        canonical = json.dumps(identity, sort_keys=True, separators=(",", ":"))
        digits = hashlib.sha256(canonical.encode()).hexdigest()[:10]
        self.id = f"{identity['protocol']}-seed{identity['seed']}-{digits}"
        self.rerun = rerun
        self.folder = out / identity["dataset"] / identity["model"] / self.id
        self.record = {} if rerun else read_record(self.folder / "record.json") or {}
        self.tensorboard = tensorboard
        self._checkpoint = self.folder / "checkpoint.pt"
        self._events: Events | None = None

    @property
    def done(self) -> bool:
        """Whether an earlier command finished this run."""
        return self.record.get("status") == "done"

    @property
    def interrupted(self) -> bool:
        """Whether an earlier command left epochs, or rates that were tried, to go on from."""
        left = self._checkpoint.exists() or bool(self.record.get("sweep"))
        return not self.rerun and bool(self.record) and not self.done and left

    @contextmanager
    def writing(self, description: Mapping[str, Any], split: Mapping[str, Any]) -> Iterator[None]:
        """Hold the run's folder, alone, with a record that says "running"; an error that comes through is noted in it.

        Raises UserError when the folder can't be written to or another process is at it.
        """
        with self._locked():
            self.record = {} if self.rerun else read_record(self.folder / "record.json") or {}
            if self.done:
                raise UserError("another process has just finished this run: the same command again shows it")
            if not self.interrupted:
                self._remove(*FILES, *(path.name for path in self.folder.glob(EVENTS)))
            # what a kill left of a file that was being written
            self._remove(*(path.name for path in self.folder.glob(".*.tmp")))
            earlier = self.record if self.interrupted else {"started": now(), "resumed": [], **description}
            if self.interrupted:
                earlier["resumed"].append({"at": now(), "environment": description["environment"]})
            self.record = {"schema": SCHEMA, "run": self.id, "status": "running", "error": None, "finished": None}
            self.record |= description
            self.record |= {key: earlier[key] for key in ("started", "resumed", "environment", "sweep", "lr")}
            self._write(lambda: write_json(self.folder / "split.json", split))
            self._write(lambda: write_json(self.folder / "record.json", self.record))
            try:
                yield
            except Exception as problem:
                error = f"{type(problem).__name__}: {problem}"
                self.record |= {"status": "failed", "error": error, "finished": now()}
                self._write(lambda: write_json(self.folder / "record.json", self.record))
                raise

    @contextmanager
    def _locked(self) -> Iterator[None]:
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            lock = filelock.FileLock(self.folder / ".lock", timeout=0)
            lock.acquire()
        except filelock.Timeout:
            found = f"{BUSY}: {self.folder}"
            raise UserError(f"{found}. Wait for it, or stop it.") from None
        except OSError as problem:
            found = f"the record can't be written to {self.folder}: {problem.strerror}"
            raise UserError(f"{found}. --out chooses another folder.") from problem
        try:
            yield
        finally:
            lock.release()

    def _remove(self, *names: str) -> None:
        for name in names:
            try:
                (self.folder / name).unlink(missing_ok=True)
            except OSError as problem:
                raise UserError(f"{self.folder / name} can't be removed: {problem.strerror}. Remove it.") from problem

    def change_plan(self, plan: Plan) -> None:
        """Record that the run goes on by another plan, and let a resume keep that one."""
        self.record["plan"] = asdict(plan)
        self._write(lambda: write_json(self.folder / "record.json", self.record))

    def keep_sweep(self, rows: Sequence[Mapping[str, Any]], chosen: float | None = None) -> None:
        """Record what --lr-sweep has tried so far; and the rate that the run goes on with, once it is chosen."""
        self.record["sweep"] = list(rows)
        if chosen:
            self.record["lr"] = chosen
        self._write(lambda: write_json(self.folder / "record.json", self.record))

    def snapshot(self) -> dict[str, Any] | None:
        """What the last save() was given, or None before the first."""
        if not self._checkpoint.exists():
            return None
        try:
            saved: dict[str, Any] = torch.load(self._checkpoint, map_location="cpu", weights_only=True)
            State(**saved["state"])
            # the final checkpoint holds the record, those before it what it takes to go on
            needed = ["model"] if "run" in saved else ["model", "best", "optimizer", "scaler", "random"]
            if lacking := [key for key in needed if key not in saved]:
                raise KeyError(*lacking)
        except Exception as problem:  # whatever the bytes lead torch.load to
            raise UserError(
                f"{self._checkpoint} can't be read, so the run can't go on from it ({type(problem).__name__}).\n"
                "Start the run over with --rerun."
            ) from problem
        return saved

    def save(self, snapshot: Mapping[str, Any]) -> None:
        """After an epoch: everything that a resume needs in checkpoint.pt, and the history as far as it goes."""
        self._write(lambda: self._save_checkpoint(snapshot))
        history = snapshot["state"]["history"]
        self._write(lambda: self._write_history(history))
        if self.tensorboard or self._events or any(self.folder.glob(EVENTS)):
            self._write(lambda: self._add_event(history))

    def finish(
        self,
        model: nn.Module,
        state: State,
        test: Part,
        logits: npt.NDArray[np.float32],
        metrics: Mapping[str, Any],
        test_speed: Mapping[str, float],
    ) -> None:
        """Write predictions and the final checkpoint; the record, which then says "done", comes last."""
        median = {key: statistics.median(row[key] for row in state.history) for key in test_speed}
        self.record |= {
            "selection": {
                "part": "test" if self.record["protocol"] == "paper" else "select",
                "top1": state.best_score,
                "epoch": state.best_epoch,
                "stage": state.history[state.best_epoch - 1]["stage"],
                "epochs": state.epochs,
            },
            "test": dict(metrics),
        }
        swept = self.record["sweep"] or []
        joules = [state.energy_joules, *(row["energy_joules"] for row in swept)]
        self.record["costs"] |= {
            "images": state.epochs * self.record["dataset"]["counts"]["fit"] + sum(row["images"] for row in swept),
            "train_seconds": sum(row["seconds"] for row in (*state.history, *swept)),
            "epoch_seconds": median["seconds"],
            "train_images_per_second": median["images_per_second"],
            "train_compute_images_per_second": median["compute_images_per_second"],
            "data_wait_share": median["data_wait_share"],
            "test_images_per_second": test_speed["images_per_second"],
            "test_compute_images_per_second": test_speed["compute_images_per_second"],
            "peak_memory_mib": state.peak_memory_mib,
            "energy_joules": None if None in joules else sum(filter(None, joules)),
        }
        self._write(lambda: self._write_history(state.history))
        self._write(lambda: self._save_predictions(test.names, test.labels, logits))
        self._write(lambda: self._save_errors(test, logits))
        # with the state, so that a run cut off between this file and the next has only test left to do
        weights = {name: value.cpu().contiguous() for name, value in model.state_dict().items()}
        self.record |= {"status": "done", "finished": now()}
        self._write(lambda: self._save_checkpoint({"model": weights, "state": asdict(state), **self.record}))
        self._write(lambda: write_json(self.folder / "record.json", self.record))

    def _add_event(self, history: Sequence[Mapping[str, Any]]) -> None:
        if self._events is None:
            self._events = Events(self.folder, history[:-1])
        self._events.add(history[-1])

    def _write_history(self, history: Sequence[Mapping[str, Any]]) -> None:
        text = io.StringIO()
        writer = csv.DictWriter(text, list(history[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(history)
        write_text(self.folder / "history.csv", text.getvalue())

    def _save_checkpoint(self, content: Mapping[str, Any]) -> None:
        with atomic(self._checkpoint) as file:
            torch.save(dict(content), file)

    def _save_predictions(
        self, names: Sequence[str], labels: npt.NDArray[np.int64], logits: npt.NDArray[np.float32]
    ) -> None:
        with atomic(self.folder / "predictions.npz") as file:
            np.savez_compressed(file, names=np.array(names), labels=labels, logits=logits)

    def _save_errors(self, test: Part, logits: npt.NDArray[np.float32]) -> None:
        rows = worst_errors(logits, test.labels)
        if not len(rows):
            return self._remove("errors.npz")
        pixels = test.pixels(rows)
        height, width = (max(1, round(side * min(1.0, TILE / max(pixels.shape[1:3])))) for side in pixels.shape[1:3])
        tiles = np.stack([resize(image, (height, width)) for image in pixels])
        with atomic(self.folder / "errors.npz") as file:
            np.savez_compressed(file, tiles=tiles, rows=rows)
        return None

    def _write(self, action: Callable[[], object]) -> None:
        try:
            action()
        except (OSError, RuntimeError) as problem:  # torch.save reports a full disk as a RuntimeError
            if isinstance(problem.__context__, KeyboardInterrupt):  # and so it does what cuts it short
                raise problem.__context__ from None
            raise RunError(
                f"the record can't be written to {self.folder}: {problem}. "
                "What was saved before is whole: make room, and the same command goes on from there."
            ) from problem


def describe(
    dataset: Dataset,
    contents: RawSplits,
    parts: Parts,
    config: Config,
    course: Recipe,
    backbone: Backbone,
    weights: Weights,
    plan: Plan,
    model: nn.Module,
    train: Batches,
) -> dict[str, Any]:
    """What a record says of a run before it begins."""
    return {
        "dataset": {
            "key": dataset.key,
            "name": dataset.name,
            "version": dataset.version,
            "domain": dataset.domain,
            "published": dataset.published,
            "partial": bool(contents.differences),
            "differences": list(contents.differences),
            "notes": list(contents.notes),
            "classes": list(contents.classes),
            "own_validation": contents.select is not None and config.budget is None,
            "counts": {"train": len(contents.train)} | {part: len(getattr(parts, part)) for part in PARTS},
            "checksums": dict(contents.checksums),
            "split": parts.hash,
        },
        "backbone": {
            "name": config.model,
            "builder": backbone.builder.__name__,
            "weights": weights.name,
            "weights_sha256": weights.sha256,
            "weights_run": weights.run,
        },
        "protocol": config.protocol,
        "recipe": config.recipe,
        "lr": course.rate,
        "sweep": None,
        "seed": config.seed,
        "batch_size": train.batch_size,
        "normalisation": {"mean": list(train.mean), "std": list(train.std)},
        "config": config.settings(),
        "plan": asdict(plan),
        "costs": {
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "trained_parameters": sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad),
            "macs": macs(model, config.size),
        },
        "environment": environment(),
    }


def worst_errors(logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """The rows of the (at most WORST) wrong predictions with the highest probability, highest first.

    logits: (N, C). labels: (N,).
    """
    predicted = logits.argmax(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    shifted = logits[wrong] - logits[wrong].max(axis=1, keepdims=True)
    confidence = 1 / np.exp(shifted.astype(np.float64)).sum(axis=1)
    return wrong[np.argsort(-confidence, kind="stable")[:WORST]]


def read_record(path: Path) -> dict[str, Any] | None:
    """The record at `path`; None where there is none. Raises UserError when it isn't one."""
    try:
        record = json.loads(path.read_text(encoding="utf-8"))
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValueError) as problem:
        raise UserError(f"{path} is not a readable record: {problem}. Start the run over with --rerun.") from problem
    if not isinstance(record, dict) or record.get("schema") != SCHEMA:
        found = record.get("schema") if isinstance(record, dict) else type(record).__name__
        raise UserError(f"{path} has schema {found}, this version reads {SCHEMA}. Start the run over with --rerun.")
    needed = {"status", "started", "resumed", "environment", "plan", "dataset", "backbone", "protocol"}
    if lacking := (needed | ({"test"} if record.get("status") == "done" else set())) - record.keys():
        raise UserError(f"{path} lacks {', '.join(sorted(lacking))}. Start the run over with --rerun.")
    return record


def now() -> str:
    """The time in UTC, to the second, as ISO 8601."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
