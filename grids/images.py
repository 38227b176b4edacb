"""Which split a cell would train on now, as far as that is known without decoding an image."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from common import Dataset
from engine.data.cache import NotDecodedError
from engine.data.declaration import Protocol
from engine.data.load import DecodeOptions, decode, divide, read
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
    )
    return _split(source, config.seed, config.budget)


def forget() -> None:
    """A script may have decoded images since."""
    _split.cache_clear()
    _raw.cache_clear()


@cache
def _split(source: _Source, seed: int, budget: Budget) -> str | None:
    options = DecodeOptions(
        source.size, source.cache_dir, source.protocol, source.allow_partial, budget, kept_only=True
    )
    try:
        raw = _raw(source)
        if raw is None:
            return None
        return decode(source.dataset, raw, divide(raw, source.protocol, seed, budget), options)[1].hash
    except (UserError, NotDecodedError, OSError):  # what is wrong, the script will say
        return None


@cache
def _raw(source: _Source) -> RawSplits | None:
    try:
        return read(source.dataset, source.data_dir, source.allow_partial, source.protocol, fetch=False)
    except (UserError, OSError):
        return None
