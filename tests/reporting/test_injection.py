"""What others write into records and the grid's files does no harm in any output, and none of them grows with it."""

import csv
import io
import json
import re
from pathlib import Path
from typing import Any

import pytest

import report
from engine.console import fit_to_show
from tests.reporting import synthetic
from tests.reporting.test_page import Outline

PAYLOADS = {
    "html": "<script>alert(1)</script>",
    "end of script": "</script><img src=x onerror=alert(1)>",
    "cdata": "]]><!--",
    "template": "{{style}}",
    "entity": "&lt;b&gt;&#60;script&#62;",
    "formula": '=cmd|"/c calc"!A1',
    "formula +": "+1+cmd",
    "formula -": "-2+3",
    "formula @": "@SUM(A1)",
    "formula after a blank": " =1+1",
    "wide formula": "\uff1d1+1",
    "next cell": "a;=1+1",
    "latex": r"\input{/etc/passwd} $x^2$ %_#&~ {",
    "table": "a | b || c",
    "link": "[x](javascript:alert(1))",
    "image": "![x](http://evil.example/x.png)",
    "code": "`` ` ```",
    "lines": "one\ntwo\r\n# three\u2028four\x0bfive",
    "escape": "\x1b[31mred\x1b]0;title\x07\x1b]8;;http://evil.example\x1b\\",
    "c1": "\x9b31m\x9d0;x\x9c",
    "bidi": "abc\u202etxt.exe\u2066",
    "zero width": "a\u200bb\ufeffc\u2060d\u00ade\U000e0041",
    "nul": "a\0b",
    "half": "a\ud800b\udfffc",
}
RAW = re.compile("[\0-\x08\x0b-\x1f\x7f-\x9f\u00ad\u200b\u2028\u2029\u202e\u2060\u2066\ufeff\ud800-\udfff\U000e0041]")


@pytest.fixture(autouse=True)
def _no_plots(monkeypatch: pytest.MonkeyPatch) -> None:
    """A page without the 5 MB that draw its plots."""
    monkeypatch.setattr("reporting.render._plotly", lambda: "0")


def harmed(runs: Path, payload: str) -> None:
    """Records and a failed cell that have the text wherever they can have one."""
    changes: dict[str, Any] = {
        "dataset": {"key": f"k{payload}", "name": payload, "domain": payload, "version": payload, "notes": [payload]},
        "backbone": {"name": payload, "weights": payload},
        "plan": {"device_name": payload},
        "recipe": payload,
        "config": {"weights": payload, "recipe": payload, "augment": payload, "extra": payload},
    }
    for name in ("swin", "resnet", "convnext"):
        for seed in range(3):
            made = synthetic.record("ucmerced", name, seed, **changes)
            made["backbone"]["name"] = payload + name
            made["dataset"]["classes"][0] = payload
            folder = runs / "x" / name / str(seed)
            folder.mkdir(parents=True)
            (folder / "record.json").write_text(json.dumps(made))
    failed = synthetic.record("ucmerced", "regnet", 5, status="failed", error=payload)
    (runs / "failed").mkdir()
    (runs / "failed" / "record.json").write_text(json.dumps(failed))
    (runs / "grid").mkdir()
    failure = {"cell": payload, "reason": payload, "tail": [payload], "dataset": payload, "model": payload, "seed": 1}
    (runs / "grid" / "cell.json").write_text(json.dumps(failure))


@pytest.mark.parametrize("payload", PAYLOADS.values(), ids=PAYLOADS)
def test_no_text_is_more_than_a_text(tmp_path: Path, payload: str) -> None:
    runs, out = tmp_path / "runs", tmp_path / "out"
    harmed(runs, payload)
    made = report.make(runs, out)
    assert [len(group["cells"]) for group in made["groups"]] == [3]
    printed = fit_to_show("\n".join(report.lines(made, out)))
    assert not RAW.search(printed)
    assert {line[:11].strip() for line in printed.split("\n")} <= {
        "read",
        "compared",
        "caution",
        "answer",
        "weights",
        "next",
        "report",
        "",
    }
    texts = {path.name: path.read_text("utf-8") for path in out.iterdir()}
    check_page(texts["report.html"])
    check_csv(texts["results.csv"], 1 + 3)
    check_csv(texts["runs.csv"], 1 + 10)
    check_markdown(texts["results.md"])
    check_latex(texts["results.tex"])
    for name in ("results.csv", "results.md", "results.tex", "runs.csv"):
        assert not RAW.search(texts[name]), name


