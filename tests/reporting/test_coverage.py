"""What is kept where less sure predictions are rejected, and the mistakes with their pictures, of runs on the disk."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from engine.records.mistakes import rows_to_keep
from engine.training.metrics import METRICS, Predictions, evaluate
from reporting.build import build
from reporting.collect import collect
from reporting.entry import Entry
from reporting.mistakes import pictures, read_mistakes
from reporting.predictions import THRESHOLDS, outcome
from reporting.statistics import wilson
from tests.reporting import synthetic

CLASSES = 4
DIVISION = "d" * 64


def made(
    folder: Path, seed: int, images: int = 400, temperature: float | None = 2.0, fold: Sequence[int] = ()
) -> tuple[Path, Predictions]:
    """A run with its predictions, which are surer than they are right, and pictures of its mistakes."""
    random = np.random.default_rng([seed, *fold])
    labels = np.arange(images) % CLASSES
    logits = random.normal(0, 2, (images, CLASSES)).astype(np.float32)
    logits[np.arange(images), labels] += random.normal(5, 4, images).astype(np.float32)
    counts = synthetic.record("dtd", "swin")["dataset"]["counts"] | {"test": images}
    dataset: dict[str, Any] = {"classes": synthetic.class_names(CLASSES), "counts": counts}
    calibration = None
    if temperature:
        after = Predictions(logits / temperature, labels)
        calibration = {"temperature": temperature, "test_ece": METRICS["ece"].compute(after)}
    changes: dict[str, Any] = {}
    if fold:
        dataset["division"] = DIVISION
        changes["config"] = {"folds": fold[1], "fold": fold[0]}
    record = synthetic.record(
        "dtd", "swin", seed, test=evaluate(logits, labels), dataset=dataset, calibration=calibration, **changes
    )
    run = synthetic.write(folder, record)
    names = np.array([f"{''.join(map(str, fold))}/{index:04}.png" for index in range(images)])
    np.savez_compressed(run / "predictions.npz", names=names, labels=labels, logits=logits)
    rows = rows_to_keep(logits, labels, temperature)
    tiles = np.broadcast_to(rows.astype(np.uint8)[:, None, None, None], (len(rows), 8, 8, 3))
    np.savez_compressed(run / "errors.npz", tiles=tiles, rows=rows)
    synthetic.seal(run)
    return run, Predictions(logits, labels)


def cell_of(folder: Path) -> dict[str, Any]:
    report = build(collect(folder), folder)
    assert report["skipped"] == []
    ((cell,),) = (group["cells"] for group in report["groups"])
    json.dumps(cell, allow_nan=False)
    found: dict[str, Any] = cell
    return found


def kept(several: Sequence[Predictions], temperature: float, least: float) -> tuple[float, float, int]:
    """The share of images that are as sure, the accuracy of these, and how many there are, of an image at a time."""
    sure, right = [], []
    for predictions in several:
        for row, correct in zip(predictions.logits.astype(float) / temperature, predictions.correct, strict=True):
            powers = np.exp(row - row.max())
            if powers.max() / powers.sum() >= least:
                sure.append(1)
                right.append(bool(correct))
    return len(sure) / sum(of.images for of in several), float(np.mean(right)), len(sure)


def entries(folder: Path) -> list[Entry]:
    return collect(folder).entries


def test_what_is_kept_by_the_temperature_of_each_seed(tmp_path: Path) -> None:
    several = [made(tmp_path, seed)[1] for seed in range(3)]
    coverage = cell_of(tmp_path)["coverage"]
    assert coverage["seeds"] == [0, 1, 2]
    assert [row[0] for row in coverage["table"]] == [0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99]
    for least, share, accuracy, low, high in coverage["table"]:
        expected, right, images = kept(several, 2.0, least)
        assert (share, accuracy) == (pytest.approx(expected, abs=1e-6), pytest.approx(right, abs=1e-6))
        assert [low, high] == pytest.approx(wilson(right, round(images / 3)), abs=1e-6)
    assert coverage["table"][0][1] == 1
    assert coverage["table"][-1][2] > coverage["table"][0][2] + 0.03
    assert coverage["temperatures"] == [2.0] * 3
    after = [Predictions(of.logits / 2.0, of.labels) for of in several]
    ece = [np.mean([METRICS["ece"].compute(of) for of in group]) for group in (several, after)]
    assert coverage["ece"] == pytest.approx(ece, abs=1e-6)
    shares = [share for _, share, _ in coverage["curve"]]
    assert shares == sorted(shares, reverse=True)
    assert {least for least, *_ in coverage["curve"]} <= set(THRESHOLDS)


def test_without_a_temperature_probabilities_are_those_of_the_logits(tmp_path: Path) -> None:
    _, predictions = made(tmp_path, 0, temperature=None)
    coverage = cell_of(tmp_path)["coverage"]
    assert (coverage["temperatures"], coverage["ece"]) == ([], None)
    assert coverage["table"][4][1] == pytest.approx(kept([predictions], 1.0, 0.9)[0], abs=1e-6)


def test_folds_are_taken_together(tmp_path: Path) -> None:
    several = [made(tmp_path, 0, 200, fold=(number, 2))[1] for number in (1, 2)]
    cell = cell_of(tmp_path)
    assert cell["coverage"]["seeds"] == [0]
    share, _, images = kept(several, 2.0, 0.9)
    _, shown, accuracy, *ends = cell["coverage"]["table"][4]
    assert shown == pytest.approx(share, abs=1e-6)
    assert ends == pytest.approx(wilson(accuracy, images), abs=1e-6)
    assert cell["errors"]["suspected"][1] == 400
    assert {suspect["name"].partition("/")[0] for suspect in cell["errors"]["suspects"]} == {"12", "22"}


def test_a_seed_without_predictions_is_not_among_them(tmp_path: Path) -> None:
    for seed in range(3):
        made(tmp_path, seed)
    next(tmp_path.glob("*/*/*seed1*/predictions.npz")).unlink()
    assert cell_of(tmp_path)["coverage"]["seeds"] == [0, 2]
    for path in tmp_path.glob("*/*/*/predictions.npz"):
        path.unlink()
    (cell,) = build(collect(tmp_path), tmp_path, thumbnails=False)["groups"][0]["cells"]
    assert cell["coverage"] is None


def test_an_old_record_says_nothing_of_a_temperature(tmp_path: Path) -> None:
    run, _ = made(tmp_path, 0)
    record = json.loads((run / "record.json").read_text())
    del record["calibration"]
    (run / "record.json").write_text(json.dumps(record))
    (entry,) = entries(tmp_path)
    assert entry.calibration is None
    assert cell_of(tmp_path)["coverage"]["temperatures"] == []


def test_another_temperature_is_looked_at_anew(tmp_path: Path) -> None:
    """As in the live view, where the predictions stay and the record is another."""
    run, _ = made(tmp_path, 0)
    first = outcome(entries(tmp_path)[0])
    record = json.loads((run / "record.json").read_text())
    record["calibration"]["temperature"] = 4.0
    (run / "record.json").write_text(json.dumps(record))
    second = outcome(entries(tmp_path)[0])
    assert first is not None
    assert second is not None
    place = THRESHOLDS.index(0.9)
    assert second.kept[0, place] < first.kept[0, place]


def suspects_of(predictions: Predictions) -> npt.NDArray[np.int64]:
    """The wrong predictions that are as sure as those of their class's own images are in the mean."""
    probabilities = Predictions(predictions.logits / 2.0, predictions.labels).probabilities
    own = probabilities[np.arange(len(probabilities)), predictions.labels]
    least = np.array([own[predictions.labels == label].mean() for label in range(CLASSES)])
    likely = (probabilities >= least) & (np.arange(CLASSES) != predictions.labels[:, None])
    return np.flatnonzero(likely.any(axis=1) & ~predictions.correct)


