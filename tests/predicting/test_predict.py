"""predict.py: what it says of images is what the run said of its own, in whatever form."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from common import load
from engine.data.batches import EVALUATED
from engine.records.schema import read_record
from predicting.decoding import Stream
from predicting.forms import form_for
from predicting.inputs import Inputs
from predicting.network import Network
from predicting.work import predicted
from tests.predicting.conftest import CLASSES, Ask


def softmax(logits: np.ndarray) -> np.ndarray:
    powers = np.exp(logits.astype(np.float64) - logits.max(axis=1, keepdims=True))
    return powers / powers.sum(axis=1, keepdims=True)


def test_logits_are_those_of_the_run_bit_for_bit(run: Path) -> None:
    trained = load(run)
    network = Network.of(trained, form_for(trained, "cpu", "run", []), EVALUATED * trained.record["batch_size"])
    stream = Stream(trained.preprocessing.stored_size, network.batch_size)
    answers = [*predicted([network], stream, Inputs(["pets/test"], None))]  # type: ignore[arg-type]
    kept = np.load(run / "predictions.npz")
    assert [len(answer.batch.images) for answer in answers] == [16, 5]
    paths = [image.found.path for answer in answers for image in answer.batch.images]
    assert paths == [f"pets/{name}" for name in kept["names"]]
    np.testing.assert_array_equal(np.concatenate([answer.logits[0] for answer in answers]), kept["logits"])


def test_csv(ask: Ask, run: Path) -> None:
    said = ask(f"{run} pets/test --csv")
    assert said.code == 0
    rows = [*csv.DictReader(said.out.splitlines())]
    kept = np.load(run / "predictions.npz")
    chances = softmax(kept["logits"])
    order = np.argsort(-chances, axis=1)
    for row, chance, ranks, label in zip(rows, chances, order, kept["labels"], strict=True):
        assert [row["class"], row["class_2"], row["class_3"]] == [CLASSES[index] for index in ranks]
        assert float(row["probability_3"]) == pytest.approx(chance[ranks[2]], abs=1e-6)
        assert (row["label"], row["error"]) == (CLASSES[label], "")


def test_the_metrics_are_those_of_the_record(ask: Ask, run: Path) -> None:
    said = ask(f"{run} pets/test --json")
    found = json.loads(said.out)
    record = read_record(run / "record.json")
    assert record
    expected = dict(record["test"])
    metrics = found["metrics"]
    for name in ("images", "top1", "balanced_accuracy", "macro_f1", "confusion"):
        assert metrics[name] == expected[name]
    for name in ("auroc", "nll", "ece"):
        assert metrics[name] == pytest.approx(expected[name], abs=1e-6)
    assert found["classes"] == list(CLASSES)
    assert "top-1" in said.problems
