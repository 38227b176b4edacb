"""One order of backbones from what is known of each before any fine-tuning. No weight in it is fitted to anything."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from reporting import statistics

Values = Mapping[str, float | None]

WORDS = {
    "probe": "the linear probe",
    "top1": "the ImageNet top-1 of the exact weights",
    "records": "the mean rank over your own records of other datasets",
}


@dataclass(frozen=True)
class Order:
    """Backbones in the order in which to try them."""

    names: list[str]  # best first
    mean_rank: dict[str, float]  # by name; 1 is best
    parts: list[str]  # what was used, of the keys of WORDS
    rule: str  # in words, for what was known here


def ranks(values: Values) -> dict[str, float]:
    """1 for the highest value; equal values share the mean of their places. None is left out."""
    known = {name: value for name, value in values.items() if value is not None}
    (of,) = statistics.ranks(np.array([list(known.values())], dtype=np.float64))
    return dict(zip(known, of.tolist(), strict=True))


def combined(probe: Values, top1: Values, records: Values, knn5: Values | None = None) -> Order:
    """The order of the backbones that `probe` names: by the mean of their ranks, as `rule` of the result has it.

    probe, knn5: accuracies; top1: ImageNet's, of the exact weights; records: mean ranks, 1 best, over other datasets.
    None or a missing name: not known. Ranks by top-1 among the k that have one, of n backbones, are stretched from
    1..k to 1..n; one alone is no order and not used. A backbone without a probe where others have one comes last by it:
    the images are the same, so that its features are at fault. Without any probe, the other parts are the rule, and a
    backbone without a top-1 takes its rank by records, or comes last.
    """
    names = sorted(probe)
    by_probe = _complete(ranks(probe), names) if any(probe[name] is not None for name in names) else {}
    known = {name: records.get(name) for name in names}
    by_records = ranks({name: -rank for name, rank in known.items() if rank is not None})
    if len(by_records) < len(names):
        by_records = {}
    top = ranks({name: top1.get(name) for name in names})
    by_top1: dict[str, float] = {}
    if len(top) > 1:
        stretch = (len(names) - 1) / (len(top) - 1)
        by_top1 = _complete(
            {name: 1 + (rank - 1) * stretch for name, rank in top.items()}, names, by_probe or by_records
        )
    used = {part: by for part, by in (("probe", by_probe), ("top1", by_top1), ("records", by_records)) if by}
    mean = {name: _mean([by[name] for by in used.values()]) for name in names}
    nearest = knn5 or {}
    names.sort(key=lambda name: (mean[name], _descending(probe[name]), _descending(nearest.get(name)), name))
    return Order(names, {name: mean[name] for name in names}, list(used), _words(list(used), len(names) - len(top)))


def _complete(by: dict[str, float], names: list[str], instead: Mapping[str, float] | None = None) -> dict[str, float]:
    """Ranks of all names: those without one take it from `instead`, or share the last places."""
    last = (len(by) + 1 + len(names)) / 2
    return {name: by[name] if name in by else (instead or {}).get(name, last) for name in names}


def _mean(of: list[float]) -> float:
    """The mean of ranks, 1 without any, to as many digits as are not lost by stretching: ties stay ties."""
    return round(sum(of) / len(of), 9) if of else 1.0


def _descending(value: float | None) -> float:
    return np.inf if value is None else -value


def _words(parts: list[str], without_top1: int) -> str:
    """The rule as it applied here."""
    if not parts:
        return "by name alone: neither a probe nor an ImageNet top-1 nor records of other datasets are known"
    if len(parts) == 1:
        text = f"the rank by {WORDS[parts[0]]}"
    else:
        text = f"the mean of the ranks by {', '.join(WORDS[part] for part in parts[:-1])} and {WORDS[parts[-1]]}"
    if "top1" in parts and without_top1:
        others = next(
            (f"take the rank by {WORDS[part]}" for part in ("probe", "records") if part in parts), "come last"
        )
        text += f"; {without_top1} without a known ImageNet top-1 {others}"
    return text
