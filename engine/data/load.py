"""A dataset's files -> labelled images, checked against its declaration -> decoded train, val and test parts."""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from engine.data.cache import Decoded, decode_all
from engine.data.declaration import Dataset, Protocol, ReadOptions
from engine.data.download import obtain
from engine.data.folds import copies_between, division
from engine.data.images import digest
from engine.data.locate import seen_checksums
from engine.data.overlap import contradictions, copies_of_test, refuse_copies, require_separate, separate
from engine.data.part import Part, RawSplits, Splits
from engine.data.place import how_to_get_again, placed, present, require_place
from engine.data.splits import Budget, few_of_each, hold_out, taken
from engine.errors import NotWholeError, Refuse, UserError, agreeing, counted, listed, raised, refusing

MOST_CLASSES = 12  # that are named when their images are not all there
HELD_OUT = 0.1  # of the training images, under the `honest` protocol
IMBALANCE = 10  # times as many training images as another class has: said beside the result
LACKS = {  # what it means for a class to have no image in a part
    "train": "which can't be learnt",
    "val": "on which no epoch is chosen",
    "test": "of which the result says nothing",
}


def read(
    dataset: Dataset,
    data_dir: Path,
    allow_partial: bool,
    protocol: Protocol,
    fetch: bool = True,
    folds: int | None = None,
    refuse: Refuse = raised,
) -> RawSplits:
    """What the dataset's files hold; `differences` are all those from the declaration (none, unless `allow_partial`).

    With `folds`, its parts are those of the files all the same: fold_of() divides them anew.
    Raises UserError when the files are missing (and, unless `fetch`, when they have yet to be downloaded or
    extracted), unreadable, or not all there; `refuse` has what can be said of the user's own images beside that.
    """
    if not fetch and not present(dataset, data_dir):
        require_place(dataset, data_dir)
        for file in dataset.files:
            placed(dataset, file, data_dir)  # one that is not the published one is told now
        raise UserError(
            f"{dataset.name} is not in {data_dir.absolute()}, or not extracted yet. The command without --check "
            "fetches and extracts it first."
        )
    folder = dataset.own_folder or obtain(dataset, data_dir)
    raw = read_files(dataset, data_dir, ReadOptions(folder, allow_partial, protocol, folds, refuse))
    if len(raw.classes) < 2:  # before counts, which say less
        raise UserError(
            f"{dataset.name} in {folder} has {counted(len(raw.classes), 'class')}; it takes at least 2 classes."
        )
    differing = differences(dataset, raw, protocol)
    if differing and not allow_partial:
        if dataset.own:
            problem, remedy = "as split.py left it", "Put these back, or split again"
        elif not dataset.files:
            problem = f"what {dataset.script_name}.py declares"
            remedy = f"Put back what is missing, correct the counts in {dataset.script_name}.py"
        else:
            problem = "the published dataset"
            remedy = how_to_get_again(dataset, data_dir, folder)
        refuse(
            UserError(
                f"{dataset.name} in {folder} is not {problem}:{listed(differing)}\n{remedy}, or train on what there is "
                "with --allow-partial: the record is then marked partial."
            )
        )
    for name, part in (("train", raw.train), ("test", raw.test)):
        _check_part(part, f"{dataset.name} in {folder}: the {name} part", len(raw.classes))
    if raw.val is not None and protocol == "honest":
        _check_part(raw.val, f"{dataset.name} in {folder}: the validation part", len(raw.classes))
    checksums = seen_checksums(dataset, data_dir) | dict(raw.checksums)
    return replace(raw, checksums=checksums, differences=tuple(differing))


def read_files(dataset: Dataset, data_dir: Path, options: ReadOptions) -> RawSplits:
    """What the dataset's `read` returns; where it misses files, the error says how to get them again."""
    try:
        raw: object = dataset.read(options)
    except NotWholeError as problem:
        again = how_to_get_again(dataset, data_dir, options.folder, problem.missing)
        partly = ", or train on what there is with --allow-partial" if problem.or_partial else ""
        raise UserError(f"{problem} {again}{partly}.") from problem
    if not isinstance(raw, RawSplits):
        kind = type(raw).__name__
        raise UserError(f"{dataset.name}: read() returned a {kind}. Expected RawSplits(classes, train, test).")
    return raw


def differences(dataset: Dataset, raw: RawSplits, protocol: Protocol) -> list[str]:
    """In what `raw` is not what the declaration says, each in a line."""
    lines = []
    expected = dataset.expected(protocol)
    parts = {"train": raw.train, "test": raw.test} if len(expected) == 2 else {"": None}
    for (name, part), published in zip(parts.items(), expected, strict=False):
        images = len(raw.train) + len(raw.test) if part is None else len(part)
        if published and images != published:
            lines.append(f"{counted(images, f'{name} image'.strip())} instead of {published:,}")
    if dataset.classes and len(raw.classes) != dataset.classes:
        lines.append(f"{counted(len(raw.classes), 'class')} instead of {dataset.classes}")
    val = len(raw.val) if raw.val is not None else 0
    if dataset.val_images and val != dataset.val_images:
        lines.append(f"{counted(val, 'validation image')} instead of {dataset.val_images:,}")
    lines += raw.differences
    if raw.missing:
        lines.append(f"missing of the listed images: {len(raw.missing):,}: {_some(raw.missing)}")
    if of_classes := _class_lines(dataset, raw):
        lines += of_classes[:MOST_CLASSES]
        if len(of_classes) > MOST_CLASSES:
            lines.append(f"and so on, for {len(of_classes):,} classes in all")
    return lines


