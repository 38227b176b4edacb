"""A report, as reporting/ hands it to the page, of invented results: small, or as large as one wants it."""

from __future__ import annotations

import base64
import io
import random
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from common import BACKBONES
from datasets import DATASETS
from reporting.build import build
from reporting.collect import Collected
from reporting.coverage import TABLE
from reporting.entry import ALL_IMAGES, Budget, Entry, Provenance, Results, Setting, Version, reported_metrics

DOMAINS = {
    "natural": ["cifar10", "cifar100", "flowers102"],
    "texture": ["dtd"],
    "remote sensing": ["ucmerced", "eurosat"],
    "medical": ["breakhis_40x", "rsna"],
}


def report(
    names: tuple[str, ...] = tuple(BACKBONES)[:6],
    domains: dict[str, list[str]] | None = None,
    seeds: int = 3,
    budgets: tuple[Budget, ...] = (ALL_IMAGES, Budget(10)),
    classes: int = 10,
    epochs: int = 12,
    groups: int = 1,
) -> dict[str, Any]:
    """The same numbers for the same arguments. `domains` has the keys of datasets, which need not be real ones."""
    draw = random.Random(0)
    keys = [(domain, key) for domain, several in (domains or DOMAINS).items() for key in several]
    entries = [
        entry(draw, setting, (*keys[d], d), (budgets[budget], budget), (names[b], b), seed, classes)
        for setting in [Setting(protocol, "adamw-sgd", "imagenet", ()) for protocol in ("honest", "paper")[:groups]]
        for budget in range(len(budgets))
        for d in range(len(keys))
        for b in range(len(names))
        for seed in range(seeds)
    ]
    skipped = [{"path": "notes.txt", "reason": "not a record"}]
    failed = [{"cell": "cifar10-swin-0", "reason": "out of memory", "tail": "line 1\nline 2"}]
    made = build(Collected(entries, skipped, failed), Path("runs"), thumbnails=False)
    for cell in [cell for group in made["groups"] for cell in group["cells"]]:
        top1 = cell["mean"]["top1"]
        curves = [
            [round(top1 * (1 - 0.7**epoch), 4) for epoch in range(1, epochs + 1 + seed)]
            for seed in range(min(5, seeds))
        ]
        losses = [[round(2 * (1 - value), 4) for value in curve] for curve in curves]
        cell |= {"curve": curves, "loss": losses, "errors": sprite(draw, classes), "coverage": coverage(top1, seeds)}
    return made | {
        "made": "2026-11-24T16:50:00+00:00",
        "commit": "44787f0",
        "apart": [{"run": "digits/resnet/honest-seed0-0123456789", "reason": "not finished"}],
        "no_curve": [{"run": "digits/swin/honest-seed0-0123456789", "reason": "history.csv is missing"}],
    }


def entry(
    draw: random.Random,
    setting: Setting,
    dataset: tuple[str, str, int],
    budget: tuple[Budget, int],
    backbone: tuple[str, int],
    seed: int,
    classes: int,
) -> Entry:
    """A finished run on a dataset of a domain, the easier the later; later backbones are better and larger."""
    domain, key, d = dataset
    run = f"{key}/{backbone[0]}/{setting.protocol}-seed{seed}-{budget[1]}"
    images = 5000 // 10 ** budget[1]
    return Entry(
        run=run,
        folder=Path("runs") / run,
        status="done",
        error=None,
        time="2026-11-24T16:50:00+00:00",
        partial=False,
        notes=(),
        version=Version(
            key, "1", tuple(f"class {number}" for number in range(classes)), 40 * classes, (64, 64), "none"
        ),
        name=DATASETS[key].name if key in DATASETS else key,
        domain=domain,
        subjects="",
        available_images=5000,
        used_images=images,
        backbone=backbone[0],
        setting=setting,
        seed=seed,
        budget=budget[0],
        provenance=PROVENANCE,
        results=results(draw, backbone[1], min(0.98, 0.6 + 0.03 * backbone[1] + 0.02 * d - 0.15 * budget[1]), classes),
    )


PROVENANCE = Provenance(
    lr=0.001,
    weights="ResNet50_Weights.IMAGENET1K_V1",
    weights_sha256="0676ba61" + "0" * 56,
    versions=(("torch", "2.9.0"), ("python", "3.12.1")),
    hardware="NVIDIA H100",
    precision="bf16",
    split="64f376ac",
    commit="44787f0",
)


def results(draw: random.Random, b: int, level: float, classes: int) -> Results:
    level += draw.uniform(-0.02, 0.02)
    values = {name: {"nll": 2 * (1 - level), "ece": 0.05}.get(name, level) for name in reported_metrics()}
    wrong = {(draw.randrange(classes), draw.randrange(classes)): draw.randint(1, 9) for _ in range(classes * 12)}
    confusion = {(i, i): 90 for i in range(classes)} | {(i, j): n for (i, j), n in wrong.items() if i != j}
    places = sorted((i * classes + j, n) for (i, j), n in confusion.items())
    return Results(
        {name: value + draw.uniform(-0.01, 0.01) for name, value in values.items()},
        {
            "parameters": 5_000_000 + 2_000_000 * b,
            "macs": 10**9 * (1 + b),
            "train_seconds": 100.0 + 90 * b,
            "train_images_per_second": 2000.0 - 130 * b,
            "test_images_per_second": 6000.0 - 300 * b,
            "peak_memory_mib": 3000 + 500 * b,
            "images": 100_000,
            "epochs": 12,
        },
        np.array([draw.uniform(0.5, 1) for _ in range(classes)], np.float32),
        np.array([place for place, _ in places], np.int32),
        np.array([n for _, n in places], np.int32),
    )


def sprite(draw: random.Random, classes: int, tiles: int = 4, side: int = 16) -> dict[str, Any]:
    """The worst errors of a run, of which nobody can tell what they show."""
    image = Image.new("RGB", (tiles * side, side))
    for tile in range(tiles):
        colour = (draw.randrange(256), draw.randrange(256), draw.randrange(256))
        image.paste(colour, (tile * side, 0, (tile + 1) * side, side))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    errors = [
        {"true": tile % classes, "predicted": (tile + 1) % classes, "confidence": 0.98, "name": f"test/{tile}.png"}
        for tile in range(tiles)
    ]
    suspects = [
        {"at": at, "given": at or 0, "suggested": 1, "probabilities": [0.1, 0.8], "name": f"test/s{at}.png"}
        for at in (0, 2, None)
    ]
    text = base64.b64encode(buffer.getvalue()).decode()
    picture = {"sprite": f"data:image/png;base64,{text}", "columns": tiles, "tile": [side, side], "of": 0}
    return picture | {"tiles": errors, "suspects": suspects, "suspected": [7, 400]}


def coverage(top1: float, seeds: int) -> dict[str, Any]:
    """What rejecting keeps: the fewer, the more of them are right."""
    rows = [[least, round(1 - least**3 / 2, 4), round(top1 + (1 - top1) * least**3 / 2, 4)] for least in TABLE]
    table: list[list[float | None]] = [
        [*row, round(row[2] - 0.02, 4), min(1.0, round(row[2] + 0.02, 4))] for row in rows[:-1]
    ]
    table.append([TABLE[-1], 0.0, None, None, None])
    by = {"temperatures": [1.2 + seed / 10 for seed in range(seeds)], "ece": [0.051, 0.012]}
    return {"seeds": [*range(seeds)], "curve": rows, "table": table, **by}
