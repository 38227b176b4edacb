"""report.py: from a folder of records to the files of the report."""

import csv
import dataclasses
import json
import os
import re
import resource
import subprocess
import sys
import tracemalloc
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import report
from datasets import PUBLISHED
from engine.records.schema import COSTS, Cost
from engine.training.metrics import METRICS
from reporting import cells
from reporting.build import build
from reporting.collect import collect
from reporting.comparable import divide
from reporting.mistakes import read_mistakes
from reporting.predictions import _outcome
from tests.reporting import synthetic

ROOT = Path(report.__file__).parent
FILES = ("report.html", "results.csv", "results.md", "results.tex", "runs.csv")
SMALL = ("ucmerced", "eurosat", "galaxy10", "breakhis_40x", "plantclef")


KEPT = ROOT / "tests" / "reporting" / "kept"


@pytest.fixture(autouse=True)
def page(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """A page that only notes what it is given."""
    rendered: list[dict[str, Any]] = []

    def render(made: dict[str, Any]) -> str:
        rendered.append(made)
        return "<!doctype html><title>Which backbone? "

    module = types.ModuleType("reporting.render")
    module.render = render  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "reporting.render", module)
    return rendered


def run(capsys: pytest.CaptureFixture[str], *arguments: object) -> tuple[int, str, str]:
    code = report.main([str(argument) for argument in arguments])
    output = capsys.readouterr()
    return code, output.out, output.err


def built(runs: Path, **options: Any) -> dict[str, Any]:
    made = build(collect(runs), runs, **options)
    json.dumps(made, allow_nan=False)  # it is JSON
    return made


def test_the_four_files(tmp_path: Path, capsys: pytest.CaptureFixture[str], page: list[dict[str, Any]]) -> None:
    runs, out = tmp_path / "runs", tmp_path / "a" / "report"
    synthetic.make(runs, datasets=SMALL, backbones=("resnet", "swin", "convnext"))
    synthetic.make_mess(runs)
    code, text, error = run(capsys, runs, "--out", out)
    assert (code, error) == (0, "")
    assert sorted(path.name for path in out.iterdir()) == sorted(FILES)
    assert "read       51 records, 3 of them listed apart, 4 skipped, 1 failed" in text
    assert re.search(
        r"answer +Take convnext: the best over 5 datasets.*\n +convnext: best average rank over 5 datasets", text
    )
    assert str(out / "report.html") in text
    assert page[0]["records"] == 51
    # again, and over itself: the same, but for the time
    before = {name: (out / name).read_bytes() for name in FILES}
    assert run(capsys, runs, "--out", out)[0] == 0
    assert {name: (out / name).read_bytes() for name in FILES} == before
    assert {**page[1], "made": page[0]["made"]} == page[0]


