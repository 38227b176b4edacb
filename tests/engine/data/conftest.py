"""Image files that several test modules decode."""

from pathlib import Path

import pytest

from tests.engine.data.pictures import save


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """20 training images and 7 test images."""
    for name, count in (("train", 20), ("test", 7)):
        for number in range(count):
            save(tmp_path / name / f"{number}.png", number + 100 * len(name))
    return tmp_path


@pytest.fixture
def spoilt(data: Path) -> Path:
    """`data` with three images that can't be read: BAD in pictures.py says why."""
    (data / "train" / "4.png").write_bytes(b"")
    (data / "train" / "17.png").write_bytes(b"a text")
    (data / "test" / "2.png").unlink()
    (data / "test" / "2.png").symlink_to(data / "nothing")
    return data
