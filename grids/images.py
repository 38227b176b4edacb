"""Which split a cell would train on now, as far as that is known without decoding an image."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from common import Dataset
from engine.data.cache import Decoded, NotDecodedError
from engine.data.declaration import Protocol
from engine.data.folds import fold_of
from engine.data.load import DecodeOptions, divide, images_of, read, with_pixels
from engine.data.part import RawSplits
from engine.data.splits import Budget
from engine.errors import UserError
from grids.cells import Cell


@dataclass(frozen=True)
class _Source:
    """Where images come from, and how they are read."""

    dataset: Dataset = field(compare=False)
    key: str
    own_folder: Path | None
    data_dir: Path
    cache_dir: Path | None
    size: tuple[int, int]
    protocol: Protocol
    allow_partial: bool
    folds: int | None

    def options(self, budget: Budget) -> DecodeOptions:
        """How its images would be decoded, where they are not yet."""
        return DecodeOptions(self.size, self.cache_dir, self.protocol, self.allow_partial, budget, kept_only=True)


def split_of(cell: Cell) -> str | None:
    """The hash of the split, as records have it; None: the images have yet to be decoded, or are not there.

    What is found is remembered until forget().
    """
    dataset, config = cell.dataset, cell.config
    source = _Source(
        dataset,
        dataset.key,
        dataset.own_folder,
        config.data_dir.absolute(),
        None if config.no_cache else config.cache_dir.absolute(),
        dataset.cached_size or config.size,
        config.protocol,
        config.allow_partial,
        config.folds,
    )
    return _split(source, config.seed, config.budget, config.fold)


def forget() -> None:
    """A script may have decoded images since."""
    _split.cache_clear()
    _decoded.cache_clear()


@cache
def _split(source: _Source, seed: int, budget: Budget, fold: int | None) -> str | None:
    known = _decoded(source)
    if known is None:
        return None
    raw, images = known
    try:
        if source.folds and fold:
            raw = fold_of(raw, source.folds, fold)
        splits = divide(raw, source.protocol, seed, budget)
        return with_pixels(source.dataset, raw, splits, images, source.options(budget))[1].hash
    except UserError:  # what is wrong, the script will say
        return None


@cache
def _decoded(source: _Source) -> tuple[RawSplits, Decoded | None] | None:
    """What is read of the files, and their pixels, which all seeds, budgets and folds share; None: there are none."""
    try:
        raw = read(source.dataset, source.data_dir, source.allow_partial, source.protocol, False, source.folds)
        return raw, images_of(source.dataset, raw, source.options(None))
    except (UserError, NotDecodedError, OSError):
        return None
