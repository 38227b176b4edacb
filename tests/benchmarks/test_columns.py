"""Columns in turn: what one does is not the others' matter."""

import signal
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import benchmarks.columns
from benchmarks.columns import TimeUpError, measure, time_limit
from benchmarks.setting import Setting
from engine.data.part import Part
from engine.errors import RunError
from engine.training.plan import Plan

Act = Callable[[], float]


class Stage:
    """Stands for both ways of training: what each column does, and all that happened in its order."""

    def __init__(self) -> None:
        self.happened: list[str] = []
        self.acts: dict[str, Act] = {}

    def do(self, column: str) -> float:
        self.happened.append(column)
        return self.acts.get(column, lambda: 2.0)()


@pytest.fixture
def stage(monkeypatch: pytest.MonkeyPatch) -> Stage:
    """No model is built, and no process started."""
    stage = Stage()

    class FakeOurs:
        def __init__(self, *_: object) -> None:
            stage.do("set up")

        def end_to_end(self) -> float:
            return stage.do("ours")

        def alone(self) -> float:
            return stage.do("ceiling")

        def describe(self) -> dict[str, Any]:
            return {"form": "fp32 NCHW"}

    class FakeApart:
        def __init__(self, *_: object) -> None:
            stage.do("start")

        def measure(self, column: str) -> float:
            return stage.do(column)

        def peak_memory_mib(self) -> float:
            return stage.do("memory")

        def __enter__(self) -> "FakeApart":
            return self

        def __exit__(self, *_: object) -> None:
            stage.happened.append("end")

    monkeypatch.setattr(benchmarks.columns, "Ours", FakeOurs)
    monkeypatch.setattr(benchmarks.columns, "Apart", FakeApart)
    return stage


def setting(**changes: Any) -> Setting:
    part = Part(np.zeros((1, 1, 1, 3), np.uint8), np.zeros(1, np.int64), ["0"])
    plan = Plan("cpu", "a processor", "fp32", "a test")
    return replace(Setting(Path("nowhere"), part, plan, 2, (32, 32), steps=1, rounds=2), **changes)


def fails(problem: BaseException) -> Act:
    def act() -> float:
        raise problem

    return act


def test_columns_take_turns_in_an_order_that_is_reversed(stage: Stage) -> None:
    found = measure("resnet", setting())
    order = ["plain", "step", "ours", "ceiling"]
    assert stage.happened == ["set up", "start", "plain", "ours", *reversed(order), *order, "memory", "end"]
    assert found.images_per_second == {column: [2.0, 2.0] for column in order}
    assert (found.failed, found.late) == ({}, None)
    assert found.peak_memory_mib["plain"] == 2.0
    assert (found.peak_memory_mib["ours"] or 0) > 1
    assert found.ours == {"form": "fp32 NCHW"}


def test_a_column_that_fails_takes_no_other_with_it(stage: Stage) -> None:
    stage.acts["plain"] = fails(RunError("its process ended with exit code -9"))
    found = measure("resnet", setting())
    assert found.failed == {"plain": "its process ended with exit code -9"}
    assert found.images_per_second == {"plain": [], "step": [2.0] * 2, "ours": [2.0] * 2, "ceiling": [2.0] * 2}
    # asked for once, and step is warmed up in its place
    assert stage.happened[:5] == ["set up", "start", "plain", "step", "ours"]
    assert stage.happened.count("plain") == 1


def test_a_column_that_fails_later_keeps_what_it_had(stage: Stage) -> None:
    left = [3.0, 3.0]
    stage.acts["ours"] = lambda: left.pop()
    found = measure("resnet", setting())
    assert found.failed == {"ours": "IndexError: pop from empty list"}
    assert found.images_per_second["ours"] == [3.0]
    assert found.images_per_second["ceiling"] == [2.0, 2.0]


def test_what_cannot_be_set_up_leaves_the_plain_way(stage: Stage) -> None:
    stage.acts["set up"] = fails(RuntimeError("CUDA out of memory. Tried to\nallocate"))
    found = measure("resnet", setting())
    assert found.failed == dict.fromkeys(("ours", "ceiling"), "RuntimeError: CUDA out of memory. Tried to")
    assert found.images_per_second["plain"] == [2.0, 2.0]
    assert found.ours == {}


def test_only_the_columns_that_are_asked_for(stage: Stage) -> None:
    found = measure("resnet", setting(columns=["ours"], rounds=1))
    assert stage.happened == ["set up", "ours", "ours"]
    assert found.images_per_second == {"ours": [2.0]}
    stage.happened.clear()
    measure("resnet", setting(columns=["step"], rounds=1))
    assert stage.happened == ["start", "step", "step", "memory", "end"]


def test_an_interruption_is_no_failure_of_a_column(stage: Stage) -> None:
    stage.acts["step"] = fails(KeyboardInterrupt())
    with pytest.raises(KeyboardInterrupt):
        measure("resnet", setting())
    assert stage.happened[-1] == "end"


def test_a_limit_of_time_keeps_what_came_before_it(stage: Stage) -> None:
    times = iter([0.0, 0.0, 60.0])

    def plain() -> float:
        time.sleep(next(times))
        return 4.0

    stage.acts["plain"] = plain
    found = measure("resnet", setting(limit_seconds=1.0, rounds=3, columns=["plain", "ours"]))
    assert found.seconds < 30
    assert found.images_per_second == {"plain": [4.0], "ours": [2.0]}
    assert found.late == "the limit of 1 s was reached after 1 of 3 rounds"
    assert found.failed == {}
    assert stage.happened[-1] == "end"
    # nobody asks a process that is in the middle of something
    assert "memory" not in stage.happened


def test_a_limit_that_the_plan_takes_leaves_dashes(stage: Stage) -> None:
    def forever() -> float:
        try:
            time.sleep(60)
        except Exception as problem:  # as code that handles failures of training does
            raise AssertionError from problem
        return 0.0

    stage.acts["set up"] = forever
    found = measure("resnet", setting(limit_seconds=0.5, columns=["plain", "ours"]))
    assert found.failed == dict.fromkeys(("plain", "ours"), "no time was left of 0.5 s")
    assert found.late == "the limit of 0.5 s was reached after 0 of 2 rounds"


def test_an_alarm_of_somebody_else_still_rings() -> None:
    """pytest-timeout's, which is set while this runs, too."""
    rung: list[float] = []
    handler = signal.signal(signal.SIGALRM, lambda *_: rung.append(time.monotonic()))
    others, _ = signal.setitimer(signal.ITIMER_REAL, 1.0)
    start = time.monotonic()
    try:
        with pytest.raises(TimeUpError), time_limit(0.2):
            time.sleep(30)
        assert not rung
        while not rung and time.monotonic() < start + 30:
            time.sleep(0.05)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, handler)
        signal.setitimer(signal.ITIMER_REAL, others)
    assert rung[0] - start >= 0.99
