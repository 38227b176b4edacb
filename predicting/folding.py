"""Batch normalisation, folded into the convolutions before it: the same outputs but for rounding, in less time."""

from __future__ import annotations

from collections import Counter

import torch
from torch import fx, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

TRIED = 2  # images that the folded model is compared on
SOUND = 1e-3  # of the norm of the outputs, that folding may move them by: rounding in float32 moves them by about 1e-6


@torch.no_grad()  # not inference_mode(): some of its tensors, in some layouts, are refused by kernels afterwards
def fold(model: nn.Module, size: tuple[int, int]) -> int:
    """Fold, in place, what can be in a model in evaluation mode on the processor; how many layers that were.

    A convolution whose output nothing but a batch normalisation takes becomes both. Where PyTorch can't follow what the
    model does, or its outputs on images of `size` would change, it stays as it is.
    """
    pairs = _pairs(model)
    if not pairs:
        return 0
    images = torch.randn(TRIED, 3, *size, generator=torch.Generator().manual_seed(0))
    expected = model(images)
    before = {name: model.get_submodule(name) for pair in pairs for name in pair}
    for convolution, norm in pairs:
        _put(model, convolution, fuse_conv_bn_eval(before[convolution], before[norm]))  # type: ignore[type-var, arg-type]
        _put(model, norm, nn.Identity())
    if (model(images) - expected).norm() <= SOUND * expected.norm():
        return len(pairs)
    for name, module in before.items():
        _put(model, name, module)
    return 0


def _pairs(model: nn.Module) -> list[tuple[str, str]]:
    """The names of each convolution with that of the batch normalisation which alone takes what it gives."""
    try:
        nodes = [*fx.Tracer().trace(model).nodes]
    except Exception:  # the model does what depends on values, or its own code stumbles over a tracer
        return []
    modules = {node: model.get_submodule(str(node.target)) for node in nodes if node.op == "call_module"}
    calls = Counter(map(id, modules.values()))
    pairs = []
    for node, module in modules.items():
        above = node.args[0] if node.args else None
        if type(module) is not nn.BatchNorm2d or not isinstance(above, fx.Node) or above not in modules:
            continue
        alone = len(above.users) == 1 == calls[id(module)] == calls[id(modules[above])]
        if alone and type(modules[above]) is nn.Conv2d and module.track_running_stats:
            pairs.append((str(above.target), str(node.target)))
    return pairs


def _put(model: nn.Module, name: str, module: nn.Module) -> None:
    above, _, last = name.rpartition(".")
    setattr(model.get_submodule(above), last, module)
