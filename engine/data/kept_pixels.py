"""The pixels of many images in one file, each row of which is checked whenever it is read."""

from __future__ import annotations

import os
import weakref
import zlib
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from math import prod
from pathlib import Path

import numpy as np
import numpy.typing as npt

from engine.console import bar
from engine.data.part import Pixels
from engine.errors import RunError, reason_of
from engine.files import DamagedError
from engine.processes.heartbeat import alive

PIECE = 8 << 20  # bytes that are checked at a time


class KeptPixels:
    """M images, read like an array (M, H, W, 3) by an array of rows, from `start` on in a file that stays open.

    Read, not mapped: where a file that is mapped is cut, the system ends the process. `checksums` has the CRC-32 of
    each row, which finds any flipped bit, and all but one in four billion of other changes; of what Python's library
    has it takes the least time, and lets other threads work meanwhile.
    """

    def __init__(self, path: Path, start: int, shape: tuple[int, ...], checksums: Sequence[int]) -> None:
        """Raises OSError where the file can't be opened."""
        self.shape = shape
        self._path, self._start, self._checksums = path, start, checksums
        self._file = os.open(path, os.O_RDONLY)
        weakref.finalize(self, os.close, self._file)

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: npt.NDArray[np.int64]) -> Pixels:
        """The pixels (len(rows), H, W, 3). RunError: the file is not what it was."""
        pixels = np.empty((len(rows), *self.shape[1:]), np.uint8)
        try:
            if any(not self._read(row, image) for row, image in zip(rows.tolist(), pixels, strict=True)):
                raise DamagedError("its bytes are not those that were written")
        except (OSError, DamagedError) as problem:
            why = reason_of(problem) if isinstance(problem, OSError) else problem
            raise RunError(
                f"the decoded images in {self._path} were damaged while they were in use: {why}. The same command "
                "decodes them anew, and goes on."
            ) from problem
        return pixels

    def damaged(self, threads: int) -> list[int]:
        """The rows that are not as they were written, or can't be read."""
        step = max(1, PIECE // prod(self.shape[1:]))
        pieces = [range(row, min(row + step, len(self))) for row in range(0, len(self), step)]
        found: list[int] = []
        shown = bar(desc="checking", total=len(self), unit=" images", leave=False)
        with shown, ThreadPoolExecutor(threads) as pool:
            try:
                for piece, rows in zip(pieces, pool.map(self._damaged, pieces), strict=True):
                    found += rows
                    shown.update(len(piece))
                    alive(f"checking: {piece.stop:,} of {len(self):,} decoded images")
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return found

    def _damaged(self, rows: range) -> list[int]:
        image = np.empty(self.shape[1:], np.uint8)

        def is_whole(row: int) -> bool:
            try:
                return self._read(row, image)
            except OSError:  # a bad sector
                return False

        return [row for row in rows if not is_whole(row)]

    def _read(self, row: int, image: Pixels) -> bool:
        """Read a row into `image`; whether it is as it was written. Raises OSError."""
        left, place = image.data.cast("B"), self._start + row * image.nbytes
        while left and (read := os.preadv(self._file, [left], place)):  # 0: at the end of the file
            left, place = left[read:], place + read
        return not left and zlib.crc32(image.data) == self._checksums[row]
