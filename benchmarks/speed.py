"""Training images/s of each backbone: the plain way, this project's, and the ceiling, in one run on the same images.

python benchmarks/speed.py [--quick] [--models NAME ...] [--batch-size 32] [--size 256] [--source DIR] [--out DIR]

plain    in a process of its own, as the published comparison's scripts do it: torchvision's ImageFolder, PIL,
         TrivialAugmentWide and resizing image by image in two workers, forward in fp32 and autocast around the loss
         alone, NCHW, AdamW as it comes, the loss read after every step; WaveMix from its package
step     plain's step alone, on one batch that stays where the model is
ours     the scripts' own loop: from the cache, augmented in batch, in the form that the plan chose
ceiling  ours' step alone, on one batch that stays where the model is

All four take turns, in an order that is reversed every round, after a warm-up. Plain's workers are in the middle of an
epoch, with full queues; making the cache is not in ours (benchmarks/cache.py measures that).
"""

from __future__ import annotations

import argparse
import gc
import multiprocessing
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import asdict, replace
from functools import partial
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import common
from benchmarks.photographs import make_photographs, raw_splits
from engine.config import Config
from engine.console import say, table
from engine.data.batches import Batches
from engine.data.cache import decode_all
from engine.device import prepare, synchronize
from engine.environment import environment
from engine.files import write_json
from engine.models.backbone import IMAGENET_MEAN, IMAGENET_STD
from engine.models.wavemix_model import package_wavemix
from engine.run import resolve_recipe, tuning_request
from engine.training.autotune import fastest_plan
from engine.training.loop import train_epoch
from engine.training.plan import Plan, choose_plan
from engine.training.state import State
from engine.training.step import Step

PUBLISHED = [name for name, entry in common.BACKBONES.items() if entry.published]
QUICK = ["resnet", "mobilenet", "shufflenet"]
COLUMNS = ("plain", "step", "ours", "ceiling")
WORKERS = 2  # the original's
CLASSES = 101

Column = Callable[[], float]  # runs the steps of a round and returns images/s


def plain_model(name: str) -> nn.Module:
    """The backbone as the original has it: WaveMix's package, torchvision's builder."""
    if name != "wavemix":
        return common.build_model(name, CLASSES, "none")
    model: nn.Module = package_wavemix(CLASSES)
    return model


class Plain:
    """The original's training loop."""

    def __init__(self, name: str, folder: Path, size: int, batch_size: int, steps: int, device: str) -> None:
        torch.manual_seed(0)
        self.model = plain_model(name).to(device).train()
        self.device, self.steps, self.batch_size = device, steps, batch_size
        transform = transforms.Compose(
            [
                transforms.TrivialAugmentWide(),
                transforms.Resize((size, size)),
                transforms.ToTensor(),
                transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
            ]
        )
        dataset = ImageFolder(str(folder), transform)
        self.loader = DataLoader(
            dataset, batch_size, shuffle=True, num_workers=WORKERS, pin_memory=device == "cuda", drop_last=True
        )
        self.optimizer = torch.optim.AdamW(self.model.parameters(), lr=1e-3, betas=(0.9, 0.999), weight_decay=0.01)
        self.criterion = nn.CrossEntropyLoss()
        self.scaler = torch.amp.GradScaler(device, enabled=device == "cuda")
        start = time.perf_counter()
        self.batches = iter(self.loader)
        self.batch = next(self.batches)
        self.resident = [tensor.to(device) for tensor in self.batch]
        self.fill_seconds = 3 * (time.perf_counter() - start)

    def step(self, images: torch.Tensor, labels: torch.Tensor) -> float:
        """Forward outside autocast, and a loss that is read at once."""
        images, labels = images.to(self.device), labels.to(self.device)
        self.optimizer.zero_grad()
        outputs = self.model(images)
        with torch.autocast(self.device, torch.bfloat16 if self.device == "cpu" else torch.float16):
            loss = self.criterion(outputs, labels)
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.accuracy = (outputs.argmax(1) == labels).float().mean().item()
        return float(loss.item())

    def end_to_end(self) -> float:
        """Images/s with the loader, in the middle of its epoch: its workers' queues are full before and after."""
        start = time.perf_counter()
        for _ in range(self.steps):
            self.step(*self.batch)
            self.batch = next(self.batches)
        seconds = time.perf_counter() - start
        time.sleep(self.fill_seconds)
        return self.steps * self.batch_size / seconds

    def alone(self) -> float:
        """Images/s of the step alone."""
        start = time.perf_counter()
        for _ in range(self.steps):
            self.step(*self.resident)
        return self.steps * self.batch_size / (time.perf_counter() - start)


def serve(connection: Connection, *given: Any) -> None:
    """Be Plain, and measure what the other end asks for, until it asks for nothing."""
    # a process that was spawned would spawn its loader's workers, each of which imports PyTorch anew
    multiprocessing.set_start_method(None, force=True)
    plain = Plain(*given)
    while column := connection.recv():
        connection.send(plain.alone() if column == "step" else plain.end_to_end())


