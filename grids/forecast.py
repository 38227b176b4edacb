"""How long many cells take together, and how far from that it may be."""

from __future__ import annotations

import statistics
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from heapq import heapreplace
from math import exp, log, sqrt

from engine.console import duration

OWN = ""  # the source of an error that no other cell shares
QUANTILE = 1.2816  # of the normal distribution: nine tenths of it lie below
USUAL_WEIGHT = 4  # differences from a mean that what is usual counts as much as
BASES = {  # what an estimate can rest on, the best first
    "seeds": "other seeds",
    "folds": "other folds",
    "speeds": "recorded speeds",
    "now": "speeds measured just now",
    "sizes": "the same backbone's speed at another size",
    "backbones": "other backbones' speeds",
}


@dataclass(frozen=True)
class Estimate:
    """How long a cell will take."""

    seconds: float
    basis: str  # one of BASES
    # what may be wrong, and by how much: a source, and the standard deviation of the time's logarithm. All estimates
    # that share a source are wrong by the same factor
    errors: tuple[tuple[str, float], ...] = ()
    epochs: tuple[float, float] | None = None  # what they were taken to lie between; None: they are known, or recorded


@dataclass(frozen=True)
class Forecast:
    """How long cells take together: with 80 % probability between `low` and `high`, if the estimates' errors hold."""

    seconds: float
    low: float
    high: float
    bases: Mapping[str, int]  # how many rest on what
    unknown: int  # that nothing tells of, and that are not counted
    guessed: tuple[int, float, float] | None = None  # so many, whose epochs were taken to lie between these

    @property
    def range(self) -> str:
        """The interval, for people; "" where none is known."""
        return between(self.low, self.high) if self.high > self.low else ""

    @property
    def text(self) -> str:
        """For a column of a table."""
        if not self.bases:
            return "not measured yet" if self.unknown else ""
        text = f"{duration(self.seconds)} ({self.range})" if self.range else duration(self.seconds)
        return f"{text}, {self.unknown:,} unknown" if self.unknown else text

    @property
    def rests_on(self) -> list[str]:
        """What the cells rest on, each with how many."""
        words = [f"{self.bases[basis]:,} from {what}" for basis, what in BASES.items() if self.bases.get(basis)]
        return [*words, *([f"{self.unknown:,} never measured and not counted"] if self.unknown else [])]

    def finish(self, now: datetime) -> str:
        """When they are done, on the user's clock."""

        def at(seconds: float) -> str:
            then = now + timedelta(seconds=seconds)
            days = seconds / 86400
            return then.strftime("%a %H:%M" if days < 6 else "%a %d %b" if days < 300 else "%b %Y")

        interval = f" ({at(self.low)} to {at(self.high)})" if self.range else ""
        return f"done about {at(self.seconds)}{interval}"


def forecast(estimates: Iterable[Estimate | None], at_once: int) -> Forecast:
    """What all of them take together, `at_once` at a time, the longest first.

    The sum's relative deviation is found as that of a sum of numbers, of which those that share a source of error are
    wrong together and the others independently; the time from first to last start is taken to be wrong by the same
    factor, and its logarithm to be normal.
    """
    counts = Counter(estimates)
    unknown = counts.pop(None, 0)
    known = {each: count for each, count in counts.items() if each is not None}
    whole = sum(each.seconds * count for each, count in known.items())
    shared: defaultdict[str, float] = defaultdict(float)
    variance = 0.0
    for each, count in known.items():
        share = each.seconds / whole if whole else 0.0
        for source, deviation in each.errors:
            if source == OWN:
                variance += count * (share * deviation) ** 2
            else:
                shared[source] += count * share * deviation
    factor = exp(QUANTILE * sqrt(variance + sum(each**2 for each in shared.values())))
    seconds = makespan([each.seconds for each, count in known.items() for _ in range(count)], at_once)
    bases: Counter[str] = Counter()
    for each, count in known.items():
        bases[each.basis] += count
    return Forecast(seconds, seconds / factor, seconds * factor, bases, unknown, _guessed(known))


def _guessed(known: Mapping[Estimate, int]) -> tuple[int, float, float] | None:
    bounds = [(*each.epochs, count) for each, count in known.items() if each.epochs]
    if not bounds:
        return None
    lows, highs, counts = zip(*bounds, strict=True)
    return sum(counts), min(lows), max(highs)


def makespan(seconds: Sequence[float], at_once: int) -> float:
    """From the first start to the last end, where each of `at_once` places takes the longest that is left.

    Graham 1969, "Bounds on multiprocessing timing anomalies", SIAM Journal on Applied Mathematics 17, 416-429: at most
    4/3 of the least that is possible.
    """
    ends = [0.0] * max(1, min(at_once, len(seconds)))  # a heap: when each place is free
    for each in sorted(seconds, reverse=True):
        heapreplace(ends, ends[0] + each)
    return max(ends)


def pooled(groups: Iterable[Sequence[float]], usual: float) -> float:
    """The standard deviation of logarithms within groups, where `usual` counts as much as USUAL_WEIGHT differences."""
    squares, freedom = USUAL_WEIGHT * usual**2, USUAL_WEIGHT
    for group in groups:
        logs = [log(each) for each in group if each > 0]
        if len(logs) > 1:
            squares += statistics.variance(logs) * (len(logs) - 1)
            freedom += len(logs) - 1
    return sqrt(squares / freedom)


def between(low: float, high: float) -> str:
    """Two times for people, with the unit once if they share it: 5.1 to 8.3 h."""
    first, last = duration(low), duration(high)
    number, unit = first.split(" ")
    return f"{number} to {last}" if unit == last.split(" ")[1] else f"{first} to {last}"


def total(estimates: Iterable[Estimate | None], at_once: int) -> str:
    """What all of them take together, `at_once` at a time, and what that rests on, in words."""
    given = list(estimates)
    found = forecast(given, at_once)
    if not found.bases:
        return "not measured yet" if given else "nothing"
    words = ", ".join(found.rests_on)
    return f"about {duration(found.seconds)} ({f'{found.range}; ' if found.range else ''}{words})"
