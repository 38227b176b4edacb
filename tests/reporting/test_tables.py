"""reporting/tables.py and costs.py: the report as CSV, Markdown and LaTeX."""

import csv
import io
import re
from pathlib import Path
from typing import Any

import pytest

from engine.config import FLAGS
from engine.records.schema import COSTS
from engine.training.metrics import METRICS
from reporting.build import build
from reporting.collect import collect
from reporting.costs import geometric_mean
from reporting.tables import csv_text, latex, latex_text, markdown_text, runs_text
from tests.reporting import synthetic

EVIL = "=cmd|'x'!A1 & 5 % of $a_b{c}\\ | <b>**"


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    runs = tmp_path_factory.mktemp("runs")
    synthetic.make(runs, datasets=["ucmerced", "eurosat"], backbones=["resnet", "convnext"], seeds=3, errors=False)
    synthetic.write(runs, synthetic.record("ucmerced", "swin", 0))
    synthetic.write(runs, synthetic.record("ucmerced", "swin", 0, "5 shots", dataset={"key": "folder-x", "name": EVIL}))
    synthetic.write(runs, synthetic.record("eurosat", "swin", 1, status="failed", error="<script>"))
    return build(collect(runs), runs)


def test_csv_has_a_row_a_cell(report: dict[str, Any]) -> None:
    rows = list(csv.DictReader(io.StringIO(csv_text(report))))
    assert len(rows) == sum(len(group["cells"]) for group in report["groups"]) == 6
    row = next(row for row in rows if (row["dataset"], row["backbone"]) == ("eurosat", "convnext"))
    cell = next(cell for cell in report["groups"][0]["cells"] if row["runs"] == " ".join(cell["runs"]))
    assert float(row["top1"]) == cell["mean"]["top1"]
    assert float(row["nll_seeds_high"]) == cell["high"]["nll"]
    assert (row["seeds"], row["mark"], row["budget"], row["domain"]) == ("3", "best", "all", "remote sensing")
    assert float(row["train_seconds"]) == cell["costs"]["train_seconds"]
    assert int(row["train_and_val_images"]) == cell["images"]
    assert next(row for row in rows if row["backbone"] == "swin")["top1_seeds_low"] == ""


def test_csv_has_no_formulas(report: dict[str, Any]) -> None:
    report = {**report, "groups": [{**group, "title": "=1+1"} for group in report["groups"]]}
    rows = list(csv.reader(io.StringIO(csv_text(report))))
    assert {row[0] for row in rows[1:]} == {"'=1+1"}


def test_runs_has_a_row_a_record(tmp_path: Path) -> None:
    """Of those that are not ranked, too, with the reason; as a program reads it, each of its kind and in full."""
    made = [synthetic.record("ucmerced", "resnet", seed, config={"lr": 0.1 + 0.2}) for seed in range(3)]
    made.append(synthetic.record("eurosat", "swin", 1, "5 shots", status="failed", error="the loss\nis nan"))
    made.append(synthetic.record("eurosat", "resnet", 2, status="running", finished=None, config={"tune": "linear"}))
    made.append(synthetic.record("eurosat", "resnet", 3, dataset={"partial": True}))
    for record in made:
        synthetic.write(tmp_path, record)
    collected = collect(tmp_path)
    text = runs_text(collected.entries, build(collected, tmp_path))
    head, *rows = csv.reader(io.StringIO(text))
    table = [dict(zip(head, row, strict=True)) for row in rows]
    assert len(table) == len(made)
    assert len(set(head)) == len(head)
    assert {f"asked_{name}" for name in FLAGS} | METRICS.keys() | COSTS.keys() <= {*head}
    of_run = {row["run"].rpartition("/")[2]: row for row in table}
    for record in made:
        row = of_run[record["run"]]
        assert (row["status"], row["dataset"], row["backbone"]) == (
            record["status"],
            record["dataset"]["key"],
            record["backbone"]["name"],
        )
        for part, names in (("test", METRICS), ("costs", COSTS)):
            found = {name: float(row[name]) if row[name] else None for name in names}
            assert found == {name: record.get(part, {}).get(name) for name in names}
        assert (row["ranked"] == "True") == (not row["not_ranked_because"]) == bool(row["comparable_group"])
    assert [row["ranked"] for row in table].count("True") == 3
    assert of_run[made[0]["run"]]["asked_lr"] == "0.30000000000000004"
    assert of_run[made[0]["run"]]["asked_size"] == "256 256"
    assert of_run[made[3]["run"]]["error"] == "the loss is nan"
    assert of_run[made[3]["run"]]["budget"] == "5 shots"
    assert (of_run[made[4]["run"]]["finished"], of_run[made[4]["run"]]["asked_tune"]) == ("", "linear")
    assert "partial" in of_run[made[5]["run"]]["not_ranked_because"]


