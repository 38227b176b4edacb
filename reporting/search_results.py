"""How a search by little fine-tuning went: rungs of which each trains those that can still win a little further."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from reporting.fields import LONGEST_PATH, maybe, number, shortened, some, text

MOST_BACKBONES, MOST_RUNGS = 1000, 100  # that a file can say and a report still shows


@dataclass(frozen=True)
class Candidate:
    """How a backbone did on a rung."""

    name: str
    score: float | None  # by the validation part, 0 to 1
    low: float | None  # of its 95 % interval
    high: float | None
    status: str


@dataclass(frozen=True)
class Rung:
    """One round of a search."""

    epochs: float | None
    candidates: tuple[Candidate, ...]
    kept: tuple[str, ...]


@dataclass(frozen=True)
class Search:
    """How successive halving went, as far as its file says it."""

    budget: str  # in words
    spent_images: float | None
    spent_seconds: float | None
    full_grid_images: float | None  # that training all of them in full would have taken
    rungs: tuple[Rung, ...]
    recommendation: str  # "": none
    runner_up: str  # "": none
    told_apart: bool | None  # whether the two can be
    complete: bool | None
    stopped_early: bool | None
    command: str  # that trains the recommended one in full; "": it does not say


def as_search(content: Mapping[str, Any]) -> Search:
    """What a file's JSON says of a search. Raises KeyError, TypeError and the like where a field is of another kind."""
    command = content.get("command")

    def flag(name: str) -> bool | None:
        return None if content.get(name) is None else bool(content[name])

    return Search(
        budget=text(content.get("budget") or ""),
        spent_images=maybe(number, content.get("images")),
        spent_seconds=maybe(number, content.get("seconds")),
        full_grid_images=maybe(number, content.get("full_grid_images")),
        rungs=tuple(map(_rung, some(content["rungs"], MOST_RUNGS))),
        recommendation=text(content.get("recommendation") or ""),
        runner_up=text(content.get("runner_up") or ""),
        told_apart=flag("told_apart"),
        complete=flag("complete"),
        stopped_early=flag("stopped_early"),
        command=text(command, LONGEST_PATH) if isinstance(command, str) else "",
    )


def _rung(content: Mapping[str, Any]) -> Rung:
    return Rung(
        maybe(number, content.get("epochs")),
        tuple(map(_candidate, some(content.get("candidates") or [], MOST_BACKBONES))),
        tuple(text(name) for name in some(content.get("kept") or [], MOST_BACKBONES)),
    )


def _candidate(content: Mapping[str, Any]) -> Candidate:
    ends = some(content.get("interval") or [None], 2)
    return Candidate(
        text(content["name"]),
        maybe(number, content.get("score")),
        maybe(number, ends[0]),
        maybe(number, ends[-1]),
        shortened(str(content.get("status") or "")),
    )
