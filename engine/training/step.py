"""One step of training as the plan says: dtype, compilation, CUDA graph, micro-batches."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from functools import partial
from inspect import signature
from typing import Any

import torch
from torch import nn
from torch.nn.functional import cross_entropy
from torch.nn.parallel import DistributedDataParallel

from engine.errors import UserError
from engine.training.graph import GraphedGradient
from engine.training.plan import Forward, Plan


class Step:
    """Steps of `optimizer` on batches of `batch_size` images, which count as `class_weights` (Recipe's) says.

    Where memory does not hold a whole batch, its gradient is added up over micro-batches: the same step, but for batch
    normalisation, whose statistics are then those of each micro-batch. They are nearly equal, and one image larger than
    the plan says where one would be left alone.

    Where several processes take a step `together`, `batch_size` is this one's share of a whole batch, and each process
    adds the mean gradient of all to the parameters'.

    Whole batches go through a CUDA graph, if the plan says so, all their micro-batches in one; the last, odd one of an
    epoch goes through the model as it is.
    """

    def __init__(
        self,
        model: nn.Module,
        optimizer: torch.optim.Optimizer,
        plan: Plan,
        batch_size: int,
        class_weights: Sequence[float] | None = None,
        together: bool = False,
    ) -> None:
        self.optimizer, self.plan, self.batch_size = optimizer, plan, batch_size
        self.scaler = plan.gradient_scaler()
        self.most = min(plan.micro_batch or batch_size, batch_size)
        others = _with_others(model) if together else None
        micro_batch = len(torch.empty(batch_size).tensor_split(self._pieces(batch_size))[0])
        self.forward = plan.forward(others or model, micro_batch)
        self._graph = GraphedGradient(model) if plan.graphed else None
        weights = None if class_weights is None else torch.tensor(class_weights, device=plan.device)
        self._gradient = _Gradient(self.forward, plan, weights, others)
        self._unseen = model if others else None  # until a step has shown whether all of it is trained

    @property
    def graphed(self) -> bool:
        """Whether whole batches go through a CUDA graph: not where the plan says so and no capture succeeds."""
        return self._graph is not None and self._graph.possible

    def __call__(self, images: torch.Tensor, labels: torch.Tensor, weight: float = 1.0) -> torch.Tensor:
        """One step on a batch, (B, 3, H, W) and (B,); its mean loss, (), times `weight`, as Batches.weight() has it.

        The loss stays on the device: reading it here would make the device wait for Python.
        """
        loss = self.add_gradient(images, labels, weight)
        if self._unseen:
            _require_all_used(self._unseen)
            self._unseen = None
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return loss

    def add_gradient(self, images: torch.Tensor, labels: torch.Tensor, weight: float = 1.0) -> torch.Tensor:
        """Add the gradient of the mean loss of a batch, (B, 3, H, W) and (B,), times `weight`, to the parameters'.

        Returns the loss, (). The gradient is scaled as the scaler says.
        """
        pieces = self._pieces(len(labels))
        gradient = partial(self._gradient.add, self.scaler, pieces, weight)
        if len(labels) == self.batch_size:
            return self._graph.add(gradient, images, labels, self.scaler) if self._graph else gradient(images, labels)
        with _no_search() if self.plan.device == "cuda" else nullcontext():
            return gradient(images, labels)

    def release(self) -> None:
        """Free the memory of the CUDA graph, if there is one; the next whole batch is captured anew."""
        if self._graph:
            self._graph.release()

    @property
    def lr(self) -> float:
        """The learning rate of now."""
        return float(max(group["lr"] for group in self.optimizer.param_groups))

    def _pieces(self, images: int) -> int:
        """How many micro-batches, nearly equal and none of a single image, `images` are divided into."""
        return max(1, min(-(-images // self.most), images // 2))


@dataclass(frozen=True)
class _Gradient:
    """What Step.add_gradient() needs of the step: a graph that was captured of it must not hold the step itself."""

    forward: Forward
    plan: Plan
    weights: torch.Tensor | None
    others: DistributedDataParallel | None  # what averages gradients over the processes, where there are several

    def add(
        self,
        scaler: torch.amp.GradScaler,
        pieces: int,
        weight: float,
        images: torch.Tensor,
        labels: torch.Tensor,
    ) -> torch.Tensor:
        """Step.add_gradient(), in so many pieces, one launch after another."""
        total = torch.zeros((), device=images.device)
        parts = zip(images.tensor_split(pieces), labels.tensor_split(pieces), strict=True)
        for number, (some, their_labels) in enumerate(parts, 1):
            # averaged once, with the last piece
            with self.others.no_sync() if self.others and number < pieces else nullcontext():
                with self.plan.autocast():
                    loss = summed_loss(self.forward(some), their_labels, self.weights) / (len(labels) / weight)
                scaler.scale(loss).backward()
            total += loss.detach()
        return total


def _with_others(model: nn.Module) -> DistributedDataParallel:
    """The model, whose gradients are averaged over the processes; its buffers are each one's own until epochs end."""
    # the former name of the parameter
    names = signature(DistributedDataParallel).parameters.keys() & {"forward_sync_buffers"} or {"broadcast_buffers"}
    options: dict[str, Any] = dict.fromkeys(names, False)
    return DistributedDataParallel(model, **options)


def _require_all_used(model: nn.Module) -> None:
    """Raise UserError where a parameter has no gradient after a step: the exchange of gradients would wait for it."""
    idle = [name for name, each in model.named_parameters() if each.requires_grad and each.grad is None]
    if idle:
        more = f" and {len(idle) - 1:,} more" if idle[1:] else ""
        raise UserError(
            f"this backbone's outputs do not depend on its parameter {idle[0]}{more}, so that several processes can't "
            "train it together. Let the builder leave out what is not used, or give the command without torchrun."
        )


def summed_loss(logits: torch.Tensor, labels: torch.Tensor, weights: torch.Tensor | None) -> torch.Tensor:
    """The cross-entropy (nats) of logits (B, C) and labels (B,), each image's times its class's weight (C,), added up.

    PyTorch's own weighted mean is over the weights of a batch, so that an image counts more where the others are of
    frequent classes, and micro-batches would not add up to the batch.
    """
    if weights is None:
        return cross_entropy(logits, labels, reduction="sum")
    return (cross_entropy(logits, labels, reduction="none") * weights[labels]).sum()


@contextmanager
def _no_search() -> Iterator[None]:
    """cuDNN does not try its algorithms inside: a size that comes once an epoch is not worth the seconds."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = False
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before
