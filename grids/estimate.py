"""How long cells take, from what records say of this device; never from anything else."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from math import ceil
from typing import Any

from engine.config import Config
from engine.console import duration
from engine.data.load import HELD_OUT
from engine.records.schema import Record
from engine.training.recipe import RECIPES, default_epochs
from grids.cells import Cell, key_of


@dataclass(frozen=True)
class Estimate:
    """How long a cell will take."""

    seconds: float
    basis: str  # "seeds", "folds" or "speeds"


class Speeds:
    """What is known of runs on one device; grows with every record that is added."""

    def __init__(self, device_name: str | None, records: Iterable[Record] = ()) -> None:
        self._device_name = device_name
        self._seconds: defaultdict[str, list[float]] = defaultdict(list)
        self._rates: defaultdict[tuple[Any, ...], list[tuple[float, float]]] = defaultdict(list)
        self._epochs: defaultdict[tuple[Any, ...], list[int]] = defaultdict(list)
        self._counts: dict[tuple[Any, ...], Mapping[str, float]] = {}
        self._around: list[float] = []
        for record in records:
            self.add(record)

    def add(self, record: Record) -> None:
        """Take in a record; of one that is not done, its counts alone."""
        try:
            config, dataset, costs = record["config"], record["dataset"], record["costs"]
            self._counts[_about(dataset["key"], config)] = dataset["counts"]
            if record["status"] != "done":
                return
            self._epochs[_recipe(config)].append(costs["epochs"])
            if record["plan"]["device_name"] != self._device_name:
                return
            rates = (costs["train_images_per_second"], costs["test_images_per_second"])
            if min(rates) <= 0:
                return
            self._rates[_model(config)].append(rates)
            # computed where the run was interrupted, and may have lain there
            evaluated = dataset["counts"]["val"] * costs["epochs"] + dataset["counts"]["test"]
            alone = costs["train_seconds"] + evaluated / rates[1]
            seconds = float(alone) if record["resumed"] else max(wall(record), 1.0)
            self._seconds[_but_for_seed(dataset["key"], dataset["version"], config)].append(seconds)
        except (KeyError, TypeError, ValueError, ZeroDivisionError):  # of another version
            return

    def add_around(self, record: Record, seconds: float) -> None:
        """Take in what a process of so many seconds took beside its record's: its start, reading, decoding."""
        with suppress(TypeError, ValueError):  # of a record that does not say when
            if not record["resumed"]:
                self._around.append(max(seconds - wall(record), 0.0))

    def estimate(self, cell: Cell) -> Estimate | None:
        """How long `cell` takes; None where nothing was measured that tells."""
        estimate = self._estimate(cell)
        around = statistics.median(self._around) if self._around else 0.0
        return estimate and replace(estimate, seconds=estimate.seconds + around)

    def train_images_per_second(self, cell: Cell) -> float | None:
        """The median of recorded trainings of its backbone at its size, from end to end; None: there are none."""
        rates = self._rates.get(_model(vars(cell.config)))
        return statistics.median(train for train, _ in rates) if rates else None

    def _estimate(self, cell: Cell) -> Estimate | None:
        config = vars(cell.config)
        if seconds := self._seconds.get(_but_for_seed(cell.dataset.key, cell.dataset.version, config)):
            return Estimate(statistics.median(seconds), "folds" if cell.config.folds else "seeds")
        counts, rates = self._counts_of(cell), self._rates.get(_model(config))
        if counts is None or not rates:
            return None
        epochs = self._epochs_of(cell.config, ceil(counts["train"] / max(1, cell.config.batch_size)))
        if not epochs:
            return None
        train_rate, test_rate = (statistics.median(column) for column in zip(*rates, strict=True))
        evaluated = counts["val"] * epochs + counts["test"]
        return Estimate(counts["train"] * epochs / train_rate + evaluated / test_rate, "speeds")

    def _counts_of(self, cell: Cell) -> Mapping[str, float] | None:
        """Images of the cell's parts."""
        config, dataset = cell.config, cell.dataset
        if same := self._counts.get(_about(dataset.key, vars(config))):
            return same
        whole = self._counts.get(_about(dataset.key, vars(replace(config, shots=None, fraction=None))))
        if not whole and (not dataset.expected(config.protocol) or config.allow_partial):
            return None
        known = whole or {"available": dataset.train_images, "test": dataset.test_images}
        train, test = float(known["available"]), float(known["test"])
        if config.shots:
            train = min(train, float(config.shots * dataset.classes)) if dataset.classes else train
        elif config.fraction:
            train *= config.fraction
        val = test if config.protocol == "paper" else HELD_OUT * train
        return {"train": train if config.protocol == "paper" else train - val, "val": val, "test": test}

    def _epochs_of(self, config: Config, steps: int) -> float | None:
        """Return the epochs of all stages and trials: the recorded runs' median, else what the command bounds."""
        from engine.training.lr_sweep import FACTORS, trial_epochs

        stages = len(RECIPES[config.recipe].stages)
        bound = config.epochs or default_epochs(config.recipe, steps)
        recorded = self._epochs.get(_recipe(vars(config)))
        fixed = config.patience is None
        epochs = statistics.median(recorded) if recorded and not fixed else bound and bound * stages
        if epochs and config.lr_sweep:
            epochs += len(FACTORS) * trial_epochs(bound) * stages
        return epochs


def _but_for_seed(dataset: str, version: str, config: Mapping[str, Any]) -> str:
    return key_of(dataset, version, {**config, "seed": 0, "fold": None})


def _about(dataset: str, config: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a part's size depends on."""
    budget = (config.get("shots"), config.get("fraction"))
    return (dataset, config["protocol"], *budget, config.get("folds"), config["allow_partial"])


def _model(config: Mapping[str, Any]) -> tuple[Any, ...]:
    """What images a second depend on, beside the device."""
    return (config["model"], tuple(config["size"]), config["tune"])


def _recipe(config: Mapping[str, Any]) -> tuple[Any, ...]:
    return (config["recipe"], config["epochs"], config["patience"])


def latest_device(records: Iterable[Record]) -> str | None:
    """What the device of the run is called that was done last; None: there is none."""
    done = [record for record in records if record["status"] == "done"]
    latest = max(done, key=lambda record: str(record.get("finished")), default=None)
    name = (latest or {}).get("plan", {}).get("device_name")
    return name if isinstance(name, str) else None


def wall(record: Record) -> float:
    """Seconds from a run's beginning to its end. ValueError, TypeError: its record does not say when."""
    started, finished = (datetime.fromisoformat(str(time)) for time in (record["started"], record["finished"]))
    return (finished - started).total_seconds()


def total(estimates: Iterable[Estimate | None], at_once: int) -> str:
    """What all of them take together, `at_once` at a time, and what that rests on."""
    given = list(estimates)
    known = [estimate for estimate in given if estimate is not None]
    if not known:
        return "not measured yet" if given else "nothing"
    words = []
    for basis, what in {"seeds": "other seeds", "folds": "other folds", "speeds": "recorded speeds"}.items():
        if count := sum(estimate.basis == basis for estimate in known):
            words.append(f"{count:,} from {what}")
    if unknown := len(given) - len(known):
        words.append(f"{unknown:,} never measured and not counted")
    seconds = max(sum(each.seconds for each in known) / at_once, *(each.seconds for each in known))
    return f"about {duration(seconds)} ({', '.join(words)})"
