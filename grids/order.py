"""Which cell of a grid is started next.

Seed by seed, whole data first, so that a grid that is stopped is worth most: all backbones on all datasets from one
seed. Within a seed the longest first, so that the last of it does not run alone. And near the end the longest of all
seeds first: once a cell is predicted to last half as long as all that is left takes, or longer, it can't wait for its
seed. What was never measured counts as the longest.

A cell's plan is measured by the first of its seeds that trains, and followed by those that start once that has an
epoch behind it; two that start at once would both measure, and perhaps differ in it. So a cell is passed over while
another seed of it is the first to run, unless nothing else can be started, or it would be waited for at the end.

The numbers that this was chosen by are those of benchmarks/scheduler.py --orders.
"""

from __future__ import annotations

from bisect import insort
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from grids.cells import Cell
from grids.estimate import Estimate, Speeds
from grids.places import Work

# a cell is started before its seed's turn from when it is predicted to last so large a part of all that is left
PART_OF_REST = 0.5
MOST_PASSED_OVER = 500  # cells whose plan is being measured, at one start


@dataclass
class _Seeds:
    """Cells that differ in their seed, or fold, alone."""

    left: int = 0  # not started, or with another grid
    running: int = 0
    measured: bool = False  # whether one of them is done, so that the plan of the others is known
    estimate: Estimate | None = None
    seconds: float = 1.0  # the estimate; of what was never measured, the longest of the others

    @property
    def may_start(self) -> bool:
        """Whether none of them is measuring the plan now."""
        return self.measured or not self.running


