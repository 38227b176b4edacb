"""The report's tables as CSV, Markdown and LaTeX."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from reporting.answers import capital
from reporting.costs import COSTS, cost_rows
from reporting.entry import METRICS

League = Mapping[str, Any]
Cell = Mapping[str, Any]

LEGEND = (
    "Test top-1 in percent, mean over seeds, with the half-width of Student's 95 % confidence interval. {best}: the "
    "highest mean of the dataset. {tied}: not significantly below it at 0.05 (Welch's t tests over seeds, "
    "paired ones where five seeds are shared, Holm-corrected). In parentheses: how many seeds, where that is not the "
    "same for all."
)
LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
LATEX |= {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': "''"}


def csv_text(report: Mapping[str, Any]) -> str:
    """A row a cell, with every metric and cost; fractions from 0 to 1."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    ends = [f"{metric}{end}" for metric in METRICS for end in ("", "_low", "_high")]
    head = ["league", "protocol", "recipe", "weights", "budget", "dataset", "domain", "backbone", "seeds", *ends]
    writer.writerow([*head, "mark", "train_and_select_images", *COSTS, "runs"])
    for league in report["leagues"]:
        for cell in league["cells"]:
            dataset, backbone = league["datasets"][cell["d"]], league["backbones"][cell["b"]]
            told = [league["title"], league["protocol"], league["recipe"], league["weights"]]
            told += [league["budgets"][cell["budget"]], dataset["key"], dataset["domain"], backbone["name"]]
            spans = [(cell[end] or {}).get(metric) for metric in METRICS for end in ("mean", "low", "high")]
            costs = {**cell["costs"], "parameters": backbone["parameters"], "macs": backbone["macs"]}
            row = [*told, len(cell["seeds"]), *spans, cell["mark"], cell["images"], *(costs[name] for name in COSTS)]
            writer.writerow([_no_formula(value) for value in [*row, " ".join(cell["runs"])]])
    return text.getvalue()


def _no_formula(value: Any) -> Any:
    """A text that no spreadsheet takes for a formula: names come from records, which others may have made."""
    return f"'{value}" if isinstance(value, str) and value.startswith(("=", "+", "-", "@", "\t", "\r")) else value


def markdown_text(report: Mapping[str, Any]) -> str:
    """The answers, the accuracy of every league and budget, and what it costs."""
    lines = [f"# {report['records']:,} records of {_plain(report['runs'])}"]
    for league in report["leagues"]:
        lines += ["", f"## {_plain(capital(league['title']))}", ""]
        lines += [f"- {_plain(note)}" for note in [*league["settings"], *league["notes"]]]
        for index, budget in enumerate(league["budgets"]):
            lines += ["", f"### {_plain(_budget(budget))}", ""]
            for scope, ranking in league["rankings"][str(index)].items():
                if scope == "overall" or scope in league["domains"]:
                    lines += [f"- **{_plain(capital(scope))}**: {_plain(ranking['answer'])}"]
                    lines += [f"  - {_plain(line)}" for line in ranking["evidence"]]
                    lines += [f"  - Missing: {_plain(line)}." for line in ranking["missing"]]
                    lines += [
                        f"  - Left out: {_plain(out['what'])}, {_plain(out['why'])}." for out in ranking["left_out"]
                    ]
            lines += ["", *_markdown_table(league, index)]
            lines += ["", LEGEND.format(best="Bold", tied="Underlined")]
            lines += ["", *_markdown_costs(league, index)]
    for what, key, where in (
        ("Listed apart", "apart", "run"),
        ("Skipped", "skipped", "path"),
        ("No learning curve", "no_curve", "run"),
        ("Failed", "failed", "cell"),
    ):
        if report[key]:
            lines += ["", f"## {what}", ""]
            lines += [f"- {_plain(line[where])}: {_plain(line['reason'])}" for line in report[key]]
    return "\n".join(lines) + "\n"


def _markdown_table(league: League, budget: int) -> list[str]:
    marks = {"best": "**{}**", "tied": "<u>{}</u>", "": "{}"}
    head, *rows = _accuracy(league, budget, lambda mark, text: marks[mark].format(text), "±", _plain)
    return _rows([head, *rows])


