"""The datasets that have a script here: what of them is on this machine, and what is to be done.

python datasets.py                     a table: what is there, complete or not, and how to get the rest
python datasets.py stanford_cars       one dataset's card, and all there is to say on its state
python datasets.py --write-docs        the tables in docs/, from the declarations
"""

from __future__ import annotations

import importlib
import re
import shlex
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common import BACKBONES, Choice, Dataset
from engine.cli import Help, Parser, at_home, checked, nearest, place_in, run_command, run_file
from engine.cli import folder as folder_path
from engine.console import say, table
from engine.data.declaration import datasets_of
from engine.data.inventory import look
from engine.data.locate import wanted
from engine.data.place import place_among
from engine.doc_tables import backbone_table, count_text, dataset_table, how_it_comes, put_table
from engine.errors import UserError, one_line
from engine.files import write_text
from engine.paths import PROJECT, exists, is_dir, is_file, with_home
from folder import existing

# the scripts: first those of the published table, in its order
SCRIPTS = (
    "cifar10",
    "cifar100",
    "tinyimagenet",
    "stanford_dogs",
    "flowers102",
    "cub200",
    "stanford_cars",
    "food101",
    "dtd",
    "ucmerced",
    "eurosat",
    "plantvillage",
    "plantclef",
    "galaxy10",
    "breakhis",
    "rsna",
    "digits",
)


def load(script: Path) -> Dataset | Choice:
    """What the script at that path declares. Raises UserError where it can't be imported or declares nothing."""
    try:
        declared = run_file(script).DATASET
    except UserError as problem:
        raise UserError(f"{place_in(problem.__traceback__)}{problem}") from problem
    except Exception as problem:  # whatever is in a script of the user's own
        wrong = f"{script} is no dataset's script: {type(problem).__name__}: {problem}"
        raise UserError(f"{wrong}. Expected a DATASET in it, as in digits.py.") from problem
    if not isinstance(declared, Dataset | Choice):
        kind = type(declared).__name__
        raise UserError(f"{script}: DATASET is of type {kind}. Expected a Dataset or a Choice, as in digits.py.")
    return declared


DATASETS: dict[str, Dataset] = {
    dataset.key: dataset for script in SCRIPTS for dataset in datasets_of(importlib.import_module(script).DATASET)
}
PUBLISHED = [dataset for dataset in DATASETS.values() if dataset.published]


@dataclass(frozen=True)
class Chosen:
    """A dataset that was named, and the script that runs it."""

    dataset: Dataset
    script: Path


def named(name: str) -> list[Chosen]:
    """What a name stands for: a key, a script (also by path), one of a script's datasets, folder:DIR, all."""
    script, _, which = name.partition(":")
    if name == "all":
        return [_ours(dataset) for dataset in PUBLISHED]
    if script in ("folder", "folder.py"):
        if not which:
            raise UserError("folder stands for no dataset by itself. Name the images' folder: folder:DIR.")
        return [_ours(existing(checked("--datasets", folder_path, which)))]
    if "\0" in script:
        raise UserError(f"unknown dataset {name!a}: no name has a NUL in it.")
    path = Path(checked("--datasets", at_home, script)).resolve()
    if script.endswith(".py") and "/" in script and not exists(path):
        raise UserError(
            f"no script {script}. Expected the path of a dataset's script, or a name that datasets.py lists."
        )
    if script.endswith(".py") and is_file(path) and path.parent != PROJECT:
        of_script = [Chosen(dataset, path) for dataset in datasets_of(load(path))]
    else:
        of_script = [_ours(dataset) for dataset in _known(name, script)]
    wanted = [chosen for chosen in of_script if not which or chosen.dataset.flags.split()[-1:] == [which]]
    if not wanted:
        known = [f"{script}:{chosen.dataset.flags.split()[-1]}" for chosen in of_script if chosen.dataset.flags]
        raise UserError(f"unknown dataset {name!r}. Known: {', '.join(known or [script])}.")
    return wanted


def find_one(text: str, what: str) -> tuple[str, Chosen]:
    """The dataset of that name, or the images in the folder of that path, and what grid.py calls it.

    what: that is made of it, such as "a run". UserError: there is none, or the name stands for several.
    """
    if not text.strip():
        raise UserError("the dataset's name is empty: is a variable not set? Expected a folder of images, or a name.")
    called = text
    try:
        found = named(called)
    except UserError as problem:
        if is_dir(with_home(text)):
            called = f"folder:{text}"
            found = named(called)
        elif re.fullmatch(r"\w[\w-]*(:\w*)?", text) or "folder:" in text or text.endswith(".py"):
            raise UserError(str(problem).replace(", folder:DIR,", ", a folder of images,")) from None
        else:
            raise UserError(
                f"{one_line(text)}: no such folder, and no dataset's name.{nearest(text, DATASETS, 0.6)} Expected a "
                f"folder of images, with a folder for each class in it, or one of {', '.join(DATASETS)}."
            ) from None
    if len(found) > 1:
        names = [f"{each.dataset.script_name}:{each.dataset.flags.split()[-1]}" for each in found if each.dataset.flags]
        such = f", such as {names[0]}" if names else ""
        raise UserError(f"{text} names {len(found)} datasets, and {what} is of one. Name one{such}.")
    return called, found[0]


