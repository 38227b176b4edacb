"""After which epochs a run is saved."""

import csv
import json
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from engine.records.run_folder import Run
from engine.training import saving
from engine.training.saving import Saver
from engine.training.state import State
from tests.conftest import Command, only_run

LINE = "-model tiny -bs 16 --weights none --plan off"


class Slow:
    """Stands for a run whose saves take a while."""

    resumable = True

    def __init__(self, pass_time: Callable[[float], None]) -> None:
        self.pass_time = pass_time
        self.takes = 0.0
        self.saved: list[Mapping[str, Any]] = []

    def snapshot(self) -> None:
        return None

    def save(self, snapshot: Mapping[str, Any]) -> None:
        self.pass_time(self.takes)
        self.saved.append(snapshot)

    def change_plan(self, plan: Any) -> None:
        raise AssertionError("memory suffices")


@pytest.fixture
def run(monkeypatch: pytest.MonkeyPatch) -> Slow:
    now = 0.0

    def pass_time(seconds: float) -> None:
        nonlocal now
        now += seconds

    monkeypatch.setattr(saving, "time", SimpleNamespace(perf_counter=lambda: now))
    return Slow(pass_time)


@pytest.mark.parametrize(
    ("takes", "epoch", "saved"),
    [
        (0.5, 4.0, [1, 4, 7, 10]),  # 10 s after the last
        (0.5, 5.0, [1, 3, 5, 7, 9]),
        (5.0, 12.0, [1, 4, 7, 10]),  # 30 s after it, not 100
        (0.01, 1.0, list(range(1, 11))),
        (10.0, 40.0, list(range(1, 11))),
    ],
)
def test_saving_waits_until_it_costs_little(run: Slow, takes: float, epoch: float, saved: list[int]) -> None:
    saver, state, found = Saver(run), State(), []
    run.takes = takes
    for number in range(1, 11):
        run.pass_time(epoch)
        if saver.save(state, lambda: {"number": number}, must=False) is not None:  # noqa: B023
            found.append(number)
    assert found == saved
    assert [each["number"] for each in run.saved] == saved
    assert state.save_seconds == pytest.approx(takes * len(saved))


def test_what_must_be_saved_is(run: Slow) -> None:
    saver, state = Saver(run), State(save_seconds=None)
    run.takes = 3.0
    assert saver.save(state, dict, must=False) == 3.0
    made: list[int] = []
    assert saver.save(state, lambda: made.append(1) or {}, must=False) is None  # type: ignore[func-returns-value]
    assert made == []  # nothing is copied that is not saved
    assert saver.save(state, dict, must=True) == 3.0
    assert state.save_seconds is None  # a run that was begun before it was counted
    # what nobody can go on from is told of each epoch, which is no saving
    run.resumable = False
    assert saver.save(state, dict, must=False) is None
    assert len(run.saved) == 3


@pytest.fixture
def rarely(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The epochs that were saved, where it is never time to."""
    monkeypatch.setattr(saving, "PAUSE", 1e12)
    monkeypatch.setattr(saving, "MOST_LOST", 1e9)
    epochs: list[int] = []
    plain = Run.save

    def watched(self: Run, snapshot: Mapping[str, Any]) -> None:
        plain(self, snapshot)
        epochs.append(snapshot["state"]["epochs"])

    monkeypatch.setattr(Run, "save", watched)
    return epochs


def columns(printed: str) -> list[str]:
    """What the column `saved` says of each epoch."""
    lines = printed.splitlines()
    head = next(number for number, line in enumerate(lines) if line.endswith("  saved"))
    return [line.split()[-1] for line in lines[head + 1 :] if line.split()[1] in ("adamw", "sgd")]


def test_the_first_and_the_last_epoch_of_a_command_are_saved(
    command: Command, rarely: list[int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(f"{LINE} --epochs 3") == 0
    assert rarely == [1, 6]
    assert [column == "-" for column in columns(capsys.readouterr().out)] == [False, True, True, True, True, False]
    folder = only_run(tmp_path / "runs")
    with (folder / "history.csv").open() as file:
        assert [row["epoch"] for row in csv.DictReader(file)] == list("123456")
    assert 0 < json.loads((folder / "record.json").read_text())["costs"]["save_seconds"] < 60


def test_where_patience_ends_it_the_last_epoch_is_saved(command: Command, rarely: list[int], tmp_path: Path) -> None:
    assert command(f"{LINE} --patience 1") == 0
    with (only_run(tmp_path / "runs") / "history.csv").open() as file:
        assert rarely == [1, len(list(csv.DictReader(file)))]


def test_where_a_stop_is_asked_for_the_epoch_is_saved(
    command: Command, rarely: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = iter([False, False, True, False, False, True])
    monkeypatch.setattr("engine.training.loop.stop_asked_for", lambda: next(asked, False))
    assert command(f"{LINE} --epochs 4") == 130
    assert rarely == [1, 3]
    assert command(f"{LINE} --epochs 4") == 130
    assert rarely == [1, 3, 4, 6]
    assert command(f"{LINE} --epochs 4") == 0
    assert rarely == [1, 3, 4, 6, 7, 8]
