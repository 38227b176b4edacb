"""A finished run to be exported."""

from __future__ import annotations

from pathlib import Path

import pytest

import common
from tests import toy
from tests.toy import TINY


@pytest.fixture(scope="session")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of a small network on digits, which are stored at 8x8 and given to it at 32x32."""
    return toy.finished_run(tmp_path_factory.mktemp("runs"))


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """The backbone of that run."""
    monkeypatch.setitem(common.BACKBONES, "tiny", TINY)
