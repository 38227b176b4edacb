"""A head that is solved for on what the frozen body makes of the images: where fine-tuning begins from."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from math import isfinite
from typing import cast

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from engine.console import progress, say
from engine.data.batches import Batches
from engine.device import free_memory
from engine.errors import DivergedError, RunError, out_of_memory
from engine.processes.exchange import add_up
from engine.processes.peers import is_first
from engine.training.evaluation import or_fp32, predict
from engine.training.features import Features, features_of
from engine.training.plan import Plan
from engine.training.step import summed_loss

# of the squared weights, for features of deviation 1, strongest first: from what leaves the weights next to nothing to
# what hardly holds them
PENALTIES = (10.0, 3.0, 1.0, 0.3, 0.1, 0.03, 0.01, 0.003, 0.001)
# of a feature, as a share of the root mean square of all: weights of what hardly varies here would be so large that it
# rules where training, which augments, makes it vary
LEAST_DEVIATION = 0.1
ITERATIONS = 100  # of L-BFGS at each penalty, which begins from the weights of the one before
HISTORY_BYTES = 2**30  # at most, of what L-BFGS remembers

Losses = Sequence[torch.Tensor]
Layer = tuple[torch.Tensor, torch.Tensor]  # weights (C, D) and bias (C,)


@dataclass(frozen=True)
class Solved:
    """What came of solve_head()."""

    loss: float  # mean cross-entropy on train, nats
    speed: dict[str, float]  # as Clock.stop() has it: of the pass of train through the body
    val: Batches  # as the features of the frozen body


def solve_head(
    model: nn.Module, head: str, train: Batches, val: Batches, plan: Plan, class_weights: Sequence[float] | None
) -> Solved | None:
    """Put the weights of a linear probe into the layer named `head`: multinomial logistic regression on features.

    Each image of train passes once through the body, in evaluation mode and not augmented. The penalty is one of
    PENALTIES by the cross-entropy on val, as choose() has it; after one by which it rises, none is tried. None, with a
    line that says so, where the outputs of the model are not those of that layer, or its inputs not a row an image: the
    head stays as it is.

    A body that is fine-tuned under a head that does not fit yet loses what it knew: Kumar et al. 2022, "Fine-tuning can
    distort pretrained features", arXiv:2202.10054, who train the head first.
    """
    both = (train, val) if train.layer else features_of(model, head, train, val, plan)
    if both is None:
        say("head       can't be solved for, since the model's outputs are not just those of its last layer: trained")
        return None
    of_train, of_val = cast(tuple[Features, Features], both)
    features, labels = of_train.all
    if not isfinite(float(features.float().square().mean())):
        raise DivergedError(
            f"what the frozen layers make of the training images is not finite ({plan.precision}). Try other --weights"
            f"{or_fp32(plan)}."
        )
    layer = cast(nn.Linear, model.get_submodule(head))
    weights = None if class_weights is None else torch.tensor(class_weights, device=features.device)
    seconds = _Task(model, layer, features, labels, weights, of_val, plan).solve()
    with torch.no_grad(), plan.autocast():
        mean = float(summed_loss(layer(features), labels, weights)) / len(labels)
    speed = dict(of_train.speed_of_features or {})
    return Solved(mean, speed | {"seconds": speed.get("seconds", 0.0) + seconds}, of_val)


@dataclass(frozen=True)
class _Task:
    """A head to be solved for: features (N, D), labels (N,) and what an image of each class counts, on the device."""

    model: nn.Module
    layer: nn.Linear
    features: torch.Tensor
    labels: torch.Tensor
    weights: torch.Tensor | None
    val: Batches
    plan: Plan

    def solve(self) -> float:
        """Put the solution into the layer; the seconds that solving took.

        Where a card has no memory for it, it is found on the processor. RunError: nor has that.
        """
        for device in dict.fromkeys((self.plan.device, "cpu")):
            try:
                return self.solve_on(device)
            except (RuntimeError, MemoryError) as problem:
                if not out_of_memory(problem):
                    raise
            free_memory(self.plan.device)
        images, width = self.features.shape
        raise RunError(
            f"out of memory where the head is solved for, on {images:,} images of {width:,} features and "
            f"{self.layer.out_features:,} classes. Another --recipe does not solve for it."
        )

    def solve_on(self, device: str) -> float:
        """solve(), on that device."""
        weights = None if self.weights is None else self.weights.to(device)
        probe = _Probe(self.features.to(device).float(), self.labels.to(device), self.layer.out_features, weights)
        true = torch.from_numpy(self.val.part.labels)
        counted = 1.0 if weights is None else weights.cpu()[true]
        found, losses, seconds = list[Layer](), list[torch.Tensor](), 0.0
        for penalty in progress(PENALTIES, "head", len(PENALTIES)):
            start = time.perf_counter()
            probe.fit(penalty)
            found.append(probe.folded())
            seconds += time.perf_counter() - start
            _fill(self.layer, found[-1])
            logits = torch.from_numpy(predict(self.model, self.val, self.plan)[0])
            losses.append(cross_entropy(logits, true, reduction="none") * counted)
            if len(losses) > 1 and losses[-1].mean() > losses[-2].mean():
                break
        _fill(self.layer, found[choose(losses)])
        return seconds


def choose(losses: Losses) -> int:
    """Which of the penalties, strongest first, is taken, by the losses (N,) of each on val.

    The strongest that the least mean loss is not a standard error below. Breiman, Friedman, Olshen & Stone 1984,
    "Classification and regression trees", section 3.4.3. A head that is sure of few images has large weights, by which
    the first steps of training change the body the more: docs/recipes.md has what the rule is worth.
    """
    best = min(losses, key=lambda each: float(each.mean()))
    error = float(best.std()) / len(best) ** 0.5 if len(best) > 1 else 0.0
    return next(number for number, each in enumerate(losses) if float(each.mean()) <= float(best.mean()) + error)


@torch.no_grad()
def _fill(layer: nn.Linear, solution: Layer) -> None:
    """Put the first process's solution into the layer: another's may be of a processor that rounds otherwise."""
    for parameter, value in zip((layer.weight, layer.bias), solution, strict=True):
        if parameter is not None:
            parameter.copy_(value)
            add_up(parameter if is_first() else parameter.zero_())


class _Probe:
    """Multinomial logistic regression to standardised features, by L-BFGS, from one penalty to the next."""

    def __init__(self, features: torch.Tensor, labels: torch.Tensor, classes: int, counted: torch.Tensor | None):
        deviation, self._mean = torch.std_mean(features, 0, correction=0)
        least = LEAST_DEVIATION * deviation.square().mean().sqrt()
        self._scale = 1 / deviation.clamp_min(max(float(least), torch.finfo(torch.float32).tiny))
        self._scaled, self._labels, self._counted = (features - self._mean) * self._scale, labels, counted
        self._weight = torch.zeros(classes, features.shape[1], device=features.device, requires_grad=True)
        self._bias = torch.zeros(classes, device=features.device, requires_grad=True)

    def fit(self, penalty: float) -> None:
        """Minimise the mean cross-entropy and penalty / 2 times the squared weights; the bias has no penalty."""
        parameters = [self._weight, self._bias]
        pair = 2 * sum(parameter.nbytes for parameter in parameters)
        optimizer = torch.optim.LBFGS(
            parameters,
            max_iter=ITERATIONS,
            tolerance_grad=1e-5,
            history_size=max(5, min(ITERATIONS, HISTORY_BYTES // pair)),
            line_search_fn="strong_wolfe",
        )

        def objective() -> torch.Tensor:
            optimizer.zero_grad()
            logits = self._scaled @ self._weight.T + self._bias
            loss = summed_loss(logits, self._labels, self._counted) / len(logits)
            loss = loss + penalty / 2 * self._weight.square().sum()
            loss.backward()
            return loss

        # PyTorch's line search divides by the length of an interval, which rounding can shrink to nothing: the weights
        # are then those of the step before, the best that single precision has
        with suppress(ZeroDivisionError):
            cast(Callable[[Callable[[], torch.Tensor]], torch.Tensor], optimizer.step)(objective)

    def folded(self) -> Layer:
        """The layer for features as they are."""
        weight = (self._weight * self._scale).detach()
        return weight, (self._bias - weight @ self._mean).detach()
