"""fit(): the stages of a recipe, early stopping, the best epoch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import nn

from engine.console import epoch_columns, epoch_line, progress, say
from engine.data.batches import Batches, Resident
from engine.device import free_memory, random_state, set_random_state
from engine.errors import DivergedError, out_of_memory
from engine.models.structure import batch_statistics, set_train_mode, trains_batch_norm
from engine.processes.exchange import add_up, any_of, average, own_random_numbers, total_of
from engine.processes.heartbeat import stop_asked_for
from engine.training.evaluation import or_fp32, predict, score
from engine.training.head import solve_head
from engine.training.meters import Clock, energy_joules
from engine.training.metrics import METRICS, Predictions
from engine.training.plan import Plan
from engine.training.recipe import Recipe, Stage
from engine.training.saving import Checkpointer, Saver, StateDict, copy_of, restore, resumed, take_snapshot
from engine.training.state import SOLVED, State
from engine.training.step import Step

LOOK_AT_LOSS = 100  # steps: reading the loss makes a card's host wait

Told = Callable[[float | None], None]


def unheard(_: float | None) -> None:
    """For whoever need not know the steady speed."""


def fit(
    model: nn.Module,
    train: Batches,
    val: Batches,
    recipe: Recipe,
    plan: Plan,
    run: Checkpointer,
    after_first_epoch: Told = unheard,
) -> State:
    """Train `model` in place as `recipe` says and leave it with the weights of its best epoch.

    The best epoch is that with the highest top-1, or other metric that the recipe names, on `val`: the validation part,
    or, under the `paper` protocol, the test part. Of several such it is the first or the last, as the recipe says. All
    is saved in `run` as often as Saver has it; an interrupted run continues from there as if it had never stopped.
    Raises RunError when the loss is not finite.

    After the first epoch, when the device holds what training needs, images are held there too, as far as Resident
    does. Where memory runs out, it goes on from what was saved: without them, or else with the same batches in halved
    micro-batches, of which `run` keeps a note. Of several processes that train together, none takes less than the
    others: there a lack of memory is raised.

    `after_first_epoch` is called once, after the first epoch that is trained here, with what Clock has as its steady
    images/s; None: it can't tell, or not images were trained on, but features.
    """
    untrained, random = copy_of(model), random_state(plan.device)
    fitting = _Fitting(model, Resident(train, val), recipe, plan, run, Saver(run), after_first_epoch)
    while True:
        try:
            return fitting.go_on(untrained)
        except (RuntimeError, MemoryError) as problem:
            if not out_of_memory(problem) or not fitting.could_take_less:
                raise
        # here, not in the handler: its traceback holds what was allocated
        model.zero_grad(set_to_none=True)
        fitting.take_less()
        free_memory(plan.device)
        set_random_state(random, plan.device)


@dataclass
class _Fitting:
    """One call of fit(): what it works on, and with."""

    model: nn.Module
    images: Resident
    recipe: Recipe
    plan: Plan
    run: Checkpointer
    saver: Saver
    after_first_epoch: Told
    finished_one: bool = False

    @property
    def could_take_less(self) -> bool:
        """Whether there is memory to be given up, and nobody who waits for this process meanwhile."""
        if self.images.train.processes > 1:
            return False
        return self.images.mib > 0 or self._halved() is not None

    def _halved(self) -> Plan | None:
        if self.images.train.layer:  # the last layer alone is not trained in micro-batches
            return None
        return self.plan.halved(self.images.train.batch_size, trains_batch_norm(self.model))

    def take_less(self) -> None:
        """Give up what costs speed; if there is nothing of that, what may cost numbers."""
        if self.images.release():
            say("memory     out of memory: the images are not kept on the device any more")
            return
        smaller, saved = self._halved(), self.run.snapshot()
        assert smaller is not None
        since = f", from epoch {saved['state']['epochs'] + 1} on" if saved else ""
        self.plan = replace(smaller, memory=f"{smaller.memory}{since}")
        say(f"memory     {self.plan.memory}")
        self.run.change_plan(self.plan)

    def go_on(self, untrained: StateDict) -> State:
        """fit(), as far as memory goes: from what was saved last, or from the weights `untrained`."""
        recipe, part = self.recipe, self.images.val.name
        saved = self.run.snapshot()
        state, best = State(select=recipe.select), untrained
        if saved:
            state, best = resumed(saved, self.model, part, len(recipe.stages))
        energy = total_of(energy_joules(self.plan.device))
        if state.stage < len(recipe.stages):
            say(epoch_columns(part, METRICS[recipe.select].label))
        for stage in recipe.stages[state.stage :]:
            step = self._step(stage)
            if saved:
                restore(saved, self.model, step)
                saved = None
            else:
                self.model.load_state_dict(best)
            while not self._has_ended(state):
                better, steady = self._epoch(stage, step, state)
                if better:
                    best = copy_of(self.model)
                energy = state.account(self.plan.device, energy, self.images.mib)
                self._save(state, best, step)
                if not (self.finished_one or stage.solves_head):
                    self.finished_one = True
                    self.after_first_epoch(steady)
                    self.images.hold()
            state.begin_next_stage()
        self.model.load_state_dict(best)
        return state

    def _step(self, stage: Stage) -> Step:
        layer, train = self.images.train.layer, self.images.train
        # the last layer alone needs none of these
        plan = replace(self.plan, compiled=False, graphed=False, micro_batch=None) if layer else self.plan
        optimizer = self.recipe.optimizer(stage, self.model)
        model, weights = self.model.get_submodule(layer), self.recipe.class_weights
        return Step(model, optimizer, plan, train.whole_share, weights, train.processes > 1)

    def _epoch(self, stage: Stage, step: Step, state: State) -> tuple[bool, float | None]:
        """The epoch after `state`, which takes it in. Whether it is the best so far, and its steady images/s."""
        clock, train, val = Clock(self.plan.device), self.images.train, self.images.val
        recipe = self.recipe
        solved = None
        if stage.solves_head:
            solved = solve_head(self.model, recipe.head, train, val, self.plan, recipe.class_weights)
        if solved:
            loss, speed, val = solved.loss, solved.speed, solved.val
        else:
            loss, speed = train_epoch(self.model, train, step, recipe, state, clock)
        state.speed_of_features = train.speed_of_features or state.speed_of_features
        logits, _ = predict(self.model, val, self.plan)
        top1, val_loss = score(logits, val.part.labels)
        row = {"stage": stage.name, "lr": SOLVED if solved else step.lr, "train_loss": loss}
        row |= {f"{val.name}_loss": val_loss, f"{val.name}_top1": top1}
        chosen = top1
        if state.select != "top1":
            chosen = METRICS[state.select].compute(Predictions(logits, val.part.labels)) or 0.0
            row |= {f"{val.name}_{state.select}": chosen}
        better = state.record_epoch(row | speed, chosen, self.recipe.spec.latest_of_equals)
        return better, None if train.layer else clock.steady_images_per_second

    def _has_ended(self, state: State) -> bool:
        """Whether the stage that `state` is in has."""
        recipe = self.recipe
        stage = recipe.stages[state.stage]
        patience, epochs = recipe.patience or float("inf"), recipe.epochs_of(stage) or float("inf")
        return state.epochs_without_gain >= patience or state.stage_epochs >= epochs

    def _save(self, state: State, best: StateDict, step: Step) -> None:
        """Save, if it is time to, and print the epoch's line. Raises KeyboardInterrupt where a stop was asked for."""
        stop = self.run.resumable and any_of(stop_asked_for())
        is_last = state.stage == len(self.recipe.stages) - 1 and self._has_ended(state)
        took = self.saver.save(state, lambda: take_snapshot(state, self.model, best, step), must=stop or is_last)
        say(epoch_line(state.history[-1], self.images.val.name, self.recipe.select, took))
        if stop:
            raise KeyboardInterrupt


