"""Which split a cell would train on now, as far as that is known without decoding an image."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path

from common import Dataset
from engine.config import Config
from engine.data.cache import Decoded, NotDecodedError
from engine.data.declaration import Protocol
from engine.data.folds import fold_of
from engine.data.load import DecodeOptions, divide, images_of, read, with_pixels
from engine.data.part import RawSplits
from engine.data.splits import Budget, taken
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
    return _split(_source(cell), cell.config.seed, cell.config.budget, cell.config.fold)


def without_equals(cells: Sequence[Cell]) -> tuple[list[Cell], list[str]]:
    """The cells, of those that come to the same images one alone; and a line for each budget that is left out.

    Several budgets, of which none leaves an image out, are all images: they would be one run made twice. Where the
    images are not there yet, nobody knows.
    """
    several: dict[tuple[str, Config], list[Cell]] = {}
    for cell in sorted(cells, key=lambda cell: (cell.config.shots or 0, cell.config.fraction or 0)):  # all come first
        several.setdefault((cell.place, replace(cell.config, shots=None, fraction=None)), []).append(cell)
    out: set[str] = set()
    lines: dict[str, None] = {}
    for group in several.values():
        equal = [cell for cell in group if len(group) > 1 and _leaves_none_out(cell)]
        for cell in equal[1:]:
            out.add(cell.id)
            what = f"{cell.dataset_name}, {cell.budget}: no class has more images to train on"
            lines[f"{what}, so that this is {equal[0].budget}, which is run once"] = None
    return [cell for cell in cells if cell.id not in out], list(lines)


def _leaves_none_out(cell: Cell) -> bool:
    if cell.config.budget is None:
        return True
    source = _source(cell)
    raw = _listed(source)
    if raw is None:
        return False
    try:
        train = _of_fold(raw, source, cell.config.fold).train
    except UserError:  # what is wrong, the script will say
        return False
    return taken(train.labels, len(raw.classes), cell.config.budget) is None


def _source(cell: Cell) -> _Source:
    dataset, config = cell.dataset, cell.config
    return _Source(
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


def forget() -> None:
    """A script may have decoded images since."""
    _split.cache_clear()
    _decoded.cache_clear()
    _listed.cache_clear()


@cache
def _split(source: _Source, seed: int, budget: Budget, fold: int | None) -> str | None:
    known = _decoded(source)
    if known is None:
        return None
    raw, images = known
    try:
        raw = _of_fold(raw, source, fold)
        splits = divide(raw, source.protocol, seed, budget)
        return with_pixels(source.dataset, raw, splits, images, source.options(budget))[1].hash
    except UserError:  # what is wrong, the script will say
        return None


def _of_fold(raw: RawSplits, source: _Source, fold: int | None) -> RawSplits:
    return fold_of(raw, source.folds, fold) if source.folds and fold else raw


@cache
def _decoded(source: _Source) -> tuple[RawSplits, Decoded | None] | None:
    """What is read of the files, and their pixels, which all seeds, budgets and folds share; None: there are none."""
    raw = _listed(source)
    if raw is None:
        return None
    try:
        return raw, images_of(source.dataset, raw, source.options(None))
    except (UserError, NotDecodedError, OSError):
        return None


@cache
def _listed(source: _Source) -> RawSplits | None:
    """Which images there are; None: nobody can tell, or they are not all there."""
    try:
        return read(source.dataset, source.data_dir, source.allow_partial, source.protocol, False, source.folds)
    except (UserError, OSError):
        return None
