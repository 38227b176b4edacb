"""What rank.py's order and its search are worth: real networks, real images, real fine-tuning.

REAL=DIR python benchmarks/rank.py truth     every network on every set of images, fine-tuned in full by grid.py
REAL=DIR python benchmarks/rank.py scores    the order and every score against that, by set of images
REAL=DIR python benchmarks/rank.py search    the search on four sets, five seeds each, against the same

Networks and images are those of benchmarks/real_networks.py. Runs are ordinary cells of a grid, so that a command that
was ended goes on when it is given again.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engine.cli import Help
from engine.console import say, table
from engine.environment import environment
from engine.files import write_json
from engine.paths import PROJECT
from grids.ledger import all_records
from ranking.candidates import RECIPE
from reporting import rank_results
from reporting.agreement import FIRSTS, ORDER, PRIOR, Assessment, Interval, Measure, assess
from reporting.agreement_words import LABELS
from reporting.rank_results import SCORES
from reporting.truth import verified_in

NETWORKS = ("tf2", "tf1", "bird", "insect", "lite0", "lite1", "lite2")
SEARCHED = ("eurosat", "tinyimagenet", "tomato", "dtd10")  # sets of images that the search is tried on
SETS = (*SEARCHED, "cub4", "cars", "ucmerced3", "cifar10", "food10", "cifar100")
SEEDS, SEEDS_OF_SEARCH = range(3), range(5)
EPOCHS = 10  # of a run in full
# without a measurement of the plan, which takes longer than the smallest of these runs
FLAGS = ("--epochs", str(EPOCHS), "-bs", "16", "--augment", "none", "--plan", "off", "--precision", "fp32")
SCRIPT = PROJECT / "benchmarks" / "real_networks.py"
WITHIN = 0.01  # of the best, on the validation part: as good


def python(script: str, *words: str) -> str:
    """What one of the project's scripts prints on stdout; it ends this process where it fails."""
    command = [sys.executable, str(PROJECT / script), *words]
    done = subprocess.run(command, stdout=subprocess.PIPE, text=True)  # noqa: S603 (the project's own scripts)
    if done.returncode:
        sys.exit(f"{' '.join(command)} ended with {done.returncode}")
    return done.stdout


def rank(name: str, out: Path, cache: Path, *more: str) -> dict[str, Any]:
    """What rank.py says of one set of images."""
    places = ("--out", str(out), "--cache-dir", str(cache))
    answer: dict[str, Any] = json.loads(
        python("rank.py", f"{SCRIPT}:{name}", "--models", *NETWORKS, *FLAGS, *places, "--json", *more)
    )
    return answer


def run_truth(out: Path, cache: Path) -> None:
    """Fine-tune everything in full."""
    words = ("--models", *NETWORKS, "--recipe", RECIPE, *FLAGS, "--out", str(out), "--cache-dir", str(cache))
    for sets, seeds in ((SETS, SEEDS), (SEARCHED, SEEDS_OF_SEARCH)):
        named = [f"{SCRIPT}:{name}" for name in sets]
        python("grid.py", "--datasets", *named, "--seeds", *map(str, seeds), *words)


def assessed(truth: Path, cache: Path, sets: Sequence[str]) -> dict[str, Assessment]:
    """What the records in `truth` say of rank.py's order on each set that has any.

    The order is that of somebody who has no records: those of other sets have no part in it.
    """
    found, records = {}, verified_in(truth)
    for name in sets:
        entries = [entry for entry in records if entry.version.key == f"real_{name}"]
        if not entries:
            say(f"{name}: not fine-tuned yet")
            continue
        answer = rank(name, truth / "nothing", cache)
        found[name] = assess(rank_results.read(Path(answer["file"])), entries)
        say(f"{name}: {' '.join(found[name].result.order)}")
    return found


def words(interval: Interval | None) -> str:
    """A number with its interval."""
    return "-" if interval is None else f"{interval.value:.2f} ({interval.low:.2f} to {interval.high:.2f})"


def scores(truth: Path, cache: Path) -> dict[str, Any]:
    """Print how the order, the prior and each score agreed with fine-tuning, and return it."""
    found = assessed(truth, cache, SETS)
    kinds = (ORDER, PRIOR, *SCORES)
    for what, of in (
        ("weighted tau", lambda measure: measure.tau),
        *((f"points lost by the best of the first {k}", lambda measure, k=k: measure.regret.get(k)) for k in FIRSTS),
    ):
        rows = [(what, *(LABELS[kind] for kind in kinds))]
        for name, assessment in found.items():
            rows.append((name, *(words(of(measure_of(assessment, kind))) for kind in kinds)))
        means = []
        for kind in kinds:
            values = [of(measure_of(each, kind)) for each in found.values()]
            known = [value.value for value in values if value is not None]
            means.append(f"{statistics.mean(known):.2f}" if known else "-")
        rows.append(("mean", *means))
        say("", table(rows))
    say("", *(table(values_of(name, each)) for name, each in found.items()))
    return {name: content(each) for name, each in found.items()}


