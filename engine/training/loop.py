"""fit(): the stages of a recipe, early stopping, the best epoch; and predict()."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from engine.console import epoch_columns, epoch_line, progress, say
from engine.data.batches import Batches
from engine.device import free_memory, random_state, set_random_state
from engine.errors import DivergedError, out_of_memory
from engine.heartbeat import stop_asked_for
from engine.models.structure import set_train_mode, trains_batch_norm
from engine.training.meters import Clock, energy_joules
from engine.training.plan import Plan
from engine.training.recipe import Recipe
from engine.training.state import State
from engine.training.step import Step

StateDict = dict[str, torch.Tensor]
LOOK_AT_LOSS = 100  # steps: reading the loss makes a card's host wait


class Checkpointer(Protocol):
    """Where fit() saves what it has reached, and finds what was saved before: a Run, say."""

    resumable: bool  # whether a later command can go on from what is saved

    def snapshot(self) -> dict[str, Any] | None:
        """What the last save() was given, or None."""

    def save(self, snapshot: Mapping[str, Any]) -> None:
        """After an epoch: everything that a resume needs."""

    def change_plan(self, plan: Plan) -> None:
        """The run goes on by another plan."""


def fit(model: nn.Module, train: Batches, val: Batches, recipe: Recipe, plan: Plan, run: Checkpointer) -> State:
    """Train `model` in place as `recipe` says and leave it with the weights of its best epoch.

    The best epoch is that with the highest top-1 on `val`: the validation part, or, under the `paper` protocol, the
    test part. Of several such it is the first or the last, as the recipe says. After every epoch all is saved in `run`;
    an interrupted run continues from there as if it had never stopped. Where memory runs out, it goes on from there
    with the same batches in halved micro-batches, and `run` keeps a note of it. Raises RunError when the loss is not
    finite.
    """
    untrained, random = copy_of(model), random_state(plan.device)
    while True:
        try:
            return _fit(model, train, val, recipe, plan, run, untrained)
        except (RuntimeError, MemoryError) as problem:
            resident = train.on_device is not None
            smaller = plan if resident else plan.halved(train.batch_size, trains_batch_norm(model))
            if smaller is None or not out_of_memory(problem):
                raise
        # here, not in the handler: its traceback holds what was allocated
        model.zero_grad(set_to_none=True)
        if resident:  # costs speed, where micro-batches may cost numbers
            train, val = replace(train, on_device=None), replace(val, on_device=None)
            say("memory     out of memory: the images are not kept on the device any more")
        else:
            saved = run.snapshot()
            since = f", from epoch {saved['state']['epochs'] + 1} on" if saved else ""
            plan = replace(smaller, memory=f"{smaller.memory}{since}")
            say(f"memory     {plan.memory}")
            run.change_plan(plan)
        free_memory(plan.device)
        set_random_state(random, plan.device)


def _fit(
    model: nn.Module, train: Batches, val: Batches, recipe: Recipe, plan: Plan, run: Checkpointer, untrained: StateDict
) -> State:
    """fit(), as far as memory goes: from what `run` saved last, or from the weights `untrained`."""
    saved = run.snapshot()
    state = State.restored(saved["state"], val.name) if saved else State()
    best = saved.get("best", saved["model"]) if saved else untrained
    energy = energy_joules(plan.device)
    if state.stage < len(recipe.stages):
        say(epoch_columns(val.name))
    for stage in recipe.stages[state.stage :]:
        step = Step(model, recipe.optimizer(stage, model), plan, train.batch_size)
        if saved:
            restore(saved, model, step)
            saved = None
        else:
            model.load_state_dict(best)
        while not _has_ended(state, recipe):
            loss, speed = train_epoch(model, train, step, recipe, state)
            logits, _ = predict(model, val, plan)
            top1, val_loss = score(logits, val.part.labels)
            row = {"stage": stage.name, "lr": step.lr, "train_loss": loss}
            row |= {f"{val.name}_loss": val_loss, f"{val.name}_top1": top1}
            if state.record_epoch(row | speed, top1, recipe.spec.latest_of_equals):
                best = copy_of(model)
            energy = state.account(plan.device, energy)
            run.save(take_snapshot(state, model, best, step))
            say(epoch_line(state.history[-1], val.name))
            if run.resumable and stop_asked_for():
                raise KeyboardInterrupt
        state.begin_next_stage()
    model.load_state_dict(best)
    return state


def _has_ended(state: State, recipe: Recipe) -> bool:
    """Whether the stage that `state` is in has."""
    patience, epochs = recipe.patience or float("inf"), recipe.epochs or float("inf")
    return state.epochs_without_gain >= patience or state.stage_epochs >= epochs


def take_snapshot(state: State, model: nn.Module, best: StateDict, step: Step) -> dict[str, Any]:
    """All that restore() and State.restored() need."""
    return {
        "state": asdict(state),
        "model": model.state_dict(),
        "best": best,
        "optimizer": step.optimizer.state_dict(),
        "scaler": step.scaler.state_dict(),
        "random": random_state(step.plan.device),
    }


def restore(saved: Mapping[str, Any], model: nn.Module, step: Step) -> None:
    """Put weights, optimizer and random numbers back to what take_snapshot() took."""
    model.load_state_dict(saved["model"])
    step.optimizer.load_state_dict(saved["optimizer"])
    step.scaler.load_state_dict(saved["scaler"])
    set_random_state(saved["random"], step.plan.device)


def train_epoch(
    model: nn.Module, train: Batches, step: Step, recipe: Recipe, state: State
) -> tuple[float, dict[str, float]]:
    """One pass over the training images, the next after `state`: mean loss per image, and what Clock.stop() says."""
    set_train_mode(model)
    epoch, stage, steps = state.epochs, recipe.stages[state.stage], train.steps * (recipe.epochs or 1)
    clock = Clock(step.plan.device)
    total = torch.zeros((), device=step.plan.device)
    batches = progress(clock.batches(train.shuffled(recipe.seed, epoch)), f"epoch {epoch + 1}", train.steps)
    for number, (images, labels) in enumerate(batches):
        recipe.set_lr(step.optimizer, stage, (state.stage_epochs * train.steps + number + 0.5) / steps)
        total += step(images, labels) * len(labels)
        if number % LOOK_AT_LOSS == LOOK_AT_LOSS - 1:
            require_finite(total.item(), epoch, recipe.lr, step.plan)
    require_finite(total.item(), epoch, recipe.lr, step.plan)
    return total.item() / clock.images, clock.stop()


def require_finite(loss: float, epoch: int, lr: float, plan: Plan) -> None:
    """Raise RunError, with what to try, when `loss` is infinite or not a number."""
    if not np.isfinite(loss):
        raise DivergedError(
            f"the loss became {loss} in epoch {epoch + 1} (learning rate {lr:g}, {plan.precision}). "
            f"Try a lower --lr, such as {lr / 10:g}{_or_fp32(plan)}."
        )


def _or_fp32(plan: Plan) -> str:
    return "" if plan.precision == "fp32" else ", or --precision fp32"


def predict(model: nn.Module, batches: Batches, plan: Plan) -> tuple[npt.NDArray[np.float32], dict[str, float]]:
    """The logits (N, classes) of every image in the order of the part, and what Clock.stop() says.

    Where memory runs out, smaller batches are tried. Raises RunError when the logits are not finite.
    """
    while True:
        try:
            return _predict(model, batches, plan)
        except (RuntimeError, MemoryError) as problem:
            if batches.batch_size == 1 or not out_of_memory(problem):
                raise
        free_memory(plan.device)
        batches = replace(batches, batch_size=batches.batch_size // 2)


@torch.inference_mode()
def _predict(model: nn.Module, batches: Batches, plan: Plan) -> tuple[npt.NDArray[np.float32], dict[str, float]]:
    model.eval()
    clock = Clock(plan.device)
    logits = []
    for images, _ in progress(clock.batches(batches.sequential()), batches.name, batches.steps):
        with plan.autocast():
            logits.append(model(images).float())
    speed = clock.stop()
    together: npt.NDArray[np.float32] = torch.cat(logits).cpu().numpy()
    if not np.isfinite(together).all():
        raise DivergedError(
            f"the model's outputs on the {batches.name} part are not finite. Try a lower --lr{_or_fp32(plan)}."
        )
    return together, speed


def score(logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Top-1 accuracy (0 to 1) and mean cross-entropy (nats), both per image."""
    loss = cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels))
    return float((logits.argmax(1) == labels).mean()), float(loss)


def copy_of(model: nn.Module) -> StateDict:
    """The weights as they are now, in main memory: training goes on in the model's own."""
    state = model.state_dict()  # with the versions of its layers, which some models ask for when they load it
    for name, value in state.items():
        state[name] = value.detach().to("cpu", copy=True)
    return state
