"""Mistakes that several cells share: data that is not there would else be looked for by every cell of its dataset."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from grids.cells import Cell
from grids.ledger import MENDABLE, Failure, failure_now


@dataclass(frozen=True)
class Fault:
    """What two cells that ended with the same message have in common; None: they differ in it."""

    dataset: str | None
    model: str | None
    budget: str | None
    seed: int | None  # it counts only where it draws the training images
    message: tuple[str, ...]
    seen: tuple[str, str]  # the titles of the two

    def concerns(self, cell: Cell) -> bool:
        """Whether `cell` has all of it in common with them, and so would end the same way."""
        common = (self.dataset, self.model, self.budget, self.seed)
        return all(mine in (None, its) for mine, its in zip(common, _traits(cell), strict=True))

    def failure(self, cell: Cell) -> Failure:
        """The failure of `cell`, which is not tried."""
        reason = f"not tried: {self.seen[0]} and {self.seen[1]} ended with the same message"
        return failure_now(cell, MENDABLE, reason, self.message)


def message_of(tail: list[str]) -> tuple[str, ...]:
    """The message that a script ended with: from its last line that begins with `error:` on."""
    starts = [number for number, line in enumerate(tail) if line.startswith("error:")]
    return tuple(tail[starts[-1] :]) if starts else ()


def shared_fault(cell: Cell, failure: Failure, earlier: list[tuple[Cell, Failure]]) -> Fault | None:
    """The fault of `cell` and of an earlier cell with the same message; None: there is none, or nothing in common."""
    message = message_of(failure.tail)
    if failure.exit_code != MENDABLE or not message:
        return None
    for other, its in reversed(earlier):
        if its.exit_code == MENDABLE and message_of(its.tail) == message:
            pairs = zip(_traits(cell), _traits(other), strict=True)
            dataset, model, budget, seed = (mine if mine == theirs else None for mine, theirs in pairs)
            if dataset or model:
                return Fault(dataset, model, budget, seed, message, (other.title, cell.title))
    return None


def _traits(cell: Cell) -> tuple[Any, ...]:
    """What a mistake can lie in. Without a budget the seed draws the same images, but for the validation part."""
    return (cell.place, cell.row, cell.budget, None if cell.budget == "all" else cell.config.seed)
