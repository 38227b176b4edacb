"""What rank.py costs beside fine-tuning: all backbones on images made here, both measured in one run.

python benchmarks/rank_cost.py [--images 2000] [--size 224] [--epochs 20]

rank.py is timed from its start to its end, first with nothing kept, then again. Beside it stand training steps of every
backbone in the form that rank.py's pass chose, from which the time of the epochs follows; validation, test and saving,
which fine-tuning takes too, are not counted. Weights are random: they make no pass faster or slower.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

import common
from benchmarks.photographs import make_photographs
from engine.cli import Help, whole
from engine.console import duration, say, table
from engine.device import free_memory
from engine.environment import environment
from engine.files import write_json
from engine.models.weights import NONE, build
from engine.paths import PROJECT
from engine.training.agreement import copy_in_form, make_candidate
from engine.training.plan import Plan, choose_plan
from engine.training.threads import thread_counts
from engine.training.trials import seconds_of

TRAINED = 0.8 * 0.9  # of images in class folders: a fifth is held out for testing, a tenth of the rest for validation
STEPS = 2  # that are timed, of which the faster counts, after one that is not


def rank(folder: Path, arguments: argparse.Namespace, models: list[str]) -> tuple[dict[str, Any], float]:
    """What rank.py says, and the seconds that it took."""
    command = [sys.executable, str(PROJECT / "rank.py"), str(folder / "images"), "--models", *models, "--json"]
    command += ["--weights", "none", "--size", str(arguments.size), "--out", str(folder / "runs")]
    command += ["--cache-dir", str(folder / "cache")]
    start = time.perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)  # noqa: S603 (the project's own script)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}")
    return json.loads(done.stdout), time.perf_counter() - start


def forms(folder: Path) -> dict[str, str]:
    """The form that each backbone's pass chose, as it is kept with the features."""
    kept = {}
    for path in (folder / "cache" / "features").glob("*.json"):
        kept[path.name.split("-")[-2]] = str(json.loads(path.read_bytes())["about"]["form"])
    return kept


def step_speed(name: str, form: str, plan: Plan, arguments: argparse.Namespace) -> float:
    """Images/s of training steps, with as many of a processor's threads as are fastest just now."""
    precision, _, layout = form.partition(" ")
    counts = thread_counts() if plan.device == "cpu" else [plan.threads]
    plans = [replace(plan, precision=precision, layout=layout, threads=threads) for threads in counts]
    size, images = arguments.size, arguments.batch_size
    model = build(common.BACKBONES[name], name, 2, NONE)
    head = common.BACKBONES[name].head
    candidates = [make_candidate(each, copy_in_form(each, model), head, images) for each in plans]
    batch = torch.rand(images, 3, size, size, device=plan.device)
    labels = torch.arange(images, device=plan.device) % 2
    took = [min([seconds_of(each, batch, labels) for _ in range(1 + STEPS)][1:]) for each in candidates]
    free_memory(plan.device)
    return float(images / min(took))


def main() -> None:
    """Make the images, ask twice, time steps, print the table and write rank_cost.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Help)
    parser.add_argument("--images", type=whole(20), default=2000, help="to be trained on (default: 2000)")
    parser.add_argument("--size", type=whole(32), default=224, help="height and width in pixels (default: 224)")
    parser.add_argument("--epochs", type=whole(1), default=20, help="of fine-tuning (default: 20)")
    parser.add_argument("--batch-size", type=whole(2), default=32, help="of a training step (default: 32)")
    parser.add_argument("--models", nargs="+", metavar="NAME", help="default: the published eleven")
    parser.add_argument("--out", type=Path, default=Path("build"), metavar="DIR", help="default: build")
    arguments = parser.parse_args()
    models = arguments.models or [name for name, of in common.BACKBONES.items() if of.published]
    plan = choose_plan("auto", "auto")
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        needed = round(arguments.images / TRAINED)
        make_photographs(folder / "images", needed, needed)
        answer, first = rank(folder, arguments, models)
        memory = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024
        _, again = rank(folder, arguments, models)
        chosen = forms(folder)
    images = answer["dataset"]["train_images"]
    passes = {each["name"]: each["pass_seconds"] for each in answer["backbones"]}
    rows = [("backbone", "form", "pass", "images/s", "training, images/s", f"{arguments.epochs} epochs")]
    total = 0.0
    for name in models:
        speed = step_speed(name, chosen[name], plan, arguments)
        seconds = arguments.epochs * images / speed
        total += seconds
        rates = (f"{images / passes[name]:.1f}", f"{speed:.1f}")
        rows.append((name, chosen[name], duration(passes[name]), *rates, duration(seconds)))
    say(f"{plan.device_name}; {images:,} images at {arguments.size}x{arguments.size}", table(rows))
    say(
        f"rank.py: {duration(first)} with nothing kept, {duration(again)} again, at most {memory:,.0f} MiB; "
        f"{arguments.epochs} epochs of all: {duration(total)}, {total / first:.1f} times as long"
    )
    found = {"seconds": first, "again": again, "memory_mib": memory, "training_seconds": total, "images": images}
    write_json(arguments.out / "rank_cost.json", {**found, "rows": rows, "environment": environment()})


if __name__ == "__main__":
    main()
