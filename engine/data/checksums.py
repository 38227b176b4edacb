"""The checksums of a data folder's files as they were last computed, so that 2.5 GB are not read on every run.

They are believed of a file that is the same to the file system: the same inode, size, and times of change, of which no
program sets the second one. A copy, on another disk or by rsync, has others, and is read again. What is damaged here
has no checksum of its own that fits, and is not believed at all.
"""

import re
from contextlib import suppress
from pathlib import Path
from typing import Any

from engine.files import digest, is_sealed, json_digest, read_json, write_json

NAME = ".checksums.json"
FORMAT = 2  # 1: nothing but "files", whose entries have no inode and no ctime_ns
CHECKSUM = re.compile(r"md5:[0-9a-f]{32}|sha256:[0-9a-f]{64}")

Entry = dict[str, Any]  # of a file: "checksum", and what _identity() says of it


def checksum(path: Path, algorithm: str, name: str) -> str:
    """The file's hexadecimal digest: as remembered, if the file is the same, or computed.

    `name` is what the file is, or is about to be, called: see renamed().
    """
    identity = _identity(path)
    known = _load(path.parent)
    entry = known.get(name, {})
    kind, _, value = str(entry.get("checksum")).partition(":")
    if kind == algorithm and entry.items() >= identity.items():
        return value
    value = digest(path, algorithm)
    if _identity(path) == identity:  # else it was written to meanwhile
        _keep(path.parent, known | {name: {**identity, "checksum": f"{algorithm}:{value}"}})
    return value


def renamed(path: Path) -> None:
    """Take the file for the one whose checksum is remembered by its name, but for the time of its renaming."""
    known = _load(path.parent)
    identity, entry = _identity(path), known.get(path.name, {})
    if {**entry, **identity, "ctime_ns": entry.get("ctime_ns")} == entry:
        _keep(path.parent, known | {path.name: {**entry, **identity}})


def forget(folder: Path, name: str) -> None:
    """Remember nothing of a file that is not the one it was taken for, or that is to be looked at in any case."""
    known = _load(folder)
    if known.pop(name, None) is not None:
        _keep(folder, known)


def remembered(folder: Path) -> dict[str, str]:
    """File name -> "<algorithm>:<hex>", of all that was ever verified in `folder`."""
    return {name: entry["checksum"] for name, entry in _load(folder).items()}


def parse(content: Any) -> dict[str, Entry]:
    """File name -> entry, of what the file holds; nothing where it is damaged, or of a later version."""
    if not isinstance(content, dict):
        return {}
    files = content.get("files") if "format" in content else content
    if not isinstance(files, dict) or content.get("format", 1) not in (1, FORMAT):
        return {}
    if "format" in content and not is_sealed(files, content.get("sha256")):
        return {}
    return {
        name: entry
        for name, entry in files.items()
        if isinstance(entry, dict) and CHECKSUM.fullmatch(str(entry.get("checksum")))
    }


def _identity(path: Path) -> dict[str, int]:
    status = path.stat()
    return {
        "bytes": status.st_size,
        "mtime_ns": status.st_mtime_ns,
        "ctime_ns": status.st_ctime_ns,
        "inode": status.st_ino,
    }


def _load(folder: Path) -> dict[str, Entry]:
    try:
        return parse(read_json(folder / NAME))
    except (OSError, ValueError):
        return {}


def _keep(folder: Path, files: dict[str, Entry]) -> None:
    with suppress(OSError, ValueError):  # a folder, or names, that can't be written: computed again next time
        write_json(folder / NAME, {"format": FORMAT, "files": files, "sha256": json_digest(files)})
