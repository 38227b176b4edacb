"""Class folders as people have them: other formats, what programs leave among images, names that are no classes."""

import os
import socket
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import breakhis
import eurosat
import plantclef
import plantvillage
import stanford_cars
import tinyimagenet
import ucmerced
from common import Dataset, RawSplits, ReadOptions
from engine.errors import UserError
from engine.readers.class_folders import check_unused, class_folders, list_classes, read_and_split
from tests.engine.data.pictures import encoded


def fill(root: Path, *names: str, content: bytes = b"an image") -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(content)


def classes(root: Path, *names: str, images: int = 5) -> None:
    fill(root, *(f"{name}/{index}.png" for name in names for index in range(images)))


FORMATS = {
    "avif": "AVIF",
    "jp2": "JPEG2000",
    "jpe": "JPEG",
    "tga": "TGA",
    "JPG_large": "JPEG",
    "": "JPEG",
    "qoi": "QOI",
    "dib": "DIB",
    "png": "PNG",
}


def test_every_format_is_listed_whatever_its_name(tmp_path: Path) -> None:
    Image.init()
    image = Image.fromarray(np.zeros((16, 16, 3), np.uint8))
    written = {suffix: format_ for suffix, format_ in FORMATS.items() if format_ in Image.SAVE}
    for suffix, format_ in written.items():
        for name in ("cat", "dog"):
            fill(tmp_path, f"{name}/photo{suffix and '.'}{suffix}", content=encoded(image, format_))
    found = list_classes(tmp_path).classes
    assert {name: len(images) for name, images in found.items()} == {"cat": len(written), "dog": len(written)}


HELPERS = ["@eaDir", "#recycle", "$RECYCLE.BIN", "lost+found", ".Trash-1000", ".ipynb_checkpoints", "~snapshot"]


@pytest.mark.parametrize("place", ["", "cat/", "cat/deep/"])
@pytest.mark.parametrize("helper", HELPERS)
def test_helper_folders_are_never_data_at_any_depth(place: str, helper: str, tmp_path: Path) -> None:
    classes(tmp_path, "cat", "dog")
    fill(tmp_path, "cat/deep/x.png", f"{place}{helper}/1.png", f"{place}{helper}/more/2.png")
    listing = list_classes(tmp_path)
    assert {name: len(images) for name, images in listing.classes.items()} == {"cat": 6, "dog": 5}
    assert listing.foreign == {f"{helper}/": 1}
    _, notes = check_unused(tmp_path, [listing], False)
    assert notes == [f"not used, as other programs left them: 1 {helper}/"]


def test_a_conflict_copy_is_not_data(tmp_path: Path) -> None:
    classes(tmp_path, "cat", "dog")
    fill(tmp_path, "cat/0 (conflicted copy 2024-05-01).png", "dog/0.sync-conflict-20240501-101112-ABCDEFG.png")
    listing = list_classes(tmp_path)
    assert len(listing.sizes) == 10
    assert listing.foreign == {"after a conflict": 2}


def test_pipes_and_sockets_of_any_name_are_not_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    classes(tmp_path, "cat", "dog")
    os.mkfifo(tmp_path / "cat" / "pipe")
    monkeypatch.chdir(tmp_path)  # a socket's name has to be short
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind("dog/socket")
        assert list_classes(tmp_path).ignored == {"no suffix": 2}
    os.mkfifo(tmp_path / "cat" / "pipe.png")
    with pytest.raises(UserError, match=r"cat/pipe\.png: not a regular file"):
        list_classes(tmp_path)


@pytest.mark.parametrize(("unused", "refused"), [(1, False), (2, True)])
def test_more_than_a_hundredth_that_is_not_used_is_refused(unused: int, refused: bool, tmp_path: Path) -> None:
    classes(tmp_path, "cat", "dog", images=60)
    fill(tmp_path, *(f"cat/raw{number}.nef" for number in range(unused)), "cat/words.txt")
    listing = list_classes(tmp_path)
    words = "not used, as they are no images: 1 .txt"
    if refused:
        with pytest.raises(UserError, match=r"Of 122 files .* 2 would not be used: 2 \.nef.* --allow-partial"):
            check_unused(tmp_path, [listing], False)
        assert check_unused(tmp_path, [listing], True) == (["not used, but like images: 2 .nef"], [words])
    else:
        said = "not used, but like images: 1 .nef. What else is here can be saved as PNG, say, by what made it"
        assert check_unused(tmp_path, [listing], False) == ([], [said, words])


