"""One step of training as the plan says: dtype, compilation, micro-batches."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn.functional import cross_entropy

from engine.training.plan import Plan


class Step:
    """Steps of `optimizer` on batches of `batch_size` images.

    Where memory does not hold a whole batch, its gradient is added up over micro-batches: the same step, but for batch
    normalisation, whose statistics are then those of each micro-batch. They are nearly equal, and one image larger than
    the plan says where one would be left alone.
    """

    def __init__(self, model: nn.Module, optimizer: torch.optim.Optimizer, plan: Plan, batch_size: int) -> None:
        self.optimizer, self.plan = optimizer, plan
        self.scaler = plan.gradient_scaler()
        self.most = min(plan.micro_batch or batch_size, batch_size)
        self.forward = plan.forward(model, len(torch.empty(batch_size).tensor_split(self._pieces(batch_size))[0]))

    def __call__(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """One step on a batch, (B, 3, H, W) and (B,); its mean loss, ().

        The loss stays on the device: reading it here would make the device wait for Python.
        """
        loss = self.add_gradient(images, labels)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        return loss

    def add_gradient(self, images: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """Add the gradient of the mean loss of a batch, (B, 3, H, W) and (B,), to the parameters'; the loss, ().

        The gradient is scaled as the scaler says.
        """
        pieces = self._pieces(len(labels))
        total = torch.zeros((), device=images.device)
        for some, their_labels in zip(images.tensor_split(pieces), labels.tensor_split(pieces), strict=True):
            with self.plan.autocast():
                loss = cross_entropy(self.forward(some), their_labels, reduction="sum") / len(labels)
            self.scaler.scale(loss).backward()
            total += loss.detach()
        return total

    @property
    def lr(self) -> float:
        """The learning rate of now."""
        return float(max(group["lr"] for group in self.optimizer.param_groups))

    def _pieces(self, images: int) -> int:
        """How many micro-batches, nearly equal and none of a single image, `images` are divided into."""
        return max(1, min(-(-images // self.most), images // 2))
