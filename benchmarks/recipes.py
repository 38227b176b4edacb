"""How many images recipes take until they are as good as adamw-sgd, and how good they are: networks with real weights.

REAL=DIR python benchmarks/recipes.py run [--recipes NAME ...] [--models NAME ...] [--seeds 0-2] [--jobs 2]
python benchmarks/recipes.py screening     what each candidate changes, judged by the validation part
python benchmarks/recipes.py comparison    adamw-sgd, cosine and others: images, validation, test

Recipes are those of the project and of benchmarks/candidates.py, which has the images too. Runs are ordinary cells of a
grid in OUT/RECIPE, so that a command that was ended goes on when it is given again, and others can share its work.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.candidates import CANDIDATES, DATASETS
from benchmarks.time_to_accuracy import (
    Interval,
    Runs,
    difference,
    image_ratio,
    of_cells,
    of_data,
    reached,
    read_runs,
)
from engine.cli import Help
from engine.console import say, table
from engine.environment import environment
from engine.files import write_json
from engine.paths import PROJECT

REFERENCE, OTHER, CENTRE = "adamw-sgd", "cosine", "fast"
MODELS = ("tf2", "bird", "tf1", "lite0")
SCREENED_ON, SCREENED_SEEDS = MODELS[:2], range(3)
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


def points(found: Interval) -> str:
    """A difference of accuracies with its interval."""
    return f"{100 * found.value:+.2f} ({100 * found.low:+.2f} to {100 * found.high:+.2f})"


def times(found: Interval) -> str:
    """A ratio with its interval."""
    return f"{found.value:.3f} ({found.low:.3f} to {found.high:.3f})"


def screening(found: dict[str, Runs]) -> list[list[str]]:
    """A row a candidate, by the validation part alone."""
    found = {recipe: of_cells(runs, SCREENED_ON, SCREENED_SEEDS) for recipe, runs in found.items()}
    centre = found[CENTRE]
    rows = [["recipe", "runs", f"val top-1 - {CENTRE}", "val images", "reached"]]
    for recipe, runs in found.items():
        if not runs:
            continue
        row = [recipe, str(len(runs)), points(difference(runs, centre, "val")) if recipe != CENTRE else "-"]
        known = found.get(REFERENCE, {})
        row += [times(image_ratio(runs, known)), f"{reached(runs, known):.0%}"] if known else ["-", "-"]
        rows.append(row)
    return rows


def comparison(found: dict[str, Runs], recipes: Sequence[str]) -> list[list[str]]:
    """A row a recipe and set of images, against adamw-sgd."""
    reference = found[REFERENCE]
    rows = [["recipe", "data", "runs", "all images", "images to val", "reached", "val top-1", "test top-1", "test NLL"]]
    for recipe in recipes:
        for data in ("all", *DATASETS):
            runs, base = (of_data(each, data) if data != "all" else each for each in (found[recipe], reference))
            if not runs or not base:
                continue
            nll = difference(runs, base, "test_nll")
            rows.append(
                [
                    *(recipe, data, str(len(runs.keys() & base.keys()))),
                    *(times(image_ratio(runs, base, whole=True)), times(image_ratio(runs, base))),
                    f"{reached(runs, base):.0%}",
                    *(points(difference(runs, base, of)) for of in ("val", "test")),
                    f"{nll.value:+.3f} ({nll.low:+.3f} to {nll.high:+.3f})",
                ]
            )
    return rows


def main() -> None:
    """Do what the command line says."""
    if sys.argv[1:2] == ["grid"]:
        run_grid(sys.argv[2:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Help)
    parser.add_argument("what", choices=["run", "screening", "comparison"])
    recipes = [REFERENCE, OTHER, *CANDIDATES]
    parser.add_argument(
        "--recipes",
        nargs="+",
        choices=recipes,
        metavar="NAME",
        help=f"default: all; of a comparison: {OTHER} and {CENTRE}",
    )
    parser.add_argument("--models", nargs="+", default=MODELS, metavar="NAME", help=f"default: {' '.join(MODELS)}")
    parser.add_argument("--data", nargs="+", choices=list(DATASETS), default=list(DATASETS), metavar="NAME")
    parser.add_argument("--seeds", nargs="+", default=["0-2"], metavar="N", help="default: 0-2")
    parser.add_argument("--jobs", type=int, default=1, help="grids at once (default: 1)")
    parser.add_argument("--out", type=Path, default=Path("build/recipes"), metavar="DIR", help="default: build/recipes")
    arguments = parser.parse_args()
    arguments.out = arguments.out.absolute()
    if arguments.what == "run":
        os.environ.setdefault("OMP_NUM_THREADS", "1")
        arguments.recipes = arguments.recipes or recipes
        run_all(arguments)
        return
    found: dict[str, Runs] = dict(read_runs(arguments.out))
    if arguments.what == "screening":
        rows = screening(found)
    else:
        rows = comparison(found, arguments.recipes or [OTHER, CENTRE])
    say(table([tuple(row) for row in rows]))
    made: dict[str, Any] = {"environment": environment(), "rows": rows}
    write_json(arguments.out / f"{arguments.what}.json", made)


if __name__ == "__main__":
    main()
