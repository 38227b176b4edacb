"""The checksums of a data folder's files as they were last computed, so that 2.5 GB are not read on every run."""

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

from engine.files import digest, write_json

NAME = ".checksums.json"  # file name -> bytes, time of change and checksum


def checksum(path: Path, algorithm: str, name: str) -> str:
    """The file's hexadecimal digest: as remembered, if size and time of change are the same, or computed.

    `name` is what the file is, or is about to be, called: renaming leaves its time of change as it is.
    """
    status = path.stat()
    known = _load(path.parent)
    entry = known.get(name, {})
    if entry.get("bytes") == status.st_size and entry.get("mtime_ns") == status.st_mtime_ns:
        kind, _, value = str(entry.get("checksum")).partition(":")
        if kind == algorithm:
            return value
    value = digest(path, algorithm)
    known[name] = {"bytes": status.st_size, "mtime_ns": status.st_mtime_ns, "checksum": f"{algorithm}:{value}"}
    with suppress(OSError):  # a folder that can't be written to: computed again next time
        write_json(path.parent / NAME, known)
    return value


def forget(folder: Path, name: str) -> None:
    """Remember nothing of a file that is not the one it was taken for."""
    known = _load(folder)
    if known.pop(name, None) is not None:
        with suppress(OSError):
            write_json(folder / NAME, known)


def remembered(folder: Path) -> dict[str, str]:
    """File name -> "<algorithm>:<hex>", of all that was ever verified in `folder`."""
    return {name: str(entry.get("checksum")) for name, entry in _load(folder).items()}


def _load(folder: Path) -> dict[str, dict[str, Any]]:
    try:
        found = json.loads((folder / NAME).read_text(encoding="utf-8"))
        return {name: dict(entry) for name, entry in found.items()}
    except (OSError, ValueError, AttributeError, TypeError):
        return {}
