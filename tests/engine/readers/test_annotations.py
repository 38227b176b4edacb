"""The parts that a dataset's own lists make."""

from collections.abc import Sequence
from pathlib import Path

import pytest

from engine.errors import UserError
from engine.readers.annotations import listed_part, read_csv, read_json, read_table


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


@pytest.mark.parametrize("name", ["../1.png", "/etc/1.png", "a/../../1.png", "./1.png", "a//1.png", "a\\1.png", ""])
def test_a_list_that_leads_elsewhere_is_told(tmp_path: Path, name: str) -> None:
    """An image from outside would be trained on, in silence, if it happened to be there."""
    (tmp_path / "1.png").touch()
    (tmp_path / "images").mkdir()
    with pytest.raises(UserError, match="is no path of an image below it"):
        listed_part(tmp_path / "images", [name], [0])


def test_a_table_with_two_lines_for_one_image_is_told(tmp_path: Path) -> None:
    path = tmp_path / "labels.txt"
    path.write_text("\ufeff1 a b\r\n\r\n2\tc\r\n")
    assert read_table(path) == {"1": "a b", "2": "c"}
    path.write_text("1 3\n2 4\n1 5\n")
    with pytest.raises(UserError, match=r"damaged or another file: it has '1' in several lines"):
        read_table(path)


@pytest.mark.parametrize("row", ["b", "b\n", '"b'])
def test_a_row_that_was_cut_off_is_told(tmp_path: Path, row: str) -> None:
    path = tmp_path / "labels.csv"
    path.write_text(f"patientId,x,Target\na,,0\n{row}")
    with pytest.raises(UserError, match=r"the row 'b.*' has too few columns"):
        read_csv(path, "patientId", "Target")


def test_what_is_not_there_is_named(tmp_path: Path) -> None:
    for name in ("a/1.png", "b/2.png"):
        (tmp_path / name).parent.mkdir()
        (tmp_path / name).touch()
    part, missing = listed_part(tmp_path, ["a/1.png", "a/9.png", "c/1.png", "b/2.png"], [3, 3, 4, 5])
    assert (part.names, part.labels.tolist()) == (["a/1.png", "b/2.png"], [3, 5])
    assert part.references == [tmp_path / "a" / "1.png", tmp_path / "b" / "2.png"]
    assert missing == ("a/9.png", "c/1.png")


@pytest.mark.parametrize(
    ("listed", "there"),
    [
        ("caf\u00e9/caf\u00e9.jpg", "cafe\u0301/cafe\u0301.jpg"),
        ("cafe\u0301/1.jpg", "caf\u00e9/1.jpg"),
        ("a/1.jpg", "a/1.JPG"),
        ("a/1.png", "A/1.PNG"),
        ("a/1.jpeg", "a/1.jpg"),
        ("A/IMAGE_1.JPG", "a/image_1.jpg"),
    ],
)
def test_a_listed_image_in_other_letters(tmp_path: Path, listed: str, there: str) -> None:
    """It keeps the listed name, which the run's id is made of, and is opened by its own."""
    (tmp_path / there).parent.mkdir()
    (tmp_path / there).touch()
    part, missing = listed_part(tmp_path, [listed], [0])
    assert (part.names, part.references, missing) == ([listed], [tmp_path / there], ())


def test_names_of_which_a_disk_holds_both_forms(tmp_path: Path) -> None:
    """Each is itself; what could be either of two is neither."""
    for name in ("caf\u00e9.jpg", "cafe\u0301.jpg", "B.jpg", "b.JPG", "C.jpg"):
        (tmp_path / name).touch()
    part, missing = listed_part(tmp_path, ["caf\u00e9.jpg", "cafe\u0301.jpg", "b.jpg", "c.jpg", "c.JPG"], [0] * 5)
    assert part.references == [tmp_path / "caf\u00e9.jpg", tmp_path / "cafe\u0301.jpg"]
    assert missing == ("b.jpg", "c.jpg", "c.JPG")


def test_a_list_that_another_program_saved(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_bytes(b'\xef\xbb\xbf{"a": 1}\r\n')
    assert read_json(tmp_path / "a.json") == {"a": 1}
