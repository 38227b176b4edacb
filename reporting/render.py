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

from engine.errors import UserError
from reporting.answers import capital

PAGE = Path(__file__).resolve().parent / "page"
# one scope; what the earlier define the later use
SCRIPTS = ("data", "plots", "tables", "answer", "cost", "figures", "cell", "provenance", "live", "page")
# of a cell; the page unpacks them when it looks at one cell
CURVES = ("curve", "loss")
DETAIL = ("values", "runs", "recall", "errors", "confusion_rest")
ABSENT = "\N{EN DASH}"
QUESTION = "Which backbone should be fine-tuned?"


def render(report: Mapping[str, Any]) -> str:
    """The page for a report (the dict that reporting/model.py makes). Raises UserError where Plotly is not installed.

    Nothing in the report is taken for markup but `svg` of a ranking, from which the page removes what could run.
    """
    slim, packs = _packed(report)
    early = f'"use strict";\n{_read("early.js")}'
    page = "\n".join(_read(f"{name}.js") for name in SCRIPTS)
    scripts = [early, _plotly(), f'"use strict";\n(() => {{\n{page}}})();']
    hashes = " ".join(f"'sha256-{_digest(script)}'" for script in scripts)
    # scripts run by their hashes only, so none that came with a record's text does; connect-src is for the live view
    policy = (
        f"default-src 'none'; script-src {hashes}; style-src 'unsafe-inline'; img-src data: blob:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'"
    )
    first = report["leagues"][0] if report["leagues"] else None
    parts = {
        "policy": policy,
        "title": escape(f"{report['records']:,} records of {report['runs']}"),
        "style": _read("page.css"),
        "early": _script(early),
        "made": _made(report),
        "question": QUESTION,
        "answer": _answer(first) if first else _no_answer(report),
        "table": _accuracy(first) if first else "",
        "data": _data("report", slim) + "\n" + _data("packs", packs),
        "plotly": f'<script type="text/plain" id="plotly">{scripts[1]}</script>',
        "script": _script(scripts[2]),
    }
    text = re.sub(r"\{\{(\w+)\}\}", lambda match: parts[match[1]], _read("page.html"))
    return text.encode("utf-8", "replace").decode()  # file names need not be text, a page must be


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


def _packed(report: Mapping[str, Any]) -> tuple[dict[str, Any], list[str]]:
    """The report without what only a look at one cell needs, and that: JSON, compressed, in base64, a text each.

    The confusion matrix is kept as gaps between its cells, counted along its rows, which compresses best.
    """
    packs: list[str] = []

    def pack(content: Mapping[str, Any]) -> int:
        text = json.dumps(content, separators=(",", ":"), allow_nan=False)
        packs.append(base64.b64encode(gzip.compress(text.encode(), 6, mtime=0)).decode())
        return len(packs) - 1

    leagues = []
    for league in report["leagues"]:
        cells = []
        for cell in league["cells"]:
            slim = {key: value for key, value in cell.items() if key not in (*CURVES, *DETAIL, "confusion")}
            curves = {key: cell.get(key) or [] for key in CURVES}
            slim["curves"] = pack(curves) if any(curves.values()) else None
            gaps, counts = _gaps(cell.get("confusion") or [], len(league["datasets"][cell["d"]]["classes"]))
            slim["detail"] = pack({key: cell.get(key) for key in DETAIL} | {"gaps": gaps, "counts": counts})
            cells.append(slim)
        leagues.append({**league, "cells": cells})
    return {**report, "leagues": leagues}, packs


def _gaps(confusion: Iterable[tuple[int, int, int]], classes: int) -> tuple[list[int], list[int]]:
    places, counts = [-1], []
    for row, column, images in sorted(confusion):
        places.append(row * classes + column)
        counts.append(images)
    return [after - before for before, after in itertools.pairwise(places)], counts


def _made(report: Mapping[str, Any]) -> str:
    facts = [f"{report['records']:,} records of <code>{escape(report['runs'])}</code>"]
    facts.append(
        f'<time datetime="{escape(report["made"])}">{escape(report["made"][:16].replace("T", " "))} UTC</time>'
    )
    if report["commit"]:
        facts.append(f"commit <code>{escape(report['commit'][:8])}</code>")
    return ", ".join(facts)


def _no_answer(report: Mapping[str, Any]) -> str:
    apart = len(report["apart"])
    return (
        '<p class="answer open">Not enough evidence: no record can be ranked.</p>'
        f'<div class="missing"><p>What is missing:</p><ul><li>Finished runs on whole data. Of {report["records"]:,} '
        f"records, {apart:,} are listed apart below, with the reason.</li></ul></div>"
    )


