"""The lock of a run's folder: at most one process writes there, even where somebody removes the lock's file."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import filelock

from engine.errors import RunError
from engine.files import file_lock


class LostLockError(RunError):
    """Another process is at the run, although this one held it."""


class RunLock:
    """Holds a run's folder by a file in it. Raises filelock.Timeout where another process holds it, and OSError."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._acquire()

    def _acquire(self) -> None:
        with file_lock(self._path) as lock:
            lock.acquire(timeout=0)
            self._lock, self._inode = lock, self._path.stat().st_ino

    def require(self) -> None:
        """Take the lock again where its file was removed. LostLockError: another process was quicker."""
        with suppress(OSError):
            if self._path.stat().st_ino == self._inode:
                return
        # a file system can give an open file another number: then it is this process that holds it
        self.release()
        try:
            self._acquire()
        except filelock.Timeout:
            raise LostLockError(
                f"{self._path} was removed, and another process is at this run now: this one ends, and writes nothing "
                "more there."
            ) from None
        except OSError as problem:
            raise RunError(f"{self._path} was removed, and can't be made again: {problem.strerror}.") from problem

    def release(self) -> None:
        """Let others have it, as the end of the process would, which is what is left where the disk refuses."""
        with suppress(OSError):
            self._lock.release()