def _class_lines(dataset: Dataset, raw: RawSplits) -> list[str]:
    """The classes that have not as many images as they should."""
    found: Counter[str] = Counter()
    for part in (raw.train, raw.test):
        found.update(raw.classes[label] for label in part.labels.tolist() if label < len(raw.classes))
    if not dataset.class_images:
        return []
    if isinstance(dataset.class_images, int):
        expected = dict.fromkeys(raw.classes, dataset.class_images)
    else:
        expected = dict(dataset.class_images)
    return [
        f"class {name}: {counted(found[name], 'image')} instead of {expected.get(name, 0):,}"
        for name in sorted(expected.keys() | found)
        if found[name] != expected.get(name, 0)
    ]


def _some(names: tuple[str, ...], most: int = 3) -> str:
    return ", ".join(names[:most]) + (f" and {len(names) - most:,} more" if len(names) > most else "")


def _check_part(part: Part, what: str, classes: int) -> None:
    if len(part) == 0:
        raise UserError(f"{what} has no images. Expected some: get the images that belong there.")
    images = len(part.images) if part.rows is None else len(part.rows)
    if not images == len(part.labels) == len(part.names) == len(set(part.names)):
        raise UserError(
            f"{what} has {images:,} images, {len(part.labels):,} labels, and {len(part.names):,} names, "
            f"{len(set(part.names)):,} of them different. Expected a label and a name of its own for each image."
        )
    pixels = part.images
    if isinstance(pixels, np.ndarray) and (pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[3] != 3):
        raise UserError(f"{what} has images of {pixels.dtype} {pixels.shape}. Expected uint8 (N, H, W, 3).")
    if part.labels.min() < 0 or part.labels.max() >= classes:
        raise UserError(f"{what} has labels from {part.labels.min()} to {part.labels.max()}, but {classes} classes.")


def divide(raw: RawSplits, protocol: Protocol, seed: int, budget: Budget = None) -> Splits:
    """The parts under `protocol`: "honest" holds a validation part out of train, "paper" takes test for it.

    With a `budget` the training images are so many of each class (an int) or such a share of them (a float), and the
    validation part is among them, as it must be for whoever has no more: one of the dataset's own is not used. A budget
    that leaves no image out is none.
    """
    train, val, test = raw.train, raw.val, raw.test
    if taken(train.labels, len(raw.classes), budget) is None:
        budget = None
    if budget is not None:
        train, val = train.take(few_of_each(train.labels, train.groups, budget, seed)), None
    if protocol == "paper":
        val = test
    elif val is None:
        try:
            keep, held = hold_out(train.labels, train.groups, HELD_OUT, seed)
        except UserError as problem:
            if budget is None:
                raise
            raise UserError(f"{problem}\nOr allow more of them: a larger --shots or --fraction.") from problem
        train, val = train.take(keep), train.take(held)
    return Splits(raw.classes, train, val, test)


@dataclass(frozen=True)
class DecodeOptions:
    """How images become pixels, and what is refused."""

    size: tuple[int, int]  # height and width that they are kept at
    cache_dir: Path | None  # where decoded images are kept; None: nowhere
    protocol: Protocol
    allow_partial: bool
    budget: Budget = None
    kept_only: bool = False  # only what the cache has: NotDecodedError where it lacks the images as they are now
    refuse: Refuse = raised  # what becomes of images that can't be read, or are in two parts


def decode(dataset: Dataset, raw: RawSplits, splits: Splits, options: DecodeOptions) -> tuple[RawSplits, Splits]:
    """`splits`, which `raw` was divided into, with their pixels; and `raw` with what that brought to light.

    Raises UserError when an image can't be read, or is in two parts.
    """
    require_separate(splits, options.protocol, dataset.own, options.allow_partial)
    return with_pixels(dataset, raw, splits, images_of(dataset, raw, options), options)


def images_of(dataset: Dataset, raw: RawSplits, options: DecodeOptions) -> Decoded | None:
    """All images of `raw`, as decode_all() has them, whatever the split."""
    key = dataset.key
    if dataset.own:  # folders of the same name do not share a cache
        key += "-" + hashlib.sha256(os.fsencode(str(dataset.own_folder))).hexdigest()[:8]
    partial, kept_only = options.allow_partial, options.kept_only
    return decode_all(raw, key, options.size, options.cache_dir, partial, kept_only, options.refuse)


