"""fit(): patience, stages, the best epoch."""

import copy
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from engine.command_line import parse
from engine.data.batches import Batches
from engine.device import random_state, set_random_state
from engine.errors import RunError
from engine.models.structure import freeze_body
from engine.run import resolve_recipe
from engine.training.evaluation import filled, predict, score
from engine.training.loop import fit, require_finite_state, train_epoch
from engine.training.plan import Plan
from engine.training.recipe import RECIPES, Recipe, make_recipe
from engine.training.state import State
from engine.training.step import Step
from tests import toy

PLAN = Plan("cpu", "", "fp32", "")


def new_model() -> nn.Module:
    torch.manual_seed(0)
    return toy.tiny()


def batches(images: int = 30, seed: int = 1, name: str = "train") -> Batches:
    return Batches(name, toy.part(images, seed, name), 8, (8, 8), (0.4,) * 3, (0.2,) * 3, "cpu")


def validation() -> Batches:
    return batches(12, 2, "val")


def recipe(epochs: int | None = None, patience: int = 10) -> Recipe:
    """The published one."""
    return make_recipe("adamw-sgd", 1e-3, epochs, patience)


class Memory:
    """Stands for a run: remembers what it was last given."""

    resumable = True

    def __init__(self) -> None:
        self.saved: dict[str, Any] | None = None

    def snapshot(self) -> dict[str, Any] | None:
        return self.saved

    def save(self, snapshot: Mapping[str, Any]) -> None:
        self.saved = copy.deepcopy(dict(snapshot))

    def change_plan(self, plan: Plan) -> None:
        raise AssertionError("memory suffices")


Scored = Callable[[Sequence[float]], None]


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> Scored:
    """Lets a test dictate the scores of the epochs to come."""

    def dictate(scores: Sequence[float]) -> None:
        left = iter(scores)
        monkeypatch.setattr("engine.training.loop.score", lambda *_: (next(left), 1.0))

    return dictate


def trained(settings: Recipe) -> tuple[nn.Module, State]:
    model = new_model()
    return model, fit(model, batches(), validation(), settings, PLAN, Memory())


@pytest.mark.parametrize(
    ("patience", "epochs", "scores", "stages", "best_epoch"),
    [
        # a stage ends after `patience` epochs in a row without gain; equal is no gain
        (2, None, [0.5, 0.5, 0.5, 0.5, 0.5], ["adamw"] * 3 + ["sgd"] * 2, 1),
        (2, None, [0.1, 0.2, 0.1, 0.3, 0.3, 0.3, 0.2, 0.3], ["adamw"] * 6 + ["sgd"] * 2, 4),
        # the second stage has a patience of its own, and must beat the first's best
        (2, None, [0.5, 0.1, 0.1, 0.4, 0.6, 0.1, 0.1], ["adamw"] * 3 + ["sgd"] * 4, 5),
        (1, None, [0.5, 0.4, 0.3], ["adamw"] * 2 + ["sgd"], 1),
        # --epochs caps each stage
        (10, 2, [0.1, 0.2, 0.3, 0.4], ["adamw"] * 2 + ["sgd"] * 2, 4),
        (1, 3, [0.0, 0.0, 0.0], ["adamw"] * 2 + ["sgd"], 1),
    ],
)
def test_patience_and_stages(
    scored: Scored,
    patience: int,
    epochs: int | None,
    scores: list[float],
    stages: list[str],
    best_epoch: int,
) -> None:
    scored(scores)
    _, state = trained(recipe(patience=patience, epochs=epochs))
    assert [row["stage"] for row in state.history] == stages
    assert [row["epoch"] for row in state.history] == list(range(1, len(stages) + 1))
    assert state.best_epoch == best_epoch
    assert state.best_score == max(scores)


def test_the_model_ends_with_the_weights_of_its_best_epoch(scored: Scored) -> None:
    """The best epoch is the second of four; a run that ends there has the same weights."""
    scored([0.1, 0.9, 0.2, 0.3])
    model, _ = trained(recipe(epochs=2))
    expected = {name: value.clone() for name, value in model.state_dict().items()}
    scored([0.1, 0.9, 0.1, 0.1, 0.1, 0.1])
    longer, _ = trained(recipe(epochs=3))
    for name, value in longer.state_dict().items():
        assert torch.equal(value, expected[name]), name


def test_stage_two_starts_from_the_best_epoch(scored: Scored, monkeypatch: pytest.MonkeyPatch) -> None:
    starts = []

    def watched(model: nn.Module, *rest: Any) -> Any:
        starts.append({name: value.clone() for name, value in model.state_dict().items()})
        return train_epoch(model, *rest)

    monkeypatch.setattr("engine.training.loop.train_epoch", watched)
    scored([0.1, 0.9, 0.2, 0.3, 0.3])
    trained(recipe(epochs=3, patience=2))
    # epoch 2 was the best, so epoch 3 began with its weights, and so must the first epoch of stage 2
    for name, value in starts[4 - 1].items():
        assert torch.equal(value, starts[3 - 1][name]) or "num_batches" in name


