"""TrivialAugmentWide (Müller & Hutter 2021, arXiv:2103.10158): one random operation at a random strength an image."""

import torch
from torchvision.transforms import TrivialAugmentWide

_AUGMENT = TrivialAugmentWide()


def trivial_augment(images: torch.Tensor) -> torch.Tensor:
    """Augment each image of a uint8 batch (B, 3, H, W) by a draw of its own from torch's global CPU generator.

    torchvision applies one operation to all it is given, so images are given one by one.
    """
    return torch.stack([_AUGMENT(image) for image in images])
