"""An image, from wherever it comes -> what the model takes, exactly as in training."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from engine.data.batches import normalised
from engine.data.images import load, resize
from engine.data.part import Pixels


@dataclass(frozen=True)
class Preprocessing:
    """How files became the images that a run trained on; called with one image, it gives what the model takes of it.

    A file is decoded and resized to `stored_size` on the processor (engine/data/images.py: EXIF rotation, transparency,
    16 bits, DICOM), then resized to `size`, where that is another, and normalised on the device.
    """

    stored_size: tuple[int, int]  # height, width in pixels
    size: tuple[int, int]  # that the model is given
    mean: tuple[float, float, float]  # of red, green, blue on a scale of 0 to 1
    std: tuple[float, float, float]

    def decode(self, image: Path | Pixels | Image.Image) -> Pixels:
        """uint8 (H, W, 3) of `stored_size`. A picture that is open in Pillow is taken as it shows, without EXIF.

        UnreadableError: the file can't be decoded; UserError: the package that reads it is missing.
        """
        if isinstance(image, np.ndarray) and (image.dtype != np.uint8 or image.ndim != 3 or image.shape[2] != 3):
            raise ValueError(f"an image of {image.dtype} {image.shape}. Expected uint8 (H, W, 3), red first.")
        if isinstance(image, Image.Image):
            image = image.convert("RGB")
        return resize(load(image) if isinstance(image, Path) else image, self.stored_size)

    def to_input(
        self, stored: torch.Tensor, memory_format: torch.memory_format = torch.contiguous_format
    ) -> torch.Tensor:
        """uint8 (B, H, W, 3) on any device -> float32 (B, 3, *size), normalised, there."""
        return normalised(stored.permute(0, 3, 1, 2), self.size, self.mean, self.std, memory_format)

    def __call__(self, image: str | os.PathLike[str] | Pixels | Image.Image) -> torch.Tensor:
        """float32 (3, *size), normalised, of a file, an array uint8 (H, W, 3), or a picture of Pillow's."""
        opened = Path(image) if isinstance(image, str | os.PathLike) else image
        return self.to_input(torch.from_numpy(np.array(self.decode(opened)))[None])[0]

    def batch(self, images: Sequence[str | os.PathLike[str] | Pixels | Image.Image]) -> torch.Tensor:
        """float32 (N, 3, *size) of several."""
        return torch.stack([self(image) for image in images])
