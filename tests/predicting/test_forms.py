"""The forms that a model is computed in, and batch normalisation that is folded into convolutions."""

from __future__ import annotations

from dataclasses import replace
from itertools import repeat
from pathlib import Path

import pytest
import torch
from torch import nn

import common
from common import build_model, load
from engine.device import usable_threads
from engine.training.plan import LAYOUTS, Plan
from predicting import forms
from predicting.folding import fold
from predicting.forms import form_for
from tests.toy import tiny


def settled(model: nn.Module) -> nn.Module:
    """The model with running statistics and scales that are not those of the beginning."""
    torch.manual_seed(0)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.running_mean, module.running_var, module.weight, module.bias):
                assert tensor is not None
                nn.init.uniform_(tensor, 0.5, 1.5)
    return model.eval()


def test_a_folded_model_gives_the_same_but_for_rounding() -> None:
    model = settled(tiny())
    images = torch.randn(3, 3, 16, 16)
    with torch.inference_mode():
        before = model(images)
        assert fold(model, (16, 16)) == 1
        torch.testing.assert_close(model(images), before, rtol=1e-4, atol=1e-4)
    assert not any(isinstance(module, nn.BatchNorm2d) for module in model.modules())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_folded_model_computes_in_every_form(precision: str, layout: str) -> None:
    """Also with a convolution of one pixel, for which processors have kernels of their own."""
    model = settled(nn.Sequential(nn.Conv2d(3, 8, 1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 4, 1)))
    plan = Plan("cpu", "the processor", precision, "for the test", layout=layout)
    images = torch.randn(2, 3, 8, 8)
    with torch.inference_mode():
        before = model(images)
    assert fold(model, (8, 8)) == 1
    plan.place(model)
    with torch.inference_mode(), plan.autocast():
        found = model(images.contiguous(memory_format=plan.memory_format)).float()
    torch.testing.assert_close(found, before, rtol=0.05, atol=0.05)


class Shared(nn.Module):
    """Its convolution is called twice, and only once for the batch normalisation."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm = nn.Conv2d(3, 3, 1), nn.BatchNorm2d(3)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self.norm(self.convolution(images)) + self.convolution(images)
        return result


class Branches(Shared):
    """What its convolution gives is taken by another, too."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        taken = self.convolution(images)
        result: torch.Tensor = self.norm(taken) + taken
        return result


class Deciding(Shared):
    """What it does depends on values."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        taken = self.convolution(images)
        result: torch.Tensor = self.norm(taken) if images.sum() > 0 else taken
        return result


@pytest.mark.parametrize("kind", [Shared, Branches, Deciding])
def test_what_can_not_be_folded_stays_as_it_is(kind: type[Shared]) -> None:
    model = settled(kind())
    images = torch.randn(2, 3, 8, 8)
    with torch.inference_mode():
        before = model(images)
        assert fold(model, (8, 8)) == 0
        torch.testing.assert_close(model(images), before, rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize("name", [*common.BACKBONES])
def test_every_backbone_folded(name: str) -> None:
    side = max(64, common.BACKBONES[name].smallest)
    model = settled(build_model(name, 5, "none"))
    images = torch.randn(2, 3, side, side)
    with torch.inference_mode():
        before = model(images)
        fold(model, (side, side))
        assert (model(images) - before).norm() < 1e-4 * before.norm()


def test_on_a_device_like_the_runs_its_own_plan_is_kept(run: Path) -> None:
    trained = load(run)
    for asked, folded in (("run", False), ("fastest", True)):
        form = form_for(trained, "cpu", asked, repeat(None))
        assert form.folded == folded
        assert (form.plan.precision, form.plan.layout) == ("fp32", trained.record["plan"]["layout"])


def test_no_more_threads_than_there_are(run: Path) -> None:
    trained = load(run)
    trained.record["plan"]["threads"] = 10**9
    for asked in ("run", "fastest"):
        assert form_for(trained, "cpu", asked, repeat(None)).plan.threads == usable_threads()


def test_elsewhere_forms_are_measured_once_if_there_are_many_images(
    run: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    trained = load(run)
    trained.record["plan"]["device_name"] = "another processor, 64 threads"
    monkeypatch.setattr(forms, "user_cache", lambda: Path("cache"))
    few = form_for(trained, "cpu", "fastest", [None] * 299)
    assert few.plan.reason == "usually the fastest"
    assert not Path("cache").exists()
    found = form_for(trained, "cpu", "fastest", repeat(None))
    assert found.plan.reason == "measured to be the fastest"
    assert "measuring  which form of tiny is fastest here" in capfd.readouterr().out
    monkeypatch.setattr(forms, "_fastest", lambda *_: pytest.fail("it was measured again"))
    assert form_for(trained, "cpu", "fastest", repeat(None)) == found
    (kept,) = Path("cache/forms").iterdir()
    kept.write_text("damaged")
    monkeypatch.setattr(forms, "_fastest", lambda _, tried: replace(tried[0], layout="NHWC"))
    assert form_for(trained, "cpu", "fastest", repeat(None)).plan.layout == "NHWC"
