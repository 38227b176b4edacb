"""A cell that Slurm runs, and what is to be made of its task's end."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from engine import INTERRUPTED
from engine.console import duration
from engine.errors import RunError, UserError
from engine.records.schema import CHECKPOINT, Record
from grids.cells import Cell
from grids.images import forget
from grids.ledger import HEARTBEAT, Failure, grid_folder, read_failure, record_named, standing_now
from grids.slurm.commands import AT_WORK, ENDED, End, Task
from grids.slurm.script import STOP_SECONDS, folder_of
from grids.worker import last_lines, said_in

SETTLE_SECONDS = 60.0  # that a network's file system may take to show what a node has written
SLACK_SECONDS = 30.0  # that Slurm may be late with a time limit
MOST_TRIES = 3  # of a cell whose task Slurm ends before it has saved anything
STALLED = "no sign of life"
LAST = "; the last was: "
OF_MEMORY = 'error: Slurm ended it since it needed more memory than it had asked for. Ask for more: --slurm="--mem=64G"'
OF_NODES = ("PREEMPTED", "NODE_FAIL", "BOOT_FAIL", "REVOKED", "")  # what a cell can do nothing for


@dataclass
class SlurmWork:
    """A cell that is to be submitted, waits in Slurm's queue, or runs on a node."""

    cell: Cell
    look: Callable[[], None]  # asks Slurm how everything stands, if it has not been asked lately
    before: Record | None  # what lay there as its record
    stalled: bool = False
    stopping: int = 0
    place: tuple[str, int] | None = None  # its job's name, and which task of it; None: it is to be submitted
    task: Task | None = None
    seen: float = field(default_factory=time.monotonic)  # when Slurm last told of it, or was last given it
    saved: tuple[int, ...] = ()  # its checkpoint, as it lay there when the task was submitted
    logged: int = 0  # bytes of its log, then
    tries: int = 0  # how often it was submitted for nothing
    longer: float = 1.0  # how much more time it needs than was estimated
    begun: bool = False  # whether a task of it has run already
    code: int | None = None
    said: list[str] = field(default_factory=list)  # the last lines, once it has ended

    @property
    def lost(self) -> bool:
        """Never: what ran on a node that is gone is submitted again."""
        return False

    @property
    def waits(self) -> bool:
        """Whether it does not run yet."""
        return self.task is None or self.task.state not in AT_WORK | ENDED

    @property
    def where(self) -> str:
        """Its node."""
        return self.task.node if self.task else ""

    @property
    def doing(self) -> str:
        """What it says that it does."""
        if self.stalled:
            return self.said[-1].partition(LAST)[2] if self.said else ""
        return said_in(grid_folder(self.cell.config.out) / f"{self.cell.id}{HEARTBEAT}")

    @property
    def seconds(self) -> float:
        """Since its start on a node."""
        return 0.0 if self.task is None else self.task.seconds + (0.0 if self.ended else time.monotonic() - self.seen)

    @property
    def log(self) -> Path:
        """What the cell prints."""
        return grid_folder(self.cell.config.out) / f"{self.cell.id}.log"

    @property
    def ended(self) -> bool:
        """Whether Slurm has done with its task."""
        return self.task is not None and self.task.state in ENDED

    def watch(self, _: float) -> int | None:
        """Its exit code, once it has ended: how long it may be without a sign of life, its task watches itself."""
        if self.code is None:
            self.look()
        return self.code

    def stop(self, level: int) -> None:
        """Ask it to stop: 1 after the epoch that it is in, 2 at once. What waits is cancelled."""
        self.stopping = max(level, self.stopping)

    def tail(self) -> list[str]:
        """The last lines that it printed."""
        return self.said

    def close(self) -> None:
        """Nothing: the grid on its node has done it."""

    def submitted(self, name: str, index: int) -> None:
        """It is a task of a job now."""
        self.place, self.task, self.seen = (name, index), None, time.monotonic()
        self.saved, self.logged = self._checkpoint(), _size(self.log)

    def settled(self) -> bool:
        """Whether what lies in OUT tells what came of it: then its exit code is known."""
        forget()
        found = standing_now(self.cell)
        said = _since_start(self.log) if _size(self.log) > self.logged else []
        if found.status == "done" and not (self.cell.config.rerun and self._as_before(found.record)):
            self.code, self.said = 0, said
        elif (failure := read_failure(self.cell)) and not failure.retried:
            self._failed_there(failure)
        elif (named := record_named(said)) and named["status"] == "done" and not self._as_before(named):
            self.code, self.said = 0, said  # of images that this machine has not decoded
        return self.code is not None

    def judge(self, end: End) -> str:
        """Take in an end of which OUT says nothing. Returns why it is to be submitted again.

        "": it is not: its exit code is set, or the end can't be told yet.
        """
        self.begun = True
        stopped = self.stopping or end.state == "CANCELLED"
        near = end.limit is not None and end.seconds > end.limit - STOP_SECONDS - SLACK_SECONDS
        if not stopped and (end.state == "TIMEOUT" or (end.code == INTERRUPTED and near)):
            return self._out_of_time(end)
        if stopped or end.code == INTERRUPTED:  # somebody has sent it a signal
            self.code = INTERRUPTED
        elif end.state == "OUT_OF_MEMORY":
            self._fail(OF_MEMORY)
        elif end.state in OF_NODES:
            return self._of_its_node(end.state or "Slurm knows no more of it")
        elif time.monotonic() - self.seen > SETTLE_SECONDS:
            self._unexplained(end)
        return ""

    def _out_of_time(self, end: End) -> str:
        if self._checkpoint() != self.saved:
            self.tries, self.longer = 0, 2 * self.longer
            return "its time limit"
        limit = f" of {duration(end.limit)}" if end.limit else ""
        self._fail(
            f"error: its time limit{limit} ended it before an epoch was saved. Give it more: "
            '--slurm="--time=HOURS:MINUTES:SECONDS"'
        )
        return ""

    def _of_its_node(self, what: str) -> str:
        self.tries = 1 if self._checkpoint() != self.saved else self.tries + 1
        if self.tries < MOST_TRIES:
            return what
        self._fail(f"error: {self.tries} tasks of it in a row were ended before an epoch was saved: {what}")
        return ""

    def _unexplained(self, end: End) -> None:
        """The end of a task that should have left a record, or a failure: it wrote nothing, or elsewhere."""
        where = f" on {end.node}" if end.node else ""
        printed = self.log_of_task()
        if printed is None or end.code == 0:
            self._fail(
                f"error: Slurm says {end.state} of the task{where}, but it left nothing in "
                f"{self.cell.config.out.absolute()}. Expected a folder that the nodes share with this machine: --out "
                "chooses another. The folder of grid.py, its Python and the data must be such, too.",
                code=UserError.exit_code,
            )
        else:
            self._fail(*printed, code=end.code or RunError.exit_code)

    def log_of_task(self) -> list[str] | None:
        """The last lines that its task printed beside the cell's own log; None: there is no such file."""
        assert self.place is not None
        name, index = self.place
        try:
            return last_lines(folder_of(self.cell.config.out) / f"{name}-{index}.log")
        except OSError:
            return None

    def _failed_there(self, failure: Failure) -> None:
        """The task has kept its failure, which the grid here says again."""
        self.said = failure.tail
        self.stalled = failure.reason.startswith(STALLED)
        if self.stalled:
            self.said = [*failure.tail, failure.reason]
        self.code = RunError.exit_code if failure.exit_code is None else failure.exit_code
        if self.code == -9 and self.task and self.task.state == "OUT_OF_MEMORY":
            self.said = [*failure.tail, OF_MEMORY]

    def _fail(self, *lines: str, code: int = RunError.exit_code) -> None:
        self.code, self.said = code, list(lines)

    def _as_before(self, record: Record | None) -> bool:
        return bool(self.before and record and record["started"] == self.before["started"])

    def _checkpoint(self) -> tuple[int, ...]:
        """Its checkpoint's time and size; (): there is none."""
        record = standing_now(self.cell).record
        try:
            status = (self.cell.folder / str((record or {})["run"]) / CHECKPOINT).stat()
        except (OSError, KeyError):
            return ()
        return (status.st_mtime_ns, status.st_size)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


def _since_start(log: Path) -> list[str]:
    """The last lines of a cell's log, since it was started last."""
    try:
        lines = last_lines(log)
    except OSError:
        return []
    starts = [number for number, line in enumerate(lines) if line.startswith("$ python ")]
    return lines[starts[-1] + 1 :] if starts else lines
