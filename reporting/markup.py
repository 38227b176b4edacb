"""What of the page is written here, as HTML: the answers, what is said of ranks, and a table of accuracy."""

from __future__ import annotations

import re
from collections.abc import Iterable
from html import escape

from engine.errors import agreeing, counted
from reporting.answers import unpaired_words
from reporting.cells import parts
from reporting.statistics import FEWEST_DATASETS, FEWEST_SEEDS, FEWEST_SIGNS, LEVEL
from reporting.words import Shown, capital

ABSENT = '<span class="absent">\N{EN DASH}</span>'
SURER = "What would make it surer:"
HOW_SURE = "How sure is this?"
# for those who do not compare networks every day: what the evidence and the tables call things
GLOSSARY = {
    "backbone": "a network that has learned to see on other images, and whose last layer is made anew for these",
    "seed": "the number that a random start is made from; trainings with different seeds show how much is luck",
    "top-1": "the share of test images of which the class named first is the right one",
    "train, val, test": "the images that are learned from; those that choose the epoch; those that are counted here, "
    "which had no part in either (under the paper protocol, test chooses the epoch)",
    "95 % interval": "where the number would lie 19 times of 20, had other seeds, or other test images, been drawn",
    "significantly": f"by more than chance gives more often than {LEVEL:g} of the times",
    "Holm-corrected": "made stricter, since of many comparisons some would come out by luck",
    "t test, Welch, exact test": "ways to compute how often chance alone gives such a difference",
    "rank tests (Friedman, Nemenyi)": "the same, of the places that backbones take on many datasets",
    "cell": "one backbone on one dataset, all its seeds",
    "recipe, protocol": "how the network is trained; which images choose the epoch (docs/protocols.md)",
}
# page.js hides those that do not hold of what is chosen
LEGEND = (
    '<p class="legend"><span><b>Bold</b>: best mean of the dataset</span> '
    '<span id="legend-tied"><u>underlined</u>: too close to it to tell</span> '
    f'<span id="legend-few" hidden>Under {FEWEST_SEEDS} seeds nothing is claimed, marked or not.</span> '
    '<span id="legend-unpaired" hidden>{unpaired}</span> '
    '<span id="legend-no-ties" hidden>Ties are claimed for top-1 only.</span> '
    '<span class="on-screen needs-script">Choose a number to see it in detail.</span> '
    '<span id="legend-average" hidden>Average: over the datasets shown, only where all are there.</span> '
    '<span id="legend-hidden" hidden>Marks are among all backbones, hidden ones too.</span></p>'
)
DIAGRAM = (
    '<figure class="diagram"><div class="scroll" role="region" tabindex="0" aria-label="Critical-difference diagram">'
    "{}</div><figcaption>Critical-difference diagram: average ranks, joined where the Nemenyi test over "
    "datasets finds no difference.</figcaption></figure>"
)


def facts(report: Shown) -> str:
    """What the report was made of, and when."""
    made = report["made"]
    parts = [
        f"{counted(report['records'], 'record')} of <code>{escape(report['runs'])}</code>",
        f'<time datetime="{escape(made)}">{escape(made[:16].replace("T", " "))} UTC</time>',
    ]
    if report["commit"]:
        parts.append(f"commit <code>{escape(report['commit'][:8])}</code>")
    return ", ".join(parts)


def no_answer(report: Shown) -> str:
    """What stands for an answer where there is no comparable group."""
    line = (
        f"Finished runs on whole data. Of {counted(report['records'], 'record')}, "
        f"{len(report['apart']):,} {agreeing(len(report['apart']), 'are')} listed apart below, with the reason."
    )
    missing = _missing("What is missing:", [line])
    head = '<p class="answer open">No answer yet: no run is finished that can be compared.</p>'
    return f"{head}{missing}{_commands(report['unranked'])}"


def answer(group: Shown, budget: int) -> str:
    """The answers of a comparable group and a budget, in plain words, and for all data and for each domain."""
    words, rankings = group["budgets"][budget]["words"], group["budgets"][budget]["rankings"]
    text = _advice(group["budgets"][budget]["advice"], group["warnings"])
    of_group = f'<p class="group">{escape(capital(group["title"]))}. {escape(capital(words))}.</p>'
    if len(rankings["overall"]["asked"]) < 2:  # what others would say of ranks is no answer to whoever has one dataset
        folded = of_group + _finding(rankings["overall"], "tested-answer") + _glossary()
        return f'{text}<details class="sure"><summary>{HOW_SURE}</summary>{folded}</details>'
    text += of_group + _finding(rankings["overall"], "tested-answer")
    domains = "".join(
        f'<section class="{"domain" if rankings[domain]["enough"] else "domain open"}">'
        f"<h2>{escape(capital(domain))}</h2>{_finding(rankings[domain], 'domain-answer')}</section>"
        for domain in group["answered"][1:]
    )
    words = f'<details class="sure"><summary>What the words mean</summary>{_glossary()}</details>'
    return f'{text}<div class="domains">{domains}</div>{words}'


def _advice(advice: Shown, warnings: Iterable[str]) -> str:
    """What to take, in plain words, where it lies, and what to run next."""
    text = f'<p class="answer{" open" if advice["open"] else ""}">{escape(advice["headline"])}</p>'
    text += "".join(f'<p class="warning">{escape(capital(warning))}.</p>' for warning in warnings)
    text += f'<ul class="plain">{_items(advice["more"])}</ul>' if advice["more"] else ""
    taken = advice["taken"]
    if taken and taken["path"]:
        head = f"The trained {escape(taken['backbone'])}"
        text += f'<div class="next"><p>{head}: {escape(taken["why"])}</p><pre>{escape(taken["path"])}</pre></div>'
    return text + _commands(advice["commands"])


