"""python -m tests.faults: see this package's docstring, and --help."""

from __future__ import annotations

import argparse
import os

os.environ["OMP_NUM_THREADS"] = "1"  # another number of threads, other sums; and two cases at a time

import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any

from engine.doc_tables import put_table
from engine.paths import PROJECT
from tests.faults import chaos, damage, fuzz, inputs, kills, surroundings, zygote
from tests.faults.programs import PROGRAMS, Program, Undisturbed, undisturbed
from tests.faults.verdict import Verdict, found, table

Case = Callable[[int, Random, dict[str, Undisturbed], Path], Verdict]
# kind -> a case of it, and how many there are of it in a full run and in a short one
KINDS: dict[str, tuple[Case, int, int]] = {
    "kill": (kills.kill, 1000, 9),
    "disk": (kills.disk, 150, 6),
    "room": (kills.room, 60, 3),
    "damage": (damage.damage, 400, 9),
    "around": (surroundings.surroundings, 80, 6),
    "line": (inputs.line_case, 150, 6),
    "folders": (inputs.folders_case, 50, 4),
    "dataset": (inputs.dataset_case, 100, 6),
    "image": (inputs.image_case, 72, 6),
    "archive": (inputs.archive_case, 48, 6),
    "fuzz": (fuzz.fuzz, len(fuzz.READERS) + len(fuzz.others()), len(fuzz.READERS)),
    "chaos": (chaos.chaos, len(chaos.COMMANDS), 0),
}
# the programs that each kind disturbs
OF_KIND: dict[str, dict[str, Program]] = {
    "kill": PROGRAMS,
    "disk": PROGRAMS,
    "room": PROGRAMS,
    "damage": {scene.program.name: scene.program for scene in damage.SCENES.values()},
    "around": surroundings.NEEDED,
    "fuzz": fuzz.NEEDED,
}
PAGE = PROJECT / "docs" / "reliability.md"


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """What the command line says."""
    parser = argparse.ArgumentParser("python -m tests.faults", description="Faults on purpose, and what comes of them.")
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"default: all of {', '.join(KINDS)}")
    parser.add_argument("--seed", type=int, default=0, help="of what befalls each case (default: 0)")
    parser.add_argument("--case", type=int, help="this one alone, with all that it said")
    parser.add_argument("--cases", type=int, help="so many of each kind")
    parser.add_argument("--short", action="store_true", help="a few of each kind, as `make test` has them")
    parser.add_argument("--minutes", type=float, default=20.0, help="no case begins after so many (default: 20)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="cases at a time")
    parser.add_argument("--fuzz-seconds", type=float, default=60.0, help="for each reader (default: 60)")
    parser.add_argument("--chaos-points", type=int, default=30, help="of ckpt-chaos, for each command (default: 30)")
    parser.add_argument("--keep", type=Path, help="keep the folders of the cases here")
    parser.add_argument("--write-docs", action="store_true", help="put the table into docs/reliability.md")
    chosen = parser.parse_args(arguments)
    chosen.kinds = chosen.kinds or [*KINDS]
    if unknown := set(chosen.kinds) - KINDS.keys():
        parser.error(f"{', '.join(unknown)}: expected some of {', '.join(KINDS)}")
    return chosen


def cases(chosen: argparse.Namespace) -> list[tuple[str, int]]:
    """Kind and number of each case, the kinds in turn, so that a run that is cut short has some of all."""
    listed = []
    for kind in chosen.kinds:
        _, many, few = KINDS[kind]
        count = few if chosen.short else chosen.cases or many
        numbers = [chosen.case] if chosen.case is not None else range(count)
        listed += [(index / max(1, len(numbers)), kind, number) for index, number in enumerate(numbers)]
    return [(kind, number) for _, kind, number in sorted(listed, key=lambda each: each[0])]


def run_case(kind: str, number: int, seed: int, alone: dict[str, Undisturbed], folder: Path) -> Verdict:
    """What comes of a case; a fault of these tests themselves is one, too."""
    try:
        return KINDS[kind][0](number, Random(f"{kind} {seed} {number}"), alone, folder)
    except Exception as problem:
        verdict = Verdict(kind, number, f"{kind}: the test itself", "")
        verdict.add("other", f"{type(problem).__name__}: {problem}")
        return verdict


def run_all(chosen: argparse.Namespace, folder: Path) -> list[Verdict]:
    """Every case, `jobs` at a time, each in a folder of its own that is removed if nothing went wrong."""
    end = time.monotonic() + chosen.minutes * 60
    shutil.rmtree(folder / "alone", ignore_errors=True)
    programs = [*{name: program for kind in chosen.kinds for name, program in OF_KIND.get(kind, {}).items()}.values()]
    alone = each_of(programs, chosen.jobs, lambda its: undisturbed(its, folder / "alone" / its.name))
    by_name = {its.name: Undisturbed(its, *rest) for its, rest in zip(programs, alone, strict=True)}

    def judged(case: tuple[str, int]) -> Verdict | None:
        if time.monotonic() > end:
            return None
        place = folder / f"{case[0]}-{case[1]}"
        verdict = run_case(*case, chosen.seed, by_name, place)
        if not verdict.problems and chosen.case is None:
            shutil.rmtree(place, ignore_errors=True)
        return verdict

    return [verdict for verdict in each_of(cases(chosen), chosen.jobs, judged) if verdict]


def each_of(items: Sequence[Any], jobs: int, action: Callable[[Any], Any]) -> list[Any]:
    """What `action` makes of each item, in `jobs` processes, which are forked and need not be told the action."""
    global _action

    def act(index: int) -> Any:
        return action(items[index])

    _action = act
    with ProcessPoolExecutor(jobs, get_context("fork")) as pool:  # it says so if one of them dies
        return [*pool.map(_act, range(len(items)))]


_action: Callable[[int], Any]


def _act(index: int) -> Any:
    return _action(index)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run them, print the table, and return 1 where something went wrong."""
    chosen = options(arguments)
    began = time.monotonic()
    fuzz.seconds = 1.0 if chosen.short else chosen.fuzz_seconds
    chaos.points = chosen.chaos_points
    zygote.patience = 30.0 if chosen.short else zygote.patience
    zygote.preload()
    folder = chosen.keep or Path(tempfile.mkdtemp(prefix="faults-"))
    folder.mkdir(parents=True, exist_ok=True)
    try:
        verdicts = run_all(chosen, folder.resolve())
        if chosen.case is not None:
            for path in sorted(folder.glob("*/said/*.*")):
                print(f"--- {path}\n{path.read_text(errors='replace')}")
    finally:
        if not chosen.keep:
            shutil.rmtree(folder, ignore_errors=True)
    rows, problems = table(sorted(verdicts, key=lambda each: each.row)), found(verdicts, chosen.seed)
    print(rows, problems or "nothing went wrong", f"{time.monotonic() - began:.0f} s", sep="\n\n")
    if chosen.write_docs:
        form = "Of the short form" if chosen.short else f"In {(time.monotonic() - began) / 60:.0f} minutes"
        rows += f"\n\n{form}: {sum(each.times for each in verdicts):,} cases, seed {chosen.seed}."
        text = put_table(PAGE.read_text("utf-8"), "faults", rows)
        PAGE.write_text(put_table(text, "found", problems or "Nothing."), "utf-8")
    return int(any(verdict.problems for verdict in verdicts))


if __name__ == "__main__":
    sys.exit(main())
