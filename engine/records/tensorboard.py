"""--tensorboard: a run's history as an event file in its folder, for `tensorboard --logdir runs`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

EVENTS = "events.out.tfevents.*"  # what TensorBoard's files are called
WORDS = ("stage",)  # of a row of the history: no number


class Events:
    """Writes rows of a history as scalars, epoch by epoch, in place of an event file of an earlier process."""

    def __init__(self, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        for old in folder.glob(EVENTS):
            old.unlink()
        self._writer = SummaryWriter(str(folder))
        self._epochs = 0

    def add(self, history: Sequence[Mapping[str, Any]]) -> None:
        """The epochs of `history` that are not there yet, on the disk when this returns."""
        for row in history[self._epochs :]:
            for name, value in row.items():
                if name not in WORDS and value is not None:
                    self._writer.add_scalar(name, value, row["epoch"])
        self._epochs = len(history)
        self._writer.flush()
