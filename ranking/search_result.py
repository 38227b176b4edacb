"""What a search comes to, for JSON and for people."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

from engine import INTERRUPTED
from engine.console import duration
from engine.errors import counted
from engine.training.metrics import METRICS
from ranking.budget import Budget, images_text
from ranking.halving import Rung, Score, are_told_apart, chance
from ranking.search_ledger import Ledger, RungKept
from reporting.one_dataset import share

TEST = "Fisher's exact test over the validation images, at 95 %"
TOP1 = "top1"

# why a search has ended, as its ledger has it
BY_PLAN, SETTLED, ALONE, IN_FULL = "plan", "settled", "alone", "full"
# and why it has not
OUT_OF_TIME, TOO_LITTLE, STOPPED = "out of time", "too little left", "interrupted"


@dataclass(frozen=True)
class Standing:
    """One candidate in one rung."""

    name: str
    status: str  # "done" or "failed"
    score: float | None
    interval: tuple[float, float] | None
    loss: float | None
    epoch: int | None
    images: int
    seconds: float
    folder: str
    reason: str
    lay_there: bool


@dataclass(frozen=True)
class RungResult:
    """One rung that has ended; the candidates best first."""

    epochs: int
    candidates: list[Standing]
    kept: list[str]  # that the next rung had, if there was one


@dataclass(frozen=True)
class SearchResult:
    """What came of a search; JSON-ready by as_json()."""

    budget: str
    select: str  # the metric that chooses
    judged: int  # images that it is of
    images: int  # training images that the search went through
    seconds: float
    full_grid_images: int  # that all candidates in full would take
    full_epochs: int
    rungs: list[RungResult]
    left_out: dict[str, str]  # candidate -> why it is not in the last rung
    complete: bool  # whether the search has come to its end
    why: str  # why it ended, or stopped
    stopped_early: bool  # as no other of the last rung could win: see halving.is_settled()
    recommendation: str | None  # None: no rung has ended
    epochs: int  # of the last rung that the recommended was in
    score: float | None  # of the recommended, in that rung
    runner_up: str | None
    told_apart: bool | None  # None: there is no runner-up
    p: float | None  # of the test of these two
    test: str = TEST
    tied: list[str] = field(default_factory=list)  # that can't be told from the recommended

    @property
    def exit_code(self) -> int:
        """Of the command."""
        return INTERRUPTED if self.why == STOPPED else 0

    def as_json(self) -> dict[str, Any]:
        """As JSON has it."""
        return asdict(self)

    def lines(self) -> list[str]:
        """What is printed at the end."""
        return _lines(self)


def result_of(ledger: Ledger, candidates: Sequence[str], budget: Budget, select: str, why: str) -> SearchResult:
    """What the finished rungs of `ledger` come to. why: as the ledger has it, or why the search has not ended."""
    plan, finished = ledger.plan, ledger.finished
    assert plan
    last = finished[-1] if finished else None
    first = last.scores[0] if last else None
    against = versus(finished, first) if first else {}
    runner_up = next(iter(against), None)
    p = chance(*against[runner_up]) if runner_up else None
    return SearchResult(
        budget=budget.flag,
        select=select,
        judged=first.images if first else 0,
        images=ledger.unfinished + sum(each.trained for rung in finished for each in rung.results),
        seconds=round(ledger.seconds, 1),
        full_grid_images=plan.cost_of(Rung(len(candidates), plan.full)),
        full_epochs=plan.full,
        rungs=[_rung(rung, ledger.rungs[place + 1 :]) for place, rung in enumerate(finished)],
        left_out=_left_out(ledger),
        complete=bool(ledger.ended),
        why=why,
        stopped_early=ledger.ended == SETTLED,
        recommendation=first.name if first else None,
        epochs=last.epochs if last else 0,
        score=first.score if first else None,
        runner_up=runner_up,
        told_apart=are_told_apart(*against[runner_up]) if runner_up else None,
        p=p,
        tied=[name for name, pair in against.items() if not are_told_apart(*pair)],
    )


def versus(finished: Sequence[RungKept], first: Score) -> dict[str, tuple[Score, Score]]:
    """By every other candidate: the first's score and its own, in the last rung that both took part in.

    Those of later rungs come first, and in each the better ones.
    """
    found: dict[str, tuple[Score, Score]] = {}
    for rung in reversed(finished):
        own = next((each for each in rung.scores if each.name == first.name), None)
        for each in rung.scores if own else ():
            if own and each.name != first.name:
                found.setdefault(each.name, (own, each))
    return found


def _rung(rung: RungKept, later: Sequence[RungKept]) -> RungResult:
    rows = []
    for each in rung.results:
        interval = each.as_score().interval if each.score is not None else None
        measured = (each.score, interval, each.loss, each.epoch, each.trained, round(each.seconds, 1))
        there = each.name in (rung.lay_there or ())
        rows.append(Standing(each.name, each.status, *measured, each.folder, each.reason, there))
    return RungResult(rung.epochs, rows, list(later[0].names) if later else [])


def _left_out(ledger: Ledger) -> dict[str, str]:
    assert ledger.plan
    reasons = dict.fromkeys(ledger.plan.left_out, "the budget does not pay for it, and it is last by the order")
    for number, rung in enumerate(ledger.rungs):
        names = set(ledger.rungs[number + 1].names) if ledger.rungs[number + 1 :] else None
        for place, each in enumerate(rung.results, 1):
            if each.status == "failed":
                reasons[each.name] = f"failed: {each.reason}"
            elif names is not None and each.name not in names:
                reasons[each.name] = f"number {place} after {counted(rung.epochs, 'epoch')}: {percent(each.score)}"
    return reasons


def percent(score: float | None) -> str:
    """A score, which is a share, for people."""
    return "-" if score is None else share(score)


def judged_text(score: float | None, select: str, images: int) -> str:
    """A validation score in plain words."""
    if select == TOP1:
        return f"{percent(score)} of {images:,} validation images right"
    return f"{METRICS[select].label} {percent(score)} on {images:,} validation images"


def _lines(found: SearchResult) -> list[str]:
    part = found.images / found.full_grid_images
    cost = (
        f"cost       {images_text(found.images)}, {part:.0%} of the {found.full_grid_images:,} of the full grid, in "
        f"{duration(found.seconds)}"
    )
    if found.recommendation is None:
        return [*_unfinished(found), "answer     no rung has ended: what there is rests on frozen features alone", cost]
    after = f"after {counted(found.epochs, 'epoch')}"
    judged = judged_text(found.score, found.select, found.judged)
    lines = [*_unfinished(found), f"answer     Take {found.recommendation}: {judged} {after}."]
    if found.runner_up:
        lines.append(f"runner-up  {_runner_up(found)}")
    others = [name for name in found.tied if name != found.runner_up]
    if others:
        what = "can't be told from it either, in the last rung that both were in"
        lines.append(f"tied       {', '.join(others)} {what}")
    failed = [f"{name} ({why})" for name, why in found.left_out.items() if why.startswith("failed: ")]
    return [*lines, *([f"left out   {'; '.join(failed)}"] if failed else []), cost]


def _runner_up(found: SearchResult) -> str:
    scores = {
        each.name: (each.score, rung.epochs)
        for rung in found.rungs
        for each in rung.candidates
        if each.score is not None
    }
    assert found.runner_up
    score, epochs = scores[found.runner_up]
    told = "can be told apart" if found.told_apart else "can't be told apart"
    p = "p < 0.001" if found.p is not None and found.p < 0.001 else f"p = {found.p:.2g}"
    ahead = score is not None and found.score is not None and score > found.score and epochs == found.epochs
    why = "; within a standard error of each other, the order by the features decides" if ahead else ""
    after = f"{percent(score)} after {counted(epochs, 'epoch')}"
    return f"{found.runner_up}, {after}: they {told} ({found.test}: {p}){why}"


def _unfinished(found: SearchResult) -> list[str]:
    number = len(found.rungs) + 1
    why = {
        SETTLED: "of those still in, no other can win at 95 %, if longer trainings rank them as these did: the rest of "
        "the budget is not spent",
        ALONE: "all others have failed",
        IN_FULL: "the last trainings were those of the full recipe: there is nothing longer to train",
        OUT_OF_TIME: f"the budget ran out in rung {number}, which is not finished and not counted; nothing is lost, "
        "and a larger --budget goes on where it stopped",
        TOO_LITTLE: f"what is left of the budget does not pay for rung {number}; a larger --budget goes on with it",
        STOPPED: f"interrupted in rung {number}: the same command continues",
    }.get(found.why)
    return [f"note       {why}"] if why else []
