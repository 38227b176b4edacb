"""The head that is solved for on frozen features, and the recipe that begins with it."""

import csv
import json
from dataclasses import replace
from itertools import count
from math import ceil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from torch import nn
from torch.nn.functional import cross_entropy
from torch.optim import lbfgs

from engine.data.batches import Batches
from engine.errors import DivergedError, RunError
from engine.training import head
from engine.training.evaluation import predict, score
from engine.training.features import features_of
from engine.training.head import LEAST_DEVIATION, PENALTIES, choose, solve_head
from engine.training.loop import fit
from engine.training.plan import Plan
from engine.training.recipe import default_epochs, make_recipe
from tests import toy
from tests.conftest import Command, only_run
from tests.engine.records.test_resume import outcome
from tests.engine.training.test_features import passes
from tests.engine.training.test_loop import Memory

PLAN = Plan("cpu", "", "fp32", "")


def model_of(seed: int = 0) -> nn.Sequential:
    """Three classes, and batch statistics of such images, as a pretrained body has them."""
    torch.manual_seed(seed)
    model = toy.tiny()
    assert isinstance(model, nn.Sequential)
    model[6] = nn.Linear(32, 3)
    model.train()
    for _ in range(50):
        model(next(parts()[0].sequential())[0])
    return model


def parts(images: int = 41) -> tuple[Batches, Batches]:
    train = Batches("train", toy.part(images, 1, "train"), 8, (8, 8), (0.4,) * 3, (0.2,) * 3, "cpu", augment=True)
    return train, train.for_evaluation("val", toy.part(30, 2, "val"))


def body(model: nn.Sequential, batches: Batches) -> np.ndarray[Any, np.dtype[np.float64]]:
    """The features of a part, (N, D), as the layers before the head make them."""
    model.eval()
    with torch.no_grad():
        plain = replace(batches, augment=False)
        return torch.cat([model[:6](images) for images, _ in plain.sequential()]).double().numpy()


