"""The programs that faults come to: a command, the folder that it begins in, and the numbers that it must end with."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image

from tests import fakes
from tests.faults.zygote import Ended, World

COMMON = "-model tiny -bs 16 --size 16 --weights none --device cpu --plan off --precision fp32"
OF_GRID = COMMON.removeprefix("-model tiny ")
TIMES = ("seconds", "images_per_second", "compute_images_per_second", "data_wait_share")  # of a history's rows
Numbers = dict[str, Any]


@dataclass(frozen=True)
class Program:
    """A command in a folder. begin: what fills the folder; before: commands that have been run there; settle: what is
    done to what they left."""

    name: str
    line: str
    begin: Callable[[Path], object] = lambda _: None
    before: tuple[str, ...] = ()
    numbers: Callable[[Path], Numbers] = field(default=lambda place: records(place))
    repeated: int = 0  # epochs that a kill may cost although they were printed: a sweep's trial is one piece
    already: str = ""  # what it says, and ends with 2, where it has been done; "": it does it again
    settle: Callable[[Path], object] = lambda _: None

    @property
    def words(self) -> list[str]:
        """The command."""
        return self.line.split()


@dataclass(frozen=True)
class Undisturbed:
    """A program as it runs when nothing befalls it."""

    program: Program
    start: Path  # what a case begins with
    ended: Ended
    numbers: Numbers
    left: frozenset[str]  # names of files, as names() gives them

    @cached_property
    def changes(self) -> list[str]:
        """Its steps that change something."""
        return [step for step, _ in self.ended.steps if step != "read"]


def undisturbed(program: Program, folder: Path) -> tuple[Any, ...]:
    """Make what a case begins with in `folder`, and see how the program runs from there: the rest of an Undisturbed."""
    first = World(folder / "first")
    program.begin(first.place)
    for line in program.before:
        assert first.run(line.split()).code == 0, line
    program.settle(first.place)
    start = folder / "start"
    shutil.copytree(first.place, start, symlinks=True)
    world = World(folder / "alone", start)
    ended = world.run(program.words)
    assert ended.code == 0, f"{program.line}: {ended.said}"
    return start, ended, program.numbers(world.place), names(world)


def names(world: World) -> frozenset[str]:
    """The files below a world's folders, without the digests in their names and without those that say what it said."""
    paths = [path.relative_to(world.root) for path in world.root.rglob("*") if not path.is_dir()]
    return frozenset(
        re.sub(r"(?<=-)[0-9a-f]{8,}\b|(?<=tfevents\.).*", "#", str(path)) for path in paths if path.parts[0] != "said"
    )


def records(place: Path) -> Numbers:
    """By run: all that must be the same bit for bit."""
    found = {}
    for path in place.glob("runs/*/*/*/record.json"):
        record, folder = json.loads(path.read_bytes()), path.parent
        config = record["config"]
        key: tuple[Any, ...] = (record["dataset"]["key"], record["seed"], config["shots"], config["tune"])
        key += (config["fold"],) if config["fold"] else ()
        key += (record["backbone"]["name"], config["epochs"])
        assert key not in found, f"{key} was done twice"
        with (folder / "history.csv").open() as file:
            history = [{name: row[name] for name in row if name not in TIMES} for row in csv.DictReader(file)]
        with np.load(folder / "predictions.npz", allow_pickle=False) as archive:
            arrays = {name: _digest(archive[name]) for name in archive.files}
        model = torch.load(folder / "checkpoint.pt", weights_only=True)["model"]
        found[str(key)] = {
            "status": record["status"],
            "test": record["test"],
            "selection": record["selection"],
            "lr": record["lr"],
            "precision": record["plan"]["precision"],
            "split": record["dataset"]["split"],
            "checksums": {name: value for name, value in record["dataset"]["checksums"].items() if value},
            "history": history,
            "predictions": arrays,
            "model": {name: _digest(value.numpy()) for name, value in model.items()},
        }
    return found


def _digest(array: np.ndarray[Any, Any]) -> str:
    return hashlib.sha256(str((array.dtype, array.shape)).encode() + array.tobytes()).hexdigest()[:16]


def parts(place: Path) -> Numbers:
    """What split.py made: every file."""
    out = place / "out"
    files = {str(path.relative_to(out)): path for path in out.rglob("*") if path.is_file()}
    found = {name: hashlib.sha256(path.read_bytes()).hexdigest()[:16] for name, path in files.items()}
    if listed := files.get("split.json"):
        found["split.json"] = listed.read_text().replace(str(place.parent), "")
    return found


def report(place: Path) -> Numbers:
    """What report.py made, but for the page."""
    return {path.name: path.read_text().replace(str(place.parent), "") for path in place.glob("report/results.*")}


def ranks(place: Path) -> Numbers:
    """The order and the scores that rank.py made, what its search recommends, and the runs that it made."""
    found = records(place)
    for path in place.glob("runs/rank/*.rank.json"):
        result = json.loads(path.read_bytes())
        scores = {each["name"]: each["scores"] for each in result["backbones"]}
        found["rank"] = {"order": result["order"], "split": result["dataset"]["split"], "scores": scores}
    for path in place.glob("runs/rank/*.search.json"):
        search = json.loads(path.read_bytes())
        rungs = [[(each["name"], each["score"]) for each in rung["candidates"]] for rung in search["rungs"]]
        named = {name: search[name] for name in ("recommendation", "runner_up", "tied")}
        found["search"] = {**named, "rungs": rungs}
    return found


