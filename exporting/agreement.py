"""Whether what was exported computes what PyTorch does."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt
import torch

from engine.data.part import Pixels
from engine.errors import RunError
from exporting.served import Served

# as shares of the largest logit, where that is above 1: what may always be, and what may be where it is no more than so
# many times what PyTorch's own sums in single precision are off. Another order of sums is as far off, to another side:
# 0.7 to 3 times were seen of twelve networks with random weights.
TOLERANCE, MOST = 1e-4, 1e-3
ROUNDINGS = 4

Numbers = npt.NDArray[np.float32]
Network = Callable[[Pixels], tuple[Numbers, Numbers]]  # uint8 (B, H, W, 3) -> logits, probabilities


@dataclass(frozen=True)
class Agreement:
    """The largest differences from PyTorch's outputs."""

    logits: float
    probabilities: float
    largest_logit: float
    rounding: float = 0.0  # how far PyTorch's are from those in double precision; 0 where that need not be known

    @property
    def limit(self) -> float:
        """How far they may be."""
        unit = max(1.0, self.largest_logit)
        return max(TOLERANCE * unit, min(MOST * unit, ROUNDINGS * self.rounding))

    @property
    def holds(self) -> bool:
        """Whether they are within the limit; what is no number never is."""
        return self.logits <= self.limit and self.probabilities <= self.limit


def require_agreement(what: str, found: Network, expected: Served, pixels: Pixels) -> Agreement:
    """How far `found` is from `expected` on `pixels`, given one by one, some at a time, and all at once.

    RunError: too far, or not with as many outputs as images.
    """
    worst = Agreement(0.0, 0.0, 0.0)
    for batch in (pixels[:1], pixels[: len(pixels) // 2 + 1], pixels):
        with torch.inference_mode():
            logits, probabilities = (each.numpy() for each in expected(torch.from_numpy(batch)))
        outputs = found(batch)
        if [each.shape for each in outputs] != [logits.shape, probabilities.shape]:
            raise RunError(f"{what} gives {outputs[0].shape} for {len(batch)} images. Nothing is written.")
        worst = Agreement(
            _largest(worst.logits, outputs[0] - logits),
            _largest(worst.probabilities, outputs[1] - probabilities),
            _largest(worst.largest_logit, logits),
            worst.rounding,
        )
        if not worst.holds and not worst.rounding:
            worst = replace(worst, rounding=rounding(expected, pixels))
        if not worst.holds:
            raise RunError(
                f"{what} does not agree with PyTorch: logits of up to {worst.largest_logit:.3g} differ by up to "
                f"{worst.logits:.2g}, probabilities by {worst.probabilities:.2g}. Expected {worst.limit:.1g}. "
                "Nothing is written. Other versions of the packages may do better: "
                "pip install -U -r requirements-export.txt"
            )
    return worst


@torch.inference_mode()
def rounding(network: Served, pixels: Pixels) -> float:
    """How far the network's logits are from those of the same weights in double precision, at most."""
    images = network.preprocessing.to_input(torch.from_numpy(pixels))
    exact = copy.deepcopy(network.network).double()(images.double())
    return float((network.network(images) - exact).abs().max())


def _largest(before: float, values: Numbers) -> float:
    """The larger one of both; NaN where there is one among the values."""
    return float(np.maximum(before, np.abs(values).max()))
