"""Training speed on a machine that is not ours alone: ours against the plain way while two other processes train.

python benchmarks/busy.py [--quiet] [--models NAME ...] [--batch-size 32] [--size 256] [--out DIR]

The neighbours are benchmarks/neighbour.py, at a lower priority, on the processor. plain and ours are those of
benchmarks/speed.py and take turns; the plan is measured among the neighbours, and the table says whether what it found
would be remembered for later runs. --quiet measures the same without neighbours. busy.json is written after each
backbone.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.columns import measure
from benchmarks.setting import Setting, add_flags, prepared
from benchmarks.speed import QUICK, about, describe
from benchmarks.tables import geometric_mean, speed_table
from engine.cli import Help, run_command
from engine.console import say
from engine.environment import environment
from engine.errors import RunError
from engine.files import write_json

COLUMNS = ("plain", "ours")
NEIGHBOURS = 2
NEIGHBOUR = Path(__file__).with_name("neighbour.py")
END_SECONDS = 10.0  # that a neighbour is given to end


@contextmanager
def neighbours(count: int) -> Iterator[Callable[[], None]]:
    """So many processes that train, until the end of the block in every case.

    What is given is to be called when something was measured: it raises RunError where one of them did not last.
    """
    with ExitStack() as stack:
        processes = []
        for _ in range(count):
            command = [sys.executable, str(NEIGHBOUR), str(os.getpid())]
            # in a session of its own: Ctrl-C is for this process alone, which ends the others
            process = subprocess.Popen(  # noqa: S603 (this project's own)
                command, stdout=subprocess.PIPE, text=True, start_new_session=True
            )
            stack.callback(_end, process)
            processes.append(process)
        for process in processes:
            assert process.stdout is not None
            if process.stdout.readline() != "busy\n":
                raise RunError(f"a neighbour did not begin: exit code {process.wait()}")

        def check() -> None:
            if any(process.poll() is not None for process in processes):
                raise RunError("a neighbour ended before its time: what was measured meanwhile is worth nothing")

        yield check


def _end(process: subprocess.Popen[str]) -> None:
    """End a process of ours, and wait until it is gone."""
    process.terminate()
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    assert process.stdout is not None
    process.stdout.close()


def remembered(results: dict[str, dict[str, Any]]) -> str:
    """Of which backbones the plan's finding was left for later runs."""
    plans = {name: result["plan_remembered"] for name, result in results.items() if "plan_remembered" in result}
    said = ", ".join(f"{name} {'remembered' if kept else 'not remembered'}" for name, kept in plans.items())
    return f"the plan's finding: {said or 'none'}"


def run(setting: Setting, models: list[str], check: Callable[[], None], path: Path, more: dict[str, Any]) -> None:
    """Measure the backbones, write `path` after each, and print the table."""
    results: dict[str, dict[str, Any]] = {}
    try:
        for name in models:
            found = measure(name, setting)
            check()
            results[name] = describe(name, found, setting)
            say(*about(name, results[name]))
            content = {**setting.describe(), **more, "environment": environment()}
            write_json(path, {**content, "geometric_mean": geometric_mean(results, "gain"), "results": results})
    finally:  # so far as an interruption let it come
        say(speed_table(results, setting.columns), remembered(results))
    say(f"written to {path}")


def main() -> None:
    """Measure every backbone beside the neighbours, print the table and write busy.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Help)
    parser.add_argument("--quiet", action="store_true", help="without neighbours")
    add_flags(parser, QUICK, " ".join(QUICK))
    arguments = parser.parse_args()
    count = 0 if arguments.quiet else NEIGHBOURS
    with prepared(arguments, COLUMNS) as setting, neighbours(count) as check:
        say(f"neighbours: {count}")
        run(setting, arguments.models, check, arguments.out / "busy.json", {"neighbours": count})


if __name__ == "__main__":
    sys.exit(run_command(main))
