"""A search at work: the rungs of successive halving as cells of a grid, resumable after a kill at any point.

What was decided is kept in a ledger under OUT/rank and not decided anew; what came out is in the runs' own records,
which the grid and the report know too.
"""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from engine.console import duration, say, wrapped
from engine.errors import UserError, counted, disk_errors_explained
from engine.files import locked
from grids.cells import Cell
from grids.ledger import Standing, make_folder, standing_now
from grids.running import Grid
from ranking.budget import Budget, default_budget
from ranking.halving import (
    Left,
    Next,
    Plan,
    Rung,
    are_told_apart,
    is_settled,
    make_plan,
    more_for,
    next_rung,
    plan_lines,
    ranked,
    ties,
)
from ranking.outcome import failed, outcome, seconds_of, trained_so_far
from ranking.search_ledger import Ledger, Result, RungKept, ledger_path, open_ledger
from ranking.search_result import (
    ALONE,
    BY_PLAN,
    IN_FULL,
    OUT_OF_TIME,
    SETTLED,
    STOPPED,
    TOO_LITTLE,
    SearchResult,
    percent,
    result_of,
    versus,
)
from ranking.trainings import Request, error_of, offer_of, run_cells
from ranking.watch import Watch

# of a budget of seconds: past it, epochs that run may end, and nothing lasts for longer than a tenth more
MOST_OVER = 1.1
SECONDS_TO_END = 5.0  # that a process may take to end when it is told to, on a busy machine


def run_search(request: Request, budget: Budget | None = None) -> SearchResult:
    """Search on, from where an earlier command stopped, as far as the budget goes; by default a quarter of the grid.

    UserError: there are fewer than two candidates, the budget is too small for one rung, or all failed by a mistake
    that can be mended. RunError: all failed.
    """
    budget = budget or default_budget(len(request.candidates), request.images, request.full, request.beside)
    path = ledger_path(request.out, request.dataset, request.whole_identity)
    make_folder(request.out)
    with disk_errors_explained("a search can't be kept in", path.parent, "--out chooses another folder."):
        path.parent.mkdir(parents=True, exist_ok=True)
    with locked(path.with_suffix(".lock"), f"another search is at {path}"):
        return _Search(request, budget, open_ledger(path, request.whole_identity)).run()


