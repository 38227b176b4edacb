"""Where cells run: what a grid asks of this machine's cards, of a cluster, or of whatever else runs them."""

from __future__ import annotations

import time
from typing import Protocol

from grids.cells import Cell


class Clock:
    """What a grid waits by; a simulation has one of its own."""

    def now(self) -> float:
        """Seconds since some moment, which nobody sets."""
        return time.monotonic()

    def sleep(self, seconds: float) -> None:
        """Let them pass."""
        time.sleep(seconds)


class Work(Protocol):
    """A cell that runs somewhere, and what is seen of it."""

    cell: Cell
    stalled: bool  # it was ended since it gave no sign of life
    stopping: int  # 1: asked to stop after the epoch, 2: at once

    @property
    def where(self) -> str:
        """What it has to itself, in words: "card 0", say. "": nothing that need be said.

        It names the place that fails cells if it is broken: a card, with its node, where there are several.
        """

    @property
    def lost(self) -> bool:
        """Whether what it ran on is gone, so that its end says nothing of the cell: it is to be run elsewhere."""

    @property
    def doing(self) -> str:
        """What it says that it does: "" where it has not said yet."""

    @property
    def seconds(self) -> float:
        """Since its start."""

    def watch(self, stall_seconds: float) -> int | None:
        """Its exit code, once it has ended; end it where it gave no sign of life for so long."""

    def stop(self, level: int) -> None:
        """Ask it to stop: 1 after the epoch that it is in, 2 at once."""

    def tail(self) -> list[str]:
        """The last lines that it printed."""

    def close(self) -> None:
        """When it has ended and what came of it is written down: let others have the cell."""


class Places(Protocol):
    """All that cells can run on."""

    @property
    def at_once(self) -> int:
        """How many cells run at a time, as far as is known now: 1 at least, unless every place is avoided."""

    @property
    def has_room(self) -> bool:
        """Whether another could be started now."""

    def start(self, cell: Cell, lock: int, seeds: int) -> Work:
        """Start the cell's command on the place that has been free for longest. OSError: it can't be.

        lock: the descriptor of its lock file, which close() closes; seeds: how many cells are to come that differ from
        it in their seed alone, itself included.
        """

    def leave(self, work: Work) -> None:
        """It has ended: another cell may have its place."""

    @property
    def left(self) -> bool:
        """Whether what runs there goes on while this process ends."""
        return False

    def abandon(self) -> None:
        """Let it, where it can."""
        return

    def avoid(self, where: str) -> None:
        """Start nothing more on the place of that name (Work.where), which fails cells; what runs there goes on."""

    def readmit(self, where: str) -> None:
        """Start cells there again."""
