"""What a frozen body makes of the images, computed once: `--tune linear` without augmentation trains on that."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
import torch
from torch import nn

from engine.console import progress, say
from engine.data.augment import Draws
from engine.data.batches import Batch, Batches, Rows, cut, on_device
from engine.processes.exchange import in_order
from engine.training.evaluation import in_smaller_batches
from engine.training.meters import Clock
from engine.training.plan import Plan


@dataclass(frozen=True)
class Features(Batches):
    """Batches of what the last layer, `layer`, is given: (B, D), in the order of the images' batches.

    They are computed when they are first iterated over, within the time of that epoch. Weights, recipe and random
    numbers have no part in them, as long as the body is frozen.
    """

    source: Source | None = None

    @property
    def all(self) -> Batch:
        """All features, (N, D), in the dtype that the layer is given, and labels, (N,), on the plan's device."""
        assert self.source is not None
        return self.source.computed()

    @property
    def speed_of_features(self) -> dict[str, float] | None:
        """As Clock.stop() has it: of the pass of the images through the body; None before it."""
        return self.source.speed if self.source else None

    def _batches(
        self, order: Rows, draws: Draws | None, arrived: Callable[[], None], sizes: Sequence[int] | None = None
    ) -> Iterator[Batch]:
        assert draws is None
        arrived()  # what is computed now is computed, and not waited for
        features, labels = self.all
        for number, chosen in enumerate(on_device(features.device, cut(order, sizes or self.batch_size))):
            if number:
                arrived()
            yield features[chosen], labels[chosen]


class Source:
    """The features of a part: computed, if they have not been, by one pass of its images through the model."""

    def __init__(self, model: nn.Module, layer: str, images: Batches, plan: Plan) -> None:
        self._model, self._layer, self._images, self._plan = model, layer, images, plan
        self._computed: Batch | None = None
        self.speed: dict[str, float] | None = None

    def computed(self) -> Batch:
        """As Features.all."""
        if self._computed is None:
            images = self._images
            own, clock = in_smaller_batches(self._compute, images, self._plan.device)
            features = in_order(images.evaluated, own)
            self._computed = features, torch.from_numpy(images.part.labels).to(features.device)
            self.speed = clock.stop(len(images.part))
        return self._computed

    @torch.no_grad()
    def _compute(self, images: Batches) -> tuple[torch.Tensor, Clock]:
        clock = Clock(self._plan.device)
        every = []
        for batch, _ in progress(
            clock.batches(images.sequential(clock.arrived)), f"{images.name} features", images.steps
        ):
            _, (((features,), _),) = _forward(self._model, self._layer, batch, self._plan)
            every.append(features)
        return torch.cat(every) if every else torch.empty(0, device=self._plan.device), clock


def with_features(model: nn.Module, layer: str, train: Batches, val: Batches, plan: Plan) -> tuple[Batches, Batches]:
    """`train` and `val` as features_of() has them; where they can't be had so, as they are.

    All layers but the one named `layer` are frozen, and `train` is not augmented.
    """
    features = features_of(model, layer, train, val, plan)
    if features is None:
        return train, val
    say("features   of the frozen layers, computed once, in the first epoch; after it, images/s are rows of features")
    return features


def features_of(
    model: nn.Module, layer: str, train: Batches, val: Batches, plan: Plan
) -> tuple[Features, Features] | None:
    """`train` and `val`, not augmented, as batches of the features that the last layer, named `layer`, is given.

    They are those of the model as it is when they are first iterated over. None where the outputs of the model are not
    just that layer's, or its inputs not one row an image.
    """
    if not _can_be_divided(model, layer, train, plan):
        return None
    # no gradient takes memory, in training either
    return (
        _of(model, layer, train, train.for_evaluation(train.name, train.part), plan),
        _of(model, layer, val, val, plan),
    )


def _of(model: nn.Module, layer: str, batches: Batches, images: Batches, plan: Plan) -> Features:
    same: dict[str, Any] = {field.name: getattr(batches, field.name) for field in fields(Batches)}
    same |= {"layer": layer, "memory_format": torch.contiguous_format, "on_device": None}
    return Features(**same, source=Source(model, layer, images, plan))


@torch.no_grad()
def _can_be_divided(model: nn.Module, layer: str, train: Batches, plan: Plan) -> bool:
    """Whether the layer, given a row of features an image, gives the model's outputs: seen on two images."""
    few = replace(train, part=train.part.take(np.arange(min(2, len(train.part)))), batch_size=2)
    images, _ = next(few.sequential())
    model.eval()
    outputs, calls = _forward(model, layer, images, plan)
    if len(calls) != 1 or len(calls[0][0]) != 1 or not isinstance(model.get_submodule(layer), nn.Linear):
        return False
    ((features,), own) = calls[0]
    return features.ndim == 2 and torch.equal(own, outputs)


def _forward(model: nn.Module, layer: str, images: torch.Tensor, plan: Plan) -> tuple[torch.Tensor, list[Any]]:
    """The model's outputs, and what each call of the layer was given and returned, before others may change that."""
    calls: list[Any] = []
    hook = model.get_submodule(layer).register_forward_hook(
        lambda _, given, output: calls.append((given, output.clone()))
    )
    with hook, plan.autocast():
        return model(images), calls
