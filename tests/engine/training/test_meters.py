"""Where an epoch's time went, what it took in memory and energy."""

import sys
from collections.abc import Callable, Iterator, Sequence
from types import SimpleNamespace

import pytest
import torch

from engine.processes.heartbeat import SHARED
from engine.training.meters import Clock, energy_joules, others_on_card, peak_memory_mib
from engine.training.state import State

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
            pass_time(3.0)  # for augmenting, which is not of the step that a plan promises
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


class Driver:
    """Stands for nvidia-ml-py and its driver: a card that uses 7 J between two readings, and the processes on it."""

    NVMLError = ValueError
    processes = 1
    millijoules = 0

    def nvmlInit(self) -> None:  # noqa: N802 (NVML's names)
        pass

    def nvmlDeviceGetHandleByUUID(self, name: str) -> str:  # noqa: N802
        assert name == "GPU-ours"
        return name

    def nvmlDeviceGetTotalEnergyConsumption(self, _: str) -> int:  # noqa: N802
        self.millijoules += 7000
        return self.millijoules

    def nvmlDeviceGetComputeRunningProcesses(self, _: str) -> list[None]:  # noqa: N802
        if self.processes < 0:
            raise ValueError("not supported")
        return [None] * self.processes


@pytest.fixture
def driver(monkeypatch: pytest.MonkeyPatch) -> Driver:
    driver = Driver()
    monkeypatch.setitem(sys.modules, "pynvml", driver)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(torch.cuda, "get_device_properties", lambda _: SimpleNamespace(uuid="ours"))
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 0)
    monkeypatch.setattr("engine.training.meters._others_were_there", False)
    monkeypatch.delenv(SHARED, raising=False)
    return driver


@pytest.mark.parametrize("processes", [1, 0, -1])  # in a container, or with an old driver, none is seen
def test_energy_of_a_card(driver: Driver, processes: int) -> None:
    driver.processes = processes
    state = State()
    before = energy_joules("cuda")
    for epochs in (1, 2):
        before = state.account("cuda", before, 0.0)
        assert state.energy_joules == pytest.approx(7.0 * epochs)


def test_energy_that_others_use_too_is_not_known(driver: Driver, monkeypatch: pytest.MonkeyPatch) -> None:
    state = State()
    before = state.account("cuda", energy_joules("cuda"), 0.0)
    driver.processes = 2
    before = state.account("cuda", before, 0.0)
    assert state.energy_joules is None
    driver.processes = 1
    before = state.account("cuda", before, 0.0)
    assert state.account("cuda", before, 0.0) is None
    assert state.energy_joules is None
    assert not others_on_card()
    monkeypatch.setenv(SHARED, "1")
    assert others_on_card()
