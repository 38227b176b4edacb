"""Every backbone in every form: whether it agrees with PyTorch, its size, and the seconds it took to make and check.

    python benchmarks/export.py [--models NAME ...] [--to FORM ...] [--size 256] [--stored 32]

Networks of random weights, whose batch statistics are those of images, and whose logits are spread as trained ones
are. The images are scikit-learn's digits, which are real. A Markdown table, a line a backbone as it is done: the
largest logit, the rounding of PyTorch itself (how far its logits are from those in double precision), and of each form
the largest difference of a logit, megabytes and seconds.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import digits
from common import BACKBONES
from engine.console import say
from engine.data.images import resize
from engine.data.part import Pixels
from engine.errors import RunError
from engine.files import read_json
from engine.inference.checkpoint import Trained
from engine.inference.preprocessing import Preprocessing
from engine.models.backbone import IMAGENET_MEAN, IMAGENET_STD
from engine.models.structure import batch_norms, replace_head
from engine.models.weights_folder import CONFIG
from engine.models.weights_folder import FACTS as KEY
from exporting import agreement
from exporting.agreement import Agreement
from exporting.build import WRITE
from exporting.facts import facts_of
from exporting.forms import SAFETENSORS, Job
from exporting.images import Images
from exporting.served import served

SPREAD = 5.0  # standard deviation of the logits, as of trained networks
IMAGES = 8


def images(stored: int) -> Pixels:
    """Real ones, uint8 (N, stored, stored, 3), one of each class but two."""
    pixels = digits.read(None).test.pixels(np.arange(IMAGES))  # type: ignore[arg-type]
    return np.stack([resize(each, (stored, stored)) for each in pixels])


def trained(name: str, stored: int, size: int) -> Trained:
    """The backbone as a run would leave it, but that its weights are random."""
    torch.manual_seed(0)
    backbone = BACKBONES[name]
    network = backbone.build()
    replace_head(network, backbone.head, 10)
    preprocessing = Preprocessing((stored, stored), (size, size), IMAGENET_MEAN, IMAGENET_STD)
    settle(network, preprocessing.to_input(torch.from_numpy(images(stored))), backbone.head)
    return Trained(Path("checkpoint.pt"), record(name), network.state_dict(), backbone, preprocessing)


def settle(network: nn.Module, batch: torch.Tensor, head: str) -> None:
    """Give batch normalisation the statistics of the batch, and the logits a spread."""
    for layer in batch_norms(network):
        layer.momentum = None  # the mean over all batches
    with torch.no_grad():
        network.train()
        network(batch)
        logits = network.eval()(batch)
        weight = network.get_parameter(f"{head}.weight")
        weight.mul_(SPREAD / logits.sub(network.get_parameter(f"{head}.bias")).std())


def record(name: str) -> Any:
    """As much of a record as an export asks for."""
    counts = {"available": 0, "train": 0, "val": 0, "test": IMAGES}
    return {
        "run": "honest-seed0-0000000000",
        "backbone": {
            "name": name,
            "builder": BACKBONES[name].builder_name,
            "weights": "none",
            "weights_sha256": None,
            "weights_run": None,
        },
        "dataset": {
            "key": "digits",
            "name": "Digits",
            "version": "1",
            "classes": [str(number) for number in range(10)],
            "counts": counts,
            "split": "0" * 64,
            "partial": False,
            "notes": [],
        },
        "protocol": "honest",
        "recipe": "cosine",
        "seed": 0,
        "test": {"top1": 0.5},
        "costs": {"parameters": 0, "macs": 0, "train_seconds": 0.0, "epochs": 0, "images": 0},
        "plan": {"device_name": "none"},
    }


def rounding(of: Trained, stored: int) -> tuple[str, str]:
    """The largest logit, and how far PyTorch's are from those of the same weights in double precision."""
    network, pixels = served(of), images(stored)
    with torch.inference_mode():
        logits, _ = network(torch.from_numpy(pixels))
    return f"{logits.abs().max():.1f}", f"{agreement.rounding(network, pixels):.1e}"


def measured(form: str, job: Job, folder: Path) -> tuple[Agreement | None, float, float]:
    """How it agrees (None: it does not, or can't be made), MB, seconds."""
    start = time.perf_counter()
    try:
        found = WRITE[form](job, folder)
    except RunError:
        found = None
    seconds = time.perf_counter() - start
    return found, sum(path.stat().st_size for path in folder.iterdir()) / 1e6, seconds


def row(name: str, stored: int, size: int, forms: Sequence[str]) -> tuple[str, Mapping[str, Agreement | None]]:
    """A backbone's line of the table, and how its forms agree."""
    of = trained(name, stored, size)
    job = Job(of, served(of), Images(images(stored), "digits"), facts_of(of))
    cells, found = [name, *rounding(of, stored)], {}
    for form in forms:
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place)
            found[form], megabytes, seconds = measured(form, job, folder)
            agreement = found[form]
            cells.append(f"{agreement.logits:.1e}, {megabytes:.0f} MB, {seconds:.0f} s" if agreement else "no")
            if form == "hub":
                config = read_json(folder / CONFIG)
                loads = "pretrained_cfg" in config and "not_in_timm" not in config
                two = config[KEY]["tensors"] != SAFETENSORS
                cells.append(config["architecture"] + (", two files" if two else "") if loads else "no")
    return f"| {' | '.join(cells)} |", found


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table."""
    line = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    line.add_argument("--models", nargs="+", choices=list(BACKBONES), default=list(BACKBONES), metavar="NAME")
    line.add_argument("--to", nargs="+", choices=list(WRITE), default=list(WRITE), metavar="FORM")
    line.add_argument("--size", type=int, default=256, help="pixels that the network is given, high and wide")
    line.add_argument("--stored", type=int, default=32, help="pixels that images are stored at")
    options = line.parse_args(arguments)
    heads = ["backbone", "largest", "rounding", *options.to, *(["in timm"] if "hub" in options.to else [])]
    say(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
    for name in options.models:
        say(row(name, options.stored, options.size, options.to)[0])


if __name__ == "__main__":
    main()
