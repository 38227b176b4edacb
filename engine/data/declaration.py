"""What a dataset script declares: its card, its files, and the function that reads them."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import MISSING, dataclass, field, fields
from functools import wraps
from pathlib import Path
from typing import Any, Literal, TypeVar

from engine.cli import nearest
from engine.data.part import RawSplits
from engine.errors import Refuse, UserError, raised

Protocol = Literal["honest", "paper"]
Declared = TypeVar("Declared")

AUGMENTS = ("trivial", "none")
LARGEST_SIDE = 4096  # pixels
LONGEST_KEY = 100  # letters
TAKEN_KEYS = ("grid", "rank")  # folders of other things under runs/


def declared(kind: type[Declared]) -> type[Declared]:
    """The dataclass `kind`, to which wrong names of fields, and fields that are missing, are the user's mistake."""
    known = fields(kind)  # type: ignore[arg-type]
    needed = [each.name for each in known if each.default is MISSING and each.default_factory is MISSING]
    init = kind.__init__

    @wraps(init)
    def checked(self: Declared, *values: Any, **named: Any) -> None:
        names = [each.name for each in known if not each.kw_only]
        if len(values) > len(names):
            takes = f"{len(names)} values without a name" if names else "each value by the name of its field"
            raise UserError(f"{kind.__name__} takes {takes}, but was given {values[-1]!r:.60}.")
        if strange := [name for name in named if name not in {each.name for each in known}]:
            near = nearest(strange[0], [each.name for each in known], 0.5)
            listed = ", ".join(each.name for each in known)
            raise UserError(f"{kind.__name__} has no field {strange[0]!r}.{near} It has {listed}.")
        given = {*names[: len(values)], *named}
        if missing := [name for name in needed if name not in given]:
            raise UserError(f"{kind.__name__} lacks {', '.join(missing)}. Expected at least {', '.join(needed)}.")
        init(self, *values, **named)

    setattr(kind, "__init__", checked)  # noqa: B010 (mypy takes no assignment)
    return kind


@declared
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
            raise UserError(f"{self.name}: the checksum must be 'md5:<hex>' or 'sha256:<hex>', not {self.checksum!r}")


@dataclass(frozen=True)
class ReadOptions:
    """What a script's `read` is given."""

    folder: Path  # where the extracted files lie
    allow_partial: bool = False  # accept files that are missing or are not the published ones
    protocol: Protocol = "honest"  # "paper" counts where the published split is another one
    folds: int | None = None  # that all images are divided into afterwards, whatever part they are in
    refuse: Refuse = raised  # what becomes of all that is wrong with images of the user's own


@declared
@dataclass(frozen=True, kw_only=True)
class Dataset:
    """A dataset's card, and the function that reads its files. Raises UserError for values that can't be."""

    key: str  # the script's name, and that of its folder under data/ and runs/
    read: Callable[[ReadOptions], RawSplits]
    name: str = ""  # as tables call it; "": the key
    version: str = "1"  # raised when a change here can change numbers
    domain: str = "own"  # natural, texture, remote sensing, plant, astronomy, medical
    classes: int = 0  # 0: unknown, as are the counts that follow
    train_images: int = 0  # the published table's counts
    test_images: int = 0
    size: tuple[int, int] = (256, 256)  # input height and width, pixels
    augment: str = "trivial"  # TrivialAugmentWide on the training images; or "none"
    # training-set constants on a scale of 0 to 1, for the `paper` protocol; of published datasets the original code's.
    # None: what the weights were trained with, as under the `honest` protocol
    mean: tuple[float, float, float] | None = None
    std: tuple[float, float, float] | None = None
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
        if problem := self._problem():
            raise UserError(f"Dataset {self.key!r:.60}: {problem}")
        object.__setattr__(self, "name", self.name or self.key)
        object.__setattr__(self, "size", tuple(self.size))
        unsigned = [url for file in self.files if not file.checksum for url in file.urls]
        if plain := [url for url in unsigned if url.lower().startswith("http:")]:
            raise UserError(f"{self.name}: {plain[0]} has no checksum, and anyone on the way could change it")

    def _problem(self) -> str:
        """What is wrong with the values, what was expected; "" where nothing is."""
        key = self.key
        if not isinstance(key, str) or not re.fullmatch(r"(?!\.|-)[\w.-]+", key) or len(key) > LONGEST_KEY:
            return "the key is the name of a folder. Expected letters, digits, _, - and . alone, such as 'my_birds'."
        if key in TAKEN_KEYS:
            return f"runs/{key} is the folder of other things. Expected another key."
        for name in ("name", "version", "domain", "recipe"):
            if not isinstance(getattr(self, name), str):
                return f"{name} is {getattr(self, name)!r:.60}. Expected a text in quotes."
        for name in ("classes", "train_images", "test_images", "val_images"):
            if type(getattr(self, name)) is not int or getattr(self, name) < 0:
                return f"{name} is {getattr(self, name)!r:.60}. Expected a whole number; 0: unknown."
        for name, size in (("size", self.size), ("cached_size", self.cached_size or (1, 1))):
            if not _is_size(size):
                return f"{name} is {size!r:.60}. Expected (height, width) in pixels, such as (224, 224)."
        if self.augment not in AUGMENTS:
            return f"augment is {self.augment!r:.60}. Expected {' or '.join(map(repr, AUGMENTS))}."
        if (self.mean is None) != (self.std is None):
            return "of mean and std one alone is given. Expected both or neither."
        for name, least in (("mean", 0.0), ("std", 1e-6)):
            if getattr(self, name) is not None and not _are_shares(getattr(self, name), least):
                return (
                    f"{name} is {getattr(self, name)!r:.60}. Expected three numbers on a scale of 0 to 1, for red, "
                    "green and blue: of values from 0 to 255, a 255th. Without mean and std, those of the weights are "
                    "taken."
                )
        return "" if callable(self.read) else f"read is {self.read!r:.60}. Expected a function that takes ReadOptions."

    @property
    def script_name(self) -> str:
        """The name of the script and of the dataset's folder under data/."""
        return self.script or self.key

    @property
    def own(self) -> bool:
        """Whether these are the user's images: nobody else knows how many there should be, and they can be mended."""
        return self.own_folder is not None

    def expected(self, protocol: str) -> tuple[int, ...]:
        """The images that there should be: (train, test), 0: unknown; or (all of them,); () where nobody can know."""
        known = self.counts.get(protocol, (self.train_images, self.test_images))
        return known if any(known) and not self.own else ()


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


def _is_size(size: object) -> bool:
    return (
        isinstance(size, tuple | list)
        and len(size) == 2
        and all(type(side) is int and 1 <= side <= LARGEST_SIDE for side in size)
    )


def _are_shares(values: object, least: float) -> bool:
    return (
        isinstance(values, tuple | list)
        and len(values) == 3
        and all(isinstance(value, int | float) and least <= value <= 1 for value in values)
    )
