"""Images -> batches on the device: in an order that depends on seed and epoch alone, augmented, resized, normalised."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from engine.augment import trivial_augment
from engine.dataset import Part
from engine.errors import UserError


@dataclass(frozen=True)
class Batches:
    """A part of a dataset, ready to be iterated as (images, labels) on `device`.

    images: float32 (B, 3, H, W), normalised; labels: int64 (B,).
    """

    part: Part
    batch_size: int
    size: tuple[int, int]  # height and width in pixels that the model is given
    mean: Sequence[float]
    std: Sequence[float]
    device: str
    augment: bool = False

    @property
    def steps(self) -> int:
        """How many batches make an epoch, a last one of a single image included."""
        return -(-len(self.part) // self.batch_size)

    def in_order(self) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Every image once, in the order of the part, never augmented."""
        return self._batches(np.arange(len(self.part)), augment=False)

    def shuffled(self, seed: int, epoch: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Every image once, but for a last batch of a single image, which batch normalisation can't train on."""
        order = np.random.default_rng([seed, epoch]).permutation(len(self.part))
        if len(order) % self.batch_size == 1 and len(order) > 1:
            order = order[:-1]
        return self._batches(order, augment=self.augment)

    def _batches(self, order: npt.NDArray[np.int64], augment: bool) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        mean = torch.tensor(self.mean, device=self.device).reshape(3, 1, 1)
        std = torch.tensor(self.std, device=self.device).reshape(3, 1, 1)
        for start in range(0, len(order), self.batch_size):
            chosen = order[start : start + self.batch_size]
            images = self.part.pixels(chosen)
            if augment:
                images = trivial_augment(images)
            channels_first = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
            pixels = channels_first.to(self.device).float() / 255
            if pixels.shape[2:] != self.size:
                pixels = functional.interpolate(pixels, self.size, mode="bilinear", antialias=True)
            yield (pixels - mean) / std, torch.from_numpy(self.part.labels[chosen]).to(self.device)


def usable_batch_size(asked: int, images: int, batch_norm: bool) -> int:
    """`asked`, or as many as there are training images where that is fewer.

    Raises UserError when a step would be a single image and the model normalises over the batch (`batch_norm`).
    """
    size = min(asked, images)
    if size == 1 and batch_norm:
        found = "-bs 1" if asked == 1 else "a single training image"
        raise UserError(f"{found}: this backbone has batch normalisation, which needs 2 images or more a step.")
    return size
