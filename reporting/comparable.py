"""What may be compared: records in groups, a group's records in cells, and what is listed apart, with the reason."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from common import BACKBONES
from datasets import DATASETS, PUBLISHED
from engine.config import in_words
from engine.models.timm_models import saw_more_than_imagenet
from engine.training.metrics import MEANS_OF_FOLDS, METRICS
from engine.training.recipe import RECIPES
from reporting.entry import ALL_IMAGES, Budget, Entry, Setting, Version, one_budget_each
from reporting.folds import pool
from reporting.same_data import told_apart, without_common_code
from reporting.statistics import FEWEST_SEEDS
from reporting.words import capital

Apart = list[dict[str, str]]  # run, reason
MOST_NOTES = 20  # of a group's datasets
LONGEST_REASON = 300  # characters
DOMAINS = tuple(dict.fromkeys(dataset.domain for dataset in PUBLISHED))


@dataclass(frozen=True, eq=False)
class Repeats:
    """The runs of one backbone on one dataset with one budget, a run a seed, in the order of the seeds."""

    dataset: str
    backbone: str
    budget: Budget
    runs: tuple[Entry, ...]

    @property
    def trainings(self) -> list[Entry]:
        """The runs of all seeds, and of all folds of each."""
        return [training for entry in self.runs for training in entry.trainings]

    @property
    def enough(self) -> bool:
        """Whether there are enough trainings for a claim: seeds, or folds."""
        return max(len(self.runs), len(self.runs[0].folds)) >= FEWEST_SEEDS

    def by_fold(self) -> list[float]:
        """The mean top-1 over seeds on each fold."""
        columns = zip(*(entry.folds for entry in self.runs), strict=True)
        return [
            float(np.mean([entry.results.values["top1"] for entry in column if entry.results])) for column in columns
        ]

    def scores(self, metric: str = "top1") -> dict[int, float]:
        """Return the metric of each seed whose record says it."""
        results = {entry.seed: entry.results.values.get(metric) for entry in self.runs if entry.results}
        return {seed: value for seed, value in results.items() if value is not None}

    @property
    def dataset_name(self) -> str:
        """What sentences call its dataset."""
        return self.runs[0].name

    def mean(self) -> float:
        """Return the mean top-1 over seeds."""
        return float(np.mean(list(self.scores().values())))


@dataclass(frozen=True, eq=False)
class ComparableGroup:
    """Records that may be ranked together."""

    setting: Setting
    cells: Mapping[tuple[str, str, Budget], Repeats]  # by dataset, backbone, budget

    @cached_property
    def entries(self) -> list[Entry]:
        """Return the entries of all cells."""
        return [entry for cell in self.cells.values() for entry in cell.runs]

    @cached_property
    def datasets(self) -> list[str]:
        """Return the datasets' keys, in the published order, others after them."""
        return in_order({cell.dataset for cell in self.cells.values()}, DATASETS)

    @cached_property
    def backbones(self) -> list[str]:
        """Return the backbones' names, in the published order, others after them."""
        return in_order({cell.backbone for cell in self.cells.values()}, BACKBONES)

    @property
    def scopes(self) -> list[str]:
        """Return what is answered for: all datasets, and those of each domain."""
        return ["overall", *self.domains]

    @cached_property
    def budgets(self) -> list[Budget]:
        """Return the budgets, that of all images first, then the larger before the smaller."""
        sizes = defaultdict(list)
        for entry in self.entries:
            sizes[entry.budget].append(entry.used_images / max(1, entry.available_images))
        return sorted(sizes, key=lambda budget: (budget != ALL_IMAGES, -float(np.mean(sizes[budget])), str(budget)))

    @cached_property
    def examples(self) -> dict[str, Entry]:
        """Return one record of each dataset, by its key, in the order of `datasets`."""
        records = {cell.dataset: cell.runs[0] for cell in self.cells.values()}
        return {key: records[key] for key in self.datasets}

    @cached_property
    def domains(self) -> list[str]:
        """Return the domains of the datasets, in the published order, others after them."""
        return in_order({entry.domain for entry in self.examples.values()}, DOMAINS)

    def in_scope(self, scope: str) -> list[str]:
        """The keys of all datasets ("overall") or of those of a domain."""
        return [key for key, entry in self.examples.items() if scope in ("overall", entry.domain)]

    def independent(self, datasets: Iterable[str]) -> list[list[str]]:
        """The datasets in their order, those that show the same subjects together."""
        together: dict[tuple[str, bool], list[str]] = {}
        for key in datasets:
            subjects = self.examples[key].subjects
            together.setdefault((subjects or key, bool(subjects)), []).append(key)
        return list(together.values())


