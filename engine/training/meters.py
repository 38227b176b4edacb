"""Where an epoch's time went: computing, or waiting for data; what it took in memory and energy."""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import torch

from engine.device import synchronize
from engine.processes.heartbeat import device_is_shared

STEADY = 3  # batches, at least, that a steady speed is the median of

Made = TypeVar("Made")


class Clock:
    """Runs from its creation, and tells the device's work on each batch from the time that it is waited for.

    `batches` passes batches through. Whoever makes them calls `arrived` as soon as the stored pixels of one are on the
    device: from there until the next is asked for, all is compute (augmenting, resizing, normalising, the step).

    On CUDA calls return before the work is done, so compute time is what the device itself measures between the
    two.
    """

    def __init__(self, device: str) -> None:
        self.device, self.cuda = device, device == "cuda"
        self.start = time.perf_counter()
        self.images = 0
        self._begin: Any = None
        # images of a batch; when it had arrived, when it was ready for the step, when it was done with
        self._spans: list[tuple[int, Any, Any, Any]] = []

    def arrived(self) -> None:
        """The stored pixels of the next batch are on the device."""
        self._begin = self._mark()

    def batches(
        self, batches: Iterator[tuple[torch.Tensor, torch.Tensor]]
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Pass (images, labels) batches through, for each of which their maker calls arrived()."""
        for images, labels in batches:
            ready = self._mark()
            yield images, labels
            self.images += len(labels)
            self._spans.append((len(labels), self._begin, ready, self._mark()))

    def _mark(self) -> Any:
        if not self.cuda:
            synchronize(self.device)
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def stop(self, images: int | None = None) -> dict[str, float]:
        """Seconds, images a second end to end and of compute alone, and the share of time spent waiting for data.

        images: those of all processes that work together; None: those that passed through here.
        """
        images = images or self.images
        if self.cuda:
            torch.cuda.synchronize()
        seconds = max(time.perf_counter() - self.start, 1e-9)
        took = sum(self._seconds(arrived, done) for _, arrived, _, done in self._spans)
        compute = min(max(took, 1e-9), seconds)
        return {
            "seconds": seconds,
            "images_per_second": images / seconds,
            "compute_images_per_second": images / compute,
            "data_wait_share": 1 - compute / seconds,
        }

    @property
    def steady_images_per_second(self) -> float | None:
        """The median over whole batches but the first, of the step alone; None of fewer than STEADY. After stop()."""
        whole = max((images for images, *_ in self._spans), default=0)
        steps = [(ready, done) for images, _, ready, done in self._spans[1:] if images == whole]
        rates = [whole / max(self._seconds(ready, done), 1e-9) for ready, done in steps]
        return statistics.median(rates) if len(rates) >= STEADY else None

    def _seconds(self, begin: Any, end: Any) -> float:
        """Between two marks."""
        return float(begin.elapsed_time(end)) / 1000 if self.cuda else float(end - begin)


def peak_memory_mib(device: str) -> float | None:
    """The most memory in use so far, MiB: of the CUDA device, else of this process; None where nobody reports it."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated() / 2**20
    try:
        import resource
    except ImportError:  # Windows
        return None
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak / (2**20 if sys.platform == "darwin" else 2**10)  # bytes there, KiB elsewhere


_others_were_there = False  # on our card, at some time in this process


def energy_joules(device: str) -> float | None:
    """What the CUDA device has used since its driver was loaded; None without the package nvidia-ml-py.

    And from the time on that others were seen to work on the card: it counts for all of them together.
    """
    global _others_were_there
    if device != "cuda":
        return None
    _others_were_there |= others_on_card()
    if _others_were_there:
        return None
    return _asked(lambda nvml, card: float(nvml.nvmlDeviceGetTotalEnergyConsumption(card)) / 1000)


def others_on_card() -> bool:
    """Whether other processes are on the CUDA device, as far as the one that started this one, or the driver, says."""
    processes = _asked(lambda nvml, card: len(nvml.nvmlDeviceGetComputeRunningProcesses(card)))
    return device_is_shared() or (processes or 0) > 1


def _asked(question: Callable[[Any, Any], Made]) -> Made | None:
    """What the driver answers of the CUDA device; None where it does not, or nvidia-ml-py is not installed."""
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        # NVML counts all cards of the machine, CUDA those that it may use: the bus address tells which is ours
        bus = torch.cuda.get_device_properties(torch.cuda.current_device())
        return question(pynvml, pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{bus.uuid}"))
    except pynvml.NVMLError:
        return None
