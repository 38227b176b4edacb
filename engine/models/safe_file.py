"""Files of safetensors: a header that says which tensors there are, and their bytes; nothing in them can be run."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from engine.errors import UserError

NEEDED = "safetensors>=0.4.3,<1"
ENDING = ".safetensors"
FACTS = {"format", "run", "dataset", "preprocessing"}  # that the header of an export has
MOST_HEADER = 16 << 20  # bytes: some 100,000 tensors


def is_safetensors(path: Path) -> bool:
    """Whether the file is one of safetensors, whatever it is called, or is called one."""
    return path.name.endswith(ENDING) or _header_bytes(path) is not None


def _header_bytes(path: Path) -> int | None:
    """How long the header is said to be; None: the file does not begin as such files do."""
    try:
        with path.open("rb") as file:
            begin = file.read(9)
        size = path.stat().st_size
    except OSError:
        return None
    if len(begin) < 9 or begin[8:] != b"{":
        return None
    length: int = struct.unpack("<Q", begin[:8])[0]
    return length if length <= size - 8 else None


def facts_in(path: Path) -> dict[str, Any] | None:
    """What export.py says, in the header of a file that load_safetensors() has read; None: another program wrote it."""
    from safetensors import safe_open

    with safe_open(path, framework="pt") as file:
        texts: dict[str, str] = file.metadata() or {}
    if not texts.keys() >= FACTS:
        return None
    facts: dict[str, Any] = {}
    for name, text in texts.items():
        try:
            facts[name] = json.loads(text)
        except (ValueError, RecursionError):  # a text as it is
            facts[name] = text
    return facts


def load_safetensors(path: Path) -> dict[str, Any]:
    """The tensors in it, by name, in main memory.

    Raises UserError where it is none, or damaged, and where the package that reads it is missing.
    """
    try:
        from safetensors import SafetensorError
        from safetensors.torch import load_file
    except ImportError as problem:
        raise UserError(f"{path} needs the package safetensors ({problem}): pip install '{NEEDED}'") from problem
    length = _header_bytes(path)
    if length is None or length > MOST_HEADER:
        what = "it does not begin as one" if length is None else f"its header is said to have {length:,} bytes"
        raise _not_whole(path, what)
    try:
        tensors: dict[str, Any] = load_file(path, device="cpu")
    except (SafetensorError, OSError, ValueError, RuntimeError, KeyError) as problem:
        raise _not_whole(path, str(problem)) from problem
    return tensors


def _not_whole(path: Path, what: str) -> UserError:
    return UserError(
        f"{path} ({path.stat().st_size:,} bytes) is no whole file of safetensors: {what}.\nIf it was cut short, delete "
        "it and get it again."
    )
