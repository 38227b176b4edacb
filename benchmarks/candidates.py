"""What a recipe might be made of, each as a recipe of its own beside the project's; and the images to try them on.

REAL=DIR python benchmarks/candidates.py --data eurosat -model tf2 -bs 16 --recipe fast+mixup

A script as those of the datasets, which benchmarks/recipes.py gives to grid.py, with the networks of real_networks.py.
What is no recipe's part yet (averages of weights, mixed images, smoothed labels and so on) is put in its place in the
process of a run that asks for it.
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from benchmarks.real_networks import DATA, MORE, choice, cub, files, read_files
from common import Dataset, main
from engine.data.batches import Batches
from engine.models.structure import batch_norms
from engine.training import head, loop, step
from engine.training.plan import Plan
from engine.training.recipe import RECIPES, SOLVE_HEAD, Group, RecipeSpec, Stage
from engine.training.state import State

SIZE = 96  # pixels, of all images
FAST = RECIPES["fast"]
TUNED = FAST.stages[-1]


def one_cycle(share: float) -> float:
    """Smith & Topin 2019, "Super-convergence", arXiv:1708.07120, as PyTorch's OneCycleLR and fastai have it."""
    if share < 0.3:
        return 0.04 + 0.96 * (1 - math.cos(math.pi * share / 0.3)) / 2
    return (1 + math.cos(math.pi * (share - 0.3) / 0.7)) / 2


def last_layer(model: nn.Module) -> list[Group]:
    """Only the last of the linear layers."""
    *_, layer = (module for module in model.modules() if isinstance(module, nn.Linear))
    return [{"params": list(layer.parameters())}]


def layers(model: nn.Module, decay: float = 0.8) -> list[Group]:
    """Groups of which each has `decay` of the rate of the layer above, as in ELECTRA (arXiv:2003.10555)."""
    blocks: dict[str, int] = {}
    groups: dict[tuple[int, bool], Group] = {}
    for name, parameter in model.named_parameters():
        depth = blocks.setdefault(".".join(name.split(".")[:2]), len(blocks))
        decays = name.endswith("weight") and parameter.ndim > 1
        usual: Group = {"params": [], "depth": depth} | ({} if decays else {"weight_decay": 0.0})
        groups.setdefault((depth, decays), usual)["params"].append(parameter)
    for group in groups.values():
        group["scale"] = decay ** (len(blocks) - 1 - group.pop("depth"))
    return list(groups.values())


Patch = Callable[[], AbstractContextManager[Any]]


def scaled_rates() -> AbstractContextManager[Any]:
    """Each group has its own share of the learning rate."""

    def set_lr(recipe: Any, optimizer: torch.optim.Optimizer, stage: Stage, share: float) -> None:
        for group in optimizer.param_groups:
            group["lr"] = recipe.lr * (stage.schedule or (lambda _: 1.0))(share) * group.get("scale", 1.0)

    return mock.patch("engine.training.recipe.Recipe.set_lr", set_lr)


def smoothed() -> AbstractContextManager[Any]:
    """Szegedy et al. 2016, arXiv:1512.00567, with 0.1."""
    return mock.patch.object(step, "cross_entropy", partial(cross_entropy, label_smoothing=0.1))


def recalibrated() -> AbstractContextManager[Any]:
    """Before the head is solved, batch normalisation takes the statistics of the training images, in a pass more.

    Li et al. 2017, "Revisiting batch normalization for practical domain adaptation", arXiv:1603.04779.
    """
    usual = head.solve_head

    @torch.no_grad()
    def solve(model: nn.Module, layer: str, train: Batches, *rest: Any) -> Any:
        norms = batch_norms(model)
        before = [norm.momentum for norm in norms]
        model.train()
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None  # the mean over batches
        for images, _ in train.for_evaluation("train", train.part).sequential():
            model(images)
        for norm, momentum in zip(norms, before, strict=True):
            norm.momentum = momentum
        return usual(model, layer, train, *rest)

    return mock.patch.object(loop, "solve_head", solve)