def test_the_recipe_is_the_published_one() -> None:
    model = new_model()
    config = parse(toy.dataset(), {"tiny": toy.TINY}, ["-model", "tiny"])[1]
    found = resolve_recipe(config, toy.TINY, 4)
    assert (found.lr, found.patience, found.epochs) == (1e-3, 10, None)
    adamw, sgd = (found.optimizer(stage, model) for stage in found.stages)
    assert isinstance(adamw, torch.optim.AdamW)
    of_adamw = {key: adamw.defaults[key] for key in ("lr", "betas", "eps", "weight_decay")}
    assert of_adamw == {"lr": 1e-3, "betas": (0.9, 0.999), "eps": 1e-8, "weight_decay": 0.01}
    assert isinstance(sgd, torch.optim.SGD)
    of_sgd = {key: sgd.defaults[key] for key in ("lr", "momentum", "weight_decay", "nesterov")}
    assert of_sgd == {"lr": 1e-3, "momentum": 0.9, "weight_decay": 0, "nesterov": False}


def test_the_loss_of_an_epoch_is_per_image() -> None:
    """30 images in batches of 8 end with one of 6, which must weigh 6/30 and not a quarter."""
    model = new_model()
    frozen = torch.optim.SGD(model.parameters(), lr=0.0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.training.loop.set_train_mode", lambda model, **_: model.eval())
        loss, _ = train_epoch(model, batches(), Step(model, frozen, PLAN, 8), recipe(), State())
    logits, _ = predict(model, batches(), PLAN)
    assert loss == pytest.approx(score(logits, batches().part.labels)[1], rel=1e-5)


def test_score() -> None:
    logits = np.array([[2, 1], [0, 3], [5, 4], [1, 1]], np.float32)
    top1, loss = score(logits, np.array([0, 1, 1, 1]))
    assert top1 == 0.5
    expected = [np.log1p(np.exp(-1)), np.log1p(np.exp(-3)), np.log1p(np.exp(1)), np.log(2)]
    assert loss == pytest.approx(np.mean(expected), rel=1e-5)


def test_linear_tuning_changes_the_head_alone() -> None:
    model = new_model()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    freeze_body(model, "6")
    fit(model, batches(), validation(), recipe(epochs=2), PLAN, Memory())
    changed = {name for name, value in model.state_dict().items() if not torch.equal(value, before[name])}
    assert changed == {"6.weight", "6.bias"}


def test_a_loss_that_is_not_finite_stops_before_the_epoch_is_over() -> None:
    """After 100 steps of the 250."""
    model = new_model()
    steps = []
    model.register_forward_pre_hook(lambda *_: steps.append(1))
    nn.init.constant_(model.get_submodule("6").bias, float("inf"))  # type: ignore[arg-type]
    long = replace(batches(500), batch_size=2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    with pytest.raises(RunError, match=r"the loss became nan in epoch 1 .*--lr, such as 0\.0001\."):
        train_epoch(model, long, Step(model, optimizer, PLAN, 2), recipe(), State())
    assert len(steps) == 100


@pytest.mark.parametrize("name", ["0.weight", "1.running_var", "6.bias"])
def test_a_run_stops_before_what_is_not_finite_is_saved(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where no loss and no output shows it."""
    model, memory, step = new_model(), Memory(), Step.__call__

    def spoil(self: Step, images: torch.Tensor, labels: torch.Tensor, weight: float) -> torch.Tensor:
        loss = step(self, images, labels, weight)
        if memory.saved and len(labels) < 8:  # the last of the second epoch
            with torch.no_grad():
                model.state_dict()[name].view(-1)[0] = float("inf")
        return loss.new_tensor(1.0)

    monkeypatch.setattr(Step, "__call__", spoil)
    monkeypatch.setattr("engine.training.loop.predict", lambda *_: (np.zeros((12, 3), np.float32), {}))
    with pytest.raises(RunError, match=rf"^{re.escape(name)} of the model is not finite after epoch 2 .*--lr, such as"):
        fit(model, batches(), validation(), recipe(3), PLAN, memory)
    assert memory.saved
    for part in ("model", "best"):
        assert all(value.isfinite().all() for value in memory.saved[part].values())


def test_what_is_large_is_finite() -> None:
    model = new_model()
    nn.init.constant_(model.get_submodule("6").weight, 3e38)  # type: ignore[arg-type]
    require_finite_state(model, 0, 1e-3, PLAN)


def test_outputs_that_are_not_finite_are_named() -> None:
    model = new_model()
    nn.init.constant_(model.get_submodule("6").bias, float("nan"))  # type: ignore[arg-type]
    with pytest.raises(RunError, match=r"outputs on the test part are not finite\. Try a lower --lr\.$"):
        predict(model, batches(name="test"), PLAN)
    with pytest.raises(RunError, match=r"not finite\. Try a lower --lr, or --precision fp32\.$"):
        predict(model, batches(name="test"), replace(PLAN, precision="bf16"))


def sgd(model: nn.Module, lr: float) -> torch.optim.Optimizer:
    return RECIPES["adamw-sgd"].stages[1].optimizer([{"params": list(model.parameters())}], lr)


def test_momentum_starts_at_zero_even_where_the_first_step_overflows() -> None:
    """fp16's scaler skips such a step; what the fused kernel then left as momentum would be anything."""
    model = nn.Linear(4, 2)
    step = Step(model, sgd(model, 1e-3), Plan("cpu", "", "fp16", ""), 4)
    before = [parameter.clone() for parameter in model.parameters()]
    images = torch.full((4, 4), 1e30)
    step(images, torch.zeros(4, dtype=torch.int64))
    for parameter, old in zip(model.parameters(), before, strict=True):
        assert torch.equal(parameter, old)
        assert not step.optimizer.state[parameter]["momentum_buffer"].any()
    step(torch.ones(4, 4), torch.zeros(4, dtype=torch.int64))
    assert all(parameter.isfinite().all() for parameter in model.parameters())


@pytest.mark.parametrize("steps", [1, 3])
def test_momentum_that_starts_at_zero_is_plain_sgd(steps: int) -> None:
    results = []
    for make in (sgd, lambda model, lr: torch.optim.SGD(model.parameters(), lr, momentum=0.9)):
        torch.manual_seed(0)
        model = nn.Linear(4, 2)
        step = Step(model, make(model, 0.1), PLAN, 4)
        for _ in range(steps):
            step(torch.ones(4, 4), torch.zeros(4, dtype=torch.int64))
        results.append(torch.cat([parameter.detach().flatten() for parameter in model.parameters()]))
    torch.testing.assert_close(*results)


def test_random_state_is_restored() -> None:
    torch.manual_seed(5)
    saved = random_state("cpu")
    first = torch.rand(4)
    set_random_state(saved, "cpu")
    assert torch.equal(torch.rand(4), first)


def test_predictions_come_in_the_order_of_the_part() -> None:
    model = new_model()
    together, _ = predict(model, batches(), PLAN)
    one_by_one = np.concatenate([predict(model, single(i), PLAN)[0] for i in range(30)])
    np.testing.assert_allclose(together, one_by_one, atol=1e-5)


def single(index: int) -> Batches:
    return replace(batches(), part=batches().part.take(np.array([index])))


@pytest.mark.parametrize(("images", "sizes"), [(21, [8, 8, 8]), (16, [8, 8]), (5, [5])])
def test_where_sizes_cost_a_search_the_last_batch_is_filled(
    monkeypatch: pytest.MonkeyPatch, images: int, sizes: list[int]
) -> None:
    """With images again, whose logits are left out. A part of a single batch has one size anyway."""
    model, given = new_model(), batches(images, name="val")
    expected, _ = predict(model, given, PLAN)
    seen: list[int] = []
    model.register_forward_pre_hook(lambda _, batch: seen.append(len(batch[0])))
    predict(model, given, PLAN)
    assert sum(seen) == images  # not on a processor
    seen.clear()
    monkeypatch.setattr("engine.training.evaluation.pads", lambda _: True)
    found, _ = predict(model, given, PLAN)
    assert seen == sizes
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_a_filled_batch_keeps_its_layout(memory_format: torch.memory_format) -> None:
    images = torch.rand(3, 3, 4, 5).contiguous(memory_format=memory_format)
    whole = filled(images, 8)
    assert whole.is_contiguous(memory_format=memory_format)
    assert torch.equal(whole, images[[0, 1, 2, 0, 1, 2, 0, 1]])
    assert filled(images, 3) is images
    assert torch.equal(filled(torch.arange(3.0)[:, None], 4), torch.tensor([0.0, 1, 2, 0])[:, None])


def test_the_first_epoch_s_steady_speed_is_told_once() -> None:
    told: list[float | None] = []
    memory = Memory()
    fit(new_model(), batches(64), validation(), recipe(epochs=2), PLAN, memory, told.append)
    ((steady,),) = [told]
    assert steady is not None
    assert 0 < steady < 1e8
    # and not where nothing is left to train
    fit(new_model(), batches(64), validation(), recipe(epochs=2), PLAN, memory, told.append)
    assert len(told) == 1
    # three batches and a rest: the first does not count
    fit(new_model(), batches(30), validation(), recipe(epochs=1), PLAN, Memory(), told.append)
    assert told[1:] == [None]


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_fit_on_a_card(precision: str) -> None:
    model = new_model()
    model.cuda()
    plan = Plan("cuda", "", precision, "")
    train, val = replace(batches(60), device="cuda"), replace(validation(), device="cuda")
    state = fit(model, train, val, recipe(epochs=8), plan, Memory())
    assert state.history[-1]["train_loss"] < state.history[0]["train_loss"]
    assert state.peak_memory_mib is not None
