"""grid.py --slurm with real runs on a Slurm of this machine's own, which `make slurm` starts."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from engine.paths import PROJECT

pytestmark = [
    pytest.mark.skipif(
        os.environ.get("SLURM_CONF") != str(PROJECT / "build" / "slurm" / "slurm.conf"),
        reason="needs a Slurm of its own: make slurm",
    ),
    pytest.mark.timeout(1200),
]
# each cell asks for one of the two GPUs, which PyTorch does not find there
LINE = "--datasets digits --epochs 1 --size 32 --weights none --plan off -bs 64"
OPTIONS = "--slurm=--cpus-per-task=1 --comment='of a test'"


class Collector:
    """One grid.py in `folder`, which submits and collects."""

    def __init__(self, folder: Path, more: str) -> None:
        folder.mkdir(exist_ok=True)
        self._printed = folder / "printed.txt"
        with self._printed.open("ab") as printed:
            self.process = subprocess.Popen(
                [sys.executable, PROJECT / "grid.py", *LINE.split(), *more.split(), OPTIONS],
                cwd=folder,
                stdout=printed,
                stderr=subprocess.STDOUT,
            )

    @property
    def printed(self) -> str:
        return self._printed.read_text()

    def wait(self) -> int:
        return self.process.wait(900)

    def wait_for(self, text: str, count: int = 1) -> None:
        wait_for(lambda: self.printed.count(text) >= count or self.process.poll() is not None)
        assert self.printed.count(text) >= count, self.printed


def wait_for(condition: Callable[[], object], seconds: float = 600.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.2)


def records(folder: Path) -> list[Any]:
    return [json.loads(path.read_text()) for path in folder.glob("runs/*/*/*/record.json")]


def starts(folder: Path) -> list[int]:
    """How often each cell's process was started."""
    return [path.read_text().count("$ python ") for path in folder.glob("runs/grid/*.log")]


def jobs(folder: Path) -> list[str]:
    return [path.stem for path in folder.glob("runs/grid/slurm/*.sh")]


def queue(folder: Path, states: str) -> list[str]:
    """Tasks of the folder's jobs in these states."""
    line = [
        "squeue",
        "--noheader",
        "--array",
        f"--states={states}",
        f"--name={','.join(jobs(folder))}",
        "--format=%F_%K",
    ]
    return subprocess.run(line, capture_output=True, text=True, check=True).stdout.split()


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / 'it\'s a "place" of 100%a'


def test_an_array_job_of_eight_cells(folder: Path) -> None:
    more = "--models shufflenet mobilenet --seeds 0-3"
    collector = Collector(folder, more)
    assert collector.wait() == 0, collector.printed
    assert collector.printed.splitlines()[-1] == "8 of 8 cells done, 0 failed, 0 left"
    assert [record["status"] for record in records(folder)] == ["done"] * 8
    assert starts(folder) == [1] * 8
    (job,) = jobs(folder)
    assert "#SBATCH --gres=gpu:1\n" in (folder / "runs" / "grid" / "slurm" / f"{job}.sh").read_text()
    again = Collector(folder, more)
    assert again.wait() == 0
    assert starts(folder) == [1] * 8


def test_a_collector_that_is_killed_leaves_the_job_to_the_next(folder: Path) -> None:
    more = "--models shufflenet --seeds 0-3"
    killed = Collector(folder, more)
    killed.wait_for("started ")
    killed.process.send_signal(signal.SIGKILL)
    killed.wait()
    time.sleep(1)
    assert queue(folder, "PENDING,RUNNING")
    left = Collector(folder, more)
    left.wait_for("in Slurm's queue, or at work there, already")
    left.process.send_signal(signal.SIGTERM)
    assert left.wait() == 130
    assert "Slurm's tasks go on without this process" in left.printed
    last = Collector(folder, more)
    assert last.wait() == 0, last.printed
    assert starts(folder) == [1] * 4
    assert len(jobs(folder)) == 1


def test_ctrl_c_stops_politely_and_the_same_command_goes_on(folder: Path) -> None:
    more = "--models shufflenet --seeds 0-2 --epochs 50 --patience 50"
    stopped = Collector(folder, more)
    wait_for(lambda: list(folder.glob("runs/*/*/*/checkpoint.pt")))
    stopped.process.send_signal(signal.SIGINT)
    assert stopped.wait() == 130, stopped.printed
    assert queue(folder, "PENDING,RUNNING") == []
    assert {record["status"] for record in records(folder)} == {"running"}
    assert "0 of 3 cells done, 0 failed, 3 left" in stopped.printed
    again = Collector(folder, more)
    again.wait_for("started ")
    wait_for(lambda: any(record["resumed"] for record in records(folder)))
    (task, *_) = queue(folder, "RUNNING")
    subprocess.run(["scancel", task], check=True)
    again.wait_for("stopped ", 4)
    again.process.send_signal(signal.SIGINT)
    again.process.send_signal(signal.SIGINT)
    assert again.wait() == 130
    assert queue(folder, "PENDING,RUNNING") == []


def test_a_mistake_and_its_siblings(folder: Path) -> None:
    """A photo that can't be read costs its own dataset's cell; once it is mended, that alone is run."""
    random = np.random.default_rng(1)
    for part, count in (("train", 12), ("test", 4)):
        for label in ("cat", "dog"):
            (folder / "photos" / part / label).mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 256, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / "photos" / part / label / f"{number}.png")
    photo = folder / "photos" / "train" / "cat" / "3.png"
    whole = photo.read_bytes()
    photo.write_bytes(whole[:60])
    more = "--datasets folder:photos --models shufflenet"
    failed = Collector(folder, more)
    assert failed.wait() == 3, failed.printed
    assert "1 of 2 cells done, 1 failed, 0 left" in failed.printed
    assert "train/cat/3.png: image file is truncated" in failed.printed
    photo.write_bytes(whole)
    mended = Collector(folder, more)
    assert mended.wait() == 0, mended.printed
    assert sorted(starts(folder)) == [1, 2]
    assert len(jobs(folder)) == 2
