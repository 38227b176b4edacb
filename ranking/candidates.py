"""What the command line asks for -> one dataset, and the backbones that can be scored on it, with their weights."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path

from common import BACKBONES
from datasets import Chosen, find_one
from engine.config import FLAGS
from engine.errors import UserError, listed
from engine.paths import PROJECT, script_path
from grids.cells import Cell, check_members, make_cells, script_flags

# of the scripts' flags: those that say what is run on what, and how. What ends a stage, or tries learning rates, has no
# place in runs whose epochs are counted
PASSED_ON = (
    *("batch_size", "epochs", "weights", "size", "augment", "class_weights", "select"),
    *("device", "precision", "compile", "plan", "deterministic"),
    *("labels", "cache_dir", "no_cache", "out", "allow_partial"),
)
OWN = ("seed", "shots", "fraction", "data_dir")  # that cells have in a form of their own
RECIPE = "fast"  # that is fine-tuned by: its learning rate comes down within the epochs that it is given
FEWEST = 2  # backbones, of which one can be the better


@dataclass(frozen=True)
class Candidate:
    """A backbone on the dataset, as its script would fine-tune it in full."""

    name: str
    cell: Cell


@dataclass(frozen=True)
class Question:
    """What is asked: of which dataset, and with which flags of its script."""

    named: str  # as grid.py takes it
    chosen: Chosen
    flags: tuple[str, ...]  # of every run, beside the recipe
    seed: int
    budget: tuple[str, str]  # of training images, as grids.cells.find_budgets() has it
    data_dir: Path | None

    @property
    def grid_flags(self) -> list[str]:
        """What a command of grid.py has beside the backbones, to run what is asked of."""
        flags = ["--datasets", self.named, "--recipe", RECIPE, *self.flags]
        flags += ["--seeds", str(self.seed)] if self.seed else []
        flags += [f"--{self.budget[0]}", self.budget[1]] if self.budget[1] else []
        return [*flags, "--data-dir", str(self.data_dir)] if self.data_dir else flags

    def cell(self, model: str, *more: str) -> Cell:
        """The run of a backbone by RECIPE, and `more` flags. UserError: its script would refuse it."""
        flags = ["--recipe", RECIPE, *self.flags, *more]
        return make_cells([self.chosen], [model], [self.seed], [self.budget], flags, self.data_dir)[0]


def find_question(options: argparse.Namespace) -> Question:
    """What the command line asks."""
    given = vars(options)
    if "shots" in given and "fraction" in given:
        raise UserError("--shots and --fraction both say how many training images there are. Give one of them.")
    budget = next(((name, str(given[name])) for name in ("shots", "fraction") if name in given), ("all", ""))
    flags = tuple(script_flags(options, PASSED_ON))
    seed = given.get("seed", FLAGS["seed"].default)
    named, chosen = find_one(options.data, "an order")
    return Question(named, chosen, flags, seed, budget, given.get("data_dir"))


def find_candidates(question: Question, models: Sequence[str]) -> tuple[list[Candidate], dict[str, str]]:
    """The backbones that can take such images, and why others can't, by name. UserError: fewer than FEWEST can."""
    candidates, left_out = [], {}
    for model in models:
        try:
            cell = question.cell(model)
            check_members([cell])
        except UserError as problem:
            left_out[model] = str(problem)
        else:
            candidates.append(Candidate(cell.row, cell))
    require_enough([candidate.name for candidate in candidates], left_out)
    return candidates, left_out


def require_enough(names: Sequence[str], left_out: Mapping[str, str]) -> None:
    """Raise UserError where fewer than FEWEST backbones are left, with what is wrong with the others."""
    if len(names) >= FEWEST:
        return
    reasons = dict.fromkeys(left_out.values())
    if len(reasons) == 1 and not names:  # the same is wrong with all: it is of the command or the data
        raise UserError(next(iter(reasons)))
    if not left_out:
        more = next(name for name, backbone in BACKBONES.items() if backbone.published and name not in names)
        raise UserError(
            f"{' and '.join(names)} alone can't be ranked: an order takes at least {FEWEST} backbones. Name more, such "
            f"as --models {shlex.join(names)} {more}, or all."
        )
    lines = [f"{name}: {first_sentence(reason)}" for name, reason in left_out.items()]
    kept = f"only {names[0]} can be scored" if names else "no backbone can be scored"
    name, reason = next(iter(left_out.items()))
    what = f"\nOf {name}: {advice(reason)}" if advice(reason) else ""
    raise UserError(
        f"{kept}, and an order takes at least {FEWEST}:{listed(lines)}\nMend one of these, or name others.{what}"
    )


def command_of(cell: Cell) -> str:
    """The command of a run, as it is typed in the folder where this program is."""
    script = Path(cell.command[0])
    name = script_path(script.name) if script.parent == PROJECT else str(script)
    return shlex.join(["python", name, *cell.command[1:]])


def first_sentence(reason: str) -> str:
    """What a message says is wrong, in a line: its first line, with the details that are indented below it."""
    first, *rest = reason.split("\n")
    details = [line.strip() for line in takewhile(lambda line: line.startswith(" "), rest)]
    return " ".join([first, *details]).rstrip(":")


def advice(reason: str) -> str:
    """What a message says is to be done, "" where it does not: the lines after what is wrong."""
    return "\n".join(line for line in reason.split("\n")[1:] if not line.startswith(" "))
