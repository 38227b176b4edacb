"""The page in a real browser: it works, says nothing in the console, and asks no other host for anything."""

import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from common import BACKBONES
from datasets import PUBLISHED
from reporting.comparable import DOMAINS
from reporting.entry import ALL_IMAGES, Budget
from reporting.render import render
from reporting.server import BuildStatus, Server
from tests.reporting import pages
from tests.reporting.test_page import HOSTILE, HOSTILE_ADVICE

playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium")
QUIET = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync"),
)

Page = Any  # playwright.sync_api.Page, of a package that need not be there
Opens = Callable[..., Page]


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=list(QUIET))
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def usual() -> str:
    return render(pages.report(groups=2))


@pytest.fixture
def opens(browser: Any, tmp_path: Path, usual: str) -> Iterator[Opens]:
    """Opens a page from its file, by its text; at the end, nothing may have gone wrong or out in any of them."""
    troubles: list[str] = []
    contexts = []

    def watch(page: Page, allowed: str = "file:") -> None:
        page.on("console", lambda message: troubles.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: troubles.append(str(error)))

        def asked(request: Any) -> None:
            if not request.url.startswith(("data:", "blob:", allowed)):
                troubles.append(f"asked for {request.url}")

        page.on("request", asked)

    def open_page(text: str = usual, url: str = "", **options: Any) -> Page:
        context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}, **options})
        contexts.append(context)
        page = context.new_page()
        watch(page, url or "file:")
        file = tmp_path / "report.html"
        file.write_text(text, "utf-8")
        page.goto(url or file.as_uri())
        return page

    yield open_page
    for context in contexts:
        context.close()
    assert troubles == []


def cells(page: Page, table: str = "accuracy-table", column: int = 0) -> list[str]:
    rows = page.locator(f"#{table} tbody tr").all()
    return [" ".join(row.locator("th, td").nth(column).inner_text().split()) for row in rows]


def drawn(page: Page, name: str) -> Any:
    """The plot, scrolled to and waited for."""
    plot = page.locator(f"#plot-{name}")
    plot.scroll_into_view_if_needed()
    plot.locator(".main-svg").first.wait_for()
    return plot


def shared_text(page: Page) -> tuple[str, list[str]]:
    """What stands in the page and what the scripts put in its place: the answers, and the table's body."""
    rows = page.locator("#accuracy-body tbody tr").all()
    return page.locator("#answer-body").inner_text(), [" ".join(row.inner_text().split()) for row in rows]


def test_without_scripts_it_says_the_same(opens: Opens) -> None:
    with_scripts, without = opens(), opens(java_script_enabled=False)
    assert shared_text(with_scripts) == shared_text(without)
    assert without.locator("noscript").is_visible()
    assert not without.locator("#choose").is_visible()


def test_sorting_by_mouse_and_keyboard(opens: Opens) -> None:
    page = opens()
    names = cells(page)
    head = page.locator("#accuracy-table thead th", has_text="CIFAR-10").first
    head.get_by_role("button").click()
    values = [float(text.split()[0]) for text in cells(page, column=1)]
    assert head.get_attribute("aria-sort") == "descending"
    assert values == sorted(values, reverse=True)
    page.keyboard.press("Enter")
    values = [float(text.split()[0]) for text in cells(page, column=1)]
    assert head.get_attribute("aria-sort") == "ascending"
    assert values == sorted(values)
    page.keyboard.press("Shift+Tab")
    page.keyboard.press("Space")
    assert page.locator("#accuracy-table [aria-sort]").count() == 1
    assert cells(page) == sorted(names)
    page.locator("#accuracy-table thead th", has_text="Average").get_by_role("button").click()
    averages = [float(text) for text in cells(page, column=9)]
    assert averages == sorted(averages, reverse=True)


def test_all_that_are_equal_are_bold_and_round_as_the_sentences_do(opens: Opens) -> None:
    report = pages.report(budgets=(ALL_IMAGES,))
    for cell in report["groups"][0]["cells"]:
        if cell["d"] == 0:
            cell["marks"] = ({"top1": "best"} if cell["b"] < 2 else {}) | ({"ece": "best"} if cell["b"] < 3 else {})
            cell["mean"] |= {"top1": 0.83125}
    text = render(report)
    page, plain = opens(text), opens(text, java_script_enabled=False)
    assert shared_text(page) == shared_text(plain)
    first = "tbody tr > :nth-child(2)"
    assert page.locator(f"#accuracy-table {first} b").all_text_contents() == [f"{83.125:.2f}"] * 2
    page.select_option("#metric", "ece")
    assert page.locator(f"#accuracy-table {first} b").count() == 3
    assert not page.locator("#accuracy-body .sideways").is_visible()


