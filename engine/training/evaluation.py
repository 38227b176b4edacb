"""The logits of a part's images, in batches as large as memory allows, and their accuracy."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from engine.console import progress
from engine.data.batches import Batches
from engine.device import free_memory
from engine.errors import DivergedError, out_of_memory
from engine.processes.exchange import in_order
from engine.training.meters import Clock
from engine.training.plan import Plan

Made = TypeVar("Made")


def or_fp32(plan: Plan) -> str:
    """What may help, beside a lower learning rate, where numbers are not finite."""
    return "" if plan.precision == "fp32" else ", or --precision fp32"


def predict(model: nn.Module, batches: Batches, plan: Plan) -> tuple[npt.NDArray[np.float32], dict[str, float]]:
    """The logits (N, classes) of every image in the order of the part, and what Clock.stop() says.

    Where memory runs out, smaller batches are tried. Raises RunError when the logits are not finite. Several processes
    have divided the batches among them, and each gets the logits of all.
    """
    own, clock = in_smaller_batches(lambda smaller: _predict(model, smaller, plan), batches, plan.device)
    together: npt.NDArray[np.float32] = in_order(batches.evaluated, own).cpu().numpy()
    speed = clock.stop(len(batches.part))
    if not np.isfinite(together).all():
        raise DivergedError(
            f"the model's outputs on the {batches.name} part are not finite. Try a lower --lr{or_fp32(plan)}."
        )
    return together, speed


def in_smaller_batches(work: Callable[[Batches], Made], batches: Batches, device: str) -> Made:
    """What `work` makes of `batches`; where memory runs out, of batches of half the size, and so on."""
    while True:
        try:
            return work(batches)
        except (RuntimeError, MemoryError) as problem:
            if batches.batch_size == 1 or not out_of_memory(problem):
                raise
        free_memory(device)
        batches = replace(batches, batch_size=batches.batch_size // 2)


@torch.inference_mode()
def _predict(model: nn.Module, batches: Batches, plan: Plan) -> tuple[torch.Tensor, Clock]:
    model.eval()
    layer = model.get_submodule(batches.layer)
    clock = Clock(plan.device)
    logits = []
    for images, _ in progress(clock.batches(batches.sequential(clock.arrived)), batches.name, batches.steps):
        given = filled(images, batches.batch_size) if pads(plan.device) and batches.steps > 1 else images
        with plan.autocast():
            logits.append(layer(given)[: len(images)].float())
    return torch.cat(logits) if logits else torch.empty(0, device=plan.device), clock


def pads(device: str) -> bool:
    """Whether a batch of another size than the others costs more there than a whole one: cuDNN searches anew."""
    return device == "cuda"


def filled(images: torch.Tensor, size: int) -> torch.Tensor:
    """The images, and as many of them again as make `size`, in the same layout."""
    return torch.cat([images] * -(-size // len(images)))[:size] if len(images) < size else images


def score(logits: npt.NDArray[np.float32], labels: npt.NDArray[np.int64]) -> tuple[float, float]:
    """Top-1 accuracy (0 to 1) and mean cross-entropy (nats), both per image."""
    loss = cross_entropy(torch.from_numpy(logits), torch.from_numpy(labels))
    return float((logits.argmax(1) == labels).mean()), float(loss)
