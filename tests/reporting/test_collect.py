"""reporting/collect.py: what is read of a folder of runs, and what is skipped, with a line."""

import json
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common import BACKBONES
from engine.errors import UserError
from engine.records import schema
from engine.records.schema import RecordError
from reporting import published
from reporting.collect import collect
from reporting.comparable import DOMAINS
from reporting.entry import Budget, read_entry, reported_metrics
from reporting.serve import snapshot
from tests.reporting import synthetic


def test_the_published_ranking_is_of_what_is_here() -> None:
    assert list(published.RANKING) == [*DOMAINS, "overall"]
    assert {name for pair in published.RANKING.values() for name in pair if name} <= BACKBONES.keys()


def test_what_is_kept_of_a_record(tmp_path: Path) -> None:
    record = synthetic.record("breakhis_40x", "swin", 3, "20 shots")
    run = synthetic.write(tmp_path, record)
    (entry,) = collect(tmp_path).entries
    assert entry.run == str(run.relative_to(tmp_path))
    assert (entry.backbone, entry.seed, entry.budget, entry.domain) == ("swin", 3, Budget(20), "medical")
    assert entry.subjects == record["dataset"]["subjects"] == "breakhis"
    assert entry.used_images == record["dataset"]["counts"]["train"] + record["dataset"]["counts"]["val"]
    assert entry.results
    assert entry.results.values == {name: value for name, value in record["test"].items() if name in reported_metrics()}
    assert entry.results.costs["train_seconds"] == record["costs"]["train_seconds"]
    matrix = np.zeros((2, 2), int)
    np.put(matrix, entry.results.places, entry.results.counts)
    assert (matrix == synthetic.dense(record)).all()
    assert entry.provenance.split == record["dataset"]["split"][:8]


def test_the_test_part_is_no_training_data_under_the_paper_protocol(tmp_path: Path) -> None:
    synthetic.write(tmp_path, synthetic.record("ucmerced", "swin", protocol="paper"))
    assert collect(tmp_path).entries[0].used_images == 1680


def test_a_place_can_be_as_long_as_a_path(tmp_path: Path) -> None:
    place = "/x" * 2000
    synthetic.write(tmp_path, synthetic.record("ucmerced", "swin", dataset={"place": place}))
    assert collect(tmp_path).entries[0].place == place


def test_what_a_record_does_not_say_is_absent(tmp_path: Path) -> None:
    record = synthetic.record("ucmerced", "swin")
    for part, name in (("test", "ece"), ("costs", "images"), ("costs", "peak_memory_mib")):
        del record[part][name]
    record["test"]["auroc"] = None
    synthetic.write(tmp_path, record)
    (entry,) = collect(tmp_path).entries
    assert entry.results
    assert not {"ece", "auroc"} & entry.results.values.keys()
    assert not {"images", "peak_memory_mib"} & entry.results.costs.keys()


