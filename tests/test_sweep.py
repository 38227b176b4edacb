"""--lr-sweep."""

import json
from pathlib import Path
from typing import Any

import pytest

from engine.errors import RunError
from engine.sweep import FACTORS
from engine.train import fit
from tests.conftest import Command, only_run

LINE = "-model tiny -bs 16 --weights none --recipe cosine --epochs 8 --lr-sweep"


def record_of(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((only_run(out) / "record.json").read_text())
    return found


def test_it_takes_what_the_selection_part_likes_best(command: Command, tmp_path: Path) -> None:
    assert command(LINE) == 0
    record = record_of(tmp_path / "runs")
    rows = record["sweep"]
    assert [row["lr"] for row in rows] == [pytest.approx(3e-4 * factor) for factor in FACTORS]
    best = max(rows, key=lambda row: (row["top1"], -row["loss"]))
    assert record["lr"] == best["lr"]
    assert record["config"]["lr"] is None
    assert record["selection"]["epochs"] == 8


def test_test_images_have_no_part_in_it(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []

    def watched(model: Any, head: Any, train: Any, select: Any, *rest: Any) -> Any:
        sizes.append((len(train.part), len(select.part)))
        assert not {name for part in (train.part, select.part) for name in part.names if name.startswith("test")}
        return fit(model, head, train, select, *rest)

    monkeypatch.setattr("engine.sweep.fit", watched)
    assert command(LINE) == 0
    assert len(sizes) == len(FACTORS)


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
        tried.append(given[4].rate)
        if len(tried) == 3:
            raise KeyboardInterrupt
        return fit(*given)

    monkeypatch.setattr("engine.sweep.fit", cut_off)
    assert command(LINE) == 130
    assert len(record_of(tmp_path / "runs")["sweep"]) == 2
    assert command(LINE) == 0
    assert len(tried) == 5
    assert tried[2] == tried[3]
    whole, resumed = record_of(tmp_path / "whole"), record_of(tmp_path / "runs")
    assert (whole["sweep"], whole["test"], whole["lr"]) == (resumed["sweep"], resumed["test"], resumed["lr"])
    assert len(resumed["resumed"]) == 1


def test_a_rate_that_diverges_is_not_taken(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def sometimes(*given: Any) -> Any:
        if given[4].rate > 1e-4:
            raise RunError("the loss became nan")
        return fit(*given)

    monkeypatch.setattr("engine.sweep.fit", sometimes)
    assert command(LINE) == 0
    record = record_of(tmp_path / "runs")
    assert [row["top1"] is None for row in record["sweep"]] == [False, False, True, True]
    assert record["lr"] < 1e-4


def test_where_every_rate_diverges_the_run_fails(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def never(*_: Any) -> Any:
        raise RunError("the loss became nan")

    monkeypatch.setattr("engine.sweep.fit", never)
    assert command(LINE) == 3
    assert "at every rate (3e-05, 9e-05, 0.0003, 0.0009)" in capsys.readouterr().err
    assert record_of(tmp_path / "runs")["status"] == "failed"
