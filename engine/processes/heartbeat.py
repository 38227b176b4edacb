"""Between a process and the one that started it, such as grid.py: hints, signs of life, a stop, a common end."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import time
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

HEARTBEAT = "WHICH_BACKBONE_HEARTBEAT"  # environment variable: the file that signs of life go to
SHARED = "WHICH_BACKBONE_SHARED_DEVICE"  # environment variable: not empty where others work on the same device
SEEDS = "WHICH_BACKBONE_SEEDS"  # environment variable: how many runs like this one are to come, itself included
DEVICE = "WHICH_BACKBONE_DEVICE"  # environment variable: the kind of device that it was given; empty: it looks itself
SEARCH = "WHICH_BACKBONE_SEARCH"  # environment variable: which rung of a search the run is, in words; empty: of none
OUT = "WHICH_BACKBONE_OUT"  # environment variable: where records are written if --out is a folder of another machine
COMMIT = "WHICH_BACKBONE_COMMIT"  # environment variable: of a copy of the project: its commit, and "changed" if it was
SECONDS = 1.0  # between two of them, at least
MOST_LETTERS = 80  # of the mark of a search
PR_SET_PDEATHSIG = 1  # of Linux's sys/prctl.h

_last_sign = -SECONDS
_stop = False


def alive(doing: str) -> None:
    """Leave a sign of life where one is asked for: what the process is `doing`, at most one in SECONDS."""
    global _last_sign
    path = os.environ.get(HEARTBEAT)
    if not path or time.monotonic() - _last_sign < SECONDS:
        return
    _last_sign = time.monotonic()
    # renamed into place, so that whoever looks at it just now reads a whole line
    written = Path(f"{path}.{os.getpid()}")
    with suppress(OSError):  # whoever wanted to know is gone
        written.write_text(f"{doing}\n", encoding="utf-8")
        written.replace(path)


def device_is_shared() -> bool:
    """Whether the process that started this one has started others on the same device."""
    return bool(os.environ.get(SHARED))


def given_device() -> str:
    """The kind of device that the process which started this one gave it; "": none in particular."""
    return os.environ.get(DEVICE, "")


def seeds_to_come() -> int:
    """How many runs that differ in seed or fold alone are to come, this one included, as far as anybody has said."""
    number = os.environ.get(SEEDS, "")
    return max(1, int(number)) if number.isdecimal() and len(number) < 10 else 1


def out_here(out: Path) -> Path:
    """Where records for the folder `out` are written: elsewhere, where `out` is a folder of another machine."""
    return Path(os.environ.get(OUT) or out)


def commit_of_copy() -> tuple[str, bool] | None:
    """The commit that this copy of the project was made of, and whether files differed from it; None: it is no copy."""
    commit, _, changed = os.environ.get(COMMIT, "").partition(" ")
    return (commit, bool(changed)) if commit else None


def search_mark() -> str | None:
    """Which rung of a search this run is, such as "rung 2 of 4"; None: the run is of no search."""
    mark = os.environ.get(SEARCH, "")
    return mark[:MOST_LETTERS] if mark.isprintable() and mark else None


def install_stop_handler() -> None:
    """Take SIGUSR1 as a request to stop when the epoch, or the trial of a sweep, is finished and saved."""

    def ask(*_: object) -> None:
        global _stop
        _stop = True

    global _stop
    _stop = False
    signal.signal(signal.SIGUSR1, ask)


def stop_asked_for() -> bool:
    """Whether this process was asked to stop after the epoch that it is in."""
    return _stop


@cache
def libc() -> Any:
    """The C library of this process."""
    return ctypes.CDLL(None)


def die_with(parent: int) -> None:
    """End this process, at once, when the one that started it ends, if only by a kill: Linux can do that.

    parent: its number. It may have ended already, of which no signal would tell.
    """
    if sys.platform == "linux" and hasattr(libc(), "prctl"):
        libc().prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
