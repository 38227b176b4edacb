"""Accuracy against the number of training images."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from itertools import product
from statistics import fmean
from typing import Any

from reporting.comparable import ComparableGroup
from reporting.complete import complete_block
from reporting.entry import reported_metrics
from reporting.statistics import half_of_mean
from reporting.words import Shown, metric_text

AllCells = Mapping[tuple[int, int, int], Shown]  # by places of budget, dataset and backbone
Lines = dict[str, list[tuple[int, list[list[float]]]]]  # by metric: backbones and their points


def low_data(group: ComparableGroup, cells: AllCells) -> dict[str, Any]:
    """Draw the line of each backbone over the datasets of each scope, and for each dataset alone.

    A scope's line is of the datasets and backbones that are in its complete block at every size.
    """
    backbones = range(len(group.backbones))
    scopes = {}
    for scope in group.scopes:
        blocks = [complete_block(group, budget, group.in_scope(scope)) for budget in group.budgets]
        datasets = _in_all(group.datasets, [block.datasets for block in blocks if block.asked])
        names = _in_all(group.backbones, [block.backbones for block in blocks if block.asked])
        scopes[scope] = {"datasets": len(datasets), "lines": _lines(cells, datasets, names)}
    alone = [{"datasets": 1, "lines": _lines(cells, [d], backbones)} for d in range(len(group.datasets))]
    return {"scopes": scopes, "datasets": alone}


def _in_all(names: Sequence[str], several: Sequence[Sequence[str]]) -> list[int]:
    return [place for place, name in enumerate(names) if all(name in each for each in several)]


def _lines(cells: AllCells, datasets: Sequence[int], backbones: Iterable[int]) -> Lines:
    """Return the backbones that have several points, and these, the fewest images first."""
    budgets = sorted({budget for budget, _, _ in cells})
    lines: Lines = {metric: [] for metric in reported_metrics()}
    for metric, b in product(lines, backbones):
        several = [[cells.get((budget, d, b), {"mean": {}}) for d in datasets] for budget in budgets]
        points = [_point(each, metric) for each in several if each and all(metric in cell["mean"] for cell in each)]
        if len(points) > 1:
            lines[metric].append((b, sorted(points)))
    return lines


def _point(cells: Sequence[Shown], metric: str) -> list[float]:
    """Return the mean images, the mean of the metric, and the ends of its interval where every cell has one."""
    mean, most = fmean(cell["mean"][metric] for cell in cells), reported_metrics()[metric].most
    halves = [cell["half"][metric] for cell in cells if metric in cell["half"]]
    half = half_of_mean(halves) if len(halves) == len(cells) else None
    ends = [] if half is None else [max(0.0, mean - half), min(most, mean + half)]
    return [round(fmean(cell["images"] for cell in cells)), *(float(metric_text(metric, v)) for v in (mean, *ends))]
