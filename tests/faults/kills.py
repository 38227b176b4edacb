"""Ends without notice, and disks that are full or fail: at every step of every program, and at any time."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path
from random import Random

from tests.faults.hooks import CHANGES, HALF, SHORT, SPACE, Fault
from tests.faults.programs import Undisturbed
from tests.faults.verdict import Verdict
from tests.faults.zygote import Ended, World

# how often each program is taken: those that run longest have the most steps, and are the most often killed
SHARES = {
    "digits": 20,
    "folder": 20,
    "sweep": 6,
    "linear": 6,
    "paper": 6,
    "extraction": 6,
    "split": 10,
    "split hard": 5,
    "split over": 10,
    "report": 10,
    "grid": 1,
    "folds": 10,
    "labels": 10,
    "check": 5,
    "grid of folds": 1,
    "rank": 10,
    "rank again": 5,
    "search": 4,
    "fast": 10,
    "predict": 10,
    "predict over": 10,
    "export": 10,
}
PLAIN = 40  # one in so many cases is a process that shares nothing with others
PAGE = 4096  # bytes
DISK = ("ENOSPC", "ENOSPC", "ENOSPC", "EDQUOT", "EIO", "EROFS", SHORT)


def choose(random: Random, alone: dict[str, Undisturbed]) -> Undisturbed:
    """One of the programs."""
    names = [name for name in SHARES if name in alone]
    return alone[random.choices(names, [SHARES[name] for name in names])[0]]


def kill(case: int, random: Random, alone: dict[str, Undisturbed], folder: Path) -> Verdict:
    """SIGKILL, SIGTERM or SIGINT at a step, amid a write, or at any time; then the same command again."""
    its = choose(random, alone)
    what = random.choices(["SIGKILL", HALF, "SIGTERM", "SIGINT"], [5, 2, 3, 1])[0]
    timed = what != HALF and random.random() < 0.3
    world = World(folder, its.start)
    plain = random.randrange(PLAIN) == 0
    only = frozenset(["write"]) if what == HALF else CHANGES
    steps = [step for step in its.changes if step in only]
    at = random.randint(1, max(1, len(steps)))
    moment = random.uniform(0, its.ended.seconds)
    where = f"after {moment:.2f} s" if timed else f"step {at} of {len(steps)}, {(steps or ['none'])[at - 1]}"
    row = f"killed: {its.program.name}"
    verdict = Verdict("kill", case, row, f"{what} {where}{', a process of its own' if plain else ''}")
    if timed:
        running = world.start(its.program.words, plain=plain)
        running.ends_within(moment)
        running.send({"SIGKILL": 9, "SIGTERM": 15, "SIGINT": 2}[what])
        ended = running.wait()
    else:
        ended = world.run(its.program.words, Fault(what, at, only), plain=plain)
    verdict.judge(ended, (0, 130) if what == "SIGINT" else (0, 130, -9, -15))
    again(verdict, world, its, ended)
    return verdict


def again(verdict: Verdict, world: World, its: Undisturbed, ended: Ended) -> None:
    """The same command, undisturbed, must end as it ends when nothing befell it, and lose no epoch that was saved."""
    for left in world.place.rglob("*.tmp"):  # as if a minute had passed, after which nobody can be at it
        os.utime(left, (0, 0), follow_symlinks=False)
    # a cell that failed is tried again where that is asked for
    rerun = world.run([*its.program.words, *(["--retry-failed"] if its.program.name.startswith("grid") else [])])
    epochs, expected = ended.epochs + rerun.epochs, its.ended.epochs
    # it can come when all is done but the end of the process
    finished = bool(its.program.already) and (ended.code == 0 or its.program.already in rerun.said)
    if finished:  # a new or empty folder is asked for
        verdict.seen.pop() if rerun.code == 2 else None
        verdict.seen.append(f"done, and refused again ({rerun.code})")
    else:
        verdict.judge(rerun, (0,))
    if not finished and rerun.code != 0 and not rerun.hung:
        verdict.add("lost", f"the same command ends with {rerun.code}: {rerun.said[-300:]}")
    elif epochs > expected + its.program.repeated:
        verdict.add("lost", f"{epochs - expected} epochs that were saved were trained again")
    verdict.judge_surroundings(world)
    verdict.judge_end(world, its)


def disk(case: int, random: Random, alone: dict[str, Undisturbed], folder: Path) -> Verdict:
    """A disk that refuses from a step on, or at one step; then, with room again, the same command."""
    its = choose(random, alone)
    what = random.choice(DISK)
    only = frozenset(["write"]) if what == SHORT else SPACE if what in ("ENOSPC", "EDQUOT") else CHANGES
    only -= {"start", "lock"}
    steps = [step for step in its.changes if step in only]
    at = random.randint(1, max(1, len(steps)))
    lasting = what == SHORT or random.random() < 0.7
    world = World(folder, its.start)
    row = f"disk full or failing: {its.program.name}"
    verdict = Verdict(
        "disk",
        case,
        row,
        f"{what}{' from' if lasting else ' at'} step {at} of {len(steps)}, {(steps or ['none'])[at - 1]}",
    )
    ended = world.run(its.program.words, Fault(what, at, only, lasting))
    harmless = what == SHORT
    verdict.judge(ended, (0,) if harmless else (0, 2, 3))
    if ended.code in (2, 3) and what in ("ENOSPC", "EDQUOT") and not explains(ended):
        verdict.add("other", f"does not say that the disk is full: {ended.problems[-300:]}")
    again(verdict, world, its, ended)
    return verdict


def room(case: int, random: Random, alone: dict[str, Undisturbed], folder: Path) -> Verdict:
    """A file system of its own with less room than the program takes; then, with room again, the same command."""
    its = choose(random, alone)
    world = World(folder)
    needed, whole = taken(its.start), taken(its.start.parent / "alone" / "place")
    size = needed + PAGE + int(random.random() * (whole - needed))
    row = f"a full file system: {its.program.name}"
    verdict = Verdict("room", case, row, f"of {size:,} bytes, where {whole:,} are taken at the end")
    if not mount(world.place, f"size={size}"):
        verdict.seen.append("not tried: no right to mount")
        return verdict
    try:
        shutil.copytree(its.start, world.place, symlinks=True, dirs_exist_ok=True)
        ended = world.run(its.program.words)
        verdict.judge(ended, (0, 2, 3))
        if ended.code in (2, 3) and not explains(ended):
            verdict.add("other", f"does not say that the disk is full: {ended.said[-300:]}")
        assert mount(world.place, f"remount,size={1 << 30}")
        again(verdict, world, its, ended)
    finally:
        subprocess.run(["umount", "--lazy", world.place], check=True)
    return verdict


def mount(place: Path, options: str) -> bool:
    """Give it a file system in memory, or change that; whether that is allowed."""
    line = ["mount", "-t", "tmpfs", "-o", options, "faults", str(place)]
    return bool(shutil.which("mount")) and not subprocess.run(line, capture_output=True, check=False).returncode


def taken(folder: Path) -> int:
    """The bytes that a file system of pages needs for what is in a folder."""
    return sum(-(-path.stat().st_size // PAGE) * PAGE for path in folder.rglob("*") if path.is_file())


def explains(ended: Ended) -> bool:
    """Whether it says that there is no room."""
    said = " ".join(ended.said.lower().split())  # of lines that a check wraps; a grid tells of cells on stdout
    return any(
        words in said
        for words in ("no space left", "quota", "disk is full", "disk was full", "make room", "free some space")
    )
