"""A Slurm cluster as the places that cells run on: submits them, and asks what became of them."""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from types import TracebackType

from engine import INTERRUPTED
from engine.errors import RunError, UserError, counted
from engine.files import locked, write_text
from grids.cells import Cell
from grids.estimate import Speeds
from grids.ledger import standing_now
from grids.places import Places, Work
from grids.slurm.commands import ENDED, CommandError, End, Task, cancel, end_of, exclude, most_tasks, submit, tasks_of
from grids.slurm.script import Request, cells_in, folder_of, minutes_for, new_name, script_of
from grids.slurm.work import SlurmWork
from grids.view import Progress, View

POLL_SECONDS = 10.0  # between two questions to Slurm, which serves others too
STOP_POLL_SECONDS = 2.0  # while somebody waits for the end
REFUSED_SECONDS = 60.0  # until more is submitted, where Slurm takes no more for now
UNSEEN_SECONDS = 30.0  # until a task that Slurm does not show is taken to be gone
SILENT_SECONDS = 300.0  # without an answer, until that is said again
# why tasks wait as long as others have the nodes: https://slurm.schedmd.com/job_reason_codes.html
USUAL = frozenset(("None", "Priority", "Resources", "BeginTime", "JobArrayTaskLimit", "Cleaning", "Prolog"))


