"""A step on a card: its host never waits, and micro-batches add up to the batch."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from itertools import groupby
from operator import itemgetter

import pytest
import torch
from torch import nn

import common
from common import BACKBONES, build_model
from engine.models.structure import set_train_mode
from engine.training.plan import Plan
from engine.training.recipe import make_recipe
from engine.training.step import Step
from tests import toy
from tests.cards.conftest import DRY, Run

pytestmark = pytest.mark.cuda

IN_MAKE_TEST = ("mobilenet", "swinv2", "wavemix")
WAITS = ("stream_sync", "device_sync", "event_sync", "d2h")


def waits() -> dict[str, int]:
    """How often the host of a dry card has waited for it so far, by the reason."""
    import drycard  # type: ignore[import-not-found, unused-ignore]  # there on a dry card alone

    counts = drycard.counts()
    return {kind: counts[kind] for kind in WAITS}


@contextmanager
def no_waiting() -> Iterator[None]:
    """Fails where the host waits for the card."""
    before = waits() if DRY else {}
    torch.cuda.set_sync_debug_mode("error")
    try:
        yield
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert (waits() if DRY else {}) == before


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in IN_MAKE_TEST else pytest.mark.slow) for name in BACKBONES]
)
def test_no_step_makes_the_host_wait(name: str, precision: str) -> None:
    if precision == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        pytest.skip("the card has no bf16")
    torch.manual_seed(0)
    model = build_model(name, 10, "none")
    plan = Plan("cuda", "", precision, "", layout="NHWC", micro_batch=4)
    plan.place(model)
    set_train_mode(model)
    recipe = make_recipe("cosine", 1e-4, 1, None)
    side = max(32, BACKBONES[name].smallest)
    images = torch.rand(8, 3, side, side, device="cuda").contiguous(memory_format=plan.memory_format)
    labels = torch.arange(8, device="cuda")
    for micro_batch, weights in ((None, None), (4, None), (4, [0.5, 1.5] * 5)):
        step = Step(
            model,
            recipe.optimizer(recipe.stages[0], model),
            Plan("cuda", "", precision, "", micro_batch=micro_batch),
            8,
            weights,
        )
        step(images, labels)
        with no_waiting():
            loss = sum((step(images, labels) for _ in range(2)), torch.zeros((), device="cuda"))
            recipe.set_lr(step.optimizer, recipe.stages[0], 0.5)
        assert loss.device.type == "cuda"
    model.eval()
    with torch.inference_mode(), plan.autocast():
        model(images)
        with no_waiting():
            logits = model(images).float()
    assert logits.shape == (8, 10)


class Watched(nn.Sequential):
    """A network that notes at each of its passes, of training and of evaluation, what the host has waited for."""

    passes: list[tuple[bool, dict[str, int]]]

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if images.is_cuda:
            self.passes.append((self.training, waits()))
        logits: torch.Tensor = super().forward(images)
        return logits


@pytest.mark.skipif(not DRY, reason="waits are counted on a dry card")
@pytest.mark.parametrize("resident", [True, False])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_the_host_waits_for_no_batch(run: Run, monkeypatch: pytest.MonkeyPatch, resident: bool, precision: str) -> None:
    """All that is done between two passes counts: gathering, sending, augmentation, the optimizer, the meters."""
    monkeypatch.setattr(Watched, "passes", [], raising=False)
    backbone = replace(toy.TINY, builder=lambda: Watched(*toy.tiny().children()))
    monkeypatch.setitem(common.BACKBONES, "tiny", backbone)
    if not resident:
        monkeypatch.setattr("engine.data.batches.RESIDENT_SHARE", 0.0)
    # val is one batch of evaluation, so that all but two that follow one another are test's
    run(f"-model tiny -bs 16 --weights none --plan off --epochs 2 --precision {precision}", toy.dataset(160, 160))
    parts = [[waited for _, waited in passes] for _, passes in groupby(Watched.passes, itemgetter(0))]
    assert [len(part) for part in parts] == [9, 1, 9, 1, 9, 1, 9, 1 + 1 + 5]
    del parts[-1][:2]  # val, of the last epoch and once more
    assert [part for part in parts if any(waited != part[0] for waited in part)] == []


class Plain(nn.Sequential):
    """Without batch normalisation, so that each image's gradient is its own."""

    def __init__(self) -> None:
        super().__init__(
            nn.Conv2d(3, 16, 3), nn.GELU(), nn.Conv2d(16, 32, 3, stride=2), nn.GELU(), nn.Flatten(), nn.LazyLinear(10)
        )


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_micro_batches_add_up_to_the_batch(precision: str) -> None:
    torch.manual_seed(0)
    images, labels = torch.randn(13, 3, 16, 16), torch.arange(13) % 10
    model = Plain()
    model(images)
    model.to("cuda")
    gradients = []
    for micro_batch in (None, 4):
        plan = Plan("cuda", "", precision, "", micro_batch=micro_batch)
        step = Step(model, torch.optim.SGD(model.parameters(), 0.0, fused=True), plan, 13)
        step.add_gradient(images.to("cuda"), labels.to("cuda"))
        scale = step.scaler.get_scale()
        assert DRY or (scale > 1) is (precision == "fp16")
        found = [parameter.grad for parameter in model.parameters()]
        assert all(each is not None and each.dtype is torch.float32 and each.is_cuda for each in found)
        gradients.append(torch.cat([each.flatten() for each in found if each is not None]).cpu() / (scale or 1.0))
        model.zero_grad()
    whole, added_up = gradients
    assert whole.shape == added_up.shape
    if not DRY:
        assert whole.isfinite().all()
        assert (whole - added_up).norm() < {"fp32": 1e-4, "bf16": 2e-2, "fp16": 3e-3}[precision] * whole.norm()
