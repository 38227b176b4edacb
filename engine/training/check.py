"""--check: one step of all that a run does, in seconds, leaving nothing behind."""

from __future__ import annotations

import dataclasses
import tempfile
from pathlib import Path

import numpy as np
import torch
from torch import nn

from engine.config import Config
from engine.console import say
from engine.data.batches import Batches
from engine.errors import RunError, UserError
from engine.training.loop import predict, train_epoch
from engine.training.plan import Plan
from engine.training.recipe import Recipe
from engine.training.state import State
from engine.training.step import Step


def check(
    model: nn.Module, head: nn.Module, fit: Batches, select: Batches, config: Config, course: Recipe, plan: Plan
) -> None:
    """Train one step, validate one batch, save, load, and compare. Raises what the run would raise."""
    say(f"ok: data: {len(fit.part)} + {len(select.part)} images of the training and the selecting part were decoded")
    one = np.arange(min(fit.batch_size, len(fit.part)))
    few = np.arange(min(select.batch_size, len(select.part)))
    fit = dataclasses.replace(fit, part=fit.part.take(one), on_device=None)
    select = dataclasses.replace(select, part=select.part.take(few), on_device=None)
    step = Step(model, course.optimizer(0, model, head), plan, len(one))
    loss, _ = train_epoch(model, head, fit, step, course, State())
    say(f"ok: one step of training on {len(one)} images (loss {loss:.4f})")
    before, _ = predict(model, select, plan, "select")
    say(f"ok: one step of validation on {len(few)} images")
    existing = next(folder for folder in [config.out.absolute(), *config.out.absolute().parents] if folder.exists())
    try:
        with tempfile.TemporaryDirectory(prefix=".check-", dir=existing) as folder:
            torch.save(model.state_dict(), Path(folder) / "checkpoint.pt")
            model.load_state_dict(torch.load(Path(folder) / "checkpoint.pt", weights_only=True))
    except (OSError, RuntimeError) as problem:  # torch.save reports a full disk as a RuntimeError
        raise UserError(f"nothing can be written to {existing}: {problem}. --out chooses another folder.") from problem
    after, _ = predict(model, select, plan, "select")
    if not np.array_equal(before, after):
        raise RunError("a saved and loaded model gives other outputs than before")
    say("ok: saving and loading")
