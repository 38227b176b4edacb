"""The published way of training, and the process that it has for itself."""

import copy
import multiprocessing
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

import benchmarks.plain
from benchmarks.plain import Apart, plain_model, reason_of, serve
from engine.errors import RunError, UserError
from engine.paths import PROJECT
from tests.conftest import SHARED

DRY_CARD = SHARED / "drycard" / "drycard"


def test_the_packages_wavelets_are_where_the_model_is(monkeypatch: pytest.MonkeyPatch) -> None:
    plain_model("wavemix", "cpu")  # imports the package
    package = sys.modules["wavemix"]
    names = ("xf1", "xf2", "xf3", "xf4")
    for name in names:
        monkeypatch.setattr(package, name, copy.deepcopy(getattr(package, name)))
    model = plain_model("wavemix", "meta")
    filters = [buffer for name in names for buffer in getattr(package, name).buffers()]
    assert len(filters) == 16
    assert {tensor.device.type for tensor in [*filters, *model.parameters()]} == {"meta"}
    assert model(torch.empty(2, 3, 64, 64, device="meta")).shape == (2, 101)


ON_A_CARD = """
import torch
from benchmarks.plain import plain_model
plain_model("wavemix", "cuda")(torch.randn(2, 3, 64, 64, device="cuda")).sum().backward()
print(torch.cuda.get_device_name())
"""


@pytest.mark.skipif(not DRY_CARD.is_file(), reason="needs the card that computes nothing")
def test_wavemix_trains_on_a_card(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTHON", sys.executable)
    monkeypatch.delenv("XDG_CACHE_HOME")  # where it was built
    if subprocess.run([str(DRY_CARD), "true"], cwd=PROJECT, capture_output=True).returncode:
        pytest.skip("the card that computes nothing can't be built here")
    command = [str(DRY_CARD), sys.executable, "-c", ON_A_CARD]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True)
    assert done.stdout.startswith("Dry"), done.stderr


def test_a_process_that_fails_says_why_and_one_that_ends_says_that(tmp_path: Path) -> None:
    with Apart("no-such-backbone", tmp_path, 32, 2, 1, "cpu") as apart:
        for column in ("plain", "step"):
            with pytest.raises(RunError, match="no-such-backbone"):
                apart.measure(column)
        assert apart.peak_memory_mib() is None
        apart.process.kill()
        for column in ("plain", "step"):
            with pytest.raises(RunError, match="its process ended with exit code -9"):
                apart.measure(column)
        assert apart.peak_memory_mib() is None
    assert apart.process.exitcode == -9


class HalfBroken:
    """Stands for Plain: its loader fails, its step does not."""

    def __init__(self, name: str) -> None:
        self.name = name

    def answer(self, asked: str) -> float:
        if asked == "plain":
            raise MemoryError(f"no memory for {self.name}\nat all")
        return 2.0


def test_a_column_that_fails_is_answered_as_its_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(benchmarks.plain, "Plain", HalfBroken)
    monkeypatch.setattr(multiprocessing, "set_start_method", lambda *_, **__: None)
    here, there = multiprocessing.Pipe()
    server = threading.Thread(target=serve, args=(there, "resnet"))
    server.start()
    answers: list[Any] = []
    for asked in ("plain", "step", "plain"):
        here.send(asked)
        assert here.poll(30)
        answers.append(here.recv())
    here.send(None)
    server.join(30)
    assert not server.is_alive()
    assert answers == ["MemoryError: no memory for resnet", 2.0, "MemoryError: no memory for resnet"]


def test_a_server_ends_when_the_other_end_is_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multiprocessing, "set_start_method", lambda *_, **__: None)
    here, there = multiprocessing.Pipe()
    here.close()
    serve(there, "resnet")


def test_a_reason_is_a_line() -> None:
    assert reason_of(RuntimeError("CUDA out of memory\nTry this")) == "RuntimeError: CUDA out of memory"
    assert reason_of(StopIteration()) == "StopIteration"
    assert reason_of(UserError("It is not there. Install it:\n  pip install it")) == (
        "It is not there. Install it: pip install it"
    )
