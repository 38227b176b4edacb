"""The parts of a run, from lists of images to pixels: decoded, without what can't be read, without overlap."""

from __future__ import annotations

import hashlib
import os
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from engine.config import Config
from engine.data.cache import decode_all, references_of
from engine.data.declaration import RawSplits, Dataset, Part
from engine.data.images import UnreadableError, digest, load, resize
from engine.data.load import Parts
from engine.data.overlap import contradictions, copies_of_test, separate
from engine.errors import UserError


def with_pixels(dataset: Dataset, contents: RawSplits, parts: Parts, config: Config) -> tuple[RawSplits, Parts]:
    """`parts`, which `contents` was divided into, with their pixels; and `contents` with what that brought to light.

    For `--check`, no more than a batch of each part is decoded, and nothing is kept. Raises UserError when an image
    can't be read, or is in two parts.
    """
    size = dataset.cached_size or config.size
    if config.check:
        separate(parts, config.protocol, dataset.own, config.allow_partial)  # as far as groups and files go
        return contents, parts.map(lambda part: decode_few(part, config.batch_size, size, config.allow_partial))
    key = dataset.key
    if dataset.own:  # folders of the same name do not share a cache
        key += "-" + hashlib.sha256(os.fsencode(str(dataset.place))).hexdigest()[:8]
    images = decode_all(contents, key, size, None if config.no_cache else config.cache_dir, config.allow_partial)
    if images:
        parts = parts.map(images.part)
        for what, part in (("training", parts.fit), ("selecting", parts.select), ("test", parts.test)):
            if not len(part):
                raise UserError(f"{dataset.name}: no image of the {what} part can be read. Get the images again.")
        if images.bad:
            unread = [f"{name} can't be read: {reason}" for name, reason in images.bad.items()]
            total = f"{len(unread):,} images left out: they can't be read"
            contents = replace(contents, differences=(*contents.differences, total, *unread))
    whole = with_digests(parts)
    parts, notes = separate(whole, config.protocol, dataset.own, config.allow_partial)
    emptied = set(contents.train.labels.tolist()) - set(parts.fit.labels.tolist())
    notes += [f"class {contents.classes[label]}: no training image is left" for label in sorted(emptied)]
    # refused but for --allow-partial
    if dataset.own and config.allow_partial and copies_of_test(whole, config.protocol):
        contents = replace(contents, differences=(*contents.differences, *notes))
    else:
        contents = replace(contents, notes=(*contents.notes, *notes))
    return replace(contents, notes=(*contents.notes, *contradictions(whole))), parts


def with_digests(parts: Parts) -> Parts:
    """Parts that were read as pixels, with the digests of their images; a table that parts share is digested once."""
    known: dict[int, list[str]] = {}

    def digested(part: Part) -> Part:
        if not isinstance(part.images, np.ndarray) or part.digests is not None:
            return part
        if id(part.images) not in known:
            known[id(part.images)] = [digest(image) for image in part.images]
        return replace(part, digests=known[id(part.images)])

    return parts.map(digested)


def decode_few(part: Part, count: int, size: tuple[int, int], allow_unreadable: bool) -> Part:
    """At most `count` images, evenly spread over the part, decoded in memory.

    UserError: one can't be read (unless `allow_unreadable`), or none.
    """
    few = part.take(np.unique(np.linspace(0, len(part) - 1, count).round().astype(np.int64)))
    if isinstance(part.images, np.ndarray):
        return few
    pixels: dict[int, npt.NDArray[np.uint8]] = {}
    for index, (reference, name) in enumerate(zip(few.entries(references_of(few)), few.names, strict=True)):
        try:
            pixels[index] = resize(load(reference), size)
        except UnreadableError as problem:
            if not allow_unreadable:
                raise UserError(f"{name} can't be read: {problem}. Get it again, or repair it.") from problem
    if not pixels:
        raise UserError(f"none of {len(few):,} images can be read, {few.names[0]} for one. Get them again.")
    return replace(few.take(np.array([*pixels])), images=np.stack([*pixels.values()]), rows=None, digests=None)
