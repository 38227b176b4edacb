"""Backbones and datasets that are ranked in moments, and a script that has them, as a user would write one."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import common
from common import Backbone, Dataset, Part, RawSplits, ReadOptions, WeightsFile
from engine.paths import PROJECT
from tests import toy

NAMES = ("tiny", "wide", "flat")  # all of them take any image, and have weights
SECONDS = 0.3  # that the slow one takes for a batch


def wide() -> nn.Module:
    """More channels than tiny, and features for each quarter of the image."""
    return nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.ReLU(), *_ending(16))


def flat() -> nn.Module:
    """No normalisation."""
    return nn.Sequential(nn.Conv2d(3, 4, 1), nn.Tanh(), nn.Identity(), *_ending(4))


def _ending(channels: int) -> list[nn.Module]:
    return [nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Dropout(0.2), nn.Linear(4 * channels, 1000)]


class Slow(nn.Sequential):
    """Takes its time."""

    def forward(self, images: torch.Tensor) -> Any:
        """The logits."""
        time.sleep(SECONDS)
        return super().forward(images)


def slow() -> nn.Module:
    """A backbone during whose pass there is time for an interruption."""
    return Slow(*toy.tiny().children())


def rows() -> nn.Module:
    """The head is given several rows of an image, as of its quarters."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(2), nn.Flatten(2), *[nn.Identity()] * 3, nn.Linear(4, 1000)
    )


class Twice(nn.Module):
    """Calls its head two times."""

    def __init__(self) -> None:
        super().__init__()
        self.head = nn.Linear(3, 1000)

    def forward(self, images: torch.Tensor) -> Any:
        """The logits."""
        return self.head(images.mean((2, 3))) + self.head(images.amax((2, 3)))


class Scaled(nn.Module):
    """Multiplies."""

    def __init__(self, by: float) -> None:
        super().__init__()
        self.by = by

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        """The images, multiplied."""
        return images * self.by


def huge() -> nn.Module:
    """Features that float16 does not hold."""
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(2), Scaled(1e6), nn.Flatten(), nn.Linear(32, 1000))


def endless() -> nn.Module:
    """Features that are not finite."""
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(2), Scaled(1e39), nn.Flatten(), nn.Linear(32, 1000))


BUILDERS = {
    "tiny": (toy.tiny, "6"),
    "wide": (wide, "6"),
    "flat": (flat, "6"),
    "slow": (slow, "6"),
    "rows": (rows, "6"),
    "twice": (Twice, "head"),
    "huge": (huge, "4"),
    "endless": (endless, "4"),
}


def write_weights(folder: Path, name: str, seed: int = 0) -> Path:
    """A file of weights that a backbone could have been trained to."""
    path = folder / f"{name}-{seed}.pth"
    if not path.exists():
        torch.manual_seed(seed)
        torch.save(BUILDERS[name][0]().state_dict(), path)
    return path


def entry(folder: Path, name: str, seed: int = 0, top1: float | None = None) -> Backbone:
    """What BACKBONES says of a backbone whose weights lie in `folder`."""
    builder, head = BUILDERS[name]
    path = write_weights(folder, name, seed)
    return Backbone(builder, WeightsFile(f"{name}-{seed}", path.as_uri(), top1=top1), head)


def entries(folder: Path) -> dict[str, Backbone]:
    """All of them; the ImageNet top-1 is known of NAMES alone, and is not in the order of their names."""
    top1 = dict(zip(NAMES, (70.0, 60.0, 80.0), strict=True))
    missing, gone = (
        replace(entry(folder, "tiny"), weights=WeightsFile(name, (folder / f"{name}.pth").as_uri()))
        for name in ("missing", "gone")
    )
    other = replace(entry(folder, "tiny"), weights=WeightsFile("other", write_weights(folder, "wide").as_uri()))
    large = replace(entry(folder, "tiny"), smallest=4000)
    return {
        **{name: entry(folder, name, top1=top1.get(name)) for name in BUILDERS},
        "missing": missing,
        "gone": gone,
        "other": other,
        "large": large,
    }


def add_entries(folder: Path) -> None:
    """For a script: its backbones are known from here on."""
    common.BACKBONES.update(entries(folder))


def dataset(
    key: str = "toy",
    train: int = 60,
    seeds: tuple[int, int, int] = (1, 2, 3),
    relabelled: bool = False,
    domain: str = "natural",
) -> Dataset:
    """Images of three classes with a validation part of their own; `seeds` are of the pixels of the three parts.

    relabelled: the labels of the validation and test parts are others.
    """

    def read(_: ReadOptions) -> RawSplits:
        first, *others = (
            toy.part(images, seed, name)
            for images, seed, name in zip((train, 21, 21), seeds, ("train", "val", "test"), strict=True)
        )
        val, test = (_relabelled(part) if relabelled else part for part in others)
        return RawSplits(toy.CLASSES, first, test, val, checksums={"x": "md5:0"})

    return replace(toy.dataset(), key=key, name=key.capitalize(), read=read, train_images=train, domain=domain)


def _relabelled(part: Part) -> Part:
    return replace(part, labels=(part.labels + 1) % 3)


SCRIPT = """
import sys

sys.path.insert(0, {project!r})
from common import main
from tests.ranking import networks

DATASET = networks.dataset(**{options!r})
if __name__ == "__main__":
    main(DATASET)
"""


def write_script(path: Path, options: Mapping[str, Any]) -> None:
    """A script of one's own, of dataset(**options)."""
    path.write_text(SCRIPT.format(project=str(PROJECT), options=dict(options)))


class Process:
    """rank.py at work in a process of its own, on the processor, in the working directory; see toy.Process."""

    def __init__(self, words: Sequence[str], weights: Path) -> None:
        self._said = Path("said.txt")
        self._said.touch()
        given = ([*words, "--device", "cpu"], Path.cwd(), weights, dict(os.environ))
        self._process = toy._context().Process(target=_work, args=given, daemon=True)
        self._process.start()

    @property
    def said(self) -> str:
        """What it has printed, on both streams."""
        return self._said.read_text()

    def wait_for(self, words: str, seconds: float = 120.0) -> None:
        """Until it has said that."""
        end = time.monotonic() + seconds
        while words not in self.said:
            assert time.monotonic() < end, self.said
            assert self._process.is_alive(), self.said
            time.sleep(0.01)

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    def wait(self, seconds: float = 120.0) -> int:
        """Its exit code, once it has ended; the negative number of the signal that ended it."""
        self._process.join(seconds)
        assert self._process.exitcode is not None, "it does not end"
        return self._process.exitcode


def _work(words: Sequence[str], folder: Path, weights: Path, environment: Mapping[str, str]) -> None:
    toy.go_to(folder, environment)
    said = os.open("said.txt", os.O_WRONLY | os.O_APPEND)
    for number, name in enumerate(("stdout", "stderr"), 1):
        os.dup2(said, number)
        setattr(sys, name, os.fdopen(number, "w", 1, closefd=False))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    add_entries(weights)
    import rank

    sys.exit(rank.main(words))


def random_pixels(images: int, size: int) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """(images, size, size, 3)"""
    return np.random.default_rng(5).integers(0, 256, (images, size, size, 3), np.uint8)
