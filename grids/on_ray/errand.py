"""What goes to and fro between a grid and the nodes of a Ray cluster."""

from __future__ import annotations

import os
from dataclasses import dataclass, field, replace
from pathlib import Path

from common import Dataset
from engine.data.declaration import ReadOptions
from engine.data.file_kinds import visible
from engine.data.part import RawSplits
from engine.errors import RunError
from engine.models.weights_folder import is_path
from engine.paths import PROJECT
from grids.cells import Cell

KILLED = -9  # the exit code of what was ended by SIGKILL
Parcel = dict[str, dict[str, bytes]]  # folders of runs, relative to --out, and what their files hold


@dataclass(frozen=True)
class Errand:
    """An attempt at a cell, as it travels to a node."""

    cell: Cell  # its dataset can't be read: functions of the user's own scripts don't travel
    token: str  # of this attempt alone
    seeds: int  # how many cells are to come that differ in their seed alone, this one included
    shared: bool  # whether others run on the same card
    hints: dict[str, str]  # more environment variables
    mark: Path  # a file under --out that holds the token, which a node sees if it shares the folder
    needs: tuple[Path, ...]  # what the cell reads that lies on the grid's machine, and should lie there on the node
    send_seconds: float = 60.0  # between two sends of what a run has saved, from a node that does not share --out
    folder: Path = field(default_factory=Path.cwd)  # that the grid was started in
    project: Path = PROJECT  # where the project lies on the grid's machine

    @property
    def whole_paths(self) -> list[str]:
        """Words that make the paths of the cell's command those of the grid's folder, for a node that lacks it."""
        config = self.cell.config
        places = {"--out": config.out, "--data-dir": config.data_dir, "--labels": config.labels}
        if "--cache-dir" in self.cell.command:
            places["--cache-dir"] = config.cache_dir
        words = {flag: str(self.folder / path) for flag, path in places.items() if path}
        if is_path(config.weights):
            words["--weights"] = config.weights
        return [word for pair in words.items() for word in pair]


def needs_of(cell: Cell) -> tuple[Path, ...]:
    """What the cell reads of this machine's disk."""
    config, script = cell.config, Path(cell.command[0])
    own = [] if script.is_relative_to(PROJECT) else [script]
    weights = [Path(config.weights)] if is_path(config.weights) else []
    data = [config.data_dir] if config.data_dir.is_dir() and any(visible(config.data_dir)) else []
    return tuple(path.absolute() for path in (*own, *data, *filter(None, [config.labels]), *weights) if path.exists())


def travelling(cell: Cell) -> Cell:
    """The cell without its dataset's functions, which pickle may not find on a node; its id is the same."""
    mine = cell.dataset
    card = Dataset(key=mine.key, version=mine.version, own_folder=mine.own_folder, read=_read)
    return replace(cell, dataset=card)


def _read(options: ReadOptions) -> RawSplits:
    raise NotImplementedError("nothing is read by a cell that travels, but by its command")


@dataclass(frozen=True)
class Order:
    """What the grid wants of an attempt."""

    cell: str  # its id
    out: Path  # where its runs are kept on the grid's machine
    begun: tuple[Path, ...]  # the folders, in there, of its runs that were begun or done earlier
    stop: int = 0  # 1: after the epoch, 2: at once
    stall_seconds: float = float("inf")  # without a sign of life, after which it is ended


@dataclass(frozen=True)
class Ending:
    """How an attempt came to its end."""

    code: int
    tail: list[str]
    stalled: bool = False
    left: bool = False  # whether it ended since nothing was heard of the grid
    unfit: str = ""  # why the node can't run such cells; "": it can
    log: bytes = b""  # what was printed, where the node could not write it to --out itself


@dataclass(frozen=True)
class Sign:
    """A sign of life of an attempt."""

    doing: str
    card: str = ""  # those that it has to itself
    sees_out: bool = True  # whether the node shares the folder --out


def missing_words(node: str, path: Path) -> str:
    """What is said where a node lacks something that the cell reads."""
    return (
        f"error: node {node} has no {path}, which is there where the grid runs. Put it there, under the same path, or "
        "where all nodes see it (--data-dir)."
    )


def refused(problem: OSError, node: str) -> Ending:
    """The end of an attempt that the node's disk refused."""
    return Ending(RunError.exit_code, [f"error: node {node}: {problem}"])


def threads() -> dict[str, str]:
    """What the grid was told of a process's threads, for its cells: as where they are its own children."""
    value = os.environ.get("OMP_NUM_THREADS")
    return {"OMP_NUM_THREADS": value} if value else {}
