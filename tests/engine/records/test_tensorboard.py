"""--tensorboard."""

from pathlib import Path
from typing import Any

import pytest

from engine.records.run_folder import Run
from engine.training import saving
from tests.conftest import Command, only_run

QUICK = "-model tiny -bs 16 --weights none --plan off"


@pytest.mark.parametrize("most_lost", [0.0, 1e9], ids=["each", "some"])
def test_events_for_tensorboard(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most_lost: float
) -> None:
    """Written as epochs are saved, and whole again after an interruption."""
    monkeypatch.setattr(saving, "MOST_LOST", most_lost)
    monkeypatch.setattr(saving, "PAUSE", 1e12)
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    line = f"{QUICK} --epochs 3 --tensorboard"
    stops = iter([False, False, False, True])
    with monkeypatch.context() as patch:
        patch.setattr("engine.training.loop.stop_asked_for", lambda: next(stops))
        assert command(line) == 130
    assert command(line) == 0
    folder = only_run(tmp_path / "runs")
    assert len(list(folder.glob("events.out.tfevents.*"))) == 1
    events = loader.EventAccumulator(str(folder))
    events.Reload()
    history = (folder / "history.csv").read_text().splitlines()
    scores = [float(row.split(",")[history[0].split(",").index("val_top1")]) for row in history[1:]]
    found = events.Scalars("val_top1")
    assert [event.step for event in found] == [1, 2, 3, 4, 5, 6]
    assert [event.value for event in found] == pytest.approx(scores)


def test_cut_off_right_after_its_last_checkpoint_a_run_still_has_all_events(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The epochs since the save before are in the checkpoint alone."""
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    monkeypatch.setattr(saving, "MOST_LOST", 1e9)
    monkeypatch.setattr(saving, "PAUSE", 1e12)

    def cut_off(run: Run, history: list[Any]) -> None:
        if len(history) == 6:
            raise KeyboardInterrupt
        plain(run, history)

    plain, line = Run._write_history, f"{QUICK} --epochs 3 --tensorboard"
    with monkeypatch.context() as patch:
        patch.setattr(Run, "_write_history", cut_off)
        assert command(line) == 130
    assert command(line) == 0
    events = loader.EventAccumulator(str(only_run(tmp_path / "runs")))
    events.Reload()
    assert [event.step for event in events.Scalars("val_top1")] == [1, 2, 3, 4, 5, 6]


def test_without_the_package_the_line_to_install_it_is_given(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("engine.command_line.find_spec", lambda name: None)
    assert command(f"{QUICK} --tensorboard") == 2
    assert "pip install 'tensorboard>=2.16.2'" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_run_that_began_without_goes_on_without(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("tensorboard")
    stops = iter([True, False, False, False])
    monkeypatch.setattr("engine.training.loop.stop_asked_for", lambda: next(stops))
    assert command(f"{QUICK} --epochs 2") == 130
    assert command(f"{QUICK} --epochs 2") == 0
    assert not list(only_run(tmp_path / "runs").glob("events.out.tfevents.*"))
    # what an earlier command began, the next one goes on with, though it does not say so
    stops = iter([True, *[False] * 3])
    assert command(f"{QUICK} --epochs 2 --tensorboard --out other") == 130
    assert command(f"{QUICK} --epochs 2 --out other") == 0
    assert len(list(only_run(tmp_path / "other").glob("events.out.tfevents.*"))) == 1
