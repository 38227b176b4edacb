"""A backbone's entry in the factory: everything that this project knows of it, before PyTorch is imported."""

from __future__ import annotations

import pkgutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING

from engine.code_hash import file_of
from engine.errors import UserError

if TYPE_CHECKING:
    from torch import nn
    from torchvision.models import WeightsEnum

WEIGHTS = ("imagenet", "auto", "none")  # what --weights takes beside the name of an enum's member and a file

# of the images that torchvision's weights were trained on, on a scale of 0 to 1
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


@dataclass(frozen=True)
class WeightsFile:
    """Pretrained weights that are not a member of a torchvision enum: a state dict of the 1000-class model."""

    name: str  # as the record calls it
    url: str  # http(s):// or file://
    sha256: str | None = None  # None where nobody publishes it
    mean: tuple[float, float, float] = IMAGENET_MEAN
    std: tuple[float, float, float] = IMAGENET_STD
    top1: float | None = None  # on ImageNet-1k, percent, as its authors state it


@dataclass(frozen=True)
class Backbone:
    """One entry of the factory.

    The builder and the weights can be given by their names: PyTorch takes seconds to import, and a command line should
    not wait for it. A name without a module's is one in torchvision.models, as that of weights always is.
    """

    builder: str | Callable[[], nn.Module]  # called without arguments: the 1000-class model, randomly initialised
    weights: str | WeightsEnum | WeightsFile  # what `--weights imagenet` means
    head: str  # the dotted name of the last linear layer, which a new one replaces
    lr: float = 3e-4  # the highest learning rate of the recipe "cosine"
    smallest: int = 1  # pixels: the shortest side that it takes
    multiple_of: int = 1  # pixels: what both sides must be a multiple of
    # The form of the training step that is usually the fastest on a processor that computes in bf16, and on a card; it
    # is chosen where a measurement leaves doubt.
    usual_on_cpu: str = "bf16 NHWC"
    usual_on_cuda: str = "bf16 NHWC"
    published: bool = False  # whether it is one of the published comparison's eleven

    @property
    def builder_name(self) -> str:
        """torchvision's name, or that of the function that builds it."""
        return self.builder.rpartition(".")[2] if isinstance(self.builder, str) else self.builder.__name__

    @property
    def source(self) -> str:
        """The file that the builder is in; "" where it is torchvision's, or in none."""
        if isinstance(self.builder, str):
            module = self.builder.replace(":", ".").rpartition(".")[0]
            found = find_spec(module) if module else None  # which does not import it
            return str(found.origin or "") if found else ""
        return "" if self.builder.__module__.startswith("torchvision.") else file_of(self.builder)

    def build(self) -> nn.Module:
        """The 1000-class model, randomly initialised."""
        return self._builder()

    @property
    def _builder(self) -> Callable[[], nn.Module]:
        if not isinstance(self.builder, str):
            return self.builder
        builder: Callable[[], nn.Module] = pkgutil.resolve_name(
            self.builder if "." in self.builder else f"torchvision.models:{self.builder}"
        )
        return builder

    @property
    def pretrained(self) -> WeightsEnum | WeightsFile:
        """The weights that `--weights imagenet` means."""
        if not isinstance(self.weights, str):
            return self.weights
        member: WeightsEnum = pkgutil.resolve_name(f"torchvision.models:{self.weights}")
        return member

    def require_size(self, name: str, size: tuple[int, int]) -> None:
        """Raise UserError, with a size that works, if the model can't take images of `size` (height, width)."""
        unit = self.multiple_of
        height, width = (max(-(-self.smallest // unit), -(-side // unit)) * unit for side in size)
        if (height, width) == size:
            return
        least = -(-self.smallest // unit) * unit
        fix = f"the smallest that works is {least}x{least}"
        fix += f", and both sides must be multiples of {unit}" if unit > 1 else ""
        flag = f"--size {height}" if height == width else f"--size {height} {width}"
        raise UserError(f"{name} can't take images of {size[0]}x{size[1]} pixels: {fix}.\nUse {flag}.")
