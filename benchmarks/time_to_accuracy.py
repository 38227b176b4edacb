"""How many images recipes process until they are as good as another one, and how good they are where they stop."""

from __future__ import annotations

import csv
import statistics
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import exp, log
from pathlib import Path
from typing import NamedTuple

import numpy as np

from engine.errors import UserError
from engine.records.schema import HISTORY, RECORD, read_record
from reporting.statistics import half_interval, wilson

RESAMPLES = 10_000
COLUMNS = (
    "recipe",
    "model",
    "data",
    "seed",
    "pass_images",
    "val_images",
    "val",
    "test",
    "test_nll",
    "seconds",
    "val_curve",
    "val_losses",
)
HALF = 5e-5  # of a top-1 that a table has rounded


@dataclass(frozen=True)
class Trained:
    """What is known of a finished run."""

    recipe: str
    data: str
    model: str
    seed: int
    pass_images: int  # of one pass of the training images
    val_images: int  # that judge each pass
    curve: tuple[float, ...]  # top-1 on val after each pass, 0 to 1
    losses: tuple[float, ...]  # likewise cross-entropy, nats
    val: float  # top-1 of the epoch that was chosen
    test: float
    test_nll: float
    seconds: float  # of all passes

    @property
    def pair(self) -> tuple[str, str]:
        """Network and images."""
        return self.model, self.data

    @property
    def cell(self) -> tuple[str, str, int]:
        """What is compared between recipes."""
        return (*self.pair, self.seed)

    @property
    def images(self) -> int:
        """That it processed."""
        return self.pass_images * len(self.curve)

    @property
    def images_to_best(self) -> int:
        """Until its own val top-1 was first what it is where it stops."""
        return self.images_to(self.val) or self.images

    def images_to(self, target: float) -> int | None:
        """That were processed when val top-1 was first `target` (0 to 1) or more; None: it never was."""
        passes = next((number for number, top1 in enumerate(self.curve, 1) if top1 >= target - HALF), None)
        return None if passes is None else passes * self.pass_images


class Interval(NamedTuple):
    """A number with the ends of its 95 % interval."""

    value: float
    low: float
    high: float


Runs = Mapping[tuple[str, str, int], Trained]  # of one recipe, by cell


def read_runs(folder: Path) -> dict[str, dict[tuple[str, str, int], Trained]]:
    """The finished runs in a folder of records, by recipe and cell. UserError: two of one cell."""
    found: dict[str, dict[tuple[str, str, int], Trained]] = {}
    for path in sorted(folder.glob(f"**/{RECORD}")):
        record = read_record(path)
        if not record or record["status"] != "done":
            continue
        with path.with_name(HISTORY).open(newline="") as file:
            rows = list(csv.DictReader(file))
        run = Trained(
            record["recipe"],
            record["dataset"]["name"],
            record["backbone"]["name"],
            record["seed"],
            record["dataset"]["counts"]["train"],
            record["dataset"]["counts"]["val"],
            tuple(float(row["val_top1"]) for row in rows),
            tuple(float(row["val_loss"]) for row in rows),
            record["selection"]["top1"],
            record["test"]["top1"],
            record["test"]["nll"],
            record["costs"]["train_seconds"],
        )
        runs = found.setdefault(run.recipe, {})
        if run.cell in runs:
            raise UserError(f"{folder} has two runs of {run.recipe} on {run.cell}. Expected one of each.")
        runs[run.cell] = run
    return found


