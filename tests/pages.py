"""A report, as reporting/ hands it to the page, made of invented numbers: small, or as large as one wants it."""

from __future__ import annotations

import base64
import io
import random
from typing import Any

from PIL import Image

from common import BACKBONES

DOMAINS = {
    "natural": ["CIFAR-10", "CIFAR-100", "Flowers-102"],
    "texture": ["DTD"],
    "remote sensing": ["UCMerced", "EuroSAT"],
    "medical": ["BreakHis 40x", "RSNA Pneumonia"],
}
METRICS = ("top1", "balanced_accuracy", "macro_f1", "auroc", "nll", "ece")
DIAGRAM = (
    '<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 400 120" width="400" height="120">'
    '<path d="M20 30 H380" stroke="currentColor"/><path d="M40 50 H160" stroke="currentColor" stroke-width="4"/>'
    '<text x="40" y="80" fill="currentColor">convnext</text></svg>'
)


def report(
    names: tuple[str, ...] = tuple(BACKBONES)[:6],
    domains: dict[str, list[str]] | None = None,
    seeds: int = 3,
    budgets: tuple[str, ...] = ("all", "10 shots"),
    classes: int = 10,
    epochs: int = 12,
    leagues: int = 1,
) -> dict[str, Any]:
    """The same numbers for the same arguments."""
    draw = random.Random(0)
    made = [
        league(draw, names, domains or DOMAINS, seeds, budgets, classes, epochs, protocol)
        for protocol in ("honest", "paper")[:leagues]
    ]
    return {
        "made": "2026-11-24T16:50:00+00:00",
        "runs": "runs",
        "commit": "44787f0",
        "records": sum(len(cell["seeds"]) for league in made for cell in league["cells"]),
        "leagues": made,
        "apart": [{"run": "digits/resnet/honest-seed0-0123456789", "reason": "not finished"}],
        "skipped": [{"path": "notes.txt", "reason": "not a record"}],
        "no_curve": [{"run": "digits/swin/honest-seed0-0123456789", "reason": "history.csv is missing"}],
        "failed": [{"cell": "cifar10-swin-0", "reason": "out of memory", "tail": "line 1\nline 2"}],
    }


def league(
    draw: random.Random,
    names: tuple[str, ...],
    domains: dict[str, list[str]],
    seeds: int,
    budgets: tuple[str, ...],
    classes: int,
    epochs: int,
    protocol: str,
) -> dict[str, Any]:
    datasets = [
        {
            "key": name.lower().replace(" ", "-"),
            "name": name,
            "domain": domain,
            "classes": [f"class {number}" for number in range(classes)],
            "train": 5000,
            "test": 40 * classes,
            "published": True,
        }
        for domain, members in domains.items()
        for name in members
    ]
    cells = [
        cell(draw, d, b, budget, seeds, classes, epochs)
        for budget in range(len(budgets))
        for d in range(len(datasets))
        for b in range(len(names))
    ]
    for budget in range(len(budgets)):
        for d in range(len(datasets)):
            mark([entry for entry in cells if (entry["budget"], entry["d"]) == (budget, d)])
    return {
        "id": protocol,
        "title": f"{protocol} protocol, recipe adamw-sgd, ImageNet weights",
        "protocol": protocol,
        "recipe": "adamw-sgd",
        "weights": "imagenet",
        "settings": ["batches of 64", "patience 10"],
        "warnings": ["paper protocol: test chose the epoch, optimistic"] if protocol == "paper" else [],
        "notes": ["paper protocol: test chose the epoch, optimistic"] if protocol == "paper" else [],
        "budgets": list(budgets),
        "domains": list(domains),
        "datasets": datasets,
        "backbones": [
            {"name": name, "parameters": 5_000_000 + 2_000_000 * number, "macs": 10**9 * (1 + number)}
            for number, name in enumerate(names)
        ],
        "cells": cells,
        "makings": [
            {
                "recipe": "AdamW at 0.001, then SGD",
                "weights": "ResNet50_Weights.IMAGENET1K_V1",
                "weights_sha256": "0676ba61" + "0" * 56,
                "versions": {"torch": "2.9.0", "python": "3.12.1"},
                "hardware": "NVIDIA H100",
                "precision": ["bf16"],
                "dataset_version": "1",
                "split": ["64f376ac"],
                "commit": ["44787f0"],
            }
        ],
        "rankings": {
            str(budget): {
                scope: ranking(draw, names, [d for d in datasets if scope in ("overall", d["domain"])], seeds)
                for scope in ("overall", *domains)
            }
            for budget in range(len(budgets))
        },
        "pairs": {
            str(budget): [
                pair(draw, a, b, len(datasets), seeds) for place, a in enumerate(names) for b in names[place + 1 :]
            ]
            for budget in range(len(budgets))
        },
        "published": published(domains, names) if protocol == "paper" else None,
    }


