"""Pictures of what a prediction rests on, one an image, in a folder of their own."""

from __future__ import annotations

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image

from engine.data.new_folder import own_entries, replacing, require_place
from engine.errors import UserError, disk_errors_explained
from predicting.outputs import at_its_ends

MOST_LETTERS = 60  # of an image's own name, in that of its overlay
ROOM = "Make room, or let --explain name a folder elsewhere."


class Explains(Protocol):
    """What draws them: predicting/explain.py."""

    method: str  # its name

    def overlay(self, stored: npt.NDArray[np.uint8], label: int) -> Image.Image:
        """The image (H, W, 3) with a heat map of class `label` laid over it."""


class Overlays:
    """A folder of overlays, which are numbered as their images come."""

    def __init__(self, folder: Path, explainer: Explains) -> None:
        self.folder, self._explainer = folder, explainer
        self._explained = partial(disk_errors_explained, "can't write", folder, ROOM)

    @contextmanager
    def made(self) -> Iterator[None]:
        """Let there be the folder once all are drawn, or not at all. RunError, UserError: the disk refuses."""
        with at_its_ends(replacing(self.folder, overwrite=False), self._explained) as self._place:
            yield

    @property
    def line(self) -> str:
        """What is said of them at the end."""
        return f"overlays   {self.folder}, by {self._explainer.method}, numbered in the order of the answers"

    def draw(self, number: int, path: str, stored: npt.NDArray[np.uint8], label: int) -> None:
        """Write the overlay of the image that comes after `number` others. RunError, UserError: the disk refuses."""
        name = f"{number + 1:06}-{re.sub(r'[^A-Za-z0-9._-]', '_', path.rpartition('/')[2])[:MOST_LETTERS]}.png"
        content = io.BytesIO()
        self._explainer.overlay(stored, label).save(content, "PNG")
        with self._explained():
            (self._place / name).write_bytes(content.getvalue())


def check_folder(folder: Path) -> None:
    """Raise UserError where overlays can't go there: it is a file, or holds something already."""
    require_place(folder, "overlays")
    if own_entries(folder):
        raise UserError(f"--explain {folder}: there is something in it. Name a folder that is new or empty.")
