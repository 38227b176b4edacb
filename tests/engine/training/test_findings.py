"""What a run says of its plan's promise, and what becomes of what was remembered."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.data.batches import Batches
from engine.training.findings import TuningRequest, TuningResult, promise_of, remember, remembered, result_path
from engine.training.plan import Plan
from tests import toy

PLAN = Plan("cpu", "a processor", "bf16", "", images_per_second=100.0)
TRAIN = Batches("train", toy.part(16, 1, "train"), 8, (8, 8), (0.4,) * 3, (0.2,) * 3, "cpu")
REQUEST = TuningRequest("tiny", "6", "full", "auto", "auto", measure=True)


@pytest.fixture
def kept(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """The file of a result that was remembered."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    path = result_path(PLAN, toy.tiny(), TRAIN.size, TRAIN.batch_size, REQUEST)
    remember(path, TuningResult("bf16", "NHWC", None, None, "it is faster", 0.08))
    return path


@pytest.mark.parametrize(
    ("promised", "found", "kept_afterwards"),
    [(100.0, 49.9, False), (100.0, 50.1, True), (100.0, None, True), (None, 1.0, True)],
)
def test_a_run_far_slower_than_promised_says_so_and_forgets_what_was_found(
    kept: Path, capsys: Any, promised: float | None, found: float | None, kept_afterwards: bool
) -> None:
    assert remembered(kept)
    promise_of(replace(PLAN, images_per_second=promised), toy.tiny(), TRAIN, REQUEST)(found)
    assert (remembered(kept) is not None) is kept_afterwards
    printed = capsys.readouterr().out
    assert ("where 100.0 were measured for the plan" in printed) is not kept_afterwards
    assert ("--rerun" in printed) is not kept_afterwards


def test_a_plan_promises_what_was_measured(kept: Path) -> None:
    result = remembered(kept)
    assert result is not None
    plan = result.plan(PLAN, 8)
    assert plan.images_per_second == pytest.approx(100.0)
    assert plan.halved(8, batch_norm=True).images_per_second is None  # type: ignore[union-attr]


def test_the_threads_of_a_card_s_host_are_those_of_now() -> None:
    result = TuningResult("bf16", "NHWC", None, None, "it is faster", 0.08, threads=16)
    assert result.plan(replace(PLAN, device="cuda", threads=4), 8).threads == 4
    assert result.plan(replace(PLAN, threads=4), 8).threads == 16


def test_a_cache_folder_that_is_gone_is_no_obstacle(kept: Path, capsys: Any) -> None:
    kept.unlink()
    kept.parent.rmdir()
    kept.parent.write_text("a file")
    promise_of(PLAN, toy.tiny(), TRAIN, REQUEST)(1.0)
    assert "measures anew" in capsys.readouterr().out
