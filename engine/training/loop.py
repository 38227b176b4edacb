"""fit(): both stages of a recipe, early stopping, the best epoch; and predict()."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from engine.console import EPOCH_COLUMNS, epoch_line, progress, say
from engine.data.batches import Batches
from engine.device import free_memory, random_state, set_random_state
from engine.errors import DivergedError, out_of_memory
from engine.heartbeat import stop_asked_for
from engine.models.backbone import trains_batch_norm
from engine.training.meters import Clock, energy_joules
from engine.training.plan import Plan
from engine.training.recipe import Average, Recipe
from engine.training.state import State
from engine.training.step import Step


class Checkpointer(Protocol):
    """Where fit() saves what it has reached, and finds what was saved before: a Run, say."""

    saves: bool  # whether what is saved can be gone on from

    def snapshot(self) -> dict[str, Any] | None:
        """What the last save() was given, or None."""

    def save(self, snapshot: Mapping[str, Any]) -> None:
        """After an epoch: everything that a resume needs."""

    def change_plan(self, plan: Plan) -> None:
        """The run goes on by another plan."""


def fit(
    model: nn.Module, head: nn.Module, train: Batches, select: Batches, course: Recipe, plan: Plan, run: Checkpointer
) -> State:
    """Train `model` in place as `course` says and leave it with the weights of its best epoch.

    The best epoch is that with the highest top-1 on `select`: the validation part, or, under the `paper` protocol, the
    test part. Of several such it is the first, or the last where the rate goes down to zero. After every epoch all is
    saved in `run`; an interrupted run continues from there as if it had never stopped. Where memory runs out, it goes
    on from there with the same batches in halved micro-batches, and `run` keeps a note of it. Raises RunError when the
    loss is not finite.
    """
    untrained, random = copy_of(model), random_state(plan.device)
    while True:
        try:
            return _fit(model, head, train, select, course, plan, run, untrained)
        except (RuntimeError, MemoryError) as problem:
            held = train.on_device is not None
            smaller = plan if held else plan.halved(train.batch_size, trains_batch_norm(model, course.tune))
            if smaller is None or not out_of_memory(problem):
                raise
        # here, not in the handler: its traceback holds what was allocated
        model.zero_grad(set_to_none=True)
        if held:  # costs speed, where micro-batches may cost numbers
            train, select = replace(train, on_device=None), replace(select, on_device=None)
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
    model: nn.Module,
    head: nn.Module,
    train: Batches,
    select: Batches,
    course: Recipe,
    plan: Plan,
    run: Checkpointer,
    untrained: dict[str, torch.Tensor],
) -> State:
    """fit(), as far as memory goes: from what `run` saved last, or from the weights `untrained`."""
    stages = course.stages
    energy = energy_joules(plan.device)
    saved = run.snapshot()
    state = State(**saved["state"]) if saved else State()
    best = saved.get("best", saved["model"]) if saved else untrained
    if state.stage < len(stages):
        say(EPOCH_COLUMNS)
    while state.stage < len(stages):
        step = Step(model, course.optimizer(state.stage, model, head), plan, train.batch_size)
        average = Average(model) if course.ema else None
        if saved:
            model.load_state_dict(saved["model"])
            step.optimizer.load_state_dict(saved["optimizer"])
            step.scaler.load_state_dict(saved["scaler"])
            if average:
                average.load_state_dict(saved["average"])
            set_random_state(saved["random"], plan.device)
            saved = None
        else:
            model.load_state_dict(best)
        scored = average.model if average else model
        while state.stale < (course.patience or float("inf")) and state.stage_epochs < (course.epochs or float("inf")):
            loss, speed = train_epoch(model, head, train, step, course, state, average)
            logits, _ = predict(scored, select, plan, "select")
            score, select_loss = score_of(logits, select.part.labels)
            state.epochs += 1
            state.stage_epochs += 1
            state.stale += 1
            if score > state.best_score or (score == state.best_score and course.later_ties):
                state.best_score, state.best_epoch, state.stale = score, state.epochs, 0
                best = copy_of(scored)
            row = {"epoch": state.epochs, "stage": stages[state.stage].name}
            row |= {"lr": max(group["lr"] for group in step.optimizer.param_groups), "train_loss": loss}
            row |= {"select_loss": select_loss, "select_top1": score, "best_top1": state.best_score}
            row |= {"best_epoch": state.best_epoch, **speed}
            state.history.append(row)
            say(epoch_line(row))
            energy = state.account(plan.device, energy)
            snapshot = {"state": asdict(state), "model": model.state_dict(), "best": best}
            snapshot |= {"optimizer": step.optimizer.state_dict(), "scaler": step.scaler.state_dict()}
            snapshot |= {"random": random_state(plan.device)}
            if average:
                snapshot["average"] = average.state_dict()
            run.save(snapshot)
            if run.saves and stop_asked_for():
                raise KeyboardInterrupt
        state.stage, state.stage_epochs, state.stale = state.stage + 1, 0, 0
    model.load_state_dict(best)
    return state


def train_epoch(
    model: nn.Module,
    head: nn.Module,
    train: Batches,
    step: Step,
    course: Recipe,
    state: State,
    average: Average | None = None,
) -> tuple[float, dict[str, float]]:
    """One pass over the training images, the next after `state`; its mean loss per image, and what Clock.stop() says.

    `average` takes in the weights after every step.
    """
    set_mode(model, head, course.tune)
    epoch, steps = state.epochs, train.steps * (course.epochs or 1)
    clock = Clock(step.plan.device)
    total = torch.zeros((), device=step.plan.device)
    batches = progress(clock.batches(train.shuffled(course.seed, epoch)), f"epoch {epoch + 1}", train.steps)
    for number, (images, labels) in enumerate(batches):
        course.set_rate(step.optimizer, state.stage, (state.stage_epochs * train.steps + number + 0.5) / steps)
        total += step(images, labels) * len(labels)
        if average:
            average.update(model)
        if number % 100 == 99:
            require_finite(total.item(), epoch, course.rate, step.plan)
    require_finite(total.item(), epoch, course.rate, step.plan)
    return total.item() / clock.images, clock.stop()


def require_finite(loss: float, epoch: int, rate: float, plan: Plan) -> None:
    """Raise RunError, with what to try, when `loss` is infinite or not a number."""
    if not np.isfinite(loss):
        instead = "" if plan.precision == "fp32" else ", or --precision fp32"
        raise DivergedError(
            f"the loss became {loss} in epoch {epoch + 1} (learning rate {rate:g}, {plan.precision}). "
            f"Try a lower --lr, such as {rate / 10:g}{instead}."
        )


def set_mode(model: nn.Module, head: nn.Module, tune: str) -> None:
    """Ready for training. A frozen body stays in evaluation mode: its batch statistics must not drift either."""
    model.train(tune == "full")
    head.train()


def freeze_body(model: nn.Module, head: nn.Module) -> None:
    """For `--tune linear`: let only `head`, a module of `model`, be trained."""
    model.requires_grad_(False)
    head.requires_grad_(True)


@torch.inference_mode()
def predict(
    model: nn.Module, batches: Batches, plan: Plan, what: str
) -> tuple[npt.NDArray[np.float32], dict[str, float]]:
    """The logits (N, classes) of every image in the order of the part, and what Clock.stop() says.

    Where memory runs out, smaller batches are tried. Raises RunError when the logits are not finite.
    """
    while True:
        try:
            return _predict(model, batches, plan, what)
        except (RuntimeError, MemoryError) as problem:
            if batches.batch_size == 1 or not out_of_memory(problem):
                raise
        free_memory(plan.device)
        batches = replace(batches, batch_size=batches.batch_size // 2)


def _predict(
    model: nn.Module, batches: Batches, plan: Plan, what: str
) -> tuple[npt.NDArray[np.float32], dict[str, float]]:
    model.eval()
    clock = Clock(plan.device)
    logits = []
    for images, _ in progress(clock.batches(batches.sequential()), what, batches.steps):
        with plan.autocast():
            logits.append(model(images).float())
    speed = clock.stop()
    together: npt.NDArray[np.float32] = torch.cat(logits).cpu().numpy()
    if not np.isfinite(together).all():
        raise DivergedError(
            f"the model's outputs on the {what} part are not finite. Try a lower --lr, or --precision fp32."
        )
    return together, speed


def score_of(logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Top-1 accuracy (0 to 1) and mean cross-entropy (nats), both per image."""
    loss = cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels))
    return float((logits.argmax(1) == labels).mean()), float(loss)


def copy_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """The weights as they are now, in main memory: training goes on in the model's own."""
    return {name: value.detach().to("cpu", copy=True) for name, value in model.state_dict().items()}
