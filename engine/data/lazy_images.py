"""Images that are decoded whenever they are needed, in place of a table of pixels."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property

import numpy as np
import numpy.typing as npt

from engine.data.decode_pool import cpus
from engine.data.images import digest, load, resize
from engine.data.memory import TooLargeError, room_for_images
from engine.data.part import Pixels, Reference
from engine.errors import RunError, UnreadableError, UserError

MOST_THREADS = 8
REMEDY = "Put it back, and the same command goes on."


class LazyImages:
    """M images, read like an array (M, H, W, 3) by an array of rows, each time from their files."""

    def __init__(
        self, references: Sequence[Reference], names: Sequence[str], digests: Sequence[str], size: tuple[int, int]
    ) -> None:
        self.shape: tuple[int, ...] = (len(references), *size, 3)
        self._references, self._names, self._digests = references, names, digests
        self._alone = threading.Lock()
        # for good: threads that take turns at warnings.catch_warnings() may leave the filters of another
        warnings.filterwarnings("ignore", module="PIL|pydicom")

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, rows: npt.NDArray[np.int64]) -> Pixels:
        """The pixels (len(rows), H, W, 3). RunError: an image can't be read any more, or is another one now."""
        pixels = np.empty((len(rows), *self.shape[1:]), np.uint8)
        for place, image in enumerate(self._threads.map(self._pixels, rows.tolist())):
            pixels[place] = image
        return pixels

    @cached_property
    def _room(self) -> float:
        return room_for_images() / (1 + MOST_THREADS)  # one beside those that fit

    @cached_property
    def _threads(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(min(cpus(), MOST_THREADS), "decoding")

    def _pixels(self, row: int) -> Pixels:
        reference = self._references[row]
        try:
            try:
                image = load(reference, self._room)
            except TooLargeError:
                with self._alone:
                    image = load(reference, room_for_images())
        except (UnreadableError, UserError, OSError) as problem:
            raise RunError(f"{self._names[row]} can't be read any more: {problem}. {REMEDY}") from problem
        # the run's id and the search for copies rest on what was there then
        if digest(image) != self._digests[row]:
            raise RunError(f"{self._names[row]} is not the image that it was when the run began. {REMEDY}")
        return resize(image, (self.shape[1], self.shape[2]))
