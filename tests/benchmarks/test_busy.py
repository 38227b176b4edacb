"""Neighbours train, and are gone afterwards in every case."""

import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks import busy
from benchmarks.busy import NEIGHBOUR, neighbours, remembered
from engine.errors import RunError
from engine.paths import PROJECT

Started = list["subprocess.Popen[str]"]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Started:
    """The processes that busy.py starts."""
    processes: Started = []
    real = subprocess.Popen

    def popen(*given: object, **named: object) -> object:
        processes.append(real(*given, **named))  # type: ignore[call-overload]
        return processes[-1]

    monkeypatch.setattr(subprocess, "Popen", popen)
    return processes


def stat(process: int) -> list[str]:
    """The fields of proc(5)'s stat, from the third on; Linux alone."""
    return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()


def computed(process: int) -> int:
    """How long a process has computed so far, in the system's ticks."""
    return sum(map(int, stat(process)[11:13]))


def wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.05)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.slow
@pytest.mark.parametrize("problem", [KeyboardInterrupt, RuntimeError])
def test_neighbours_train_at_low_priority_and_end_with_the_block(
    problem: type[BaseException], started: Started
) -> None:
    def measure() -> None:
        with neighbours(2) as check:
            assert len(started) == 2
            for process in started:
                before = computed(process.pid)
                wait_for(lambda process=process, before=before: computed(process.pid) > before + 5)  # type: ignore[misc]
                assert int(stat(process.pid)[16]) == min(19, os.nice(0) + 10)
            check()
            raise problem

    with pytest.raises(problem):
        measure()
    assert all(process.poll() is not None for process in started)


def test_no_neighbours_are_as_quiet_as_none(started: Started) -> None:
    with neighbours(0) as check:
        check()
    assert started == []


def test_a_neighbour_that_does_not_begin_or_last_is_said(
    started: Started, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    script = tmp_path / "neighbour.py"
    monkeypatch.setattr(busy, "NEIGHBOUR", script)
    script.write_text("import sys; sys.exit(3)")
    with pytest.raises(RunError, match="did not begin: exit code 3"), neighbours(1):
        pass
    script.write_text("print('busy')")
    with neighbours(1) as check:
        started[-1].wait(30)
        with pytest.raises(RunError, match="ended before its time"):
            check()


ORPHANED = """
import os, subprocess, sys
child = subprocess.Popen([sys.executable, sys.argv[1], str(os.getpid())], stdout=subprocess.PIPE, text=True)
assert child.stdout.readline() == "busy\\n"
print(child.pid, flush=True)
os.kill(os.getpid(), 9)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
@pytest.mark.slow
def test_a_neighbour_ends_with_a_parent_that_was_killed() -> None:
    command = [sys.executable, "-c", ORPHANED, str(NEIGHBOUR)]
    done = subprocess.run(command, cwd=PROJECT, stdout=subprocess.PIPE, text=True)
    assert done.returncode == -9
    wait_for(lambda: not _lives(int(done.stdout)))


def _lives(process: int) -> bool:
    """Whether it is there and has not ended: who adopts it may be slow to take note."""
    try:
        return stat(process)[0] != "Z"
    except FileNotFoundError:
        return False


def test_whether_a_finding_was_remembered_is_said() -> None:
    results = {"resnet": {"plan_remembered": True}, "swin": {"plan_remembered": False}, "regnet": {}}
    assert remembered(results) == "the plan's finding: resnet remembered, swin not remembered"
    assert remembered({}) == "the plan's finding: none"
