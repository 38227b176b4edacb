"""Results of rank.py, as they lie in a folder of runs: invented, of backbones that synthetic records are of."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import DATASETS
from engine.files import json_digest
from reporting.rank_results import SCORES, SEARCHED, RankedBackbone, RankedData, RankResult, path_of, write

NAMES = ("convnext", "swin", "resnet", "regnet")  # best first by every score
PART = "cd" * 32  # the hash of the test part


def backbone(name: str, place: int, **changes: Any) -> RankedBackbone:
    """One whose scores fall with its place."""
    sha256 = hashlib.sha256(name.encode()).hexdigest()
    scores = {score: 0.9 - 0.1 * place - 0.01 * number for number, score in enumerate(SCORES)}
    of: dict[str, Any] = {"weights": "IMAGENET1K_V1", "weights_sha256": sha256, "top1": 80.0 + place}
    of |= {"mean_rank_elsewhere": None, "scores": scores, "pass_seconds": 2.5, "train_images_per_second": 512.0}
    return RankedBackbone(name, **(of | {"speed_from": "plan", "parameters": 10**7, "macs": 10**9} | changes))


def result(names: Sequence[str] = NAMES, dataset: str = "dtd", **changes: Any) -> RankResult:
    """An order of these, as they are given. `changes` are of its fields."""
    declared = DATASETS[dataset]
    size = declared.size
    data = RankedData(dataset, declared.name, declared.domain, "1", "ab" * 32, PART, declared.classes, 1880, size)
    of: dict[str, Any] = {
        "made": "2026-11-30T10:00:00+00:00",
        "dataset": data,
        "backbones": tuple(backbone(name, place) for place, name in enumerate(names)),
        "order": tuple(names),
        "mean_rank": {name: float(place) for place, name in enumerate(names, 1)},
        "rule": "the mean of the ranks by the probe and by ImageNet top-1",
        "left_out": ({"name": "wavemix", "reason": "its weights can't be had"},),
        "notes": ("a class of one image is left out",),
    }
    return RankResult(**(of | changes))


def search(names: Sequence[str] = NAMES, **changes: Any) -> dict[str, Any]:
    """How a search went, as JSON: two rungs, of which the second has two candidates."""
    rungs = [
        {
            "epochs": epochs,
            "candidates": [
                {"name": name, "status": "done", "score": 0.8 - place / 10, "interval": [0.7 - place / 10, 0.9]}
                for place, name in enumerate(several)
            ],
            "kept": list(names[:2]),
        }
        for epochs, several in ((1, names), (2, names[:2]))
    ]
    of = {"budget": "images:9000", "images": 7520, "seconds": 61.0, "full_grid_images": 75200}
    last = {"told_apart": False, "complete": True, "stopped_early": False, "rungs": rungs}
    return {**of, **last, "recommendation": names[0], "runner_up": names[1], **changes}


def put(runs: Path, made: RankResult, searched: Mapping[str, Any] | None = None, digest: str = "0123abcd") -> Path:
    """Write a result, and a search beside it; returns the path of the first."""
    path = path_of(runs, made.dataset.key, digest)
    write(made, path)
    if searched is not None:
        sealed = {**searched, "checksum": json_digest(searched)}
        path_of(runs, made.dataset.key, digest, SEARCHED).write_text(json.dumps(sealed), "utf-8")
    return path
