"""What a report keeps of one record."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, get_args

import numpy as np
import numpy.typing as npt

from engine.config import FLAGS, MOST_FOLDS, asked, asked_settings, in_words
from engine.models.names import MEMBER
from engine.paths import without_home
from engine.records.identity import codes_of, saw_test_images
from engine.records.printed import seen_in_words
from engine.records.schema import COSTS, ERRORS, HISTORY, PREDICTIONS, Cost, RecordError, Status, read_record
from engine.training.metrics import METRICS, Metric, of_confusion
from reporting.fields import LONGEST_PATH, number, option, shortened, text, whole
from reporting.record_row import backbone_row, row_of

FILES = (HISTORY, PREDICTIONS, ERRORS)  # of a run, that a report reads
ROUNDING = 1e-6
# what a record can say and a report still shows
MOST_CLASSES, MOST_TEST_IMAGES = 40_000, 2_000_000  # so many pairs of classes, int32 can number
MOST_NOTES, MOST_FLAGS, MOST_PACKAGES, MOST_CODES = 20, 100, 100, 20
# flags that a command names beside those that asked() does: their default is the dataset's, or they are places
BY_DATASET = ("recipe", "size", "augment")
PLACES = ("labels", "data_dir", "cache_dir", "no_cache", "tensorboard", "allow_partial")


@dataclass(frozen=True)
class Budget:
    """How many of the training images a run was given: so many of each class, a share of them, or all."""

    shots: int | None = None
    fraction: float | None = None

    def __str__(self) -> str:
        if self.shots is not None:
            return f"{self.shots} shots"
        return "all" if self.fraction is None else f"{self.fraction:g} of train"


ALL_IMAGES = Budget()


@dataclass(frozen=True)
class Fold:
    """Which part of a cross-validation a run is."""

    number: int
    of: int
    division: str  # a hash of the images and labels of every fold
    budget: Budget  # that was asked for: it can come to all images of one fold, and not of another


@dataclass(frozen=True)
class Version:
    """What must be equal for results on a dataset to be compared."""

    key: str
    version: str
    classes: tuple[str, ...]
    test_images: int
    size: tuple[int, ...]
    augment: str
    test_part: str = ""  # a hash of its images and labels; "": the record lacks it
    script: str = ""  # a hash of the dataset's script, likewise


@dataclass(frozen=True)
class Setting:
    """What must be equal for records to be ranked together: they are one comparable group."""

    protocol: str
    recipe: str
    weights: str  # their kind: imagenet, none, or a name
    flags: tuple[tuple[str, Any], ...]  # that say how it is trained, where they are not the default
    code: str = ""  # a hash of the code that all runs share; "": the record lacks it
    # which rung of rank.py's search a short run is of; "": none. Not in repr(), of which a group's name is made
    search: str = field(default="", repr=False)


@dataclass(frozen=True)
class Provenance:
    """How a number came about."""

    lr: float | None
    weights: str
    weights_sha256: str | None
    versions: tuple[tuple[str, str], ...]
    hardware: str
    precision: str
    split: str
    commit: str | None


@dataclass(frozen=True, eq=False)
class Results:
    """What came out of a finished run. A metric or a cost that its record does not say is not there."""

    values: Mapping[str, float]  # by metric
    costs: Mapping[str, float]
    recall: npt.NDArray[np.float32]  # by class; NaN without test images
    places: npt.NDArray[np.int32]  # of the confusion matrix's entries that are not 0: row * classes + column
    counts: npt.NDArray[np.int32]  # what stands there


@dataclass(frozen=True, eq=False)
class Entry:
    """What a report keeps of one record; or of those of all folds, pooled as reporting/folds.py does."""

    run: str  # its folder, from the folder of all runs
    folder: Path
    status: Status
    error: str | None
    time: str  # when it ended, or began; ISO 8601
    partial: bool
    notes: tuple[str, ...]
    version: Version
    name: str  # the dataset's
    domain: str
    subjects: str  # equal for datasets that show the same; "": no other dataset does
    available_images: int  # to train on, before few are taken
    used_images: int  # that were trained on, or chose the epoch, and are not those of the test
    backbone: str
    setting: Setting
    seed: int
    budget: Budget
    provenance: Provenance
    results: Results | None  # None unless the run is done
    seen: str = ""  # what of the test images the weights have seen, in words; "": nothing
    published: bool = False  # a row of the published table
    place: str = ""  # the folder that the images lay in; "": the record lacks it
    builder_code: str = ""  # a hash of the file that builds the backbone, if it is not torchvision's
    taken: tuple[int, ...] | None = None  # images of each class that the budget left; None: all, or not recorded
    split: str = ""  # its hash
    selected: tuple[int, float] | None = None  # the epoch that was chosen, and its top-1; None: not done
    chosen: tuple[str, float] | None = None  # the metric that chose it, and its value there; likewise
    files: Mapping[str, str] = field(default_factory=dict)  # sha256 of the run's files, by name; older records lack it
    given: tuple[tuple[str, Any], ...] = ()  # its command's flags, but for backbone, seed and fold
    script: str = ""  # the name of the dataset's script; "": the record lacks it
    row: tuple[Any, ...] = ()  # of runs.csv
    fold: Fold | None = None
    folds: tuple[Entry, ...] = ()  # of which it was pooled, in their order
    calibration: tuple[float, float] | None = None  # temperature, ECE of test at it; None: not fitted, or one a fold

    @property
    def trainings(self) -> tuple[Entry, ...]:
        """The runs that it is of: itself, or one a fold."""
        return self.folds or (self,)


def reported_metrics() -> dict[str, Metric]:
    """The metrics that a report shows, by name."""
    return {name: metric for name, metric in METRICS.items() if metric.reported}


def reported_costs() -> dict[str, Cost]:
    """The costs that a report shows, by name."""
    return {name: cost for name, cost in COSTS.items() if cost.label}


def read_entry(path: Path, run: str, shared: dict[Any, Any] | None = None) -> Entry | None:
    """Return what a report keeps of the record at `path`, or None where there is no file.

    `shared` lets equal parts of several records be the same object. Raises RecordError.
    """
    record = read_record(path)
    if record is None:
        return None
    try:
        return _entry(record, path.parent, run, {} if shared is None else shared)
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError) as problem:
        what = f"lacks {problem}" if isinstance(problem, KeyError) else f"a field is not what it should be: {problem}"
        raise RecordError(f"a damaged record: {what}") from problem


def _entry(record: Mapping[str, Any], folder: Path, run: str, shared: dict[Any, Any]) -> Entry:
    dataset, config = (record[part] for part in ("dataset", "config"))
    counts = dataset["counts"]
    status = record["status"]
    if status not in get_args(Status):
        raise ValueError(f"status is {status!r:.40}")
    version, setting = _version(record, shared), _setting(record)
    taken = _maybe(lambda several: tuple(whole(one) for one in several), dataset.get("taken"))
    given, command = _given(record), record["environment"].get("command") or [""]
    return Entry(
        run=run,
        folder=folder,
        status=status,
        error=_maybe(lambda error: shortened(str(error), lines=True), record.get("error")),
        time=text(record.get("finished") or record["started"]),
        partial=bool(dataset["partial"]),
        notes=tuple(shortened(str(note)) for note in dataset["notes"][:MOST_NOTES]),
        version=shared.setdefault(version, version),
        name=text(dataset["name"]),
        domain=text(dataset["domain"]),
        published=bool(dataset["published"]),
        place=without_home(text(dataset.get("place", ""), LONGEST_PATH)),
        subjects=text(dataset["subjects"]),
        available_images=whole(counts["available"]),
        used_images=whole(counts["train"]) + (whole(counts["val"]) if record["protocol"] != "paper" else 0),
        backbone=backbone_row(record),
        setting=shared.setdefault(setting, setting),
        seed=whole(record["seed"]),
        budget=_budget(dataset, config),
        seen=seen_in_words(record) if saw_test_images(record) else "",
        builder_code=_code(record, "backbone"),
        provenance=_provenance(record, shared),
        results=_results(record["test"], record["costs"], version) if status == "done" else None,
        taken=shared.setdefault(taken, taken),
        split=text(dataset["split"]),
        selected=_selected(record["selection"]) if status == "done" else None,
        chosen=_chosen(record["selection"], config) if status == "done" else None,
        fold=_fold(record),
        files={name: text(digest) for name, digest in dict(record.get("files") or {}).items() if name in FILES},
        given=shared.setdefault(given, given),
        script=text(command[0]),
        row=row_of(record),
        calibration=_maybe(
            lambda said: (number(said["temperature"]), number(said["test_ece"])), record.get("calibration")
        ),
    )


def _given(record: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """The flags of the run's command, as far as grid.py and the scripts have them today, and the row does not say."""
    config = record["config"]
    beyond, said = asked(config), {"model", "seed", "fold"} | ({"weights"} if "@" in backbone_row(record) else set())
    names = [name for name in FLAGS if name in beyond or name in BY_DATASET or (name in PLACES and config.get(name))]
    values = {name: config[name] for name in names if name in config and name not in said}
    return tuple(
        (name, text(value, LONGEST_PATH) if isinstance(value, str) else option(value)) for name, value in values.items()
    )


