"""How far a run has come, and how that is read again."""

from dataclasses import asdict
from typing import Any

import pytest

from engine.training.state import State


def trained(*scores: float, latest_of_equals: bool = False) -> State:
    state = State()
    for score in scores:
        state.record_epoch({"stage": "adamw", "val_loss": 1.0, "val_top1": score}, score, latest_of_equals)
    return state


@pytest.mark.parametrize(
    ("latest", "best_epoch", "without_gain"), [(False, 2, 2), (True, 3, 1)], ids=["the first of equals", "the last"]
)
def test_the_best_epoch_and_those_without_a_gain(latest: bool, best_epoch: int, without_gain: int) -> None:
    state = trained(0.1, 0.5, 0.5, 0.4, latest_of_equals=latest)
    assert (state.best_epoch, state.best_score, state.epochs_without_gain) == (best_epoch, 0.5, without_gain)
    assert [row["epoch"] for row in state.history] == [1, 2, 3, 4]
    assert [row["best_epoch"] for row in state.history] == [1, 2, *([3, 3] if latest else [2, 2])]


def test_a_stage_counts_its_own_epochs() -> None:
    state = trained(0.1, 0.1, 0.1)
    assert (state.stage, state.stage_epochs, state.epochs_without_gain) == (0, 3, 2)
    state.begin_next_stage()
    assert (state.stage, state.stage_epochs, state.epochs_without_gain) == (1, 0, 0)
    assert (state.epochs, state.best_epoch) == (3, 1)


def test_what_was_saved_is_restored() -> None:
    state = trained(0.1, 0.5)
    assert State.restored(asdict(state), "val") == state


@pytest.mark.parametrize("part", ["val", "test"])
def test_a_state_of_record_schema_1_is_restored(part: str) -> None:
    """Under names of its own, the same in either protocol."""
    row = {"stage": "adamw", "epoch": 1, "best_top1": 0.5, "best_epoch": 1}
    old: dict[str, Any] = asdict(State(epochs=1, stage_epochs=1, best_score=0.5, best_epoch=1))
    old |= {"history": [row | {"select_loss": 1.0, "select_top1": 0.5}], "stale": 1}
    for name in ("epochs_without_gain", "resident_memory_mib", "save_seconds"):
        del old[name]
    found = State.restored(old, part)
    assert found.epochs_without_gain == 1
    # nobody counted
    assert (found.resident_memory_mib, found.save_seconds) == (None, None)
    found.account("cpu", None, 3.0)
    assert found.resident_memory_mib is None
    assert found.history == [row | {f"{part}_loss": 1.0, f"{part}_top1": 0.5}]


@pytest.mark.parametrize("content", [{}, {"history": 3}, {"history": [1]}, {"history": [], "more": 1}])
def test_something_else_is_refused(content: dict[str, Any]) -> None:
    with pytest.raises((TypeError, KeyError, AttributeError)):
        State.restored(content, "val")


@pytest.mark.parametrize(
    "harm",
    [
        {"stage": -1},
        {"stage": 3},
        {"stage": "0"},
        {"stage": True},
        {"epochs": 3},
        {"epochs": 2.0},
        {"best_score": 2.0},
        {"best_score": 0.4},
        {"best_epoch": 1},
        {"stage_epochs": -2},
        {"epochs_without_gain": 10**9},
        {"history": []},
    ],
    ids=str,
)
def test_what_no_counting_leads_to_is_refused(harm: dict[str, Any]) -> None:
    saved = asdict(trained(0.1, 0.5))
    assert State.restored(saved, "val")
    with pytest.raises((ValueError, TypeError, KeyError)):
        State.restored(saved | harm, "val")


def test_a_processor_reports_memory_and_no_energy() -> None:
    state = State()
    assert state.account("cpu", None, 3.0) is None
    first = state.peak_memory_mib
    assert first is not None
    state.account("cpu", None, 2.0)
    assert state.resident_memory_mib == 3.0
    assert state.peak_memory_mib is not None
    assert state.peak_memory_mib >= first
    assert state.energy_joules is None