def test_a_row_that_lacks_the_value_sorts_last(opens: Opens) -> None:
    report = pages.report(budgets=(ALL_IMAGES,))
    group = report["groups"][0]
    group["cells"].remove(next(cell for cell in group["cells"] if (cell["d"], cell["b"]) == (0, 2)))
    group["budgets"][0]["averages"]["overall"]["top1"][2] = None
    page = opens(render(report))
    button = page.locator("#accuracy-table thead th", has_text="CIFAR-10").first.get_by_role("button")
    for _ in range(2):
        button.click()
        assert cells(page)[-1] == "convnext"
    assert cells(page, column=9)[-1] == "–"  # noqa: RUF001 (the page's dash)


def test_filters_act_on_all_below(opens: Opens) -> None:
    page = opens()
    page.select_option("#domain", "natural")
    assert page.locator("#accuracy-table thead tr").last.locator("th").count() == 1 + 3 + 1
    assert "natural data" in page.locator("#ranks-table caption").inner_text()
    assert page.locator("#cell-dataset option").count() == 3
    assert "mean over 3 datasets" in page.locator("#cost-caption").inner_text()

    page.locator("#backbones summary").click()
    page.locator("#backbones-list input[value=resnet]").uncheck()
    page.locator("#backbones-list input[value=swin]").uncheck()
    assert cells(page) == ["wavemix", "convnext", "swinv2", "efficientnet"]
    assert "resnet" not in cells(page, "ranks-table")
    assert "only not listed" in page.locator("#ranks-body").inner_text()
    assert "Marks are among all backbones" in page.locator("#accuracy .legend").inner_text()
    assert "It is that of all backbones" in page.locator("#cost-caption").inner_text()
    assert page.locator("#cell-backbone option").count() == 4
    named = drawn(page, "cost").locator(".annotation-text")
    deadline = time.monotonic() + 20
    while named.all_text_contents() != cells(page) and time.monotonic() < deadline:
        page.wait_for_timeout(50)  # it is drawn anew a moment later
    assert named.all_text_contents() == cells(page)
    page.keyboard.press("Escape")
    page.select_option("#domain", "")
    assert page.locator("#accuracy-table thead tr").last.locator("th").count() == 1 + 8 + 1


def test_no_backbone_left(opens: Opens) -> None:
    page = opens()
    page.locator("#backbones summary").click()
    page.locator("#backbones-none").click()
    assert "Nothing is left" in page.locator("#accuracy-body").inner_text()
    for name in ("pairs", "cost", "low-data", "learning"):
        page.locator(f"#plot-{name}").scroll_into_view_if_needed()
        page.locator(f"#plot-{name} .note").wait_for()
    page.locator("#backbones-all").click()
    assert len(cells(page)) == 6


def test_metric_budget_and_group(opens: Opens) -> None:
    page = opens()
    page.select_option("#metric", "nll")
    assert "lower is better" in page.locator("#accuracy-table caption").inner_text()
    page.locator("#accuracy-table thead th", has_text="DTD").get_by_role("button").click()
    values = [float(text.split()[0]) for text in cells(page, column=4)]
    assert values == sorted(values)
    best = page.locator("#accuracy-table tbody tr").first.locator("td").nth(3).locator("b")
    assert float(best.inner_text()) == values[0]
    assert page.locator("#accuracy-table u").count() == 0

    page.select_option("#metric", "top1")
    before = cells(page, column=1)
    page.select_option("#budget", "1")
    assert "10 shots a class" in page.locator("#answer-body .group").inner_text()
    assert cells(page, column=1) != before

    assert not page.locator("#published").is_visible()
    page.select_option("#group", "1")
    assert page.locator("#answer-body .group").inner_text().startswith("Paper protocol")
    assert "optimistic" in page.locator("#group-note").inner_text()
    assert cells(page, "published-table", 3)[-1] == "efficientnet, swinv2, swin"
    assert cells(page, "published-table", 3)[3] == "Not enough evidence: no finished run on plant data."


