"""Faults in a process of Python's: the steps that it takes in its folders, and what befalls it at one of them.

A step is something that reaches the file system: a file opened to be written, a piece written to it, a rename. They are
counted, so that the same command takes the same ones, and a fault at a step comes again where it came before.
"""

from __future__ import annotations

import builtins
import errno
import io
import os
import signal
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

STEPS = {  # audit event -> step
    "os.rename": "rename",
    "os.remove": "remove",
    "os.rmdir": "remove",
    "os.mkdir": "mkdir",
    "os.link": "link",
    "os.symlink": "link",
    "os.truncate": "truncate",
    "os.chmod": "chmod",
    "os.utime": "chmod",
    "subprocess.Popen": "start",
    "fcntl.flock": "lock",
}
CHANGES = frozenset(("open", "write", "reserve", "sync", *STEPS.values()))
SPACE = frozenset(("open", "write", "reserve", "mkdir"))  # what a full disk refuses
ELSEWHERE = ("/dev/", "/proc/", "/memfd:")  # no folders of anybody
HALF = "half"  # a kill amid a write
SHORT = "short"  # each write takes a part alone, as a system may


@dataclass(frozen=True)
class Fault:
    """What befalls a process. what: a signal's name, an errno's name, HALF or SHORT; "": nothing."""

    what: str = ""
    at: int = 0  # the step, from 1, among those of `only`
    only: frozenset[str] = CHANGES
    lasting: bool = False  # at all later ones, too


class Steps:
    """Counts the steps below `root` and lets `fault` come. Each is a line in `log`, with its path.

    A write outside `root` is a line, too: "outside".
    """

    def __init__(self, root: Path, fault: Fault, log: int) -> None:
        self._root, self._fault, self._log = f"{root}{os.sep}", fault, log
        self._count = 0
        self._busy = threading.local()

    def watch(self, event: str, arguments: tuple[Any, ...]) -> None:
        """A hook for sys.addaudithook()."""
        if event == "open":
            path, mode, flags = arguments
            writes = flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT) if isinstance(flags, int) else mode != "r"
            self.take("open" if writes else "read", path)
        elif event == "os.rename":
            self.take("rename", arguments[0])
            self._mind(arguments[1])
        elif event in STEPS:
            self.take(STEPS[event], arguments[1 if event in ("os.link", "os.symlink") else 0])

    def take(self, step: str, path: Any) -> bool:
        """Take a step; whether half of it is to be done, and then killed. Raises OSError, if that is the fault."""
        if getattr(self._busy, "now", False):
            return False
        self._busy.now = True
        try:
            return self._take(step, path)
        finally:
            self._busy.now = False

    def _take(self, step: str, path: Any) -> bool:
        where = self._where(path)
        if step != "start" and not where.startswith(self._root):
            self._mind(path if step != "read" else None)
            return False
        self._say(step, where.removeprefix(self._root))
        fault = self._fault
        if step not in fault.only or not fault.what:
            return False
        self._count += 1
        if self._count != fault.at and not (fault.lasting and self._count > fault.at):
            return False
        if fault.what == HALF:
            if step != "write":
                os.kill(os.getpid(), signal.SIGKILL)
            return True
        if fault.what.startswith("SIG"):
            os.kill(os.getpid(), getattr(signal, fault.what))
        elif fault.what != SHORT:
            number = getattr(errno, fault.what)
            raise OSError(number, os.strerror(number), where)
        return fault.what == SHORT

    def _mind(self, path: Any) -> None:
        where = self._where(path)
        if where and not where.startswith((self._root, *ELSEWHERE)) and f"{where}{os.sep}" != self._root:
            self._say("outside", where)

    def _where(self, path: Any) -> str:
        try:
            if isinstance(path, int):
                path = Path(f"/proc/self/fd/{path}").readlink()
            return os.path.abspath(os.fsdecode(path))  # noqa: PTH100 (no link is followed)
        except (OSError, TypeError, ValueError):
            return ""

    def _say(self, step: str, where: str) -> None:
        if self._log >= 0:
            try:
                os_write(self._log, f"{step}\t{where!a}\n".encode())
            except OSError:  # closed, in a process that this one started
                self._log = -1

    def write(self, write: Callable[[Any], int], path: Any, data: Any) -> int:
        """Write `data`, or a part of it."""
        if self.take("write", path):
            part = memoryview(data).cast("B")
            written = write(part[: max(1, len(part) // 2)])
            if self._fault.what == HALF:
                os.kill(os.getpid(), signal.SIGKILL)
            return written
        return write(data)


os_write, os_pwrite, os_sendfile, os_fsync = os.write, os.pwrite, getattr(os, "sendfile", None), os.fsync
os_fallocate = getattr(os, "posix_fallocate", None)
io_open = io.open


def install(root: Path, fault: Fault, log: int) -> None:
    """Let the `fault` come to this process, which cannot be undone."""
    steps = Steps(root, fault, log)

    class File(io.FileIO):
        """A file whose pieces are steps."""

        def write(self, data: Any) -> int:
            """A step."""
            return steps.write(super().write, self.name, data)

    def opened(file: Any, mode: str = "r", buffering: int = -1, *text: Any, **options: Any) -> Any:
        plain = not set("wax+") & set(mode) or isinstance(file, int) or options.get("opener")
        if plain or not steps._where(file).startswith(steps._root):
            return io_open(file, mode, buffering, *text, **options)
        raw = File(file, mode.replace("b", "").replace("t", ""))
        if buffering == 0:
            return raw
        binary = io.BufferedRandom(raw) if "+" in mode else io.BufferedWriter(raw)
        if "b" in mode:
            return binary
        names = ("encoding", "errors", "newline")
        given = dict(zip(names, text, strict=False)) | {name: options[name] for name in names if name in options}
        return io.TextIOWrapper(binary, line_buffering=buffering == 1, **given)

    def again(write: Callable[..., int], *arguments: Any) -> int:
        while True:
            with suppress(InterruptedError):  # Python tries again what a signal interrupts
                return write(*arguments)

    def synced(file: Any) -> None:
        steps.take("sync", file if isinstance(file, int) else file.fileno())
        os_fsync(file)

    def reserved(file: int, *place: int) -> None:
        steps.take("reserve", file)
        assert os_fallocate is not None
        os_fallocate(file, *place)

    def sent(out: int, *rest: Any, **options: Any) -> int:
        steps.take("write", out)
        assert os_sendfile is not None
        return int(os_sendfile(out, *rest, **options))

    builtins.open = io.open = opened
    os.write = lambda file, data: again(steps.write, partial(os_write, file), file, data)
    os.pwrite = lambda file, data, at: again(steps.write, lambda part: os_pwrite(file, part, at), file, data)
    os.fsync = synced  # type: ignore[assignment]
    if os_fallocate:
        os.posix_fallocate = reserved
    if os_sendfile:
        os.sendfile = sent  # type: ignore[assignment]
    sys.addaudithook(steps.watch)