def check_page(text: str) -> None:
    found = Outline()
    found.feed(text)
    found.close()
    assert not found.open
    tags = [tag for tag, _ in found.found]
    assert tags.count("script") == 5  # the theme, the data twice, Plotly, the page
    assert "img" not in tags
    assert not [name for _, attributes in found.found for name in attributes if name.startswith("on")]
    for attributes, content in found.scripts:
        if attributes.get("type") == "application/json":
            assert not RAW.search(json.dumps(json.loads(content), ensure_ascii=False))
    assert not RAW.search("".join(found.words))


def check_csv(text: str, lines: int) -> None:
    rows = list(csv.reader(io.StringIO(text)))
    assert len(rows) == lines
    assert len({len(row) for row in rows}) == 1
    assert not [box for row in rows[1:] for box in row if re.match(r"\s*[=+@\uff1d]|\s*-\D|\s*-\d+\+", box)]
    # split at semicolons and blind to commas, none of them begins with a formula either
    assert not re.search(r"(?:^|;)\s*[=+@]", re.sub(r'"(?:[^"]|"")*"', '""', text), re.MULTILINE)


def check_markdown(text: str) -> None:
    text = re.sub(r"^    python .*\n", "", text, flags=re.MULTILINE)  # a block of code, in which nothing is a mark
    bare = re.sub(r"\\[\\`*_\[\]|~]", "", text)
    assert not re.search(r"<(?!/?u>)", bare)
    assert not re.search(r"[\[`][^\n]*\]\(|`", re.sub(r" \[[\d., ]+\]", "", bare))
    tables = [line for line in bare.split("\n") if line.startswith("| ")]
    widths = {line.count("|") for line in tables}
    assert len(widths) == 2  # of accuracies and of costs
    assert [line for line in text.split("\n") if line.startswith("# ")] == [text.split("\n")[0]]


def check_latex(text: str) -> None:
    for row in text.split("\n"):
        bare = re.sub(
            r"\\[\\&%$#_{}]|\\(?:textbackslash|textasciitilde|textasciicircum|textless|textgreater|textbar)\{\}",
            "",
            row,
        )
        if row.endswith(r"\\"):
            assert not re.search(r"[%#_~^]", bare)
        assert bare.count("{") == bare.count("}") or row.startswith((r"\resizebox", r"\end{tabular}}")), row
    assert r"\input" not in text
    assert "\ufffd" not in text


@pytest.mark.parametrize(
    "harm",
    [
        {"dataset": {"name": "x" * 10_000_000}},
        {"dataset": {"classes": ["x" * 10_000_000, *synthetic.class_names(21)[1:]]}},
        {"dataset": {"classes": ["x"] * 1_000_000}},
        {"dataset": {"notes": ["x" * 1_000_000] * 10}},
        {"dataset": {"notes": ["x"] * 1_000_000}},
        {"backbone": {"weights": "x" * 10_000_000}},
        {"config": {"augment": "x" * 10_000_000}},
        {"config": {"size": [1] * 1_000_000}},
        {"config": {f"flag{number}": number for number in range(100_000)}},
        {"environment": {"packages": {f"p{number}": "1" for number in range(100_000)}}},
        {"environment": {"command": ["x" * 10_000_000]}},
        {"seed": 10**4000},
        {"status": "failed", "error": "x" * 10_000_000},
    ],
    ids=lambda harm: "-".join(map(str, harm))[:40],
)
def test_no_record_makes_a_report_grow(tmp_path: Path, harm: dict[str, Any]) -> None:
    runs, out = tmp_path / "runs", tmp_path / "out"
    synthetic.make(runs, datasets=["ucmerced"], backbones=["swin"], seeds=1, errors=False)
    before = sizes(runs, out)
    foreign = synthetic.record("ucmerced", "swin", 1)
    for part, values in harm.items():
        foreign[part] = foreign[part] | values if isinstance(values, dict) else values
    (runs / "foreign").mkdir()
    (runs / "foreign" / "record.json").write_text(json.dumps(foreign))
    assert sizes(runs, out) - before < 100_000
    made = report.make(runs, out)
    assert len("\n".join(report.lines(made, out))) < 10_000


def test_no_failure_of_a_grid_makes_a_report_grow(tmp_path: Path) -> None:
    runs, out = tmp_path / "runs", tmp_path / "out"
    synthetic.make(runs, datasets=["ucmerced"], backbones=["swin"], seeds=1, errors=False)
    before = sizes(runs, out)
    (runs / "grid").mkdir()
    long = "x" * 900_000
    for name, content in {"cell": {"cell": long, "reason": "y"}, "tail": {"reason": long, "tail": "z"}}.items():
        (runs / "grid" / f"{name}.json").write_text(json.dumps(content))
    (runs / "grid" / "large.json").write_text(json.dumps({"reason": long * 10}))
    assert sizes(runs, out) - before < 100_000


def sizes(runs: Path, out: Path) -> int:
    report.make(runs, out)
    return sum(path.stat().st_size for path in out.iterdir())
