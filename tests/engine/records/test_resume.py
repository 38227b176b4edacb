"""An interrupted run, continued, ends as if nothing had happened: killed for real, in processes of their own."""

import csv
import errno
import json
import os
import re
import signal
import struct
import time
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

from engine.errors import UserError
from engine.files import atomic, write_json
from engine.records.checkpoint import read_checkpoint
from engine.training.loop import fit
from engine.training.state import State
from tests import toy
from tests.conftest import Command, only_run
from tests.engine.records.kept import content

TIMES = {"seconds", "images_per_second", "compute_images_per_second", "data_wait_share"}
LONG = "-bs 8 --weights none --epochs 40 --patience 40 --precision bf16 --plan off --out ."
QUICK = "-model tiny -bs 16 --weights none --epochs 2 --plan off"


def finished_epochs(out: Path) -> int:
    histories = list(out.rglob("history.csv"))
    return len(histories[0].read_text().splitlines()) - 1 if histories else 0


def end_when(process: toy.Process, out: Path, epochs: int, how: signal.Signals, delay: float) -> int:
    """Wait until `epochs` are finished, and `delay` seconds longer; then send the signal. Returns the exit code."""
    deadline = time.monotonic() + 120
    while finished_epochs(out) < epochs and process.runs:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    time.sleep(delay)
    process.send(how)
    return process.wait()


def outcome(out: Path) -> dict[str, Any]:
    """Everything that must be equal, bit for bit."""
    folder = only_run(out)
    record = json.loads((folder / "record.json").read_text())
    assert record["status"] == "done"
    with (folder / "history.csv").open() as file:
        history = [{key: value for key, value in row.items() if key not in TIMES} for row in csv.DictReader(file)]
    weights = torch.load(folder / "checkpoint.pt", weights_only=True)["model"]
    with np.load(folder / "predictions.npz") as predictions:
        arrays = {name: predictions[name].tobytes() for name in predictions}
    return {
        "id": record["run"],
        "selection": record["selection"],
        "test": record["test"],
        "calibration": record["calibration"],
        "history": history,
        "weights": {name: value.numpy().tobytes() for name, value in weights.items()},
        "predictions": arrays,
    }


def cut_off_before_test(command: Command) -> None:
    """All epochs of QUICK are trained, and test is not scored."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.run.predict", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt()))
        assert command(QUICK) == 130


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    out = tmp_path_factory.mktemp("undisturbed")
    process = toy.Process(LONG, out)
    assert process.wait() == 0, process.problems
    assert process.printed
    return outcome(out)


@pytest.mark.parametrize("most_lost", [0.0, 0.04], ids=["each", "some"])
def test_killed_again_and_again_it_ends_with_the_same_bits(
    undisturbed: dict[str, Any], tmp_path: Path, most_lost: float
) -> None:
    """Early and late in stage 1, at its end, and in stage 2; between and inside epochs and saves.

    Each epoch is saved, or about each tenth.
    """
    for epochs, delay in ((1, 0.0), (12, 0.013), (39, 0.007), (40, 0.0), (45, 0.017)):
        process = toy.Process(LONG, tmp_path, most_lost=most_lost)
        code = end_when(process, tmp_path, epochs, signal.SIGKILL, delay)
        assert code == -signal.SIGKILL, "it finished before it could be killed"
        record = json.loads((only_run(tmp_path) / "record.json").read_text())
        assert record["status"] == "running"
    process = toy.Process(LONG, tmp_path, most_lost=most_lost)
    assert process.wait() == 0, process.problems
    assert "goes on from where it was" in process.printed
    assert any(line.endswith(" -") for line in process.printed.splitlines()) == (most_lost > 0)  # not saved
    assert outcome(tmp_path) == undisturbed


def test_interrupted_politely_it_says_so_and_resumes(undisturbed: dict[str, Any], tmp_path: Path) -> None:
    for how, epochs in ((signal.SIGINT, 3), (signal.SIGTERM, 20)):
        process = toy.Process(LONG, tmp_path)
        assert end_when(process, tmp_path, epochs, how, 0.0) == 130
        assert "error: interrupted." in process.problems
        assert json.loads((only_run(tmp_path) / "record.json").read_text())["status"] == "running"
        assert not list(tmp_path.rglob("*.tmp"))
    assert toy.Process(LONG, tmp_path).wait() == 0
    assert outcome(tmp_path) == undisturbed


def test_the_same_seed_twice_gives_the_same_bits(undisturbed: dict[str, Any], tmp_path: Path) -> None:
    assert toy.Process(LONG, tmp_path).wait() == 0
    assert outcome(tmp_path) == undisturbed


def test_cut_off_between_checkpoint_and_record_only_test_is_left(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_off(path: Path, content: Any) -> None:
        if content.get("status") == "done":
            raise KeyboardInterrupt
        write_json(path, content)

    with monkeypatch.context() as patch:
        patch.setattr("engine.records.run_folder.write_json", cut_off)
        assert command(QUICK) == 130
    assert command(QUICK) == 0
    resumed = outcome(tmp_path / "runs")
    command(f"{QUICK} --out other")
    assert outcome(tmp_path / "other") == resumed


@contextmanager
def failing(problem: BaseException, path: Path, previous: Path | None = None) -> Iterator[Any]:
    """atomic(), of a file that can't be written."""
    with atomic(path, previous) as file:

        def write(_: bytes) -> int:
            raise problem

        yield SimpleNamespace(write=write, flush=file.flush)


