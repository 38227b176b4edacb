"""Tests of what runs on a CUDA card; tests/test_dry_card.py has them run where there is none."""

import json
import math
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from engine.device import free_memory
from tests.conftest import Command, only_run

# a runtime that computes nothing: values are zeros, or whatever was in memory
DRY = "DRY_HOME" in os.environ

Record = dict[str, Any]
Run = Callable[..., Record]
Limit = Callable[[int], AbstractContextManager[None]]


@pytest.fixture(autouse=True)
def card() -> Iterator[None]:
    """Nothing of a test stays on the card."""
    if not torch.cuda.is_available():
        pytest.skip("needs a CUDA device")
    free_memory("cuda")
    yield
    free_memory("cuda")


@pytest.fixture(autouse=True)
def readable(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What is read from a dry card is finite (a loss that is not would end a run), and NumPy says nothing of it."""
    if not DRY:
        yield
        return
    item, cpu = torch.Tensor.item, torch.Tensor.cpu

    def finite_item(tensor: torch.Tensor) -> Any:
        value = item(tensor)
        return 0.0 if isinstance(value, float) and not math.isfinite(value) else value

    def finite_cpu(tensor: torch.Tensor, *given: Any) -> torch.Tensor:
        host = cpu(tensor, *given)
        if tensor.is_cuda and host.is_floating_point():
            host = host.nan_to_num(0.0).clamp(-100, 100)
        return host

    monkeypatch.setattr("engine.training.agreement.StepResult.agrees", lambda *_: True)
    monkeypatch.setattr(torch.Tensor, "item", finite_item)
    monkeypatch.setattr(torch.Tensor, "cpu", finite_cpu)
    with np.errstate(all="ignore"):
        yield


@pytest.fixture
def run(command: Command, tmp_path: Path) -> Run:
    """Runs a dataset script's command line on the card, to its end; the record."""

    def run(line: str, *dataset: Any, out: str = "runs") -> Record:
        assert command(f"{line} --device cuda --out {out}", *dataset) == 0
        record: Record = json.loads((only_run(tmp_path / out) / "record.json").read_text())
        assert record["status"] == "done"
        assert record["plan"]["device"] == "cuda"
        assert record["plan"]["device_name"] == torch.cuda.get_device_name()
        return record

    return run


@pytest.fixture
def limit() -> Limit:
    """Leaves PyTorch so many bytes of the card."""

    @contextmanager
    def limit(free: int) -> Iterator[None]:
        free_memory("cuda")
        total = torch.cuda.get_device_properties(0).total_memory
        torch.cuda.set_per_process_memory_fraction((torch.cuda.memory_reserved() + free) / total)
        try:
            yield
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)

    return limit
