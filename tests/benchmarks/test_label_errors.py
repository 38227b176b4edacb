"""The measurements behind docs/probabilities.md, on little."""

from __future__ import annotations

import argparse
import re
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

import benchmarks.calibration
import common
from engine.training.metrics import METRICS, Predictions
from tests import toy

pytest.importorskip("efficientnet_lite_pytorch", reason="needs what requirements-dev.txt has")
from benchmarks import label_errors, real_networks


def test_so_many_labels_become_others() -> None:
    part = toy.part(200, 1, "train")
    first, again = (label_errors.changed(part, 0.05, 3, 7) for _ in range(2))
    assert (first.labels == again.labels).all()
    assert int((first.labels != part.labels).sum()) == 10
    assert set(first.labels.tolist()) == {0, 1, 2}
    assert (part.labels == toy.part(200, 1, "train").labels).all()


def test_what_is_found_is_compared_with_what_was_changed() -> None:
    train, val, test = (toy.part(30, seed, f"{seed}") for seed in range(3))
    true = common.RawSplits(toy.CLASSES, train, test, val)
    wrong = [label_errors.changed(part, 0.1, 3, 0) for part in (train, test, val)]
    given = common.RawSplits(toy.CLASSES, wrong[0], wrong[1], wrong[2])
    right = label_errors.labels_of(true)
    names = list(right)[::-1]
    probabilities = np.full((90, 3), 0.05)
    probabilities[np.arange(90), [right[name] for name in names]] = 0.9
    found = label_errors.compared(names, probabilities, given, true)
    assert (found.images, found.changed, found.named) == (90, 9, 9)
    assert (found.accuracy, found.precision, found.recall, found.first, found.suggested) == (1, 1, 1, 1, 1)


def test_a_set_is_measured_by_runs_of_the_project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The second seed's runs, and the mean of both; again, without any training."""
    drawn = (toy.part(images, seed, f"{seed}") for seed, images in enumerate((90, 30, 30)))
    train, test, val = (toy.on_disk(part, tmp_path / "real") for part in drawn)

    def read(_: common.ReadOptions) -> common.RawSplits:
        return common.RawSplits(toy.CLASSES, train, test, val)

    monkeypatch.setattr(label_errors, "REAL", tmp_path / "real")
    monkeypatch.setattr(label_errors, "FOLDS", 2)
    monkeypatch.setattr(label_errors, "SIDE", 16)
    monkeypatch.setattr(label_errors, "FLAGS", (*label_errors.FLAGS, "--weights", "none"))
    monkeypatch.setitem(label_errors.TUNES, "linear", ("--epochs", "4", "--lr", "0.02", "--augment", "none"))
    monkeypatch.setitem(real_networks.DATASETS, "toy", replace(toy.dataset(), read=read))
    monkeypatch.setitem(common.BACKBONES, "tf2", toy.TINY)
    arguments = argparse.Namespace(share=0.05, seeds=2, out=tmp_path / "out")
    result = label_errors.measure("toy", "linear", arguments)
    assert [(each["images"], each["changed"]) for each in result["seeds"]] == [(150, 8)] * 2
    assert result["mean"]["recall"] > 0
    assert len(label_errors.row(result)) == len(label_errors.HEAD)
    monkeypatch.setattr("engine.run.fit", None)
    assert label_errors.measure("toy", "linear", arguments) == result


def test_a_temperature_of_few_images(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "toy" / "tiny" / "x"
    run.mkdir(parents=True)
    random = np.random.default_rng(0)
    labels = np.arange(400) % 3
    logits = 4 * (np.eye(3)[labels] + random.normal(0, 1, (400, 3)))
    np.savez(run / "predictions.npz", names=labels.astype(str), labels=labels, logits=logits.astype(np.float32))
    monkeypatch.setattr(sys, "argv", ["calibration.py", str(run), "--draws", "5"])
    benchmarks.calibration.main()
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split()[:3] == ["run", "drawn", "none"]
    assert [row.split()[:2] for row in rows] == [["toy/tiny", str(images)] for images in (10, 20, 50, 100)]
    none, least, ours = map(float, re.findall(r"([\d.]+) \(worst", rows[-1]))
    assert none == pytest.approx(METRICS["nll"].compute(Predictions(logits, labels)), abs=0.2)
    assert least < none
    assert ours < none
