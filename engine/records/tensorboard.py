"""--tensorboard: a run's history as an event file in its folder, for `tensorboard --logdir runs`."""

from __future__ import annotations

import io
import os
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

EVENTS = "events.out.tfevents.*"  # what TensorBoard's files are called
WORDS = ("stage",)  # of a row of the history: no number


class Events:
    """Writes rows of a history as scalars, epoch by epoch, in place of an event file of an earlier process.

    Not by TensorBoard's writer: that has a thread of its own, and what fails there nobody hears of.
    """

    def __init__(self, folder: Path) -> None:
        from tensorboard.compat.proto.event_pb2 import Event

        for old in folder.glob(EVENTS):
            if not old.is_dir():
                old.unlink()
        self._path = folder / EVENTS.replace("*", f"{time.time():.0f}.{socket.gethostname()}.{os.getpid()}")
        self._epochs = 0
        self._write([Event(wall_time=time.time(), file_version="brain.Event:2")])

    def add(self, history: Sequence[Mapping[str, Any]]) -> None:
        """The epochs of `history` that are not there yet, in the file when this returns."""
        from tensorboard.compat.proto.event_pb2 import Event
        from torch.utils.tensorboard.summary import scalar

        rows = history[self._epochs :]
        scalars = [
            Event(wall_time=time.time(), step=row["epoch"], summary=scalar(name, value))
            for row in rows
            for name, value in row.items()
            if name not in WORDS and value is not None
        ]
        self._write(scalars)
        self._epochs = len(history)

    def _write(self, events: Sequence[Any]) -> None:
        from tensorboard.summary.writer.record_writer import RecordWriter

        encoded = io.BytesIO()
        writer = RecordWriter(encoded)
        for event in events:
            writer.write(event.SerializeToString())
        with self._path.open("ab") as file:
            file.write(encoded.getvalue())
