"""How long cells take, from what records and remembered plans say of this device; never from anything else."""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from functools import cache
from math import ceil
from pathlib import Path
from typing import Any

import torch
from torch import nn

from common import BACKBONES
from engine.config import Config
from engine.data.load import HELD_OUT
from engine.data.locate import user_cache
from engine.errors import UserError
from engine.training.autotune import finding_path, remembered
from engine.training.lr_sweep import EPOCHS, FACTORS, SHARE
from engine.training.plan import Plan, choose_plan
from engine.training.recipe import make_recipe
from grids.cells import SCRIPTS, Cell, key_of

Record = Mapping[str, Any]

FORWARD = 3.0  # times as fast as a training step, whose backward pass takes two forward passes' work


@dataclass(frozen=True)
class Estimate:
    """Of one cell."""

    seconds: float
    basis: str  # "seeds", "speeds" or "plans"


@dataclass(frozen=True)
class Counts:
    """Images of a run's parts; `train` are fit and select, before a budget takes some of them."""

    train: float
    fit: float
    select: float
    test: float


class Speeds:
    """What is known of runs on one device; grows with every record that is added."""

    def __init__(self, device_name: str | None) -> None:
        self._device_name = device_name
        self._seconds: defaultdict[str, list[float]] = defaultdict(list)
        self._rates: defaultdict[tuple[Any, ...], list[tuple[float, float]]] = defaultdict(list)
        self._epochs: defaultdict[tuple[Any, ...], list[int]] = defaultdict(list)
        self._counts: dict[tuple[Any, ...], Mapping[str, int]] = {}
        self._around: list[float] = []

    def add(self, record: Record) -> None:
        """Take in a record; of one that is not done, its counts alone."""
        try:
            config, counts = record["config"], record["dataset"]["counts"]
            about = _about(record["dataset"]["key"], config)
            self._counts[about] = counts
            if record["status"] != "done":
                return
            epochs = record["selection"]["epochs"]
            self._epochs[_course(config)].append(epochs)
            if record["plan"]["device_name"] != self._device_name:
                return
            rates = (record["costs"]["train_images_per_second"], record["costs"]["test_images_per_second"])
            self._rates[_model(config)].append(rates)
            self._seconds[_without_seed(record["dataset"], config)].append(_took(record, rates[1], epochs))
        except (KeyError, TypeError, ValueError):  # of another version
            return

    def add_around(self, record: Record, seconds: float) -> None:
        """Take in what a process of so many seconds took beside its record's: its start, reading, decoding."""
        if not record["resumed"] and record["finished"]:
            self._around.append(max(seconds - _wall(record), 0.0))

    def estimate(self, cell: Cell) -> Estimate | None:
        """How long `cell` takes; None where nothing was measured that tells."""
        found = self._estimate(cell)
        around = statistics.median(self._around) if self._around else 0.0
        return found and replace(found, seconds=found.seconds + around)

    def _estimate(self, cell: Cell) -> Estimate | None:
        config = vars(cell.config)
        dataset = {"key": cell.dataset.key, "version": cell.dataset.version}
        if seconds := self._seconds.get(_without_seed(dataset, config)):
            return Estimate(statistics.median(seconds), "seeds")
        counts = self._counts_of(cell)
        if counts is None:
            return None
        batch_size = max(1, min(cell.config.batch_size, int(counts.fit)))
        epochs = self._epochs_of(cell.config, ceil(counts.fit / batch_size))
        if not epochs:
            return None
        basis, rates = "speeds", self._rates.get(_model(config))
        if not rates and self._device_name:
            same = replace(cell.config, seed=0, data_dir=Path(), cache_dir=Path(), shots=None, fraction=None)
            basis, rates = "plans", planned_rates(same, batch_size, self._device_name)
        if not rates:
            return None
        train_rate, test_rate = (statistics.median(column) for column in zip(*rates, strict=True))
        seconds = counts.fit * epochs / train_rate + (counts.select * epochs + counts.test) / test_rate
        return Estimate(seconds, basis)

    def _counts_of(self, cell: Cell) -> Counts | None:
        config, dataset = cell.config, cell.dataset
        if same := self._counts.get(_about(dataset.key, vars(config))):
            return Counts(same["train"], same["fit"], same["select"], same["test"])
        whole = self._counts.get(_about(dataset.key, vars(replace(config, shots=None, fraction=None))))
        if whole:
            train, test = float(whole["fit"] + whole["select"]), float(whole["test"])
        elif dataset.own or config.allow_partial:
            return None
        else:
            train, test = (float(images) for images in (dataset.train_images, dataset.test_images))
        if config.shots:
            train = min(train, float(config.shots * dataset.classes)) if dataset.classes else train
        elif config.fraction:
            train *= config.fraction
        if config.protocol == "paper":
            return Counts(train, train, test, test)
        select = HELD_OUT * train
        return Counts(train, train - select, select, test)

    def _epochs_of(self, config: Config, steps: int) -> float | None:
        """Of all stages, and of the trials of a sweep: the recorded runs' median, else what the command bounds."""
        course = make_recipe(config, 0.0, steps)
        recorded = self._epochs.get(_course(vars(config)))
        bound = course.epochs * len(course.stages) if course.epochs else None
        fixed = course.patience is None
        epochs = bound if fixed or not recorded else statistics.median(recorded)
        if epochs and config.lr_sweep:
            trial = max(1, course.epochs // SHARE) if course.epochs else EPOCHS
            epochs += len(FACTORS) * trial * len(course.stages)
        return epochs


def _without_seed(dataset: Mapping[str, Any], config: Mapping[str, Any]) -> str:
    return key_of(dataset["key"], dataset["version"], {**config, "seed": None})


def _about(dataset: str, config: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a part's size depends on."""
    return (dataset, config["protocol"], config.get("shots"), config.get("fraction"), config["allow_partial"])


def _model(config: Mapping[str, Any]) -> tuple[Any, ...]:
    """What images a second depend on, beside the device."""
    return (config["model"], tuple(config["size"]), config["tune"])


def _course(config: Mapping[str, Any]) -> tuple[Any, ...]:
    return (config["recipe"], config["epochs"], config["patience"])


def _took(record: Record, test_rate: float, epochs: int) -> float:
    """Seconds from the first epoch to the end; computed where the run was interrupted, and may have lain there."""
    if not record["resumed"]:
        return max(_wall(record), 1.0)
    counts = record["dataset"]["counts"]
    evaluated = counts["select"] * epochs + counts["test"]
    return float(record["costs"]["train_seconds"] + evaluated / test_rate)


def _wall(record: Record) -> float:
    started, finished = (datetime.fromisoformat(record[name]) for name in ("started", "finished"))
    return (finished - started).total_seconds()


def kind_of(device: str) -> str:
    """The device that `--device` means here: "cuda", "mps" or "cpu". UserError: there is none of the kind."""
    there = {"cuda": torch.cuda.device_count() > 0, "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        return next(kind for kind, available in there.items() if available)
    if not there[device]:
        raise UserError(
            f"--device {device}: there is none here, only {' and '.join(k for k, yes in there.items() if yes)}."
        )
    return device


@cache
def device_name(device: str, visible: str | None) -> str | None:
    """What records call the device ("cuda", "cpu" or "mps"); None where it does not say.

    `visible`: the first card that may be used. Another process asks for a card's name: asking makes a context in the
    card's memory, which lasts as long as the process.
    """
    if device != "cuda":
        return choose_plan(device, "fp32").device_name
    code = "from engine.training.plan import choose_plan; print(choose_plan('cuda', 'fp32').device_name)"
    environment = {**os.environ, **({} if visible is None else {"CUDA_VISIBLE_DEVICES": visible})}
    try:
        answer = subprocess.run(  # noqa: S603 (its own code)
            [sys.executable, "-c", code], cwd=SCRIPTS, env=environment, capture_output=True, text=True, timeout=300
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None


def _built(model: str) -> tuple[nn.Module, nn.Module]:
    """The backbone and its head, for the names of remembered plans, which count parameters."""
    try:
        with torch.device("meta"):
            built = BACKBONES[model].builder()
    except NotImplementedError:  # its builder computes with tensors
        built = BACKBONES[model].builder()
    return built, built.get_submodule(BACKBONES[model].head)


@cache
def planned_rates(config: Config, batch_size: int, name: str) -> list[tuple[float, float]]:
    """Images a second, (training, evaluation), of the plan that is remembered of this backbone, size and device."""
    folder = user_cache() / "plans"
    if config.plan == "off" or not any(folder.glob(f"{config.model}-*.json")):
        return []
    plan = Plan(kind_of(config.device), name, config.precision, "")
    finding = remembered(finding_path(plan, *_built(config.model), batch_size, config))
    if finding is None or finding.step_seconds <= 0:
        return []
    rate = batch_size / finding.step_seconds
    return [(rate, rate * FORWARD)]


def total(estimates: Iterable[Estimate | None], at_once: int) -> str:
    """What all of them take together, `at_once` at a time, and what that rests on."""
    given = list(estimates)
    known = [estimate for estimate in given if estimate is not None]
    unknown = len(given) - len(known)
    if not known:
        return "not measured yet" if given else "nothing"
    bases = {"seeds": "other seeds", "speeds": "recorded speeds", "plans": "remembered plans"}
    words = []
    for basis, what in bases.items():
        if count := sum(estimate.basis == basis for estimate in known):
            words.append(f"{count:,} from {what}")
    if unknown:
        words.append(f"{unknown:,} never measured and not counted")
    seconds = max(sum(each.seconds for each in known) / at_once, *(each.seconds for each in known))
    return f"about {duration(seconds)} ({', '.join(words)})"


def duration(seconds: float) -> str:
    """For people: 45 s, 12 min, 3.2 h."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 5400 else f"{seconds / 3600:.1f} h"
