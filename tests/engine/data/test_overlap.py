"""Images that are in two parts: refused, left out of training, or told."""

import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from engine.data.declaration import Protocol
from engine.data.overlap import BEGINNING, Overlap, files_of_test, find_overlap, separate
from engine.data.part import PARTS, Part, Splits
from engine.errors import UserError

SIZE = 10  # images of each part, before any is put into another
PAIRS = [("train", "val"), ("train", "test"), ("val", "test")]
WORDS = {"train": "training", "val": "validation", "test": "test"}


def made(digests: Sequence[str], name: str, groups: Sequence[str] | None = None) -> Part:
    """A part with a table of its own."""
    return Part(
        np.zeros((len(digests), 1, 1, 3), np.uint8),
        np.arange(len(digests)) % 2,
        [f"{name}/{index}" for index in range(len(digests))],
        groups=groups,
        digests=list(digests),
    )


def joined(parts: Splits) -> Splits:
    """The same images in one table that all parts share, some of its entries in no part."""
    pixels = np.zeros((sum(map(len, parts)) + 2, 1, 1, 3), np.uint8)
    digests = ["", *(digest for part in parts for digest in part.entries(part.digests or ())), "unused"]
    found: list[Part] = []
    start = 1
    for part in parts:
        rows = np.arange(start, start + len(part))
        found.append(replace(part, images=pixels, digests=digests, rows=rows))
        start += len(part)
    return Splits(parts.classes, *found)


def clean(shared: bool, groups: bool = False) -> Splits:
    """Three parts without overlap; groups of two images."""
    train, val, test = (
        made(
            [f"{name} {index}" for index in range(SIZE)],
            name,
            [f"{name} {index // 2}" for index in range(SIZE)] if groups else None,
        )
        for name in PARTS
    )
    parts = Splits(("a", "b"), train, val, test)
    return joined(parts) if shared else parts


def with_copies(parts: Splits, one: str, other: str, count: int) -> Splits:
    """The first `count` images of `one` get the pixels of the last of `other`, in turn, under their own names."""
    target, source = getattr(parts, one), getattr(parts, other)
    digests = list(target.digests)
    twins = source.entries(source.digests)
    for index, row in enumerate(target.entries(range(len(target.images)))[:count]):
        digests[row] = twins[-1 - index % 2]
    if target.images is source.images:
        return parts.map(lambda part: replace(part, digests=digests))
    changed = {name: getattr(parts, name) for name in PARTS} | {one: replace(target, digests=digests)}
    return Splits(parts.classes, changed["train"], changed["val"], changed["test"])


def with_same_file(parts: Splits, one: str, other: str) -> Splits:
    """The first image of `one` becomes the first of `other`."""
    target, source = getattr(parts, one), getattr(parts, other)
    rows = target.rows.copy()
    rows[0] = source.rows[0]
    changed = {name: getattr(parts, name) for name in PARTS} | {one: replace(target, rows=rows)}
    return Splits(parts.classes, changed["train"], changed["val"], changed["test"])


def with_same_group(parts: Splits, one: str, other: str) -> Splits:
    """The first group of `one` becomes the first of `other`."""
    target, source = getattr(parts, one), getattr(parts, other)
    groups = [source.groups[0]] * 2 + list(target.groups[2:])
    changed = {name: getattr(parts, name) for name in PARTS} | {one: replace(target, groups=groups)}
    return Splits(parts.classes, changed["train"], changed["val"], changed["test"])


def for_paper(parts: Splits) -> Splits:
    """The parts that the `paper` protocol has: test chooses the epoch."""
    return Splits(parts.classes, parts.train, parts.test, parts.test)


def names_of(parts: Splits) -> list[list[str]]:
    return [list(part.names) for part in parts]


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("protocol", ["honest", "paper"])
@pytest.mark.parametrize("groups", [False, True])
@pytest.mark.parametrize("shared", [False, True])
def test_parts_without_overlap_stay_as_they_are(shared: bool, groups: bool, protocol: Protocol, own: bool) -> None:
    parts = clean(shared, groups)
    parts = for_paper(parts) if protocol == "paper" else parts
    kept, notes = separate(parts, protocol, own, False)
    assert notes == []
    assert kept.hash == parts.hash
    assert all(after is before for after, before in zip(kept, parts, strict=True))