def test_the_first_answer_comes_back(opens: Opens) -> None:
    page = opens()
    first = shared_text(page)
    assert "All training images" in first[0]
    page.select_option("#budget", "1")
    page.select_option("#group", "1")
    assert shared_text(page) != first
    page.select_option("#group", "0")
    page.select_option("#budget", "0")
    assert shared_text(page) == first


def test_the_pareto_front_is_the_reports(opens: Opens) -> None:
    report = pages.report(budgets=(ALL_IMAGES,))
    costs = report["groups"][0]["budgets"][0]["costs"]
    page = opens(render(report))

    def bold() -> list[str]:
        names = drawn(page, "cost").locator(".annotation-text")
        return [name.text_content() for name in names.all() if "bold" in (name.inner_html() or "")]

    def named(front: list[int]) -> list[str]:
        return [report["groups"][0]["backbones"][b]["name"] for b in front]

    assert bold() == named(costs["scopes"]["overall"]["front"]["parameters"]["top1"])
    page.select_option("#domain", "natural")
    page.select_option("#metric", "nll")
    page.select_option("#cost-axis", "train_images_per_second")
    assert bold() == named(costs["scopes"]["natural"]["front"]["train_images_per_second"]["nll"])
    page.select_option("#cost-dataset", "1")
    assert bold() == named(costs["datasets"][1]["front"]["train_images_per_second"]["nll"])
    page.select_option("#cost-axis", "images")  # of which neither less nor more is better
    assert bold() == []
    assert "Pareto" not in page.locator("#cost-caption").inner_text()


def test_a_cell_in_detail(opens: Opens) -> None:
    page = opens()
    button = page.locator("#accuracy-table tbody tr").nth(3).locator("td").nth(5).get_by_role("button")
    button.click()
    page.locator("#cell-summary caption", has_text="swin on EuroSAT").wait_for()
    assert page.locator("#cell-summary table tr").count() == 1 + 6
    assert cells(page, "confusions-table", 2) == sorted(cells(page, "confusions-table", 2), reverse=True)
    recall = [float(text.split()[0]) for text in cells(page, "recall-table", 1)]
    assert recall == sorted(recall)
    assert len(recall) == 10
    page.locator(".errors li").nth(3).wait_for()
    assert "98 %" in page.locator(".errors li").first.inner_text()
    assert drawn(page, "confusion").locator(".heatmaplayer image").count() == 1
    assert drawn(page, "coverage").locator(".scatterlayer .trace").count() == 2
    page.select_option("#cell-backbone", "0")
    page.locator("#cell-summary caption", has_text="resnet on EuroSAT").wait_for()


def test_what_is_kept_and_labels_that_may_be_wrong(opens: Opens) -> None:
    page = opens()
    page.locator("#coverage-table").wait_for()
    assert cells(page, "coverage-table") == ["any", "0.5", "0.7", "0.8", "0.9", "0.95", "0.99"]
    kept = [float(text.split()[0]) for text in cells(page, "coverage-table", 1)]
    assert kept == sorted(kept, reverse=True)
    assert cells(page, "coverage-table", 2)[-1] == "\N{EN DASH}"
    assert cells(page, "coverage-table", 2)[0].endswith("]")
    caption = page.locator("#coverage-caption").inner_text()
    assert "3 seeds together" in caption
    assert "fitted on val (1.20 to 1.40); ECE of test by it 1.2 %, without 5.1 %" in caption
    assert "The first 3 of 7 test images of 400" in page.locator("#cell-errors").inner_text()
    suspects = page.locator(".errors").nth(1).locator("li")
    assert suspects.count() == 3
    tiles = suspects.locator(".tile")
    assert tiles.evaluate_all("(tiles) => tiles.map((tile) => tile.style.backgroundImage !== '')") == [
        True,
        True,
        False,
    ]
    assert "test/sNone.png" in suspects.nth(2).inner_text()  # without a picture, its name


def test_runs_without_predictions_or_a_temperature(opens: Opens) -> None:
    report = pages.report(names=("resnet",), domains={"natural": ["cifar10", "cifar100"]}, budgets=(ALL_IMAGES,))
    first, second = report["groups"][0]["cells"]
    first["coverage"] |= {"temperatures": [], "ece": None}
    second |= {"coverage": None, "errors": None}
    page = opens(render(report))
    page.locator("#coverage-caption", has_text="no temperature was fitted").wait_for()
    page.select_option("#cell-dataset", "1")
    page.locator("#cell-summary caption", has_text="CIFAR-100").wait_for()
    assert not page.locator("#cell-coverage").is_visible()
    assert page.locator("#cell-errors").inner_text() == ""