def train_epoch(
    model: nn.Module, train: Batches, step: Step, recipe: Recipe, state: State, clock: Clock | None = None
) -> tuple[float, dict[str, float]]:
    """One pass over the training images, the next after `state`: mean loss per image, and what Clock.stop() says.

    Of `clock`, if it is given, which has just begun.
    """
    epoch, stage = state.epochs, recipe.stages[state.stage]
    set_train_mode(model, keep_statistics=stage.keeps_statistics and state.solved_head)
    clock = clock or Clock(step.plan.device)
    steps = train.steps * (recipe.epochs_of(stage) or 1)
    own_random_numbers(recipe.seed, epoch)
    total = torch.zeros((), device=step.plan.device)
    shuffled = train.shuffled(recipe.seed, epoch, clock.arrived)
    batches = progress(clock.batches(shuffled), f"epoch {epoch + 1}", train.steps)
    for number, (images, labels) in enumerate(batches):
        recipe.set_lr(step.optimizer, stage, (state.stage_epochs * train.steps + number + 0.5) / steps)
        loss = step(images, labels, train.weight(number, len(labels)))
        total += loss * (train.in_batch(number) / train.processes)
        if number % LOOK_AT_LOSS == LOOK_AT_LOSS - 1:
            require_finite(add_up(total.clone()).item(), epoch, recipe.lr, step.plan)
    require_finite(add_up(total).item(), epoch, recipe.lr, step.plan)
    speed = clock.stop(train.trained)
    average(batch_statistics(model))
    require_finite_state(model, epoch, recipe.lr, step.plan)
    return total.item() / train.trained, speed


def require_finite(loss: float, epoch: int, lr: float, plan: Plan) -> None:
    """Raise RunError, with what to try, when `loss` is infinite or not a number."""
    if not np.isfinite(loss):
        raise DivergedError(
            f"the loss became {loss} in epoch {epoch + 1} (learning rate {lr:g}, {plan.precision}). "
            f"Try a lower --lr, such as {lr / 10:g}{or_fp32(plan)}."
        )


def require_finite_state(model: nn.Module, epoch: int, lr: float, plan: Plan) -> None:
    """Raise RunError, with what to try, when a parameter or a buffer of `model` is infinite or not a number."""
    state = {name: value for name, value in model.state_dict().items() if value.is_floating_point() and value.numel()}
    # one number of each, all read at once: a card's host would wait for each reading. Sums are what is found fastest.
    if torch.stack([value.sum() for value in state.values()]).cpu().isfinite().all():
        return
    name = next((name for name, value in state.items() if not value.isfinite().all()), None)
    if name is None:
        return
    raise DivergedError(
        f"{name} of the model is not finite after epoch {epoch + 1} (learning rate {lr:g}, {plan.precision}). "
        f"Try a lower --lr, such as {lr / 10:g}{or_fp32(plan)}."
    )
