"""A record as a row of runs.csv: all that was asked for and came out, in full precision."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from common import BACKBONES
from engine.config import FLAGS
from engine.models.names import MEMBER, row_name
from engine.records.identity import codes_of
from engine.records.schema import COSTS
from engine.training.metrics import METRICS
from reporting.fields import LARGEST_NUMBER, LONGEST_LIST, LONGEST_PATH, shortened, text

COUNTS = ("available", "train", "val", "test")
PLAN = ("device", "device_name", "precision", "layout", "threads", "compiled", "graphed", "micro_batch")
LIBRARIES = ("torch", "torchvision", "numpy")
CALIBRATION = ("temperature", "test_nll", "test_ece")
CODES = ("engine", "script", "backbone")


def columns() -> list[str]:
    """The names of what row_of() returns."""
    return [
        *("dataset", "dataset_name", "dataset_version", "domain", "published", "partial", "classes"),
        *(f"{part}_images" for part in COUNTS),
        *("split", "backbone", "builder", "weights", "weights_sha256", "protocol", "recipe", "seed", "lr"),
        *(f"asked_{name}" for name in FLAGS),
        *("chosen_epoch", "chosen_stage", "chosen_by_part", "chosen_by_top1"),
        *METRICS,
        *(f"calibration_{name}" for name in CALIBRATION),
        *COSTS,
        *PLAN,
        *(f"{library}_version" for library in ("python", *LIBRARIES, "cuda")),
        *("git_commit", "git_changed", *(f"code_{part}" for part in CODES)),
        *("started", "finished", "resumed", "error"),
    ]


def row_of(record: Mapping[str, Any]) -> tuple[Any, ...]:
    """What a record says, under the names of columns(): numbers, texts, truths and None.

    Raises LookupError, TypeError or AttributeError where a part of it is not what it should be.
    """
    dataset, backbone, environment = record["dataset"], record["backbone"], record["environment"]
    test, costs, chosen = (record.get(part) or {} for part in ("test", "costs", "selection"))
    packages = environment.get("packages") or {}
    codes = codes_of(record)
    said = (
        *(dataset[name] for name in ("key", "name", "version", "domain", "published", "partial")),
        len(dataset["classes"]),
        *(dataset["counts"][part] for part in COUNTS),
        dataset["split"],
        *(backbone[name] for name in ("name", "builder", "weights", "weights_sha256")),
        *(record.get(name) for name in ("protocol", "recipe", "seed", "lr")),
        *(record["config"].get(name, flag.default) for name, flag in FLAGS.items()),
        *(chosen.get(name) for name in ("epoch", "stage", "part", "top1")),
        *(test.get(name) for name in METRICS),
        *((record.get("calibration") or {}).get(name) for name in CALIBRATION),
        *(costs.get(name) for name in COSTS),
        *(record["plan"].get(name) for name in PLAN),
        *(environment.get("python"), *(packages.get(name) for name in LIBRARIES), environment.get("cuda")),
        *(environment.get("git_commit"), environment.get("git_changed")),
        *("+".join(code.get(part, "") for code in codes) for part in CODES),
        *(record["started"], record.get("finished"), len(record["resumed"]), _in_a_line(record.get("error"))),
    )
    return tuple(map(_plain, said))


def _in_a_line(error: Any) -> str | None:
    return None if error is None else " ".join(str(error).split())


def _plain(value: Any) -> Any:
    """The value as a cell has it; None where a cell can't hold it."""
    if isinstance(value, str):
        return shortened(value)
    if isinstance(value, int | float):
        return value if abs(value) <= LARGEST_NUMBER else None
    if isinstance(value, list | tuple) and len(value) <= LONGEST_LIST:
        return shortened(" ".join(map(str, value)))
    return None


def backbone_row(record: Mapping[str, Any]) -> str:
    """What its backbone is called beside the same with others of torchvision's weights."""
    name, weights = text(record["backbone"]["name"]), text(record["config"]["weights"], LONGEST_PATH)
    return row_name(name, weights, BACKBONES.get(name)) if MEMBER.fullmatch(weights) else name
