"""Recipes: rates, groups of parameters, the moving average; runs by the recipe cosine."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import common
from engine.config import Config
from engine.models.backbone import forward_order
from engine.training.recipe import LAYERS, WARM_UP, Average, Recipe, cosine, make_recipe, decayed_groups
from tests import toy
from tests.conftest import Command, only_run

COSINE = "-model tiny -bs 16 --weights none --recipe cosine"


def course(steps: int = 10, **changes: Any) -> Recipe:
    return make_recipe(Config(model="tiny", **({"recipe": "cosine"} | changes)), 3e-4, steps)


def test_the_rate_rises_and_goes_down_to_zero() -> None:
    shares = np.linspace(0, 1, 1001)
    rates = np.array([cosine(share) for share in shares])
    assert rates[0] == 0
    assert rates[-1] == pytest.approx(0, abs=1e-12)
    top = int(rates.argmax())
    assert shares[top] == pytest.approx(WARM_UP)
    assert rates[top] == pytest.approx(1)
    assert (np.diff(rates[: top + 1]) > 0).all()
    assert (np.diff(rates[top:]) < 0).all()
    # half-way down the cosine, half the rate
    assert cosine(WARM_UP + (1 - WARM_UP) / 2) == pytest.approx(0.5)


def test_as_many_epochs_as_make_500_steps_but_20_at_least() -> None:
    assert course(steps=10).epochs == 50
    assert course(steps=3).epochs == math.ceil(500 / 3)
    assert course(steps=1000).epochs == 20
    assert course(steps=10, epochs=7).epochs == 7
    assert course(steps=10).patience is None


def test_the_rate_is_the_backbones_own_or_the_one_asked_for() -> None:
    assert course().rate == 3e-4
    assert course(lr=0.5).rate == 0.5
    assert course(recipe="adamw-sgd").rate == 1e-3


def test_every_parameter_is_in_one_group_and_only_weights_decay() -> None:
    model = toy.tiny()
    optimizer = course().optimizer(0, model, model.get_submodule("6"))
    found = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert {id(parameter) for parameter in found} == {id(parameter) for parameter in model.parameters()}
    assert len(found) == len(list(model.parameters()))
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            assert group["weight_decay"] == (0.05 if parameter.ndim > 1 else 0.0)


def test_frozen_parameters_are_in_no_group() -> None:
    model = toy.tiny()
    head = model.get_submodule("6")
    model.requires_grad_(False)
    head.requires_grad_(True)
    groups = decayed_groups(model, head, 1.0)
    assert sum(len(group["params"]) for group in groups) == 2


@pytest.mark.parametrize("name", [name for name in common.BACKBONES if name != "inception"])
def test_layer_decay_follows_the_forward_pass_of_every_backbone(name: str) -> None:
    model = common.build_model(name, 10, "none")
    head = model.get_submodule(common.BACKBONES[name].head)
    scale = {id(p): group["scale"] for group in decayed_groups(model, head, 0.5) for p in group["params"]}
    names = [key for key, _ in model.named_parameters()]
    assert len(scale) == len(names)
    by_name = {key: scale[id(parameter)] for key, parameter in model.named_parameters()}
    order = forward_order(model)
    body = [key for key in sorted(order, key=lambda key: order[key]) if not key.startswith(common.BACKBONES[name].head)]
    scales = [by_name[key] for key in body]
    assert scales == sorted(scales)
    assert scales[0] == 0.5**LAYERS
    assert scales[-1] == 0.5
    assert {by_name[key] for key in names if key.startswith(common.BACKBONES[name].head)} == {1.0}
    assert len(set(scales)) == LAYERS


def test_the_first_layers_come_first_however_they_are_defined() -> None:
    class Backwards(nn.Module):
        """Its layers are defined in the order opposite to that of their use; one is used by its weights alone."""

        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Linear(3, 2)
            self.inner = nn.Sequential(nn.Linear(3, 3))
            self.first = nn.Conv2d(3, 3, 1)

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            features = self.first(images).mean((2, 3))
            features = nn.functional.linear(features, *self.inner.parameters())
            scores: torch.Tensor = self.last(features)
            return scores

    order = forward_order(Backwards())
    assert order["first.weight"] < order["last.weight"]
    # the layer that is not called comes with the module that holds it
    assert order["inner.0.weight"] == 0


def test_the_average_starts_at_the_weights_and_follows_them() -> None:
    linear, norm = nn.Linear(1, 1, bias=False), nn.BatchNorm1d(1)
    model = nn.Sequential(linear, norm)
    average = Average(model)
    expected = None
    for step in range(30):
        with torch.no_grad():
            linear.weight.fill_(float(step))
        assert norm.num_batches_tracked is not None
        norm.num_batches_tracked.fill_(step)
        average.update(model)
        decay = min(0.9999, (1 + step) / (10 + step))  # the step counted from 1: t / (9 + t)
        expected = float(step) if expected is None else decay * expected + (1 - decay) * step
    found = average.model.state_dict()
    assert found["0.weight"].item() == pytest.approx(expected, rel=1e-5)
    assert found["1.num_batches_tracked"].item() == 29
    restored = Average(model)
    restored.load_state_dict(average.state_dict())
    assert torch.equal(restored.model.state_dict()["0.weight"], found["0.weight"])


def test_a_run_by_cosine(command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(f"{COSINE} --epochs 5") == 0
    printed = capsys.readouterr().out
    assert "cosine: AdamW, warm-up and down to zero over 5 epochs" in printed
    record = json.loads((only_run(tmp_path / "runs") / "record.json").read_text())
    assert record["recipe"] == "cosine"
    assert record["lr"] == 3e-4
    assert record["config"]["lr"] is None
    assert record["config"]["patience"] is None
    assert record["selection"]["epochs"] == 5
    assert record["costs"]["images"] == 5 * record["dataset"]["counts"]["fit"]
    history = (only_run(tmp_path / "runs") / "history.csv").read_text().splitlines()
    assert len(history) == 6
    rates = [float(line.split(",")[2]) for line in history[1:]]
    assert rates == sorted(rates, reverse=True)
    assert rates[-1] < 0.02 * 3e-4


def test_of_equal_epochs_the_later_is_kept(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.training.loop.score_of", lambda *_: (0.5, 1.0))
    assert command(f"{COSINE} --epochs 4") == 0
    record = json.loads((only_run(tmp_path / "runs") / "record.json").read_text())
    assert record["selection"]["epoch"] == 4


@pytest.mark.parametrize("flags", ["", "--ema", "--ema --layer-decay 0.7"])
def test_interrupted_it_ends_with_the_same_numbers(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flags: str
) -> None:
    line = f"{COSINE} --epochs 6 {flags}"
    assert command(f"{line} --out whole") == 0
    stops = iter([False, True, False, True])
    with monkeypatch.context() as patch:
        patch.setattr("engine.training.loop.stop_asked_for", lambda: next(stops))
        assert command(line) == 130
        assert command(line) == 130
    assert command(line) == 0
    ends = []
    for out in ("whole", "runs"):
        folder = only_run(tmp_path / out)
        weights = torch.load(folder / "checkpoint.pt", weights_only=True)["model"]
        record = json.loads((folder / "record.json").read_text())
        ends.append(
            (record["test"], record["selection"], {key: value.numpy().tobytes() for key, value in weights.items()})
        )
    assert ends[0] == ends[1]


def test_the_average_is_what_is_scored_and_kept(command: Command, tmp_path: Path) -> None:
    for flags, out in (("", "plain"), ("--ema", "averaged")):
        assert command(f"{COSINE} --epochs 3 {flags} --out {out}") == 0
    plain, averaged = (
        torch.load(only_run(tmp_path / out) / "checkpoint.pt", weights_only=True) for out in ("plain", "averaged")
    )
    histories = [
        (only_run(tmp_path / out) / "history.csv").read_text().splitlines()[1] for out in ("plain", "averaged")
    ]
    # the same training, but another judgement
    assert histories[0].split(",")[3] == histories[1].split(",")[3]
    assert histories[0].split(",")[4] != histories[1].split(",")[4]
    assert not torch.equal(plain["model"]["6.weight"], averaged["model"]["6.weight"])


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ("--recipe cosine --patience 3", "--patience can't be used with --recipe cosine"),
        ("--ema", "--ema can't be used with --recipe adamw-sgd"),
        ("--layer-decay 0.8 --ema", "--ema and --layer-decay can't be used"),
        ("--recipe cosine --layer-decay 1.5", "not a number between 0 and 1"),
        ("--recipe cosine --layer-decay 0.8 --tune linear", "trains the head alone"),
        ("--shots 5 --fraction 0.5", "Give one of them"),
        ("--shots 1", "not a whole number from 2"),
        ("--fraction 0", "not a number between 0 and 1"),
        ("--fraction nan", "not a number between 0 and 1"),
    ],
)
def test_flags_that_do_not_go_together(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str], flags: str, told: str
) -> None:
    assert command(f"-model tiny --weights none {flags}") == 2
    assert told in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
