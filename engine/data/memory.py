"""What memory there is to decode images in, and what one of them would take."""

from __future__ import annotations

import os
from contextlib import suppress
from math import inf
from pathlib import Path

from engine.errors import UnreadableError

SHARE = 0.75  # of the memory that is free, that images may take while they are decoded
GROUP = Path("/sys/fs/cgroup")
# a limit and what is used of it, of control groups of both versions
GROUP_LIMITS = (
    ("memory.max", "memory.current", "memory.stat"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes", "memory/memory.stat"),
)


SMALLER = "close other programs, make it smaller, or cut it"
RAN_OUT = f"memory ran out while it was decoded: {SMALLER}"


class TooLargeError(UnreadableError):
    """An image that takes more memory than there is for it; where others are decoded meanwhile, alone it may fit."""


def require_room(what: str, needed: float, room: float) -> None:
    """Raise TooLargeError where `what`, which is several, takes more bytes than `room`."""
    if needed > room:
        raise TooLargeError(
            f"{what} take up to {needed / 1e9:,.1f} GB of memory, more than the {max(0, room) / 1e9:,.1f} GB that are "
            f"left for it: {SMALLER}"
        )


def room_for_images() -> float:
    """Bytes that decoding may take here, by what the system and this process's control group have left."""
    rooms = [_of_group(*files) for files in GROUP_LIMITS]
    with suppress(OSError, ValueError, AttributeError):  # what a system does not have
        rooms.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    with suppress(OSError, KeyError, ValueError):
        rooms.append(1024 * _numbers(Path("/proc/meminfo"))["MemAvailable:"])
    return SHARE * min(rooms)


def _of_group(limit: str, used: str, parts: str) -> float:
    """What the control group has left; inf where it has no limit."""
    with suppress(OSError, KeyError, ValueError):
        left = int((GROUP / limit).read_text()) - int((GROUP / used).read_text())  # or "max"
        kept = _numbers(GROUP / parts)  # files in memory give way
        return left + kept["inactive_file"] + kept["active_file"]
    return inf


def _numbers(path: Path) -> dict[str, int]:
    rows = (line.split() for line in path.read_text().splitlines())
    return {words[0]: int(words[1]) for words in rows}
