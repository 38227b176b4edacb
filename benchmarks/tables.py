"""What a comparison of training speed found, as text and as a picture."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engine.console import say, table

# a ratio -> the columns whose medians it compares
RATIOS = {
    "gain": ("ours", "plain"),
    "of_ceiling": ("ours", "ceiling"),
    "loader": ("step", "plain"),
    "form": ("ceiling", "step"),
}
HEADS = {"gain": "ours/plain", "of_ceiling": "ours/ceiling"}
NONE = "-"
# where a bar is, what it is of, and its colour
BARS = ((-0.26, "plain", "#b8b8b8"), (0, "ours", "#1f6f8b"), (0.26, "ceiling", "#f0b429"))

Results = Mapping[str, Mapping[str, Any]]  # of each backbone


def medians(result: Mapping[str, Any]) -> dict[str, float]:
    """Of each column that was measured and did not fail, images/s."""
    rates = {column: values for column, values in result["images_per_second"].items() if values}
    return {column: statistics.median(values) for column, values in rates.items() if column not in result["failed"]}


def ratios(result: Mapping[str, Any]) -> dict[str, float]:
    """How the medians compare, as far as they are there: with the plain way, with the ceiling, ..."""
    middle = medians(result)
    return {
        name: middle[upper] / middle[lower]
        for name, (upper, lower) in RATIOS.items()
        if upper in middle and lower in middle
    }


def geometric_mean(results: Results, ratio: str) -> float | None:
    """Over the backbones that have the ratio; None where none has."""
    found = [result["ratios"][ratio] for result in results.values() if ratio in result["ratios"]]
    return statistics.geometric_mean(found) if found else None


def speed_table(results: Results, columns: Sequence[str]) -> str:
    """A row a backbone, and one of geometric means; a dash is what was not measured, and below the table is why."""
    shown = [ratio for ratio in HEADS if set(RATIOS[ratio]) <= set(columns)]
    roofed = any("roofs" in result for result in results.values())
    heads = ["backbone", *(f"{column} (range)" for column in columns), *map(HEADS.__getitem__, shown)]
    heads += [*(("MFU", "roof (of it)") if roofed else ()), "waits", "plan took", "peak MiB", "form"]
    rows = [tuple(heads)]
    for name, result in results.items():
        middle, peak = medians(result), result["peak_memory_mib"].get("ours")
        cells = [
            f"{middle[column]:,.2f} ({min(values):,.2f}-{max(values):,.2f})" if column in middle else NONE
            for column, values in result["images_per_second"].items()
        ]
        cells += [_number(result["ratios"].get(ratio), digits) for ratio, digits in zip(shown, (2, 3), strict=False)]
        if roofed:
            cells += _roof_cells(result)
        waits = result.get("data_wait_share")
        cells.append(f"{statistics.median(waits):.1%}" if waits else NONE)
        cells += [f"{result['plan_seconds']:.1f} s" if "plan_seconds" in result else NONE, _number(peak, 0)]
        rows.append((name, *cells, result.get("form", NONE)))
    means = [_number(geometric_mean(results, ratio), digits) for ratio, digits in zip(shown, (2, 3), strict=False)]
    blank = [""] * (len(heads) - 1 - len(columns) - len(means))
    if means:
        rows.append(("geometric mean", *("" for _ in columns), *means, *blank))
    return "\n".join([table(rows), *notes(results)])


def _roof_cells(result: Mapping[str, Any]) -> list[str]:
    """Model FLOP utilisation, and the lowest roof with the share of it that was reached."""
    if "roofs" not in result:
        return [NONE, NONE]
    bound, roof = min(result["roofs"].items(), key=lambda item: float(item[1]))
    column = next(iter(result["mfu"]), None)  # ours, else the ceiling
    share = f" ({medians(result)[column] / roof:.1%})" if column else ""
    return [f"{result['mfu'][column]:.1%}" if column else NONE, f"{bound} {roof:,.0f}/s{share}"]


def _number(value: float | None, digits: int) -> str:
    return NONE if value is None else f"{value:,.{digits}f}"


def notes(results: Results) -> list[str]:
    """Why there is no figure, and what was cut short: a line each."""
    lines = [f"{name} {column}: {why}" for name, each in results.items() for column, why in each["failed"].items()]
    return lines + [f"{name}: {each['late']}" for name, each in results.items() if each["late"]]


def plot(results: Results, columns: Sequence[str], title: str, path: Path) -> bool:
    """Bars of plain, ours and ceiling for each backbone; whether that could be drawn, and there was something to be."""
    bars_of = [bar for bar in BARS if bar[1] in columns]
    if not bars_of:
        return False
    try:
        import matplotlib as mpl

        mpl.use("agg")
        from matplotlib import pyplot as plt
    except ImportError:
        say("no plot: pip install matplotlib")
        return False
    figure, axes = plt.subplots(figsize=(8, 0.5 * len(results) + 1.8), layout="constrained")
    places = np.arange(len(results))
    for offset, column, colour in bars_of:
        rates = [medians(result).get(column, 0.0) for result in results.values()]
        bars = axes.barh(places + offset, rates, 0.24, label=column, color=colour)
        axes.bar_label(bars, [f"{rate:,.1f}" if rate else NONE for rate in rates], padding=3, fontsize=8)
    gains = {name: result["ratios"].get("gain") for name, result in results.items()}
    axes.set_yticks(places, [f"{name}  {gain:.1f}x" if gain else name for name, gain in gains.items()])
    axes.invert_yaxis()
    axes.margins(x=0.1)
    axes.set_xlabel("training images/s; beside the name: ours / plain")
    axes.set_title(title, fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False, loc="lower right")
    figure.savefig(path, dpi=150)
    plt.close(figure)
    return True
