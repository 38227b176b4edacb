"""Where an epoch's time went, what it took in memory and energy."""

from collections.abc import Iterator
from types import SimpleNamespace

import pytest
import torch

from engine.training.meters import Clock, energy_joules, peak_memory_mib


def test_the_clock_tells_waiting_from_computing(monkeypatch: pytest.MonkeyPatch) -> None:
    now = 0.0

    def pass_time(seconds: float) -> None:
        nonlocal now
        now += seconds

    def slow() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for _ in range(5):
            pass_time(0.02)
            yield torch.zeros(4), torch.zeros(4)

    monkeypatch.setattr("engine.training.meters.time", SimpleNamespace(perf_counter=lambda: now))
    clock = Clock("cpu")
    for _ in clock.batches(slow()):
        pass_time(0.01)
    speed = clock.stop()
    assert clock.images == 20
    assert speed["seconds"] == pytest.approx(0.15)
    assert speed["data_wait_share"] == pytest.approx(2 / 3)
    assert speed["images_per_second"] == pytest.approx(20 / 0.15)
    assert speed["compute_images_per_second"] == pytest.approx(20 / 0.05)


def test_memory_and_energy_of_a_processor() -> None:
    before = peak_memory_mib("cpu")
    assert before is not None
    assert before > 50
    block = torch.ones(64, 2**20)  # 256 MiB
    after = peak_memory_mib("cpu")
    assert block.sum() > 0
    assert after is not None
    assert after >= before
    assert energy_joules("cpu") is None


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_the_clock_on_a_card() -> None:
    def batches() -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        for _ in range(5):
            yield torch.zeros(4, device="cuda"), torch.zeros(4)

    clock = Clock("cuda")
    square = torch.rand(4096, 4096, device="cuda")
    for _ in clock.batches(batches()):
        square = square @ square / 4096
    speed = clock.stop()
    assert speed["compute_images_per_second"] > 0
    assert 0 <= speed["data_wait_share"] < 1
    assert (peak_memory_mib("cuda") or 0) > 64
