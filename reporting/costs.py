"""Accuracy against what it costs, of backbones that were run on the same datasets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from reporting.statistics import pareto

# name -> what it is, for a table's head
COSTS = {
    "parameters": "parameters",
    "macs": "MACs",
    "seconds": "training, s",
    "images_per_second": "images/s, training",
    "test_images_per_second": "images/s, test",
    "memory_mib": "peak memory, MiB",
    "images": "images processed",
    "epochs": "epochs",
}
# of which less is better, or more
LESS = ("parameters", "macs", "seconds", "memory_mib")
MORE = ("images_per_second", "test_images_per_second")


def cost_rows(league: Mapping[str, Any], budget: int) -> tuple[list[dict[str, Any]], int]:
    """A row a backbone, {name, top1, costs, pareto}, the best first, and over how many datasets its means are.

    Only backbones and datasets of the overall ranking, where each of them has all. `pareto` says for each cost whether
    the backbone is on the front; a cost that some cell lacks is None.
    """
    ranking = league["rankings"][str(budget)]["overall"]
    keys = [dataset["key"] for dataset in league["datasets"]]
    used = {keys.index(key) for key in ranking["datasets"]}
    rows = []
    for b, backbone in enumerate(league["backbones"]):
        cells = [cell for cell in league["cells"] if (cell["b"], cell["budget"]) == (b, budget) and cell["d"] in used]
        if backbone["name"] not in ranking["backbones"] or not cells:
            continue
        costs: dict[str, float | None] = {"parameters": backbone["parameters"], "macs": backbone["macs"]}
        for name in COSTS:
            if name not in costs:
                values = [cell["costs"][name] for cell in cells]
                costs[name] = None if None in values else sum(values) / len(values)
        top1 = sum(cell["mean"]["top1"] for cell in cells) / len(cells)
        rows.append({"name": backbone["name"], "top1": top1, "costs": costs, "pareto": {}})
    for name in (*LESS, *MORE):
        values = [row["costs"][name] for row in rows]
        less = [None if value is None else -value if name in MORE else value for value in values]
        for row, on_front in zip(rows, pareto(less, [row["top1"] for row in rows]), strict=True):
            row["pareto"][name] = on_front
    return sorted(rows, key=lambda row: -row["top1"]), len(used)
