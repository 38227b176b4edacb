"""Accuracy against what it costs, of backbones that were run on the same datasets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from reporting.comparable import ComparableGroup
from reporting.complete import complete_block
from reporting.entry import reported_costs, reported_metrics
from reporting.statistics import DIGITS, pareto

Cells = Mapping[tuple[int, int], Mapping[str, Any]]  # as shown, of one budget, by places of dataset and backbone
SIGNIFICANT = 6  # digits of a mean cost


def average(cells: Cells, datasets: Sequence[int], b: int, metric: str) -> float | None:
    """The mean over datasets of a backbone's means over seeds; None where it lacks one of them."""
    means = [cells[d, b]["mean"].get(metric) if (d, b) in cells else None for d in datasets]
    known = [mean for mean in means if mean is not None]
    return round(math.fsum(known) / len(known), DIGITS) if known and len(known) == len(means) else None


def averages(group: ComparableGroup, cells: Cells) -> dict[str, dict[str, list[float | None]]]:
    """Scope -> metric -> the average of each backbone over all datasets of the scope that anybody was run on."""
    ran = {group.datasets[d]: d for d, _ in cells}
    return {
        scope: {
            metric: [
                average(cells, [ran[key] for key in group.in_scope(scope) if key in ran], b, metric)
                for b in range(len(group.backbones))
            ]
            for metric in reported_metrics()
        }
        for scope in group.scopes
    }


def costs(group: ComparableGroup, budget: str, cells: Cells, models: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What `_compared` gives for the complete block of each scope, and for each dataset alone; None where nobody ran.

    `models` has, for each backbone, the costs that are the same on every dataset.
    """
    scopes = {}
    for scope in group.scopes:
        block = complete_block(group, budget, group.in_scope(scope))
        datasets = [group.datasets.index(key) for key in block.datasets]
        backbones = [group.backbones.index(name) for name in block.backbones] if datasets else []
        left_out = [name for name in group.backbones if name not in block.backbones]
        left_out += [group.examples[key].name for key in block.asked if key not in block.datasets]
        scopes[scope] = _compared(group, budget, cells, models, datasets, backbones) | {"left_out": left_out}
    alone = []
    for d in range(len(group.datasets)):
        backbones = [b for b in range(len(group.backbones)) if (d, b) in cells]
        alone.append(_compared(group, budget, cells, models, [d], backbones) if backbones else None)
    return {"scopes": scopes, "datasets": alone}


def _compared(
    group: ComparableGroup,
    budget: str,
    cells: Cells,
    models: Sequence[Mapping[str, Any]],
    datasets: Sequence[int],
    backbones: Sequence[int],
) -> dict[str, Any]:
    """Means over `datasets`, on all of which all `backbones` were run; lists are in the order of `backbones`.

    `front` has, for each cost and metric, the backbones that no other one beats in both. Costs are in the record's
    units, and None where a cell lacks one.
    """
    accuracy = {metric: [average(cells, datasets, b, metric) for b in backbones] for metric in reported_metrics()}
    means = {
        name: [
            models[b][name] if cost.known_before else geometric_mean([cells[d, b]["costs"][name] for d in datasets])
            for b in backbones
        ]
        for name, cost in reported_costs().items()
    }
    runs = [run for d in datasets for b in backbones for run in group.cells[_key(group, d, b, budget)].runs]
    return {
        "datasets": list(datasets),
        "backbones": list(backbones),
        "accuracy": accuracy,
        "costs": means,
        "front": {
            name: {metric: _front(name, metric, means[name], accuracy[metric], backbones) for metric in accuracy}
            for name, cost in reported_costs().items()
            if cost.better
        },
        "machines": sorted({run.provenance.hardware for run in runs}),
    }


def _key(group: ComparableGroup, d: int, b: int, budget: str) -> tuple[str, str, str]:
    return group.datasets[d], group.backbones[b], budget


def _front(
    name: str, metric: str, cost: Sequence[float | None], accuracy: Sequence[float | None], backbones: Sequence[int]
) -> list[int]:
    less = _negated(cost) if reported_costs()[name].better == "more" else cost
    more = accuracy if reported_metrics()[metric].higher_is_better else _negated(accuracy)
    return [b for b, on_front in zip(backbones, pareto(less, more), strict=True) if on_front]


def _negated(values: Sequence[float | None]) -> list[float | None]:
    return [None if value is None else -value for value in values]


def geometric_mean(values: Sequence[float | None]) -> float | None:
    """None where a value is not known, or not above 0."""
    known = [value for value in values if value is not None and value > 0]
    if not values or len(known) < len(values):
        return None
    return float(f"{math.exp(math.fsum(map(math.log, known)) / len(known)):.{SIGNIFICANT}g}")
