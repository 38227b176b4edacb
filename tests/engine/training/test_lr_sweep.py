"""--lr-sweep."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.errors import DivergedError, RunError
from engine.training.loop import fit
from engine.training.lr_sweep import FACTORS
from tests.conftest import Command, only_run

LINE = "-model tiny -bs 16 --weights none --plan off --recipe cosine --epochs 8 --lr-sweep"


def record_of(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((only_run(out) / "record.json").read_text())
    return found


def without_times(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in row.items() if name != "seconds"} for row in rows]


def test_it_takes_what_is_best_on_the_validation_part(command: Command, tmp_path: Path) -> None:
    assert command(LINE) == 0
    record = record_of(tmp_path / "runs")
    rows = record["sweep"]
    assert [row["lr"] for row in rows] == [pytest.approx(3e-4 * factor) for factor in FACTORS]
    best = max(rows, key=lambda row: (row["top1"], -row["loss"]))
    assert record["lr"] == best["lr"]
    assert record["config"]["lr"] is None
    assert record["costs"]["epochs"] == 8
    # four trials of a quarter of the epochs cost as much again
    assert [row["images"] for row in rows] == [2 * 54] * 4
    assert record["costs"]["images"] == 2 * 8 * 54
    assert record["costs"]["train_seconds"] > sum(row["seconds"] for row in rows)


def test_test_images_have_no_part_in_it(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def watched(model: Any, train: Any, val: Any, *rest: Any) -> Any:
        sizes.append((len(train.part), len(val.part)))
        assert not {name for part in (train.part, val.part) for name in part.names if name.startswith("test")}
        return fit(model, train, val, *rest)

    monkeypatch.setattr("engine.training.lr_sweep.fit", watched)
    assert command(LINE) == 0
    assert sizes == [(54, 6)] * len(FACTORS)


def test_after_it_the_run_is_the_one_that_its_rate_would_have_been(command: Command, tmp_path: Path) -> None:
    """Trials leave weights and random numbers as they were."""
    assert command(f"{LINE} --out swept") == 0
    swept = record_of(tmp_path / "swept")
    assert command(f"{LINE.replace('--lr-sweep', '')} --lr {swept['lr']} --out plain") == 0
    plain = record_of(tmp_path / "plain")
    assert (swept["test"], swept["selection"]) == (plain["test"], plain["selection"])


def test_interrupted_it_tries_only_what_is_left(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command(f"{LINE} --out whole") == 0
    tried = []

    def cut_off(*given: Any) -> Any:
        tried.append(given[3].lr)
        if len(tried) == 3:
            raise KeyboardInterrupt
        return fit(*given)

    monkeypatch.setattr("engine.training.lr_sweep.fit", cut_off)
    assert command(LINE) == 130
    assert len(record_of(tmp_path / "runs")["sweep"]) == 2
    assert command(LINE) == 0
    assert len(tried) == 5
    assert tried[2] == tried[3]
    whole, resumed = record_of(tmp_path / "whole"), record_of(tmp_path / "runs")
    ends = [(without_times(record["sweep"]), record["test"], record["lr"]) for record in (whole, resumed)]
    assert ends[0] == ends[1]
    assert len(resumed["resumed"]) == 1


def test_a_rate_that_diverges_is_not_taken(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def sometimes(*given: Any) -> Any:
        if given[3].lr > 1e-4:
            raise DivergedError("the loss became nan")
        return fit(*given)

    monkeypatch.setattr("engine.training.lr_sweep.fit", sometimes)
    assert command(LINE) == 0
    record = record_of(tmp_path / "runs")
    assert [row["top1"] is None for row in record["sweep"]] == [False, False, True, True]
    assert record["lr"] < 1e-4


def test_another_failure_is_no_judgement_on_a_rate(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An image that can't be read, say: it ends the run, which goes on with the same rate when that is mended."""
    tried = []

    def broken(*given: Any) -> Any:
        tried.append(given[3].lr)
        if len(tried) == 2:
            raise RunError("an image is gone")
        return fit(*given)

    monkeypatch.setattr("engine.training.lr_sweep.fit", broken)
    assert command(LINE) == 3
    assert [row["lr"] for row in record_of(tmp_path / "runs")["sweep"]] == [tried[0]]
    assert command(LINE) == 0
    assert tried[1] == tried[2]
    assert all(row["top1"] is not None for row in record_of(tmp_path / "runs")["sweep"])


def test_asked_to_stop_it_finishes_the_trial(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr("engine.training.lr_sweep.stop_asked_for", lambda: True)
        patch.setattr("engine.training.loop.stop_asked_for", lambda: True)
        assert command(LINE) == 130
    assert len(record_of(tmp_path / "runs")["sweep"]) == 1
    assert command(LINE) == 0


def test_memory_that_a_trial_lacked_is_lacking_afterwards(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plans = []

    def short(*given: Any) -> Any:
        plans.append(given[4])
        if len(plans) == 1:
            given[5].change_plan(replace(given[4], micro_batch=8, memory="out of memory, from epoch 2 on"))
        return fit(*given)

    monkeypatch.setattr("engine.training.lr_sweep.fit", short)
    monkeypatch.setattr("engine.run.fit", short)
    assert command(LINE) == 0
    assert [plan.micro_batch for plan in plans] == [None, 8, 8, 8, 8]
    plan = record_of(tmp_path / "runs")["plan"]
    assert (plan["micro_batch"], plan["memory"]) == (8, "out of memory")


def test_where_every_rate_diverges_the_run_fails(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def never(*_: Any) -> Any:
        raise DivergedError("the loss became nan")

    monkeypatch.setattr("engine.training.lr_sweep.fit", never)
    assert command(LINE) == 3
    assert "at every learning rate (3e-05, 9e-05, 0.0003, 0.0009)" in capsys.readouterr().err
    assert record_of(tmp_path / "runs")["status"] == "failed"


def test_another_rate_to_begin_with_is_another_run(
    command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The record has the rate that a sweep chose in place of the one it began with."""
    assert command(LINE) == 0
    assert command(f"{LINE} --lr 0.001") == 0
    assert "epoch  stage" in capsys.readouterr().out.rpartition("record ")[0].rpartition("backbone")[2]
    records = [json.loads(path.read_text("utf-8")) for path in (tmp_path / "runs").rglob("record.json")]
    assert sorted(record["config"]["lr"] or 0 for record in records) == [0, 0.001]
    assert {record["status"] for record in records} == {"done"}
