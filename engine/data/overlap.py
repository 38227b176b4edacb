"""Images that are in two parts of a split: found, and refused, left out of training, or told."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from engine.data.declaration import Part
from engine.data.load import Parts
from engine.errors import UserError
from engine.readers.class_folders import listed


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
    digests, groups = set(_digests(other)) - {""}, set(other.groups or ())
    found: dict[str, list[str]] = {"files": [], "copies": [], "groups": []}
    own_groups = part.groups or [""] * len(part)
    for name, row, digest, group in zip(
        part.names,
        part.entries(range(len(part.images))),
        _digests(part),
        own_groups,
        strict=True,
    ):
        if row in rows:
            found["files"].append(name)
        elif digest in digests:
            found["copies"].append(name)
        elif part.groups and group in groups:
            found["groups"].append(name)
    return Overlap(**{kind: tuple(names) for kind, names in found.items()})


def separate(parts: Parts, protocol: str, own: bool, allow_partial: bool) -> tuple[Parts, list[str]]:
    """The parts with nothing of one in another, and notes on what that took.

    Under the `honest` protocol, images are left out of training whose pixels are those of a test image, as some
    published splits have them; `own` data, which their owner can mend, are refused instead, unless `allow_partial`.
    The same image, or the same group, in two parts is always refused. The `paper` protocol keeps the split that it is
    defined by, and a note says how much of test is in train. Raises UserError.
    """
    pairs = copies_of_test(parts, protocol) if own and not allow_partial else []
    if pairs:
        otherwise = "leave these out of training" if protocol == "honest" else "train on these as well"
        raise UserError(
            f"{_images(len(pairs), '')} outside the test part with the same pixels as a test image, so the result "
            f"would flatter:{listed(pairs)}\nRemove one of each two, or {otherwise} with --allow-partial: the record "
            "is then marked partial."
        )
    if protocol == "paper":
        leaked = find_overlap(parts.test, parts.fit)
        return parts, [_leak(leaked, len(parts.test))] if len(leaked) else []

    in_test = {"training": find_overlap(parts.fit, parts.test), "validation": find_overlap(parts.select, parts.test)}
    for part, found in in_test.items():
        _refuse(found, part, "test")
    fit = _without(parts.fit, in_test["training"].copies)
    select = _without(parts.select, in_test["validation"].copies)
    in_fit = find_overlap(select, fit)
    _refuse(in_fit, "validation", "training")
    select = _without(select, in_fit.copies)
    for part, images in (("training", fit), ("validation", select)):
        if not len(images):
            raise UserError(f"every image of the {part} part has its copy in another part. Give other images.")
    notes = [
        f"{_images(len(names), part)} left out: the same pixels as a {other} image"
        for part, other, names in (
            ("training", "test", in_test["training"].copies),
            ("validation", "test", in_test["validation"].copies),
            ("validation", "training", in_fit.copies),
        )
        if names
    ]
    return (Parts(parts.classes, fit, select, parts.test) if notes else parts), notes


def copies_of_test(parts: Parts, protocol: str) -> list[str]:
    """ "<image> = <test image>", for each image outside the test part that has the pixels of one in it."""
    others = [parts.fit] if protocol == "paper" else [parts.fit, parts.select]
    return [pair for part in others for pair in _pairs(find_overlap(part, parts.test).copies, part, parts.test)]


def contradictions(parts: Parts) -> list[str]:
    """A note, if there are images with the same pixels and different labels: no model can tell both right."""
    labels: dict[str, set[int]] = {}
    for part in parts:
        for digest, label in zip(_digests(part), part.labels.tolist(), strict=True):
            labels.setdefault(digest, set()).add(label)
    count = sum(len(own) > 1 for digest, own in labels.items() if digest)
    return [f"{_images(count, '')} of the same pixels under different classes"] if count else []


def _digests(part: Part) -> list[str]:
    return part.entries(part.digests) if part.digests is not None else [""] * len(part)


def _refuse(found: Overlap, part: str, other: str) -> None:
    for kind, names in (("the same image as", found.files), ("of the same group as", found.groups)):
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
    twins = dict(zip(_digests(other), other.names, strict=True))
    digests = dict(zip(part.names, _digests(part), strict=True))
    return [f"{name} = {twins[digests[name]]}" for name in names]


def _leak(found: Overlap, images: int) -> str:
    kinds = {"are training images": found.files, "have a training image's pixels": found.copies}
    kinds["are of a group (a patient) that is in train"] = found.groups
    reasons = ", ".join(f"{len(names):,} {kind}" for kind, names in kinds.items() if names)
    share = f"{len(found):,} of {images:,} test images ({len(found) / images:.1%})"
    return f"leakage: {share} are tied to training images: {reasons}"