def least_loss() -> AbstractContextManager[Any]:
    """The penalty of the head is that of the least loss on val, not the strongest that is as good."""

    def choose(losses: Sequence[torch.Tensor]) -> int:
        return min(range(len(losses)), key=lambda number: float(losses[number].mean()))

    return mock.patch.object(head, "choose", choose)


def mixed() -> AbstractContextManager[Any]:
    """Mixup (Zhang et al. 2018, arXiv:1710.09412), alpha 0.2: one share a batch."""
    usual = step._Gradient.add

    def add(
        self: Any, scaler: Any, pieces: int, weight: float, images: torch.Tensor, labels: torch.Tensor
    ) -> torch.Tensor:
        share = float(torch.distributions.Beta(0.2, 0.2).sample())
        both = images.mul(share).add_(images.flip(0), alpha=1 - share)
        first = usual(self, scaler, pieces, weight * share, both, labels)
        return first + usual(self, scaler, pieces, weight * (1 - share), both, labels.flip(0))

    return mock.patch.object(step._Gradient, "add", add)


TrainEpoch = Callable[..., tuple[float, dict[str, float]]]


def epochs_as(make: Callable[[TrainEpoch], TrainEpoch]) -> AbstractContextManager[Any]:
    """Another train_epoch, made of the usual one."""
    return mock.patch.object(loop, "train_epoch", make(loop.train_epoch))


def averaged(decay: float = 0.95) -> AbstractContextManager[Any]:
    """The last epoch ends with a moving average of the weights of all steps (Polyak & Juditsky 1992)."""

    def make(usual: TrainEpoch) -> TrainEpoch:
        average: dict[str, torch.Tensor] = {}

        def train_epoch(
            model: nn.Module, train: Batches, by: step.Step, recipe: Any, state: State, clock: Any = None
        ) -> tuple[float, dict[str, float]]:
            def after_step(*_: Any) -> None:
                for name, parameter in model.named_parameters():
                    average.setdefault(name, parameter.detach().clone()).lerp_(parameter.detach(), 1 - decay)

            handle = by.optimizer.register_step_post_hook(after_step)
            found = usual(model, train, by, recipe, state, clock)
            handle.remove()
            if state.stage_epochs + 1 == recipe.epochs:
                model.load_state_dict(average, strict=False)
            return found

        return train_epoch

    return epochs_as(make)


def progressive() -> AbstractContextManager[Any]:
    """The first half of the epochs at two thirds of the side (fastai; Touvron et al. 2019, arXiv:1906.06423)."""

    def make(usual: TrainEpoch) -> TrainEpoch:
        def train_epoch(
            model: nn.Module, train: Batches, by: step.Step, recipe: Any, state: State, clock: Any = None
        ) -> tuple[float, dict[str, float]]:
            small = 2 * state.stage_epochs < recipe.epochs
            side = 64 if small else SIZE
            return usual(model, replace(train, size=(side, side)), by, recipe, state, clock)

        return train_epoch

    return epochs_as(make)


@dataclass(frozen=True)
class Candidate:
    """A recipe, what is changed in the process of its run, and its flags beside."""

    spec: RecipeSpec
    patch: Patch | None = None
    flags: tuple[str, ...] = ()


def of_stages(*stages: Stage, epochs: int = 10) -> RecipeSpec:
    """The recipe `fast`, of other stages, and of so many epochs."""
    return replace(FAST, stages=stages, epochs=lambda _: epochs)


def tuned(**changes: Any) -> RecipeSpec:
    """The recipe `fast`, of which the second stage is another, of ten epochs."""
    return of_stages(SOLVE_HEAD, replace(TUNED, **changes))


FROZEN = replace(TUNED, name="frozen", groups=last_layer, schedule=None, epochs=1)
MOVING = replace(TUNED, keeps_statistics=False)
FIVE, TEN = (of_stages(SOLVE_HEAD, TUNED, epochs=epochs) for epochs in (5, 10))
SLOWLY, PLAIN = ("--lr", "1e-4"), ("--augment", "none")

