"""A grid's cells as tasks of a Slurm array job: on commands that do what a test has planned, and on a real one."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest

import grid
from engine.records.schema import CHECKPOINT, RECORD
from grids.cells import Cell
from grids.ledger import failure_now, grid_folder
from grids.slurm import commands
from grids.slurm.commands import clock, nodes
from tests.grids.cells import cells, record_of
from tests.grids.fake_slurm import install

LINE = "--datasets digits --models resnet swin --device cpu"

Plan = Callable[..., None]


@pytest.fixture
def plan(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Plan:
    """Sets what Slurm does: see fake_slurm.py. Nothing waits."""
    monkeypatch.setenv("PATH", install(tmp_path))
    for name, seconds in {"POLL": 0.01, "STOP_POLL": 0.01, "REFUSED": 0.05, "UNSEEN": 0.2}.items():
        monkeypatch.setattr(f"grids.slurm.places.{name}_SECONDS", seconds)
    monkeypatch.setattr("grids.slurm.work.SETTLE_SECONDS", 0.1)
    monkeypatch.setattr("grids.running.MOMENT", 0.01)

    def set_plan(**what: Any) -> None:
        (tmp_path / "plan.json").write_text(json.dumps({"states": {}, **what}))

    set_plan()
    return set_plan


def run(line: str = LINE, slurm: str = "--slurm") -> int:
    return grid.main([*shlex.split(line), slurm])


def calls(command: str) -> list[list[str]]:
    path = Path("calls.txt")
    lines = [shlex.split(line) for line in path.read_text().splitlines()] if path.exists() else []
    return [words[1:] for words in lines if words[0] == command]


def left_by(cell: Cell, status: str = "done", **changes: Any) -> dict[str, str]:
    """The files of a run of the cell."""
    name = f"honest-seed{cell.config.seed}-x"
    path = cell.config.out / cell.dataset.key / cell.config.model / name / RECORD
    return {str(path): json.dumps(record_of(cell, status, run=name, **changes))}


def done(line: str = LINE) -> dict[str, dict[str, str]]:
    return {cell.id: left_by(cell) for cell in cells(line)}


def failed_by(cell: Cell, code: int, reason: str, *tail: str) -> dict[str, str]:
    """The failure of the cell, as the grid on its node keeps it."""
    path = grid_folder(cell.config.out) / f"{cell.id}.json"
    return {str(path): json.dumps(asdict(failure_now(cell, code, reason, tail)))}


def kept(cell: Cell) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((grid_folder(cell.config.out) / f"{cell.id}.json").read_text())
    return found


def scripts() -> list[str]:
    """Those that are kept, in the order in which they were submitted."""
    paths = sorted(Path("runs/grid/slurm").glob("*.sh"), key=lambda path: path.stat().st_mtime_ns)
    return [path.read_text() for path in paths]


def test_cells_wait_run_and_are_done(plan: Plan, capsys: Any) -> None:
    plan(leaves=done())
    assert run() == 0
    printed = capsys.readouterr().out
    assert re.search(r"^cells      2, each a task of a Slurm array job$", printed, re.M)
    assert re.search(r"^submitted 2 cells as job 100: /.*/runs/grid/slurm/grid-\S+\.sh$", printed, re.M)
    assert re.search(r"^\[0/2\] started  digits resnet, seed 0 on n7$", printed, re.M)
    assert re.search(r"^\[2/2\] done     digits swin, seed 0: top-1 50\.00% in 65 s; left: ", printed, re.M)
    assert printed.index("submitted") < printed.index("started") < printed.index("done     digits")
    assert printed.splitlines()[-1] == "2 of 2 cells done, 0 failed, 0 left"
    assert len(calls("sbatch")) == 1
    assert run() == 0
    assert len(calls("sbatch")) == 1


def test_what_a_task_asks_for(plan: Plan, capsys: Any) -> None:
    plan(nodes=["64|gpu:a100:4(S:0-1),license:2", "16|gpu:v100:2,gpu:k80:2", "128|(null)"])
    assert run("--datasets digits --models resnet --dry-run", "--slurm=-p 'my gpus' --mem=32G --array=%2") == 0
    script = capsys.readouterr().out.partition("\n#!/bin/bash\n")[2]
    options = re.findall(r"^#SBATCH (.*)$", script, re.M)
    assert options[1:2] == ["--array=0-0%2"]
    assert options[2] == f"--chdir={Path.cwd()}"
    assert options[4:] == [
        *("--open-mode=append", "--requeue", "--signal=B:INT@120", "--gres=gpu:1", "--cpus-per-task=4"),
        *('-p "my gpus"', "--mem=32G"),
    ]
    assert calls("sinfo") == [["--noheader", "--exact", "--partition=my gpus", "--format=%c|%G"]]
    assert re.search(r"^exec \S+python \S+grid\.py --datasets digits --models resnet --cell \"\$cell\"$", script, re.M)
    assert calls("sbatch") == []
    assert not Path("runs").exists()


@pytest.mark.parametrize(
    ("line", "slurm", "expected"),
    [
        ("--device cpu", "--slurm", ["--cpus-per-task=4"]),
        ("--device cuda", "--slurm", ["--gres=gpu:1", "--cpus-per-task=8"]),
        ("", "--slurm=--gpus-per-task=2 -c 12", ["--gpus-per-task=2", "-c 12"]),
        ("", "--slurm=--gres=gpu:h100:1", ["--cpus-per-task=8", "--gres=gpu:h100:1"]),
    ],
)
def test_a_gpu_and_processors(line: str, slurm: str, expected: Sequence[str], plan: Plan, capsys: Any) -> None:
    plan(nodes=["256+|gpu:8"])
    assert run(f"--datasets digits --models resnet {line} --dry-run", slurm) == 0
    options = re.findall(r"^#SBATCH (.*)$", capsys.readouterr().out, re.M)
    assert options[options.index("--signal=B:INT@120") + 1 :] == expected


@pytest.mark.parametrize("words", [["--slurm", "--array=%1 -c 3"], ["--slurm=--array=%1 -c 3"]])
def test_its_options_are_one_word_or_two(words: list[str], plan: Plan, capsys: Any) -> None:
    assert grid.main([*LINE.split(), *words, "--seeds", "3", "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "#SBATCH --array=0-1%1\n" in printed
    assert "#SBATCH -c 3\n" in printed
    assert 'grid.py --datasets digits --models resnet swin --device cpu --seeds 3 --cell "$cell"' in printed


def test_the_time_limit_is_an_estimate_with_a_margin(plan: Plan, capsys: Any) -> None:
    line = "--datasets digits --models resnet --device cpu --seeds 0-1 --dry-run"
    assert run(line) == 0
    assert "--time=" not in capsys.readouterr().out
    first, _ = cells(line)
    for path, content in left_by(first, plan={"device_name": "a card"}).items():
        Path(path).parent.mkdir(parents=True)
        Path(path).write_text(content)
    assert run(line) == 0
    printed = capsys.readouterr().out
    assert "#SBATCH --time=14\n" in printed  # ten minutes, and twice a hundred seconds
    assert re.search(r"^to do      1, about .*, one after the other$", printed, re.M)  # nobody knows how many run
    assert run(line, "--slurm=-t 5") == 0
    assert "--time=" not in capsys.readouterr().out


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("--slurm=gpu", "'gpu' is no option of sbatch"),
        ("--slurm=--partition=gpu 7 8", "'8' is no option of sbatch"),
        ("--slurm=--comment='a", "no closing quotation"),
        ("--slurm=--array=0-3", "expected --array=%N"),
        ("--slurm=-J mine", "sets --job-name itself"),
        ("--slurm=--output=x", "sets --output itself"),
        ("--slurm=-M other", "sets --clusters itself"),
        ("--slurm --per-gpu=2", "with --slurm each cell has a GPU to itself"),
    ],
)
def test_what_it_does_not_take(given: str, message: str, plan: Plan, capsys: Any) -> None:
    words = given.split() if "per-gpu" in given else [given]
    assert grid.main([*shlex.split(LINE), *words]) == 2
    problem = capsys.readouterr().err
    assert problem.startswith("error: ")
    assert message in problem
    assert calls("sbatch") == []
    assert not Path("runs").exists()


def test_settings_of_the_users_own_change_nothing(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    """They could hide tasks, or ask whether somebody means it."""
    plan(leaves=done())
    monkeypatch.setenv("SQUEUE_PARTITION", "other")
    monkeypatch.setenv("SCANCEL_INTERACTIVE", "1")
    monkeypatch.setenv("SBATCH_ARRAY_INX", "0-99")
    monkeypatch.setenv("SBATCH_ACCOUNT", "mine")
    assert run() == 0
    seen = {name for line in Path("environment.txt").read_text().splitlines() for name in line.split()}
    assert seen == {"SBATCH_ACCOUNT"}


def test_no_slurm_is_here(plan: Plan, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setenv("PATH", str(Path("nowhere")))
    assert run() == 2
    assert "there is no command sinfo here" in capsys.readouterr().err
    assert not Path("runs").exists()


def test_slurm_refuses(plan: Plan, capsys: Any) -> None:
    plan(refuses=["Batch job submission failed: Invalid account or account/partition combination specified"])
    assert run() == 2
    problem = capsys.readouterr().err
    assert "Slurm refuses the array job: sbatch: error: Batch job submission failed: Invalid account" in problem
    assert "Traceback" not in problem
    assert scripts() == []
    plan(leaves=done())
    assert run() == 0


def test_an_answer_that_comes_too_late(plan: Plan, capsys: Any) -> None:
    """The job is there all the same, and is not submitted again."""
    plan(late=True, leaves=done())
    assert run() == 0
    assert len(calls("sbatch")) == 1
    assert "submitted 2 cells as job 100" in capsys.readouterr().out


def test_a_controller_that_is_silent(plan: Plan, capsys: Any) -> None:
    """Nothing is submitted where nobody can say what is in the queue; later, that says nothing of the cells."""
    plan(leaves=done())
    assert run() == 0
    plan(silent=1)
    assert run(f"{LINE} --seeds 0-1 --rerun") == 3
    printed = capsys.readouterr()
    assert "Slurm does not answer, and nothing was submitted" in printed.err
    assert "go on without this process" not in printed.out
    assert len(calls("sbatch")) == 1


def test_a_controller_that_falls_silent(plan: Plan, capsys: Any) -> None:
    plan(silent=3, leaves=done())
    assert run() == 0
    assert capsys.readouterr().out.count("Slurm does not answer, its tasks go on: slurm_load_jobs error: Unable") == 1
    assert len(calls("sbatch")) == 1


def test_an_array_has_no_more_tasks_than_slurm_allows(plan: Plan, capsys: Any) -> None:
    line = f"{LINE} --seeds 0-4"
    plan(most=4, leaves=done(line))
    assert run(f"{line} --dry-run") == 0
    assert capsys.readouterr().out.splitlines()[-1] == "and 6 cells in further jobs"
    assert run(line) == 0
    assert [len(job["tasks"]) for job in json.loads(Path("jobs.json").read_text())] == [4, 4, 2]


def test_a_limit_that_nobody_tells(plan: Plan, capsys: Any) -> None:
    """Halves are submitted, and the rest when there is room."""
    full = "Batch job submission failed: Job violates accounting/QOS policy (job submit limit, user's size and/or time)"
    line = f"{LINE} --seeds 0-2"
    plan(refuses=[full, "", full, full, ""], leaves=done(line))
    assert run(line) == 0
    assert [len(job["tasks"]) for job in json.loads(Path("jobs.json").read_text())] == [3, 3]
    printed = capsys.readouterr().out
    assert re.search(r"^Slurm takes no more for now; 3 cells wait for that: sbatch: error", printed, re.M)
    assert printed.splitlines()[-1] == "6 of 6 cells done, 0 failed, 0 left"


def test_a_failure_is_that_which_the_node_kept(plan: Plan, capsys: Any) -> None:
    first, second = cells(LINE)
    lost = failed_by(first, 3, "the loss became nan", "line", "error: the loss became nan")
    hung = failed_by(second, -6, "no sign of life for 30 minutes; the last was: epoch 1", "here")
    plan(
        states={cell.id: ["RUNNING", "FAILED:NonZeroExitCode"] for cell in (first, second)},
        leaves={first.id: lost, second.id: hung},
    )
    assert run() == 3
    assert kept(first) | {"at": ""} == json.loads(next(iter(lost.values()))) | {"at": ""}
    assert kept(second)["reason"] == "no sign of life for 30 minutes; the last was: epoch 1"
    printed = capsys.readouterr().out
    assert "failed     digits resnet, seed 0: the loss became nan" in printed
    assert "--slurm --retry-failed" in printed
    assert run() == 3
    assert len(calls("sbatch")) == 1
    plan(leaves=done())
    assert run(f"{LINE} --retry-failed") == 0
    assert "--retry-failed --cell" in scripts()[-1]
    assert not list(Path("runs/grid").glob("*.json"))


def test_a_mistake_is_tried_again(plan: Plan) -> None:
    first, second = cells(LINE)
    mistake = failed_by(second, 2, "no data here", "error: no data here")
    plan(states={second.id: ["FAILED"]}, leaves={first.id: left_by(first), second.id: mistake})
    assert run() == 3
    plan(leaves=done())
    assert run() == 0
    assert [len(job["tasks"]) for job in json.loads(Path("jobs.json").read_text())] == [2, 1]


LIMIT = "JobState={} Reason=x ExitCode={} RunTime=00:58:30 TimeLimit=01:00:00"


@pytest.mark.parametrize("end", [("TIMEOUT", "0:0"), ("FAILED", "130:0")])
def test_its_time_limit_comes_before_an_epoch_is_saved(end: tuple[str, str], plan: Plan, capsys: Any) -> None:
    first, _ = cells(LINE)
    plan(
        states={first.id: ["RUNNING", end[0]]},
        leaves={**done(), first.id: left_by(first, "running")},
        shows={first.id: LIMIT.format(*end)},
    )
    assert run() == 3
    assert kept(first)["reason"].startswith(
        "its time limit of 60 min ended it before an epoch was saved. Give it more:"
    )
    assert kept(first)["exit_code"] == 3


def test_its_time_limit_comes_after_an_epoch(plan: Plan, capsys: Any) -> None:
    """It is submitted again, and goes on; also where it was to start over."""
    first, second = cells(LINE)
    begun = left_by(first, "running")
    saved = {str(Path(path).with_name(CHECKPOINT)): "x" for path in begun}
    plan(
        states={first.id: ["RUNNING", "TIMEOUT"]},
        leaves={first.id: begun | saved, second.id: left_by(second)},
        shows={first.id: LIMIT.format("TIMEOUT", "0:0")},
    )
    line = f"{LINE} --rerun"
    real = commands.submit

    def second_time(path: str) -> str:
        if len(scripts()) == 2:
            plan(leaves=done())
        return real(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("grids.slurm.places.submit", second_time)
        assert run(line) == 0
    assert "digits resnet, seed 0 is submitted again: its time limit" in capsys.readouterr().out
    earlier, later = scripts()
    assert "|| set -- --rerun\n" in earlier
    assert earlier.rstrip().endswith('--cell "$cell" "$@"')
    assert "--rerun" not in later
    assert "1) cell" not in later


def test_a_node_fails(plan: Plan, capsys: Any) -> None:
    first, second = cells(LINE)
    plan(
        states={
            first.id: [["RUNNING", "NODE_FAIL"], ["PENDING", "COMPLETED"]],
            second.id: ["RUNNING", "PREEMPTED"],
        },
        leaves={second.id: {}},
    )
    real = commands.submit

    def second_time(path: str) -> str:
        if len(scripts()) == 2:
            plan(states=json.loads(Path("plan.json").read_text())["states"], leaves={first.id: left_by(first)})
        return real(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("grids.slurm.places.submit", second_time)
        assert run() == 3
    printed = capsys.readouterr().out
    assert "digits resnet, seed 0 is submitted again: NODE_FAIL" in printed
    assert printed.count("digits swin, seed 0 is submitted again: PREEMPTED") == 2
    reason = "3 tasks of it in a row were ended before an epoch was saved: PREEMPTED"
    assert kept(second)["reason"] == reason


def test_a_node_that_fails_cells_gets_no_more(plan: Plan, capsys: Any) -> None:
    """What failed there is submitted again, and no task may begin there, those that wait already among them."""
    line = f"{LINE} --models resnet swin regnet mobilenet"
    first, second, third, fourth = cells(line)
    broken = "CUDA error: uncorrectable ECC error encountered"
    bad = {cell.id: failed_by(cell, 1, f"exit code 1: {broken}", broken) for cell in (first, second)}
    states: dict[str, Any] = {cell: [["RUNNING", "FAILED"], ["RUNNING@n8", "COMPLETED@n8"]] for cell in bad}
    states |= {third.id: ["RUNNING@n8"] * 3 + ["COMPLETED@n8"], fourth.id: ["PENDING:Resources"] * 9 + ["COMPLETED@n8"]}
    plan(states=states, leaves={**done(line), **bad})
    real = commands.submit

    def second_time(path: str) -> str:
        if len(scripts()) == 2:
            plan(states=states, leaves=done(line))
        return real(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("grids.slurm.places.submit", second_time)
        assert run(line, "--slurm=-x n[1-3]") == 0
    assert f"n7 gets no more cells for now: {broken}" in capsys.readouterr().out
    earlier, later = scripts()[:2]
    assert "--exclude" not in earlier
    assert "#SBATCH --exclude=n[1-3],n7\n" in later
    updates = [words for words in calls("scontrol") if words[0] == "update"]
    assert ["update", "JobId=100_3", "ExcNodeList=n[1-3],n7"] in updates


@pytest.mark.parametrize("there", [True, False])
def test_more_memory_than_it_had_asked_for(there: bool, plan: Plan) -> None:
    """Whether the grid on its node was left to see it, or ended as well."""
    first, second = cells(LINE)
    killed = failed_by(first, -9, "killed by SIGKILL: by the system, if memory ran out", "epoch 1")
    plan(
        states={first.id: ["RUNNING", "OUT_OF_MEMORY"]},
        leaves={first.id: killed if there else {}, second.id: left_by(second)},
        shows={first.id: "JobState=OUT_OF_MEMORY ExitCode=0:125 RunTime=00:10:00 TimeLimit=UNLIMITED"},
    )
    assert run() == 3
    assert kept(first)["reason"].startswith("Slurm ended it since it needed more memory than it had asked for.")
    assert kept(first)["exit_code"] == (-9 if there else 3)


def test_somebody_cancels_a_task(plan: Plan, capsys: Any) -> None:
    first, second = cells(LINE)
    plan(states={first.id: ["RUNNING", "CANCELLED"]}, leaves={second.id: left_by(second)})
    assert run() == 130
    printed = capsys.readouterr().out
    assert "stopped  digits resnet, seed 0: the same command goes on with it" in printed
    assert "1 of 2 cells done, 0 failed, 1 left" in printed
    plan(leaves=done())
    assert run() == 0


def test_a_failure_that_is_tried_again_is_none_until_it_is_kept_anew(plan: Plan, capsys: Any) -> None:
    first, second = cells(LINE)
    lost = failed_by(first, 3, "the loss became nan", "error: the loss became nan")
    plan(states={first.id: ["FAILED"]}, leaves={first.id: lost, second.id: left_by(second)})
    assert run() == 3
    plan(states={first.id: ["RUNNING", "CANCELLED"]})
    assert run(f"{LINE} --retry-failed") == 130
    assert "1 of 2 cells done, 0 failed, 1 left" in capsys.readouterr().out


@pytest.mark.parametrize("shows", ["", "JobState=COMPLETED ExitCode=0:0 RunTime=00:00:10 TimeLimit=UNLIMITED"])
def test_the_nodes_do_not_see_its_folder(shows: str, plan: Plan, capsys: Any) -> None:
    both = {cell.id: shows for cell in cells(LINE)}
    plan(states={cell: ["RUNNING", "COMPLETED" if shows else "FAILED"] for cell in both}, shows=both)
    assert run() == 3
    summary = capsys.readouterr().out.partition("0 of 2 cells done, 2 failed")[2]
    said = "COMPLETED" if shows else "FAILED"
    assert f"failed     digits resnet, seed 0 and 1 more: Slurm says {said} of the task on n7, but it left" in summary
    assert f"left nothing in {Path.cwd() / 'runs'}" in " ".join(summary.split())
    assert kept(cells(LINE)[0])["exit_code"] == 2


@pytest.mark.parametrize(
    ("code", "printed", "reason"),
    [
        ("127:0", "line 22: exec: /opt/python: not found\n", "exit code 127: line 22: exec: /opt/python: not found"),
        ("2:0", "error: no disk\nSee to it.\n", "no disk. See to it."),
        ("0:9", "", "killed by SIGKILL: by the system, if memory ran out"),
    ],
)
def test_a_task_that_never_came_to_its_cell(code: str, printed: str, reason: str, plan: Plan, tmp_path: Path) -> None:
    first, second = cells(LINE)
    plan(
        states={first.id: ["RUNNING", "FAILED"]},
        leaves={second.id: left_by(second)},
        accounts={first.id: f"FAILED|{code}|3|60|n9"},
    )
    real = commands.submit

    def leave_a_log(path: str) -> str:
        Path(path).with_name(f"{Path(path).stem}-0.log").write_text(printed)
        return real(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("grids.slurm.places.submit", leave_a_log)
        assert run() == 3
    assert kept(first)["reason"] == reason


def test_a_task_of_which_slurm_knows_nothing_more(plan: Plan, capsys: Any) -> None:
    """It has forgotten it: what lies in OUT tells, or it is submitted again."""
    first, second = cells(LINE)
    plan(
        states={first.id: ["RUNNING", "GONE"], second.id: [["GONE"], ["COMPLETED"]]},
        leaves={first.id: left_by(first)},
    )
    real = commands.submit

    def second_time(path: str) -> str:
        if len(scripts()) == 2:
            plan(states=json.loads(Path("plan.json").read_text())["states"], leaves=done())
        return real(path)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("grids.slurm.places.submit", second_time)
        assert run() == 0
    assert "digits swin, seed 0 is submitted again: Slurm knows no more of it" in capsys.readouterr().out


def test_why_cells_wait_is_said_where_it_is_not_usual(plan: Plan, capsys: Any) -> None:
    first, second = cells(LINE)
    waits = ["PENDING:PartitionTimeLimit", "PENDING:PartitionTimeLimit", "COMPLETED"]
    plan(states={first.id: waits, second.id: ["PENDING:Priority", "COMPLETED"]}, leaves=done())
    assert run() == 0
    assert re.findall(r"^Slurm lets cells wait: .*$", capsys.readouterr().out, re.M) == [
        "Slurm lets cells wait: PartitionTimeLimit"
    ]


def test_how_many_wait_is_said_with_what_is_left(plan: Plan, capsys: Any) -> None:
    first, second = cells(LINE)
    waits = ["PENDING:Priority"] * 4 + ["COMPLETED"]
    plan(states={first.id: ["RUNNING", "COMPLETED"], second.id: waits}, leaves=done())
    assert run() == 0
    assert re.search(
        r"^\[1/2\] done     digits resnet.*; left: not measured yet; 1 in the queue \(Priority\)$",
        capsys.readouterr().out,
        re.M,
    )


def test_a_cell_is_done_though_its_node_is_still_at_work(plan: Plan, capsys: Any) -> None:
    """A cluster may clean up for long."""
    plan(states={cell.id: ["RUNNING", "COMPLETING"] for cell in cells(LINE)}, leaves=done())
    assert run() == 0
    assert capsys.readouterr().out.splitlines()[-1] == "2 of 2 cells done, 0 failed, 0 left"


class At:
    """Sends signals to this process at the n-th question to Slurm."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *signals: tuple[int, signal.Signals]) -> None:
        self.asked, self.signals = 0, signals
        self._real = commands.tasks_of
        monkeypatch.setattr("grids.slurm.places.tasks_of", self)

    def __call__(self, names: Any) -> Any:
        found = self._real(names)
        self.asked += 1
        for number, each in self.signals:
            if number == self.asked:
                os.kill(os.getpid(), each)
        return found