def test_a_matrix_of_which_only_the_largest_confusions_are_kept(opens: Opens) -> None:
    report = pages.report(names=("resnet",), domains={"natural": ["cifar10"]}, budgets=(ALL_IMAGES,))
    report["groups"][0]["cells"][0] |= {
        "confusion": [[0, 0, 150], [0, 1, 30], [1, 1, 300]],
        "recall": [0.5, 1.0, *[None] * 8],
        "confusion_rest": {"pairs": 1200, "images": 1300},
    }
    page = opens(render(report))
    page.locator("#confusion-caption", has_text="Without 1,200 rarer confusions, of 1,300 images").wait_for()
    row = page.locator("#confusions-table tbody tr")
    assert row.count() == 1
    assert "10.0 %" in row.inner_text()  # of 300 images, not of the 180 that are kept
    assert "no test images" in page.locator("#recall-table").inner_text()


def test_cells_by_the_keyboard(opens: Opens) -> None:
    page = opens()
    assert page.locator("#accuracy-table tbody button[tabindex='0']").count() == 1
    page.locator("#accuracy-table tbody button").first.focus()
    for key in ("ArrowRight", "ArrowRight", "ArrowDown", "Enter"):
        page.keyboard.press(key)
    page.locator("#cell-summary caption", has_text="wavemix on Flowers-102").wait_for()


def test_two_backbones_compared(opens: Opens) -> None:
    page = opens()
    pair = pages.report(groups=2)["groups"][0]["budgets"][0]["pairs"][0]
    page.select_option("#pair-a", pair["a"])
    page.select_option("#pair-b", pair["b"])
    said = page.locator("#pair-answer").inner_text()
    assert f"{abs(pair['difference']):.2f} points" in said
    excludes = pair["low"] > 0 or pair["high"] < 0
    assert said.startswith(f"The 95 % interval of the bootstrap {'excludes' if excludes else 'includes'} 0")
    assert said.startswith(f"{pair['said']}: on average, ")
    assert "not corrected for their number" in said
    straight = "top-1 above" in said
    page.select_option("#pair-b", pair["a"])
    assert "two different" in page.locator("#pair-answer").inner_text()
    page.select_option("#pair-a", pair["b"])
    turned = page.locator("#pair-answer").inner_text()
    assert ("top-1 above" in turned) != straight
    assert drawn(page, "pairs").locator(".errorbar").count() == 5


def test_no_claim_without_evidence(opens: Opens) -> None:
    page = opens(render(pages.report(seeds=2)))
    assert page.locator("#answer .answer").inner_text().startswith("So far, take efficientnet")
    assert page.locator("#answer .tested-answer").inner_text().startswith("Not enough evidence")
    assert page.locator("#answer-body > .missing").is_visible()
    assert page.locator("#pair-answer").inner_text().startswith("Not enough evidence for a claim: 2 shared seeds of 3")
    assert "No test of significance" in page.locator("#ranks-body").inner_text()
    assert page.locator("#accuracy-table u").count() == 0


def test_one_dataset_has_no_ranks_and_its_commands_are_copied_whole(opens: Opens) -> None:
    report = pages.report(domains={"natural": ["cifar10"]}, budgets=(ALL_IMAGES,))
    page = opens(render(report))
    for name in ("ranks", "group", "budget", "domain", "cost-dataset", "learning-dataset", "cell-dataset"):
        assert not page.locator(f"#{name}").is_visible(), name
    assert not page.locator("#answer .evidence").is_visible()
    page.locator("#answer .sure summary").click()
    assert page.locator("#answer .evidence").is_visible()
    assert "Holm-corrected" in page.locator("#answer .glossary").inner_text()
    command = report["groups"][0]["budgets"][0]["advice"]["commands"][0]["command"]
    copied = "getSelection().selectAllChildren(document.querySelector('.next pre')); getSelection().toString()"
    assert page.evaluate(copied) == command


SHOWN = "[...document.querySelectorAll('.plot')].filter((box) => !box.closest('[hidden]'))"
EMPTY = f"{SHOWN}.filter((box) => !box.querySelector('.main-svg')).map(({{id}}) => id)"


