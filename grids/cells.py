"""What the command line asks for -> cells: a dataset, backbone, seed and budget each, and the command that runs it."""

from __future__ import annotations

import argparse
import difflib
import hashlib
import json
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import Field, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

from torchvision.models import WeightsEnum

import datasets
import digits
import folder
from common import BACKBONES, Dataset
from engine.config import Config, parse
from engine.errors import UserError

SCRIPTS = Path(__file__).resolve().parents[1]
OWN = {"model", "seed", "shots", "fraction", "data_dir"}  # the flags that grid.py has in a form of its own
NOT_FOR_GRIDS = {"check", "rerun"}
OUTSIDE_THE_TABLE = {"inception"}  # what `--models all` leaves out
IDENTITY: tuple[Field[Any], ...] = tuple(f for f in fields(Config) if f.metadata["identity"])


@dataclass(frozen=True)
class Cell:
    """One run of the grid, resolved as its script will resolve it."""

    dataset: Dataset
    config: Config
    budget: str  # of training images: "all", "shots 10" or "fraction 0.1"
    command: tuple[str, ...]  # without Python itself

    @cached_property
    def key(self) -> str:
        """The same for all records that this cell may have left: see `key_of`."""
        return key_of(self.dataset.key, self.dataset.version, vars(self.config))

    @cached_property
    def id(self) -> str:
        """The name of its files under OUT/grid."""
        place = str(self.dataset.place or "")
        digest = hashlib.sha256(f"{self.key}{place}".encode()).hexdigest()[:8]
        budget = self.budget.replace(" ", "")
        return f"{self.dataset.key}-{self.config.model}-seed{self.config.seed}-{budget}-{digest}"

    @property
    def title(self) -> str:
        """What people read."""
        budget = "" if self.budget == "all" else f", {self.budget}"
        return f"{self.dataset.key} {self.config.model}, seed {self.config.seed}{budget}"


def key_of(dataset: str, version: str, config: Mapping[str, Any]) -> str:
    """Of a run, as the command line asks for it: canonical JSON of all that can change its numbers but the data.

    `config` is a Config's fields, or those that a record kept; a flag that is newer than the record had its default.
    """
    identity = {f.name: config.get(f.name, f.default) for f in IDENTITY}
    return json.dumps({"dataset": dataset, "version": version, **identity}, sort_keys=True, default=str)


def add_script_flags(parser: argparse.ArgumentParser) -> None:
    """The scripts' flags, as Config defines them, for all cells; one that is not given is absent from the result."""
    words = defaultdict(lambda: "the dataset's", data_dir="data/<script>")
    group = parser.add_argument_group("flags of every cell, as the datasets' scripts take them")
    for f in _passed_on():
        options = dict(f.metadata["options"], dest=f.name, default=argparse.SUPPRESS)
        options["help"] = options["help"].format_map(words)
        group.add_argument(*f.metadata["names"], **options)


def script_flags(options: argparse.Namespace) -> list[str]:
    """Those that were given, to be passed on."""
    given = []
    for f in _passed_on():
        if not hasattr(options, f.name):
            continue
        value = getattr(options, f.name)
        given.append(_long_name(f))
        if f.metadata["options"].get("action") != "store_true":
            given += [str(part) for part in (value if isinstance(value, list) else [value])]
    return given


def _passed_on() -> list[Field[Any]]:
    return [f for f in fields(Config) if f.name not in OWN | NOT_FOR_GRIDS]


def _long_name(f: Field[Any]) -> str:
    name: str = f.metadata["names"][-1]
    return name


def make_cells(
    chosen: Sequence[Dataset],
    models: Sequence[str],
    seeds: Sequence[int],
    budgets: Sequence[tuple[str, str]],
    flags: Sequence[str],
    data_dir: Path | None,
) -> list[Cell]:
    """The grid, in the order in which it is worth most if it is stopped: whole data and the first seed first.

    UserError: a script would refuse the command of a cell.
    """
    cells: dict[str, Cell] = {}
    for seed in seeds:
        for name, number in budgets:
            for dataset in chosen:
                for model in models:
                    cell = _cell(dataset, model, seed, (name, number), flags, data_dir)
                    cells.setdefault(cell.id, cell)
    return list(cells.values())


def _cell(
    dataset: Dataset, model: str, seed: int, budget: tuple[str, str], flags: Sequence[str], data_dir: Path | None
) -> Cell:
    name, number = budget
    own = ["-model", model, "--seed", str(seed)]
    if name != "all":
        own += [f"--{name}", number]
    if data_dir is not None and not dataset.place:  # a folder of one's own has been named already
        own += ["--data-dir", str(data_dir / dataset.script_name)]
    arguments = [*own, *flags]
    config = parse(dataset, BACKBONES, arguments)[1]
    which = [str(dataset.place)] if dataset.place else dataset.flags.split()
    command = (str(SCRIPTS / f"{dataset.script_name}.py"), *which, *arguments)
    return Cell(dataset, config, f"{name} {number}".strip(), command)


