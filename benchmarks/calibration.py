"""What a temperature is worth that is fitted on few images: by the predictions of finished runs.

python benchmarks/calibration.py RUN [RUN ...] [--draws 100]

Of each run's test images some are drawn to fit the temperature, as a validation part would; the others judge it. Three
ways: none (the logits as they are); the least NLL of the drawn images (Guo et al. 2017); and that of the project, which
counts half an image more as wrong (engine/training/calibration.py).
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from engine.cli import Help, whole
from engine.console import say, table
from engine.records.schema import PREDICTIONS
from engine.training.calibration import HIGHEST, LOWEST, fitted_temperature, scaled
from engine.training.metrics import METRICS, Labels, Logits, Predictions

SIZES = (10, 20, 50, 100)  # images that are drawn, of at least twice as many


def least_nll(predictions: Predictions) -> float:
    """The temperature of the least NLL, of those that the project's own lies between."""
    from scipy.optimize import minimize_scalar

    def nll(log_temperature: float) -> float:
        at = Predictions(scaled(predictions.logits, float(np.exp(log_temperature))), predictions.labels)
        return METRICS["nll"].compute(at) or 0.0

    bounds = np.log([LOWEST, HIGHEST])
    return float(np.exp(minimize_scalar(nll, bounds=bounds, method="bounded").x))


WAYS: dict[str, Callable[[Predictions], float]] = {
    "none": lambda _: 1.0,
    "least NLL": least_nll,
    "and half an image": fitted_temperature,
}


def rows(run: Path, draws: int) -> list[tuple[str, ...]]:
    """A line of the table for each number of images."""
    with np.load(run / PREDICTIONS) as kept:
        logits, labels = kept["logits"], kept["labels"]
    name = "/".join(run.absolute().parts[-3:-1])
    sizes = [images for images in SIZES if 2 * images <= len(labels)]
    return [(name, f"{images}", *scores_of(logits, labels, images, draws)) for images in sizes]


def scores_of(logits: Logits, labels: Labels, images: int, draws: int) -> list[str]:
    """The mean and the worst NLL of the images that were not drawn, and the mean ECE, by each way."""
    random = np.random.default_rng(0)
    scores = []
    for _ in range(draws):
        order = random.permutation(len(labels))
        drawn, rest = order[:images], order[images:]
        temperatures = [fit(Predictions(logits[drawn], labels[drawn])) for fit in WAYS.values()]
        judged = [Predictions(scaled(logits[rest], each), labels[rest]) for each in temperatures]
        scores.append([[METRICS[name].compute(each) or 0.0 for name in ("nll", "ece")] for each in judged])
    nll, ece = np.moveaxis(np.array(scores), 2, 0)
    return [
        f"{mean:.3f} (worst {worst:.3f}), ECE {error:.1%}"
        for mean, worst, error in zip(nll.mean(axis=0), nll.max(axis=0), ece.mean(axis=0), strict=True)
    ]


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Help)
    parser.add_argument("runs", nargs="+", type=Path, metavar="RUN", help="folders of finished runs")
    parser.add_argument("--draws", type=whole(1), default=100, metavar="N", help="default: 100")
    arguments = parser.parse_args()
    say(table([("run", "drawn", *WAYS), *(row for run in arguments.runs for row in rows(run, arguments.draws))]))


if __name__ == "__main__":
    main()