@pytest.mark.parametrize(
    ("problem", "code", "says"),
    [
        (KeyboardInterrupt(), 130, "error: interrupted"),
        (OSError(errno.ENOSPC, "No space left on device"), 3, r"no space left on device\. .*: make room, and the same"),
        (OSError(errno.EIO, "Input/output error"), 3, r"input/output error\. .*: once that is mended, the same"),
        (
            OSError(errno.EROFS, "Read-only file system"),
            3,
            r"read-only file system\. .*: once that is mended, the same",
        ),
    ],
    ids=["interrupted", "full", "broken", "read-only"],
)
def test_what_stops_a_save_is_said(
    command: Command, tmp_path: Path, capsys: Any, problem: BaseException, code: int, says: str
) -> None:
    """PyTorch's writer says "unexpected pos 53304640 vs 53304532" of them all."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.records.checkpoint.atomic", partial(failing, problem))
        assert command(QUICK) == code
    assert re.search(says, capsys.readouterr().err)
    status = json.loads((only_run(tmp_path / "runs") / "record.json").read_text())["status"]
    assert status == ("running" if code == 130 else "failed")
    assert command(QUICK) == 0


def test_what_a_kill_left_of_a_file_is_removed(command: Command, tmp_path: Path) -> None:
    cut_off_before_test(command)
    left = only_run(tmp_path / "runs") / ".checkpoint.pt.123.tmp"
    left.write_bytes(b"half")
    assert command(QUICK) == 0
    assert not left.exists()
    record = json.loads((only_run(tmp_path / "runs") / "record.json").read_text())
    assert len(record["resumed"]) == 1


def test_a_resume_computes_with_the_threads_that_it_began_with(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads = torch.get_num_threads()
    try:
        with monkeypatch.context() as patch:
            patch.setattr("engine.training.plan.usable_threads", lambda: 2)
            cut_off_before_test(command)
        torch.set_num_threads(1)
        assert command(QUICK) == 0
        assert torch.get_num_threads() == 2
        assert json.loads((only_run(tmp_path / "runs") / "record.json").read_text())["plan"]["threads"] == 2
    finally:
        torch.set_num_threads(threads)


def flipped(path: Path) -> Iterator[tuple[str, bytes]]:
    """The names of the entries of a ZIP archive, and the archive with one bit of that entry flipped."""
    whole = path.read_bytes()
    with zipfile.ZipFile(path) as archive:
        for number, entry in enumerate(archive.infolist()):
            lengths = struct.unpack_from("<HH", whole, entry.header_offset + 26)  # of name and extra field
            start = entry.header_offset + 30 + sum(lengths)
            place = start + 7 * number % max(entry.file_size, 1)
            if entry.file_size:
                yield entry.filename, whole[:place] + bytes([whole[place] ^ 1 << number % 8]) + whole[place + 1 :]


def test_a_flipped_bit_is_never_trained_on(command: Command, tmp_path: Path, capsys: Any) -> None:
    """torch.load would take one in a weight, or in how many epochs there were, as another number."""
    cut_off_before_test(command)
    path = only_run(tmp_path / "runs") / "checkpoint.pt"
    path.with_name("checkpoint.previous.pt").unlink()
    whole, damaged = path.read_bytes(), list(flipped(path))
    assert len(damaged) > 20
    for name, harmed in damaged:
        path.write_bytes(harmed)
        with pytest.raises(UserError, match=rf"its entry {name} is damaged\)\.\nStart the run over with --rerun"):
            read_checkpoint(path.parent, ())
    capsys.readouterr()
    assert command(QUICK) == 2
    assert "is damaged" in capsys.readouterr().err
    path.write_bytes(whole)
    assert command(QUICK) == 0


def test_nor_in_weights(command: Command, tmp_path: Path, capsys: Any) -> None:
    assert command(QUICK) == 0
    path = only_run(tmp_path / "runs") / "checkpoint.pt"
    for name, harmed in flipped(path):
        Path("damaged.pt").write_bytes(harmed)
        assert command(f"{QUICK.replace('none', 'damaged.pt')} --out other") == 2
        assert f"its entry {name} is damaged" in capsys.readouterr().err
    # what was written without checksums can't be told from what is whole
    before = torch.serialization.get_crc32_options()
    torch.serialization.set_crc32_options(False)
    try:
        torch.save(torch.load(path, weights_only=True), "unsummed.pt")
    finally:
        torch.serialization.set_crc32_options(before)
    assert command(f"{QUICK.replace('none', 'unsummed.pt')} --out other") == 0


@pytest.mark.parametrize("content", [b"", [1], {"model": {}}, {"state": {}}])
def test_a_broken_checkpoint_is_named_and_rerun_mends_it(
    command: Command, tmp_path: Path, capsys: Any, content: Any
) -> None:
    cut_off_before_test(command)
    checkpoint = only_run(tmp_path / "runs") / "checkpoint.pt"
    checkpoint.with_name("checkpoint.previous.pt").unlink()
    if isinstance(content, bytes):
        checkpoint.write_bytes(content)
    else:
        torch.save(content, checkpoint)
    capsys.readouterr()
    assert command(QUICK) == 2
    message = capsys.readouterr().err
    assert "checkpoint.pt" in message
    assert "--rerun" in message
    assert command(f"{QUICK} --rerun") == 0


def test_a_resume_keeps_the_plan(command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Even where today's choice would be another: mixing precisions would be neither run."""
    with monkeypatch.context() as patch:
        patch.setattr("engine.training.plan.cpu_has_bf16", lambda _: False)
        cut_off_before_test(command)
    monkeypatch.setattr("engine.training.plan.cpu_has_bf16", lambda _: True)
    assert command(QUICK) == 0
    plan = json.loads((only_run(tmp_path / "runs") / "record.json").read_text())["plan"]
    assert plan["precision"] == "fp32"


