"""How fast TrivialAugmentWide is: torchvision's, image by image, on PIL images and on tensors, and this project's.

python benchmarks/augment.py [--sizes 32 64 256] [--batch 64] [--threads 1] [--device cpu] [--operations] [--out FILE]

Each is given the same rows of uint8 (B, H, W, 3) noise, as they come from the cache, and ends with uint8 images in one
array or tensor. The three take turns, so that what else the machine does meets them all. "whole" is what a user calls,
with the drawing; "same draws" and each operation are without it, on what was drawn once for all three.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torchvision.transforms import InterpolationMode, TrivialAugmentWide, v2
from torchvision.transforms.autoaugment import _apply_op

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engine.cli import Help
from engine.console import table
from engine.data.augment import BINS, OPERATIONS, Draws, draw, trivial_augment
from engine.device import synchronize
from engine.environment import environment
from engine.files import write_json

Rows = npt.NDArray[np.uint8]

PIL_TRANSFORM = TrivialAugmentWide()
V2_TRANSFORM = v2.TrivialAugmentWide()
SPACE = PIL_TRANSFORM._augmentation_space(BINS)
RANDOM = np.random.default_rng(0)


def strength(draws: Draws, index: int) -> tuple[str, float]:
    """The name and the signed strength of what an image was drawn, in torchvision's terms."""
    name = OPERATIONS[draws.operations[index]]
    magnitudes, signed = SPACE[name]
    magnitude = float(magnitudes[draws.bins[index]]) if magnitudes.ndim else 0.0
    return name, -magnitude if signed and draws.negative[index] else magnitude


def by_pil(rows: Rows, draws: Draws | None, _: str) -> Rows:
    """Augment image by image, in PIL, as most training code does."""

    def augment(index: int, image: Image.Image) -> Any:
        if draws is None:
            return PIL_TRANSFORM(image)
        return _apply_op(image, *strength(draws, index), InterpolationMode.NEAREST, None)

    return np.stack([np.asarray(augment(i, Image.fromarray(row))) for i, row in enumerate(rows)])


def by_v2(rows: Rows, draws: Draws | None, device: str) -> torch.Tensor:
    """Augment image by image, by torchvision's transform of tensors on the device."""

    def augment(index: int, image: torch.Tensor) -> Any:
        if draws is None:
            return V2_TRANSFORM(image)
        name, magnitude = strength(draws, index)
        if name == "Solarize":  # a share of the levels here
            magnitude /= 255
        return V2_TRANSFORM._apply_image_or_video_transform(
            image, name, magnitude, InterpolationMode.NEAREST, V2_TRANSFORM._fill
        )

    images = torch.from_numpy(rows).to(device).permute(0, 3, 1, 2)
    return torch.stack([augment(i, image) for i, image in enumerate(images)])


def in_batch(rows: Rows, draws: Draws | None, device: str) -> torch.Tensor:
    """Augment the whole batch on the device, as the scripts do."""
    draws = draw(len(rows), RANDOM) if draws is None else draws
    return trivial_augment(torch.from_numpy(rows).to(device).permute(0, 3, 1, 2), draws)


CONTENDERS: dict[str, Callable[[Rows, Draws | None, str], object]] = {
    "PIL": by_pil,
    "v2 tensors": by_v2,
    "in batch": in_batch,
}


def measure(rows: Rows, draws: Draws | None, device: str, rounds: int) -> dict[str, list[float]]:
    """Milliseconds an image, of each contender in each round, after one round to warm up."""
    times: dict[str, list[float]] = {name: [] for name in CONTENDERS}
    for turn in range(rounds + 1):
        for name, augment in CONTENDERS.items():
            start = time.perf_counter()
            augment(rows, draws, device)
            synchronize(device)
            if turn:
                times[name].append((time.perf_counter() - start) / len(rows) * 1e3)
    return times


def line(what: str, times: dict[str, list[float]]) -> tuple[str, ...]:
    """A row of the table: medians and ranges, the gain over PIL, images per second."""
    medians = {name: statistics.median(each) for name, each in times.items()}
    cells = [f"{medians[name]:.4f} ({min(each):.4f} to {max(each):.4f})" for name, each in times.items()]
    return (what, *cells, f"{medians['PIL'] / medians['in batch']:.1f}x", f"{1e3 / medians['in batch']:,.0f}")


def main() -> None:
    """Time the contenders at every size and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Help)
    parser.add_argument("--sizes", type=int, nargs="+", default=[32, 64, 256], help="sides of the square images")
    parser.add_argument("--batch", type=int, default=64, help="images in a batch")
    parser.add_argument("--rounds", type=int, default=9, help="timed turns of each contender")
    parser.add_argument("--threads", type=int, default=1, help="of PyTorch")
    parser.add_argument("--device", default="cpu", help="where the tensors are augmented; PIL always uses the CPU")
    parser.add_argument("--operations", action="store_true", help="also each operation alone")
    parser.add_argument("--out", type=Path, help="JSON file for all the times")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)

    found: list[dict[str, Any]] = []
    heading = ("ms/image: median (min to max)", *CONTENDERS, "PIL / in batch", "images/s in batch")
    for size in arguments.sizes:
        random = np.random.default_rng(size)
        rows = random.integers(0, 256, (arguments.batch, size, size, 3), dtype=np.uint8)
        draws = draw(arguments.batch, random)
        cases: dict[str, Draws | None] = {"whole": None, "same draws": draws}
        if arguments.operations:
            for index, name in enumerate(OPERATIONS):
                cases[name] = Draws(np.full(arguments.batch, index), draws.bins, draws.negative)
        lines = [heading]
        for name, drawn in cases.items():
            times = measure(rows, drawn, arguments.device, arguments.rounds)
            found.append({"size": size, "case": name, "ms_per_image": times})
            lines.append(line(f"{size}x{size} {name}", times))
        print(table(lines), flush=True)

    if arguments.out:
        device = torch.cuda.get_device_name() if arguments.device == "cuda" else arguments.device
        about = {"batch": arguments.batch, "device": device, "environment": environment()}
        write_json(arguments.out, {**about, "times": found})


if __name__ == "__main__":
    main()
