"""What a search reads of one training, and says of all."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from engine.records.schema import Record
from grids.ledger import MENDABLE, Standing, failure_now, grid_folder
from ranking.budget import Budget
from ranking.halving import make_plan
from ranking.outcome import failed, outcome, seconds_of
from ranking.search_ledger import Ledger, Result, RungKept, ledger_path, open_ledger
from ranking.search_result import judged_text, result_of
from tests.grids.cells import cells, record_of

HISTORY = "epoch,val_loss,val_top1\n1,0.75,0.5\n2,0.25,0.875\n3,nan,0.5\n"


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def trained(**changes: Any) -> tuple[Any, Record]:
    (cell,) = cells("--datasets digits --models resnet --recipe cosine --epochs 3")
    costs = record_of(cell)["costs"] | {"epochs": 3, "images": 2700, "train_seconds": 30.0}
    selection = {"part": "val", "top1": 0.875, "macro_f1": 0.75, "epoch": 2, "stage": "cosine"}
    return cell, record_of(cell, costs=costs, selection=selection, **changes)


def leave(history: str) -> None:
    path = Path("runs/digits/resnet/x/history.csv")
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(history)


def test_of_a_finished_run() -> None:
    """100 validation images at 400 a second beside 10 s of training an epoch."""
    cell, record = trained()
    leave(HISTORY)
    found = outcome(cell, record, "top1", 42.0, False)
    assert found == Result(
        "resnet", "done", 0.875, 0.25, 100, 2, 2700, 42.0, 10.25, str(Path("runs/digits/resnet/x")), ""
    )
    assert found.as_score().score == 0.875
    assert outcome(cell, record, "macro_f1", 42.0, False).score == 0.75


def test_of_a_run_that_lay_there_nothing_is_counted() -> None:
    cell, record = trained()
    found = outcome(cell, record, "top1", None, True)
    assert (found.trained, found.seconds) == (0, 0)
    assert found.score == 0.875


@pytest.mark.parametrize(("resumed", "seconds"), [([], 100.0), ([{"at": "x", "environment": {}}], 30.0)])
def test_seconds_that_nobody_saw_are_the_records(resumed: list[Any], seconds: float) -> None:
    cell, record = trained(resumed=resumed)
    assert outcome(cell, record, "top1", None, False).seconds == seconds


@pytest.mark.parametrize(
    "history", ["", "epoch\n2\n", "epoch,val_loss\n1,0.5\n", "epoch,val_loss\n2,x\n", "epoch,val_loss\n2,nan\n", "\0"]
)
def test_a_history_that_does_not_tell_costs_the_loss_alone(history: str) -> None:
    cell, record = trained()
    leave(history)
    found = outcome(cell, record, "top1", 1.0, False)
    assert (found.score, found.loss) == (0.875, None)
    assert found.as_score().loss == float("inf")


def test_of_a_failed_run() -> None:
    cell, _ = trained()
    refused, crashed = (Standing("failed", None, failure_now(cell, code, "no", ())) for code in (MENDABLE, 3))
    name = cell.config.model
    assert failed(cell, refused, 2700).trained == 0
    assert failed(cell, crashed, 2700) == Result(name, "failed", trained=2700, reason="no")
    log = grid_folder(cell.config.out) / f"{cell.id}.log"
    log.parent.mkdir(parents=True, exist_ok=True)
    log.touch()
    assert failed(cell, crashed, 2700).reason == f"no; log {log}"


@pytest.mark.parametrize("record", [None, {}, {"started": "x", "finished": None}, {"started": "2026-01-01"}])
def test_a_record_without_times_took_none(record: Any) -> None:
    assert seconds_of(record) == 0.0


def test_a_ledger_comes_back_as_it_was_written(tmp_path: Path) -> None:
    identity = {"split": "x", "numbers": (1, 2)}
    path = ledger_path(tmp_path, "digits", identity)
    ledger = Ledger(path, identity, make_plan("abc", 10, 20, Budget(images=100)), Budget(images=100))
    ledger.rungs = [
        RungKept(0, ["a", "b", "c"], 1, results=[Result("a", "done", 0.5, None, 10), Result("b", "failed")])
    ]
    ledger.ended, ledger.seconds, ledger.unfinished = "plan", 12.5, 7
    ledger.save()
    assert open_ledger(path, identity) == ledger
    assert ledger_path(tmp_path, "digits", {"split": "y"}) != path


def test_plain_words() -> None:
    assert judged_text(0.875, "top1", 240) == "87.5 % of 240 validation images right"
    assert judged_text(0.5, "macro_f1", 240) == "macro-F1 50.0 % on 240 validation images"


def test_equal_scores_in_the_end(tmp_path: Path) -> None:
    """The lower loss decides, and both are said to be tied."""
    ledger = Ledger(tmp_path / "x", {}, make_plan("ab", 10, 20, Budget(images=20)), Budget(images=20), ended="plan")
    ledger.rungs = [
        RungKept(0, ["a", "b"], 1, results=[Result("b", "done", 0.5, 0.1, 10), Result("a", "done", 0.5, 1, 10)])
    ]
    found = result_of(ledger, "ab", Budget(images=20), "top1", "plan")
    assert (found.recommendation, found.runner_up, found.told_apart, found.tied, found.p) == (
        "b",
        "a",
        False,
        ["a"],
        1.0,
    )
    assert "a, 50.0 % after 1 epoch: they can't be told apart" in "\n".join(found.lines())
