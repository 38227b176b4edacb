"""Between a run and the process that started it, such as grid.py: signs of life, and a request to stop."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path

HEARTBEAT = "WHICH_BACKBONE_HEARTBEAT"  # environment variable: the file that signs of life go to
SECONDS = 1.0  # between two of them, at least

_last_sign = -SECONDS
_stop = False


def alive(doing: str) -> None:
    """Leave a sign of life where one is asked for: what the process is `doing`, at most one in SECONDS."""
    global _last_sign
    path = os.environ.get(HEARTBEAT)
    if not path or time.monotonic() - _last_sign < SECONDS:
        return
    _last_sign = time.monotonic()
    with suppress(OSError):  # whoever wanted to know is gone
        Path(path).write_text(f"{doing}\n", encoding="utf-8")


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
