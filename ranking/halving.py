"""Successive halving: who is trained on for how long, decided by validation scores and what is left of a budget.

Nothing here reads or runs anything. In every rung each candidate is trained from the start by a schedule of its own,
which ends with the rung: the learning rate has come down to zero, so that a run can't be continued as a longer one, and
a score in the middle of a longer schedule would tell less than one at the end of a short one. From rung to rung the
epochs double and the candidates halve, so that each costs about the same. Jamieson & Talwalkar 2016, "Non-stochastic
best arm identification and hyperparameter optimization", AISTATS, arXiv:1502.07943.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from engine.errors import UserError
from ranking.budget import Budget, images_text
from reporting.statistics import LEVEL, fisher, wilson

FEWEST = 2  # candidates of a rung: one alone is no comparison
# of the epochs of the full recipe, the least that a first rung has: a quarter. After fewer steps a new head says less
# than the features did: docs/choosing.md has what was lost by first rungs of a tenth
SHORTEST = 4

Seconds = Callable[[Sequence[str], int], float]  # that so many epochs of these candidates take, all together


@dataclass(frozen=True)
class Rung:
    """One round of trainings, as it is planned."""

    candidates: int
    epochs: int

    def cost(self, images: int, beside: int = 0) -> int:
        """Training images processed, at so many a pass: each training is its epochs, and so many passes beside."""
        return self.candidates * (self.epochs + beside) * images


@dataclass(frozen=True)
class Plan:
    """What is to be done, if nothing fails."""

    order: tuple[str, ...]  # the candidates of the first rung, best first
    left_out: tuple[str, ...]  # the last of the order, which the budget does not pay for
    rungs: tuple[Rung, ...]
    images: int  # an epoch
    full: int  # epochs of the full recipe
    budget: int  # in training images processed; of a budget of seconds, what these are thought to come to
    beside: int = 0  # passes of the images that each training takes beside its epochs

    def cost(self) -> int:
        """Training images processed in all rungs."""
        return sum(map(self.cost_of, self.rungs))

    def cost_of(self, rung: Rung) -> int:
        """Training images processed in one."""
        return rung.cost(self.images, self.beside)

    def with_more(self, budget: int, epochs: int) -> Plan:
        """The same, for a larger budget, with one rung more, after one of so many epochs."""
        more = Rung(FEWEST, min(self.full, 2 * epochs))
        return replace(self, rungs=(*self.rungs, more), budget=budget)


def rungs_of(candidates: int, first: int, full: int) -> tuple[Rung, ...]:
    """The rungs that begin with `first` epochs: the last has two candidates, or the `full` epochs already."""
    rungs = [Rung(candidates, min(first, full))]
    while rungs[-1].candidates > FEWEST and rungs[-1].epochs < full:
        rungs.append(Rung(math.ceil(rungs[-1].candidates / 2), min(full, 2 * rungs[-1].epochs)))
    return tuple(rungs)


def _rungs_within(first: Rung, full: int, pays: Callable[[Sequence[Rung]], bool]) -> tuple[Rung, ...]:
    """The rungs after `first` that keep as many of the better half as is paid for; (): not even the first is.

    The last may have more than two candidates: the next would cost too much.
    """
    rungs = [first]
    while rungs[-1].candidates > FEWEST and rungs[-1].epochs < full:
        half, epochs = math.ceil(rungs[-1].candidates / 2), min(full, 2 * rungs[-1].epochs)
        number = next((each for each in range(half, FEWEST - 1, -1) if pays([*rungs, Rung(each, epochs)])), 0)
        if not number:
            break
        rungs.append(Rung(number, epochs))
    return tuple(rungs) if pays(rungs) else ()


def _best_rungs(candidates: int, full: int, pays: Callable[[Sequence[Rung]], bool]) -> tuple[Rung, ...]:
    """All the way to two candidates with the longest first rung that is paid for; else as far as is; (): nothing is.

    A first rung alone tells little, so that of more than two candidates a second one is asked for; and one that is too
    short tells less than the features did, so that it is made shorter for the last two alone.
    """
    shortest = math.ceil(full / SHORTEST)
    for first in range(full, (shortest if candidates > FEWEST else 1) - 1, -1):
        rungs = rungs_of(candidates, first, full)
        if pays(rungs):
            return rungs
    rungs = _rungs_within(Rung(candidates, shortest), full, pays)
    return rungs if len(rungs) > 1 else ()


def make_plan(
    order: Sequence[str], images: int, full: int, budget: Budget, seconds: Seconds | None = None, beside: int = 0
) -> Plan:
    """The plan with the most candidates that the budget pays for, and for these the longest first rung.

    order: best first. images: an epoch. seconds: of a budget of seconds, what trainings take. beside: as Plan has it.
    UserError: there are fewer than two candidates, or the budget is too small for one rung of two.
    """
    if len(order) < FEWEST:
        raise UserError(f"a search takes two backbones at least, and there are {len(order)}.")

    def cost(rungs: Sequence[Rung]) -> float:
        if budget.seconds is None or seconds is None:
            return sum(rung.cost(images, beside) for rung in rungs)
        return sum(seconds(order[: rung.candidates], rung.epochs) for rung in rungs)

    limit = budget.images if budget.seconds is None else budget.seconds
    assert limit is not None
    for number in range(len(order), FEWEST - 1, -1):
        if rungs := _best_rungs(number, full, lambda rungs: cost(rungs) <= limit):
            plan = Plan(tuple(order[:number]), tuple(order[number:]), rungs, images, full, 0, beside)
            return replace(plan, budget=_in_images(plan, limit, cost) if seconds else int(limit))
    least = cost([Rung(FEWEST, 1)])
    raise UserError(_too_small(order, images, budget, least, beside))


def _in_images(plan: Plan, limit: float, cost: Callable[[Sequence[Rung]], float]) -> int:
    """What a limit of seconds comes to: the plan's images, and for the rest as many as its last rung has in it."""
    last = plan.rungs[-1:]
    rest = (limit - cost(plan.rungs)) / max(cost(last), 1e-9)
    return plan.cost() + int(rest * plan.cost_of(last[0]))


