"""What a report keeps of one record."""

from __future__ import annotations

import json
import math
import re
import stat
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from reporting import matrix

SCHEMA = 1  # of record.json, as in engine/records.py, whose import takes seconds
METRICS = ("top1", "balanced_accuracy", "macro_f1", "auroc", "nll", "ece")
# C0, C1, the marks that turn the direction of text around, and the separators of lines and paragraphs
CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
LARGEST_RECORD_BYTES = 64 << 20  # a confusion matrix of 2,000 classes and all the rest


@dataclass(frozen=True)
class Version:
    """What must be equal for results on a dataset to be compared."""

    key: str
    version: str
    classes: tuple[str, ...]
    test_images: int
    size: tuple[int, ...]
    augment: str


@dataclass(frozen=True)
class Terms:
    """What must be equal for records to be ranked together: they are one league."""

    protocol: str
    recipe: str
    weights: str  # their kind: imagenet, none, or a name
    settings: tuple[tuple[str, Any], ...]  # of the recipe, as asked for


@dataclass(frozen=True)
class Making:
    """How a number was made."""

    rate: float | None
    weights: str
    weights_sha256: str | None
    versions: tuple[tuple[str, str], ...]
    hardware: str
    precision: str
    split: str
    commit: str | None


@dataclass(frozen=True, eq=False)
class Outcome:
    """What came out of a finished run."""

    values: Mapping[str, float | None]  # by metric
    costs: Mapping[str, float | None]
    recall: npt.NDArray[np.float32]  # by class; NaN without test images
    places: npt.NDArray[np.int32]  # of the confusion matrix's entries that are not 0: row * classes + column
    counts: npt.NDArray[np.int32]  # what stands there


@dataclass(frozen=True, eq=False)
class Entry:
    """What a report keeps of one record."""

    run: str  # its folder, from the folder of all runs
    folder: Path
    status: str
    error: str | None
    time: str  # when it ended, or began; ISO 8601
    partial: bool
    notes: tuple[str, ...]
    version: Version
    name: str  # the dataset's
    domain: str
    published: bool
    train_images: int  # as published
    used_images: int  # that were trained on or selected by
    backbone: str
    parameters: float
    macs: float
    terms: Terms
    seed: int
    budget: str
    seen: bool  # the weights were trained on this dataset before
    making: Making
    outcome: Outcome | None  # None unless the run is done


class NotARecordError(Exception):
    """The file is no record that can be used; the message says why."""


def read_entry(path: Path, run: str, shared: dict[Any, Any] | None = None) -> Entry:
    """What a report keeps of the record at `path`. `shared` lets equal parts of several records be the same object.

    Raises NotARecordError.
    """
    rest, matrix_text = matrix.cut(content_of(path))
    try:
        record = json.loads(rest)
    except (ValueError, RecursionError) as problem:
        raise NotARecordError(why_unreadable(problem)) from problem
    if not isinstance(record, dict) or not {"schema", "run"} <= record.keys():
        raise NotARecordError("no record of this project")
    if record["schema"] != SCHEMA:
        raise NotARecordError(f"has schema {clean(str(record['schema']))}; this version reads {SCHEMA}")
    try:
        return _entry(record, matrix_text, path.parent, run, {} if shared is None else shared)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as problem:
        what = f"lacks {problem}" if isinstance(problem, KeyError) else f"a field is not what it should be: {problem}"
        raise NotARecordError(f"a damaged record: {clean(what)}") from problem


def _entry(record: dict[str, Any], matrix_text: bytes, folder: Path, run: str, shared: dict[Any, Any]) -> Entry:
    dataset, backbone, config, costs = (record[part] for part in ("dataset", "backbone", "config", "costs"))
    counts = dataset["counts"]
    status = text(record["status"])
    classes = tuple(text(name) for name in dataset["classes"])
    size = tuple(whole(side) for side in config["size"])
    version = Version(
        text(dataset["key"]),
        text(dataset["version"]),
        shared.setdefault(classes, classes),
        whole(counts["test"]),
        size,
        text(config["augment"]),
    )
    terms = Terms(text(record["protocol"]), text(record["recipe"]), _kind_of_weights(record), _settings(record))
    earlier = backbone["weights_run"]
    return Entry(
        run=run,
        folder=folder,
        status=status,
        error=_maybe(partial(text, lines=True), record.get("error")),
        time=text(record.get("finished") or record["started"]),
        partial=bool(dataset["partial"]),
        notes=tuple(text(note) for note in dataset["notes"]),
        version=shared.setdefault(version, version),
        name=text(dataset["name"]),
        domain=text(dataset["domain"]),
        published=bool(dataset["published"]),
        train_images=whole(counts["train"]),
        used_images=whole(counts["fit"]) + (whole(counts["select"]) if record["protocol"] != "paper" else 0),
        backbone=text(backbone["name"]),
        parameters=number(costs["parameters"]),
        macs=number(costs["macs"]),
        terms=shared.setdefault(terms, terms),
        seed=whole(record["seed"]),
        budget=_budget(config),
        seen=bool(earlier) and earlier["dataset"] == dataset["key"],
        making=_making(record, shared),
        outcome=_outcome(record, matrix_text, len(classes)) if status == "done" else None,
    )


def _kind_of_weights(record: Mapping[str, Any]) -> str:
    backbone, asked = record["backbone"], text(record["config"]["weights"])
    earlier = backbone["weights_run"]
    if earlier:
        begun = "random weights" if earlier["weights"] == "none" else "pretrained weights"
        return f"checkpoint of {text(earlier['dataset'])} ({text(earlier['protocol'])} protocol, from {begun})"
    if backbone["weights"] == "none":
        return "none"
    if asked in ("imagenet", "auto"):
        return "imagenet"
    name = text(backbone["weights"])
    return name.rpartition(".")[2] if name.endswith(f"_Weights.{asked}") else name


