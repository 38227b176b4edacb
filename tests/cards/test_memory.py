"""What lies on a card, for how long, and what is done where it does not fit."""

from collections.abc import Iterator
from dataclasses import replace
from itertools import groupby
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import common
from common import Dataset, Part, RawSplits, ReadOptions
from engine.data.batches import Batches
from tests import toy
from tests.cards.conftest import DRY, Limit, Run

pytestmark = pytest.mark.cuda

MIB = 2**20
SIDE = 256
TRAIN, VAL = 270, 30  # images, of 59 MB together


class Hungry(nn.Sequential):
    """A network that takes `per_image` bytes beside its own, and notes what lies on the card."""

    per_image = 0
    resident: list[bool]  # at each pass: whether as much is on the card as all training images take
    before: int  # bytes that were taken before the run
    reserved: list[int]  # at each epoch's begin

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if images.is_cuda:
            self.resident.append(torch.cuda.memory_allocated() - self.before > TRAIN * SIDE * SIDE * 3)
            taken = torch.empty(len(images), self.per_image, dtype=torch.uint8, device=images.device)
            assert taken.is_cuda
        logits: torch.Tensor = super().forward(images)
        return logits

    def train(self, mode: bool = True) -> "Hungry":
        if mode:
            self.reserved.append(torch.cuda.memory_reserved())
        return super().train(mode)


@pytest.fixture
def hungry(monkeypatch: pytest.MonkeyPatch) -> type[Hungry]:
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        layer = nn.Linear(32, 3, device="cuda", dtype=dtype)  # cuBLAS keeps what it computes in: up to 128 MiB
        layer(torch.ones(16, 32, device="cuda", dtype=dtype)).sum().backward()
    monkeypatch.setitem(common.BACKBONES, "tiny", replace(toy.TINY, builder=lambda: Hungry(*toy.tiny().children())))
    monkeypatch.setattr(Hungry, "before", torch.cuda.memory_allocated(), raising=False)
    monkeypatch.setattr(Hungry, "resident", [], raising=False)
    monkeypatch.setattr(Hungry, "reserved", [], raising=False)
    return Hungry


def pictures(images: int, name: str) -> Part:
    pixels = np.zeros((images, SIDE, SIDE, 3), np.uint8)
    pixels[:, 0, 0] = np.random.default_rng(images).integers(0, 256, (images, 3))  # no two parts share an image
    return Part(pixels, np.arange(images) % 3, [f"{name}/{number}" for number in range(images)])


def large() -> Dataset:
    """Images that a card without room would rather not hold."""

    def read(_: ReadOptions) -> RawSplits:
        return RawSplits(toy.CLASSES, pictures(TRAIN + VAL, "train"), pictures(30, "test"), checksums={"x": "md5:0"})

    return replace(toy.dataset(TRAIN + VAL, 30, augment="none"), read=read)


LINE = "-model tiny -bs 16 --weights none --size 16 --recipe cosine --epochs 2"


def test_images_that_are_held_are_freed_before_batches_are_divided(
    run: Run, limit: Limit, hungry: type[Hungry], monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setattr(Hungry, "per_image", 4 * MIB)  # 64 MiB a batch
    with limit(112 * MIB):
        record = run(f"{LINE} --plan off", large())
    # held, and from the first pass on after there was no room no longer
    assert [held for held, _ in groupby(hungry.resident)][-2:] == [True, False]
    assert record["plan"]["micro_batch"] is None
    assert "not kept on the device any more" in capsys.readouterr().out


@pytest.mark.parametrize("plan", ["off", "measure"])
def test_batches_are_divided_where_nothing_else_is_left(
    run: Run, limit: Limit, hungry: type[Hungry], monkeypatch: pytest.MonkeyPatch, plan: str
) -> None:
    monkeypatch.setattr(Hungry, "per_image", 16 * MIB)  # 256 MiB a batch
    with limit(124 * MIB):  # 4 images and what is asked for beside them, in pieces, but not 8
        record = run(f"{LINE} --plan {plan}", large())
    assert record["plan"]["micro_batch"] == 4
    assert not hungry.resident[-1]


def test_what_is_reserved_does_not_grow_with_the_epochs(
    run: Run, hungry: type[Hungry], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each epoch sends its images to the card anew."""
    monkeypatch.setattr("engine.data.batches.RESIDENT_SHARE", 0.0)
    monkeypatch.setattr(Hungry, "per_image", MIB)
    run("-model tiny -bs 16 --weights none --recipe cosine --epochs 40 --plan off", toy.dataset(80, 20))
    of_epochs = hungry.reserved[-40:]
    # a block that is asked for while another is still on its way may take one more
    assert of_epochs[-1] <= of_epochs[3] + 8 * MIB, [size // MIB for size in of_epochs]


def test_images_beyond_what_32_bits_count() -> None:
    images = 2**31 // (SIDE * SIDE * 3) + 40
    whole = np.broadcast_to(np.zeros((1, SIDE, SIDE, 3), np.uint8), (images, SIDE, SIDE, 3))
    part = Part(whole, np.arange(images) % 7, [str(number) for number in range(images)])
    pixels = torch.empty(whole.shape, dtype=torch.uint8, device="cuda")
    assert pixels.numel() > 2**31
    last = torch.randint(0, 256, (32, SIDE, SIDE, 3), dtype=torch.uint8)
    pixels[-32:] = last.to("cuda")
    labels = torch.from_numpy(part.labels).to("cuda")
    batches = Batches("train", part, 64, (SIDE, SIDE), (0.0,) * 3, (1.0,) * 3, "cuda", on_device=(pixels, labels))
    taken, named = final(batches.sequential())
    assert taken.shape[1:] == (3, SIDE, SIDE)
    assert named.dtype == torch.int64
    if not DRY:
        number = min(32, len(taken))
        torch.testing.assert_close(taken[-number:].permute(0, 2, 3, 1).cpu() * 255, last[-number:].float())
        assert torch.equal(named.cpu(), labels[-len(named) :].cpu())


def final(batches: Iterator[tuple[torch.Tensor, torch.Tensor]]) -> tuple[torch.Tensor, torch.Tensor]:
    *_, last = batches
    return last
