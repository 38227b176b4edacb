"""The files of a run's folder, which others may have made: read up to a size, and only where they are files."""

from __future__ import annotations

import io
import os
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.files import DAMAGED_ARRAYS, open_regular
from reporting.fields import clean

MIB = 1 << 20
LARGEST_ARRAYS = 2048 * MIB  # of an archive, unpacked, whatever its record says


def read_start(path: Path, most: int) -> bytes:
    """The first bytes of a file, `most` of them at most. Raises as open_regular()."""
    with open_regular(path) as file:
        return file.read(min(most, os.fstat(file.fileno()).st_size + 1))


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
