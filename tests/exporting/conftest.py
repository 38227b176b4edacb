"""A finished run to be exported."""

from __future__ import annotations

from pathlib import Path

import pytest

import common
import digits
from tests.toy import TINY


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a small network on digits, which are stored at 8x8 and given to it at 32x32."""
    out = tmp_path_factory.mktemp("runs")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(common.BACKBONES, "tiny", TINY)
        line = f"-model tiny -bs 64 --weights none --epochs 1 --size 32 --plan off --device cpu --out {out}"
        with pytest.raises(SystemExit) as ended:
            common.main(digits.DATASET, line.split())
    assert ended.value.code == 0
    return next(out.glob("digits/tiny/*"))


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """The backbone of that run."""
    monkeypatch.setitem(common.BACKBONES, "tiny", TINY)
