"""Files that are either whole or absent: written under a temporary name, then renamed."""

import hashlib
import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any


@contextmanager
def atomic(path: Path, mode: str = "w") -> Iterator[IO[Any]]:
    """Open a temporary file beside `path`; on success flush it to the disk and rename it to `path`, else remove it.

    `mode` is "w" (text, UTF-8) or "wb".
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    text = {} if "b" in mode else {"encoding": "utf-8", "newline": ""}
    try:
        with temporary.open(mode, **text) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented JSON; NaN and infinity, which JSON does not know, are a ValueError."""
    with atomic(path) as file:
        json.dump(content, file, indent=2, allow_nan=False, ensure_ascii=False)
        file.write("\n")


def digest(path: Path, algorithm: str = "sha256", progress: Callable[[int], object] = lambda _: None) -> str:
    """The hexadecimal digest of a file, read in pieces of 1 MiB; `progress` is told the bytes of each."""
    found = hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            found.update(piece)
            progress(len(piece))
    return found.hexdigest()
