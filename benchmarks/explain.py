"""Whether heat maps of predict.py's --explain show what a network looks at: real networks and images, with controls.

REAL=DIR python benchmarks/explain.py [--cells food10:tf2:224 ...] [--images 60]

A cell is a dataset of benchmarks/real_networks.py, a network of it and the images' side; it is fine-tuned in a process
of its own, or found finished. Of its test images that are classified correctly, blocks of pixels are removed in steps,
hottest first (the deletion curve of Petsiuk et al. 2018, arXiv 1806.07421): the faster the class's probability falls,
the better. Controls remove the same blocks at random, from the centre on, and by the heat of another image. Then the
weights are made meaningless (Adebayo et al. 2018, arXiv 1810.03292), at which the heat has to change.
"""

from __future__ import annotations

import argparse
import copy
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.stats import spearmanr
from torch import nn
from torch.nn import functional
from torchvision.transforms.functional import gaussian_blur

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from common import ReadOptions, load
from engine.cli import Help, whole
from engine.console import say, table
from engine.environment import environment
from engine.files import write_json
from engine.inference.checkpoint import Trained
from engine.paths import PROJECT
from predicting.explain import GRAD_CAM, OCCLUSION, Explainer, find_pooled_map, grad_cam, occlusion

CELLS = ("food10:tf2:224", "dtd10:lite0:224", "cub4:bird:224", "eurosat:tf2:64", "food10:lite1:128")
BLOCKS = 16  # along a side
REMOVED = (0.0, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0)  # shares of the blocks
RANDOM_DRAWS = 2  # an image
RESAMPLES = 10_000

Values = npt.NDArray[np.float64]
Method = Callable[[nn.Module, torch.Tensor, int], torch.Tensor]


def trained_cell(cell: str, epochs: int, out: Path) -> Trained:
    """The run of a cell: fine-tuned now, or finished earlier with the same command."""
    data, name, side = cell.split(":")
    folder = out / "explain" / cell.replace(":", "_")
    command = f"benchmarks/real_networks.py --data {data} -model {name} -bs 32 --size {side} --epochs {epochs}"
    surroundings = os.environ | {"PYTHONPATH": str(PROJECT)}
    if "REAL" in os.environ:
        surroundings["REAL"] = str(Path(os.environ["REAL"]).absolute())
    done = subprocess.run(  # noqa: S603 (the benchmark's own command)
        [sys.executable, *command.split(), "--out", str(folder.absolute())],
        cwd=PROJECT,
        env=surroundings,
        capture_output=True,
        text=True,
    )
    if done.returncode:
        sys.exit(f"{command} failed:\n{done.stderr}")
    import benchmarks.real_networks  # noqa: F401 (it adds its backbones to the factory)

    (record,) = folder.rglob("record.json")
    return load(record.parent)


def methods_of(model: nn.Module, size: tuple[int, int], wanted: Sequence[str]) -> dict[str, Method]:
    """Those of the methods that are wanted and can be had, whichever an Explainer would take."""
    methods: dict[str, Method] = {OCCLUSION: occlusion}
    if pooled := find_pooled_map(model, size, fewest=1):
        methods[GRAD_CAM] = lambda model, image, label: grad_cam(model, image, label, pooled)
    return {name: methods[name] for name in wanted if name in methods}


def heat_of(method: Method, model: nn.Module, image: torch.Tensor, label: int) -> torch.Tensor:
    """The mean heat of each block: float32 (BLOCKS, BLOCKS)."""
    evidence = method(model, image, label).clamp(min=0)[None, None]
    size = (image.shape[-2], image.shape[-1])
    grown = functional.interpolate(evidence, size, mode="bilinear", align_corners=False)
    return functional.adaptive_avg_pool2d(grown, BLOCKS)[0, 0]


def heats_of(method: Method, model: nn.Module, images: list[torch.Tensor], labels: list[int]) -> list[torch.Tensor]:
    """Those of several images."""
    return [heat_of(method, model, image, label) for image, label in zip(images, labels, strict=True)]