def _settings(record: Mapping[str, Any]) -> tuple[tuple[str, Any], ...]:
    """The recipe's settings as asked for. Records without a top-level `lr` are older, and name the default rate."""
    config = record["config"]
    rate = config["lr"]
    if "lr" not in record and record["recipe"] == "adamw-sgd" and rate == 1e-3:
        rate = None
    return (
        ("epochs", _maybe(whole, config["epochs"])),
        ("lr", _maybe(number, rate)),
        ("patience", _maybe(whole, config["patience"])),
        ("batch_size", whole(config["batch_size"])),
        ("tune", text(config["tune"])),
        ("ema", bool(config.get("ema"))),
        ("layer_decay", _maybe(number, config.get("layer_decay"))),
        ("lr_sweep", bool(config.get("lr_sweep"))),
    )


def _maybe(kind: Callable[[Any], Any], value: Any) -> Any:
    return None if value is None else kind(value)


def _budget(config: Mapping[str, Any]) -> str:
    parts = []
    if config.get("shots") is not None:
        parts.append(f"{whole(config['shots'])} shots")
    if config.get("fraction") is not None:
        parts.append(f"{number(config['fraction']):g} of train")
    return ", ".join(parts) or "all"


def _making(record: Mapping[str, Any], shared: dict[Any, Any]) -> Making:
    environment, plan, backbone = record["environment"], record["plan"], record["backbone"]
    packages = {"python": environment["python"], **environment["packages"], "cuda": environment["cuda"]}
    versions = tuple((text(name), text(version)) for name, version in packages.items() if version)
    rate = record.get("lr", record["config"]["lr"])
    commit = environment["git_commit"]
    return Making(
        rate=_maybe(number, rate),
        weights=text(backbone["weights"]),
        weights_sha256=text(backbone["weights_sha256"]) if backbone["weights_sha256"] else None,
        versions=shared.setdefault(versions, versions),
        hardware=text(plan["device_name"]),
        precision=text(plan["precision"]),
        split=text(record["dataset"]["split"])[:8],
        commit=text(commit)[:8] + (" with changes" if environment.get("git_changed") else "") if commit else None,
    )


def _outcome(record: Mapping[str, Any], matrix_text: bytes, classes: int) -> Outcome:
    test, costs = record["test"], record["costs"]
    values = {metric: _maybe(number, test[metric]) for metric in METRICS}
    for metric, value in values.items():
        if value is None and metric != "auroc":
            raise TypeError(f"{metric} is null")
        if value is not None and not 0 <= value <= (math.inf if metric == "nll" else 1):
            raise ValueError(f"{metric} is {value}")
    recall = np.array([math.nan if value is None else number(value) for value in test["per_class_recall"]], np.float32)
    if recall.shape != (classes,):
        raise ValueError(f"{len(recall)} recalls of {classes} classes")
    places, counts = matrix.entries(matrix_text, classes)
    right = counts[places % (classes + 1) == 0].sum() / max(1, counts.sum())
    if abs(right - number(test["top1"])) > 1e-6:
        raise ValueError(f"top-1 is {test['top1']:.4f}, but {right:.4f} by the confusion matrix")
    wanted = {
        "seconds": "train_seconds",
        "images_per_second": "train_images_per_second",
        "test_images_per_second": "test_images_per_second",
        "memory_mib": "peak_memory_mib",
        "images": "images",
    }
    kept = {name: _maybe(number, costs.get(key)) for name, key in wanted.items()}
    kept["epochs"] = number(record["selection"]["epochs"])
    return Outcome(values, kept, recall, places, counts)


def content_of(path: Path) -> bytes:
    """The file, unless it is none, or far too large for a record. Raises NotARecordError."""
    try:
        state = path.stat()
        if not stat.S_ISREG(state.st_mode):  # a pipe would be waited for without end
            raise NotARecordError("not a regular file")
        if (size := state.st_size) > LARGEST_RECORD_BYTES:
            raise NotARecordError(f"too large to be a record: {size / 2**20:,.0f} MiB")
        return path.read_bytes()
    except OSError as problem:
        raise NotARecordError(f"can't be read: {problem.strerror}") from problem


def why_unreadable(problem: Exception) -> str:
    """In words, why a file is no record."""
    return str(problem) if isinstance(problem, NotARecordError) else f"not readable JSON: {clean(str(problem))}"


def clean(found: str, lines: bool = False) -> str:
    """The text without what UTF-8 can't hold (halves of characters, bytes of file names that are no text), and without
    control characters, of which U+FFFD takes the place. With `lines` it keeps ends of lines, as \\n, and tabs.
    """
    if found.isprintable():  # nearly every text, and much the fastest
        return found
    found = found.encode("utf-8", "replace").decode()
    if lines:
        found = found.replace("\r\n", "\n")
    return CONTROLS.sub(lambda match: match[0] if lines and match[0] in "\n\t" else "\N{REPLACEMENT CHARACTER}", found)


def text(value: Any, lines: bool = False) -> str:
    """The value, which must be a text, as `clean` leaves it. Raises TypeError."""
    if not isinstance(value, str):
        raise TypeError(f"expected a text, found {value!r:.40}")
    return clean(value, lines)


def whole(value: Any) -> int:
    """The value, which must be a whole number and not negative. Raises TypeError."""
    if not isinstance(value, int) or isinstance(value, bool) or value < 0:
        raise TypeError(f"expected a whole number, found {value!r:.40}")
    return value


def number(value: Any) -> float:
    """The value, which must be a finite number. Raises TypeError."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not math.isfinite(value):
        raise TypeError(f"expected a number, found {value!r:.40}")
    return float(value)
