"""How fast the cache of decoded images is made, against an epoch of plain loading, and read, against decoding.

python benchmarks/cache.py [--images N] [--size 256] [--source DIR] [--out FILE.json]
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Subset
from torchvision import transforms
from torchvision.datasets import ImageFolder

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.photographs import make_photographs, raw_splits
from engine.console import table
from engine.data.cache import decode_all
from engine.data.decode_pool import cpus
from engine.data.kept_pixels import KeptPixels
from engine.data.lazy_images import LazyImages
from engine.environment import environment
from engine.files import write_json

BATCH = 32
BATCHES = 20  # that are read in a round


def seconds(work: Callable[[Any], Any], *items: Any) -> float:
    """Of one call, the mean over `items`."""
    start = time.perf_counter()
    for item in items:
        work(item)
    return (time.perf_counter() - start) / len(items)


def load_once(folder: Path, images: int, size: int) -> None:
    """The plain way: torchvision's ImageFolder and PyTorch's DataLoader, every image once."""
    transform = transforms.Compose([transforms.Resize((size, size)), transforms.ToTensor()])
    dataset = Subset(ImageFolder(str(folder), transform), range(images))
    for _ in DataLoader(dataset, BATCH, num_workers=cpus()):
        pass


def measure(folder: Path, images: int, size: int, rounds: int) -> dict[str, list[float]]:
    """Every round's images/s of making a cache and of plain loading, ms a batch read, and GB/s."""
    raw = raw_splits(folder, images)
    images = len(raw.train) + 1
    found: dict[str, list[float]] = {name: [] for name in ("build", "load", "gather", "decode", "copy", "check")}
    random = np.random.default_rng(0)
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as cache:
            start = time.perf_counter()
            decoded = decode_all(raw, "benchmark", (size, size), Path(cache), False)
            found["build"].append(images / (time.perf_counter() - start))
            assert decoded is not None
            table, digests, references = decoded.pixels, decoded.digests, [*decoded.row_of]
            assert isinstance(table, KeptPixels)
            found["check"].append(seconds(lambda _: table.damaged(cpus()), None))  # noqa: B023
            whole = table[np.arange(images)]
            batches = [random.choice(images, BATCH) for _ in range(BATCHES)]
            found["gather"].append(seconds(table.__getitem__, *batches))
            starts = random.integers(0, images - BATCH, BATCHES).tolist()
            found["copy"].append(seconds(lambda first: whole[first : first + BATCH].copy(), *starts))  # noqa: B023
            stream = LazyImages(references, [str(path) for path in references], digests, (size, size))
            found["decode"].append(seconds(stream.__getitem__, *batches))
        found["load"].append(images / seconds(lambda _: load_once(folder, images, size), None))
    return found


def report(found: dict[str, list[float]], size: int) -> str:
    """The measurements for people."""
    middle = {name: statistics.median(values) for name, values in found.items()}
    volume = BATCH * size * size * 3 / 1e9

    def row(title: str, name: str, unit: str, scale: Callable[[float], float], ratio: str) -> tuple[str, ...]:
        values = sorted(map(scale, found[name]))
        return title, f"{statistics.median(values):,.4g} {unit}", f"{values[0]:,.4g} to {values[-1]:,.4g}", ratio

    return table(
        [
            ("", "median", "range", ""),
            row("cache made", "build", "images/s", float, f"{middle['build'] / middle['load']:.2f} times"),
            row("one epoch of DataLoader", "load", "images/s", float, ""),
            row(
                f"batch of {BATCH} from the cache",
                "gather",
                "ms",
                lambda value: value * 1e3,
                f"{middle['decode'] / middle['gather']:.1f} times as fast",
            ),
            row(f"batch of {BATCH} decoded", "decode", "ms", lambda value: value * 1e3, ""),
            row("cache read", "gather", "GB/s", lambda value: volume / value, ""),
            row("cache checked at the start", "check", "s", float, ""),
            row("memory copied", "copy", "GB/s", lambda value: volume / value, ""),
        ]
    )


def main() -> None:
    """Build a cache of photographs and print what it takes."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--images", type=int, default=2000, metavar="N", help="at most (default: 2000)")
    parser.add_argument("--size", type=int, default=256, help="height and width in pixels (default: 256)")
    parser.add_argument("--source", type=Path, metavar="DIR", help="class folders (default: photographs made here)")
    parser.add_argument("--rounds", type=int, default=5, help="default: 5")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="where the numbers go")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as made:
        folder = arguments.source or Path(made)
        if not arguments.source:
            make_photographs(folder, arguments.images)
        found = measure(folder, arguments.images, arguments.size, arguments.rounds)
    print(f"{cpus()} CPUs, {torch.get_num_threads()} threads of PyTorch")
    print(report(found, arguments.size))
    if arguments.out:
        settings = {name: str(value) for name, value in vars(arguments).items() if name != "out"}
        write_json(arguments.out, {**settings, "environment": environment(), **found})


if __name__ == "__main__":
    main()
