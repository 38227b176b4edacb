"""fit(): both stages of a recipe, early stopping, the best epoch; and predict()."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from engine.batches import Batches
from engine.clock import Clock, energy_joules
from engine.config import Config
from engine.console import EPOCH_COLUMNS, epoch_line, progress, say
from engine.errors import RunError
from engine.plan import Plan
from engine.records import Run
from engine.state import State


@dataclass(frozen=True)
class Stage:
    """One optimizer of a recipe; the learning rate comes from the command line."""

    name: str
    optimizer: Callable[[Iterable[nn.Parameter], float], torch.optim.Optimizer]


# the published recipe (Jeevan & Sethi, arXiv:2406.05612): both stages always run, at a constant rate
RECIPES = {
    "adamw-sgd": (
        Stage("adamw", lambda parameters, lr: torch.optim.AdamW(parameters, lr, betas=(0.9, 0.999), weight_decay=0.01)),
        Stage("sgd", lambda parameters, lr: torch.optim.SGD(parameters, lr, momentum=0.9)),
    )
}


def fit(
    model: nn.Module, head: nn.Module, train: Batches, select: Batches, config: Config, plan: Plan, run: Run
) -> State:
    """Train `model` in place by the recipe of `config` and leave it with the weights of its best epoch.

    The best epoch is the first with the highest top-1 on `select`: the validation part, or, under the `paper`
    protocol, the test part. After every epoch everything is saved in `run`; an interrupted run continues from
    there as if it had never stopped. Raises RunError when the loss is not finite.
    """
    recipe = RECIPES[config.recipe]
    energy = energy_joules(plan.device)
    saved = run.snapshot()
    state = State(**saved["state"]) if saved else State()
    best = saved.get("best", saved["model"]) if saved else _copy_of(model)
    if state.stage < len(recipe):
        say(EPOCH_COLUMNS)
    while state.stage < len(recipe):
        parameters = [parameter for parameter in model.parameters() if parameter.requires_grad]
        optimizer = recipe[state.stage].optimizer(parameters, config.lr)
        scaler = plan.gradient_scaler()
        if saved:
            model.load_state_dict(saved["model"])
            optimizer.load_state_dict(saved["optimizer"])
            scaler.load_state_dict(saved["scaler"])
            set_random_state(saved["random"], plan.device)
            saved = None
        else:
            model.load_state_dict(best)
        while state.stale < config.patience and state.stage_epochs < (config.epochs or float("inf")):
            loss, speed = train_epoch(model, head, train, optimizer, scaler, config, plan, state.epochs)
            logits, _ = predict(model, select, plan, "select")
            score, select_loss = score_of(logits, select.part.labels)
            state.epochs += 1
            state.stage_epochs += 1
            state.stale += 1
            if score > state.best_score:
                state.best_score, state.best_epoch, state.stale = score, state.epochs, 0
                best = _copy_of(model)
            row = {"epoch": state.epochs, "stage": recipe[state.stage].name, "lr": config.lr, "train_loss": loss}
            row |= {"select_loss": select_loss, "select_top1": score, "best_top1": state.best_score}
            row |= {"best_epoch": state.best_epoch, **speed}
            state.history.append(row)
            say(epoch_line(row))
            energy = state.account(plan.device, energy)
            snapshot = {"state": asdict(state), "model": model.state_dict(), "best": best}
            snapshot |= {"optimizer": optimizer.state_dict(), "scaler": scaler.state_dict()}
            snapshot |= {"random": random_state(plan.device)}
            run.save(snapshot)
        state.stage, state.stage_epochs, state.stale = state.stage + 1, 0, 0
    model.load_state_dict(best)
    return state


def train_epoch(
    model: nn.Module,
    head: nn.Module,
    train: Batches,
    optimizer: torch.optim.Optimizer,
    scaler: torch.amp.GradScaler,
    config: Config,
    plan: Plan,
    epoch: int,
) -> tuple[float, dict[str, float]]:
    """One pass over the training images; its mean loss per image, and what Clock.stop() says."""
    set_mode(model, head, config.tune)
    clock = Clock(plan.device)
    total = torch.zeros((), device=plan.device)
    batches = progress(clock.batches(train.shuffled(config.seed, epoch)), f"epoch {epoch + 1}", train.steps)
    for step, (images, labels) in enumerate(batches):
        with plan.autocast():
            loss = cross_entropy(model(images), labels)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad(set_to_none=True)
        # added up on the device: reading it every step would make the device wait for Python
        total += loss.detach() * len(labels)
        if step % 100 == 99:
            require_finite(total.item(), epoch, config, plan)
    require_finite(total.item(), epoch, config, plan)
    return total.item() / clock.images, clock.stop()


def require_finite(loss: float, epoch: int, config: Config, plan: Plan) -> None:
    """Raise RunError, with what to try, when `loss` is infinite or not a number."""
    if not np.isfinite(loss):
        instead = "" if plan.precision == "fp32" else ", or --precision fp32"
        raise RunError(
            f"the loss became {loss} in epoch {epoch + 1} (learning rate {config.lr:g}, {plan.precision}). "
            f"Try a lower --lr, such as {config.lr / 10:g}{instead}."
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

    Raises RunError when they are not finite.
    """
    model.eval()
    clock = Clock(plan.device)
    logits = []
    for images, _ in progress(clock.batches(batches.in_order()), what, batches.steps):
        with plan.autocast():
            logits.append(model(images).float())
    speed = clock.stop()
    together: npt.NDArray[np.float32] = torch.cat(logits).cpu().numpy()
    if not np.isfinite(together).all():
        raise RunError(f"the model's outputs on the {what} part are not finite. Try a lower --lr, or --precision fp32.")
    return together, speed


def score_of(logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Top-1 accuracy (0 to 1) and mean cross-entropy (nats), both per image."""
    loss = cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels))
    return float((logits.argmax(1) == labels).mean()), float(loss)


def random_state(device: str) -> dict[str, torch.Tensor]:
    """The state of the generators that dropout, stochastic depth and augmentation draw from."""
    states = {"cpu": torch.get_rng_state()}
    if device == "cuda":
        states["cuda"] = torch.cuda.get_rng_state()
    elif device == "mps":
        states["mps"] = torch.mps.get_rng_state()
    return states


def set_random_state(states: dict[str, torch.Tensor], device: str) -> None:
    """Continue from what random_state() returned."""
    torch.set_rng_state(states["cpu"])
    if device == "cuda":
        torch.cuda.set_rng_state(states["cuda"])
    elif device == "mps":
        torch.mps.set_rng_state(states["mps"])


def _copy_of(model: nn.Module) -> dict[str, torch.Tensor]:
    """The weights as they are now, in main memory: training goes on in the model's own."""
    return {name: value.detach().to("cpu", copy=True) for name, value in model.state_dict().items()}
