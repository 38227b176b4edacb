"""rsna.py: copies of its images in other formats, and what lies among them."""

from pathlib import Path

import pytest

import rsna
from common import RawSplits, ReadOptions


def read(root: Path, *names: str) -> RawSplits:
    rows = "".join(f"image{number},{number % 2}\n" for number in range(8))
    (root / "stage_2_train_labels.csv").write_text(f"patientId,Target\n{rows}")
    folder = root / "stage_2_train_images"
    folder.mkdir()
    for name in names:
        (folder / name).write_bytes(b"an image")
    return rsna.DATASET.read(ReadOptions(root, allow_partial=True))


@pytest.mark.parametrize("stray", ["._image0.dcm", "image0.dcm", "notes.dcm", ".DS_Store"])
@pytest.mark.parametrize("suffix", ["png", "jpg", "jpeg", "dicom"])
def test_a_stray_file_does_not_hide_the_others(suffix: str, stray: str, tmp_path: Path) -> None:
    found = read(tmp_path, *(f"image{number}.{suffix}" for number in range(8)), stray)
    assert len(found.train) + len(found.test) == 8
    assert found.missing == ()


def test_where_there_are_none_the_published_ones_are_missing(tmp_path: Path) -> None:
    assert read(tmp_path).missing[0] == "stage_2_train_images/image0.dcm"
