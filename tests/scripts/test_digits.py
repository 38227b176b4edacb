"""The embedded digits."""

import json
from pathlib import Path

import numpy as np
from sklearn.datasets import load_digits

import digits
from common import ReadOptions
from tests.conftest import Command, only_run


def test_the_split_is_stratified_and_always_the_same() -> None:
    raw = digits.DATASET.read(ReadOptions(Path(), allow_partial=False))
    assert (len(raw.train), len(raw.test)) == (1437, 360)
    assert raw.test.names[:5] == ["0004", "0006", "0010", "0011", "0021"]
    assert not set(raw.train.names) & set(raw.test.names)
    counts = np.bincount(load_digits().target)
    np.testing.assert_allclose(np.bincount(raw.test.labels), 0.2 * counts, atol=1)


def test_images_and_labels_are_scikit_learns() -> None:
    raw = digits.DATASET.read(ReadOptions(Path(), allow_partial=False))
    original = load_digits()
    for part in (raw.train, raw.test):
        numbers = np.array([int(name) for name in part.names])
        np.testing.assert_array_equal(part.labels, original.target[numbers])
        np.testing.assert_allclose(part.pixels()[..., 0], original.images[numbers] * 255 / 16, atol=0.5)
        assert (part.pixels() == part.pixels()[..., :1]).all()


def test_the_originals_constants_are_those_of_the_training_images() -> None:
    raw = digits.DATASET.read(ReadOptions(Path(), allow_partial=False))
    pixels = raw.train.pixels() / 255
    mean, std = digits.DATASET.mean, digits.DATASET.std
    assert mean is not None
    assert std is not None
    np.testing.assert_allclose(pixels.mean((0, 1, 2)), mean, atol=1e-4)
    np.testing.assert_allclose(pixels.std((0, 1, 2)), std, atol=1e-4)


def test_they_are_learnt(command: Command, tmp_path: Path) -> None:
    """A small network at a small size, well above chance; the demo shows more."""
    assert command("-model tiny -bs 32 --weights none --lr 1e-2 --epochs 5 --size 16 --plan off", digits.DATASET) == 0
    record = json.loads((only_run(tmp_path / "runs") / "record.json").read_text())
    assert record["dataset"]["published"] is False
    assert record["dataset"]["counts"] == {"available": 1437, "train": 1295, "val": 142, "test": 360}
    assert record["test"]["top1"] > 0.5
