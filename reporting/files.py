"""The files of a run's folder, which others may have made: read up to a size, and only where they are files."""

from __future__ import annotations

import io
import os
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from stat import S_ISREG
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.files import DAMAGED_ARRAYS
from reporting.fields import clean

MIB = 1 << 20
LARGEST_ARRAYS = 2048 * MIB  # of an archive, unpacked, whatever its record says


def read_start(path: Path, most: int) -> bytes:
    """The first bytes of a file, `most` of them at most.

    Raises OSError; ValueError where it is no regular file, such as a pipe, which would be waited for without end.
    """
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
        status = os.fstat(file.fileno())
        if not S_ISREG(status.st_mode):
            raise ValueError("not a regular file")
        return file.read(min(most, status.st_size + 1))


def read_small(path: Path, most: int) -> bytes:
    """The content of a file of at most `most` bytes. Raises as read_start() does; ValueError where it is larger."""
    content = read_start(path, most + 1)
    if len(content) > most:
        raise ValueError(f"too large: expected {most / MIB:,.1f} MiB at most")
    return content


def arrays(content: bytes, names: Sequence[str], most: int) -> list[npt.NDArray[Any]]:
    """The arrays of these names in an .npz file's `content`, which may unpack to `most` bytes.

    Raises ValueError where it is damaged, packed otherwise than NumPy does, or would take more.
    """
    try:
        with warnings.catch_warnings(), zipfile.ZipFile(io.BytesIO(content)) as archive:
            warnings.simplefilter("ignore")  # NumPy's, of a header that is damaged
            parts = archive.infolist()
            held = sum(part.file_size for part in parts)
            if held > min(most, LARGEST_ARRAYS):
                raise ValueError(f"{held:,} bytes, expected {min(most, LARGEST_ARRAYS):,} at most")
            # of other kinds, zipfile raises what it likes, and LZMA takes what memory the file names
            if {part.compress_type for part in parts} - {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
                raise ValueError("not packed as NumPy does")
            found = []
            for name in names:
                with archive.open(f"{name}.npy") as part:
                    found.append(np.lib.format.read_array(part, allow_pickle=False))
            return found
    except DAMAGED_ARRAYS as problem:
        raise ValueError(clean(str(problem))) from problem
