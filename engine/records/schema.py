"""record.json: its fields, its costs, and the one reader that every command uses, of today's records and older ones.

`python -m engine.records.schema` prints the JSON schema in full; schema.json beside this file lacks what metrics.py and
COSTS say.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any, Literal, TypedDict, get_args

from engine.cli import run_command
from engine.data.declaration import Protocol
from engine.errors import reason_of
from engine.files import is_sealed, read_json
from engine.training.calibration import HIGHEST, LOWEST
from engine.training.metrics import METRICS
from engine.training.recipe import RECIPES, default_epochs

SCHEMA = 2  # raised when a field of record.json changes its meaning
OLDEST = 1  # that can be read
LARGEST_BYTES = 64 << 20  # of a file that can be a record

# the files of a run's folder, and the folder under --out that is the grid's own
RECORD, HISTORY, SPLIT = "record.json", "history.csv", "split.json"
CHECKPOINT, PREDICTIONS, ERRORS = "checkpoint.pt", "predictions.npz", "errors.npz"
PREVIOUS = "checkpoint.previous.pt"  # the save before the last, while a run lasts
GRID_FOLDER = "grid"
RANK_FOLDER = "rank"

BUSY = "another process is at this run already"  # how a run says so, for whoever reads its last lines

Status = Literal["running", "done", "failed"]


@dataclass(frozen=True)
class Cost:
    """One entry of a record's `costs`, and how it is shown."""

    description: str
    label: str = ""  # what tables and plots call it; "": no report shows it
    unit: str = ""
    scale: float = 1.0  # of the unit that it is shown in
    digits: int = 0  # that a mean is rounded to, in the record's own unit
    better: Literal["less", "more", ""] = "less"  # "": neither, so that no front is drawn
    of_machine: bool = True  # whether another machine costs something else
    known_before: bool = False  # whether it is known before the run has ended
    whole: bool = False  # whether it is a whole number
    optional: bool = False  # whether it is null where nobody reports it
    added: bool = False  # whether there are older records of this schema, which lack it


COSTS: dict[str, Cost] = {
    "parameters": Cost(
        "of the model with its new head", "parameters", "million", 1e-6, of_machine=False, known_before=True, whole=True
    ),
    "trained_parameters": Cost("those that training changes", of_machine=False, known_before=True, whole=True),
    "macs": Cost(
        "multiply-accumulates of one forward pass of one image",
        "multiply-accumulates",
        "billion an image",
        1e-9,
        of_machine=False,
        known_before=True,
        whole=True,
    ),
    "train_seconds": Cost(
        "training alone, all epochs, a sweep included, and the pass that computes features",
        "training time",
        "hours a run",
        1 / 3600,
        digits=1,
    ),
    "epoch_seconds": Cost("training alone, median over epochs"),
    "train_images_per_second": Cost(
        "end to end, median over epochs; where the features of a frozen body are trained on, of the one pass that "
        "computed them",
        "training speed",
        "images/s",
        digits=1,
        better="more",
    ),
    "train_compute_images_per_second": Cost(
        "from a batch's arrival on the device to the end of the step, median over epochs, or of that pass"
    ),
    "data_wait_share": Cost(
        "of training time, until stored pixels are on the device, 0 to 1, median over epochs, or of that pass"
    ),
    "test_images_per_second": Cost("end to end", "test speed", "images/s", digits=1, better="more"),
    "test_compute_images_per_second": Cost("from a batch's arrival on the device on"),
    "save_seconds": Cost(
        "saving, beside training; null in a run that was begun before it was counted", optional=True, added=True
    ),
    "peak_memory_mib": Cost(
        "of the CUDA device's allocator, images held there included, else resident memory of the process; null where "
        "nobody reports it",
        "peak memory",
        "GiB",
        1 / 1024,
        optional=True,
    ),
    "resident_memory_mib": Cost(
        "of the images that the CUDA device held, at most; null in a run that was begun before it was counted",
        optional=True,
        added=True,
    ),
    "energy_joules": Cost(
        "of the CUDA device while training, by NVML; null where nobody reports it, or others worked on it too",
        optional=True,
    ),
    "images": Cost(
        "that training went through, each as often as it did, a sweep included",
        "images processed",
        better="",
        of_machine=False,
        whole=True,
    ),
    "epochs": Cost("trained in all, without a sweep", "epochs", digits=1, better="", of_machine=False, whole=True),
}


class DatasetRecord(TypedDict):
    """What was trained and tested on."""

    key: str
    name: str
    version: str
    domain: str
    published: bool
    subjects: str
    partial: bool
    differences: list[str]
    notes: list[str]
    classes: list[str]
    own_validation: bool
    taken: list[int] | None  # which older records lack
    counts: dict[str, int]
    checksums: dict[str, str]
    split: str
    test_part: str  # these four not in records from before they were added
    division: str | None
    place: str
    stored_size: list[int]