def test_the_package_that_would_read_them_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    classes(tmp_path, "cat", "dog")
    fill(tmp_path, "cat/x.heic", content=b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    with pytest.raises(
        UserError,
        match=r"1 \.heic\. HEIC \(HEIF\) is read by a package: pip install pillow-heif \(or save it as JPEG\)\. ",
    ):
        check_unused(tmp_path, [list_classes(tmp_path)], False)
    fill(tmp_path, "cow/x.heic", content=b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    with pytest.raises(UserError, match=r"(?s)no images in 1 .*cow.*pip install pillow-heif"):
        list_classes(tmp_path)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 9\n"


@pytest.mark.parametrize(
    ("name", "content", "remedy"),
    [
        ("0.png", POINTER, "git lfs pull"),
        (".x.jpg.icloud", b"bplist00", "download it in Finder"),
        ("x.jpg.nextcloud", b" ", "make it available locally"),
    ],
)
def test_a_single_image_that_is_elsewhere_is_refused(name: str, content: bytes, remedy: str, tmp_path: Path) -> None:
    classes(tmp_path, "cat", "dog", images=200)
    fill(tmp_path, f"cat/{name}", content=content)
    with pytest.raises(UserError, match=f"1 as placeholder.* {remedy}"):
        check_unused(tmp_path, [list_classes(tmp_path)], False)


def test_a_link_of_git_annex_to_a_file_that_is_not_here(tmp_path: Path) -> None:
    classes(tmp_path, "cat", "dog")
    (tmp_path / "cat/x.jpg").symlink_to("../.git/annex/objects/aa/SHA256E-s1--4d.jpg")
    with pytest.raises(UserError, match=r"cat/x\.jpg: a link to nothing: git annex get"):
        list_classes(tmp_path)


def make_cars(root: Path) -> None:
    for part in ("train", "test"):
        classes(root / part, *(f"car {number}" for number in range(196)), images=1)


def make_plantclef(root: Path) -> None:
    for part in ("train", "val"):
        classes(root / part, *plantclef.CLASSES.split())


def make_tiny(root: Path) -> None:
    classes(root / "train", "n01", "n02", "n03")
    fill(root, "wnids.txt", content=b"n01\nn02\nn03\n")
    fill(root, "val/val_annotations.txt", content=b"v.png\tn01\t0\t0\t1\t1\n")
    fill(root, "val/images/v.png")


PUBLISHED = {
    "ucmerced": (ucmerced.DATASET, "Images", lambda root: classes(root / "Images", *ucmerced.CLASSES.split())),
    "eurosat": (eurosat.DATASET, "", lambda root: classes(root, *eurosat.IMAGES)),
    "plantvillage": (plantvillage.DATASET, "", lambda root: classes(root, *plantvillage.IMAGES)),
    "plantclef": (plantclef.DATASET, "train", make_plantclef),
    "stanford_cars": (stanford_cars.DATASET, "train", make_cars),
    "tinyimagenet": (tinyimagenet.DATASET, "train", make_tiny),
}


def read(dataset: Dataset, root: Path, allow_partial: bool) -> RawSplits:
    return dataset.read(ReadOptions(root, allow_partial))


@pytest.mark.parametrize("allow_partial", [False, True])
@pytest.mark.parametrize("images", [0, 5])
@pytest.mark.parametrize("row", PUBLISHED)
def test_another_folder_in_a_published_dataset_is_no_class(
    row: str, images: int, allow_partial: bool, tmp_path: Path
) -> None:
    dataset, place, make = PUBLISHED[row]
    make(tmp_path)
    before = read(dataset, tmp_path, allow_partial)
    (tmp_path / place / "zoo").mkdir()
    classes(tmp_path / place, "zoo", images=images)
    fill(tmp_path / place, "@eaDir/x.png")
    if row == "stanford_cars" and not images and not allow_partial:  # nobody lists its classes
        with pytest.raises(UserError, match="zoo"):
            read(dataset, tmp_path, allow_partial)
        return
    found = read(dataset, tmp_path, allow_partial)
    assert found.classes == before.classes
    assert (found.train.names, found.test.names) == (before.train.names, before.test.names)
    assert any("zoo/ is none of the classes and is not used" in note for note in found.notes)
    assert any("1 @eaDir/" in note for note in found.notes)
    assert found.differences == before.differences


def test_a_part_of_a_published_dataset_has_its_classes_alone(tmp_path: Path) -> None:
    classes(tmp_path / "Images", "beach", "forest", "zoo")
    assert read(ucmerced.DATASET, tmp_path, True).classes == ("beach", "forest")


def test_classes_of_other_names_are_the_copys_own(tmp_path: Path) -> None:
    classes(tmp_path / "Images", *(name.title() for name in ucmerced.CLASSES.split()))
    assert len(read(ucmerced.DATASET, tmp_path, False).classes) == 21


def test_the_edition_on_github_keeps_its_names(tmp_path: Path) -> None:
    names = [name for name in plantvillage.IMAGES if not name.startswith(("Corn", "Cherry", "Background"))]
    classes(tmp_path, *names, *plantvillage.OTHER_NAMES)
    assert len(read(plantvillage.DATASET, tmp_path, True).classes) == 38


def test_two_names_of_one_file_in_a_published_dataset(tmp_path: Path) -> None:
    classes(tmp_path / "Images", *ucmerced.CLASSES.split())
    (tmp_path / "Images/beach/4.png").unlink()
    os.link(tmp_path / "Images/beach/0.png", tmp_path / "Images/beach/4.png")
    found = read(ucmerced.DATASET, tmp_path, False)
    assert len(found.train) + len(found.test) == 105
    with pytest.raises(UserError, match=r"beach/4\.png: the same file as beach/0\.png.*remove one of the two names"):
        list_classes(tmp_path / "Images")


def test_a_script_of_ones_own_need_not_know_its_classes(tmp_path: Path) -> None:
    classes(tmp_path, "cat", "dog")
    assert read_and_split(tmp_path, 0.2, False).classes == ("cat", "dog")
    assert list(class_folders(tmp_path, False).classes) == ["cat", "dog"]


def test_breakhis_does_not_see_helper_folders(tmp_path: Path) -> None:
    slide = "histology_slides/breast/benign/SOB/adenosis/SOB_B_A_14-22549AB/40X"
    name = "SOB_B_A-14-22549AB-40-001.png"
    fill(tmp_path, f"{slide}/{name}", f"{slide}/@eaDir/{name}/SYNOPHOTO_THUMB_M.png", f"{slide}/._{name}")
    fill(tmp_path, "histology_slides/breast/benign/SOB/adenosis/@eaDir/40X/x.png")
    found = breakhis.MAGNIFICATIONS[40].read(ReadOptions(tmp_path, True))
    assert len(found.train) + len(found.test) == 1
