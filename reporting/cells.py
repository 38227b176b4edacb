"""The cells of a league as the report shows them."""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reporting import statistics
from reporting.entry import METRICS, Entry, clean
from reporting.leagues import Cell, League
from reporting.mistakes import side_pixels, worst_errors

MOST_CURVES = 5  # seeds of a cell
COST_DIGITS = {
    "seconds": 1,
    "images_per_second": 1,
    "test_images_per_second": 1,
    "memory_mib": 0,
    "images": 0,
    "epochs": 1,
}


@dataclass(frozen=True)
class Limits:
    """What keeps a report of many cells small."""

    thumbnails: bool
    pictures: int  # how many there can be
    all_curves: bool  # of every budget, not of the first alone
    confusions: int  # wrong pairs of classes in each matrix


def shown(
    league: League, limits: Limits, skipped: list[dict[str, str]], no_curve: list[dict[str, str]]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The cells, by budget, dataset and backbone, and the different ways in which they were made.

    Adds to `skipped` the files of runs that can't be read, and to `no_curve` the runs that have no history.
    """
    marks = _marks(league)
    places = {
        (cell.dataset, cell.backbone, cell.budget): (
            league.budgets.index(cell.budget),
            league.datasets.index(cell.dataset),
            league.backbones.index(cell.backbone),
        )
        for cell in league.cells.values()
    }
    cells: list[dict[str, Any]] = []
    makings: dict[str, tuple[int, dict[str, Any]]] = {}
    for key, (budget, d, b) in sorted(places.items(), key=lambda item: item[1]):
        cell = league.cells[key]
        making = _making(cell.runs)
        made = makings.setdefault(repr(making), (len(makings), making))[0]
        found = {"d": d, "b": b, "budget": budget} | _numbers(cell) | {"mark": marks[key], "made": made}
        cells.append(found | _files(cell, budget, limits, skipped, no_curve) | _matrix(cell, limits.confusions))
    return cells, [making for _, making in makings.values()]


def _marks(league: League) -> dict[tuple[str, str, str], str]:
    columns: dict[tuple[str, str], dict[str, dict[int, float]]] = defaultdict(dict)
    for (dataset, backbone, budget), cell in league.cells.items():
        columns[dataset, budget][backbone] = cell.scores()
    return {
        (dataset, backbone, budget): mark
        for (dataset, budget), scores in columns.items()
        for backbone, mark in statistics.marks(scores).items()
    }


def _numbers(cell: Cell) -> dict[str, Any]:
    values: dict[str, list[float] | None] = {}
    mean: dict[str, float | None] = {}
    low: dict[str, float | None] = {}
    high: dict[str, float | None] = {}
    for metric in METRICS:
        numbers = list(cell.scores(metric).values())
        whole = len(numbers) == len(cell.runs)
        values[metric] = [round(value, statistics.DIGITS) for value in numbers] if whole else None
        mean[metric] = round(float(np.mean(numbers)), statistics.DIGITS) if whole else None
        reach = statistics.interval(numbers, high=math.inf if metric == "nll" else 1.0) if whole else None
        low[metric], high[metric] = (round(end, statistics.DIGITS) for end in reach) if reach else (None, None)
    several = len(cell.runs) > 1
    costs = {}
    for name, digits in COST_DIGITS.items():
        known = [entry.outcome.costs[name] for entry in cell.runs if entry.outcome]
        there = [cost for cost in known if cost is not None]
        costs[name] = round(float(np.mean(there)), digits) if there else None
    return {
        "seeds": [entry.seed for entry in cell.runs],
        "runs": [entry.run for entry in cell.runs],
        "values": values,
        "mean": mean,
        "low": low if several else None,
        "high": high if several else None,
        "costs": costs,
        "images": round(float(np.mean([entry.used_images for entry in cell.runs]))),
    }


def _matrix(cell: Cell, most: int) -> dict[str, Any]:
    """The confusion matrix of all seeds together, and mean recalls.

    Of very many wrong pairs, the most frequent stay; `confusion_rest` says how many pairs and images are left out.
    """
    outcomes = [entry.outcome for entry in cell.runs if entry.outcome]
    classes = len(cell.runs[0].version.classes)
    where = np.concatenate([outcome.places for outcome in outcomes])
    sums = np.bincount(where, np.concatenate([outcome.counts for outcome in outcomes]), classes**2).astype(np.int64)
    places = np.flatnonzero(sums)
    wrong = places[places % (classes + 1) != 0]
    rest = None
    if len(wrong) > most:
        dropped = wrong[np.argsort(-sums[wrong], kind="stable")[most:]]
        rest = {"pairs": len(dropped), "images": int(sums[dropped].sum())}
        places = np.setdiff1d(places, dropped, assume_unique=True)
    recalls = np.stack([outcome.recall for outcome in outcomes])
    there: npt.NDArray[np.bool_] = ~np.isnan(recalls)
    means = np.where(there, recalls, 0).sum(axis=0) / np.maximum(1, there.sum(axis=0))
    return {
        "confusion": np.stack([places // classes, places % classes, sums[places]], axis=1).tolist(),
        "confusion_rest": rest,
        "recall": [
            round(value, 4) if known else None
            for value, known in zip(means.tolist(), np.any(there, axis=0), strict=True)
        ],
    }


def _files(
    cell: Cell, budget: int, limits: Limits, skipped: list[dict[str, str]], no_curve: list[dict[str, str]]
) -> dict[str, Any]:
    """Learning curves and the worst errors, from the runs' own files."""
    curves: list[tuple[list[float], list[float]]] = []
    errors = None
    if limits.all_curves or budget == 0:
        curves = [_history(entry, skipped, no_curve) for entry in cell.runs[:MOST_CURVES]]
    if limits.thumbnails and budget == 0:
        for entry in cell.runs:
            try:
                classes = len(entry.version.classes)
                errors = worst_errors(entry.folder, entry.seed, classes, side_pixels(limits.pictures))
            except ValueError as problem:
                skipped.append({"path": f"{entry.run}/errors.npz", "reason": str(problem)})
            if errors:
                break
    return {"curve": [top1 for top1, _ in curves], "loss": [loss for _, loss in curves], "errors": errors}


def _history(
    entry: Entry, skipped: list[dict[str, str]], no_curve: list[dict[str, str]]
) -> tuple[list[float], list[float]]:
    path: Path = entry.folder / "history.csv"
    if not path.exists():
        no_curve.append({"run": entry.run, "reason": "history.csv is missing"})
        return [], []
    try:
        if not path.is_file():  # a pipe would be waited for without end
            raise ValueError("not a regular file")
        with path.open(newline="", encoding="utf-8") as file:
            names, *rows = csv.reader(file)
        columns = names.index("select_top1"), names.index("train_loss")
        top1, loss = ([_plotted(row[column]) for row in rows] for column in columns)
    except (OSError, ValueError, IndexError, csv.Error) as problem:
        reason = f"can't be read: {clean(str(problem))}"
        skipped.append({"path": f"{entry.run}/history.csv", "reason": reason})
        return [], []
    return top1, loss


def _plotted(text: str) -> float:
    value = float(text)
    if not math.isfinite(value):
        raise ValueError(f"{text} is no number to plot")
    return round(value, 4)


def _making(entries: Sequence[Entry]) -> dict[str, Any]:
    """How a cell was made: what is equal for its runs once, what is not, all of it."""
    terms = entries[0].terms
    rates = _each(entry.making.rate for entry in entries)
    rate = f", rate {' and '.join(f'{value:g}' for value in rates)}" if rates else ""
    versions: dict[str, list[str]] = defaultdict(list)
    for entry in entries:
        for name, version in entry.making.versions:
            if version not in versions[name]:
                versions[name].append(version)
    hashes = _each(entry.making.weights_sha256 for entry in entries)
    return {
        "recipe": f"{terms.recipe}{rate}, {entries[0].version.augment} augmentation, "
        f"input {'x'.join(map(str, entries[0].version.size))}",
        "weights": " and ".join(_each(entry.making.weights for entry in entries)),
        "weights_sha256": " and ".join(hashes) if hashes else None,
        "versions": {name: " and ".join(several) for name, several in versions.items()},
        "hardware": " and ".join(_each(entry.making.hardware for entry in entries)),
        "precision": _each(entry.making.precision for entry in entries),
        "dataset_version": entries[0].version.version,
        "split": _each(entry.making.split for entry in entries),
        "commit": _each(entry.making.commit for entry in entries),
    }


def _each(values: Iterable[Any]) -> list[Any]:
    """The different ones, in the order of their first appearance."""
    return [value for value in dict.fromkeys(values) if value is not None]
