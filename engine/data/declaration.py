"""What a dataset script declares: its card, its files, and the function that reads them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from engine.data.part import RawSplits
from engine.errors import Refuse, raised

Protocol = Literal["honest", "paper"]


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
class ReadOptions:
    """What a script's `read` is given."""

    folder: Path  # where the extracted files lie
    allow_partial: bool = False  # accept files that are missing or are not the published ones
    protocol: Protocol = "honest"  # "paper" counts where the published split is another one
    folds: int | None = None  # that all images are divided into afterwards, whatever part they are in
    refuse: Refuse = raised  # what becomes of all that is wrong with images of the user's own


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
    read: Callable[[ReadOptions], RawSplits]
    # training-set constants on a scale of 0 to 1, for the `paper` protocol; of published datasets the original code's
    mean: tuple[float, float, float] = (0.5, 0.5, 0.5)
    std: tuple[float, float, float] = (0.5, 0.5, 0.5)
    licence: str = ""
    citation: str = ""
    page: str = ""  # the dataset's home on the web
    files: tuple[File, ...] = ()  # empty: nothing to download
    alternative_files: tuple[tuple[File, ...], ...] = ()  # other archives that hold the same, as users have them
    folder: str = ""  # what the files extract to, inside the data folder
    other_folders: tuple[str, ...] = ()  # other paths inside the data folder where users have it
    contains: tuple[str, ...] = ()  # a folder that has one of these in it is the one that is looked for
    steps: str = ""  # how to get it by hand, where no program may or can
    split: str = "official"  # how train and test came about, in a few words
    # protocol -> (train, test), or (all of them,), where they are not those of the table
    counts: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    class_images: Mapping[str, int] | int = 0  # images of each class, or of every class, in all parts; 0: unknown
    cached_size: tuple[int, int] | None = None  # that images are kept at, to be resized on the device; None: `size`
    script: str = ""  # the script's name where one script has several datasets; "": the key
    flags: str = ""  # what the script's command line needs for this one of its datasets
    val_images: int = 0  # of a validation part of the dataset's own; 0: it has none
    recipe: str = ""  # what its script trains by, where the command line does not say; "": the usual one
    published: bool = False  # a row of the published table
    subjects: str = ""  # what other datasets share with it that show the same patients; "": none do
    own_folder: Path | None = None  # where the images lie, if they are the user's own
    labelled: Callable[[Path], Dataset] | None = None  # the same images, labelled by that file; None: they can't be

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
        return self.own_folder is not None

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
    every: tuple[Dataset, ...] = ()  # all of them; empty where nobody can know


def datasets_of(declared: Dataset | Choice) -> tuple[Dataset, ...]:
    """All datasets of a script, as far as they are known."""
    return declared.every if isinstance(declared, Choice) else (declared,)
