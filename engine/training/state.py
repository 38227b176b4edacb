"""How far a run has come."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from engine.training.meters import energy_joules, peak_memory_mib


@dataclass
class State:
    """All that a resume needs beside weights, optimizer and random numbers."""

    stage: int = 0  # index in the recipe
    epochs: int = 0  # finished, in both stages together
    stage_epochs: int = 0  # finished in this stage
    stale: int = 0  # epochs of this stage in a row that brought no gain
    best_score: float = -1.0  # top-1 on the selection part, 0 to 1
    best_epoch: int = 0  # counted from 1 through both stages
    peak_memory_mib: float | None = None
    energy_joules: float | None = None

    def account(self, device: str, energy_before: float | None) -> float | None:
        """Add what was used since `energy_before`; returns the reading of now."""
        self.peak_memory_mib = max(filter(None, (self.peak_memory_mib, peak_memory_mib(device))), default=None)
        reading = energy_joules(device)
        if reading is not None and energy_before is not None:
            self.energy_joules = (self.energy_joules or 0.0) + reading - energy_before
        return reading

    history: list[dict[str, Any]] = field(default_factory=list)  # a row an epoch
