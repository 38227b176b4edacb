"""--lr-sweep: a few learning rates tried for a short while, judged by the selection part alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import nn

from engine.console import say
from engine.data.batches import Batches
from engine.device import random_state, set_random_state
from engine.errors import DivergedError, RunError
from engine.heartbeat import stop_asked_for
from engine.records.run_folder import Run
from engine.training.loop import copy_of, fit
from engine.training.plan import Plan
from engine.training.recipe import Recipe

FACTORS = (0.1, 0.3, 1.0, 3.0)  # of the course's rate
SHARE = 4  # a trial has one epoch for so many of the course's
EPOCHS = 5  # of each stage of a trial, where the course has no number of its own


@dataclass
class _Trial:
    """Stands for a run: keeps no weights, but what was spent and the plan that memory allows."""

    plan: Plan
    saves: bool = False
    state: Mapping[str, Any] | None = None

    def change_plan(self, plan: Plan) -> None:
        self.plan = plan

    def snapshot(self) -> None:
        return None

    def save(self, snapshot: Mapping[str, Any]) -> None:
        self.state = snapshot["state"]


def best_rate(
    model: nn.Module, head: nn.Module, train: Batches, select: Batches, course: Recipe, plan: Plan, run: Run
) -> tuple[float, Plan]:
    """The rate with the highest top-1 on `select`, of equals that with the lower loss there; and the plan to go on by.

    Each trial is the course with a quarter of its epochs, from the weights that `model` has, and keeps afterwards; so
    do the random numbers. What came of each, and what it took, is kept in `run`; where memory ran out, the plan is
    one of smaller micro-batches. Under the `paper` protocol `select` is the test part. RunError: every rate diverged.
    """
    rows: list[dict[str, Any]] = list(run.record.get("sweep") or [])
    untrained = copy_of(model)
    random = random_state(plan.device)
    short = replace(course, epochs=max(1, course.epochs // SHARE) if course.epochs else EPOCHS)
    for number, factor in enumerate(FACTORS[len(rows) :], len(rows) + 1):
        rate = float(f"{course.rate * factor:.3g}")
        epochs = f"{short.epochs} epoch{'s' if short.epochs != 1 else ''}"
        say(f"sweep      rate {rate:g}, {number} of {len(FACTORS)}: {epochs} of each stage")
        torch.manual_seed(course.seed + number)
        trial = _Trial(plan)
        row: dict[str, Any] = {"lr": rate, "top1": None, "loss": None}
        try:
            state = fit(model, head, train, select, replace(short, rate=rate), plan, trial)
            best = state.history[state.best_epoch - 1]
            row |= {"top1": best["select_top1"], "loss": best["select_loss"]}
        except DivergedError as problem:
            say(f"sweep      {problem}")
        model.load_state_dict(untrained)
        history = trial.state["history"] if trial.state else []
        row["images"] = len(history) * len(train.part)
        row["seconds"] = sum(epoch["seconds"] for epoch in history)
        row["energy_joules"] = trial.state["energy_joules"] if trial.state else None
        rows.append(row)
        if trial.plan != plan:
            plan = replace(trial.plan, memory=(trial.plan.memory or "").partition(", from epoch")[0])
            run.change_plan(plan)
        run.keep_sweep(rows)
        if stop_asked_for():
            raise KeyboardInterrupt
    set_random_state(random, plan.device)
    learnt = [row for row in rows if row["top1"] is not None]
    if not learnt:
        tried = ", ".join(f"{row['lr']:g}" for row in rows)
        raise RunError(f"--lr-sweep: the loss became infinite at every rate ({tried}). Try a lower --lr.")
    chosen = max(learnt, key=lambda row: (row["top1"], -row["loss"]))
    run.keep_sweep(rows, chosen["lr"])
    told = ", ".join(f"{row['lr']:g} " + ("diverged" if row["top1"] is None else f"{row['top1']:.2%}") for row in rows)
    say(f"sweep      rate {chosen['lr']:g} is best on the selection part: {told}")
    return float(chosen["lr"]), plan
