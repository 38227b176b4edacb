"""A grid of runs: datasets x backbones x seeds x sizes of the training part. Resumable, and one failure costs one cell.

    python grid.py --datasets cifar10 breakhis:40 folder:DIR --models all --seeds 0-4 --shots 10 50 all -bs 64
    python grid.py --datasets all --dry-run            what there is to do, and how long it takes

Each cell is the dataset's ordinary script in a process of its own: one at a time on each visible card, or one on the
processor; with --ray, on the nodes of a Ray cluster; with --slurm, a task of an array job. The same command again skips
what is done, goes on with what was interrupted, and tries again what failed by a mistake that can be mended (exit code
2: an image that can't be read, weights that are not there). What crashed, hung or diverged is kept until
--retry-failed. Failures, with the last lines that were printed, and logs are kept in OUT/grid. Several grids with the
same --out share the work.

Ctrl-C stops after the epochs that are running, Ctrl-C again at once. Exit codes: 0 every cell is done, 2 something to
mend in the command, 3 some failed, 130 interrupted.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from engine import INTERRUPTED
from engine.cli import Help, Parser, Several, folder, positive, run_command, whole
from engine.console import say, wrapped
from engine.errors import RunError, UserError, counted
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
from grids.estimate import Speeds
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
    own_records,
    standing,
    start_over,
)
from grids.offer import Offer, offered
from grids.on_ray.address import HELP, LOCAL, ray_address
from grids.plan.lines import GridPlan, damaged_lines, remark_lines
from grids.running import Grid, signals_to
from grids.slurm.script import joined
from grids.view import choose_view

LEFT = "Slurm's tasks go on without this process: the same command finds them again"
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
    add_slurm_flags(command_line)
    add_script_flags(command_line)
    return command_line


def add_slurm_flags(command_line: Parser) -> None:
    """Those by which cells become tasks of a Slurm array job."""
    add = command_line.add_argument
    add(
        "--slurm",
        nargs="?",
        const="",
        metavar="OPTIONS",
        help='run the cells as tasks of a Slurm array job; sbatch\'s options: --slurm="--partition=gpu --time=2:00:00"',
    )
    add(
        "--cell",
        metavar="ID",
        help="run this cell alone, by the name of its log in OUT/grid, as a task of --slurm does",
    )


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says. Returns the exit code."""

    def command() -> int:
        given = joined(sys.argv[1:] if arguments is None else arguments)
        try:
            return run(parser().parse_args(given), given)
        except OSError as problem:
            raise RunError(f"{problem}. What is done is kept; the same command continues.") from problem

    return run_command(command)


def retry_command(given: Sequence[str]) -> str:
    """The command that tries the failed cells of a grid again, by the words that it was given."""
    left_out = ("--dry-run", "--rerun", "--retry-failed")
    return "python " + shlex.join([sys.argv[0], *(word for word in given if word not in left_out), "--retry-failed"])


def run(options: argparse.Namespace, given: Sequence[str]) -> int:
    """Print the plan, carry it out, sum it up. Returns the exit code. `given` are the words of the command line."""
    cells, equal = without_equals(cells_of(options))
    folders = places_to_make(cells, options.data_dir)
    notes = [f"note       {line}" for line in equal]
    with offered(options, given, cells[0].config) as offer, made([] if options.dry_run else folders):
        return carry_out(Planned(options, cells, folders, retry_command(given)), offer, notes)


@dataclass(frozen=True)
class Planned:
    """What is to be done."""

    options: argparse.Namespace
    cells: Sequence[Cell]
    folders: Sequence[Path]  # of datasets, which are made for it
    retry: str  # the command that tries failed cells again


def carry_out(planned: Planned, offer: Offer, notes: Sequence[str]) -> int:
    """The same, on what is offered; `notes` are what is said of cells that it leaves out."""
    options, cells, out = planned.options, planned.cells, planned.cells[0].config.out
    damaged: list[str] = []
    known = own_records(cells[0]) if options.cell else all_records(out, damaged)
    belonging = by_key(known)
    standings = {cell.id: standing(cell, belonging.get(cell.key, ())) for cell in cells}
    if options.rerun:
        standings = {key: start_over(each) for key, each in standings.items()}
    speeds = Speeds(offer.device_name(known), known, offer.start_seconds)
    retry_failed = options.retry_failed or options.rerun
    plan = GridPlan(cells, standings, retry_failed, offer.at_once, offer.what)
    if options.dry_run and offer.device:
        plan.measure(offer.device, speeds)
    notes = [*notes, *remark_lines(standings), *damaged_lines(damaged)]
    # of one cell's data its script knows all soon: a thousand tasks need not list them as well
    asked_for = options.dry_run or not options.cell
    lines = plan.lines(speeds, planned.folders, planned.retry) if asked_for else []
    say(*lines, *wrapped(notes), go_on=options.dry_run)
    if options.dry_run:
        say(*offer.script(plan.wanted, speeds), go_on=True)
        return 0
    make_folder(out)
    places = offer.places(speeds)
    grid = Grid(cells, standings, speeds, places, retry_failed, options.stall_minutes)
    problem = None
    try:
        with choose_view() as view, signals_to(grid):
            grid.run(offer.shown(places, view))
    except RunError as error:
        problem = error
    clear_leftovers(out)
    last = [*(f"avoided    {line}" for line in grid.avoided), *([LEFT] if grid.abandoned else [])]
    say(*wrapped([*summary_lines(cells, grid.standings, options.rerun, planned.retry), *last]), go_on=True)
    if problem:
        raise problem
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
    if options.cell is not None:
        cells = [cell for cell in cells if cell.id == options.cell]
        if not cells:
            raise UserError(
                f"--cell {options.cell}: this grid has no cell of that name. Expected the name of a log in OUT/grid, "
                "without .log, and the other words of the command as that cell was started by them."
            )
    check_members(cells)
    return cells


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
