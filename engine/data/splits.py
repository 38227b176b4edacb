"""Which image goes where: classes split by name, hold-outs that keep a patient on one side, and a split's hash."""

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from engine.data.names import nfc
from engine.errors import UserError, counted, listed
from engine.files import json_digest

Indices = npt.NDArray[np.int64]
Budget = int | float | None  # training images of each class, or a share of them; None: all

# What a class that is missing from a part costs, beside share errors of at most 1. Missing from the first part, a
# class can't be learnt; missing from another, it is only not measured.
MISSING_FROM_FIRST = 1e6
MISSING_FROM_OTHER = 1e3
MOST_TRIES = 20
# how many (group, class) pairs may be dealt out in all: about a second
MOST_DEALT = 100_000


def split_names(
    names: Sequence[str], test_size: float, val_size: float = 0.0, random_state: int = 42
) -> dict[str, list[str]]:
    """Split the names of one class into "train", "val" (only where val_size > 0) and "test", each sorted.

    The published splits were made so: scikit-learn's train_test_split on one class at a time, which rounds the
    held-out part up; test and validation are first held out together. The order of `names` plays no part.
    A part that would be empty is scikit-learn's ValueError; `fewest_names` says how many names it takes.
    """
    from sklearn.model_selection import train_test_split  # a second that `--help` does not need

    train, held = train_test_split(in_order(names), test_size=test_size + val_size, random_state=random_state)
    if not val_size:
        return {"train": in_order(train), "test": in_order(held)}
    share = test_size / (test_size + val_size)
    val, test = train_test_split(held, test_size=share, random_state=random_state)
    return {"train": in_order(train), "val": in_order(val), "test": in_order(test)}


def in_order(names: Sequence[str]) -> list[str]:
    """The names sorted, alike on disks that keep accented letters as one character and as two."""
    return sorted(names, key=lambda name: (nfc(name), name))


def split_indices(
    images: int, test_size: float, labels: Indices | None = None, random_state: int = 42
) -> tuple[Indices, Indices]:
    """The sorted indices of the train and of the test part, `test_size` of the whole set; of each class with `labels`.

    scikit-learn's train_test_split, which rounds the test part up.
    """
    from sklearn.model_selection import train_test_split

    train, test = train_test_split(np.arange(images), test_size=test_size, random_state=random_state, stratify=labels)
    return np.sort(train), np.sort(test)


def fewest_names(test_size: float, val_size: float = 0.0) -> int:
    """The smallest class of which `split_names` leaves no part empty."""

    def fills_every_part(count: int) -> bool:
        held = math.ceil((test_size + val_size) * count)
        tested = math.ceil(test_size / (test_size + val_size) * held) if val_size else held
        return count > held > 0 and (not val_size or held > tested)

    return bisect_left(range(10**9), True, key=fills_every_part)


def hold_out(labels: Indices, groups: Sequence[str] | None, fraction: float, seed: int) -> tuple[Indices, Indices]:
    """Hold about `fraction` of every class out.

    labels: (N,). groups: N names of what must stay on one side (a patient), whatever its classes; None: each image
    alone. seed: 0 to 2**32 - 1. Returns the sorted indices of the images kept and of those held out.

    Without groups a class of n images gives round(fraction * n), at least 1 and at most n - 1. With groups every
    class's share is as near to `fraction` as they allow, and no class is held out whole.
    UserError: nothing can be held out.
    """
    if not 0 < fraction < 1:
        raise ValueError(f"fraction must lie between 0 and 1, not {fraction}")
    if groups is not None:
        parts = divide_groups(labels, groups, (1 - fraction, fraction), seed)
        keep, held = np.flatnonzero(parts == 0), np.flatnonzero(parts == 1)
        if not len(held):
            raise UserError(
                f"No group can be held out: found {counted(len(labels), 'image')} in"
                f" {counted(len(set(groups)), 'group')}, and each holds all images of some class. Expected a"
                " class's images to be spread over two groups or more. Add images of other groups"
                " (patients), or group by something finer."
            )
        return keep, held

    from sklearn.model_selection import train_test_split

    # RandomState, because its stream is frozen: the same seed gives the same split in any version of NumPy
    random = np.random.RandomState(seed)
    held_of_classes = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        count = min(max(round(fraction * len(members)), 1), len(members) - 1)
        if count:
            held_of_classes.append(train_test_split(members, test_size=count, random_state=random)[1])
    if not held_of_classes:
        raise UserError(
            f"Nothing can be held out of the training images: found {counted(len(labels), 'image')} of"
            f" {counted(len(np.unique(labels)), 'class')}."
            " Expected at least one class of two images or more. Add images, or give a validation part of your own."
        )
    held = np.sort(np.concatenate(held_of_classes))
    return np.setdiff1d(np.arange(len(labels)), held), held