@pytest.mark.parametrize("weights", [None, (2.0, 0.5, 0.5)])
@pytest.mark.parametrize("penalty", [1.0, 0.03])
def test_it_is_multinomial_logistic_regression(
    penalty: float, weights: tuple[float, ...] | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(head, "PENALTIES", (penalty,))
    model, (train, val) = model_of(), parts()
    features, labels = body(model, train), train.part.labels
    deviation = np.maximum(features.std(0), LEAST_DEVIATION * np.sqrt((features.std(0) ** 2).mean()))
    counts = np.ones(3) if weights is None else np.array(weights)
    expected = LogisticRegression(C=1 / (penalty * len(labels)), tol=1e-10, max_iter=10000).fit(
        (features - features.mean(0)) / deviation, labels, sample_weight=counts[labels]
    )
    solved = solve_head(model, "6", train, val, PLAN, weights)
    assert solved
    wanted = expected.decision_function((body(model, val) - features.mean(0)) / deviation)
    logits, _ = predict(model, val, PLAN)
    # what is added to all logits of an image does not count
    np.testing.assert_allclose(
        logits - logits.mean(1, keepdims=True), wanted - wanted.mean(1, keepdims=True), atol=2e-3
    )
    own, _ = predict(model, replace(train, augment=False), PLAN)
    losses = cross_entropy(torch.from_numpy(own), torch.from_numpy(labels), reduction="none").numpy()
    assert solved.loss == pytest.approx(float((losses * counts[labels]).mean()), rel=1e-4)


def test_of_penalties_the_strongest_within_an_error_of_the_best_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    losses = []
    for penalty in PENALTIES:
        with monkeypatch.context() as patch:
            patch.setattr(head, "PENALTIES", (penalty,))
            model, (train, val) = model_of(), parts()
            solve_head(model, "6", train, val, PLAN, None)
            logits = torch.from_numpy(predict(model, val, PLAN)[0])
            losses.append(cross_entropy(logits, torch.from_numpy(val.part.labels), reduction="none").numpy())
    means = [float(each.mean()) for each in losses]
    best = means.index(min(means))
    most = means[best] + losses[best].std(ddof=1) / len(losses[best]) ** 0.5
    expected = next(number for number, mean in enumerate(means) if mean <= most)
    assert 0 < expected < best  # else these data tell nothing of the rule
    model, (train, val) = model_of(), parts()
    solve_head(model, "6", train, val, PLAN, None)
    found = score(predict(model, val, PLAN)[0], val.part.labels)[1]
    assert found == pytest.approx(means[expected], rel=1e-3)


def test_the_choice_among_few() -> None:
    one = torch.ones(1)
    assert choose([one]) == 0
    assert choose([2 * one, one]) == 1  # of one image, no error is known
    equal = torch.tensor([0.0, 2.0])
    assert choose([equal + 0.5, equal]) == 0
    assert choose([equal + 1.5, equal]) == 1


def test_training_keeps_the_statistics_that_it_was_solved_on() -> None:
    """And where it was not solved, takes those of each batch."""
    for solved in (True, False):
        model, (train, val) = model_of() if solved else Scaled(model_of()), parts()
        head_name, norm = ("6", "1") if solved else ("model.6", "model.1")
        before = {name: value.clone() for name, value in model.state_dict().items() if "running" in name}
        recipe = replace(make_recipe("fast", 1e-3, 2, None), head=head_name)
        weight = model.get_parameter(f"{norm}.weight").clone()
        memory = Memory()
        fit(model, train, val, recipe, PLAN, memory)
        assert memory.saved
        kept = [torch.equal(memory.saved["model"][name], value) for name, value in before.items()]
        assert len(kept) == 2
        assert all(kept) is solved
        assert not torch.equal(memory.saved["model"][f"{norm}.weight"], weight)


def test_the_body_stays_and_each_image_passes_once_not_augmented() -> None:
    model, (train, val) = model_of(), parts()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    seen = passes(model)
    solved = solve_head(model, "6", train, val, PLAN, None)
    assert solved
    assert sum(seen) == 2 + 41 + 30  # two images tell whether it can be done
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items() if name[0] != "6")
    assert not torch.equal(model.state_dict()["6.weight"], before["6.weight"])
    # val comes as features, and gives the same outputs
    np.testing.assert_allclose(predict(model, solved.val, PLAN)[0], predict(model, val, PLAN)[0], atol=1e-5)


def test_features_that_do_not_vary_get_no_large_weights() -> None:
    """In training they vary: by augmentation, or since a batch's statistics are not those of all images."""
    model, (train, val) = model_of(), parts()
    with torch.no_grad():
        for name, value in (("1.weight", 1e-6), ("1.bias", 1.0)):
            model.get_parameter(name)[0] = value
    assert (body(model, train).std(0) < 1e-4).sum() >= 4
    solve_head(model, "6", train, val, PLAN, None)
    weights = model.get_parameter("6.weight").abs().max(0).values
    assert weights[:4].max() < 1e-3 * weights.max()


@pytest.mark.parametrize("images", [1, 2])
def test_few_images_and_classes_without_any(images: int) -> None:
    model, (train, val) = model_of(), parts(images)
    solved = solve_head(model, "6", train, val, PLAN, None)
    assert solved
    assert all(value.isfinite().all() for value in model.state_dict().values())


class Scaled(nn.Module):
    """Outputs that are not those of the last layer."""

    def __init__(self, model: nn.Sequential) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return 2 * self.model(images)  # type: ignore[no-any-return]


