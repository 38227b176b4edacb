"""Training by the scripts' own loop, from the cache, in the form that the plan chose."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

import common
from benchmarks.plain import CLASSES
from benchmarks.setting import Setting
from engine.config import Config
from engine.data.batches import Batches
from engine.device import free_memory, prepare, synchronize
from engine.models.backbone import IMAGENET_MEAN, IMAGENET_STD
from engine.models.structure import macs
from engine.paths import user_cache
from engine.run import resolve_recipe, tuning_request
from engine.training import autotune
from engine.training.loop import train_epoch
from engine.training.state import State
from engine.training.step import Step


class Ours:
    """The scripts' training loop."""

    def __init__(self, name: str, setting: Setting) -> None:
        prepare(setting.plan.device)
        torch.manual_seed(0)
        self.steps, self.hold = setting.steps, setting.hold
        batch_size, size, device = setting.batch_size, setting.size, setting.plan.device
        config = Config(model=name, batch_size=batch_size, size=size, augment="trivial", compile=setting.compile)
        train = Batches("train", setting.part, batch_size, size, IMAGENET_MEAN, IMAGENET_STD, device, augment=True)
        backbone = common.BACKBONES[name]
        self.model = common.build_model(name, CLASSES, "none")
        self.macs = macs(self.model, size)
        self.recipe = resolve_recipe(config, backbone, train.steps)
        with nothing_remembered(), plan_budget(setting.plan_seconds):
            start = time.perf_counter()
            request = tuning_request(config, backbone, self.recipe, setting.plan.device)
            self.plan = autotune.fastest_plan(setting.plan, self.model, train, request)
            self.plan_seconds = time.perf_counter() - start
            self.remembered = any((user_cache() / "plans").glob("*.json"))
        self.plan.place(self.model)
        self.train = replace(train, memory_format=self.plan.memory_format)
        optimizer = self.recipe.optimizer(self.recipe.stages[0], self.model)
        self.step = Step(self.model, optimizer, self.plan, batch_size)
        images, labels = next(self.train.sequential())
        self.resident = (torch.randn_like(images), labels)
        self.waits: list[float] = []

    def end_to_end(self) -> float:
        """Images/s of an epoch of so many steps, on the next images of the cache."""
        images = self.steps * self.train.batch_size
        part = self.train.part.take(np.arange(images) + len(self.waits) * images)
        train = replace(self.train, part=part, on_device=None)
        train = train.cached_on_device() if self.hold else train
        _, speed = train_epoch(self.model, train, self.step, self.recipe, State(epochs=len(self.waits)))
        self.waits.append(speed["data_wait_share"])
        return speed["images_per_second"]

    def alone(self) -> float:
        """Images/s of the step alone."""
        synchronize(self.plan.device)
        start = time.perf_counter()
        for _ in range(self.steps):
            self.step(*self.resident)
        synchronize(self.plan.device)
        return self.steps * len(self.resident[1]) / (time.perf_counter() - start)

    def describe(self) -> dict[str, Any]:
        """What the plan chose, what finding that took, and what share of each round was waiting for data."""
        return {
            "form": self.plan.form,
            "plan": asdict(self.plan),
            "plan_seconds": self.plan_seconds,
            "plan_remembered": self.remembered,
            "macs": self.macs,
            "data_wait_share": self.waits[1:],  # the first was the warm-up
        }


@contextmanager
def nothing_remembered() -> Iterator[None]:
    """A cache folder of the user's that is empty, and gone afterwards: plans are measured, and none is left behind."""
    before = os.environ.get("XDG_CACHE_HOME")
    with tempfile.TemporaryDirectory() as folder:
        os.environ["XDG_CACHE_HOME"] = folder
        try:
            yield
        finally:
            del os.environ["XDG_CACHE_HOME"]
            if before is not None:
                os.environ["XDG_CACHE_HOME"] = before


@contextmanager
def plan_budget(seconds: float | None) -> Iterator[None]:
    """Let the measurement of a plan take so long; None: as long as in a run."""
    before = autotune.BUDGET
    autotune.BUDGET = before if seconds is None else seconds
    try:
        yield
    finally:
        autotune.BUDGET = before


def reset_peak_memory(device: str) -> None:
    """Let what engine.training.meters reports as the peak of memory be that from now on, where the system can."""
    free_memory(device)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
    with suppress(OSError):  # of Linux alone: proc(5), clear_refs
        Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
