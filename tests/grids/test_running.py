"""grid.py at work: cells that end well, fail, hang, are stopped and are shared between grids."""

from __future__ import annotations

import json
import multiprocessing
import os
import re
import shlex
import signal
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from rich.console import Console

import grid
from common import BACKBONES
from grids.cells import Cell
from grids.ledger import Standing, failure_now, grid_folder, take
from grids.view import LiveTable, Progress
from grids.worker import Worker
from tests import toy

# a script of one's own, named by its path, that declares what digits.py does
SCRIPT = """
if __name__ == "__main__":
    import cell
else:
    from digits import DATASET
"""

# what it does: it leaves the record that the test prepared, or ends otherwise, as behaviour.json says
CELL = r"""
import json, os, signal, sys, time
from pathlib import Path

here = Path(__file__).parent

def lines(name):
    return (here / name).read_text().splitlines() if (here / name).exists() else []

def add(name, line):
    with (here / name).open("a") as file:
        file.write(line + "\n")

behaviour = json.loads((here / "behaviour.json").read_text())
given = dict(zip(sys.argv[1::2], sys.argv[2::2]))
name = f"{given['-model']} {given['--seed']}"
running = len(lines("started.txt")) - len(lines("ended.txt")) + 1
add("started.txt", f"{name} {os.getpid()} {os.environ.get('CUDA_VISIBLE_DEVICES')} {running}")
seeds, shared = (os.environ[f"WHICH_BACKBONE_{hint}"] for hint in ("SEEDS", "SHARED_DEVICE"))
add("hints.txt", f"{name}: {seeds} {shared or 'alone'}")
do = behaviour["cells"].get(name) or behaviour["cells"].get(given["-model"], "done")
heartbeat = Path(os.environ["WHICH_BACKBONE_HEARTBEAT"])
folder = Path("runs/digits") / given["-model"] / f"honest-seed{given['--seed']}-x"

def leave(status):
    folder.mkdir(parents=True, exist_ok=True)
    record = behaviour["record"] | {"status": status}
    config = record["config"] | {"model": given["-model"], "seed": int(given["--seed"])}
    temporary = folder / "new"
    temporary.write_text(json.dumps(record | {"config": config}))
    temporary.replace(folder / "record.json")

def stop(*_):
    leave("running")
    print("interrupted", flush=True)
    sys.exit(130)

if os.environ.get("CUDA_VISIBLE_DEVICES") in behaviour["broken"]:
    raise RuntimeError("CUDA error: an illegal memory access was encountered\nCompile with `TORCH_USE_CUDA_DSA`")
if do == "user":
    print("error: no data here\nGet them.", file=sys.stderr)
    sys.exit(2)
if do == "diverged":
    print(*(f"line {number}" for number in range(70)), sep="\n")
    print("0 %\r50 %\r100 %\r", end="\n", flush=True)
    print("error: the loss became nan in epoch 3", file=sys.stderr)
    sys.exit(3)
if do == "raised":
    raise ValueError("odd")
if do == "segfault":
    os.kill(os.getpid(), signal.SIGSEGV)
if do == "killed":
    os.kill(os.getpid(), signal.SIGKILL)
if do == "nothing":
    sys.exit(0)
if do == "hang":
    heartbeat.write_text("epoch 1: 3/9 batches")
    time.sleep(1000)
if do == "stopped":
    heartbeat.write_text("epoch 1")
    os.kill(os.getpid(), signal.SIGSTOP)
if do == "deaf":
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    (here / "deaf").touch()
    time.sleep(1000)
if do in ("slow", "busy") and not (folder / "record.json").exists():
    signal.signal(signal.SIGUSR1, stop)
    leave("running")
    for beat in range(600):
        heartbeat.write_text(f"epoch 1: {beat}/600 batches")
        time.sleep(0.05)
        if do == "busy" and beat == 40:
            break
at_once = behaviour["at_once"]
mine = lines("started.txt").index(next(line for line in lines("started.txt") if f" {os.getpid()} " in line))
for beat in range(6000):  # as many as are to run at once wait for each other
    if len(lines("started.txt")) >= (mine // at_once + 1) * at_once:
        break
    time.sleep(0.01)
else:
    sys.exit("error: it was left alone")
leave("done")
print("done")
add("ended.txt", name)
"""