def _too_small(order: Sequence[str], images: int, budget: Budget, least: float, beside: int) -> str:
    needed = Budget(images=int(least)) if budget.seconds is None else Budget(seconds=float(math.ceil(least)))
    about = "" if budget.seconds is None else "about "
    after = ", after the pass in which their heads are solved for" if beside else ""
    return (
        f"--budget {budget.flag} is too small for one rung: an epoch of {order[0]} and of {order[1]}{after}, with "
        f"{images_text(images)} each, takes {about}{needed}. Give {needed.flag} or more, or leave --fine-tune out."
    )


@dataclass(frozen=True)
class Score:
    """What came of one candidate in a rung."""

    name: str
    score: float  # of the metric that chooses, on the validation part, 0 to 1
    loss: float  # on the same, at the chosen epoch
    images: int  # that were judged

    @property
    def interval(self) -> tuple[float, float]:
        """Wilson's of 95 %: exact for a share of images, and near enough for a mean of shares."""
        return wilson(self.score, self.images) or (0.0, 1.0)


def ranked(scores: Sequence[Score], order: Sequence[str]) -> list[Score]:
    """Best first: the higher score, of equal ones the lower loss, then the earlier in the order.

    Of those within a standard error of the highest, the earlier in the order comes first: the features are evidence,
    too. Breiman et al. 1984, "Classification and Regression Trees", section 3.4.3, have the rule for simpler trees.
    """
    places = {name: place for place, name in enumerate(order)}
    highest = max(scores, key=lambda each: each.score, default=None)
    below = wilson(highest.score, highest.images, 1.0) if highest else None
    least = below[0] if below else 0.0

    def key(each: Score) -> tuple[float, ...]:
        if each.score >= least:
            return (0, places[each.name])
        return (1, -each.score, each.loss, places[each.name])

    return sorted(scores, key=key)


def ties(scores: Sequence[Score], kept: int) -> int:
    """How many of the ranked `scores` after the first `kept` lie within the interval of the last of these."""
    if not 0 < kept <= len(scores):
        return 0
    low = scores[kept - 1].interval[0]
    return sum(each.score >= low for each in scores[kept:])


def is_settled(scores: Sequence[Score], earlier_leader: str | None) -> bool:
    """Whether no other can win at 95 %: the first is above all others' intervals, and led the rung before too.

    A lead in a first, short rung may turn. Of those that dropped out before, and of longer trainings, which may rank
    otherwise, this says nothing.
    """
    if len(scores) < 2 or scores[0].name != earlier_leader:
        return False
    return all(scores[0].interval[0] > each.interval[1] for each in scores[1:])


