"""--check: one step of all that a run does, in seconds, once the images are decoded; no record is left behind."""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from torch import nn

from engine.console import say
from engine.data.batches import Batches
from engine.errors import RunError, UserError, counted
from engine.paths import nearest_existing
from engine.training.evaluation import predict
from engine.training.head import solve_head
from engine.training.loop import train_epoch
from engine.training.plan import Plan
from engine.training.recipe import Recipe
from engine.training.saving import copy_of
from engine.training.state import State
from engine.training.step import Step


def check(model: nn.Module, train: Batches, val: Batches, recipe: Recipe, plan: Plan, folder: Path) -> None:
    """Train one step, validate one batch, save to where `folder` would be made, load, and compare.

    Raises what the run would raise.
    """
    say(f"ok: data: {len(train.part):,} train and {counted(len(val.part), f'{val.name} image')}")
    train, val = _first_batch(train), _first_batch(val)
    stage = int(recipe.stages[0].solves_head)
    if stage and solve_head(model, recipe.head, train, val, plan, recipe.class_weights):
        say(f"ok: the head solved for on {counted(len(train.part), 'image')}")
    optimizer = recipe.optimizer(recipe.stages[stage], model)
    step = Step(model, optimizer, plan, len(train.part), recipe.class_weights)
    loss, _ = train_epoch(model, train, step, recipe, State(stage=stage))
    say(f"ok: one step of training on {counted(len(train.part), 'image')} (loss {loss:.4f})")
    before, _ = predict(model, val, plan)
    say(f"ok: one step of validation on {counted(len(val.part), 'image')}")
    weights = copy_of(model)
    existing = nearest_existing(folder)
    try:
        with tempfile.TemporaryDirectory(prefix=".check-", dir=existing) as place:
            torch.save(model.state_dict(), Path(place) / "checkpoint.pt")
            model.load_state_dict(torch.load(Path(place) / "checkpoint.pt", weights_only=True))
    except (OSError, RuntimeError) as problem:  # torch.save reports a full disk as a RuntimeError
        raise UserError(f"nothing can be written to {existing}: {problem}. --out chooses another folder.") from problem
    if wrong := [name for name, value in copy_of(model).items() if not torch.equal(value, weights[name])]:
        raise RunError(f"a saved and loaded model has other weights than before: {wrong[0]}")
    after, _ = predict(model, val, plan)
    if np.abs(after - before).max() > tolerance(plan) * np.abs(before).max():
        raise RunError("a saved and loaded model gives other outputs than before")
    say("ok: saving and loading", go_on=True)


def tolerance(plan: Plan) -> float:
    """How far outputs may be from those of another pass of the same weights, of the largest: a card's sums differ.

    The root of what one operation rounds by, which many layers add up. On a card fp32 is TF32, of 10 bits.
    """
    coarsest = 2.0**-10 if (plan.device, plan.precision) == ("cuda", "fp32") else torch.finfo(plan.dtype).eps
    return float(coarsest**0.5)


def _first_batch(batches: Batches) -> Batches:
    one = np.arange(min(batches.batch_size, len(batches.part)))
    return replace(batches, part=batches.part.take(one), on_device=None)
