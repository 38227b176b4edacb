"""The cells of a comparable group as the report shows them."""

from __future__ import annotations

import csv
import io
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.console import duration
from engine.files import read_small
from engine.records.schema import ERRORS, HISTORY, PREDICTIONS, Cost
from reporting import outcomes, statistics
from reporting.comparable import ComparableGroup, Repeats
from reporting.coverage import coverage
from reporting.entry import Entry, reported_costs, reported_metrics
from reporting.fields import LARGEST_NUMBER, clean
from reporting.files import MIB
from reporting.mistakes import pictures, read_mistakes, side_pixels
from reporting.predictions import require_named
from reporting.words import Shown, capital, metric_text, number_text, three_digits

# of a metric: that of each seed, their mean, the ends of its 95 % interval over seeds, the longer side of that
PARTS = ("values", "mean", "low", "high", "half")
MOST_CURVES = 5  # trainings of a cell
# of a history: today's, that of the paper protocol, schema 1's
SCORE_COLUMNS = ("val_top1", "test_top1", "select_top1")
LARGEST_HISTORY = 4 * MIB  # some 20,000 epochs
EPOCHS_DIFFER = 2e-4  # of a top-1 and of one that is rounded to be plotted
WIDE = 0.004  # an interval of shares of which one decimal of a percentage says enough
ELEMENTS = {"best": "b", "tied": "u"}  # of HTML, by mark


@dataclass(frozen=True)
class Limits:
    """What keeps a report of many cells small."""

    thumbnails: bool
    pictures: int  # how many there can be
    all_curves: bool  # of every budget, not of the first alone
    confusions: int  # wrong pairs of classes in each matrix
    all_seeds: bool  # whether the predictions of all are read, not of the first alone