class Cluster(Places):
    """Slurm, which starts cells when it will; a cell has been started here once it is to be submitted."""

    has_room = True  # its queue is as long as it lets it be

    def __init__(self, out: Path, request: Request, speeds: Speeds) -> None:
        self._folder, self._request, self._speeds = folder_of(out), request, speeds
        self._works: list[SlurmWork] = []
        self._next = self._submit_next = 0.0  # when Slurm is asked, and given something, again
        self._told: dict[str, int] = {}  # how urgently a task was asked to stop
        self._unheard: float | None = None  # since when Slurm has not answered
        self._reasons: set[str] = set()
        self._most: int | None = None
        self._avoided: set[str] = set()  # nodes
        self._gave = False  # whether Slurm has anything of this grid's
        self._left = False  # whether this process goes, and the tasks stay
        self.notes: list[str] = []  # to be said

    @property
    def at_once(self) -> int:
        """How many run now."""
        return max(1, sum(not work.waits for work in self._works))

    @property
    def waiting(self) -> str:
        """How many wait, and why, in words; "": none does."""
        reasons = Counter(work.task.reason if work.task else "" for work in self._works if work.waits)
        named = ", ".join(sorted(reason for reason in reasons if reason and reason != "None"))
        return f"{reasons.total():,} in the queue{f' ({named})' if named else ''}" if reasons else ""

    def start(self, cell: Cell, lock: int, seeds: int) -> SlurmWork:
        """The cell is submitted, with all others that are started now, at the next look at any of them."""
        os.close(lock)  # the task takes it, on its node
        work = SlurmWork(cell, self._look, standing_now(cell).record if cell.config.rerun else None)
        self._works.append(work)
        return work

    def leave(self, work: Work) -> None:
        """It has ended."""
        assert isinstance(work, SlurmWork)
        self._works.remove(work)

    def avoid(self, where: str) -> None:
        """Let no task begin on that node, those that wait among them."""
        self._avoided.add(where)
        self._exclude()

    def readmit(self, where: str) -> None:
        """Let tasks begin there again."""
        self._avoided.discard(where)
        self._exclude()

    def _exclude(self) -> None:
        waiting = [work.task.id for work in self._works if work.waits and work.task]
        try:
            if waiting:
                exclude(waiting, [*self._request.excluded, *sorted(self._avoided)])
        except CommandError as problem:
            self.notes.append(f"Slurm does not let its tasks avoid a node: {problem}")

    @property
    def left(self) -> bool:
        """Whether there are tasks that go on while this process ends."""
        return self._left and self._gave

    def abandon(self) -> None:
        """Let them."""
        self._left = True

    def _look(self) -> None:
        """Submit what has not been, and ask Slurm how the rest stands, if it is time to."""
        now = time.monotonic()
        urgent = any(work.stopping > self._told.get(work.cell.id, 0) for work in self._works)
        if self._left:
            self._end_unsettled(self._works)
            return
        if now < self._next and not (urgent and now > self._next - POLL_SECONDS + STOP_POLL_SECONDS):
            return
        stopping = any(work.stopping for work in self._works)
        try:
            if stopping:
                self._end_unsettled([work for work in self._works if work.place is None])
            elif now >= self._submit_next:
                self._submit([work for work in self._works if work.place is None and work.code is None])
            self._ask()
            self._stop()
        except BaseException:
            self.abandon()  # what is in the queue is no worse for it
            raise
        self._gave |= any(work.place for work in self._works)
        self._next = time.monotonic() + (STOP_POLL_SECONDS if stopping else POLL_SECONDS)

    def _end_unsettled(self, works: Sequence[SlurmWork]) -> None:
        for work in works:
            if work.code is None:
                work.code = INTERRUPTED

    def _submit(self, works: list[SlurmWork]) -> None:
        """Submit the cells that no task has yet. UserError: Slurm takes none of them."""
        if not works:
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        with locked(self._folder / "lock", "another grid with this --out submits its cells"):
            try:
                rest = self._not_in_the_queue(works)
            except CommandError as problem:
                if any(work.place for work in self._works):
                    self._silent(problem)
                    return
                raise RunError(f"Slurm does not answer, and nothing was submitted: {problem}") from problem
            size = self._most = self._most or most_tasks()
            while rest:
                some = rest[:size]
                try:
                    self._submit_array(some)
                except CommandError as problem:
                    # it may have a limit for all of a user's tasks, or for one array, which it does not tell
                    if len(some) > 1 and any(word in str(problem).lower() for word in ("limit", "array")):
                        size = len(some) // 2
                        continue
                    self._refused(rest, problem)
                    return
                rest = rest[len(some) :]

    def _refused(self, works: Sequence[SlurmWork], problem: CommandError) -> None:
        """Slurm takes no more for now; where nothing of these cells is in its queue, it never will."""
        if not any(work.place for work in self._works):
            raise UserError(
                f"Slurm refuses the array job: {problem}. --slurm takes what else the cluster wants of a job: "
                '--slurm="--partition=gpu --account=me --time=2:00:00", say.'
            )
        if not self._submit_next:
            self.notes.append(f"Slurm takes no more for now; {counted(len(works), 'cell', 'wait')} for that: {problem}")
        self._submit_next = time.monotonic() + REFUSED_SECONDS

    def _not_in_the_queue(self, works: list[SlurmWork]) -> list[SlurmWork]:
        """The cells that no job has which was submitted before, by a grid that has ended, or by another."""
        wanted = {work.cell.id: work for work in works}
        scripts: dict[str, dict[int, str]] = {}
        for path in sorted(self._folder.glob("grid-*.sh")):
            with suppress(OSError):
                cells = cells_in(path.read_text("utf-8", errors="replace"))
                if mine := {number: cell for number, cell in cells.items() if cell in wanted}:
                    scripts[path.stem] = mine
        found = 0
        for task in tasks_of(scripts) if scripts else []:
            cell = scripts.get(task.name, {}).get(task.index)
            if cell in wanted and task.state not in ENDED:
                wanted.pop(cell).submitted(task.name, task.index)
                found += 1
        if found:
            self.notes.append(f"{counted(found, 'cell', 'are')} in Slurm's queue, or at work there, already")
        return list(wanted.values())

    def _submit_array(self, works: Sequence[SlurmWork]) -> None:
        name, again = new_name(), all(work.begun for work in works)
        cells, factor = [work.cell for work in works], max(work.longer for work in works)
        limit = minutes_for(cells, self._speeds, factor) if self._request.timed else None
        path = self._folder / f"{name}.sh"
        write_text(path, script_of(name, cells, self._request, limit, again, sorted(self._avoided)))
        job = _submitted(path)
        for index, work in enumerate(works):
            work.submitted(name, index)
        self.notes.append(f"submitted {counted(len(works), 'cell')} as job {job}: {path}")

    def _ask(self) -> None:
        """Ask Slurm how what was submitted stands."""
        placed = [work for work in self._works if work.place and work.code is None]
        if not placed:
            return
        try:
            shown = tasks_of({work.place[0] for work in placed if work.place})
        except CommandError as problem:
            self._silent(problem)
            return
        self._unheard = None
        # a script that was submitted by hand has two jobs of its name: what has not ended counts, and what came last
        shown.sort(key=lambda task: (task.state not in ENDED, int(task.job) if task.job.isdecimal() else 0))
        by_place = {(task.name, task.index): task for task in shown}
        for work in placed:
            self._take_in(work, by_place.get(work.place) if work.place else None)
        for reason in {work.task.reason for work in placed if work.task and work.waits} - USUAL - self._reasons - {""}:
            self._reasons.add(reason)
            self.notes.append(f"Slurm lets cells wait: {reason}")

    def _take_in(self, work: SlurmWork, task: Task | None) -> None:
        now = time.monotonic()
        if task is not None and task.state not in ENDED:
            work.task, work.seen = task, now
            if task.state == "COMPLETING":  # what the cluster does after it may take minutes
                work.settled()
            return
        if task is None and now - work.seen < UNSEEN_SECONDS and not (work.task or work.stopping):
            return
        if task is not None and not work.ended:
            work.task, work.seen = task, now
        if work.settled():
            return
        if again := work.judge(end_of(work.task) if work.task else End("", None)):
            work.place, work.task = None, None
            self.notes.append(f"{work.cell.title} is submitted again: {again}")

    def _stop(self) -> None:
        """Ask the tasks to stop of which that is wanted; those that wait are cancelled."""
        asked = [work for work in self._works if work.stopping and work.code is None and work.task and not work.ended]
        polite = [work for work in asked if work.stopping == 1]
        waiting = [work.task.id for work in polite if work.task and work.waits]
        begun = [work for work in polite if self._told.get(work.cell.id, 0) < 1 and not work.waits]
        at_once = [work for work in asked if work.stopping > 1 and self._told.get(work.cell.id, 0) < 2]
        # the batch shell is the grid on the node
        for works, how in ((begun, ("--batch", "--signal=INT")), (at_once, ())):
            if self._cancelled([work.task.id for work in works if work.task], *how):
                self._told |= {work.cell.id: work.stopping for work in works}
        self._cancelled(waiting, "--state=PENDING")

    def _cancelled(self, ids: Sequence[str], *how: str) -> bool:
        """Whether Slurm has taken it in; of tasks that have just ended, it complains of each."""
        try:
            if ids:
                cancel(ids, *how)
        except CommandError as problem:
            if not any(words in str(problem).lower() for words in ("invalid job", "complet")):
                self._silent(problem)
                return False
        return True

    def _silent(self, problem: CommandError) -> None:
        """Slurm does not answer, which says nothing of the cells."""
        now = time.monotonic()
        if self._unheard is None or now - self._unheard > SILENT_SECONDS:
            self._unheard = now
            self.notes.append(f"Slurm does not answer, its tasks go on: {problem}")


