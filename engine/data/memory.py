"""What memory there is to decode images in, and what one of them would take."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import suppress
from math import inf
from pathlib import Path

from engine.errors import UnreadableError

SHARE = 0.75  # of the memory that is free, that images may take while they are decoded
OWN_GROUPS = Path("/proc/self/cgroup")
GROUPS = Path("/sys/fs/cgroup")
# a control group's limit and what is used of it, in version 2 and 1
LIMITS = (("memory.max", "memory.current"), ("memory.limit_in_bytes", "memory.usage_in_bytes"))


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
    """Bytes that decoding may take here, by what the system and this process's control groups have left."""
    rooms = [_left(folder, *names) for folder in _groups() for names in LIMITS]
    with suppress(OSError, ValueError, AttributeError):  # what a system does not have
        rooms.append(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    with suppress(OSError, LookupError, ValueError):
        rooms.append(1024 * _numbers(Path("/proc/meminfo"))["MemAvailable:"])
    return SHARE * min(rooms, default=inf)


def _groups() -> Iterator[Path]:
    """Where the limits of this process's control group lie, and those of the groups that it is a part of."""
    with suppress(OSError, ValueError):
        for line in OWN_GROUPS.read_text().splitlines():
            _, kinds, path = line.split(":", 2)
            root = GROUPS / "memory" if "memory" in kinds.split(",") else GROUPS
            own = root / path.lstrip("/")
            # a container shows its own at the root, under another's path
            yield from (folder for folder in (own, *own.parents) if folder.is_relative_to(root))


def _left(group: Path, limit: str, used: str) -> float:
    """What a control group has left; inf where it has no limit."""
    with suppress(OSError, LookupError, ValueError):
        left = int((group / limit).read_text()) - int((group / used).read_text())  # or "max"
        kept = _numbers(group / "memory.stat")  # files in memory give way
        return left + kept["inactive_file"] + kept["active_file"]
    return inf


def _numbers(path: Path) -> dict[str, int]:
    rows = (line.split() for line in path.read_text().splitlines())
    return {words[0]: int(words[1]) for words in rows}
