"""What the command line asks for -> cells: a dataset, backbone, seed and budget each, and the command that runs it."""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import shlex
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

from common import BACKBONES, Dataset
from datasets import SCRIPTS, Chosen, named
from engine.cli import checked, without_quotes
from engine.command_line import check_weights, parse
from engine.config import FLAGS, Config, asked
from engine.data.file_kinds import visible
from engine.data.place import place_among
from engine.errors import UserError
from engine.models.backbone import WEIGHTS, Backbone
from engine.models.names import MEMBER, divided, find_backbone, folder_name, row_name
from engine.models.weights_folder import is_path
from engine.records.printed import fold_words

OWN = {"model", "seed", "shots", "fraction", "data_dir", "rerun"}  # the flags that grid.py has in a form of its own
NOT_FOR_GRIDS = {"check", "sync_batch_norm"}  # a cell is one process
DRAWN = ("seed", "fold")  # fields that a cell's other runs differ in
PASSED_ON = tuple(name for name in FLAGS if name not in OWN | NOT_FOR_GRIDS)


@dataclass(frozen=True)
class Cell:
    """One run of the grid, resolved as its script will resolve it."""

    dataset: Dataset
    config: Config
    budget: str  # of training images: "all", "shots 10" or "fraction 0.1"
    command: tuple[str, ...]  # without Python itself
    one_of_name: bool = True  # whether no other folder of the grid is called as its own
    search: str = ""  # which rung of a search it is, in words; "": it is run for itself
    named: str = ""  # its backbone, as the grid's command has it

    @cached_property
    def key(self) -> str:
        """The same for all records that this cell may have left: see `key_of`."""
        drawn = {name: getattr(self.config, name) for name in ("recipe", *DRAWN)}
        return _key(self.dataset.key, self.dataset.version, self._asked_but_for_seed | asked(drawn))

    @cached_property
    def id(self) -> str:
        """The name of its files under OUT/grid."""
        place = f"{self.dataset.own_folder or ''}{self.config.labels or ''}"
        digest = hashlib.sha256(f"{self.key}{place}".encode()).hexdigest()[:8]
        budget = self.budget.replace(" ", "")
        fold = f"-fold{self.config.fold}of{self.config.folds}" if self.config.folds else ""
        model = folder_name(self.config.model)
        return f"{self.dataset.key}-{model}-seed{self.config.seed}{fold}-{budget}-{digest}"

    @cached_property
    def backbone(self) -> Backbone:
        """What it trains."""
        return find_backbone(self.config.model, BACKBONES).backbone.at(self.config.size)

    @cached_property
    def row(self) -> str:
        """What its backbone is called beside the same with other weights."""
        return self.named or self.config.model

    @property
    def folder(self) -> Path:
        """Where the runs of its backbone on its dataset lie."""
        return self.config.out / self.dataset.key / folder_name(self.config.model)

    @cached_property
    def but_for_seed(self) -> str:
        """The same for all cells of a grid that differ in their seed, or their fold, alone."""
        return f"{self.place}, {self.budget}: {_key(self.dataset.key, self.dataset.version, self._asked_but_for_seed)}"

    @cached_property
    def _asked_but_for_seed(self) -> dict[str, Any]:
        return {name: value for name, value in asked(vars(self.config)).items() if name not in DRAWN}

    def of_seed(self, seed: int) -> Cell:
        """The same from another seed."""
        place = self.command.index("--seed") + 1
        command = (*self.command[:place], str(seed), *self.command[place + 1 :])
        seeded = replace(self, config=replace(self.config, seed=seed), command=command)
        for name in ("but_for_seed", "_asked_but_for_seed"):  # which take longer than all else of a seed's cell
            vars(seeded)[name] = getattr(self, name)
        return seeded

    @property
    def title(self) -> str:
        """What people read."""
        fold = f", {words}" if (words := fold_words(vars(self.config))) else ""
        budget = "" if self.budget == "all" else f", {self.budget}"
        search = f", {self.search}" if self.search else ""
        return f"{self.dataset_name} {self.row}, seed {self.config.seed}{fold}{budget}{search}"

    @property
    def dataset_name(self) -> str:
        """What its dataset is called in this grid."""
        return self.dataset.key if self.one_of_name else self.place

    @property
    def place(self) -> str:
        """Its dataset, with the folder of one's own that it lies in."""
        return f"{self.dataset.key} ({self.dataset.own_folder})" if self.dataset.own_folder else self.dataset.key