def few_of_each(labels: Indices, groups: Sequence[str] | None, budget: int | float, seed: int) -> Indices:
    """The sorted indices of some images of every class; of those that a larger `budget` gives with the same `seed`.

    labels: (N,). groups: N names (of patients), or None. budget: so many images of each class, or all where it has
    fewer (an int); or that share of each class, rounded, at least one (a float). seed: 0 to 2**32 - 1.

    The images are spread over the groups of their class, one of each before a second of any: two images of a patient
    tell less than one of two, and a validation part can be held out of few images only where they are of two groups.
    """
    random = np.random.RandomState(seed)
    rank = random.permutation(len(labels))  # of each image, among all
    chosen = []
    for label in np.unique(labels):
        members = np.flatnonzero(labels == label)
        members = members[np.argsort(rank[members])]
        if groups is not None:
            seen: Counter[str] = Counter()
            turns = []  # how many of its group come before each
            for index in members.tolist():
                turns.append(seen[groups[index]])
                seen[groups[index]] += 1
            members = members[np.argsort(turns, kind="stable")]
        chosen.append(members[: _within(len(members), budget)])
    return np.sort(np.concatenate(chosen))


def taken(labels: Indices, classes: int, budget: Budget) -> list[int] | None:
    """How many images few_of_each() gives of each of the `classes`; None where that is all of them."""
    counts: list[int] = np.bincount(labels, minlength=classes).tolist()
    few = counts if budget is None else [_within(count, budget) for count in counts]
    return None if few == counts else few


def _within(images: int, budget: int | float) -> int:
    wanted = budget if isinstance(budget, int) else max(1, round(budget * images))
    return min(wanted, images)


