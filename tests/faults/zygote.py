"""Processes that run the project's scripts, forked from one that has imported what they need, which takes seconds.

The scripts, the files and the signals are real; only the imports are shared. python -m tests.faults.zygote runs one
without: see World.run().
"""

from __future__ import annotations

import atexit
import os
import random
import re
import runpy
import select
import shutil
import signal
import subprocess
import sys
import threading
import time
import traceback
import weakref
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, NoReturn
from unittest import mock

from engine import end_at_once
from engine.paths import PROJECT
from tests.faults.hooks import CHANGES, Fault, install

patience = 60.0  # seconds, after which a process hangs
PRELOADED = """engine.run engine.records.tensorboard engine.data.split_output grid report ranking.tuned reporting.build
reporting.tables reporting.render plotly.offline sklearn.metrics sklearn.model_selection sklearn.datasets
torch.utils.tensorboard torch.utils.serialization.config torchvision.models pydicom h5py scipy.io"""
Change = Callable[[], object]  # what is put in place in the process before the script runs


def preload() -> None:
    """Import what scripts need, without starting a thread."""
    import importlib

    from PIL import Image
    from tqdm import tqdm

    import common
    from engine.code_hash import engine_hash
    from tests import toy

    for name in PRELOADED.split():
        importlib.import_module(name)
    Image.init()
    engine_hash()  # half of a small run
    common.BACKBONES["tiny"] = common.BACKBONES["tiny2"] = toy.TINY
    tqdm.set_lock(threading.RLock())  # its own is a semaphore of all processes, which a kill leaves taken
    sys.dont_write_bytecode = True
    assert threading.active_count() == 1, "a thread would not be there after a fork"


@dataclass(frozen=True)
class Ended:
    """How a process ended: its exit code, or the negative number of a signal."""

    code: int
    seconds: float
    printed: str
    problems: str
    hung: bool = False
    steps: tuple[tuple[str, str], ...] = ()  # with their paths
    outside: tuple[str, ...] = ()

    @property
    def said(self) -> str:
        """On both streams."""
        return self.printed + self.problems

    @property
    def epochs(self) -> int:
        """How many it printed."""
        return len(re.findall(r"^ +\d+  \w+ +[\d.]+ ", self.printed, re.MULTILINE))