@pytest.mark.parametrize("shared", [False, True])
def test_what_is_found_is_named_once(shared: bool) -> None:
    parts = with_copies(clean(shared, groups=True), "train", "test", 3)
    parts = with_same_group(parts, "train", "test")
    if shared:
        parts = with_same_file(parts, "train", "test")
    found = find_overlap(parts.train, parts.test)
    # all of the first three are copies, and the first two of the same group too
    expected = ((), ("train/0", "train/1", "train/2"), ())
    assert found == Overlap(*((("train/0",), ("train/1", "train/2"), ()) if shared else expected))
    assert len(found) == 3
    # seen from the other part: the twins of the copies, the image itself, and the rest of its group
    back = find_overlap(parts.test, parts.train)
    assert set(back.copies) == {"test/8", "test/9"}
    assert back.files == (("test/0",) if shared else ())
    assert back.groups == (("test/1",) if shared else ("test/0", "test/1"))


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("allow_partial", [False, True])
@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_the_same_image_in_two_parts_is_refused(one: str, other: str, own: bool, allow_partial: bool) -> None:
    parts = with_same_file(clean(True), one, other)
    # what is compared with the training part is the validation part
    told, against = ("val", "train") if other == "val" else (one, other)
    with pytest.raises(UserError) as error:
        separate(parts, "honest", own, allow_partial)
    words = f"1 {WORDS[told]} image is the same image as one in the {WORDS[against]} part"
    assert words in str(error.value)
    assert f"\n  {told}/0\n" in str(error.value)


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("allow_partial", [False, True])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(("one", "other"), PAIRS)
def test_a_group_in_two_parts_is_refused(one: str, other: str, shared: bool, own: bool, allow_partial: bool) -> None:
    parts = with_same_group(clean(shared, groups=True), one, other)
    told, against = ("val", "train") if other == "val" else (one, other)
    with pytest.raises(UserError) as error:
        separate(parts, "honest", own, allow_partial)
    words = f"2 {WORDS[told]} images are of the same group as one in the {WORDS[against]} part"
    assert words in str(error.value)
    assert f"\n  {told}/0\n  {told}/1\n" in str(error.value)


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("part", ["train", "val"])
@pytest.mark.parametrize("count", [1, 3])
def test_copies_of_test_images_are_left_out(part: str, count: int, shared: bool, own: bool) -> None:
    parts = with_copies(clean(shared), part, "test", count)
    assert parts.hash != clean(shared).hash  # other pixels under the same names
    kept, notes = separate(parts, "honest", own, allow_partial=own)
    assert notes == [f"{count} {WORDS[part]} image{'s' * (count > 1)} left out: the same pixels as a test image"]
    expected = {name: list(getattr(parts, name).names) for name in PARTS}
    expected[part] = expected[part][count:]
    assert names_of(kept) == list(expected.values())
    assert kept.test is parts.test
    assert kept.hash != parts.hash
    shortened = getattr(kept, part)
    assert shortened.labels.tolist() == getattr(parts, part).labels.tolist()[count:]
    assert shortened.entries(shortened.digests) == [f"{part} {index}" for index in range(count, SIZE)]


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("whose", ["train", "val"])
def test_copies_between_training_and_validation_leave_validation(whose: str, shared: bool, own: bool) -> None:
    parts = with_copies(clean(shared), *(("train", "val") if whose == "train" else ("val", "train")), 3)
    kept, notes = separate(parts, "honest", own, False)
    # three training images have the pixels of two validation images, or the other way round
    gone = {"val/8", "val/9"} if whose == "train" else {"val/0", "val/1", "val/2"}
    plural = "s" * (len(gone) > 1)
    assert notes == [f"{len(gone)} validation image{plural} left out: the same pixels as a training image"]
    assert kept.train is parts.train
    assert kept.test is parts.test
    assert list(kept.val.names) == [name for name in parts.val.names if name not in gone]
    assert kept.hash != parts.hash


@pytest.mark.parametrize("shared", [False, True])
def test_an_image_that_is_in_all_three_parts_stays_in_test(shared: bool) -> None:
    parts = with_copies(with_copies(clean(shared), "train", "test", 1), "val", "test", 1)
    kept, notes = separate(parts, "honest", False, False)
    assert notes == [
        "1 training image left out: the same pixels as a test image",
        "1 validation image left out: the same pixels as a test image",
    ]
    assert [len(part) for part in kept] == [SIZE - 1, SIZE - 1, SIZE]


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("part", ["train", "val"])
def test_copies_in_the_users_own_data_are_refused_with_both_names(part: str, shared: bool) -> None:
    parts = with_copies(clean(shared), part, "test", 3)
    with pytest.raises(UserError, match="3 images outside the test part") as error:
        separate(parts, "honest", own=True, allow_partial=False)
    message = str(error.value)
    pairs = [(f"{part}/0", "test/9"), (f"{part}/1", "test/8"), (f"{part}/2", "test/9")]
    assert re.findall(r"\n  (\S+) = (\S+)", message) == pairs
    assert "--allow-partial" in message


