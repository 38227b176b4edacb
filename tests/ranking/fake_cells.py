"""Cells that train nothing: a script in the place of digits.py that leaves the record and history of a training at
once, or epoch by epoch, as curves.json has them."""

from __future__ import annotations

import contextlib
import json
import multiprocessing
import multiprocessing.context
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from common import BACKBONES
from grids.cells import Cell, find_datasets, make_cells
from grids.view import Lines
from ranking.budget import Budget
from ranking.search import run_search
from ranking.search_result import SearchResult
from ranking.trainings import Candidate, Request

SCRIPT = """
if __name__ == "__main__":
    import cell
else:
    from digits import DATASET
"""

# it goes on from the epochs that its history has, as a training does
CELL = r"""
import csv, json, os, signal, sys, time
from datetime import datetime, timezone
from pathlib import Path

here = Path(__file__).parent
curves = json.loads((here / "curves.json").read_text())
words = sys.argv[1:]
given = dict(zip(words[::2], words[1::2]))
model, epochs = given["-model"], int(given.get("--epochs", curves["full"]))
own = curves["cells"][model]
folder = Path("runs/digits") / model / f"honest-seed0-e{epochs}"
images = curves["images"]
began = datetime.now(timezone.utc)

def write(path, text):
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    temporary.write_text(text)
    temporary.replace(path)

def leave(status, **more):
    record = curves["record"] | {"run": folder.name, "status": status, "search": search, "resumed": resumed} | more
    config = record["config"] | {"model": model, "epochs": int(given["--epochs"]) if "--epochs" in given else None}
    record["started"], record["finished"] = began.isoformat(), datetime.now(timezone.utc).isoformat()
    write(folder / "record.json", json.dumps(record | {"config": config}))

def history():
    try:
        return list(csv.DictReader((folder / "history.csv").open()))
    except OSError:
        return []

with (here / "started.txt").open("a") as file:
    file.write(f"{model} {epochs} {os.environ['WHICH_BACKBONE_SEARCH']}\n")
if own.get("fails"):
    print(f"error: {own['fails']}", file=sys.stderr)
    sys.exit(own.get("code", 3))
stop = []
signal.signal(signal.SIGUSR1, lambda *_: stop.append(1))
seconds = own.get("seconds_in", {}).get(str(epochs), own.get("seconds", 0))
seconds = 0 if (here / "fast").exists() else seconds
rows = history()
folder.mkdir(parents=True, exist_ok=True)
earlier = json.loads((folder / "record.json").read_text()) if (folder / "record.json").exists() else {}
search = earlier.get("search") if rows else os.environ["WHICH_BACKBONE_SEARCH"] or None
resumed = [{"at": "x", "environment": {}}] if rows else []
leave("running")
score = own["scores"].get(str(epochs), own["scores"]["else"])
for epoch in range(len(rows) + 1, epochs + 1):
    time.sleep(seconds)
    rows.append({"epoch": epoch, "val_loss": own.get("loss", 0.5), "val_top1": score})
    text = "epoch,val_loss,val_top1\n" + "".join(f"{r['epoch']},{r['val_loss']},{r['val_top1']}\n" for r in rows)
    write(folder / "history.csv", text)
    Path(os.environ["WHICH_BACKBONE_HEARTBEAT"]).write_text(f"epoch {epoch}")
    if stop and epoch < epochs:
        print("interrupted", flush=True)
        sys.exit(130)
costs = {"epochs": epochs, "images": epochs * images, "train_seconds": epochs * (seconds + 0.001),
         "train_images_per_second": 100.0, "test_images_per_second": 1e9}
selection = {"part": "val", "top1": score, "epoch": epochs, "stage": "cosine"}
leave("done", costs=costs, selection=selection, test={"top1": score, "images": 360})
print("done")
"""

MODELS = ("resnet", "swin", "regnet", "mobilenet")
IMAGES, FULL, VAL = 1000, 20, 1000
FLAGS = "--recipe cosine --device cpu"


def prepare(folder: Path, curves: Mapping[str, Mapping[str, Any]], val: int = VAL) -> None:
    """Put the script there, and what its cells come to: backbone -> its scores by epochs, seconds an epoch, failure."""
    (folder / "digits.py").write_text(SCRIPT)
    (folder / "cell.py").write_text(CELL)
    cell = make("resnet", 1)
    record = {
        "schema": 2,
        "run": "x",
        "dataset": {
            "key": "digits",
            "name": "digits",
            "version": cell.dataset.version,
            "partial": False,
            "counts": {"available": IMAGES + val, "train": IMAGES, "val": val, "test": 360},
        },
        "backbone": {"name": "x", "weights": "none", "weights_run": None},
        "protocol": "honest",
        "recipe": "cosine",
        "config": cell.config.settings(),
        "plan": {"device_name": "a processor"},
        "environment": {"command": ["digits.py"]},
    }
    content = {"cells": curves, "record": record, "images": IMAGES, "full": FULL}
    (folder / "curves.json").write_text(json.dumps(content))


def make(model: str, epochs: int | None) -> Cell:
    """A cell of the script in the working directory."""
    flags = [*FLAGS.split(), *(["--epochs", str(epochs)] if epochs else [])]
    (cell,) = make_cells(find_datasets(["./digits.py"]), [model], [0], [("all", "")], flags, None)
    assert model in BACKBONES
    return cell


def request(models: Sequence[str] = MODELS, speed: float = 1e6, around: float = 0.0, **changes: Any) -> Request:
    """A search among `models`, each of which is thought to train so many images a second."""
    candidates = [Candidate(name, None, speed, around) for name in models]
    settings: dict[str, Any] = {"identity": {"split": "x"}, "images": IMAGES, "full": FULL, "view": Lines}
    return Request("digits", candidates=candidates, make=make, out=Path("runs"), **settings | changes)


def search(budget: Budget | None = None, **changes: Any) -> SearchResult:
    """Search, and print what came of it."""
    found = run_search(request(**changes), budget)
    print(*found.lines(), sep="\n")
    return found


def started() -> list[str]:
    """The trainings that were started, in order: backbone, epochs, mark."""
    path = Path("started.txt")
    return path.read_text().splitlines() if path.exists() else []


def in_another_process(budget: Budget) -> multiprocessing.context.ForkProcess:
    """The same search, forked, with what the test has set; what it prints goes to printed.txt."""

    def work() -> None:
        with Path("printed.txt").open("a", buffering=1) as sys.stdout, contextlib.redirect_stderr(sys.stdout):
            code = search(budget).exit_code
        os._exit(code)

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    return process