class Apart:
    """Plain in a process of its own, where nothing is as engine.device prepares it."""

    def __init__(self, *given: Any) -> None:
        context = multiprocessing.get_context("spawn")
        self.connection, theirs = context.Pipe()
        self.process = context.Process(target=serve, args=(theirs, *given))
        self.process.start()
        theirs.close()

    def measure(self, column: str) -> float:
        """Images/s of "plain" or "step"."""
        self.connection.send(column)
        images_per_second: float = self.connection.recv()
        return images_per_second

    def __enter__(self) -> Apart:
        return self

    def __exit__(self, *_: object) -> None:
        with suppress(BrokenPipeError):
            self.connection.send(None)
        self.process.join(60)
        self.process.kill()


class Ours:
    """The scripts' training loop."""

    def __init__(self, name: str, train: Batches, config: Config, plan: Plan, steps: int) -> None:
        prepare(plan.device)
        torch.manual_seed(0)
        self.steps = steps
        backbone = common.BACKBONES[name]
        self.model = common.build_model(name, CLASSES, "none")
        self.recipe = resolve_recipe(config, backbone, train.steps)
        self.plan = fastest_plan(plan, self.model, train, tuning_request(config, backbone, self.recipe, plan.device))
        self.plan.place(self.model)
        self.train = replace(train, memory_format=self.plan.memory_format)
        optimizer = self.recipe.optimizer(self.recipe.stages[0], self.model)
        self.step = Step(self.model, optimizer, self.plan, train.batch_size)
        images, labels = next(self.train.sequential())
        self.resident = (torch.randn_like(images), labels)
        self.waits: list[float] = []

    def end_to_end(self) -> float:
        """Images/s of an epoch of so many steps, on the next images of the cache."""
        images = self.steps * self.train.batch_size
        part = self.train.part.take(np.arange(images) + len(self.waits) * images)
        train = replace(self.train, part=part, on_device=None).cached_on_device()
        _, speed = train_epoch(self.model, train, self.step, self.recipe, State(epochs=len(self.waits)))
        self.waits.append(speed["data_wait_share"])
        return speed["images_per_second"]

    def alone(self) -> float:
        """Images/s of the step alone."""
        synchronize(self.plan.device)
        start = time.perf_counter()
        for _ in range(self.steps):
            self.step(*self.resident)
        synchronize(self.plan.device)
        return self.steps * len(self.resident[1]) / (time.perf_counter() - start)


def measure(
    name: str, folder: Path, train: Batches, config: Config, plan: Plan, steps: int, rounds: int
) -> dict[str, Any]:
    """Every round's images/s of each column, and what ours did."""
    ours = Ours(name, train, config, plan, steps)
    found: dict[str, list[float]] = {column: [] for column in COLUMNS}
    with Apart(name, folder, train.size[0], train.batch_size, steps, plan.device) as plain:
        columns: dict[str, Column] = {
            "plain": partial(plain.measure, "plain"),
            "step": partial(plain.measure, "step"),
            "ours": ours.end_to_end,
            "ceiling": ours.alone,
        }
        for warm_up in ("plain", "ours"):  # the other two are the same steps
            columns[warm_up]()
        for turn in range(rounds):
            for column in COLUMNS if turn % 2 else reversed(COLUMNS):
                found[column].append(columns[column]())
    form, waits = ours.plan.form, ours.waits[1:]
    return {"images_per_second": found, "data_wait_share": waits, "form": form, "plan": asdict(ours.plan)}


def ratios(result: dict[str, Any]) -> dict[str, float]:
    """Return how the medians compare: with the plain way, and with the ceiling."""
    middle = {column: statistics.median(values) for column, values in result["images_per_second"].items()}
    return {
        "gain": middle["ours"] / middle["plain"],
        "of_ceiling": middle["ours"] / middle["ceiling"],
        "loader": middle["step"] / middle["plain"],
        "form": middle["ceiling"] / middle["step"],
    }


def lines(results: dict[str, dict[str, Any]]) -> list[tuple[str, ...]]:
    """The table, with the geometric mean."""
    rows = [("backbone", *(f"{column} (range)" for column in COLUMNS), "ours/plain", "ours/ceiling", "waits", "form")]
    for name, result in results.items():
        cells = [
            f"{statistics.median(values):,.2f} ({min(values):,.2f}-{max(values):,.2f})"
            for values in result["images_per_second"].values()
        ]
        ratio = result["ratios"]
        wait = statistics.median(result["data_wait_share"])
        rows.append((name, *cells, f"{ratio['gain']:.2f}", f"{ratio['of_ceiling']:.3f}", f"{wait:.1%}", result["form"]))
    means = [statistics.geometric_mean(r["ratios"][key] for r in results.values()) for key in ("gain", "of_ceiling")]
    return [*rows, ("geometric mean", "", "", "", "", f"{means[0]:.2f}", f"{means[1]:.3f}", "", "")]


