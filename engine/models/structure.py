"""What can be asked of any model, and what is changed in one: its head, what of it is trained, what a pass costs."""

from __future__ import annotations

import copy

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from engine.errors import UserError

MOST_NAMED = 5  # layers


def replace_head(model: nn.Module, head: str, num_classes: int) -> None:
    """Put a freshly initialised linear layer with `num_classes` outputs in the place of the one named `head`."""
    parent, _, name = head.rpartition(".")
    setattr(model.get_submodule(parent), name, nn.Linear(linear_layer(model, head).in_features, num_classes))
    if type(model).__module__.startswith("timm."):
        vars(model)["num_classes"] = num_classes  # as its own reset_classifier() says, which resets more than the layer


def linear_layer(model: nn.Module, head: str) -> nn.Linear:
    """The linear layer of that dotted name. Raises UserError, with the names of those there are, where it is none."""
    modules = dict(model.named_modules())
    layer = modules.get(head)
    if isinstance(layer, nn.Linear):
        return layer
    found = f"is a {type(layer).__name__}, not a linear layer" if layer else "is no layer of the model"
    names = [name for name, module in modules.items() if isinstance(module, nn.Linear)]
    raise UserError(
        f"the head {head!r} {found}. Expected, in the entry of BACKBONES, the last of the linear layers: "
        f"{', '.join(names[-MOST_NAMED:]) or 'it has none'}."
    )


def freeze_body(model: nn.Module, head: str) -> None:
    """For `--tune linear`: let only the layer named `head` be trained."""
    model.requires_grad_(False)
    model.get_submodule(head).requires_grad_(True)


def set_train_mode(model: nn.Module, keep_statistics: bool = False) -> None:
    """Ready for training. What is frozen stays in evaluation mode: its batch statistics must not drift either.

    keep_statistics: batch normalisation normalises by the running statistics that it has; its scale and shift are
    trained.
    """
    whole = all(parameter.requires_grad for parameter in model.parameters())
    model.train(whole)
    for module in () if whole else model.modules():
        if any(parameter.requires_grad for parameter in module.parameters(recurse=False)):
            module.train()
    for layer in batch_norms(model) if keep_statistics else ():
        layer.eval()


def batch_norms(model: nn.Module) -> list[nn.modules.batchnorm._BatchNorm]:
    """The layers that normalise over the batch."""
    return [module for module in model.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]


def batch_statistics(model: nn.Module) -> list[torch.Tensor]:
    """The running means and variances that training changes."""
    layers = [each for each in batch_norms(model) if each.training]
    return [each for layer in layers for each in (layer.running_mean, layer.running_var) if each is not None]


def trains_batch_norm(model: nn.Module) -> bool:
    """Whether training normalises over the batch, which takes at least two images a step: a frozen body does not."""
    return any(all(parameter.requires_grad for parameter in layer.parameters()) for layer in batch_norms(model))


def macs(model: nn.Module, size: tuple[int, int], head: str = "") -> int:
    """Multiply-accumulates of one forward pass of one image of `size` (height, width), counted without computing.

    Convolutions, matrix products and attention count, as in torchvision's own tables; element-wise work does not.
    Raises UserError when the model can't take such images, or does not give the logits of the layer named `head`.
    """
    shapes = copy.deepcopy(model).to("meta").eval()
    for layer in batch_norms(shapes):
        # it keeps the shape, and was four fifths of what a dry run of densenet took
        vars(layer)["forward"] = lambda features: features
    try:
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            logits = shapes(torch.empty(1, 3, *size, device="meta"))
    # what layers raise when their input shrinks to nothing, does not divide, or is not the one size that they take
    except (RuntimeError, ValueError, IndexError, AssertionError) as problem:
        reason = str(problem).partition("\n")[0] or type(problem).__name__
        raise UserError(
            f"this backbone can't take images of {size[0]}x{size[1]} pixels: {reason}\nUse another --size."
        ) from problem
    wanted = (1, linear_layer(model, head).out_features) if head else None
    found = tuple(logits.shape) if isinstance(logits, torch.Tensor) else type(logits).__name__
    if wanted and found != wanted:
        raise UserError(
            f"this backbone gives {found} for one image, where its head, {head}, gives {wanted}. Expected the logits "
            "of the head, one row an image: is another layer the head?"
        )
    return int(counter.get_total_flops()) // 2
