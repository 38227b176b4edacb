"""A grid of runs: datasets x backbones x seeds x sizes of the training part. Resumable, and one failure costs one cell.

    python grid.py --datasets cifar10 breakhis:40 folder:DIR --models all --seeds 0-4 --shots 10 50 all -bs 64
    python grid.py --datasets all --dry-run            what there is to do, and how long it takes

Each cell is the dataset's ordinary script in a process of its own: one at a time on each visible card, or one on the
processor. The same command again skips what is done, goes on with what was interrupted, and tries again what failed by
a mistake that can be mended (exit code 2: an image that can't be read, weights that are not there). What crashed, hung
or diverged is kept until --retry-failed. Failures, with the last lines that were printed, and logs are kept in
OUT/grid. Several grids with the same --out share the work.

Ctrl-C stops after the epochs that are running, Ctrl-C again at once. Exit codes: 0 every cell is done, 2 something to
mend in the command, 3 some failed, 130 interrupted.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine import INTERRUPTED
from engine.cli import Help, Parser, Several, folder, importing, positive, run_command, whole
from engine.config import Config
from engine.console import say, table, wrapped
from engine.errors import RunError, counted
from grids.cells import (
    Cell,
    add_script_flags,
    check_members,
    find_budgets,
    find_datasets,
    find_models,
    find_seeds,
    make_cells,
    places_to_make,
    script_flags,
)
from grids.devices import Slots, device_name, find_slots
from grids.estimate import Speeds, total
from grids.faults import message_of
from grids.images import without_equals
from grids.ledger import (
    Standing,
    all_records,
    by_key,
    by_mistake,
    clear_leftovers,
    grid_folder,
    make_folder,
    standing,
    start_over,
    to_be_tried,
)
from grids.on_ray.address import HELP, LOCAL, ray_address
from grids.places import Places
from grids.running import Grid, signals_to
from grids.view import choose_view

MOST_NAMED = 5  # records that can't be read
AFTER_RERUN = (
    "without --rerun, the same command goes on with what was begun and keeps what lay there of the rest; with it, "
    "every cell starts over"
)


def parser() -> Parser:
    """The command line."""
    command_line = Parser(prog="grid.py", description=__doc__, formatter_class=Help, allow_abbrev=False)
    add = command_line.add_argument
    several: dict[str, Any] = {"action": Several, "nargs": "+"}
    add(
        "--datasets",
        **several,
        required=True,
        metavar="NAME",
        help="as datasets.py lists them, digits, breakhis:40, folder:DIR, or all: every row of the published table",
    )
    add(
        "--models",
        **several,
        default=["all"],
        metavar="NAME",
        help="backbones; all (default): the published ones",
    )
    add(
        "--seeds",
        **several,
        default=["0"],
        metavar="N",
        help="numbers and ranges: 0-4, or 0 2 5-7 (default: 0)",
    )
    add(
        "--shots",
        **several,
        metavar="N",
        help="cells with N training images of each class; all: with all of them",
    )
    add(
        "--fraction",
        **several,
        metavar="F",
        help="cells with this share of the training images of each class; or all",
    )
    add("--dry-run", action="store_true", help="print the plan and start nothing")
    add("--retry-failed", action="store_true", help="try cells again, too, that crashed, hung or diverged")
    add("--rerun", action="store_true", help="start every cell over, even where a finished run lies")
    add(
        "--stall-minutes",
        type=positive,
        default=30.0,
        metavar="MINUTES",
        help="a cell without a sign of life for so long has failed (default: 30)",
    )
    add("--ray", type=ray_address, nargs="?", const=LOCAL, metavar="ADDRESS", help=HELP)
    add("--per-gpu", type=whole(1, 64), default=1, metavar="N", help="cells at a time on each card (default: 1)")
    add(
        "--data-dir",
        type=folder,
        metavar="DIR",
        help="a folder with the datasets in DIR/<script>, or one dataset's own, as the scripts take it (default: data)",
    )
    add_script_flags(command_line)
    return command_line


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says. Returns the exit code."""

    def command() -> int:
        given = sys.argv[1:] if arguments is None else list(arguments)
        try:
            return run(parser().parse_args(given), retry_command(given))
        except OSError as problem:
            raise RunError(f"{problem}. What is done is kept; the same command continues.") from problem

    return run_command(command)


def retry_command(given: Sequence[str]) -> str:
    """The command that tries the failed cells of a grid again, by the words that it was given."""
    left_out = ("--dry-run", "--rerun", "--retry-failed")
    return "python " + shlex.join([sys.argv[0], *(word for word in given if word not in left_out), "--retry-failed"])


