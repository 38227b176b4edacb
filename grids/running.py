"""The main loop of grid.py, and of a search's rung: cells -> processes -> what came of them."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from engine import INTERRUPTED
from engine.console import duration
from engine.errors import RunError, UserError
from engine.records.schema import BUSY, Record
from grids.cells import Cell
from grids.estimate import Speeds, total
from grids.faults import Fault, shared_fault
from grids.images import forget
from grids.ledger import (
    Failure,
    Standing,
    drop_failure,
    failure_now,
    keep_failure,
    mark_retried,
    read_failure,
    record_named,
    standing_now,
    take,
    to_be_tried,
)
from grids.places import Places, Work
from grids.view import Progress, View
from grids.worker import reason_of

MOMENT = 0.1  # seconds between two looks at what runs
LOOK_AGAIN = 1.0  # seconds between two attempts at cells that another grid has
ESTIMATE_AGAIN = 10.0  # seconds


class Grid:
    """What is left to do, what runs, and what has come of the rest."""

    def __init__(
        self,
        cells: Sequence[Cell],
        standings: dict[str, Standing],
        speeds: Speeds,
        places: Places,
        retry_failed: bool,
        stall_minutes: float,
    ) -> None:
        self.cells, self.standings, self.speeds = cells, dict(standings), speeds
        self.stop_level = 0  # how often a stop was asked for
        self._stall_minutes = stall_minutes
        self._places = places
        self._to_do = deque(cell for cell in cells if to_be_tried(standings[cell.id], retry_failed))
        self._left = {cell.id for cell in self._to_do}  # those that have not come to an end
        self._undecided = {key for key, its in standings.items() if its.other_images}
        self._elsewhere: deque[Cell] = deque()
        self._looked = 0.0  # when elsewhere was last looked at
        self._running: list[Work] = []
        self._faults: list[Fault] = []
        self._mendable: list[tuple[Cell, Failure]] = []
        self._record_at_start = {key: its.record for key, its in standings.items()}
        self._at_start = {key: its.failure for key, its in standings.items()}
        self._remaining, self._estimated = "", 0.0  # how long the rest takes, and when that was found

    def run(self, view: View) -> None:
        """Until nothing is left to do, or a stop was asked for and all that ran has ended."""
        told = 0
        try:
            self._estimate()
            while self._running or (not self.stop_level and (self._to_do or self._elsewhere)):
                if self.stop_level > told:
                    told = self.stop_level
                    self._tell_to_stop(view)
                for worker in list(self._running):
                    code = worker.watch(self._stall_minutes * 60)
                    if code is not None:
                        self._settle(worker, code, view)
                while self._places.has_room and not self.stop_level and self._start_next(view):
                    pass
                if time.monotonic() - self._estimated > ESTIMATE_AGAIN:
                    self._estimate()
                view.refresh(self._progress())
                time.sleep(MOMENT)
        finally:
            self._end_all()

    def _tell_to_stop(self, view: View) -> None:
        for worker in self._running:
            worker.stop(min(self.stop_level, 2))
        if self._running:
            after = "after the epochs that are running; Ctrl-C again stops at once"
            view.note(f"stopping {'at once' if self.stop_level > 1 else after}")

    def _start_next(self, view: View) -> bool:
        """Start the next cell, or settle it without; False: there is none that could be started now."""
        if not self._to_do:
            if not self._elsewhere or time.monotonic() - self._looked < LOOK_AGAIN:
                return False
            self._looked = time.monotonic()
            self._to_do, self._elsewhere = self._elsewhere, self._to_do
        cell = self._to_do.popleft()
        lock = take(cell)
        if lock is None:
            if not self._to_do:
                self._looked = time.monotonic()
            self._elsewhere.append(cell)
            return True
        worker = None
        try:
            if not self._settled_already(cell, view):
                if failure := self.standings[cell.id].failure:
                    mark_retried(cell, failure)
                    self.standings[cell.id] = Standing("interrupted")
                worker = self._places.start(cell, lock, self._seeds_to_come(cell))
                self._running.append(worker)
        except OSError as problem:  # no process, or no room for a log: so it would be for every other cell
            raise RunError(f"{cell.title} can't be started: {problem}. The same command continues.") from problem
        finally:
            if worker is None:
                os.close(lock)
        if worker:
            view.started(worker, self._progress())
        return True

    def _seeds_to_come(self, cell: Cell) -> int:
        """How many cells are left, this one included, that differ from it in their seed, or fold, alone."""
        return sum(each.but_for_seed == cell.but_for_seed for each in (cell, *self._to_do, *self._elsewhere))

    def _settled_already(self, cell: Cell, view: View) -> bool:
        """Whether the cell needs no process: another grid has just settled it, or it would end as others did."""
        found = standing_now(cell)
        kept = read_failure(cell)
        done = found.status == "done"
        if found.record and cell.config.rerun:  # it is to be made anew, unless another grid has just done that
            earlier = self._record_at_start[cell.id]
            done &= earlier is None or found.record["started"] != earlier["started"]
        if done or (kept and not kept.retried and kept != self._at_start[cell.id]):
            self._note(cell, found)
            what = kept.reason if kept and found.status == "failed" else result_of(found)
            # a record that was there at the start, of images that have been decoded since
            whose = "by an earlier run" if done and cell.id in self._undecided else "by another process"
            view.ended(cell, found.status, f"{what} ({whose})", self._progress())
            return True
        for fault in self._faults:
            if fault.concerns(cell):
                self._fail(cell, fault.failure(cell), view)
                return True
        return False

    def _settle(self, worker: Work, code: int, view: View) -> None:
        """Write down what came of a cell whose process has ended, and let others have it."""
        cell, tail = worker.cell, worker.tail()
        self._running.remove(worker)
        self._places.leave(worker)
        try:
            forget()
            found = standing_now(cell)
            if code == 0 and found.status != "done":  # the script has looked at the images, as with --no-cache
                record = record_named(tail)
                found = Standing("done", record) if record and record["status"] == "done" else found
            if found.status == "done":
                drop_failure(cell)
                if found.record:
                    self.speeds.add_around(found.record, worker.seconds)
                self._note(cell, found)
                view.ended(cell, "done", f"{result_of(found)} in {duration(worker.seconds)}", self._progress())
            elif code == UserError.exit_code and any(BUSY in line for line in tail):  # a run that was started by hand
                self._elsewhere.append(cell)
                view.note(f"{cell.title}: another process is at it")
            elif not worker.stalled and (code == INTERRUPTED or worker.stopping > 1 or (worker.stopping and code < 0)):
                self.standings[cell.id] = Standing("interrupted", found.record)
                view.ended(cell, "stopped", "the same command goes on with it", self._progress())
            else:
                reason = reason_of(code, worker, tail, self._stall_minutes)
                if code == 0:
                    reason = f"it ended well, but no record under {cell.config.out} says that this cell is done"
                failure = failure_now(cell, code, reason, tail)
                fault = shared_fault(cell, failure, self._mendable)
                self._mendable.append((cell, failure))
                if fault:
                    self._faults.append(fault)
                self._fail(cell, failure, view)
        finally:
            worker.close()

    def _note(self, cell: Cell, found: Standing) -> None:
        self.standings[cell.id] = found
        self._left.discard(cell.id)
        if found.record:
            self.speeds.add(found.record)
        self._estimate()

    def _fail(self, cell: Cell, failure: Failure, view: View) -> None:
        self._note(cell, Standing("failed", None, failure))
        try:
            keep_failure(cell, failure)
        except OSError as problem:  # a full disk, say: the next grid tries the cell again
            view.note(f"note: the failure of {cell.title} can't be kept: {problem}")
        view.ended(cell, "failed", failure.reason, self._progress())

    def _estimate(self) -> None:
        """How long the rest takes, of what runs too."""
        self._estimated = time.monotonic()
        left = [self.speeds.estimate(cell) for cell in (*self._to_do, *self._elsewhere)]
        for worker in self._running:
            whole = self.speeds.estimate(worker.cell)
            left.append(whole and replace(whole, seconds=max(whole.seconds - worker.seconds, 0.0)))
        self._remaining = total(left, self._places.at_once)

    def _progress(self) -> Progress:
        counted = Counter(self.standings[cell.id].status for cell in self.cells if cell.id not in self._left)
        elsewhere = len(self._elsewhere)
        counts = (len(self.cells), counted["done"], counted["failed"], elsewhere)
        return Progress(*counts, self._remaining, tuple(self._running))

    def _end_all(self) -> None:
        """Leave no process behind, whatever ends this one."""
        for worker in self._running:
            worker.stop(2)
        for worker in self._running:
            while worker.watch(float("inf")) is None:
                time.sleep(MOMENT)
            worker.close()


def result_of(found: Standing) -> str:
    """The result of a cell that is done."""
    record: Record = found.record or {}
    return f"top-1 {record['test']['top1']:.2%}" if "test" in record else "done"


@contextmanager
def signals_to(grid: Grid, leave: Callable[[], None] | None = None) -> Iterator[None]:
    """Ctrl-C, a scheduler's polite end and a lost terminal are for `grid` to count while it runs.

    leave: what comes before, but for Ctrl-C, where the cells can go on without this process.
    """

    def ask(number: int, _: object) -> None:
        if leave and number != signal.SIGINT:
            leave()
        grid.stop_level += 1

    earlier = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