def test_another_process_makes_the_same(tmp_path: Path) -> None:
    """Whatever the seed of Python's hashes."""
    synthetic.make(tmp_path / "runs", datasets=SMALL, backbones=("resnet", "swin", "convnext", "regnet"))
    synthetic.make_mess(tmp_path / "runs")
    program = (
        "import json, sys; from pathlib import Path; from reporting.collect import collect\n"
        "from reporting.build import build; runs = Path(sys.argv[1])\n"
        "print(json.dumps(build(collect(runs), runs) | {'made': ''}))"
    )
    texts = {
        subprocess.run(
            [sys.executable, "-c", program, tmp_path / "runs"],
            cwd=ROOT,
            env={"PYTHONHASHSEED": seed, "OMP_NUM_THREADS": "1"},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for seed in ("1", "2")
    }
    assert len(texts) == 1


def test_a_cell(tmp_path: Path) -> None:
    synthetic.make(tmp_path, datasets=["ucmerced"], backbones=["swin", "resnet"], seeds=6)
    (group,) = built(tmp_path)["groups"]
    assert [dataset["key"] for dataset in group["datasets"]] == ["ucmerced"]
    assert [backbone["name"] for backbone in group["backbones"]] == ["resnet", "swin"]
    _, cell = group["cells"]
    assert (cell["d"], cell["b"], cell["budget"], cell["seeds"]) == (0, 1, 0, [0, 1, 2, 3, 4, 5])
    assert cell["mean"]["top1"] == pytest.approx(np.mean(cell["values"]["top1"]), abs=1e-5)
    assert cell["low"]["top1"] < cell["mean"]["top1"] < cell["high"]["top1"]
    assert cell["half"]["top1"] == pytest.approx(cell["high"]["top1"] - cell["mean"]["top1"], abs=1e-6)
    records = [json.loads((tmp_path / path / "record.json").read_text()) for path in cell["runs"]]
    matrix = sum(synthetic.dense(record) for record in records)
    shown = np.zeros_like(matrix)
    for i, j, count in cell["confusion"]:
        shown[i, j] = count
    assert (shown == matrix).all()
    assert cell["confusion_rest"] is None
    recall = np.mean([record["test"]["per_class_recall"] for record in records], axis=0)
    assert cell["recall"] == pytest.approx(recall, abs=1e-4)
    assert len(cell["curve"]) == len(cell["loss"]) == 5
    assert [len(curve) for curve in cell["curve"]] == [record["costs"]["epochs"] for record in records[:5]]
    provenance = group["provenances"][cell["provenance"]]
    assert provenance["recipe"] == "adamw-sgd, learning rate 0.001, none augmentation, input 256x256"
    assert provenance["weights"] == "Swin_T_Weights.IMAGENET1K_V1"
    assert provenance["split"] == [record["dataset"]["split"][:8] for record in records]
    errors = cell["errors"]
    assert errors["sprite"].startswith("data:image/webp;base64,")
    assert (errors["tile"], errors["of"], len(errors["tiles"])) == ([96, 96], 0, 12)
    sure = [tile["confidence"] for tile in errors["tiles"]]
    assert sure == sorted(sure, reverse=True)
    assert all(tile["true"] != tile["predicted"] and tile["name"].startswith("test/") for tile in errors["tiles"])


def test_one_seed_has_no_interval(tmp_path: Path) -> None:
    synthetic.make(tmp_path, datasets=["ucmerced"], backbones=["swin"], seeds=1)
    (group,) = built(tmp_path, thumbnails=False)["groups"]
    (cell,) = group["cells"]
    assert (cell["low"], cell["high"], cell["half"], cell["marks"], cell["errors"]) == ({}, {}, {}, {}, None)
    (budget,) = group["budgets"]
    assert (budget["name"], budget["words"], budget["seeds"]) == ("all", "all training images", 1)
    assert (
        budget["captions"]["nll"]
        == "Test NLL (lower is better), one seed: no interval over seeds. All training images."
    )
    assert budget["rankings"]["overall"]["answer"] == "Not enough evidence: only swin was run."
    assert set(budget["rankings"]) == {"overall", *(dataset.domain for dataset in PUBLISHED)}
    assert (group["domains"], budget["pairs"], group["published"]) == (["remote sensing"], [], None)


def test_an_auroc_that_one_seed_lacks(tmp_path: Path) -> None:
    made = [synthetic.record("rsna", "swin", seed) for seed in range(3)]
    made[1]["test"]["auroc"] = None
    for record in made:
        synthetic.write(tmp_path, record)
    (cell,) = built(tmp_path)["groups"][0]["cells"]
    assert not any("auroc" in cell[part] for part in ("values", "mean", "low", "high", "half"))
    assert len(cell["values"]["top1"]) == 3


def test_records_of_both_schemas_side_by_side() -> None:
    """Of real runs, of today's schema and of the one before, which belong into one comparable group."""
    made = built(KEPT)
    (group,) = made["groups"]
    assert (made["skipped"], made["apart"], made["no_curve"]) == ([], [], [])
    assert group["title"] == "paper protocol, recipe cosine, random weights, batches of 16, epochs a stage: 2"
    assert [backbone["name"] for backbone in group["backbones"]] == ["convnext", "shufflenet"]
    old, new = group["cells"]
    assert {"top1", "nll"} <= old["mean"].keys() == new["mean"].keys() <= made["metrics"].keys()
    assert old["costs"]["epochs"] == new["costs"]["epochs"] == 2
    assert [len(cell["curve"][0]) for cell in (old, new)] == [2, 2]
    assert sum(images for _, _, images in old["confusion"]) == sum(images for _, _, images in new["confusion"]) == 360
    assert old["images"] == new["images"] == 1437


def test_a_metric_and_a_cost_that_are_new(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are in the page's data and in the tables with no other change; records without them still count."""
    monkeypatch.setitem(METRICS, "brier", dataclasses.replace(METRICS["nll"], label="Brier score", most=2.0))
    monkeypatch.setitem(COSTS, "litres", Cost("of water", "water", "litres", better="less"))
    runs = tmp_path / "runs"
    for seed in range(3):
        for name, values in {"swin": {"brier": 0.25}, "resnet": {"brier": 0.5}, "convnext": {}}.items():
            costs = {"litres": 10.0 if name == "swin" else 20.0} if values else {}
            synthetic.write(runs, synthetic.record("ucmerced", name, seed, test=values, costs=costs))
    made = report.make(runs, tmp_path / "out")
    assert made["metrics"]["brier"] == {
        "label": "Brier score",
        "digits": 3,
        "percent": False,
        "higher_is_better": False,
    }
    cells = {made["groups"][0]["backbones"][cell["b"]]["name"]: cell for cell in made["groups"][0]["cells"]}
    assert [cells[name]["mean"].get("brier") for name in ("swin", "resnet", "convnext")] == [0.25, 0.5, None]
    assert (cells["swin"]["marks"]["brier"], cells["convnext"]["costs"]["litres"]) == ("best", None)
    compared = made["groups"][0]["budgets"][0]["costs"]["scopes"]["overall"]
    assert [made["groups"][0]["backbones"][b]["name"] for b in compared["front"]["litres"]["brier"]] == ["swin"]
    assert made["groups"][0]["budgets"][0]["rankings"]["overall"]["backbones"][0] == "convnext"
    rows = list(csv.DictReader((tmp_path / "out" / "results.csv").open(encoding="utf-8")))
    assert {(row["backbone"], row["brier"], row["litres"]) for row in rows} == {
        *(("swin", "0.25", "10"), ("resnet", "0.5", "20"), ("convnext", "", ""))
    }
    assert "water, litres" in (tmp_path / "out" / "results.md").read_text("utf-8")


def test_records_of_which_none_can_be_compared(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    synthetic.write(tmp_path / "runs", synthetic.record("dtd", "swin", status="running", finished=None))
    code, text, _ = run(capsys, tmp_path / "runs", "--out", tmp_path / "report")
    assert code == 0
    assert "read       1 record, 1 of them listed apart" in text
    assert "not finished" in (tmp_path / "report" / "results.md").read_text()


def test_failures_of_a_grid_alone_make_a_report(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "grid").mkdir()
    (tmp_path / "grid" / "x.json").write_text('{"cell": "x", "reason": "no memory", "tail": ""}')
    assert run(capsys, tmp_path, "--out", tmp_path / "report")[0] == 0
    assert "x: no memory" in (tmp_path / "report" / "results.md").read_text()


def test_files_of_a_run_that_are_damaged_or_gone(tmp_path: Path) -> None:
    runs = synthetic.make(tmp_path, datasets=["ucmerced"], backbones=["swin"], seeds=3)
    (runs[0] / "errors.npz").write_bytes(b"PK no zip")
    (runs[1] / "history.csv").unlink()
    (runs[2] / "history.csv").write_text("epoch,val_top1,train_loss\n1,nan,0.5\n")
    made = built(tmp_path)
    (cell,) = made["groups"][0]["cells"]
    assert cell["errors"] is None
    assert [len(curve) > 0 for curve in cell["curve"]] == [True, False, False]
    gone = str(runs[1].relative_to(tmp_path))
    assert made["no_curve"] == [{"run": gone, "reason": "history.csv is missing"}]
    assert len(made["skipped"]) == 2
    reasons = " ".join(line["reason"] for line in made["skipped"])
    for part in ("worst errors can't be shown", "nan is no number"):
        assert part in reasons


@pytest.mark.parametrize("name", ["errors.npz", "predictions.npz"])
def test_no_flipped_bit_ends_a_report(tmp_path: Path, name: str) -> None:
    """What zipfile, zlib and NumPy make of one is said as the reason, whichever bit it is."""
    (folder,) = synthetic.make(tmp_path, datasets=["ucmerced"], backbones=["swin"], seeds=1)
    whole = (folder / name).read_bytes()
    (entry,) = collect(tmp_path).entries
    refused = 0
    for number, place in enumerate(range(0, len(whole), len(whole) // 400)):
        (folder / name).write_bytes(whole[:place] + bytes([whole[place] ^ 1 << number % 8]) + whole[place + 1 :])
        found = _outcome(folder / "predictions.npz", (number, 0), 420, 21, True, 1.0)
        try:
            read_mistakes(entry)
        except ValueError:
            refused += 1
        else:
            refused += isinstance(found, str)
    assert refused > 100


def test_pipes_among_the_files_of_a_run(tmp_path: Path) -> None:
    (folder,) = synthetic.make(tmp_path, datasets=["ucmerced"], backbones=["swin"], seeds=1)
    for name in ("history.csv", "predictions.npz"):
        (folder / name).unlink()
        os.mkfifo(folder / name)
    reasons = [line["reason"] for line in built(tmp_path)["skipped"]]
    assert len(reasons) == 3  # the worst errors need the predictions
    assert all("it is no regular file" in reason for reason in reasons)


def test_random_weights_are_said_beside_the_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = synthetic.record("ucmerced", "swin", config={"weights": "none"})
    record["backbone"]["weights"] = "none"
    synthetic.write(tmp_path / "runs", record)
    code, text, _ = run(capsys, tmp_path / "runs", "--out", tmp_path / "report")
    assert code == 0
    assert "caution    random weights: these numbers say nothing of fine-tuning" in text


@pytest.mark.parametrize(
    "change",
    [
        lambda tiles, rows: (tiles[:3], rows),
        lambda tiles, rows: (tiles.astype(np.float32), rows),
        lambda tiles, rows: (tiles[..., 0], rows),
        lambda tiles, rows: (tiles, rows + 10**6),
        lambda tiles, rows: (tiles, rows.astype(np.float64)),
        lambda tiles, rows: (tiles[:0], rows[:0]),
    ],
)
def test_errors_that_do_not_fit(tmp_path: Path, change: Callable[[Any, Any], tuple[Any, Any]]) -> None:
    (folder,) = synthetic.make(tmp_path, datasets=["ucmerced"], backbones=["swin"], seeds=1)
    with np.load(folder / "errors.npz") as content:
        tiles, rows = change(content["tiles"], content["rows"])
    np.savez(folder / "errors.npz", tiles=tiles, rows=rows)
    made = built(tmp_path)
    assert made["groups"][0]["cells"][0]["errors"] is None
    assert "can't be shown" in made["skipped"][0]["reason"]


def test_seeds_made_differently_are_said_to_be(tmp_path: Path) -> None:
    synthetic.write(tmp_path, synthetic.record("ucmerced", "swin", 0))
    synthetic.write(
        tmp_path, synthetic.record("ucmerced", "swin", 1, plan={"device_name": "a CPU", "precision": "fp32"})
    )
    (provenance,) = built(tmp_path)["groups"][0]["provenances"]
    assert provenance["hardware"] == "NVIDIA A100-SXM4-40GB and a CPU"
    assert provenance["precision"] == ["bf16", "fp32"]


def test_very_many_pairs_of_classes_are_cut_and_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synthetic.make(tmp_path, datasets=["ucmerced"], backbones=["swin"], seeds=3, errors=False)
    whole = {(i, j): count for i, j, count in built(tmp_path)["groups"][0]["cells"][0]["confusion"]}
    monkeypatch.setattr("reporting.build.MOST_CONFUSIONS", 10)
    (cell,) = built(tmp_path)["groups"][0]["cells"]
    wrong = [count for i, j, count in cell["confusion"] if i != j]
    left_out = sorted(count for (i, j), count in whole.items() if i != j)[:-10]
    assert len(wrong) == 10
    assert cell["confusion_rest"] == {"pairs": len(left_out), "images": sum(left_out)}
    assert min(wrong) >= max(left_out)
    assert sum(i == j for i, j, _ in cell["confusion"]) == 21


def test_2600_classes_take_what_their_test_images_do(tmp_path: Path) -> None:
    """Record and report hold a matrix's entries that are not 0, of which there are no more than test images."""
    classes, images = 2600, 10_400
    true = np.arange(images) % classes
    predicted = np.where(np.arange(images) % 3 == 0, (7 * true + 1) % classes, true)
    pairs, counts = np.unique(true * classes + predicted, return_counts=True)
    hits, of_class = np.bincount(true[true == predicted], minlength=classes), np.bincount(true)
    recall = hits / of_class
    confusion = {"true": pairs // classes, "predicted": pairs % classes, "images": counts}
    test = {
        "top1": float((true == predicted).mean()),
        "balanced_accuracy": float(recall.mean()),
        "macro_f1": float((2 * hits / (of_class + np.bincount(predicted, minlength=classes))).mean()),
        "per_class_recall": recall.tolist(),
        "confusion": {part: values.tolist() for part, values in confusion.items()},
    }
    names = [f"species {index:04d}" for index in range(classes)]
    for seed in range(2):
        made = synthetic.record("dtd", "swin", seed, dataset={"classes": names}, test=test)
        made["dataset"]["counts"]["test"] = images
        assert len(json.dumps(made, indent=2)) < 1 << 20
        synthetic.write(tmp_path, made)
    ((group,), _) = divide(collect(tmp_path).entries)
    (cell,) = group.cells.values()
    tracemalloc.start()
    matrix = cells._matrix(cell, most=10**6)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert most < classes**2  # a byte for each pair would be as much
    assert len(matrix["confusion"]) == len(pairs)
    assert matrix["confusion"][0] == [0, 0, 2 * counts[0]]
    assert cells._matrix(cell, most=5)["confusion_rest"]["images"] == 2 * int((true != predicted).sum()) - 5 * 4


def test_a_paper_group_stands_beside_the_published_ranking(tmp_path: Path) -> None:
    synthetic.make(tmp_path, datasets=SMALL, backbones=("swin", "convnext"), errors=False, protocol="paper")
    (group,) = built(tmp_path)["groups"]
    assert [row["domain"] for row in group["published"]["rows"]][-1] == "overall"
    assert group["notes"][0].startswith("Paper protocol: test chose the epoch")


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["missing"], "there is no folder missing, where records were expected"),
        (["empty"], "found nothing in empty, no record. Make one: `make demo`"),
        (["notes.txt"], "notes.txt is a file"),
        (["--out", ""], "the path is empty"),
        (["runs", "--out", "notes.txt"], "notes.txt is a file. Expected a folder"),
        (["runs", "--out", "notes.txt/x"], "notes.txt is a file. Expected a folder"),
        (["--serve", "99999"], "is not a whole number from 1 to 65535"),
        (["--port", "1"], "unknown flag --port"),
    ],
)
def test_bad_input(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    message: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "notes.txt").write_text("x")
    synthetic.make(tmp_path / "runs", datasets=["ucmerced"], backbones=["swin"], seeds=1)
    before = sorted(path for path in tmp_path.rglob("*"))
    code, text, error = run(capsys, *arguments)
    assert (code, text) == (2, "")
    assert error.startswith("error: ")
    assert message in error
    assert sorted(path for path in tmp_path.rglob("*")) == before


def test_serve_is_given_what_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    synthetic.make(tmp_path / "runs", datasets=["ucmerced"], backbones=["swin"], seeds=1)
    served: list[tuple[Path, Path, int]] = []

    def serve(build: Callable[[], None], runs: Path, out: Path, port: int) -> None:
        build()
        served.append((runs, out, port))
        raise KeyboardInterrupt

    module = types.ModuleType("reporting.serve")
    module.serve = serve  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "reporting.serve", module)
    assert run(capsys, tmp_path / "runs", "--out", tmp_path / "out", "--serve")[0] == 130
    assert served == [(tmp_path / "runs", tmp_path / "out", report.PORT)]
    assert (tmp_path / "out" / "report.html").is_file()


def test_nothing_heavy_is_imported() -> None:
    """The report of many records starts without PyTorch, which takes seconds; a mistake is told without SciPy."""
    program = (
        "import report, sys; report.main(['missing']);"
        "assert not {'torch', 'torchvision', 'scipy', 'plotly', 'matplotlib', 'pandas', 'PIL'} & sys.modules.keys()\n"
        "import reporting.build, reporting.render; assert not {'torch', 'torchvision'} & sys.modules.keys()"
    )
    subprocess.run([sys.executable, "-c", program], cwd=ROOT, check=True)


@pytest.mark.slow
def test_ten_thousand_records(tmp_path: Path) -> None:
    """All of it, the page too, in under 20 s of a processor and 1 GB; the page stays under 15 MB."""
    pytest.importorskip("plotly")
    if not Path("/proc/self/status").exists():
        pytest.skip(
            "the peak memory of a process alone, without that of the one that started it, is known on Linux only"
        )
    synthetic.make_many(tmp_path / "runs", 10_000)
    program = "import report, sys; report.main(sys.argv[1:]); print(open('/proc/self/status').read())"
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    ended = subprocess.run(
        [sys.executable, "-c", program, tmp_path / "runs", "--out", tmp_path / "report"],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    )
    after = resource.getrusage(resource.RUSAGE_CHILDREN)  # whoever else is at work on the machine does not count
    seconds = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    peak = re.search(r"VmHWM:\s+(\d+) kB", ended.stdout)
    assert peak
    peak_mb = int(peak[1]) * 1024 / 1e6
    page_mb = (tmp_path / "report" / "report.html").stat().st_size / 1e6
    print(f"{seconds:.1f} s, {peak_mb:.0f} MB, page {page_mb:.1f} MB")
    assert "read       10,000 records, 0 of them listed apart" in ended.stdout
    assert seconds < 20
    assert peak_mb < 1000
    assert page_mb < 15