def test_plots_are_drawn_without_scrolling(opens: Opens) -> None:
    page = opens()
    page.screenshot(full_page=True)
    assert page.evaluate(EMPTY) == []
    page.select_option("#metric", "nll")
    page.locator("#plot-low-data .ytitle", has_text="NLL").wait_for()


def test_plots_show_what_is_chosen(opens: Opens) -> None:
    page = opens()
    plot = drawn(page, "learning")
    assert plot.locator(".scatterlayer .trace").count() == 6
    page.locator("#learning-seeds").check()
    page.wait_for_function("document.querySelectorAll('#plot-learning .scatterlayer .trace').length === 18")
    page.select_option("#learning-curve", "loss")
    page.locator("#plot-learning .ytitle", has_text="training loss").wait_for()
    assert drawn(page, "low-data").locator(".scatterlayer .trace").count() == 12  # lines and bands
    drawn(page, "cost")
    for axis in ("macs", "train_seconds", "train_images_per_second", "peak_memory_mib", "epochs"):
        page.select_option("#cost-axis", axis)
        page.locator("#plot-cost .annotation-text").first.wait_for()
    page.locator("#cost-log").uncheck()
    assert "Measured on NVIDIA H100" not in page.locator("#cost-caption").inner_text()
    assert page.locator("a[href*='plotly'], .modebar-btn--logo").count() == 0


def test_costs_of_different_hardware_are_not_compared(opens: Opens) -> None:
    report = pages.report(budgets=(ALL_IMAGES,))
    report["groups"][0]["budgets"][0]["costs"]["scopes"]["overall"]["machines"] = ["AMD EPYC", "NVIDIA H100"]
    page = opens(render(report))
    assert page.locator("#cost-caption strong").count() == 0
    page.select_option("#cost-axis", "train_seconds")
    assert "AMD EPYC; NVIDIA H100" in page.locator("#cost-caption strong").inner_text()
    assert not page.locator("#low-data").is_visible()  # one budget only


def test_dark_and_light(opens: Opens) -> None:
    page = opens(color_scheme="dark")
    background = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(background)
    ink = "getComputedStyle(document.querySelector('#plot-pairs .xtitle')).fill"
    drawn(page, "pairs")
    dark_ink = page.evaluate(ink)
    page.locator("#theme").click()
    light = page.evaluate(background)
    assert sum(map(int, light[4:-1].split(","))) > 700
    assert sum(map(int, dark[4:-1].split(","))) < 100
    drawn(page, "pairs")
    page.wait_for_function(f"{ink} !== '{dark_ink}'")
    page.reload()
    assert page.evaluate(background) == light
    page.emulate_media(color_scheme="light")
    page.locator("#theme").click()
    assert page.evaluate(background) == dark
    assert page.locator("#theme").inner_text() == "Light"
    page.locator("#theme").click()
    assert page.locator("#theme").inner_text() == "Dark"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_on_a_phone(opens: Opens, scheme: str) -> None:
    page = opens(viewport={"width": 390, "height": 844}, has_touch=True, is_mobile=True, color_scheme=scheme)
    for name in ("pairs", "cost", "low-data", "learning", "confusion"):
        drawn(page, name)
    for details in page.locator("main details").all():
        details.evaluate("details => (details.open = true)")
    wide = page.evaluate("[document.documentElement.scrollWidth, document.body.scrollWidth, innerWidth]")
    assert wide == [390, 390, 390]
    assert page.locator("#accuracy-body .sideways").is_visible()
    diagram = page.locator(".diagram .scroll")
    assert page.locator(".diagram .sideways").is_visible()
    assert diagram.evaluate("box => (box.scrollLeft = 1000) && box.scrollLeft + box.clientWidth") >= diagram.evaluate(
        "box => box.scrollWidth - 1"
    )
    box = page.locator("#accuracy-body .scroll")
    assert box.evaluate("box => box.scrollWidth > box.clientWidth")
    box.evaluate("box => (box.scrollLeft = 300)")
    name = page.locator("#accuracy-table tbody th").first.bounding_box()
    assert 0 <= name["x"] < 40
    assert float(page.evaluate("parseFloat(getComputedStyle(document.body).fontSize)")) >= 16


