"""What a record says of a run: of its data, its model and its training before it begins, and of what came of it."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from torch import nn

from engine.config import Config
from engine.data.batches import Batches
from engine.data.declaration import Dataset
from engine.data.images import DECODER, resize
from engine.data.part import PARTS, Part, RawSplits, Splits
from engine.models.backbone import Backbone
from engine.models.weights import Weights
from engine.paths import without_home
from engine.processes.heartbeat import search_mark
from engine.records.mistakes import rows_to_keep
from engine.training.calibration import scaled
from engine.training.metrics import METRICS, Logits, Predictions, evaluate
from engine.training.plan import Plan
from engine.training.recipe import Recipe
from engine.training.state import State

TILE = 64  # pixels: the longer side of an image that is kept, at most


def describe_data(
    dataset: Dataset, raw: RawSplits, splits: Splits, taken: list[int] | None, data_dir: Path
) -> dict[str, Any]:
    """What is trained and tested on.

    `taken` is as taken() has it, `data_dir` where it lies, unless it is a folder of the user's own.
    """
    return {
        "dataset": {
            "key": dataset.key,
            "name": dataset.name,
            "version": dataset.version,
            "domain": dataset.domain,
            "published": dataset.published,
            "subjects": dataset.subjects,
            "partial": bool(raw.differences),
            "differences": list(raw.differences),
            "notes": list(raw.notes),
            "classes": list(raw.classes),
            "own_validation": raw.val is not None and taken is None,
            "taken": taken,
            "counts": {"available": len(raw.train)} | {part: len(getattr(splits, part)) for part in PARTS},
            "checksums": dict(raw.checksums),
            "split": splits.hash,
            "test_part": splits.test.fingerprint,
            "division": raw.division or None,
            "stored_size": list(splits.test.stored_size),
            "place": without_home(str(dataset.own_folder or data_dir.absolute())),
        },
        "decoder": DECODER,
    }


def describe_model(
    name: str, backbone: Backbone, weights: Weights, model: nn.Module, macs: int, seen: int | None
) -> dict[str, Any]:
    """What is trained, and what is known of its costs.

    `macs` are those of one image, `seen` the test images that the weights have seen; None: nobody knows.
    """
    parameters = list(model.parameters())
    return {
        "backbone": {
            "name": name,
            "builder": backbone.builder_name,
            "weights": weights.name,
            "weights_sha256": weights.sha256,
            "weights_run": weights.run and {**weights.run, "seen": seen},
        },
        "costs": {
            "parameters": sum(parameter.numel() for parameter in parameters),
            "trained_parameters": sum(parameter.numel() for parameter in parameters if parameter.requires_grad),
            "macs": macs,
        },
    }


def describe_training(config: Config, recipe: Recipe, train: Batches, plan: Plan) -> dict[str, Any]:
    """How it is trained."""
    return {
        "protocol": config.protocol,
        "recipe": config.recipe,
        "lr": recipe.lr,
        "epochs": recipe.epochs,
        "sweep": None,
        "seed": config.seed,
        "batch_size": train.batch_size,
        "class_weights": recipe.class_weights and list(recipe.class_weights),
        "normalisation": {"mean": list(train.mean), "std": list(train.std)},
        "config": config.settings(),
        "plan": asdict(plan),
        "search": search_mark(),
    }


def describe_processes(train: Batches, sync_batch_norm: bool) -> dict[str, Any]:
    """How each batch is divided among processes that train together; {} of one that is alone."""
    if train.processes == 1:
        return {}
    images = [replace(train, process=rank).whole_share for rank in range(train.processes)]
    return {"processes": {"count": train.processes, "images": images, "sync_batch_norm": sync_batch_norm}}


@dataclass(frozen=True)
class Outcome:
    """What came out of the test part, and how fast; what probabilities of it are calibrated by."""

    test: Part
    logits: Logits  # (N, classes), in the order of the part
    speed: Mapping[str, float]  # as Clock.stop() has it
    calibration: Mapping[str, Any] | None = None  # as calibration() has it


def results(
    record: Mapping[str, Any], state: State, outcome: Outcome
) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """A finished run's `selection`, `test` and further `costs`."""
    best = state.history[state.best_epoch - 1]
    part = "test" if record["protocol"] == "paper" else "val"
    selection = {
        "part": part,
        "top1": best[f"{part}_top1"],
        "epoch": state.best_epoch,
        "stage": best["stage"],
    }
    if state.select != "top1":
        selection |= {state.select: state.best_score}
    median = {key: statistics.median(row[key] for row in state.trained) for key in outcome.speed}
    # of features, rows a second would tell nothing of the images
    train = state.speed_of_features or median
    swept = record["sweep"] or []
    joules = [state.energy_joules, *(row["energy_joules"] for row in swept)]
    costs = {
        "images": state.epochs * record["dataset"]["counts"]["train"] + sum(row["images"] for row in swept),
        "epochs": state.epochs,
        "train_seconds": sum(row["seconds"] for row in (*state.history, *swept)),
        "epoch_seconds": median["seconds"],
        "train_images_per_second": train["images_per_second"],
        "train_compute_images_per_second": train["compute_images_per_second"],
        "data_wait_share": train["data_wait_share"],
        "test_images_per_second": outcome.speed["images_per_second"],
        "test_compute_images_per_second": outcome.speed["compute_images_per_second"],
        "save_seconds": state.save_seconds,
        "peak_memory_mib": state.peak_memory_mib,
        "resident_memory_mib": state.resident_memory_mib,
        "energy_joules": None if None in joules else sum(filter(None, joules)),
    }
    return selection, evaluate(outcome.logits, outcome.test.labels), costs


def calibrated(outcome: Outcome) -> dict[str, Any] | None:
    """A finished run's `calibration`, with NLL and ECE of the test part at its temperature; None: none was fitted."""
    if outcome.calibration is None:
        return None
    temperature = outcome.calibration["temperature"]
    predictions = Predictions(scaled(outcome.logits, temperature), outcome.test.labels)
    return {**outcome.calibration} | {f"test_{name}": METRICS[name].compute(predictions) for name in ("nll", "ece")}


def tiles_of_errors(outcome: Outcome) -> dict[str, npt.NDArray[Any]] | None:
    """Wrong test images that are worth a look, as rows_to_keep() has them; None where nothing is wrong.

    `rows` are their places in the part, `tiles` the images, at most TILE pixels high and wide, uint8 (N, H, W, 3).
    """
    test = outcome.test
    temperature = outcome.calibration["temperature"] if outcome.calibration else None
    rows = rows_to_keep(outcome.logits, test.labels, temperature)
    if not len(rows):
        return None
    pixels = test.pixels(rows)
    height, width = (max(1, round(side * min(1.0, TILE / max(pixels.shape[1:3])))) for side in pixels.shape[1:3])
    return {"tiles": np.stack([resize(image, (height, width)) for image in pixels]), "rows": rows}
