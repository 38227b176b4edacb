"""Runs that have ended, on images of their own, and what asks predict.py about them."""

from __future__ import annotations

import io
import shlex
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest
from PIL import Image

import common
import folder
import predict
from tests.toy import TINY

QUICK = "-model tiny -bs 8 --weights none --epochs 1 --size 16 --plan off --precision fp32 --device cpu"
CLASSES = ("cat", "dog", "owl")


class Said(NamedTuple):
    """What a command printed, and its exit code."""

    code: int
    out: str
    problems: str


Ask = Callable[..., Said]


def picture(path: Path, seed: int, size: tuple[int, int] = (20, 24)) -> None:
    """A small image that is like no other."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)


def train(line: str) -> None:
    """What folder.py does, and well."""
    with pytest.raises(SystemExit) as ended:
        common.main(folder.DATASET, line.split())
    assert ended.value.code == 0


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with pets/ and two seeds of a run on them, and birds/ and a run on these."""
    place = tmp_path_factory.mktemp("trained")
    for number, name in enumerate(CLASSES):
        for index in range(21):
            part = "train" if index < 14 else "test"
            picture(place / "pets" / part / name / f"{index:02}.png", 100 * number + index)
    for number, name in enumerate(("tit", "jay")):
        for index in range(8):
            picture(place / "birds" / name / f"{index}.png", 5000 + 100 * number + index)
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(common.BACKBONES, "tiny", TINY)
        patch.chdir(place)
        for seed in (0, 1):
            train(f"pets {QUICK} --seed {seed}")
        train(f"birds {QUICK}")
    return place


@pytest.fixture
def ask(trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Ask:
    """Gives predict.py a command, in a folder of its own where pets/ and runs/ are."""
    monkeypatch.setitem(common.BACKBONES, "tiny", TINY)
    shutil.copytree(trained, tmp_path, dirs_exist_ok=True)
    monkeypatch.chdir(tmp_path)

    def run(line: str, stdin: bytes = b"") -> Said:
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin)))
        capfd.readouterr()
        words = shlex.split(line)
        code = predict.main(words if {"--device", "--suspects"} & {*words} else ["--device", "cpu", *words])
        return Said(code, *capfd.readouterr())

    return run


@pytest.fixture
def run(ask: Ask) -> Path:
    """The folder of the first run."""
    return next(Path("runs/folder-pets/tiny").glob("*seed0*"))
