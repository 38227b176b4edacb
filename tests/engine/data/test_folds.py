"""engine/data/folds.py: every image is tested once, by classes, and no group is on both sides."""

import itertools
import random
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data.folds import copies_between, division, fold_of
from engine.data.load import divide
from engine.data.part import Part, RawSplits
from engine.errors import UserError


def part(images: dict[str, int], groups: dict[str, str] | None = None) -> Part:
    """Images that are yet to be decoded, by name, with their labels."""
    names = list(images)
    of = None if groups is None else [groups[name] for name in names]
    return Part([Path(name) for name in names], np.array(list(images.values()), dtype=np.int64), names, of)


def parts(images: dict[str, int], groups: dict[str, str] | None = None, order: int = 0) -> RawSplits:
    """A dataset that has its images in three parts, in an order of its own."""
    names = sorted(images)
    random.Random(order).shuffle(names)
    third = max(1, len(names) // 3)
    cut = [names[:third], names[third : 2 * third], names[2 * third :]]
    train, val, test = (part({name: images[name] for name in each}, groups) for each in cut)
    return RawSplits(tuple(f"class {label}" for label in range(max(images.values()) + 1)), train, test, val)


def of_each_fold(raw: RawSplits, folds: int) -> list[list[str]]:
    """The names of the test part of each fold."""
    found = []
    for fold in range(1, folds + 1):
        divided = fold_of(raw, folds, fold)
        assert divided.val is None
        assert sorted([*divided.train.names, *divided.test.names]) == sorted(divided.fold_of)
        assert all((divided.fold_of[name] == fold) == (name in set(divided.test.names)) for name in divided.fold_of)
        labels = dict(divided.train.labelled_names) | dict(divided.test.labelled_names)
        assert [str(path) for path in divided.test.entries(divided.test.references)] == divided.test.names
        assert labels == {
            name: label for each in (raw.train, raw.val, raw.test) if each for name, label in each.labelled_names
        }
        found.append(list(divided.test.names))
    return found


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(2, 17), min_size=1, max_size=6), st.integers(2, 7), st.integers(0, 9))
def test_every_image_is_tested_once_and_classes_are_even(sizes: list[int], folds: int, order: int) -> None:
    images = {f"{label}/{index}.png": label for label, size in enumerate(sizes) for index in range(size)}
    if sum(sizes) < max(3, folds):
        return
    found = of_each_fold(parts(images, order=order), folds)
    assert sorted(itertools.chain(*found)) == sorted(images)
    for label in range(len(sizes)):
        of_class = [sum(images[name] == label for name in names) for names in found]
        assert max(of_class) - min(of_class) <= 1
    assert max(map(len, found)) - min(map(len, found)) <= 1
    # what reads them, and how they lay in parts, changes nothing
    assert [sorted(names) for names in found] == [
        sorted(names) for names in of_each_fold(parts(images, order=order + 1), folds)
    ]


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 10_000), st.integers(2, 5))
def test_no_group_is_in_two_folds(seed: int, folds: int) -> None:
    """Patients with several images, some of several classes."""
    random = np.random.default_rng(seed)
    images = {f"{index}.png": int(label) for index, label in enumerate(random.integers(0, 3, 90))}
    groups = {name: f"p{random.integers(0, 30)}" for name in images}
    found = of_each_fold(parts(images, groups), folds)
    assert sorted(itertools.chain(*found)) == sorted(images)
    of_folds = [{groups[name] for name in names} for names in found]
    assert not any(one & other for one, other in itertools.combinations(of_folds, 2))
    for label, names in itertools.product(range(3), found):
        share = sum(images[name] == label for name in names) / sum(of == label for of in images.values())
        assert abs(share - 1 / folds) < 0.15
    raw = fold_of(parts(images, groups), folds, 1)
    split = divide(raw, "honest", 3)
    assert not set(split.train.groups or ()) & set(split.val.groups or ())
    assert not set(split.test.groups or ()) & {*(split.train.groups or ()), *(split.val.groups or ())}


