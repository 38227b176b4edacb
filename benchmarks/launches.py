"""Kernel launches of a training step of each backbone, in each dtype and memory layout; what bounds a small batch.

../shared/drycard/drycard python benchmarks/launches.py [--models NAME ...] [--size 256] [--batch-size 64] [--markdown]

It counts on a dry card: PyTorch's CUDA side on a runtime that computes nothing. A call of cuDNN or cuBLAS counts as one
launch, though it may make more.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from itertools import product
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import BACKBONES, build_model
from engine.cli import Help, whole
from engine.console import say, table
from engine.models.structure import set_train_mode
from engine.training.plan import LAYOUTS, Plan
from engine.training.recipe import make_recipe
from engine.training.step import Step

PRECISIONS = ("fp32", "bf16", "fp16")
FORMS = tuple(product(PRECISIONS, LAYOUTS))
KINDS = ("launches", "cudnn", "blas")  # of what the dry card counts


def counted() -> int:
    """All launches so far."""
    import drycard  # type: ignore[import-not-found, unused-ignore]  # there on a dry card alone

    counts = drycard.counts()
    return sum(counts[kind] for kind in KINDS)


def launches(name: str, precision: str, layout: str, side: int, images: int) -> int:
    """Of one step of AdamW on a batch of so many square images, after one that sets up what lasts."""
    model = build_model(name, 10, "none")
    plan = Plan("cuda", "", precision, "", layout=layout)
    plan.place(model)
    set_train_mode(model)
    recipe = make_recipe("cosine", 1e-4, 1, None)
    step = Step(model, recipe.optimizer(recipe.stages[0], model), plan, images)
    side = max(side, BACKBONES[name].smallest)
    batch = torch.rand(images, 3, side, side, device="cuda").contiguous(memory_format=plan.memory_format)
    labels = torch.arange(images, device="cuda") % 10
    step(batch, labels)
    before = counted()
    step(batch, labels)
    return counted() - before


def as_markdown(rows: Sequence[Sequence[str]]) -> str:
    """A table for docs/."""
    lines = [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([lines[0], "|---" + "|---:" * (len(rows[0]) - 1) + "|", *lines[1:]])


def main(arguments: Sequence[str] | None = None) -> None:
    """Count, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Help)
    parser.add_argument("--models", nargs="+", default=list(BACKBONES), choices=list(BACKBONES), metavar="NAME")
    parser.add_argument(
        "--size", type=whole(1), default=256, metavar="PX", help="height and width in pixels (default: 256)"
    )
    parser.add_argument("--batch-size", type=whole(1), default=64, metavar="N", help="images a step (default: 64)")
    parser.add_argument("--markdown", action="store_true", help="a table for docs/")
    options = parser.parse_args(arguments)
    if "DRY_HOME" not in os.environ:
        parser.error("it counts on a dry card: run it by ../shared/drycard/drycard, which lies beside the checkout")
    rows: list[tuple[str, ...]] = [("backbone", *(f"{precision} {layout}" for precision, layout in FORMS))]
    for name in options.models:
        found = [launches(name, precision, layout, options.size, options.batch_size) for precision, layout in FORMS]
        rows.append((name, *(f"{count:,}" for count in found)))
    say(as_markdown(rows) if options.markdown else table(rows))
    card = f"compute capability {'.'.join(map(str, torch.cuda.get_device_capability()))}"
    say(f"PyTorch {torch.__version__}, {card}, {options.batch_size} images of {options.size} px")


if __name__ == "__main__":
    main()
