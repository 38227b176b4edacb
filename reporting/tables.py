"""The report's tables as CSV, Markdown and LaTeX."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any

from engine.errors import counted
from reporting.agreement import ORDER
from reporting.cells import mean_and_intervals
from reporting.entry import Entry
from reporting.markup import unpaired_note
from reporting.record_row import columns
from reporting.statistics import FEWEST_SEEDS, TESTS_OF_MEANS
from reporting.words import Shown, capital, number_text

LEGEND = (
    "Test top-1 in percent, mean over seeds, with the half-width of Student's 95 % confidence interval over seeds, and "
    "in brackets Wilson's 95 % interval of the test part, for its number of images. Bold: the highest mean of the "
    f"dataset. Underlined: not significantly below it at 0.05 ({TESTS_OF_MEANS}); nothing is claimed of cells under "
    f"{FEWEST_SEEDS} seeds or folds. In parentheses: how many seeds, where that is not the same for all."
)
FRONT = (
    "Over {} that all of these were run on; costs are geometric means. *: on the Pareto front of accuracy against this "
    "cost: no other is at least as good in both and better in one, by these means, however small the difference."
)
# what a report makes of a record, before what the record says
JUDGED = ("run", "status", "ranked", "not_ranked_because", "comparable_group", "budget")
FORMULAS = tuple("=+-@\uff1d\uff0b\uff0d\uff20")  # and their wide forms
LATEX = {"\\": r"\textbackslash{}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}"}
LATEX |= {"<": r"\textless{}", ">": r"\textgreater{}", "|": r"\textbar{}", '"': "''"}


def csv_text(report: Shown) -> str:
    """A row a cell, with every metric and cost; fractions from 0 to 1, costs in the records' units."""
    ends = [f"{metric}{end}" for metric in report["metrics"] for end in ("", "_seeds_low", "_seeds_high")]
    ends += ["top1_test_part_low", "top1_test_part_high"]
    place = ["comparable_group", "protocol", "recipe", "weights", "budget", "dataset", "domain", "backbone"]
    place += ["seeds", "test_images"]
    rows = []
    for group in report["groups"]:
        for cell in group["cells"]:
            dataset, backbone = group["datasets"][cell["d"]], group["backbones"][cell["b"]]
            row = [group["title"], group["protocol"], group["recipe"], group["weights"]]
            row += [group["budgets"][cell["budget"]]["name"], dataset["key"], dataset["domain"], backbone["name"]]
            row += [len(cell["seeds"]), dataset["test"]]
            row += [cell[end].get(metric) for metric in report["metrics"] for end in ("mean", "low", "high")]
            row += cell["of_test"] or [None, None]
            costs = {**cell["costs"], **backbone["costs"]}
            row += [cell["marks"].get("top1", ""), cell["images"], *(costs[name] for name in report["costs"])]
            rows.append([*row, " ".join(cell["runs"])])
    return csv_of([*place, *ends, "mark", "train_and_val_images", *report["costs"], "runs"], rows)


def runs_text(entries: Iterable[Entry], report: Mapping[str, Any]) -> str:
    """A row a record, as CSV. Fractions are from 0 to 1, costs in the records' units, times UTC; empty: not known.

    ranked: whether the record is compared with others in one of the report's groups; if not, the next column has the
    reason.
    """
    group_of = {run: group["title"] for group in report["groups"] for cell in group["cells"] for run in cell["runs"]}
    apart: dict[str, list[str]] = {}
    for line in report["apart"]:
        apart.setdefault(line["run"], []).append(line["reason"])
    rows = []
    for entry in entries:
        why = "; ".join(apart.get(entry.run, []))
        judged = (entry.run, entry.status, entry.run in group_of, why, group_of.get(entry.run, ""), str(entry.budget))
        rows.append([*judged, *entry.row])
    return csv_of([*JUDGED, *columns()], rows)


