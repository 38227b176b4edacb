"""The report as one HTML file: the answer and the accuracy table as plain HTML, the rest drawn by the scripts in it."""

from __future__ import annotations

import base64
import gzip
import hashlib
import itertools
import json
import re
from collections.abc import Iterable, Mapping
from html import escape
from pathlib import Path
from typing import Any

from engine.errors import UserError, counted
from reporting import markup
from reporting.cells import fact_rows, metric_rows, parts

PAGE = Path(__file__).resolve().parent / "page"
# one scope; what the earlier define the later use
SCRIPTS = (
    "data",
    "plots",
    "labels",
    "tables",
    "answer",
    "cost",
    "before",
    "figures",
    "cell",
    "coverage",
    "mistakes",
    "provenance",
    "live",
    "page",
)
# of a cell; the page unpacks them when it looks at one cell
CURVES = ("curve", "loss")
DETAIL = ("runs", "recall", "coverage", "errors", "confusion_rest")
RANKING = ("backbones", "ranks", "mean", "caption")  # what the scripts use of one; markup.py has said the rest
QUESTION = "Which backbone should be fine-tuned?"


def render(report: Mapping[str, Any]) -> str:
    """The page for a report (the dict that reporting/build.py makes). Raises UserError where Plotly is not installed.

    Nothing in the report is taken for markup but `svg` of a ranking, which reporting/cd_diagram.py draws.
    """
    slim, packs = _packed(report)
    theme = f'"use strict";\n{_read("theme.js")}'
    page = "\n".join(_read(f"{name}.js") for name in SCRIPTS)
    scripts = [theme, _plotly(), f'"use strict";\n(() => {{\n{page}}})();']
    hashes = " ".join(f"'sha256-{_digest(script)}'" for script in scripts)
    # scripts run by their hashes only, so none that came with a record's text does; connect-src is for the live view
    policy = (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'"
    )
    groups = report["groups"]
    filled = {
        "policy": policy,
        "title": escape(f"{counted(report['records'], 'record')} of {report['runs']}"),
        "style": _read("page.css"),
        "theme": _script(theme),
        "facts": markup.facts(report),
        "question": QUESTION,
        "answer": markup.answer(groups[0], 0) if groups else markup.no_answer(report),
        "table": markup.accuracy(groups[0]) if groups else "",
        "templates": _templates(groups),
        "data": _data("report", slim) + "\n" + _data("packs", packs),
        "plotly": f'<script type="text/plain" id="plotly">{scripts[1]}</script>',
        "script": _script(scripts[2]),
    }
    text = re.sub(r"\{\{(\w+)\}\}", lambda match: filled[match[1]], _read("page.html"))
    return text.encode("utf-8", "replace").decode()  # file names need not be text, a page must be


def _templates(groups: Iterable[Mapping[str, Any]]) -> str:
    """What is said of each group and budget, by their places; the first answer stands in the page itself."""
    return "\n".join(
        f'<template id="{name}-{place}-{budget}">{written(group, budget)}</template>'
        for place, group in enumerate(groups)
        for budget in range(len(group["budgets"]))
        for name, written in (("answer", markup.answer), ("ranks", markup.ranks))
        if (name, place, budget) != ("answer", 0, 0)
    )


def _read(name: str) -> str:
    return (PAGE / name).read_text("utf-8")


def _plotly() -> str:
    try:
        from plotly.offline import get_plotlyjs
    except ImportError as problem:
        raise UserError(
            f"the page's plots need plotly, which can't be imported ({problem}).\n"
            "Install it: pip install -r requirements-report.txt"
        ) from problem
    return str(get_plotlyjs()).replace("\r\n", "\n")


def _digest(script: str) -> str:
    return base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()


def _script(text: str) -> str:
    return f"<script>{text}</script>"


def _data(name: str, content: Any) -> str:
    """JSON in a script element, in which no text of it can end the element or start another."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return f'<script type="application/json" id="{name}">{text}</script>'


def _packed(report: Mapping[str, Any]) -> tuple[dict[str, Any], list[str | dict[str, Any]]]:
    """The report without what only a look at one cell needs, and that: JSON, compressed, in base64, a text each.

    What the page shows first is there as it is: a browser that prints at once does not wait for it to be unpacked. The
    confusion matrix is kept as gaps between its cells, counted along its rows, which compresses best.
    """
    packs: list[str | dict[str, Any]] = []

    def pack(content: dict[str, Any], plain: bool) -> int:
        packs.append(content if plain else _compressed(content))
        return len(packs) - 1

    groups = []
    for group in report["groups"]:
        first = min(cell["d"] for cell in group["cells"] if cell["budget"] == 0)
        cells: list[dict[str, Any]] = []
        for cell in group["cells"]:
            at_first = group is report["groups"][0] and cell["budget"] == 0 and cell["d"] == first
            slim = {key: cell[key] for key in ("d", "b", "budget", "seeds", "folds", "provenance")}
            slim["parts"] = parts(cell, group["budgets"][cell["budget"]]["seeds"])
            curves = {key: cell[key] for key in CURVES}
            slim["curves"] = pack(curves, at_first) if any(curves.values()) else None
            dataset = group["datasets"][cell["d"]]
            texts = {"metrics": metric_rows(cell), "facts": fact_rows(cell, group["use"], dataset["test"])}
            gaps, counts = _gaps(cell["confusion"], len(dataset["classes"]))
            detail = {key: cell[key] for key in DETAIL} | texts | {"gaps": gaps, "counts": counts}
            slim["detail"] = pack(detail, at_first and cell["b"] == 0)
            cells.append(slim)
        groups.append({**group, "cells": cells, "budgets": [_slim_budget(group, of) for of in group["budgets"]]})
    return {**report, "groups": groups}, packs


def _compressed(content: Mapping[str, Any]) -> str:
    text = json.dumps(content, separators=(",", ":"), allow_nan=False)
    return base64.b64encode(gzip.compress(text.encode(), 6, mtime=0)).decode()


def _slim_budget(group: Mapping[str, Any], budget: Mapping[str, Any]) -> dict[str, Any]:
    rankings = {scope: budget["rankings"][scope] for scope in ("overall", *group["domains"])}
    slim = {scope: {part: ranking[part] for part in RANKING} for scope, ranking in rankings.items()}
    return {**budget, "rankings": slim, "unpaired": markup.unpaired_note(budget)}


def _gaps(confusion: Iterable[tuple[int, int, int]], classes: int) -> tuple[list[int], list[int]]:
    places, counts = [-1], []
    for row, column, images in sorted(confusion):
        places.append(row * classes + column)
        counts.append(images)
    return [after - before for before, after in itertools.pairwise(places)], counts
