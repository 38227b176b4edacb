"""What is the same for all backbones of a comparison of training speed: its flags, its images, the device."""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torchvision.datasets import ImageFolder

import common
from benchmarks.photographs import make_photographs, raw_splits
from benchmarks.plain import WORKERS
from engine.cli import positive, whole
from engine.console import say
from engine.data.cache import decode_all
from engine.data.part import Part
from engine.errors import UserError
from engine.files import check_output
from engine.training.plan import Plan, choose_plan

COLUMNS = ("plain", "step", "ours", "ceiling")


@dataclass(frozen=True)
class Setting:
    """What is measured, and on what."""

    folder: Path  # class folders of image files
    part: Part  # images of it, decoded
    plan: Plan  # as far as it is known before it is measured
    batch_size: int
    size: tuple[int, int]  # height and width in pixels
    steps: int  # of a column in a round
    rounds: int
    columns: Sequence[str] = COLUMNS
    compile: str = "auto"
    plan_seconds: float | None = None  # that the plan's measurement may take; None: as in a run
    hold: bool = True  # whether images may stay in the card's memory
    limit_seconds: float = math.inf  # for a backbone
    prepared_seconds: float = 0.0  # that the images took

    @property
    def title(self) -> str:
        """Of a table or a plot."""
        height, width = self.size
        return f"{self.plan.device_name}, {height}x{width}, batches of {self.batch_size}, torch {torch.__version__}"

    def describe(self) -> dict[str, Any]:
        """For the file of the results."""
        return {
            "batch_size": self.batch_size,
            "size": self.size[0],
            "rounds": self.rounds,
            "steps": self.steps,
            "device": self.plan.device_name,
            "columns": list(self.columns),
            "plan_seconds_at_most": self.plan_seconds,
            "hold": self.hold,
            "limit_seconds": None if math.isinf(self.limit_seconds) else self.limit_seconds,
            "prepared_seconds": self.prepared_seconds,
        }


def add_flags(parser: argparse.ArgumentParser, models: Sequence[str], which: str) -> None:
    """Those of every comparison; where nobody says, it is of the backbones `models`, which help calls `which`."""
    known = list(common.BACKBONES)
    parser.add_argument("--models", nargs="+", choices=known, default=models, metavar="NAME", help=f"default: {which}")
    parser.add_argument("--batch-size", type=whole(1), metavar="N", help="default: 32")
    parser.add_argument("--size", type=whole(1), default=256, help="height and width in pixels (default: 256)")
    parser.add_argument("--rounds", type=whole(1), metavar="N", help="default: 3")
    parser.add_argument("--steps", type=whole(1), metavar="N", help="of a column in a round (default: 1; card: 50)")
    parser.add_argument("--device", default="auto", choices=["auto", "cuda", "cpu", "mps"], help="default: the best")
    parser.add_argument("--compile", default="auto", choices=["auto", "on", "off"], help="as of the scripts")
    parser.add_argument(
        "--plan-seconds",
        type=positive,
        metavar="S",
        help="for the plan's measurement, once each form took its first steps (default: as in a run)",
    )
    parser.add_argument("--no-hold", action="store_true", help="don't keep images in the card's memory")
    parser.add_argument(
        "--limit-seconds",
        type=positive,
        default=math.inf,
        metavar="S",
        help="a backbone is left after so long, with what was measured (default: none; not on Windows)",
    )
    parser.add_argument("--source", type=Path, metavar="DIR", help="class folders (default: photographs made here)")
    parser.add_argument("--out", type=Path, default=Path("build"), metavar="DIR", help="default: build")


def images_in(folder: Path) -> int:
    """How many there are in class folders. Raises UserError where there are none."""
    try:
        return len(ImageFolder(str(folder)))
    except OSError as problem:
        reason = problem.strerror or str(problem).partition("\n")[0].rstrip(".")
        raise UserError(
            f"--source {folder}: {reason}. Name a folder that holds a folder of images a class."
        ) from problem


@contextmanager
def prepared(arguments: argparse.Namespace, columns: Sequence[str]) -> Iterator[Setting]:
    """The setting that flags ask for, with its images made, decoded and, afterwards, removed: no figure holds that.

    Raises UserError where --source holds too few, or --out can be no folder.
    """
    check_output(arguments.out)
    arguments.out.mkdir(parents=True, exist_ok=True)
    plan = choose_plan(arguments.device, "auto")
    steps = arguments.steps or (1 if plan.device == "cpu" else 50)
    rounds, batch_size = arguments.rounds or 3, arguments.batch_size or 32
    # plain's epoch must outlast all rounds, a warm-up and the batches that its workers are ahead
    needed = ((rounds + 1) * steps + 2 + 2 * WORKERS) * batch_size
    size = (arguments.size, arguments.size)
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as made:
        folder = arguments.source or Path(made) / "photographs"
        if not arguments.source:
            make_photographs(folder, needed)
        elif (there := images_in(folder)) < needed:
            raise UserError(
                f"--source {folder}: {there:,} images, but {rounds} rounds of {steps} steps of {batch_size} take "
                f"{needed:,}. Ask for fewer with --rounds, --steps or --batch-size."
            )
        raw = raw_splits(folder, (rounds + 1) * steps * batch_size + 1)
        decoded = decode_all(raw, "benchmark", size, Path(made) / "cache", False)
        assert decoded is not None
        setting = Setting(
            folder,
            decoded.part(raw.train),
            plan,
            batch_size,
            size,
            steps,
            rounds,
            columns,
            arguments.compile,
            arguments.plan_seconds,
            not arguments.no_hold,
            arguments.limit_seconds,
            time.perf_counter() - start,
        )
        say(setting.title)
        yield setting
