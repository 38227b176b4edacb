"""What an export says of itself, chosen from the record: nothing of whose machine it was made on, nor of its paths."""

from __future__ import annotations

import json
from pathlib import PurePath
from typing import Any

from datasets import DATASETS
from engine.errors import one_line
from engine.inference.checkpoint import Trained
from engine.models.backbone import WeightsFile
from engine.records.schema import Record
from engine.training.metrics import METRICS
from reporting.statistics import wilson

FORMAT = 1  # raised when a fact changes its meaning
DECODING = (
    "RGB, red first; EXIF rotation applied; transparent pixels on white; resized to stored_size by Pillow's bilinear "
    "filter, which antialiases; the aspect ratio gives way"
)
COSTS = ("parameters", "macs", "train_seconds", "epochs", "images", "test_images_per_second", "energy_joules")
IMAGENET_TERMS = "trained on ImageNet-1k, whose terms allow non-commercial research"


def facts_of(trained: Trained) -> dict[str, Any]:
    """What is said, as plain values that JSON takes."""
    record, preprocessing = trained.record, trained.preprocessing
    return {
        "format": FORMAT,
        "run": record["run"],
        "backbone": _backbone(record),
        "dataset": _dataset(record),
        "protocol": record["protocol"],
        "recipe": record["recipe"],
        "seed": record["seed"],
        "classes": list(trained.classes),
        "preprocessing": {
            "decoding": DECODING,
            "stored_size": list(preprocessing.stored_size),
            "size": list(preprocessing.size),
            "mean": list(preprocessing.mean),
            "std": list(preprocessing.std),
        },
        "temperature": trained.temperature,
        "metrics": _metrics(record),
        "costs": {name: record["costs"][name] for name in COSTS if record["costs"].get(name) is not None}
        | {"device": record["plan"]["device_name"]},
        "licences": {"images": licence_of_images(record), "weights": licence_of_weights(trained)},
    }


def as_texts(facts: dict[str, Any]) -> dict[str, str]:
    """The facts for what takes nothing but texts: a text as it is, all else as JSON."""
    return {name: fact if isinstance(fact, str) else json.dumps(fact) for name, fact in facts.items()}


def without_folders(name: str) -> str:
    """A backbone's name, of a file of the user's own without the folders that it lies in."""
    return PurePath(name).name if name.partition(":")[0].endswith(".py") else name


def _backbone(record: Record) -> dict[str, Any]:
    backbone = record["backbone"]
    run = backbone["weights_run"] or {}
    return {
        "name": without_folders(backbone["name"]),
        "builder": backbone["builder"],
        "weights": backbone["weights"],
        "weights_sha256": backbone["weights_sha256"],
        "weights_run": {name: run[name] for name in ("run", "dataset", "protocol", "seed", "weights")} if run else None,
    }


def _dataset(record: Record) -> dict[str, Any]:
    dataset, known = record["dataset"], DATASETS.get(record["dataset"]["key"])
    # a home folder is called as its owner is
    own = dataset.get("place") == "~"
    found = {
        "key": "own" if own else dataset["key"],
        "name": "own images" if own else dataset["name"],
        "version": dataset["version"],
        "counts": dataset["counts"],
        "split": dataset["split"],
        "test_part": dataset.get("test_part"),
        "partial": dataset["partial"],
    }
    # what is said of images of one's own has their names in it
    return found | ({"notes": dataset["notes"], "citation": known.citation, "page": known.page} if known else {})


def _metrics(record: Record) -> dict[str, Any]:
    """Those of the test part, the accuracies with Wilson's 95 % interval."""
    test, images = record["test"], record["dataset"]["counts"]["test"]
    found: dict[str, Any] = {"images": images}
    found |= {name: test[name] for name in METRICS if test.get(name) is not None}
    for name in ("top1", "top5"):
        if name in found:
            found[f"{name}_interval"] = wilson(found[name], images)
    return found


def licence_of_images(record: Record) -> str:
    """As the dataset's script states it."""
    known = DATASETS.get(record["dataset"]["key"])
    return known.licence if known and known.licence else "not stated: the images are of whoever trained"


def licence_of_weights(trained: Trained) -> str:
    """Of the weights that training began from, as far as those who publish them state one."""
    name = trained.record["backbone"]["weights"]
    if name == "none":
        return "none: training began from random weights"
    if name.startswith(("file:", "folder:")):
        return "not known: that of the file of weights that training began from"
    if isinstance(trained.backbone.weights, WeightsFile):
        return f"not stated here: see {one_line(trained.backbone.weights.url)}"
    if name.startswith("timm/"):
        return f"that of {name} on the Hugging Face hub"
    return f"torchvision states none (its code is BSD 3-Clause); {IMAGENET_TERMS}"