def answers(place: Path) -> Numbers:
    """What predict.py wrote."""
    return {path.name: path.read_text().replace(str(place.parent), "") for path in place.glob("answers.*")}


def exported(place: Path) -> Numbers:
    """What export.py wrote: the names, and of the weights what they say; the order of their header's entries is any."""
    from safetensors import safe_open

    found: Numbers = {path.name: path.stat().st_size for path in place.glob("out/*")}
    for path in place.glob("out/*.safetensors"):
        with safe_open(path, "numpy") as file:
            tensors = {name: _digest(file.get_tensor(name)) for name in file.keys()}  # noqa: SIM118 (no mapping)
            found[path.name] = {"metadata": file.metadata(), "tensors": tensors}
    return found


def trained(place: Path) -> None:
    """The run that was made, under a name that does not depend on the machine."""
    (run,) = place.glob("runs/*/*/*")
    run.rename(place / "run")


def decoded(place: Path) -> Numbers:
    """The images that a check leaves."""
    return {path.suffix: _digest(np.load(path)) for path in place.glob("data/folder/.cache/*.npy")}


def pets(place: Path, images: int = 16) -> None:
    """Three classes of small images, and a file that labels them."""
    random = np.random.default_rng(0)
    for number, name in enumerate(("cat", "dog", "owl")):
        folder = place / "pets" / name
        folder.mkdir(parents=True)
        for index in range(images):
            pixels = (60 * number + random.integers(0, 120, (16, 16, 3))).astype(np.uint8)
            Image.fromarray(pixels).save(folder / f"{index}.png")
    lines = [f"{path.parent.name}/{path.name},{path.parent.name}\n" for path in sorted(place.glob("pets/*/*.png"))]
    (place / "labels.csv").write_text("".join(["file,label\n", *lines]))


def breakhis(place: Path) -> None:
    """Its archive, in small."""
    made = fakes.make_breakhis(40)
    folder = place / "data" / "breakhis"
    folder.mkdir(parents=True)
    for name, body in made.bodies.items():
        (folder / name).write_bytes(body)


DIGITS = f"digits.py --shots 4 --epochs 2 {COMMON}"
FOLDER = f"folder.py pets --epochs 2 {COMMON}"
FOLDS = f"folder.py pets --epochs 2 --folds 2 {COMMON}"
RANK = f"rank.py pets --models tiny2 tiny --epochs 3 {OF_GRID}"
SEARCH = f"{RANK} --fine-tune --budget images:200"
PREDICT = "predict.py runs pets --form run --out answers.csv"
EXPORT = "export.py run --to safetensors out"
SPLIT = "split.py --input_dir pets --output_dir out --val_size 0.2"
PROGRAMS = {
    program.name: program
    for program in (
        Program("digits", DIGITS),
        Program("folder", FOLDER, pets),
        Program("folds", FOLDS, pets),
        Program("labels", f"{FOLDER} --labels labels.csv --class-weights balanced --select macro_f1", pets),
        Program("check", "folder.py pets --check", pets, numbers=decoded),
        Program("sweep", f"digits.py --shots 4 --epochs 1 --lr-sweep {COMMON}", repeated=2),
        Program("linear", f"digits.py --shots 4 --epochs 2 --tune linear {COMMON}"),
        Program("paper", f"digits.py --shots 4 --epochs 2 --protocol paper --tensorboard {COMMON}"),
        Program("extraction", f"breakhis.py --allow-partial --epochs 1 {COMMON}", breakhis),
        Program("split", SPLIT, pets, numbers=parts, already="already holds a split"),
        Program("split hard", f"{SPLIT} --link hard", pets, numbers=parts, already="already holds a split"),
        Program("split over", f"{SPLIT} --overwrite", pets, (f"{SPLIT} --random_state 1",), parts),
        Program(
            "report",
            "report.py",
            before=(DIGITS, f"{DIGITS} --seed 1", f"digits.py --shots 4 --epochs 2 --tune linear {COMMON}"),
            numbers=report,
        ),
        Program(
            "grid",
            f"grid.py --datasets digits --models tiny --seeds 0-1 --shots 4 --epochs 2 {OF_GRID}",
        ),
        Program("rank", RANK, pets, numbers=ranks),
        Program("rank again", f"{RANK} --models tiny tiny2", pets, (RANK,), ranks),
        Program("search", SEARCH, pets, numbers=ranks),
        Program("fast", f"{FOLDER} --recipe fast --weights run/checkpoint.pt", pets, (FOLDER,), settle=trained),
        Program("predict", PREDICT, pets, (FOLDER,), answers),
        Program("predict over", f"{PREDICT} --top 2", pets, (FOLDER, PREDICT), answers),
        Program("export", EXPORT, pets, (FOLDER,), exported, settle=trained, already="already holds an export"),
        Program("grid of folds", f"grid.py --datasets folder:pets --models tiny --epochs 1 --folds 2 {OF_GRID}", pets),
    )
}