def plot(results: dict[str, dict[str, Any]], title: str, path: Path) -> None:
    """Bars of plain, ours and ceiling for each backbone, as shares of the ceiling."""
    try:
        import matplotlib as mpl

        mpl.use("agg")
        from matplotlib import pyplot as plt
    except ImportError:
        say("no plot: pip install matplotlib")
        return
    figure, axes = plt.subplots(figsize=(8, 0.5 * len(results) + 1.8), layout="constrained")
    places = np.arange(len(results))
    for offset, column, colour in ((-0.26, "plain", "#b8b8b8"), (0, "ours", "#1f6f8b"), (0.26, "ceiling", "#f0b429")):
        rates = [statistics.median(result["images_per_second"][column]) for result in results.values()]
        bars = axes.barh(places + offset, rates, 0.24, label=column, color=colour)
        axes.bar_label(bars, [f"{rate:,.1f}" for rate in rates], padding=3, fontsize=8)
    axes.set_yticks(places, [f"{name}  {result['ratios']['gain']:.1f}x" for name, result in results.items()])
    axes.invert_yaxis()
    axes.margins(x=0.1)
    axes.set_xlabel("training images/s; beside the name: ours / plain")
    axes.set_title(title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=150)


def main() -> None:
    """Time every backbone, print the table and write speed.json and the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=list(common.BACKBONES), default=PUBLISHED, metavar="NAME")
    parser.add_argument("--quick", action="store_true", help=f"{', '.join(QUICK)} in batches of 16: minutes on a CPU")
    parser.add_argument("--batch-size", type=int, help="default: 32")
    parser.add_argument("--size", type=int, default=256, help="height and width in pixels (default: 256)")
    parser.add_argument("--rounds", type=int, help="default: 3; 2 with --quick")
    parser.add_argument("--steps", type=int, help="of a column in a round (default: 1, on a card 50)")
    parser.add_argument("--device", default="auto", choices=["auto", "cuda", "cpu", "mps"])
    parser.add_argument("--compile", default="auto", choices=["auto", "on", "off"], help="as of the scripts")
    parser.add_argument("--source", type=Path, metavar="DIR", help="class folders (default: photographs made here)")
    parser.add_argument("--out", type=Path, default=Path("build"), metavar="DIR", help="default: build")
    arguments = parser.parse_args()
    models = QUICK if arguments.quick else arguments.models
    batch_size = arguments.batch_size or (16 if arguments.quick else 32)
    rounds = arguments.rounds or (2 if arguments.quick else 3)
    plan = choose_plan(arguments.device, "auto")
    steps = arguments.steps or (1 if plan.device == "cpu" else 50)
    size = (arguments.size, arguments.size)

    about = f"{plan.device_name}, {arguments.size}x{arguments.size}, batches of {batch_size}, torch {torch.__version__}"
    say(about)
    results: dict[str, dict[str, Any]] = {}
    with tempfile.TemporaryDirectory() as made:
        folder = arguments.source or Path(made) / "photographs"
        if not arguments.source:
            # plain's epoch must outlast all rounds, a warm-up and the batches that its workers are ahead
            make_photographs(folder, ((rounds + 1) * steps + 2 + 2 * WORKERS) * batch_size)
        raw = raw_splits(folder, (rounds + 1) * steps * batch_size + 1)
        decoded = decode_all(raw, "benchmark", size, Path(made) / "cache", False)
        assert decoded is not None
        part = decoded.part(raw.train)
        for name in models:
            config = Config(model=name, batch_size=batch_size, size=size, augment="trivial", compile=arguments.compile)
            train = Batches("train", part, batch_size, size, IMAGENET_MEAN, IMAGENET_STD, plan.device, augment=True)
            result = measure(name, folder, train, config, plan, steps, rounds)
            results[name] = result | {"ratios": ratios(result)}
            gain = results[name]["ratios"]
            say(
                f"{name}: {gain['gain']:.2f} times as fast = {gain['loader']:.2f} (no loading beside the step) x "
                f"{gain['form']:.2f} (the step) x {gain['of_ceiling']:.3f} (of the ceiling)",
                f"  {result['form']}: {result['plan']['reason']}",
            )
            gc.collect()
    say(table(lines(results)))
    arguments.out.mkdir(parents=True, exist_ok=True)
    stem = arguments.out / "speed"
    settings = {"batch_size": batch_size, "size": size, "rounds": rounds, "steps": steps, "device": plan.device_name}
    write_json(stem.with_suffix(".json"), {**settings, "environment": environment(), "results": results})
    plot(results, about, stem.with_suffix(".png"))
    say(f"written to {stem}.json and {stem}.png")


if __name__ == "__main__":
    main()