def shown(
    group: ComparableGroup, limits: Limits, skipped: list[dict[str, str]], no_curve: list[dict[str, str]]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The cells, by budget, dataset and backbone, and the different ways in which they came about.

    Adds to `skipped` the files of runs that can't be read, and to `no_curve` the runs that have no history.
    """
    places = {
        (cell.dataset, cell.backbone, cell.budget): (
            group.budgets.index(cell.budget),
            group.datasets.index(cell.dataset),
            group.backbones.index(cell.backbone),
        )
        for cell in group.cells.values()
    }
    cells: list[dict[str, Any]] = []
    provenances: dict[str, tuple[int, dict[str, Any]]] = {}
    for key, (budget, d, b) in sorted(places.items(), key=lambda item: item[1]):
        cell = group.cells[key]
        provenance = _provenance(cell.trainings)
        index = provenances.setdefault(repr(provenance), (len(provenances), provenance))[0]
        numbers = {"d": d, "b": b, "budget": budget} | _numbers(cell) | {"provenance": index}
        cells.append(numbers | _files(cell, budget, limits, skipped, no_curve) | _matrix(cell, limits.confusions))
    _mark(group, cells, skipped)
    return cells, [provenance for _, provenance in provenances.values()]


def _mark(group: ComparableGroup, cells: Sequence[dict[str, Any]], skipped: list[dict[str, str]]) -> None:
    """Say in `marks` of each cell in which metrics it is "best" of its dataset, or "tied" with the best.

    `unpaired` says whether it was compared with the best without the test images in pairs. Adds to `skipped` the
    predictions that can't be used.
    """
    unusable: dict[str, str] = {}
    columns: dict[tuple[int, int], list[dict[str, Any]]] = defaultdict(list)
    for cell in cells:
        columns[cell["d"], cell["budget"]].append(cell)
    for (d, budget), column in columns.items():
        of = [group.cells[group.datasets[d], group.backbones[cell["b"]], group.budgets[budget]] for cell in column]
        marks, tests = outcomes.marks({repeats.backbone: repeats for repeats in of})
        unusable |= {run: reason for test in tests.values() for run, reason in test.problems}
        for cell, repeats in zip(column, of, strict=True):
            cell["marks"] = {"top1": marks[repeats.backbone]} if marks[repeats.backbone] else {}
            cell["unpaired"] = repeats.backbone in tests and tests[repeats.backbone].unpaired
        for name, metric in reported_metrics().items():
            known = [cell["mean"][name] for cell in column if name in cell["mean"]]
            if name != "top1" and len(known) > 1:
                best = max(known) if metric.higher_is_better else min(known)
                for cell in column:
                    cell["marks"] |= {name: "best"} if cell["mean"].get(name) == best else {}
    skipped += [{"path": f"{run}/{PREDICTIONS}", "reason": reason} for run, reason in unusable.items()]


def _numbers(cell: Repeats) -> dict[str, Any]:
    metrics = {name: _spread(cell, name, metric.most) for name, metric in reported_metrics().items()}
    return {
        "seeds": [entry.seed for entry in cell.runs],
        "folds": len(cell.runs[0].folds) or None,  # of each seed
        "enough": cell.enough,
        "runs": [entry.run for entry in cell.trainings],
        **{part: {name: metric[part] for name, metric in metrics.items() if part in metric} for part in PARTS},
        "of_test": _of_test(cell),
        "costs": {
            name: _mean([entry.results.costs.get(name) for entry in cell.runs if entry.results], cost.digits)
            for name, cost in reported_costs().items()
            if not cost.known_before
        },
        "images": round(float(np.mean([entry.used_images for entry in cell.runs]))),
    }


def _of_test(cell: Repeats) -> list[float] | None:
    """The ends of the 95 % interval of top-1, the test images being a sample: what other images could have given."""
    ends = statistics.wilson(cell.mean(), cell.runs[0].version.test_images)
    return [round(end, statistics.DIGITS) for end in ends] if ends else None


def _spread(cell: Repeats, metric: str, most: float) -> dict[str, Any]:
    """A metric as PARTS of it, without an interval for one seed; empty where a run does not say it."""
    numbers = list(cell.scores(metric).values())
    if len(numbers) < len(cell.runs):
        return {}
    mean = round(float(np.mean(numbers)), statistics.DIGITS)
    spread = {"values": [round(value, statistics.DIGITS) for value in numbers], "mean": mean}
    if interval := statistics.interval(numbers, most):
        low, high = (round(end, statistics.DIGITS) for end in interval)
        spread |= {"low": low, "high": high, "half": round(max(mean - low, high - mean), statistics.DIGITS)}
    return spread


def _mean(values: Sequence[float | None], digits: int) -> float | None:
    """Return the mean of the values that are known."""
    known = [value for value in values if value is not None]
    return round(float(np.mean(known)), digits or None) if known else None


def _matrix(cell: Repeats, most: int) -> dict[str, Any]:
    """The confusion matrix of all seeds together, and mean recalls.

    Of very many wrong pairs, the most frequent stay; `confusion_rest` says how many pairs and images are left out.
    """
    results = [entry.results for entry in cell.runs if entry.results]
    classes = len(cell.runs[0].version.classes)
    places, where = np.unique(np.concatenate([result.places for result in results]), return_inverse=True)
    sums = np.bincount(where, np.concatenate([result.counts for result in results])).astype(np.int64)
    wrong = np.flatnonzero(places % (classes + 1))
    rest = None
    if len(wrong) > most:
        dropped = wrong[np.argsort(-sums[wrong], kind="stable")[most:]]
        rest = {"pairs": len(dropped), "images": int(sums[dropped].sum())}
        places, sums = np.delete(places, dropped), np.delete(sums, dropped)
    recalls = np.stack([result.recall for result in results])
    there: npt.NDArray[np.bool_] = ~np.isnan(recalls)
    means = np.where(there, recalls, 0).sum(axis=0) / np.maximum(1, there.sum(axis=0))
    return {
        "confusion": np.stack([places // classes, places % classes, sums], axis=1).tolist(),
        "confusion_rest": rest,
        "recall": [
            round(value, 4) if known else None
            for value, known in zip(means.tolist(), np.any(there, axis=0), strict=True)
        ],
    }


def _files(
    cell: Repeats, budget: int, limits: Limits, skipped: list[dict[str, str]], no_curve: list[dict[str, str]]
) -> dict[str, Any]:
    """Learning curves, what rejecting would keep, and the mistakes worth a look, from the runs' own files."""
    curves: list[tuple[list[float], list[float]]] = []
    kept = errors = None
    if limits.all_curves or budget == 0:
        curves = [_history(entry, skipped, no_curve) for entry in cell.trainings[:MOST_CURVES]]
    if budget == 0:
        kept = coverage(cell.runs if limits.all_seeds else cell.runs[:1], skipped)
    if limits.thumbnails and budget == 0:
        errors = _errors(cell, side_pixels(limits.pictures), skipped)
    shown = {"curve": [top1 for top1, _ in curves], "loss": [loss for _, loss in curves]}
    return shown | {"coverage": kept, "errors": errors}


def _errors(cell: Repeats, side: int, skipped: list[dict[str, str]]) -> dict[str, Any] | None:
    """The mistakes of the first seed that there are pictures of."""
    for run in cell.runs:
        read = []
        for entry in run.trainings:
            try:
                read.append(read_mistakes(entry))
            except ValueError as problem:
                skipped.append({"path": f"{entry.run}/{ERRORS}", "reason": str(problem)})
        several = [each for each in read if each]
        if any(len(each.rows) for each in several):
            return pictures(several, side)
    return None


def _history(
    entry: Entry, skipped: list[dict[str, str]], no_curve: list[dict[str, str]]
) -> tuple[list[float], list[float]]:
    try:
        content = read_small(entry.folder / HISTORY, LARGEST_HISTORY)
        require_named(entry, HISTORY, content)
        names, *rows = csv.reader(io.StringIO(content.decode("utf-8"), newline=""))
        score = next((name for name in SCORE_COLUMNS if name in names), SCORE_COLUMNS[0])
        top1, loss = ([_plotted(row[names.index(name)]) for row in rows] for name in (score, "train_loss"))
        epoch, best = entry.selected or (0, 0.0)
        if epoch > len(top1):
            raise ValueError(f"{len(top1):,} epochs, of which the record chose that of number {epoch:,}")
        if epoch and abs(top1[epoch - 1] - best) > EPOCHS_DIFFER:
            raise ValueError(f"top-1 of epoch {epoch} is {top1[epoch - 1]:.4f}, by the record {best:.4f}")
    except FileNotFoundError:
        no_curve.append({"run": entry.run, "reason": f"{HISTORY} is missing"})
        return [], []
    except (OSError, ValueError, IndexError, csv.Error) as problem:
        reason = f"can't be shown: {clean(str(problem))}"
        skipped.append({"path": f"{entry.run}/{HISTORY}", "reason": reason})
        return [], []
    return top1, loss


def _plotted(text: str) -> float:
    value = float(text)
    if not abs(value) <= LARGEST_NUMBER:
        raise ValueError(f"{text} is no number to plot")
    return round(value, 4)


def mean_and_intervals(cell: Shown, metric: str) -> list[str]:
    """Return the texts of a metric's mean, of half its interval over seeds, and of top-1's interval of the test part.

    Those that there are: one seed has no interval, nor has a metric of a test part that is no share of its images.
    """
    half = [f" ± {metric_text(metric, cell['half'][metric])}"] if metric in cell["half"] else []
    of_test = [f" [{', '.join(_ends(cell['of_test']))}]"] if metric == "top1" and cell["of_test"] else []
    return [metric_text(metric, cell["mean"][metric]), *half, *of_test]


def _ends(interval: Sequence[float]) -> list[str]:
    """The ends of an interval of shares in percent: with one decimal unless that would make them nearly equal."""
    digits = 1 if interval[1] - interval[0] >= WIDE else 2
    return [f"{100 * end:.{digits}f}" for end in interval]


def parts(cell: Shown, seeds: int) -> dict[str, list[tuple[str, str]]]:
    """Return what stands in a cell of the accuracy table, by metric: HTML elements' names and their texts.

    `seeds` is the number that goes without saying.
    """
    other = [] if len(cell["seeds"]) == seeds else [f" n = {len(cell['seeds'])}"]
    made = {}
    for metric in cell["mean"]:
        mean, *rest = mean_and_intervals(cell, metric) + other
        made[metric] = [(ELEMENTS.get(cell["marks"].get(metric), "span"), mean), *(("small", text) for text in rest)]
    return made


def metric_rows(cell: Shown) -> list[tuple[str, str, str]]:
    """Return each metric's label, its mean, and its value for each seed, as texts."""
    return [
        (
            metric.label,
            f"{''.join(mean_and_intervals(cell, name))}{' %' if metric.percent else ''}",
            "  ".join(metric_text(name, value) for value in cell["values"][name]),
        )
        for name, metric in reported_metrics().items()
        if name in cell["mean"]
    ]


def fact_rows(cell: Shown, use: str, test: int) -> list[tuple[str, str]]:
    """Return what a cell cost, and how many images it had, each with its name; `use` says what for, beside the test."""
    costs = {name: cost for name, cost in reported_costs().items() if cell["costs"].get(name) is not None}
    return [
        *((capital(cost.label), _cost_text(name, cost, cell["costs"][name])) for name, cost in costs.items()),
        ("Images", f"{cell['images']:,} {use}, {test:,} to test"),
    ]


def _cost_text(name: str, cost: Cost, value: float) -> str:
    if name.endswith("_seconds"):
        return duration(value)
    return f"{number_text(three_digits(cost.scale * value))} {cost.unit}".rstrip()


def _provenance(entries: Sequence[Entry]) -> dict[str, Any]:
    """How a cell came about: what is equal for its runs once, what is not, all of it."""
    setting = entries[0].setting
    lrs = _each(entry.provenance.lr for entry in entries)
    lr = f", learning rate {' and '.join(f'{value:g}' for value in lrs)}" if lrs else ""
    versions: dict[str, list[str]] = defaultdict(list)
    for entry in entries:
        for name, version in entry.provenance.versions:
            if version not in versions[name]:
                versions[name].append(version)
    hashes = _each(entry.provenance.weights_sha256 for entry in entries)
    return {
        "recipe": f"{setting.recipe}{lr}, {entries[0].version.augment} augmentation, "
        f"input {'x'.join(map(str, entries[0].version.size))}",
        "weights": " and ".join(_each(entry.provenance.weights for entry in entries)),
        "weights_sha256": " and ".join(hashes) if hashes else None,
        "versions": {name: " and ".join(several) for name, several in versions.items()},
        "hardware": " and ".join(_each(entry.provenance.hardware for entry in entries)),
        "precision": _each(entry.provenance.precision for entry in entries),
        "dataset_version": entries[0].version.version,
        "split": _each(entry.provenance.split for entry in entries),
        "commit": _each(entry.provenance.commit for entry in entries),
    }


def _each(values: Iterable[Any]) -> list[Any]:
    """The different ones, in the order of their first appearance."""
    return [value for value in dict.fromkeys(values) if value is not None]