def in_order(names: Iterable[str], order: Iterable[str]) -> list[str]:
    """The names as `order` has them, NAME@WEIGHTS behind NAME; those that it lacks follow, by name."""
    place = {name: index for index, name in enumerate(order)}

    def where(name: str) -> int:
        return place.get(name, place.get(name.partition("@")[0], len(place)))

    return sorted(names, key=lambda name: (where(name), name))


def divide(entries: Iterable[Entry]) -> tuple[list[ComparableGroup], Apart]:
    """The groups and the records that are in none or may not be ranked.

    Pretrained weights come before random ones, and before those of earlier runs; of these, the short runs of a search
    come last, the honest protocol before the other, and the group with most cells first.
    """
    apart: Apart = []
    by_setting: dict[Setting, list[Entry]] = defaultdict(list)
    rankable = []
    for entry in entries:
        if reason := not_to_be_ranked(entry):
            apart.append({"run": entry.run, "reason": reason})
        else:
            rankable.append(entry)
    for entry in without_common_code(told_apart(pool(rankable, apart))):
        by_setting[entry.setting].append(entry)
    groups = []
    for setting, members in by_setting.items():
        members = _newest(one_budget_each(_one_builder(_one_version(members, apart), apart)), apart)
        cells: dict[tuple[str, str, Budget], list[Entry]] = defaultdict(list)
        for entry in members:
            cells[entry.version.key, entry.backbone, entry.budget].append(entry)
        repeats = {key: Repeats(*key, tuple(sorted(runs, key=lambda run: run.seed))) for key, runs in cells.items()}
        groups.append(ComparableGroup(setting, repeats))
    groups.sort(key=_place)
    return groups, sorted(apart, key=lambda line: line["run"])


def _place(group: ComparableGroup) -> tuple[Any, ...]:
    """By which groups are sorted; see divide()."""
    setting = group.setting
    of_run = setting.weights.startswith("checkpoint")
    random = setting.weights == "none" or (of_run and setting.weights.endswith("from random weights)"))
    weights = 3 if random else 0 if setting.weights == "imagenet" else 2 if of_run else 1
    search = bool(setting.search)
    return weights, search, setting.protocol != "honest", -len(group.cells), title(setting), repr(setting)


def not_to_be_ranked(entry: Entry) -> str | None:
    """Why this record may be ranked with no other, or None."""
    if entry.status == "failed":
        return f"failed: {(entry.error or 'no reason given').splitlines()[0][:LONGEST_REASON]}"
    if entry.status != "done" or entry.results is None:
        return "not finished"
    if entry.partial:
        return f"partial data: not {'the published images' if entry.published else 'all the images that belong there'}"
    if entry.seen:
        return entry.seen
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
                name = several[best][0].name
                reason = f"another version of {name} than the one compared: {_differences(version, best)}"
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
        _of(version.test_part, other.test_part, "other test images, or other labels", "which test images"),
        _of(version.script, other.script, "made by other code of the dataset's script", "which code of its script"),
    ]
    return ", ".join(filter(None, parts))


def _of(one: str, another: str, difference: str, what: str) -> str:
    """How two hashes differ, of which an older record lacks one."""
    if one == another:
        return ""
    return difference if one and another else f"{'that' if one else 'this'} record is older and does not say {what}"


def _class_differences(version: Version, other: Version) -> str:
    if len(version.classes) != len(other.classes):
        return f"{len(version.classes)} classes instead of {len(other.classes)}"
    return "other class names"


def _one_builder(entries: Sequence[Entry], apart: Apart) -> list[Entry]:
    """Of the records of each backbone, those of the code that builds it in the newest of them."""
    newest: dict[str, Entry] = {}
    for entry in sorted(entries, key=lambda entry: (entry.time, entry.run)):
        newest[entry.backbone] = entry
    kept = [entry for entry in entries if entry.builder_code == newest[entry.backbone].builder_code]
    for entry in set(entries).difference(kept):
        reason = f"made by other code of {entry.backbone} than {newest[entry.backbone].run}"
        apart.append({"run": entry.run, "reason": reason})
    return kept


