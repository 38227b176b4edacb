"""Where an epoch's time went, what it took in memory and energy."""

from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace

import pytest
import torch

from engine.training.meters import Clock, energy_joules, peak_memory_mib

Batch = tuple[torch.Tensor, torch.Tensor]


@pytest.fixture
def pass_time(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """Moves the clock's time, which stands still otherwise."""
    now = 0.0

    def passes(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr("engine.training.meters.time", SimpleNamespace(perf_counter=lambda: now))
    return passes


def test_the_clock_tells_waiting_from_computing(pass_time: Callable[[float], None]) -> None:
    """What is done on the device to pixels that have arrived, such as augmenting, is computing."""

    def slow() -> Iterator[Batch]:
        for _ in range(5):
            pass_time(0.02)
            clock.arrived()
            pass_time(0.005)
            yield torch.zeros(4), torch.zeros(4)

    clock = Clock("cpu")
    for _ in clock.batches(slow()):
        pass_time(0.005)
    speed = clock.stop()
    assert clock.images == 20
    assert speed["seconds"] == pytest.approx(0.15)
    assert speed["data_wait_share"] == pytest.approx(2 / 3)
    assert speed["images_per_second"] == pytest.approx(20 / 0.15)
    assert speed["compute_images_per_second"] == pytest.approx(20 / 0.05)


@pytest.mark.parametrize(
    ("seconds", "last", "steady"),
    [
        ((9.0, 1.0, 1.0, 8.0, 1.0), 4, 4.0),  # neither the first nor one that was disturbed
        ((9.0, 2.0, 2.0, 2.0, 0.5), 1, 2.0),  # nor one that is not whole
        ((9.0, 2.0, 2.0, 0.5), 1, None),
        ((9.0, 2.0, 2.0), 4, None),
        ((), 4, None),
    ],
)
def test_the_steady_speed(
    pass_time: Callable[[float], None], seconds: Sequence[float], last: int, steady: float | None
) -> None:
    def batches() -> Iterator[Batch]:
        for number, _ in enumerate(seconds, 1):
            pass_time(5.0)
            clock.arrived()
            yield torch.zeros(4), torch.zeros(last if number == len(seconds) else 4)

    clock = Clock("cpu")
    for (_, _), took in zip(clock.batches(batches()), [*seconds, 0.0], strict=False):
        pass_time(took)
    clock.stop()
    assert clock.steady_images_per_second == steady


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
            clock.arrived()
            yield torch.zeros(4, device="cuda"), torch.zeros(4)

    clock = Clock("cuda")
    square = torch.rand(4096, 4096, device="cuda")
    for _ in clock.batches(batches()):
        square = square @ square / 4096
    speed = clock.stop()
    assert speed["compute_images_per_second"] > 0
    assert 0 <= speed["data_wait_share"] < 1
    assert (clock.steady_images_per_second or 0) > 0
    assert (peak_memory_mib("cuda") or 0) > 64