def _fold(record: Mapping[str, Any]) -> Fold | None:
    config = record["config"]
    if config.get("folds") is None:
        return None
    of, number = whole(config["folds"]), whole(config["fold"])
    if not 1 <= number <= of <= MOST_FOLDS:
        raise ValueError(f"fold {number:,} of {of:,}")
    return Fold(number, of, text(record["dataset"]["division"]), _asked_budget(config))


def _selected(selection: Mapping[str, Any]) -> tuple[int, float]:
    return whole(selection["epoch"]), number(selection["top1"])


def _chosen(selection: Mapping[str, Any], config: Mapping[str, Any]) -> tuple[str, float]:
    by = config.get("select", "top1")
    metric = by if by in METRICS and by in selection else "top1"
    return metric, number(selection[metric])


def _budget(dataset: Mapping[str, Any], config: Mapping[str, Any]) -> Budget:
    """What was asked for, unless it left no image out."""
    if "taken" in dataset and dataset["taken"] is None:
        return ALL_IMAGES
    return _asked_budget(config)


def _asked_budget(config: Mapping[str, Any]) -> Budget:
    return Budget(_maybe(whole, config.get("shots")), _maybe(number, config.get("fraction")))


def one_budget_each(entries: Iterable[Entry]) -> list[Entry]:
    """The entries, those of a dataset whose budgets come to the same images with one budget: the smallest of them."""
    entries = list(entries)
    smallest: dict[tuple[str, tuple[int, ...]], Budget] = {}
    for entry in sorted(entries, key=lambda entry: (entry.budget.shots or math.inf, entry.budget.fraction or 1)):
        if entry.taken is not None:
            smallest.setdefault((entry.version.key, entry.taken), entry.budget)
    return [
        entry if entry.taken is None else replace(entry, budget=smallest[entry.version.key, entry.taken])
        for entry in entries
    ]


