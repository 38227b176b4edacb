"""--lr-sweep: a few learning rates tried for a short while, judged by the selection part alone."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import nn

from engine.batches import Batches
from engine.console import say
from engine.device import random_state, set_random_state
from engine.errors import RunError
from engine.plan import Plan
from engine.recipes import Course
from engine.records import Run
from engine.train import fit

FACTORS = (0.1, 0.3, 1.0, 3.0)  # of the course's rate
SHARE = 4  # a trial has one epoch for so many of the course's
EPOCHS = 5  # of each stage of a trial, where the course has no number of its own


class _Trial(Run):
    """Stands for a run whose weights nobody keeps."""

    def __init__(self, run: Run) -> None:
        self._run = run

    def change_plan(self, plan: Plan) -> None:
        self._run.change_plan(plan)

    def snapshot(self) -> None:
        return None

    def save(self, snapshot: Any) -> None:
        pass


def best_rate(
    model: nn.Module, head: nn.Module, train: Batches, select: Batches, course: Course, plan: Plan, run: Run
) -> float:
    """The rate with the highest top-1 on `select`, of equals that with the lower loss there; all are kept in `run`.

    Each trial is the course with a quarter of its epochs, from the weights that `model` has, and keeps afterwards; so
    do the random numbers. Under the `paper` protocol `select` is the test part. RunError: every rate diverged.
    """
    rows: list[dict[str, float | None]] = list(run.record.get("sweep") or [])
    untrained = {name: value.clone() for name, value in model.state_dict().items()}
    random = random_state(plan.device)
    short = replace(course, epochs=max(1, course.epochs // SHARE) if course.epochs else EPOCHS)
    for number, factor in enumerate(FACTORS[len(rows) :], len(rows) + 1):
        rate = float(f"{course.rate * factor:.3g}")
        say(f"sweep      rate {rate:g}, {number} of {len(FACTORS)}: {short.epochs} epochs of a stage")
        torch.manual_seed(course.seed + number)
        score: dict[str, float | None] = {"top1": None, "loss": None}
        try:
            state = fit(model, head, train, select, replace(short, rate=rate), plan, _Trial(run))
            best = state.history[state.best_epoch - 1]
            score = {"top1": best["select_top1"], "loss": best["select_loss"]}
        except RunError as problem:  # it diverged
            say(f"sweep      {problem}")
        model.load_state_dict(untrained)
        rows.append({"lr": rate, **score})
        run.keep_sweep(rows)
    set_random_state(random, plan.device)
    learnt = [row for row in rows if row["top1"] is not None]
    if not learnt:
        tried = ", ".join(f"{row['lr']:g}" for row in rows)
        raise RunError(f"--lr-sweep: the loss became infinite at every rate ({tried}). Try a lower --lr.")
    chosen = max(learnt, key=lambda row: (row["top1"] or 0.0, -(row["loss"] or 0.0)))
    told = ", ".join(
        f"{row['lr']:g} diverged" if row["top1"] is None else f"{row['lr']:g} {row['top1']:.2%}" for row in rows
    )
    run.keep_sweep(rows, chosen["lr"])
    say(f"sweep      rate {chosen['lr']:g} is best on the selection part: {told}")
    return float(chosen["lr"] or 0.0)
