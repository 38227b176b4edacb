"""What measuring ours may use of the user's, and may not leave behind."""

import os
from pathlib import Path

import numpy as np
import pytest

from benchmarks.ours import nothing_remembered, plan_budget, reset_peak_memory
from engine.device import prepare
from engine.paths import user_cache
from engine.training import autotune
from engine.training.meters import peak_memory_mib


def test_a_plans_time_is_given_for_the_measurement_alone() -> None:
    before = autotune.BUDGET
    with plan_budget(2.5):
        assert autotune.BUDGET == 2.5
    assert before == autotune.BUDGET
    with plan_budget(None):
        assert before == autotune.BUDGET


@pytest.mark.parametrize("before", ["/somewhere", None])
def test_nothing_is_remembered(before: str | None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("XDG_CACHE_HOME")
    if before:
        monkeypatch.setenv("XDG_CACHE_HOME", before)
    users = user_cache()
    seen: list[Path] = []

    def interrupted() -> None:
        with nothing_remembered():
            seen.append(user_cache())
            (seen[0] / "plans").mkdir(parents=True)
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert seen[0] != users
    assert not seen[0].exists()
    assert user_cache() == users
    assert os.environ.get("XDG_CACHE_HOME") == before


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="the system can't")
def test_the_peak_of_memory_is_that_of_a_backbone_alone() -> None:
    prepare("cpu")  # which keeps what is freed
    before = np.ones(2**27, np.uint8)
    high = peak_memory_mib("cpu")
    del before
    reset_peak_memory("cpu")
    low = peak_memory_mib("cpu")
    assert high is not None
    assert low is not None
    assert low < high - 100