@pytest.mark.parametrize(
    ("sizes", "folds", "expected"),
    [
        ([1] * 48, 3, [16, 16, 16]),
        ([1] * 48, 20, [2] * 12 + [3] * 8),
        ([2] * 24, 20, [2] * 16 + [4] * 4),
        ([8] * 6, 3, [16, 16, 16]),
        ([4] * 12, 12, [4] * 12),
    ],
)
def test_folds_of_groups_are_as_even_as_groups_allow(sizes: list[int], folds: int, expected: list[int]) -> None:
    """As many groups as folds are enough: none is empty, none is larger than it must be, the first one neither."""
    images = {f"{index}.png": index // 16 for index in range(48)}
    of = [f"p{group}" for group, size in enumerate(sizes) for _ in range(size)]
    found = of_each_fold(parts(images, dict(zip(images, of, strict=True))), folds)
    assert sorted(map(len, found)) == expected


def test_the_division_is_pinned() -> None:
    """Results of folds are pooled and compared only where they are of the same division: it must outlive versions."""
    images = {f"{label}/{index}.png": label for label in range(2) for index in range(5)}
    assert [sorted(names) for names in of_each_fold(parts(images), 3)] == [
        ["0/0.png", "0/1.png", "1/1.png", "1/4.png"],
        ["0/3.png", "0/4.png", "1/2.png"],
        ["0/2.png", "1/0.png", "1/3.png"],
    ]


def test_a_seed_changes_val_and_no_test_image() -> None:
    raw = fold_of(parts({f"{label}/{index}.png": label for label in range(2) for index in range(40)}), 4, 2)
    first, second = (divide(raw, "honest", seed) for seed in (0, 1))
    assert first.test.names == second.test.names
    assert first.val.names != second.val.names
    few = divide(raw, "honest", 0, 10)
    assert few.test.names == first.test.names
    assert len(few.train) + len(few.val) == 20


@pytest.mark.parametrize(
    ("groups", "folds", "says"),
    [
        (["a", "b", "c", "d", "e", "f"], 6, "class 1: 1 image\n"),
        (["a", "a", "b", "c", "d", "d"], 2, "class 1: 1 image\n"),
    ],
)
def test_a_class_that_can_t_be_both_trained_on_and_tested_is_named(groups: list[str], folds: int, says: str) -> None:
    images = {f"{index}.png": int(index == 5) for index in range(6)}
    for of in (None, {f"{index}.png": group for index, group in enumerate(groups)}):
        with pytest.raises(UserError, match="never both trained on and tested") as problem:
            fold_of(parts(images, of), folds, 1)
        assert says in str(problem.value)


def test_a_class_of_one_group_is_named() -> None:
    images = {f"{index}.png": index % 2 for index in range(12)}
    groups = {f"{index}.png": "p0" if index % 2 else f"p{index}" for index in range(12)}
    with pytest.raises(UserError, match="2 groups or more") as problem:
        fold_of(parts(images, groups), 2, 1)
    assert "class 1: 6 images" in str(problem.value)


def test_more_folds_than_images_or_groups_are_refused() -> None:
    images = {f"{index}.png": index % 2 for index in range(8)}
    with pytest.raises(UserError, match=r"--folds 9: 1 fold would have no image, of 8 images. .* fewer folds"):
        fold_of(parts(images), 9, 1)
    groups = {f"{index}.png": f"p{index // 2}" for index in range(8)}
    with pytest.raises(UserError, match=r"--folds 5: 1 fold would have no image, of 4 groups"):
        fold_of(parts(images, groups), 5, 1)


def test_classes_that_are_not_in_every_fold_are_told() -> None:
    images = {f"{index}.png": int(index < 3) for index in range(20)}
    assert fold_of(parts(images), 5, 1).notes == (
        "folds: all 20 images are divided into 5 by class (names sorted, seed 42); each is tested once",
        "1 class is not in every fold: class 1 in 3 of 5",
    )


def test_copies_in_two_folds_are_found_whichever_fold_it_is() -> None:
    images = {f"{index}.png": index % 2 for index in range(12)}
    for fold in (1, 2, 3):
        raw = fold_of(parts(images), 3, fold)
        numbers = raw.fold_of
        one, same = (next(name for name in images if numbers[name] == number) for number in (1, 2))
        digests = {name: "twin" if name in (one, same) else name for name in images}

        def decoded(part: Part, digests: dict[str, str] = digests) -> Part:
            return replace(part, digests=[digests[str(path)] for path in part.references])

        found = replace(raw, train=decoded(raw.train), test=decoded(raw.test))
        (pair,) = copies_between(found)
        assert sorted(pair.split(" = ")) == sorted([one, same])


def test_a_division_is_told_from_every_other() -> None:
    images = {f"{index}.png": index % 2 for index in range(12)}

    def digest(images: dict[str, int], folds: int, fold: int, changed: str = "") -> str:
        raw = fold_of(parts(images, order=fold), folds, fold)
        both = [
            replace(each, digests=[f"{path}{changed}" for path in each.references]) for each in (raw.train, raw.test)
        ]
        return division(replace(raw, train=both[0], test=both[1]))

    assert len({digest(images, 3, fold) for fold in (1, 2, 3)}) == 1
    others = [digest(images, 4, 1), digest(images | {"12.png": 0}, 3, 1), digest(images, 3, 1, "changed")]
    assert len({digest(images, 3, 1), *others}) == 4