COVERED = """() => {
    const boxes = (selector) => [...document.querySelectorAll(`#plot-cost ${selector}`)].map((part) =>
        [part.getBoundingClientRect(), part.textContent]);
    const names = boxes(".annotation-text"), marks = boxes(".scatterlayer .point");
    const field = document.querySelector("#plot-cost").getBoundingClientRect();
    const apart = (a, b) => a.right < b.left || b.right < a.left || a.bottom < b.top || b.bottom < a.top;
    const bad = [];
    names.forEach(([box, name], index) => {
        for (const [other, its] of names.slice(index + 1)) if (!apart(box, other)) bad.push(`${name} on ${its}`);
        for (const [mark] of marks) if (!apart(box, mark)) bad.push(`${name} on a point`);
        if (box.left < field.left || box.right > field.right || box.top < field.top || box.bottom > field.bottom)
            bad.push(`${name} outside`);
    });
    return [names.length, bad];
}"""


REDRAWN = """(before) => {
    const widthOf = (part) => document.querySelector(part).clientWidth;
    const [box, drawing] = ["#plot-cost", "#plot-cost .main-svg"].map(widthOf);
    return drawing === box && drawing !== before;
}"""


@pytest.mark.parametrize("wide", [390, 1280])
@pytest.mark.parametrize("crowd", ["eleven as they are", "twelve at one place", "long names"])
def test_no_name_covers_another_in_the_plot_of_costs(opens: Opens, crowd: str, wide: int) -> None:
    names = tuple(BACKBONES)[:12]
    if crowd == "long names":
        names = tuple(f"{name}_large_patch16_384.augreg_in21k_ft_in1k" for name in names)
    report = pages.report(names, budgets=(ALL_IMAGES,))
    costs = report["groups"][0]["budgets"][0]["costs"]["scopes"]["overall"]
    if crowd == "twelve at one place":
        costs["accuracy"]["top1"] = [f"{87 + place / 100:.2f}" for place in range(12)]
        costs["costs"]["parameters"] = [25.6 + place / 50 for place in range(11)] + [60.0]
    page = opens(render(report), viewport={"width": wide, "height": 800})
    drawn(page, "cost")
    assert page.evaluate(COVERED) == [12, []]
    before = page.evaluate("document.querySelector('#plot-cost .main-svg').clientWidth")
    page.set_viewport_size({"width": 1280 + 390 - wide, "height": 800})
    page.wait_for_function(REDRAWN, arg=before)
    deadline = time.monotonic() + 20
    while (covered := page.evaluate(COVERED)) != [12, []] and time.monotonic() < deadline:
        page.wait_for_timeout(50)  # names are placed a moment later
    assert covered == [12, []]


def test_nothing_is_missing_on_paper_that_is_printed_at_once(opens: Opens) -> None:
    """As soon as the page is there: no plot has been scrolled to, and nothing that was packed is unpacked yet."""
    page = opens()
    page.evaluate(
        f"""() => addEventListener("beforeprint", () => {{
            window.empty = {EMPTY};
            window.tables = ["cell-summary", "cell-confusions", "cell-recall", "cell-errors"].map((id) =>
                document.getElementById(id).textContent.length > 20);
            window.wide = [...document.querySelectorAll("main .plot .main-svg")].map((plot) => plot.clientWidth);
        }})"""
    )
    page.pdf(prefer_css_page_size=True)
    assert page.evaluate("[empty, tables]") == [[], [True] * 4]
    assert max(page.evaluate("wide")) <= 695  # pixels between the margins of A4


def test_everything_fits_on_paper(opens: Opens) -> None:
    """With as many datasets as there are published ones, in pixels between the margins of A4."""
    domains = {of: [dataset.key for dataset in PUBLISHED if dataset.domain == of] for of in DOMAINS}
    domains |= {"own": ["my own photographs of birds"]}
    page = opens(
        render(pages.report(tuple(BACKBONES), domains, budgets=(ALL_IMAGES,))), viewport={"width": 695, "height": 900}
    )
    page.emulate_media(media="print")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    wide = "[...document.querySelectorAll('main *')].filter((part) => part.getBoundingClientRect().right > 697)"
    parts = page.evaluate(f"{wide}.map((part) => `${{part.tagName}} ${{part.id}} ${{part.textContent.slice(0, 40)}}`)")
    assert parts == []


LONG = "_large_patch16_384.augreg_in21k_ft_in1k"


