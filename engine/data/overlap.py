"""Images that are in two parts of a split: found, and refused, left out of training, or noted."""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from engine.data.declaration import Protocol
from engine.data.part import Part, Splits
from engine.errors import Refuse, UserError, counted, listed, raised, refusing
from engine.files import digest as digest_file

File = tuple[str, Path, Hashable]  # an image's name, where it lies, and what is known of its content

BEGINNING = 4096  # bytes that are compared before whole files are read


@dataclass(frozen=True)
class Overlap:
    """The images of a part that have their like in another part, each counted once, by the first reason that holds."""

    files: tuple[str, ...]  # the very same image
    copies: tuple[str, ...]  # an image with the same pixels
    groups: tuple[str, ...]  # an image of the same group (a patient)

    def __len__(self) -> int:
        return len(self.files) + len(self.copies) + len(self.groups)


def find_overlap(part: Part, other: Part) -> Overlap:
    """What of `part` is in `other` too. Before they are decoded, nothing is known of copies."""
    shared = part.images is other.images
    rows = set(other.entries(range(len(other.images)))) if shared else set()
    digests, groups = set(other.own_digests) - {""}, set(other.groups or ())
    files, copies, of_groups = [], [], []
    own_groups = part.groups or [""] * len(part)
    for name, row, digest, group in zip(
        part.names, part.entries(range(len(part.images))), part.own_digests, own_groups, strict=True
    ):
        if row in rows:
            files.append(name)
        elif digest in digests:
            copies.append(name)
        elif part.groups and group in groups:
            of_groups.append(name)
    return Overlap(tuple(files), tuple(copies), tuple(of_groups))


def separate(
    splits: Splits, protocol: Protocol, own: bool, allow_partial: bool, refuse: Refuse = raised
) -> tuple[Splits, list[str]]:
    """The parts with nothing of one in another, and notes on what that took.

    Under the `honest` protocol, images are left out of training whose pixels are those of a test image, as some
    published splits have them; `own` data, which their owner can mend, are refused instead, unless `allow_partial`.
    The same image, or the same group, in two parts is always refused. The `paper` protocol keeps the split that it is
    defined by, and a note says how much of test is in train. `refuse` has the UserErrors of all that; one is raised
    where nothing would be left of a part.
    """
    if own and not allow_partial:
        with refusing(refuse):
            refuse_copies(
                copies_of_test(splits, protocol), "outside the test part with the same pixels as a test image", protocol
            )
    if protocol == "paper":
        leaked = find_overlap(splits.test, splits.train)
        return splits, [_leak(leaked, len(splits.test))] if len(leaked) else []
    return _separate_honestly(splits, refuse)


def _separate_honestly(splits: Splits, refuse: Refuse) -> tuple[Splits, list[str]]:
    in_test = {
        "training": find_overlap(splits.train, splits.test),
        "validation": find_overlap(splits.val, splits.test),
    }
    for part, overlap in in_test.items():
        with refusing(refuse):
            _refuse(overlap, part, "test")
    train = _without(splits.train, in_test["training"].copies)
    val = _without(splits.val, in_test["validation"].copies)
    in_train = find_overlap(val, train)
    with refusing(refuse):
        _refuse(in_train, "validation", "training")
    val = _without(val, in_train.copies)
    for part, images in (("training", train), ("validation", val)):
        if not len(images):
            raise UserError(f"every image of the {part} part has its copy in another part. Give other images.")
    notes = [
        f"{counted(len(names), f'{part} image')} left out: the same pixels as a {other} image"
        for part, other, names in (
            ("training", "test", in_test["training"].copies),
            ("validation", "test", in_test["validation"].copies),
            ("validation", "training", in_train.copies),
        )
        if names
    ]
    return (Splits(splits.classes, train, val, splits.test) if notes else splits), notes


def require_separate(splits: Splits, protocol: Protocol, own: bool, allow_partial: bool) -> None:
    """Raise what separate() raises, as far as it can be known before anything is decoded: of files and of groups."""
    separate(splits, protocol, own, allow_partial)
    if own and not allow_partial:
        refuse_copies(
            files_of_test(splits, protocol), "outside the test part with the same content as a test image", protocol
        )


def refuse_copies(pairs: list[str], what: str, protocol: Protocol) -> None:
    """Raise UserError if there are `pairs`, as copies_of_test() has them; `what` says what their first images are."""
    if pairs:
        otherwise = "leave these out of training" if protocol == "honest" else "train on these as well"
        raise UserError(
            f"{counted(len(pairs), 'image')} {what}, so the result would flatter:{listed(pairs)}\nRemove one of each "
            f"two, or {otherwise} with --allow-partial: the record is then marked partial."
        )


