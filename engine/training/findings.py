"""What a measurement found out about a backbone on a machine, and where it is remembered for later runs."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from math import inf
from pathlib import Path

import torch
from torch import nn

from engine.console import say
from engine.data.batches import Batches
from engine.environment import versions
from engine.files import read_json, write_json
from engine.models.names import folder_name
from engine.paths import user_cache
from engine.training.plan import DTYPES, LAYOUTS, Plan

LARGEST = 1 << 16  # bytes of a result's file
KEPT = 0.5  # of the promised speed: a run that falls below says so


@dataclass(frozen=True)
class TuningRequest:
    """What is to be trained, and what the command line leaves open."""

    backbone: str  # its name
    head: str  # the dotted name of its last layer
    tune: str  # "full" or "linear"
    precision: str  # as asked for: "auto" leaves it open
    compile: str  # "auto", "on" or "off"
    measure: bool
    epochs: int = 1  # that the run is sure to last
    seeds: int = 1  # runs like this one that follow, itself included
    usual: str = ""  # the form that is usually the fastest, which decides where the clock does not


@dataclass(frozen=True)
class TuningResult:
    """What is remembered of a backbone on a machine."""

    precision: str
    layout: str
    micro_batch: int | None
    memory: str | None
    reason: str
    step_seconds: float  # of a whole batch; on a CPU, as many times that of an image as it has
    threads: int = 1
    graphed: bool = False
    compile_gain: float | None = None  # a step's time over that of a compiled one; None: not tried

    def plan(self, plan: Plan, batch_size: int) -> Plan:
        """`plan` in the form that was found fastest, with what it promises."""
        names = ["precision", "layout", "micro_batch", "memory", "reason", "graphed"]
        # of a card's steps they are no part: the run has its own
        names += ["threads"] * (plan.device == "cpu")
        form = {name: getattr(self, name) for name in names}
        return replace(plan, **form, images_per_second=batch_size / self.step_seconds)

    @property
    def usable(self) -> bool:
        """Whether it is a finding to go by again, if it comes from a file that may have been damaged."""
        gain = 1.0 if self.compile_gain is None else self.compile_gain
        numbers = 0 < self.step_seconds < inf and 0 < gain < inf
        threads = type(self.threads) is int and 0 < self.threads < 1 << 16
        known = self.precision in DTYPES and self.layout in LAYOUTS and self.reason.isprintable()
        # where memory was short, there may be more of it another time
        whole = self.micro_batch is None and self.memory is None
        return known and numbers and threads and whole and isinstance(self.graphed, bool)


def result_path(plan: Plan, model: nn.Module, size: tuple[int, int], batch_size: int, request: TuningRequest) -> Path:
    """Where a result is remembered, by all that it depends on: not the number of classes, so that datasets share it.

    Of `plan`, the device and its name count; of the model and its head, how many parameters they have.
    """
    body, head = (
        sum(parameter.numel() for parameter in module.parameters())
        for module in (model, model.get_submodule(request.head))
    )
    parts = {
        "model": [request.backbone, body - head],
        "trained": request.tune,
        "size": size,
        "batch_size": batch_size,
        "device": [plan.device, plan.device_name],
        "precision": request.precision,
        "versions": [*versions().values(), torch.version.cuda],
        "form": 2,  # of what is measured and remembered
    }
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
    return user_cache() / "plans" / f"{folder_name(request.backbone)}-{digest}.json"


def remembered(path: Path) -> TuningResult | None:
    """The result in that file; None where there is none that can be used."""
    try:
        result = TuningResult(**read_json(path, LARGEST))
        return result if result.usable else None
    # none, or not one of ours: measured anew
    except (OSError, ValueError, TypeError, AttributeError, OverflowError):
        return None


def remember(path: Path, result: TuningResult) -> None:
    """Keep a result for later runs, where the cache folder can be written to."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, asdict(result))
    except OSError:  # measured anew each time
        pass


def promise_of(plan: Plan, model: nn.Module, train: Batches, request: TuningRequest) -> Callable[[float | None], None]:
    """What to tell of a run's first epoch: its images/s of compute, None where it was too short to say.

    A run that is far slower than its plan promised says so, and what was found is forgotten, so that the next run
    measures anew; this one keeps its plan, which is part of its numbers.
    """
    path = result_path(plan, model, train.size, train.batch_size, request)

    def compare(found: float | None) -> None:
        promised = plan.images_per_second
        if found is None or promised is None or found >= KEPT * promised:
            return
        with suppress(OSError):  # a cache folder that can't be written to
            path.unlink(missing_ok=True)
        say(
            f"note: {found:,.1f} images/s, where {promised:,.1f} were measured for the plan: are others at work here?\n"
            "This run keeps its plan. The next one measures anew, and so does this one with --rerun, unless it follows "
            "the plan of another seed.",
            go_on=True,
        )

    return compare