def _code(record: Mapping[str, Any], part: str) -> str:
    """The hashes of a part of the code, of all codes that were at the run."""
    codes = dict.fromkeys(text(code[part])[:8] for code in codes_of(record) if part in code)
    if len(codes) > MOST_CODES:
        raise ValueError(f"made by {len(codes):,} different codes")
    return "+".join(codes)


def _version(record: Mapping[str, Any], shared: dict[Any, Any]) -> Version:
    dataset, config = record["dataset"], record["config"]
    if len(dataset["classes"]) > MOST_CLASSES:
        raise ValueError(f"{len(dataset['classes']):,} classes")
    if whole(dataset["counts"]["test"]) > MOST_TEST_IMAGES:
        raise ValueError(f"{dataset['counts']['test']:,} test images")
    if len(config["size"]) != 2:
        raise ValueError(f"an input of {len(config['size']):,} sides")
    classes = tuple(text(name) for name in dataset["classes"])
    return Version(
        text(dataset["key"]),
        text(dataset["version"]),
        shared.setdefault(classes, classes),
        whole(dataset["counts"]["test"]),
        tuple(whole(side) for side in config["size"]),
        text(config["augment"]),
        text(dataset.get("test_part", "")),
        _code(record, "script"),
    )


def _setting(record: Mapping[str, Any]) -> Setting:
    flags = tuple((text(name), option(value)) for name, value in asked_settings(record["config"]).items())
    if len(flags) > MOST_FLAGS:
        raise ValueError(f"{len(flags):,} settings")
    for name, value in flags:
        in_words(name, value)  # a value that can't be said is no value of that flag
    return Setting(
        text(record["protocol"]),
        text(record["recipe"]),
        _kind_of_weights(record),
        flags,
        _code(record, "engine"),
        shortened(str(record.get("search") or "")),
    )


