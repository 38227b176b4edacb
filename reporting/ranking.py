"""Which backbone is best, of those and on those datasets that can be ranked, and every two of them compared."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import combinations
from typing import Any

import numpy as np

from engine.errors import counted
from reporting import answers, outcomes, statistics
from reporting.cd_diagram import diagram
from reporting.comparable import ComparableGroup
from reporting.complete import CompleteBlock, complete_block
from reporting.entry import Budget
from reporting.statistics import FEWEST_SEEDS, FEWEST_SIGNS, LEVEL
from reporting.words import data_words, metric_text, points


def ranking(group: ComparableGroup, budget: Budget, scope: str) -> dict[str, Any]:
    """What can be said of a group's backbones on all datasets ("overall") or on those of a domain.

    `kind` says how: "tested" (rank tests over datasets), "means" (fewer datasets, but ties on each of them),
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
        tested = {d: outcomes.marks({b: block.cells[d, b] for b in ordered}) for d in block.datasets}
        said = {**answers.answer_from_means(block, scope, ordered, tested)}
    else:
        said = {**answers.answer_without_evidence(block, scope, budget, ordered)}
    ranks = {
        "kind": kind,
        "enough": kind == "tested",
        "backbones": ordered,
        "asked": block.asked,
        "datasets": block.datasets,
        "independent": len(block.independent),
        "left_out": block.left_out,
        "ranks": {name: f"{average[name]:.2f}" for name in ordered} if average else {},
        "mean": {name: metric_text("top1", means[name]) for name in ordered} if means else {},
        "caption": f"Average ranks by top-1 over {counted(len(block.independent), 'dataset')} "
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
    return "tested" if len(block.independent) >= block.fewest else "means"


def _tested(block: CompleteBlock, average: Mapping[str, float]) -> dict[str, Any]:
    """What tests over datasets say, with the cliques and their diagram where there are more than two backbones."""
    scores = block.scores
    backbones, datasets = len(block.backbones), len(block.independent)
    if backbones == 2:  # a rank test of two is the sign test, which has next to no power
        differing = int(np.count_nonzero(np.round(scores[:, 0] - scores[:, 1], 12)))
        p = statistics.signed_rank(scores[:, 0], scores[:, 1])
        return {**answers.answer_from_signed_ranks(block, average, p, differing)}
    tests = statistics.friedman(scores)
    difference = statistics.critical_difference(backbones, datasets)
    # a post-hoc test means something only where the ranks differ at all
    cliques = statistics.cliques(average, difference if tests.p_f < statistics.LEVEL else float("inf"))
    said = answers.answer_from_rank_tests(block, average, tests, difference, cliques)
    return {**said, "cliques": cliques, "svg": diagram(average, difference, cliques)}


def pairs(group: ComparableGroup, budget: Budget) -> list[dict[str, Any]]:
    """Compare every two backbones over the datasets and seeds that both have, in percentage points of top-1."""
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
    enough = seeds >= FEWEST_SEEDS and len(differences) >= FEWEST_SIGNS
    pair: dict[str, Any] = {"a": a, "b": b, "difference": None, "low": None, "high": None, "better": None}
    if differences:
        pair["difference"] = points(float(np.mean([np.mean(values) for values in differences])))
    if enough:
        sampled = statistics.paired_bootstrap(differences)
        pair |= {"low": points(sampled.low), "high": points(sampled.high), "better": round(sampled.better, 4)}
        p = statistics.signed_rank(np.array([np.mean(values) for values in differences]), np.zeros(len(differences)))
        excludes = sampled.low > 0 or sampled.high < 0
        # of few datasets that all differ the same way, the bootstrap excludes 0 whatever the chance of that
        pair |= {"differs": excludes and p < LEVEL, "said": answers.pair_says(excludes, p)}
    why = "" if enough else answers.missing_of_pair(len(differences), seeds)
    return pair | {"datasets": len(differences), "enough": enough, "why": why}
