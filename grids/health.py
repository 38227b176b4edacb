"""Which places fail cells by themselves: a broken card, a node whose disk is full, a Python without PyTorch.

Such a place ends each cell within seconds, and so is free for the next one before all others: left alone, it fails a
whole grid. What a failure says is of two kinds. Some name what the place has or lacks (a CUDA error, no kernel image
for this card, no PyTorch, no room on the disk). Others are only early: killed, crashed or out of memory before anything
can have been trained. Either may be the cell's own fault, so that one cell alone is never enough.

A place gets no more cells once, since a cell last ended well there, two cells failed by what may be its fault that have
neither dataset nor backbone in common, as far as the grid has several, and
- both named what it has or lacks (three cells, where there is no other place), or
- a cell has ended well elsewhere meanwhile, or has run there for longer than any of them; or
- whatever two cells have in common, one of the two has ended well elsewhere.

A cell that failed so is tried elsewhere, so that none fails by a place. Once it has failed at three places that still
get cells, or early at two, the fault is its own.

After half an hour a place is tried again, since much of this passes: a card that was reset, a disk with room again, a
node that was rebooted; and since what is told by two cells can be wrong. One failure is then enough, and doubles the
time, so that a place that stays broken costs a few cells a night some seconds each.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from itertools import combinations

from engine.errors import counted
from grids.cells import Cell
from grids.faults import message_of
from grids.ledger import MENDABLE, Failure, shortened
from grids.places import Work

EARLY_SECONDS = 60.0  # in which a process has started, and little more; to run out of memory may take a step
MOST_PLACES = 3  # that a cell is tried at, and
MOST_TRIES = 6  # times, as nobody can choose the place
PAUSE_SECONDS = 1800.0  # until a place is tried again, the first time
LAST_LINES = 12  # of what a process printed: where it died. What came before may be a warning
HERE = "this machine"  # a place without a name
LONGEST_REASON = 200  # letters
OUT_OF_MEMORY = "out of memory"

# What CUDA, the NVIDIA driver, Python and the system say of what a place has or lacks. An assertion in a kernel is a
# label out of range, as a rule, and is the cell's.
OF_THE_PLACE = re.compile(
    r"CUDA error(?!: (?:out of memory|device-side assert))|no kernel image|does not compute|uncorrectable|\bECC\b"
    r"|\bXid\b|fallen off the bus|CUDA driver|CUDA initialization|CUDA unknown error|no CUDA-capable device"
    r"|No CUDA GPUs|PyTorch \S+ finds none here|devices? (?:is|are) busy or unavailable|CUDNN_STATUS_NOT_INITIALIZED"
    r"|No module named '?torch|cannot open shared object|No space left on device|Disk quota exceeded"
    r"|Input/output error|Stale file handle|Read-only file system|Transport endpoint is not connected",
    re.IGNORECASE,
)


class Kind(Enum):
    """What a failure says of the place."""

    NAMED = "named"
    EARLY = "early"


@dataclass(frozen=True)
class _Sign:
    """A failure that may be the place's."""

    cell: Cell
    kind: Kind
    reason: str
    at: float


@dataclass
class _Place:
    """What was seen of a place."""

    signs: list[_Sign] = field(default_factory=list)  # since a cell last ended well there
    confirmed: bool = False  # one of these cells has ended well elsewhere
    reason: str = ""  # why it is out
    pause: float = PAUSE_SECONDS
    out_until: float | None = None  # it gets no cells until then
    on_trial: bool = False  # it was out, and no cell has ended well there since


def sign_of(failure: Failure, seconds: float) -> tuple[Kind, str] | None:
    """What a failure after so many seconds says of the place, and in which words; None: nothing."""
    last = [line for line in failure.tail[-LAST_LINES:] if "Warning: " not in line]
    # the last, as a traceback has lines of source before its message
    for line in (*message_of(failure.tail), *reversed(last), failure.reason):
        if OF_THE_PLACE.search(line):
            return Kind.NAMED, shortened(line.strip(), LONGEST_REASON)
    if failure.exit_code is None or failure.exit_code == MENDABLE or seconds > EARLY_SECONDS:
        return None
    crashed = failure.exit_code < 0 or failure.exit_code == 1  # by a signal, or a traceback
    if crashed or any(OUT_OF_MEMORY in line.lower() for line in (*last, failure.reason)):
        return Kind.EARLY, shortened(failure.reason, LONGEST_REASON)
    return None