def _submitted(script: Path) -> str:
    """The number of the job that a script was submitted as. CommandError: it was not, and the script is gone.

    Where nobody can say whether it was, it stays, by which its tasks are found.
    """
    try:
        return submit(str(script))
    except UserError:
        script.unlink()
        raise
    except CommandError:
        tasks = tasks_of([script.stem])  # an answer that came too late was one all the same
        if tasks:
            return tasks[0].job
        script.unlink()
        raise


class QueueView:
    """A view for cells that wait in a queue before they run: shows those that run, and how many wait."""

    def __init__(self, view: View, cluster: Cluster) -> None:
        self._view, self._cluster = view, cluster
        self._shown_at_work: set[str] = set()  # ids of cells

    def __enter__(self) -> View:
        self._view.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, problem: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._view.__exit__(kind, problem, trace)

    def started(self, worker: Work, progress: Progress) -> None:
        """It is to be submitted: nothing to show yet."""

    def ended(self, cell: Cell, status: str, what: str, progress: Progress) -> None:
        if not self._cluster.left:
            self._view.ended(cell, status, what, self._shown(progress))

    def note(self, text: str) -> None:
        if not self._cluster.left:
            self._view.note(text)

    def refresh(self, progress: Progress) -> None:
        shown = self._shown(progress)
        while self._cluster.notes:
            self._view.note(self._cluster.notes.pop(0))
        at_work = {work.cell.id: work for work in shown.running}
        for work in (work for key, work in at_work.items() if key not in self._shown_at_work):
            self._view.started(work, shown)
        self._shown_at_work = set(at_work)
        self._view.refresh(shown)

    def _shown(self, progress: Progress) -> Progress:
        running = tuple(work for work in progress.running if isinstance(work, SlurmWork) and not work.waits)
        remaining = "; ".join(filter(None, (progress.remaining, self._cluster.waiting)))
        return replace(progress, running=running, remaining=remaining)
