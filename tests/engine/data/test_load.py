"""A few images of each part for `--check`, and the digests of parts that were read as pixels."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.data.images import decode, digest, resize
from engine.data.load import DecodeOptions, decode_few, divide, with_digests
from engine.data.part import RawSplits, Splits
from engine.errors import UserError
from tests import toy
from tests.engine.data.pictures import SIZE, listed, references

OPTIONS = DecodeOptions(SIZE, cache_dir=None, protocol="honest", allow_partial=False)


def few(raw: RawSplits, count: int, options: DecodeOptions = OPTIONS) -> Splits:
    """A few images of each part under the `paper` protocol, which trains on all training images."""
    return decode_few(toy.dataset(), divide(raw, "paper", 0), count, replace(options, protocol="paper"))


def test_a_few(data: Path) -> None:
    before = sorted(data.rglob("*"))
    train = listed(data).train
    found, expected = few(listed(data), 4), train.take(np.array([0, 6, 13, 19]))
    assert found.train.names == expected.names
    np.testing.assert_array_equal(found.train.labels, expected.labels)
    np.testing.assert_array_equal(found.train.pixels(), [resize(decode(path), SIZE) for path in references(expected)])
    assert len(found.test) == 4
    assert found.val is found.test
    assert len(few(listed(data), 99).train) == 20
    assert sorted(data.rglob("*")) == before


def test_a_few_of_an_array() -> None:
    train = toy.part(6, 1, "train").take(np.array([1, 4, 2]))
    found = few(RawSplits(toy.CLASSES, train, toy.part(3, 2, "test")), 2)
    assert found.train.names == ["train/1", "train/2"]
    np.testing.assert_array_equal(found.train.pixels(), train.pixels(np.array([0, 2])))


def test_a_bad_one_of_a_few(data: Path) -> None:
    (data / "train" / "0.png").write_bytes(b"")
    with pytest.raises(UserError, match=r"^train/0\.png can't be read: empty\."):
        few(listed(data), 4)
    with_it = few(listed(data), 99, replace(OPTIONS, allow_partial=True)).train
    assert len(with_it) == len(with_it.images) == 19


def test_none_of_a_few(data: Path) -> None:
    for path in (data / "test").iterdir():
        path.write_bytes(b"")
    with pytest.raises(UserError, match=r"none of 4 images can be read, test/0\.png for one"):
        few(listed(data), 4, replace(OPTIONS, allow_partial=True))


def test_digests_of_arrays() -> None:
    train = toy.part(6, 1, "train")
    expected = [digest(image) for image in train.pixels()]
    splits = with_digests(Splits(toy.CLASSES, train, train, train))
    assert [part.digests for part in splits] == [expected] * 3
    assert [part.digests for part in with_digests(splits)] == [expected] * 3
