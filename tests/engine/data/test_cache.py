"""Images are decoded once, found again, and decoded anew when anything about them has changed."""

import errno
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from PIL import Image

import folder
from engine.data import cache as cache_module
from engine.data import decode_pool as decoding
from engine.data.cache import Cache, NotDecodedError, decode_all
from engine.data.images import decode, digest, resize
from engine.data.kept_pixels import KeptPixels
from engine.data.part import HDF5Image, Part, Pixels, RawSplits, Reference
from engine.errors import RunError, UnreadableError, UserError
from engine.paths import PROJECT, cache_folder
from tests import toy
from tests.conftest import Command
from tests.engine.data.pictures import (
    BAD,
    SIZE,
    check,
    decoded,
    kept,
    listed,
    part,
    references,
    save,
    table,
    until,
    without_rights,
)
from tests.scripts.test_folder import QUICK, parted, record


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> list[Reference]:
    """What has been decoded for the cache."""
    seen: list[Reference] = []

    def count(reference: Reference, _: float) -> Pixels:
        seen.append(reference)
        return decode(reference)

    monkeypatch.setattr(decoding, "load", count)
    return seen


def fail(*_: Any) -> Any:
    raise AssertionError("decoded again")


def test_pixels_and_digests(data: Path) -> None:
    found, original = decoded(data), listed(data)
    assert found.pixels.shape == (27, *SIZE, 3)
    assert found.part(listed(data).train).pixels().dtype == np.uint8
    assert not found.bad
    check(found.part(original.train), original.train)
    check(found.part(original.test), original.test)


