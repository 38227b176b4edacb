"""The report as one dict of plain values, rounded to what is shown: what the page draws and the tables print."""

from __future__ import annotations

import subprocess
from collections.abc import Sequence
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np

from reporting import cells, leagues, published, ranking
from reporting.collect import Collected
from reporting.entry import clean
from reporting.leagues import League

SMALL = 250  # cells of a report that shows the learning curves of every budget
MOST_CONFUSIONS = 600_000  # pairs of classes in all confusion matrices together


def build(collected: Collected, runs: Path, thumbnails: bool = True) -> dict[str, Any]:
    """The whole report. Of a run's further files, `skipped` has what can't be read, `no_curve` the runs without one."""
    divided, apart = leagues.divide(collected.entries)
    count = sum(len(league.cells) for league in divided)
    limits = cells.Limits(
        thumbnails=thumbnails,
        pictures=sum(cell.budget == league.budgets[0] for league in divided for cell in league.cells.values()),
        all_curves=count <= SMALL,
        confusions=MOST_CONFUSIONS // max(1, count),
    )
    skipped = list(collected.skipped)
    no_curve: list[dict[str, str]] = []
    return {
        "made": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "runs": clean(str(runs)),
        "commit": _commit(),
        "records": len(collected.entries),
        "leagues": [_league(league, limits, skipped, no_curve) for league in divided],
        "apart": apart,
        "skipped": sorted(skipped, key=lambda line: line["path"]),
        "no_curve": sorted(no_curve, key=lambda line: line["run"]),
        "failed": collected.failed,
    }


def _league(
    league: League, limits: cells.Limits, skipped: list[dict[str, str]], no_curve: list[dict[str, str]]
) -> dict[str, Any]:
    terms = league.terms
    scopes = ("overall", *published.in_order({*published.DOMAINS, *league.domains.values()}, published.DOMAINS))
    rankings = {
        str(index): {scope: ranking.ranking(league, budget, scope) for scope in scopes}
        for index, budget in enumerate(league.budgets)
    }
    shown, makings = cells.shown(league, limits, skipped, no_curve)
    return {
        "id": leagues.identity(terms),
        "title": leagues.title(terms),
        "protocol": terms.protocol,
        "recipe": terms.recipe,
        "weights": terms.weights,
        "settings": leagues.settings(terms),
        "warnings": leagues.warnings(league.terms),
        "notes": leagues.notes(league),
        "budgets": league.budgets,
        "domains": published.in_order(set(league.domains.values()), published.DOMAINS),
        "datasets": [_dataset(league, key) for key in league.datasets],
        "backbones": [_backbone(league, name) for name in league.backbones],
        "cells": shown,
        "makings": makings,
        "rankings": rankings,
        "pairs": {str(index): ranking.pairs(league, budget) for index, budget in enumerate(league.budgets)},
        "published": published.beside_ours(rankings["0"]) if terms.protocol == "paper" else None,
    }


def _dataset(league: League, key: str) -> dict[str, Any]:
    entries = [entry for entry in league.entries if entry.version.key == key]
    first = entries[0]
    return {
        "key": key,
        "name": first.name,
        "domain": first.domain,
        "classes": list(first.version.classes),
        "train": first.train_images,
        "test": first.version.test_images,
        "published": first.published,
    }


def _backbone(league: League, name: str) -> dict[str, Any]:
    entries = [entry for entry in league.entries if entry.backbone == name]
    return {
        "name": name,
        "parameters": round(float(np.median([entry.parameters for entry in entries]))),
        "macs": round(float(np.median([entry.macs for entry in entries]))),
    }


def _commit() -> str | None:
    """This project's checkout's; None outside one."""
    command: Sequence[str] = ["git", "rev-parse", "--short=10", "HEAD"]
    try:
        answer = subprocess.run(command, cwd=Path(__file__).parent, capture_output=True, text=True, timeout=10)  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None