def divide_groups(
    labels: Indices, groups: Sequence[str], shares: Sequence[float], seed: int, folds: bool = False
) -> Indices:
    """Divide images into len(shares) parts with every group in one part; the same arguments, the same parts.

    labels: (N,). groups: N names. shares: what every part should get of every class, summing to 1.
    seed: 0 to 2**32 - 1. Returns (N,): each image's part, an index into shares. The first part has images of every
    class; another part can lack one, or be empty, where there are too few groups: the caller looks. folds: no part
    comes first, and each should get its share of all images, too, so that none is empty while there is a group for it.

    Groups are dealt out in a shuffled order, each to where it helps most, then moved while a move helps. This is
    done again in other orders, and the best kept, unless every count is already within one image of its share.
    """
    if len(labels) != len(groups):
        raise ValueError(f"{len(labels)} labels, but {len(groups)} groups")
    _, classes = np.unique(labels, return_inverse=True)
    group_index = {group: index for index, group in enumerate(sorted(set(groups)))}
    contents: list[Counter[int]] = [Counter() for _ in group_index]  # of each group: class -> images
    for class_index, group in zip(classes.tolist(), groups, strict=True):
        contents[group_index[group]][class_index] += 1

    if folds:  # all images together, as if they were a class
        for content in contents:
            content[-1] = content.total()
    sizes = np.bincount(classes)
    targets = np.outer(shares, [*sizes, len(labels)] if folds else sizes)
    missed = [MISSING_FROM_OTHER if folds or part else MISSING_FROM_FIRST for part in range(len(shares))]
    random = np.random.RandomState(seed)
    best: tuple[float, list[int]] = (math.inf, [])
    pairs = max(1, sum(map(len, contents)))
    for _ in range(max(1, min(MOST_TRIES, MOST_DEALT // pairs))):
        parts, counts = _deal(contents, targets.tolist(), missed, random.permutation(len(contents)).tolist())
        missing = np.count_nonzero(counts == 0, axis=1)
        cost = float(np.square((counts - targets) / targets.sum(axis=0)).sum() + missing @ missed)
        best = min(best, (cost, parts))
        if not missing.any() and np.abs(counts - targets).max() < 1:
            break
    return np.array([best[1][group_index[group]] for group in groups], dtype=np.int64)


def split_groups(
    classes: Mapping[str, Sequence[str]], groups: Mapping[str, str], shares: Mapping[str, float], seed: int
) -> dict[str, list[str]]:
    """Part -> the names of its images, by divide_groups(), no group in two parts.

    classes: class -> names. groups: name -> group. shares: part -> what it should get of every class, "train" first.
    UserError: a part gets no image of some class.
    """
    names = [name for images in classes.values() for name in images]
    labels = np.array([label for label, images in enumerate(classes.values()) for _ in images], dtype=np.int64)
    chosen = divide_groups(labels, [groups[name] for name in names], list(shares.values()), seed)
    parts: dict[str, list[str]] = {part: [] for part in shares}
    for name, index in zip(names, chosen.tolist(), strict=True):
        parts[list(shares)[index]].append(name)
    part_of = {name: part for part, inside in parts.items() for name in inside}
    gaps = []
    for label, images in classes.items():
        there = {part_of[name] for name in images}
        if missing := [part for part in parts if part not in there]:
            own = len({groups[name] for name in images})
            gaps.append(f"{label}: none in {' and '.join(missing)}; {counted(own, 'group')} in all")
    if gaps:
        raise UserError(
            f"A class does not reach every part, since no group may be in two ({len(gaps):,}):{listed(gaps)}\n"
            f"Expected at least {len(parts)} groups in every class. Add images of other groups, group by something"
            " finer, or ask for fewer parts."
        )
    return parts


def _deal(
    contents: list[Counter[int]], targets: list[list[float]], missed: list[float], order: list[int]
) -> tuple[list[int], npt.NDArray[np.int64]]:
    """Each group's part, and the images of every (part, class). missed: what it costs each part to lack a class."""
    images = [sum(column) for column in zip(*targets, strict=True)]
    counts = [[0] * len(images) for _ in targets]
    parts = [-1] * len(contents)

    def change(group: int, part: int, sign: int) -> float:
        """What it costs (below 0: saves) to put the group into the part (sign 1) or take it out (sign -1)."""
        cost = 0.0
        for index, number in contents[group].items():
            count, target = counts[part][index], targets[part][index]
            # (after - target)^2 - (before - target)^2, in shares of the class
            cost += number * (number + 2 * sign * (count - target)) / images[index] ** 2
            cost += missed[part] * ((count + sign * number == 0) - (count == 0))
        return cost

    def put(group: int, part: int, sign: int) -> None:
        for index, number in contents[group].items():
            counts[part][index] += sign * number

    for group in order:
        parts[group] = min(range(len(targets)), key=lambda part: change(group, part, 1))
        put(group, parts[group], 1)
    moved = True
    while moved:
        moved = False
        for group in order:
            here = parts[group]
            others = [part for part in range(len(targets)) if part != here]
            there = min(others, key=lambda part: change(group, part, 1))
            # a margin, so that rounding can't move a group to and fro for ever
            if change(group, here, -1) + change(group, there, 1) < -1e-9:
                put(group, here, -1)
                put(group, there, 1)
                parts[group] = there
                moved = True
    return parts, np.array(counts, dtype=np.int64)


def split_hash(parts: Mapping[str, Sequence[tuple[str, int]]], fingerprint: str = "") -> str:
    """A sha256 that changes when an image moves to another part, is renamed, relabelled, added or removed.

    parts: part -> (image name, label) pairs, in any order. fingerprint: whatever else must change the hash.
    """
    named = {part: sorted((name, int(label)) for name, label in pairs) for part, pairs in parts.items()}
    content = {"fingerprint": fingerprint, "parts": named}
    return json_digest(content)
