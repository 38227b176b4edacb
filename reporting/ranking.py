"""Which backbone is best, of those and on those datasets that can be ranked, and every two of them compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import combinations
from typing import Any

import numpy as np

from reporting import answers, statistics
from reporting.diagram import diagram
from reporting.leagues import Cell, League
from reporting.published import BREAKHIS
from reporting.statistics import DIGITS, FEWEST_DATASETS, FEWEST_SEEDS


@dataclass(frozen=True, eq=False)
class Block:
    """Every backbone with a cell on every dataset, and what had to be left out for it."""

    backbones: list[str]
    datasets: list[str]
    cells: Mapping[tuple[str, str], Cell]  # by dataset, backbone; those that are used
    left_out: list[dict[str, str]]  # what, why
    asked: int  # datasets of the scope with any cell
    seldom: list[str]  # the backbones left out that were run on some of these datasets

    @cached_property
    def independent(self) -> list[list[str]]:
        """The datasets, those that show the same patients together: tests take them for one."""
        return independent(self.datasets)

    @cached_property
    def scores(self) -> statistics.Numbers:
        """Mean top-1 over seeds, and over datasets that are not independent, (independent datasets, backbones)."""
        rows = [
            [np.mean([self.cells[dataset, name].mean() for dataset in several]) for name in self.backbones]
            for several in self.independent
        ]
        return np.array(rows, dtype=np.float64).reshape(len(self.independent), len(self.backbones))

    @cached_property
    def short(self) -> dict[tuple[str, str], int]:
        """The cells that have too few seeds -> how many they have."""
        return {key: len(cell.runs) for key, cell in self.cells.items() if len(cell.runs) < FEWEST_SEEDS}


def independent(datasets: Sequence[str]) -> list[list[str]]:
    """The datasets in their order, with all magnifications of BreakHis together."""
    found: dict[str, list[str]] = {}
    for dataset in datasets:
        found.setdefault(BREAKHIS if dataset.startswith(BREAKHIS) else dataset, []).append(dataset)
    return list(found.values())


def complete_block(league: League, budget: str, datasets: Sequence[str]) -> Block:
    """Leave out backbones that lack more than half of the datasets, then datasets that one of the others lacks."""
    cells = {(d, b): cell for (d, b, of), cell in league.cells.items() if of == budget and d in datasets}
    asked = [dataset for dataset in datasets if any(d == dataset for d, _ in cells)]
    left_out, kept, seldom = [], [], []
    for name in league.backbones if asked else []:
        lacking = [dataset for dataset in asked if (dataset, name) not in cells]
        if 2 * len(lacking) > len(asked):
            of_all = f"all {len(asked)} datasets" if len(asked) > 1 else "the dataset"
            why = f"no run on {of_all if len(lacking) == len(asked) else f'{len(lacking)} of {len(asked)} datasets'}"
            left_out.append({"what": f"backbone {name}", "why": why})
            seldom += [name] if len(lacking) < len(asked) else []
        else:
            kept.append(name)
    used = []
    for dataset in asked if kept else []:
        lacking = [name for name in kept if (dataset, name) not in cells]
        if lacking:
            left_out.append({"what": f"dataset {dataset}", "why": f"no run of {answers.listed(lacking)}"})
        else:
            used.append(dataset)
    return Block(kept, used, {(d, b): cells[d, b] for d in used for b in kept}, left_out, len(asked), seldom)


def ranking(league: League, budget: str, scope: str) -> dict[str, Any]:
    """What can be said of a league's backbones on all datasets ("overall") or on those of a domain.

    `kind` says how: "tested" (rank tests over datasets), "means" (fewer datasets, but ties by seeds on each of them),
    "none" (not enough evidence). `enough` is true for "tested" alone.
    """
    datasets = [key for key, domain in league.domains.items() if scope in ("overall", domain)]
    block = complete_block(league, budget, datasets)
    kind = kind_of(block)
    scores = block.scores
    several = len(block.backbones) > 1 and len(block.datasets) > 0
    means = dict(zip(block.backbones, scores.mean(axis=0).tolist(), strict=True)) if block.datasets else {}
    average = dict(zip(block.backbones, statistics.ranks(scores).mean(axis=0).tolist(), strict=True)) if several else {}
    by = average if kind == "tested" else {name: -mean for name, mean in means.items()}
    ordered = sorted(block.backbones, key=lambda name: (by.get(name, 0), -means.get(name, 0)))
    found: dict[str, Any] = {
        "kind": kind,
        "enough": kind == "tested",
        "backbones": ordered,
        "datasets": block.datasets,
        "independent": len(block.independent),
        "left_out": block.left_out,
        "ranks": {name: round(average[name], 5) for name in ordered} if average else {},
        "mean": {name: round(means[name], DIGITS) for name in ordered} if means else {},
        "friedman": None,
        "cd": None,
        "groups": [],
        "svg": None,
    }
    if kind == "tested":
        answer, evidence = _tested(block, average, found)
    elif kind == "means":
        marks = {d: statistics.marks({b: block.cells[d, b].scores() for b in ordered}) for d in block.datasets}
        answer, evidence = answers.of_means(block, scope, means, ordered, marks)
    else:
        answer, evidence = answers.none(block, scope, budget, means, ordered)
    return {"answer": answer, "evidence": evidence, "missing": answers.missing(block, scope, kind, found)} | found


def kind_of(block: Block) -> str:
    """How much may be said; see `ranking`."""
    if len(block.backbones) < 2 or not block.datasets or block.short:
        return "none"
    return "tested" if len(block.independent) >= FEWEST_DATASETS else "means"


def _tested(block: Block, average: Mapping[str, float], found: dict[str, Any]) -> tuple[str, list[str]]:
    """Test, put the results into `found`, and say them."""
    scores = block.scores
    backbones, datasets = len(block.backbones), len(block.independent)
    if backbones == 2:  # a rank test of two is the sign test, which has next to no power
        p = statistics.signed_rank(scores[:, 0], scores[:, 1])
        return answers.of_two(block, average, p)
    tests = statistics.friedman(scores)
    different = tests.p_f < statistics.LEVEL
    difference = statistics.critical_difference(backbones, datasets)
    # a post-hoc test means something only where the ranks differ at all
    groups = statistics.groups(average, difference if different else float("inf"))
    found["friedman"] = {
        "chi2": round(tests.chi2, 2),
        "p": _digits(tests.p),
        "f": None if tests.f is None else round(tests.f, 2),
        "p_f": _digits(tests.p_f),
    }
    found["cd"], found["groups"] = round(difference, 5), groups
    found["svg"] = diagram(average, difference, groups)
    return answers.of_tests(block, average, tests, difference, different)


def pairs(league: League, budget: str) -> list[dict[str, Any]]:
    """Every two backbones, over the datasets and seeds that both have."""
    cells = {(d, b): cell.scores() for (d, b, of), cell in league.cells.items() if of == budget}
    return [_pair(cells, a, b, league.datasets) for a, b in combinations(league.backbones, 2)]


def _pair(
    cells: Mapping[tuple[str, str], Mapping[int, float]], a: str, b: str, datasets: Sequence[str]
) -> dict[str, Any]:
    differences = []
    for several in independent([dataset for dataset in datasets if (dataset, a) in cells and (dataset, b) in cells]):
        scores = [cells[dataset, name] for dataset in several for name in (a, b)]
        if shared := sorted(set.intersection(*(set(each) for each in scores))):
            by_seed = [
                float(np.mean([cells[dataset, a][seed] - cells[dataset, b][seed] for dataset in several]))
                for seed in shared
            ]
            differences.append(by_seed)
    seeds = min((len(values) for values in differences), default=0)
    found: dict[str, Any] = {"a": a, "b": b, "difference": None, "low": None, "high": None, "better": None}
    enough = seeds >= FEWEST_SEEDS and len(differences) >= FEWEST_DATASETS
    if differences:
        found["difference"] = round(float(np.mean([np.mean(values) for values in differences])), DIGITS)
    if enough:
        sampled = statistics.paired_bootstrap(differences)
        found |= {
            "low": round(sampled.low, DIGITS),
            "high": round(sampled.high, DIGITS),
            "better": round(sampled.better, 4),
        }
    why = "" if enough else answers.of_pair(len(differences), seeds)
    return found | {"datasets": len(differences), "seeds": seeds, "enough": enough, "why": why}


def _digits(p: float) -> float:
    return float(f"{p:.3g}")
