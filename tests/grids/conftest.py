"""Every test of a grid has a working directory of its own."""

from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.fixture(autouse=True)
def _no_trial(monkeypatch: pytest.MonkeyPatch) -> None:
    """No dry run takes the seconds that training steps take; a test that wants them says so."""
    monkeypatch.setattr("grids.plan.trial.measure_some", lambda *_: [])
