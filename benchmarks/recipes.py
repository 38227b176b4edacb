"""How many images recipes take until they are as good as adamw-sgd, and how good they are: networks with real weights.

REAL=DIR python benchmarks/recipes.py run [--recipes NAME ...] [--models NAME ...] [--seeds 0-2] [--jobs 2]
python benchmarks/recipes.py collect       what is known of the finished runs, added to one file
python benchmarks/recipes.py screening     what each candidate changes, judged by the validation part
python benchmarks/recipes.py comparison    adamw-sgd, cosine and fast: images, validation, test; and a picture

python benchmarks/recipes.py stopping      what adamw-sgd would lose by stopping where val can tell no gain

Recipes are those of the project and of benchmarks/candidates.py, which has the images too. Runs are ordinary cells of a
grid in OUT/RECIPE, so that a command that was ended goes on when it is given again, and others can share its work.
Tables are made of the file alone, that of the published numbers where no other is named.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from math import isnan
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.candidates import CANDIDATES, DATASETS, SETS
from benchmarks.recipe_plot import draw
from benchmarks.time_to_accuracy import (
    Interval,
    Runs,
    by_pair,
    common_cells,
    difference,
    image_ratio,
    of_cells,
    of_data,
    reached,
    read_runs,
    read_table,
    settled,
    write_table,
)
from engine.cli import Help, run_command
from engine.console import say, table
from engine.errors import UserError
from engine.paths import PROJECT

REFERENCE, OTHER, FAST = "adamw-sgd", "cosine", "fast"
CENTRE = "fast+10-epochs"  # that the candidates were tried around
RECIPES = [REFERENCE, OTHER, *CANDIDATES]
FILE = PROJECT / "docs" / "recipes.csv"
MODELS = ("tf2", "bird", "tf1", "lite0")
SCREENED_ON, SCREENED_SEEDS, ALL_SEEDS = MODELS[:2], range(3), range(100)
SCRIPT = PROJECT / "benchmarks" / "candidates.py"
FLAGS = ("-bs", "16", "--precision", "fp32", "--device", "cpu")


def grid_words(recipe: str, arguments: argparse.Namespace) -> list[str]:
    """The grid that trains every cell by one recipe."""
    return [
        *("--datasets", *(f"{SCRIPT}:{name}" for name in arguments.data)),
        *("--models", *arguments.models, "--seeds", *arguments.seeds),
        *("--recipe", recipe, *(CANDIDATES[recipe].flags if recipe in CANDIDATES else ()), *FLAGS),
        *("--out", str(arguments.out / recipe), "--cache-dir", str(arguments.out / "cache")),
    ]


def run_grid(words: Sequence[str]) -> None:
    """`grid.py` with the candidates among the recipes."""
    import grid

    sys.exit(grid.main(words))


def run_all(arguments: argparse.Namespace) -> None:
    """One recipe after the other, each by as many grids at once as there are jobs."""
    for recipe in arguments.recipes:
        command = [sys.executable, __file__, "grid", *grid_words(recipe, arguments)]
        started = [subprocess.Popen(command) for _ in range(arguments.jobs)]  # noqa: S603 (this script)
        if failed := max(process.wait() for process in started):
            sys.exit(failed)


def in_words(found: Interval, form: str, scale: float = 1) -> str:
    """A number with its interval; of a single pair, there is none."""
    value, low, high = (form.format(scale * number) for number in found)
    return value if isnan(found.low) else f"{value} ({low} to {high})"


def points(found: Interval) -> str:
    """A difference of accuracies with its interval."""
    return in_words(found, "{:+.2f}", 100)


def times(found: Interval) -> str:
    """A ratio with its interval."""
    return in_words(found, "{:.3f}")


def of_file(file: Path, recipes: Sequence[str]) -> Mapping[str, Runs]:
    """The runs that a table holds. UserError: none of one of these recipes."""
    found = read_table(file)
    if missing := [recipe for recipe in recipes if recipe not in found]:
        raise UserError(
            f"{file} has no run of {' and '.join(missing)}. Train what is missing by `recipes.py run --recipes "
            f"{' '.join(missing)}`, and add it by `recipes.py collect`."
        )
    return found


def screening(found: Mapping[str, Runs]) -> list[tuple[str, ...]]:
    """A row a candidate, by the validation part alone."""
    found = {recipe: of_data(of_cells(runs, SCREENED_ON, SCREENED_SEEDS), SETS) for recipe, runs in found.items()}
    centre, reference = found[CENTRE], found[REFERENCE]
    rows: list[tuple[str, ...]] = [
        ("recipe", "runs", f"val top-1 - {CENTRE}", "passes", f"images to val of {REFERENCE}", "reached")
    ]
    for recipe, runs in found.items():
        if common_cells(runs, centre):
            gain = points(difference(runs, centre, "val")) if recipe != CENTRE else ""
            passes = f"{statistics.mean(len(run.curve) for run in runs.values()):.1f}"
            cost = (times(image_ratio(runs, reference)), f"{reached(runs, reference):.0%}")
            rows.append((recipe, str(len(common_cells(runs, centre))), gain, passes, *cost))
    return rows


def comparison(found: Mapping[str, Runs], recipes: Sequence[str], against: str) -> list[tuple[str, ...]]:
    """A row a recipe and set of images, of the cells that the recipe and the one that it is held against have."""
    rows: list[tuple[str, ...]] = [
        ("recipe", "data", "runs", "all images", "images to val", "reached", "val top-1", "test top-1", "test NLL"),
    ]
    for recipe in recipes:
        for data in ("all", *DATASETS):
            of = SETS if data == "all" else (data,)
            runs, base = (of_data(found[name], of) for name in (recipe, against))
            if not (cells := common_cells(runs, base)):
                continue
            nll = difference(runs, base, "test_nll")
            rows.append(
                (
                    *(recipe, data, str(len(cells))),
                    *(times(image_ratio(runs, base, whole=True)), times(image_ratio(runs, base))),
                    f"{reached(runs, base):.0%}",
                    *(points(difference(runs, base, part)) for part in ("val", "test")),
                    in_words(nll, "{:+.3f}"),
                )
            )
    return rows


def levels(found: Mapping[str, Runs], recipes: Sequence[str]) -> list[tuple[str, ...]]:
    """A row a recipe, of the cells of SETS that all have: means over pairs, not differences. UserError: none."""
    cells = common_cells(*(of_data(found[recipe], SETS) for recipe in recipes))
    if not cells:
        raise UserError(
            f"nothing to compare: {', '.join(recipes)} have no network, images and seed in common. Name others by "
            "--models, or train what is missing by `recipes.py run`, and `collect` it."
        )
    rows: list[tuple[str, ...]] = [("recipe", "runs", "val after a pass", "val", "test", "images until that val")]
    for recipe in recipes:
        runs = {cell: found[recipe][cell] for cell in cells}
        values = (
            {cell: run.curve[0] for cell, run in runs.items()},
            *({cell: float(getattr(run, part)) for cell, run in runs.items()} for part in ("val", "test")),
        )
        means = (f"{statistics.mean(by_pair(cells, value)):.1%}" for value in values)
        share = statistics.geometric_mean(run.images_to_best / run.images for run in runs.values())
        rows.append((recipe, str(len(cells)), *means, f"{share:.3f}"))
    return rows


def stopping(found: Mapping[str, Runs]) -> list[tuple[str, ...]]:
    """What the reference would have saved and lost by stopping where val can't tell a gain."""
    runs = of_data(found[REFERENCE], SETS).values()
    rows: list[tuple[str, ...]] = [("passes without a gain that val can tell", "images", "val top-1 lost")]
    for patience in (3, 5, 10):
        ends = [settled(run, patience) for run in runs]
        share = statistics.geometric_mean(end / len(run.curve) for end, run in zip(ends, runs, strict=True))
        lost = statistics.mean(run.val - max(run.curve[:end]) for end, run in zip(ends, runs, strict=True))
        rows.append((str(patience), f"{share:.2f}", f"{100 * lost:.1f}"))
    return rows


