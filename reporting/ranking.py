"""Which backbone is best, of those and on those datasets that can be ranked, and every two of them compared."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np

from reporting import answers, statistics
from reporting.cd_diagram import diagram
from reporting.comparable import ComparableGroup
from reporting.complete import CompleteBlock, complete_block
from reporting.statistics import DIGITS, FEWEST_DATASETS, FEWEST_SEEDS
from reporting.words import count, data_words


def ranking(group: ComparableGroup, budget: str, scope: str) -> dict[str, Any]:
    """What can be said of a group's backbones on all datasets ("overall") or on those of a domain.

    `kind` says how: "tested" (rank tests over datasets), "means" (fewer datasets, but ties by seeds on each of them),
    "none" (not enough evidence). `enough` is true for "tested" alone.
    """
    block = complete_block(group, budget, group.in_scope(scope))
    kind = kind_of(block)
    scores, means = block.scores, block.means
    several = len(block.backbones) > 1 and len(block.datasets) > 0
    average = dict(zip(block.backbones, statistics.ranks(scores).mean(axis=0).tolist(), strict=True)) if several else {}
    by = average if kind == "tested" else {name: -mean for name, mean in means.items()}
    ordered = sorted(block.backbones, key=lambda name: (by.get(name, 0), -means.get(name, 0)))
    if kind == "tested":
        said = _tested(block, average)
    elif kind == "means":
        marks = {d: statistics.marks({b: block.cells[d, b].scores() for b in ordered}) for d in block.datasets}
        said = {**answers.of_means(block, scope, ordered, marks)}
    else:
        said = {**answers.none(block, scope, budget, ordered)}
    ranks = {
        "kind": kind,
        "enough": kind == "tested",
        "backbones": ordered,
        "datasets": block.datasets,
        "independent": len(block.independent),
        "left_out": block.left_out,
        "ranks": {name: round(average[name], 5) for name in ordered} if average else {},
        "mean": {name: round(means[name], DIGITS) for name in ordered} if means else {},
        "caption": f"Average ranks by top-1 over {count(len(block.independent), 'dataset')} "
        f"({data_words(scope) or 'all domains'}); 1 is best.",
        "cliques": [],
        "svg": None,
    }
    said["missing"] = answers.missing(block, scope, kind, bool(said.get("cliques")))
    return ranks | said


def kind_of(block: CompleteBlock) -> str:
    """How much may be said; see `ranking`."""
    if len(block.backbones) < 2 or not block.datasets or block.short:
        return "none"
    return "tested" if len(block.independent) >= FEWEST_DATASETS else "means"


def _tested(block: CompleteBlock, average: Mapping[str, float]) -> dict[str, Any]:
    """What tests over datasets say, with the cliques and their diagram where there are more than two backbones."""
    scores = block.scores
    backbones, datasets = len(block.backbones), len(block.independent)
    if backbones == 2:  # a rank test of two is the sign test, which has next to no power
        return {**answers.of_two(block, average, statistics.signed_rank(scores[:, 0], scores[:, 1]))}
    tests = statistics.friedman(scores)
    difference = statistics.critical_difference(backbones, datasets)
    # a post-hoc test means something only where the ranks differ at all
    cliques = statistics.cliques(average, difference if tests.p_f < statistics.LEVEL else float("inf"))
    said = answers.of_tests(block, average, tests, difference, cliques)
    return {**said, "cliques": cliques, "svg": diagram(average, difference, cliques)}


def pairs(group: ComparableGroup, budget: str) -> list[dict[str, Any]]:
    """Every two backbones, over the datasets and seeds that both have."""
    cells = {(d, b): cell.scores() for (d, b, of), cell in group.cells.items() if of == budget}
    return [_pair(group, cells, a, b) for a, b in combinations(group.backbones, 2)]


def _pair(
    group: ComparableGroup, cells: Mapping[tuple[str, str], Mapping[int, float]], a: str, b: str
) -> dict[str, Any]:
    differences = []
    both = [dataset for dataset in group.datasets if (dataset, a) in cells and (dataset, b) in cells]
    for several in group.independent(both):
        scores = [cells[dataset, name] for dataset in several for name in (a, b)]
        if shared := sorted(set.intersection(*(set(each) for each in scores))):
            by_seed = [
                float(np.mean([cells[dataset, a][seed] - cells[dataset, b][seed] for dataset in several]))
                for seed in shared
            ]
            differences.append(by_seed)
    seeds = min((len(values) for values in differences), default=0)
    enough = seeds >= FEWEST_SEEDS and len(differences) >= FEWEST_DATASETS
    pair: dict[str, Any] = {"a": a, "b": b, "difference": None, "low": None, "high": None, "better": None}
    if differences:
        pair["difference"] = round(float(np.mean([np.mean(values) for values in differences])), DIGITS)
    if enough:
        sampled = statistics.paired_bootstrap(differences)
        pair |= {
            "low": round(sampled.low, DIGITS),
            "high": round(sampled.high, DIGITS),
            "better": round(sampled.better, 4),
        }
    why = "" if enough else answers.of_pair(len(differences), seeds)
    return pair | {"datasets": len(differences), "seeds": seeds, "enough": enough, "why": why}