def test_long_names_are_whole_and_let_the_page_be_as_wide_as_its_window(opens: Opens) -> None:
    names = tuple(f"{name}{LONG}" for name in tuple(BACKBONES)[:12])
    report = pages.report(names, {"own": [f"birds of the northern hemisphere, version {place}" for place in range(6)]})
    page = opens(render(report), viewport={"width": 390, "height": 800})
    drawn(page, "learning")
    assert page.evaluate("document.documentElement.scrollWidth") == 390
    name = page.locator("#accuracy-table tbody th").first.bounding_box()
    assert name["width"] < 200  # of 390: it stays in sight while the numbers scroll
    drawing = page.locator(".diagram svg").bounding_box()
    texts = [text.bounding_box() for text in page.locator(".diagram svg text").all()]
    assert min(box["x"] for box in texts) >= drawing["x"] - 1
    assert max(box["x"] + box["width"] for box in texts) <= drawing["x"] + drawing["width"] + 1


def test_a_matrix_of_very_many_classes_is_of_the_most_confused(opens: Opens) -> None:
    report = pages.report(("resnet", "swin"), {"own": ["birds"]}, budgets=(ALL_IMAGES,), classes=2600)
    page = opens(render(report))
    drawn(page, "confusion")
    assert page.evaluate("document.querySelector('#plot-confusion').data[0].z.length") == 200
    assert "Confusion matrix of the 200 classes with most confusions" in page.locator("#confusion-caption").inner_text()
    assert page.locator("#recall-table tbody tr").count() == 2600


def test_on_paper(opens: Opens) -> None:
    page = opens(color_scheme="dark")
    page.evaluate("""() => {
        window.opened = [];
        addEventListener("beforeprint", () => {
            window.opened.push(document.querySelectorAll("main details:not([open]):not(.menu)").length,
                getComputedStyle(document.body).color, document.querySelectorAll(".plot .main-svg").length > 0);
        });
    }""")
    page.locator("#cell-summary caption").wait_for()
    assert page.pdf(prefer_css_page_size=True).startswith(b"%PDF")
    closed, ink, plots = page.evaluate("opened")
    assert closed == 0
    assert ink == "rgb(28, 28, 26)"
    assert plots
    assert page.locator("main details[open]").count() == 0
    assert not page.evaluate("document.documentElement.classList.contains('printing')")


def test_text_of_records_is_never_markup(opens: Opens) -> None:
    names, domains = (HOSTILE, "resnet", "swin"), {HOSTILE: ["cifar10", "dtd"], "own": ["a", "b", HOSTILE]}
    report = pages.report(names, domains, groups=2)
    for group in report["groups"]:
        assert group["budgets"][0]["rankings"]["overall"]["svg"]
        group |= {"title": HOSTILE, "settings": [HOSTILE], "notes": [HOSTILE], "warnings": [HOSTILE]}
        for dataset in group["datasets"]:
            dataset |= {"name": dataset["name"] + HOSTILE, "classes": [HOSTILE] * 10}
        for budget in group["budgets"]:
            budget |= {"name": HOSTILE, "words": HOSTILE, "captions": dict.fromkeys(report["metrics"], HOSTILE)}
            for ranking in budget["rankings"].values():
                ranking |= {part: [HOSTILE] for part in ("evidence", "missing", "tests")}
                ranking |= {"answer": HOSTILE, "left_out": [{"what": HOSTILE, "why": HOSTILE}]}
            budget["advice"] |= HOSTILE_ADVICE
        for cell in group["cells"]:
            cell["runs"] = [HOSTILE] * len(cell["runs"])
            for tile in (*cell["errors"]["tiles"], *cell["errors"]["suspects"]):
                tile["name"] = HOSTILE
        provenance = group["provenances"][0]
        provenance |= dict.fromkeys(("recipe", "weights", "weights_sha256", "hardware", "dataset_version"), HOSTILE)
        provenance["versions"] = {HOSTILE: HOSTILE}
        if group["published"]:
            row: dict[str, Any] = dict.fromkeys(("domain", "best", "better", "why"), HOSTILE)
            group["published"] = {"note": HOSTILE, "rows": [row | {"ours": [HOSTILE]}]}
    report["failed"] = [{"cell": HOSTILE, "reason": HOSTILE, "tail": HOSTILE}]
    report["apart"] = [{"run": HOSTILE, "reason": HOSTILE}]
    page = opens(render(report))
    for index in ("1", "0"):
        page.select_option("#group", index)
        page.locator(".errors li").first.wait_for()
        for name in ("pairs", "cost", "low-data", "learning", "confusion"):
            drawn(page, name)
    page.select_option("#domain", HOSTILE)
    assert page.evaluate("window.bad") is None
    assert page.locator("main img, main script, main a, main image[href^=http]").count() == 0
    assert HOSTILE in page.locator("#answer .answer").inner_text()
    assert HOSTILE in page.locator("#answer .tested-answer").inner_text()
    assert HOSTILE in page.locator("#answer .next pre").first.inner_text()
    names = page.locator("#plot-cost .annotation-text").all_text_contents()
    assert any(name.endswith("…") and HOSTILE.startswith(name[:-1]) for name in names)
    assert cells(page, "confusions-table")[0] == " ".join(HOSTILE.split())
    page.select_option("#domain", "")
    assert " ".join(HOSTILE.split()) in (page.locator(".diagram svg").text_content() or "")


