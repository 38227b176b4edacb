"""What a search has decided and spent, in one file under OUT/rank: what a kill must not cost."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from engine.console import say
from engine.errors import disk_errors_explained, reason_of
from engine.files import is_sealed, json_digest, read_json, set_aside, write_json
from engine.records.schema import RANK_FOLDER
from ranking.budget import Budget
from ranking.halving import Plan, Rung, Score

SCHEMA = 1  # raised when a field changes its meaning
ENDING = ".ledger.json"


@dataclass
class Result:
    """What came of one candidate in a rung."""

    name: str
    status: str  # "done" or "failed"
    score: float | None = None  # of the metric that chooses, 0 to 1
    loss: float | None = None  # None: the history can't be read
    judged: int = 0  # images of the part that chooses
    epoch: int | None = None  # the chosen one
    trained: int = 0  # training images that this search went through for it
    seconds: float = 0.0  # that its process took, as far as this search saw; 0: it lay there
    seconds_an_epoch: float | None = None
    folder: str = ""  # of the run
    reason: str = ""  # why it failed

    def as_score(self) -> Score:
        """What it is ranked by."""
        assert self.score is not None
        return Score(self.name, self.score, float("inf") if self.loss is None else self.loss, self.judged)


@dataclass
class RungKept:
    """A rung that was begun."""

    place: int  # in the plan
    names: list[str]
    epochs: int
    extra: int = 0  # of the names, how many were kept as they could not be told apart
    smaller: bool = False  # than planned, by what was left
    lay_there: list[str] | None = None  # whose run was finished before, not for this search; None: not looked yet
    results: list[Result] = field(default_factory=list)  # ranked, the failed ones last; empty: it has not ended

    @property
    def scores(self) -> list[Score]:
        """Of those that did not fail, best first."""
        return [each.as_score() for each in self.results if each.status == "done"]


@dataclass
class Ledger:
    """All that is kept of a search."""

    path: Path
    identity: Mapping[str, Any]
    plan: Plan | None = None
    asked: Budget = field(default_factory=Budget)  # that the plan was made for
    rungs: list[RungKept] = field(default_factory=list)
    ended: str = ""  # why no further rung is to come; "": one may be
    seconds: float = 0.0  # spent
    unfinished: int = 0  # training images that the rung which has not ended went through, as far as it is known
    made_anew: bool = False  # in place of one that was damaged

    @property
    def finished(self) -> list[RungKept]:
        """The rungs that have ended."""
        return [rung for rung in self.rungs if rung.results]

    @property
    def planned_images(self) -> int:
        """What the rungs that were begun take by the plan, in training images."""
        assert self.plan
        return sum(self.plan.cost_of(Rung(len(rung.names), rung.epochs)) for rung in self.rungs)

    def save(self) -> None:
        """Write it. UserError, RunError: it can't be."""
        content = {
            "schema": SCHEMA,
            "identity": dict(self.identity),
            "plan": self.plan and asdict(self.plan),
            "asked": asdict(self.asked),
            "rungs": [asdict(rung) for rung in self.rungs],
            "ended": self.ended,
            "seconds": round(self.seconds, 1),
            "unfinished": self.unfinished,
        }
        with disk_errors_explained("a search can't be kept in", self.path.parent, "--out chooses another folder."):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            write_json(self.path, {**content, "checksum": json_digest(_plain(content))})


def _plain(content: Any) -> Any:
    """The same as JSON reads it again: tuples are lists."""
    if isinstance(content, dict):
        return {name: _plain(value) for name, value in content.items()}
    return [_plain(value) for value in content] if isinstance(content, list | tuple) else content


def ledger_path(out: Path, dataset: str, identity: Mapping[str, Any]) -> Path:
    """Where the search is kept that is told from others by its `identity`."""
    return out / RANK_FOLDER / f"{dataset}-{json_digest(identity)[:10]}{ENDING}"


def open_ledger(path: Path, identity: Mapping[str, Any]) -> Ledger:
    """What lies there, or a new one. One that is damaged is named, set aside, and made anew as the search goes on."""
    new = Ledger(path, identity)
    try:
        content = read_json(path)
        return _ledger(content, new)
    except (FileNotFoundError, NotADirectoryError):
        return new
    except OSError as problem:
        damage = f"can't be read: {reason_of(problem)}"
    except (ValueError, TypeError, KeyError, AttributeError) as problem:
        damage = f"is damaged: {problem}"
    with disk_errors_explained("a damaged file can't be set aside:", path.parent, "Move it away."):
        aside = set_aside(path)
    say(f"note       {path} {damage}. It is set aside as {aside.name}, and made anew of the runs' records")
    new.made_anew = True
    return new


def _ledger(content: Any, new: Ledger) -> Ledger:
    stated = content.pop("checksum", None)
    if not is_sealed(content, stated):
        raise ValueError("its checksum is not that of what it says")
    if content["schema"] != SCHEMA or content["identity"] != _plain(dict(new.identity)):
        raise ValueError("it is of another search, or of another version of this project")
    plan = content["plan"]
    if plan:
        steps = tuple(Rung(**rung) for rung in plan["rungs"])
        plan = Plan(**{**plan, "order": tuple(plan["order"]), "left_out": tuple(plan["left_out"]), "rungs": steps})
    rungs = [RungKept(**{**rung, "results": [Result(**each) for each in rung["results"]]}) for rung in content["rungs"]]
    asked = Budget(**content["asked"])
    spent = (float(content["seconds"]), int(content["unfinished"]))
    return Ledger(new.path, new.identity, plan, asked, rungs, str(content["ended"]), *spent)
