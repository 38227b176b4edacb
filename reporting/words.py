"""How names, numbers and budgets are put into sentences."""

from __future__ import annotations

from collections.abc import Sequence

from reporting.entry import ALL_IMAGES

MOST_NAMED = 5
OWN = "own"  # the domain of datasets that whoever runs this brought along


def capital(text: str) -> str:
    """The text with its first letter as at the beginning of a sentence."""
    return text[:1].upper() + text[1:]


def count(number: int, noun: str) -> str:
    """So many of something, in the singular or the plural."""
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def listed(names: Sequence[str], most: int = MOST_NAMED) -> str:
    """Names in a row; of many, the first few and how many more."""
    if len(names) > most + 1:
        return f"{', '.join(names[:most])} and {len(names) - most:,} more"
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def p_text(p: float) -> str:
    """A p-value in words."""
    return "p < 0.001" if p < 0.001 else f"p = {p:.3f}"


def budget_words(budget: str) -> str:
    """A budget as a sentence has it."""
    if budget == ALL_IMAGES:
        return "all training images"
    return f"{budget} a class" if budget.endswith("shots") else f"{budget} images"


def data_words(scope: str) -> str:
    """The data of a scope; "" for "overall"."""
    return {"overall": "", OWN: "your own data"}.get(scope, f"{scope} data")


def three_digits(value: float) -> str:
    """A number to three significant digits; a whole one from 1,000."""
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{float(f'{value:.3g}'):g}"
