"""What was scored -> the order, the table that is printed, and the result that is kept for the report."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from common import BACKBONES
from engine.console import duration, table
from engine.models.backbone import WEIGHTS, stated_top1
from engine.models.weights import find_member
from ranking.scored import Scored, Scoring

SHOWN = {"probe": "{:.1%}", "knn1": "{:.1%}", "knn5": "{:.1%}", "logme": "{:.3f}", "hscore": "{:.2f}"}
HEADS = {"probe": "probe", "knn1": "1-NN", "knn5": "5-NN", "logme": "LogME", "hscore": "H-score"}
TOP = 3  # that are worth fine-tuning: the best of so many is hardly ever worse than the best of all


def score_table(scoring: Scoring, names: Sequence[str]) -> list[str]:
    """A line a backbone, in that order."""
    by_name = {each.name: each for each in scoring.scored}
    rows = [("", "backbone", *HEADS.values(), "ImageNet", "images/s", "full run")]
    for place, name in enumerate(names, 1):
        each = by_name[name]
        values = [_shown(key, each.values[key]) for key in SHOWN]
        speed = each.about.train_images_per_second
        cost = ("-", "-") if speed is None else (f"{speed:,.1f}", duration(full_seconds(each, scoring)))
        rows.append((f"{place}.", name, *values, _top1(each), *cost))
    return table(rows).split("\n")


def _shown(name: str, value: float | None) -> str:
    return "-" if value is None else SHOWN[name].format(value)


def top1_of(scored: Scored) -> float | None:
    """ImageNet top-1 of the very weights, percent; None where nobody states it."""
    backbone, choice = BACKBONES[scored.name], scored.candidate.cell.config.weights
    if scored.weights.sha256 is None or Path(choice).is_file():
        return None
    usual = choice in WEIGHTS
    return stated_top1(backbone.pretrained if usual else find_member(backbone, choice))


def _top1(scored: Scored) -> str:
    top1 = top1_of(scored)
    return "-" if top1 is None else f"{top1:.1f} %"


def full_seconds(scored: Scored, scoring: Scoring) -> float:
    """About how long the epochs of the whole recipe take; 0 where the speed is not known."""
    speed = scored.about.train_images_per_second
    return (scored.recipe.epochs or 0) * len(scoring.train) / speed if speed else 0.0
