"""WaveMix (Jeevan et al., arXiv 2205.14375): the network of the package `wavemix` 0.2.x, made to run everywhere.

The package provides the layers, so its published weights load as they are. Its forward pass stays behind: there the
wavelet filters are globals on one device and in one dtype, and the same transform is computed up to three times.
"""

import functools
import importlib
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import ModuleType
from typing import Any

import numpy
import torch
from torch import Tensor, nn

from engine.errors import UserError

_IMPORT_LOCK = threading.Lock()


def wavemix(num_classes: int = 1000) -> nn.Module:
    """WaveMix-192/16 (level 3, patches of 4), randomly initialised: 27.9 M parameters with 1000 classes.

    The classifier head is `pool.2`, an `nn.Linear`. State-dict keys and their order are the package's own, and so
    are the initial weights under the same seed. A missing package is a `UserError`.
    """
    return WaveMix(package_wavemix(num_classes))


def package_wavemix(num_classes: int) -> Any:
    """The same network as the package itself computes it, in fp32 and without autocast."""
    return _package_model()(
        num_classes=num_classes,
        depth=16,
        mult=2,
        ff_channel=192,
        final_dim=192,
        dropout=0.5,
        level=3,
        initial_conv="pachify",
        patch_size=4,
    )


def haar(images: Tensor) -> tuple[Tensor, Tensor]:
    """One level of the orthonormal Haar (db1) transform, for any device and floating-point dtype.

    images (B, C, H, W), H and W even -> low (B, C, H/2, W/2), high (B, C, 3, H/2, W/2). The bands are in the
    package's order: top minus bottom, left minus right, diagonal. An odd side is a `RuntimeError`.
    """
    # unbind, not x[..., ::2]: its backward stacks once, where each slice's fills an image with zeros and adds it
    left, right = (images * 0.5).unflatten(-1, (-1, 2)).unbind(-1)
    top, bottom = (left + right).unflatten(-2, (-1, 2)).unbind(-2)
    top_difference, bottom_difference = (left - right).unflatten(-2, (-1, 2)).unbind(-2)
    high = (top - bottom, top_difference + bottom_difference, top_difference - bottom_difference)
    return top + bottom, torch.stack(high, dim=2)


class Dropout(nn.Dropout):
    """nn.Dropout whose masks a processor draws seven times as fast: as bytes, eight of which come from one draw.

    torch draws a number for each element, which was 15 % of a training step.
    """

    def forward(self, features: Tensor) -> Tensor:
        """Drop elements of features of any shape."""
        dropped = self.p * 256
        if features.device.type != "cpu" or not self.training or dropped not in range(1, 256):
            return super().forward(features)
        words = torch.empty(-(-features.numel() // 8), dtype=torch.int64).random_(-(2**63), None)
        kept = words.view(torch.uint8)[: features.numel()].view(features.shape) >= dropped
        return features * kept * (1 / (1 - self.p))


class WaveBlock(nn.Module):
    """The layers of a package's `Level3Waveblock` behind one Haar pyramid.

    (B, C, H, W) -> the same, H and W multiples of 8.
    """

    def __init__(self, package_block: Any) -> None:
        super().__init__()
        self.feedforward1 = package_block.feedforward1
        self.feedforward2 = package_block.feedforward2
        self.feedforward3 = package_block.feedforward3
        self.reduction = package_block.reduction
        for layers in (self.feedforward1, self.feedforward2, self.feedforward3):
            for name, layer in layers.named_children():
                if isinstance(layer, nn.Dropout):
                    layers[int(name)] = Dropout(layer.p)

    def forward(self, features: Tensor) -> Tensor:
        """Features (B, C, H, W) to features of the same shape; H and W are multiples of 8."""
        low1, high1 = haar(self.reduction(features))
        low2, high2 = haar(low1)
        low3, high3 = haar(low2)
        mixed3 = self.feedforward3(torch.cat((low3, high3.flatten(1, 2)), dim=1))
        mixed2 = self.feedforward2(torch.cat((low2, high2.flatten(1, 2), mixed3), dim=1))
        mixed1: Tensor = self.feedforward1(torch.cat((low1, high1.flatten(1, 2), mixed2), dim=1))
        return mixed1


class WaveMix(nn.Module):
    """The layers of a package's level-3 `WaveMix` with patches of 4.

    images (B, 3, H, W) -> logits (B, classes). A side that is not a multiple of 32 is a `ValueError`: patches of 4,
    halved three times.
    """

    def __init__(self, package_model: Any) -> None:
        super().__init__()
        self.layers = nn.ModuleList(WaveBlock(block) for block in package_model.layers)
        self.pool = package_model.pool
        self.conv = package_model.conv

    def forward(self, images: Tensor) -> Tensor:
        """Images (B, 3, H, W) to logits (B, classes). Raises ValueError unless H and W are multiples of 32."""
        height, width = images.shape[-2:]
        if height % 32 or width % 32:
            raise ValueError(
                f"WaveMix got images of {height} x {width} pixels (height x width); both sides must be "
                "multiples of 32, the smallest is 32"
            )
        features = self.conv(images)
        for block in self.layers:
            features = block(features) + features
        logits: Tensor = self.pool(features)
        return logits


@functools.cache
def _package_model() -> Any:
    """The package's own class `WaveMix`, imported on first use."""
    try:
        with _IMPORT_LOCK, _what_the_package_expects():
            from wavemix.classification import WaveMix as PackageModel
    except ImportError as error:
        raise UserError(
            f"the backbone wavemix needs the package wavemix, and importing it failed: {error}. Install it with\n"
            '    pip install "wavemix>=0.2.4,<0.3"'
        ) from error
    return PackageModel


@contextmanager
def _what_the_package_expects() -> Iterator[None]:
    """Let `wavemix` 0.2.4 be imported on NumPy 2, and without a CUDA context."""
    # It imports `hamming` from a module that NumPy 2 has no more, and never uses it.
    name = "numpy.lib.function_base"
    stand_in = None
    try:
        importlib.import_module(name)
    except ModuleNotFoundError:
        stand_in = sys.modules[name] = ModuleType(name)
        vars(stand_in).update(hamming=numpy.hamming)
    # Where CUDA is available it builds its filters, which nothing here uses, on cuda:0: a CUDA context there, some
    # hundred MiB of the first card, also for a process that works on another card.
    is_available = torch.cuda.is_available
    torch.cuda.is_available = lambda: False
    try:
        yield
    finally:
        torch.cuda.is_available = is_available
        if stand_in is not None:
            del sys.modules[name]
