"""Cross-validation: all images of a dataset in K folds, each of which is the test part of one run."""

from __future__ import annotations

from collections import defaultdict
from dataclasses import replace

import numpy as np

from engine.data.part import Part, RawSplits
from engine.data.splits import Indices, divide_groups, in_order
from engine.errors import UserError, agreeing, counted, listed
from engine.files import json_digest

SEED = 42  # of the division, whatever the seed of a run: its folds are those of every backbone and seed


def fold_of(raw: RawSplits, folds: int, fold: int) -> RawSplits:
    """All images of `raw`, whatever their part: those of `fold`, from 1 on, to test, those of the others to train.

    The division depends on names, labels and groups alone, and every image is in one fold. Of each class the folds have
    equally many images but for one, or, where there are groups, which are never divided, as nearly as those allow.
    Raises UserError where a class would be in a single fold, and so never trained on and tested, or a fold is empty.
    """
    whole = _together(raw)
    numbers = _numbers(whole, folds)
    _check(raw.classes, whole, numbers, folds)
    return replace(
        raw,
        train=whole.take(np.flatnonzero(numbers != fold)),
        test=whole.take(np.flatnonzero(numbers == fold)),
        val=None,
        notes=(*raw.notes, *_notes(raw.classes, whole, numbers, folds)),
        fold_of=dict(zip(whole.names, numbers.tolist(), strict=True)),
    )


def _together(raw: RawSplits) -> Part:
    parts = [raw.train, raw.test, *([raw.val] if raw.val is not None else [])]
    return Part(
        [reference for part in parts for reference in part.entries(part.references)],
        np.concatenate([part.labels for part in parts]),
        [name for part in parts for name in part.names],
        None if raw.train.groups is None else [group for part in parts for group in part.groups or part.names],
    )


def _numbers(whole: Part, folds: int) -> Indices:
    """The fold of each image, from 1 on."""
    place = {name: index for index, name in enumerate(whole.names)}
    order = np.array([place[name] for name in in_order(whole.names)], dtype=np.int64)
    numbers = np.zeros(len(whole), dtype=np.int64)
    if whole.groups is not None:
        groups = [whole.groups[index] for index in order.tolist()]
        numbers[order] = divide_groups(whole.labels[order], groups, [1 / folds] * folds, SEED, folds=True)
        return numbers + 1
    random = np.random.RandomState(SEED)
    dealt = 0  # each class goes on where the one before it ended, so that the folds are of one size, too
    for label in np.unique(whole.labels):
        members = random.permutation(order[whole.labels[order] == label])
        numbers[members] = (dealt + np.arange(len(members))) % folds
        dealt += len(members)
    return numbers + 1


def _check(classes: tuple[str, ...], whole: Part, numbers: Indices, folds: int) -> None:
    """Raise UserError unless every class is in two folds and every fold has images."""
    of = "images" if whole.groups is None else "groups"
    alone = [
        f"{classes[label]}: {counted(int(np.count_nonzero(whole.labels == label)), 'image')}"
        for label in np.unique(whole.labels).tolist()
        if len(np.unique(numbers[whole.labels == label])) < 2
    ]
    if alone:
        raise UserError(
            f"{counted(len(alone), 'class')} would be in one fold alone, never both trained on and tested:"
            f"{listed(alone)}\nExpected each class to have 2 {of} or more, which can be in different folds. Add {of}, "
            f"or remove the class{'' if whole.groups is None else ', or group by something finer'}."
        )
    if empty := folds - len(np.unique(numbers)):
        found = len(whole) if whole.groups is None else len(set(whole.groups))
        raise UserError(
            f"--folds {folds}: {counted(empty, 'fold')} would have no image, of {counted(found, of[:-1])}. Expected "
            f"at least as many {of} as folds: give fewer folds."
        )


def _notes(classes: tuple[str, ...], whole: Part, numbers: Indices, folds: int) -> list[str]:
    grouped = "" if whole.groups is None else f" and by group, of which there are {len(set(whole.groups)):,}"
    notes = [
        f"folds: all {len(whole):,} images are divided into {folds} by class{grouped} (names sorted, seed {SEED}); "
        "each is tested once"
    ]
    few = [
        f"{classes[label]} in {found}"
        for label in np.unique(whole.labels).tolist()
        if (found := len(np.unique(numbers[whole.labels == label]))) < folds
    ]
    if few:
        which = ", ".join(few[:3]) + (f" and {len(few) - 3:,} more" if len(few) > 3 else "")
        notes.append(f"{counted(len(few), 'class')} {agreeing(len(few), 'are')} not in every fold: {which} of {folds}")
    return notes


def copies_between(raw: RawSplits) -> list[str]:
    """ "<image> = <image in another fold>", for each that has the pixels of one there; `raw` is decoded."""
    first: dict[str, str] = {}
    pairs = []
    for part in (raw.train, raw.test):
        for name, digest in zip(part.names, part.own_digests, strict=True):
            twin = first.setdefault(digest, name)
            if raw.fold_of[twin] != raw.fold_of[name]:
                pairs.append(f"{name} = {twin}")
    return pairs


def division(raw: RawSplits) -> str:
    """A digest of the pixels and labels of each fold, the same for every fold of one division; `raw` is decoded."""
    content: dict[int, list[tuple[str, int]]] = defaultdict(list)
    for part in (raw.train, raw.test):
        for name, digest, label in zip(part.names, part.own_digests, part.labels.tolist(), strict=True):
            content[raw.fold_of[name]].append((digest, label))
    return json_digest([sorted(content[fold]) for fold in sorted(content)])
