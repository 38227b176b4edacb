"""How many threads of a processor a form of the training step is fastest with, as things are at the moment."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import nn

from engine.data.batches import Batches
from engine.device import usable_threads
from engine.errors import counted, out_of_memory
from engine.training.agreement import Candidate, copy_in_form, make_candidate
from engine.training.findings import KEPT
from engine.training.plan import Plan
from engine.training.trials import LEAST_SHARE, Race, ranked

SECONDS = 4.0  # for all numbers of threads together
STEP_SECONDS = 0.5  # a step on a CPU is tried on so many images that it takes about this long
FEW = 2  # images that tell how many these are
FAR_BEHIND = 1.7  # times as slow as the fastest on FEW images: not tried on more


def thread_counts() -> list[int]:
    """The numbers of threads that are tried, the usual one first."""
    most = usable_threads()
    return sorted({most, max(1, most // 2), 1}, reverse=True)


@dataclass(frozen=True)
class Threads:
    """What came of numbers of threads."""

    races: list[Race]  # of which the last one decided
    images: torch.Tensor
    labels: torch.Tensor  # so many that a step takes about STEP_SECONDS

    @property
    def best(self) -> Candidate | None:
        """The fastest; None where no form could take a step."""
        # with more threads, the luckiest sample says little of the others
        return next(iter(ranked(self.races[-1].candidates, lambda candidate: candidate.median)), None)


def best_threads(
    forms: Sequence[Plan], models: Mapping[str, nn.Module], head: str, images: torch.Tensor, labels: torch.Tensor
) -> Threads:
    """Numbers of threads against each other, in the first of the forms that can take a step on the images at all.

    models: one for each layout. Raises what the last form raises where memory holds not even FEW images.
    """
    lack: BaseException | None = None
    for form in forms:
        variants = [replace(form, threads=threads) for threads in thread_counts()]
        candidates = [make_candidate(variant, models[form.layout], head, len(labels)) for variant in variants]
        try:
            found = _raced(candidates, images, labels)
        except (RuntimeError, MemoryError) as problem:
            if not out_of_memory(problem):
                raise
            lack = problem.with_traceback(None)
        else:
            if found.best:
                return found
    if lack:
        raise lack
    return Threads([Race([], images[:FEW], labels[:FEW])], images[:FEW], labels[:FEW])


def _raced(candidates: list[Candidate], images: torch.Tensor, labels: torch.Tensor) -> Threads:
    """First on few images, which shows what is far behind, as many threads are that wait for each other."""
    few = Race(candidates, images[:FEW], labels[:FEW])
    few.warm_up()
    few.run(0.0)
    if not few.candidates:
        return Threads([few], few.images, few.labels)
    fastest = min(candidate.median for candidate in few.candidates)
    count = min(max(len(few.labels), int(len(few.labels) * STEP_SECONDS / fastest)), len(labels))
    images, labels = images[:count], labels[:count]
    hopeful = [each for each in few.candidates if each.fastest < FAR_BEHIND * fastest]
    race = Race([replace(each, seconds=[], shares=[]) for each in hopeful], images, labels)
    race.warm_up()
    race.run(SECONDS if len(hopeful) > 1 else 0.0)
    return Threads([few, race], images, labels)


def threads_of_now(plan: Plan, model: nn.Module, head: str, train: Batches) -> Plan:
    """`plan` with as many threads of a processor as it trains a copy of `model` fastest with at the moment.

    As many as it has, where these are all that may be used and take steps as fast as it promises.
    """
    if plan.device != "cpu" or plan.threads == usable_threads() == 1:
        return plan
    images, labels = next(train.sequential())
    model, eager = copy_in_form(plan, model), replace(plan, compiled=False)
    if plan.threads == usable_threads() and _as_promised(eager, model, head, images, labels):
        return plan
    found = best_threads([eager], {plan.layout: model}, head, images, labels)
    disturbed = found.best is not None and any(race.disturbed(found.best) for race in found.races)
    if found.best is None or (found.best.plan.threads == plan.threads and not disturbed):
        return plan
    threads, speed = found.best.plan.threads, len(found.labels) / found.best.median
    at_work = "others are at work here: " if disturbed else ""
    reason = f"{plan.reason}; {at_work}{speed:.1f} images/s at present, with {counted(threads, 'thread')}"
    return replace(plan, threads=threads, images_per_second=speed, reason=reason)


def _as_promised(plan: Plan, model: nn.Module, head: str, images: torch.Tensor, labels: torch.Tensor) -> bool:
    """Whether its threads get the time of as many processors, and steps are about as fast as it says."""
    count = len(labels)
    if plan.images_per_second:
        count = min(max(FEW, int(STEP_SECONDS * plan.images_per_second)), count)
    race = Race([make_candidate(plan, model, head, len(labels))], images[:count], labels[:count])
    race.warm_up()
    race.run(0.0)
    for candidate in race.candidates:
        kept = plan.images_per_second is None or count / candidate.median >= KEPT * plan.images_per_second
        return kept and statistics.median(candidate.shares) >= LEAST_SHARE
    return False
