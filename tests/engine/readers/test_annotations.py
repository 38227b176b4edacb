"""The parts that a dataset's own lists make."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from engine.errors import UserError
from engine.readers.annotations import listed_part


def test_a_folder_that_cannot_be_read_is_told(tmp_path: Path) -> None:
    (tmp_path / "images").symlink_to("images")
    with pytest.raises(UserError, match="images can't be read: too many levels of symbolic links"):
        listed_part(tmp_path, ["images/1.png"], [0])


@pytest.mark.parametrize("names", [["a/1.png", "b/1.png", "a/1.png"], ["1.png", "1.png"]])
def test_a_list_that_names_an_image_twice_is_told(tmp_path: Path, names: Sequence[str]) -> None:
    for name in set(names):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    with pytest.raises(UserError, match=f"name {names[0]} twice"):
        listed_part(tmp_path, names, [0] * len(names))


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    for name in ("a/1.png", "b/2.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    part, missing = listed_part(tmp_path, ["a/1.png", "a/9.png", "c/1.png", "b/2.png"], [3, 3, 4, 5])
    assert (part.names, part.labels.tolist()) == (["a/1.png", "b/2.png"], [3, 5])
    assert part.references == [tmp_path / "a" / "1.png", tmp_path / "b" / "2.png"]
    assert missing == ("a/9.png", "c/1.png")
