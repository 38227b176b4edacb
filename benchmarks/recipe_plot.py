"""A picture of what recipes come to on val, by how often the training images have passed."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from benchmarks.time_to_accuracy import Runs, Trained, common_cells, of_data

COLOURS = {"adamw-sgd": "#b8b8b8", "cosine": "#f0b429", "fast": "#1f6f8b"}
OTHER = "#7a5195"


def best_so_far(run: Trained, passes: int) -> npt.NDArray[np.float64]:
    """Top-1 on val of the epoch that would be chosen after each of so many passes; after its end, that of its end."""
    best = np.maximum.accumulate(run.curve)
    return np.concatenate([best, np.full(max(0, passes - len(best)), best[-1])])[:passes]


def mean_curve(runs: Runs, passes: int) -> npt.NDArray[np.float64]:
    """best_so_far() in the mean over pairs of network and images, of means over seeds."""
    pairs: dict[tuple[str, str], list[npt.NDArray[np.float64]]] = {}
    for run in runs.values():
        pairs.setdefault(run.pair, []).append(best_so_far(run, passes))
    return np.mean([np.mean(curves, axis=0) for curves in pairs.values()], axis=0)  # type: ignore[no-any-return]


def draw(found: Mapping[str, Runs], recipes: Sequence[str], data: Sequence[str], path: Path) -> None:
    """Write the picture: a panel for each set of images, and one for all, of the cells that all recipes have."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    cells = common_cells(*(found[recipe] for recipe in recipes))
    data = [name for name in data if any(cell[1] == name for cell in cells)]
    figure = Figure(figsize=(9, 5.2), layout="constrained")
    FigureCanvasAgg(figure)
    axes = figure.subplots(2, -(-(len(data) + 1) // 2)).ravel()
    for axis, name in zip(axes, ("all", *data), strict=False):
        for recipe in recipes:
            runs: Runs = {cell: found[recipe][cell] for cell in cells}
            runs = of_data(runs, data if name == "all" else (name,))
            passes = int(np.median([len(run.curve) for run in runs.values()]))
            curve = 100 * mean_curve(runs, passes)
            colour = COLOURS.get(recipe, OTHER)
            axis.plot(np.arange(1, passes + 1), curve, color=colour, label=recipe, linewidth=2)
            axis.plot(passes, curve[-1], "o", color=colour, markersize=5)
        axis.set_xscale("log")
        axis.set_xticks([1, 2, 5, 10, 20, 50, 100], ["1", "2", "5", "10", "20", "50", "100"])
        axis.minorticks_off()
        axis.set_title(name, fontsize=10)
        axis.grid(color="#eeeeee")
        for side in ("top", "right"):
            axis.spines[side].set_visible(False)
    for axis in axes[len(data) + 1 :]:
        axis.set_visible(False)
    figure.supxlabel("passes of the training images", fontsize=10)
    figure.supylabel("top-1 on val of the best epoch so far, %", fontsize=10)
    axes[0].legend(frameon=False, fontsize=9, loc="lower right")
    figure.savefig(path, dpi=110)
