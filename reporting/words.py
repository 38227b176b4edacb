"""How names, numbers and budgets are put into sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from engine.training.metrics import METRICS
from reporting.entry import ALL_IMAGES, Budget

Shown = Mapping[str, Any]  # a part of the report that build.py makes

MOST_NAMED = 5
OWN = "own"  # the domain of datasets that whoever runs this brought along


def capital(text: str) -> str:
    """The text with its first letter as at the beginning of a sentence."""
    return text[:1].upper() + text[1:]


def listed(names: Sequence[str], most: int = MOST_NAMED) -> str:
    """Names in a row; of many, the first few and how many more."""
    if len(names) > most + 1:
        return f"{', '.join(names[:most])} and {len(names) - most:,} more"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def p_text(p: float) -> str:
    """A p-value in words."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def budget_words(budget: Budget) -> str:
    """A budget as a sentence has it."""
    if budget == ALL_IMAGES:
        return "all training images"
    return f"{budget} images" if budget.shots is None else f"{budget} a class"


def data_words(scope: str) -> str:
    """The data of a scope; "" for "overall"."""
    return {"overall": "", OWN: "your own data"}.get(scope, f"{scope} data")


def metric_text(name: str, value: float) -> str:
    """A metric's value as it is shown: with its digits, a share in percent."""
    metric = METRICS[name]
    return f"{100 * value if metric.percent else value:.{metric.digits}f}"


def points(share: float) -> float:
    """A difference of shares in percentage points, as it is shown."""
    return round(100 * share, 2)


def three_digits(value: float) -> float:
    """The number rounded to three significant digits; from 1,000, to a whole one."""
    return float(f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}")


def number_text(value: float) -> str:
    """A number that has been rounded, with commas."""
    return f"{value:,.15g}"
