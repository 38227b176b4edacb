"""A cluster that is not there: places that cells run on in a time of their own, with failures. For scheduler.py.

The grid is the real one, with its locks, records and failures on the disk; what a process would do is drawn at random.
"""

from __future__ import annotations

import heapq
import json
import os
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta, timezone
from pathlib import Path
from random import Random
from typing import Any

from engine.data.load import HELD_OUT
from engine.records.schema import RECORD
from grids.cells import Cell
from grids.places import Clock, Places, Work

BEGINNING = datetime(2026, 1, 1, tzinfo=timezone.utc)
DEVICE_NAME = "a card that is not there"
# images a second in training at 256 x 256, of an H100: shared/performance.md, section 8, from timm's figures of an RTX
# 3090 times 3.4; of wavemix and shufflenet, which timm lacks, batches of 64 by the time that their launches take
IMAGES_PER_SECOND = {
    "resnet": 3200,
    "wavemix": 1500,
    "convnext": 2100,
    "swin": 1700,
    "swinv2": 1200,
    "efficientnet": 2400,
    "densenet": 1000,
    "mobilenet": 7100,
    "regnet": 1800,
    "resnext": 2600,
    "shufflenet": 4900,
}
TEST_AS_FAST = 3  # as training: no backward pass
BROKEN = "RuntimeError: CUDA error: an illegal memory access was encountered"


@dataclass(frozen=True)
class Assumed:
    """What is assumed of the cells and of the cluster. Spreads are standard deviations of logarithms."""

    start_seconds: float = 45.0  # of a process: imports, the decoded images, the plan
    epochs: float = 40.0  # of both stages
    other_dataset: float = 0.35  # spread of epochs over datasets
    other_run: float = 0.2  # spread of epochs over backbones and seeds
    speed: float = 0.15  # spread of images a second over runs
    failures_per_card_hour: float = 0.0  # after which the cell can be resumed on any card
    node_losses_per_hour: float = 0.0  # of one node
    node_away_seconds: float = 3600.0
    broken_seconds: float = 10.0  # that a cell lasts on a broken card
    decoded_per_second: float = 0.0  # images, by a node, once for each dataset, while others wait; 0: they are there


def _drawn(seed: int | str) -> Random:
    return Random(seed)  # noqa: S311 (no secret hangs on it)


class Lengths:
    """How long the cells of a grid really take."""

    def __init__(self, assumed: Assumed, seed: int) -> None:
        self.assumed, self._seed = assumed, seed

    def epochs(self, cell: Cell) -> int:
        """Until patience ends the run."""
        by_dataset = _drawn(f"{self._seed} {cell.place}").lognormvariate(0, self.assumed.other_dataset)
        by_run = _drawn(f"{self._seed} {cell.id} epochs").lognormvariate(0, self.assumed.other_run)
        return max(2, round(self.assumed.epochs * by_dataset * by_run))

    def images_per_second(self, cell: Cell) -> float:
        """In training."""
        height, width = cell.config.size
        varies = _drawn(f"{self._seed} {cell.id} speed").lognormvariate(0, self.assumed.speed)
        return IMAGES_PER_SECOND[cell.config.model] * 256 * 256 / (height * width) * varies

    def images(self, cell: Cell) -> dict[str, int]:
        """Of each part."""
        val = round(HELD_OUT * cell.dataset.train_images)
        return {
            "available": cell.dataset.train_images,
            "train": cell.dataset.train_images - val,
            "val": val,
            "test": cell.dataset.test_images,
        }

    def seconds(self, cell: Cell) -> float:
        """Of training and testing, without the start."""
        images, epochs, rate = self.images(cell), self.epochs(cell), self.images_per_second(cell)
        passes = images["train"] * epochs + (images["val"] * epochs + images["test"]) / TEST_AS_FAST
        return passes / rate


