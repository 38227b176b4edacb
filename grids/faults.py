"""Mistakes that several cells share: data that is not there would else be looked for by every cell of its dataset."""

from __future__ import annotations

from dataclasses import dataclass

from grids.cells import Cell
from grids.ledger import Failure

MENDABLE = 2  # the exit code of scripts for what the user can mend


@dataclass(frozen=True)
class Fault:
    """What two cells that ended with the same message have in common; None: they differ in it."""

    dataset: str | None
    model: str | None
    budget: str | None
    message: tuple[str, ...]
    seen: tuple[str, str]  # the titles of the two

    def concerns(self, cell: Cell) -> bool:
        """Whether `cell` has all of it in common with them, and so would end the same way."""
        of_cell = (cell.dataset.key, cell.config.model, cell.budget)
        return all(
            mine in (None, its) for mine, its in zip((self.dataset, self.model, self.budget), of_cell, strict=True)
        )

    def failure(self, cell: Cell) -> Failure:
        """That of `cell`, which is not tried."""
        reason = f"not tried: {self.seen[0]} and {self.seen[1]} ended with the same message"
        return Failure.of(cell, MENDABLE, reason, self.message)


def message_of(tail: list[str]) -> tuple[str, ...]:
    """The message that a script ended with: from its last line that begins with `error:` on."""
    starts = [number for number, line in enumerate(tail) if line.startswith("error:")]
    return tuple(tail[starts[-1] :]) if starts else ()


def shared_fault(cell: Cell, failure: Failure, earlier: list[tuple[Cell, Failure]]) -> Fault | None:
    """The fault of `cell` and of an earlier cell with the same message; None where there is none, or nothing in common.

    The seed is no part of it: what the user can mend does not depend on chance.
    """
    message = message_of(failure.tail)
    if failure.exit_code != MENDABLE or not message:
        return None
    for other, its in reversed(earlier):
        if its.exit_code == MENDABLE and message_of(its.tail) == message:
            pairs = (
                (cell.dataset.key, other.dataset.key),
                (cell.config.model, other.config.model),
                (cell.budget, other.budget),
            )
            dataset, model, budget = (mine if mine == theirs else None for mine, theirs in pairs)
            if dataset or model:
                return Fault(dataset, model, budget, message, (other.title, cell.title))
    return None
