"""How long cells take, from what records say of this device; never from anything else."""

from __future__ import annotations

import statistics
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from math import ceil, exp, log, sqrt
from operator import itemgetter
from typing import Any, TypeVar

from engine.config import FLAGS
from engine.data.load import HELD_OUT
from engine.records.schema import Record
from engine.training.recipe import RECIPES, default_epochs, epochs_of_all
from grids.cells import Cell, key_of
from grids.forecast import OWN, Estimate, pooled, total
from grids.work import work_of

__all__ = ["Estimate", "Speeds", "total", "wall"]

# What is taken for a standard deviation of a logarithm until records tell: docs/scale.md says where it is from.
LEAST = 0.05  # what records of one day can't tell of another, at least
SAME_RUN = 0.15  # the time of runs that differ in their seed alone, or the speed of one backbone
EPOCHS = 0.2  # epochs until patience ends a run, on one dataset
OTHER_EPOCHS = 0.35  # likewise, on another dataset
OTHER_SIZE = 0.25  # the speed, less what is counted, of one backbone at several sizes
OTHER_BACKBONE = 0.35  # likewise, of several backbones at one size
JUST_NOW, DISTURBED = 0.25, 0.6  # the speed of a few steps, as that of a run; where others were at work meanwhile

TRAINING_PASSES = 3  # a backward pass costs two forward passes
MOST_PATIENCE = 3.0  # times the epochs that patience alone makes: what a run that it ends is taken to last at most

Rates = tuple[float, float]  # images a second of training and of testing
Errors = tuple[tuple[str, float], ...]
Made = TypeVar("Made")


@dataclass(frozen=True)
class _Speed:
    """Images a second, and how well that is known."""

    rates: Rates
    basis: str
    errors: Errors