def measure_of(assessment: Assessment, kind: str) -> Measure:
    """How one score agreed; of one that is known of too few, nothing."""
    return assessment.measures.get(kind) or Measure(0, None, {})


def values_of(name: str, assessment: Assessment) -> list[tuple[str, ...]]:
    """Every network's scores on one set beside its accuracy."""
    rows = [(name, "test top-1, %", "ImageNet", *(LABELS[kind] for kind in SCORES))]
    by_name = {each.name: each for each in assessment.result.backbones}
    for network, measured in sorted(assessment.measured.items(), key=lambda item: -item[1].value):
        each = by_name[network]
        values = [each.top1, *(each.scores[kind] for kind in SCORES)]
        accuracy = f"{measured.value:.1f} ({measured.low:.1f} to {measured.high:.1f})"
        rows.append((network, accuracy, *("-" if value is None else f"{value:.3f}" for value in values)))
    return rows


def content(assessment: Assessment) -> dict[str, Any]:
    """For the file of the results."""
    return {
        "order": list(assessment.result.order),
        "measured": {name: vars(each) for name, each in assessment.measured.items()},
        "measures": {
            kind: {"tau": each.tau and vars(each.tau), "regret": {k: vars(r) for k, r in each.regret.items()}}
            for kind, each in assessment.measures.items()
        },
    }


def full_grid(truth: Path) -> dict[tuple[str, int], dict[str, float]]:
    """The validation accuracy of every network trained in full, by set and seed."""
    found: dict[tuple[str, int], dict[str, float]] = {}
    for record in all_records(truth):
        if record["status"] == "done" and record["config"]["epochs"] == EPOCHS and not record.get("search"):
            key = (record["dataset"]["key"].removeprefix("real_"), record["seed"])
            found.setdefault(key, {})[record["backbone"]["name"]] = record["selection"]["top1"]
    return found


def search(truth: Path, cache: Path, out: Path) -> dict[str, Any]:
    """Search on each set and seed, print what was lost against the full grid for how many images, and return it."""
    rows = [("set", "seed", "taken", "lost", "images", "of all", "told apart", "first of the order lost", "why")]
    grid, results = full_grid(truth), []
    for name in SEARCHED:
        for seed in SEEDS_OF_SEARCH:
            answer = rank(name, out, cache, "--fine-tune", "--seed", str(seed))
            found, full = answer["search"], grid.get((name, seed), {})
            if len(full) < len(NETWORKS):
                say(f"{name}, seed {seed}: the full grid is not there")
                continue
            best = max(full.values())
            lost = {one: best - full[one] for one in NETWORKS}
            share = found["images"] / found["full_grid_images"]
            taken, first = found["recommendation"], answer["order"][0]
            rows.append(
                (
                    *(name, str(seed), taken, f"{100 * lost[taken]:.1f}", f"{found['images']:,}", f"{share:.0%}"),
                    *(str(found["told_apart"]), f"{100 * lost[first]:.1f}", found["why"]),
                )
            )
            say(" ".join(rows[-1]))
            results.append({"set": name, "seed": seed, "lost": lost, "first": first, "share": share, "search": found})
    say("", table(rows))
    good = [each["lost"][each["search"]["recommendation"]] <= WITHIN + 1e-9 for each in results]
    say(f"within {100 * WITHIN:g} point of the best: {sum(good)} of {len(good)}")
    return {"searches": results}


def main() -> None:
    """Do what the command line says."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Help)
    parser.add_argument("what", choices=["truth", "scores", "search"])
    parser.add_argument("--out", type=Path, default=Path("build/rank"), metavar="DIR", help="default: build/rank")
    arguments = parser.parse_args()
    if not (Path(os.environ.get("REAL", "shared")) / "weights").is_dir():
        parser.error("REAL names no folder with data/, data_more/ and weights/")
    out = arguments.out.absolute()
    truth, cache = out / "truth", out / "cache"
    if arguments.what == "truth":
        return run_truth(truth, cache)
    results = scores(truth, cache) if arguments.what == "scores" else search(truth, cache, out / "search")
    write_json(out / f"{arguments.what}.json", {"environment": environment(), "results": results})
    return None


if __name__ == "__main__":
    main()