def test_a_resume_measures_nothing_and_keeps_every_part_of_the_plan(
    command: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = {"precision": "fp32", "layout": "NHWC", "micro_batch": 5, "memory": "little", "reason": "measured"}
    with monkeypatch.context() as patch:
        patch.setattr("engine.run.fastest_plan", lambda plan, *_: replace(plan, **kept))
        cut_off_before_test(command)
    monkeypatch.setattr("engine.run.fastest_plan", lambda *_: pytest.fail("it measured again"))
    seen = []

    def watched(*given: Any) -> State:
        seen.append(given)
        return fit(*given)

    monkeypatch.setattr("engine.run.fit", watched)
    assert command(QUICK) == 0
    ((model, train, _, _, plan, *_),) = seen
    assert {name: getattr(plan, name) for name in kept} == kept
    assert train.memory_format == torch.channels_last
    assert model.get_submodule("0").weight.is_contiguous(memory_format=torch.channels_last)
    record = json.loads((only_run(tmp_path / "runs") / "record.json").read_text())
    assert record["plan"]["micro_batch"] == 5


def test_a_resume_without_its_device_says_where_it_began(command: Command, tmp_path: Path, capsys: Any) -> None:
    cut_off_before_test(command)
    path = only_run(tmp_path / "runs") / "record.json"
    record = content(path)
    record["plan"] |= {"device": "mps", "device_name": "another machine"}
    path.write_text(json.dumps(record))
    assert command(QUICK) == 2
    message = capsys.readouterr().err
    assert "interrupted on mps (another machine)" in message
    assert "--rerun" in message


def test_output_that_nobody_reads_is_an_interruption(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    process = toy.Process("-bs 8 --weights none --epochs 400 --patience 400 --plan off --out .", tmp_path, "pipe")
    with (tmp_path / "pipe").open() as printed:
        for line in printed:
            if line.split()[:2] == ["1", "adamw"]:  # an epoch is finished
                break
    assert process.wait() == 130
    assert "Traceback" not in process.problems
    assert json.loads((only_run(tmp_path) / "record.json").read_text())["status"] == "running"
