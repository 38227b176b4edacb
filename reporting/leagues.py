"""What may be compared: records in leagues, a league's records in cells, and what is listed apart, with the reason."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from reporting.entry import Entry, Terms, Version
from reporting.published import BACKBONES, DATASETS, in_order

Apart = list[dict[str, str]]  # run, reason
MOST_NOTES = 20  # of a league's datasets
LONGEST_REASON = 300  # characters

WORDS = {
    "lr": "rate {:g}",
    "patience": "patience {}",
    "batch_size": "batches of {}",
}
USUAL = {
    "epochs": None,
    "lr": None,
    "batch_size": 64,
    "tune": "full",
    "ema": False,
    "layer_decay": None,
    "lr_sweep": False,
}


@dataclass(frozen=True, eq=False)
class Cell:
    """The runs of one backbone on one dataset with one budget, a run a seed, in the order of the seeds."""

    dataset: str
    backbone: str
    budget: str
    runs: tuple[Entry, ...]

    def scores(self, metric: str = "top1") -> dict[int, float]:
        """Seed -> value, where there is one."""
        found = {entry.seed: entry.outcome.values[metric] for entry in self.runs if entry.outcome}
        return {seed: value for seed, value in found.items() if value is not None}

    def mean(self, metric: str = "top1") -> float:
        """Over seeds."""
        return float(np.mean(list(self.scores(metric).values())))


@dataclass(frozen=True, eq=False)
class League:
    """Records that may be ranked together."""

    terms: Terms
    cells: Mapping[tuple[str, str, str], Cell]  # by dataset, backbone, budget

    @cached_property
    def entries(self) -> list[Entry]:
        """Those of all cells."""
        return [entry for cell in self.cells.values() for entry in cell.runs]

    @cached_property
    def datasets(self) -> list[str]:
        """Their keys, in the published order, others after them."""
        return in_order({cell.dataset for cell in self.cells.values()}, DATASETS)

    @cached_property
    def backbones(self) -> list[str]:
        """Their names, in the published order, others after them."""
        return in_order({cell.backbone for cell in self.cells.values()}, BACKBONES)

    @cached_property
    def budgets(self) -> list[str]:
        """All data first, then the larger before the smaller."""
        sizes = defaultdict(list)
        for entry in self.entries:
            sizes[entry.budget].append(entry.used_images / max(1, entry.train_images))
        return sorted(sizes, key=lambda budget: (budget != "all", -float(np.mean(sizes[budget])), budget))

    @cached_property
    def domains(self) -> dict[str, str]:
        """Dataset's key -> its domain."""
        found = {cell.dataset: cell.runs[0].domain for cell in self.cells.values()}
        return {key: found[key] for key in self.datasets}


def divide(entries: Iterable[Entry]) -> tuple[list[League], Apart]:
    """The leagues, that with most cells first, and the records that are in none or may not be ranked."""
    apart: Apart = []
    by_terms: dict[Terms, list[Entry]] = defaultdict(list)
    for entry in entries:
        if reason := not_to_be_ranked(entry):
            apart.append({"run": entry.run, "reason": reason})
        else:
            by_terms[entry.terms].append(entry)
    leagues = []
    for terms, members in by_terms.items():
        members = _newest(_one_version(members, apart), apart)
        cells: dict[tuple[str, str, str], list[Entry]] = defaultdict(list)
        for entry in members:
            cells[entry.version.key, entry.backbone, entry.budget].append(entry)
        made = {key: Cell(*key, tuple(sorted(runs, key=lambda run: run.seed))) for key, runs in cells.items()}
        leagues.append(League(terms, made))
    leagues.sort(
        key=lambda league: (-len(league.cells), league.terms.protocol, title(league.terms), repr(league.terms))
    )
    return leagues, sorted(apart, key=lambda line: line["run"])


def not_to_be_ranked(entry: Entry) -> str | None:
    """Why this record may be ranked with no other, or None."""
    if entry.status == "failed":
        return f"failed: {(entry.error or 'no reason given').splitlines()[0][:LONGEST_REASON]}"
    if entry.status != "done" or entry.outcome is None:
        return "not finished"
    if entry.partial:
        return "partial data: not the published images"
    if entry.seen:
        return "its weights were trained on this dataset before, and may have seen the test images"
    return None


