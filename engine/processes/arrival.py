"""While PyTorch waits for the other processes to arrive, in C++: it says nothing then, and no Python handler runs."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

QUIET = 15.0  # seconds in which the others may come without a word: imports take some


@contextmanager
def arrival(others: str, speaks: bool) -> Iterator[None]:
    """Let Ctrl-C and a polite end do what they do to any program, and say after QUIET seconds what is waited for.

    others: which processes these are, in words; speaks: whether this process says so. Nothing is written yet that an
    end at once could leave half done.
    """
    note = threading.Timer(QUIET, _say, [others])
    note.daemon = True
    before: dict[signal.Signals, Any] = {}
    if threading.current_thread() is threading.main_thread():  # the only one that may set handlers
        before = {each: signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM)}
    heard = {each: handler for each, handler in before.items() if callable(handler)}  # the rest is not Python's
    if speaks:
        note.start()
    for each in heard:
        signal.signal(each, signal.SIG_DFL)
    try:
        yield
    finally:
        for each, handler in heard.items():
            signal.signal(each, handler)
        note.cancel()


def _say(others: str) -> None:
    where = f"{os.environ.get('MASTER_ADDR', '')}:{os.environ.get('MASTER_PORT', '')}"
    print(
        f"note: waiting for {others}, at {where}, as RANK and WORLD_SIZE in the environment say. For one process "
        "alone: unset RANK WORLD_SIZE",
        file=sys.stderr,
        flush=True,
    )
