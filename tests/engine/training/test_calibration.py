"""The temperature: that it is the right one, that odd validation parts do no harm, and what runs keep of it."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import numpy.typing as npt
import pytest
import torch

import common
from common import RawSplits
from engine.records.schema import json_schema
from engine.training.calibration import FEWEST, HIGHEST, LOWEST, calibration, fitted_temperature, scaled
from engine.training.metrics import METRICS, Predictions
from tests import toy
from tests.conftest import Command, only_run

LINE = "-model tiny -bs 16 --weights none --plan off --precision fp32 --epochs 2"

Arrays = tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]


def drawn(images: int, classes: int = 5, seed: int = 0) -> Arrays:
    """Logits, and labels drawn from the probabilities that they give: calibrated as they are."""
    random = np.random.default_rng(seed)
    logits = random.normal(0, 2, (images, classes))
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels = (probabilities.cumsum(axis=1) > random.random((images, 1))).argmax(axis=1)
    return logits, labels


def fitted(logits: npt.ArrayLike, labels: npt.ArrayLike) -> float:
    return fitted_temperature(Predictions(np.asarray(logits, np.float64), np.asarray(labels)))


def nll(logits: npt.NDArray[np.float64], labels: npt.NDArray[np.int64]) -> float:
    return METRICS["nll"].compute(Predictions(logits, labels)) or 0.0


@pytest.mark.parametrize("factor", [0.2, 1.0, 3.0])
def test_the_temperature_by_which_labels_were_drawn_is_found(factor: float) -> None:
    logits, labels = drawn(20_000)
    assert fitted(logits * factor, labels) == pytest.approx(factor, rel=0.03)


def test_no_other_temperature_has_a_lower_nll() -> None:
    logits, labels = drawn(5000, seed=1)
    temperature = fitted(2 * logits, labels)
    lowest = nll(2 * logits / temperature, labels)
    assert all(nll(2 * logits / (temperature * other), labels) > lowest for other in (0.8, 0.95, 1.05, 1.25))


def test_ece_and_nll_before_and_after() -> None:
    logits, labels = drawn(4000)
    logits *= 4
    found = calibration(logits, labels)
    assert found is not None
    for when, these in (("before", logits), ("after", logits / found["temperature"])):
        predictions = Predictions(these, labels)
        for name in ("nll", "ece"):
            assert found[f"{name}_{when}"] == pytest.approx(METRICS[name].compute(predictions))
    assert found["ece_after"] < 0.03 < 0.15 < found["ece_before"]
    assert found["images"] == 4000
    json.dumps(found, allow_nan=False)


def test_where_all_are_right_probabilities_do_not_become_one() -> None:
    labels = np.arange(100) % 4
    logits = 3.0 * np.eye(4)[labels]
    temperature = fitted(logits, labels)
    sure = Predictions(scaled(logits, temperature), labels).probabilities.max(axis=1)
    assert sure == pytest.approx(1 - 0.5 / 101)  # as half an image more that is wrong


def test_of_a_tenth_of_the_images_it_is_about_the_same() -> None:
    logits, labels = drawn(20_000, seed=2)
    of_few = [fitted(2 * logits[start::400], labels[start::400]) for start in range(40)]
    assert np.median(of_few) == pytest.approx(2, rel=0.1)
    assert max(of_few) < 4
    assert min(of_few) > 1


@pytest.mark.parametrize("scale", [1e-30, 1e3, 1e37])
def test_logits_of_any_size(scale: float) -> None:
    logits, labels = drawn(200)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        temperature = fitted((logits * scale).astype(np.float32), labels)
    assert temperature == (LOWEST if scale < 1 else HIGHEST)


def test_worse_than_guessing_is_made_as_unsure_as_can_be() -> None:
    logits, _ = drawn(200)
    assert fitted(logits, logits.argmin(axis=1)) == HIGHEST
    assert fitted(np.zeros((50, 3)), np.arange(50) % 3) in (LOWEST, HIGHEST)


def test_a_class_without_images_and_two_classes() -> None:
    logits, labels = drawn(3000)
    keep = labels != 2
    assert 0.5 < fitted(logits[keep], labels[keep]) < 2
    logits, labels = drawn(3000, classes=2)
    assert fitted(5 * logits, labels) == pytest.approx(5, rel=0.15)
    one_label = np.zeros(60, np.int64)
    assert LOWEST <= fitted(drawn(60)[0], one_label) <= HIGHEST


def test_of_few_images_none_is_fitted() -> None:
    logits, labels = drawn(FEWEST)
    assert calibration(logits, labels) is not None
    assert calibration(logits[1:], labels[1:]) is None


def record_of(out: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((only_run(out) / "record.json").read_text())
    jsonschema.validate(record, json_schema())
    return record


@pytest.fixture
def val_of_many() -> common.Dataset:
    """24 of its images are of val."""
    return toy.dataset(train=240)


@contextmanager
def without_test() -> Iterator[None]:
    """All is trained, and then the run ends."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.run.predict", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
        yield


