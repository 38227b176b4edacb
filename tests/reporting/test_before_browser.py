"""The section on scores before training in a real browser."""

from pathlib import Path
from typing import Any

import pytest

from reporting.build import build
from reporting.collect import collect
from reporting.render import render
from tests.reporting import ranked
from tests.reporting.test_agreement import fill
from tests.reporting.test_browser import Opens, browser, cells, drawn, opens, pytestmark, usual
from tests.reporting.test_page import HOSTILE

__all__ = ["browser", "opens", "pytestmark", "usual"]  # fixtures, and what skips all tests


@pytest.fixture
def made(tmp_path: Path) -> dict[str, Any]:
    """A report of two results, of which the older has records, and a search."""
    fill(tmp_path / "runs", seeds=2, names=("convnext", "swin", "resnet"))
    ranked.put(tmp_path / "runs", ranked.result(), ranked.search(command="python dtd.py -model convnext"))
    ranked.put(tmp_path / "runs", ranked.result(dataset="eurosat", made="2026-11-30T11:00:00+00:00"))
    return build(collect(tmp_path / "runs"), tmp_path / "runs", thumbnails=False)


def test_a_report_without_results_lacks_the_section(opens: Opens) -> None:
    page = opens()
    assert not page.locator("#before").is_visible()
    assert page.locator("#cost").is_visible()


def test_scores_their_plot_the_agreement_and_the_search(opens: Opens, made: dict[str, Any]) -> None:
    page = opens(render(made))
    assert not page.locator("#plot-before").is_visible()  # of the newest, nothing was measured
    assert "Nothing to hold this order against" in page.locator("#before-said").inner_text()
    page.select_option("#before-result", "1")
    assert cells(page, "before-numbers") == list(ranked.NAMES)
    assert "fine-tuned already (only 3 of the 4 backbones, 2 seeds each)" in page.locator("#before-said").inner_text()
    plot = drawn(page, "before")
    assert plot.locator(".point").count() == 3
    assert plot.locator(".xtitle").text_content() == "place in rank.py's order"
    assert plot.locator(".yerror").count() == 3
    before = page.locator("#before-by option").all_inner_texts()
    assert "Linear probe, cross-validated, %" in before
    page.select_option("#before-by", "probe")
    page.wait_for_function("document.querySelector('#plot-before .xtitle').textContent.startsWith('linear probe')")
    assert "against linear probe" in page.locator("#before-caption").inner_text()
    assert cells(page, "before-agreements")[:2] == ["rank.py's order", "ImageNet top-1"]
    assert cells(page, "before-rungs", 2) == [*ranked.NAMES, *ranked.NAMES[:2]]
    assert "10 % of the 75,200" in page.locator("#before-search").inner_text()
    assert page.locator("#before-search pre").inner_text() == "python dtd.py -model convnext"
    page.reload()
    assert page.locator("#before-by").input_value() == "probe"
    page.select_option("#before-result", "0")
    assert not page.locator("#plot-before").is_visible()
    assert page.locator("#before-search").inner_text() == ""


def test_it_is_reached_and_sorted_by_the_keyboard(opens: Opens, made: dict[str, Any]) -> None:
    page = opens(render(made))
    page.select_option("#before-result", "1")
    head = page.locator("#before-numbers thead th", has_text="Measured")
    head.get_by_role("button").focus()
    page.keyboard.press("Enter")
    assert head.get_attribute("aria-sort") == "descending"
    assert cells(page, "before-numbers") == ["swin", "convnext", "resnet", "regnet"]
    page.locator("#before-by").focus()
    page.keyboard.press("ArrowDown")
    assert page.locator("#before-by").input_value() == "prior"


def test_on_a_phone_in_the_dark_nothing_is_wider_than_the_page(opens: Opens, made: dict[str, Any]) -> None:
    page = opens(render(made), viewport={"width": 360, "height": 740}, color_scheme="dark")
    page.select_option("#before-result", "1")
    drawn(page, "before")
    assert page.evaluate("document.documentElement.scrollWidth") == 360
    assert page.locator("#before-table .sideways").is_visible()


def test_without_any_record_the_scores_are_shown(opens: Opens, tmp_path: Path) -> None:
    ranked.put(tmp_path / "runs", ranked.result(backbones=(), order=()), digest="0")
    ranked.put(tmp_path / "runs", ranked.result(made="2026-11-30T12:00:00+00:00"), ranked.search())
    page = opens(render(build(collect(tmp_path / "runs"), tmp_path / "runs")))
    assert not page.locator("#cost").is_visible()
    assert cells(page, "before-numbers") == list(ranked.NAMES)
    assert page.locator("#before-rungs").is_visible()
    page.select_option("#before-result", "1")
    assert cells(page, "before-numbers") == []


def test_what_others_wrote_is_text(opens: Opens, made: dict[str, Any]) -> None:
    result = made["before"]["results"][1]
    result |= {"name": HOSTILE, "facts": HOSTILE, "rule": HOSTILE, "sentences": [HOSTILE], "notes": [HOSTILE]}
    result["rows"][0]["name"] = HOSTILE
    result["search"] |= {"sentences": [HOSTILE], "command": HOSTILE}
    result["search"]["rungs"][0]["candidates"][0]["status"] = HOSTILE
    page = opens(render(made))
    page.select_option("#before-result", "1")
    drawn(page, "before")
    assert page.evaluate("window.bad") is None
    assert page.locator("#before img").count() == 0
