"""Images, decoded ahead in processes -> batches in their order: as many at a time as memory is set apart for."""

from __future__ import annotations

import os
import tempfile
from collections import deque
from collections.abc import Generator, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from itertools import islice
from math import prod
from pathlib import Path
from typing import NamedTuple

import numpy as np

from engine.data.decode_pool import FEW, PIECE, Decoder, DecodeResult, Target, cpus, in_place, processes
from engine.data.memory import room_for_images
from engine.data.part import Pixels
from predicting.inputs import Found

AHEAD_BYTES = 256 << 20  # of decoded images that wait, at most; a piece for each process at least
MOST_UNREADABLE = 16  # times the images of a batch are looked at for it, where hardly any can be read


class Decoded(NamedTuple):
    """An image that was looked at."""

    found: Found
    problem: str  # why there are no pixels of it; "": there are
    digest: str  # of the image, where it is wanted


class Batch(NamedTuple):
    """Images one after another, and the pixels of those that could be read."""

    images: list[Decoded]
    pixels: Pixels  # (N, H, W, 3)


class _Piece(NamedTuple):
    found: list[Found]
    slot: int
    results: Future[list[DecodeResult]]


class Stream:
    """What turns images into batches of stored pixels, uint8 (N, *size, 3), in their order."""

    def __init__(self, size: tuple[int, int], batch_size: int, digests: bool = False) -> None:
        self.size, self.batch_size, self.digests = size, batch_size, digests
        self._processes = cpus()
        self._row_bytes = prod(size) * 3
        # of two batches: one is gathered from what was decoded while the device was at another
        pieces = min(-(-2 * batch_size // PIECE), AHEAD_BYTES // (PIECE * self._row_bytes))
        self._pieces = pieces + self._processes

    def batches(self, images: Iterator[Found]) -> Generator[Batch, None, None]:
        """Batches of `batch_size` readable images; fewer at the end, or where few can be read.

        RunError: a process that decodes died.
        """
        with ExitStack() as stack:
            file = stack.enter_context(_memory())
            target = Target(file, 0, self.size, self.digests)
            batch, filled = self._empty(), 0
            for found, slot, results in self._decoded(images, target, stack):
                for number, (image, result) in enumerate(zip(found, results, strict=True)):
                    if not result.problem:
                        self._read(file, slot * PIECE + number, batch.pixels[filled])
                        filled += 1
                    batch.images.append(Decoded(image, result.problem, result.digest))
                    if filled == self.batch_size or len(batch.images) == MOST_UNREADABLE * self.batch_size:
                        yield Batch(batch.images, batch.pixels[:filled])
                        batch, filled = self._empty(), 0
            if batch.images:
                yield Batch(batch.images, batch.pixels[:filled])

    def _empty(self) -> Batch:
        return Batch([], np.empty((self.batch_size, *self.size, 3), np.uint8))

    def _read(self, file: int, row: int, pixels: Pixels) -> None:
        read = os.preadv(file, [pixels.data.cast("B")], row * self._row_bytes)
        if read != self._row_bytes:
            raise OSError(f"{read} of {self._row_bytes} bytes of an image came back")

    def _decoded(
        self, images: Iterator[Found], target: Target, stack: ExitStack
    ) -> Iterator[tuple[list[Found], int, list[DecodeResult]]]:
        """Pieces in order, each decoded into its slot of the file, which is free again when the next is asked for."""
        threads = stack.enter_context(_threads(self._processes))
        decoder: Decoder = stack.enter_context(in_place(target))
        alone = True  # no process is worth its start before FEW images
        room = room_for_images() / self._processes
        waiting: deque[_Piece] = deque()
        number = 0
        while True:
            while len(waiting) < self._pieces and (found := list(islice(images, PIECE))):
                if alone and self._processes > 1 and number * PIECE >= FEW:
                    decoder, alone = stack.enter_context(processes(target, self._processes)), False
                slot = number % self._pieces
                waiting.append(_Piece(found, slot, threads.submit(_decode, decoder, slot * PIECE, found, room)))
                number += 1
            if not waiting:
                return
            piece = waiting.popleft()
            results = piece.results.result()
            for row, result in enumerate(results):
                if result.too_large:  # beside others: alone it may fit
                    for each in waiting:
                        each.results.exception()
                    one = [piece.found[row]]
                    (results[row],) = _decode(decoder, piece.slot * PIECE + row, one, room_for_images())
            yield piece.found, piece.slot, results


def _decode(decoder: Decoder, first: int, found: list[Found], room: float) -> list[DecodeResult]:
    """What becomes of each image, of which those with a problem are not opened."""
    results = [DecodeResult("", each.problem) for each in found]
    # neighbours are decoded together, into the rows that they have
    row = 0
    while row < len(found):
        end = row
        while end < len(found) and not found[end].problem:
            end += 1
        if end > row:
            results[row:end] = decoder(first + row, [Path(each.path) for each in found[row:end]], room)
        row = end + 1
    return results


@contextmanager
def _threads(count: int) -> Iterator[ThreadPoolExecutor]:
    """Threads that wait for processes, or decode; what they have not begun is dropped where an error comes through."""
    with ThreadPoolExecutor(count) as threads:
        try:
            yield threads
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise


@contextmanager
def _memory() -> Iterator[int]:
    """A file in memory, where there are such, or a temporary one: its descriptor."""
    if not hasattr(os, "memfd_create"):
        with tempfile.TemporaryFile() as file:
            yield file.fileno()
        return
    descriptor = os.memfd_create("decoded images")
    try:
        yield descriptor
    finally:
        os.close(descriptor)
