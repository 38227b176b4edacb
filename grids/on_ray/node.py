"""On a node: one attempt at a cell, as a process that the task starts, watches, stops, and takes along when it ends."""

from __future__ import annotations

import os
import platform
import shutil
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from engine.errors import RunError
from engine.files import is_running, read_small
from engine.paths import PROJECT, is_dir
from engine.processes.heartbeat import OUT
from engine.records.schema import BUSY
from grids.cells import Cell
from grids.ledger import MENDABLE, grid_folder
from grids.on_ray.errand import KILLED, Ending, Errand, Order, Parcel, Sign, missing_words, refused
from grids.on_ray.parcel import packed, stamps, unpack
from grids.worker import TAIL_BYTES, Worker, start

MOMENT = 0.02  # seconds between two looks at the process
REPORT_SECONDS = 1.0  # between two signs of life for the grid
LEFT_SECONDS = 30.0  # without a word of the grid's, after which it has left an attempt
MOST_LOG = 16 * TAIL_BYTES  # of what was printed, that travels
SCRATCH = "which-backbone-ray"


class Desk:
    """The grid, as this attempt sees it."""

    def __init__(self, token: str, post: Any) -> None:
        self._token, self._post = token, post
        self._told, self._heard = -REPORT_SECONDS, time.monotonic()
        self.card, self.sees_out = "", True

    def ask(self, method: str, *values: Any) -> Any:
        """What the post answers."""
        import ray

        try:
            return ray.get(getattr(self._post, method).remote(self._token, *values))
        except ray.exceptions.RayTaskError as problem:
            raise problem.cause from None  # what Ray says of it are tracebacks

    def report(self, doing: str) -> Order | None:
        """A sign of life; returns what the grid wants, None: it has not said yet, or has left this attempt."""
        self._told = time.monotonic()
        order: Order | None = self.ask("report", Sign(doing, self.card, self.sees_out))
        if order is not None:
            self._heard = time.monotonic()
        return order

    @property
    def is_due(self) -> bool:
        """Whether it is time for a sign."""
        return time.monotonic() - self._told > REPORT_SECONDS

    @property
    def is_left(self) -> bool:
        """Whether the grid has wanted nothing of this attempt for so long that it has left it."""
        return time.monotonic() - self._heard > LEFT_SECONDS

    def begin(self) -> None:
        """Wait until the grid knows of this attempt, or has left it."""
        while self.report("") is None and not self.is_left:
            time.sleep(MOMENT)


def attempt(errand: Errand, post: Any) -> Ending:
    """The task: run the cell here. Its process ends with it, however it ends."""
    import ray

    name = platform.node()
    desk = Desk(errand.token, post)
    desk.card = ", ".join(map(str, ray.get_gpu_ids()))
    missing = [path for path in errand.needs if not path.exists()]
    if missing:
        line = missing_words(name, missing[0])
        return Ending(MENDABLE, [line], unfit=line.removeprefix("error: "))
    desk.sees_out = _holds(errand.mark, errand.token)
    desk.begin()
    if desk.is_left:
        return Ending(KILLED, [], left=True)
    try:
        if desk.sees_out:
            return _watched(_started(errand, _placed(errand), errand.hints), desk, None)
        with scratch(errand.token) as folder:
            return _apart(errand, desk, folder)
    except OSError as problem:
        return refused(problem, name)


def _holds(path: Path, content: str) -> bool:
    try:
        return read_small(path) == content.encode()
    except (OSError, ValueError):
        return False


@contextmanager
def scratch(token: str) -> Iterator[Path]:
    """A folder for this attempt; what killed ones left is removed."""
    above = Path(tempfile.gettempdir()) / f"{SCRATCH}-{os.getuid()}"
    above.mkdir(mode=0o700, exist_ok=True)
    for entry in above.iterdir():
        process = entry.name.partition("-")[0]
        if process.isdecimal() and int(process) != os.getpid() and not is_running(int(process)):
            shutil.rmtree(entry, ignore_errors=True)
    folder = above / f"{os.getpid()}-{token}"
    folder.mkdir()
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _apart(errand: Errand, desk: Desk, folder: Path) -> Ending:
    """The cell's runs are written on the node, and travel: those begun earlier to it, what it saves back."""
    out, aside = folder / "out", folder / "aside"
    grid_folder(out).mkdir(parents=True)
    unpack(desk.ask("earlier"), out, aside)
    sender = Sender(desk, out, errand.send_seconds)
    cell = _placed(errand)
    worker = _started(errand, replace(cell, config=replace(cell.config, out=out)), errand.hints | {OUT: str(out)})
    ending = _watched(worker, desk, sender)
    problem = sender.send()
    tail = [line.replace(str(out), str(errand.cell.config.out)) for line in ending.tail]
    if problem:
        tail += [f"error: what the run left on node {platform.node()} can't be kept: {problem}"]
        code = MENDABLE if BUSY in problem else RunError.exit_code
        ending = replace(ending, code=code)
    return replace(ending, tail=tail, log=_log(worker.log).replace(bytes(out), bytes(errand.cell.config.out)))


def _log(path: Path) -> bytes:
    with path.open("rb") as file:
        file.seek(max(0, path.stat().st_size - MOST_LOG))
        return file.read()


def _placed(errand: Errand) -> Cell:
    """The cell, with its command as it is here; this process is then in the folder that the cell's is to be in."""
    cell = errand.cell
    script = Path(cell.command[0])
    mine = PROJECT / script.relative_to(errand.project) if script.is_relative_to(errand.project) else script
    there = is_dir(errand.folder)
    os.chdir(errand.folder if there else tempfile.gettempdir())
    return replace(cell, command=(str(mine), *cell.command[1:], *([] if there else errand.whole_paths)))


def _started(errand: Errand, cell: Cell, hints: dict[str, str]) -> Worker:
    lock = os.open(os.devnull, os.O_RDONLY)  # the grid has the cell's
    try:
        return start(cell, lock, None, errand.seeds, errand.shared, hints)
    except BaseException:
        os.close(lock)
        raise


class Sender:
    """Sends what a run has saved to the grid, if anything has changed."""

    def __init__(self, desk: Desk, out: Path, seconds: float) -> None:
        self._desk, self._out, self._seconds = desk, out, seconds
        self._sent = stamps(out)
        self._looked = time.monotonic()

    @property
    def is_due(self) -> bool:
        """Whether it is time to look."""
        return time.monotonic() - self._looked > self._seconds

    def send(self) -> str:
        """Let the grid have what is new; returns why it can't be kept there, "": it is."""
        self._looked = time.monotonic()
        now = stamps(self._out)
        changed = [folder for folder, files in now.items() if files and files != self._sent.get(folder)]
        if not changed:
            return ""
        parcel: Parcel = packed(self._out, changed)
        problem: str = self._desk.ask("keep", parcel)
        if not problem:
            self._sent = now
        return problem


def _watched(worker: Worker, desk: Desk, sender: Sender | None) -> Ending:
    """Look after the process until it has ended."""
    stall_seconds = float("inf")
    try:
        while (code := worker.watch(stall_seconds)) is None:
            if desk.is_due:
                order = desk.report(worker.doing)
                if order is not None:
                    stall_seconds = order.stall_seconds
                    worker.stop(order.stop)
                elif desk.is_left:
                    worker.kill()
            if sender and sender.is_due:
                sender.send()  # what could not be kept is sent again
            time.sleep(MOMENT)
        return Ending(code, worker.tail(), worker.stalled, left=desk.is_left)
    finally:
        worker.close()
