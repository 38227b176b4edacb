"""The columns of a comparison of training speed, in turn on the same images: what takes how many images/s.

plain and step are those of benchmarks/plain.py, ours and ceiling of benchmarks/ours.py.
"""

from __future__ import annotations

import math
import signal
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any

from benchmarks.ours import Ours, reset_peak_memory
from benchmarks.plain import Apart, reason_of
from benchmarks.setting import Setting
from engine.device import free_memory
from engine.training.meters import peak_memory_mib

PLAIN, OURS = ("plain", "step"), ("ours", "ceiling")  # either makes the same steps: one warm-up is that of both

Column = Callable[[], float]  # runs the steps of a round and returns images/s


@dataclass
class Found:
    """What was measured of a backbone."""

    images_per_second: dict[str, list[float]]  # a column's, round by round
    failed: dict[str, str] = field(default_factory=dict)  # a column -> why it has no figure
    late: str | None = None  # that there was no time for all
    seconds: float = 0.0  # that everything took
    peak_memory_mib: dict[str, float | None] = field(default_factory=dict)  # of "plain" and of "ours", in training
    ours: dict[str, Any] = field(default_factory=dict)  # what Ours.describe() says


class TimeUpError(BaseException):
    """A backbone's time is over. No Exception: what handles a failure of training does not handle this."""


@contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise TimeUpError inside when so many seconds are over; never without a limit, nor without SIGALRM (Windows).

    An alarm that somebody else had set rings when it would have, or directly afterwards.
    """
    if math.isinf(seconds) or not hasattr(signal, "SIGALRM"):
        yield
        return

    def ring(*_: object) -> None:
        raise TimeUpError

    start = time.monotonic()
    handler = signal.signal(signal.SIGALRM, ring)
    others, _ = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        if others:
            signal.setitimer(signal.ITIMER_REAL, max(others - (time.monotonic() - start), 1e-3))


def measure(name: str, setting: Setting) -> Found:
    """Every round's images/s of each column of the backbone `name`, and what ours did.

    A column that fails, or that there is no time for, does not take the others with it.
    """
    found = Found({column: [] for column in setting.columns})
    start = time.perf_counter()
    try:
        with time_limit(setting.limit_seconds), ExitStack() as stack:
            _rounds(_columns(name, setting, found, stack), setting, found)
    except TimeUpError:
        limit = f"{setting.limit_seconds:g} s"
        for column, rates in found.images_per_second.items():
            if not rates:
                found.failed.setdefault(column, f"no time was left of {limit}")
        rounds = min(map(len, filter(None, found.images_per_second.values())), default=0)
        found.late = f"the limit of {limit} was reached after {rounds} of {setting.rounds} rounds"
    free_memory(setting.plan.device)
    found.seconds = time.perf_counter() - start
    return found


def _columns(name: str, setting: Setting, found: Found, stack: ExitStack) -> Mapping[str, Column]:
    """Those that could be set up; `stack` ends them, and notes in `found` what they say of themselves."""
    device, columns = setting.plan.device, dict[str, Column]()
    if asked := [column for column in OURS if column in setting.columns]:
        ours: Ours | None = None
        try:
            ours = Ours(name, setting)
        except Exception as problem:  # of the model, the card, the plan: it is these columns' alone
            found.failed |= dict.fromkeys(asked, reason_of(problem))
        if ours is None:
            free_memory(device)  # that plain may need
        else:
            columns |= {"ours": ours.end_to_end, "ceiling": ours.alone}
            reset_peak_memory(device)
            found.ours = ours.describe()

            def note() -> None:
                found.ours = ours.describe()
                found.peak_memory_mib["ours"] = peak_memory_mib(device)

            stack.callback(note)
    if set(PLAIN) & set(setting.columns):
        given = (name, setting.folder, setting.size[0], setting.batch_size, setting.steps, device)
        plain = stack.enter_context(Apart(*given))
        columns |= {column: partial(plain.measure, column) for column in PLAIN}

        def note_plain(kind: type[BaseException] | None, *_: object) -> None:
            if kind is None and set(PLAIN) & (set(setting.columns) - found.failed.keys()):
                found.peak_memory_mib["plain"] = plain.peak_memory_mib()

        stack.push(note_plain)
    return columns


def _rounds(columns: Mapping[str, Column], setting: Setting, found: Found) -> None:
    """A warm-up of what makes the same steps, then all columns in turn, in an order that is reversed every round."""

    def images_per_second(column: str) -> float | None:
        if column in found.failed:
            return None
        try:
            return columns[column]()
        except Exception as problem:  # whatever it is, it is this column's alone
            found.failed[column] = reason_of(problem)
        # here, not in the handler: its traceback holds what was allocated
        free_memory(setting.plan.device)
        return None

    for alike in (PLAIN, OURS):
        asked = (column for column in alike if column in setting.columns)
        any(images_per_second(column) is not None for column in asked)
    for turn in range(setting.rounds):
        for column in setting.columns if turn % 2 else reversed(setting.columns):
            if (rate := images_per_second(column)) is not None:
                found.images_per_second[column].append(rate)
