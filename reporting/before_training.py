"""The report's section on scores before training: what rank.py said of backbones, beside what fine-tuning then gave."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from engine.console import duration
from reporting import agreement_words, searches
from reporting.agreement import FIRSTS, ORDER, PRIOR, Assessment, Interval, Measure, assess, scores_of
from reporting.entry import Entry
from reporting.rank_results import Found, RankedBackbone
from reporting.search_results import Candidate, Rung, Search
from reporting.words import number_text, three_digits

ELSEWHERE = "elsewhere"  # the mean rank over the user's own records of other datasets
DIGITS = {ORDER: 0, PRIOR: 2, ELSEWHERE: 1, "knn1": 2, "knn5": 2, "probe": 2, "logme": 4, "hscore": 3}  # decimals
SHARES = ("knn1", "knn5", "probe")  # that are shown in percent
AXES = {
    ORDER: "place in rank.py's order",
    PRIOR: "ImageNet top-1 of the weights, %",
    ELSEWHERE: "mean rank in your records of other datasets",
    "knn1": "1-nearest neighbour, leave one out, %",
    "knn5": "5-nearest neighbours, leave one out, %",
    "probe": "linear probe, cross-validated, %",
    "logme": "LogME, nats an image",
    "hscore": "H-score",
}
LESS_IS_BETTER = (ORDER, ELSEWHERE)


def before_training(found: Sequence[Found], entries: Iterable[Entry]) -> dict[str, Any]:
    """The section's content, a result of rank.py each; `entries` as reporting/truth.py takes them."""
    entries = list(entries) if found else []
    return {
        "labels": agreement_words.LABELS | {ELSEWHERE: "mean rank elsewhere"},
        "axes": AXES,
        "less_is_better": list(LESS_IS_BETTER),
        "results": [_result(each, assess(each.result, entries)) for each in found],
    }


def _result(found: Found, assessment: Assessment) -> dict[str, Any]:
    result = found.result
    data = result.dataset
    backbones = {backbone.name: backbone for backbone in result.backbones}
    scores = scores_of(result)
    rows = [_row(backbones[name], place, assessment) for place, name in enumerate(result.order, 1)]
    return {
        "name": data.name,
        "path": found.path,
        "facts": f"{data.train_images:,} training images, {data.classes:,} classes, {data.size[0]}x{data.size[1]} "
        f"pixels; no test image was looked at. Made {result.made[:16].replace('T', ' ')} UTC.",
        "rule": result.rule,
        "rows": rows,
        "kinds": [kind for kind in AXES if any(row["values"][kind] is not None for row in rows)],
        "measured": bool(assessment.measured),
        "seeds": _seeds(assessment),
        "sentences": agreement_words.sentences(assessment),
        "agreements": [_agreement(kind, assessment.measures[kind]) for kind in scores if kind in assessment.measures],
        "left_out": [{"what": line["name"], "why": line["reason"]} for line in result.left_out],
        "notes": list(result.notes),
        "search": _search(found.search) if found.search else None,
    }


def _seeds(assessment: Assessment) -> str:
    """Of how many seeds what was measured is the mean."""
    if not assessment.truth:
        return ""
    fewest, most = assessment.truth.seeds
    return f"{most}" if fewest == most else f"{fewest} to {most}"


def _row(backbone: RankedBackbone, place: int, assessment: Assessment) -> dict[str, Any]:
    of = {ORDER: place, PRIOR: backbone.top1, ELSEWHERE: backbone.mean_rank_elsewhere, **backbone.scores}
    values = {
        kind: None if value is None else round(value * (100 if kind in SHARES else 1), DIGITS[kind])
        for kind, value in of.items()
    }
    measured = assessment.measured.get(backbone.name)
    texts = {kind: f"{value:.{DIGITS[kind]}f}" for kind, value in values.items() if value is not None}
    speed = backbone.train_images_per_second
    return {
        "name": backbone.name,
        "values": values,
        "texts": texts,
        "measured": [round(end, 2) for end in (measured.value, measured.low, measured.high)] if measured else None,
        "pass": None if backbone.pass_seconds is None else round(backbone.pass_seconds, 1),
        "speed": None if speed is None else three_digits(speed),
    }


def _agreement(kind: str, measure: Measure) -> dict[str, Any]:
    """How a score agrees with fine-tuning, as texts; None where that can't be said."""

    def shown(interval: Interval | None, digits: int) -> list[str] | None:
        if interval is None:
            return None
        return [agreement_words.number(end, digits) for end in (interval.value, interval.low, interval.high)]

    return {
        "name": agreement_words.LABELS[kind],
        "backbones": measure.backbones,
        "tau": shown(measure.tau, 2),
        "regret": [shown(measure.regret.get(k), 1) for k in FIRSTS],
    }


def _search(search: Search) -> dict[str, Any]:
    said = [searches.recommended(search)] if search.recommendation else []
    spent = [f"It took {duration(search.spent_seconds)}."] if search.spent_seconds else []
    budget = [f"Budget: {search.budget}."] if search.budget else []
    return {
        "sentences": [*said, *searches.cost(search), *spent, *budget, *searches.ended(search)],
        "command": search.command,
        "rungs": [_rung(rung, place) for place, rung in enumerate(search.rungs, 1)],
    }


def _rung(rung: Rung, place: int) -> dict[str, Any]:
    best_first = sorted(rung.candidates, key=lambda each: -1.0 if each.score is None else each.score, reverse=True)
    return {
        "name": f"Rung {place}",
        "epochs": None if rung.epochs is None else number_text(rung.epochs),
        "candidates": [_candidate(each, rung) for each in best_first],
    }


def _candidate(candidate: Candidate, rung: Rung) -> dict[str, Any]:
    ends = [end for end in (candidate.low, candidate.high) if end is not None]
    return {
        "name": candidate.name,
        "score": None if candidate.score is None else f"{100 * candidate.score:.1f}",
        "interval": f"{100 * ends[0]:.1f} to {100 * ends[1]:.1f}" if ends[1:] else None,
        "status": candidate.status,
        "kept": candidate.name in rung.kept,
    }
