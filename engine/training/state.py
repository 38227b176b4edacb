"""How far a run has come."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from engine.processes.exchange import total_of
from engine.training.meters import energy_joules, peak_memory_mib

SOLVED = 0.0  # what a history has as the learning rate of the epoch in which the head was solved for
COUNTS = ("stage", "epochs", "stage_epochs", "epochs_without_gain", "best_epoch")


@dataclass
class State:
    """All that a resume needs beside weights, optimizer and random numbers."""

    stage: int = 0  # index in the recipe
    epochs: int = 0  # finished, in all stages together
    stage_epochs: int = 0  # finished in this stage
    epochs_without_gain: int = 0  # of this stage, in a row
    best_score: float = -1.0  # of the metric `select` on the part that chooses the epoch, 0 to 1
    best_epoch: int = 0  # counted from 1 through all stages
    peak_memory_mib: float | None = None
    energy_joules: float | None = None
    resident_memory_mib: float | None = 0.0  # the most of the peak that held images; None: begun before it was counted
    save_seconds: float | None = 0.0  # likewise
    speed_of_features: dict[str, float] | None = None  # that of the one pass of images, where features are trained on
    history: list[dict[str, Any]] = field(default_factory=list)  # a row an epoch
    select: str = "top1"  # the metric that chooses the epoch

    @classmethod
    def restored(cls, saved: Mapping[str, Any], part: str) -> State:
        """What asdict() gave, of a run in which `part` chooses the epoch.

        Raises TypeError, KeyError, AttributeError or ValueError where it is something else.
        """
        # checkpoints of record schema 1 have other names
        values = {"epochs_without_gain" if name == "stale" else name: value for name, value in saved.items()}
        values = {"resident_memory_mib": None, "save_seconds": None} | values
        values["history"] = [
            {name.replace("select_", f"{part}_"): value for name, value in row.items()} for row in saved["history"]
        ]
        state = cls(**values)
        if damage := state._damage():
            raise ValueError(damage)
        return state

    def _damage(self) -> str:
        """What can't have come about by counting epochs; "" if all can."""
        counts = {name: getattr(self, name) for name in COUNTS}
        if any(type(count) is not int or not 0 <= count <= self.epochs for count in counts.values()):
            return f"the counts of epochs are {counts}"
        if self.epochs != len(self.history) or [row["epoch"] for row in self.history] != [*range(1, self.epochs + 1)]:
            return f"{self.epochs} epochs have a history of {len(self.history)}"
        best = f"best_{self.select}"
        last = self.history[-1] if self.history else {best: -1.0, "best_epoch": 0}
        if (self.best_score, self.best_epoch) != (last[best], last["best_epoch"]):
            return f"the best epoch is {self.best_epoch}, of {self.best_score}, but not so in the history"
        if self.history and not 0 <= self.best_score <= 1:
            return f"the best score is {self.best_score}"
        return ""

    def record_epoch(self, row: Mapping[str, Any], score: float, latest_of_equals: bool) -> bool:
        """Take in an epoch, of which `row` is what was measured; whether its `score` is the best so far."""
        self.epochs += 1
        self.stage_epochs += 1
        self.epochs_without_gain += 1
        better = score > self.best_score or (score == self.best_score and latest_of_equals)
        if better:
            self.best_score, self.best_epoch, self.epochs_without_gain = score, self.epochs, 0
        best = {f"best_{self.select}": self.best_score, "best_epoch": self.best_epoch}
        self.history.append({"epoch": self.epochs, **row, **best})
        return better

    @property
    def solved_head(self) -> bool:
        """Whether an epoch was one that solved for the head."""
        return any(row.get("lr") == SOLVED for row in self.history)

    @property
    def trained(self) -> list[dict[str, Any]]:
        """The rows of the epochs that trained by a learning rate; where there was none, all."""
        return [row for row in self.history if row.get("lr") != SOLVED] or self.history

    def begin_next_stage(self) -> None:
        """The stage has ended."""
        self.stage, self.stage_epochs, self.epochs_without_gain = self.stage + 1, 0, 0

    def account(self, device: str, energy_before: float | None, resident_mib: float) -> float | None:
        """Add what was used since `energy_before`, while images took `resident_mib`; returns the reading of now."""
        if self.resident_memory_mib is not None:
            self.resident_memory_mib = max(self.resident_memory_mib, resident_mib)
        self.peak_memory_mib = max(filter(None, (self.peak_memory_mib, peak_memory_mib(device))), default=None)
        reading = total_of(energy_joules(device))
        if reading is not None and energy_before is not None:
            self.energy_joules = (self.energy_joules or 0.0) + reading - energy_before
        elif reading is None:
            self.energy_joules = None  # what is known of a part of the run is not what it took
        return reading
