"""Files that are damaged behind the program's back: what is used all the same, what is refused, and in which words."""

from __future__ import annotations

import csv
import json
import os
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from random import Random
from typing import Any

import torch

from tests import toy
from tests.faults.hooks import Fault
from tests.faults.programs import (
    COMMON,
    DIGITS,
    FOLDER,
    FOLDS,
    PROGRAMS,
    SEARCH,
    SPLIT,
    Program,
    Undisturbed,
    pets,
    ranks,
    records,
    report,
)
from tests.faults.verdict import Verdict
from tests.faults.zygote import Ended, World

REMEDIES = ("--rerun", "remove", "again", "--overwrite", "choose", "get ", "make ", "--cache-dir", "--weights")
PAGE = 512  # bytes, of what a disk loses at once


def flip(path: Path, random: Random, _: Path | None) -> None:
    """One bit."""
    body = bytearray(path.read_bytes())
    body[random.randrange(len(body))] ^= 1 << random.randrange(8)
    path.write_bytes(body)


def cut(path: Path, random: Random, _: Path | None) -> None:
    """The end is missing."""
    os.truncate(path, path.stat().st_size * random.choice([1, 2, 3]) // 4)


def empty(path: Path, _: Random, __: Path | None) -> None:
    """Nothing is left of it."""
    path.write_bytes(b"")


def zero(path: Path, random: Random, _: Path | None) -> None:
    """A page of zeros."""
    body = bytearray(path.read_bytes())
    start = random.randrange(max(1, len(body) - PAGE))
    body[start : start + PAGE] = bytes(len(body[start : start + PAGE]))
    path.write_bytes(body)


def swap(path: Path, random: Random, _: Path | None) -> None:
    """Two lines of a text, or two pages, in each other's place."""
    body = path.read_bytes()
    if path.suffix in (".csv", ".json"):
        pieces = body.splitlines(keepends=True)
    else:
        pieces = [body[start : start + PAGE] for start in range(0, len(body), PAGE)]
    if len(pieces) > 2:
        one, other = random.sample(range(len(pieces) - 1), 2)
        pieces[one], pieces[other] = pieces[other], pieces[one]
    path.write_bytes(b"".join(pieces))


def other_run(path: Path, _: Random, other: Path | None) -> None:
    """Another run's, of the same kind."""
    if other and other.exists():
        shutil.copyfile(other, path)
    else:
        path.write_bytes(b"of another kind altogether")


def fifo(path: Path, _: Random, __: Path | None) -> None:
    """A pipe, which nobody writes to."""
    path.unlink()
    os.mkfifo(path)


def folder(path: Path, _: Random, __: Path | None) -> None:
    """A folder."""
    path.unlink()
    path.mkdir()


def dangling(path: Path, _: Random, __: Path | None) -> None:
    """A link to nowhere."""
    path.unlink()
    path.symlink_to("nowhere")


def loop(path: Path, _: Random, __: Path | None) -> None:
    """A link to itself."""
    path.unlink()
    path.symlink_to(path.name)


def gone(path: Path, _: Random, __: Path | None) -> None:
    """Removed."""
    path.unlink()


def deep(path: Path, _: Random, __: Path | None) -> None:
    """JSON of 100,000 brackets."""
    path.write_bytes(b"[" * 100_000 + b"]" * 100_000)


def huge(path: Path, _: Random, __: Path | None) -> None:
    """2 GiB of zeros that take no room."""
    os.truncate(path, 2 << 30)


def leaf(path: Path, random: Random, _: Path | None) -> None:
    """One value of a JSON file is null, another kind, or another number."""
    if path.suffix != ".json":
        return flip(path, random, None)
    content = json.loads(path.read_bytes())
    places = [*leaves(content)]
    if not places:
        return empty(path, random, None)
    holder, key = random.choice(places)
    value = holder[key]
    others: list[Any] = [None, [], {}, "x\x1b[31m", -1, 1e308, True]
    if isinstance(value, int | float):
        others += [value + 1, value * 1.01] * 4
    holder[key] = random.choice(others)
    path.write_text(json.dumps(content))
    return None


def leaves(content: Any) -> Iterator[tuple[Any, Any]]:
    """Every place in a JSON value: what holds it, and where."""
    items = content.items() if isinstance(content, dict) else enumerate(content) if isinstance(content, list) else ()
    for key, value in [*items]:
        yield content, key
        yield from leaves(value)


Damage = Callable[[Path, Random, Path | None], None]
KINDS: tuple[Damage, ...] = (flip, flip, flip, cut, empty, zero, swap, other_run, other_run, leaf, leaf, leaf)
ODD: tuple[Damage, ...] = (fifo, folder, dangling, loop, gone, deep, huge)


@dataclass(frozen=True)
class Scene:
    """Files, and what reads them. program: what is run once they are damaged, undisturbed else.

    begin: what makes the files in a world that begins as the program does. files: globs below the place, or the home.
    """

    name: str
    program: Program
    files: tuple[str, ...]
    begin: Callable[[World, Undisturbed], object] = lambda world, its: None


def interrupted(world: World, its: Undisturbed) -> None:
    """A run that was killed after its second epoch was saved."""
    steps = [row for row in its.ended.steps if row[0] != "read"]
    saves = [at for at, (step, path) in enumerate(steps, 1) if step == "rename" and "/.checkpoint.pt." in path]
    ended = world.run(its.program.words, Fault("SIGKILL", saves[1] + 1))
    assert ended.code == -9, ended.said


def but_checksums(place: Path) -> dict[str, Any]:
    """What records() gives, without the archive's checksum: bytes of an archive can change that change no image."""
    return {name: {**numbers, "checksums": None} for name, numbers in records(place).items()}


def run(*lines: str) -> Callable[[World, Undisturbed], None]:
    """Commands that make the files."""

    def begin(world: World, _: Undisturbed) -> None:
        for line in lines:
            ended = world.run(line.split())
            assert ended.code == 0, ended.said

    return begin


def tiny_weights(place: Path) -> None:
    """A file of weights."""
    torch.manual_seed(0)
    torch.save(toy.tiny().state_dict(), place / "given.pt")


def given(place: Path) -> None:
    """The weights of the run that lies there."""
    (checkpoint,) = place.glob(f"{RUN}checkpoint.pt")
    checkpoint.rename(place / "given.pt")
    shutil.rmtree(place / "runs")


RUN = "runs/*/tiny/honest-seed0-*/"
FOLD = "runs/*/tiny/honest-seed0-fold1of2-*/"
NAMES = ("record.json", "checkpoint.pt", "history.csv", "split.json", "predictions.npz", "errors.npz")
TWO = (DIGITS, f"{DIGITS} --seed 1")
LINEAR = f"{DIGITS} --seed 2 --tune linear"
GIVEN = "--weights given.pt"
SCENES = {
    scene.name: scene
    for scene in (
        Scene(
            "interrupted run",
            PROGRAMS["digits"],
            tuple(f"{RUN}{name}" for name in (*NAMES[:4], "checkpoint.pt", "checkpoint.pt")),
            interrupted,
        ),
        Scene("finished run", Program("finished", DIGITS, before=TWO), tuple(f"{RUN}{name}" for name in NAMES)),
        Scene(
            "interrupted fold",
            PROGRAMS["folds"],
            tuple(f"{FOLD}{name}" for name in (*NAMES[:4], "checkpoint.pt", "checkpoint.pt")),
            interrupted,
        ),
        Scene(
            "finished fold",
            Program("finished folds", FOLDS, pets, before=(FOLDS, f"{FOLDS} --seed 1")),
            tuple(f"{FOLD}{name}" for name in NAMES),
        ),
        Scene(
            "report",
            Program("report of three", "report.py", before=(*TWO, LINEAR), numbers=report),
            tuple(f"{RUN}{name}" for name in (*NAMES, "predictions.npz", "errors.npz")),
        ),
        Scene(
            "weights of a run",
            Program("weights of a run", f"{FOLDER} {GIVEN}", pets, (DIGITS,), settle=given),
            ("given.pt",),
        ),
        Scene("weights", Program("weights", f"{DIGITS} {GIVEN}", tiny_weights), ("given.pt",)),
        Scene(
            "decoded images",
            Program("folder again", f"{FOLDER} --seed 1", pets),
            ("data/folder/.cache/*.npy", "data/folder/.cache/*.npy", "data/folder/.cache/*.json"),
            run(FOLDER),
        ),
        Scene(
            "kept features",
            PROGRAMS["rank again"],
            (*("data/folder/.cache/features/*.npy", "data/folder/.cache/features/*.json"), "runs/rank/*.rank.json"),
        ),
        Scene(
            "search",
            Program("search again", SEARCH, pets, (SEARCH,), ranks),
            ("runs/rank/*.ledger.json", "runs/rank/*.search.json"),
        ),
        Scene("event file", PROGRAMS["paper"], ("runs/*/*/*/events.out.*",), interrupted),
        Scene(
            "split.json of a split",
            Program("folder out", f"folder.py out --epochs 1 {COMMON}", pets, (SPLIT,)),
            ("out/split.json",),
        ),
        Scene(
            "archive",
            replace(PROGRAMS["extraction"], name="archive", numbers=but_checksums),
            ("data/breakhis/BreaKHis_v1.tar.gz",),
        ),
        Scene(
            "memory of checksums",
            PROGRAMS["extraction"],
            ("data/breakhis/.checksums.json",),
            run(f"breakhis.py --allow-partial --epochs 1 --seed 1 {COMMON}"),
        ),
    )
}


def damage(case: int, random: Random, alone: dict[str, Undisturbed], folder: Path) -> Verdict:
    """One file is damaged, and the program run."""
    scene = [*SCENES.values()][case % len(SCENES)]
    its = alone[scene.program.name]
    harm = random.choice(random.choices([KINDS, ODD], [3, 1])[0])
    pattern = random.choice(scene.files)
    world = World(folder, its.start)
    scene.begin(world, its)
    (path, *_) = sorted(world.place.glob(pattern))
    others = [other for other in world.place.glob(pattern.replace("seed0", "seed[12]")) if other != path]
    harm(path, random, others[0] if others else None)
    kind = f": {path.suffix}" if pattern.endswith(path.suffix) else ""  # events' names end with a machine's
    verdict = Verdict("damage", case, f"{scene.name}{kind}", f"{path.name}: {harm.__name__}")
    ended = world.run(its.program.words)
    verdict.judge(ended, (0, 2, 3))
    verdict.judge_surroundings(world)
    if ended.hung or ended.code not in (0, 2, 3):
        return verdict
    named = path.name in ended.said or path.parent.name in ended.said
    if ended.code:
        if path.name not in ended.said:
            verdict.add("other", f"does not name {path.name}: {ended.problems[-300:]}")
        if not any(word in ended.problems.lower() for word in REMEDIES):
            verdict.add("other", f"names no remedy: {ended.problems[-300:]}")
    elif scene.name == "report":
        judge_report(verdict, world, its, path, harm is gone or harm is dangling)
    elif scene.name.startswith("finished"):
        judge_shown(verdict, ended, its)
    else:
        verdict.judge_end(world, its, damaged=True)
        again = scene.name.startswith("interrupted") and ended.epochs == its.ended.epochs
        if again and not (path.name in ended.said or (named and path.suffix == ".pt")):
            verdict.add("lost", f"all {ended.epochs} epochs were trained again, without a word")
    return verdict


def judge_shown(verdict: Verdict, ended: Ended, its: Undisturbed) -> None:
    """A finished run's result is shown as it was; or the run was made anew, to the same."""
    expected, shown = (each.printed.rstrip().rpartition("\n")[2] for each in (its.ended, ended))
    if shown != expected:
        verdict.add("wrong", f"{shown} instead of {expected}")


def judge_report(verdict: Verdict, world: World, its: Undisturbed, path: Path, absent: bool) -> None:
    """The tables say what they say without the damage, or without the run that is damaged, which is then named."""
    without = World(world.root.with_name(f"{world.root.name}-without"), its.start)
    shutil.rmtree(without.place / path.parent.relative_to(world.place))
    assert without.run(its.program.words).code == 0
    tables = [report(each.place) for each in (world, without)]
    found, other, expected = (rows(text["results.csv"]) for text in (*tables, its.numbers))
    if found == expected:
        return
    for row in found:
        if row not in expected and row not in other:
            verdict.add("wrong", f"a row of results.csv: {row}")
    words = (world.place / "report" / "results.md").read_text()
    if path.parent.name not in words and not absent:
        verdict.add("lost", f"{path.parent.name} is not in the tables, and not named")
    shutil.rmtree(without.root)


def rows(text: str) -> list[list[str]]:
    """Of a table."""
    return [*csv.reader(text.splitlines())]
