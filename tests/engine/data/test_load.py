"""Between a dataset's files and its parts: digests of what was read as pixels, and what is said of the parts."""

from engine.data.images import digest
from engine.data.load import with_digests
from engine.data.part import Splits
from tests import toy


def test_digests_of_arrays() -> None:
    train = toy.part(6, 1, "train")
    expected = [digest(image) for image in train.pixels()]
    splits = with_digests(Splits(toy.CLASSES, train, train, train))
    assert [part.digests for part in splits] == [expected] * 3
    assert [part.digests for part in with_digests(splits)] == [expected] * 3
