"""Checkpoints, opened for use: what they hold is what the run had."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import common
import digits
from common import load
from tests.toy import TINY


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on digits."""
    out = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(common.BACKBONES, "tiny", TINY)
        line = f"-model tiny -bs 64 --weights none --epochs 1 --size 32 --plan off --out {out}"
        with pytest.raises(SystemExit) as ended:
            common.main(digits.DATASET, line.split())
    assert ended.value.code == 0
    return next(out.glob("digits/tiny/*"))


def test_the_logits_are_those_of_the_run(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(common.BACKBONES, "tiny", TINY)
    trained = load(run)
    assert trained.classes == tuple("0123456789")
    assert trained.preprocessing.stored_size == (8, 8)
    kept = np.load(run / "predictions.npz")
    with torch.inference_mode():
        test = digits.read(None).test.pixels()  # type: ignore[arg-type]
        logits = trained.model()(trained.preprocessing.to_input(torch.from_numpy(test))).numpy()
    np.testing.assert_allclose(logits, kept["logits"], atol=1e-5)
