"""reporting/verify.py: a record that the files of its run contradict is flagged and not ranked."""

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import report
from engine.records.schema import RecordError
from reporting.build import build
from reporting.collect import collect
from reporting.entry import read_entry
from reporting.verify import verify
from tests.reporting import synthetic

IMAGES = 40
RIGHT = [index < 30 for index in range(IMAGES)]
OTHERS = [index % 4 < 3 for index in range(IMAGES)]  # as many, of other classes


def edited(run: Path, **test: Any) -> None:
    """Change a record's metrics, as with an editor."""
    record = json.loads((run / "record.json").read_text("utf-8"))
    record["test"] |= test
    (run / "record.json").write_text(json.dumps(record), "utf-8")


def damaged(run: Path, **changes: Any) -> None:
    with np.load(run / "predictions.npz") as content:
        parts = dict(content)
    np.savez_compressed(run / "predictions.npz", **parts | changes)


def another(run: Path, right: list[bool]) -> None:
    """Put the predictions of another run there."""
    other = synthetic.write_outcome(run.parents[3] / "other", "dtd", "regnet", 9, right)
    (other / "predictions.npz").replace(run / "predictions.npz")


def split(run: Path, text: str) -> None:
    (run / "split.json").write_text(text, "utf-8")


ALL_WRONG = np.eye(2, dtype=np.float32)[1 - np.arange(IMAGES) % 2]


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        (lambda run: edited(run, nll=0.1), "predictions.npz: by its predictions, NLL is 0.5633, by the record 0.1000"),
        (lambda run: edited(run, ece=0.5), "predictions.npz: by its predictions, ECE is"),
        (lambda run: another(run, OTHERS), "predictions.npz: its predictions are not those that the record counts"),
        (lambda run: damaged(run, logits=ALL_WRONG), "its predictions are not those that the record counts"),
        (lambda run: damaged(run, labels=np.zeros(IMAGES, np.int64)), "not those that the record counts"),
        (lambda run: damaged(run, logits=ALL_WRONG[::-1] * np.float32(1e38)), "not those that the record counts"),
        (lambda run: split(run, '{\n  "hash": "' + "a" * 64 + '",'), "split.json is of split aaaaaaaa, the record of"),
    ],
)
def test_a_record_that_its_files_contradict_is_not_ranked(
    tmp_path: Path, harm: Callable[[Path], None], reason: str
) -> None:
    runs = tmp_path / "runs"
    for name in ("swin", "resnet"):
        for seed in range(3):
            last = synthetic.write_outcome(runs, "dtd", name, seed, RIGHT)
    harm(last)
    made = report.make(runs, tmp_path / "out")
    (line,) = made["apart"]
    assert line["run"] == str(last.relative_to(runs))
    assert line["reason"].startswith("the files of the run contradict its record: ")
    assert reason in line["reason"]
    assert [cell["seeds"] for cell in made["groups"][0]["cells"]] == [[0, 1], [0, 1, 2]]
    assert f"caution    {line['run']}: {line['reason']}" in report.lines(made, tmp_path / "out")
    assert reason in (tmp_path / "out" / "report.html").read_text("utf-8").replace("&#x27;", "'")


@pytest.mark.parametrize(
    ("test", "reason"),
    [
        ({"top1": 0.9}, "top-1 is 0.9000, but 0.7500 by the confusion matrix"),
        ({"balanced_accuracy": 0.9}, "balanced accuracy is 0.9000, but 0.7500"),
        ({"macro_f1": 0.9}, "macro-F1 is 0.9000, but 0.7500"),
        ({"per_class_recall": [0.75, 0.5]}, "the recalls are not those of the confusion matrix"),
        ({"confusion": {"true": [0, 1], "predicted": [0, 1], "images": [3, 1]}}, "4 images in the confusion matrix"),
        ({"confusion": {"true": [], "predicted": [], "images": []}}, "0 images in the confusion matrix"),
    ],
)
def test_a_record_that_contradicts_itself_is_damaged(tmp_path: Path, test: dict[str, Any], reason: str) -> None:
    run = synthetic.write_outcome(tmp_path, "dtd", "swin", 0, RIGHT)
    edited(run, **test)
    with pytest.raises(RecordError, match=reason):
        read_entry(run / "record.json", "run")


def test_what_is_sealed_is_not_read_again_but_its_bytes_must_be_those(tmp_path: Path) -> None:
    run = synthetic.write_outcome(tmp_path, "dtd", "swin", 0, RIGHT)
    synthetic.seal(run)
    edited(run, nll=0.5)  # for this a record has a checksum of its own
    assert verify(collect(tmp_path).entries).unfit == []
    with np.load(run / "predictions.npz") as content:
        np.savez(run / "predictions.npz", **content)
    (line,) = verify(collect(tmp_path).entries).unfit
    assert "not the file that the record names: its sha256 is" in line["reason"]


@pytest.mark.parametrize("sealed", [True, False])
def test_predictions_that_cannot_be_read_are_skipped_and_contradict_nothing(tmp_path: Path, sealed: bool) -> None:
    run = synthetic.write_outcome(tmp_path, "dtd", "swin", 0, RIGHT)
    if sealed:
        synthetic.seal(run)
    (run / "predictions.npz").write_bytes((run / "predictions.npz").read_bytes()[:-40])
    verified = verify(collect(tmp_path).entries)
    assert (len(verified.entries), verified.unfit) == (1, [])
    assert [line["path"] for line in verified.skipped] == [f"{run.relative_to(tmp_path)}/predictions.npz"]


def test_files_that_are_gone_or_say_nothing_contradict_nothing(tmp_path: Path) -> None:
    run = synthetic.write_outcome(tmp_path, "dtd", "swin", 0, RIGHT)
    synthetic.seal(run)
    (run / "predictions.npz").unlink()
    for content in ("", "{}", '{"hash": 5}'):
        split(run, content)
        assert len(verify(collect(tmp_path).entries).entries) == 1
    (run / "split.json").unlink()
    os.mkfifo(run / "split.json")
    assert len(verify(collect(tmp_path).entries).entries) == 1


def test_a_history_and_errors_of_another_run_are_not_shown(tmp_path: Path) -> None:
    runs, elsewhere = tmp_path / "runs", tmp_path / "elsewhere"
    one, sealed = synthetic.make(runs, datasets=["ucmerced"], backbones=["swin", "resnet"], seeds=1)
    (other,) = synthetic.make(elsewhere, datasets=["ucmerced"], backbones=["convnext"], seeds=1)
    synthetic.seal(sealed)
    for run in (one, sealed):
        for name in ("history.csv", "errors.npz"):
            (run / name).write_bytes((other / name).read_bytes())
    made = build(collect(runs), runs)
    assert [(cell["curve"], cell["errors"]) for cell in made["groups"][0]["cells"]] == [([[]], None)] * 2
    reasons = {tuple(line["path"].rsplit("/", 1)): line["reason"] for line in made["skipped"]}
    of_one, of_sealed = (str(run.relative_to(runs)) for run in (one, sealed))
    assert "by the record" in reasons[of_one, "history.csv"]
    assert "they are of other predictions" in reasons[of_one, "errors.npz"]
    assert "not the file that the record names" in reasons[of_sealed, "history.csv"]
    assert "not the file that the record names" in reasons[of_sealed, "errors.npz"]
