"""--lr-sweep: a few learning rates tried for a short while, judged by the part that chooses the epoch alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import torch
from torch import nn

from engine.console import say
from engine.data.batches import Batches
from engine.device import random_state, set_random_state
from engine.errors import DivergedError, RunError
from engine.processes.exchange import any_of
from engine.processes.heartbeat import stop_asked_for
from engine.training.loop import fit
from engine.training.plan import Plan
from engine.training.recipe import Recipe
from engine.training.saving import copy_of

FACTORS = (0.1, 0.3, 1.0, 3.0)  # of the recipe's learning rate
SHARE = 4  # a trial has one epoch for so many of the recipe's
EPOCHS = 5  # of each stage of a trial, where the recipe has no number of its own

Row = dict[str, Any]  # what came of one learning rate


class SweepLog(Protocol):
    """Where the sweep keeps what it has tried, and finds what was kept before: a Run, say."""

    @property
    def sweep(self) -> Sequence[Row]:
        """What was kept last."""

    def keep_sweep(self, rows: Sequence[Row], chosen: float | None = None) -> None:
        """Keep what was tried so far; and the learning rate that the run goes on with, once it is chosen."""

    def change_plan(self, plan: Plan) -> None:
        """The run goes on by another plan."""


@dataclass
class _Trial:
    """Stands for a run: keeps no weights, but what was spent and the plan that memory allows."""

    plan: Plan
    resumable: bool = False
    state: Mapping[str, Any] | None = None

    def change_plan(self, plan: Plan) -> None:
        self.plan = plan

    def snapshot(self) -> None:
        return None

    def save(self, snapshot: Mapping[str, Any]) -> None:
        self.state = snapshot["state"]


def trial_epochs(epochs: int | None) -> int:
    """Return how many epochs each stage of a trial has, where the recipe has at most `epochs`."""
    return max(1, epochs // SHARE) if epochs else EPOCHS


def best_lr(
    model: nn.Module, train: Batches, val: Batches, recipe: Recipe, plan: Plan, run: SweepLog
) -> tuple[float, Plan]:
    """The learning rate of the best epoch on `val`, of equals that with the lower loss; and the plan to go on by.

    The best epoch is that of the highest top-1, or other metric that the recipe names. Each trial is the recipe with a
    quarter of its epochs, from the weights that `model` has, and keeps afterwards; so do the random numbers. What came
    of each, and what it took, is kept in `run`; where memory ran out, the plan is one of smaller micro-batches. Under
    the `paper` protocol `val` is the test part. RunError: every learning rate diverged.
    """
    rows = list(run.sweep)
    untrained = copy_of(model)
    random = random_state(plan.device)
    short = replace(recipe, epochs=trial_epochs(recipe.epochs))
    for number, factor in enumerate(FACTORS[len(rows) :], len(rows) + 1):
        lr = float(f"{recipe.lr * factor:.3g}")
        epochs = f"{short.epochs} epoch{'s' if short.epochs != 1 else ''}"
        say(f"sweep      learning rate {lr:g}, {number} of {len(FACTORS)}: {epochs} of each stage")
        torch.manual_seed(recipe.seed + number)
        trial = _Trial(plan)
        rows.append(_try(model, train, val, replace(short, lr=lr), trial))
        model.load_state_dict(untrained)
        if trial.plan != plan:
            plan = replace(trial.plan, memory=(trial.plan.memory or "").partition(", from epoch")[0])
            run.change_plan(plan)
        run.keep_sweep(rows)
        if any_of(stop_asked_for()):
            raise KeyboardInterrupt
    set_random_state(random, plan.device)
    return _choose(rows, val.name, recipe.select, run), plan


def _try(model: nn.Module, train: Batches, val: Batches, recipe: Recipe, trial: _Trial) -> Row:
    """What comes of one learning rate, that of `recipe`."""
    row: Row = {"lr": recipe.lr, "top1": None, "loss": None} | {recipe.select: None}
    try:
        state = fit(model, train, val, recipe, trial.plan, trial)
        # a head that was solved for says nothing of a learning rate
        rows, score = state.trained, f"{val.name}_{recipe.select}"
        best = max(rows[::-1] if recipe.spec.latest_of_equals else rows, key=lambda each: each[score])
        row |= {name: best[f"{val.name}_{name}"] for name in ("top1", "loss", recipe.select)}
    except DivergedError as problem:
        say(f"sweep      {problem}")
    history = trial.state["history"] if trial.state else []
    row["images"] = len(history) * len(train.part)
    row["seconds"] = sum(epoch["seconds"] for epoch in history)
    row["energy_joules"] = trial.state["energy_joules"] if trial.state else None
    return row


def _choose(rows: Sequence[Row], part: str, select: str, run: SweepLog) -> float:
    learnt = [row for row in rows if row[select] is not None]
    if not learnt:
        tried = ", ".join(f"{row['lr']:g}" for row in rows)
        raise RunError(f"--lr-sweep: the loss became infinite at every learning rate ({tried}). Try a lower --lr.")
    chosen = max(learnt, key=lambda row: (row[select], -row["loss"]))
    run.keep_sweep(rows, chosen["lr"])
    each = ", ".join(f"{row['lr']:g} " + ("diverged" if row[select] is None else f"{row[select]:.2%}") for row in rows)
    say(f"sweep      learning rate {chosen['lr']:g} is best on {part}: {each}")
    return float(chosen["lr"])
