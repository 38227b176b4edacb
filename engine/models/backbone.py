"""What a backbone's entry in the factory holds, and what can be asked of any model built from one."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models import Inception3, WeightsEnum

from engine.errors import UserError

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
    """One entry of the factory."""

    builder: Callable[[], nn.Module]  # called without arguments: the 1000-class model, randomly initialised
    weights: WeightsEnum | WeightsFile  # what `--weights imagenet` means
    head: str  # the dotted name of the last linear layer, which a new one replaces
    rate: float = 3e-4  # the highest learning rate of the recipe "cosine"


def replace_head(model: nn.Module, head: str, num_classes: int) -> None:
    """Put a freshly initialised linear layer with `num_classes` outputs in the place of the one named `head`."""
    parent, _, name = head.rpartition(".")
    old = model.get_submodule(head)
    if not isinstance(old, nn.Linear):
        raise TypeError(f"the head {head!r} is a {type(old).__name__}, not a linear layer")
    setattr(model.get_submodule(parent), name, nn.Linear(old.in_features, num_classes))


def inception_v3() -> nn.Module:
    """torchvision's Inception v3 without its auxiliary head: logits in train mode too.

    Pretrained inputs are expected at a mean and deviation of 0.5; `transform_input` gets them there from ImageNet's.
    """
    model: nn.Module = Inception3(aux_logits=False, transform_input=True, init_weights=True)

    def drop_auxiliary(_: nn.Module, state: dict[str, Any], *rest: Any) -> None:
        for key in [key for key in state if key.startswith("AuxLogits.")]:
            del state[key]

    model.register_load_state_dict_pre_hook(drop_auxiliary)
    return model


def trains_batch_norm(model: nn.Module, tune: str) -> bool:
    """Whether training normalises over the batch, which takes at least two images a step: a frozen body does not."""
    return tune == "full" and any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in model.modules())


def forward_order(model: nn.Module) -> dict[str, int]:
    """When a forward pass comes to the module that holds each parameter, by the parameter's name; 0 is the first.

    A module that is not called itself, as a layer whose weights another one uses, comes with the one that holds it.
    """
    shadow = _shadow(model)
    called: dict[str, int] = {}

    def note(name: str) -> None:
        called.setdefault(name, len(called))

    for name, module in shadow.named_modules():
        module.register_forward_pre_hook(lambda *_, name=name: note(name))
    _dry_run(shadow, _USUAL_SIZE)
    order = {}
    for name, _ in model.named_parameters():
        holder = name.rpartition(".")[0]
        while holder not in called:
            holder = holder.rpartition(".")[0]
        order[name] = called[holder]
    return order


def macs(model: nn.Module, size: tuple[int, int]) -> int:
    """Multiply-accumulates of one forward pass of one image of `size` (height, width), counted without computing.

    Convolutions, matrix products and attention count, as in torchvision's own tables; element-wise work does not.
    """
    with FlopCounterMode(display=False) as counter:
        _dry_run(_shadow(model), size)
    return int(counter.get_total_flops()) // 2


def require_size(model: nn.Module, name: str, size: tuple[int, int]) -> None:
    """Raise UserError with sizes that work if the model can't take images of `size` (height, width)."""
    shadow = _shadow(model)
    try:
        _dry_run(shadow, size)
    except _UNFIT as problem:
        smallest = _next_side(shadow, 1, 1024)
        if smallest is None:  # then it isn't the size
            raise
        least = [max(smallest, side) for side in size]
        height, width = (_next_side(shadow, side, 2 * side) or smallest for side in least)
        if not _accepts(shadow, (height, width)):
            height, width = smallest, smallest
        fix = f"the smallest that works is {smallest}x{smallest}"
        if (height, width) != (smallest, smallest):
            fix += f", the next above {height}x{width}"
        flag = f"--size {height}" if height == width else f"--size {height} {width}"
        raise UserError(f"{name} can't take images of {size[0]}x{size[1]} pixels: {fix}.\nUse {flag}.") from problem
    if min(size) < SMALL:
        _require_small(model, name, size)


def _require_small(model: nn.Module, name: str, size: tuple[int, int]) -> None:
    """Older PyTorch lets shapes pass that its kernels then refuse: an image this small is computed for real."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            model(torch.zeros(1, 3, *size))
    except _UNFIT as problem:
        raise UserError(
            f"{name} can't take images of {size[0]}x{size[1]} pixels: {str(problem).partition(chr(10))[0]}\n"
            "Use a larger --size."
        ) from problem
    finally:
        model.train(training)


_USUAL_SIZE = (224, 224)  # pixels: every backbone takes it
SMALL = 80  # pixels: every backbone takes a side this long
# what layers raise when their input shrinks to nothing, does not divide, or is not the one size that they take
_UNFIT = (RuntimeError, ValueError, IndexError, AssertionError)


def _shadow(model: nn.Module) -> nn.Module:
    """The model without its numbers: shapes alone, which cost nothing to compute with."""
    shadow = copy.deepcopy(model).to("meta").eval()
    for module in shadow.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            # it keeps the shape, and was four fifths of what a dry run of densenet took
            vars(module)["forward"] = lambda features: features
    return shadow


def _dry_run(shadow: nn.Module, size: tuple[int, int]) -> None:
    with torch.no_grad():
        shadow(torch.empty(1, 3, *size, device="meta"))


def _accepts(shadow: nn.Module, size: tuple[int, int]) -> bool:
    try:
        _dry_run(shadow, size)
    except _UNFIT:
        return False
    return True


def _next_side(shadow: nn.Module, least: int, most: int) -> int | None:
    """The smallest side of a square that the model accepts, from `least` to `most`."""
    return next((side for side in range(least, most + 1) if _accepts(shadow, (side, side))), None)