@pytest.mark.parametrize("more", ["", "--tune linear --augment none"], ids=["all layers", "features"])
def test_a_run_keeps_the_temperature_of_its_best_epoch(
    command: Command, tmp_path: Path, val_of_many: common.Dataset, more: str
) -> None:
    """What it is fitted on is what the checkpoint's model makes of val; a run that was cut off keeps the same."""
    assert command(f"{LINE} {more}", val_of_many) == 0
    folder, record = only_run(tmp_path / "runs"), record_of(tmp_path / "runs")
    trained = common.load(folder)
    assert trained.temperature == record["calibration"]["temperature"]
    split = json.loads((folder / "split.json").read_text())["parts"]["val"]
    names, labels = zip(*split, strict=True)
    pixels = toy.part(240, 1, "train").pixels()[[int(name.partition("/")[2]) for name in names]]
    with torch.inference_mode():
        logits = trained.model()(trained.preprocessing.to_input(torch.from_numpy(pixels))).numpy()
    again = calibration(logits, np.array(labels))
    assert again == pytest.approx({name: record["calibration"][name] for name in again or ()}, abs=1e-5)

    with np.load(folder / "predictions.npz") as kept:
        of_test = Predictions(scaled(kept["logits"], trained.temperature), kept["labels"])
    assert record["calibration"]["test_ece"] == pytest.approx(METRICS["ece"].compute(of_test))
    assert record["calibration"]["test_nll"] == pytest.approx(METRICS["nll"].compute(of_test))

    with without_test():
        assert command(f"{LINE} {more} --out cut", val_of_many) == 130
    assert command(f"{LINE} {more} --out cut", val_of_many) == 0
    assert record_of(tmp_path / "cut")["calibration"] == record["calibration"]


def test_each_fold_has_its_own(command: Command, tmp_path: Path) -> None:
    images = tmp_path / "images"
    train, test = (toy.on_disk(toy.part(220, seed, f"{seed}"), images) for seed in (1, 2))
    own = replace(toy.dataset(220, 220), own_folder=images, read=lambda _: RawSplits(toy.CLASSES, train, test))
    assert command(f"{LINE} --folds 2", own) == 0
    found = [json.loads(path.read_text())["calibration"] for path in tmp_path.glob("runs/*/*/*/record.json")]
    assert [each["images"] for each in found] == [21, 21]
    assert found[0]["temperature"] != found[1]["temperature"]


def test_where_none_can_be_fitted_the_record_says_null(
    command: Command, tmp_path: Path, val_of_many: common.Dataset
) -> None:
    """Under the paper protocol no image is left that neither trained nor judges; six of val are too few."""
    assert command(f"{LINE} --protocol paper", val_of_many) == 0
    assert command(f"{LINE} --out few") == 0
    for out in ("runs", "few"):
        assert record_of(tmp_path / out)["calibration"] is None
        assert common.load(only_run(tmp_path / out)).temperature is None
