"""What a grid's scheduler makes of a cluster: the real one, on cards and in a time that are simulated.

python benchmarks/scheduler.py                            10,032 cells on 256 cards, with failures
python benchmarks/scheduler.py --orders                   in which order cells start: 1, 8, 64 and 256 cards
python benchmarks/scheduler.py --bookkeeping              processor time and memory of 2,090 and 20,064 cells
python benchmarks/scheduler.py --published                the published comparison with five seeds, on 8 and 64 cards
python benchmarks/scheduler.py --processes 256            what real processes cost the one that starts them

Nothing is trained, and nothing here was ever measured on a card: lengths are images times epochs over the assumed
speeds of benchmarks/cluster.py, and failures are drawn at rates that each command prints. Records, locks and failures
are the real ones, in a temporary folder. --markdown prints tables for a document.
"""

from __future__ import annotations

import argparse
import heapq
import os
import resource
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from math import inf
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import grid
from benchmarks.cluster import BROKEN, DEVICE_NAME, Assumed, Cluster, Lengths, write_record
from benchmarks.launches import as_markdown
from engine.cli import Help, importing, whole
from engine.console import say, table, wrapped
from grids import order
from grids.cells import Cell
from grids.estimate import Estimate, Speeds
from grids.ledger import Standing, all_records, make_folder, take
from grids.places import Clock, Work
from grids.running import Grid
from grids.view import Lines, Progress
from grids.worker import start

NODE = 8  # cards
WITH_FAILURES = Assumed(failures_per_card_hour=0.001, node_losses_per_hour=0.05)
COLD = Assumed(decoded_per_second=2000)
SILENT = ["ValueError: odd"]  # which says nothing of a card
OTHER_SEED = 10_000
NEW = Standing("new")


class Quiet(Lines):
    """A view that counts what it is told, and keeps when the last cell ended, and the last of the first seed."""

    def __init__(self, clock: Clock, first_seed: int) -> None:
        self._clock, self._first_seed = clock, first_seed
        self.told: Counter[str] = Counter()
        self.first_seed_seconds = self.seconds = 0.0

    def started(self, worker: Work, progress: Progress) -> None:
        pass

    def ended(self, cell: Cell, status: str, what: str, progress: Progress) -> None:
        self.told[status] += 1
        self.seconds = self._clock.now()
        if status == "done" and cell.config.seed == self._first_seed:
            self.first_seed_seconds = self.seconds

    def note(self, text: str) -> None:
        self.told["no more cells" if "gets no more cells" in text else "other"] += 1


class Blind(Speeds):
    """What knows nothing, so that cells start in the order in which they are given."""

    def estimate(self, cell: Cell) -> Estimate | None:
        return None


@dataclass(frozen=True)
class Outcome:
    """What came of a grid. Seconds are of the simulated time, but for those of the processor."""

    seconds: float
    first_seed_seconds: float  # until every cell of the first seed was done
    each: list[float]  # seconds of every cell, run once without a failure
    statuses: Counter[str]
    cluster: Cluster
    told: Counter[str]  # what the view was told, by its kind
    processor_seconds: float  # of the grid alone
    mib: tuple[float, float]  # in use before the grid and after

    def quantile(self, part: float) -> float:
        """Of the cells' lengths, seconds."""
        return sorted(self.each)[round(part * (len(self.each) - 1))]


def resident_mib() -> float:
    """Memory of this process that is in use now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() / 2**20


def longest_first(lengths: Sequence[float], places: int) -> float:
    """The makespan of list scheduling, longest first: at most 4/3 of the best possible one (Graham 1969)."""
    ends = [0.0] * places
    for seconds in sorted(lengths, reverse=True):
        heapq.heappush(ends, heapq.heappop(ends) + seconds)
    return max(ends)


@contextmanager
def in_a_folder() -> Iterator[None]:
    """A temporary one, in which a grid may leave its records."""
    here = Path.cwd()
    with tempfile.TemporaryDirectory() as folder:
        os.chdir(folder)
        try:
            yield
        finally:
            os.chdir(here)


def cells_of(seeds: int) -> list[Cell]:
    """The published comparison's 209 cells, with so many seeds."""
    line = f"--datasets all --models all --seeds 0-{seeds - 1} --device cpu --out runs"
    return grid.cells_of(grid.parser().parse_args(line.split()))


