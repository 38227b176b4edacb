"""A grid's view that also sees how long each cell takes, and lets a search look at its budget."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType

from engine.console import duration
from grids.cells import Cell
from grids.places import Work
from grids.view import Progress, View


class Watch:
    """Shows what `inner` shows."""

    SAVE_SECONDS = 2.0  # between two looks at the clock that are kept: what a kill costs of the count

    def __init__(self, inner: View, tick: Callable[[], None]) -> None:
        self._inner, self._tick = inner, tick
        self._workers: dict[str, Work] = {}
        self.seconds_by_name: dict[str, float] = {}  # backbone -> what its process took, of those that ended well
        self.stopped = False  # whether a stop was asked for

    def __enter__(self) -> View:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        pass

    def started(self, worker: Work, progress: Progress) -> None:
        """A cell's process runs."""
        self._workers[worker.cell.id] = worker
        self._inner.started(worker, progress)

    def ended(self, cell: Cell, status: str, what: str, progress: Progress) -> None:
        """A cell was settled."""
        if status == "done":
            what = "trained"  # its result on the test part is not what is looked at here
            if cell.id in self._workers:
                seconds = self.seconds_by_name[cell.row] = self._workers[cell.id].seconds
                what += f" in {duration(seconds)}"
        self._inner.ended(cell, status, what, progress)

    def note(self, text: str) -> None:
        """Something that concerns the whole grid."""
        self._inner.note(text)

    def refresh(self, progress: Progress) -> None:
        """Called every moment."""
        self._tick()
        self._inner.refresh(progress)
