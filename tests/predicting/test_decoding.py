"""Images are decoded ahead, in order, in as much memory as was set apart for it, whatever becomes of one of them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.data.decode_pool import PIECE, Decoder, DecodeResult, cpus
from engine.data.images import load, resize
from predicting import decoding
from predicting.decoding import Stream
from predicting.inputs import Found
from tests.predicting.conftest import picture

SIZE = (8, 10)


@pytest.fixture
def images(tmp_path: Path) -> list[Found]:
    """Fifty of them, of which some can't be read, and some need not be tried."""
    found = []
    for number in range(50):
        path = tmp_path / f"{number}.png"
        picture(path, number, (12, 16))
        if number % 11 == 3:
            path.write_bytes(b"no image")
        found.append(Found(str(path), problem="none" if number % 13 == 5 else ""))
    return found


def expected(images: list[Found]) -> Iterator[tuple[Found, bool]]:
    for number, found in enumerate(images):
        yield found, number % 11 == 3 or number % 13 == 5


@pytest.mark.parametrize("few", [300, 16], ids=["in place", "then in processes"])
@pytest.mark.parametrize("cpus", [1, 2])
def test_batches_are_whole_and_in_order(
    images: list[Found], monkeypatch: pytest.MonkeyPatch, few: int, cpus: int
) -> None:
    monkeypatch.setattr(decoding, "FEW", few)
    monkeypatch.setattr(decoding, "cpus", lambda: cpus)
    batches = [*Stream(SIZE, 7).batches(iter(images))]
    seen = [image for batch in batches for image in batch.images]
    assert [(image.found, bool(image.problem)) for image in seen] == [*expected(images)]
    readable = [found for found, broken in expected(images) if not broken]
    assert [len(batch.pixels) for batch in batches] == [7] * (len(readable) // 7) + [len(readable) % 7]
    pixels = np.concatenate([batch.pixels for batch in batches])
    for own, found in zip(pixels, readable, strict=True):
        np.testing.assert_array_equal(own, resize(load(Path(found.path)), SIZE))


def test_no_more_is_read_ahead_than_there_is_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    taken = 0

    def listing() -> Iterator[Found]:
        nonlocal taken
        for number in range(10**9):
            taken += 1
            yield Found(f"{number}.png")

    @contextmanager
    def decoder(*_: object) -> Iterator[Decoder]:
        yield lambda _, references, __: [DecodeResult("", "") for _ in references]

    monkeypatch.setattr(decoding, "in_place", decoder)
    monkeypatch.setattr(decoding, "processes", decoder)
    monkeypatch.setattr(Stream, "_read", lambda *_: None)
    batches = Stream(SIZE, 32).batches(listing())
    for _ in range(40):
        assert len(next(batches).images) == 32
    assert taken <= 40 * 32 + 32 * 2 + (cpus() + 2) * PIECE
    batches.close()


def test_what_is_too_large_beside_others_is_decoded_alone(images: list[Found], monkeypatch: pytest.MonkeyPatch) -> None:
    at_once: set[int] = set()
    most = []

    @contextmanager
    def decoder(*_: object) -> Iterator[Decoder]:
        def decode(first: int, references: Any, room: float) -> list[DecodeResult]:
            at_once.add(threading.get_ident())
            most.append((len(references), len(at_once), room))
            at_once.discard(threading.get_ident())
            large = [path.name == "7.png" and room < 1000 for path in references]
            return [DecodeResult("", "too large" if each else "", too_large=each) for each in large]

        yield decode

    monkeypatch.setattr(decoding, "in_place", decoder)
    monkeypatch.setattr(decoding, "room_for_images", lambda: 1000.0)
    monkeypatch.setattr(decoding, "cpus", lambda: 2)
    monkeypatch.setattr(Stream, "_read", lambda *_: None)
    batches = [*Stream(SIZE, 64).batches(iter(images))]
    seen = {Path(image.found.path).name: image.problem for batch in batches for image in batch.images}
    assert seen["7.png"] == ""
    assert (1, 1, 1000.0) in most


def test_nothing_is_left_where_it_is_not_taken_to_its_end(images: list[Found], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "FEW", 0)
    monkeypatch.setattr(decoding, "cpus", lambda: 2)
    before, threads = len([*Path("/proc/self/fd").iterdir()]), threading.active_count()
    batches = Stream(SIZE, 4).batches(iter(images))
    next(batches)
    batches.close()
    assert len([*Path("/proc/self/fd").iterdir()]) == before
    assert threading.active_count() == threads


def test_where_hardly_any_can_be_read_what_is_said_does_not_wait() -> None:
    batches = Stream(SIZE, 2).batches(Found(f"{number}.png", problem="none") for number in range(100))
    assert [(len(batch.images), len(batch.pixels)) for batch in batches] == [(32, 0)] * 3 + [(4, 0)]
