"""One cell's process: started, watched for signs of life, stopped; what it printed last."""

from __future__ import annotations

import os
import resource
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from functools import reduce
from pathlib import Path

from engine.files import open_regular
from engine.paths import PROJECT
from engine.processes.heartbeat import DEVICE, HEARTBEAT, SEARCH, SEEDS, SHARED, die_with, libc
from grids.cells import Cell
from grids.faults import message_of
from grids.ledger import HEARTBEAT as ENDING
from grids.ledger import grid_folder, shortened
from grids.places import Work

TAIL_LINES = 50
DOING_BYTES = 100  # of what a process says that it does
TAIL_BYTES = 2**16  # that the last lines are looked for in
UNWATCHED_SECONDS = 10.0  # between two looks, of which a grid takes ten a second
GRACE_SECONDS = 10.0  # from the demand to stop at once to the end by force
LAST_WORDS_SECONDS = 5.0  # for a process that hangs to say where


@dataclass
class Worker:
    """A process that is at a cell, and what was seen of it."""

    cell: Cell
    slot: str | None  # the card that it has to itself, as CUDA_VISIBLE_DEVICES names it; None: no card, or any
    process: subprocess.Popen[bytes]
    lock: int  # the descriptor of the cell's lock, which the process has too
    log: Path
    heartbeat: Path
    offset: int  # where in the log this process began
    started: float = field(default_factory=time.monotonic)
    changed: float = field(default_factory=time.monotonic)  # when the last sign of life was seen
    looked: float = field(default_factory=time.monotonic)  # when it was last looked for
    stamp: tuple[int, ...] = ()
    stalled: bool = False
    stopping: int = 0  # 1: asked to stop after the epoch, 2: at once
    deadline: float | None = None  # when it is ended by force

    @property
    def where(self) -> str:
        """Its card."""
        return place_of(self.slot)

    @property
    def lost(self) -> bool:
        """Never: this machine is there while anybody asks."""
        return False

    @property
    def doing(self) -> str:
        """What it says that it does: "" where it has not said yet."""
        return said_in(self.heartbeat)

    @property
    def seconds(self) -> float:
        """Since its start."""
        return time.monotonic() - self.started

    def watch(self, stall_seconds: float) -> int | None:
        """Its exit code, once it has ended; end it where it gave no sign of life for so long, or is past its deadline.

        A process that hangs is first asked to print where, so that its log says so.
        """
        now = time.monotonic()
        stamp = _stamp(self.heartbeat, self.log)
        if now - self.looked > UNWATCHED_SECONDS:  # this process was stopped, and perhaps the other with it
            self.changed += now - self.looked
        self.looked = now
        if stamp != self.stamp:
            self.stamp, self.changed = stamp, now
        if not self.stalled and self.stopping < 2 and now - self.changed > stall_seconds:
            self.stalled, self.deadline = True, now + LAST_WORDS_SECONDS
            self.send(signal.SIGABRT)
        if self.deadline is not None and now > self.deadline:
            self.kill()
        return self.process.poll()

    def stop(self, level: int) -> None:
        """Ask it to stop: 1 after the epoch that it is in, 2 at once."""
        if level <= self.stopping or self.stalled:
            return
        self.stopping = level
        if level == 1:
            self.send(signal.SIGUSR1)
        else:
            self.send(signal.SIGINT)
            self.deadline = time.monotonic() + GRACE_SECONDS

    def send(self, number: signal.Signals) -> None:
        """A signal to the process alone."""
        self.process.send_signal(number)

    def kill(self) -> None:
        """End the process and all that it started in its group."""
        with suppress(ProcessLookupError, PermissionError):  # macOS: not permitted where only the dead are left
            os.killpg(self.process.pid, signal.SIGKILL)

    def tail(self) -> list[str]:
        """The last lines that it printed; of a line that a progress bar wrote again and again, what was left."""
        try:
            return last_lines(self.log, self.offset)
        except OSError as problem:
            return [f"the log can't be read: {problem}"]

    def close(self) -> None:
        """When the process has ended and what came of it is written down: let others have the cell."""
        self.kill()  # what it started may hold memory, or the lock
        with suppress(OSError):  # nobody reads it any more
            self.heartbeat.unlink(missing_ok=True)
        os.close(self.lock)


def said_in(heartbeat: Path) -> str:
    """What the process whose signs of life go to this file says that it does: "" where it has not said yet."""
    try:
        with open_regular(heartbeat) as file:
            return file.read(DOING_BYTES).decode("utf-8", errors="replace").strip()
    except OSError:
        return ""