@dataclass
class Running:
    """A process at work."""

    pid: int
    folder: Path  # with its output
    name: str
    began: float = field(default_factory=time.monotonic)

    def send(self, number: int) -> None:
        """A signal."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def wait(self) -> Ended:
        """Until it ends, or hangs and is killed."""
        hung = not self.ends_within(patience)
        if hung:
            self.send(signal.SIGABRT)  # it tells where it is
            if not self.ends_within(2.0):
                self.send(signal.SIGKILL)
        _, status = os.waitpid(self.pid, 0)
        took = time.monotonic() - self.began
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)  # what it left behind
        printed, problems, log = (
            (self.folder / f"{self.name}.{stream}").read_text("utf-8", errors="replace")
            for stream in ("out", "err", "log")
        )
        rows = [(step, path[1:-1]) for step, _, path in (line.partition("\t") for line in log.splitlines())]
        return Ended(
            os.waitstatus_to_exitcode(status),
            took,
            printed,
            problems,
            hung,
            tuple(row for row in rows if row[0] != "outside"),
            tuple(path for step, path in rows if step == "outside"),
        )

    def ends_within(self, seconds: float) -> bool:
        """Whether it does."""
        handle = os.pidfd_open(self.pid)
        try:
            return bool(select.select([handle], [], [], max(0.0, seconds))[0])
        finally:
            os.close(handle)


class World:
    """A folder that is all that a case knows: `place`, where it works, `home`, and `beside`, which is none of its own.

    Processes find their home, their caches and their temporary files in it.
    """

    def __init__(self, root: Path, start: Path | None = None) -> None:
        """Begin as the folder `start`, or empty."""
        self.root, self.place, self.beside = root, root / "place", root / "beside"
        shutil.rmtree(root, ignore_errors=True)
        if start:
            shutil.copytree(start, self.place, symlinks=True)
        for folder in (self.place, root / "home", root / "tmp", root / "said", self.beside):
            folder.mkdir(parents=True, exist_ok=True)
        (self.beside / "theirs.txt").write_text("not to be touched\n")
        self._runs = 0

    def run(self, line: Sequence[str], fault: Fault | None = None, **options: Any) -> Ended:
        """What start() starts, once it has ended."""
        return self.start(line, fault, **options).wait()

    def start(
        self,
        line: Sequence[str],
        fault: Fault | None = None,
        changes: Sequence[Change] = (),
        cwd: Path | None = None,
        plain: bool = False,
    ) -> Running:
        """A script with its arguments, in a process. plain: in one that imports everything itself."""
        self._runs += 1
        name = str(self._runs)
        files = [
            os.open(self.root / "said" / f"{name}.{stream}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
            for stream in ("out", "err", "log")
        ]
        fault = fault or Fault()
        if plain:
            command = [sys.executable, "-m", "tests.faults.zygote", str(self.root), str(files[2]), fault.what]
            command += [str(fault.at), ",".join(fault.only), str(int(fault.lasting)), *line]
            process = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=files[0],
                stderr=files[1],
                cwd=cwd or self.place,
                env={**os.environ, **self.environment, "PYTHONPATH": str(PROJECT)},
                pass_fds=files[2:],
                start_new_session=True,
            )
            process.returncode = 0  # it is waited for elsewhere
            pid = process.pid
        elif not (pid := os.fork()):
            _child(partial(self._work, line, fault, changes, cwd or self.place, files))
        for file in files:
            os.close(file)
        return Running(pid, self.root / "said", name)

    @property
    def environment(self) -> dict[str, str]:
        """Of its processes."""
        home = self.root / "home"
        names = {"HOME": home, "XDG_CACHE_HOME": home / ".cache", "TORCH_HOME": home / "torch"}
        names |= {"TMPDIR": self.root / "tmp"}
        return {name: str(path) for name, path in names.items()} | {"OMP_NUM_THREADS": "1", "NO_PROXY": "*"}

    def _work(
        self, line: Sequence[str], fault: Fault, changes: Sequence[Change], cwd: Path, files: Sequence[int]
    ) -> None:
        os.setsid()
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        for target, file in zip((1, 2), files, strict=False):
            os.dup2(file, target)
        _open_streams()
        os.chdir(cwd)
        os.environ.update(self.environment)
        for change in changes:
            change()
        work(line, self.root, fault, files[2])


def work(line: Sequence[str], root: Path, fault: Fault, log: int) -> None:
    """Run a script in this process, to which the fault comes. Raises what the script raises."""
    import tempfile

    from engine.training import saving

    saving.MOST_LOST = 0.0  # every epoch is saved, as are those of a real run, which take longer
    tempfile.tempdir = None
    sys.dont_write_bytecode = True
    mock.patch("subprocess.Popen", Forked).start()
    install(root, fault, log)
    _run_script(line)


def _run_script(line: Sequence[str]) -> None:
    sys.argv = [*line]
    sys.path[0] = str(PROJECT)
    runpy.run_path(str(PROJECT / line[0]), run_name="__main__")


def _open_streams() -> None:
    sys.stdin = os.fdopen(0, "r", closefd=False)
    sys.stdout, sys.stderr = os.fdopen(1, "w", closefd=False), os.fdopen(2, "w", 1, closefd=False)


def _child(action: Change) -> NoReturn:
    """Do it and end, as a process of Python's does."""
    code: Any = 1
    try:
        for number in (signal.SIGTERM, signal.SIGPIPE, signal.SIGXFSZ):
            signal.signal(number, signal.SIG_DFL if number == signal.SIGTERM else signal.SIG_IGN)
        signal.signal(signal.SIGINT, end_at_once)  # as the first import of engine does it
        random.seed()
        action()
        code = 0
    except SystemExit as end:
        code = end.code or 0
        if not isinstance(code, int):
            print(code, file=sys.stderr)
            code = 1
    except BaseException:
        traceback.print_exc()
    finally:
        try:
            threading._shutdown()  # type: ignore[attr-defined]
            atexit._run_exitfuncs()
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            os._exit(code & 0xFF)


class Forked(subprocess.Popen[Any]):
    """A process that is another of Python's is forked from this one, too."""

    def _execute_child(self, args: Any, executable: Any, preexec_fn: Any, *rest: Any) -> None:
        _, pass_fds, cwd, env, _, _, _, p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite, _, *others = rest
        script = not isinstance(args, str) and list(args)[:1] == [sys.executable]
        if not script:
            super()._execute_child(args, executable, preexec_fn, *rest)  # type: ignore[misc]
            return
        self.pid = os.fork()
        if not self.pid:

            def begin() -> None:
                weakref.finalize._registry.clear()  # type: ignore[attr-defined]  # the files that it closes at its end
                if True in others:  # start_new_session
                    os.setsid()
                for target, file in enumerate((p2cread, c2pwrite, errwrite)):
                    if file >= 0:
                        os.dup2(file, target)
                kept = {0, 1, 2, *pass_fds}
                for file in [int(path.name) for path in Path("/proc/self/fd").iterdir()]:
                    if file not in kept:
                        with suppress(OSError):
                            os.close(file)
                _open_streams()
                if cwd:
                    os.chdir(cwd)
                if env is not None:
                    os.environ.clear()
                    os.environ.update(env)
                if preexec_fn:
                    preexec_fn()
                words = [str(word) for word in args[1:]]
                if words[0] == "-c":
                    sys.argv = ["-c", *words[2:]]
                    exec(words[1], {"__name__": "__main__"})
                else:
                    _run_script(words)

            _child(begin)
        self._child_created = True
        self._close_pipe_fds(p2cread, p2cwrite, c2pread, c2pwrite, errread, errwrite)  # type: ignore[attr-defined]


def main() -> None:
    """A script in a process of its own: see World.start()."""
    root, log, what, at, only, lasting, *line = sys.argv[1:]
    preload()
    fault = Fault(what, int(at), frozenset(only.split(",")) if only else CHANGES, lasting == "1")
    work(line, Path(root), fault, int(log))


if __name__ == "__main__":
    main()
