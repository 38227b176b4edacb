"""The runs of a cross-validation, one a fold -> one entry, in which each image of the dataset is tested once."""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from engine.training.metrics import of_confusion, pooled
from reporting import commands
from reporting.entry import ALL_IMAGES, Entry, Results, reported_costs, reported_metrics
from reporting.words import listed

OTHER_CODES = "+"  # between the hashes of several codes


def pool(entries: Iterable[Entry], apart: list[dict[str, str]]) -> list[Entry]:
    """The entries, those of all folds of one cross-validation as one.

    Of runs of the same fold the newest is taken. Adds to `apart` the older ones, and the runs of cross-validations of
    which a fold is missing, with the command that makes it.
    """
    entries = list(entries)
    whole = [entry for entry in entries if entry.fold is None]
    for runs in _divisions(entries, apart):
        if reason := _missing(runs):
            apart += [{"run": entry.run, "reason": reason} for entry in runs]
        else:
            whole.append(_pooled(runs))
    return whole


def begun(entries: Iterable[Entry]) -> list[Entry]:
    """A run of each cross-validation of which a fold is missing."""
    return [runs[0] for runs in _divisions(entries, []) if _missing(runs)]


def _divisions(entries: Iterable[Entry], apart: list[dict[str, str]]) -> list[list[Entry]]:
    """The runs of each cross-validation in the order of their folds, the newest of each; adds the older to `apart`."""
    sets: dict[Any, list[Entry]] = defaultdict(list)
    for entry in entries:
        if entry.fold is not None:
            sets[_one_division(entry)].append(entry)
    divisions = []
    for several in sets.values():
        newest: dict[int, Entry] = {}
        for entry in sorted(several, key=lambda entry: (entry.time, entry.run)):
            assert entry.fold is not None
            if older := newest.get(entry.fold.number):
                reason = f"older than {entry.run}, which is the same fold, cell and seed"
                apart.append({"run": older.run, "reason": reason})
            newest[entry.fold.number] = entry
        divisions.append([newest[number] for number in sorted(newest)])
    return divisions


def _one_division(entry: Entry) -> Any:
    """The same for the runs on all folds of one cross-validation: they differ in the fold, and may in the code."""
    assert entry.fold is not None
    version = replace(entry.version, test_images=0, test_part="", script="")
    setting = replace(entry.setting, code="")
    return version, setting, entry.backbone, entry.seed, entry.fold.budget, entry.fold.division


def _missing(runs: Sequence[Entry]) -> str:
    """Why these can't be pooled; "" if they can."""
    folds = [run.fold for run in runs if run.fold]
    of = folds[0].of
    numbers = sorted(set(range(1, of + 1)).difference(fold.number for fold in folds))
    if not numbers:
        return ""
    command = commands.grid(runs[0], [runs[0].backbone], [runs[0].seed])
    makes = f": {command} runs {'it' if len(numbers) == 1 else 'them'}" if command else ""
    names = [str(number) for number in numbers]
    which = f"fold {names[0]} of {of} is" if len(names) == 1 else f"folds {listed(names, len(names))} of {of} are"
    return f"{which} missing, so the folds can't be pooled{makes}"


def _pooled(runs: Sequence[Entry]) -> Entry:
    first, folds = runs[0], [run.fold for run in runs if run.fold]
    budgets = {run.budget for run in runs}
    taken = [run.taken for run in runs if run.taken is not None]
    parts = [run.version.test_part for run in runs]
    version = replace(
        first.version,
        test_images=sum(run.version.test_images for run in runs),
        test_part=hashlib.sha256(repr(parts).encode()).hexdigest() if all(parts) else "",
        script=_codes(run.version.script for run in runs),
    )
    return replace(
        first,
        run=f"{first.run} and its other folds",
        time=max(run.time for run in runs),
        notes=tuple(dict.fromkeys(note for run in runs for note in run.notes)),
        version=version,
        used_images=round(float(np.mean([run.used_images for run in runs]))),
        available_images=round(float(np.mean([run.available_images for run in runs]))),
        setting=replace(first.setting, code=_codes(run.setting.code for run in runs)),
        budget=ALL_IMAGES if budgets == {ALL_IMAGES} else folds[0].budget,
        results=_results([run.results for run in runs if run.results], len(version.classes)),
        builder_code=_codes(run.builder_code for run in runs),
        taken=tuple(map(sum, zip(*taken, strict=True))) if len(taken) == len(runs) else None,
        split="",
        selected=None,
        chosen=None,
        files={},
        fold=None,
        folds=tuple(runs),
        calibration=None,
    )


def _codes(several: Iterable[str]) -> str:
    """The hashes of all of them, as those of a run that other code resumed."""
    return OTHER_CODES.join(dict.fromkeys(code for codes in several for code in codes.split(OTHER_CODES) if code))


def _results(several: Sequence[Results], classes: int) -> Results:
    """Metrics of all images together, as far as pooled() gives these; costs are of one training, their mean."""
    places, where = np.unique(np.concatenate([results.places for results in several]), return_inverse=True)
    counts = np.bincount(where, np.concatenate([results.counts for results in several])).astype(np.int32)
    of_counts, recalls = of_confusion(places, counts, classes)
    images = [int(results.counts.sum()) for results in several]
    values = pooled([results.values for results in several], images)
    costs = {
        name: float(np.mean([results.costs[name] for results in several]))
        for name in reported_costs()
        if all(name in results.costs for results in several)
    }
    known = {name: value for name, value in (values | of_counts).items() if name in reported_metrics()}
    return Results(known, costs, recalls.astype(np.float32), places, counts)