def simulate(cells: Sequence[Cell], cluster: Cluster, speeds_of: type[Speeds] = Speeds) -> Outcome:
    """Run the grid. Each backbone has been trained once, on DTD with another seed: so much is known of speeds."""
    lengths, first_seed = cluster.lengths, cells[0].config.seed
    make_folder(cells[0].config.out)
    for cell in cells:
        if cell.dataset.key == "dtd" and cell.config.seed == first_seed:
            write_record(cell.of_seed(OTHER_SEED), lengths, 0.0)
    speeds = speeds_of(DEVICE_NAME, all_records(cells[0].config.out))
    view, before, began = Quiet(cluster.clock, first_seed), resident_mib(), time.process_time()
    work = Grid(cells, {cell.id: NEW for cell in cells}, speeds, cluster, False, 30.0, cluster.clock)
    work.run(view)
    took = time.process_time() - began - cluster.own_seconds
    memory = before, resident_mib()
    each = [lengths.assumed.start_seconds + lengths.seconds(cell) for cell in cells]
    statuses = Counter(work.standings[cell.id].status for cell in cells)
    return Outcome(view.seconds, view.first_seed_seconds, each, statuses, cluster, view.told, took, memory)


def with_failures(seeds: int, cards: int, seed: int) -> list[tuple[str, str]]:
    """What is said of a grid on a cluster that breaks."""
    broken = {"node 1 card 3": [BROKEN], "node 2 card 5": SILENT}
    with in_a_folder():
        cells = cells_of(seeds)
        its = simulate(cells, Cluster(Lengths(WITH_FAILURES, seed), cards // NODE, NODE, seed, broken))
    cluster, hours = its.cluster, its.seconds / 3600
    again = sum(number > 1 for number in cluster.starts.values())
    on_broken = sum(cluster.ended_badly[name] for name in broken)
    perfect = longest_first(its.each, cards)
    return [
        ("cells", f"{len(cells):,}"),
        ("done / failed / left", " / ".join(f"{its.statuses[word]:,}" for word in ("done", "failed", "interrupted"))),
        ("all cells, each run once", f"{sum(its.each) / 3600:,.0f} card hours"),
        ("shortest, median, longest cell", " / ".join(f"{its.quantile(part):,.0f} s" for part in (0, 0.5, 1))),
        ("ideal: work / cards", f"{sum(its.each) / cards / 3600:.2f} h"),
        ("longest first, lengths known, no failures", f"{perfect / 3600:.2f} h"),
        ("simulated", f"{hours:.2f} h, {its.seconds / perfect:.3f} of that"),
        ("nodes lost, for an hour each", f"{cluster.losses}"),
        ("cells that failed on sound cards, or with a node", f"{sum(cluster.ended_badly.values()) - on_broken:,}"),
        ("cells that failed on the two broken cards", f"{on_broken}"),
        ("times that a card was given no more cells", f"{its.told['no more cells']}"),
        ("cells started more than once", f"{again:,} ({sum(cluster.starts.values()) - len(cells):,} starts too many)"),
        ("card hours trained in vain", f"{cluster.lost_seconds / 3600:.1f}"),
        ("cells whose plan two seeds measured at once", f"{cluster.measured_twice:,}"),
        ("processor time of the scheduler", f"{1000 * its.processor_seconds / len(cells):.1f} ms a cell"),
        ("memory before and after", " / ".join(f"{mib:,.0f} MiB" for mib in its.mib)),
    ]


def orders(seeds: int, seed: int) -> list[tuple[str, ...]]:
    """What the order of the starts costs, without failures: makespan, and when the first seed is done."""
    rows: list[tuple[str, ...]] = [("order", "cards", "makespan", "first seed", "measured at once")]
    kinds: list[tuple[str, float, type[Speeds]]] = [
        ("as given", inf, Blind),
        ("seeds, longest first", inf, Speeds),
        ("... but for what lasts the rest", 1.0, Speeds),
        ("... half the rest (the rule)", 0.5, Speeds),
        ("... a quarter of it", 0.25, Speeds),
        ("longest first", 0.0, Speeds),
    ]
    cells = cells_of(seeds)
    usual = order.PART_OF_REST
    for cards in (1, 8, 64, 256):
        for name, part, speeds in kinds:
            order.PART_OF_REST = part
            with in_a_folder():
                its = simulate(cells, Cluster(Lengths(Assumed(), seed), 1, cards, seed), speeds)
            firsts = [seconds for cell, seconds in zip(cells, its.each, strict=True) if cell.config.seed == 0]
            rows.append(
                (
                    name,
                    f"{cards}",
                    f"{its.seconds / longest_first(its.each, cards):.3f}",
                    f"{its.first_seed_seconds / longest_first(firsts, cards):.3f}",
                    f"{its.cluster.measured_twice}",
                )
            )
    order.PART_OF_REST = usual
    return rows


def bookkeeping(seed: int) -> list[tuple[str, ...]]:
    """Processor time and memory by the number of cells, without failures."""
    rows: list[tuple[str, ...]] = [("cells", "cards", "planned in", "a cell", "memory before", "after", "KiB a cell")]
    for seeds, cards in ((10, 8), (96, 8), (96, 256)):
        with in_a_folder():
            began = time.process_time()
            cells = cells_of(seeds)
            planned = time.process_time() - began
            its = simulate(cells, Cluster(Lengths(Assumed(), seed), 1, cards, seed))
        before, after = its.mib
        rows.append(
            (
                f"{len(cells):,}",
                f"{cards}",
                f"{planned:.2f} s",
                f"{1000 * its.processor_seconds / len(cells):.2f} ms",
                f"{before:,.0f} MiB",
                f"{after:,.0f} MiB",
                f"{1024 * (after - before) / len(cells):.1f}",
            )
        )
    return rows


def published(seed: int) -> list[tuple[str, ...]]:
    """The published comparison, five seeds each, without failures."""
    rows: list[tuple[str, ...]] = [("cards", "card hours", "hours", "first seed", "longest cell", "waiting for images")]
    for cards in (8, 64):
        with in_a_folder():
            cells = cells_of(5)
            its = simulate(cells, Cluster(Lengths(COLD, seed), cards // NODE, NODE, seed))
        numbers = (sum(its.each), its.seconds, its.first_seed_seconds, its.quantile(1), its.cluster.waited_seconds)
        rows.append((f"{cards}", *(f"{seconds / 3600:.2f} h" for seconds in numbers)))
    return rows


def processes(number: int) -> list[tuple[str, ...]]:
    """What so many real processes cost the one that started them: to start one, and to look at all."""
    with importing():
        import torch  # noqa: F401 (a grid has imported it by then, and its memory counts in a fork)
    cells = [replace(cell, command=("-c", "import time; time.sleep(600)")) for cell in cells_of(2)[:number]]
    with in_a_folder():
        make_folder(cells[0].config.out)
        locks = [lock for cell in cells if (lock := take(cell)) is not None]
        began = time.process_time(), time.perf_counter()
        workers = [start(cell, lock, None) for cell, lock in zip(cells, locks, strict=True)]
        cpu, wall = time.process_time() - began[0], time.perf_counter() - began[1]
        looks = 20
        began = time.process_time(), 0.0
        for _ in range(looks):
            for worker in workers:
                worker.watch(inf)
        look = (time.process_time() - began[0]) / looks
        for worker in workers:
            worker.kill()
            worker.process.wait()
            worker.close()
    return [
        ("processes", "to start one, processor", "wall", "to look at all, processor", "of a core, ten times a second"),
        (
            f"{len(workers)}",
            f"{1000 * cpu / len(workers):.1f} ms",
            f"{1000 * wall / len(workers):.1f} ms",
            f"{1000 * look:.1f} ms",
            f"{10 * look:.1%}",
        ),
    ]


def parser() -> argparse.ArgumentParser:
    """The command line."""
    command_line = argparse.ArgumentParser(prog="scheduler.py", description=__doc__, formatter_class=Help)
    kinds = command_line.add_mutually_exclusive_group()
    kinds.add_argument("--orders", action="store_true")
    kinds.add_argument("--bookkeeping", action="store_true")
    kinds.add_argument("--published", action="store_true")
    kinds.add_argument("--processes", type=whole(1), metavar="N")
    command_line.add_argument("--seeds", type=whole(1), metavar="N", help="of each cell (default: 48, or 5)")
    command_line.add_argument("--cards", type=whole(NODE), default=256, metavar="N", help="in nodes of 8 (256)")
    command_line.add_argument("--seed", type=whole(0), default=0, metavar="N", help="of what is drawn (default: 0)")
    command_line.add_argument("--markdown", action="store_true", help="print a table for a document")
    return command_line


def main(arguments: Sequence[str] | None = None) -> None:
    """Print what was asked for."""
    options = parser().parse_args(arguments)
    assumed = COLD if options.published else Assumed() if options.orders or options.bookkeeping else WITH_FAILURES
    if options.orders:
        rows = orders(options.seeds or 5, options.seed)
    elif options.bookkeeping:
        rows = bookkeeping(options.seed)
    elif options.published:
        rows = published(options.seed)
    elif options.processes:
        rows = processes(options.processes)
    else:
        rows = [("what", "simulated"), *with_failures(options.seeds or 48, options.cards, options.seed)]
    say(*wrapped(["assumed: " + ", ".join(f"{name} {value:g}" for name, value in asdict(assumed).items())]))
    say(as_markdown(rows) if options.markdown else table(rows))


if __name__ == "__main__":
    main()
