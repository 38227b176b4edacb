"""Labelled images: one part of a dataset, and the train, val and test parts that a run works with."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from engine.data.splits import split_hash

Entry = TypeVar("Entry")
Pixels = npt.NDArray[np.uint8]

PARTS = ("train", "val", "test")
# what a split's hash calls the parts. It is the name of what was trained on in every record, so it stays as it is.
HASHED_AS = {"train": "fit", "val": "select", "test": "test"}


@dataclass(frozen=True)
class HDF5Image:
    """One image of an HDF5 file: entry `index` of its array `array`, uint8 (N, H, W, 3)."""

    path: Path
    array: str
    index: int

    def __str__(self) -> str:
        return f"{self.path}/{self.array}[{self.index}]"


Reference = Path | HDF5Image  # an image that is still to be decoded


class PixelSource(Protocol):
    """Pixels of M images that are not in an array, but read like one."""

    shape: tuple[int, ...]  # (M, H, W, 3)

    def __len__(self) -> int: ...

    def __getitem__(self, rows: npt.NDArray[np.int64], /) -> Pixels:
        """(len(rows), H, W, 3)"""


@dataclass(frozen=True)
class Part:
    """Labelled images in a fixed order: the train, val or test part of a dataset.

    `images` can be shared by several parts: RGB pixels, uint8 (M, H, W, 3), as an array or a PixelSource, or, before
    they are decoded, references to M images. `rows` says which entry of it each image of this part is.
    """

    images: Pixels | PixelSource | Sequence[Reference]
    labels: npt.NDArray[np.int64]  # (N,), 0-based
    names: Sequence[str]  # N unique names that do not depend on the machine
    groups: Sequence[str] | None = None  # what must stay on one side of a split (a patient); None: every image
    rows: npt.NDArray[np.int64] | None = None  # (N,), indices into `images`; None: N = M, in order
    digests: Sequence[str] | None = None  # of the M images' pixels, once they are decoded

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def references(self) -> Sequence[Reference]:
        """What the rows refer to, before it is decoded. Raises TypeError afterwards."""
        if not isinstance(self.images, Sequence):
            raise TypeError("these images are decoded already")
        return self.images

    def take(self, indices: npt.NDArray[np.int64]) -> Part:
        """The images at `indices`, in that order."""
        return replace(
            self,
            labels=self.labels[indices],
            names=[self.names[i] for i in indices],
            groups=None if self.groups is None else [self.groups[i] for i in indices],
            rows=indices if self.rows is None else self.rows[indices],
        )

    def pixels(self, indices: npt.NDArray[np.int64] | None = None) -> Pixels:
        """The pixels (len(indices), H, W, 3) of the images at `indices`, or of all, which must have been decoded."""
        if isinstance(self.images, Sequence):
            raise TypeError("these images have not been decoded")
        indices = np.arange(len(self)) if indices is None else indices
        return self.images[indices if self.rows is None else self.rows[indices]]

    @property
    def stored_size(self) -> tuple[int, int]:
        """Height and width of the decoded images as they are at hand. Raises TypeError before they are decoded."""
        if isinstance(self.images, Sequence):
            raise TypeError("these images have not been decoded")
        height, width = self.images.shape[1:3]
        return int(height), int(width)

    def entries(self, table: Sequence[Entry]) -> list[Entry]:
        """What `table`, parallel to `images`, holds for each image of this part."""
        return [table[row] for row in (range(len(self)) if self.rows is None else self.rows.tolist())]

    @property
    def own_digests(self) -> list[str]:
        """The digest of each image of this part; "" for all of them before they are decoded."""
        return self.entries(self.digests) if self.digests is not None else [""] * len(self)

    @property
    def fingerprint(self) -> str:
        """The sha256 of every image's pixels, once they are decoded, and label; names and order do not change it."""
        images = sorted(zip(self.own_digests, self.labels.tolist(), strict=True))
        return hashlib.sha256(json.dumps(images).encode()).hexdigest()

    @property
    def labelled_names(self) -> list[tuple[str, int]]:
        """(name, label) of each image."""
        return list(zip(self.names, self.labels.tolist(), strict=True))


@dataclass(frozen=True)
class RawSplits:
    """Everything that a dataset's script read from its files, before a protocol divides it."""

    classes: tuple[str, ...]
    train: Part
    test: Part
    val: Part | None = None  # a validation part of the dataset's own; None: held out of train
    checksums: Mapping[str, str] = field(default_factory=dict)  # file -> "<algorithm>:<hex>", as found
    missing: tuple[str, ...] = ()  # images that the dataset's own lists name and that are not there
    differences: tuple[str, ...] = ()  # other ways in which this is not the published data, beside counts
    notes: tuple[str, ...] = ()  # what whoever reads the result should know of the data as they were split
    fold_of: Mapping[str, int] = field(default_factory=dict)  # the fold of each image, by name; empty: not divided so
    division: str = ""  # digest of all pixels and labels by fold, once they are decoded


@dataclass(frozen=True)
class Splits:
    """What a run works with. `val` chooses the epoch; under the `paper` protocol it is the test part itself."""

    classes: tuple[str, ...]
    train: Part
    val: Part
    test: Part

    def __iter__(self) -> Iterator[Part]:
        return iter((self.train, self.val, self.test))

    def map(self, change: Callable[[Part], Part]) -> Splits:
        """The parts, each changed."""
        test = change(self.test)
        return Splits(self.classes, change(self.train), test if self.val is self.test else change(self.val), test)

    @cached_property
    def hash(self) -> str:
        """The digest of every name and label in every part, of the pixels, once decoded, and of the class names."""
        fingerprint = hashlib.sha256(json.dumps(self.classes).encode())
        for part in self:
            for digest in part.own_digests:
                fingerprint.update(digest.encode())
        parts = {HASHED_AS[name]: getattr(self, name).labelled_names for name in PARTS}
        return split_hash(parts, fingerprint.hexdigest())

    def listing(self, protocol: str, seed: int) -> dict[str, Any]:
        """The content of split.json: which image is in which part."""
        return {
            "hash": self.hash,
            "protocol": protocol,
            "seed": seed,
            "classes": list(self.classes),
            "parts": {name: getattr(self, name).labelled_names for name in PARTS},
        }
