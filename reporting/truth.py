"""What real fine-tuning says of backbones: the records that an order of theirs can be held against."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.errors import UserError, agreeing, counted
from reporting import statistics
from reporting.collect import collect
from reporting.comparable import Repeats, divide, not_to_be_ranked
from reporting.entry import ALL_IMAGES, Entry, Setting
from reporting.verify import verify

FEWEST_BACKBONES = 3  # of an agreement: two are in order or not
FEWEST_ELSEWHERE = 2  # datasets of a mean rank


@dataclass(frozen=True)
class Truth:
    """The runs of some backbones on one dataset that can be compared with each other."""

    cells: Mapping[str, Repeats]  # by backbone
    setting: Setting

    @property
    def seeds(self) -> tuple[int, int]:
        """The fewest and the most of a backbone."""
        seeds = [len(cell.runs) for cell in self.cells.values()]
        return min(seeds), max(seeds)

    @property
    def size(self) -> tuple[int, ...]:
        """Height and width of the images that were trained on."""
        return next(iter(self.cells.values())).runs[0].version.size

    @property
    def images(self) -> int:
        """Of the test part."""
        return next(iter(self.cells.values())).runs[0].version.test_images

    @property
    def means(self) -> dict[str, float]:
        """Backbone -> mean test top-1 over seeds."""
        return {name: cell.mean() for name, cell in self.cells.items()}


def usable(entries: Iterable[Entry], weights: Mapping[str, str | None]) -> list[Entry]:
    """Of the entries those that can be the truth of these backbones, whose weights have these sha256 by name.

    They are whole runs of fine-tuning, not of the head alone, under the honest protocol, from just these weights, on
    all training images, and no folds.
    """
    return [
        entry
        for entry in entries
        if not not_to_be_ranked(entry)
        and entry.setting.protocol == "honest"
        and entry.budget == ALL_IMAGES
        and entry.fold is None
        and not entry.folds
        and dict(entry.setting.flags).get("tune") != "linear"
        and not entry.setting.weights.startswith("checkpoint")
        and entry.provenance.weights_sha256 is not None
        and entry.provenance.weights_sha256 == weights.get(entry.backbone)
    ]


def find_truth(
    entries: Iterable[Entry], key: str, test_part: str, weights: Mapping[str, str | None]
) -> tuple[Truth | None, str]:
    """The records of a dataset to hold an order of these backbones against, or None and why there are none.

    `entries` are those that their runs' files bear out (see reporting/verify.py); `weights` has the sha256 of each
    ranked backbone's. Of several comparable groups it is the one with most of these backbones, then with most seeds;
    the short runs of a search are taken only where there is nothing else.
    """
    of_data = [entry for entry in entries if entry.version.key == key]
    if not of_data:
        return None, "no record of a run on these images is here"
    same = [entry for entry in of_data if entry.version.test_part == test_part]
    if not same:
        return None, f"the {counted(len(of_data), 'record')} of this dataset here had other test images"
    fitting = usable(same, weights)
    if not fitting:
        return None, "no finished fine-tuning of these weights, under the honest protocol and on all images, is here"
    groups, _ = divide(fitting)
    truths = []
    for group in groups:
        cells = {name: cell for (_, name, _), cell in group.cells.items()}
        truths.append(Truth({name: cells[name] for name in weights if name in cells}, group.setting))
    best = max(truths, key=lambda truth: _worth(truth))
    if len(best.cells) < FEWEST_BACKBONES:
        found = len(best.cells)
        few = f"only {found} of the {len(weights)} backbones {agreeing(found, 'have')} runs that can be compared"
        return None, f"{few}, and it takes {FEWEST_BACKBONES} to speak of an order"
    return best, ""


def _worth(truth: Truth) -> tuple[bool, bool, int, int]:
    """By which the best group is chosen."""
    enough = len(truth.cells) >= FEWEST_BACKBONES
    return enough, not truth.setting.search, len(truth.cells), sum(len(cell.runs) for cell in truth.cells.values())


def verified_in(runs: Path) -> list[Entry]:
    """The entries below a folder of runs that their files bear out, if any; the folder need not be there."""
    try:
        entries = collect(runs).entries
    except UserError:
        return []
    return verify(entries).entries


def mean_ranks(
    entries: Sequence[Entry], without: str, weights: Mapping[str, str | None]
) -> tuple[dict[str, float], int] | None:
    """The mean rank of each of these backbones over the user's own records of other datasets, and how many those are.

    1 is the best; equal ones share the mean of their ranks. Only datasets on which all of them have runs that can be
    compared with each other count, datasets that show the same subjects as one, and none with those of the dataset
    `without` (its key). `entries` and `weights` as in find_truth(). None where fewer than FEWEST_ELSEWHERE are left.
    """
    shown = {entry.subjects for entry in entries if entry.version.key == without} - {""}
    others = [entry for entry in entries if entry.version.key != without and entry.subjects not in shown]
    groups, _ = divide(entry for entry in usable(others, weights) if not entry.setting.search)
    chosen: dict[str, tuple[int, list[float], str]] = {}  # dataset -> runs, accuracies, what independent ones differ in
    for group in groups:
        for key, example in group.examples.items():
            cells = [group.cells.get((key, name, ALL_IMAGES)) for name in weights]
            known = [cell for cell in cells if cell]
            runs_of = sum(len(cell.runs) for cell in known)
            if len(known) == len(cells) and runs_of > chosen.get(key, (0,))[0]:
                chosen[key] = runs_of, [cell.mean() for cell in known], example.subjects or key
    if len({kind for _, _, kind in chosen.values()}) < FEWEST_ELSEWHERE or not weights:
        return None
    ranks = statistics.ranks(np.array([accuracies for _, accuracies, _ in chosen.values()]))
    together: dict[str, list[int]] = {}
    for row, (_, _, kind) in enumerate(chosen.values()):
        together.setdefault(kind, []).append(row)
    means = np.array([ranks[rows].mean(axis=0) for rows in together.values()]).mean(axis=0)
    return dict(zip(weights, means.tolist(), strict=True)), len(together)
