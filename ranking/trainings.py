"""The trainings of a search: what is asked for, and running them as cells of a grid."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from engine.errors import RunError, UserError, disk_errors_explained
from engine.records.run_folder import FULL
from grids.cells import Cell
from grids.estimate import Speeds
from grids.ledger import (
    MENDABLE,
    Standing,
    all_records,
    clear_leftovers,
    grid_folder,
    make_folder,
    mark_retried,
    standing_now,
    to_be_tried,
)
from grids.offer import Offer, of_this_machine
from grids.running import Grid, signals_to
from grids.view import View, choose_view
from ranking.candidates import RECIPE
from ranking.watch import Watch

NO_ROOM = tuple(os.strerror(number).lower() for number in FULL)
STALL_MINUTES = 30.0  # without a sign of life, after which a training has failed, as grid.py has it

MakeCell = Callable[[str, int | None], Cell]  # backbone, epochs (None: the full recipe) -> its cell


@dataclass(frozen=True)
class Candidate:
    """A backbone that is searched among."""

    name: str
    weights_sha256: str | None
    images_per_second: float | None = None  # of training, measured on this device; a budget of seconds needs it
    seconds_around: float = 0.0  # of a run: its start, its plan, the last evaluation


@dataclass(frozen=True)
class Request:
    """What is searched for."""

    dataset: str  # its key
    identity: Mapping[str, Any]  # JSON-ready: the split, and all settings that can change a score
    candidates: Sequence[Candidate]  # best first, by frozen features
    images: int  # to train on, an epoch
    full: int  # epochs of the full recipe
    make: MakeCell
    out: Path
    select: str = "top1"  # the metric that chooses, as --select names it
    view: Callable[[], AbstractContextManager[View]] = choose_view
    offer: Offer | None = None  # where its trainings run; None: on this machine
    beside: int = 0  # passes of the images that a training takes beside its epochs

    @property
    def whole_identity(self) -> dict[str, Any]:
        """All that tells this search from others; neither the budget nor the order, which the ledger keeps."""
        weights = {each.name: each.weights_sha256 for each in self.candidates}
        numbers = {"images": self.images, "full": self.full, "select": self.select, "recipe": RECIPE}
        return {"search": dict(self.identity), "candidates": dict(sorted(weights.items())), **numbers}

    def cell(self, name: str, epochs: int, mark: str) -> Cell:
        """The cell of a training; one by the full recipe is a run like every other, and bears no mark."""
        if epochs >= self.full:
            return self.make(name, None)
        return replace(self.make(name, epochs), search=mark)


def train_winner(request: Request, name: str) -> Standing:
    """Train one candidate by the full recipe, or find it done: an ordinary run. RunError, UserError: it failed.

    The standing says "done", or "interrupted" where a stop was asked for.
    """
    make_folder(request.out)
    cell = request.cell(name, request.full, "")
    found, _ = run_cells(request, [cell], lambda _grid: None)
    if found[cell.id].status == "failed":
        raise error_of(found[cell.id], f"{cell.title} failed")
    return found[cell.id]


def run_cells(
    request: Request, cells: Sequence[Cell], tick: Callable[[Grid], None]
) -> tuple[dict[str, Standing], Watch | None]:
    """Run those that are not done. Returns how far each cell, by its id, has come, and what was seen if any ran.

    tick: called several times a second; it may ask the grid to stop. RunError: there is no room on the disk, which says
    nothing of a backbone; what ended by that is tried again.
    """
    standings = {cell.id: _tried_again(cell, standing_now(cell)) for cell in cells}
    if not any(to_be_tried(each, False) for each in standings.values()):
        return standings, None
    offer, known = offer_of(request), all_records(request.out)
    speeds = Speeds(offer.device_name(known), known)
    places = offer.places(speeds)
    grid = Grid(cells, standings, speeds, places, False, STALL_MINUTES)
    grid.keep_records = True
    with request.view() as inner, signals_to(grid):
        watch = Watch(offer.shown(places, inner), lambda: tick(grid))
        grid.run(watch)
    clear_leftovers(request.out)
    watch.stopped = grid.stop_level > 0
    for cell in cells:
        if had_no_room(found := grid.standings[cell.id]):
            raise error_of(found, f"{cell.title} could not be ended")
    return grid.standings, watch


def had_no_room(found: Standing) -> bool:
    """Whether a training failed by a full disk."""
    failure = found.failure
    said = [failure.reason, *failure.tail] if failure and found.status == "failed" else []
    return any(words in line.lower() for line in said for words in NO_ROOM)


def _tried_again(cell: Cell, found: Standing) -> Standing:
    """The same; of one that failed by a full disk, which is to be tried again, that it was interrupted."""
    if not (found.failure and had_no_room(found)):
        return found
    with disk_errors_explained("a search can't go on in", grid_folder(cell.config.out), "Make room there."):
        mark_retried(cell, found.failure)
    return standing_now(cell)


def offer_of(request: Request) -> Offer:
    """Where its trainings can run."""
    return request.offer or of_this_machine(request.cell(request.candidates[0].name, 1, "").config)


def error_of(found: Standing, what: str) -> UserError | RunError:
    """What a failed training ends the command with."""
    failure = found.failure
    message = f"{what}: {failure.reason if failure else 'nobody knows why'}"
    return UserError(message) if failure and failure.exit_code == MENDABLE else RunError(message)