def test_the_second_call_decodes_nothing(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = decoded(data)
    monkeypatch.setattr(decoding, "load", fail)
    second = decoded(data)
    np.testing.assert_array_equal(table(first), table(second))
    assert (first.digests, first.row_of, first.bad) == (second.digests, second.row_of, second.bad)
    check(second.part(listed(data).test), listed(data).test)


def test_a_moved_folder_of_the_same_files_is_found(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded(data)
    moved = data.rename(data.with_name(data.name + "-moved"))
    monkeypatch.setattr(decoding, "load", fail)
    found = decoded(moved)
    check(found.part(listed(moved).train), listed(moved).train)


def rewritten(path: Path) -> None:
    stat = path.stat()
    save(path, 777)
    assert path.stat().st_size != stat.st_size
    os.utime(path, ns=(stat.st_atime_ns, stat.st_mtime_ns))


def touched(path: Path) -> None:
    os.utime(path, ns=(1, path.stat().st_mtime_ns + 1))


CHANGES: dict[str, Callable[[Path], Any]] = {
    "size": rewritten,
    "time": touched,
    "name": lambda path: path.rename(path.with_name("3a.png")),
    "absence": Path.unlink,
    "addition": lambda path: save(path.with_name("new.png"), 5),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_a_change_makes_a_new_cache_and_removes_the_old(
    change: Callable[[Path], Any], data: Path, counted: list[Reference]
) -> None:
    decoded(data)
    old = kept(data)
    change(data / "train" / "3.png")
    counted.clear()
    found, original = decoded(data), listed(data)
    assert len(counted) == len(original.train) + len(original.test)
    check(found.part(original.train), original.train)
    assert len(kept(data)) == 2
    assert not set(kept(data)) & set(old)


@pytest.mark.parametrize("number", ["DECODER", "KEPT"])
def test_another_decoder_makes_a_new_cache(
    number: str, data: Path, counted: list[Reference], monkeypatch: pytest.MonkeyPatch
) -> None:
    decoded(data)
    monkeypatch.setattr(cache_module, number, getattr(cache_module, number) + 1)
    decoded(data)
    assert len(counted) == 54
    assert len(kept(data)) == 2


def test_another_size_or_dataset_has_a_cache_of_its_own(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (data / "cache").mkdir()
    (data / "cache" / "toy-9x14-notes.txt").write_text("the user's")
    decoded(data)
    found = decoded(data, (5, 6))
    decoded(data, key="other")
    check(found.part(listed(data).train), listed(data).train, (5, 6))
    assert len(kept(data)) == 7
    monkeypatch.setattr(decoding, "load", fail)
    decoded(data)
    decoded(data, (5, 6))
    decoded(data, key="other")


def test_the_manifest_says_what_the_rows_are(data: Path) -> None:
    strange = save(data / "train" / os.fsdecode(b"b\xe4r.png"), 50)
    found, whole = decoded(data), listed(data)
    pixels, path = paths(data)
    manifest, rows = json.loads(path.read_text()), np.load(pixels)
    assert manifest.keys() == {"classes", "images", "labels", "digests", "bad", "odd", "checksums", "sha256"}
    assert tuple(manifest["classes"]) == toy.CLASSES
    assert os.fsdecode(b"train/b\xe4r.png") in manifest["images"]
    assert {data / place for place in manifest["images"]} == {*references(whole.train), *references(whole.test)}
    assert len(manifest["images"]) == 28
    labels = dict(zip([*whole.train.names, *whole.test.names], [*whole.train.labels, *whole.test.labels], strict=True))
    for row, place in enumerate(manifest["images"]):
        image = decode(data / place)
        np.testing.assert_array_equal(rows[row], resize(image, SIZE))
        assert (manifest["digests"][row], manifest["labels"][row]) == (digest(image), labels[place])
        assert manifest["checksums"][row] == zlib.crc32(rows[row].tobytes())
    assert found.row_of[strange] == manifest["images"].index(os.fsdecode(b"train/b\xe4r.png"))


def test_the_manifest_names_slices(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "images.h5", "w") as file:
        file["pixels"] = np.zeros((12, 4, 4, 3), np.uint8)
    slices = [HDF5Image(tmp_path / "images.h5", "pixels", index) for index in range(12)]
    train, test = (Part(own, np.zeros(6, np.int64), list("abcdef")) for own in (slices[:6], slices[6:]))
    decode_all(RawSplits(toy.CLASSES, train, test), "toy", SIZE, tmp_path / "cache", False)
    assert json.loads(paths(tmp_path)[1].read_text())["images"] == [f"images.h5/pixels[{index}]" for index in range(12)]


def test_other_labels_or_classes_make_a_new_cache(data: Path, counted: list[Reference]) -> None:
    decoded(data)
    whole = listed(data)
    labels = whole.train.labels.copy()
    labels[4] = 2
    for changed in (
        replace(whole, train=replace(whole.train, labels=labels)),
        replace(whole, classes=("dark", "middle", "light")),
    ):
        counted.clear()
        old = kept(data)
        found = decode_all(changed, "toy", SIZE, data / "cache", False)
        assert found is not None
        check(found.part(changed.train), changed.train)
        assert len(counted) == 27
        assert len(kept(data)) == 2
        assert not set(kept(data)) & set(old)
        manifest = json.loads(paths(data)[1].read_text())
        own = dict(zip(manifest["images"], manifest["labels"], strict=True))
        assert [own[name] for name in changed.train.names] == changed.train.labels.tolist()
        assert tuple(manifest["classes"]) == changed.classes


def test_an_image_with_two_labels_has_one_cache(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whichever part comes first."""
    train = listed(data).train
    other = replace(train, labels=2 - train.labels)
    decode_all(RawSplits(toy.CLASSES, train, other), "toy", SIZE, data / "cache", False)
    monkeypatch.setattr(decoding, "load", fail)
    decode_all(RawSplits(toy.CLASSES, other, train), "toy", SIZE, data / "cache", False)


def changed_manifest(**entries: Any) -> Callable[[Path, Path], Any]:
    return lambda _, manifest: manifest.write_text(json.dumps({**json.loads(manifest.read_text()), **entries}))


def test_changed_manifests_are_damaged_by_their_change_alone(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded(data)
    changed_manifest()(*paths(data))
    monkeypatch.setattr(decoding, "load", fail)
    decoded(data)


def paths(data: Path) -> tuple[Path, Path]:
    (pixels,), (manifest,) = (data / "cache").glob("*.npy"), (data / "cache").glob("*.json")
    return pixels, manifest


def as_floats(pixels: Path, _: Path) -> None:
    np.save(pixels, np.load(pixels).astype(np.float32))


def overwritten(place: int, change: Callable[[bytes], bytes], length: int = 1) -> Callable[[Path, Path], None]:
    """Changes `length` bytes of the pixels, from `place` on."""

    def overwrite(pixels: Path, _: Path) -> None:
        with pixels.open("r+b") as file:
            file.seek(place)
            found = file.read(length)
            file.seek(place)
            file.write(change(found))

    return overwrite


def piped(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


ROW = SIZE[0] * SIZE[1] * 3
ABSENT: dict[str, Callable[[Path, Path], Any]] = {
    "no manifest": lambda _, manifest: manifest.unlink(),
    "no pixels": lambda pixels, _: pixels.unlink(),
    "a pipe for pixels": lambda pixels, _: piped(pixels),
    "a pipe for a manifest": lambda _, manifest: piped(manifest),
}
DAMAGED_MANIFEST: dict[str, Callable[[Path, Path], Any]] = {
    "empty": lambda _, manifest: manifest.write_bytes(b""),
    "half": lambda _, manifest: os.truncate(manifest, manifest.stat().st_size // 2),
    "binary": lambda _, manifest: manifest.write_bytes(b"\xff\xfe\0" * 99),
    "a list": lambda _, manifest: manifest.write_text("[1, 2]"),
    "null": lambda _, manifest: manifest.write_text("null"),
    "deep": lambda _, manifest: manifest.write_text("[" * 100_000),
    "no digests": changed_manifest(digests=None),
    "another digest": changed_manifest(digests=["0" * 32] * 27),
    "bad as a number": changed_manifest(bad=7),
    "bad that is not": changed_manifest(bad={"3": "y"}),
    "odd that is not": changed_manifest(odd={"3": "y"}),
    "other images": changed_manifest(images=["x"] * 27),
    "other labels": changed_manifest(labels=[0] * 27),
    "other classes": changed_manifest(classes=["x", "y", "z"]),
    "other checksums": changed_manifest(checksums=[0] * 27),
    "too few checksums": changed_manifest(checksums=[]),
    "no checksum": changed_manifest(sha256=None),
}
DAMAGED_SIZE: dict[str, Callable[[Path, Path], Any]] = {
    "empty": lambda pixels, _: pixels.write_bytes(b""),
    "half": lambda pixels, _: os.truncate(pixels, pixels.stat().st_size // 2),
    "a byte less": lambda pixels, _: os.truncate(pixels, pixels.stat().st_size - 1),
    "a byte more": lambda pixels, _: pixels.write_bytes(pixels.read_bytes() + b"x"),
    "a damaged header": lambda pixels, _: pixels.write_bytes(b"\x93NUMPY\1\0\xff\xff" + pixels.read_bytes()[10:]),
    "all zeros": lambda pixels, _: pixels.write_bytes(bytes(pixels.stat().st_size)),
    "another type": as_floats,
}
DAMAGED_ROWS: dict[str, Callable[[Path, Path], Any]] = {
    "1 of 27 images, the first test/0.png": overwritten(128, lambda byte: bytes([byte[0] ^ 1])),
    "1 of 27 images, the first train/9.png": overwritten(128 + 27 * ROW - 1, lambda byte: bytes([byte[0] ^ 128])),
    "3 of 27 images, the first test/1.png": overwritten(128 + ROW + 9, lambda found: bytes(len(found)), 2 * ROW),
    "2 of 27 images, the first test/2.png": overwritten(128 + 2 * ROW, lambda rows: rows[ROW:] + rows[:ROW], 2 * ROW),
}
DAMAGE = {
    **{
        f"{name} manifest": (damage, "its manifest is not what was written")
        for name, damage in DAMAGED_MANIFEST.items()
    },
    **{
        f"{name} pixels": (damage, "its size or its beginning is not what was written")
        for name, damage in DAMAGED_SIZE.items()
    },
    **{what: (damage, what) for what, damage in DAMAGED_ROWS.items()},
}


@pytest.mark.parametrize("damage", ABSENT.values(), ids=ABSENT)
def test_what_is_not_all_there_is_made_again(damage: Callable[[Path, Path], Any], data: Path, capsys: Any) -> None:
    before = table(decoded(data))
    files = {path.name: path.read_bytes() for path in paths(data)}
    damage(*paths(data))
    np.testing.assert_array_equal(table(decoded(data)), before)
    assert {path.name: path.read_bytes() for path in paths(data)} == files
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("damage", "what"), DAMAGE.values(), ids=DAMAGE)
def test_what_is_damaged_is_named_and_made_again(
    damage: Callable[[Path, Path], Any], what: str, data: Path, capsys: Any
) -> None:
    before = table(decoded(data))
    files = {path.name: path.read_bytes() for path in paths(data)}
    damage(*paths(data))
    np.testing.assert_array_equal(table(decoded(data)), before)
    assert {path.name: path.read_bytes() for path in paths(data)} == files
    said = f"the decoded images in {paths(data)[0]} are damaged ({what}): decoded anew\n"
    assert capsys.readouterr().err == said
    assert sorted(kept(data)) == sorted(files)


def test_no_flipped_bit_of_a_manifest_passes(data: Path, capsys: Any) -> None:
    decoded(data)
    cache = Cache(data / "cache", "toy-9x14", SIZE, cache_module._images(listed(data)))
    _, manifest = paths(data)
    whole, before = manifest.read_bytes(), cache.kept()
    assert before is not None
    drawn = random.Random(0)
    for place in drawn.sample(range(len(whole)), 200):
        flipped = bytearray(whole)
        flipped[place] ^= 1 << drawn.randrange(8)
        manifest.write_bytes(flipped)
        found = cache.kept()
        assert found is None or found[1] == before[1]  # white space tells nothing


def test_what_is_read_otherwise_than_it_was_written(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As by a disk that is broken."""
    write = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, place: write(file, bytes(len(data)), place))
    with pytest.raises(RunError, match=r"size or its beginning .*what has just been written is not what is read"):
        decoded(data)


@pytest.mark.parametrize(
    "damage",
    [
        lambda pixels, _: os.truncate(pixels, 4000),
        lambda pixels, _: os.truncate(pixels, 0),
        overwritten(5000, lambda byte: bytes([byte[0] ^ 4])),
    ],
    ids=["cut", "emptied", "flipped"],
)
def test_damage_while_it_is_used_ends_the_run_and_is_mended_by_the_next(
    damage: Callable[[Path, Path], Any], data: Path
) -> None:
    part = decoded(data).part(listed(data).train)
    expected = part.pixels()
    damage(*paths(data))
    with pytest.raises(RunError, match=f"{paths(data)[0]} were damaged while they were in use: its bytes are not"):
        part.pixels()
    np.testing.assert_array_equal(decoded(data).part(listed(data).train).pixels(), expected)


def test_a_run_whose_cache_is_cut_goes_on_when_it_is_given_again(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """The numbers are those of an undisturbed run."""
    parted(tmp_path / "pets")
    assert command(f"pets {QUICK} --cache-dir kept --out whole", folder.DATASET) == 0
    reads, read = [], KeptPixels.__getitem__

    def cut(pixels: KeptPixels, rows: Any) -> Pixels:
        reads.append(len(rows))
        if len(reads) == 4:
            (path,) = (tmp_path / "kept").glob("*.npy")
            os.truncate(path, 200)
        return read(pixels, rows)

    with monkeypatch.context() as patch:
        patch.setattr(KeptPixels, "__getitem__", cut)
        assert command(f"pets {QUICK} --cache-dir kept --out cut", folder.DATASET) == 3
    assert "were damaged while they were in use" in capsys.readouterr().err
    assert command(f"pets {QUICK} --cache-dir kept --out cut", folder.DATASET) == 0
    assert "are damaged (its size or its beginning is not what was written): decoded anew" in capsys.readouterr().err
    assert record(tmp_path / "cut")["test"] == record(tmp_path / "whole")["test"]


def test_a_bad_sector(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part, read = decoded(data).part(listed(data).train), os.preadv

    def fail(file: int, buffers: list[Any], place: int) -> int:
        if place == 128 + 9 * ROW:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return read(file, buffers, place)

    with monkeypatch.context() as patch:
        patch.setattr(os, "preadv", fail)
        with pytest.raises(RunError, match="while they were in use: input/output error"):
            part.pixels()
        with pytest.raises(RunError, match=r"1 of 27 images.*what has just been written is not what is read"):
            decoded(data)
    part.pixels()  # of the file that was removed meanwhile
    decoded(data)


def test_reads_that_come_short(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read = os.preadv
    monkeypatch.setattr(os, "preadv", lambda file, buffers, place: read(file, [buffers[0][:100]], place))
    found = decoded(data)
    check(found.part(listed(data).train), listed(data).train)


@pytest.mark.parametrize("suffix", [".npy", ".json"])
def test_a_cache_that_vanishes_while_it_is_looked_at(suffix: str, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded(data)
    is_file = Path.is_file
    gone: list[Path] = []

    def vanish(path: Path) -> bool:
        found = is_file(path)
        if path.suffix == suffix and not gone:
            gone.append(path)
            path.unlink()
        return found

    monkeypatch.setattr(Path, "is_file", vanish)
    found = decoded(data)
    assert len(gone) == 1
    check(found.part(listed(data).train), listed(data).train)


def test_who_only_asks_what_is_kept_reads_no_pixels(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoded(data)
    monkeypatch.setattr(os, "preadv", fail)
    assert decode_all(listed(data), "toy", SIZE, data / "cache", False, kept_only=True) is not None
    paths(data)[1].write_text("{}")
    with pytest.raises(NotDecodedError):
        decode_all(listed(data), "toy", SIZE, data / "cache", False, kept_only=True)


@pytest.mark.parametrize("calls", [1, 2])
def test_all_that_cannot_be_read_is_named_at_once(calls: int, spoilt: Path) -> None:
    for _ in range(calls):
        with pytest.raises(UserError) as caught:
            decoded(spoilt)
    lines = str(caught.value).splitlines()
    assert lines[0] == "3 of 27 images can't be read:"
    assert lines[1:4] == [f"  {name}: {reason}" for name, reason in BAD.items()]
    assert "--allow-partial" in lines[-1]


@pytest.mark.parametrize(
    ("others", "advice"),
    [(False, "Do what these lines say, or leave them out"), (True, "Do what a line says after its colon, or get ")],
)
def test_what_has_a_remedy_is_not_to_be_got_again(others: bool, advice: str, data: Path) -> None:
    (data / "train" / "4.png").write_bytes(b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 9\n")
    if others:
        (data / "train" / "5.png").write_bytes(b"")
    with pytest.raises(UserError) as caught:
        decoded(data)
    assert str(caught.value).splitlines()[-1].startswith(advice)


@pytest.mark.parametrize("kept", [True, False])
def test_what_is_odd_about_images_is_told_each_time(kept: bool, data: Path) -> None:
    for name in ("train/3.png", "train/4.png", "test/2.png"):
        Image.fromarray(np.full((9, 14), 4000, np.uint16)).save(data / name)
    for _ in range(2):
        found = decode_all(listed(data), "toy", SIZE, data / "cache" if kept else None, False)
        assert found is not None
        (note,) = found.notes
        assert note.startswith(
            "3 of 27 images: stored with 16 bits or more but with no value beyond 12 bits, and so of 16 of "
        )


@pytest.mark.parametrize("calls", [1, 2])
def test_they_are_left_out_if_that_is_allowed(calls: int, spoilt: Path) -> None:
    for _ in range(calls):
        found = decoded(spoilt, allow_unreadable=True)
    assert found.bad == BAD
    original = listed(spoilt)
    for whole in (original.train, original.test):
        good = whole.take(np.flatnonzero([name not in BAD for name in whole.names]))
        check(found.part(whole), good)
    assert [len(found.part(whole)) for whole in (original.train, original.test)] == [18, 6]


def test_good_images_are_not_decoded_again_for_the_sake_of_bad_ones(spoilt: Path, counted: list[Reference]) -> None:
    decoded(spoilt, allow_unreadable=True)
    counted.clear()
    decoded(spoilt, allow_unreadable=True)
    assert sorted(str(path) for path in counted) == sorted(str(spoilt / name) for name in BAD)


def test_an_image_that_can_be_read_now_is_no_longer_left_out(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A right that was given, or a package that was installed, changes neither size nor time."""

    def lacks_a_codec(reference: Reference, _: float) -> Pixels:
        if reference == data / "train" / "3.png":
            raise UnreadableError("a codec is missing")
        return decode(reference)

    with monkeypatch.context() as patch:
        patch.setattr(decoding, "load", lacks_a_codec)
        assert decoded(data, allow_unreadable=True).bad == {"train/3.png": "a codec is missing"}
        with pytest.raises(UserError, match="a codec is missing"):
            decoded(data)
    found = decoded(data)
    assert not found.bad
    check(found.part(listed(data).train), listed(data).train)


def test_a_name_that_is_not_unicode_can_be_reported(data: Path) -> None:
    (data / "x.png").write_bytes(b"")
    strange = Part([data / "x.png"], np.zeros(1, np.int64), [os.fsdecode(b"b\xe4r.png")])
    for _ in range(2):
        found = decode_all(
            RawSplits(toy.CLASSES, listed(data).train, strange), "toy", SIZE, data / "cache", allow_unreadable=True
        )
        assert found is not None
        assert found.bad == {"b\udce4r.png": "empty"}


def test_parts_that_share_images(data: Path, counted: list[Reference]) -> None:
    images = sorted((data / "train").iterdir())
    twice = Part([*images, *images[:3]], np.arange(23, dtype=np.int64), [f"a/{number}" for number in range(23)])
    rows = np.array([5, 1, 1, 19, 5])
    some = Part(images, np.arange(5, dtype=np.int64), [f"b/{number}" for number in range(5)], rows=rows)
    found = decode_all(RawSplits(toy.CLASSES, twice, some, val=some), "toy", SIZE, data / "cache", False)
    assert found is not None
    assert len(counted) == len(set(counted)) == 20
    assert found.pixels.shape[0] == 20
    check(found.part(twice), twice)
    check(found.part(some), some)


def test_a_bad_image_is_lost_wherever_it_is_used(data: Path) -> None:
    images = sorted((data / "train").iterdir())
    images[1].write_bytes(b"")
    some = Part(images, np.arange(4, dtype=np.int64), list("abcd"), groups=list("wxyz"), rows=np.array([1, 0, 1, 2]))
    found = decode_all(RawSplits(toy.CLASSES, part(images), some), "toy", SIZE, data / "cache", True)
    assert found is not None
    assert found.bad == {"train/1.png": "empty"}
    left = found.part(some)
    assert (left.names, left.groups, left.labels.tolist()) == (["b", "d"], ["x", "z"], [1, 3])
    np.testing.assert_array_equal(left.pixels(), [resize(decode(images[row]), SIZE) for row in (0, 2)])


def test_only_what_a_part_refers_to_is_decoded(data: Path, counted: list[Reference]) -> None:
    whole = listed(data)
    few = whole.train.take(np.array([2, 8]))
    found = decode_all(RawSplits(toy.CLASSES, few, toy.part(3, 1, "x")), "toy", SIZE, data / "cache", False)
    assert found is not None
    assert counted == references(few)
    check(found.part(few), few)


def test_arrays_need_no_cache(tmp_path: Path) -> None:
    arrays = RawSplits(toy.CLASSES, toy.part(6, 1, "train"), toy.part(3, 2, "test"))
    assert decode_all(arrays, "toy", SIZE, tmp_path / "cache", False) is None
    assert not (tmp_path / "cache").exists()


def test_slices_of_hdf5(tmp_path: Path) -> None:
    path = tmp_path / "images.h5"
    with h5py.File(path, "w") as file:
        images = np.random.default_rng(0).integers(0, 256, (9, 7, 8, 3), dtype=np.uint8)
        file.create_dataset("images", data=images, chunks=(2, 7, 8, 3), compression="gzip")
    for first in (0, 3):  # the same names of other images
        slices = [HDF5Image(path, "images", index) for index in range(first, first + 6)]
        train = Part(slices[:4], np.arange(4, dtype=np.int64), ["a", "b", "c", "d"])
        test = Part(slices[4:], np.arange(2, dtype=np.int64), ["e", "f"])
        found = decode_all(RawSplits(toy.CLASSES, train, test), "toy", SIZE, tmp_path / "cache", False)
        assert found is not None
        check(found.part(train), train)
        check(found.part(test), test)


PROCESS = """
import os, signal, sys, time
from pathlib import Path
import numpy as np
from engine.data import cache
from engine.data import decode_pool as decoding
os.cpu_count = lambda: 2
from engine.data.part import RawSplits, Part
data = Path(sys.argv[1])
load = decoding.load
def wait(reference, room):
    with (data / "log").open("a") as log:
        log.write("x")
    while not (data / "go").exists():
        time.sleep(0.01)
    return load(reference, room)
decoding.load = wait
def interrupt(*_):
    (data / "interrupted").touch()
    raise KeyboardInterrupt
signal.signal(signal.SIGINT, interrupt)
def part(name):
    paths = sorted((data / name).iterdir())
    return Part(paths, np.zeros(len(paths), np.int64), [f"{name}/{path.name}" for path in paths])
found = cache.decode_all(RawSplits(("a",), part("train"), part("test")), "toy", (9, 14), data / "cache", False)
print(*[found.digests[row] for row in found.row_of.values()])
"""


@pytest.fixture
def process(data: Path) -> Iterator[Callable[[], "subprocess.Popen[str]"]]:
    """Starts a process that decodes `data`: from its first image on it waits for `go`. It writes to "errors 0", and
    the next to "errors 1"."""
    for number in range(20, 200):
        shutil.copy(data / "train" / "0.png", data / "train" / f"{number}.png")
    started: list[subprocess.Popen[str]] = []

    def start() -> "subprocess.Popen[str]":
        started.append(
            subprocess.Popen(
                [sys.executable, "-c", PROCESS, str(data)],
                cwd=PROJECT,
                stdout=subprocess.PIPE,
                stderr=(data / f"errors {len(started)}").open("w"),
                text=True,
            )
        )
        return started[-1]

    yield start
    (data / "go").touch()
    for child in started:
        child.kill()
        child.communicate()


def waits(errors: Path) -> None:
    message = f"another process decodes these images into {errors.parent / 'cache'}: waiting for it\n"
    until(lambda: errors.read_text() == message)


def test_of_two_processes_one_waits(data: Path, process: Callable[[], "subprocess.Popen[str]"]) -> None:
    first = process()
    until((data / "log").exists)
    second = process()
    waits(data / "errors 1")
    (data / "go").touch()
    results = [child.communicate(timeout=60)[0] for child in (first, second)]
    assert results[0] == results[1]
    assert len(results[0].split()) == 207
    assert len((data / "log").read_text()) == 207
    assert [child.returncode for child in (first, second)] == [0, 0]


def test_of_several_that_start_at_once_one_decodes(data: Path, process: Callable[[], "subprocess.Popen[str]"]) -> None:
    """As the cells of a grid do, of which each card starts one, all of one dataset."""
    children = [process() for _ in range(4)]
    until((data / "log").exists)
    (data / "go").touch()
    results = {child.communicate(timeout=120)[0] for child in children}
    assert len(results) == 1
    assert len((data / "log").read_text()) == 207
    assert [child.returncode for child in children] == [0] * 4


def test_a_killed_process_leaves_nothing_that_harms(data: Path, process: Callable[[], "subprocess.Popen[str]"]) -> None:
    child = process()
    until((data / "log").exists)
    child.kill()
    child.wait()
    assert [name.endswith(".tmp") for name in kept(data)] == [True]
    found = decoded(data)
    check(found.part(listed(data).train), listed(data).train)
    assert sorted(Path(name).suffix for name in kept(data)) == [".json", ".npy"]


def test_ctrl_c_leaves_nothing(data: Path, process: Callable[[], "subprocess.Popen[str]"]) -> None:
    child = process()
    until((data / "log").exists)
    child.send_signal(signal.SIGINT)
    until((data / "interrupted").exists)
    time.sleep(0.2)  # until it has given up what has not begun
    (data / "go").touch()
    child.communicate(timeout=60)
    assert "KeyboardInterrupt" in (data / "errors 0").read_text()
    assert child.returncode != 0
    assert kept(data) == []
    assert len((data / "log").read_text()) <= 2 * decoding.PIECE


def test_an_interrupt_while_it_waits_for_the_lock(data: Path, process: Callable[[], "subprocess.Popen[str]"]) -> None:
    first = process()
    until((data / "log").exists)
    second = process()
    waits(data / "errors 1")
    second.send_signal(signal.SIGINT)
    assert second.wait(timeout=60) != 0
    (data / "go").touch()
    assert len(first.communicate(timeout=60)[0].split()) == 207


def test_an_error_of_the_decoder_leaves_nothing(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As when a package is missing."""

    def missing(*_: Any) -> Pixels:
        raise UserError("pip install it")

    monkeypatch.setattr(decoding, "load", missing)
    with pytest.raises(UserError, match="pip install it"):
        decoded(data)
    assert kept(data) == []
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ThreadPoolExecutor")]


def test_too_little_room(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = shutil.disk_usage(data)
    needed = 27 * SIZE[0] * SIZE[1] * 3
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=needed - 1))
    with pytest.raises(UserError) as caught:
        decoded(data)
    for word in ("10,206 bytes", "10,205 free", "--cache-dir", "--size", "--no-cache", str(data / "cache")):
        assert word in str(caught.value)
    assert kept(data) == []
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=needed))
    decoded(data)


def refusing(number: int) -> Callable[..., Any]:
    def refuse(*_: Any, **__: Any) -> Any:
        raise OSError(number, os.strerror(number))

    return refuse


@pytest.mark.parametrize("call", ["posix_fallocate", "pwrite", "fsync"])
@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_a_disk_that_becomes_full(call: str, number: int, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(os, call, refusing(number), raising=False)
        with pytest.raises(RunError) as caught:
            decoded(data)
    assert str(caught.value) == (
        f"decoded images can't be kept in {data / 'cache'}: {os.strerror(number).lower()}. "
        "--cache-dir chooses another folder, --no-cache keeps no decoded images."
    )
    assert kept(data) == []
    decoded(data)


@pytest.mark.parametrize("number", [errno.EINVAL, errno.EOPNOTSUPP, None])
def test_file_systems_that_cannot_reserve(number: int | None, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    if number is None:
        monkeypatch.delattr(os, "posix_fallocate", raising=False)
    else:
        monkeypatch.setattr(os, "posix_fallocate", refusing(number), raising=False)
    found = decoded(data)
    check(found.part(listed(data).train), listed(data).train)


def test_writes_that_come_short(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = os.pwrite
    monkeypatch.setattr(os, "pwrite", lambda file, data, offset: whole(file, data[:100], offset))
    found = decoded(data)
    check(found.part(listed(data).train), listed(data).train)


@pytest.mark.parametrize("place", ["cache", "cache/below"])
def test_the_cache_folder_is_a_file(place: str, data: Path) -> None:
    (data / "cache").write_text("a file")
    with pytest.raises(UserError, match=f"{data / 'cache'}.*--cache-dir"):
        decode_all(listed(data), "toy", SIZE, data / place, False)
    assert (data / "cache").read_text() == "a file"


@pytest.fixture
def public() -> Iterator[Path]:
    """A folder that every user can look into, as those of tmp_path are not."""
    folder = Path(tempfile.mkdtemp())
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


@pytest.mark.parametrize("left", [0, 0o555])
@pytest.mark.parametrize("place", [".", "below"])
def test_a_cache_folder_without_rights(left: int, place: str, public: Path, data: Path) -> None:
    decoded(data)  # imports what Pillow reads PNG with
    here = listed(shutil.copytree(data, public / "data"))
    folder = public / "cache"
    folder.mkdir()
    with without_rights(folder, left), pytest.raises(UserError) as caught:
        decode_all(here, "toy", SIZE, folder / place, False)
    assert str(caught.value).startswith(f"decoded images can't be kept in {folder}")
    assert str(caught.value).endswith(
        ": permission denied. --cache-dir chooses another folder, --no-cache keeps no decoded images."
    )
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize("damaged", [False, True])
def test_a_cache_that_can_only_be_read(damaged: bool, public: Path, data: Path) -> None:
    here, folder = listed(shutil.copytree(data, public / "data")), public / "cache"
    (public / "data").chmod(0o755)
    decode_all(here, "toy", SIZE, folder, False)
    (pixels,), (manifest,) = folder.glob("*.npy"), folder.glob("*.json")
    if damaged:
        overwritten(500, lambda byte: bytes([byte[0] ^ 1]))(pixels, manifest)
    for lock in folder.glob("*.lock"):
        lock.unlink()
    with without_rights(folder, 0o555):
        if not damaged:
            found = decode_all(here, "toy", SIZE, folder, False)
            assert found is not None
            check(found.part(here.train), here.train)
            return
        with pytest.raises(UserError) as caught:
            decode_all(here, "toy", SIZE, folder, False)
    assert str(caught.value).startswith(f"the decoded images in {pixels} are damaged (1 of 27 images, the first ")
    assert f"test/0.png), and can't be decoded anew in {folder}" in str(caught.value)
    assert str(caught.value).endswith(f": permission denied. {cache_module.ELSEWHERE}")
    assert pixels.exists()


def test_a_cache_on_a_disk_that_is_read_only(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Path, "mkdir", refusing(errno.EROFS))
    with pytest.raises(UserError, match=r"read-only file system\. --cache-dir"):
        decoded(data)


@pytest.mark.parametrize("name", [".", "data", "data/below/toy"])
def test_the_cache_lies_beside_the_data(name: str, tmp_path: Path) -> None:
    assert cache_folder(tmp_path / name) == tmp_path / name / ".cache"
    assert list(tmp_path.iterdir()) == []


def test_where_that_cannot_be_it_lies_in_the_users_own_folder(
    public: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(os, "access", lambda path, mode: not (mode & os.W_OK and path.is_relative_to(public)))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    assert cache_folder(public / "data") == tmp_path / ".cache" / "which-backbone"
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_folder(public / "data") == tmp_path / "xdg" / "which-backbone"