def options() -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Help)
    add = parser.add_argument
    add("what", choices=["run", "collect", "screening", "comparison", "stopping"])
    add("--recipes", nargs="+", choices=RECIPES, metavar="NAME", help="default: all; of a comparison those three")
    add("--against", choices=RECIPES, default=REFERENCE, metavar="NAME", help=f"of a comparison (default: {REFERENCE})")
    add("--models", nargs="+", default=MODELS, metavar="NAME", help=f"default: {' '.join(MODELS)}")
    add(
        "--data",
        nargs="+",
        choices=list(DATASETS),
        default=list(SETS),
        metavar="NAME",
        help=f"default: {' '.join(SETS)}",
    )
    add("--seeds", nargs="+", default=["0-2"], metavar="N", help="default: 0-2")
    add("--jobs", type=int, default=1, help="grids at once (default: 1)")
    add("--out", type=Path, default=Path("build/recipes"), metavar="DIR", help="default: build/recipes")
    add("--file", type=Path, default=FILE, metavar="FILE", help=f"default: {FILE.relative_to(PROJECT)}")
    add("--picture", type=Path, metavar="FILE", help="of a comparison: PNG")
    return parser.parse_args()


def main() -> None:
    """Do what the command line says."""
    if sys.argv[1:2] == ["grid"]:
        run_grid(sys.argv[2:])
    arguments = options()
    arguments.out = arguments.out.absolute()
    if arguments.what == "run":
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        arguments.recipes = arguments.recipes or RECIPES
        run_all(arguments)
    elif arguments.what == "collect":
        known = read_table(arguments.file) if arguments.file.exists() else {}
        made = read_runs(arguments.out)
        both = {recipe: known.get(recipe, {}) | made.get(recipe, {}) for recipe in known.keys() | made.keys()}
        write_table(arguments.file, both)
    elif arguments.what == "screening":
        say(table(screening(of_file(arguments.file, [CENTRE, REFERENCE]))))
    elif arguments.what == "stopping":
        say(table(stopping(of_file(arguments.file, [REFERENCE]))))
    else:
        recipes = [recipe for recipe in arguments.recipes or [OTHER, FAST] if recipe != arguments.against]
        found = of_file(arguments.file, [arguments.against, *recipes])
        found = {name: of_cells(runs, arguments.models, ALL_SEEDS) for name, runs in found.items()}
        shown = [arguments.against, *recipes]
        say(table(comparison(found, recipes, arguments.against)), "", table(levels(found, shown)))
        if arguments.picture:
            draw(found, shown, SETS, arguments.picture)


if __name__ == "__main__":
    sys.exit(run_command(main))