def key_of(dataset: str, version: str, config: Mapping[str, Any]) -> str:
    """Return the key of a run as a command line asks for it: all that can change its numbers but the data, as JSON.

    `config` is a Config's fields, or those that a record kept.
    """
    return _key(dataset, version, asked(config))


def _key(dataset: str, version: str, asked_for: Mapping[str, Any]) -> str:
    return json.dumps({"dataset": dataset, "version": version, "asked": asked_for}, sort_keys=True, default=str)


def add_script_flags(parser: argparse.ArgumentParser, names: Sequence[str] = PASSED_ON, whose: str = "cell") -> None:
    """The scripts' flags of these fields of Config, for all cells; one that is not given is absent from the result."""
    words = defaultdict(lambda: "the dataset's", data_dir="data/<script>")
    group = parser.add_argument_group(f"flags of every {whose}, as the datasets' scripts take them")
    for f in map(FLAGS.__getitem__, names):
        options = dict(f.metadata["options"], dest=f.name, default=argparse.SUPPRESS)
        options["help"] = options["help"].format_map(words | {"default": f.default})
        group.add_argument(*f.metadata["names"], **options)


def script_flags(options: argparse.Namespace, names: Sequence[str] = PASSED_ON) -> list[str]:
    """Those of these flags that were given, to be passed on."""
    given = []
    for f in map(FLAGS.__getitem__, names):
        if not hasattr(options, f.name):
            continue
        value = getattr(options, f.name)
        given.append(f.metadata["names"][-1])
        if f.metadata["options"].get("action") != "store_true":
            given += [str(part) for part in (value if isinstance(value, list) else [value])]
    return given


def make_cells(
    chosen: Sequence[Chosen],
    models: Sequence[str],
    seeds: Sequence[int],
    budgets: Sequence[tuple[str, str]],
    flags: Sequence[str],
    data_dir: Path | None,
) -> list[Cell]:
    """The grid, in the order in which it is worth most if it is stopped: whole data and the first seed first.

    UserError: a script would refuse the command of a cell.
    """
    of_first_seed: list[Cell] = []  # a command line takes milliseconds to resolve, and seeds change nothing else in it
    for name, number in budgets:
        for each in chosen:
            for model in models:
                own = ["-model", model, "--seed", str(seeds[0]), *([] if name == "all" else [f"--{name}", number])]
                of_first_seed += _folds(_cell(each, f"{name} {number}".strip(), [*own, *flags], data_dir))
    cells: dict[str, Cell] = {}
    for seed in seeds:
        for cell in of_first_seed:
            seeded = cell.of_seed(seed)
            cells.setdefault(seeded.id, seeded)
    names = Counter(key for key, _ in {(cell.dataset.key, cell.dataset.own_folder) for cell in cells.values()})
    return [cell if names[cell.dataset.key] == 1 else replace(cell, one_of_name=False) for cell in cells.values()]


def _folds(cell: Cell) -> list[Cell]:
    """The cell, or one for each fold that its command asks for."""
    runs = cell.config.runs
    if len(runs) == 1:
        return [cell]
    return [replace(cell, config=run, command=(*cell.command, "--fold", str(run.fold))) for run in runs]


def _cell(chosen: Chosen, budget: str, arguments: Sequence[str], data_dir: Path | None) -> Cell:
    dataset = chosen.dataset
    for f in FLAGS.values():
        if f.metadata["own"] and not dataset.own and (name := f.metadata["names"][-1]) in arguments:
            raise UserError(
                f"{name} is for images of your own, folder:DIR, and {dataset.key} has a split of its own. Leave it "
                "out, or give your images a grid of theirs."
            )
    if data_dir is not None and not dataset.own_folder:  # a folder of one's own has been named already
        arguments = [*arguments, "--data-dir", str(place_among(dataset, data_dir))]
    dataset, config = parse(dataset, BACKBONES, arguments)
    which = [str(dataset.own_folder)] if dataset.own_folder else dataset.flags.split()
    command = (str(chosen.script), *which, *arguments)
    return Cell(dataset, config, budget, command, named=_row(arguments[1], config))


def _row(named: str, config: Config) -> str:
    """What a cell's backbone is called, by the name in its command and by the weights that its flags ask for."""
    if divided(named)[1] is None and not MEMBER.fullmatch(config.weights):
        return config.model
    return row_name(config.model, config.weights, find_backbone(config.model, BACKBONES).backbone)


