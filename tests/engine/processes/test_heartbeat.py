"""What a run tells the process that started it, and what it is told: signs of life, stopping after an epoch."""

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from filelock import FileLock

from common import File
from engine.data.download import obtain
from engine.files import locked
from engine.paths import PROJECT
from engine.processes import heartbeat
from tests import toy
from tests.conftest import Command, only_run
from tests.server import Server

QUICK = "-model tiny -bs 16 --weights none --plan off --epochs 1"


@pytest.fixture
def beat(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file that signs of life go to, each of them."""
    monkeypatch.setenv(heartbeat.HEARTBEAT, str(tmp_path / "beat"))
    monkeypatch.setattr(heartbeat, "SECONDS", 0.0)
    return tmp_path / "beat"


def test_signs_of_life(command: Command, beat: Path) -> None:
    assert command(QUICK) == 0
    assert beat.read_text() == "test: 1 of 1 batches\n"


def test_signs_are_not_left_more_often_than_they_need_be(beat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    heartbeat.alive("first")
    monkeypatch.setattr(heartbeat, "SECONDS", 1000.0)
    heartbeat.alive("second")
    assert beat.read_text() == "first\n"
    monkeypatch.setattr(heartbeat, "SECONDS", 0.0)
    heartbeat.alive("third")
    assert beat.read_text() == "third\n"


def test_nobody_is_told_where_nobody_asks(beat: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(heartbeat.HEARTBEAT)
    heartbeat.alive("first")
    assert not beat.exists()


def test_whoever_asked_and_is_gone_harms_nothing(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(heartbeat.HEARTBEAT, str(tmp_path / "gone" / "beat"))
    assert command(QUICK) == 0


def test_asked_to_stop_it_finishes_the_epoch_and_can_be_resumed(tmp_path: Path) -> None:
    process = toy.Process("-bs 16 --weights none --plan off --epochs 400 --patience 400 --out .", tmp_path)
    deadline = time.monotonic() + 60
    while not list(tmp_path.rglob("history.csv")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send(signal.SIGUSR1)
    assert process.wait() == 130, process.problems
    assert "interrupted" in process.problems
    folder = only_run(tmp_path)
    assert json.loads((folder / "record.json").read_text())["status"] == "running"
    assert (folder / "checkpoint.pt").exists()


def test_a_request_from_before_does_not_stop_the_next_run(command: Command) -> None:
    heartbeat.install_stop_handler()
    os.kill(os.getpid(), signal.SIGUSR1)
    assert heartbeat.stop_asked_for()
    assert command(QUICK) == 0


def test_a_process_that_waits_for_another_is_alive(beat: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.files.WAIT_SECONDS", 0.01)
    lock, waited = FileLock(tmp_path / "lock"), threading.Event()

    def wait() -> None:
        with locked(tmp_path / "lock", "somebody else is at it"):
            waited.set()

    with lock:
        thread = threading.Thread(target=wait)
        thread.start()
        deadline = time.monotonic() + 30
        while not beat.exists() and time.monotonic() < deadline:
            time.sleep(0.01)
        assert beat.read_text() == "waiting for another process\n"
        assert not waited.is_set()
    thread.join(30)
    assert waited.is_set()


def test_a_download_is_alive(server: Server, beat: Path, tmp_path: Path) -> None:
    content = bytes(200_000)
    file = File("some.bin", (server.add("/some.bin", content),), f"sha256:{hashlib.sha256(content).hexdigest()}")
    (tmp_path / "data").mkdir()
    obtain(replace(toy.dataset(), files=(file,)), tmp_path / "data")
    assert beat.read_text() == "downloading\n"


@pytest.mark.skipif(sys.platform != "linux", reason="Linux alone can do that")
def test_a_process_whose_parent_has_ended_already_ends_too() -> None:
    code = (
        "import os, sys; from engine.processes.heartbeat import die_with; die_with(int(sys.argv[1])); print('goes on')"
    )
    for parent, printed, exit_code in ((os.getpid(), "goes on\n", 0), (1, "", 1)):
        done = subprocess.run([sys.executable, "-c", code, str(parent)], cwd=PROJECT, capture_output=True, text=True)
        assert (done.stdout, done.returncode) == (printed, exit_code)


@pytest.mark.parametrize(
    ("text", "seeds"), [("", 1), ("3", 3), ("0", 1), ("-2", 1), ("many", 1), ("9" * 5000, 1), ("\u0663", 3)]
)
def test_hints_of_the_process_that_started_this_one(monkeypatch: pytest.MonkeyPatch, text: str, seeds: int) -> None:
    monkeypatch.setenv(heartbeat.SEEDS, text)
    assert heartbeat.seeds_to_come() == seeds
    for shared in ("", "1"):
        monkeypatch.setenv(heartbeat.SHARED, shared)
        assert heartbeat.device_is_shared() is bool(shared)
    for name in (heartbeat.SEEDS, heartbeat.SHARED):
        monkeypatch.delenv(name)
    assert (heartbeat.seeds_to_come(), heartbeat.device_is_shared()) == (1, False)


@pytest.mark.parametrize(
    ("mark", "found"),
    [("rung 2 of 4", "rung 2 of 4"), ("", None), ("a\nb", None), ("\udcff", None), ("x" * 90, "x" * 80)],
)
def test_the_mark_of_a_search(monkeypatch: pytest.MonkeyPatch, mark: str, found: str | None) -> None:
    monkeypatch.setenv(heartbeat.SEARCH, mark)
    assert heartbeat.search_mark() == found
    monkeypatch.delenv(heartbeat.SEARCH)
    assert heartbeat.search_mark() is None