def test_ctrl_c_stops_what_runs_after_its_epoch_and_cancels_what_waits(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    first, second = cells(LINE)
    plan(states={first.id: ["RUNNING"], second.id: ["PENDING:Priority"]})
    At(monkeypatch, (2, signal.SIGINT))
    assert run() == 130
    assert calls("scancel") == [
        ["--batch", "--signal=INT", "100_0"],
        ["--state=PENDING", "100_1"],
    ]
    printed = capsys.readouterr().out
    assert "stopping after the epochs that are running" in printed
    assert "the same command continues" in printed


def test_ctrl_c_while_the_controller_is_silent(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked again until it has heard, and then no more: a task that hears it twice ends at once."""
    states = {cell.id: ["RUNNING"] for cell in cells(LINE)}
    plan(states=states, deaf=2)
    At(monkeypatch, (2, signal.SIGINT))
    assert run() == 130
    assert calls("scancel") == [["--batch", "--signal=INT", "100_0", "100_1"]] * 3


def test_ctrl_c_again_stops_at_once(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    first, second = cells(LINE)
    plan(states={first.id: ["RUNNING"], second.id: ["COMPLETING"]})
    At(monkeypatch, (2, signal.SIGINT), (2, signal.SIGINT))
    assert run() == 130
    assert calls("scancel") == [["100_0", "100_1"]]


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGHUP])
def test_it_is_left_and_finds_its_tasks_again(
    how: signal.Signals, plan: Plan, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    first, second = cells(LINE)
    plan(states={first.id: ["RUNNING"] * 4 + ["COMPLETED"], second.id: ["PENDING:Priority"] * 4 + ["COMPLETED"]})
    At(monkeypatch, (2, how))
    assert run() == 130
    assert "Slurm's tasks go on without this process" in capsys.readouterr().out
    assert calls("scancel") == []
    plan(states={}, leaves=done())
    assert run() == 0
    assert len(calls("sbatch")) == 1
    printed = capsys.readouterr().out
    assert "2 cells are in Slurm's queue, or at work there, already" in printed
    assert printed.splitlines()[-1] == "2 of 2 cells done, 0 failed, 0 left"


def test_a_larger_grid_submits_what_is_not_there(plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    line = f"{LINE} --seeds 0-1"
    plan(states={cell.id: ["RUNNING"] * 4 + ["COMPLETED"] for cell in cells(LINE)})
    At(monkeypatch, (2, signal.SIGTERM))
    assert run() == 130
    plan(states={}, leaves=done(line))
    assert run(line) == 0
    tasks = [task["cell"] for job in json.loads(Path("jobs.json").read_text()) for task in job["tasks"]]
    assert sorted(tasks) == sorted(cell.id for cell in cells(line))


def test_rerun_is_not_done_by_what_lay_there(plan: Plan) -> None:
    plan(leaves=done())
    assert run() == 0
    anew = {cell.id: left_by(cell, started="2026-02-02T00:00:00+00:00") for cell in cells(LINE)}
    plan(states={cell.id: ["RUNNING", "RUNNING", "COMPLETED"] for cell in cells(LINE)}, leaves=anew)
    assert run(f"{LINE} --rerun") == 0
    assert len(calls("sbatch")) == 2


def test_one_cell_by_its_name(capsys: Any) -> None:
    first, second = cells(LINE)
    assert grid.main([*LINE.split(), "--cell", second.id, "--dry-run"]) == 0
    assert re.search(r"^cells      1, one at a time$", capsys.readouterr().out, re.M)
    assert [cell.id for cell in cells(f"{LINE} --cell {first.id}")] == [first.id]
    assert grid.main([*LINE.split(), "--cell", "digits-x", "--dry-run"]) == 2
    assert "--cell digits-x: this grid has no cell of that name" in capsys.readouterr().err


def test_times_as_slurm_writes_them() -> None:
    assert [clock(text) for text in ("0:09", "12:00", "1:02:03", "2-00:00:01")] == [9.0, 720.0, 3723.0, 172801.0]
    assert clock("UNLIMITED") is None


def test_nodes_with_and_without_gpus(plan: Plan) -> None:
    plan(nodes=["8+|gpu:tesla:2(S:0),gpu:1", "4|(null)", "2|lustre:9"])
    assert nodes(None) == [(8, 3), (4, 0), (2, 0)]