class BackboneRecord(TypedDict):
    """What was trained."""

    name: str
    builder: str
    weights: str
    weights_sha256: str | None
    weights_run: dict[str, Any] | None


class Confusion(TypedDict):
    """The entries of a confusion matrix that are not 0, parallel lists."""

    true: Sequence[int]
    predicted: Sequence[int]
    images: Sequence[int]


class Record(TypedDict, total=False):
    """record.json, schema 2; schema.json describes every field. Those of a finished run alone come last."""

    schema: int
    run: str
    checksum: str  # not in records from before it was added
    status: Status
    error: str | None
    started: str
    finished: str | None
    resumed: list[dict[str, Any]]
    dataset: DatasetRecord
    backbone: BackboneRecord
    protocol: Protocol
    recipe: str
    lr: float
    epochs: int | None
    sweep: list[dict[str, Any]] | None
    seed: int
    batch_size: int
    class_weights: list[float] | None
    decoder: int
    normalisation: dict[str, list[float]]
    config: dict[str, Any]
    plan: dict[str, Any]
    search: str | None  # not in records from before it was added
    costs: dict[str, Any]
    environment: dict[str, Any]
    selection: dict[str, Any]
    test: dict[str, Any]
    files: dict[str, str]  # not in records from before it was added
    calibration: dict[str, Any] | None  # likewise; null where no temperature was fitted


# what every command may rely on
NEEDED = ("status", "started", "resumed", "environment", "plan", "dataset", "backbone", "protocol", "recipe", "config")
NEEDED_OF_DONE = ("test", "selection", "costs", "finished")


KINDS: dict[str, type] = {  # of fields, where they are not null
    **dict.fromkeys(("dataset", "backbone", "config", "plan", "environment", "costs", "selection", "test"), dict),
    **dict.fromkeys(("files", "calibration"), dict),
    **dict.fromkeys(("resumed", "sweep"), list),
}
COUNTS = ("available", "train", "val", "test")  # of images


class RecordError(Exception):
    """The file is no record that can be used; the message says why."""


class OtherSchemaError(RecordError):
    """It may be whole, and of another version of this project."""


def read_record(path: Path) -> Record | None:
    """The record at `path`, as one of schema 2 whatever it was written as; None where there is no file.

    A metric or a cost that a record lacks is absent: it is younger than the record. Raises RecordError.
    """
    try:
        content = read_json(path, LARGEST_BYTES)
    except (FileNotFoundError, NotADirectoryError):
        return None
    except OSError as problem:
        raise RecordError(f"can't be read: {reason_of(problem)}") from problem
    except ValueError as problem:
        raise RecordError(f"not readable JSON: {problem}") from problem
    return as_record(content)


def as_record(content: Any) -> Record:
    """What a record's JSON holds, as a record of schema 2. Raises RecordError."""
    if not isinstance(content, dict) or not {"schema", "run"} <= content.keys():
        raise RecordError("no record of this project")
    if content["schema"] not in range(OLDEST, SCHEMA + 1):
        raise OtherSchemaError(f"has schema {content['schema']}; this version reads {OLDEST} to {SCHEMA}")
    rest = {name: value for name, value in content.items() if name != "checksum"}
    if "checksum" in content and not is_sealed(rest, content["checksum"]):
        raise RecordError("a damaged record: something in it was changed after it was written (its checksum differs)")
    needed = NEEDED + (NEEDED_OF_DONE if content.get("status") == "done" else ())
    if lacking := [name for name in needed if content.get(name) is None]:
        raise RecordError(f"a damaged record: lacks {', '.join(lacking)}")
    if damage := _damage(content):
        raise RecordError(f"a damaged record: {damage}")
    try:
        record: Record = _upgraded(content) if content["schema"] < SCHEMA else content  # type: ignore[assignment]
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError) as problem:
        what = f"lacks {problem}" if isinstance(problem, KeyError) else f"a field is not what it should be: {problem}"
        raise RecordError(f"a damaged record: {what}") from problem
    if damage := _damage_within(record):
        raise RecordError(f"a damaged record: {damage}")
    return record


def _damage(content: Mapping[str, Any]) -> str:
    """What is not of the kind that every command takes it for; "" if all is."""
    if content["status"] not in get_args(Status):
        return f"status is {content['status']!r:.40}"
    for name, kind in KINDS.items():
        if content.get(name) is not None and not isinstance(content[name], kind):
            return f"{name} is {content[name]!r:.40}"
    command = content["environment"].get("command", [])
    if not isinstance(command, list) or not all(isinstance(word, str) for word in command):
        return f"the command is {command!r:.40}"
    return ""


