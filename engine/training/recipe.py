"""What a run is trained by: optimizers, learning rates, and when each stage ends."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from engine.config import Config
from engine.models.backbone import forward_order

Group = dict[str, Any]  # of parameters, as torch's optimizers take them; "scale" multiplies the stage's rate


@dataclass(frozen=True)
class Stage:
    """One optimizer of a recipe."""

    name: str
    optimizer: Callable[[Sequence[Group], float], torch.optim.Optimizer]
    # the share of the rate at a share of the stage's steps (0 to 1): such a stage has a fixed number of epochs;
    # None: a constant rate, until patience ends the stage
    schedule: Callable[[float], float] | None = None


@dataclass(frozen=True)
class Recipe:
    """A recipe as one run follows it."""

    stages: tuple[Stage, ...]
    rate: float  # the (highest) learning rate
    epochs: int | None  # of a stage: at most, or, where it has a schedule, exactly
    patience: int | None  # epochs without gain that end a stage; None: nothing but `epochs` does
    seed: int = 0
    tune: str = "full"  # or "linear": the head alone
    ema: bool = False  # whether the weights that are scored and kept are a moving average of those that are trained
    layer_decay: float | None = None

    @property
    def summary(self) -> str:
        """What is done, in a line."""
        if self.patience is None:
            text = f"AdamW, warm-up and down to zero over {self.epochs:,} epochs"
            text += ", moving average of the weights" if self.ema else ""
            return text + (f", layer decay {self.layer_decay:g}" if self.layer_decay else "")
        text = "AdamW, then SGD, until "
        text += f"{self.patience} epochs bring" if self.patience > 1 else "an epoch brings"
        return f"{text} no gain" + (f", at most {self.epochs:,} each" if self.epochs else "")

    @property
    def later_ties(self) -> bool:
        """Whether of two epochs with the same score the later is the better: its rate is lower."""
        return self.patience is None

    def optimizer(self, stage: int, model: nn.Module, head: nn.Module) -> torch.optim.Optimizer:
        """A new optimizer of all parameters of `model` that are trained, for the stage with that index."""
        if self.stages[stage].schedule:
            groups = decayed_groups(model, head, self.layer_decay or 1.0)
        else:
            groups = [{"params": [p for p in model.parameters() if p.requires_grad], "scale": 1.0}]
        return self.stages[stage].optimizer(groups, self.rate)

    def set_rate(self, optimizer: torch.optim.Optimizer, stage: int, share: float) -> None:
        """Give `optimizer` the rate at a `share` (0 to 1) of the stage's steps."""
        schedule = self.stages[stage].schedule
        if schedule:
            for group in optimizer.param_groups:
                group["lr"] = self.rate * schedule(share) * group["scale"]


def _adamw(groups: Sequence[Group], rate: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(groups, rate, betas=(0.9, 0.999), weight_decay=0.01, fused=True)


def _sgd(groups: Sequence[Group], rate: float) -> torch.optim.Optimizer:
    optimizer = torch.optim.SGD(groups, rate, momentum=0.9, fused=True)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            # the fused kernel makes it at the first step without a value, which stays where fp16 overflows in that step
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def _decayed_adamw(groups: Sequence[Group], rate: float) -> torch.optim.Optimizer:
    # 0.05 is what ConvNeXt (arXiv:2201.03545) and Swin (arXiv:2103.14030) were trained with
    return torch.optim.AdamW(groups, rate, betas=(0.9, 0.999), weight_decay=0.05, fused=True)


# of the steps: BiT's rule for fewer than 20,000 images warms up over 100 of 500 steps (arXiv:1912.11370), the
# fine-tuning of Swin-T on ImageNet over 5 of 30 epochs, Hugging Face's example for Swin-T on EuroSAT over a tenth
WARM_UP = 0.1
# where --epochs says nothing: so many epochs, and no fewer than BiT's 500 steps
COSINE_EPOCHS = 20
COSINE_STEPS = 500


def cosine(share: float) -> float:
    """The share of the rate at a share of the steps (0 to 1): a linear rise, then half a cosine down to zero.

    Loshchilov & Hutter 2017, "SGDR", arXiv:1608.03983, equation 5 without restarts; the rise as in Goyal et al. 2017,
    arXiv:1706.02677.
    """
    if share < WARM_UP:
        return share / WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (share - WARM_UP) / (1 - WARM_UP)))


