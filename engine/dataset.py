"""What a dataset script declares, and what it hands to the engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt


@dataclass(frozen=True)
class File:
    """One published file: where it lies, and how to know that it is whole."""

    name: str
    urls: tuple[str, ...]  # mirrors, tried in this order
    checksum: str | None  # "md5:<hex>" or "sha256:<hex>", or its first 8 digits or more; None: nobody states one
    bytes: int | None = None  # None where nobody states the size

    def __post_init__(self) -> None:
        algorithm, _, value = (self.checksum or "md5:-").partition(":")
        if algorithm not in ("md5", "sha256") or not value:
            raise ValueError(f"{self.name}: the checksum must be 'md5:<hex>' or 'sha256:<hex>', not {self.checksum!r}")


@dataclass(frozen=True)
class Part:
    """Labelled images in a fixed order: the train, validation or test part of a dataset."""

    images: npt.NDArray[np.uint8]  # (N, H, W, 3), RGB
    labels: npt.NDArray[np.int64]  # (N,), 0-based
    names: Sequence[str]  # N unique names that do not depend on the machine
    groups: Sequence[str] | None = None  # what must stay on one side of a split (a patient); None: every image

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: npt.NDArray[np.int64]) -> Part:
        """The images at `indices`, in that order."""
        return Part(
            self.images[indices],
            self.labels[indices],
            [self.names[i] for i in indices],
            None if self.groups is None else [self.groups[i] for i in indices],
        )


@dataclass(frozen=True)
class Contents:
    """Everything that was read from a dataset's files."""

    classes: tuple[str, ...]
    train: Part
    test: Part
    select: Part | None = None  # a validation part of the dataset's own; None: held out of train
    checksums: Mapping[str, str] = field(default_factory=dict)  # file -> "<algorithm>:<hex>", as found
    differences: tuple[str, ...] = ()  # from the published files, beside counts; only under --allow-partial


@dataclass(frozen=True)
class Source:
    """What a script's `read` is given."""

    folder: Path  # where the extracted files lie
    allow_partial: bool  # accept files that are missing or are not the published ones


@dataclass(frozen=True)
class Dataset:
    """A dataset's card, and the function that reads its files. Counts are those of the published table."""

    key: str  # the script's name, and that of its folder under data/ and runs/
    name: str  # as the table calls it
    version: str  # raised when a change here can change numbers
    domain: str  # natural, texture, remote sensing, plant, astronomy, medical
    classes: int
    train_images: int
    test_images: int
    size: tuple[int, int]  # input height and width, pixels
    augment: str  # "trivial" (TrivialAugmentWide on the training images) or "none"
    mean: tuple[float, float, float]  # training-set constants of the original code, on a scale of 0 to 1,
    std: tuple[float, float, float]  # for the `paper` protocol
    read: Callable[[Source], Contents]
    licence: str
    citation: str
    page: str  # the dataset's home on the web
    files: tuple[File, ...] = ()  # empty: nothing to download
    folder: str = ""  # what the files extract to, inside the data folder
    published: bool = True  # a row of the published table