LINE = "--datasets digits.py --models resnet swin --device cpu"

Behave = Callable[..., None]


@pytest.fixture
def behave(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Behave:
    """Sets what the cells do: {"<backbone> <seed>" or "<backbone>": ...}; and how many wait for each other."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("grids.running.LOOK_AGAIN", 0.1)
    monkeypatch.setattr("grids.running.MOMENT", 0.02)
    (tmp_path / "digits.py").write_text(SCRIPT)
    (tmp_path / "cell.py").write_text(CELL)

    def set_behaviour(at_once: int = 1, line: str = LINE, broken: tuple[str, ...] = (), **cells: str) -> None:
        config = grid.cells_of(grid.parser().parse_args(line.split()))[0].config
        record = {
            "schema": 2,
            "run": "x",
            "dataset": {
                "key": "digits",
                "name": "digits",
                "version": "1",
                "partial": False,
                "counts": {"available": 1437, "train": 1295, "val": 142, "test": 360},
            },
            "backbone": {"name": config.model, "weights": "none", "weights_run": None},
            "protocol": config.protocol,
            "recipe": config.recipe,
            "config": config.settings(),
            "plan": {"device_name": "a processor"},
            "environment": {"command": ["digits.py"]},
            "selection": {"part": "val"},
            "test": {"top1": 0.25, "images": 360},
            "costs": {"epochs": 4},
            "resumed": [],
            "started": "2026-01-01T00:00:00+00:00",
            "finished": "2026-01-01T00:00:01+00:00",
        }
        named = {name.replace("_", " "): what for name, what in cells.items()}
        content = {"cells": named, "record": record, "at_once": at_once, "broken": broken}
        (tmp_path / "behaviour.json").write_text(json.dumps(content))

    set_behaviour()
    return set_behaviour


def run(line: str = LINE) -> int:
    return grid.main(shlex.split(line))


def cells_of(line: str) -> list[Cell]:
    return grid.cells_of(grid.parser().parse_args(line.split()))


def started() -> list[str]:
    """The cells whose process ran, in order."""
    path = Path("started.txt")
    lines = path.read_text().splitlines() if path.exists() else []
    return [" ".join(line.split()[:2]) for line in lines]


def pids() -> list[int]:
    return [int(line.split()[2]) for line in Path("started.txt").read_text().splitlines()]


def failure(name: str) -> dict[str, Any]:
    (path,) = Path("runs/grid").glob(f"digits-{name}-*.json")
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def wait_for(condition: Callable[[], object], seconds: float = 30.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it never came to that"
        time.sleep(0.01)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def meanwhile(*actions: Callable[[], object]) -> threading.Thread:
    thread = threading.Thread(target=lambda: [action() for action in actions], daemon=True)
    thread.start()
    return thread


def interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def in_another_process(line: str = LINE) -> Any:
    """The same grid, forked, with what this test has set."""

    def work() -> None:
        with Path(f"grid-{os.getpid()}.txt").open("w") as sys.stdout:
            code = run(line)
        os._exit(code)

    process = multiprocessing.get_context("fork").Process(target=work)
    process.start()
    return process


def test_each_cell_runs_once(behave: Behave, capsys: Any) -> None:
    assert run(f"{LINE} --seeds 0-1") == 0
    assert started() == ["resnet 0", "swin 0", "resnet 1", "swin 1"]
    printed = capsys.readouterr().out
    assert re.search(r"^\[0/4\] started  digits resnet, seed 0$", printed, re.MULTILINE)
    assert re.search(r"^\[4/4\] done     digits swin, seed 1: top-1 25.00% in [\d.]+ s; left: ", printed, re.MULTILINE)
    assert printed.splitlines()[-1] == "4 of 4 cells done, 0 failed, 0 left"
    assert run(f"{LINE} --seeds 0-2") == 0
    assert started()[4:] == ["resnet 2", "swin 2"]
    assert not list(Path("runs/grid").glob("*.json"))
    assert not list(Path("runs/grid").glob("*.heartbeat"))


def hints() -> list[str]:
    return sorted(Path("hints.txt").read_text().splitlines())


def test_a_cell_is_told_how_many_seeds_are_to_come(behave: Behave) -> None:
    """So that it knows for how many runs a compilation pays."""
    assert run(f"{LINE} --seeds 0-2") == 0
    cells = {"resnet 0": 3, "resnet 1": 2, "resnet 2": 1, "swin 0": 3, "swin 1": 2, "swin 2": 1}
    assert hints() == [f"{cell}: {seeds} alone" for cell, seeds in cells.items()]


def test_rerun_starts_over_what_is_done_and_what_failed(behave: Behave, capsys: Any) -> None:
    behave(swin="diverged")
    assert run() == 3
    assert run() == 3
    assert started() == ["resnet 0", "swin 0"]
    behave()
    capsys.readouterr()
    assert run(f"{LINE} --rerun --dry-run") == 0
    assert re.search(r"^to do      2,", capsys.readouterr().out, re.MULTILINE)
    assert run(f"{LINE} --rerun") == 0
    assert started()[2:] == ["resnet 0", "swin 0"]
    assert capsys.readouterr().out.splitlines()[-1] == "2 of 2 cells done, 0 failed, 0 left"
    assert "resnet --seed 0 --device cpu --rerun" in (
        shlex.join(grid.cells_of(grid.parser().parse_args(f"{LINE} --rerun".split()))[0].command)
    )
    assert run() == 0
    assert len(started()) == 4


def test_a_rerun_that_was_stopped(behave: Behave, capsys: Any) -> None:
    """What was interrupted goes on without the flag; what was not come to is done, as it was."""
    assert run() == 0
    (Path("runs/digits/resnet/honest-seed0-x/record.json")).unlink()  # as a script's --rerun does
    behave(resnet="slow")
    meanwhile(lambda: wait_for(lambda: len(started()) == 3), interrupt)
    assert run(f"{LINE} --rerun") == 130
    printed = capsys.readouterr().out
    assert "goes on with what was begun and keeps what lay there of the rest" in printed
    behave()
    assert run() == 0
    assert started()[2:] == ["resnet 0", "resnet 0"]


def test_a_failure_costs_one_cell(behave: Behave, capsys: Any) -> None:
    line = "--datasets digits.py --models resnet swin regnet mobilenet densenet convnext --device cpu"
    kinds = {"resnet": "diverged", "swin": "segfault", "regnet": "killed", "mobilenet": "raised", "densenet": "nothing"}
    behave(**kinds)
    assert run(line) == 3
    assert len(started()) == 6
    reasons = {name: failure(name)["reason"] for name in kinds}
    assert reasons["resnet"] == "the loss became nan in epoch 3"
    assert reasons["swin"] == "killed by SIGSEGV"
    assert reasons["regnet"] == "killed by SIGKILL: by the system, if memory ran out"
    assert reasons["mobilenet"] == "exit code 1: ValueError: odd"
    assert "no record under runs says that this cell is done" in reasons["densenet"]
    kept = failure("resnet")
    assert len(kept["tail"]) == 50
    assert kept["tail"][-3:] == ["line 69", "100 %", "error: the loss became nan in epoch 3"]
    assert kept["exit_code"] == 3
    assert failure("regnet")["exit_code"] == -9
    assert kept["command"][0] == "python"
    assert "digits.py" in kept["command"][1]
    assert "Segmentation fault" in " ".join(failure("swin")["tail"])
    summary = capsys.readouterr().out.partition("1 of 6 cells done, 5 failed, 0 left")[2]
    assert "failed     digits resnet, seed 0: the loss became nan in epoch 3" in summary
    assert re.search(r"^to try 5 failed cells again:\n +python .* --device cpu --retry-failed$", summary, re.MULTILINE)
    assert f"log {Path('runs/grid')}" in summary

    assert run(line) == 3
    assert len(started()) == 6
    behave(resnet="diverged")
    assert run(f"{line} --retry-failed") == 3
    assert len(started()) == 11
    assert len(list(Path("runs/grid").glob("*.json"))) == 1
    behave()
    assert run(f"{line} --retry-failed") == 0
    assert not list(Path("runs/grid").glob("*.json"))


def counts(printed: str) -> list[tuple[int, int]]:
    """How many cells were done, and had failed, as the lines went by."""
    return [(int(done), int(bad or 0)) for done, bad in re.findall(r"^\[(\d+)/\d+(?:, (\d+) failed)?\]", printed, re.M)]


def test_advice_that_several_failures_share_is_given_once() -> None:
    """As without a network, where each backbone's message differs by the name of its weights alone."""
    three = cells_of("--datasets digits --models resnet swin regnet --seeds 0")
    same = ["    host name not found", "Or begin with others."]
    tails = {
        cell.id: [
            f"error: {cell.config.model}.pth could not be downloaded from",
            f"Get {cell.config.model}.pth.",
            *same,
        ]
        for cell in three
    }
    tails[three[2].id] = ["error: no such file", "Get regnet.pth."]

    def lines() -> list[str]:
        return grid.summary_lines(
            three,
            {key: Standing("failed", failure=failure_now(cell, 2, "", tails[key])) for key, cell in by_id},
            False,
            "",
        )

    by_id = [(cell.id, cell) for cell in three]
    assert lines()[1:] == [
        "failed     digits resnet, seed 0: resnet.pth could not be downloaded from",
        "           Get resnet.pth.",
        "               host name not found",
        "failed     digits swin, seed 0: swin.pth could not be downloaded from",
        "           Get swin.pth.",
        "               host name not found",
        "failed     digits regnet, seed 0: no such file",
        "           Get regnet.pth.",
        "to several Or begin with others.",
        "once that is mended, the same command tries 3 failed cells again",
    ]
    tails[three[2].id].append("Or begin with others.")
    assert lines()[-2] == "to all     Or begin with others."


def test_what_the_user_mended_is_tried_again_by_the_same_command(behave: Behave, capsys: Any) -> None:
    """As a photo that can't be read, which is found within seconds; what crashed is not, and the command is said."""
    line = "--datasets digits.py --models resnet swin regnet mobilenet --device cpu"
    behave(resnet="user", regnet="diverged")
    assert run(line) == 3
    printed = capsys.readouterr().out
    assert "once that is mended, the same command tries 1 failed cell again" in printed
    assert re.search(
        r"^to try 1 failed cell again too:\n +python .* --device cpu --retry-failed$", printed, re.MULTILINE
    )
    assert counts(printed) == sorted(counts(printed))
    assert "[2/4, 2 failed] done     digits mobilenet" in printed
    behave(regnet="diverged")
    assert run(line) == 3
    assert started()[4:] == ["resnet 0"]
    printed = capsys.readouterr().out
    plan = "failed     2, 1 of them, which can be mended, to be tried again; 1 kept as it is. To try it again, too:\n"
    assert f"\n{plan}           python " in printed
    assert counts(printed) == [(2, 1), (3, 1)]
    behave()
    assert run(f"{line} --retry-failed") == 0
    assert started()[5:] == ["regnet 0"]
    assert counts(capsys.readouterr().out) == [(3, 0), (4, 0)]


def test_a_hang_is_ended_and_says_where(behave: Behave) -> None:
    """A cell that gives signs of life is left alone, though it lasts longer than that."""
    behave(resnet="hang", swin="busy")
    assert run(f"{LINE} --stall-minutes 0.02") == 3
    kept = failure("resnet")
    assert kept["reason"] == "no sign of life for 0.02 minutes; the last was: epoch 1: 3/9 batches"
    assert any("digits.py" in line and "line" in line for line in kept["tail"]), "no trace of where it hung"
    assert not list(Path("runs/grid").glob("digits-swin*.json"))
    assert not any(map(alive, pids()))


def test_a_process_that_is_stopped_for_longer_than_the_grid_waits(
    behave: Behave, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("grids.worker.LAST_WORDS_SECONDS", 0.1)
    behave(resnet="stopped")
    assert run(f"{LINE} --stall-minutes 0.01") == 3
    assert failure("resnet")["reason"] == "no sign of life for 0.01 minutes; the last was: epoch 1"
    assert started() == ["resnet 0", "swin 0"]


def quiet_worker(folder: Path) -> Worker:
    """A worker whose process is still at it, and says nothing."""
    (cell, *_) = grid.cells_of(grid.parser().parse_args(LINE.split()))
    process: Any = SimpleNamespace(poll=lambda: None, send_signal=lambda _: None, pid=0)
    return Worker(cell, None, process, 0, folder / "log", folder / "heartbeat", 0)


def test_a_grid_that_was_stopped_itself_does_not_lay_that_on_its_cells(behave: Behave, tmp_path: Path) -> None:
    """As where a whole container was frozen: time went by in which nobody could give a sign of life."""
    worker = quiet_worker(tmp_path)
    worker.watch(60)
    worker.looked -= 3600
    worker.changed -= 3600
    worker.watch(60)
    assert not worker.stalled
    worker.changed -= 3600
    worker.watch(60)
    assert worker.stalled


def test_pipes_in_the_place_of_log_and_heartbeat_are_not_waited_for(
    behave: Behave, tmp_path: Path, capsys: Any
) -> None:
    worker = quiet_worker(tmp_path)
    for path in (worker.log, worker.heartbeat):
        os.mkfifo(path)
    assert worker.doing == ""
    (line,) = worker.tail()
    assert "the log can't be read: it is no regular file" in line
    folder = grid_folder(worker.cell.config.out)
    folder.mkdir(parents=True)
    os.mkfifo(folder / f"{worker.cell.id}.log")
    assert run() == 3
    error = capsys.readouterr().err
    assert error.startswith("error: digits resnet, seed 0 can't be started: ")
    assert error.count("\n") == 1


def test_a_lock_is_given_back_whatever_lies_in_the_place_of_a_heartbeat(
    behave: Behave, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = quiet_worker(tmp_path)
    monkeypatch.setattr(worker, "kill", lambda: None)
    worker.heartbeat.mkdir()
    worker.lock = os.open(tmp_path, os.O_RDONLY)
    worker.close()
    with pytest.raises(OSError, match="Bad file descriptor"):
        os.fstat(worker.lock)


def test_a_record_of_a_clock_that_was_ahead_is_made_anew_all_the_same(behave: Behave) -> None:
    """With --rerun; whether another grid has just made it, no clock tells."""
    assert run() == 0
    path = Path("runs/digits/resnet/honest-seed0-x/record.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"started": "2999-01-01T00:00:00+00:00"}))
    assert run(f"{LINE} --rerun") == 0
    assert started()[2:] == ["resnet 0", "swin 0"]


def test_a_record_that_cannot_be_read_is_named(behave: Behave, capsys: Any) -> None:
    assert run() == 0
    path = Path("runs/digits/resnet/honest-seed0-x/record.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | {"test": None}))
    capsys.readouterr()
    assert run(f"{LINE} --dry-run") == 0
    printed = capsys.readouterr().out
    assert "note       1 record can't be read, and no cell is done by them" in printed
    assert f"{path}: a damaged record: lacks test" in printed
    assert re.search(r"^done       1$", printed, re.MULTILINE)


def test_what_all_would_end_with_is_found_out_by_few(behave: Behave, capsys: Any) -> None:
    behave(**dict.fromkeys(BACKBONES, "user"))
    assert run("--datasets digits.py --models all --seeds 0-2 --device cpu") == 3
    assert started() == ["resnet 0", "wavemix 0"]
    assert len(list(Path("runs/grid").glob("*.json"))) == 33
    kept = failure("swin-seed2")
    assert kept["tail"] == ["error: no data here", "Get them."]
    assert kept["reason"].startswith("not tried: digits resnet, seed 0 and digits wavemix, seed 0 ended with the same")
    summary = capsys.readouterr().out.partition("0 of 33 cells done, 33 failed, 0 left")[2]
    assert "failed     digits resnet, seed 0 and 32 more: no data here\n           Get them.\n" in summary


def test_a_mistake_of_one_backbone_is_not_laid_on_others(behave: Behave) -> None:
    behave(resnet="user")
    assert run(f"{LINE} --seeds 0-4") == 3
    assert Counter(name.split()[0] for name in started()) == {"resnet": 2, "swin": 5}
    assert len(list(Path("runs/grid").glob("*.json"))) == 5


def test_ctrl_c_lets_the_epoch_end_and_the_same_command_goes_on(behave: Behave, capsys: Any) -> None:
    behave(resnet="slow")
    before = signal.getsignal(signal.SIGINT)
    thread = meanwhile(lambda: wait_for(lambda: list(Path("runs/digits").rglob("record.json"))), interrupt)
    assert run() == 130
    thread.join()
    assert started() == ["resnet 0"]
    assert not any(map(alive, pids()))
    printed = capsys.readouterr().out
    assert "Ctrl-C again stops at once" in printed
    assert "stopped  digits resnet, seed 0: the same command goes on with it" in printed
    assert printed.endswith("0 of 2 cells done, 0 failed, 2 left\nthe same command continues\n")
    assert not list(Path("runs/grid").glob("*.json"))
    (log,) = Path("runs/grid").glob("digits-resnet*.log")
    assert "interrupted" in log.read_text()

    assert run() == 0
    assert "interrupted  to do" in (printed := capsys.readouterr().out)
    assert re.search(r"^digits +2 +0 +0 +1 +2 ", printed, re.MULTILINE)
    assert started() == ["resnet 0", "resnet 0", "swin 0"]
    assert signal.getsignal(signal.SIGINT) is before


@pytest.mark.timeout(120)
def test_ctrl_c_twice_ends_even_what_does_not_listen(behave: Behave, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("grids.worker.GRACE_SECONDS", 0.5)
    behave(resnet="deaf")
    thread = meanwhile(lambda: wait_for(Path("deaf").exists), interrupt, lambda: time.sleep(0.4), interrupt)
    assert run() == 130
    thread.join()
    assert not any(map(alive, pids()))
    assert not list(Path("runs/grid").glob("*.json"))


def test_output_that_nobody_reads_leaves_no_process_behind(behave: Behave, monkeypatch: pytest.MonkeyPatch) -> None:
    behave(resnet="slow")

    def refresh(*_: object) -> None:
        if list(Path("runs/digits").rglob("record.json")):
            raise KeyboardInterrupt

    monkeypatch.setattr("grids.view.Lines.refresh", refresh)
    assert run() == 130
    assert not any(map(alive, pids()))


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere the process lives on, and holds the lock")
def test_a_killed_grid_takes_its_processes_along(behave: Behave) -> None:
    behave(resnet="slow")
    process = in_another_process()
    wait_for(lambda: list(Path("runs/digits").rglob("record.json")))
    assert take(grid.cells_of(grid.parser().parse_args(LINE.split()))[0]) is None
    process.kill()
    process.join()
    wait_for(lambda: not any(map(alive, pids())), 5)
    (left,) = Path("runs/grid").glob("*.heartbeat")
    left.rename(left.with_name("digits-resnet-seed7-all-01234567.heartbeat.123"))  # of a cell that is done by now
    (held,) = cells_of("--datasets digits.py --models resnet --seeds 9 --device cpu")
    lock = take(held)
    (Path("runs/grid") / f"{held.id}.heartbeat").touch()  # of one that another grid is at
    assert run() == 0
    assert started() == ["resnet 0", "resnet 0", "swin 0"]
    assert [path.name for path in Path("runs/grid").glob("*.heartbeat*")] == [f"{held.id}.heartbeat"]
    assert lock is not None
    os.close(lock)


def test_a_run_that_outlives_its_grid_is_waited_for(behave: Behave, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where processes can't be told to die with their parent: the lock is the process's too."""
    monkeypatch.setattr("grids.worker.die_with", lambda _: None)
    behave(resnet="busy")
    process = in_another_process()
    wait_for(lambda: list(Path("runs/digits").rglob("record.json")))
    process.kill()
    process.join()
    assert alive(pids()[0])
    assert run() == 0
    assert started() == ["resnet 0", "swin 0"]


def test_a_record_of_images_that_were_not_decoded_yet_is_not_another_grids(
    behave: Behave, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """The first cell's script decodes them; then the others are known to be done, by the grid of yesterday."""
    assert run() == 0
    decoded = [False] * 3 + [True] * 9
    monkeypatch.setattr("grids.ledger._of_these_images", lambda *_: decoded.pop(0))
    capsys.readouterr()
    assert run() == 0
    assert "done     digits swin, seed 0: top-1 25.00% (by an earlier run)" in capsys.readouterr().out


def test_two_grids_share_the_work(behave: Behave, capsys: Any) -> None:
    """Two cells wait for each other, and a grid runs one at a time: neither grid could do all of it."""
    behave(at_once=2, regnet="diverged")
    line = "--datasets digits.py --models resnet swin regnet --seeds 0-3 --device cpu"
    process = in_another_process(line)
    assert run(line) == 3
    process.join()
    assert process.exitcode == 3
    assert Counter(started()) == {f"{model} {seed}": 1 for model in ("resnet", "swin", "regnet") for seed in range(4)}
    assert "(by another process)" in capsys.readouterr().out
    assert len(list(Path("runs/grid").glob("*.json"))) == 4


def test_a_card_has_as_many_cells_at_a_time_as_it_may(behave: Behave, monkeypatch: pytest.MonkeyPatch) -> None:
    """Four run at once, and no more: else some would wait in vain, or find a fifth."""
    monkeypatch.setattr("grids.offer.find_slots", lambda *_: ["3", "GPU-a", "3", "GPU-a"])
    monkeypatch.setattr("grids.offer.device_name", lambda *_: None)
    behave(at_once=4)
    assert run(f"{LINE} --seeds 0-3") == 0
    lines = [line.split() for line in Path("started.txt").read_text().splitlines()]
    assert Counter(card for *_, card, _ in lines) == {"3": 4, "GPU-a": 4}
    assert {hint.rpartition(" ")[2] for hint in hints()} == {"1"}
    assert max(int(running) for *_, running in lines) == 4


def on_two_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("grids.offer.find_slots", lambda *_: ["3", "GPU-a"])
    monkeypatch.setattr("grids.offer.device_name", lambda *_: None)


def test_a_broken_card_fails_no_cell(behave: Behave, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """It is given two cells of different backbones, which are then done by the other card, as all others are."""
    on_two_cards(monkeypatch)
    behave(broken=("3",))
    assert run(f"{LINE} --models regnet mobilenet --seeds 0-1") == 0
    cards = Counter(line.split()[3] for line in Path("started.txt").read_text().splitlines())
    assert cards == {"3": 2, "GPU-a": 8}
    printed = " ".join(capsys.readouterr().out.split())
    said = "RuntimeError: CUDA error: an illegal memory access was encountered"
    assert f"card 3 gets no more cells for now: {said}" in printed
    assert printed.endswith(f"8 of 8 cells done, 0 failed, 0 left avoided card 3: {said}")
    assert re.search(r"stopped digits \w+, seed 0: [^:]+: [^:]+, on card 3: it is tried elsewhere", printed)
    assert not list(Path("runs/grid").glob("*.json"))


def test_a_grid_whose_cards_are_all_broken_says_so_once(
    behave: Behave, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    on_two_cards(monkeypatch)
    behave(broken=("3", "GPU-a"))
    line = f"{LINE} --models regnet mobilenet densenet convnext --seeds 0-4"
    assert run(line) == 3
    assert len(started()) < 8
    printed, error = capsys.readouterr()
    assert "\n0 of 30 cells done, 0 failed, 30 left\n" in printed
    assert error.startswith("error: no place is left to run cells on: card ")
    assert "CUDA error: an illegal memory access was encountered (2 places). See to the card (nvidia-smi)" in error
    behave()
    assert run(line) == 0


def test_the_live_table(behave: Behave, tmp_path: Path) -> None:
    (cell, *_) = grid.cells_of(grid.parser().parse_args(LINE.split()))
    heartbeat = tmp_path / "heartbeat"
    heartbeat.write_text("epoch 3: 41 of 120 batches [/]\x9b\n")
    process: Any = None
    worker = Worker(cell, "0", process, 0, tmp_path / "log", heartbeat, 0, started=time.monotonic() - 65)
    progress = Progress(54, 12, 1, 2, "about 3.2 h (40 from other seeds)", [worker])
    with (tmp_path / "shown").open("w") as file:
        console = Console(file=file, force_terminal=True, width=80, height=30, color_system=None)
        with LiveTable(console) as view:
            view.ended(cell, "failed", "out \x1b]0;mine\x07of \u202ememory [red] " * 20 + "Buy more.", progress)
            view.ended(cell, "done", "top-1 50.00%", progress)
            view.note("stopping after the epochs that are running; Ctrl-C again stops at once, and loses an epoch")
            view.refresh(progress)
    shown = (tmp_path / "shown").read_text()
    assert re.search(r"digits resnet, seed 0 +card 0 +65 s +epoch 3: 41 of 120 batches \[/\]", shown)
    words = " ".join(re.sub(r"\x1b\[[?\d;]*\w", "", shown).split())
    said = "out \\x1b]0;mine\\x07of \\u202ememory [red] " * 20
    assert f"failed digits resnet, seed 0: {said}Buy more." in words
    assert "failed digits resnet, seed 0 for the reason above done digits resnet, seed 0 top-1 50.00%" in words
    assert "12 of 54 cells done, 1 failed, 41 to do, 2 of them with another grid: about 3.2 h" in words
    assert "Ctrl-C again stops at once, and loses an epoch" in words
    assert "…" not in shown
    assert not re.search("\x1b[^\\[]|\x9b|\x07|\u202e", shown)


def test_the_live_table_of_more_cells_than_fit(behave: Behave, tmp_path: Path) -> None:
    some = cells_of("--datasets digits.py --models resnet --seeds 0-99 --device cpu")
    running: list[Any] = [SimpleNamespace(cell=cell, where="", seconds=65.0, doing="epoch 1") for cell in some]
    progress = Progress(100, 0, 0, 0, "about 3 h", running, ["card 3: CUDA error: unknown error"])
    with (tmp_path / "shown").open("w") as file:
        console = Console(file=file, force_terminal=True, width=80, height=30, color_system=None)
        with LiveTable(console) as view:
            view.refresh(progress)
    shown = (tmp_path / "shown").read_text()
    assert shown.count("epoch 1") == 2 * 15, "it is drawn once more at its end"
    assert "85 more run" in shown
    assert "0 of 100 cells done, 0 failed, 100 to do: about 3 h" in shown
    assert "gets no cells: card 3: CUDA error: unknown error" in shown
    assert "…" not in shown


def test_a_real_run_stops_after_its_epoch_and_resumes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(BACKBONES, "tiny", toy.TINY)
    flags = "--models tiny -bs 8 --weights none --plan off --epochs 15 --patience 15 --device cpu"
    history = tmp_path / "runs/toy/tiny"
    thread = meanwhile(lambda: wait_for(lambda: list(history.rglob("history.csv")), 60), interrupt)
    assert run(f"--datasets {toy.__file__} {flags}") == 130
    thread.join()
    (record,) = history.rglob("record.json")
    assert json.loads(record.read_text())["status"] == "running"
    assert "Traceback" not in next(grid_folder(Path("runs")).glob("*.log")).read_text()
    assert run(f"--datasets {toy.__file__} {flags}") == 0
    content = json.loads(record.read_text())
    assert content["status"] == "done"
    assert len(content["resumed"]) == 1