def chosen_images(trained: Trained, model: nn.Module, data: str, most: int) -> tuple[list[torch.Tensor], list[int]]:
    """Inputs (1, 3, H, W) and classes of test images that the model classifies correctly, in a random order."""
    from benchmarks.real_networks import DATASETS

    test = DATASETS[data].read(ReadOptions(Path())).test
    assert test is not None
    images: list[torch.Tensor] = []
    labels: list[int] = []
    rows = np.arange(len(test)) if test.rows is None else test.rows
    for index in np.random.default_rng(0).permutation(len(test)).tolist():
        image = trained.preprocessing(Path(str(test.references[rows[index]])))[None]
        with torch.no_grad():
            right = int(model(image).argmax()) == test.labels[index]
        if right and len(images) < most:
            images.append(image)
            labels.append(int(test.labels[index]))
    return images, labels


def area(model: nn.Module, image: torch.Tensor, gone: torch.Tensor, label: int, score: torch.Tensor) -> float:
    """Under the curve of the class's probability, while blocks of `image` are replaced by `gone`, highest score first.

    0 to 1; equal scores in a random order.
    """
    blocks = score.flatten().double()
    noise = torch.rand(len(blocks), generator=torch.Generator().manual_seed(0))
    order = np.lexsort((noise.numpy(), -blocks.numpy()))
    rank = torch.empty(len(blocks))
    rank[torch.from_numpy(order)] = torch.arange(len(blocks)).float()
    ranks = functional.interpolate(rank.view(1, 1, BLOCKS, BLOCKS), image.shape[-2:], mode="nearest")
    steps = torch.tensor(REMOVED) * len(blocks)
    with torch.no_grad():
        logits = model(torch.where(ranks < steps[:, None, None, None], gone, image))
    return float(np.trapezoid(logits.softmax(1)[:, label].double().numpy(), REMOVED))


