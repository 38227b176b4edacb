"""The parts of a run, from lists of images to pixels: decoded, without what can't be read, without overlap."""

from __future__ import annotations

from dataclasses import replace

from engine.cache import decode_all, decode_few, with_digests
from engine.config import Config
from engine.dataset import Contents, Dataset
from engine.overlap import separate
from engine.reading import Parts


def with_pixels(dataset: Dataset, contents: Contents, parts: Parts, config: Config) -> tuple[Contents, Parts]:
    """`parts`, which `contents` was divided into, with their pixels; and `contents` with what that brought to light.

    For `--check`, no more than a batch of each part is decoded, and nothing is kept. Raises UserError when an image
    can't be read, or is in two parts.
    """
    size = dataset.stored or config.size
    if config.check:
        return contents, parts.map(lambda part: decode_few(part, config.batch_size, size, config.allow_partial))
    images = decode_all(contents, dataset.key, size, config.cache_dir, config.allow_partial)
    if images:
        parts = parts.map(images.part)
        if images.bad:
            unread = f"{len(images.bad):,} images can't be read: {', '.join(images.bad)}"
            contents = replace(contents, differences=(*contents.differences, unread))
    own = not dataset.expected(config.protocol)
    parts, notes = separate(parts.map(with_digests), config.protocol, own, config.allow_partial)
    if own and config.allow_partial and config.protocol == "honest":  # what would have been refused without the flag
        return replace(contents, differences=(*contents.differences, *notes)), parts
    return replace(contents, notes=(*contents.notes, *notes)), parts