def cell(draw: random.Random, d: int, b: int, budget: int, seeds: int, classes: int, epochs: int) -> dict[str, Any]:
    level = 0.6 + 0.03 * b + 0.02 * d - 0.15 * budget + draw.uniform(-0.03, 0.03)
    level = min(level, 0.985)
    values = {
        metric: [round(value + draw.uniform(-0.01, 0.01), 4) for _ in range(seeds)]
        for metric, value in zip(METRICS, (level, level, level, level, 2 * (1 - level), 0.05), strict=True)
    }
    mean = {metric: round(sum(several) / seeds, 4) for metric, several in values.items()}
    wrong = {(draw.randrange(classes), draw.randrange(classes)): draw.randint(1, 9) for _ in range(classes * 12)}
    confusion = {(i, i): 90 for i in range(classes)} | {(i, j): n for (i, j), n in wrong.items() if i != j}
    curve = [[round(level * (1 - 0.7**epoch), 4) for epoch in range(1, epochs + 1 + seed)] for seed in range(seeds)]
    return {
        "d": d,
        "b": b,
        "budget": budget,
        "seeds": list(range(seeds)),
        "runs": [f"dataset{d}/backbone{b}/honest-seed{seed}-0123456789" for seed in range(seeds)],
        "values": values,
        "mean": mean,
        "low": {metric: round(value - 0.01, 4) for metric, value in mean.items()} if seeds > 1 else None,
        "high": {metric: round(value + 0.01, 4) for metric, value in mean.items()} if seeds > 1 else None,
        "mark": "",
        "costs": {
            "seconds": 100.0 + 90 * b + 10 * d,
            "images_per_second": 2000.0 - 130 * b,
            "test_images_per_second": 6000.0 - 300 * b,
            "memory_mib": 3000 + 500 * b,
            "images": 100_000,
            "epochs": float(epochs),
        },
        "images": 5000 if budget == 0 else 100 * (len(METRICS) - budget),
        "curve": curve[:5],
        "loss": [[round(2 * (1 - top1), 4) for top1 in several] for several in curve[:5]],
        "confusion": [[i, j, n] for (i, j), n in sorted(confusion.items())],
        "recall": [round(draw.uniform(0.5, 1), 3) for _ in range(classes)],
        "errors": sprite(draw, classes),
        "made": 0,
    }


def mark(cells: list[dict[str, Any]]) -> None:
    """The best of a dataset, and those that an invented test could not tell from it."""
    best = max(cells, key=lambda entry: float(entry["mean"]["top1"]))
    for entry in cells:
        if entry is best:
            entry["mark"] = "best"
        elif len(entry["seeds"]) > 2 and entry["mean"]["top1"] > best["mean"]["top1"] - 0.02:
            entry["mark"] = "tied"


def sprite(draw: random.Random, classes: int, tiles: int = 4, side: int = 16) -> dict[str, Any]:
    image = Image.new("RGB", (tiles * side, side))
    for tile in range(tiles):
        colour = (draw.randrange(256), draw.randrange(256), draw.randrange(256))
        image.paste(colour, (tile * side, 0, (tile + 1) * side, side))
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    found = [
        {"true": tile % classes, "predicted": (tile + 1) % classes, "confidence": 0.98, "name": f"test/{tile}.png"}
        for tile in range(tiles)
    ]
    text = base64.b64encode(buffer.getvalue()).decode()
    return {"sprite": f"data:image/png;base64,{text}", "tile": [side, side], "of": 0, "tiles": found}


def ranking(draw: random.Random, names: tuple[str, ...], datasets: list[dict[str, Any]], seeds: int) -> dict[str, Any]:
    order = list(reversed(names))
    enough = len(datasets) >= 5 and seeds >= 3
    best = f"{order[0]} is best on {len(datasets)} datasets, by an average rank of 1.40 of {len(names)}"
    return {
        "answer": f"{best}." if enough else f"Not enough evidence: {len(datasets)} datasets of the five it takes.",
        "enough": enough,
        "evidence": [f"Average top-1 {92.31 - len(names):.2f} %, over {seeds} seeds."] if enough else [],
        "missing": [] if enough else [f"{5 - len(datasets)} more datasets with three seeds each"],
        "backbones": order,
        "datasets": [dataset["key"] for dataset in datasets],
        "independent": len(datasets),
        "left_out": [{"what": "inception", "why": "it lacks 6 of 8 datasets"}],
        "ranks": {name: round(1.4 + 0.8 * place, 2) for place, name in enumerate(order)},
        "mean": {name: round(0.92 - 0.02 * place + draw.uniform(0, 0.01), 4) for place, name in enumerate(order)},
        "friedman": {"chi2": 9.28, "p": 0.0258, "f": 3.69, "p_f": 0.0201} if enough else None,
        "cd": 1.25 if enough else None,
        "groups": [order[:2], order[1:4]] if enough else [],
        "svg": DIAGRAM if enough else None,
    }


def pair(draw: random.Random, a: str, b: str, datasets: int, seeds: int) -> dict[str, Any]:
    difference = round(draw.uniform(-0.03, 0.03), 4)
    return {
        "a": a,
        "b": b,
        "difference": difference,
        "low": round(difference - 0.01, 4),
        "high": round(difference + 0.01, 4),
        "better": 0.97 if difference > 0 else 0.03,
        "datasets": datasets,
        "seeds": seeds,
        "enough": datasets >= 5 and seeds >= 3,
        "why": "" if datasets >= 5 and seeds >= 3 else "needs three shared seeds on five datasets",
    }


def published(domains: dict[str, list[str]], names: tuple[str, ...]) -> dict[str, Any]:
    rows = [
        {"domain": domain, "best": "ConvNeXt-Tiny", "better": None, "ours": list(names[:3]), "why": None}
        for domain in domains
    ]
    rows.append({"domain": "overall", "best": "ConvNeXt-Tiny", "better": None, "ours": None, "why": "two seeds only"})
    return {"note": "Jeevan & Sethi, arXiv 2406.05612, table of ranks", "rows": rows}