def _commands(commands: Iterable[Shown]) -> str:
    return "".join(
        f'<div class="next"><p>{escape(each["why"])}:</p><pre>{_whole_words(each["command"])}</pre></div>'
        for each in commands
    )


def _whole_words(command: str) -> str:
    """The command, whose flags are not broken at their hyphens."""
    return re.sub(r"[^ ]+", lambda word: f"<span>{escape(word[0])}</span>", command)


def _glossary() -> str:
    words = "".join(f"<dt>{escape(word)}</dt><dd>{escape(capital(means))}.</dd>" for word, means in GLOSSARY.items())
    return f'<dl class="glossary">{words}</dl>'


def _finding(ranking: Shown, name: str) -> str:
    split = re.match(r"(.+?\.) (.+)$", ranking["answer"], re.DOTALL)
    said = escape(ranking["answer"])
    if split:
        said = f'{escape(split[1])}<span class="rest"> {escape(split[2])}</span>'
    enough = ranking["enough"]
    evidence = f'<ul class="evidence">{_items(ranking["evidence"])}</ul>' if ranking["evidence"] else ""
    missing = _missing(SURER if enough else "What is missing:", ranking["missing"])
    text = f'<p class="{name if enough else name + " open"}">{said}</p>'
    if name != "domain-answer":
        return text + evidence + missing
    # of a domain with an answer, what it rests on comes on request
    folded = evidence + (missing if enough else "")
    details = f"<details><summary>Evidence</summary>{folded}</details>" if folded else ""
    return text + ("" if enough else missing) + details


def _missing(head: str, lines: Iterable[str]) -> str:
    items = _items(lines)
    return f'<div class="missing"><p>{escape(head)}</p><ul>{items}</ul></div>' if items else ""


def _items(texts: Iterable[str]) -> str:
    return "".join(f"<li>{escape(text)}</li>" for text in texts)


def ranks(group: Shown, budget: int) -> str:
    """What is said of the ranks of each scope, a div each: the diagram, the tests, what is missing and left out."""
    rankings = group["budgets"][budget]["rankings"]
    return "".join(
        f'<div data-scope="{escape(scope)}">{_ranks(rankings[scope])}</div>' for scope in ("overall", *group["domains"])
    )


def _ranks(ranking: Shown) -> str:
    text = DIAGRAM.format(ranking["svg"]) if ranking["svg"] else ""
    if ranking["tests"]:
        text += "".join(f"<p>{escape(test)}</p>" for test in ranking["tests"])
    elif ranking["ranks"]:
        text += (
            f'<p class="note">No test of significance: it takes {FEWEST_SEEDS} seeds in every cell and '
            f"{FEWEST_DATASETS} datasets ({FEWEST_SIGNS} for two backbones).</p>"
        )
    text += _missing(SURER if ranking["enough"] else ranking["answer"], ranking["missing"])
    if left_out := ranking["left_out"]:
        items = _items(f"{line['what']}: {line['why']}" for line in left_out)
        summary = f"Left out of these ranks: {len(left_out)}"
        text += f"<details><summary>{summary}</summary><ul>{items}</ul></details>"
    return text


def accuracy(group: Shown) -> str:
    """The accuracy table of the first budget, which the scripts replace by one that sorts, and its legend."""
    budget = group["budgets"][0]
    cells = {(cell["d"], cell["b"]): cell for cell in group["cells"] if cell["budget"] == 0}
    datasets = sorted({d for d, _ in cells})
    head = "".join(f'<th scope="col" class="number">{escape(group["datasets"][d]["name"])}</th>' for d in datasets)
    averages = budget["averages"].get("overall")
    rows = []
    for b, backbone in enumerate(group["backbones"]):
        boxes = "".join(f'<td class="number">{_cell(cells.get((d, b)), budget["seeds"])}</td>' for d in datasets)
        if averages:
            boxes += f'<td class="number average">{averages["top1"][b] or ABSENT}</td>'
        rows.append(f'<tr><th scope="row" class="name">{escape(backbone["name"])}</th>{boxes}</tr>')
    last = '<th scope="col" class="number average">Average</th>' if averages else ""
    return (
        '<div id="accuracy-body"><div class="scroll" role="region" tabindex="0" aria-label="Accuracy table"><table>'
        f'<caption>{escape(budget["captions"]["top1"])}</caption><thead><tr><th scope="col" class="name">Backbone</th>'
        f"{head}{last}</tr></thead><tbody>{''.join(rows)}</tbody></table></div></div>{_legend(budget)}"
    )


def unpaired_note(budget: Shown) -> str:
    """Say of a budget on which datasets significance was tested without the test images in pairs; "": on none."""
    return f"{unpaired_words(budget['unpaired'])}." if budget["unpaired"] else ""


def _legend(budget: Shown) -> str:
    """The legend of a budget's table, as it is for top-1."""
    text = LEGEND.format(unpaired=escape(unpaired_note(budget)))
    for name, shown in (("few", budget["short"]), ("unpaired", bool(budget["unpaired"]))):
        text = text.replace(f'id="legend-{name}" hidden', f'id="legend-{name}"') if shown else text
    return text if budget["ties"] else text.replace('id="legend-tied"', 'id="legend-tied" hidden')


def _cell(cell: Shown | None, seeds: int) -> str:
    return "".join(f"<{tag}>{text}</{tag}>" for tag, text in parts(cell, seeds)["top1"]) if cell else ABSENT