def last_lines(log: Path, offset: int = 0) -> list[str]:
    """The last lines of a log, from so many bytes on, as a terminal would have them. OSError: it can't be read."""
    with open_regular(log) as file:
        size = file.seek(0, os.SEEK_END)
        file.seek(max(offset, size - TAIL_BYTES))
        text = file.read(TAIL_BYTES).decode("utf-8", errors="replace")
    lines = [_as_left(line) for line in text.split("\n")]
    return [line for line in lines if line][-TAIL_LINES:]


def place_of(slot: str | None) -> str:
    """What a card, as CUDA_VISIBLE_DEVICES names it, is called; "" for no card."""
    return "" if slot is None else f"card {slot}"


def _as_left(line: str) -> str:
    pieces = [piece.rstrip() for piece in line.split("\r")]
    return next((piece for piece in reversed(pieces) if piece), "")


def _stamp(*paths: Path) -> tuple[int, ...]:
    stamp: list[int] = []
    for path in paths:
        with suppress(OSError):
            status = path.stat()
            stamp += [status.st_mtime_ns, status.st_size]
    return tuple(stamp)


def start(
    cell: Cell,
    lock: int,
    slot: str | None,
    seeds: int = 1,
    shared: bool = False,
    hints: Mapping[str, str] | None = None,
) -> Worker:
    """Start the cell's command. OSError: it can't be.

    seeds: how many cells are to come that differ from it in their seed alone, itself included; shared: whether others
    run on the same device; hints: more environment variables.
    """
    folder = grid_folder(cell.config.out).absolute()
    log, heartbeat = folder / f"{cell.id}.log", folder / f"{cell.id}{ENDING}"
    heartbeat.unlink(missing_ok=True)
    environment = {**os.environ, HEARTBEAT: str(heartbeat), "PYTHONFAULTHANDLER": "1"}
    environment |= {SEEDS: str(seeds), SHARED: "1" if shared else "", SEARCH: cell.search, **(hints or {})}
    # a script of the user's own may lie anywhere, and imports common
    environment["PYTHONPATH"] = os.pathsep.join(filter(None, [str(PROJECT), os.environ.get("PYTHONPATH")]))
    if slot is not None:
        environment |= {"CUDA_VISIBLE_DEVICES": slot, DEVICE: "cuda"}
    with open_regular(log, append=True) as file:
        file.write(f"$ {shlex.join(['python', *cell.command])}\n".encode())
        offset = file.tell()
        file.flush()
        process = subprocess.Popen(  # noqa: S603 (the project's own scripts)
            [sys.executable, *cell.command],
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment,
            pass_fds=(lock,),
            start_new_session=True,
            preexec_fn=_prepared(),
        )
    return Worker(cell, slot, process, lock, log, heartbeat, offset)


def _prepared() -> Callable[[], None]:
    """What a new process does before the command: die with this one, leave no core file, and listen to Ctrl-C."""
    parent = os.getpid()
    libc()  # loaded here: between fork and exec, little is safe
    limits = (0, resource.getrlimit(resource.RLIMIT_CORE)[1])

    def prepare() -> None:
        die_with(parent)
        resource.setrlimit(resource.RLIMIT_CORE, limits)
        signal.signal(signal.SIGINT, signal.SIG_DFL)  # a shell's background jobs ignore it
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})  # what Ray starts never hears it

    return prepare


def _joined(text: str, line: str) -> str:
    """The text with what was its next line, as two sentences where it does not go on."""
    return f"{text}{'' if text.endswith(tuple('.:;,?!')) else '.'} {line}".strip()


def reason_of(code: int, worker: Work, tail: list[str], stall_minutes: float) -> str:
    """Why a process that ended with exit code `code`, not 0, failed, in a line."""
    if worker.stalled:
        last = f"; the last was: {worker.doing}" if worker.doing else ""
        return f"no sign of life for {stall_minutes:g} minutes{last}"
    if message := message_of(tail):
        return shortened(reduce(_joined, map(str.strip, message)).removeprefix("error: "))
    if code < 0:
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = f"signal {-code}"
        hint = ": by the system, if memory ran out" if name == "SIGKILL" else ""
        return f"killed by {name}{hint}"
    return f"exit code {code}: {tail[-1]}" if tail else f"exit code {code}"
