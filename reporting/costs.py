"""Accuracy against what it costs, of backbones that were run on the same datasets."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from reporting.comparable import ComparableGroup
from reporting.complete import complete_block
from reporting.entry import Budget, reported_costs, reported_metrics
from reporting.statistics import pareto
from reporting.words import Shown, metric_text, three_digits

ShownCells = Mapping[tuple[int, int], Shown]  # of one budget, by places of dataset and backbone


def average(cells: ShownCells, datasets: Sequence[int], b: int, metric: str) -> float | None:
    """The mean over datasets of a backbone's means over seeds; None where it lacks one of them."""
    means = [cells[d, b]["mean"][metric] for d in datasets if (d, b) in cells and metric in cells[d, b]["mean"]]
    return math.fsum(means) / len(means) if means and len(means) == len(datasets) else None


def averages(group: ComparableGroup, cells: ShownCells) -> dict[str, dict[str, list[str | None]]]:
    """Scope -> metric -> the average of each backbone over all datasets of the scope that anybody was run on, as text.

    A scope of one dataset has none.
    """
    ran = {group.datasets[d]: d for d, _ in cells}
    places = {scope: [ran[key] for key in group.in_scope(scope) if key in ran] for scope in group.scopes}
    return {
        scope: {
            metric: [_text(metric, average(cells, datasets, b, metric)) for b in range(len(group.backbones))]
            for metric in reported_metrics()
        }
        for scope, datasets in places.items()
        if len(datasets) > 1
    }


def _text(metric: str, value: float | None) -> str | None:
    return None if value is None else metric_text(metric, value)


def costs(
    group: ComparableGroup, budget: Budget, cells: ShownCells, models: Sequence[Mapping[str, Any]]
) -> dict[str, Any]:
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
    budget: Budget,
    cells: ShownCells,
    models: Sequence[Mapping[str, Any]],
    datasets: Sequence[int],
    backbones: Sequence[int],
) -> dict[str, Any]:
    """Means over `datasets`, on all of which all `backbones` were run; lists are in the order of `backbones`.

    `accuracy` has texts, `half` numbers for the intervals of one dataset. `front` has, for each cost and metric, the
    backbones that no other one beats in both. Costs are as they are shown, and None where a cell lacks one.
    """
    accuracy = {metric: [average(cells, datasets, b, metric) for b in backbones] for metric in reported_metrics()}
    means = {
        name: [
            models[b][name] if cost.known_before else geometric_mean([cells[d, b]["costs"][name] for d in datasets])
            for b in backbones
        ]
        for name, cost in reported_costs().items()
    }
    keys = [(group.datasets[d], group.backbones[b], budget) for d in datasets for b in backbones]
    return {
        "datasets": list(datasets),
        "backbones": list(backbones),
        "accuracy": {metric: [_text(metric, value) for value in values] for metric, values in accuracy.items()},
        "half": {metric: [_half(cells, datasets, b, metric) for b in backbones] for metric in accuracy},
        "costs": {
            name: [None if value is None else three_digits(cost.scale * value) for value in means[name]]
            for name, cost in reported_costs().items()
        },
        "front": {
            name: {metric: _front(name, metric, means[name], accuracy[metric], backbones) for metric in accuracy}
            for name, cost in reported_costs().items()
            if cost.better
        },
        "machines": sorted({run.provenance.hardware for key in keys for run in group.cells[key].trainings}),
    }


def _half(cells: ShownCells, datasets: Sequence[int], b: int, metric: str) -> float:
    return float(metric_text(metric, cells[datasets[0], b]["half"].get(metric, 0))) if len(datasets) == 1 else 0


def _front(
    name: str, metric: str, cost: Sequence[float | None], accuracy: Sequence[float | None], backbones: Sequence[int]
) -> list[int]:
    less = _negated(cost) if reported_costs()[name].better == "more" else cost
    more = accuracy if reported_metrics()[metric].higher_is_better else _negated(accuracy)
    return [b for b, on_front in zip(backbones, pareto(less, more), strict=True) if on_front]


def _negated(values: Sequence[float | None]) -> list[float | None]:
    return [None if value is None else -value for value in values]


def geometric_mean(values: Sequence[float | None]) -> float | None:
    """Return the geometric mean, or None where a value is not known, or not above 0."""
    known = [value for value in values if value is not None and value > 0]
    if not values or len(known) < len(values):
        return None
    return math.exp(math.fsum(map(math.log, known)) / len(known))