def csv_of(head: Sequence[str], rows: Iterable[Sequence[Any]]) -> str:
    """The rows as CSV, with numbers in full precision."""
    text = io.StringIO()
    # texts in quotes, since some spreadsheets take a semicolon for the end of a cell too
    writer = csv.writer(text, lineterminator="\n", quoting=csv.QUOTE_NONNUMERIC)
    writer.writerows([[_no_formula(value) for value in row] for row in (head, *rows)])
    return text.getvalue()


def _no_formula(value: Any) -> Any:
    """A text that no spreadsheet takes for a formula: names come from records, which others may have made."""
    return f"'{value}" if isinstance(value, str) and value.lstrip().startswith(FORMULAS) else value


def markdown_text(report: Shown) -> str:
    """The answers, the accuracy of every comparable group and budget, and what it costs."""
    lines = [f"# {counted(report['records'], 'record')} of {_plain(report['runs'])}"]
    for group in report["groups"]:
        lines += ["", f"## {_plain(capital(group['title']))}", ""]
        lines += [f"- {_plain(note)}" for note in [*group["settings"], *group["notes"]]]
        for index, budget in enumerate(group["budgets"]):
            lines += ["", f"### {_plain(capital(budget['words']))}", ""]
            lines += [*_markdown_advice(budget["advice"]), ""]
            for scope in group["answered"]:
                lines += _markdown_answer(scope, budget["rankings"][scope])
            lines += ["", *_markdown_table(group, index)]
            lines += ["", LEGEND]
            lines += [_plain(note)] if (note := unpaired_note(budget)) else []
            lines += ["", *_markdown_costs(report, group, budget["costs"]["scopes"]["overall"])]
    for result in report["before"]["results"]:
        lines += _markdown_before(result, report["before"]["labels"])
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


def _markdown_advice(advice: Mapping[str, Any]) -> list[str]:
    lines = [f"**{_plain(advice['headline'])}**", "", *(f"- {_plain(line)}" for line in advice["more"])]
    if (taken := advice["taken"]) and taken["path"]:
        lines += [f"- Trained {_plain(taken['backbone'])}, {_plain(taken['why'])}: {_plain(taken['path'])}"]
    for each in advice["commands"]:
        lines += ["", f"{_plain(each['why'])}:", "", f"    {each['command']}"]
    return lines


def _markdown_answer(scope: str, ranking: Mapping[str, Any]) -> list[str]:
    lines = [f"- **{_plain(capital(scope))}**: {_plain(ranking['answer'])}"]
    lines += [f"  - {_plain(line)}" for line in ranking["evidence"]]
    lines += [f"  - Missing: {_plain(line)}." for line in ranking["missing"]]
    return lines + [f"  - Left out: {_plain(out['what'])}, {_plain(out['why'])}." for out in ranking["left_out"]]


def _markdown_table(group: Shown, budget: int) -> list[str]:
    marks = {"best": "**{}**", "tied": "<u>{}</u>", "": "{}"}
    head, *rows = _accuracy(group, budget, lambda mark, text: marks[mark].format(text), "±", _plain)
    return _rows([head, *rows])


def _markdown_costs(report: Shown, group: Shown, compared: Mapping[str, Any]) -> list[str]:
    """Accuracy and costs of the backbones that can be compared, the best first."""
    if not compared["backbones"]:
        return []
    costs, top1 = report["costs"], compared["accuracy"]["top1"]
    units = [f"{cost['label']}{cost['unit'] and ', ' + cost['unit']}" for cost in costs.values()]
    rows = [["backbone", "mean top-1", *units]]
    for place in sorted(range(len(top1)), key=lambda place: -float(top1[place])):
        b = compared["backbones"][place]
        cells = []
        for name in costs:
            value, front = compared["costs"][name][place], compared["front"].get(name, {}).get("top1", [])
            text = "" if value is None else number_text(value)
            cells.append(text + ("*" if b in front else ""))
        rows.append([_plain(group["backbones"][b]["name"]), top1[place], *cells])
    return [*_rows(rows), "", FRONT.format(counted(len(compared["datasets"]), "dataset"))]


