"""The benchmarks of heat maps tell a heat map that is right from one that is not."""

from __future__ import annotations

import json
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

import benchmarks.explain
import benchmarks.pointing
import common
from benchmarks.explain import BLOCKS, alike, area, interval, meaningless
from benchmarks.pointing import draw, hits
from predicting.explain import GRAD_CAM, OCCLUSION
from tests.predicting.test_explain import image, red_or_blue, trained
from tests.toy import TINY

SIZE = (32, 32)


def red() -> torch.Tensor:
    """Which blocks the red of image() is in."""
    where = torch.zeros(BLOCKS, BLOCKS)
    where[: BLOCKS // 4, : BLOCKS // 4] = 1
    return where


def test_the_area_is_smaller_the_sooner_the_evidence_is_removed() -> None:
    sure = nn.Linear(2, 2)
    with torch.no_grad():
        sure.weight.copy_(torch.tensor([[1000.0, 0], [0, 0]]))
        sure.bias.copy_(torch.tensor([-5.0, 0]))
    model = nn.Sequential(red_or_blue(), sure)
    shown = trained(SIZE).preprocessing(image(32, 32))[None]
    best, worst = (area(model, shown, torch.zeros_like(shown), 0, score) for score in (red(), -red()))
    # the evidence is a sixteenth of the image; between the steps the curve is a line
    assert 0 < best < 0.2
    assert 0.8 < worst < 1


def test_an_interval_is_of_the_mean() -> None:
    mean, low, high = interval(np.array([0.0, 1.0] * 50))
    assert mean == 0.5
    assert 0.38 < low < 0.42
    assert 0.58 < high < 0.62


def test_weights_without_meaning_are_the_same_numbers() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Flatten(), nn.Linear(8, 2))
    whole, head = meaningless(model, None), meaningless(model, "2")
    for found in (whole, head):
        for before, other in zip(model.parameters(), found.parameters(), strict=True):
            assert torch.equal(before.flatten().sort().values, other.flatten().sort().values)
    own = model.state_dict()
    assert torch.equal(own["0.weight"], head.state_dict()["0.weight"])
    assert not torch.equal(own["0.weight"], whole.state_dict()["0.weight"])
    assert not torch.equal(own["2.weight"], head.state_dict()["2.weight"])


def test_alike_heats() -> None:
    heats = list(torch.rand(3, BLOCKS, BLOCKS, generator=torch.Generator().manual_seed(0)))
    assert alike(heats, [heat**2 for heat in heats]) == pytest.approx(1)
    assert alike(heats, [-heat for heat in heats]) == pytest.approx(-1)
    assert alike(heats, [torch.zeros(BLOCKS, BLOCKS)] * 3) == 0


def test_explain(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    own = replace(trained(SIZE), record={"test": {"top1": 1.0}}, backbone=replace(TINY, head="4"))
    monkeypatch.setattr(type(own), "model", lambda _: red_or_blue())
    monkeypatch.setattr(benchmarks.explain, "trained_cell", lambda *_: own)
    shown = own.preprocessing(image(32, 32))[None]
    images = [shown, shown.flip(3), shown.flip(2)]
    monkeypatch.setattr(benchmarks.explain, "chosen_images", lambda *_: (images, [0, 1, 0]))
    monkeypatch.setattr(sys, "argv", ["explain.py", "--cells", "data:network:32", "--out", str(tmp_path)])
    benchmarks.explain.main()
    (found,) = json.loads((tmp_path / "explain.json").read_text())["results"]
    assert found["chosen"] == GRAD_CAM
    for method in (GRAD_CAM, OCCLUSION):
        for control in ("random", "centre", f"{method}, other image"):
            for fill in ("mean", "blur"):
                assert found["gain"][f"{method}: {control}, {fill}"][0] > 0
    assert "data:network:32: top-1 100.0%, 3 images; chosen: Grad-CAM" in capsys.readouterr().out


def test_squares_lie_where_they_are_said_to() -> None:
    task = draw(6, 64, 0)
    for pixels, label, place in zip(task.images, task.labels, task.places, strict=True):
        assert {tuple(pixel) for pixel in pixels[place].tolist()} == {benchmarks.pointing.COLOURS[label]}
        assert place.sum() == 24 * 24
    heats = [place.astype(np.float32) for place in task.places]
    assert hits(heats, task.places) == 1
    assert hits(heats, ~task.places) == 0
    assert hits([], task.places[:0]) == 0


def test_pointing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def build() -> nn.Module:
        model = red_or_blue()
        return nn.Sequential(*list(model.children())[:-1], nn.Linear(2, 1000))

    monkeypatch.setitem(common.BACKBONES, "tiny", replace(TINY, builder=build, head="4", lr=0.01))
    monkeypatch.setattr(benchmarks.pointing, "SIDE", 32)
    monkeypatch.setattr(benchmarks.pointing, "MOST_STEPS", 5)
    line = ["pointing.py", "--models", "tiny", "--images", "20", "--out", str(tmp_path)]
    monkeypatch.setattr(sys, "argv", line)
    benchmarks.pointing.main()
    (found,) = json.loads((tmp_path / "pointing.json").read_text())["results"]
    assert found["method"] == GRAD_CAM
    assert found["side"] == 32
    assert 1 <= found["steps"] <= 5
    assert 0 <= found["hits"] <= 1