class _Search:
    """One command's part of a search."""

    def __init__(self, request: Request, budget: Budget, ledger: Ledger) -> None:
        self.request, self.budget, self.ledger = request, budget, ledger
        self.names = [each.name for each in request.candidates]
        self._per_epoch: dict[str, float] = {}  # seconds, measured or as the caller has it
        self._around: dict[str, float] = {}
        self._slots = 1
        self._out_of_time = False
        for each in request.candidates:
            if each.images_per_second:
                self._per_epoch[each.name] = request.images / each.images_per_second
            self._around[each.name] = each.seconds_around
        if budget.seconds is not None and (unknown := set(self.names) - self._per_epoch.keys()):
            images = default_budget(len(self.names), request.images, request.full, request.beside)
            raise UserError(
                f"--budget {budget.flag}: how fast {', '.join(sorted(unknown))} would train could not be measured. "
                f"Give --budget in images, such as {images.flag}, or name others by --models."
            )
        if budget.seconds is not None and len(self.names) > 1:
            self._slots = offer_of(request).at_once

    def run(self) -> SearchResult:
        """Rung by rung."""
        ledger = self.ledger
        if ledger.plan is None:
            seconds = self._seconds if self.budget.seconds is not None else None
            request = self.request
            plan = make_plan(self.names, request.images, request.full, self.budget, seconds, request.beside)
            ledger.plan, ledger.asked = plan, self.budget
            say(*wrapped(plan_lines(plan, self.budget)))
        for rung in ledger.finished:
            self._learn(rung)
        if ledger.ended:
            self._extend()
        why, went_on = "", not ledger.ended
        while not (ledger.ended or why):
            current = self._current()
            if current:
                why = self._run_rung(current)
                self._learn(current)
            else:
                why = TOO_LITTLE
        if went_on and ledger.ended and self._larger() and self._extended():
            say("note       this was the plan of the smaller budget; the same command again goes on with the rest")
        return self._result(ledger.ended or why)

    def _result(self, why: str) -> SearchResult:
        return result_of(self.ledger, self.names, self.budget, self.request.select, why)

    @property
    def _plan(self) -> Plan:
        assert self.ledger.plan
        return self.ledger.plan

    def _seconds(self, names: Sequence[str], epochs: int) -> float:
        """How long so many epochs of these take, as many at a time as there is room for."""
        passes = epochs + self.request.beside
        each = [self._around[name] + passes * self._per_epoch.get(name, 0.0) for name in names]
        return max([sum(each) / self._slots, *each])

    def _learn(self, rung: RungKept) -> None:
        """Take over what trainings really took."""
        for each in rung.results:
            if each.seconds_an_epoch:
                self._per_epoch[each.name] = each.seconds_an_epoch
                around = each.seconds - (rung.epochs + self.request.beside) * each.seconds_an_epoch
                if around > 0:  # not of a run that lay there, or was resumed
                    self._around[each.name] = around

    def _left(self) -> Left:
        """What is left for further rungs: of the plan's budget, and of a smaller one that this command names."""
        spent, limit = self.ledger.planned_images, self._plan.budget
        if self.budget.seconds is None:
            return Left(min(limit, self.budget.images or 0) - spent)
        return Left(limit - spent, self.budget.seconds - self.ledger.seconds, self._seconds)

    def _current(self) -> RungKept | None:
        """The rung that was begun and has not ended, or the next one; None: none is to come, or is paid for."""
        ledger, plan = self.ledger, self._plan
        if ledger.rungs and not ledger.rungs[-1].results:
            rung = ledger.rungs[-1]
            return rung if self._left().images >= 0 else None
        if not ledger.rungs:
            ledger.rungs.append(RungKept(0, list(plan.order), plan.rungs[0].epochs))
            return ledger.rungs[-1]
        last = ledger.rungs[-1]
        found = self._next(last, self._left())
        if found is None:
            return None
        ledger.rungs.append(RungKept(found.place, list(found.names), found.epochs, found.extra, found.smaller))
        say(*wrapped(self._decision_lines(last, ledger.rungs[-1])))
        return ledger.rungs[-1]

    def _larger(self) -> int:
        """What the budget comes to in training images, where it is larger than that of the plan; else 0."""
        ledger, budget = self.ledger, self.budget
        if budget.seconds is None:
            larger = budget.images or 0
        elif ledger.asked.seconds is not None and budget.seconds <= ledger.asked.seconds:
            return 0
        else:
            pace = ledger.seconds / max(1, ledger.planned_images)
            larger = ledger.planned_images + int((budget.seconds - ledger.seconds) / max(pace, 1e-9))
        return larger if larger > self._plan.budget else 0

    def _extended(self) -> Plan | None:
        """The plan with a rung more, where the budget is larger than that of the finished search and pays for one."""
        ledger, finished = self.ledger, self.ledger.finished
        last = finished[-1]
        earlier = finished[-2].scores[0].name if finished[1:] else None
        if ledger.ended in (ALONE, IN_FULL) or is_settled(last.scores, earlier):
            return None
        return more_for(self._plan, last.epochs, last.scores, self._larger(), ledger.planned_images)

    def _extend(self) -> None:
        """Go on with a finished search, where a larger budget changes something; say so either way."""
        if not self._larger():
            return
        longer = self._extended()
        if longer is None:
            say("note       the larger budget changes nothing: no longer rung is to come, or it does not pay for one")
            return
        epochs = self.ledger.finished[-1].epochs
        say(f"note       the larger budget pays for one rung more, of over {counted(epochs, 'epoch')}")
        self.ledger.plan, self.ledger.asked, self.ledger.ended = longer, self.budget, ""

    def _run_rung(self, rung: RungKept) -> str:
        """Train what is not trained yet, and rank it. Returns why it could not be finished; "" if it was."""
        ledger, request = self.ledger, self.request
        if self._over():
            return OUT_OF_TIME
        mark = f"rung {rung.place + 1} of {len(self._plan.rungs)}"
        cells = {name: request.cell(name, rung.epochs, mark) for name in rung.names}
        before = {name: standing_now(cell) for name, cell in cells.items()}
        there = [name for name, each in before.items() if each.status == "done"]
        if rung.lay_there is None:
            rung.lay_there = list(there)
            if ledger.made_anew:  # what bears the mark of a search was trained for this one
                rung.lay_there = [name for name in there if not (before[name].record or {}).get("search")]
                ledger.seconds += sum(seconds_of(before[name].record) for name in there if name not in rung.lay_there)
        ledger.save()
        remarks = [f"note       {name} {remark}" for name, each in before.items() for remark in each.remarks]
        say(*wrapped([self._begin_line(rung, there), *remarks]))
        begun, kept, saved = time.monotonic(), ledger.seconds, time.monotonic()

        def tick(grid: Grid) -> None:
            nonlocal saved
            ledger.seconds = kept + time.monotonic() - begun
            if time.monotonic() - saved > Watch.SAVE_SECONDS:
                ledger.save()
                saved = time.monotonic()
            if self._over():
                self._out_of_time |= grid.stop_level == 0
                grid.stop_level = max(grid.stop_level, 2 if self._over(MOST_OVER, SECONDS_TO_END) else 1)

        found, watch = run_cells(request, list(cells.values()), tick)
        if watch:
            ledger.seconds = kept + time.monotonic() - begun
        standings = {name: found[cell.id] for name, cell in cells.items()}
        open_ones = [name for name, each in standings.items() if each.status not in ("done", "failed")]
        if open_ones:
            ledger.unfinished = sum(trained_so_far(cells[name], standings[name]) for name in rung.names)
            ledger.save()
            return OUT_OF_TIME if self._out_of_time else STOPPED
        self._rank(rung, cells, standings, watch.seconds_by_name if watch else {})
        ledger.unfinished, ledger.ended = 0, self._end_after(rung)
        say(*wrapped([self._end_line(rung)]))
        ledger.save()
        return STOPPED if watch and watch.stopped and not self._out_of_time else ""

    def _over(self, share: float = 1.0, before: float = 0.0) -> bool:
        """Whether such a share of a budget of seconds is spent, or will be so soon, and no less than all of it."""
        limit = self.budget.seconds
        return limit is not None and self.ledger.seconds >= max(limit, share * limit - before)

    def _rank(
        self,
        rung: RungKept,
        cells: Mapping[str, Cell],
        standings: Mapping[str, Standing],
        seconds: Mapping[str, float],
    ) -> None:
        """Give the rung its results, best first. UserError, RunError: not one is left."""
        results: dict[str, Result] = {}
        for name, each in standings.items():
            if each.status == "done" and each.record:
                there, took = name in (rung.lay_there or ()), seconds.get(name)
                results[name] = outcome(cells[name], each.record, self.request.select, took, there)
            else:
                results[name] = failed(cells[name], each, self._plan.cost_of(Rung(1, rung.epochs)))
        scores = [each.as_score() for each in results.values() if each.status == "done"]
        if not scores:
            first = next(iter(standings.values()))
            raise error_of(first, f"all {len(standings)} backbones failed, the first so")
        best = [each.name for each in ranked(scores, self._plan.order)]
        rung.results = [results[name] for name in (*best, *(name for name in results if name not in best))]

    def _end_after(self, rung: RungKept) -> str:
        """Why no further rung is to come; "": one may be."""
        scores, earlier = rung.scores, self.ledger.finished[:-1]
        if len(scores) < 2:
            return ALONE
        if rung.epochs >= self._plan.full:
            return IN_FULL
        if not self._next(rung, Left(self._plan.budget - self.ledger.planned_images)):
            return BY_PLAN
        led = earlier[-1].scores[0].name if earlier else None
        behind = [(own, other) for own, other in versus(self.ledger.finished, scores[0]).values()]
        told = all(are_told_apart(own, other) for own, other in behind)  # of those that dropped out, too
        return SETTLED if told and is_settled(scores, led) else ""

    def _next(self, last: RungKept, left: Left) -> Next | None:
        return next_rung(self._plan, last.place, last.epochs, last.scores, left)

    def _begin_line(self, rung: RungKept, there: Sequence[str]) -> str:
        to_do = [name for name in rung.names if name not in there]
        timed = [name for name in to_do if name in self._per_epoch]
        time_text = f", about {duration(self._seconds(timed, rung.epochs))}" if timed and timed == to_do else ""
        lay = f"; trained already: {', '.join(there)}" if there else ""
        what = f"{counted(rung.epochs, 'epoch')} of {self.request.images:,} images each"
        return f"rung {rung.place + 1:<5} {', '.join(rung.names)}: {what}{time_text}{lay}"

    def _end_line(self, rung: RungKept) -> str:
        parts = [f"{each.name} {percent(each.score)}" for each in rung.results if each.status == "done"]
        parts += [f"{each.name} failed ({each.reason})" for each in rung.results if each.status != "done"]
        return f"           {', '.join(parts)} on {rung.scores[0].images:,} validation images"

    def _decision_lines(self, last: RungKept, rung: RungKept) -> list[str]:
        """Who stays, and why."""
        sure = rung.names[: len(rung.names) - rung.extra]
        lines = [f"stay       {', '.join(sure)}"]
        if rung.extra:
            tied = ", ".join(rung.names[-rung.extra :])
            lines[0] += f"; and {tied}, not to be told from {sure[-1]} by so few images"
        out = [each.name for each in last.scores if each.name not in rung.names]
        lines += [f"out        {', '.join(out)}"] if out else []
        unpaid = [each.name for each in last.scores[len(rung.names) : len(sure) + ties(last.scores, len(sure))]]
        if unpaid:
            lines[-1] += (
                f"; of these, {', '.join(unpaid)} can't be told from {sure[-1]} either: the budget is too small"
            )
        if rung.smaller:
            lines.append("note       what is left of the budget pays for a smaller rung than planned")
        return lines