class VirtualClock(Clock):
    """Sleeps until the next thing happens."""

    def __init__(self) -> None:
        self.time = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._number = 0

    def now(self) -> float:
        return self.time

    def at(self, when: float, act: Callable[[], None]) -> None:
        """Let `act` be called then."""
        self._number += 1
        heapq.heappush(self._events, (when, self._number, act))

    def sleep(self, seconds: float) -> None:
        self.time = max(self.time + seconds, self._events[0][0] if self._events else 0.0)
        while self._events and self._events[0][0] <= self.time:
            heapq.heappop(self._events)[2]()


@dataclass
class Running:
    """A cell that would run."""

    cluster: Cluster
    cell: Cell
    where: str
    lock: int
    started: float
    ends: float
    code: int
    said: list[str] = field(default_factory=list)
    lost: bool = False
    stalled: bool = False
    stopping: int = 0
    doing: str = "epoch 1"

    @property
    def seconds(self) -> float:
        return self.cluster.clock.now() - self.started

    def watch(self, stall_seconds: float) -> int | None:
        return self.code if self.lost or self.cluster.clock.now() >= self.ends else None

    def stop(self, level: int) -> None:
        self.stopping, self.code, self.ends = level, 130, self.cluster.clock.now()

    def tail(self) -> list[str]:
        return self.said

    def close(self) -> None:
        os.close(self.lock)


class Cluster(Places):
    """Nodes of cards. broken: the names of cards on which every cell fails, and what it says."""

    def __init__(
        self, lengths: Lengths, nodes: int, cards: int, seed: int = 0, broken: dict[str, list[str]] | None = None
    ) -> None:
        self.lengths, self.clock, self._random = lengths, VirtualClock(), _drawn(seed)
        names = [[f"node {node} card {card}" for card in range(cards)] for node in range(nodes)]
        self._free = [name for card in zip(*names, strict=True) for name in card]
        self._away: set[str] = set()
        self._avoided: set[str] = set()
        self._running: dict[str, Running] = {}
        self._broken = broken or {}
        self._trained: dict[str, float] = {}  # seconds of a cell that are in its checkpoint
        self._all = frozenset(self._free)
        self.starts: Counter[str] = Counter()  # by the cell's id
        self.ended_badly: Counter[str] = Counter()  # by the card
        self.lost_seconds = 0.0  # of cards, on what was not in a checkpoint, and on starts that came to nothing
        self.losses = 0
        self._decoded: dict[tuple[str, str], float] = {}  # when the images of a dataset are there, by node and dataset
        self.waited_seconds = 0.0  # of cards, for images to be decoded
        self.measured_twice = 0  # cells that began while another seed was the first to run
        self._seeds_running: Counter[str] = Counter()
        self._seeds_done: set[str] = set()
        self.own_seconds = 0.0  # of the processor, in here
        for node in names:
            self._plan_loss(node)

    def _plan_loss(self, node: Sequence[str]) -> None:
        rate = self.lengths.assumed.node_losses_per_hour
        if rate:
            self.clock.at(self.clock.now() + 3600 * self._random.expovariate(rate), lambda: self._lose(node))

    def _lose(self, node: Sequence[str]) -> None:
        self.losses += 1
        self._away |= set(node)
        for name in node:
            if work := self._running.get(name):
                work.lost, work.code = True, -9
        self.clock.at(self.clock.now() + self.lengths.assumed.node_away_seconds, lambda: self._return(node))

    def _return(self, node: Sequence[str]) -> None:
        self._away -= set(node)
        self._plan_loss(node)

    @property
    def at_once(self) -> int:
        return len(self._all) - len(self._away | self._avoided)

    @property
    def has_room(self) -> bool:
        return any(name not in self._away and name not in self._avoided for name in self._free)

    def avoid(self, where: str) -> None:
        self._avoided.add(where)

    def readmit(self, where: str) -> None:
        self._avoided.discard(where)

    def start(self, cell: Cell, lock: int, seeds: int) -> Running:
        began = time.process_time()
        where = next(name for name in self._free if name not in self._away and name not in self._avoided)
        self._free.remove(where)
        self.starts[cell.id] += 1
        others = cell.but_for_seed
        self.measured_twice += self._seeds_running[others] > 0 and others not in self._seeds_done
        self._seeds_running[others] += 1
        now, assumed = self.clock.now(), self.lengths.assumed
        left = self.lengths.seconds(cell) - self._trained.get(cell.id, 0.0) + self._wait_for_images(cell, where)
        work = Running(self, cell, where, lock, now, now + assumed.start_seconds + left, 0)
        rate = assumed.failures_per_card_hour
        fails = now + 3600 * self._random.expovariate(rate) if rate else float("inf")
        if where in self._broken:
            work.ends, work.code, work.said = now + assumed.broken_seconds, 1, self._broken[where]
        elif fails < work.ends:
            work.ends, work.code, work.said = fails, 1, [BROKEN]
        self._running[where] = work
        self.clock.at(work.ends, lambda: None)
        self.own_seconds += time.process_time() - began
        return work

    def _wait_for_images(self, cell: Cell, where: str) -> float:
        """Seconds until they are decoded on the node, which the first cell of the dataset there begins."""
        rate, now = self.lengths.assumed.decoded_per_second, self.clock.now()
        if not rate:
            return 0.0
        images = cell.dataset.train_images + cell.dataset.test_images
        seconds = self._decoded.setdefault((where.partition(" card")[0], cell.place), now + images / rate) - now
        self.waited_seconds += max(0.0, seconds)
        return max(0.0, seconds)

    def leave(self, work: Work) -> None:
        began = time.process_time()
        assert isinstance(work, Running)
        del self._running[work.where]
        self._free.append(work.where)
        self._seeds_running[work.cell.but_for_seed] -= 1
        if work.code == 0:
            self._seeds_done.add(work.cell.but_for_seed)
            write_record(work.cell, self.lengths, self.clock.now(), was_resumed=work.cell.id in self._trained)
        else:
            self.ended_badly[work.where] += 1
            self._keep(work)
        self.own_seconds += time.process_time() - began

    def _keep(self, work: Running) -> None:
        """What was trained until its last epoch is in its checkpoint."""
        cell, seconds = work.cell, self.lengths.seconds(work.cell)
        before = self._trained.get(cell.id, 0.0)
        trained = before + max(0.0, work.seconds - self.lengths.assumed.start_seconds)
        epoch = seconds / self.lengths.epochs(cell)
        if work.where not in self._broken:
            self._trained[cell.id] = trained // epoch * epoch
        self.lost_seconds += work.seconds - (self._trained.get(cell.id, 0.0) - before)


