"""--check: what is saved must be what was there, and give the outputs that it gave."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import common
from engine.training.check import tolerance
from engine.training.plan import Plan
from tests import toy
from tests.conftest import Command

LINE = "-model tiny -bs 16 --weights none --plan off --epochs 1 --precision fp32 --check"
PLAN = Plan("cpu", "", "fp32", "")


class Unsteady(nn.Sequential):
    """A network whose outputs are not the same twice, as those of a card's convolutions are not."""

    by = 0.0  # of each output, more in each pass
    passes = 0

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = super().forward(images)
        self.passes += 1
        return logits * (1 + self.passes * self.by)


@pytest.mark.parametrize(("by", "code"), [(1e-5, 0), (0.1, 3)])
def test_outputs_may_differ_by_rounding(
    command: Command, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], by: float, code: int
) -> None:
    monkeypatch.setattr(Unsteady, "by", by)
    entry = replace(toy.TINY, builder=lambda: Unsteady(*toy.tiny().children()))
    monkeypatch.setitem(common.BACKBONES, "tiny", entry)
    assert command(LINE) == code
    assert ("gives other outputs" in capsys.readouterr().err) == (code == 3)


def spoilt(content: dict[str, torch.Tensor]) -> None:
    """By one bit."""
    weight = content["6.weight"]
    weight.view(torch.int32)[0, 0] ^= 1


@pytest.mark.parametrize("spoil", [spoilt, lambda content: content["1.num_batches_tracked"].add_(1)])
def test_weights_must_be_the_same_to_the_bit(
    command: Command,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    spoil: Callable[[Any], None],
) -> None:
    load = torch.load

    def loaded(path: Path, weights_only: bool) -> Any:
        content = load(path, weights_only=weights_only)
        spoil(content)
        return content

    monkeypatch.setattr(torch, "load", loaded)
    assert command(LINE) == 3
    assert "has other weights than before: " in capsys.readouterr().err


def test_the_tolerance_is_that_of_the_arithmetic() -> None:
    found = [
        tolerance(replace(PLAN, device=device, precision=precision))
        for device, precision in (("cpu", "fp32"), ("cuda", "fp32"), ("cuda", "fp16"), ("cpu", "bf16"))
    ]
    np.testing.assert_allclose(found, [2**-11.5, 2**-5, 2**-5, 2**-3.5])
