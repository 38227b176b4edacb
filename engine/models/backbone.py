"""A backbone's entry in the factory: everything that this project knows of it, before PyTorch is imported."""

from __future__ import annotations

import pkgutil
import traceback
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from importlib.util import find_spec
from math import isfinite
from typing import TYPE_CHECKING, Any

from engine.code_hash import as_written, behind, file_of
from engine.data.declaration import declared
from engine.errors import RunError, UserError, out_of_memory

if TYPE_CHECKING:
    from torch import nn
    from torchvision.models import WeightsEnum

BUILDERS = (
    "Expected what is called without arguments and returns the 1000-class model: a name in torchvision.models, the "
    "full name of a function or class of your own, or that function, class or functools.partial itself."
)
WEIGHTS_OF_ENTRIES = "Expected a name in torchvision.models such as 'ResNet50_Weights.IMAGENET1K_V1', or a WeightsFile."
WEIGHTS = ("imagenet", "auto", "none")  # what --weights takes beside the name of an enum's member and a file

Channels = tuple[float, float, float]  # a number for red, green and blue each

# of the images that torchvision's weights were trained on, on a scale of 0 to 1
IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)


def normalisation_of(stated: Mapping[str, Any]) -> tuple[Channels, Channels]:
    """The `mean` and `std` of red, green and blue that are stated. Raises what others, or what is none, leads to."""
    mean, std = (tuple(map(float, stated[name])) for name in ("mean", "std"))
    if not len(mean) == len(std) == len(IMAGENET_MEAN) or min(std) <= 0 or not all(map(isfinite, mean + std)):
        raise ValueError("the normalisation is none")
    return (mean[0], mean[1], mean[2]), (std[0], std[1], std[2])


@declared
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
class HubFile:
    """Pretrained weights on the Hugging Face hub, which are kept where its own library keeps what it fetches."""

    name: str  # as the record calls them
    repository: str
    files: tuple[str, ...]  # of which the first that is there is taken
    mean: tuple[float, ...]
    std: tuple[float, ...]


