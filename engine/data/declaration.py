"""What a dataset script declares, and what it hands to the engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

Entry = TypeVar("Entry")


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

    def __getitem__(self, rows: npt.NDArray[np.int64], /) -> npt.NDArray[np.uint8]:
        """(len(rows), H, W, 3)"""


@dataclass(frozen=True)
class Part:
    """Labelled images in a fixed order: the train, validation or test part of a dataset.

    `images` is a table that several parts can share: RGB pixels, uint8 (M, H, W, 3), as an array or a PixelSource, or, before
    they are decoded, references to M images. `rows` says which entry of it each image of this part is.
    """

    images: npt.NDArray[np.uint8] | PixelSource | Sequence[Reference]
    labels: npt.NDArray[np.int64]  # (N,), 0-based
    names: Sequence[str]  # N unique names that do not depend on the machine
    groups: Sequence[str] | None = None  # what must stay on one side of a split (a patient); None: every image
    rows: npt.NDArray[np.int64] | None = None  # (N,), indices into `images`; None: N = M, in order
    digests: Sequence[str] | None = None  # of the M images' pixels, once they are decoded

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: npt.NDArray[np.int64]) -> Part:
        """The images at `indices`, in that order."""
        return replace(
            self,
            labels=self.labels[indices],
            names=[self.names[i] for i in indices],
            groups=None if self.groups is None else [self.groups[i] for i in indices],
            rows=indices if self.rows is None else self.rows[indices],
        )

    def pixels(self, indices: npt.NDArray[np.int64] | None = None) -> npt.NDArray[np.uint8]:
        """The pixels (len(indices), H, W, 3) of the images at `indices`, or of all, which must have been decoded."""
        if isinstance(self.images, Sequence):
            raise TypeError("these images have not been decoded")
        indices = np.arange(len(self)) if indices is None else indices
        return self.images[indices if self.rows is None else self.rows[indices]]

    def entries(self, table: Sequence[Entry]) -> list[Entry]:
        """What `table`, parallel to `images`, holds for each image of this part."""
        return [table[row] for row in (range(len(self)) if self.rows is None else self.rows.tolist())]


@dataclass(frozen=True)
class RawSplits:
    """Everything that was read from a dataset's files."""

    classes: tuple[str, ...]
    train: Part
    test: Part
    select: Part | None = None  # a validation part of the dataset's own; None: held out of train
    checksums: Mapping[str, str] = field(default_factory=dict)  # file -> "<algorithm>:<hex>", as found
    missing: tuple[str, ...] = ()  # images that the dataset's own lists name and that are not there
    differences: tuple[str, ...] = ()  # other ways in which this is not the published data, beside counts
    notes: tuple[str, ...] = ()  # what whoever reads the result should know of the data as they were split


@dataclass(frozen=True)
class ReadOptions:
    """What a script's `read` is given."""

    folder: Path  # where the extracted files lie
    allow_partial: bool = False  # accept files that are missing or are not the published ones
    protocol: str = "honest"  # or "paper", where the published split is another one


@dataclass(frozen=True)
class Dataset:
    """A dataset's card, and the function that reads its files."""

    key: str  # the script's name, and that of its folder under data/ and runs/
    name: str  # as the table calls it
    version: str  # raised when a change here can change numbers
    domain: str  # natural, texture, remote sensing, plant, astronomy, medical
    classes: int
    train_images: int  # the published table's counts
    test_images: int
    size: tuple[int, int]  # input height and width, pixels
    augment: str  # "trivial" (TrivialAugmentWide on the training images) or "none"
    mean: tuple[float, float, float]  # training-set constants of the original code, on a scale of 0 to 1,
    std: tuple[float, float, float]  # for the `paper` protocol
    read: Callable[[ReadOptions], RawSplits]
    licence: str
    citation: str
    page: str  # the dataset's home on the web
    files: tuple[File, ...] = ()  # empty: nothing to download
    alternative_files: tuple[tuple[File, ...], ...] = ()  # other sets of archives that hold the same, as users have them
    folder: str = ""  # what the files extract to, inside the data folder
    places: tuple[str, ...] = ()  # other paths inside the data folder where users have it
    contains: tuple[str, ...] = ()  # a folder that has one of these in it is the one that is looked for
    steps: str = ""  # how to get it by hand, where no program may or can
    split: str = "official"  # how train and test came about, in a few words
    # protocol -> (train, test), or (all of them,), where they are not those of the table
    counts: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    class_images: Mapping[str, int] | int = 0  # images of each class, or of every class, in all parts; 0: unknown
    cached_size: tuple[int, int] | None = None  # images are kept at this size and resized on the device; None: at `size`
    script: str = ""  # the script's name where one script has several datasets; "": the key
    flags: str = ""  # what the script's command line needs for this one of its datasets
    val_images: int = 0  # of a validation part of the dataset's own; 0: it has none
    recipe: str = "adamw-sgd"  # what its script trains by, where the command line does not say
    published: bool = True  # a row of the published table
    place: Path | None = None  # where the images lie, if they are the user's own

    def __post_init__(self) -> None:
        unsigned = [url for file in self.files if not file.checksum for url in file.urls]
        if plain := [url for url in unsigned if url.lower().startswith("http:")]:
            raise ValueError(f"{self.name}: {plain[0]} has no checksum, and anyone on the way could change it")

    @property
    def script_name(self) -> str:
        """The name of the script and of the dataset's folder under data/."""
        return self.script or self.key

    @property
    def own(self) -> bool:
        """Whether these are the user's images: nobody else knows how many there should be, and they can be mended."""
        return self.place is not None

    def expected(self, protocol: str) -> tuple[int, ...]:
        """The images that there should be: (train, test), or (all of them,); () where nobody can know."""
        return () if self.own else self.counts.get(protocol, (self.train_images, self.test_images))


@dataclass(frozen=True)
class Choice:
    """Several datasets of one script, one of which an argument of its command line chooses."""

    argument: str  # "--magnification", or "DIR"
    options: Mapping[str, Any]  # argparse's; with `default`, unless the argument is positional
    dataset: Callable[[Any], Dataset]
    example: Dataset  # whose defaults `--help` shows