def test_nothing_that_can_be_ranked(opens: Opens) -> None:
    page = opens(render(pages.report(groups=0)))
    assert page.locator("#answer .answer").is_visible()
    assert not page.locator("#accuracy").is_visible()
    page.locator("#apart summary").first.click()
    assert page.locator("#apart-body code").first.is_visible()


def test_one_record(opens: Opens) -> None:
    report = pages.report(names=("resnet",), domains={"natural": ["cifar10"]}, seeds=1, budgets=(ALL_IMAGES,))
    report["groups"][0]["cells"][0] |= {"curve": [], "loss": [], "confusion": [], "recall": [], "errors": None}
    page = opens(render(report))
    assert "one seed: no interval" in page.locator("#accuracy-table caption").inner_text()
    assert "Only one backbone" in page.locator("#pair-answer").inner_text()
    page.locator("#plot-learning").scroll_into_view_if_needed()
    page.locator("#plot-learning .note", has_text="No learning curves").wait_for()
    page.locator("#plot-confusion").scroll_into_view_if_needed()
    page.locator("#plot-confusion .note", has_text="no confusion matrix").wait_for()


def test_the_live_view_reloads_and_keeps_what_is_chosen(opens: Opens, tmp_path: Path, usual: str) -> None:
    out = tmp_path / "report"
    out.mkdir()
    (out / "report.html").write_text(usual, "utf-8")
    status = BuildStatus(version=1)
    server = Server(out, 0, status)
    server.start()
    try:
        page = opens(url=f"http://127.0.0.1:{server.port}/")
        page.select_option("#metric", "ece")
        page.select_option("#domain", "medical")
        dataset = page.locator("#cost-dataset option").nth(1).get_attribute("value")
        page.select_option("#cost-dataset", dataset)
        status.change(error="ValueError: <b>bad</b>")
        page.locator(
            "#live", has_text="could not be rebuilt, so this is the last good one: ValueError: <b>bad</b>"
        ).wait_for()
        changed = usual.replace("Which backbone should be fine-tuned?", "Changed")
        (out / "report.html").write_text(changed, "utf-8")
        status.change(version=2, error=None)
        page.locator("#answer h1", has_text="Changed").wait_for()
        # what was chosen is put back once the scripts have run
        page.wait_for_function("document.querySelector('#metric').value === 'ece'")
        assert page.locator("#domain").input_value() == "medical"
        assert page.locator("#cost-dataset").input_value() == dataset
        assert not page.locator("#live").is_visible()
    finally:
        server.close()


@pytest.mark.slow
def test_ten_thousand_records_react_at_once(opens: Opens) -> None:
    domains = {domain: [f"{domain} {number}" for number in range(4)] for domain in ("natural", "plant", "medical")}
    domains |= {"texture": ["dtd"], "remote sensing": ["ucmerced", "eurosat"], "astronomy": [*"abcd"]}
    names = tuple(f"backbone{number}" for number in range(11))
    budgets = (ALL_IMAGES, Budget(20), Budget(5), Budget(fraction=0.1))
    page = opens(render(pages.report(names, domains, 12, budgets, classes=100, epochs=40)))
    for name in ("pairs", "cost", "low-data", "learning", "confusion"):
        drawn(page, name)
    page.evaluate("scrollTo(0, 0)")
    for select, value in (("budget", "2"), ("metric", "auroc"), ("domain", "medical"), ("domain", ""), ("budget", "0")):
        began = time.monotonic()
        page.select_option(f"#{select}", value)
        page.evaluate("new Promise(requestAnimationFrame)")
        assert time.monotonic() - began < 1, (select, value)