def with_pixels(
    dataset: Dataset, raw: RawSplits, splits: Splits, images: Decoded | None, options: DecodeOptions
) -> tuple[RawSplits, Splits]:
    """What decode() returns, of `images` that are decoded."""
    if images:
        splits = splits.map(images.part)
        for what, part in (("training", splits.train), ("validation", splits.val), ("test", splits.test)):
            if not len(part):
                raise UserError(f"{dataset.name}: no image of the {what} part can be read. Get the images again.")
        raw = replace(raw, notes=(*raw.notes, *images.notes))
        if images.bad:
            unread = [f"{name} can't be read: {reason}" for name, reason in images.bad.items()]
            total = f"{counted(len(unread), 'image')} left out: {'it' if len(unread) == 1 else 'they'} can't be read"
            raw = replace(raw, differences=(*raw.differences, total, *unread))
        if raw.fold_of:
            raw = _with_division(raw, images, dataset.own and not options.allow_partial, options.refuse)
    whole = with_digests(splits)
    own = dataset.own and not raw.fold_of  # copies in other folds are refused before the first is trained
    splits, notes = separate(whole, options.protocol, own, options.allow_partial, options.refuse)
    # refused but for --allow-partial
    if dataset.own and copies_of_test(whole, options.protocol):
        raw = replace(raw, differences=(*raw.differences, *notes))
    else:
        raw = replace(raw, notes=(*raw.notes, *notes))
    of_classes = class_notes(splits, options.protocol)
    cautions = [*budget_notes(raw, options.budget), *contradiction_notes(contradictions(whole)), *of_classes]
    return replace(raw, notes=(*raw.notes, *cautions)), splits


def _with_division(raw: RawSplits, images: Decoded, whole: bool, refuse: Refuse) -> RawSplits:
    """`raw`, whose folds are decoded, with their digest. Copies in two folds are refused in `whole` data.

    All folds are looked at, before the first of them is trained: what is removed then would divide all anew.
    """
    decoded = replace(raw, train=images.part(raw.train), test=images.part(raw.test))
    if whole:
        with refusing(refuse):
            refuse_copies(copies_between(decoded), "with the same pixels as one in another fold", "honest")
    return replace(raw, division=division(decoded))


def contradiction_notes(pairs: Sequence[str]) -> list[str]:
    """A note, if there are images with the same pixels and different labels: no model can tell both right."""
    return [f"{counted(len(pairs), 'image')} of the same pixels under different classes"] if pairs else []


def budget_notes(raw: RawSplits, budget: Budget) -> list[str]:
    """A note, where classes have fewer training images than the `budget` asks for."""
    if budget is None:
        return []
    counts = np.bincount(raw.train.labels, minlength=len(raw.classes))
    asked = f"{'shots' if isinstance(budget, int) else 'fraction'} {budget:,}"
    if taken(raw.train.labels, len(raw.classes), budget) is None:
        most = counted(int(counts.max()), "training image")
        return [f"{asked}: no class has more than {most}, so this is the run of all training images"]
    fewer = counts[counts < budget] if isinstance(budget, int) else counts[:0]
    if not len(fewer):
        return []
    each = f"{fewer.min():,}" + (f" to {fewer.max():,}" if fewer.min() < fewer.max() else "")
    share = f"{len(fewer):,} of {counted(len(counts), 'class')} {agreeing(len(fewer), 'have')}"
    return [f"{asked}: {share} fewer training images, {each}, all of which are used"]


def class_notes(splits: Splits, protocol: Protocol) -> list[str]:
    """Notes on classes that a part has no image of, and on training images that are far from balanced."""
    notes = []
    for part, lack in LACKS.items():
        counts = np.bincount(getattr(splits, part).labels, minlength=len(splits.classes))
        missing = [splits.classes[label] for label in np.flatnonzero(counts == 0).tolist()]
        if missing and not (part == "val" and protocol == "paper"):
            share = f"{len(missing):,} of {counted(len(counts), 'class')} {agreeing(len(missing), 'have')}"
            notes.append(f"{share} no {part} image, {lack}: {_some(tuple(missing))}")
    counts = np.bincount(splits.train.labels, minlength=len(splits.classes))
    present = np.flatnonzero(counts)
    most, least = counts.argmax(), present[counts[present].argmin()]
    if counts[most] >= IMBALANCE * counts[least]:
        notes.append(
            f"imbalance: {counted(int(counts[most]), 'training image')} of {splits.classes[most]}, "
            f"{counts[least]:,} of {splits.classes[least]}. Top-1 says little of small classes: see balanced accuracy "
            "and recall (--class-weights balanced trains, --select balanced_accuracy chooses by all alike)"
        )
    return notes


def with_digests(splits: Splits) -> Splits:
    """Parts that were read as pixels, with the digests of their images; an array that parts share is digested once."""
    known: dict[int, list[str]] = {}

    def digested(part: Part) -> Part:
        if not isinstance(part.images, np.ndarray) or part.digests is not None:
            return part
        if id(part.images) not in known:
            known[id(part.images)] = [digest(image) for image in part.images]
        return replace(part, digests=known[id(part.images)])

    return splits.map(digested)