class Order:
    """The cells that are left, as far as they do not run here."""

    def __init__(self, cells: Sequence[Cell], left: Sequence[Cell], speeds: Speeds) -> None:
        """cells: the whole grid, whose order is that of its seeds, budgets, datasets and backbones."""
        self._speeds = speeds
        seeds = {seed: number for number, seed in enumerate(dict.fromkeys(cell.config.seed for cell in cells))}
        budgets = {name: number for number, name in enumerate(dict.fromkeys(cell.budget for cell in cells))}
        self._seeds: dict[str, _Seeds] = {}
        self._turn: dict[str, tuple[int, int, int, int]] = {}  # of a cell's id: seed, budget, fold, place in the grid
        for number, cell in enumerate(cells):
            self._seeds.setdefault(cell.but_for_seed, _Seeds())
            self._turn[cell.id] = (seeds[cell.config.seed], budgets[cell.budget], cell.config.fold or 0, number)
        self._waiting: dict[str, Cell] = {}
        self._elsewhere: deque[tuple[Cell, float]] = deque()  # and when another grid was found to have it
        self._rest = 0.0  # predicted seconds of all that is left
        self._by_turn: list[Cell] = []  # the next one last; some may have been started since
        self._by_length: list[Cell] = []  # the longest last
        for cell in left:
            self._waiting[cell.id] = cell
            self._seeds[cell.but_for_seed].left += 1
        self.estimate()

    def __len__(self) -> int:
        return len(self._waiting) + len(self._elsewhere)

    @property
    def waiting(self) -> int:
        """How many could be started now."""
        return len(self._waiting)

    @property
    def elsewhere(self) -> int:
        """How many another grid had when they were last looked at."""
        return len(self._elsewhere)

    def estimate(self) -> None:
        """Predict all lengths anew, from what is known of speeds now."""
        longest = 0.0
        for each in self._with_one_cell():
            seeds, cell = each
            seeds.estimate = self._speeds.estimate(cell)
            longest = max(longest, seeds.estimate.seconds if seeds.estimate else 0.0)
        self._rest = 0.0
        for seeds in self._seeds.values():
            seeds.seconds = seeds.estimate.seconds if seeds.estimate else longest or 1.0
            self._rest += seeds.left * seeds.seconds
        self._by_turn = sorted(self._waiting.values(), key=self._turn_of)
        self._by_length = sorted(self._waiting.values(), key=self._length_of)

    def _with_one_cell(self) -> Iterable[tuple[_Seeds, Cell]]:
        one = {cell.but_for_seed: cell for cell in (*self._waiting.values(), *(cell for cell, _ in self._elsewhere))}
        return [(self._seeds[key], cell) for key, cell in one.items()]

    def estimates(self) -> list[Estimate | None]:
        """How long each cell takes that is left."""
        return [each for seeds in self._seeds.values() for each in [seeds.estimate] * seeds.left]

    def estimate_of(self, cell: Cell) -> Estimate | None:
        """How long the cell takes, by what was known when all were predicted."""
        return self._seeds[cell.but_for_seed].estimate

    def seeds_to_come(self, cell: Cell) -> int:
        """How many cells are left that differ from it in their seed, or fold, alone; it is one that is left no more."""
        return self._seeds[cell.but_for_seed].left

    def next(self, running: Iterable[Work], places: int) -> Cell | None:
        """The cell to be started, which is then left no more; None: all that are left are with another grid.

        running, places: what runs here, and how much can at a time.
        """
        if not self._waiting:
            return None
        cell = self._late(running, places) or self._first(self._by_turn) or self._last(self._by_turn)
        assert cell
        del self._waiting[cell.id]
        seeds = self._seeds[cell.but_for_seed]
        seeds.left -= 1
        self._rest -= seeds.seconds
        return cell

    def _late(self, running: Iterable[Work], places: int) -> Cell | None:
        """One that has to start now lest it be waited for at the end, if any; it is among the longest."""
        rest = self._rest
        for work in running:
            rest += max(self._seeds[work.cell.but_for_seed].seconds - work.seconds, 0.0)
        places += len(self._elsewhere)  # each of those has a place of another grid
        least = PART_OF_REST * rest / places
        longest = self._last(self._by_length)
        if places == 1 or not longest or self._seeds[longest.but_for_seed].seconds < least:
            return None
        return self._first(self._by_length, least) or longest

    def _last(self, cells: list[Cell]) -> Cell | None:
        while cells and cells[-1].id not in self._waiting:
            cells.pop()
        return cells[-1] if cells else None

    def _first(self, cells: list[Cell], least: float = 0.0) -> Cell | None:
        """From the end, the first whose plan is not being measured, of those that last so long."""
        self._last(cells)
        most = MOST_PASSED_OVER
        for cell in reversed(cells):
            if cell.id in self._waiting:
                seeds = self._seeds[cell.but_for_seed]
                if most == 0 or seeds.seconds < least:
                    return None
                if seeds.may_start:
                    return cell
                most -= 1
        return None

    def started(self, cell: Cell) -> None:
        """It runs here."""
        self._seeds[cell.but_for_seed].running += 1

    def ended(self, cell: Cell) -> None:
        """It does not run here any more."""
        self._seeds[cell.but_for_seed].running -= 1

    def done(self, cell: Cell) -> None:
        """It has a result, whoever ran it."""
        self._seeds[cell.but_for_seed].measured = True

    def lend(self, cell: Cell, now: float) -> None:
        """Another grid has it."""
        self._elsewhere.append((cell, now))
        self._count(cell)

    def take_back(self, since: float) -> None:
        """Let those be tried again that another grid was found to have at that time or before."""
        while self._elsewhere and self._elsewhere[0][1] <= since:
            self._wait(self._elsewhere.popleft()[0])

    def put_back(self, cell: Cell) -> None:
        """It is to be run, after all."""
        self._count(cell)
        self._wait(cell)

    def _count(self, cell: Cell) -> None:
        seeds = self._seeds[cell.but_for_seed]
        seeds.left += 1
        self._rest += seeds.seconds

    def _wait(self, cell: Cell) -> None:
        self._waiting[cell.id] = cell
        insort(self._by_turn, cell, key=self._turn_of)
        insort(self._by_length, cell, key=self._length_of)

    def _turn_of(self, cell: Cell) -> tuple[float, ...]:
        seed, budget, fold, number = self._turn[cell.id]
        return (-seed, -budget, -fold, self._seeds[cell.but_for_seed].seconds, -number)

    def _length_of(self, cell: Cell) -> tuple[float, ...]:
        return (self._seeds[cell.but_for_seed].seconds, *(-part for part in self._turn[cell.id]))
