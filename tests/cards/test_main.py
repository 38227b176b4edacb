"""Whole commands on a card, from their flags to a finished record."""

import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import digits
from engine.training import loop
from tests import toy
from tests.cards.conftest import DRY, Run
from tests.conftest import Command, only_run

pytestmark = pytest.mark.cuda

TINY = "-model tiny -bs 32 --weights none --size 16"


def half() -> str:
    """The half precision that the card computes in."""
    return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"


@pytest.mark.parametrize(
    "flags",
    [
        "--epochs 2 --plan measure",
        "--epochs 4 --plan off --lr-sweep",
        "--epochs 2 --plan off --recipe cosine",
        "--epochs 2 --plan off --tune linear",
        "--epochs 2 --plan measure --tune linear --recipe cosine",
        "--epochs 1 --plan off --protocol paper --augment trivial --no-cache",
    ],
)
def test_a_run_goes_to_its_end(run: Run, flags: str) -> None:
    record = run(f"{TINY} {flags}", digits.DATASET)
    if "--plan off" in flags:
        assert record["plan"]["precision"] == half()
    assert record["costs"]["peak_memory_mib"] > 0
    assert record["environment"]["cuda"] == torch.version.cuda
    assert {"top1", "nll"} <= record["test"].keys()


@pytest.mark.parametrize("flags", ["--plan off", "--plan measure --class-weights balanced"])
def test_a_head_is_solved_for_there(
    command: Command, tmp_path: Path, flags: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On what the weights of a run make of the images; its epoch has no learning rate."""
    if DRY:  # which can't tell whether two outputs are equal
        monkeypatch.setattr("engine.training.features._can_be_divided", lambda *_: True)
    line = "-model tiny -bs 32 --size 16 --epochs 2 --device cuda"
    assert command(f"{line} --weights none --plan off --out {tmp_path / 'first'}", digits.DATASET) == 0
    weights = only_run(tmp_path / "first") / "checkpoint.pt"
    line += f" {flags} --recipe fast --weights {weights} --out {tmp_path / 'second'}"
    assert command(line, digits.DATASET) == 0
    rows = (only_run(tmp_path / "second") / "history.csv").read_text().splitlines()
    assert [row.split(",")[1] for row in rows[1:]] == ["head", "cosine", "cosine"]
    assert rows[1].split(",")[2] == "0.0"


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_each_precision(run: Run, command: Command, precision: str) -> None:
    line = f"{TINY} --lr 1e-2 --epochs 5 --plan off --precision {precision}"
    if precision == "bf16" and half() != "bf16":
        assert command(f"{line} --device cuda", digits.DATASET) == 2
        return
    record = run(line, digits.DATASET)
    assert record["plan"]["precision"] == precision
    assert DRY or record["test"]["top1"] > 0.5


def test_deterministic(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.device._not_deterministic", set())
    for name in ("benchmark", "deterministic"):
        monkeypatch.setattr(torch.backends.cudnn, name, False)
    with warnings.catch_warnings():
        try:
            record = run(f"{TINY} --epochs 2 --deterministic", digits.DATASET)
        finally:
            torch.use_deterministic_algorithms(False)
    assert record["config"]["deterministic"] is True
    assert record["config"]["plan"] == "off"
    assert (record["plan"]["graphed"], record["plan"]["compiled"]) == (False, False)
    # the toy's pooling, which PyTorch's use_deterministic_algorithms() lists
    assert record["plan"]["not_deterministic"] == ["adaptive_avg_pool2d_backward_cuda"]


def test_a_backbone_of_the_table(run: Run) -> None:
    record = run("-model mobilenet -bs 64 --weights none --size 64 --epochs 1 --plan measure", digits.DATASET)
    assert record["costs"]["peak_memory_mib"] > 100


def test_a_card_that_is_too_small_for_whole_batches(run: Run, capsys: Any) -> None:
    """At 256 px a batch of 64 takes about 2 GB. Its gradient is added up there, and is not on a larger card."""
    record = run("-model mobilenet -bs 64 --weights none --size 256 --epochs 1 --plan off", digits.DATASET)
    total = torch.cuda.get_device_properties(0).total_memory
    if total > 4 << 30:
        assert record["plan"]["micro_batch"] is None
    elif total < 1.5 * 2**30:
        assert record["plan"]["micro_batch"] in (16, 32)
        assert "out of memory" in capsys.readouterr().out


def test_check(command: Command, tmp_path: Path, capsys: Any) -> None:
    code = command(f"{TINY} --check --device cuda", digits.DATASET)
    printed = capsys.readouterr()
    # what was in memory is not what was there before
    assert code == 0 or (DRY and "gives other outputs" in printed.err)
    assert "ok: one step of validation" in printed.out
    assert not (tmp_path / "runs").exists()


def stop_after(epochs: int) -> Callable[[], bool]:
    """What says that a stop is asked for once so many epochs are through."""
    through: list[None] = []

    def asked() -> bool:
        through.append(None)
        return len(through) >= epochs

    return asked


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
@pytest.mark.parametrize("epochs", [1, 3], ids=["in its first stage", "in its second"])
def test_an_interrupted_run_goes_on_as_if_it_had_never_stopped(
    run: Run, command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, precision: str, epochs: int
) -> None:
    """Weights, optimizer, gradient scaler and the card's random numbers, which dropout draws from."""
    monkeypatch.setattr(torch.backends.cudnn, "deterministic", True)
    line = f"-model tiny -bs 16 --weights none --epochs 2 --plan off --precision {precision}"
    run(line, out="whole")
    whole, drawn = weights(tmp_path / "whole"), torch.cuda.get_rng_state()
    with monkeypatch.context() as patch:
        patch.setattr(loop, "stop_asked_for", stop_after(epochs))
        assert command(f"{line} --device cuda --out parts") == 130
    torch.cuda.manual_seed(5)  # another process has other numbers
    run(line, out="parts")
    assert torch.equal(torch.cuda.get_rng_state(), drawn)
    parts = weights(tmp_path / "parts")
    assert parts.keys() == whole.keys()
    for name in whole if not DRY else ():
        torch.testing.assert_close(parts[name], whole[name], rtol=1e-3, atol=1e-4, msg=name)


def weights(out: Path) -> dict[str, torch.Tensor]:
    """The chosen weights of the one run under `out`."""
    checkpoint = torch.load(only_run(out) / "checkpoint.pt", weights_only=True)
    found: dict[str, torch.Tensor] = checkpoint["model"]
    assert all(value.device.type == "cpu" for value in found.values())
    return found


def test_the_images_that_evaluate_are_those_of_the_part(run: Run) -> None:
    """Odd last batches of train, val and test."""
    record = run("-model tiny -bs 16 --weights none --epochs 1 --plan off", toy.dataset(61, 35))
    assert record["dataset"]["counts"]["test"] == 35
