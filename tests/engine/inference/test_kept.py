"""Runs that earlier versions left, in tests/data: what could be done with them then can be done now.

Each is one of the tiny network of tests/toy.py on digits, made by the code of its time:
-model tiny -bs 32 --weights none --lr 1e-2 --epochs 4 --size 16 --plan off --device cpu --precision fp32
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

import common
import digits
from common import ReadOptions, load
from engine.paths import PROJECT
from engine.records.schema import SCHEMA, read_record
from reporting.collect import collect
from tests.conftest import Command
from tests.toy import TINY

LINE = "-model tiny -bs 32 --weights none --lr 1e-2 --epochs 4 --size 16 --plan off --precision fp32"


@pytest.fixture(params=[1, 2], ids=["schema 1", "schema 2"])
def kept(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of a run's folder, under runs/ of the test's own folder."""
    monkeypatch.setitem(common.BACKBONES, "tiny", TINY)
    (folder,) = (PROJECT / "tests" / "data" / f"schema{request.param}").glob("digits/tiny/*")
    assert json.loads((folder / "record.json").read_text("utf-8"))["schema"] == request.param
    shutil.copytree(folder.parents[1], tmp_path / "runs" / "digits")
    return tmp_path / "runs" / "digits" / "tiny" / folder.name


@pytest.mark.parametrize("named", [".", "checkpoint.pt"])
def test_the_model_predicts_what_it_did(kept: Path, named: str) -> None:
    trained = load(kept / named)
    assert trained.classes == tuple("0123456789")
    before = np.load(kept / "predictions.npz")
    test = digits.read(ReadOptions(Path())).test
    assert test.names == before["names"].tolist()
    with torch.inference_mode():
        logits = trained.model()(trained.preprocessing.batch([*test.pixels()])).numpy()
    np.testing.assert_allclose(logits, before["logits"], atol=1e-5)
    assert (logits.argmax(1) == test.labels).mean() == pytest.approx(trained.record["test"]["top1"])


def test_its_record_is_read_and_is_in_a_report(kept: Path) -> None:
    record = read_record(kept / "record.json")
    assert record is not None
    assert (record["schema"], record["status"], record["test"]["images"]) == (SCHEMA, "done", 360)
    collected = collect(kept.parents[2])
    assert (len(collected.entries), collected.skipped, collected.failed) == (1, [], [])


def test_its_command_finds_it_done(kept: Path, command: Command, capsys: pytest.CaptureFixture[str]) -> None:
    files = {path: path.read_bytes() for path in kept.iterdir()}
    assert command(LINE, digits.DATASET) == 0
    *_, place, _, result = capsys.readouterr().out.splitlines()
    assert place == f"record     runs/digits/tiny/{kept.name}"
    assert result.startswith("tiny on Digits, 360 test images: top-1 ")
    assert {path: path.read_bytes() for path in kept.iterdir()} == files