def chance(first: Score, second: Score) -> float:
    """The two-sided p-value of Fisher's exact test that two candidates' scores differ by chance alone.

    As if each had been judged by images of its own: they were the same, so that it is on the careful side.
    """
    return fisher(first.score, second.score, min(first.images, second.images))


def are_told_apart(first: Score, second: Score) -> bool:
    """Whether their scores differ at 95 %."""
    return chance(first, second) < LEVEL


@dataclass(frozen=True)
class Left:
    """What is left of a budget; of one of images alone, there is no limit to seconds."""

    images: int
    seconds: float = math.inf
    of: Seconds = lambda _names, _epochs: 0.0


@dataclass(frozen=True)
class Next:
    """The next rung."""

    place: int  # in the plan's rungs, counted from 0
    names: tuple[str, ...]  # best first
    epochs: int
    extra: int = 0  # of the names, how many stay since they can't be told from the last of the others
    smaller: bool = False  # whether what is left does not pay for the rung that was planned


def next_rung(plan: Plan, place: int, trained: int, scores: Sequence[Score], left: Left) -> Next | None:
    """The rung after number `place`, in which the ranked `scores` came out after `trained` epochs; None: that was all.

    What the plan has is kept first, then those that can't be told from the last that is kept, as far as what is left
    pays for them beside the planned rungs; the last rung is as long as what is left after that allows.
    """
    names, last = [each.name for each in scores], len(plan.rungs) - 1
    place += 1
    while place < last and plan.rungs[place].candidates >= len(names):  # failures have halved them already
        place += 1
    if place > last or len(names) < FEWEST or plan.rungs[place].epochs <= trained:
        return None
    rung = plan.rungs[place]
    target = min(rung.candidates, len(names))

    def pays(number: int, epochs: int, begin: int | None = None) -> bool:
        later = [] if begin is None else plan.rungs[begin:]
        seconds = left.of(names[:number], epochs) + sum(
            left.of(names[: each.candidates], each.epochs) for each in later
        )
        images = sum(map(plan.cost_of, [Rung(number, epochs), *later]))
        return images <= left.images and seconds <= left.seconds

    if not pays(target, rung.epochs, place + 1):
        return _smaller(place, names[:target], (trained, rung.epochs), pays)
    number, most = target, target + ties(scores, target)
    while number < most and pays(number + 1, rung.epochs, place + 1):
        number += 1
    epochs = rung.epochs
    if place == last:
        epochs = next(longer for longer in range(plan.full, rung.epochs - 1, -1) if pays(number, longer))
    return Next(place, tuple(names[:number]), epochs, number - target)


def _smaller(
    place: int, names: Sequence[str], between: tuple[int, int], pays: Callable[[int, int], bool]
) -> Next | None:
    """The largest rung that is paid for: first fewer candidates, then fewer epochs, but more than were trained."""
    trained, epochs = between
    tries = [(number, epochs) for number in range(len(names), FEWEST - 1, -1)]
    tries += [(FEWEST, fewer) for fewer in range(epochs - 1, trained, -1)]
    found = next((each for each in tries if pays(*each)), None)
    return found and Next(place, tuple(names[: found[0]]), found[1], smaller=True)


def more_for(plan: Plan, trained: int, scores: Sequence[Score], budget: int, spent: int) -> Plan | None:
    """The plan with a rung more, where a larger budget pays for one that is longer than the last; else None."""
    if trained >= plan.full or len(scores) < FEWEST or budget <= plan.budget:
        return None
    longer = plan.with_more(budget, trained)
    return longer if next_rung(longer, len(plan.rungs) - 1, trained, scores, Left(budget - spent)) else None


def plan_lines(plan: Plan, budget: Budget) -> list[str]:
    """The plan for people."""
    unit = "epochs" if plan.rungs[-1].epochs > 1 else "epoch"
    steps = ", then ".join(f"{rung.candidates} for {rung.epochs:,}" for rung in plan.rungs)
    grid = plan.cost_of(Rung(len(plan.order) + len(plan.left_out), plan.full))
    lines = [
        f"search     {steps} {unit}: {images_text(plan.cost())} of {plan.budget:,}; all in full would be {grid:,}",
    ]
    if plan.left_out:
        lines.append(f"note       a budget of {budget} does not pay for {', '.join(plan.left_out)}: left out, as last")
    return lines
