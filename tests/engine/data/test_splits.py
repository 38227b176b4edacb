"""Which image goes where: by name, by class, by group; and what tells two splits apart."""

import hashlib
import itertools
import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest

from engine.data.splits import divide_groups, fewest_names, hold_out, split_hash, split_names
from engine.errors import UserError

# class sizes of the published datasets, and the (train, held out) counts that the published table or, for BreakHis,
# the research code's arithmetic gives
PLANTVILLAGE = [630, 621, 275, 1645, 1502, 854, 1052, 513, 1192, 1162, 985, 1180, 1383, 423, 1076, 5507, 2297, 360]
PLANTVILLAGE += [997, 1478, 1000, 152, 1000, 371, 5090, 1835, 456, 1109, 2127, 1000, 1591, 1909, 952, 1771, 1676]
PLANTVILLAGE += [1404, 373, 5357, 1143]
EUROSAT = [3000, 3000, 3000, 2500, 2500, 2000, 2500, 3000, 2500, 3000]


@pytest.mark.parametrize(
    ("sizes", "test_size", "val_size", "train", "held"),
    [
        pytest.param([100] * 21, 0.2, 0.0, 1680, 420, id="UCMerced"),
        pytest.param(EUROSAT, 0.3, 0.0, 18900, 8100, id="EuroSAT"),
        pytest.param(PLANTVILLAGE, 0.2, 0.0, 44343, 11105, id="PlantVillage"),
        pytest.param([625, 1370], 0.2, 0.1, 1395, 600, id="BreakHis 40x"),
        pytest.param([644, 1437], 0.2, 0.1, 1455, 626, id="BreakHis 100x"),
        pytest.param([623, 1390], 0.2, 0.1, 1408, 605, id="BreakHis 200x"),
        pytest.param([588, 1232], 0.2, 0.1, 1273, 547, id="BreakHis 400x"),
    ],
)
def test_published_counts(sizes: list[int], test_size: float, val_size: float, train: int, held: int) -> None:
    parts = [split_names([f"{n}.png" for n in range(size)], test_size, val_size) for size in sizes]
    assert sum(len(part["train"]) for part in parts) == train
    assert sum(len(part["test"]) + len(part.get("val", [])) for part in parts) == held


def test_split_names_keeps_every_name_once_and_ignores_their_order() -> None:
    names = [f"{n} (ä, b).png" for n in range(50)]
    parts = split_names(names, 0.2, 0.1, 7)
    assert list(parts) == ["train", "val", "test"]
    assert sorted(itertools.chain(*parts.values())) == sorted(names)
    assert parts == split_names(names[::-1], 0.2, 0.1, 7)
    assert parts != split_names(names, 0.2, 0.1, 8)
    assert all(part == sorted(part) for part in parts.values())


def test_split_names_is_pinned() -> None:
    """A result is comparable only with one on the same images: the choice must outlive versions of libraries."""
    parts = split_names([f"{n}.png" for n in range(10)], 0.2, 0.1)
    assert parts["val"] == ["5.png"]
    assert parts["test"] == ["0.png", "1.png", "8.png"]


@pytest.mark.parametrize(("test_size", "val_size"), [(0.2, 0.0), (0.2, 0.1), (0.5, 0.4), (0.9, 0.0), (0.01, 0.3)])
def test_fewest_names_is_where_scikit_learn_starts_to_fill_every_part(test_size: float, val_size: float) -> None:
    count = fewest_names(test_size, val_size)
    assert all(split_names([str(n) for n in range(count)], test_size, val_size).values())
    with pytest.raises(ValueError, match="empty"):
        split_names([str(n) for n in range(count - 1)], test_size, val_size)


def shuffled_labels(sizes: Sequence[int]) -> npt.NDArray[np.int64]:
    labels = np.repeat(np.arange(len(sizes)), sizes)
    np.random.RandomState(0).shuffle(labels)
    return labels


def test_hold_out_of_cifar10() -> None:
    labels = shuffled_labels([5000] * 10)
    keep, held = hold_out(labels, None, 0.1, 0)
    assert (len(keep), len(held)) == (45_000, 5_000)
    assert np.bincount(labels[held]).tolist() == [500] * 10
    assert np.array_equal(np.sort(np.concatenate([keep, held])), np.arange(50_000))
    for indices in (keep, held):
        assert indices.dtype == np.int64
        assert (np.diff(indices) > 0).all()