def _damage_within(record: Mapping[str, Any]) -> str:
    """What lies deeper and is not of the kind that every command takes it for; "" if all is."""
    resumes = record["resumed"]
    environments = [record["environment"], *(resume.get("environment") for resume in resumes if _is_dict(resume))]
    if len(environments) <= len(resumes) or not all(map(_is_dict, environments)):
        return f"resumed is {resumes!r:.40}"
    for code in (environment.get("code") or {} for environment in environments):
        if not _is_dict(code) or not all(isinstance(digest, str) for digest in code.values()):
            return f"the code is {code!r:.40}"
    counts = record["dataset"].get("counts")
    if not _is_dict(counts) or not all(_is_number(counts.get(name), whole=True) for name in COUNTS):
        return f"the counts are {counts!r:.40}"
    for part, known in (("test", METRICS), ("costs", COSTS)):
        found = record.get(part) or {}
        for name in known.keys() & found.keys():
            if not _is_number(found[name]) and not (found[name] is None and known[name].optional):
                return f"{name} is {found[name]!r:.40}"
    calibration = record.get("calibration")
    if calibration is not None:
        temperature = calibration.get("temperature")
        if not _is_number(temperature) or not LOWEST <= temperature <= HIGHEST:
            return f"the temperature is {temperature!r:.40}"
    return "lacks top1" if record["status"] == "done" and "top1" not in record["test"] else ""


def _is_dict(value: Any) -> bool:
    return isinstance(value, dict)


def _is_number(value: Any, whole: bool = False) -> bool:
    """Whether it is a finite number and not negative, that a float can hold."""
    kinds = int if whole else (int, float)
    return isinstance(value, kinds) and not isinstance(value, bool) and 0 <= value <= sys.float_info.max


def _upgraded(old: dict[str, Any]) -> dict[str, Any]:
    """A record of schema 1 as one of schema 2."""
    dataset, config = dict(old["dataset"]), dict(old["config"])
    counts = dataset["counts"]
    dataset["counts"] = {
        "available": counts["train"],
        "train": counts["fit"],
        "val": counts["select"],
        "test": counts["test"],
    }
    dataset.setdefault("subjects", "breakhis" if dataset["key"].startswith("breakhis_") else "")
    if "lr" not in old and old["recipe"] == "adamw-sgd" and config["lr"] == 1e-3:  # the default, spelled out
        config["lr"] = None
    new = {"lr": old["config"]["lr"], "sweep": None, **old, "schema": SCHEMA, "dataset": dataset, "config": config}
    if config["epochs"] or old["recipe"] in RECIPES:
        steps = math.ceil(counts["fit"] / old["batch_size"])
        new["epochs"] = config["epochs"] or default_epochs(old["recipe"], steps)
    if "selection" in old:
        selection = dict(old["selection"])
        new["costs"] = {**old["costs"], "epochs": selection.pop("epochs")}
        if new.get("epochs") and not config["epochs"]:  # of a single stage, which no patience ends
            new["epochs"] = new["costs"]["epochs"]
        selection["part"] = {"select": "val"}.get(selection["part"], selection["part"])
        new["selection"] = selection
    if "test" in old:
        test = dict(old["test"])
        test["confusion"] = _sparse(test.pop("confusion_matrix"), len(dataset["classes"]))
        new["test"] = test
    return new


def _sparse(matrix: Sequence[Sequence[int]], classes: int) -> Confusion:
    if len(matrix) != classes or any(len(row) != classes for row in matrix):
        raise ValueError(f"the confusion matrix is not one of {classes} classes")
    entries = [
        (true, predicted, images) for true, row in enumerate(matrix) for predicted, images in enumerate(row) if images
    ]
    true, predicted, images = zip(*entries, strict=True) if entries else ((), (), ())
    return {"true": true, "predicted": predicted, "images": images}


def json_schema() -> dict[str, Any]:
    """The JSON schema of record.json, with every metric and every cost.

    Of the metrics it asks for top-1 alone: a record made before another one was added lacks that.
    """
    schema: dict[str, Any] = json.loads(Path(__file__).with_name("schema.json").read_text("utf-8"))
    test, costs = schema["properties"]["test"], schema["properties"]["costs"]
    for name, metric in METRICS.items():
        number: dict[str, Any] = {"type": ["number", "null"] if metric.optional else "number", "minimum": 0}
        limit = {} if metric.most == float("inf") else {"maximum": metric.most}
        test["properties"][name] = number | limit | {"description": metric.description}
    for name, cost in COSTS.items():
        kind = "integer" if cost.whole else "number"
        costs["properties"][name] = {
            "type": [kind, "null"] if cost.optional else kind,
            "minimum": 0,
            "description": cost.description,
        }
    costs["required"] = [name for name, cost in COSTS.items() if cost.known_before]
    schema["then"]["properties"]["costs"] = {"required": [name for name, cost in COSTS.items() if not cost.added]}
    return schema


def now() -> str:
    """The time in UTC, to the second, as ISO 8601."""
    return datetime.now(timezone.utc).isoformat(timespec="seconds")


if __name__ == "__main__":
    sys.exit(run_command(lambda: print(json.dumps(json_schema(), indent=2))))