def run(options: argparse.Namespace, retry: str) -> int:
    """Print the plan, carry it out, sum it up. Returns the exit code. `retry` is as retry_command() has it."""
    cells, equal = without_equals(cells_of(options))
    folders = places_to_make(cells, options.data_dir)
    with offered(options, cells[0].config) as offer, made([] if options.dry_run else folders):
        return carry_out(options, cells, [f"note       {line}" for line in equal], offer, retry)


@dataclass(frozen=True)
class Offer:
    """What a grid's cells can run on."""

    slots: Sequence[str | None]  # as find_slots() has them
    device_name: str | None  # as records call the device; None: nobody knows
    places: Places
    tell: Callable[[Callable[[str], None]], None] = lambda note: None  # takes whom it is to tell what befell places


@contextmanager
def offered(options: argparse.Namespace, config: Config) -> Iterator[Offer]:
    """This machine's cards or its processor, or the nodes of a Ray cluster."""
    name = None
    if options.ray in (None, LOCAL):
        with importing():
            from engine.device import find_device  # PyTorch: not before the command line is known to be right

        device = find_device(config.device)
        slots = find_slots(device, options.per_gpu)
        name = device_name(device, slots[0])
        if options.ray is None or options.dry_run:
            yield Offer(slots, name, Slots(slots))
            return
    from grids.on_ray.connect import ray_places

    with ray_places(options.ray, config.device, options.per_gpu, config.out) as cluster:
        yield Offer(cluster.slots, name, cluster, cluster.tell_to)


def carry_out(
    options: argparse.Namespace, cells: Sequence[Cell], notes: Sequence[str], offer: Offer, retry: str
) -> int:
    """The same of these cells; `notes` are what is said of others."""
    slots = offer.slots
    damaged: list[str] = []
    known = all_records(cells[0].config.out, damaged)
    belonging = by_key(known)
    standings = {cell.id: standing(cell, belonging.get(cell.key, ())) for cell in cells}
    if options.rerun:
        standings = {key: start_over(each) for key, each in standings.items()}
    speeds = Speeds(offer.device_name, known)
    retry_failed = options.retry_failed or options.rerun
    wanted = {key for key, each in standings.items() if to_be_tried(each, retry_failed)}
    say(*dataset_lines(cells, standings, speeds, slots, wanted), go_on=options.dry_run)
    plan = plan_lines(cells, speeds, slots, wanted, kept_lines(standings, wanted, retry))
    notes = [*notes, *remark_lines(standings), *damaged_lines(damaged)]
    say(*wrapped([*plan, *notes]), go_on=options.dry_run)
    if options.dry_run:
        return 0
    make_folder(cells[0].config.out)
    grid = Grid(cells, standings, speeds, offer.places, retry_failed, options.stall_minutes)
    with choose_view() as view, signals_to(grid):
        offer.tell(view.note)
        grid.run(view)
    clear_leftovers(cells[0].config.out)
    say(*wrapped(summary_lines(cells, grid.standings, options.rerun, retry)), go_on=True)
    words = Counter(grid.standings[cell.id].status for cell in cells)
    if words["done"] == len(cells):
        return 0
    return INTERRUPTED if words["new"] or words["interrupted"] else RunError.exit_code


def cells_of(options: argparse.Namespace) -> list[Cell]:
    """The grid that the command line asks for. UserError: something in it is wrong."""
    chosen = find_datasets(options.datasets)  # first: a script of one's own may bring backbones
    models, flags = find_models(options.models), script_flags(options)
    flags += ["--rerun"] if options.rerun else []
    budgets, seeds = find_budgets(options.shots, options.fraction), find_seeds(options.seeds)
    cells = make_cells(chosen, models, seeds, budgets, flags, options.data_dir)
    check_members(cells)
    return cells


def dataset_lines(
    cells: Sequence[Cell],
    standings: Mapping[str, Standing],
    speeds: Speeds,
    slots: Sequence[str | None],
    wanted: Collection[str],
) -> list[str]:
    """A table: what is done and what is not, by dataset. `wanted` are the ids of the cells that are to be run."""
    datasets: dict[str, list[Cell]] = {}
    for cell in cells:
        datasets.setdefault(cell.place, []).append(cell)
    rows: list[tuple[str, ...]] = [("dataset", "cells", "done", "failed", "interrupted", "to do", "time")]
    for own in datasets.values():
        words = Counter(standings[cell.id].status for cell in own)
        to_do = [speeds.estimate(cell) for cell in own if cell.id in wanted]
        counts = [len(own), words["done"], words["failed"], words["interrupted"], len(to_do)]
        time = total(to_do, len(slots)) if to_do else ""
        rows.append((own[0].dataset_name, *(f"{count:,}" for count in counts), time))
    return table(rows).split("\n")