def _newest(entries: Sequence[Entry], apart: Apart) -> list[Entry]:
    """Of the records of one cell and seed, the newest."""
    places: dict[tuple[str, str, Budget, int], list[Entry]] = defaultdict(list)
    for entry in entries:
        places[entry.version.key, entry.backbone, entry.budget, entry.seed].append(entry)
    kept = []
    for several in places.values():
        *older, newest = sorted(several, key=lambda entry: (entry.time, entry.run))
        kept.append(newest)
        reason = f"older than {newest.run}, which is the same cell and seed"
        apart += [{"run": entry.run, "reason": reason} for entry in older]
    return kept


def identity(setting: Setting) -> str:
    """A name for a group that does not depend on the others."""
    told = f"{setting!r}{setting.search}"
    return f"{setting.protocol}-{setting.recipe}-{hashlib.sha256(told.encode()).hexdigest()[:8]}"


def title(setting: Setting) -> str:
    """What a group is, with the settings that are not the usual ones."""
    weights = {"imagenet": "ImageNet weights", "none": "random weights"}.get(
        setting.weights, f"weights {setting.weights}"
    )
    search = [f"short runs of a search, {setting.search}"] if setting.search else []
    return ", ".join([*search, f"{setting.protocol} protocol", f"recipe {setting.recipe}", weights, *_flags(setting)])


def settings(setting: Setting) -> list[str]:
    """What the recipe does, and which settings are not the usual ones."""
    known = RECIPES.get(setting.recipe)
    return [*([known.help] if known else []), *_flags(setting)]


def _flags(setting: Setting) -> list[str]:
    code = [f"code {setting.code}"] if setting.code else []
    return [*(in_words(name, value) for name, value in setting.flags), *code]


def warnings(setting: Setting) -> list[str]:
    """What must be said beside a group's answer."""
    lines = []
    if setting.search:
        lines.append(
            f"short runs by which rank.py chose ({setting.search}): they say which to train in full, not how good it "
            "then is"
        )
    if setting.protocol == "paper":
        lines.append(
            "paper protocol: test chose the epoch, so these numbers are optimistic, for comparison with published ones "
            "alone"
        )
    if setting.weights == "none":
        lines.append("random weights: these numbers say nothing of fine-tuning pretrained backbones")
    if setting.weights.startswith("checkpoint"):
        lines.append("weights of earlier runs: what those were trained on is part of the result")
    return lines


def notes(group: ComparableGroup) -> list[str]:
    """What whoever reads a group's numbers must know: the warnings, and what records say of their datasets."""
    of_records = {f"{entry.name}: {note}": None for entry in group.entries for note in entry.notes}
    more = len(of_records) - MOST_NOTES
    rest = [f"and {more:,} more notes, in the records"] if more > 0 else []
    return [
        *map(capital, (*warnings(group.setting), *_other_images(group), *_folds(group), *_precisions(group))),
        *list(of_records)[:MOST_NOTES],
        *rest,
    ]


def _other_images(group: ComparableGroup) -> list[str]:
    """A note on weights that may have been trained on more than the others."""
    more = {
        entry.provenance.weights: None for entry in group.entries if saw_more_than_imagenet(entry.provenance.weights)
    }
    if not more:
        return []
    return [f"weights whose name does not say that they were trained on ImageNet-1k alone: {', '.join(sorted(more))}"]


def _folds(group: ComparableGroup) -> list[str]:
    """A note on what the numbers of a cross-validation are."""
    if not any(entry.folds for entry in group.entries):
        return []
    means = " and ".join(METRICS[name].label for name in MEANS_OF_FOLDS)
    return [
        "each image was tested once, by the training that it had no part in. Metrics are of all images together, but "
        f"{means} are means over folds; costs are of one training, the mean over folds. With fewer than "
        f"{FEWEST_SEEDS} seeds, but {FEWEST_SEEDS} folds or more, a difference is claimed where a t test over folds, "
        "corrected for the images that they share (Nadeau and Bengio 2003), and the exact one over images support it"
    ]


def _precisions(group: ComparableGroup) -> list[str]:
    """A note on cells whose seeds were trained in different precisions."""
    mixed = [
        f"{cell.runs[0].name} {cell.backbone} ({' and '.join(sorted(precisions))})"
        for cell in group.cells.values()
        if len(precisions := {entry.provenance.precision for entry in cell.trainings}) > 1
    ]
    if not mixed:
        return []
    more = f" and {len(mixed) - 3:,} more" if len(mixed) > 3 else ""
    what = f"seeds of one backbone on one dataset in different precisions: {', '.join(mixed[:3])}{more}"
    return [f"{what}: their spread is not of seeds alone"]
