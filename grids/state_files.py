"""The grid's own files under OUT/grid, in whose place anybody may have put anything."""

from __future__ import annotations

import os
from pathlib import Path
from stat import S_ISREG
from typing import BinaryIO

REASON_LETTERS = 200
LARGEST_BYTES = 1 << 20  # of a failure: 50 lines of 64 KiB together, escaped


def open_regular(path: Path, append: bool = False) -> BinaryIO:
    """Open a file to read, or to add to. OSError: it can't be, or is a pipe or a device, which could be waited for."""
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT if append else os.O_RDONLY
    descriptor = os.open(path, flags | os.O_NONBLOCK, 0o666)
    if not S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{path} is not a regular file")
    return os.fdopen(descriptor, "ab" if append else "rb")


def shortened(text: str, most: int = REASON_LETTERS) -> str:
    """A message in a line of at most so many letters."""
    return text if len(text) <= most else f"{text[: most - 3].rstrip()}..."