class InPlace(Scaled):
    """The same, but the last layer's own output is what is changed."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits = self.model(images)
        logits *= 2
        return logits  # type: ignore[no-any-return]


@pytest.mark.parametrize("kind", [Scaled, InPlace])
def test_outputs_that_are_not_the_layers_own_are_seen(kind: type[Scaled]) -> None:
    assert features_of(kind(model_of()), "model.6", *parts(), PLAN) is None


def test_features_that_are_not_finite_are_said(monkeypatch: pytest.MonkeyPatch) -> None:
    model, (train, val) = model_of(), parts()
    features = features_of(model, "6", train, val, PLAN)
    assert features
    features[0].all[0][3, 4] = float("inf")
    monkeypatch.setattr("engine.training.head.features_of", lambda *_: features)
    with pytest.raises(DivergedError, match=r"is not finite \(bf16\). Try other --weights, or --precision fp32"):
        solve_head(model, "6", train, val, replace(PLAN, precision="bf16"), None)


def test_without_memory_for_it_a_card_leaves_it_to_the_processor(monkeypatch: pytest.MonkeyPatch) -> None:
    """And where that has none either, no smaller batches are tried, which would not help."""
    devices: list[str] = []
    usual = head._Task.solve_on

    def lacking(task: Any, device: str) -> float:
        devices.append(device)
        if device != "cpu":
            raise torch.OutOfMemoryError("CUDA out of memory.")
        return usual(task, device)

    model, (train, val) = model_of(), parts()
    with monkeypatch.context() as patch:
        patch.setattr(head._Task, "solve_on", lacking)
        features = features_of(model, "6", train, val, PLAN)
        assert features
        layer = model[6]
        assert isinstance(layer, nn.Linear)
        head._Task(model, layer, *features[0].all, None, features[1], replace(PLAN, device="meta")).solve()
    assert devices == ["meta", "cpu"]
    monkeypatch.setattr(head._Probe, "fit", lambda *_: (_ for _ in ()).throw(MemoryError()))
    recipe = replace(make_recipe("fast", 1e-3, 2, None), head="6")
    with pytest.raises(RunError, match="out of memory where the head is solved for, on 41 images of 32 features"):
        fit(model, train, val, recipe, PLAN, Memory())


def test_a_line_search_that_ends_in_rounding_ends_the_solution(monkeypatch: pytest.MonkeyPatch) -> None:
    usual, searches = lbfgs._strong_wolfe, count()

    def search(*given: Any, **more: Any) -> Any:
        if next(searches) == 4:
            raise ZeroDivisionError("float division by zero")
        return usual(*given, **more)

    monkeypatch.setattr(lbfgs, "_strong_wolfe", search)
    model, (train, val) = model_of(), parts()
    solved = solve_head(model, "6", train, val, PLAN, None)
    assert solved
    assert solved.loss < 0.5


def test_what_l_bfgs_remembers_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    usual = torch.optim.LBFGS

    def made(parameters: Any, history_size: int, **rest: Any) -> Any:
        sizes.append(history_size)
        return usual(parameters, history_size=history_size, **rest)

    monkeypatch.setattr(torch.optim, "LBFGS", made)
    monkeypatch.setattr(head, "PENALTIES", (1.0,))
    pair = 2 * 4 * (3 * 32 + 3)
    for room, size in ((2**30, 100), (20 * pair, 20), (0, 5)):
        monkeypatch.setattr(head, "HISTORY_BYTES", room)
        model, (train, val) = model_of(), parts()
        solve_head(model, "6", train, val, PLAN, None)
        assert sizes.pop() == size


def test_a_sweep_judges_learning_rates_by_what_they_trained(command: Command, tmp_path: Path) -> None:
    """Not by the head, which is the same for all: the largest rate would be best where it destroys the most."""
    assert command("-model tiny -bs 16 --plan off --weights none --recipe cosine --epochs 3") == 0
    weights = only_run(tmp_path / "runs") / "checkpoint.pt"
    line = f"-model tiny -bs 16 --plan off --recipe fast --epochs 4 --lr-sweep --lr 30 --weights {weights}"
    assert command(f"{line} --out {tmp_path / 'swept'}") == 0
    record = json.loads((only_run(tmp_path / "swept") / "record.json").read_text())
    losses = [row["loss"] for row in record["sweep"]]
    assert len(set(losses)) == 4
    assert record["lr"] == 3.0


def test_the_check_solves_it(command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert command("-model tiny -bs 16 --plan off --weights none --recipe cosine --epochs 2") == 0
    capsys.readouterr()
    line = f"-model tiny -bs 16 --recipe fast --weights {only_run(tmp_path / 'runs') / 'checkpoint.pt'} --check"
    assert command(line) == 0
    assert "ok: the head solved for on 16 images" in capsys.readouterr().out


def test_where_it_can_not_be_solved_all_layers_are_trained_instead(capsys: pytest.CaptureFixture[str]) -> None:
    model, (train, val) = Scaled(model_of()), parts()
    assert features_of(model, "model.6", train, val, PLAN) is None
    recipe = replace(make_recipe("fast", 1e-3, 2, None), head="model.6")
    before = model.get_parameter("model.0.weight").clone()
    state = fit(model, train, val, replace(recipe, spec=replace(recipe.spec, stages=recipe.stages[:1])), PLAN, Memory())
    assert "head       can't be solved for" in capsys.readouterr().out
    assert [(row["stage"], row["lr"]) for row in state.history] == [("head", 1e-3)]
    assert not torch.equal(model.get_parameter("model.0.weight"), before)


def test_a_run(command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """From the weights of a run, whose body knows something, it begins with the head; from random ones, it does not."""
    first = "-model tiny -bs 16 --plan off"
    assert command(f"{first} --weights none --recipe cosine --epochs 3") == 0
    checkpoint = only_run(tmp_path / "runs") / "checkpoint.pt"
    capsys.readouterr()
    assert command(f"{first} --recipe fast --weights {checkpoint} --out {tmp_path / 'second'}") == 0
    printed = capsys.readouterr().out
    folder = only_run(tmp_path / "second")
    record = json.loads((folder / "record.json").read_text())
    images = record["dataset"]["counts"]["train"]
    epochs = default_epochs("fast", ceil(images / 16)) or 0
    assert f"fast: the head solved for, then AdamW, warm-up and down to zero over {epochs} epochs" in printed
    assert record["costs"]["epochs"] == epochs + 1
    assert record["costs"]["images"] == (epochs + 1) * images
    rows = list(csv.DictReader((folder / "history.csv").open()))
    assert [row["stage"] for row in rows] == ["head", *["cosine"] * epochs]
    assert float(rows[0]["lr"]) == 0 < float(rows[1]["lr"])
    speeds = [float(row["images_per_second"]) for row in rows]
    assert record["costs"]["train_images_per_second"] == pytest.approx(np.median(speeds[1:]), rel=1e-6)
    assert command(f"{first} --recipe fast --weights none --out {tmp_path / 'third'}") == 0
    assert f"fast: AdamW, warm-up and down to zero over {epochs} epochs" in capsys.readouterr().out
    rows = list(csv.DictReader((only_run(tmp_path / "third") / "history.csv").open()))
    assert [float(row["lr"]) > 0 for row in rows] == [True] * epochs


@pytest.mark.parametrize("epoch", [1, 2, 4])
def test_interrupted_it_ends_with_the_same_numbers(
    epoch: int, command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command("-model tiny -bs 16 --plan off --weights none --recipe cosine --epochs 2") == 0
    line = f"-model tiny -bs 16 --plan off --recipe fast --weights {only_run(tmp_path / 'runs') / 'checkpoint.pt'}"
    assert command(f"{line} --out {tmp_path / 'whole'}") == 0
    epochs = iter(range(1, 99))
    with monkeypatch.context() as patch:
        patch.setattr("engine.training.loop.stop_asked_for", lambda: next(epochs) == epoch)
        assert command(f"{line} --out {tmp_path / 'parts'}") == 130
    assert command(f"{line} --out {tmp_path / 'parts'}") == 0
    assert outcome(tmp_path / "parts") == outcome(tmp_path / "whole")
