"""One step: micro-batches, compilation, running out of memory."""

import csv
import json
import weakref
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import common
from engine.data.batches import Batches
from engine.errors import out_of_memory
from engine.training import loop, saving
from engine.training.evaluation import predict
from engine.training.plan import Plan
from engine.training.step import Step
from tests import toy
from tests.conftest import Command, only_run
from tests.engine.records.test_resume import outcome

PLAN = Plan("cpu", "", "fp32", "")


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 5))


def gradients(
    plan: Plan, images: int, batch_size: int, class_weights: list[float] | None = None
) -> tuple[torch.Tensor, list[int], torch.Tensor]:
    """The gradient of the toy network's step on so many images, the sizes of its forward passes, and its loss."""
    model = network()
    sizes: list[int] = []
    model.register_forward_pre_hook(lambda _, given: sizes.append(len(given[0])))
    random = torch.Generator().manual_seed(1)
    batch = torch.randn(images, 3, 8, 8, generator=random), torch.arange(images) % 5
    step = Step(model, torch.optim.SGD(model.parameters(), 0.1), plan, batch_size, class_weights)
    loss = step.add_gradient(*batch)
    return torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]), sizes, loss


@pytest.mark.parametrize(
    ("images", "micro", "sizes"),
    [
        (32, None, [32]),
        (32, 16, [16, 16]),
        (32, 2, [2] * 16),
        (33, 16, [11, 11, 11]),
        (7, 2, [3, 2, 2]),
        (5, 4, [3, 2]),
        (3, 2, [3]),  # no micro-batch of a single image, which batch normalisation can't train on
        (2, 2, [2]),
        (1, 2, [1]),
    ],
)
def test_micro_batches_add_up_to_the_gradient_of_the_batch(images: int, micro: int | None, sizes: list[int]) -> None:
    plan = Plan("cpu", "", "fp32", "", micro_batch=micro)
    found, seen, loss = gradients(plan, images, 32)
    expected, _, whole = gradients(PLAN, images, 32)
    assert seen == sizes
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(loss, whole)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_an_image_counts_as_the_weight_of_its_class_says(precision: str) -> None:
    """A class of weight 2 is as if each of its images were there twice, one of weight 0 as if it were not; so is a
    batch in micro-batches, which PyTorch's own weighted mean would not add up to."""
    plan = Plan("cpu", "", precision, "")
    weights = [2.0, 1.0, 0.0, 1.0, 1.0]
    found, _, loss = gradients(plan, 10, 32, weights)
    again, sizes, loss_again = gradients(replace(plan, micro_batch=3), 10, 32, weights)
    assert sizes == [3, 3, 2, 2]
    model = network()
    random = torch.Generator().manual_seed(1)
    images, labels = torch.randn(10, 3, 8, 8, generator=random), torch.arange(10) % 5
    doubled = torch.tensor([index for index, label in enumerate(labels.tolist()) for _ in range(int(weights[label]))])
    with plan.autocast():
        expected = torch.nn.functional.cross_entropy(model(images[doubled]), labels[doubled], reduction="sum") / 10
    expected.backward()
    by_hand = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    rtol, atol = (1e-4, 1e-6) if precision == "fp32" else (0.05, 0.01)
    for result, wanted in ((found, by_hand), (again, by_hand), (loss, expected.detach()), (loss_again, loss)):
        torch.testing.assert_close(result, wanted, rtol=rtol, atol=atol)


def test_a_step_moves_the_weights_and_leaves_no_gradient() -> None:
    model = network()
    before = [parameter.clone() for parameter in model.parameters()]
    step = Step(model, torch.optim.SGD(model.parameters(), 0.1), PLAN, 4)
    assert step(torch.randn(4, 3, 8, 8), torch.arange(4)).shape == ()
    assert all((old != new).any() for old, new in zip(before, model.parameters(), strict=True))
    assert all(parameter.grad is None for parameter in model.parameters())


def test_only_whole_batches_go_through_the_compiled_model(monkeypatch: pytest.MonkeyPatch) -> None:
    """Another size would be compiled anew, a minute for the last batch of an epoch."""
    calls: list[int] = []

    def compiled(model: nn.Module, dynamic: bool) -> Callable[[torch.Tensor], torch.Tensor]:
        assert dynamic is False

        def forward(images: torch.Tensor) -> torch.Tensor:
            calls.append(len(images))
            logits: torch.Tensor = model(images)
            return logits

        return forward

    monkeypatch.setattr(torch, "compile", compiled)
    model = network()
    for plan, expected in ((Plan("cpu", "", "fp32", "", compiled=True), [8, 8]), (PLAN, [])):
        calls.clear()
        step = Step(model, torch.optim.SGD(model.parameters(), 0.1), plan, 8)
        for images in (8, 3, 8):
            step(torch.randn(images, 3, 8, 8), torch.arange(images) % 5)
        assert calls == expected


