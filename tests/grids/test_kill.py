"""A grid that is killed twenty times ends as one that was left alone: every cell done once, with the same numbers."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from engine.paths import PROJECT

KILLS = 20
CELLS = 3 * 3 * 3 * 2
LINE = (
    "--datasets digits eurosat cifar10 --models shufflenet mobilenet resnet --seeds 0-2 --shots 4 8 --epochs 1 "
    "--size 32 --weights none --plan off -bs 16 --device cpu --allow-partial --cache-dir cache"
)


def start(folder: Path, data: Path) -> subprocess.Popen[bytes]:
    """One grid in `folder`, which holds its records and its decoded images."""
    folder.mkdir(exist_ok=True)
    with (folder / "printed.txt").open("ab") as printed:
        return subprocess.Popen(
            [sys.executable, PROJECT / "grid.py", *LINE.split(), "--data-dir", data],
            cwd=folder,
            stdout=printed,
            stderr=subprocess.STDOUT,
            env={**os.environ, "OMP_NUM_THREADS": "1"},  # two grids at a time, on as little as two cores
        )


def outcomes(folder: Path) -> dict[tuple[Any, ...], Any]:
    """By cell: what must be equal."""
    found = {}
    for path in (folder / "runs").glob("*/*/*/record.json"):
        record = json.loads(path.read_text())
        config = record["config"]
        assert record["status"] == "done", path
        cell = (record["dataset"]["key"], config["model"], config["seed"], config["shots"])
        assert cell not in found, f"{cell} was done twice"
        found[cell] = {"run": record["run"], "test": record["test"], "selection": record["selection"]}
    return found


@pytest.mark.slow
@pytest.mark.timeout(5400)
def test_killed_twenty_times_every_cell_ends_done_once_with_the_same_numbers(tmp_path: Path, shared_data: Path) -> None:
    alone, disturbed = tmp_path / "alone", tmp_path / "disturbed"
    undisturbed = start(alone, shared_data)
    moments = random.Random(20)
    for kill in range(KILLS):
        process = start(disturbed, shared_data)
        time.sleep(moments.uniform(2, 40))
        assert process.poll() is None, f"it ended before kill {kill + 1}: {(disturbed / 'printed.txt').read_text()}"
        process.send_signal(signal.SIGKILL)
        process.wait()
    last = start(disturbed, shared_data)
    assert last.wait() == 0, (disturbed / "printed.txt").read_text()
    assert undisturbed.wait() == 0, (alone / "printed.txt").read_text()
    check(alone, disturbed)


def check(alone: Path, disturbed: Path) -> None:
    """That the one grid has come to the same as the other, though its kills hit cells at work."""
    expected = outcomes(alone)
    assert len(expected) == CELLS
    assert outcomes(disturbed) == expected
    logs = sorted((disturbed / "runs" / "grid").glob("*.log"))
    assert len(logs) == CELLS
    for log in logs:  # a cell that had been done already would have said its result again
        assert log.read_text().count(" test images: ") == 1, log
    assert not list((disturbed / "runs" / "grid").glob("*.json"))
    # every start of a cell's process leaves such a line; a kill while the grid itself starts costs none
    hits = sum(log.read_text().count("$ python ") - 1 for log in logs)
    assert hits >= KILLS // 2, "the kills hit no cells"
