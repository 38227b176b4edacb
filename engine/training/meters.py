"""Where an epoch's time went: computing, or waiting for data; what it took in memory and energy."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import Any, TypeVar

import torch

from engine.device import synchronize

Batch = TypeVar("Batch")


class Clock:
    """Runs from its creation; `batches` passes batches through and notes how long each was waited for.

    On CUDA calls return before the work is done, so compute time is what the device itself measures between the
    arrival of a batch and the end of the work on it.
    """

    def __init__(self, device: str) -> None:
        self.device, self.cuda = device, device == "cuda"
        self.start = time.perf_counter()
        self.compute_seconds = 0.0
        self.images = 0
        self._events: list[tuple[torch.cuda.Event, torch.cuda.Event]] = []

    def batches(
        self, batches: Iterator[tuple[torch.Tensor, torch.Tensor]]
    ) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
        """Pass (images, labels) batches through; all that happens until the next one is asked for counts as compute."""
        for images, labels in batches:
            begin = self._mark()
            yield images, labels
            end = self._mark()
            self.images += len(labels)
            if isinstance(begin, float) and isinstance(end, float):
                self.compute_seconds += end - begin
            else:
                self._events.append((begin, end))

    def _mark(self) -> Any:
        if not self.cuda:
            synchronize(self.device)
            return time.perf_counter()
        event = torch.cuda.Event(enable_timing=True)
        event.record()
        return event

    def stop(self) -> dict[str, float]:
        """Seconds, images a second end to end and of compute alone, and the share of time spent waiting for data."""
        if self.cuda:
            torch.cuda.synchronize()
            self.compute_seconds += sum(begin.elapsed_time(end) for begin, end in self._events) / 1000
        seconds = max(time.perf_counter() - self.start, 1e-9)
        compute = min(max(self.compute_seconds, 1e-9), seconds)
        return {
            "seconds": seconds,
            "images_per_second": self.images / seconds,
            "compute_images_per_second": self.images / compute,
            "data_wait_share": 1 - compute / seconds,
        }


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


def energy_joules(device: str) -> float | None:
    """What the CUDA device has used since its driver was loaded; None without the package nvidia-ml-py."""
    if device != "cuda":
        return None
    try:
        import pynvml
    except ImportError:
        return None
    try:
        pynvml.nvmlInit()
        # NVML counts all cards of the machine, CUDA those that it may use: the bus address tells which is ours
        bus = torch.cuda.get_device_properties(torch.cuda.current_device())
        handle = pynvml.nvmlDeviceGetHandleByUUID(f"GPU-{bus.uuid}")
        return float(pynvml.nvmlDeviceGetTotalEnergyConsumption(handle)) / 1000
    except pynvml.NVMLError:
        return None