def _markdown_costs(league: League, budget: int) -> list[str]:
    rows, datasets = cost_rows(league, budget)
    if not rows:
        return []
    head = ["backbone", "mean top-1", *COSTS.values()]
    body = []
    for row in rows:
        cells = []
        for name in COSTS:
            value = row["costs"][name]
            cells.append("" if value is None else _cost(name, value) + ("*" if row["pareto"].get(name) else ""))
        body.append([_plain(row["name"]), f"{100 * row['top1']:.2f}", *cells])
    told = (
        f"Over {datasets} {'dataset' if datasets == 1 else 'datasets'} that all of these were run on. *: on the Pareto "
    )
    return [
        *_rows([head, *body]),
        "",
        told + "front of accuracy against this cost: no other is at least as good in both and better in one.",
    ]


def _cost(name: str, value: float) -> str:
    if name in ("parameters", "macs"):
        return f"{value / 1e6:.1f} M" if name == "parameters" else f"{value / 1e9:.2f} G"
    return f"{value:,.0f}" if value >= 100 else f"{value:.1f}"


def _rows(rows: Sequence[Sequence[str]]) -> list[str]:
    head, *body = (f"| {' | '.join(row)} |" for row in rows)
    return [head, f"|---|{'---:|' * (len(rows[0]) - 1)}", *body]


def latex_text(report: Mapping[str, Any]) -> str:
    """A booktabs table for every league and budget."""
    lines = ["% needs \\usepackage{booktabs} and \\usepackage{graphicx}"]
    marks = {"best": r"\textbf{{{}}}", "tied": r"\underline{{{}}}", "": "{}"}
    legend = LEGEND.format(best="Bold", tied="Underlined")
    for league in report["leagues"]:
        for index, budget in enumerate(league["budgets"]):
            head, *rows = _accuracy(league, index, lambda mark, text: marks[mark].format(text), r"$\pm$", latex)
            caption = f"{capital(league['title'])}; {_budget(budget).lower()}. {legend}"
            lines += [
                "",
                r"\begin{table*}",
                r"\centering",
                rf"\caption{{{latex(caption)}}}",
                r"\resizebox{\textwidth}{!}{%",
                rf"\begin{{tabular}}{{l{'r' * (len(head) - 1)}}}",
                r"\toprule",
                f"{' & '.join(head)} \\\\",
                r"\midrule",
                *(f"{' & '.join(row)} \\\\" for row in rows),
                r"\bottomrule",
                r"\end{tabular}}",
                r"\end{table*}",
            ]
    return "\n".join(lines) + "\n"


def latex(text: str) -> str:
    """The text as LaTeX sets it, whatever characters it has."""
    text = re.sub(r'[\\~^<>|"&%$#_{}]', lambda match: LATEX.get(match[0], f"\\{match[0]}"), text)
    return " ".join(text.split())


def _accuracy(
    league: League, budget: int, marked: Callable[[str, str], str], plus_minus: str, plain: Callable[[str], str]
) -> Iterator[list[str]]:
    """Datasets in rows, backbones in columns, as texts; the head first."""
    cells = {(cell["d"], cell["b"]): cell for cell in league["cells"] if cell["budget"] == budget}
    columns = [
        b for b in range(len(league["backbones"])) if any((d, b) in cells for d in range(len(league["datasets"])))
    ]
    same = len({len(cell["seeds"]) for cell in cells.values()}) == 1
    yield ["dataset", *(plain(league["backbones"][b]["name"]) for b in columns)]
    for d, dataset in enumerate(league["datasets"]):
        if any((d, b) in cells for b in columns):
            yield [plain(dataset["name"]), *(_shown(cells.get((d, b)), same, marked, plus_minus) for b in columns)]


def _shown(cell: Cell | None, same: bool, marked: Callable[[str, str], str], plus_minus: str) -> str:
    if cell is None:
        return "--"
    mean = cell["mean"]["top1"]
    text = f"{100 * mean:.2f}"
    if cell["low"]:
        text += f" {plus_minus} {100 * max(mean - cell['low']['top1'], cell['high']['top1'] - mean):.2f}"
    return marked(cell["mark"], text) + ("" if same else f" ({len(cell['seeds'])})")


def _plain(text: str) -> str:
    """A text in which Markdown finds no mark, and HTML no tag."""
    text = " ".join(text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").split())
    return re.sub(r"([\\`*_\[\]|~])", r"\\\1", text)


def _budget(budget: str) -> str:
    return "All training images" if budget == "all" else f"{budget} a class" if "shots" in budget else budget