CANDIDATES: dict[str, Candidate] = {
    "fast": Candidate(FAST),
    "head-alone": Candidate(of_stages(SOLVE_HEAD)),
    "cosine-6-epochs": Candidate(of_stages(MOVING, epochs=6)),
    # what the experiment began with, and what was made of it
    "first": Candidate(of_stages(SOLVE_HEAD, MOVING, epochs=5), least_loss),
    "first+no-augment": Candidate(of_stages(SOLVE_HEAD, MOVING, epochs=5), least_loss, PLAIN),
    "first+kept-statistics": Candidate(FIVE, least_loss),
    "first+kept-statistics+lr1e-4": Candidate(FIVE, least_loss, SLOWLY),
    "first+kept-statistics+lr1e-4+10-epochs": Candidate(TEN, least_loss, SLOWLY),
    "first+kept-statistics+lr1e-4+one-error": Candidate(FIVE, None, SLOWLY),
    "first+kept-statistics+lr1e-4+one-error+no-augment": Candidate(FIVE, None, (*SLOWLY, *PLAIN)),
    "first+kept-statistics+lr1e-4+one-error+10-epochs": Candidate(TEN, None, SLOWLY),
    "fast+5-epochs": Candidate(FIVE),
    "fast+10-epochs": Candidate(TEN),
    "fast+20-epochs": Candidate(of_stages(SOLVE_HEAD, TUNED, epochs=20)),
    "fast+5-epochs+lr1e-3": Candidate(FIVE, None, ("--lr", "1e-3")),
    "fast+5-epochs+recalibrated": Candidate(FIVE, recalibrated),
    "fast+5-epochs+recalibrated+moving-statistics": Candidate(of_stages(SOLVE_HEAD, MOVING, epochs=5), recalibrated),
    "fast+10-epochs+frozen-first": Candidate(of_stages(SOLVE_HEAD, FROZEN, TUNED, epochs=9)),
    "fast+10-epochs+layer-decay": Candidate(tuned(groups=layers), scaled_rates),
    "fast+10-epochs+one-cycle": Candidate(tuned(schedule=one_cycle)),
    "fast+10-epochs+smoothing": Candidate(TEN, smoothed),
    "fast+10-epochs+mixup": Candidate(TEN, mixed),
    "fast+10-epochs+average": Candidate(TEN, averaged),
    "fast+10-epochs+progressive": Candidate(TEN, progressive),
}
RECIPES.update({name: candidate.spec for name, candidate in CANDIDATES.items()})

PARTS: dict[str, tuple[str, Callable[[], dict[str, list[Path]]], tuple[float, float, float]]] = {
    "eurosat": ("remote sensing", partial(files, DATA / "eurosat/2750", MORE / "eurosat"), (12, 10, 40)),
    "cifar10": ("natural", partial(files, MORE / "cifar10"), (12, 10, 40)),
    "food10": ("natural", partial(files, MORE / "food10"), (12, 10, 38)),
    "dtd10": ("texture", partial(files, DATA / "dtd/dtd/images", MORE / "dtd10"), (0.4, 0.2, 0.4)),
    "cub4": ("natural", cub, (5, 3, 5)),
}
SETS = tuple(PARTS)
# beside them, to see what more images change
PARTS["eurosat1000"] = ("remote sensing", PARTS["eurosat"][1], (100, 30, 60))
DATASETS = {
    name: Dataset(
        key=f"recipe_{name}",
        script="candidates",
        flags=f"--data {name}",
        name=name,
        domain=domain,
        size=(SIZE, SIZE),
        augment="trivial",
        read=partial(read_files, find, parts),
    )
    for name, (domain, find, parts) in PARTS.items()
}
DATASET = choice(DATASETS)


def nhwc(plan: Plan, *_: Any) -> Plan:
    """The form in which such networks train fastest on a processor: to measure it would take longer than a run."""
    return replace(plan, layout="NHWC", reason="as benchmarks/candidates.py has it")


def asked_recipe(words: Sequence[str]) -> str:
    """What --recipe says."""
    return words[words.index("--recipe") + 1] if "--recipe" in words[:-1] else ""


if __name__ == "__main__":
    candidate = CANDIDATES.get(asked_recipe(sys.argv))
    with ExitStack() as changed:
        changed.enter_context(mock.patch("engine.run.fastest_plan", nhwc))
        if candidate and candidate.patch:
            changed.enter_context(candidate.patch())
        main(DATASET)
