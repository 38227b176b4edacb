"""Those backbones and datasets of which every pair was run, so that means over them can be compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from reporting.comparable import ComparableGroup, Repeats
from reporting.entry import Budget
from reporting.statistics import FEWEST_DATASETS, FEWEST_SIGNS, Numbers
from reporting.words import listed


@dataclass(frozen=True, eq=False)
class CompleteBlock:
    """Every backbone with a cell on every dataset, and what had to be left out for it."""

    backbones: list[str]
    datasets: list[str]
    independent: list[list[str]]  # the datasets, those that show the same subjects together: tests take them for one
    cells: Mapping[tuple[str, str], Repeats]  # by dataset, backbone; those that are used
    left_out: list[dict[str, str]]  # what, why
    asked: list[str]  # the datasets that any backbone was run on
    seldom: list[str]  # the backbones left out that were run on some of these datasets

    @cached_property
    def scores(self) -> Numbers:
        """Mean top-1 over seeds, and over datasets that are not independent, (independent datasets, backbones)."""
        rows = [
            [np.mean([self.cells[dataset, name].mean() for dataset in several]) for name in self.backbones]
            for several in self.independent
        ]
        return np.array(rows, dtype=np.float64).reshape(len(self.independent), len(self.backbones))

    @cached_property
    def means(self) -> dict[str, float]:
        """Backbone -> mean of `scores` over datasets; empty without datasets."""
        if not self.datasets:
            return {}
        return dict(zip(self.backbones, self.scores.mean(axis=0).tolist(), strict=True))

    def name(self, dataset: str) -> str:
        """What sentences call a dataset of `datasets`."""
        return self.cells[dataset, self.backbones[0]].dataset_name

    @property
    def fewest(self) -> int:
        """How many independent datasets a rank test of these backbones takes: of two, it is one of signed ranks."""
        return FEWEST_SIGNS if len(self.backbones) == 2 else FEWEST_DATASETS

    @cached_property
    def short(self) -> dict[tuple[str, str], int]:
        """The cells that have too few seeds, and folds -> how many seeds they have."""
        return {key: len(cell.runs) for key, cell in self.cells.items() if not cell.enough}


def complete_block(group: ComparableGroup, budget: Budget, datasets: Sequence[str]) -> CompleteBlock:
    """Leave out backbones that lack more than half of the datasets, then datasets that one of the others lacks."""
    cells = {(d, b): cell for (d, b, of), cell in group.cells.items() if of == budget and d in datasets}
    asked = [dataset for dataset in datasets if any(d == dataset for d, _ in cells)]
    left_out, kept, seldom = [], [], []
    for name in group.backbones if asked else []:
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
            name = next(cell.dataset_name for (d, _), cell in cells.items() if d == dataset)
            left_out.append({"what": f"dataset {name}", "why": f"no run of {listed(lacking)}"})
        else:
            used.append(dataset)
    inside = {(d, b): cells[d, b] for d in used for b in kept}
    return CompleteBlock(kept, used, group.independent(used), inside, left_out, asked, seldom)
