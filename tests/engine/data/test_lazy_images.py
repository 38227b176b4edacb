"""--no-cache: the same run as with a cache, and nothing is written."""

import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

import folder
from engine.data import lazy_images
from engine.data.cache import Decoded, decode_all
from engine.data.part import HDF5Image, Part, RawSplits
from engine.errors import RunError
from tests.conftest import Command, only_run
from tests.engine.data.pictures import SIZE, check, listed
from tests.scripts.test_folder import QUICK, parted, picture, record


def streamed(images: RawSplits) -> Decoded:
    found = decode_all(images, "toy", SIZE, None, False)
    assert found is not None
    return found


def test_the_same_run(command: Command, tmp_path: Path) -> None:
    parted(tmp_path / "pets")
    line = f"pets {QUICK} --cache-dir kept"
    assert command(f"{line} --no-cache --out streamed", folder.DATASET) == 0
    assert not (tmp_path / "kept").exists()
    assert sorted(path.name for path in tmp_path.iterdir() if path.name != "torch") == ["pets", "streamed"]
    assert command(f"{line} --out cached", folder.DATASET) == 0
    assert (tmp_path / "kept").exists()
    ours, theirs = record(tmp_path / "streamed"), record(tmp_path / "cached")
    assert only_run(tmp_path / "streamed").name == only_run(tmp_path / "cached").name
    assert (ours["test"], ours["dataset"]) == (theirs["test"], theirs["dataset"])
    (logits, others) = (
        np.load(only_run(tmp_path / out) / "predictions.npz")["logits"] for out in ("streamed", "cached")
    )
    np.testing.assert_array_equal(logits, others)


@pytest.mark.parametrize("problem", ["unreadable", "copies"])
def test_the_same_refusals(problem: str, command: Command, tmp_path: Path, capsys: Any) -> None:
    parted(tmp_path / "pets")
    if problem == "unreadable":
        for name in ("train/cat/1.png", "test/dog/2.png"):
            (tmp_path / "pets" / name).write_bytes(b"a text")
    else:
        for part in ("train", "test"):
            picture(tmp_path / "pets" / part / "cat" / "same.png", 99)
    messages = []
    for flag in ("--no-cache", ""):
        assert command(f"pets {QUICK} {flag}", folder.DATASET) == 2
        messages.append(capsys.readouterr().err)
    assert messages[0] == messages[1]
    words = ["train/cat/1.png", "test/dog/2.png"] if problem == "unreadable" else ["train/cat/same.png"]
    assert all(word in messages[0] for word in words)


def test_pixels_and_digests(data: Path) -> None:
    before = sorted(data.rglob("*"))
    found, original = streamed(listed(data)), listed(data)
    assert found.pixels.shape == (27, *SIZE, 3)
    for whole in (original.train, original.test):
        part = found.part(whole)
        check(part, whole)
        some = np.array([6, 0, 6, 3])
        np.testing.assert_array_equal(part.pixels(some), part.pixels()[some])
        assert part.pixels(np.array([], np.int64)).shape == (0, *SIZE, 3)
    assert sorted(data.rglob("*")) == before


def test_without_what_can_not_be_read(spoilt: Path) -> None:
    found, cached = (decode_all(listed(spoilt), "toy", SIZE, place, True) for place in (None, spoilt / "cache"))
    assert found is not None
    assert cached is not None
    assert found.bad == cached.bad
    for whole in (listed(spoilt).train, listed(spoilt).test):
        ours, theirs = found.part(whole), cached.part(whole)
        assert ours.names == theirs.names
        np.testing.assert_array_equal(ours.pixels(), theirs.pixels())


def test_an_image_that_is_gone(data: Path) -> None:
    part = streamed(listed(data)).part(listed(data).train)
    (data / "train" / "3.png").unlink()
    row = part.names.index("train/3.png")
    part.pixels(np.array([row - 1, row + 1]))
    with pytest.raises(RunError, match=r"^train/3\.png can't be read any more: no such file or directory\."):
        part.pixels(np.array([row - 1, row, row + 1]))


def test_an_image_that_has_changed(data: Path) -> None:
    part = streamed(listed(data)).part(listed(data).train)
    (data / "train" / "3.png").write_bytes((data / "train" / "4.png").read_bytes())
    with pytest.raises(RunError, match=r"^train/3\.png is not the image that it was when the run began"):
        part.pixels()


def test_a_file_of_images_that_is_gone(tmp_path: Path) -> None:
    with h5py.File(tmp_path / "images.h5", "w") as file:
        file["pixels"] = np.random.default_rng(0).integers(0, 256, (6, 4, 4, 3), dtype=np.uint8)
    slices = [HDF5Image(tmp_path / "images.h5", "pixels", index) for index in range(6)]
    train, test = (
        Part(own, np.zeros(3, np.int64), list(names)) for own, names in ((slices[:3], "abc"), (slices[3:], "def"))
    )
    part = streamed(RawSplits(("a",), train, test)).part(train)
    check(part, train)
    (tmp_path / "images.h5").unlink()
    with pytest.raises(RunError, match=r"^a can't be read any more: .*images\.h5"):
        part.pixels()


@pytest.mark.parametrize("room", [20_000, 3000])
def test_what_is_too_large_beside_others_is_decoded_alone(
    room: int, data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each image takes 2,200 to 3,300 bytes by its size."""
    part = streamed(listed(data)).part(listed(data).train)
    monkeypatch.setattr(lazy_images, "room_for_images", lambda: room)
    if room == 20_000:  # a ninth of it is too little
        check(part, listed(data).train)
    else:
        with pytest.raises(RunError, match=r"^train/\d+\.png can't be read any more: 11 x 1\d pixels take up to"):
            part.pixels()


def test_several_threads_may_read(data: Path) -> None:
    part = streamed(listed(data)).part(listed(data).train)
    expected = part.pixels()
    with ThreadPoolExecutor(4) as threads:
        for pixels in threads.map(lambda _: part.pixels(), range(12)):
            np.testing.assert_array_equal(pixels, expected)
    assert threading.active_count() < 20