@pytest.mark.parametrize("own", [False, True])
@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(
    ("kinds", "leaked", "reasons"),
    [
        (["copies"], 2, "2 have a training image's pixels"),
        (["group"], 2, "2 are of a group (a patient) that is in train"),
        (
            ["copies", "group"],
            4,
            "2 have a training image's pixels, 2 are of a group (a patient) that is in train",
        ),
    ],
)
def test_the_paper_protocol_keeps_everything_and_tells(
    kinds: list[str], leaked: int, reasons: str, shared: bool, own: bool
) -> None:
    parts = clean(shared, groups=True)
    if "copies" in kinds:
        parts = with_copies(parts, "train", "test", 3)
    if "group" in kinds:
        parts = with_same_group(parts, "train", "test")
    parts = for_paper(parts)
    if own and "copies" in kinds:  # their owner can mend them
        with pytest.raises(UserError, match="the same pixels as a test image"):
            separate(parts, "paper", own, False)
    kept, notes = separate(parts, "paper", own, own)
    assert kept is parts
    assert notes == [f"leakage: {leaked} of 10 test images ({leaked * 10}.0%) are tied to training images: {reasons}"]


def test_the_paper_protocol_tells_of_the_same_image() -> None:
    parts = for_paper(with_same_file(clean(True), "train", "test"))
    kept, notes = separate(parts, "paper", False, False)
    assert kept is parts
    assert notes == ["leakage: 1 of 10 test images (10.0%) is tied to training images: 1 is a training image"]


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize(("part", "other"), [("train", "test"), ("val", "test"), ("val", "train")])
def test_a_part_of_copies_alone_is_an_error(part: str, other: str, shared: bool) -> None:
    parts = with_copies(clean(shared), part, other, SIZE)
    with pytest.raises(UserError, match=f"every image of the {WORDS[part]} part has its copy"):
        separate(parts, "honest", False, False)


@pytest.mark.parametrize("shared", [False, True])
def test_what_is_left_has_nothing_in_common_and_nothing_else_is_gone(shared: bool) -> None:
    for seed in range(60):
        check_what_is_left(seed, shared)


def check_what_is_left(seed: int, shared: bool) -> None:
    random = np.random.RandomState(seed)
    drawn = [[str(n) for n in random.randint(0, 40, random.randint(4, 25))] for _ in PARTS]
    parts = Splits(("a", "b"), *(made(digests, name) for digests, name in zip(drawn, PARTS, strict=True)))
    parts = joined(parts) if shared else parts
    train, val, test = drawn
    expected_train = [n for n, digest in enumerate(train) if digest not in test]
    kept_train = {train[n] for n in expected_train}
    expected_val = [n for n, digest in enumerate(val) if digest not in test and digest not in kept_train]
    if not expected_train or not expected_val:
        with pytest.raises(UserError, match=r"every image of the (training|validation) part"):
            separate(parts, "honest", False, False)
        return
    kept, notes = separate(parts, "honest", False, False)
    assert kept.test is parts.test
    assert list(kept.train.names) == [f"train/{n}" for n in expected_train]
    assert list(kept.val.names) == [f"val/{n}" for n in expected_val]
    left = [set(part.entries(part.digests or ())) for part in kept]
    assert not left[0] & left[2]
    assert not left[1] & (left[0] | left[2])
    gone = sum(map(len, drawn)) - sum(map(len, kept))
    assert sum(int(note.split()[0]) for note in notes) == gone
    # what was left out counts; that nothing was is told by the same hash
    assert (kept.hash == parts.hash) == (gone == 0)
    again, more = separate(kept, "honest", True, False)
    assert (again.hash, more) == (kept.hash, [])


def test_files_are_the_same_byte_for_byte_and_not_by_size_or_beginning(tmp_path: Path) -> None:
    """Nor is anything said of files that are empty or gone: that is found when they are decoded."""
    long = b"a" * BEGINNING
    content = {
        "train/0": b"one",
        "train/1": b"two",
        "train/2": long + b"x",
        "train/3": b"",
        "val/0": long + b"z",
        "test/0": b"one",
        "test/1": b"owt",
        "test/2": long + b"y",
        "test/3": b"",
        "test/4": long + b"z",
    }
    for name, data in content.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    parts = []
    for part in PARTS:
        names = [*(name for name in content if name.startswith(f"{part}/")), f"{part}/gone"]
        parts.append(Part([tmp_path / name for name in names], np.zeros(len(names), np.int64), names))
    splits = Splits(("a", "b"), *parts)
    assert files_of_test(splits, "honest") == ["train/0 = test/0", "val/0 = test/4"]
    assert files_of_test(splits, "paper") == ["train/0 = test/0"]