def write_table(path: Path, found: Mapping[str, Runs]) -> None:
    """All that is known of the runs, as a CSV file that read_table() reads: curves in hundredths of a percent."""
    with path.open("w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(COLUMNS)
        for _, runs in sorted(found.items()):
            for _, run in sorted(runs.items()):
                curve = " ".join(f"{10_000 * top1:.0f}" for top1 in run.curve)
                losses = " ".join(f"{loss:.3f}" for loss in run.losses)
                numbers = (f"{run.val:.6f}", f"{run.test:.6f}", f"{run.test_nll:.4f}", f"{run.seconds:.1f}")
                rows.writerow([run.recipe, *run.cell, run.pass_images, run.val_images, *numbers, curve, losses])


def read_table(path: Path) -> dict[str, dict[tuple[str, str, int], Trained]]:
    """The runs of a file that write_table() wrote, by recipe and cell."""
    found: dict[str, dict[tuple[str, str, int], Trained]] = {}
    with path.open(newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            run = Trained(
                row["recipe"],
                row["data"],
                row["model"],
                int(row["seed"]),
                int(row["pass_images"]),
                int(row["val_images"]),
                tuple(int(top1) / 10_000 for top1 in row["val_curve"].split()),
                tuple(map(float, row["val_losses"].split())),
                float(row["val"]),
                float(row["test"]),
                float(row["test_nll"]),
                float(row["seconds"]),
            )
            found.setdefault(run.recipe, {})[run.cell] = run
    return found


def common_cells(*several: Runs) -> list[tuple[str, str, int]]:
    """The cells that all have."""
    return sorted(set.intersection(*(set(runs) for runs in several)))


def spent(run: Trained, reference: Trained) -> int:
    """Images until `run` had the val top-1 that `reference` stopped with.

    Where it never had, all that it processed and all that the reference did, as for whoever trains by that one then.
    """
    return run.images_to(reference.val) or run.images + reference.images


def settled(run: Trained, patience: int = 3) -> int:
    """After which pass a run would have stopped that stops where no gain can be told for so many passes.

    A gain is told where top-1 is above Wilson's interval, at 95 %, of the best before. Of a constant learning rate: one
    that comes down by a schedule has its gains at its end.
    """
    best, since = 0.0, 0
    for number, top1 in enumerate(run.curve, 1):
        bounds = wilson(best, run.val_images) if number > 1 else None
        best, since = (top1, 0) if bounds is None or top1 > bounds[1] else (best, since + 1)
        if since == patience:
            return number
    return len(run.curve)


def by_pair(cells: Iterable[tuple[str, str, int]], value: Mapping[tuple[str, str, int], float]) -> list[float]:
    """The mean over seeds of each pair of network and images."""
    pairs: dict[tuple[str, str], list[float]] = {}
    for cell in cells:
        pairs.setdefault(cell[:2], []).append(value[cell])
    return [statistics.mean(values) for values in pairs.values()]


def image_ratio(runs: Runs, reference: Runs, whole: bool = False) -> Interval:
    """Images, as spent() counts them, over all that the reference processed: geometric mean over cells.

    The interval is that of resampled pairs of network and images, seeds within them together. whole: all images that
    each processed, whether or not the target was reached.
    """
    cells = common_cells(runs, reference)
    images = {cell: runs[cell].images if whole else spent(runs[cell], reference[cell]) for cell in cells}
    means = np.array(by_pair(cells, {cell: log(images[cell] / reference[cell].images) for cell in cells}))
    drawn = np.random.default_rng(0).integers(0, len(means), (RESAMPLES, len(means)))
    low, high = np.quantile(means[drawn].mean(1), (0.025, 0.975))
    return Interval(exp(means.mean()), exp(low), exp(high))


def reached(runs: Runs, reference: Runs) -> float:
    """The share of cells in which the reference's val top-1 was had."""
    cells = common_cells(runs, reference)
    return statistics.mean(runs[cell].images_to(reference[cell].val) is not None for cell in cells)


def difference(runs: Runs, reference: Runs, of: str = "test") -> Interval:
    """`of` (test, val, test_nll) less the reference's: mean over pairs of means over seeds, Student's t over pairs."""
    cells = common_cells(runs, reference)
    values = {cell: getattr(runs[cell], of) - getattr(reference[cell], of) for cell in cells}
    pairs = by_pair(cells, values)
    mean = statistics.mean(pairs)
    half = half_interval(pairs) if len(pairs) > 1 else float("nan")
    return Interval(mean, mean - half, mean + half)


def of_data(runs: Runs, data: Sequence[str]) -> Runs:
    """Those on some sets of images."""
    return {cell: run for cell, run in runs.items() if run.data in data}


def of_cells(runs: Runs, models: Sequence[str], seeds: Sequence[int]) -> Runs:
    """Those of some networks and seeds."""
    return {cell: run for cell, run in runs.items() if run.model in models and run.seed in seeds}