@pytest.mark.parametrize("device", ["cuda", "cpu"])
@pytest.mark.parametrize("benchmark", [True, False])
def test_only_whole_batches_start_a_search_of_cudnn(
    device: str, benchmark: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The flag alone: what a card makes of it takes seconds for each size."""
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", benchmark)
    model, seen = network(), []
    model.register_forward_pre_hook(lambda *_: seen.append(torch.backends.cudnn.benchmark))
    model[0].register_full_backward_hook(lambda *_: seen.append(torch.backends.cudnn.benchmark))  # type: ignore[index]
    step = Step(model, torch.optim.SGD(model.parameters(), 0.1), Plan(device, "", "fp32", ""), 8)
    for images in (8, 3, 8):
        step(torch.randn(images, 3, 8, 8, requires_grad=True), torch.arange(images) % 5)
    odd = benchmark and device != "cuda"
    assert seen == [benchmark, benchmark, odd, odd, benchmark, benchmark]
    with pytest.raises(IndexError):
        step(torch.randn(3, 3, 8, 8), torch.full((3,), 7))
    assert torch.backends.cudnn.benchmark is benchmark


@pytest.mark.parametrize(
    ("problem", "expected"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), True),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 4 bytes."), True),
        (RuntimeError("could not create a primitive"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("mat1 and mat2 shapes cannot be multiplied"), False),
    ],
)
def test_out_of_memory(problem: BaseException, expected: bool) -> None:
    assert out_of_memory(problem) is expected


class Greedy(nn.Sequential):
    """A network for which memory suffices for `most` images and no more, when it trains and when it does not."""

    most = 1000

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        if len(images) > (self.most if self.training else 2 * self.most):
            raise torch.OutOfMemoryError(f"CUDA out of memory. Tried to allocate {len(images)} GiB.")
        logits: torch.Tensor = super().forward(images)
        return logits


@pytest.fixture
def greedy(monkeypatch: pytest.MonkeyPatch, command: Command) -> Command:
    def tiny() -> nn.Module:
        return Greedy(*toy.tiny().children())

    monkeypatch.setitem(common.BACKBONES, "tiny", replace(toy.TINY, builder=tiny))
    return command


LINE = "-model tiny -bs 16 --weights none --epochs 2 --plan off --precision fp32"


def test_out_of_memory_the_same_batches_are_added_up(
    greedy: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    monkeypatch.setattr(Greedy, "most", 5)
    assert greedy(f"{LINE} --out little") == 0
    assert "16 images is added up from 4 at a time" in capsys.readouterr().out
    record = json.loads((only_run(tmp_path / "little") / "record.json").read_text())
    assert (record["batch_size"], record["plan"]["micro_batch"]) == (16, 4)
    assert "batch normalisation's statistics" in record["plan"]["memory"]
    # the run is the one that began with this micro-batch, to the last bit: no step of a failed attempt is in it
    monkeypatch.setattr(Greedy, "most", 1000)
    monkeypatch.setattr("engine.run.choose_plan", lambda *_: Plan("cpu", "", "fp32", "", micro_batch=4))
    assert greedy(f"{LINE} --out much") == 0
    assert outcome(tmp_path / "little") == outcome(tmp_path / "much")


@pytest.mark.parametrize(
    ("most_lost", "trained", "again"), [(0.0, [0, 1, 2, 2, 3], 3), (1e9, [0, 1, 2, 1, 2, 3], 2)], ids=["each", "first"]
)
def test_out_of_memory_in_the_middle_it_goes_on_from_the_last_saved_epoch(
    greedy: Command,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    most_lost: float,
    trained: list[int],
    again: int,
) -> None:
    plain, epochs = loop.train_epoch, []

    def shrinking(*given: Any) -> Any:
        epochs.append(given[4].epochs)
        Greedy.most = 1000 if len(epochs) < 3 else 8
        return plain(*given)

    monkeypatch.setattr(Greedy, "most", 1000)
    monkeypatch.setattr(loop, "train_epoch", shrinking)
    monkeypatch.setattr(saving, "MOST_LOST", most_lost)
    monkeypatch.setattr(saving, "PAUSE", 1e12)
    assert greedy(LINE) == 0
    assert epochs == trained
    folder = only_run(tmp_path / "runs")
    record = json.loads((folder / "record.json").read_text())
    assert record["plan"]["micro_batch"] == 8
    assert record["plan"]["memory"].endswith(f", from epoch {again} on")
    assert record["costs"]["epochs"] == 4
    with (folder / "history.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == ["1", "2", "3", "4"]


class Watched:
    """Whether each epoch of training had its images on the device; there, memory suffices for 4 of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.held: list[bool] = []
        self.pixels: list[weakref.ref[torch.Tensor]] = []
        shuffled, on = Batches.shuffled, Batches.on

        def watched(batches: Batches, *given: Any) -> Any:
            self.held.append(batches.on_device is not None)
            if not self.held[-1]:
                assert not any(pixels() is not None for pixels in self.pixels), "they still take memory"
            Greedy.most = 4 if self.held[-1] else 1000
            return shuffled(batches, *given)

        def taken(batches: Batches, device: str) -> Batches:
            found = on(batches, device)
            assert found.on_device is not None
            self.pixels.append(weakref.ref(found.on_device[0]))
            return found

        monkeypatch.setattr(Greedy, "most", 1000)
        monkeypatch.setattr("engine.data.batches.free_for_images", lambda _: 10**9)
        monkeypatch.setattr(Batches, "on", taken)
        monkeypatch.setattr(Batches, "shuffled", watched)


def test_images_that_are_held_on_the_device_go_first(
    greedy: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    """That costs speed; micro-batches may cost numbers."""
    assert greedy(f"{LINE} --out much") == 0
    watched = Watched(monkeypatch)
    assert greedy(f"{LINE} --out little") == 0
    # held from the second epoch on, where memory runs out
    assert watched.held == [False, True, False, False, False]
    assert len(watched.pixels) == 2  # of train and of val
    assert "not kept on the device any more" in capsys.readouterr().out
    record = json.loads((only_run(tmp_path / "little") / "record.json").read_text())
    assert record["plan"]["micro_batch"] is None
    assert outcome(tmp_path / "little") == outcome(tmp_path / "much")


def test_each_trial_of_a_sweep_gives_up_its_images_first(
    greedy: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    watched = Watched(monkeypatch)
    assert greedy(f"{LINE} --recipe cosine --epochs 8 --lr-sweep") == 0
    # a trial has two epochs and nothing to go on from
    assert watched.held == [False, True, False, False] * 4 + [False, True] + [False] * 7
    assert json.loads((only_run(tmp_path / "runs") / "record.json").read_text())["plan"]["micro_batch"] is None


def test_what_is_held_is_in_the_record(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    monkeypatch.setattr("engine.data.batches.free_for_images", lambda _: 10**9)
    assert command(LINE) == 0
    costs = json.loads((only_run(tmp_path / "runs") / "record.json").read_text())["costs"]
    assert costs["resident_memory_mib"] == (54 + 6) * 8 * 8 * 3 / 2**20
    assert "not kept" not in capsys.readouterr().out


def test_a_graph_goes_before_micro_batches(
    command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    """Its memory is wanted for nothing else; the numbers are the same without."""

    def record(_: Any) -> Any:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")

    monkeypatch.setattr("engine.training.graph.record", record)
    monkeypatch.setattr("engine.training.graph.aside", nullcontext)
    for graphed in (True, False):
        plan = Plan("cpu", "", "fp32", "", graphed=graphed)
        monkeypatch.setattr("engine.run.choose_plan", lambda *_, plan=plan: plan)
        assert command(f"{LINE} --out {graphed}") == 0
    assert "memory     out of memory: steps are not replayed from a CUDA graph\n" in capsys.readouterr().out
    record_of = json.loads((only_run(tmp_path / "True") / "record.json").read_text())["plan"]
    assert (record_of["graphed"], record_of["micro_batch"]) == (False, None)
    assert outcome(tmp_path / "True") == outcome(tmp_path / "False")


def test_below_the_floor_it_is_an_error(
    greedy: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: Any
) -> None:
    monkeypatch.setattr(Greedy, "most", 1)
    assert greedy(LINE) == 3
    assert "out of memory. Try a smaller -bs or --size." in capsys.readouterr().err
    record = json.loads((only_run(tmp_path / "runs") / "record.json").read_text())
    assert record["status"] == "failed"


def test_out_of_memory_while_evaluating_smaller_batches_are_tried() -> None:
    sizes: list[int] = []

    class Evaluated(nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            sizes.append(len(images))
            if len(images) > 5:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            return images.mean((2, 3))

    part = toy.part(10, 1, "test")
    batches = Batches("test", part, 16, (8, 8), (0.0,) * 3, (1.0,) * 3, "cpu")
    logits, _ = predict(Evaluated(), batches, PLAN)
    assert sizes == [10, 8, 4, 4, 2]
    np.testing.assert_allclose(logits, part.pixels().mean((1, 2)) / 255, atol=1e-6)
    with pytest.raises(torch.OutOfMemoryError):
        predict(Broken(), batches, PLAN)


class Broken(nn.Module):
    def forward(self, images: torch.Tensor) -> torch.Tensor:
        raise torch.OutOfMemoryError("CUDA out of memory.")