def _answer(league: Mapping[str, Any]) -> str:
    """As answer.js writes it for the first budget."""
    scopes = league["rankings"].get("0", league["rankings"].get(0, {}))
    title = f"{capital(league['title'])}. {capital(budget_words(league['budgets'][0]))}."
    text = f'<p class="league">{escape(title)}</p>'
    text += "".join(f'<p class="warning">{escape(capital(warning))}.</p>' for warning in league["warnings"])
    if "overall" in scopes:
        text += _finding(scopes["overall"], "answer")
    else:
        text += '<p class="answer open">Not enough evidence: no records.</p>'
    domains = "".join(
        f'<section class="{"domain" if scopes[domain]["enough"] else "domain open"}">'
        f"<h2>{escape(capital(domain))}</h2>{_finding(scopes[domain], 'domain-answer')}</section>"
        for domain in league["domains"]
        if domain in scopes
    )
    return f'{text}<div class="domains">{domains}</div>'


def _finding(ranking: Mapping[str, Any], name: str) -> str:
    split = re.match(r"(.+?\.) (.+)$", ranking["answer"], re.DOTALL)
    answer = escape(ranking["answer"])
    if split:
        answer = f'{escape(split[1])}<span class="rest"> {escape(split[2])}</span>'
    enough = ranking["enough"]
    evidence = f'<ul class="evidence">{_items(ranking["evidence"])}</ul>' if ranking["evidence"] else ""
    missing = ""
    if ranking["missing"]:
        what = "What would make it surer:" if enough else "What is missing:"
        missing = f'<div class="missing"><p>{what}</p><ul>{_items(ranking["missing"])}</ul></div>'
    text = f'<p class="{name if enough else name + " open"}">{answer}</p>'
    if name == "answer":
        return text + evidence + missing
    folded = evidence + (missing if enough else "")
    details = f"<details><summary>Evidence</summary>{folded}</details>" if folded else ""
    return text + ("" if enough else missing) + details


def _items(texts: Iterable[str]) -> str:
    return "".join(f"<li>{escape(text)}</li>" for text in texts)


def _accuracy(league: Mapping[str, Any]) -> str:
    """The accuracy table of the first budget, which the scripts replace by one that sorts."""
    cells = {(cell["d"], cell["b"]): cell for cell in league["cells"] if cell["budget"] == 0}
    datasets = [d for d in range(len(league["datasets"])) if any(place[0] == d for place in cells)]
    head = "".join(f'<th scope="col" class="number">{escape(league["datasets"][d]["name"])}</th>' for d in datasets)
    average = len(datasets) > 1
    rows = []
    for b, backbone in enumerate(league["backbones"]):
        row = [cells.get((d, b)) for d in datasets]
        boxes = "".join(f'<td class="number">{_cell(cell)}</td>' for cell in row)
        if average:
            whole = [cell["mean"]["top1"] for cell in row if cell and cell["mean"]["top1"] is not None]
            text = f"{100 * sum(whole) / len(whole):.2f}" if whole and len(whole) == len(row) else ABSENT
            boxes += f'<td class="number average">{text}</td>'
        rows.append(f'<tr><th scope="row" class="name">{escape(backbone["name"])}</th>{boxes}</tr>')
    last = '<th scope="col" class="number average">Average</th>' if average else ""
    caption = (
        f"Test top-1 in %, mean over seeds ± half the 95 % interval. {capital(budget_words(league['budgets'][0]))}."
    )
    return (
        f'<div class="scroll" role="region" tabindex="0" aria-label="Accuracy table"><table><caption>{escape(caption)}'
        f'</caption><thead><tr><th scope="col" class="name">Backbone</th>{head}{last}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table></div>"
        '<p class="legend"><span><b>Bold</b>: best of the dataset</span> <span><u>underlined</u>: not significantly '
        "below it (Holm-corrected t tests over seeds, paired where five are shared)</span></p>"
    )


def _cell(cell: Mapping[str, Any] | None) -> str:
    if cell is None or cell["mean"]["top1"] is None:
        return f'<span class="absent">{ABSENT}</span>'
    mean = cell["mean"]["top1"]
    tag = {"best": "b", "tied": "u"}.get(cell["mark"], "span")
    text = f'<{tag} class="value">{100 * mean:.2f}</{tag}>'
    low, high = ((cell[end] or {}).get("top1") for end in ("low", "high"))
    if low is not None and high is not None:
        half = max(mean - low, high - mean)
        text += f"<small> ± {100 * half:.2f}</small>"
    return text


def budget_words(budget: str) -> str:
    """A budget as a sentence has it."""
    if budget == "all":
        return "all training images"
    return f"{budget} a class" if budget.endswith("shots") else f"{budget} images"