def test_markdown(report: dict[str, Any]) -> None:
    text = markdown_text(report)
    lines = text.splitlines()
    head = next(line for line in lines if line.startswith("| dataset"))
    assert head == "| dataset | resnet | convnext | swin |"
    row = next(line for line in lines if line.startswith("| UCMerced"))
    assert re.fullmatch(
        r"\| UCMerced \| [^|]* \(3\) \| \*\*\d\d\.\d\d ± \d\.\d\d \[\d\d\.\d, \d\d\.\d\]\*\* \(3\) "
        r"\| \d\d\.\d\d \[\d\d\.\d, \d\d\.\d\] \(1\) \|",
        row,
    )
    assert "- **Overall**: Not enough evidence" in text or "- **Overall**: convnext" in text
    assert "failed: &lt;script&gt;" in text
    assert "<b>" not in text
    assert r"5 % of $a\_b{c}\\ \| &lt;b&gt;\*\*" in text
    columns = {line.count(" | ") for line in lines if line.startswith("| ") and " ± " in line}
    assert len(columns) == 1


def test_latex(report: dict[str, Any]) -> None:
    text = latex_text(report)
    for word in (r"\toprule", r"\midrule", r"\bottomrule", r"\textbf{", r"$\pm$", r"\caption{Honest protocol"):
        assert word in text
    assert text.count(r"\begin{tabular}") == text.count(r"\end{tabular}") == 2
    assert "5 \\% of \\$a\\_b\\{c\\}\\textbackslash{} \\textbar{} \\textless{}b\\textgreater{}**" in text
    bare = re.sub(r"\\[{}]", "", text)
    assert bare.count("{") == bare.count("}")
    widths = [line.count("&") - line.count(r"\&") for line in text.splitlines() if line.endswith(r"\\")]
    assert widths == [3, 3, 3, 1, 1]


@pytest.mark.parametrize(("name", "expected"), [("[old] pets", "{[}old] pets"), ("*pets", "{*}pets"), ("a[1]", "a[1]")])
def test_a_name_at_the_start_of_a_row_is_no_option_of_the_end_of_the_last(name: str, expected: str) -> None:
    assert latex(name) == expected


def test_latex_of_every_special_character() -> None:
    assert latex('~^\\\n"') == r"\textasciitilde{}\textasciicircum{}\textbackslash{} ''"


def test_tied_cells_are_underlined(tmp_path: Path) -> None:
    for shift, name in enumerate(("swin", "resnet")):
        for seed in range(3):
            top1 = 0.9 + 0.02 * ((seed + shift) % 3) + 0.001 * shift
            synthetic.write(tmp_path, synthetic.record("dtd", name, seed, top1=top1))
    made = build(collect(tmp_path), tmp_path)
    assert re.search(r"\| DTD \| \*\*[^*]*\*\* \| <u>[^<]*</u> \|", markdown_text(made))
    assert r"\underline{" in latex_text(made)


def test_costs_are_compared_on_the_same_datasets(report: dict[str, Any]) -> None:
    group = report["groups"][0]
    costs = group["budgets"][0]["costs"]
    compared = costs["scopes"]["overall"]
    names = [backbone["name"] for backbone in group["backbones"]]
    assert [names[b] for b in compared["backbones"]] == names == ["resnet", "convnext", "swin"]
    assert (compared["datasets"], compared["left_out"]) == ([0], ["EuroSAT"])  # swin has UCMerced alone
    front = [names[b] for b in compared["front"]["parameters"]["top1"]]
    assert front == ["resnet", "convnext", "swin"]  # the less accurate, the smaller
    assert [names[b] for b in compared["front"]["macs"]["nll"]] == [
        "resnet",
        "convnext",
    ]  # swin needs as many as convnext
    assert "epochs" not in compared["front"]  # neither less nor more is better
    in_millions = [backbone["costs"]["parameters"] / 1e6 for backbone in group["backbones"]]
    assert compared["costs"]["parameters"] == pytest.approx(in_millions, rel=0.005)
    assert compared["machines"] == ["NVIDIA A100-SXM4-40GB"]
    assert [names[b] for b in costs["datasets"][1]["backbones"]] == ["resnet", "convnext"]


def test_means_of_costs_are_geometric(report: dict[str, Any]) -> None:
    group = report["groups"][0]
    compared = group["budgets"][0]["costs"]["scopes"]["remote sensing"]
    assert geometric_mean([100, 400]) == pytest.approx(200)
    assert geometric_mean([100, None]) is geometric_mean([100, 0]) is geometric_mean([]) is None
    text = markdown_text(report)
    assert "costs are geometric means" in text
    seconds = compared["costs"]["train_seconds"][compared["backbones"].index(1)]
    row = next(line for line in text.splitlines() if line.startswith("| convnext |"))
    assert f"| {seconds}* |" in row


def test_averages_are_over_all_datasets_of_a_scope(report: dict[str, Any]) -> None:
    group = report["groups"][0]
    averages = group["budgets"][0]["averages"]
    of_convnext = [cell["mean"]["nll"] for cell in group["cells"] if cell["b"] == 1 and cell["budget"] == 0]
    assert averages["overall"]["nll"][1] == f"{sum(of_convnext) / 2:.3f}"
    assert averages["overall"]["top1"][2] is None  # swin lacks EuroSAT
    assert averages.keys() == {"overall", "remote sensing"}