def _kind_of_weights(record: Mapping[str, Any]) -> str:
    backbone, asked = record["backbone"], text(record["config"]["weights"], LONGEST_PATH)
    earlier = backbone["weights_run"]
    if earlier:
        begun = "random weights" if earlier["weights"] == "none" else "pretrained weights"
        return f"checkpoint of {text(earlier['dataset'])} ({text(earlier['protocol'])} protocol, from {begun})"
    if backbone["weights"] == "none":
        return "none"
    # members of an enum are rows of one table
    if asked in ("imagenet", "auto") or (MEMBER.fullmatch(asked) and asked.startswith("IMAGENET")):
        return "imagenet"
    name = text(backbone["weights"])
    return name.rpartition(".")[2] if name.endswith(f"_Weights.{asked}") else name


def _maybe(kind: Callable[[Any], Any], value: Any) -> Any:
    return None if value is None else kind(value)


def _provenance(record: Mapping[str, Any], shared: dict[Any, Any]) -> Provenance:
    environment, plan, backbone = record["environment"], record["plan"], record["backbone"]
    packages = {"python": environment["python"], **environment["packages"], "cuda": environment["cuda"]}
    if len(packages) > MOST_PACKAGES:
        raise ValueError(f"versions of {len(packages):,} packages")
    versions = tuple((text(name), text(version)) for name, version in packages.items() if version)
    commit = environment["git_commit"]
    return Provenance(
        lr=_maybe(number, record.get("lr")),
        weights=text(backbone["weights"]),
        weights_sha256=text(backbone["weights_sha256"]) if backbone["weights_sha256"] else None,
        versions=shared.setdefault(versions, versions),
        hardware=text(plan["device_name"]),
        precision=text(plan["precision"]),
        split=text(record["dataset"]["split"])[:8],
        commit=text(commit)[:8] + (" with changes" if environment.get("git_changed") else "") if commit else None,
    )


def _results(test: Mapping[str, Any], costs: Mapping[str, Any], version: Version) -> Results:
    values = {}
    for name, metric in reported_metrics().items():
        if name in test and not (test[name] is None and metric.optional):
            if test[name] is None or not 0 <= number(test[name]) <= metric.most:
                raise ValueError(f"{name} is {test[name]}")
            values[name] = number(test[name])
    classes = len(version.classes)
    recall = np.array([math.nan if value is None else number(value) for value in test["per_class_recall"]])
    if recall.shape != (classes,):
        raise ValueError(f"{len(recall)} recalls of {classes} classes")
    if ((recall < 0) | (recall > 1)).any():
        raise ValueError("a recall that is no share")
    places, counts = _confusion(test["confusion"], classes)
    if counts.sum() != version.test_images:
        raise ValueError(f"{counts.sum():,} images in the confusion matrix of {version.test_images:,} test images")
    counted, recalls = of_confusion(places, counts, classes)
    if not np.allclose(recall, recalls, rtol=0, atol=ROUNDING, equal_nan=True):
        raise ValueError("the recalls are not those of the confusion matrix")
    for name, value in counted.items():
        if abs(value - values.get(name, value)) > ROUNDING:
            raise ValueError(f"{METRICS[name].label} is {values[name]:.4f}, but {value:.4f} by the confusion matrix")
    known = {name: number(costs[name]) for name in reported_costs() if costs.get(name) is not None}
    return Results(values, known, recall.astype(np.float32), places, counts)


def _confusion(confusion: Mapping[str, Any], classes: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    true, predicted, images = (np.asarray(confusion[part]) for part in ("true", "predicted", "images"))
    if not true.shape == predicted.shape == images.shape == (len(true),):
        raise ValueError("the confusion matrix's lists are not of one length")
    for numbers, most in ((true, classes - 1), (predicted, classes - 1), (images, np.iinfo(np.int32).max)):
        if len(numbers) and (numbers.dtype.kind != "i" or numbers.min() < 0 or numbers.max() > most):
            raise ValueError(f"the confusion matrix is not one of counts of {classes} classes")
    return (true * classes + predicted).astype(np.int32), images.astype(np.int32)
