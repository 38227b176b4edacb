"""The report as one dict of plain values, rounded to what is shown: what the page draws and the tables print."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from engine.environment import git_commit
from engine.errors import counted
from reporting import advice, cells, comparable, published, ranking, searches
from reporting.advice import Advice
from reporting.before_training import before_training
from reporting.collect import Collected
from reporting.comparable import DOMAINS, ComparableGroup, Repeats, in_order
from reporting.costs import ShownCells, averages, costs
from reporting.entry import Budget, reported_costs, reported_metrics
from reporting.fields import clean
from reporting.low_data import low_data
from reporting.statistics import FEWEST_DATASETS, FEWEST_SEEDS, FEWEST_SIGNS
from reporting.verify import verify
from reporting.words import budget_words, capital

SMALL = 250  # cells of a report that shows the learning curves of every budget
MOST_LOGITS = 100_000_000  # of test parts, that are all read
MOST_CONFUSIONS = 600_000  # pairs of classes in all confusion matrices together

Advised = Callable[[ComparableGroup, Budget, Mapping[str, Any]], Advice]  # by the ranking over all datasets


def build(collected: Collected, runs: Path, thumbnails: bool = True) -> dict[str, Any]:
    """Return the report. Of runs' further files, `skipped` has what can't be read, `no_curve` the runs without one."""
    verified = verify(collected.entries)
    groups, apart = comparable.divide(verified.entries)
    number = sum(len(group.cells) for group in groups)
    limits = cells.Limits(
        thumbnails=thumbnails,
        pictures=sum(cell.budget == group.budgets[0] for group in groups for cell in group.cells.values()),
        all_curves=number <= SMALL,
        confusions=MOST_CONFUSIONS // max(1, number),
        all_seeds=sum(map(_logits, (cell for group in groups for cell in group.cells.values()))) <= MOST_LOGITS,
    )
    skipped = [*collected.skipped, *verified.skipped]
    no_curve: list[dict[str, str]] = []
    begun = advice.unfinished(verified.entries, collected.failed)

    def advised(group: ComparableGroup, budget: Budget, overall: Mapping[str, Any]) -> Advice:
        if group.setting.search:
            return searches.advise(group, budget, collected.ranked)
        return advice.advise(group, budget, overall, begun)

    return {
        "made": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "runs": clean(str(runs)),
        "commit": git_commit(),
        "records": len(collected.entries),
        "metrics": {
            name: {part: getattr(metric, part) for part in ("label", "digits", "percent", "higher_is_better")}
            for name, metric in reported_metrics().items()
        },
        "costs": {
            name: {part: getattr(cost, part) for part in ("label", "unit", "better", "of_machine")}
            | {"of_model": cost.known_before}
            for name, cost in reported_costs().items()
        },
        # of a claim; "pair": datasets of one about two backbones
        "fewest": {"seeds": FEWEST_SEEDS, "datasets": FEWEST_DATASETS, "pair": FEWEST_SIGNS},
        "most_curves": cells.MOST_CURVES,
        "groups": [_group(group, limits, skipped, no_curve, advised) for group in groups],
        "unranked": advice.unranked(begun),  # the commands of what is not finished, where there is no group
        "unfit": [line["run"] for line in verified.unfit],  # those of `apart` that their own files contradict
        "apart": sorted([*apart, *verified.unfit], key=lambda line: line["run"]),
        "skipped": sorted({line["path"]: line for line in reversed(skipped)}.values(), key=lambda line: line["path"]),
        "no_curve": sorted(no_curve, key=lambda line: line["run"]),
        "failed": collected.failed,
        "before": before_training(collected.ranked, verified.entries),
    }


def _logits(cell: Repeats) -> int:
    """How many numbers the predictions of all its seeds are."""
    return sum(run.version.test_images * len(run.version.classes) for run in cell.runs)


def _group(
    group: ComparableGroup,
    limits: cells.Limits,
    skipped: list[dict[str, str]],
    no_curve: list[dict[str, str]],
    advised: Advised,
) -> dict[str, Any]:
    setting = group.setting
    paper = setting.protocol == "paper"
    shown, provenances = cells.shown(group, limits, skipped, no_curve)
    models = [_model_costs(group, name) for name in group.backbones]
    budgets = []
    for index, budget in enumerate(group.budgets):
        of_budget = {(cell["d"], cell["b"]): cell for cell in shown if cell["budget"] == index}
        budgets.append(_budget(group, budget, of_budget, models, advised))
    return {
        "id": comparable.identity(setting),
        "title": comparable.title(setting),
        "protocol": setting.protocol,
        "selection": "test" if paper else "val",  # the part that chooses the epoch
        "use": "to train" if paper else "to train and to choose the epoch",  # of images that are not in test
        "recipe": setting.recipe,
        "weights": setting.weights,
        "settings": comparable.settings(setting),
        "warnings": comparable.warnings(setting),
        "notes": comparable.notes(group),
        "budgets": budgets,
        "low_data": low_data(group, {(cell["budget"], cell["d"], cell["b"]): cell for cell in shown}),
        "domains": group.domains,
        "answered": group.scopes if len(group.domains) > 1 else ["overall"],  # a single domain is all data once more
        "datasets": [_dataset(group, key) for key in group.datasets],
        "backbones": [{"name": name, "costs": of} for name, of in zip(group.backbones, models, strict=True)],
        "cells": shown,
        "provenances": provenances,
        "published": published.beside_ours(budgets[0]["rankings"]) if paper else None,
    }


def _budget(
    group: ComparableGroup,
    budget: Budget,
    shown: ShownCells,
    models: list[dict[str, Any]],
    advised: Advised,
) -> dict[str, Any]:
    """What is said of a group's runs with one budget."""
    scopes = ("overall", *in_order({*DOMAINS, *group.domains}, DOMAINS))
    several = Counter(len(cell["seeds"]) for cell in shown.values())
    seeds = max(several, key=lambda seeds: (several[seeds], seeds))
    enough = [cell["enough"] for cell in shown.values()]
    rankings = {scope: ranking.ranking(group, budget, scope) for scope in scopes}
    return {
        "name": str(budget),
        "words": budget_words(budget),
        "seeds": seeds,  # of most cells
        "ties": seeds >= FEWEST_SEEDS or all(enough),  # whether any can be claimed
        "short": not all(enough),  # whether there are cells of which nothing is claimed
        "unpaired": [group.examples[key].name for d, key in enumerate(group.datasets) if _unpaired(shown, d)],
        "captions": {metric: _caption(metric, seeds, len(several) > 1, budget) for metric in reported_metrics()},
        "averages": averages(group, shown),
        "rankings": rankings,
        "advice": advised(group, budget, rankings["overall"]),
        "costs": costs(group, budget, shown, models),
        "pairs": ranking.pairs(group, budget),
    }


