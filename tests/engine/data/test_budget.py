"""--shots and --fraction: nested, stratified, spread over groups; the validation part is within the budget."""

import json
from collections import Counter
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from common import Dataset, RawSplits
from engine.data.load import divide
from engine.data.part import Part
from engine.data.splits import few_of_each
from engine.errors import UserError
from tests import toy
from tests.conftest import Command, only_run

LABELS = np.repeat(np.arange(4), [50, 30, 7, 120]).astype(np.int64)[np.random.RandomState(3).permutation(207)]


@pytest.mark.parametrize("seed", [0, 1, 2**32 - 1])
def test_a_smaller_set_is_inside_every_larger_one(seed: int) -> None:
    groups = [f"patient {index % 23}" for index in range(len(LABELS))]
    for names in (None, groups):
        shots = [set(few_of_each(LABELS, names, count, seed).tolist()) for count in (2, 5, 7, 10, 30, 119, 500)]
        fractions = [set(few_of_each(LABELS, names, share, seed).tolist()) for share in (0.01, 0.1, 0.5, 0.99)]
        for sets in (shots, fractions):
            assert all(small < large for small, large in pairwise(sets))
        assert len(shots[-1]) == len(LABELS)


@pytest.mark.parametrize(("budget", "expected"), [(5, [5, 5, 5, 5]), (10, [10, 10, 7, 10]), (0.1, [5, 3, 1, 12])])
def test_every_class_has_its_share(budget: int | float, expected: list[int]) -> None:
    chosen = few_of_each(LABELS, None, budget, 0)
    assert np.bincount(LABELS[chosen]).tolist() == expected
    assert (np.diff(chosen) > 0).all()


def test_another_seed_another_set_the_same_seed_the_same() -> None:
    assert few_of_each(LABELS, None, 5, 0).tolist() == few_of_each(LABELS, None, 5, 0).tolist()
    assert few_of_each(LABELS, None, 5, 0).tolist() != few_of_each(LABELS, None, 5, 1).tolist()


def test_images_are_spread_over_groups() -> None:
    """100 images of a class, 90 of them of one patient: five shots are of five patients, eleven of all eleven."""
    labels = np.zeros(100, np.int64)
    groups = ["many"] * 90 + [f"few {index}" for index in range(10)]
    for seed in range(5):
        assert len({groups[index] for index in few_of_each(labels, groups, 5, seed)}) == 5
        assert Counter(groups[index] for index in few_of_each(labels, groups, 13, seed))["many"] == 3


def whole(groups: bool) -> RawSplits:
    labels = np.tile(np.arange(3), 40).astype(np.int64)
    names = [f"train/{index}" for index in range(120)]
    train = Part(
        np.zeros((120, 2, 2, 3), np.uint8), labels, names, [f"g{i // 6}" for i in range(120)] if groups else None
    )
    return RawSplits(("a", "b", "c"), train, toy.part(9, 2, "test"), toy.part(9, 3, "val"))


def test_validation_is_within_the_budget_and_the_datasets_own_is_not_used() -> None:
    images = whole(groups=False)
    parts = divide(images, "honest", 0, 10)
    assert np.bincount(parts.train.labels).tolist() == [9, 9, 9]
    assert np.bincount(parts.val.labels).tolist() == [1, 1, 1]
    assert not set(parts.train.names) & set(parts.val.names)
    assert set(parts.val.names) <= set(images.train.names)
    assert len(divide(images, "honest", 0).val) == 9
    assert divide(images, "honest", 0).val.names[0].startswith("val/")
    larger = divide(images, "honest", 0, 20)
    assert {*parts.train.names, *parts.val.names} < {*larger.train.names, *larger.val.names}


def test_groups_stay_on_one_side() -> None:
    parts = divide(whole(groups=True), "honest", 0, 10)
    assert parts.train.groups is not None
    assert parts.val.groups is not None
    assert not set(parts.train.groups) & set(parts.val.groups)
    assert len(parts.train) + len(parts.val) == 30


def test_under_the_paper_protocol_all_of_it_is_trained_on() -> None:
    parts = divide(whole(groups=False), "paper", 0, 10)
    assert np.bincount(parts.train.labels).tolist() == [10, 10, 10]
    assert parts.val is parts.test


def test_too_little_to_hold_anything_out() -> None:
    one_patient = replace(whole(groups=True).train, groups=["the same"] * 120)
    with pytest.raises(UserError, match="--shots or --fraction"):
        divide(replace(whole(groups=True), train=one_patient), "honest", 0, 10)


def test_a_run(command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    ids = set()
    for flags, counts in (
        ("--shots 5", {"available": 60, "train": 12, "val": 3, "test": 21}),
        ("--shots 6", {"available": 60, "train": 15, "val": 3, "test": 21}),
        ("--fraction 0.25", {"available": 60, "train": 12, "val": 3, "test": 21}),
    ):
        out = flags.strip("-").replace(" ", "")
        assert command(f"-model tiny -bs 8 --weights none --epochs 1 --plan off {flags} --out {out}") == 0
        record = json.loads((only_run(tmp_path / out) / "record.json").read_text())
        assert record["dataset"]["counts"] == counts
        ids.add(record["dataset"]["split"])
        ids.add(record["run"])
    # five of twenty are the same images as a quarter of them
    assert len(ids) == 5
    printed = capsys.readouterr().out
    assert "Toy: train 60 (12 to train + 3 val, 5 a class), test 21, 3 classes" in printed
    assert "Toy: train 60 (12 to train + 3 val, 0.25 of each class), test 21" in printed


def test_the_worst_errors_are_kept(command: Command, tmp_path: Path) -> None:
    """Images that predictions.npz says are wrong, the twelve most confident first; the rest may be labelled wrongly."""
    shown: dict[str, Any] = {}

    def wide() -> Dataset:
        dataset = toy.dataset(test=60)
        read = dataset.read

        def widened(source: Any) -> RawSplits:
            found = read(source)
            pixels = found.test.pixels().repeat(20, axis=1).repeat(10, axis=2)
            shown["test"] = replace(found.test, images=pixels)
            train = replace(found.train, images=found.train.pixels().repeat(20, axis=1).repeat(10, axis=2))
            return replace(found, train=train, test=shown["test"])

        return replace(dataset, read=widened)

    assert command("-model tiny -bs 16 --weights none --epochs 1 --plan off --lr 1e-5", wide()) == 0
    folder = only_run(tmp_path / "runs")
    with np.load(folder / "errors.npz") as errors, np.load(folder / "predictions.npz") as predictions:
        rows, tiles = errors["rows"], errors["tiles"]
        logits, labels = predictions["logits"].astype(np.float64), predictions["labels"]
    assert 0 < len(rows) <= 24
    # 160 x 80 pixels, at most 64 on the longer side
    assert tiles.shape == (len(rows), 64, 32, 3)
    confidence = np.exp(logits).max(axis=1) / np.exp(logits).sum(axis=1)
    wrong = np.flatnonzero(logits.argmax(axis=1) != labels)
    assert set(rows) <= set(wrong)
    worst = rows[:12]
    assert (np.diff(confidence[worst]) <= 1e-9).all()
    assert confidence[worst].min() >= np.sort(confidence[wrong])[::-1][: len(worst)].min() - 1e-9
    for row, tile in zip(rows, tiles, strict=True):
        assert abs(tile.mean() - shown["test"].pixels(np.array([row])).mean()) < 2
