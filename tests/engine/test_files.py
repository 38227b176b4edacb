"""Where files go."""

from pathlib import Path

import pytest

from engine import files
from engine.errors import UserError, counted


def test_a_folder_that_may_not_be_made_is_refused_before_anything_is_done(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that is there may hold a finished run, which is only shown."""
    monkeypatch.setattr(files, "writable", lambda folder: False)
    files.check_output(tmp_path)
    with pytest.raises(UserError, match="no permission to write in"):
        files.check_output(tmp_path / "new" / "runs")


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((1, "image"), "1 image"),
        ((2000, "image"), "2,000 images"),
        ((0, "class"), "0 classes"),
        ((1, "class", "have"), "1 class has"),
        ((2, "image", "are"), "2 images are"),
        ((5, "epoch"), "5 epochs"),
        ((5, "batch"), "5 batches"),
        ((1, "image", "differ"), "1 image differs"),
    ],
)
def test_one_is_said_of_one(words: tuple[int, str] | tuple[int, str, str], expected: str) -> None:
    assert counted(*words) == expected
