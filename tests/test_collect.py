"""reporting/collect.py: what is read of a folder of runs, and what is skipped, with a line."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import digits
from common import BACKBONES
from datasets import DATASETS
from engine.errors import UserError
from engine.records.run_folder import SCHEMA
from reporting import entry, matrix, published
from reporting.collect import collect
from reporting.entry import NotARecordError, read_entry
from tests import synthetic


def test_the_published_order_is_that_of_the_scripts() -> None:
    assert tuple(BACKBONES) == published.BACKBONES
    assert {key: dataset.domain for key, dataset in DATASETS.items()} == published.DATASETS
    assert list(published.DATASETS) == list(DATASETS)
    assert set(published.DOMAINS) == set(published.DATASETS.values())
    assert {name for pair in published.RANKING.values() for name in pair if name} <= BACKBONES.keys()
    assert entry.SCHEMA == SCHEMA


def test_what_is_kept_of_a_record(tmp_path: Path) -> None:
    record = synthetic.record("ucmerced", "swin", 3, "20 shots")
    run = synthetic.write(tmp_path, record)
    (entry,) = collect(tmp_path).entries
    assert entry.run == str(run.relative_to(tmp_path))
    assert (entry.backbone, entry.seed, entry.budget, entry.domain) == ("swin", 3, "20 shots", "remote sensing")
    assert entry.used_images == record["dataset"]["counts"]["fit"] + record["dataset"]["counts"]["select"]
    assert entry.outcome
    assert entry.outcome.values["top1"] == record["test"]["top1"]
    dense = np.zeros((21, 21), int)
    np.put(dense, entry.outcome.places, entry.outcome.counts)
    assert dense.tolist() == record["test"]["confusion_matrix"]
    assert entry.making.split == record["dataset"]["split"][:8]


def test_the_test_part_is_no_training_data_under_the_paper_protocol(tmp_path: Path) -> None:
    synthetic.write(tmp_path, synthetic.record("ucmerced", "swin", protocol="paper"))
    assert collect(tmp_path).entries[0].used_images == 1680


def test_records_of_before_and_after_the_rate_became_the_recipes_own(tmp_path: Path) -> None:
    old = synthetic.record("ucmerced", "swin", 0, config={"lr": 1e-3})
    for name in ("lr", "sweep"):
        del old[name]
    for name in ("shots", "fraction", "ema", "layer_decay", "lr_sweep"):
        del old["config"][name]
    del old["costs"]["images"]
    synthetic.write(tmp_path, old)
    synthetic.write(tmp_path, synthetic.record("ucmerced", "swin", 1))
    first, second = collect(tmp_path).entries
    assert first.terms == second.terms
    assert first.outcome
    assert first.outcome.costs["images"] is None


@pytest.mark.parametrize(
    ("asked", "weights", "run", "kind"),
    [
        ("imagenet", "Swin_T_Weights.IMAGENET1K_V1", None, "imagenet"),
        ("auto", "Swin_T_Weights.IMAGENET1K_V1", None, "imagenet"),
        ("auto", "none", None, "none"),
        ("none", "none", None, "none"),
        ("IMAGENET1K_V2", "ResNet50_Weights.IMAGENET1K_V2", None, "IMAGENET1K_V2"),
        ("some/dir/mine.pth", "mine.pth", None, "mine.pth"),
        (
            "x/checkpoint.pt",
            "checkpoint.pt",
            {"run": "r", "dataset": "dtd", "protocol": "honest", "seed": 0, "weights": "none"},
            "checkpoint of dtd (honest protocol, from random weights)",
        ),
    ],
)
def test_kinds_of_weights(tmp_path: Path, asked: str, weights: str, run: Any, kind: str) -> None:
    changed = synthetic.record("ucmerced", "swin", config={"weights": asked})
    changed["backbone"] |= {"weights": weights, "weights_run": run}
    synthetic.write(tmp_path, changed)
    assert collect(tmp_path).entries[0].terms.weights == kind


def test_a_mess(tmp_path: Path) -> None:
    synthetic.make(tmp_path, datasets=["ucmerced"], backbones=["swin"], seeds=1)
    synthetic.make_mess(tmp_path)
    (tmp_path / ".hidden").write_text("x")
    (tmp_path / "dtd" / "resnet" / "begun").mkdir()
    (tmp_path / "dtd" / "resnet" / "begun" / "split.json").write_text("{}")
    (tmp_path / "photos").mkdir()
    for index in range(9):
        (tmp_path / "photos" / f"{index}.jpg").write_bytes(b"\xff\xd8")
    found = collect(tmp_path)
    assert len(found.entries) == 7
    reasons = {line["path"]: line["reason"] for line in found.skipped}
    assert "not readable JSON" in reasons.pop("dtd/resnet/broken/record.json")
    assert reasons == {
        "dtd/resnet/foreign/record.json": "no record of this project",
        "dtd/resnet/future/record.json": "has schema 99; this version reads 1",
        "dtd/resnet/begun": "a run without record.json",
        "notes.txt": "no record",
        "photos": "9 files that are no records",
    }
    assert found.failed == [
        {"cell": "dtd-regnet-seed0", "reason": "out of memory <b>", "tail": "epoch 1\nerror: out of memory"}
    ]


def damage(part: str, **changes: Any) -> Callable[[dict[str, Any]], object]:
    return lambda record: record[part].update(changes)


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda record: record.pop("config"), "lacks 'config'"),
        (lambda record: record["test"].pop("ece"), "lacks 'ece'"),
        (lambda record: record.update(dataset=[]), "not what it should be"),
        (lambda record: record.update(seed="0"), "whole number"),
        (lambda record: record.update(seed=True), "whole number"),
        (damage("test", top1=0.123), "by the confusion matrix"),
        (damage("test", ece=float("nan")), "expected a number"),
        (damage("test", ece=1.5), "ece is 1.5"),
        (damage("test", nll=None), "nll is null"),
        (damage("test", per_class_recall=[1.0]), "1 recalls of 21 classes"),
        (damage("test", confusion_matrix=[[1, 2], [3, 4]]), "not one of 21 classes"),
        (damage("dataset", classes=["a", 1]), "expected a text"),
        (damage("config", lr="fast"), "expected a number"),
        (damage("config", size=256), "not what it should be"),
    ],
)
def test_damaged_records(tmp_path: Path, harm: Callable[[dict[str, Any]], object], reason: str) -> None:
    record = synthetic.record("ucmerced", "swin")
    path = synthetic.write(tmp_path, record) / "record.json"
    harm(record)
    path.write_text(json.dumps(record), "utf-8")
    with pytest.raises(NotARecordError, match=reason):
        read_entry(path, "run")


@pytest.mark.parametrize(
    "content", [b"", b"[" * 100_000, b"\xff\xfe", b"null", b"[1]", b'{"schema": 1}', b'{"a": NaN}']
)
def test_garbage(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "record.json").write_bytes(content)
    with pytest.raises(NotARecordError):
        read_entry(tmp_path / "record.json", "run")


def test_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(entry, "LARGEST_RECORD_BYTES", 100)
    path = synthetic.write(tmp_path, synthetic.record("ucmerced", "swin")) / "record.json"
    with pytest.raises(NotARecordError, match="too large"):
        read_entry(path, "run")


def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    synthetic.make(tmp_path, datasets=["ucmerced"], backbones=["swin"], seeds=1)
    (tmp_path / "dtd").mkdir()
    (tmp_path / "grid").mkdir()
    os.mkfifo(tmp_path / "dtd" / "record.json")
    os.mkfifo(tmp_path / "grid" / "cell.json")
    found = collect(tmp_path)
    assert len(found.entries) == 1
    assert {line["path"]: line["reason"] for line in found.skipped} == {
        "dtd/record.json": "not a regular file",
        "grid/cell.json": "not a regular file",
    }


def test_control_characters_are_replaced(tmp_path: Path) -> None:
    record = synthetic.record("ucmerced", "swin")
    record["dataset"]["classes"][0] = "a\x00\x1b\x9b\n\u202eb"
    record["dataset"]["notes"] = ["\u2067x"]
    synthetic.write(tmp_path, record)
    (tmp_path / "grid").mkdir()
    content = {"reason": "a\x07", "tail": "one\r\ntwo\x1b[31m\tthree"}
    (tmp_path / "grid" / "cell.json").write_text(json.dumps(content))
    found = collect(tmp_path)
    assert found.entries[0].version.classes[0] == "a\ufffd\ufffd\ufffd\ufffd\ufffdb"
    assert found.entries[0].notes == ("\ufffdx",)
    assert found.failed == [{"cell": "cell", "reason": "a\ufffd", "tail": "one\ntwo\ufffd[31m\tthree"}]


def test_half_a_character_does_no_harm(tmp_path: Path) -> None:
    record = synthetic.record("ucmerced", "swin")
    record["dataset"]["classes"][0] = "\ud800"
    synthetic.write(tmp_path, record)
    assert collect(tmp_path).entries[0].version.classes[0] == "?"


@pytest.mark.parametrize("made", ["missing", "empty", "file", "garbage"])
def test_nothing_to_report(tmp_path: Path, made: str) -> None:
    runs = tmp_path / "runs"
    if made == "file":
        runs.write_text("x")
    elif made != "missing":
        runs.mkdir()
    if made == "garbage":
        (runs / "notes.txt").write_text("x")
    expected = {"missing": "no folder", "empty": "nothing in", "file": "is a file", "garbage": "notes.txt: no record"}
    with pytest.raises(UserError, match=expected[made]) as problem:
        collect(runs)
    assert "make demo" in str(problem.value)


def test_links_and_the_reports_own_folder(tmp_path: Path) -> None:
    """Runs may lie on another disk; a link in a circle ends nothing, and no record is read twice."""
    runs, elsewhere = tmp_path / "runs", tmp_path / "elsewhere"
    synthetic.make(elsewhere, datasets=["ucmerced"], backbones=["swin"], seeds=2)
    runs.mkdir()
    (runs / "ucmerced").symlink_to(elsewhere / "ucmerced")
    (elsewhere / "ucmerced" / "again").symlink_to(elsewhere / "ucmerced")
    (runs / "report").mkdir()
    (runs / "report" / "results.csv").write_text("x")
    found = collect(runs, ignore=runs / "report")
    assert (len(found.entries), found.skipped) == (2, [])


@pytest.mark.parametrize("indent", [None, 2])
def test_the_matrix_is_what_json_reads(indent: int | None) -> None:
    random = np.random.default_rng(0)
    dense = random.integers(0, 12, (30, 30)) * (random.random((30, 30)) < 0.2) * random.choice([1, 10_000], (30, 30))
    content = {"a": [1], "test": {"confusion_matrix": dense.tolist(), "z": [[3]]}, "b": '"confusion_matrix": [[1]]'}
    rest, text = matrix.cut(json.dumps(content, indent=indent).encode())
    assert json.loads(rest) == {**content, "test": {"confusion_matrix": None, "z": [[3]]}}
    places, counts = matrix.entries(text, 30)
    assert places.tolist() == np.flatnonzero(dense).tolist()
    assert counts.tolist() == dense.ravel()[places].tolist()


@pytest.mark.parametrize(
    "text",
    [b"", b"[[1, 2], [3]]", b"[[1, 2, 3], [4]]", b"[[1, -2], [3, 4]]", b"[[1, 2.5], [3, 4]]", b"[[1, ], [3, 4]]"],
)
def test_no_matrix(text: bytes) -> None:
    with pytest.raises(ValueError, match="confusion matrix"):
        matrix.entries(text, 2)


def test_synthetic_records_follow_the_schema() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    path = Path(digits.__file__).parent / "engine" / "records" / "schema.json"
    made = synthetic.record("dtd", "regnet", 1, "20 shots")
    made["test"]["confusion_matrix"] = [[0]]
    problems = list(jsonschema.Draft202012Validator(json.loads(path.read_text("utf-8"))).iter_errors(made))
    # fields that a schema of before they came into being does not know
    new = ("'lr', 'sweep' were unexpected", "'images' was unexpected")
    assert [
        problem.message for problem in problems if not problem.message.endswith(tuple(f"({text})" for text in new))
    ] == []
