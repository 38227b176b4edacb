"""What a run is trained by: optimizers, learning rates, and when each stage ends.

A recipe is one entry of RECIPES: `--recipe` offers it, `--help` has its defaults, and the report tells it from others.
PyTorch is imported where an optimizer is made, since `--help` needs this module too.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from engine.errors import counted

if TYPE_CHECKING:
    import torch
    from torch import nn

Group = dict[str, Any]  # of parameters, as torch's optimizers take them
Labels = npt.NDArray[np.int64]

DEFAULT = "adamw-sgd"


def trained(model: nn.Module) -> list[Group]:
    """The parameters of `model` that are trained, in one group."""
    return [{"params": [parameter for parameter in model.parameters() if parameter.requires_grad]}]


def decay_groups(model: nn.Module) -> list[Group]:
    """The parameters of `model` that are trained, in two groups: those whose weights decay, and the others.

    The weights of layers decay; biases, normalisation, scales and tables of positions do not, as in ConvNeXt and (but
    for SwinV2's small network of positions) Swin.
    """
    groups: dict[bool, Group] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decays = name.endswith("weight") and parameter.ndim > 1
            usual: Group = {"params": []} if decays else {"params": [], "weight_decay": 0.0}
            groups.setdefault(decays, usual)["params"].append(parameter)
    return list(groups.values())


@dataclass(frozen=True)
class Stage:
    """One optimizer of a recipe."""

    name: str
    optimizer: Callable[[Sequence[Group], float], torch.optim.Optimizer]
    # the share of the learning rate at a share of the stage's steps (0 to 1); None: it is constant
    schedule: Callable[[float], float] | None = None
    groups: Callable[[nn.Module], list[Group]] = trained
    epochs: int | None = None  # that it has, whatever the run's; None: the run's
    solves_head: bool = False  # its epoch is no training, but solve_head()
    # batch normalisation stays by the statistics that the head was solved on; where it was not, it is by each batch's
    keeps_statistics: bool = False


@dataclass(frozen=True)
class RecipeSpec:
    """The declaration of a recipe."""

    help: str
    stages: tuple[Stage, ...]
    summary: Callable[[Recipe], str]  # what is done, in a line
    lr: float | None  # None: the backbone's own
    # epochs of each stage where --epochs does not say, by the steps of an epoch; None: patience alone decides
    epochs: Callable[[int], int] | None
    epochs_help: str  # that default, for --help
    patience: int | None  # epochs without a gain that end a stage; None: the recipe takes no --patience
    latest_of_equals: bool  # whether of two epochs with the same score the later is the better


@dataclass(frozen=True)
class Recipe:
    """A recipe as one run follows it."""

    spec: RecipeSpec
    lr: float  # the (highest) learning rate
    epochs: int | None  # of a stage: at most, or, where patience does not end it, exactly
    patience: int | None
    seed: int = 0
    select: str = "top1"  # the metric whose highest value on val makes an epoch the best
    # what an image of each class counts in the loss, where the training images of all together count as many as they
    # are; None: each counts one
    class_weights: tuple[float, ...] | None = None
    head: str = ""  # the dotted name of the last layer, for a stage that solves it; "": the body knows nothing yet

    @property
    def stages(self) -> tuple[Stage, ...]:
        """One after the other; where the body knows nothing yet, there is no head to be solved for."""
        return tuple(stage for stage in self.spec.stages if self.head or not stage.solves_head)

    @property
    def summary(self) -> str:
        """What is done, in a line."""
        return self.spec.summary(self)

    @property
    def fewest_epochs(self) -> int:
        """Epochs that are sure to be trained, even if none brings a gain."""
        usual = min(self.epochs or self.patience or 1, self.patience or self.epochs or 1)
        return sum(stage.epochs or usual for stage in self.stages)

    def epochs_of(self, stage: Stage) -> int | None:
        """Of a stage, at most; None: as many as patience allows."""
        return stage.epochs or self.epochs

    def optimizer(self, stage: Stage, model: nn.Module) -> torch.optim.Optimizer:
        """A new optimizer of all parameters of `model` that are trained."""
        return stage.optimizer(stage.groups(model), self.lr)

    def set_lr(self, optimizer: torch.optim.Optimizer, stage: Stage, share: float) -> None:
        """Give `optimizer` the learning rate at a `share` (0 to 1) of the stage's steps."""
        if stage.schedule:
            for group in optimizer.param_groups:
                group["lr"] = self.lr * stage.schedule(share)


def _adamw(groups: Sequence[Group], lr: float) -> torch.optim.Optimizer:
    import torch

    return torch.optim.AdamW(groups, lr, betas=(0.9, 0.999), weight_decay=0.01, fused=True)


def _sgd(groups: Sequence[Group], lr: float) -> torch.optim.Optimizer:
    import torch

    optimizer = torch.optim.SGD(groups, lr, momentum=0.9, fused=True)
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            # the fused kernel makes it at the first step without a value, which stays where fp16 overflows in that step
            optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def _decayed_adamw(groups: Sequence[Group], lr: float) -> torch.optim.Optimizer:
    import torch

    # 0.05 is what ConvNeXt (arXiv:2201.03545) and Swin (arXiv:2103.14030) were trained with
    return torch.optim.AdamW(groups, lr, betas=(0.9, 0.999), weight_decay=0.05, fused=True)


# of the steps: BiT's rule for fewer than 20,000 images warms up over 100 of 500 steps (arXiv:1912.11370), the
# fine-tuning of Swin-T on ImageNet over 5 of 30 epochs, Hugging Face's example for Swin-T on EuroSAT over a tenth
WARM_UP = 0.1
# where --epochs says nothing: so many epochs, and no fewer than BiT's 500 steps
COSINE_EPOCHS = 20
COSINE_STEPS = 500


def cosine(share: float) -> float:
    """The share of the learning rate at a share of the steps (0 to 1): a linear rise, then half a cosine down to zero.

    Loshchilov & Hutter 2017, "SGDR", arXiv:1608.03983, equation 5 without restarts; the rise as in Goyal et al. 2017,
    arXiv:1706.02677.
    """
    if share < WARM_UP:
        return share / WARM_UP
    return 0.5 * (1 + math.cos(math.pi * (share - WARM_UP) / (1 - WARM_UP)))


# as many as make so many steps, within these. Ten epochs of eight steps were not enough for images unlike ImageNet's,
# ten of sixty were; five, statistics of each batch, smoothing, mixup, layer decay and others had no more, or less, on
# val: docs/recipes.md
FAST_STEPS = 160
FAST_EPOCHS = (10, 20)
# where it can't be solved for, all layers are trained in its epoch
SOLVE_HEAD = Stage("head", _decayed_adamw, groups=decay_groups, epochs=1, solves_head=True)


def _until_no_gain(recipe: Recipe) -> str:
    epochs = f"{recipe.patience} epochs bring" if recipe.patience != 1 else "an epoch brings"
    return f"AdamW, then SGD, until {epochs} no gain" + (f", at most {recipe.epochs:,} each" if recipe.epochs else "")


def _down_to_zero(recipe: Recipe) -> str:
    return f"AdamW, warm-up and down to zero over {counted(recipe.epochs or 0, 'epoch')}"


def _fast_epochs(steps: int) -> int:
    fewest, most = FAST_EPOCHS
    return min(most, max(fewest, math.ceil(FAST_STEPS / steps)))


RECIPES: dict[str, RecipeSpec] = {
    # the published one (Jeevan & Sethi, arXiv:2406.05612): both stages always run, at a constant learning rate
    DEFAULT: RecipeSpec(
        help="AdamW, then SGD from the best epoch, each at a constant learning rate until patience ends it",
        stages=(Stage("adamw", _adamw), Stage("sgd", _sgd)),
        summary=_until_no_gain,
        lr=1e-3,
        epochs=None,
        epochs_help="as many as patience allows",
        patience=10,
        latest_of_equals=False,
    ),
    # how such networks are fine-tuned elsewhere
    "cosine": RecipeSpec(
        help="AdamW, warm-up, then down to zero over a fixed number of epochs",
        stages=(Stage("cosine", _decayed_adamw, cosine, decay_groups),),
        summary=_down_to_zero,
        lr=None,
        epochs=lambda steps: max(COSINE_EPOCHS, math.ceil(COSINE_STEPS / steps)),
        epochs_help=f"{COSINE_EPOCHS}, or as many as make {COSINE_STEPS} steps",
        patience=None,
        latest_of_equals=True,  # its learning rate is lower
    ),
    "fast": RecipeSpec(
        help="the head solved for on frozen features, then all layers as in cosine, over a few epochs",
        stages=(SOLVE_HEAD, Stage("cosine", _decayed_adamw, cosine, decay_groups, keeps_statistics=True)),
        summary=lambda recipe: ("the head solved for, then " if recipe.head else "") + _down_to_zero(recipe),
        lr=None,
        epochs=_fast_epochs,
        epochs_help=f"as many as make {FAST_STEPS} steps, {FAST_EPOCHS[0]} to {FAST_EPOCHS[1]}, after that of the head",
        patience=None,
        latest_of_equals=True,
    ),
}


def epochs_of_all(name: str, each: int) -> int:
    """Those of all stages together, where each that has no number of its own has so many."""
    return sum(stage.epochs or each for stage in RECIPES[name].stages)


def make_recipe(name: str, lr: float, epochs: int | None, patience: int | None, seed: int = 0) -> Recipe:
    """The recipe called `name`, as one run follows it."""
    return Recipe(RECIPES[name], lr, epochs, patience, seed)


def balanced_weights(labels: Labels, classes: int) -> tuple[float, ...]:
    """What an image of each of the `classes` counts, so that every class counts the same: inverse to its frequency.

    labels: (N,), those of the training images. A class of n of them has the weight N / (C n), C being the number of
    classes that have any; one that has none, 0. So the mean over the images is 1. King & Zeng 2001, "Logistic
    regression in rare events data", section 4.1; scikit-learn's "balanced".
    """
    counts = np.bincount(labels, minlength=classes)
    present = int(np.count_nonzero(counts))  # NumPy's own can't be read from a checkpoint: it would be pickled
    return tuple(len(labels) / (present * count) if count else 0.0 for count in counts.tolist())


def default_epochs(name: str, steps: int) -> int | None:
    """Epochs of each stage where nobody says; `steps` are those of an epoch. None: patience alone decides."""
    epochs = RECIPES[name].epochs
    return epochs(steps) if epochs else None
