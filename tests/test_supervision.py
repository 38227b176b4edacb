"""What a run tells whoever supervises it, and what it is told: signs of life, stopping after an epoch, events."""

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
from engine import heartbeat as supervision
from engine.data.download import obtain
from engine.files import locked
from tests import toy
from tests.conftest import Command, only_run
from tests.server import Server


def test_signs_of_life(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    beat = tmp_path / "beat"
    monkeypatch.setenv(supervision.HEARTBEAT, str(beat))
    monkeypatch.setattr("engine.heartbeat.SECONDS", 0.0)
    assert command("-model tiny -bs 16 --weights none --epochs 1") == 0
    assert beat.read_text() == "test: 1 of 1 batches\n"


def test_no_more_than_one_a_second(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    beat = tmp_path / "beat"
    monkeypatch.setenv(supervision.HEARTBEAT, str(beat))
    monkeypatch.setattr("engine.heartbeat._last_sign", -1.0)
    supervision.alive("first")
    supervision.alive("second")
    assert beat.read_text() == "first\n"


def test_a_supervisor_that_is_gone_harms_nothing(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(supervision.HEARTBEAT, str(tmp_path / "gone" / "beat"))
    assert command("-model tiny -bs 16 --weights none --epochs 1") == 0


def test_asked_to_stop_it_finishes_the_epoch_and_can_be_resumed(tmp_path: Path) -> None:
    line = f"-model tiny -bs 16 --weights none --epochs 400 --patience 400 --out {tmp_path}"
    process = subprocess.Popen(
        [sys.executable, toy.__file__, *line.split()], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    deadline = time.monotonic() + 60
    while not list(tmp_path.rglob("history.csv")) and time.monotonic() < deadline:
        time.sleep(0.01)
    process.send_signal(signal.SIGUSR1)
    _, problem = process.communicate(timeout=60)
    assert process.returncode == 130, problem
    assert "interrupted" in problem
    folder = only_run(tmp_path)
    assert json.loads((folder / "record.json").read_text())["status"] == "running"
    assert (folder / "checkpoint.pt").exists()


def test_a_request_from_before_does_not_stop_the_next_run(command: Command) -> None:
    supervision.install_stop_handler()
    os.kill(os.getpid(), signal.SIGUSR1)
    assert supervision.stop_asked_for()
    assert command("-model tiny -bs 16 --weights none --epochs 1") == 0


def test_events_for_tensorboard(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written epoch by epoch, and whole again after an interruption."""
    loader = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    line = "-model tiny -bs 16 --weights none --epochs 3 --tensorboard"
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
    scores = [float(row.split(",")[history[0].split(",").index("select_top1")]) for row in history[1:]]
    found = events.Scalars("select_top1")
    assert [event.step for event in found] == [1, 2, 3, 4, 5, 6]
    assert [event.value for event in found] == pytest.approx(scores)


def test_without_the_package_the_line_to_install_it_is_given(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    assert command("-model tiny -bs 16 --weights none --tensorboard") == 2
    assert "pip install 'tensorboard>=2.16'" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


def test_a_process_that_waits_for_another_is_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    beat = tmp_path / "beat"
    monkeypatch.setenv(supervision.HEARTBEAT, str(beat))
    monkeypatch.setattr("engine.heartbeat._last_sign", -1.0)
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


def test_a_download_is_alive(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    beat = tmp_path / "beat"
    monkeypatch.setenv(supervision.HEARTBEAT, str(beat))
    monkeypatch.setattr("engine.heartbeat._last_sign", -1.0)
    content = bytes(200_000)
    file = File("some.bin", (server.add("/some.bin", content),), f"sha256:{hashlib.sha256(content).hexdigest()}")
    obtain(replace(toy.dataset(), files=(file,)), tmp_path / "data")
    assert beat.read_text() == "downloading\n"
