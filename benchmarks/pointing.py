"""Whether the heat of --explain lies where the evidence is: a task in which that is known, for each of the backbones.

python benchmarks/pointing.py [--models NAME ...] [--images 100]

Noise, a grey square, and a square whose colour is the class, at places drawn at random. Each backbone learns it from
random weights within a minute or so; then the hottest pixel of an image it classifies correctly is to lie in the
square of colour (the pointing game of Zhang et al. 2016, arXiv 1608.00507). The control asks the same of the heat of
another image, and so knows what the middle of an image is worth.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import BACKBONES, build_model
from engine.cli import Help, whole
from engine.console import say, table
from engine.data.part import Pixels
from engine.environment import environment
from engine.files import write_json
from engine.inference.checkpoint import Trained
from engine.inference.preprocessing import Preprocessing
from engine.models.structure import batch_norms
from engine.training.plan import choose_plan
from predicting.explain import Explainer, Heat

COLOURS = ((200, 60, 60), (60, 180, 60), (60, 60, 200))
SQUARE = 3 / 8  # of the image's side: 14 % of its area
SIDE = 128
SIDES = {"inception": 192}  # at which its last feature map has as many places as those of the others
BATCH_SIZE = 8
MOST_STEPS = 150
FASTER = 4  # than fine-tuning goes: the learning rate's factor for random weights
LEARNED = 5  # batches in a row without a mistake
HALF = 0.5  # of the range of pixels: mean and std that images are normalised by

Places = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Task:
    """Images of which it is known where the class is seen."""

    images: Pixels  # (N, side, side, 3)
    labels: npt.NDArray[np.int64]  # (N,)
    places: Places  # (N, side, side): the square of colour


def draw(count: int, side: int, seed: int) -> Task:
    """So many images; the grey square and that of colour do not touch."""
    random = np.random.default_rng(seed)
    images = random.integers(90, 166, (count, side, side, 3), dtype=np.uint8)
    labels = random.integers(0, len(COLOURS), count)
    places = np.zeros((count, side, side), np.bool_)
    width = round(SQUARE * side)
    for image, label, place in zip(images, labels, places, strict=True):
        while True:
            (top, left), (other_top, other_left) = random.integers(0, side - width + 1, (2, 2))
            if max(abs(top - other_top), abs(left - other_left)) >= width:
                break
        image[other_top : other_top + width, other_left : other_left + width] = random.integers(60, 200)
        image[top : top + width, left : left + width] = COLOURS[label]
        place[top : top + width, left : left + width] = True
    return Task(images, labels, places)


def learn(model: nn.Module, preprocessing: Preprocessing, lr: float, steps: int) -> int:
    """Train until it has learned the task, at most so many steps; how many it took."""
    side = preprocessing.size[0]
    autocast = choose_plan("cpu", "auto").autocast
    optimizer = torch.optim.AdamW(model.parameters(), lr)
    correct = 0
    model.train()
    for step in range(steps):
        task = draw(BATCH_SIZE, side, 1000 + step)
        with autocast():
            logits = model(preprocessing.to_input(torch.from_numpy(task.images))).float()
        labels = torch.from_numpy(task.labels)
        correct = correct + 1 if bool((logits.argmax(1) == labels).all()) else 0
        if correct == LEARNED:
            break
        optimizer.zero_grad()
        functional.cross_entropy(logits, labels).backward()
        optimizer.step()
    settle(model, preprocessing)
    model.eval()
    return step + 1


@torch.no_grad()
def settle(model: nn.Module, preprocessing: Preprocessing) -> None:
    """Batch normalisation's statistics anew, as those of so few steps are far from what they have come to be."""
    norms = batch_norms(model)
    for module in norms:
        module.reset_running_stats()
        module.momentum = None  # the mean over batches
    for batch in range(4 if norms else 0):
        model(preprocessing.to_input(torch.from_numpy(draw(BATCH_SIZE, preprocessing.size[0], 500 + batch).images)))


def play(name: str, side: int, images: int) -> dict[str, Any]:
    """Train a backbone and count how often the hottest pixel lies in the square, of images it classifies correctly."""
    start = time.perf_counter()
    torch.manual_seed(0)
    backbone = BACKBONES[name]
    preprocessing = Preprocessing((side, side), (side, side), (HALF,) * 3, (HALF,) * 3)
    model = build_model(name, len(COLOURS), "none").to(memory_format=torch.channels_last)
    taken = learn(model, preprocessing, FASTER * backbone.lr, MOST_STEPS)
    # of a run it needs no more than how its images are made
    explainer = Explainer(Trained(Path(name), {}, {}, backbone, preprocessing), model, "cpu")
    task = draw(images, side, 0)
    with torch.no_grad():
        logits = [model(preprocessing.to_input(torch.from_numpy(image[None]))) for image in task.images]
    right = np.flatnonzero(torch.cat(logits).argmax(1).numpy() == task.labels)
    heats = [explainer.heat(task.images[index], int(task.labels[index])) for index in right]
    places = task.places[right]
    return {
        "model": name,
        "method": explainer.method,
        "side": side,
        "steps": taken,
        "accuracy": len(right) / images,
        "hits": hits(heats, places),
        "hits of another image": hits(heats, np.roll(places, 1, 0)),
        "heat inside": mean([heat[place].sum() / max(heat.sum(), 1e-9) for heat, place in paired(heats, places)]),
        "seconds": time.perf_counter() - start,
    }


def paired(heats: Sequence[Heat], places: Places) -> Iterator[tuple[Heat, Places]]:
    """Each heat with the square of its image."""
    return zip(heats, places, strict=True)


def hits(heats: Sequence[Heat], places: Places) -> float:
    """The share of heats whose hottest pixel is in the square."""
    return mean([place[np.unravel_index(heat.argmax(), heat.shape)] for heat, place in paired(heats, places)])


def mean(values: Sequence[float]) -> float:
    """0 where there are none."""
    return float(np.mean(values)) if values else 0.0


def main() -> None:
    """Play with every backbone, print the table and write pointing.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Help)
    known = list(BACKBONES)
    parser.add_argument("--models", nargs="+", choices=known, default=known, metavar="NAME", help="default: all")
    parser.add_argument("--images", type=whole(1), default=100, help="default: 100")
    parser.add_argument("--out", type=Path, default=Path("build"), metavar="DIR", help="default: build")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    columns = ("accuracy", "hits", "hits of another image", "heat inside")
    rows: list[tuple[str, ...]] = [("backbone", "method", "side", "steps", *columns, "seconds")]
    results = []
    for name in arguments.models:
        results.append(result := play(name, SIDES.get(name, SIDE), arguments.images))
        shares = (f"{result[column]:.0%}" for column in columns)
        whole_numbers = (str(result[column]) for column in ("side", "steps"))
        rows.append((name, result["method"], *whole_numbers, *shares, f"{result['seconds']:.0f}"))
        say(" ".join(rows[-1]))
        write_json(arguments.out / "pointing.json", {"environment": environment(), "results": results})
    say(table(rows))


if __name__ == "__main__":
    main()
