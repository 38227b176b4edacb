"""Images that are in two parts of a split: found, and refused, left out of training, or noted."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine.data.declaration import Protocol
from engine.data.part import Part, Splits
from engine.errors import UserError, listed


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


def separate(splits: Splits, protocol: Protocol, own: bool, allow_partial: bool) -> tuple[Splits, list[str]]:
    """The parts with nothing of one in another, and notes on what that took.

    Under the `honest` protocol, images are left out of training whose pixels are those of a test image, as some
    published splits have them; `own` data, which their owner can mend, are refused instead, unless `allow_partial`.
    The same image, or the same group, in two parts is always refused. The `paper` protocol keeps the split that it is
    defined by, and a note says how much of test is in train. Raises UserError.
    """
    pairs = copies_of_test(splits, protocol) if own and not allow_partial else []
    if pairs:
        otherwise = "leave these out of training" if protocol == "honest" else "train on these as well"
        raise UserError(
            f"{_images(len(pairs), '')} outside the test part with the same pixels as a test image, so the result "
            f"would flatter:{listed(pairs)}\nRemove one of each two, or {otherwise} with --allow-partial: the record "
            "is then marked partial."
        )
    if protocol == "paper":
        leaked = find_overlap(splits.test, splits.train)
        return splits, [_leak(leaked, len(splits.test))] if len(leaked) else []
    return _separate_honestly(splits)


def _separate_honestly(splits: Splits) -> tuple[Splits, list[str]]:
    in_test = {
        "training": find_overlap(splits.train, splits.test),
        "validation": find_overlap(splits.val, splits.test),
    }
    for part, overlap in in_test.items():
        _refuse(overlap, part, "test")
    train = _without(splits.train, in_test["training"].copies)
    val = _without(splits.val, in_test["validation"].copies)
    in_train = find_overlap(val, train)
    _refuse(in_train, "validation", "training")
    val = _without(val, in_train.copies)
    for part, images in (("training", train), ("validation", val)):
        if not len(images):
            raise UserError(f"every image of the {part} part has its copy in another part. Give other images.")
    notes = [
        f"{_images(len(names), part)} left out: the same pixels as a {other} image"
        for part, other, names in (
            ("training", "test", in_test["training"].copies),
            ("validation", "test", in_test["validation"].copies),
            ("validation", "training", in_train.copies),
        )
        if names
    ]
    return (Splits(splits.classes, train, val, splits.test) if notes else splits), notes


def copies_of_test(splits: Splits, protocol: Protocol) -> list[str]:
    """ "<image> = <test image>", for each image outside the test part that has the pixels of one in it."""
    others = [splits.train] if protocol == "paper" else [splits.train, splits.val]
    return [pair for part in others for pair in _pairs(find_overlap(part, splits.test).copies, part, splits.test)]


def contradictions(splits: Splits) -> list[str]:
    """A note, if there are images with the same pixels and different labels: no model can tell both right."""
    labels: dict[str, set[int]] = {}
    for part in splits:
        for digest, label in zip(part.own_digests, part.labels.tolist(), strict=True):
            labels.setdefault(digest, set()).add(label)
    count = sum(len(own) > 1 for digest, own in labels.items() if digest)
    return [f"{_images(count, '')} of the same pixels under different classes"] if count else []


def _refuse(overlap: Overlap, part: str, other: str) -> None:
    for kind, names in (("the same image as", overlap.files), ("of the same group as", overlap.groups)):
        if names:
            raise UserError(
                f"{len(names):,} {part} images are {kind} one in the {other} part, so the result would flatter:"
                f"{listed(names)}\nExpected every image, and every group, in one part alone."
            )


def _images(count: int, what: str) -> str:
    return f"{count:,} {what} image{'' if count == 1 else 's'}".replace("  ", " ")


def _without(part: Part, names: tuple[str, ...]) -> Part:
    return part if not names else part.take(np.flatnonzero(~np.isin(np.array(part.names), names)))


def _pairs(names: tuple[str, ...], part: Part, other: Part) -> list[str]:
    twins = dict(zip(other.own_digests, other.names, strict=True))
    digests = dict(zip(part.names, part.own_digests, strict=True))
    return [f"{name} = {twins[digests[name]]}" for name in names]


def _leak(overlap: Overlap, images: int) -> str:
    kinds = {"are training images": overlap.files, "have a training image's pixels": overlap.copies}
    kinds["are of a group (a patient) that is in train"] = overlap.groups
    reasons = ", ".join(f"{len(names):,} {kind}" for kind, names in kinds.items() if names)
    share = f"{len(overlap):,} of {images:,} test images ({len(overlap) / images:.1%})"
    return f"leakage: {share} are tied to training images: {reasons}"