class Health:
    """What is known of the places, by their names (Work.where)."""

    def __init__(self, cells: Sequence[Cell]) -> None:
        """cells: the whole grid."""
        self._several_datasets = len({cell.place for cell in cells}) > 1
        self._several_backbones = len({cell.row for cell in cells}) > 1
        self._places: dict[str, _Place] = {}
        self._tried: dict[str, list[tuple[str, Kind]]] = {}  # of a cell's id: where it failed so
        self._last_well: list[tuple[float, str]] = []  # the last ends that were well, at two places at most
        self.held: list[Cell] = []  # to be tried elsewhere than where they failed

    @property
    def out(self) -> dict[str, str]:
        """Why a place gets no cells, of those that get none."""
        return {name: place.reason for name, place in self._places.items() if place.out_until is not None}

    def seen(self, names: Iterable[str]) -> None:
        """There are such places."""
        for name in names:
            self._places.setdefault(name, _Place())

    def tried_at(self, cell: Cell) -> set[str]:
        """Where the cell failed by what may be the place's."""
        return {where for where, _ in self._tried.get(cell.id, ())}

    def well(self, cell: Cell, where: str, now: float) -> None:
        """A cell has ended well there."""
        self.seen([where])
        place = self._places[where]
        place.signs.clear()
        place.confirmed = place.on_trial = False
        place.pause = PAUSE_SECONDS
        self._last_well = [(now, where), *(each for each in self._last_well if each[1] != where)][:2]
        for other in self.tried_at(cell) - {where}:
            self._places[other].confirmed |= any(sign.cell.id == cell.id for sign in self._places[other].signs)

    def may_be_the_place(self, work: Work, failure: Failure, now: float) -> bool:
        """Whether the failure may be the place's; the cell is then held."""
        sign = sign_of(failure, work.seconds)
        if sign is None or (not work.where and self._others(work.where)):  # nobody knows where it ran
            return False
        kind, reason = sign
        tried = self._tried.setdefault(work.cell.id, [])
        tried.append((work.where, kind))
        self._places[work.where].signs.append(_Sign(work.cell, kind, reason, now))
        others = self._others(work.where)
        # at places that are out, it says nothing of the cell
        places = {where for where, _ in tried} - self.out.keys()
        early = {where for where, its in tried if its is Kind.EARLY} - self.out.keys()
        is_the_cell = len(places) >= min(MOST_PLACES, 1 + len(others)) or len(early) > 1 or len(tried) >= MOST_TRIES
        if not others or is_the_cell:
            return False
        self.held.append(work.cell)
        return True

    def _others(self, where: str) -> list[str]:
        """The places, as far as cells were started there, that get cells, beside this one.

        Where places have names, what has none yet waits in a queue.
        """
        names = [name for name, place in self._places.items() if name != where and place.out_until is None]
        return [name for name in names if name or not where]

    def newly_out(self, running: Sequence[Work], now: float) -> list[str]:
        """The places that are to get no more cells from now on, by what was seen since this was last asked."""
        found = []
        for name, place in self._places.items():
            if place.out_until is None and place.signs and self._is_bad(name, place, running):
                place.out_until, place.reason = now + place.pause, place.signs[-1].reason
                place.pause *= 2
                found.append(name)
        return found

    def _is_bad(self, name: str, place: _Place, running: Iterable[Work]) -> bool:
        signs, named = place.signs, [sign for sign in place.signs if sign.kind is Kind.NAMED]
        if place.on_trial or (self._unlike(named) and len(named) >= (2 if self._others(name) else 3)):
            return True
        if len({sign.cell.id for sign in signs}) < 2 or not self._others(name):
            return False
        well = any(at > signs[0].at and where != name for at, where in self._last_well)
        well |= any(work.where != name and work.seconds > EARLY_SECONDS for work in running)
        return place.confirmed or (well and self._unlike(signs))

    def _unlike(self, signs: Sequence[_Sign]) -> bool:
        """Whether two of the cells have neither dataset nor backbone in common, as far as the grid has several."""
        return any(
            a.cell.id != b.cell.id
            and (a.cell.place != b.cell.place or not self._several_datasets)
            and (a.cell.row != b.cell.row or not self._several_backbones)
            for a, b in combinations(signs, 2)
        )

    def failed_there(self) -> list[Cell]:
        """The cells, each once, that failed by what has turned out to be the fault of a place that is out."""
        return list({sign.cell.id: sign.cell for name in self.out for sign in self._places[name].signs}.values())

    @property
    def none_left(self) -> str:
        """That no place is left, why, and what to do."""
        names, reasons = ", ".join(name or HERE for name in self.out), Counter(self.out.values())
        why = "; ".join(f"{reason} ({counted(number, 'place')})" for reason, number in reasons.items())
        return (
            f"no place is left to run cells on: {names} failed several that have nothing else in common. The last "
            f"words were: {why}. See to the card (nvidia-smi), the disk (df -h) and the Python there; the same command "
            "then continues."
        )

    def due(self, now: float) -> list[str]:
        """The places that are to be tried again from now on."""
        found = []
        for name, place in self._places.items():
            if place.out_until is not None and now >= place.out_until:
                place.out_until, place.on_trial = None, True
                place.signs.clear()
                place.confirmed = False
                found.append(name)
        return found
