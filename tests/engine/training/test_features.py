"""--tune linear without augmentation: the frozen body's features, computed once."""

import csv
import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import common
from engine.data.batches import Batches
from engine.models.structure import freeze_body
from engine.run import Setup
from engine.training.evaluation import predict
from engine.training.features import Features, with_features
from engine.training.findings import TuningRequest
from engine.training.loop import fit
from engine.training.plan import Plan
from engine.training.recipe import make_recipe
from engine.training.state import State
from tests import toy
from tests.conftest import Command, only_run
from tests.engine.records.test_resume import TIMES, outcome
from tests.engine.training.test_loop import Memory

PLAN = Plan("cpu", "", "fp32", "")
LINE = "-model tiny -bs 16 --weights none --epochs 2 --plan off --tune linear --augment none --precision fp32"


def parts(size: int = 8, images: int = 41) -> tuple[Batches, Batches]:
    train = Batches("train", toy.part(images, 1, "train"), 8, (size, size), (0.4,) * 3, (0.2,) * 3, "cpu")
    return train, train.for_evaluation("val", toy.part(12, 2, "val"))


def frozen(name: str = "tiny") -> tuple[nn.Module, str]:
    """The backbone and the name of its head."""
    torch.manual_seed(0)
    backbone = toy.TINY if name == "tiny" else common.BACKBONES[name]
    model = toy.tiny() if name == "tiny" else common.build_model(name, 3, "none")
    freeze_body(model, backbone.head)
    return model, backbone.head


def passes(model: nn.Module) -> list[int]:
    """The images of each pass through the model from here on."""
    sizes: list[int] = []
    model.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    return sizes


def numbers(state: State) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name not in TIMES} for row in state.history]


@pytest.mark.parametrize(
    ("name", "size", "plan"),
    [
        ("tiny", 8, PLAN),
        ("tiny", 8, replace(PLAN, precision="bf16")),
        ("tiny", 8, replace(PLAN, micro_batch=4)),
        ("shufflenet", 32, PLAN),
        ("mobilenet", 32, replace(PLAN, layout="NHWC")),
        ("swin", 32, PLAN),
        ("convnext", 32, PLAN),
    ],
)
def test_training_on_them_gives_the_numbers_of_the_usual_way(name: str, size: int, plan: Plan) -> None:
    """41 images in batches of 8: one is left out of each epoch, the same."""
    results = []
    for wanted in (False, True):
        model, head = frozen(name)
        plan.place(model)
        train, val = (replace(each, memory_format=plan.memory_format) for each in parts(size))
        if wanted:
            train, val = with_features(model, head, train, val, plan)
        assert isinstance(train, Features) is wanted
        state = fit(model, train, val, make_recipe("adamw-sgd", 1e-2, 3, None), plan, Memory())
        results.append((numbers(state), model.get_submodule(head), predict(model, parts(size)[1], plan)[0]))
        assert (state.speed_of_features is not None) is wanted
    (usual, head_of_usual, logits), (found, head_of_found, other_logits) = results
    tolerance = 1e-4 if plan.precision == "fp32" else 2e-2
    assert len(found) == len(usual) == 6
    for row, wanted_row in zip(found, usual, strict=True):
        assert row.pop("stage") == wanted_row.pop("stage")
        assert row == pytest.approx(wanted_row, rel=tolerance, abs=tolerance)
    for weight, expected in zip(head_of_found.parameters(), head_of_usual.parameters(), strict=True):
        torch.testing.assert_close(weight, expected, atol=tolerance, rtol=tolerance)
    np.testing.assert_allclose(other_logits, logits, atol=10 * tolerance)


def test_they_come_in_the_order_of_the_images() -> None:
    model, head = frozen()
    usual = parts()
    model.eval()
    for images, features in zip(usual, with_features(model, head, *usual, PLAN), strict=True):
        for batches, found in (
            (images.sequential(), features.sequential()),
            (images.shuffled(3, 5), features.shuffled(3, 5)),
        ):
            count = 0
            for (pixels, labels), (rows, their_labels) in zip(batches, found, strict=True):
                torch.testing.assert_close(rows, model[:6](pixels))  # type: ignore[index]
                assert torch.equal(labels, their_labels)
                count += len(labels)
        assert count == (40 if images.name == "train" else 12)


def test_each_image_passes_through_the_body_once() -> None:
    model, head = frozen()
    train, val = parts()
    seen = passes(model)
    given = with_features(model, head, train, val, PLAN)
    assert seen == [2]
    recipe = make_recipe("adamw-sgd", 1e-2, 4, None)
    state = fit(model, *given, recipe, PLAN, Memory())
    assert state.epochs == 8
    assert seen[1:] == [16, 16, 9, 12]
    # another fit, as after the trials of a sweep, finds them
    assert fit(model, *given, recipe, PLAN, Memory()).speed_of_features == state.speed_of_features
    assert len(seen) == 5


