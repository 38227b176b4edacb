"""How many threads of a processor a form of the training step is fastest with, as things are at the moment."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import nn

from engine.errors import counted, out_of_memory
from engine.training.agreement import Candidate, make_candidate
from engine.training.findings import KEPT
from engine.training.plan import Plan, usable_threads
from engine.training.trials import LEAST_SHARE, Race, ranked, seconds_of

SECONDS = 4.0  # for all numbers of threads together
STEP_SECONDS = 0.5  # a step on a CPU is tried on so many images that it takes about this long
FEW = 2  # images that tell how many these are


def thread_counts() -> list[int]:
    """The numbers of threads that are tried, the usual one first."""
    most = usable_threads()
    return sorted({most, max(1, most // 2), 1}, reverse=True)


def thread_race(
    forms: Sequence[Plan], models: Mapping[str, nn.Module], head: str, images: torch.Tensor, labels: torch.Tensor
) -> Race:
    """Numbers of threads against each other, in the first of the forms that can take a step on the images at all.

    The race is over, on so many of the images that a step takes about STEP_SECONDS. models: one for each layout. Raises
    what the last form raises where memory holds not even FEW images.
    """
    lack: BaseException | None = None
    for form in forms:
        variants = [replace(form, threads=threads) for threads in thread_counts()]
        candidates = [make_candidate(variant, models[form.layout], head, len(labels)) for variant in variants]
        try:
            race = _race(candidates, images, labels)
        except (RuntimeError, MemoryError) as problem:
            if not out_of_memory(problem):
                raise
            lack = problem.with_traceback(None)
        else:
            if race.candidates:
                return race
    if lack:
        raise lack
    return Race([], images[:FEW], labels[:FEW])


def _race(candidates: list[Candidate], images: torch.Tensor, labels: torch.Tensor) -> Race:
    few = Race(candidates, images[:FEW], labels[:FEW])
    few.warm_up()
    seconds = min((seconds_of(candidate, few.images, few.labels) for candidate in few.candidates), default=STEP_SECONDS)
    count = min(max(len(few.labels), int(len(few.labels) * STEP_SECONDS / seconds)), len(labels))
    race = Race(few.candidates, images[:count], labels[:count])
    race.run(SECONDS)
    return race


def threads_of_now(plan: Plan, model: nn.Module, head: str, images: torch.Tensor, labels: torch.Tensor) -> Plan:
    """`plan` with another number of threads where, at the moment, its own is far from what it promised.

    model: a copy to try with, placed as the plan says.
    """
    if plan.device != "cpu" or usable_threads() == 1:
        return plan
    eager = replace(plan, compiled=False)
    count = len(labels)
    if plan.images_per_second:
        count = min(max(FEW, int(STEP_SECONDS * plan.images_per_second)), count)
    alone = Race([make_candidate(eager, model, head, len(labels))], images[:count], labels[:count])
    alone.warm_up()
    alone.run(SECONDS)
    if not alone.candidates or _as_promised(alone.candidates[0], count):
        return plan
    race = thread_race([eager], {plan.layout: model}, head, images, labels)
    for best in ranked(race.candidates, usual_seconds)[:1]:
        threads = best.plan.threads
        speed = len(race.labels) / best.median
        reason = f"{plan.reason}; others are at work here: {speed:.1f} at present, with {counted(threads, 'thread')}"
        plan = replace(plan, threads=threads, images_per_second=speed, reason=reason)
    return plan


def usual_seconds(candidate: Candidate) -> float:
    """What a step usually took: with more threads, the luckiest sample says little of the others."""
    return candidate.median


def _as_promised(candidate: Candidate, images: int) -> bool:
    promised = candidate.plan.images_per_second
    kept = promised is None or images / candidate.median >= KEPT * promised
    return kept and statistics.median(candidate.shares) >= LEAST_SHARE
