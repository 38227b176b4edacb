"""Recipes: learning rates, groups of parameters, epochs; runs by the recipe cosine."""

import json
import math
from pathlib import Path

import numpy as np
import pytest
import torch

from engine.command_line import parse
from engine.models.structure import freeze_body
from engine.run import resolve_recipe
from engine.training.recipe import RECIPES, WARM_UP, Recipe, balanced_weights, cosine, decay_groups, default_epochs
from tests import toy
from tests.conftest import Command, only_run

COSINE = "-model tiny -bs 16 --weights none --plan off --recipe cosine"


def recipe(line: str = "--recipe cosine", steps: int = 10) -> Recipe:
    """What the command line asks for, with so many steps an epoch."""
    config = parse(toy.dataset(), {"tiny": toy.TINY}, ["-model", "tiny", *line.split()])[1]
    return resolve_recipe(config, toy.TINY, steps)


def test_the_learning_rate_rises_and_goes_down_to_zero() -> None:
    shares = np.linspace(0, 1, 1001)
    values = np.array([cosine(share) for share in shares])
    assert values[0] == 0
    assert values[-1] == pytest.approx(0, abs=1e-12)
    top = int(values.argmax())
    assert shares[top] == pytest.approx(WARM_UP)
    assert values[top] == pytest.approx(1)
    assert (np.diff(values[: top + 1]) > 0).all()
    assert (np.diff(values[top:]) < 0).all()
    # half-way down the cosine, half the learning rate
    assert cosine(WARM_UP + (1 - WARM_UP) / 2) == pytest.approx(0.5)


def test_as_many_epochs_as_make_500_steps_but_20_at_least() -> None:
    assert recipe(steps=10).epochs == 50
    assert recipe(steps=3).epochs == math.ceil(500 / 3)
    assert recipe(steps=1000).epochs == 20
    assert recipe("--recipe cosine --epochs 7").epochs == 7
    assert recipe().patience is None
    assert default_epochs("adamw-sgd", 10) is None


def test_fast_has_ten_to_twenty_epochs() -> None:
    assert [default_epochs("fast", steps) for steps in (1, 8, 10, 16, 17, 1000)] == [20, 20, 16, 10, 10, 10]


def test_the_learning_rate_is_the_backbones_own_or_the_one_asked_for() -> None:
    assert recipe().lr == toy.TINY.lr == 3e-4
    assert recipe("--recipe cosine --lr 0.5").lr == 0.5
    assert recipe("").lr == 1e-3
    assert recipe("--lr 0.5").lr == 0.5


@pytest.mark.parametrize(
    ("line", "epochs"),
    [
        ("", 20),
        ("--patience 3", 6),
        ("--patience 3 --epochs 2", 4),
        ("--patience 3 --epochs 5", 6),
        ("--recipe cosine --epochs 7", 7),
    ],
)
def test_epochs_that_are_sure_to_be_trained(line: str, epochs: int) -> None:
    assert recipe(line).fewest_epochs == epochs


def test_every_recipe_says_what_it_does() -> None:
    assert recipe().summary == "AdamW, warm-up and down to zero over 50 epochs"
    assert recipe("").summary == "AdamW, then SGD, until 10 epochs bring no gain"
    assert recipe("--patience 1 --epochs 3").summary == "AdamW, then SGD, until an epoch brings no gain, at most 3 each"
    assert all(spec.help for spec in RECIPES.values())


def test_every_parameter_is_in_one_group_and_only_weights_decay() -> None:
    model = toy.tiny()
    found = recipe()
    optimizer = found.optimizer(found.stages[0], model)
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    assert {id(parameter) for parameter in parameters} == {id(parameter) for parameter in model.parameters()}
    assert len(parameters) == len(list(model.parameters()))
    for group in optimizer.param_groups:
        for parameter in group["params"]:
            assert group["weight_decay"] == (0.05 if parameter.ndim > 1 else 0.0)


def test_the_learning_rate_of_every_group_follows_the_schedule() -> None:
    model = toy.tiny()
    for line, expected in (("--recipe cosine --lr 0.5", 0.5 * cosine(0.4)), ("--lr 0.5", 0.5)):
        found = recipe(line)
        optimizer = found.optimizer(found.stages[0], model)
        found.set_lr(optimizer, found.stages[0], 0.4)
        assert [group["lr"] for group in optimizer.param_groups] == [expected] * len(optimizer.param_groups)


@pytest.mark.parametrize("line", ["--recipe cosine", ""])
def test_frozen_parameters_are_in_no_group(line: str) -> None:
    model = toy.tiny()
    freeze_body(model, "6")
    assert sum(len(group["params"]) for group in decay_groups(model)) == 2
    found = recipe(line)
    for stage in found.stages:
        groups = found.optimizer(stage, model).param_groups
        assert {id(parameter) for group in groups for parameter in group["params"]} == {
            id(parameter) for parameter in model.get_submodule("6").parameters()
        }


def test_a_run_by_cosine(command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command(f"{COSINE} --epochs 5") == 0
    printed = capsys.readouterr().out
    assert "cosine: AdamW, warm-up and down to zero over 5 epochs" in printed
    record = json.loads((only_run(tmp_path / "runs") / "record.json").read_text())
    assert record["recipe"] == "cosine"
    assert record["lr"] == 3e-4
    assert record["config"]["lr"] is None
    assert record["config"]["patience"] is None
    assert record["costs"]["epochs"] == 5
    assert record["costs"]["images"] == 5 * record["dataset"]["counts"]["train"]
    history = (only_run(tmp_path / "runs") / "history.csv").read_text().splitlines()
    assert len(history) == 6
    values = [float(line.split(",")[2]) for line in history[1:]]
    assert values == sorted(values, reverse=True)
    assert values[-1] < 0.02 * 3e-4


def test_of_equal_epochs_the_later_is_kept(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.training.loop.score", lambda *_: (0.5, 1.0))
    assert command(f"{COSINE} --epochs 4") == 0
    record = json.loads((only_run(tmp_path / "runs") / "record.json").read_text())
    assert record["selection"]["epoch"] == 4


def test_interrupted_it_ends_with_the_same_numbers(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    line = f"{COSINE} --epochs 6"
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


@pytest.mark.parametrize(
    ("flags", "told"),
    [
        ("--recipe cosine --patience 3", "--patience can't be used with --recipe cosine"),
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


def test_balanced_weights_are_inverse_to_frequency() -> None:
    """As scikit-learn's, so that the mean over images is 1; a class without training images plays no part."""
    from sklearn.utils.class_weight import compute_class_weight

    labels = np.repeat([0, 1, 3], [60, 5, 11])
    weights = balanced_weights(labels, 4)
    expected = compute_class_weight("balanced", classes=np.array([0, 1, 3]), y=labels)
    assert [weights[label] for label in (0, 1, 3)] == pytest.approx(expected.tolist())
    assert weights[2] == 0
    assert {type(weight) for weight in weights} == {float}  # NumPy's can't be read from a checkpoint
    assert np.array(weights)[labels].mean() == pytest.approx(1)