def _ours(dataset: Dataset) -> Chosen:
    return Chosen(dataset, PROJECT / f"{dataset.script_name}.py")


def _known(name: str, script: str) -> list[Dataset]:
    try:
        return find(script)
    except UserError:
        if is_dir(with_home(name)):
            raise UserError(
                f"{name} is a folder, but no dataset's name. Images of your own are named so: "
                f"--datasets {shlex.quote(f'folder:{name}')}"
            ) from None
        known = ", ".join([*DATASETS, "breakhis:40, folder:DIR, the path of a script of your own, all"])
        raise UserError(f"unknown dataset {name!r}.{nearest(name, DATASETS)} Known: {known}.") from None


def parser() -> Parser:
    """The command line."""
    command_line = Parser(
        prog="datasets.py",
        description=__doc__,
        formatter_class=Help,
        allow_abbrev=False,
    )
    command_line.add_argument("names", nargs="*", metavar="NAME", help="show these datasets in full")
    command_line.add_argument(
        "--data-dir",
        type=folder_path,
        default=Path("data"),
        metavar="DIR",
        help="a folder with the datasets in DIR/<script>, or one dataset's own, as the scripts take it (default: data)",
    )
    command_line.add_argument("--write-docs", action="store_true", help="bring the tables in docs/ up to date")
    return command_line


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says. Returns 0, or 2 for the user's mistake, 130 for Ctrl-C."""

    def command() -> None:
        options = parser().parse_args(arguments)
        if options.write_docs:
            for path, text in docs().items():
                write_text(path, text)
        elif options.names:
            for dataset in [dataset for name in options.names for dataset in find(name)]:
                say(card(dataset, options.data_dir), go_on=True)
        else:
            say(overview(options.data_dir), go_on=True)

    return run_command(command)


def docs() -> dict[Path, str]:
    """The pages that have a table of datasets or of backbones, with tables that say what the declarations say."""
    tables = {"datasets": dataset_table(DATASETS.values()), "backbones": backbone_table(BACKBONES)}
    pages = {name: PROJECT / "docs" / f"{name}.md" for name in tables}
    return {pages[name]: put_table(pages[name].read_text("utf-8"), name, text) for name, text in tables.items()}


def find(name: str) -> list[Dataset]:
    """The datasets with that key, or of that script; UserError, with the nearest one, where there is none."""
    named = [dataset for dataset in DATASETS.values() if name.removesuffix(".py") in (dataset.key, dataset.script_name)]
    if not named:
        raise UserError(f"unknown dataset {name!r}.{nearest(name, DATASETS)} Known: {', '.join(DATASETS)}.")
    return named


def overview(data_dir: Path) -> str:
    """A line a dataset."""
    rows = [("dataset", "train", "test", "state", "what to do")]
    for dataset in DATASETS.values():
        state = look(dataset, place_among(dataset, data_dir))
        counts = (count_text(dataset.train_images), count_text(dataset.test_images))
        rows.append((dataset.key, *counts, state.status, state.what_to_do.partition("\n")[0]))
    return table(rows)


def card(dataset: Dataset, data_dir: Path) -> str:
    """All there is to say on one dataset and its state."""
    place = place_among(dataset, data_dir)
    state = look(dataset, place)
    counts = (dataset.train_images, dataset.test_images, dataset.classes)
    lines = [
        (dataset.name, f"{' / '.join(map(count_text, counts[:2]))} images, {count_text(counts[2])} classes"),
        ("domain", dataset.domain),
        ("split", dataset.split),
        ("comes", how_it_comes(dataset)),
        ("licence", dataset.licence),
        ("citation", dataset.citation),
        ("page", dataset.page),
        ("looked in", str(place.absolute())),
        ("state", state.status),
        *(("", difference) for difference in state.differences),
    ]
    text = table(lines)
    if state.status == "unusable":
        return f"{text}\n{state.what_to_do}\n"
    try:
        if state.status in ("absent", "part of it"):
            wanted(dataset, place)
            text += f"\n{state.what_to_do}"
    except UserError as steps:
        text += f"\n\n{steps}"
    return text + "\n"


if __name__ == "__main__":
    sys.exit(main())
