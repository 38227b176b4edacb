"""What happens around a run: others in its folders, a clock that jumps, a stop, a folder that goes, locks that fail."""

from __future__ import annotations

import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

from tests.faults.hooks import Fault
from tests.faults.kills import again
from tests.faults.programs import PROGRAMS, Undisturbed, records
from tests.faults.verdict import Verdict
from tests.faults.zygote import World

Scene = Callable[[Verdict, Random, dict[str, Undisturbed], World], object]


def same_run(verdict: Verdict, random: Random, alone: dict[str, Undisturbed], world: World) -> None:
    """Two to four processes of one run: one does it, the others refuse or show it."""
    its = alone["digits"]
    running = [world.start(its.program.words) for _ in range(random.randint(2, 4))]
    ended = [each.wait() for each in running]
    for each in ended:
        verdict.judge(each, (0, 2))
    if all(each.code for each in ended):
        verdict.add("lost", "none of them finished")
    again(verdict, world, its, ended[0])


def one_cache(verdict: Verdict, random: Random, alone: dict[str, Undisturbed], world: World) -> None:
    """Two to four runs that decode the same images, one of which is killed."""
    its = alone["folder"]
    shutil.copytree(its.start / "pets", world.place / "pets")
    count = random.randint(2, 4)
    killed = world.start([*its.program.words, "--seed", "9"], Fault("SIGKILL", random.randint(3, 30)))
    running = [world.start([*its.program.words, "--seed", str(seed)]) for seed in range(count)]
    killed.wait()
    for each in running:
        verdict.judge(each.wait(), (0,))
    found = [value for name, value in records_of_done(world.place).items() if ", 0, " in name]
    if found != [*its.numbers.values()]:
        verdict.add("wrong", "other numbers than alone")


def records_of_done(place: Path) -> dict[str, Any]:
    """Without runs that were killed."""
    for path in place.glob("runs/*/*/*-seed9-*"):
        shutil.rmtree(path)
    return records(place)


def one_grid(verdict: Verdict, random: Random, alone: dict[str, Undisturbed], world: World) -> None:
    """Two grids share the work, and one of them is killed."""
    its = alone["grid"]
    running = [world.start(its.program.words) for _ in range(2)]
    running[0].ends_within(random.uniform(0.5, its.ended.seconds))
    running[0].send(signal.SIGKILL)
    ended = [each.wait() for each in running]
    verdict.judge(ended[1], (0,))
    again(verdict, world, its, ended[1])


def stopped(verdict: Verdict, random: Random, alone: dict[str, Undisturbed], world: World) -> None:
    """A run that is stopped, longer than another is patient, and goes on."""
    its = alone["digits"]
    one = world.start(its.program.words, Fault("SIGSTOP", random.randint(4, len(its.changes) - 4)))
    time.sleep(min(3.0, its.ended.seconds + 1.0))
    other = world.run(its.program.words)
    verdict.judge(other, (0, 2))  # 0: it was stopped with all of its work done
    one.send(signal.SIGCONT)
    ended = one.wait()
    verdict.judge(ended, (0, 2))  # 2: before it began, and the other has finished meanwhile
    again(verdict, world, its, ended)


def clock(verdict: Verdict, random: Random, alone: dict[str, Undisturbed], world: World) -> None:
    """The clock is set back, or forward, and then a run goes on."""
    its = alone[random.choice(["digits", "paper", "sweep"])]
    jump = random.choice([-1, 1]) * random.choice([3600, 86400 * 400, 86400 * 365 * 30])
    now = time.time

    def change() -> None:
        mock.patch("time.time", side_effect=lambda: now() + jump).start()

    first = world.run(its.program.words, Fault("SIGKILL", random.randint(1, len(its.changes))), changes=[change])
    verdict.title += f" by {jump} s"
    verdict.judge(first)
    again(verdict, world, its, first)


def moved(verdict: Verdict, random: Random, alone: dict[str, Undisturbed], world: World) -> None:
    """Records are moved or copied elsewhere, to another machine, and the run goes on there."""
    its = alone["digits"]
    first = world.run(its.program.words, Fault("SIGKILL", random.randint(len(its.changes) // 2, len(its.changes))))
    elsewhere = world.root / "elsewhere"
    if random.random() < 0.5:
        shutil.move(world.place, elsewhere)
    else:
        shutil.copytree(world.place, elsewhere)
        shutil.rmtree(world.place)
    elsewhere.rename(world.place)
    verdict.judge(first)
    again(verdict, world, its, first)


def vanishing(verdict: Verdict, random: Random, alone: dict[str, Undisturbed], world: World) -> None:
    """A folder goes while a run is at work: that of its record, of its cache, of its images, or all."""
    its = alone["folder"]
    shutil.copytree(its.start, world.place, dirs_exist_ok=True)
    name = random.choice(["runs", "data", "pets"])
    running = world.start(its.program.words, Fault("SIGSTOP", random.randint(1, len(its.changes))))
    _until_stopped(running.pid)
    shutil.rmtree(world.place / name, ignore_errors=True)
    running.send(signal.SIGCONT)
    ended = running.wait()
    verdict.title += f": {name}"
    verdict.judge(ended, (0, 2, 3))
    if name == "pets":
        shutil.copytree(its.start / "pets", world.place / "pets", dirs_exist_ok=True)
    rerun = world.run(its.program.words)
    verdict.judge(rerun, (0,))
    verdict.judge_end(world, its)


def _until_stopped(pid: int) -> None:
    for _ in range(500):
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
        if fields[0] in ("T", "t", "Z"):
            return
        time.sleep(0.02)


def network(verdict: Verdict, random: Random, alone: dict[str, Undisturbed], world: World) -> None:
    """A network file system: no locks, handles that have become stale, reads that fail, renames that do."""
    its = alone[random.choice(["digits", "folder", "split", "report", "grid"])]
    shutil.copytree(its.start, world.place, dirs_exist_ok=True, symlinks=True)
    what, step = random.choice(NETWORK)
    count = sum(name == step for name, _ in its.ended.steps)
    at = random.randint(1, max(1, count))
    lasting = random.random() < 0.5
    verdict.title = f"{what} at {step} {at} of {count}{' and on' if lasting else ''}: {its.program.name}"
    ended = world.run(its.program.words, Fault(what, at, frozenset([step]), lasting))
    verdict.judge(ended, (0, 2, 3))
    again(verdict, world, its, ended)


NETWORK = (
    *(("ENOLCK", "lock"), ("EIO", "lock"), ("ENOSYS", "lock"), ("ESTALE", "read"), ("EIO", "read")),
    *(("ESTALE", "rename"), ("EIO", "rename"), ("EIO", "sync"), ("ESTALE", "write"), ("EACCES", "open")),
)
SCENES: dict[str, Scene] = {
    "processes of one run": same_run,
    "runs of one cache": one_cache,
    "grids of one folder": one_grid,
    "a stop": stopped,
    "a clock that is set": clock,
    "a folder that is moved": moved,
    "a folder that goes": vanishing,
    "a network file system": network,
}
TURNS = (*SCENES, *["a network file system"] * 4, "a folder that goes", "a clock that is set")
NEEDED = {name: PROGRAMS[name] for name in ("digits", "folder", "paper", "sweep", "split", "report", "grid")}


def surroundings(case: int, random: Random, alone: dict[str, Undisturbed], folder: Path) -> Verdict:
    """One of these."""
    name = TURNS[case % len(TURNS)]
    verdict = Verdict("around", case, name, name)
    world = World(folder)
    SCENES[name](verdict, random, alone, world)
    verdict.judge_surroundings(world)
    return verdict