def test_the_first_epoch_has_the_time_that_they_took() -> None:
    model, head = frozen()
    model.register_forward_pre_hook(lambda *_: time.sleep(0.2))
    told: list[float | None] = []
    recipe = make_recipe("cosine", 1e-2, 3, None)
    state = fit(model, *with_features(model, head, *parts(), PLAN), recipe, PLAN, Memory(), told.append)
    assert state.speed_of_features is not None
    first, *others = (row["seconds"] for row in state.history)
    assert first > state.speed_of_features["seconds"] > max(others)
    assert state.history[0]["data_wait_share"] < 0.5  # they were computed, not waited for
    assert told == [None]  # that is no speed of images


@pytest.mark.parametrize("floor", [8, 5, 0])
def test_where_memory_runs_out_they_are_computed_in_smaller_batches(floor: int) -> None:
    model, head = frozen()
    expected = list(with_features(model, head, *parts(), PLAN)[0].sequential())
    features, _ = with_features(model, head, *parts(), PLAN)

    def lacking(_: nn.Module, given: Any) -> None:
        if len(given[0]) > floor:
            raise torch.OutOfMemoryError("CUDA out of memory.")

    model.register_forward_pre_hook(lacking)
    if not floor:
        with pytest.raises(torch.OutOfMemoryError):
            list(features.sequential())
        return
    for (rows, _), (wanted, _) in zip(features.sequential(), expected, strict=True):
        torch.testing.assert_close(rows, wanted)


class Odd(nn.Module):
    """A network that is more than a body and a last layer behind it."""

    def __init__(self, then: Callable[[nn.Module, torch.Tensor], torch.Tensor]) -> None:
        super().__init__()
        self.head = nn.Linear(3, 3)
        self.then = then

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.then(self.head, images)


@pytest.mark.parametrize(
    "then",
    [
        lambda head, images: 2 * head(images.mean((2, 3))),
        lambda head, images: head(head(images.mean((2, 3)))),
        lambda head, images: head(images.permute(0, 2, 3, 1)).mean((1, 2)),
        lambda head, images: images.mean((2, 3)) + head.bias,
    ],
    ids=["changed behind it", "twice", "a row a pixel", "not called"],
)
def test_a_model_that_can_t_be_divided_is_trained_the_usual_way(
    then: Callable[[nn.Module, torch.Tensor], torch.Tensor],
) -> None:
    train, val = parts()
    assert with_features(Odd(then), "head", train, val, PLAN) == (train, val)


def test_a_run_uses_them_and_the_same_command_goes_on(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(f"{LINE} --out whole") == 0
    assert "features   " in capsys.readouterr().out
    stops = iter([False, False, True])
    with monkeypatch.context() as patch:
        patch.setattr("engine.training.loop.stop_asked_for", lambda: next(stops))
        assert command(f"{LINE} --out resumed") == 130
    assert command(f"{LINE} --out resumed") == 0
    assert outcome(tmp_path / "resumed") == outcome(tmp_path / "whole")
    folder = only_run(tmp_path / "whole")
    costs = json.loads((folder / "record.json").read_text())["costs"]
    assert costs["images"] == 4 * 54
    with (folder / "history.csv").open() as file:  # of features, but for the first epoch
        assert costs["train_images_per_second"] > 0
        assert costs["train_images_per_second"] not in {float(row["images_per_second"]) for row in csv.DictReader(file)}


def test_nothing_is_compiled_or_captured_for_them(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def measure(plan: Plan, _: Any, __: Any, request: TuningRequest) -> Plan:
        asked.append(request.compile)
        return replace(plan, compiled=True, graphed=True)

    monkeypatch.setattr("engine.run.fastest_plan", measure)
    assert command(f"{LINE} --compile on") == 0
    assert asked == ["off"]
    plan = json.loads((only_run(tmp_path / "runs") / "record.json").read_text())["plan"]
    assert (plan["compiled"], plan["graphed"]) == (False, False)


@pytest.mark.parametrize("more", ["--augment trivial", "--tune full"])
def test_other_runs_do_without(command: Command, capsys: pytest.CaptureFixture[str], more: str) -> None:
    assert command(f"{LINE} {more}") == 0
    assert "features   " not in capsys.readouterr().out


def test_a_sweep_and_the_run_after_it_share_them(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    plain = Setup.with_plan

    def watched(self: Setup, plan: Plan) -> Setup:
        self.trainee.model.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
        return plain(self, plan)

    monkeypatch.setattr(Setup, "with_plan", watched)
    assert command(f"{LINE} --recipe cosine --epochs 8 --lr-sweep") == 0
    assert sizes == [2, 32, 22, 6, 21]  # the look at two images, train, val; test
