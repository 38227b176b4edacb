"""Which data and weights cells lack on this machine, and what mends that: nothing is fetched, and nothing written."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from common import Dataset
from engine.console import size_text
from engine.data.inventory import DiskState, look
from engine.errors import counted, one_line
from engine.models.backbone import WEIGHTS
from engine.models.weights_folder import is_path
from grids.cells import Cell
from grids.ledger import shortened

if TYPE_CHECKING:
    from engine.models.at_hand import WeightsState

INDENT = " " * 11
WIDTH = 110
MOST_LETTERS = 160  # of what is wrong, where the script will say it in full


@dataclass(frozen=True)
class Missing:
    """What is known of the data and of the weights that cells need."""

    data: Mapping[str, DiskState]  # by the cells' place
    made: Collection[Path]  # folders of datasets that the grid makes, so that they can be fetched
    weights: Mapping[tuple[str, str], WeightsState | None]  # by the cells' row and --weights; None: they are here

    def stops(self, cell: Cell) -> bool:
        """Whether the cell can't run as things are, whatever this machine reaches."""
        return self.data_stops(cell) or self.weights_stop(cell)

    def data_stops(self, cell: Cell) -> bool:
        """Whether that is for its images."""
        state = self.data[cell.place]
        if state.status in ("complete", "archive") or (state.status == "incomplete" and cell.config.allow_partial):
            return False
        return not self.is_fetched(cell)

    def weights_stop(self, cell: Cell) -> bool:
        """Whether that is for its weights."""
        state = self.weights[_weights_of(cell)]
        return state is not None and bool(state.problem) and cell.config.weights != "auto"

    @property
    def weights_to_fetch(self) -> list[WeightsState]:
        """Those that are fetched on first use."""
        return [state for state in self.weights.values() if state and state.file]

    def is_fetched(self, cell: Cell) -> bool:
        """Whether its images are fetched on first use."""
        state = self.data[cell.place]
        makes = cell.config.data_dir in self.made and state.status in ("absent", "part of it")
        return state.fetched or makes

    def data_words(self, cell: Cell) -> str:
        """The state of its images, for a table."""
        state = self.data[cell.place]
        if state.status == "complete":
            return "there"
        if self.is_fetched(cell):
            return f"fetched on first use{'' if state.bytes is None else f' ({size_text(state.bytes)})'}"
        if state.status == "incomplete" and cell.config.allow_partial:
            return f"incomplete: {state.differences[0]}"
        named = f"{state.status}: " if state.status in ("incomplete", "unusable") else ""
        what = one_line(state.what_to_do.splitlines()[0]).removeprefix("to be got ")
        return f"{named}{shortened(what, MOST_LETTERS)}"


def find_missing(cells: Iterable[Cell], made: Collection[Path]) -> Missing:
    """What is there for each dataset and backbone of `cells`. Lists are read and files counted, no image is decoded."""

    data: dict[str, DiskState] = {}
    weights: dict[tuple[str, str], WeightsState | None] = {}
    for cell in cells:
        if cell.place not in data:
            data[cell.place] = _look(cell.dataset, cell.config.data_dir)
        if _weights_of(cell) not in weights:
            weights[_weights_of(cell)] = _look_for(cell)
    return Missing(data, made, weights)


def _look(dataset: Dataset, data_dir: Path) -> DiskState:
    if not (dataset.files or dataset.folder or dataset.own_folder):  # its script has it in itself, or finds it
        return DiskState("complete", "")
    return look(dataset, data_dir, verify=False)


def _look_for(cell: Cell) -> WeightsState | None:
    choice = cell.config.weights
    if choice == "none" or (choice not in WEIGHTS and is_path(choice)):  # else the flag was refused
        return None
    from engine.models.at_hand import look_for  # torchvision, which takes seconds to import

    return look_for(cell.backbone, choice)


def _weights_of(cell: Cell) -> tuple[str, str]:
    return cell.row, cell.config.weights


def missing_lines(cells: Sequence[Cell], missing: Missing) -> list[str]:
    """What is to be fetched for `cells`, what can't be, and how many can't run as things are."""
    lines = [*_fetched_lines(cells, missing), *_weights_lines(missing)]
    stopped = [cell for cell in cells if missing.stops(cell)]
    if stopped:
        data = dict.fromkeys(cell.dataset_name for cell in stopped if missing.data_stops(cell))
        weights = dict.fromkeys(cell.row for cell in stopped if missing.weights_stop(cell))
        lack = [f"data of {', '.join(data)}"] * bool(data) + [f"weights of {', '.join(weights)}"] * bool(weights)
        lines += filled(
            f"can't run  {len(stopped):,} of {counted(len(cells), 'cell')}, for lack of {' and '.join(lack)}"
        )
    return lines


def _weights_lines(missing: Missing) -> Iterator[str]:
    """What becomes of weights that are not here, each file once, by where it is."""
    for (row, choice), state in missing.weights.items():
        if state and state.problem:
            then = ": it would begin from random ones" if choice == "auto" else ""
            yield from filled(
                f"weights    {row} has none here{then}: {shortened(one_line(state.problem), MOST_LETTERS)}"
            )
    sources: dict[str, dict[str, str]] = {}
    to_fetch = missing.weights_to_fetch
    for state in to_fetch:
        size = "size not stated" if state.bytes is None else size_text(state.bytes)
        sources.setdefault(state.source, {})[state.file] = f"{state.file} ({size})"
    if not sources:
        return
    yield f"weights    fetched on first use: {counted(sum(map(len, sources.values())), 'file')}"
    for source, files in sources.items():
        yield from filled(f"{INDENT}{source}/: {', '.join(files.values())}")
    folders = dict.fromkeys(str(state.folder) for state in to_fetch if state.folder)
    by_hand = f"put them into {', '.join(folders)}, or " if folders else ""
    yield from filled(f"{INDENT}Without a network: {by_hand}--weights FILE (of one backbone) or none (random ones).")


def _fetched_lines(cells: Sequence[Cell], missing: Missing) -> list[str]:
    """How much is fetched for the datasets that can be."""
    fetched = [cell for cell in cells if missing.is_fetched(cell)]
    if not fetched:
        return []
    files = files_to_fetch(fetched)
    known = sum(size or 0 for size in files.values())
    unknown = sum(size is None for size in files.values())
    more = f", and {counted(unknown, 'file')} whose size nobody states" if unknown else ""
    datasets = counted(len({cell.place for cell in fetched}), "dataset")
    return filled(f"data       {datasets} fetched on first use, {size_text(known)}{more}, if this machine reaches them")


def files_to_fetch(cells: Iterable[Cell]) -> dict[Path, int | None]:
    """The files of their datasets that are not there, each once, and their bytes; None: nobody states them."""
    paths = {
        cell.config.data_dir.absolute() / file.name: file.bytes
        for cell in {cell.place: cell for cell in cells}.values()
        for file in cell.dataset.files
    }
    return {path: size for path, size in paths.items() if not path.exists()}


def filled(line: str) -> list[str]:
    """The line, broken between words, as long lists need it also where nobody's terminal breaks them."""
    return textwrap.wrap(
        line, WIDTH, subsequent_indent=INDENT, break_long_words=False, break_on_hyphens=False, drop_whitespace=True
    )
