"""The main loop of grid.py, and of a search's rung: cells -> processes -> what came of them."""

from __future__ import annotations

import os
import signal
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from engine import INTERRUPTED
from engine.console import duration
from engine.errors import RunError, UserError
from engine.records.schema import BUSY, Record
from grids.cells import Cell
from grids.estimate import Speeds, total
from grids.faults import Fault, shared_fault
from grids.health import HERE, Health
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
from grids.order import Order
from grids.places import Clock, Places, Work
from grids.view import Progress, View
from grids.worker import reason_of

MOMENT = 0.1  # seconds between two looks at what runs
LOOK_AGAIN = 1.0  # seconds between two attempts at cells that another grid has, where there are no others
LOOK_AGAIN_BUSY = 60.0  # seconds; where there are others
ESTIMATE_AGAIN = 10.0  # seconds, where nothing has ended
ESTIMATE_AGAIN_A_CELL = 0.01  # seconds for each cell of the grid, at least: a hundred times what it takes, or more
MOST_LOSSES = 3  # of what a cell ran on, after which it may be the cell that breaks it


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
        clock: Clock = Clock(),  # noqa: B008 (it has no state)
    ) -> None:
        self.cells, self.standings, self.speeds = cells, dict(standings), speeds
        self.stop_level = 0  # how often a stop was asked for
        self.keep_records = False  # of cells that end, which a search reads on in; of 20,000 they take half a gigabyte
        self._stall_minutes = stall_minutes
        self._places, self._clock = places, clock
        left = [cell for cell in cells if to_be_tried(standings[cell.id], retry_failed)]
        self._order = Order(cells, left, speeds)
        self._left = {cell.id for cell in left}  # those that have not come to an end
        self._ended = Counter(standings[cell.id].status for cell in cells if cell.id not in self._left)
        for cell in cells:
            if standings[cell.id].status == "done":
                self._order.done(cell)
        self._undecided = {key for key, its in standings.items() if its.other_images}
        self._running: list[Work] = []
        self._health = Health(cells)
        self._faults: list[Fault] = []
        self._mendable: list[tuple[Cell, Failure]] = []
        self._losses: Counter[str] = Counter()
        self._started_at_start = {key: its.record["started"] for key, its in standings.items() if its.record}
        self._at_start = {key: its.failure for key, its in standings.items()}
        self._remaining, self._estimated = "", 0.0  # how long the rest takes, and when that was found

    def run(self, view: View) -> None:
        """Until nothing is left to do, or a stop was asked for and all that ran has ended."""
        told = 0
        try:
            self._estimate()
            while self._running or (not self.stop_level and (len(self._order) or self._health.held)):
                if self.stop_level > told:
                    told = self.stop_level
                    self._tell_to_stop(view)
                for worker in list(self._running):
                    code = worker.watch(self._stall_minutes * 60)
                    if code is not None:
                        self._settle(worker, code, view)
                self._look_at_places(view)
                while self._places.has_room and not self.stop_level and self._start_next(view):
                    pass
                self._estimate_after(ESTIMATE_AGAIN)
                view.refresh(self._progress())
                self._clock.sleep(MOMENT)
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
        self._order.take_back(self._clock.now() - (LOOK_AGAIN_BUSY if self._order.waiting else LOOK_AGAIN))
        cell = self._next()
        if cell is None:
            return False
        lock = take(cell)
        if lock is None:
            self._order.lend(cell, self._clock.now())
            return True
        worker = None
        try:
            if not self._settled_already(cell, view):
                if failure := self.standings[cell.id].failure:
                    mark_retried(cell, failure)
                    self.standings[cell.id] = Standing("interrupted")
                with self._beside(cell):
                    worker = self._places.start(cell, lock, 1 + self._order.seeds_to_come(cell))
                self._running.append(worker)
                self._order.started(cell)
        except OSError as problem:  # no process, or no room for a log: so it would be for every other cell
            raise RunError(f"{cell.title} can't be started: {problem}. The same command continues.") from problem
        finally:
            if worker is None:
                os.close(lock)
        if worker:
            view.started(worker, self._progress())
        return True

    def _settled_already(self, cell: Cell, view: View) -> bool:
        """Whether the cell needs no process: another grid has just settled it, or it would end as others did."""
        found = standing_now(cell)
        kept = read_failure(cell)
        done = found.status == "done"
        if found.record and cell.config.rerun:  # it is to be made anew, unless another grid has just done that
            done &= found.record["started"] != self._started_at_start.get(cell.id)
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
        self._running = [each for each in self._running if each is not worker]  # to compare them takes longer
        self._order.ended(cell)
        self._places.leave(worker)
        try:
            forget()
            found = standing_now(cell)
            if code == 0 and found.status != "done":  # the script has looked at the images, as with --no-cache
                record = record_named(tail)
                found = Standing("done", record) if record and record["status"] == "done" else found
            if found.status == "done":
                drop_failure(cell)
                self._health.well(cell, worker.where, self._clock.now())
                if found.record:
                    self.speeds.add_around(found.record, worker.seconds)
                self._note(cell, found)
                view.ended(cell, "done", f"{result_of(found)} in {duration(worker.seconds)}", self._progress())
            elif worker.lost and self._losses[cell.id] < MOST_LOSSES:
                self._losses[cell.id] += 1
                self._order.put_back(cell)
                self.standings[cell.id] = Standing("interrupted", found.record)
                view.note(f"{cell.title}: {worker.where} is lost to it, and it goes on elsewhere")
            elif code == UserError.exit_code and any(BUSY in line for line in tail):  # a run that was started by hand
                self._order.lend(cell, self._clock.now())
                view.note(f"{cell.title}: another process is at it")
            elif not worker.stalled and (code == INTERRUPTED or worker.stopping > 1 or (worker.stopping and code < 0)):
                self.standings[cell.id] = Standing("interrupted", found.record)
                view.ended(cell, "stopped", "the same command goes on with it", self._progress())
            else:
                reason = reason_of(code, worker, tail, self._stall_minutes)
                if code == 0:
                    reason = f"it ended well, but no record under {cell.config.out} says that this cell is done"
                if worker.lost:
                    reason = f"what it ran on was lost {MOST_LOSSES + 1} times; the last was {worker.where}"
                self._settle_failure(worker, failure_now(cell, code, reason, tail), view)
        finally:
            worker.close()

    def _settle_failure(self, worker: Work, failure: Failure, view: View) -> None:
        cell = worker.cell
        self._health.seen(work.where for work in (*self._running, worker))
        if self._health.may_be_the_place(worker, failure, self._clock.now()):
            self._interrupted(cell, failure, view)
            what = f"{failure.reason.rstrip('.')}, on {worker.where}: it is tried elsewhere"
            view.ended(cell, "stopped", what, self._progress())
            return
        fault = shared_fault(cell, failure, self._mendable)
        self._mendable.append((cell, failure))
        if fault:
            self._faults.append(fault)
        self._fail(cell, failure, view)

    def _interrupted(self, cell: Cell, failure: Failure, view: View) -> None:
        """The failure was the place's: no grid counts it."""
        self.standings[cell.id] = Standing("interrupted")
        try:
            mark_retried(cell, failure)
        except OSError as problem:
            view.note(f"note: that {cell.title} is to be tried again can't be kept: {problem}")

    def _look_at_places(self, view: View) -> None:
        """Give no cells to places that fail them, and those cells to others. RunError: no place is left."""
        now = self._clock.now()
        for where in self._health.newly_out(self._running, now):
            self._places.avoid(where)
            view.note(f"{where or HERE} gets no more cells for now: {self._health.out[where]}")
        for where in self._health.due(now):
            self._places.readmit(where)
            view.note(f"{where or HERE} is tried again")
        if self._health.out and not self._running and not self._places.at_once:
            for cell in self._health.failed_there():
                if failure := self.standings[cell.id].failure:
                    self._interrupted(cell, failure, view)
                    self._left.add(cell.id)
                    self._ended["failed"] -= 1
            raise RunError(self._health.none_left)

    def _next(self) -> Cell | None:
        """One that has failed where there is no room now, but elsewhere is; or the next in the order, if any."""
        idle = not (self._order.waiting or self._running)
        for cell in self._health.held:
            with self._beside(cell) as there_is_room:
                pass
            if there_is_room or idle:
                self._health.held.remove(cell)
                return cell
        return self._order.next(self._running, self._places.at_once)

    @contextmanager
    def _beside(self, cell: Cell) -> Iterator[bool]:
        """Avoid the places where the cell has failed, meanwhile, if there is room on others; whether there is."""
        bad = self._health.tried_at(cell) - self._health.out.keys()
        for where in bad:
            self._places.avoid(where)
        if not (there_is_room := self._places.has_room):
            for where in bad:
                self._places.readmit(where)
        try:
            yield there_is_room
        finally:
            for where in bad:
                self._places.readmit(where)

    def abandon(self) -> None:
        """Let what runs go on while this process ends, where it can."""
        self._places.abandon()

    @property
    def abandoned(self) -> bool:
        """Whether it does."""
        return self._places.left

    @property
    def avoided(self) -> list[str]:
        """The places that get no cells, and why."""
        return [f"{where or HERE}: {reason}" for where, reason in self._health.out.items()]

    def _note(self, cell: Cell, found: Standing) -> None:
        """The cell has come to an end, here or elsewhere."""
        self._left.discard(cell.id)
        self._ended[found.status] += 1
        self.standings[cell.id] = found if self.keep_records else replace(found, record=None)
        if found.status == "done":
            self._order.done(cell)
        if found.record:
            self.speeds.add(found.record)
        self._estimate_after(0.0)

    def _fail(self, cell: Cell, failure: Failure, view: View) -> None:
        self._note(cell, Standing("failed", None, failure))
        try:
            keep_failure(cell, failure)
        except OSError as problem:  # a full disk, say: the next grid tries the cell again
            view.note(f"note: the failure of {cell.title} can't be kept: {problem}")
        view.ended(cell, "failed", failure.reason, self._progress())

    def _estimate_after(self, seconds: float) -> None:
        """Estimate anew if it is so long ago, and long enough for so many cells."""
        least = max(seconds, ESTIMATE_AGAIN_A_CELL * len(self.cells))
        if self._clock.now() - self._estimated > least:
            self._estimate()

    def _estimate(self) -> None:
        """How long the rest takes, of what runs too, and with it the order."""
        self._estimated = self._clock.now()
        self._order.estimate()
        left = self._order.estimates()
        for worker in self._running:
            whole = self._order.estimate_of(worker.cell)
            left.append(whole and replace(whole, seconds=max(whole.seconds - worker.seconds, 0.0)))
        self._remaining = total(left, max(1, self._places.at_once))

    def _progress(self) -> Progress:
        counts = (len(self.cells), self._ended["done"], self._ended["failed"], self._order.elsewhere)
        return Progress(*counts, self._remaining, tuple(self._running), self.avoided)

    def _end_all(self) -> None:
        """Leave no process behind, whatever ends this one."""
        for worker in self._running:
            worker.stop(2)
        for worker in self._running:
            while worker.watch(float("inf")) is None:
                self._clock.sleep(MOMENT)
            worker.close()


def result_of(found: Standing) -> str:
    """The result of a cell that is done."""
    record: Record = found.record or {}
    return f"top-1 {record['test']['top1']:.2%}" if "test" in record else "done"


@contextmanager
def signals_to(grid: Grid) -> Iterator[None]:
    """Ctrl-C, a scheduler's polite end and a lost terminal are for `grid` to count while it runs.

    But for Ctrl-C, what runs goes on without this process, where it can.
    """

    def ask(number: int, _: object) -> None:
        if number != signal.SIGINT:
            grid.abandon()
        grid.stop_level += 1

    earlier = {number: signal.signal(number, ask) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in earlier.items():
            signal.signal(number, handler)
