"""What memory is left, as the system and a control group say; what takes more is refused by its size."""

import os
from math import inf
from pathlib import Path

import pytest

from engine.data import memory
from engine.data.memory import TooLargeError, require_room, room_for_images

SYSTEM = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def test_what_the_system_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "GROUP", tmp_path)
    assert 0 < room_for_images() < SYSTEM


@pytest.mark.parametrize("names", memory.GROUP_LIMITS)
def test_what_a_control_group_has_left(
    names: tuple[str, str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files that are kept in memory give way."""
    monkeypatch.setattr(memory, "GROUP", tmp_path)
    (tmp_path / "memory").mkdir()
    for name, text in zip(names, ("8000000", "7000000", "anon 5\ninactive_file 2000\nactive_file 300\n"), strict=True):
        (tmp_path / name).write_text(text)
    assert room_for_images() == 0.75 * (8_000_000 - 7_000_000 + 2300)
    (tmp_path / names[0]).write_text("max\n")
    assert room_for_images() > 8_000_000


def test_size_and_limit_are_named() -> None:
    require_room("7 x 9 pixels", 1e9, inf)
    require_room("7 x 9 pixels", 1e9, 1e9)
    with pytest.raises(TooLargeError) as caught:
        require_room("13,000 x 13,000 pixels", 4.225e9, 1.04e9)
    assert str(caught.value) == (
        "13,000 x 13,000 pixels take up to 4.2 GB of memory, more than the 1.0 GB that are left for it: "
        "close other programs, make it smaller, or cut it"
    )
