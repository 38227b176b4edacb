"""Folders that are perhaps no classes, and images that are perhaps none of their own, by their names."""

from pathlib import Path

import pytest

from engine.errors import UserError
from engine.readers.class_folders import check_unused, list_classes
from engine.readers.layout import is_part, layout_notes


def lay(root: Path, *names: str) -> Path:
    """Files with these names, and their names as content."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(name)
    return root


@pytest.mark.parametrize(
    "names",
    [
        ("training_set", "test_set"),
        ("seg_train", "seg_test", "seg_pred"),
        ("Train", "Test"),
        ("train_images", "test_images"),
        ("my-train", "my-valid"),
    ],
)
def test_parts_by_other_names_are_no_classes(names: tuple[str, ...], tmp_path: Path) -> None:
    lay(tmp_path, *(f"{name}/{label}/1.png" for name in names for label in ("cat", "dog")))
    with pytest.raises(UserError, match=r"looks split already.*rename them so"):
        list_classes(tmp_path)


def test_classes_that_are_called_nearly_so() -> None:
    assert not any(map(is_part, ["trainer", "contest", "valve", "testudo", "interval", "devil", "latest", "predator"]))


@pytest.mark.parametrize("names", [("images", "masks"), ("JPEGImages", "Annotations"), ("images", "labels")])
def test_folders_called_after_kinds_of_files_are_no_classes(names: tuple[str, ...], tmp_path: Path) -> None:
    lay(tmp_path, "images/1.txt", *(f"{name}/1.png" for name in names))
    with pytest.raises(UserError, match="called after what is in them and not after classes"):
        list_classes(tmp_path)


@pytest.mark.parametrize("names", [("train", "car"), ("masks", "gloves"), ("test tube", "flask")])
def test_one_class_that_is_called_so_is_a_class(names: tuple[str, str], tmp_path: Path) -> None:
    assert sorted(list_classes(lay(tmp_path, *(f"{name}/1.png" for name in names))).classes) == sorted(names)


def test_folders_that_hold_the_same_folders(tmp_path: Path) -> None:
    """PlantVillage has color/, grayscale/ and segmented/ with every class in each: three classes, seen from above."""
    versions = [f"{top}/{label}/{top}1.png" for top in ("color", "segmented") for label in ("apple", "maize")]
    (note,) = layout_notes(list_classes(lay(tmp_path / "a", *versions)).classes)
    assert note.startswith("every class folder has the same 2 folders in it (apple, maize)")
    assert layout_notes(list_classes(lay(tmp_path / "b", *versions, "color/1.png")).classes) == []
    assert layout_notes(list_classes(lay(tmp_path / "c", "cat/a/1.png", "dog/a/2.png")).classes) == []


@pytest.mark.parametrize(
    ("names", "note"),
    [
        (["a/1.png", "a/1_mask.png", "a/1_mask_1.png"], "2 images are called as masks of others (a/1_mask.png)"),
        (["a/benign (1).png", "a/benign (1)_mask.png"], "1 image is called as masks of others"),
        (["a/1.jpg", "a/1_segmentation.png"], "1 image is called as masks of others"),
        (["a/mask.png", "a/2_mask.png"], ""),
        (["a/x_jpg.rf.0a1.jpg", "a/x_jpg.rf.0b2.jpg", "a/y_jpg.rf.0a3.jpg"], "1 image is versions of others"),
        (["a/1.jpg", "a/1.png", "a/2.png"], "1 image is called as others but for the suffix"),
        (["a/1.jpg", "b/1.jpg"], ""),
        (["a/1.2.840", "a/1.2.841"], ""),
    ],
)
def test_images_that_are_perhaps_none_of_their_own(names: list[str], note: str) -> None:
    notes = layout_notes({"a": names})
    assert len(notes) == bool(note)
    assert all(found.startswith(note) for found in notes)


def test_a_raw_file_beside_its_jpeg_is_no_image_that_is_lost(tmp_path: Path) -> None:
    listing = list_classes(lay(tmp_path, "a/1.jpg", "a/1.CR2", "a/2.jpg", "a/2.psd", "b/3.jpg", "b/3.dng"))
    assert check_unused(tmp_path, [listing], False) == (
        [],
        ["not used, beside images of the same name: 1 .cr2, 1 .dng, 1 .psd"],
    )
    listing = list_classes(lay(tmp_path, "a/4.CR2"))
    with pytest.raises(UserError, match=r"Of 4 files .* 1 would not be used: 1 .cr2"):
        check_unused(tmp_path, [listing], False)