class Speeds:
    """What is known of runs on one device; grows with every record that is added.

    start_seconds: what a cell's process takes beside its run, until one has been seen.
    """

    def __init__(self, device_name: str | None, records: Iterable[Record] = (), start_seconds: float = 0.0) -> None:
        self._device_name = device_name
        self._seconds: defaultdict[str, list[float]] = defaultdict(list)
        self._rates: defaultdict[tuple[Any, ...], list[Rates]] = defaultdict(list)
        self._now: dict[tuple[Any, ...], Rates] = {}
        self._disturbed = False  # any of these
        self._batches: dict[tuple[Any, ...], int] = {}  # how many images a step had, last
        self._epochs: defaultdict[tuple[Any, ...], defaultdict[str, list[float]]]
        self._epochs = defaultdict(lambda: defaultdict(list))
        self._counts: dict[tuple[Any, ...], Mapping[str, float]] = {}
        self.parameters: dict[str, int] = {}  # of recorded backbones, with heads of any number of classes
        self._beside: list[float] = []  # seconds of runs beside training and evaluation
        self._around: list[float] = []
        self._start_seconds = start_seconds
        self._found: dict[Any, Any] = {}  # until more is known
        for record in records:
            self.add(record)

    def add(self, record: Record) -> None:
        """Take in a record; of one that is not done, its counts alone."""
        self._found.clear()
        try:
            config, dataset, costs = record["config"], record["dataset"], record["costs"]
            self._counts[_about(dataset["key"], config)] = dataset["counts"]
            if parameters := costs.get("parameters"):
                self.parameters[config["model"]] = parameters
            if record["status"] != "done":
                return
            self._epochs[_recipe(config)][dataset["key"]].append(float(costs["epochs"]))
            if record["plan"]["device_name"] != self._device_name:
                return
            rates = (costs["train_images_per_second"], costs["test_images_per_second"])
            if min(rates) <= 0:
                return
            self._rates[_model(config)].append(rates)
            self._batches[_model(config)] = config["batch_size"]
            # computed where the run was interrupted, and may have lain there
            evaluated = dataset["counts"]["val"] * costs["epochs"] + dataset["counts"]["test"]
            alone = float(costs["train_seconds"] + evaluated / rates[1])
            seconds = alone if record["resumed"] else max(wall(record), 1.0)
            self._seconds[_but_for_seed(dataset["key"], dataset["version"], config)].append(seconds)
            if not record["resumed"]:
                self._beside.append(max(seconds - alone, 0.0))
        except (KeyError, TypeError, ValueError, ZeroDivisionError):  # of another version
            return

    def add_around(self, record: Record, seconds: float) -> None:
        """Take in what a process of so many seconds took beside its record's: its start, reading, decoding."""
        self._found.clear()
        with suppress(TypeError, ValueError):  # of a record that does not say when
            if not record["resumed"]:
                self._around.append(max(seconds - wall(record), 0.0))

    def add_now(self, cell: Cell, train_images_per_second: float, disturbed: bool) -> None:
        """Take in what a few training steps as those of `cell` have just reached, and whether others disturbed them."""
        self._found.clear()
        self._disturbed |= disturbed
        key = _model(vars(cell.config))
        self._now[key] = (train_images_per_second, TRAINING_PASSES * train_images_per_second)
        self._batches[key] = cell.config.batch_size

    def add_counts(self, cell: Cell, counts: Mapping[str, int]) -> None:
        """Take in how many images of a folder of the user's own there are, where no record says: DiskState's counts."""
        config = replace(cell.config, shots=None, fraction=None)
        own, folds = counts["val"], cell.config.folds
        train, test = float(counts["train"]), float(counts["test"])
        if folds:
            train, test = (train + test + own) * (1 - 1 / folds), (train + test + own) / folds
        val = test if config.protocol == "paper" else float(own) if own and not folds else HELD_OUT * train
        trained = train if own or config.protocol == "paper" else train - val
        found = {"available": train, "train": trained, "val": val, "test": test, "classes": float(counts["classes"])}
        if self._counts.setdefault(_about(cell.dataset.key, vars(config)), found) is found:
            self._found.clear()

    def estimate(self, cell: Cell) -> Estimate | None:
        """How long `cell` takes; None where nothing was measured that tells.

        Computed once for all cells that it is the same for, until more is known.
        """
        return self._once(_same(cell), lambda: self._with_start(self._estimate(cell)))

    def knows(self, cell: Cell) -> bool:
        """Whether any speed was recorded of what is trained as `cell`'s backbone is."""
        return any(key[-1] == cell.config.tune for key in self._rates)

    def train_images_per_second(self, cell: Cell) -> float | None:
        """The median of recorded trainings of its backbone at its size, from end to end; None: there are none."""
        rates = self._rates.get(_model(vars(cell.config)))
        return statistics.median(train for train, _ in rates) if rates else None

    def _once(self, key: Any, make: Callable[[], Made]) -> Made:
        if key not in self._found:
            self._found[key] = make()
        found: Made = self._found[key]
        return found

    def _with_start(self, estimate: Estimate | None) -> Estimate | None:
        around = statistics.median(self._around) if self._around else self._start_seconds
        return estimate and replace(estimate, seconds=estimate.seconds + around)

    def _estimate(self, cell: Cell) -> Estimate | None:
        config = vars(cell.config)
        same = _but_for_seed(cell.dataset.key, cell.dataset.version, config)
        if seconds := self._seconds.get(same):
            spread = self._spread("seconds", self._seconds.values(), SAME_RUN)
            errors: Errors = (("this machine", self._rate_spread), (same, spread / sqrt(len(seconds))), (OWN, spread))
            return Estimate(statistics.median(seconds), "folds" if cell.config.folds else "seeds", errors)
        counts = self._counts_of(cell)
        key, batch = _model(config), cell.config.batch_size
        speed = self._once(("speed", key, batch), lambda: self._speed(key, batch)) if counts else None
        if counts is None or speed is None:
            return None
        epochs, errors, bounds = self._epochs_of(cell, ceil(counts["train"] / max(1, cell.config.batch_size)))
        evaluated = counts["val"] * epochs + counts["test"]
        seconds_of_run = counts["train"] * epochs / speed.rates[0] + evaluated / speed.rates[1]
        beside = statistics.median(self._beside) if self._beside else 0.0
        return Estimate(seconds_of_run + beside, speed.basis, (*speed.errors, *errors), bounds)

    def _speed(self, key: tuple[Any, ...], batch_size: int) -> _Speed | None:
        """Of a backbone at a size: as recorded, as just measured, or from others by the work of a step."""
        name = f"{key[0]} at {key[1]}"
        if rates := self._rates.get(key):
            train, test = (statistics.median(column) for column in zip(*rates, strict=True))
            own = (name, self._rate_spread / sqrt(len(rates)))
            return _Speed((train, test), "speeds", (("this machine", self._rate_spread), own))
        measured = (("this machine", DISTURBED if self._disturbed else JUST_NOW),)
        if now := self._now.get(key):
            return _Speed(now, "now", measured)
        known = {**self._now, **{other: _medians(rates) for other, rates in self._rates.items()}}
        works = {other: work_of(other[0], other[1], self._batches[other]) for other in known if other[-1] == key[-1]}
        near = {other: each for other, each in works.items() if each}
        work = work_of(key[0], key[1], batch_size) if near else None
        if not work:
            return None
        same = [other for other in near if other[0] == key[0]]
        distance = {other: abs(log(_area(other) / _area(key))) for other in same or near}
        chosen = [other for other, each in distance.items() if each == min(distance.values())]
        # images a second, for each unit of work
        logs = [[log(rate * near[other]) for rate in known[other]] for other in chosen]
        train, test = (exp(statistics.fmean(column)) / work for column in zip(*logs, strict=True))
        of_machine = measured if set(chosen) & self._now.keys() else (("this machine", self._rate_spread),)
        if same:
            return _Speed((train, test), "sizes", (*of_machine, (name, OTHER_SIZE)))
        spread = pooled([[exp(train_log) for train_log, _ in logs]], OTHER_BACKBONE)
        of_others = ("other backbones", spread / sqrt(len(logs)))
        return _Speed((train, test), "backbones", (*of_machine, of_others, (name, spread)))

    @property
    def _rate_spread(self) -> float:
        """How much the speed of one backbone at one size varies, as others on the machine make it: for all alike."""
        trains = [[train for train, _ in rates] for rates in self._rates.values()]
        return max(self._spread("rates", trains, SAME_RUN), LEAST)

    def _spread(self, name: str, groups: Iterable[Sequence[float]], usual: float) -> float:
        """The standard deviation of logarithms within groups, pooled, towards what is usual where there are few."""
        return self._once(name, lambda: pooled(groups, usual))

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
            train = min(train, config.shots * (dataset.classes or known.get("classes", train)))
        elif config.fraction:
            train *= config.fraction
        val = test if config.protocol == "paper" else HELD_OUT * train
        return {"train": train if config.protocol == "paper" else train - val, "val": val, "test": test}

    def _epochs_of(self, cell: Cell, steps: int) -> tuple[float, Errors, tuple[float, float] | None]:
        """The epochs of all stages and trials, how well they are known, and the bounds that were guessed between."""
        from engine.training.lr_sweep import FACTORS, trial_epochs

        config, recipe = cell.config, _recipe(vars(cell.config))
        stages = len(RECIPES[config.recipe].stages)
        limit = config.epochs or default_epochs(config.recipe, steps)
        errors: Errors = ()
        bounds = None
        recorded: Mapping[str, list[float]] = self._epochs.get(recipe, {})
        if config.patience is None:
            epochs = float(epochs_of_all(config.recipe, limit or 0))
        elif recorded:
            own = recorded.get(cell.dataset.key)
            values = own or [each for of_dataset in recorded.values() for each in of_dataset]
            groups, usual = (recorded.values(), EPOCHS) if own else ([values], OTHER_EPOCHS)
            spread = self._spread(f"epochs {recipe} {bool(own)}", groups, usual)
            epochs = statistics.median(values)
            source = f"epochs {recipe} {cell.dataset.key if own else ''}"
            errors = ((source, spread / sqrt(len(values))), (OWN, spread))
        else:
            low, high = _bounds(config.patience + 1, limit, stages)
            epochs = sqrt(low * high)
            if high > low:
                errors, bounds = ((f"epochs {recipe}", log(high / low) / 2 / 1.28),), (low, high)
        if epochs and config.lr_sweep:
            epochs += len(FACTORS) * epochs_of_all(config.recipe, trial_epochs(limit))
        return epochs, errors, bounds


def _bounds(fewest: int, limit: int | None, stages: int) -> tuple[float, float]:
    """Epochs of all stages that patience ends: as if the first alone brought a gain, and MOST_PATIENCE times that."""
    low, high = (min(each, limit or each) for each in (float(fewest), MOST_PATIENCE * fewest))
    return low * stages, high * stages


def _medians(rates: Sequence[Rates]) -> Rates:
    return statistics.median(train for train, _ in rates), statistics.median(test for _, test in rates)


def _area(key: tuple[Any, ...]) -> int:
    height, width = key[1]
    return int(height) * int(width)


_ALL_BUT_SEED = itemgetter(*(name for name in FLAGS if name not in ("seed", "fold")))


def _same(cell: Cell) -> tuple[Any, ...]:
    """What an estimate depends on: of a cell, all but its seed and its fold."""
    dataset = cell.dataset
    return (dataset.key, dataset.version, dataset.own_folder, *_ALL_BUT_SEED(vars(cell.config)))


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