def test_hold_out_takes_one_at_least_but_never_the_last() -> None:
    labels = shuffled_labels([1, 2, 5, 24, 25, 26, 3])
    _, held = hold_out(labels, None, 0.1, 0)
    assert np.bincount(labels[held], minlength=7).tolist() == [0, 1, 1, 2, 2, 3, 1]
    _, held = hold_out(labels, None, 0.99, 0)
    assert np.bincount(labels[held], minlength=7).tolist() == [0, 1, 4, 23, 24, 25, 2]


def test_hold_out_depends_on_the_seed_alone() -> None:
    labels = shuffled_labels([30, 40])
    np.random.seed(1)
    first = hold_out(labels, None, 0.2, 5)
    np.random.seed(2)
    assert np.array_equal(first[1], hold_out(labels, None, 0.2, 5)[1])
    assert not np.array_equal(first[1], hold_out(labels, None, 0.2, 6)[1])
    # the choice itself is promised: another scikit-learn or NumPy must not move it
    assert hold_out(np.array([0] * 6 + [1] * 6), None, 0.34, 0)[1].tolist() == [2, 5, 7, 9]


def patients(seed: int, some_with_two_labels: bool = True) -> tuple[npt.NDArray[np.int64], list[str]]:
    """82 patients with 10 to 44 images of one of two classes, a few of whom have images of the other too."""
    random = np.random.RandomState(seed)
    labels: list[int] = []
    groups: list[str] = []
    for patient in range(82):
        number, label = random.randint(10, 45), int(patient >= 24)
        labels += [label] * number
        if some_with_two_labels and patient in (3, 40):
            labels += [1 - label] * 7
        groups += [f"patient {patient}"] * (len(labels) - len(groups))
    order = random.permutation(len(labels))
    return np.array(labels)[order], [groups[i] for i in order]


@pytest.mark.parametrize("seed", range(5))
def test_groups_stay_on_one_side_and_classes_near_their_share(seed: int) -> None:
    labels, groups = patients(seed)
    keep, held = hold_out(labels, groups, 0.3, seed)
    assert not {groups[i] for i in keep} & {groups[i] for i in held}
    assert len(keep) + len(held) == len(labels)
    shares = np.bincount(labels[held]) / np.bincount(labels)
    assert np.abs(shares - 0.3).max() < 0.01
    assert np.array_equal(held, hold_out(labels, groups, 0.3, seed)[1])
    assert not np.array_equal(held, hold_out(labels, groups, 0.3, seed + 100)[1])


def test_three_parts_of_groups() -> None:
    labels, groups = patients(0)
    parts = divide_groups(labels, groups, (0.7, 0.1, 0.2), 0)
    for index, share in enumerate((0.7, 0.1, 0.2)):
        assert np.abs(np.bincount(labels[parts == index]) / np.bincount(labels) - share).max() < 0.01
    assert all(len({part for part, g in zip(parts, groups, strict=True) if g == group}) == 1 for group in groups)


def test_groups_of_one_image_are_as_good_as_none() -> None:
    labels = shuffled_labels([500, 300, 20])
    _, held = hold_out(labels, [str(n) for n in range(820)], 0.1, 3)
    assert np.bincount(labels[held]).tolist() == [50, 30, 2]


def lowest_worst_share(images: npt.NDArray[np.int64], fraction: float) -> float:
    """The least squared share error over all ways to hold groups out that leave each class on both sides.

    images: (group, class), how many there are.
    """
    totals = images.sum(axis=0)
    best = math.inf
    for chosen in itertools.product((False, True), repeat=len(images)):
        held = images[list(chosen)].sum(axis=0)
        if (held > 0).all() and (held < totals).all():
            best = min(best, float(np.square(held / totals - fraction).sum()))
    return best


def test_groups_are_divided_nearly_as_well_as_can_be() -> None:
    random = np.random.RandomState(0)
    gaps = []
    for _ in range(200):
        groups, classes = random.randint(4, 10), random.randint(1, 4)
        images = random.randint(1, 30, (groups, classes)) * (random.rand(groups, classes) < 0.6)
        if (np.count_nonzero(images, axis=0) < 2).any() or (images.sum(axis=1) == 0).any():
            continue
        labels = np.concatenate([np.repeat(np.arange(classes), row) for row in images])
        names = np.repeat([f"g{n}" for n in range(groups)], images.sum(axis=1)).tolist()
        best = lowest_worst_share(images, 0.3)
        if best == math.inf:
            continue
        _, held = hold_out(labels, names, 0.3, 0)
        counts = np.bincount(labels[held], minlength=classes)
        assert (counts > 0).all()
        assert (counts < images.sum(axis=0)).all()
        gaps.append(float(np.square(counts / images.sum(axis=0) - 0.3).sum()) - best)
    assert len(gaps) > 50
    assert np.mean(np.array(gaps) < 1e-9) > 0.8
    assert max(gaps) < 0.05