def files_of_test(splits: Splits, protocol: Protocol) -> list[str]:
    """ "<image> = <test image>", for each file outside the test part that is one in it, byte for byte.

    A file is read only as far as one of its size, and then one with its beginning, is in the other part.
    """
    tested = _files([splits.test])
    others = _files(_others(splits, protocol))
    for known in (_size, _beginning, digest_file):
        tested, others = _marked(tested, known), _marked(others, known)
        shared = {mark for _, _, mark in tested} & {mark for _, _, mark in others}
        tested, others = ([file for file in files if file[2] and file[2] in shared] for files in (tested, others))
    twins = {mark: name for name, _, mark in tested}
    return [f"{name} = {twins[mark]}" for name, _, mark in others]


def _files(parts: Iterable[Part]) -> list[File]:
    return [
        (name, reference, None)
        for part in parts
        if isinstance(part.images, Sequence)
        for name, reference in zip(part.names, part.entries(part.images), strict=True)
        if isinstance(reference, Path)
    ]


def _marked(files: Iterable[File], known: Callable[[Path], Hashable]) -> list[File]:
    """The files, each with what is `known` of it; None where it is empty or can't be read, as decoding it will tell."""
    marked: list[File] = []
    for name, path, earlier in files:
        own = None
        with suppress(OSError):
            own = known(path)
        marked.append((name, path, (earlier, own) if own else None))
    return marked


def _size(path: Path) -> int:
    return path.stat().st_size


def _beginning(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(BEGINNING)


def copies_of_test(splits: Splits, protocol: Protocol) -> list[str]:
    """ "<image> = <test image>", for each image outside the test part that has the pixels of one in it."""
    return [
        pair
        for part in _others(splits, protocol)
        for pair in _pairs(find_overlap(part, splits.test).copies, part, splits.test)
    ]


def _others(splits: Splits, protocol: Protocol) -> list[Part]:
    """What test images must not be in: under the `paper` protocol val is test itself."""
    return [splits.train] if protocol == "paper" else [splits.train, splits.val]


def same_pixels(parts: Iterable[Part]) -> list[list[tuple[str, int]]]:
    """The images, (name, label) each, that have the same pixels, in groups of two or more names; none, before they are
    decoded."""
    found: dict[str, dict[tuple[str, int], None]] = {}
    for part in parts:
        for digest, image in zip(part.own_digests, part.labelled_names, strict=True):
            found.setdefault(digest, {})[image] = None
    return [list(images) for digest, images in found.items() if digest and len(images) > 1]


def contradictions(splits: Splits) -> list[str]:
    """ "<image> (<class>) = <image> (<other class>)", for the images of the same pixels and different labels."""
    found = []
    for images in same_pixels(splits):
        first = {label: name for name, label in reversed(images)}
        if len(first) > 1:
            shown = [f"{name} ({splits.classes[label]})" for label, name in sorted(first.items())]
            found.append(" = ".join(shown))
    return found


def _refuse(overlap: Overlap, part: str, other: str) -> None:
    for kind, names in (("the same image as", overlap.files), ("of the same group as", overlap.groups)):
        if names:
            raise UserError(
                f"{counted(len(names), f'{part} image', 'are')} {kind} one in the {other} part, so the result would "
                f"flatter:{listed(names)}\nExpected every image, and every group, in one part alone."
            )


def _without(part: Part, names: tuple[str, ...]) -> Part:
    return part if not names else part.take(np.flatnonzero(~np.isin(np.array(part.names), names)))


def _pairs(names: tuple[str, ...], part: Part, other: Part) -> list[str]:
    twins = dict(zip(other.own_digests, other.names, strict=True))
    digests = dict(zip(part.names, part.own_digests, strict=True))
    return [f"{name} = {twins[digests[name]]}" for name in names]


def _leak(overlap: Overlap, images: int) -> str:
    kinds = (
        (overlap.files, "are training images", "is a training image"),
        (overlap.copies, "have a training image's pixels", "has a training image's pixels"),
        (overlap.groups, "are of a group (a patient) that is in train", "is of a group (a patient) that is in train"),
    )
    reasons = ", ".join(f"{len(names):,} {one if len(names) == 1 else many}" for names, many, one in kinds if names)
    tied = f"{len(overlap):,} of {counted(images, 'test image')} ({len(overlap) / images:.1%})"
    return f"leakage: {tied} {'is' if len(overlap) == 1 else 'are'} tied to training images: {reasons}"
