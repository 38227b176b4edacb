"""The nineteen rows of the published table: what of them is on this machine, and what is to be done.

python datasets.py                     a table: what is there, complete or not, and how to get the rest
python datasets.py stanford_cars       one dataset's card, and all there is to say on its state
python datasets.py --write-readme      the README's tables, from the declarations
"""

from __future__ import annotations

import argparse
import difflib
import sys
from collections.abc import Sequence
from pathlib import Path

import breakhis
import cifar10
import cifar100
import cub200
import digits
import dtd
import eurosat
import flowers102
import food101
import galaxy10
import plantclef
import plantvillage
import rsna
import stanford_cars
import stanford_dogs
import tinyimagenet
import ucmerced
from common import BACKBONES, Dataset
from engine.cli import Parser, folder
from engine.console import say, steady_streams, table
from engine.data.inventory import look
from engine.data.locate import wanted
from engine.errors import UserError
from engine.files import write_text
from engine.readme_tables import backbone_table, dataset_table, how_it_comes, put_tables

README = Path(__file__).resolve().parent / "README.md"

# in the order of the published table
DATASETS: dict[str, Dataset] = {
    dataset.key: dataset
    for dataset in (
        cifar10.DATASET,
        cifar100.DATASET,
        tinyimagenet.DATASET,
        stanford_dogs.DATASET,
        flowers102.DATASET,
        cub200.DATASET,
        stanford_cars.DATASET,
        food101.DATASET,
        dtd.DATASET,
        ucmerced.DATASET,
        eurosat.DATASET,
        plantvillage.DATASET,
        plantclef.DATASET,
        galaxy10.DATASET,
        *breakhis.MAGNIFICATIONS.values(),
        rsna.DATASET,
    )
}


def parser() -> Parser:
    """The command line."""
    found = Parser(
        prog="datasets.py",
        description=__doc__,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    found.add_argument("names", nargs="*", metavar="NAME", help="show these datasets in full")
    found.add_argument(
        "--data-dir",
        type=folder,
        default=Path("data"),
        metavar="DIR",
        help="holds the datasets' folders (default: data)",
    )
    found.add_argument("--write-readme", action="store_true", help="bring the tables of README.md up to date")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Do what the command line says. Returns 0, or 2 for the user's mistake, 130 for Ctrl-C."""
    steady_streams()
    try:
        options = parser().parse_args(arguments)
        if options.write_readme:
            write_text(README, readme(README.read_text("utf-8")))
        elif options.names:
            for dataset in [dataset for name in options.names for dataset in find(name)]:
                say(card(dataset, options.data_dir))
        else:
            say(overview(options.data_dir))
    except UserError as error:
        print(f"datasets.py: {error}", file=sys.stderr)
        return error.exit_code
    except KeyboardInterrupt:  # Ctrl-C, or whoever read the output is gone
        return 130
    return 0


def readme(text: str) -> str:
    """The README's text with tables that say what the declarations say."""
    tables = {"datasets": dataset_table([*DATASETS.values(), digits.DATASET]), "backbones": backbone_table(BACKBONES)}
    return put_tables(text, tables)


def find(name: str) -> list[Dataset]:
    """The datasets with that key, or of that script; UserError, with the nearest one, where there is none."""
    found = [dataset for dataset in DATASETS.values() if name.removesuffix(".py") in (dataset.key, dataset.script_name)]
    if not found:
        near = difflib.get_close_matches(name.lower(), DATASETS, n=1, cutoff=0.4)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise UserError(f"unknown dataset {name!r}.{hint} Known: {', '.join(DATASETS)}.")
    return found


def overview(data_dir: Path) -> str:
    """A line a dataset."""
    rows = [("dataset", "train", "test", "state", "what to do")]
    for dataset in DATASETS.values():
        state = look(dataset, data_dir / dataset.script_name)
        counts = (f"{dataset.train_images:,}", f"{dataset.test_images:,}")
        rows.append((dataset.key, *counts, state.word, state.what_to_do.partition("\n")[0]))
    return table(rows)


def card(dataset: Dataset, data_dir: Path) -> str:
    """All there is to say on one dataset and its state."""
    place = data_dir / dataset.script_name
    state = look(dataset, place)
    lines = [
        (dataset.name, f"{dataset.train_images:,} / {dataset.test_images:,} images, {dataset.classes} classes"),
        ("domain", dataset.domain),
        ("split", dataset.split),
        ("comes", how_it_comes(dataset)),
        ("licence", dataset.licence),
        ("citation", dataset.citation),
        ("page", dataset.page),
        ("looked in", str(place.absolute())),
        ("state", state.word),
        *(("", difference) for difference in state.differences),
    ]
    text = table(lines)
    if state.word == "unusable":
        return f"{text}\n{state.what_to_do}\n"
    try:
        if state.word in ("absent", "part of it"):
            wanted(dataset, place)
            text += f"\n{state.what_to_do}"
    except UserError as steps:
        text += f"\n\n{steps}"
    return text + "\n"


if __name__ == "__main__":
    sys.exit(main())