def test_a_class_of_two_groups_is_on_both_sides() -> None:
    labels = np.array([0] * 40 + [1] * 45 + [0] * 45 + [1] * 50)
    keep, held = hold_out(labels, ["a"] * 40 + ["b"] * 45 + ["c"] * 45 + ["d"] * 50, 0.1, 0)
    assert np.bincount(labels[held]).tolist() == [40, 45]
    assert np.bincount(labels[keep]).tolist() == [45, 50]


def test_held_groups_are_pinned() -> None:
    """Neither the order of a set, new in every process, nor a library's version may move a patient."""
    labels = np.array([0, 1] * 24)
    groups = [f"patient {n // 4}" for n in range(48)]
    _, held = hold_out(labels, groups, 0.25, 0)
    assert sorted({groups[i] for i in held}) == ["patient 11", "patient 3", "patient 9"]


def test_a_class_of_one_group_is_kept() -> None:
    labels = np.array([0] * 5 + [1] * 50)
    groups = ["only"] * 5 + [f"{n % 10}" for n in range(50)]
    for seed in range(10):
        keep, held = hold_out(labels, groups, 0.2, seed)
        assert np.bincount(labels[keep]).tolist() == [5, 40]
        assert np.bincount(labels[held], minlength=2).tolist() == [0, 10]


@pytest.mark.parametrize(
    ("labels", "groups", "found"),
    [
        ([0, 0, 1, 1], ["a"] * 4, "4 images in 1 group"),
        ([0, 0, 1, 1], ["a", "a", "b", "b"], "4 images in 2 group"),
        ([0, 1, 2], None, "3 images of 3 classes"),
    ],
)
def test_nothing_to_hold_out(labels: list[int], groups: list[str] | None, found: str) -> None:
    with pytest.raises(UserError, match=found) as error:
        hold_out(np.array(labels), groups, 0.1, 0)
    assert "Expected" in str(error.value)
    assert "Add images" in str(error.value)


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, math.nan])
def test_a_wrong_fraction(fraction: float) -> None:
    with pytest.raises(ValueError, match="fraction"):
        hold_out(np.array([0, 0]), None, fraction, 0)


def test_as_many_groups_as_labels() -> None:
    with pytest.raises(ValueError, match="2 labels, but 1 groups"):
        hold_out(np.array([0, 0]), ["a"], 0.5, 0)


def test_hash_changes_with_what_matters_alone() -> None:
    parts = {"train": [("a/1.png", 0), ("b/2.png", 1)], "test": [("a/ü.png", 0)]}
    same = split_hash(parts)
    text = r'{"fingerprint":"","parts":{"test":[["a/\u00fc.png",0]],"train":[["a/1.png",0],["b/2.png",1]]}}'
    assert same == hashlib.sha256(text.encode()).hexdigest()
    assert same == split_hash({"test": parts["test"], "train": parts["train"][::-1]})
    others = [
        {"train": [("a/1.png", 0), ("b/3.png", 1)], "test": [("a/ü.png", 0)]},
        {"train": [("a/1.png", 0), ("b/2.png", 0)], "test": [("a/ü.png", 0)]},
        {"train": [("a/1.png", 0)], "test": [("a/ü.png", 0), ("b/2.png", 1)]},
        {"train": [("a/1.png", 0), ("b/2.png", 1)], "val": [("a/ü.png", 0)]},
        {"train": [("a/1.png", 0), ("b/2.png", 1), ("b/2.png", 1)], "test": [("a/ü.png", 0)]},
    ]
    hashes = {same, split_hash(parts, "other"), *map(split_hash, others)}
    assert len(hashes) == len(others) + 2


def test_hash_of_numpy_labels_is_that_of_numbers() -> None:
    labels = np.array([3, 4]).tolist(), np.array([3, 4])
    assert split_hash({"train": list(zip("ab", labels[0], strict=True))}) == split_hash(
        {"train": list(zip("ab", labels[1], strict=True))}
    )