@pytest.mark.parametrize(
    ("asked", "weights", "run", "kind"),
    [
        ("imagenet", "Swin_T_Weights.IMAGENET1K_V1", None, "imagenet"),
        ("auto", "Swin_T_Weights.IMAGENET1K_V1", None, "imagenet"),
        ("auto", "none", None, "none"),
        ("none", "none", None, "none"),
        ("IMAGENET1K_V2", "ResNet50_Weights.IMAGENET1K_V2", None, "imagenet"),
        ("SWAG_V1", "X_Weights.SWAG_V1", None, "SWAG_V1"),
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
    assert collect(tmp_path).entries[0].setting.weights == kind


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
        "dtd/resnet/future/record.json": "has schema 99; this version reads 1 to 2",
        "dtd/resnet/begun": "a run without record.json",
        "notes.txt": "no record",
        "photos": "9 files that are no records",
    }
    assert found.failed == [
        {
            "cell": "dtd-regnet-seed0",
            "reason": "out of memory <b>",
            "tail": "epoch 1\nerror: out of memory",
            "dataset": "dtd",
            "model": "regnet",
            "seed": "0",
            "budget": "all",
        }
    ]


def damage(part: str, **changes: Any) -> Callable[[dict[str, Any]], object]:
    return lambda record: record[part].update(changes)


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda record: record.pop("config"), "lacks config"),
        (lambda record: record["test"].pop("top1"), "lacks top1"),
        (lambda record: record["dataset"].pop("subjects"), "lacks 'subjects'"),
        (lambda record: record.update(dataset=[]), r"dataset is \[\]"),
        (lambda record: record.update(environment=5), "environment is 5"),
        (lambda record: record.update(status=[]), r"status is \[\]"),
        (damage("environment", command=["grid.py", None]), "the command is"),
        (damage("test", per_class_recall=[-1.0] + [1.0] * 20), "a recall that is no share"),
        (lambda record: record.update(seed="0"), "whole number"),
        (lambda record: record.update(seed=True), "whole number"),
        (damage("test", top1=0.123), "by the confusion matrix"),
        (damage("test", ece=float("nan")), "it has NaN in it"),
        (damage("test", ece=1.5), "ece is 1.5"),
        (damage("test", nll=None), "nll is None"),
        (
            damage("dataset", counts={"available": 1, "train": 1, "val": 1, "test": 2**40}),
            "1,099,511,627,776 test images",
        ),
        (damage("dataset", classes=["a"] * 50_000), "50,000 classes"),
        (damage("test", per_class_recall=[1.0]), "1 recalls of 21 classes"),
        (damage("test", confusion={"true": [21], "predicted": [0], "images": [1]}), "counts of 21 classes"),
        (damage("test", confusion={"true": [0], "predicted": [-1], "images": [1]}), "counts of 21 classes"),
        (damage("test", confusion={"true": [0], "predicted": [0], "images": [1.5]}), "counts of 21 classes"),
        (damage("test", confusion={"true": [0, 1], "predicted": [0], "images": [1]}), "not of one length"),
        (damage("test", confusion={"true": 0, "predicted": 0, "images": 1}), "not what it should be"),
        (damage("dataset", classes=["a", 1]), "expected a text"),
        (damage("config", lr="fast"), "not what it should be"),
        (damage("config", lr=float("nan")), "it has NaN in it"),
        (damage("config", tune={"head": 1}), "expected a number"),
        (damage("config", size=256), "not what it should be"),
    ],
)
def test_damaged_records(tmp_path: Path, harm: Callable[[dict[str, Any]], object], reason: str) -> None:
    record = synthetic.record("ucmerced", "swin")
    path = synthetic.write(tmp_path, record) / "record.json"
    harm(record)
    path.write_text(json.dumps(record), "utf-8")
    with pytest.raises(RecordError, match=reason):
        read_entry(path, "run")


@pytest.mark.parametrize(
    "content", [b"", b"[" * 100_000, b"\xff\xfe", b"null", b"[1]", b'{"schema": 1}', b'{"a": NaN}']
)
def test_garbage(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "record.json").write_bytes(content)
    with pytest.raises(RecordError):
        read_entry(tmp_path / "record.json", "run")


def test_too_large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(schema, "LARGEST_BYTES", 100)
    path = synthetic.write(tmp_path, synthetic.record("ucmerced", "swin")) / "record.json"
    with pytest.raises(RecordError, match="larger than 100 bytes"):
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
        "dtd/record.json": "can't be read: it is no regular file",
        "grid/cell.json": "can't be read: it is no regular file",
    }


def test_a_record_that_is_a_link_to_nothing_is_named(tmp_path: Path) -> None:
    synthetic.make(tmp_path, datasets=["ucmerced"], backbones=["swin"], seeds=1)
    (tmp_path / "dtd").mkdir()
    (tmp_path / "dtd" / "record.json").symlink_to("not fetched")
    found = collect(tmp_path)
    assert len(found.entries) == 1
    assert found.skipped == [{"path": "dtd/record.json", "reason": "a link to a file that is not there"}]


def test_control_characters_are_replaced(tmp_path: Path) -> None:
    record = synthetic.record("ucmerced", "swin")
    record["dataset"]["classes"][0] = "a\x00\x1b\x9b\n\u202eb"
    record["dataset"]["notes"] = ["\u2067x"]
    synthetic.write(tmp_path, record)
    (tmp_path / "grid").mkdir()
    content = {"reason": "a\x07", "tail": ["one\r", "two\x1b[31m\tthree"]}
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


def test_folders_of_any_depth(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """1,200 of them, one in the other: more than Python calls itself."""
    synthetic.make(tmp_path, datasets=["ucmerced"], backbones=["swin"], seeds=1)
    monkeypatch.chdir(tmp_path)
    for _ in range(1200):
        Path("a").mkdir()
        os.chdir("a")
    try:
        assert len(collect(tmp_path).entries) == 1
        assert snapshot(tmp_path, tmp_path / "report")
    finally:
        subprocess.run(["rm", "-r", tmp_path / "a"], check=True)


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


def test_synthetic_records_follow_the_schema() -> None:
    jsonschema = pytest.importorskip("jsonschema")
    several: list[dict[str, Any]] = [{}, {"status": "failed", "error": "RunError: nan"}, {"protocol": "paper"}]
    for changes in several:
        made = synthetic.record("dtd", "regnet", 1, "20 shots", **changes)
        validator = jsonschema.Draft202012Validator(schema.json_schema())
        assert [problem.message for problem in validator.iter_errors(made)] == []
