"""A dataset and a backbone that train in moments, added as a user would add theirs: one file, one entry.

python tests/toy.py -model tiny -bs 16
"""

import sys
from pathlib import Path

import numpy as np
from torch import nn

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import common
from common import Backbone, RawSplits, Dataset, Part, ReadOptions, WeightsFile

CLASSES = ("dark", "mid", "light")


def tiny() -> nn.Module:
    """Batch normalisation and dropout, so that running statistics and random numbers matter to a resume."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(32, 1000),
    )


TINY = Backbone(tiny, WeightsFile("tiny", "http://127.0.0.1:9/tiny.pth"), "6")


def part(images: int, seed: int, name: str, classes: int = 3) -> Part:
    """Images that are brighter the higher their class, under much noise."""
    random = np.random.default_rng(seed)
    labels = np.arange(images) % classes
    pixels = 60 * labels[:, None, None, None] + random.integers(0, 120, (images, 8, 8, 3))
    return Part(pixels.clip(0, 255).astype(np.uint8), labels.astype(np.int64), [f"{name}/{i}" for i in range(images)])


def dataset(train: int = 60, test: int = 21, classes: int = 3, augment: str = "trivial") -> Dataset:
    """A declaration of so many images, read without any file."""

    def read(_: ReadOptions) -> RawSplits:
        return RawSplits(
            CLASSES[:classes],
            part(train, 1, "train", classes),
            part(test, 2, "test", classes),
            checksums={"x": "md5:0"},
        )

    return Dataset(
        key="toy",
        name="Toy",
        version="1",
        domain="natural",
        classes=classes,
        train_images=train,
        test_images=test,
        size=(16, 16),
        augment=augment,
        mean=(0.4, 0.4, 0.4),
        std=(0.2, 0.2, 0.2),
        read=read,
        licence="none",
        citation="none",
        page="https://example.org",
        published=False,
    )


if __name__ == "__main__":
    common.BACKBONES["tiny"] = TINY
    common.main(dataset())