def write_record(cell: Cell, lengths: Lengths, finished: float, was_resumed: bool = False) -> None:
    """What a run of `cell` would leave that ended at that time."""
    seconds, rate = lengths.seconds(cell), lengths.images_per_second(cell)
    times = [BEGINNING + timedelta(seconds=at) for at in (finished - seconds, finished)]
    name = f"honest-seed{cell.config.seed}-{cell.id[-8:]}"
    record: dict[str, Any] = {
        "schema": 2,
        "run": name,
        "status": "done",
        "started": times[0].isoformat(),
        "finished": times[1].isoformat(),
        "resumed": [{"environment": {}}] if was_resumed else [],
        "dataset": {
            "key": cell.dataset.key,
            "name": cell.dataset.name,
            "version": cell.dataset.version,
            "partial": False,
            "counts": lengths.images(cell),
        },
        "backbone": {"name": cell.config.model, "weights": "none", "weights_sha256": None, "weights_run": None},
        "protocol": cell.config.protocol,
        "recipe": cell.config.recipe,
        "config": cell.config.settings(),
        "plan": {"device_name": DEVICE_NAME},
        "selection": {"part": "val"},
        "test": {"top1": 0.5, "images": cell.dataset.test_images},
        "costs": {
            "epochs": lengths.epochs(cell),
            "train_images_per_second": rate,
            "test_images_per_second": TEST_AS_FAST * rate,
            "train_seconds": seconds,
        },
        "environment": {"command": list(cell.command)},
    }
    path = Path(cell.folder) / name / RECORD
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record))