def test_likely_label_errors_have_their_pictures(tmp_path: Path) -> None:
    _, predictions = made(tmp_path, 0)
    errors = cell_of(tmp_path)["errors"]
    expected = suspects_of(predictions)
    assert errors["suspected"] == [len(expected), 400]
    assert len(errors["suspects"]) == 12
    for suspect in errors["suspects"]:
        row = int(suspect["name"].partition("/")[2].removesuffix(".png"))
        assert row in expected
        assert suspect["given"] == predictions.labels[row] != suspect["suggested"]
        assert suspect["probabilities"][0] < suspect["probabilities"][1]
        assert 0 <= suspect["at"] < errors["columns"]
    assert errors["columns"] <= 24
    assert [tile["name"] for tile in errors["tiles"]][:1] != []


def test_a_run_that_kept_no_pictures_of_them_names_them(tmp_path: Path) -> None:
    """As earlier ones did, which kept their worst errors alone."""
    run, _ = made(tmp_path, 0)
    with np.load(run / "errors.npz") as content:
        np.savez(run / "errors.npz", tiles=content["tiles"][:2], rows=content["rows"][:2])
    synthetic.seal(run)
    errors = cell_of(tmp_path)["errors"]
    assert (errors["columns"], len(errors["tiles"])) == (2, 2)
    assert {suspect["at"] for suspect in errors["suspects"]} <= {0, 1, None}
    assert len(errors["suspects"]) == 12


def test_a_fold_without_mistakes_still_counts(tmp_path: Path) -> None:
    for number in (1, 2):
        made(tmp_path, 0, 200, fold=(number, 2))
    first, second = sorted(entries(tmp_path), key=lambda entry: entry.run)
    (first.folder / "errors.npz").unlink()
    read = [read_mistakes(entry) for entry in (first, second)]
    assert all(read)
    shown = pictures([each for each in read if each], 48)
    assert shown["of"] == "0, fold 2 of 2"
    assert shown["suspected"][1] == 400
