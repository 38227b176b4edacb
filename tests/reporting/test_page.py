"""reporting/render.py and markup.py: one file that holds all, in which no text of a record is taken for markup."""

import base64
import gzip
import hashlib
import html
import json
import re
import sys
from html.parser import HTMLParser
from typing import Any

import pytest

from engine.errors import UserError
from reporting import markup
from reporting.entry import ALL_IMAGES
from reporting.render import PAGE, render
from reporting.words import capital
from tests.reporting import pages

HOSTILE = """</script><script>window.bad = 1</script><img src=x onerror="window.bad = 2">'"&amp;<!--"""
HOSTILE_ADVICE = {
    "headline": HOSTILE,
    "more": [HOSTILE],
    "taken": {"backbone": HOSTILE, "path": HOSTILE, "why": HOSTILE},
    "commands": [{"why": HOSTILE, "command": HOSTILE}],
}
VOID = {"meta", "link", "br", "img", "input"}


class Outline(HTMLParser):
    """The elements of a page, each script's and style's text apart; complains of what is not closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.scripts: list[tuple[dict[str, str | None], str]] = []
        self.words: list[str] = []

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.found.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, text: str) -> None:
        if self.open and self.open[-1] == "script":
            self.scripts.append((self.found[-1][1], text))
        elif self.open and self.open[-1] != "style":
            self.words.append(text)


def outline(report: dict[str, Any]) -> Outline:
    found = Outline()
    found.feed(render(report))
    found.close()
    assert not found.open
    return found


def embedded(found: Outline) -> dict[str, Any]:
    data = [(attributes, text) for attributes, text in found.scripts if attributes.get("type") == "application/json"]
    return {str(attributes["id"]): json.loads(text) for attributes, text in data}


def test_without_scripts_the_answer_and_the_accuracy_table_read() -> None:
    report = pages.report()
    found = outline(report)
    words = " ".join(" ".join(found.words).split())
    group = report["groups"][0]
    for scope in ("overall", *pages.DOMAINS):
        assert group["budgets"][0]["rankings"][scope]["answer"] in words
    assert "2 more datasets for rank tests, which take 5" in words
    cell = next(cell for cell in group["cells"] if cell["marks"].get("top1") == "best")
    text = render(report)
    low, high = (100 * end for end in cell["of_test"])
    half = f"<small> ± {100 * cell['half']['top1']:.2f}</small><small> [{low:.1f}, {high:.1f}]</small>"
    assert f'<td class="number"><b>{100 * cell["mean"]["top1"]:.2f}</b>{half}</td>' in text
    assert '<td class="number"><u>' in text
    heads = [attributes for tag, attributes in found.found if tag == "th"]
    assert len(heads) == 1 + 8 + 1 + 6
    assert all(attributes["scope"] in ("row", "col") for attributes in heads)


def test_one_file_that_runs_its_own_scripts_only() -> None:
    found = outline(pages.report())
    for tag, attributes in found.found:
        assert tag not in ("iframe", "object", "embed", "base")
        assert "src" not in attributes
        assert not (attributes.get("href") or "#").startswith("http")
        assert not any(name.startswith("on") for name in attributes)
    policy = next(text["content"] for tag, text in found.found if text.get("http-equiv") == "Content-Security-Policy")
    running = [text for attributes, text in found.scripts if attributes.get("type") != "application/json"]
    assert len(running) == 3
    hashes = [base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in running]
    assert re.findall(r"'sha256-([^']+)'", policy or "") == hashes
    assert "default-src 'none'" in (policy or "")
    assert "Licensed under the MIT license" in running[1]


def test_text_of_records_is_never_markup() -> None:
    report = pages.report()
    harmless = outline(report)
    group = report["groups"][0]
    for ranking in group["budgets"][0]["rankings"].values():
        ranking |= {part: [HOSTILE] for part in ("evidence", "missing", "tests")}
        ranking |= {"answer": HOSTILE, "left_out": [{"what": HOSTILE, "why": HOSTILE}]}
    group["budgets"][0]["advice"] |= HOSTILE_ADVICE
    group["budgets"][0] |= {"words": HOSTILE, "captions": {"top1": HOSTILE}}
    group["title"] = report["runs"] = report["commit"] = HOSTILE
    group["datasets"][0] |= {"name": HOSTILE, "classes": [HOSTILE] * 10}
    group["backbones"][0]["name"] = HOSTILE
    report["skipped"] = [{"path": HOSTILE, "reason": HOSTILE}]
    found = outline(report)
    assert len(found.scripts) == len(harmless.scripts) == 5
    assert sum(tag == "img" for tag, _ in found.found) == 0
    assert embedded(found)["report"]["skipped"][0]["path"] == HOSTILE
    assert HOSTILE in "".join(found.words)


def test_a_path_that_is_no_text_does_not_break_the_page() -> None:
    report = pages.report()
    report["runs"] = "caf\udce9"
    report["skipped"] = [{"path": "caf\udce9", "reason": "not a record"}]
    assert render(report).encode()


def test_what_a_look_at_one_cell_needs_is_packed() -> None:
    report = pages.report(classes=5)
    found = embedded(outline(report))
    cell, slim = report["groups"][0]["cells"][7], found["report"]["groups"][0]["cells"][7]
    assert slim.keys() == {"d", "b", "budget", "seeds", "folds", "provenance", "parts", "curves", "detail"}
    detail, curves = (
        json.loads(gzip.decompress(base64.b64decode(found["packs"][slim[key]]))) for key in ("detail", "curves")
    )
    assert curves == {"curve": cell["curve"], "loss": cell["loss"]}
    assert {key: detail[key] for key in ("runs", "recall", "errors")} == {
        key: cell[key] for key in ("runs", "recall", "errors")
    }
    label, mean, each = detail["metrics"][0]
    values = [f"{100 * value:.2f}" for value in cell["values"]["top1"]]
    assert (label, each) == ("top-1", "  ".join(values))
    low, high = (100 * end for end in cell["of_test"])
    assert mean == f"{100 * cell['mean']['top1']:.2f} ± {100 * cell['half']['top1']:.2f} [{low:.1f}, {high:.1f}] %"
    assert ["Images", f"{cell['images']:,} to train and to choose the epoch, 200 to test"] in detail["facts"]
    assert dict(detail["facts"])["Peak memory"].endswith(" GiB")
    place, unpacked = -1, []
    for gap, images in zip(detail["gaps"], detail["counts"], strict=True):
        place += gap
        unpacked.append([place // 5, place % 5, images])
    assert unpacked == cell["confusion"]


def test_what_is_shown_first_need_not_be_unpacked() -> None:
    """A browser that prints at once would not wait: the curves of the first dataset, and its first cell."""
    found = embedded(outline(pages.report()))
    cells = found["report"]["groups"][0]["cells"]
    plain = [
        (cell["budget"], cell["d"], cell["b"], key)
        for cell in cells
        for key in ("curves", "detail")
        if isinstance(found["packs"][cell[key]], dict)
    ]
    assert sorted(plain) == sorted([(0, 0, 0, "detail"), *((0, 0, b, "curves") for b in range(6))])


def test_cells_without_curves_intervals_or_neighbours() -> None:
    report = pages.report(names=("resnet",), domains={"natural": ["cifar10"]}, seeds=1, budgets=(ALL_IMAGES,))
    cell = report["groups"][0]["cells"][0]
    cell |= {"curve": [], "loss": [], "confusion": [], "recall": [], "errors": None}
    found = outline(report)
    assert embedded(found)["report"]["groups"][0]["cells"][0]["curves"] is None
    assert "±" not in "".join(found.words).replace("± half", "")
    assert "Average" not in found.words


def test_no_record_that_can_be_ranked() -> None:
    report = pages.report(groups=0)
    words = " ".join(outline(report).words)
    assert "No answer yet: no run is finished that can be compared." in words
    assert "1 is listed apart" in words


def test_an_average_only_over_all_datasets() -> None:
    report = pages.report(budgets=(ALL_IMAGES,))
    group = report["groups"][0]
    group["cells"].remove(next(cell for cell in group["cells"] if cell["b"] == 2))
    group["budgets"][0]["averages"]["overall"]["top1"][2] = None
    text = render(report)
    assert text.count(f'<td class="number average">{markup.ABSENT}</td>') == 1
    assert text.count(markup.ABSENT) == 2  # and the cell's own


def test_plotly_is_told_how_to_get(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "plotly.offline", None)
    with pytest.raises(UserError, match=r"pip install -r requirements-report\.txt"):
        render(pages.report())


def test_what_is_said_of_every_group_and_budget_lies_ready() -> None:
    report = pages.report(groups=2)
    text = render(report)
    assert re.findall(r'<template id="([a-z]+-\d-\d)">', text) == [
        *("ranks-0-0", "answer-0-1", "ranks-0-1", "answer-1-0", "ranks-1-0", "answer-1-1", "ranks-1-1")
    ]
    for place, group in enumerate(report["groups"]):
        for index, budget in enumerate(group["budgets"]):
            ranking = budget["rankings"]["overall"]
            (ranks,) = re.findall(rf'<template id="ranks-{place}-{index}">(.*?)</template>', text, re.DOTALL)
            assert ranking["svg"] in ranks
            assert all(html.escape(test) in ranks for test in ranking["tests"])
            title = f'<p class="group">{capital(group["title"])}. {capital(budget["words"])}.</p>'
            assert text.count(title) == 1


def test_warnings_stand_beside_the_answer() -> None:
    report = pages.report()
    report["groups"][0]["warnings"] = ["random weights: <b>"]
    text = render(report)
    assert re.search(
        r'<p class="answer[^<]*(?:<span[^<]*</span>)?</p><p class="warning">Random weights: &lt;b&gt;.</p>', text
    )


def test_colours_can_be_read_in_both_themes() -> None:
    """WCAG 2.1: 4.5 to 1 for text, 3 to 1 for lines and marks."""
    css = (PAGE / "page.css").read_text("utf-8")
    colours = re.findall(r"--([\w-]+): light-dark\((#\w{6}), (#\w{6})\)", css)
    assert len(colours) > 20
    for theme in (1, 2):
        of = {colour[0]: colour[theme] for colour in colours}
        for text in ("ink", "muted", "accent", "caution"):
            assert contrast(of[text], of["paper"]) >= 4.5, (text, theme)
        assert contrast(of["caution"], of["caution-tint"]) >= 4.5
        assert contrast(of["ink"], of["tint"]) >= 4.5
        assert contrast(of["muted"], of["raised"]) >= 4.5
        for number in range(1, 13):
            assert contrast(of[f"series-{number}"], of["paper"]) >= 3, (number, theme)
        assert len({of[f"series-{number}"] for number in range(1, 13)}) == 12


def contrast(one: str, other: str) -> float:
    """Contrast ratio of two colours, by WCAG 2.1's definition."""

    def luminance(colour: str) -> float:
        shares = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
        linear = [share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4 for share in shares]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(one), luminance(other)), reverse=True)
    return (light + 0.05) / (dark + 0.05)
