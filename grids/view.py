"""What a grid shows while it runs: a live table on a terminal, plain lines elsewhere."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Protocol

from engine.console import duration, say, wrapped
from engine.errors import counted, one_line
from grids.cells import Cell
from grids.places import Work

if TYPE_CHECKING:
    from rich.console import Console, Group
    from rich.text import Text

LAST = 6  # cells that ended, in the table
OTHER_ROWS = 8  # of the table, beside the cells that run and those that ended: headings, counts, notes
FEWEST_ROWS = 4


@dataclass(frozen=True)
class Progress:
    """A grid at one moment."""

    cells: int
    done: int
    failed: int  # and are not to be tried again
    elsewhere: int  # another grid is at them
    remaining: str  # how long the rest takes, or that nobody knows
    running: Sequence[Work] = ()
    avoided: Sequence[str] = ()  # places that get no cells, and why

    @property
    def count(self) -> str:
        """How many cells are done, and how many have failed, if any; neither goes down."""
        failed = f", {self.failed:,} failed" if self.failed else ""
        return f"[{self.done:,}/{self.cells:,}{failed}]"

    @property
    def summary(self) -> str:
        """All counts in a line."""
        left = self.cells - self.done - self.failed
        words = [f"{self.done:,} of {counted(self.cells, 'cell')} done", f"{self.failed:,} failed", f"{left:,} to do"]
        if self.elsewhere:
            words.append(f"{self.elsewhere:,} of them with another grid")
        return f"{', '.join(words)}: {self.remaining}"


class View(Protocol):
    """Shows what happens."""

    def __enter__(self) -> View: ...

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None: ...

    def started(self, worker: Work, progress: Progress) -> None:
        """A cell's process runs."""

    def ended(self, cell: Cell, status: str, what: str, progress: Progress) -> None:
        """A cell was settled: `status` is "done", "failed" or "stopped", `what` the result or the reason."""

    def note(self, text: str) -> None:
        """Something that concerns the whole grid."""

    def refresh(self, progress: Progress) -> None:
        """Called every moment."""


class Lines:
    """A line when a cell starts, and one when it ends."""

    def __enter__(self) -> View:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def started(self, worker: Work, progress: Progress) -> None:
        where = f" on {worker.where}" if worker.where else ""
        say(*wrapped([f"{progress.count} started  {worker.cell.title}{where}"]))

    def ended(self, cell: Cell, status: str, what: str, progress: Progress) -> None:
        say(*wrapped([f"{progress.count} {status:<8} {cell.title}: {what.rstrip('.')}; left: {progress.remaining}"]))

    def note(self, text: str) -> None:
        say(*wrapped([text]))

    def refresh(self, progress: Progress) -> None:
        pass


class LiveTable:
    """The running cells, the counts, and the cells that ended last, on `console` or the terminal.

    Why a cell failed stays above, in full, once.
    """

    def __init__(self, console: Console | None = None) -> None:
        from rich.live import Live

        self._live = Live(console=console, auto_refresh=False, transient=True)
        self._ended: deque[tuple[str, str, str]] = deque(maxlen=LAST)
        self._reasons: set[str] = set()
        self._note = ""

    def __enter__(self) -> View:
        self._live.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._live.__exit__(kind, problem, trace)

    def started(self, worker: Work, progress: Progress) -> None:
        self.refresh(progress)

    def ended(self, cell: Cell, status: str, what: str, progress: Progress) -> None:
        if status == "failed":
            if what not in self._reasons:
                self._reasons.add(what)
                self._live.console.print(_text("failed", "red"), _text(f"{cell.title}: {what}"))
            what = "for the reason above"
        self._ended.append((status, cell.title, what))
        self.refresh(progress)

    def note(self, text: str) -> None:
        self._note = text

    def refresh(self, progress: Progress) -> None:
        self._live.update(self._drawn(progress), refresh=True)

    def _drawn(self, progress: Progress) -> Group:
        from rich import box
        from rich.console import Group
        from rich.table import Table

        # the last column of each is what a narrow terminal cuts
        running = Table(box=box.SIMPLE_HEAD, pad_edge=False, expand=True)
        places = any(worker.where for worker in progress.running)
        for name in ("running", *(["on"] if places else []), "for", "doing"):
            running.add_column(name, no_wrap=True, ratio=1 if name == "doing" else None)
        # what does not fit would push the counts out of sight, and takes 0.2 ms a row to draw, ten times a second
        fitting = max(FEWEST_ROWS, self._live.console.height - LAST - OTHER_ROWS - len(progress.avoided))
        for worker in progress.running[:fitting]:
            where = [_text(worker.where)] if places else []
            row = [_text(worker.cell.title), *where, _text(duration(worker.seconds)), _text(worker.doing or "starts")]
            running.add_row(*row)
        ended = Table.grid(padding=(0, 2, 0, 0), expand=True)
        for ratio in (None, None, 1):
            ended.add_column(no_wrap=True, ratio=ratio)
        colours = {"done": "green", "failed": "red"}
        for status, title, what in self._ended:
            ended.add_row(_text(status, colours.get(status, "yellow")), _text(title), _text(what))
        more = len(progress.running) - fitting
        note = [_text(f"{more:,} more run")] if more > 0 else []
        note += [_text(f"gets no cells: {line}", "yellow") for line in progress.avoided]
        note += [_text(self._note, "bold yellow")] if self._note else []
        return Group(running, ended, _text(progress.summary, "bold"), *note)


def _text(raw: str, style: str = "") -> Text:
    """Text without marks of rich's, and without what a terminal takes for its commands."""
    from rich.text import Text

    return Text(one_line(raw), style=style)


def choose_view() -> View:
    """The table where stdout is a terminal that can show it, else lines."""
    if not sys.stdout.isatty():
        return Lines()
    try:
        from rich.console import Console
    except ImportError:
        say("note: plain lines, as the package rich is not installed (pip install -r requirements-report.txt)")
        return Lines()
    console = Console()
    return Lines() if console.is_dumb_terminal else LiveTable(console)
