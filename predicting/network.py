"""A checkpoint's model on the device, in the form that it is computed in: stored pixels -> logits."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from engine.data.part import Pixels
from engine.device import free_memory, prepare
from engine.errors import out_of_memory
from engine.inference.checkpoint import Trained
from engine.training.evaluation import filled, pads
from engine.training.plan import Plan
from predicting.folding import fold
from predicting.forms import Form


@dataclass
class Network:
    """A member of an answer, ready for batches of at most `batch_size` images."""

    trained: Trained
    model: nn.Module
    plan: Plan
    batch_size: int
    began: bool = False  # whether it had a batch: a card's later ones are filled to one size

    @classmethod
    def of(cls, trained: Trained, form: Form, batch_size: int) -> Network:
        """The model in that form, on its device. UserError: the weights do not fit."""
        prepare(form.plan.device, bool(trained.record["config"].get("deterministic")))
        model = trained.model()
        if form.folded:
            fold(model, trained.preprocessing.size)
        form.plan.place(model)
        return cls(trained, model, form.plan, batch_size)

    @torch.inference_mode()
    def logits(self, stored: torch.Tensor) -> torch.Tensor:
        """Of stored pixels, uint8 (B, H, W, 3), on the device: float32 (B, classes), there, and perhaps on its way.

        Where memory runs out, smaller batches are tried, and kept to.
        """
        while True:
            try:
                return torch.cat([self._logits(piece) for piece in stored.split(self.batch_size)])
            except (RuntimeError, MemoryError) as problem:
                if self.batch_size == 1 or not out_of_memory(problem):
                    raise
            free_memory(self.plan.device)
            self.batch_size //= 2

    def _logits(self, stored: torch.Tensor) -> torch.Tensor:
        images = self.trained.preprocessing.to_input(stored, self.plan.memory_format)
        given = filled(images, self.batch_size) if pads(self.plan.device) and self.began else images
        self.began = True
        self.plan.use_threads()
        with self.plan.autocast():
            logits: torch.Tensor = self.model(given)[: len(images)].float()
        return logits


def on_device(pixels: Pixels, device: str) -> torch.Tensor:
    """The pixels there, while the device is at work on others."""
    stored = torch.from_numpy(pixels)
    return stored.pin_memory().to(device, non_blocking=True) if device == "cuda" else stored.to(device)