def plan_lines(
    cells: Sequence[Cell], speeds: Speeds, slots: Sequence[str | None], wanted: Collection[str], kept: Sequence[str]
) -> list[str]:
    """How many cells there are, where they are run and recorded, what is `kept`, and how long the `wanted` take."""
    to_do = [speeds.estimate(cell) for cell in cells if cell.id in wanted]
    at_once = "one at a time" if len(slots) == 1 else f"{len(slots):,} at a time"
    on = f" on {counted(len(set(slots)), 'card')}" if slots[0] is not None else ""
    return [
        f"records    {cells[0].config.out}; failures and logs {grid_folder(cells[0].config.out)}",
        f"cells      {len(cells):,}, {at_once}{on}",
        *kept,
        f"to do      {len(to_do):,}" + (f", {total(to_do, len(slots))}" if to_do else ""),
    ]


def kept_lines(standings: Mapping[str, Standing], wanted: Collection[str], retry: str) -> list[str]:
    """How many cells are done and failed, and which of these are tried again."""
    words = Counter(each.status for each in standings.values())
    lines = [f"done       {words['done']:,}", f"failed     {words['failed']:,}"]
    again = [each.status for key, each in standings.items() if key in wanted].count("failed")
    if kept := words["failed"] - again:
        mended = f"{again:,} of them, which can be mended, to be tried again; " if again else ""
        what = "kept as it is" if kept == 1 else "kept as they are"
        lines[-1] += f", {mended}{kept:,} {what}. To try {'it' if kept == 1 else 'them'} again, too:"
        lines.append(f"           {retry}")
    elif again:
        lines[-1] += ", to be tried again"
    return lines


def damaged_lines(damaged: Sequence[str]) -> list[str]:
    """What is to be said of records that can't be read: their cells are not done."""
    if not damaged:
        return []
    more = [f"           and {len(damaged) - MOST_NAMED:,} more"] if damaged[MOST_NAMED:] else []
    advice = "no cell is done by them. Remove the run's folder, or start that run over with its script's --rerun:"
    return [
        f"note       {counted(len(damaged), 'record')} can't be read, and {advice}",
        *(f"           {line}" for line in damaged[:MOST_NAMED]),
        *more,
    ]


def remark_lines(standings: Mapping[str, Standing]) -> list[str]:
    """What is to be said of records of other code or other images, each once."""
    remarks = Counter(remark for each in standings.values() for remark in each.remarks)
    return [f"note       {counted(number, 'cell')} {remark}" for remark, number in remarks.items()]


def summary_lines(cells: Sequence[Cell], standings: Mapping[str, Standing], rerun: bool, retry: str) -> list[str]:
    """How many cells are done, and why others are not: each reason once, with what the user can mend in full."""
    words = Counter(standings[cell.id].status for cell in cells)
    left = words["new"] + words["interrupted"]
    lines = [f"{words['done']:,} of {counted(len(cells), 'cell')} done, {words['failed']:,} failed, {left:,} left"]
    reasons: dict[tuple[str, ...], list[Cell]] = {}
    for cell in cells:
        if failure := standings[cell.id].failure:
            reasons.setdefault(message_of(failure.tail) or (failure.reason,), []).append(cell)
    repeats = Counter(line for message in reasons for line in dict.fromkeys(message[1:]) if line[:1].strip())
    shared = [line for line, number in repeats.items() if number > 1]  # advice, beside what differs by the backbone
    for message, failed in reasons.items():
        more = f" and {len(failed) - 1:,} more" if len(failed) > 1 else ""
        first = message[0].removeprefix("error: ")
        own = [f"           {line}" for line in message[1:] if line not in shared]
        lines += [f"failed     {failed[0].title}{more}: {first}", *own]
        log = grid_folder(failed[0].config.out) / f"{failed[0].id}.log"
        lines += [f"           log {log}"] if log.exists() else []
    lines += [f"to all     {line}" if repeats[line] == len(reasons) else f"to several {line}" for line in shared]
    mendable = 0 if rerun else sum(by_mistake(each) for each in standings.values())
    if mendable:
        lines.append(f"once that is mended, the same command tries {counted(mendable, 'failed cell')} again")
    if others := words["failed"] - mendable:
        lines += [f"to try {counted(others, 'failed cell')} again{' too' if mendable else ''}:", f"           {retry}"]
    if left:
        lines.append("the same command continues" if not rerun else AFTER_RERUN)
    return [*lines, *remark_lines(standings)]


@contextmanager
def made(places: Sequence[Path]) -> Iterator[None]:
    """Folders for datasets to be fetched into; those into which nothing came are gone afterwards."""
    for place in places:
        place.mkdir(exist_ok=True)
    try:
        yield
    finally:
        for place in places:
            with suppress(OSError):
                place.rmdir()


if __name__ == "__main__":
    sys.exit(main())
