"""What is done, what failed and what another grid is at."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import pytest

from grids.images import split_of
from grids.ledger import (
    REASON_LETTERS,
    all_records,
    by_key,
    clear_leftovers,
    failure_now,
    grid_folder,
    keep_failure,
    make_folder,
    mark_retried,
    shortened,
    standing,
    standing_now,
    take,
)
from tests.grids.cells import cells, record_of, write


def test_what_is_done(tmp_path: Path) -> None:
    (cell,) = cells("--datasets digits --models resnet")
    make_folder(cell.config.out)
    assert standing_now(cell).status == "new"
    others = [
        record_of(cell, dataset=record_of(cell)["dataset"] | change)
        for change in ({"key": "eurosat"}, {"version": "0"}, {"partial": True})
    ]
    others += [
        record_of(cell, config=cell.config.settings() | change)
        for change in ({"model": "swin"}, {"seed": 1}, {"batch_size": 8}, {"size": [32, 32]}, {"shots": 5})
    ]
    for number, record in enumerate(others):
        write(cell, record, str(number))
    assert standing_now(cell).status == "new"
    write(cell, record_of(cell, "running"), "own")
    assert standing_now(cell).status == "interrupted"
    keep_failure(cell, failure_now(cell, 3, "no memory", ["a"]))
    assert standing_now(cell).status == "failed"
    (path,) = (tmp_path / "runs" / "grid").glob("*.json")
    kept = json.loads(path.read_text())
    assert kept.keys() == {
        *("cell", "dataset", "model", "seed", "budget", "exit_code", "reason", "tail", "at", "command", "retried")
    }
    assert path.stem == kept["cell"] == cell.id
    settings = cell.config.settings() | {"data_dir": "elsewhere", "out": "other", "no_cache": True}
    write(cell, record_of(cell, config=settings), "finished")
    assert standing_now(cell).status == "done"


def test_a_retry_that_was_cut_off_goes_on_by_itself() -> None:
    """The script has not got as far as to say that it runs: its record still says "failed"."""
    (cell,) = cells("--datasets digits --models resnet")
    make_folder(cell.config.out)
    write(cell, record_of(cell, "failed", error="RunError: the loss"), "own")
    failure = failure_now(cell, 3, "the loss", [])
    keep_failure(cell, failure)
    assert standing_now(cell).status == "failed"
    mark_retried(cell, failure)
    assert standing_now(cell).status == "interrupted"


@pytest.mark.parametrize(
    "harm",
    [{"reason": None}, {"reason": [5]}, {"tail": 5}, {"tail": None}, {"tail": ["a", None]}, {"more": 1}],
    ids=str,
)
def test_a_failure_that_is_damaged_is_none(harm: dict[str, Any]) -> None:
    """It ended the whole grid, in its summary: the cell is tried again."""
    (cell,) = cells("--datasets digits --models resnet")
    make_folder(cell.config.out)
    keep_failure(cell, failure_now(cell, 3, "the loss", ["a"]))
    (path,) = grid_folder(cell.config.out).glob("*.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | harm))
    assert standing_now(cell).status == "new"


@pytest.mark.parametrize(
    "content", [b"[" * 100_000, b"null", b"[1]", b'"x"', b"", b"\xff", b'{"cell": "' + b"x" * (2 << 20)]
)
def test_a_failure_that_is_none_of_a_grid(content: bytes) -> None:
    (cell,) = cells("--datasets digits --models resnet")
    make_folder(cell.config.out)
    (grid_folder(cell.config.out) / f"{cell.id}.json").write_bytes(content)
    assert standing_now(cell).status == "new"


def test_pipes_in_the_place_of_a_failure_and_a_lock_are_not_waited_for() -> None:
    (cell,) = cells("--datasets digits --models resnet")
    make_folder(cell.config.out)
    for name in ("json", "lock"):
        os.mkfifo(grid_folder(cell.config.out) / f"{cell.id}.{name}")
    assert standing_now(cell).status == "new"
    held = take(cell)
    assert held is not None
    assert take(cell) is None
    os.close(held)


@pytest.mark.parametrize(
    ("harm", "reason"),
    [
        ({"test": None}, "lacks test"),
        ({"test": {"top1": 0.5}}, "KeyError: 'images'"),
        ({"test": {"top1": 0.5, "images": "many"}}, "ValueError"),
        ({"backbone": {"name": "resnet"}}, "KeyError: 'weights_run'"),
        ({"config": {"model": "resnet"}}, "KeyError: 'recipe'"),
    ],
    ids=str,
)
def test_nothing_is_done_by_a_record_that_cannot_be_read(harm: dict[str, Any], reason: str) -> None:
    (cell,) = cells("--datasets digits --models resnet")
    record: dict[str, Any] = {**record_of(cell), **harm}
    write(cell, record)  # type: ignore[arg-type]
    assert standing_now(cell).status == "new"
    damaged: list[str] = []
    assert all_records(cell.config.out, damaged) == []
    (line,) = damaged
    assert line.startswith("runs/digits/resnet/honest-seed0-x/record.json: ")
    assert reason in line


def test_what_a_record_says_of_its_failure_is_shortened() -> None:
    (cell,) = cells("--datasets digits --models resnet")
    failure = standing(cell, [record_of(cell, "failed", error="x" * 10_000_000)]).failure
    assert failure is not None
    assert len(failure.reason) == REASON_LETTERS
    assert shortened("one two, three", 12) == "one two..."
    assert shortened("one two", 7) == "one two"


def test_a_weights_file_that_changed_is_another_run(tmp_path: Path) -> None:
    weights = tmp_path / "some.pt"
    weights.write_bytes(b"first")
    (cell,) = cells(f"--datasets digits --models resnet --weights {weights}")
    make_folder(cell.config.out)
    backbone = record_of(cell)["backbone"] | {"weights_sha256": hashlib.sha256(b"first").hexdigest()}
    write(cell, record_of(cell, backbone=backbone), "own")
    assert standing_now(cell).status == "done"
    write(cell, record_of(cell, backbone=backbone | {"weights_sha256": "0" * 64}), "own")
    assert standing_now(cell).status == "new"


def test_a_record_that_lacks_a_newer_flag_had_its_default() -> None:
    (cell,) = cells("--datasets digits --models resnet")
    settings = {name: value for name, value in cell.config.settings().items() if name != "shots"}
    assert standing(cell, by_key([record_of(cell, config=settings)]).get(cell.key, ())).status == "done"


def test_partial_data_count_where_they_were_asked_for() -> None:
    (cell,) = cells("--datasets digits --models resnet --allow-partial")
    partial = {**record_of(cell)["dataset"], "partial": True}
    assert standing(cell, [record_of(cell, dataset=partial | {"split": split_of(cell)})]).status == "done"
    for other in ({}, {"split": "0" * 64}):
        now = standing(cell, [record_of(cell, dataset=partial | other)])
        assert (now.status, now.other_images) == ("new", True)


def test_a_run_that_failed_without_a_grid() -> None:
    (cell,) = cells("--datasets digits --models resnet")
    now = standing(cell, [record_of(cell, "failed", error="RunError: nan")])
    assert now.status == "failed"
    assert now.failure is not None
    assert now.failure.reason == "RunError: nan"


def test_a_cell_is_taken_once() -> None:
    (cell,) = cells("--datasets digits --models resnet")
    make_folder(cell.config.out)
    held = take(cell)
    assert held is not None
    assert take(cell) is None
    os.close(held)
    again = take(cell)
    assert again is not None
    os.close(again)


def test_what_killed_grids_left_is_removed_but_for_cells_that_somebody_is_at(tmp_path: Path) -> None:
    folder = tmp_path / "grid"
    folder.mkdir()
    names = [name.format(cell) for cell in ("dead", "alive") for name in (".{}.json.12.tmp", "{}.heartbeat", "{}.json")]
    for name in names:
        (folder / name).touch()
    with (folder / "alive.lock").open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        clear_leftovers(tmp_path)
    left = {path.name for path in folder.iterdir() if path.suffix != ".lock"}
    assert left == {"dead.json", ".alive.json.12.tmp", "alive.heartbeat", "alive.json"}