def find_datasets(names: Iterable[str]) -> list[Dataset]:
    """What `--datasets` names: keys, scripts, one of a script's datasets (breakhis:40), folder:DIR, digits, all."""
    found: dict[str, Dataset] = {}
    for name in names:
        for dataset in _find(name):
            earlier = found.setdefault(dataset.key, dataset)
            if earlier.place != dataset.place:
                raise UserError(
                    f"{earlier.place} and {dataset.place} have the same name, {dataset.key!r}, so that their records "
                    "can't be told apart. Rename one, or give each a grid with an --out of its own."
                )
    return list(found.values())


def _find(name: str) -> list[Dataset]:
    script, _, which = name.partition(":")
    if name == "all":
        return list(datasets.DATASETS.values())
    if script in ("folder", "folder.py"):
        if not which:
            raise UserError("folder stands for no dataset by itself. Name the images' folder: folder:DIR.")
        if not Path(which).is_dir():
            raise UserError(f"{name}: {which} is not a folder. Expected one with class folders, or train/ and test/.")
        return [folder.dataset(Path(which))]
    if name.removesuffix(".py") == digits.DATASET.key:
        return [digits.DATASET]
    try:
        of_script = datasets.find(script)
    except UserError:
        known = [*(dataset.key for dataset in datasets.DATASETS.values()), digits.DATASET.key]
        near = difflib.get_close_matches(name.lower(), known, n=1, cutoff=0.4)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise UserError(
            f"unknown dataset {name!r}.{hint} Known: {', '.join(known)}, breakhis:40, folder:DIR, all."
        ) from None
    found = [dataset for dataset in of_script if not which or dataset.flags.split()[-1:] == [which]]
    if not found:
        known = [f"{script}:{dataset.flags.split()[-1]}" for dataset in of_script if dataset.flags]
        raise UserError(f"unknown dataset {name!r}. Known: {', '.join(known or [script])}.")
    return found


def find_models(names: Iterable[str]) -> list[str]:
    """What `--models` names: backbones, by either name, or all of the published comparison. Scripts refuse others."""
    aliases = {entry.builder.__name__: name for name, entry in BACKBONES.items()}
    published = [name for name in BACKBONES if name not in OUTSIDE_THE_TABLE]
    found: dict[str, None] = {}
    for name in names:
        found |= dict.fromkeys(published if name == "all" else [aliases.get(name, name)])
    return list(found)


def find_seeds(texts: Iterable[str]) -> list[int]:
    """What `--seeds` says: numbers, and ranges such as 0-4, both ends included."""
    kind = next(f for f in fields(Config) if f.name == "seed").metadata["options"]["type"]
    found: dict[int, None] = {}
    for text in texts:
        match = re.fullmatch(r"(\d+)-(\d+)", text)
        first, last = (_checked("--seeds", kind, part) for part in (match.groups() if match else (text, text)))
        if last < first:
            raise UserError(f"--seeds {text}: the range ends before it begins. Expected, say, 0-4.")
        if last - first >= 10_000:
            raise UserError(f"--seeds {text} are {last - first + 1:,} seeds. Expected at most 10,000.")
        found |= dict.fromkeys(range(first, last + 1))
    return list(found)


def find_budgets(shots: Sequence[str] | None, fractions: Sequence[str] | None) -> list[tuple[str, str]]:
    """What `--shots` and `--fraction` say, as a flag's name and its value; ("all", ""), if there, comes first."""
    found: dict[tuple[str, str], None] = {}
    for name, texts in (("shots", shots), ("fraction", fractions)):
        kind = next(f for f in fields(Config) if f.name == name).metadata["options"]["type"]
        for text in texts or ():
            found[("all", "") if text == "all" else (name, str(_checked(f"--{name}", kind, text)))] = None
    whole_data = ("all", "")
    if not found or whole_data in found:
        return [whole_data, *(budget for budget in found if budget != whole_data)]
    return list(found)


def _checked(flag: str, kind: Any, text: str) -> Any:
    try:
        return kind(text)
    except argparse.ArgumentTypeError as problem:
        raise UserError(f"{flag}: {problem}.") from None


def check_weights(models: Iterable[str], choice: str) -> None:
    """UserError: `--weights choice` is no file, and one of the backbones has no weights of that name."""
    if choice in ("imagenet", "auto", "none") or Path(choice).is_file():
        return
    for model in models:
        weights = BACKBONES[model].weights
        members = list(type(weights).__members__) if isinstance(weights, WeightsEnum) else []
        if choice not in members:
            names = ", ".join(["imagenet", "auto", "none", *members])
            raise UserError(f"--weights {choice}: no such file, and for {model} not one of {names}.")
