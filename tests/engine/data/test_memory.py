"""What memory is left, as the system and a control group say; what takes more is refused by its size."""

import os
from math import inf
from pathlib import Path

import pytest

from engine.data import memory
from engine.data.memory import TooLargeError, require_room, room_for_images

SYSTEM = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def test_what_the_system_has(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "OWN_GROUPS", tmp_path / "none")
    assert 0 < room_for_images() < SYSTEM


@pytest.mark.parametrize("group", ["0::/job/step", "9:cpu,memory:/job/step"])
@pytest.mark.parametrize("place", ["job/step", "job", "."])
@pytest.mark.parametrize("names", memory.LIMITS)
def test_what_a_control_group_has_left(
    names: tuple[str, str], place: str, group: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its own, one above it, or, in a container, the one at the root. Files that are kept in memory give way."""
    monkeypatch.setattr(memory, "OWN_GROUPS", tmp_path / "own")
    monkeypatch.setattr(memory, "GROUPS", tmp_path)
    (tmp_path / "own").write_text(f"1:name=systemd:/else\n{group}\n")
    folder = tmp_path / ("memory" if "memory" in group else ".") / place
    folder.mkdir(parents=True, exist_ok=True)
    (folder / names[0]).write_text("8000000\n")
    (folder / names[1]).write_text("7000000\n")
    (folder / "memory.stat").write_text("anon 5\ninactive_file 2000\nactive_file 300\n")
    assert room_for_images() == 0.75 * (8_000_000 - 7_000_000 + 2300)
    (folder / names[0]).write_text("max\n")
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
