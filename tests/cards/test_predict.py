"""predict.py on a card."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import folder
import predict
from engine.device import free_memory
from tests.conftest import Command, only_run

pytestmark = pytest.mark.cuda


@pytest.mark.parametrize("form", ["fastest", "run"])
def test_images_are_answered_and_nothing_stays(command: Command, tmp_path: Path, form: str) -> None:
    random = np.random.default_rng(0)
    for number in range(40):
        path = tmp_path / "pets" / ("cat", "dog")[number % 2] / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (20, 20, 3), dtype=np.uint8)).save(path)
    line = "pets -model tiny -bs 4 --weights none --epochs 1 --size 16 --plan off --device cuda"
    assert command(line, folder.DATASET) == 0
    free_memory("cuda")
    before = torch.cuda.memory_allocated()
    words = [str(only_run(tmp_path / "runs")), "pets", "--device", "cuda", "--out", "answers.csv", "--form", form]
    assert predict.main([*words, "-bs", "16", "--tta", "flip"]) == 0
    free_memory("cuda")
    # cuBLAS keeps what it computes in: up to 128 MiB
    assert torch.cuda.memory_allocated() - before <= 2**27
    rows = [*csv.DictReader((tmp_path / "answers.csv").read_text().splitlines())]
    assert [row["path"] for row in rows] == sorted(str(path) for path in Path("pets").glob("*/*"))
    assert {row["error"] for row in rows} == {""}