def _one_version(entries: Sequence[Entry], apart: Apart) -> list[Entry]:
    """The records of the version of each dataset that has most of them, of several such the one with the newest."""
    versions: dict[str, dict[Version, list[Entry]]] = defaultdict(lambda: defaultdict(list))
    for entry in entries:
        versions[entry.version.key][entry.version].append(entry)
    kept = []
    for several in versions.values():
        best = max(several, key=lambda version: (len(several[version]), max(e.time for e in several[version])))
        for version, members in several.items():
            if version == best:
                kept += members
            else:
                reason = f"another version of {best.key} than the league's: {_differences(version, best)}"
                apart += [{"run": entry.run, "reason": reason} for entry in members]
    return kept


def _differences(version: Version, other: Version) -> str:
    def size(of: Version) -> str:
        return "x".join(map(str, of.size))

    parts = [
        f"version {version.version} instead of {other.version}" if version.version != other.version else "",
        _class_differences(version, other) if version.classes != other.classes else "",
        f"{version.test_images:,} test images instead of {other.test_images:,}"
        if version.test_images != other.test_images
        else "",
        f"input {size(version)} instead of {size(other)}" if version.size != other.size else "",
        f"augmentation {version.augment} instead of {other.augment}" if version.augment != other.augment else "",
    ]
    return ", ".join(filter(None, parts))


def _class_differences(version: Version, other: Version) -> str:
    if len(version.classes) != len(other.classes):
        return f"{len(version.classes)} classes instead of {len(other.classes)}"
    return "other class names"


def _newest(entries: Sequence[Entry], apart: Apart) -> list[Entry]:
    """Of the records of one cell and seed, the newest."""
    places: dict[tuple[str, str, str, int], list[Entry]] = defaultdict(list)
    for entry in entries:
        places[entry.version.key, entry.backbone, entry.budget, entry.seed].append(entry)
    kept = []
    for several in places.values():
        *older, newest = sorted(several, key=lambda entry: (entry.time, entry.run))
        kept.append(newest)
        reason = f"older than {newest.run}, which is the same cell and seed"
        apart += [{"run": entry.run, "reason": reason} for entry in older]
    return kept


def identity(terms: Terms) -> str:
    """A name for a league that does not depend on the others."""
    return f"{terms.protocol}-{terms.recipe}-{hashlib.sha256(repr(terms).encode()).hexdigest()[:8]}"


def title(terms: Terms) -> str:
    """What a league is, with the settings that are not the usual ones."""
    asked = dict(terms.settings)
    usual = {**USUAL, "patience": 10 if terms.recipe == "adamw-sgd" else None}
    unusual = {name: value for name, value in asked.items() if value != usual.get(name)}
    weights = {"imagenet": "ImageNet weights", "none": "random weights"}.get(terms.weights, f"weights {terms.weights}")
    return ", ".join(
        [f"{terms.protocol} protocol", f"recipe {terms.recipe}", weights, *_in_words(terms.recipe, unusual)]
    )


def settings(terms: Terms) -> list[str]:
    """All settings of a league's recipe, in words."""
    asked = dict(terms.settings)
    return _in_words(terms.recipe, {name: value for name, value in asked.items() if value is not None or name == "lr"})


def _in_words(recipe: str, asked: Mapping[str, object]) -> list[str]:
    told = []
    for name, value in asked.items():
        if name == "tune":
            told.append("all layers" if value == "full" else "the head only")
        elif name == "ema":
            told += ["moving average of the weights"] if value else []
        elif name == "layer_decay":
            told += [f"layer decay {value}"] if value else []
        elif name == "lr_sweep":
            told += ["rate chosen by a sweep"] if value else []
        elif name == "lr" and value is None:
            told.append("the recipe's own rate")
        elif name == "epochs" and value is not None:
            epochs = "1 epoch" if value == 1 else f"{value} epochs"
            told.append(epochs if recipe == "cosine" else f"at most {epochs} a stage")
        elif value is None:
            told.append(f"no {name}")
        else:
            told.append(WORDS[name].format(value))
    return told


def warnings(terms: Terms) -> list[str]:
    """What must be said beside a league's answer."""
    found = []
    if terms.protocol == "paper":
        found.append(
            "paper protocol: test chose the epoch, so these numbers are optimistic, for comparison with published ones "
            "alone"
        )
    if terms.weights == "none":
        found.append("random weights: these numbers say nothing of fine-tuning pretrained backbones")
    if terms.weights.startswith("checkpoint"):
        found.append("weights of earlier runs: what those were trained on is part of the result")
    return found


def notes(league: League) -> list[str]:
    """What whoever reads a league's numbers must know: the warnings, and what records say of their datasets."""
    found = warnings(league.terms)
    told = {f"{entry.name}: {note}": None for entry in league.entries for note in entry.notes}
    more = len(told) - MOST_NOTES
    return found + list(told)[:MOST_NOTES] + ([f"and {more:,} more notes, in the records"] if more > 0 else [])
