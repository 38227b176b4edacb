"""Cells of a command line, and records as their runs might have left them."""

from __future__ import annotations

import json
from typing import Any

import grid
from engine.records.schema import RECORD, Record, as_record
from grids.cells import Cell


def cells(line: str) -> list[Cell]:
    return grid.cells_of(grid.parser().parse_args(line.split()))


def record_of(cell: Cell, status: str = "done", **changes: Any) -> Record:
    """What a run of `cell` might have left."""
    config = cell.config
    record = {
        "schema": 2,
        "run": "x",
        "status": status,
        "error": None,
        "started": "2026-01-01T00:00:00+00:00",
        "finished": "2026-01-01T00:01:40+00:00",
        "resumed": [],
        "dataset": {
            "key": cell.dataset.key,
            "name": cell.dataset.name,
            "version": cell.dataset.version,
            "partial": False,
            "counts": {"available": 1000, "train": 900, "val": 100, "test": 200},
        },
        "backbone": {"name": config.model, "weights": "none", "weights_sha256": None, "weights_run": None},
        "protocol": config.protocol,
        "recipe": config.recipe,
        "config": config.settings(),
        "plan": {"device_name": "this one"},
        "selection": {"part": "val"},
        "test": {"top1": 0.5, "images": 200},
        "costs": {
            "epochs": 10,
            "train_images_per_second": 100.0,
            "test_images_per_second": 400.0,
            "train_seconds": 90.0,
        },
        "environment": {"command": list(cell.command)},
    }
    return as_record(record | changes)


def write(cell: Cell, record: Record, name: str = "x") -> None:
    config = cell.config
    path = config.out / cell.dataset.key / config.model / f"honest-seed{config.seed}-{name}" / RECORD
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(record))
