"""Whether speed costs accuracy: the fast path against fp32 in NCHW without a plan or a cache, over several seeds.

python benchmarks/accuracy.py [--data "eurosat.py --data-dir DIR"] [--models NAME ...] [--seeds 5]

The fast path is the device's half precision in the measured layout, from the cache. Every cell is the dataset's own
script, from random weights, as a process of its own; what is compared is the test part's top-1.
"""

from __future__ import annotations

import argparse
import shlex
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import common
from engine.cli import Help
from engine.console import say, table
from engine.environment import environment
from engine.files import write_json
from engine.paths import PROJECT
from engine.records.schema import read_record
from engine.training.plan import choose_plan
from reporting.statistics import half_interval

PLAIN = "--precision fp32 --plan off --compile off --no-cache"


def record_of(command: Sequence[str], out: Path) -> Mapping[str, Any]:
    """The record that Python's `command` leaves as the only one in `out`; an earlier one, if it is done."""
    done = subprocess.run(  # noqa: S603 (the user's own command)
        [sys.executable, *command, "--out", str(out)], cwd=PROJECT, capture_output=True, text=True
    )
    if done.returncode:
        sys.exit(f"{shlex.join(command)} failed:\n{done.stderr}")
    (path,) = out.rglob("record.json")
    return read_record(path) or {}


def top1(command: str, out: Path) -> tuple[float, str]:
    """Test top-1 of a run, and the form that it computed in."""
    record = record_of(command.split(), out)
    return record["test"]["top1"], f"{record['plan']['precision']} {record['plan']['layout']}"


def compare(plain: list[float], fast: list[float]) -> dict[str, float]:
    """The mean difference fast - plain over seeds and the ends of its 95 % interval (paired, Student's t)."""
    differences = [b - a for a, b in zip(plain, fast, strict=True)]
    mean, half = statistics.mean(differences), half_interval(differences)
    return {"difference": mean, "low": mean - half, "high": mean + half}


def spread(scores: list[float]) -> str:
    """Mean and standard deviation over seeds, in percent."""
    return f"{statistics.mean(scores):.2%} ± {statistics.stdev(scores):.2%}"


def main() -> None:
    """Run every cell in both forms, print the table and write accuracy.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Help)
    parser.add_argument(
        "--data", nargs="+", default=["digits.py"], metavar="SCRIPT", help="scripts with their flags, each in quotes"
    )
    parser.add_argument(
        "--models",
        nargs="+",
        choices=list(common.BACKBONES),
        default=["resnet", "mobilenet", "shufflenet"],
        metavar="NAME",
        help="default: resnet mobilenet shufflenet",
    )
    parser.add_argument("--seeds", type=int, default=5, help="default: 5; at least 2")
    parser.add_argument("--epochs", type=int, default=4, help="of each stage (default: 4)")
    parser.add_argument("--size", type=int, default=32, help="height and width in pixels (default: 32)")
    parser.add_argument("--out", type=Path, default=Path("build"), metavar="DIR", help="default: build")
    arguments = parser.parse_args()
    if arguments.seeds < 2:
        parser.error("--seeds: two at least, since one tells nothing of the others")
    fast = f"--precision {choose_plan('auto', 'auto').precision}"

    rows = [("data", "backbone", "fp32 NCHW", "fast", "fast - fp32 (95 %)", "form")]
    results: list[dict[str, Any]] = []
    for data in arguments.data:
        for model in arguments.models:
            scores: dict[str, list[float]] = {PLAIN: [], fast: []}
            forms = {}
            for seed in range(arguments.seeds):
                for flags, found in scores.items():
                    line = f"{data} -model {model} -bs 32 --size {arguments.size} --epochs {arguments.epochs}"
                    line += f" --weights none --seed {seed} {flags}"
                    with tempfile.TemporaryDirectory() as folder:
                        score, forms[flags] = top1(line, Path(folder))
                    found.append(score)
            difference = compare(*scores.values())
            interval = f"{difference['difference']:+.2%} ({difference['low']:+.2%} to {difference['high']:+.2%})"
            rows.append((data.split()[0], model, *map(spread, scores.values()), interval, forms[fast]))
            say(" ".join(rows[-1]))
            results.append({"data": data, "model": model, "top1": scores, "form": forms[fast]} | difference)
    say(table(rows))
    arguments.out.mkdir(parents=True, exist_ok=True)
    settings = {"seeds": arguments.seeds, "epochs": arguments.epochs, "size": arguments.size}
    write_json(arguments.out / "accuracy.json", {**settings, "environment": environment(), "results": results})


if __name__ == "__main__":
    main()