RECIPES: dict[str, tuple[Stage, ...]] = {
    # the published one (Jeevan & Sethi, arXiv:2406.05612): both stages always run, at a constant rate
    "adamw-sgd": (Stage("adamw", _adamw), Stage("sgd", _sgd)),
    # how such networks are fine-tuned elsewhere
    "cosine": (Stage("cosine", _decayed_adamw, cosine),),
}
CONSTANT_RATE = 1e-3  # of both stages of "adamw-sgd"


def make_recipe(config: Config, rate: float, steps: int) -> Recipe:
    """The course that `config` asks for; `rate` is the backbone's for "cosine", `steps` are those of an epoch."""
    stages = RECIPES[config.recipe]
    scheduled = stages[0].schedule is not None
    epochs = config.epochs
    if scheduled and epochs is None:
        epochs = max(COSINE_EPOCHS, math.ceil(COSINE_STEPS / steps))
    return Recipe(
        stages,
        config.lr or (rate if scheduled else CONSTANT_RATE),
        epochs,
        None if scheduled else config.patience,
        config.seed,
        config.tune,
        config.ema,
        config.layer_decay,
    )


LAYERS = 12  # that the layers of a network are put into for --layer-decay, as ConvNeXt's are


def decayed_groups(model: nn.Module, head: nn.Module, layer_decay: float) -> list[Group]:
    """The parameters of `model` that are trained, by the rate that they get and whether their weights decay.

    The weights of layers decay; biases, normalisation, scales and tables of positions do not, as in ConvNeXt and (but
    for SwinV2's small network of positions) Swin. The head gets the whole rate, the twelfth of the network before it
    `layer_decay` of it, the twelfth before that `layer_decay` squared, and so on: Bao et al. 2022, "BEiT",
    arXiv:2106.08254, section 3.1; twelve groups as in Liu et al. 2022, arXiv:2201.03545, appendix A.2. The order is
    that in which a forward pass uses them.
    """
    # without layer decay, all is the head's distance
    position = forward_order(model) if layer_decay < 1 else {}
    body = sorted(set(position.values()))
    rank = {place: index for index, place in enumerate(body)}
    of_head = {id(parameter) for parameter in head.parameters()}
    groups: dict[tuple[float, bool], Group] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        at_head = id(parameter) in of_head or not position
        distance = 0 if at_head else LAYERS - rank[position[name]] * LAYERS // len(body)
        scale, decays = layer_decay**distance, name.endswith("weight") and parameter.ndim > 1
        group = groups.setdefault((scale, decays), {"params": [], "scale": scale})
        if not decays:
            group["weight_decay"] = 0.0
        group["params"].append(parameter)
    return list(groups.values())


class Average:
    """A moving average of a model's weights and buffers, over a window that grows with the number of steps.

    The first step's weights are taken as they are. At step t, counted from 1, it moves by 1 - min(DECAY, t / (9 + t))
    towards the weights: TensorFlow's ExponentialMovingAverage with num_updates, which suits runs of a few hundred steps
    as well as long ones. (torch.optim.swa_utils.AveragedModel counts in a tensor, which makes a card's host wait.)
    """

    DECAY = 0.9999  # ConvNeXt's (arXiv:2201.03545, table 5)

    def __init__(self, model: nn.Module) -> None:
        self.model = copy.deepcopy(model)  # with the averaged weights
        self.steps = 0

    @torch.no_grad()
    def update(self, model: nn.Module) -> None:
        """Take in the weights of `model` after a step."""
        self.steps += 1
        pairs = list(zip(_tensors(self.model), _tensors(model), strict=True))
        decay = min(self.DECAY, self.steps / (9 + self.steps)) if self.steps > 1 else 0.0
        averaged = [pair for pair in pairs if pair[0].is_floating_point()]
        torch._foreach_lerp_([own for own, _ in averaged], [other for _, other in averaged], 1 - decay)
        for own, other in pairs:
            if not own.is_floating_point():  # what normalisation counts
                own.copy_(other)

    def state_dict(self) -> dict[str, Any]:
        """All that load_state_dict() needs."""
        return {"model": self.model.state_dict(), "steps": self.steps}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from what state_dict() gave."""
        self.model.load_state_dict(state["model"])
        self.steps = state["steps"]


def _tensors(model: nn.Module) -> list[torch.Tensor]:
    return [*model.parameters(), *model.buffers()]
