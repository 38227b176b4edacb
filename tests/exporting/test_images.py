"""The images that an export is checked on are those that the run was tested on."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import common
import folder
from common import load
from exporting.images import images_of
from tests.toy import TINY


@pytest.fixture(scope="module")
def photos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    place = tmp_path_factory.mktemp("own") / "photos"
    random = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (place / label).mkdir(parents=True)
        for number in range(12):
            pixels = random.integers(0, 256, (20, 30, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(place / label / f"{number}.png")
    return place


@pytest.mark.parametrize("flags", ["", "--folds 2 --fold 1"])
def test_of_a_folder(flags: str, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(common.BACKBONES, "tiny", TINY)
    line = f"-model tiny -bs 8 --weights none --epochs 1 --size 16 --plan off --device cpu --out {tmp_path} {flags}"
    with pytest.raises(SystemExit) as ended:
        common.main(folder.DATASET, [str(photos), *line.split()])
    assert ended.value.code == 0
    run = next(tmp_path.glob("*/tiny/*/checkpoint.pt")).parent
    trained, images = load(run), images_of(load(run))
    with np.load(run / "predictions.npz") as arrays:
        tested = [str(name) for name in arrays["names"]]
    assert images.what == f"{min(8, len(tested))} test images of the run"
    decoded = [trained.preprocessing.decode(photos / name) for name in tested]
    assert all(any(np.array_equal(each, other) for other in decoded) for each in images.pixels)
    photos.rename(photos.with_name("elsewhere"))
    try:
        assert "noise" in images_of(trained).what
    finally:
        photos.with_name("elsewhere").rename(photos)
