"""How far an export may be from PyTorch: 1e-4, or what the network's own rounding explains."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import nn

from engine.errors import RunError
from engine.inference.preprocessing import Preprocessing
from exporting.agreement import MOST, ROUNDINGS, TOLERANCE, Agreement, require_agreement, rounding
from exporting.served import Served

PIXELS = np.random.default_rng(0).integers(0, 256, (4, 4, 4, 3), np.uint8)


def network(offset: float) -> Served:
    """Logits near 1 in magnitude, of which `offset` is added and taken away again: what its rounding loses."""

    class Lossy(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return (images.flatten(1)[:, :3].clamp(-1, 1) + offset) - offset

    return Served(Lossy(), Preprocessing((4, 4), (4, 4), (0.5,) * 3, (0.5,) * 3), None).eval()


def off_by(served: Served, by: float) -> Agreement:
    """What is said of outputs that are off by so much."""

    def found(pixels: np.ndarray[tuple[int, ...], np.dtype[np.uint8]]) -> tuple[np.ndarray, np.ndarray]:
        logits, probabilities = (each.numpy() for each in served(torch.from_numpy(pixels)))
        return logits + np.float32(by), probabilities

    return require_agreement("it", found, served, PIXELS)


@pytest.mark.parametrize(
    ("offset", "by", "holds"),
    [
        (0.0, 0.9e-4, True),
        (0.0, 1.5e-4, False),
        (1024.0, 1.5e-4, True),  # single precision is 6e-5 off there
        (1024.0, 4e-4, False),
        (65536.0, 0.9e-3, True),  # and 4e-3 here, where what is allowed ends
        (65536.0, 1.2e-3, False),
        (0.0, float("nan"), False),
    ],
)
def test_what_the_networks_own_rounding_explains_is_allowed(offset: float, by: float, holds: bool) -> None:
    served = network(offset)
    if holds:
        assert off_by(served, by).logits == pytest.approx(by, rel=1e-2)
    else:
        with pytest.raises(RunError, match="it does not agree with PyTorch"):
            off_by(served, by)


def test_it_is_measured_in_double_precision() -> None:
    assert rounding(network(0.0), PIXELS) < 1e-7
    assert 1e-5 < rounding(network(1024.0), PIXELS) <= 2**-14
    assert network(1024.0).network(torch.ones(1, 48)).dtype == torch.float32


def test_the_limit() -> None:
    assert Agreement(0, 0, 0.5).limit == TOLERANCE
    assert Agreement(0, 0, 20.0).limit == pytest.approx(20 * TOLERANCE)
    assert Agreement(0, 0, 20.0, 1e-3).limit == pytest.approx(ROUNDINGS * 1e-3)
    assert Agreement(0, 0, 20.0, 1.0).limit == pytest.approx(20 * MOST)
