"""A run that several processes train together: the first one keeps it, the others follow."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from torch import nn

from engine.processes.exchange import sent_by_first
from engine.processes.peers import failures_told, from_first, is_first
from engine.records.describe import Outcome
from engine.records.run_folder import Run
from engine.training.plan import Plan
from engine.training.state import State


class SharedRun:
    """What all processes know of a run, and, in the first one, the run itself. One that is alone is the first."""

    resumable = True

    def __init__(self, out: Path, identity: Mapping[str, Any], rerun: bool, tensorboard: bool) -> None:
        """As Run."""
        self.run = Run(out, identity, rerun, tensorboard) if is_first() else None
        self._known = from_first(self._found)
        self.folder: Path = self._known["folder"]
        self.done: bool = self._known["done"]
        self.interrupted: bool = self._known["interrupted"]
        self.strange_files: list[str] = self._known["strange_files"]

    def _found(self) -> dict[str, Any]:
        assert self.run is not None
        return {name: getattr(self.run, name) for name in ("folder", "done", "interrupted", "strange_files", "record")}

    @property
    def record(self) -> dict[str, Any]:
        """As far as it is known here: in the others, what an earlier command left."""
        found: dict[str, Any] = self.run.record if self.run else self._known["record"]
        return found

    @property
    def first(self) -> Run:
        """The run itself: in the first process alone."""
        assert self.run is not None
        return self.run

    @property
    def final(self) -> dict[str, Any]:
        """The record, and its folder, in all processes."""
        return from_first(lambda: {**self.record, "folder": str(self.folder)})

    @property
    def sweep(self) -> list[dict[str, Any]]:
        """What --lr-sweep has tried so far."""
        return self.record.get("sweep") or []

    @contextmanager
    def writing(self, *description: Any) -> Iterator[None]:
        """As Run.writing(), which thus learns of a failure in another process."""
        with self.run.writing(*description) if self.run else nullcontext(), failures_told():
            yield

    def snapshot(self) -> dict[str, Any] | None:
        """What the last save() was given, or None before the first: in all processes."""
        saved: dict[str, Any] | None = sent_by_first(self.run.snapshot() if self.run else None)
        return saved

    def save(self, snapshot: Mapping[str, Any]) -> None:
        """Everything that a resume needs, which all processes have."""
        if self.run:
            self.run.save(snapshot)

    def change_plan(self, plan: Plan) -> None:
        """The run goes on by another plan."""
        if self.run:
            self.run.change_plan(plan)

    def keep_sweep(self, rows: Sequence[Mapping[str, Any]], chosen: float | None = None) -> None:
        """What --lr-sweep has tried so far and, once it is chosen, the learning rate to go on with."""
        if self.run:
            self.run.keep_sweep(rows, chosen)

    def finish(self, model: nn.Module, state: State, outcome: Outcome) -> None:
        """As Run.finish()."""
        if self.run:
            self.run.finish(model, state, outcome)