def areas(methods: Mapping[str, Method], model: nn.Module, images: list[torch.Tensor], labels: list[int]) -> Any:
    """What is removed by -> how it is replaced -> the area for each image."""
    random = torch.Generator().manual_seed(0)
    line = torch.linspace(-1, 1, BLOCKS)
    centre = -(line[:, None] ** 2 + line[None] ** 2)
    heats = {name: heats_of(method, model, images, labels) for name, method in methods.items()}
    found: dict[str, dict[str, list[float]]] = {}
    for number, (image, label) in enumerate(zip(images, labels, strict=True)):
        side = image.shape[-1]
        # the mean of the images that the weights were trained on, which normalisation makes 0
        fills = {
            "mean": torch.zeros_like(image),
            "blur": gaussian_blur(image, [side // 4 * 2 + 1] * 2, [side / 10] * 2),
        }
        orders = {"centre": [centre]}
        orders["random"] = [torch.rand(BLOCKS, BLOCKS, generator=random) for _ in range(RANDOM_DRAWS)]
        for name, own in heats.items():
            orders[name] = [own[number]]
            orders[f"{name}, other image"] = [own[(number + 1) % len(own)]]
        for name, scores in orders.items():
            for fill, gone in fills.items():
                mean = np.mean([area(model, image, gone, label, score) for score in scores])
                found.setdefault(name, {}).setdefault(fill, []).append(float(mean))
    return found


def interval(differences: Values) -> tuple[float, float, float]:
    """The mean and the ends of its 95 % interval, by resampling images."""
    random = np.random.default_rng(0)
    means = differences[random.integers(0, len(differences), (RESAMPLES, len(differences)))].mean(1)
    low, high = np.quantile(means, (0.025, 0.975))
    return float(differences.mean()), float(low), float(high)


def meaningless(model: nn.Module, head: str | None) -> nn.Module:
    """A copy with each tensor of weights shuffled within itself; `head`: those of that layer alone."""
    copied = copy.deepcopy(model)
    random = torch.Generator().manual_seed(0)
    part = copied.get_submodule(head) if head else copied
    with torch.no_grad():
        for weights in part.parameters():
            flat = weights.flatten()
            weights.copy_(flat[torch.randperm(len(flat), generator=random)].view_as(weights))
    return copied


def alike(first: list[torch.Tensor], second: list[torch.Tensor]) -> float:
    """The median over images of Spearman's correlation of two heats; an even heat correlates with nothing."""
    found = [float(spearmanr(a.flatten(), b.flatten()).statistic) for a, b in zip(first, second, strict=True)
             if a.std() > 0 and b.std() > 0]  # fmt: skip
    return float(np.median(found)) if found else 0.0


def sanity(
    methods: Mapping[str, Method], model: nn.Module, head: str, images: list[torch.Tensor], labels: list[int]
) -> dict[str, Any]:
    """Method -> how alike the heat is to that of meaningless weights, and to that of the next image."""
    found: dict[str, Any] = {}
    others = {"head shuffled": meaningless(model, head), "all shuffled": meaningless(model, None)}
    for name, method in methods.items():
        own = heats_of(method, model, images, labels)
        found[name] = {what: alike(own, heats_of(method, other, images, labels)) for what, other in others.items()}
        found[name]["next image"] = alike(own, own[1:] + own[:1])
    return found


def measured(cell: str, wanted: Sequence[str], epochs: int, most: int, out: Path) -> dict[str, Any]:
    """What a cell's file has: the areas under the curves, their differences, the alikeness, the seconds an image."""
    data, _, _ = cell.split(":")
    trained = trained_cell(cell, epochs, out)
    model = trained.model()
    images, labels = chosen_images(trained, model, data, most)
    methods = methods_of(model, trained.preprocessing.size, wanted)
    seconds = {}
    for name, method in methods.items():
        start = time.perf_counter()
        method(model, images[0], labels[0])
        seconds[name] = time.perf_counter() - start
    found = areas(methods, model, images, labels)
    against = {}
    for name in methods:
        for control in ("random", "centre", f"{name}, other image", *(other for other in methods if other != name)):
            for fill in found[name]:
                gain = np.array(found[control][fill]) - np.array(found[name][fill])
                against[f"{name}: {control}, {fill}"] = interval(gain)
    return {
        "cell": cell,
        "top1": trained.record["test"]["top1"],
        "chosen": Explainer(trained, model, "cpu").method,
        "images": len(images),
        "area": {name: {fill: float(np.mean(each)) for fill, each in fills.items()} for name, fills in found.items()},
        "gain": against,
        "alike": sanity(methods, model, trained.backbone.head, images, labels),
        "seconds": seconds,
    }


def show(result: dict[str, Any]) -> None:
    """A cell's tables."""
    say(f"{result['cell']}: top-1 {result['top1']:.1%}, {result['images']} images; chosen: {result['chosen']}")
    rows = [("removed by", "area, mean colour", "area, blur")]
    rows += [(name, f"{each['mean']:.3f}", f"{each['blur']:.3f}") for name, each in result["area"].items()]
    say(table(rows))
    say(table([("gain over", "area (95 %)"), *((name, "{:+.3f} ({:+.3f} to {:+.3f})".format(*each))
                                              for name, each in result["gain"].items())]))  # fmt: skip
    for name, each in result["alike"].items():
        say(f"{name}: alike {', '.join(f'{what} {value:+.2f}' for what, value in each.items())}")


def main() -> None:
    """Measure every cell, print its tables and write explain.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Help)
    parser.add_argument("--cells", nargs="+", default=CELLS, metavar="DATA:NETWORK:SIDE", help=" ".join(CELLS))
    both = (GRAD_CAM, OCCLUSION)
    parser.add_argument("--methods", nargs="+", choices=both, default=both, metavar="NAME", help="default: both")
    parser.add_argument("--images", type=whole(2), default=60, help="a cell, at most (default: 60)")
    parser.add_argument("--epochs", type=whole(1), default=4, help="of the fine-tuning (default: 4)")
    parser.add_argument("--out", type=Path, default=Path("build"), metavar="DIR", help="default: build")
    arguments = parser.parse_args()
    arguments.out.mkdir(parents=True, exist_ok=True)
    results = []
    for cell in arguments.cells:
        results.append(measured(cell, arguments.methods, arguments.epochs, arguments.images, arguments.out))
        show(results[-1])
        write_json(arguments.out / "explain.json", {"environment": environment(), "results": results})


if __name__ == "__main__":
    main()