@declared
@dataclass(frozen=True)
class Backbone:
    """One entry of the factory.

    The builder and the weights can be given by their names: PyTorch takes seconds to import, and a command line should
    not wait for it. A name without a module's is one in torchvision.models, as that of weights always is.
    """

    # called without arguments: the 1000-class model, randomly initialised. A function, a class, a functools.partial
    builder: str | Callable[[], nn.Module]
    weights: str | WeightsEnum | WeightsFile | HubFile | None  # what `--weights imagenet` means; None: it has none
    head: str  # the dotted name of the last linear layer, which a new one replaces
    lr: float = 3e-4  # the highest learning rate of the recipe "cosine"
    smallest: int = 1  # pixels: the shortest side that it takes
    multiple_of: int = 1  # pixels: what both sides must be a multiple of
    # The form of the training step that is usually the fastest on a processor that computes in bf16, and on a card; it
    # is chosen where a measurement leaves doubt.
    usual_on_cpu: str = "bf16 NHWC"
    usual_on_cuda: str = "bf16 NHWC"
    published: bool = False  # whether it is one of the published comparison's eleven
    file: str = ""  # that was named for it; "": it stands in BACKBONES

    def __post_init__(self) -> None:
        if not (callable(self.builder) or (isinstance(self.builder, str) and self.builder)):
            raise UserError(f"Backbone: the builder is {self.builder!r:.80}. {BUILDERS}")
        if not isinstance(self.head, str) or not self.head:
            raise UserError(
                f"Backbone: the head is {self.head!r:.80}. Expected the dotted name of the last linear layer, such as "
                "'fc' or 'classifier.1'."
            )

    @property
    def builder_name(self) -> str:
        """torchvision's name, or that of what builds it, with the arguments that are bound to it."""
        if isinstance(self.builder, str):
            return self.builder.replace(":", ".").rpartition(".")[2]
        return as_written(self.builder)

    @property
    def arguments(self) -> str:
        """The builder with what it is given beside its code, as a functools.partial has it; "": nothing."""
        return "" if isinstance(self.builder, str) or hasattr(self.builder, "__name__") else self.builder_name

    @property
    def source(self) -> str:
        """The file that the builder is in, or that was named for it; "" where it is torchvision's, or in none."""
        if self.file:
            return self.file
        if isinstance(self.builder, str):
            module = self.builder.replace(":", ".").rpartition(".")[0]
            while module:
                with suppress(ImportError, ValueError):  # no such module, or a class in the module that is above
                    if found := find_spec(module):  # which does not import it
                        return str(found.origin or "")
                module = module.rpartition(".")[0]
            return ""
        module = getattr(behind(self.builder), "__module__", None) or ""
        return "" if module.startswith("torchvision.") else file_of(self.builder)

    @property
    def home(self) -> str:
        """Where it stands: the file that was named for it, a library, or BACKBONES."""
        return self.file or self.library or "BACKBONES"

    @property
    def library(self) -> str:
        """The package, beside those that every run needs, whose model it is; "": none."""
        return getattr(self.builder, "library", "")

    @property
    def normalisation(self) -> tuple[tuple[float, ...], tuple[float, ...]]:
        """Mean and standard deviation, from 0 to 1, that a file of its weights expects if it does not say."""
        stated = isinstance(self.weights, WeightsFile | HubFile)
        return (self.weights.mean, self.weights.std) if stated else (IMAGENET_MEAN, IMAGENET_STD)  # type: ignore[union-attr]

    def at(self, size: tuple[int, int]) -> Backbone:
        """The same for images of `size` (height, width): a model that is built for one size is built for that."""
        resized = getattr(self.builder, "at", None)
        return self if resized is None else replace(self, builder=resized(size))

    def is_usual(self, member: str) -> bool:
        """Whether the member of an enum of weights is what `--weights imagenet` means."""
        return self.weights is not None and str(self.weights).endswith(f"_Weights.{member}")

    def build(self) -> nn.Module:
        """The 1000-class model, randomly initialised. Raises UserError where the builder makes none."""
        from torch import nn

        builder = self._builder
        try:
            model: object = builder()
        except Exception as problem:
            if isinstance(problem, (UserError, RunError)) or out_of_memory(problem):
                raise
            last = traceback.extract_tb(problem.__traceback__)[-1]
            where = "" if last.filename == __file__ else f" ({last.filename}, line {last.lineno})"
            what = f"{type(problem).__name__}: {problem}{where}"
            raise UserError(f"the builder {self.builder_name} of {self.home} fails: {what}. {BUILDERS}") from problem
        if not isinstance(model, nn.Module):
            kind = type(model).__name__
            raise UserError(f"the builder {self.builder_name} of {self.home} makes a {kind}, no nn.Module. {BUILDERS}")
        return model

    @property
    def _builder(self) -> Callable[[], nn.Module]:
        if not isinstance(self.builder, str):
            return self.builder
        named = self.builder if "." in self.builder or ":" in self.builder else f"torchvision.models:{self.builder}"
        builder: Callable[[], nn.Module] = _resolved(named, "the builder", BUILDERS)
        if not callable(builder):
            raise UserError(f"the builder {self.builder!r} of BACKBONES names a {type(builder).__name__}. {BUILDERS}")
        return builder

    @property
    def pretrained(self) -> WeightsEnum | WeightsFile | HubFile:
        """The weights that `--weights imagenet` means. Raises UserError where there are none."""
        if self.weights is None:
            raise UserError(f"{self.builder_name} has no pretrained weights: {self.home} states none.")
        if not isinstance(self.weights, str):
            return self.weights
        member: WeightsEnum = _resolved(f"torchvision.models:{self.weights}", "the weights", WEIGHTS_OF_ENTRIES)
        if not hasattr(member, "transforms") or isinstance(member, type):
            raise UserError(f"the weights {self.weights!r} of BACKBONES are no member of an enum. {WEIGHTS_OF_ENTRIES}")
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


def stated_top1(weights: WeightsEnum | WeightsFile | HubFile) -> float | None:
    """Top-1 accuracy on ImageNet-1k, percent, as the authors of the weights state it; None where they do not."""
    if isinstance(weights, HubFile):
        return None
    if isinstance(weights, WeightsFile):
        return weights.top1
    stated: dict[str, float] = weights.meta.get("_metrics", {}).get("ImageNet-1K", {})
    return stated.get("acc@1")


def _resolved(name: str, what: str, expected: str) -> Any:
    """What is imported by that name. Raises UserError where it can't be."""
    try:
        return pkgutil.resolve_name(name)
    except (ImportError, AttributeError, ValueError) as problem:
        named = name.removeprefix("torchvision.models:")
        raise UserError(f"{what} {named!r} of BACKBONES can't be imported: {problem}. {expected}") from problem