def places_to_make(cells: Sequence[Cell], data_dir: Path | None) -> list[Path]:
    """The folders of datasets that are still to be fetched, if `data_dir` has datasets' folders alone in it.

    UserError: there is no such folder, and its name may be a mistake.
    """
    absent = {
        cell.config.data_dir
        for cell in cells
        if cell.dataset.files
        and not cell.dataset.own
        and not cell.config.data_dir.exists()
        and all(file.urls for file in cell.dataset.files)
    }
    if data_dir is None or not absent or data_dir.absolute() == Path("data").absolute():
        return []
    if not data_dir.is_dir():
        wrong = "is a file" if data_dir.exists() else "does not exist"
        raise UserError(
            f"--data-dir {data_dir} {wrong}. Expected a folder that holds the datasets' folders. If they are to be "
            f"fetched into it, make it: mkdir -p {shlex.quote(str(data_dir))}"
        )
    ours = {*SCRIPTS, *(cell.dataset.script_name for cell in cells)}
    others = [entry for entry in visible(data_dir) if entry.name not in ours]
    return [] if others else sorted(absent)


def find_datasets(names: Iterable[str]) -> list[Chosen]:
    """What `--datasets` names: keys, scripts (also by path), one of a script's datasets, folder:DIR, all."""
    by_place: dict[tuple[str, Path | None], Chosen] = {}
    words = list(names)
    for number, name in enumerate(words):
        try:
            found = named(name)
        except UserError as problem:
            hint = without_quotes(words[number:])
            raise UserError(f"{str(problem).rstrip('.')}{hint}." if hint else str(problem)) from None
        for chosen in found:
            # of folders of one name, the images tell whose a record is
            earlier = by_place.setdefault((chosen.dataset.key, chosen.dataset.own_folder), chosen)
            if earlier.script != chosen.script:
                raise UserError(
                    f"{earlier.script} and {chosen.script} have the same name, {chosen.dataset.key!r}, so that their "
                    "records can't be told apart. Rename one, or give each a grid with an --out of its own."
                )
    return list(by_place.values())


def find_models(names: Iterable[str]) -> list[str]:
    """What `--models` names, as `-model` takes it, or all of the published comparison; each once."""
    published = [name for name, backbone in BACKBONES.items() if backbone.published]
    models: dict[str, None] = {}
    for name in names:
        models |= dict.fromkeys(published if name == "all" else [find_backbone(name, BACKBONES).row])
    return list(models)


def find_seeds(texts: Iterable[str]) -> list[int]:
    """What `--seeds` says: numbers, and ranges such as 0-4, both ends included."""
    kind = FLAGS["seed"].metadata["options"]["type"]
    seeds: dict[int, None] = {}
    for text in texts:
        match = re.fullmatch(r"(\d+)-(\d+)", text)
        first, last = (checked("--seeds", kind, part) for part in (match.groups() if match else (text, text)))
        if last < first:
            raise UserError(f"--seeds {text}: the range ends before it begins. Expected, say, 0-4.")
        if last - first >= 10_000:
            raise UserError(f"--seeds {text} are {last - first + 1:,} seeds. Expected at most 10,000.")
        seeds |= dict.fromkeys(range(first, last + 1))
    return list(seeds)


def find_budgets(shots: Sequence[str] | None, fractions: Sequence[str] | None) -> list[tuple[str, str]]:
    """What `--shots` and `--fraction` say, as a flag's name and its value; ("all", ""), if there, comes first."""
    budgets: dict[tuple[str, str], None] = {}
    for name, texts in (("shots", shots), ("fraction", fractions)):
        kind = FLAGS[name].metadata["options"]["type"]
        for text in texts or ():
            budgets[("all", "") if text == "all" else (name, str(checked(f"--{name}", kind, text)))] = None
    whole_data = ("all", "")
    if not budgets or whole_data in budgets:
        return [whole_data, *(budget for budget in budgets if budget != whole_data)]
    return list(budgets)


def check_members(cells: Iterable[Cell]) -> None:
    """UserError: the weights of a cell are no file or folder, and its backbone has none of that name."""
    for (_, choice), backbone in {(cell.config.model, cell.config.weights): cell.backbone for cell in cells}.items():
        check_weights(choice)
        if choice in WEIGHTS or is_path(choice):
            continue
        from engine.models.weights import find_member  # torchvision takes seconds to import

        find_member(backbone, choice)
