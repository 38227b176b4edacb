"""A process that waits for others which do not come."""

from __future__ import annotations

import signal
import time
from pathlib import Path
from unittest import mock

import pytest

from engine.processes import arrival
from tests import toy
from tests.engine.processes.test_peers import QUICK, SECONDS, places


def hasty() -> None:
    arrival.QUIET = 0.5


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_says_what_it_waits_for_and_hears_a_signal(number: signal.Signals, tmp_path: Path) -> None:
    left_over = places(4)[1] | {"LOCAL_RANK": "0", "TORCHELASTIC_USE_AGENT_STORE": "False"}
    left_over["MASTER_PORT"] = "1"  # where nobody listens
    with mock.patch.dict("os.environ", left_over):
        alone = toy.Process(QUICK, tmp_path, first=hasty)
    problems, end = tmp_path / "problems.txt", time.monotonic() + SECONDS
    while not (problems.exists() and "waiting for 3 other processes of this run" in problems.read_text()):
        assert alone.runs
        assert time.monotonic() < end
        time.sleep(0.05)
    assert "unset RANK WORLD_SIZE" in alone.problems
    alone.send(number)
    assert alone.wait(10) == -number
    assert not (tmp_path / "runs").exists()
