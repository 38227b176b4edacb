"""What a pass of a model costs beside multiply-accumulates, counted without computing, for speeds to be predicted."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from engine.models.backbone import Backbone

# these move numbers or set memory aside: another layout or a fused kernel does without
MOVES = ("clone", "_to_copy", "roll", "constant_pad_nd", "stack", "index", "_unsafe_view", "empty", "empty_like")


class _Written(TorchDispatchMode):
    """Counts the results of operators that compute, but for those that are put where an operand was."""

    def __init__(self) -> None:
        super().__init__()
        self.numbers = 0

    def __torch_dispatch__(self, function: Any, types: Any, given: Any = (), named: Any = None) -> Any:
        result = function(*given, **(named or {}))
        views = any(returned.alias_info for returned in function._schema.returns)
        if not views and function.overloadpacket.__name__ not in MOVES:
            for each in result if isinstance(result, list | tuple) else (result,):
                self.numbers += each.numel() if isinstance(each, torch.Tensor) else 0
        return result


def activations(model: nn.Module, size: tuple[int, int]) -> int:
    """How many numbers the operators of `model` result in for an image of `size` (height, width), not computing them.

    Copies are left out, and what is dropped at random in training.
    """
    shapes = copy.deepcopy(model).to("meta").eval()
    written = _Written()
    with torch.no_grad(), written:
        shapes(torch.empty(1, 3, *size, device="meta"))
    return written.numbers


def without_numbers(backbone: Backbone) -> nn.Module:
    """The 1000-class model whose weights are shapes alone, where its builder lets that be; else with random weights.

    Random numbers, which nothing reads here, are most of what building takes. Raises UserError as build() does.
    """
    try:
        with torch.device("meta"):
            return backbone.build()
    except Exception:  # of a builder that reads what it has just drawn, such as torchvision's of RegNet
        return backbone.build()