def _caption(name: str, seeds: int, differ: bool, budget: Budget) -> str:
    """Return the caption of the accuracy table; `differ`: whether some cells have other numbers of seeds."""
    metric = reported_metrics()[name]
    what = f"Test {metric.label}{' in %' if metric.percent else ''}"
    what += " (of the test images, how many are named right)" if name == "top1" else ""
    what += "" if metric.higher_is_better else " (lower is better)"
    mean = f"mean over {counted(seeds, 'seed')} (random starts) ± half the 95 % interval over seeds"
    mean = "one seed: no interval over seeds" if seeds == 1 else mean
    of_test = ", in brackets the 95 % interval of the test part, for its number of images" if name == "top1" else ""
    others = ", other numbers of seeds as n" if differ else ""
    return f"{what}, {mean}{of_test}{others}. {capital(budget_words(budget))}."


def _unpaired(shown: ShownCells, dataset: int) -> bool:
    return any(cell["unpaired"] for (d, _), cell in shown.items() if d == dataset)


def _dataset(group: ComparableGroup, key: str) -> dict[str, Any]:
    example = group.examples[key]
    return {
        "key": key,
        "name": example.name,
        "domain": example.domain,
        "classes": list(example.version.classes),
        "test": example.version.test_images,
    }


def _model_costs(group: ComparableGroup, backbone: str) -> dict[str, float | None]:
    """Return medians over datasets, on which models differ by their heads and the size of their input alone."""
    results = [entry.results for entry in group.entries if entry.backbone == backbone and entry.results]
    known = {
        name: [result.costs[name] for result in results if name in result.costs]
        for name, cost in reported_costs().items()
        if cost.known_before
    }
    return {name: round(float(np.median(values))) if values else None for name, values in known.items()}