def _markdown_before(result: Shown, labels: Mapping[str, str]) -> list[str]:
    """Scores before training, beside what fine-tuning then gave."""
    kinds = [kind for kind in result["kinds"] if kind in labels and kind != ORDER]
    rows = [["backbone", *(labels[kind] for kind in kinds), "measured top-1"]]
    for row in result["rows"]:
        measured = "{:.2f} [{:.2f}, {:.2f}]".format(*row["measured"]) if row["measured"] else ""
        rows.append([_plain(row["name"]), *(row["texts"].get(kind, "") for kind in kinds), measured])
    lines = ["", f"## Scores before training: {_plain(result['name'])}", ""]
    search = result["search"]["sentences"] if result["search"] else []
    lines += [f"- {_plain(line)}" for line in (result["facts"], *result["sentences"], *search)]
    lines += ["", f"In the order of rank.py: {_plain(result['rule'])}.", "", *_rows(rows)]
    if not result["agreements"]:
        return lines
    heads = ["by", "weighted tau", "points lost by its first", "by its first three", "backbones"]
    agreements = [
        [of["name"], *(_with_ends(each) for each in (of["tau"], *of["regret"])), str(of["backbones"])]
        for of in result["agreements"]
    ]
    return [*lines, "", *_rows([heads, *agreements])]


def _with_ends(interval: Sequence[str] | None) -> str:
    return "{} [{}, {}]".format(*interval) if interval else ""


def _rows(rows: Sequence[Sequence[str]]) -> list[str]:
    head, *body = (f"| {' | '.join(row)} |" for row in rows)
    return [head, f"|---|{'---:|' * (len(rows[0]) - 1)}", *body]


def latex_text(report: Shown) -> str:
    """A booktabs table for every comparable group and budget."""
    lines = ["% needs \\usepackage{booktabs} and \\usepackage{graphicx}"]
    marks = {"best": r"\textbf{{{}}}", "tied": r"\underline{{{}}}", "": "{}"}
    for group in report["groups"]:
        for index, budget in enumerate(group["budgets"]):
            head, *rows = _accuracy(group, index, lambda mark, text: marks[mark].format(text), r"$\pm$", latex)
            caption = f"{capital(group['title'])}; {budget['words']}. {LEGEND} {unpaired_note(budget)}"
            lines += [
                "",
                f"% {latex(budget['advice']['headline'])}",
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
    text = text.replace("\N{REPLACEMENT CHARACTER}", "?")  # which its fonts lack
    text = " ".join(re.sub(r'[\\~^<>|"&%$#_{}]', lambda match: LATEX.get(match[0], f"\\{match[0]}"), text).split())
    # at the start of a row they would be taken for what follows the \\\\ or the rule before it
    return f"{{{text[0]}}}{text[1:]}" if text.startswith(("[", "*")) else text


def _accuracy(
    group: Shown, budget: int, marked: Callable[[str, str], str], plus_minus: str, plain: Callable[[str], str]
) -> Iterator[list[str]]:
    """Datasets in rows, backbones in columns, as texts; the head first."""
    cells = {(cell["d"], cell["b"]): cell for cell in group["cells"] if cell["budget"] == budget}
    columns = [b for b in range(len(group["backbones"])) if any((d, b) in cells for d in range(len(group["datasets"])))]
    same = len({len(cell["seeds"]) for cell in cells.values()}) == 1
    yield ["dataset", *(plain(group["backbones"][b]["name"]) for b in columns)]
    for d, dataset in enumerate(group["datasets"]):
        if any((d, b) in cells for b in columns):
            yield [plain(dataset["name"]), *(_shown(cells.get((d, b)), same, marked, plus_minus) for b in columns)]


def _shown(cell: Shown | None, same: bool, marked: Callable[[str, str], str], plus_minus: str) -> str:
    if cell is None:
        return "--"
    text = "".join(mean_and_intervals(cell, "top1")).replace("±", plus_minus)
    return marked(cell["marks"].get("top1", ""), text) + ("" if same else f" ({len(cell['seeds'])})")


def _plain(text: str) -> str:
    """A text in which Markdown finds no mark, and HTML no tag."""
    text = " ".join(text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;").split())
    return re.sub(r"([\\`*_\[\]|~])", r"\\\1", text)
