"""grid.py --ray: cells on the nodes of a Ray cluster, of which there are several on this machine."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

import grid
from engine.paths import PROJECT
from grids.on_ray.errand import Errand
from grids.on_ray.node import SCRATCH
from tests.grids.cells import cells, record_of
from tests.grids.test_running import SCRIPT, alive, interrupt, meanwhile, wait_for

ray = pytest.importorskip("ray", reason="needs ray")
os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
NODE = {"num_cpus": 1, "object_store_memory": 80 << 20, "include_dashboard": False}
LINE = "--datasets digits.py --models resnet --device cpu"

# a run whose epochs take a tenth of a second, and whose checkpoint is their number; the events tell what was done
CELL = r"""
import json, os, signal, sys, time
from pathlib import Path

began = time.time()
here = Path(__file__).parent
given = dict(zip(sys.argv[1::2], sys.argv[2::2]))
name = f"{given['-model']} {given['--seed']}"
settings = json.loads((here / "settings.json").read_text())
out = Path(os.environ.get("WHICH_BACKBONE_OUT") or "runs")
folder = out / "digits" / given["-model"] / f"honest-seed{given['--seed']}-x"
heartbeat = Path(os.environ["WHICH_BACKBONE_HEARTBEAT"])
stopped = []

def event(what):
    with (here / "events.txt").open("a") as file:
        file.write(f"{what},{name},{os.getpid()},{time.time()}\n")

def write(name, text):
    temporary = folder / f".{name}.new"
    temporary.write_text(text)
    temporary.replace(folder / name)

signal.signal(signal.SIGUSR1, lambda *_: stopped.append(1))
if settings["deaf"]:
    signal.signal(signal.SIGUSR1, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
folder.mkdir(parents=True, exist_ok=True)
done = int((folder / "checkpoint.pt").read_text()) if (folder / "checkpoint.pt").exists() else 0
event(f"from {done}")
with (here / "cards.txt").open("a") as file:
    card, shared = os.environ.get("CUDA_VISIBLE_DEVICES"), os.environ["WHICH_BACKBONE_SHARED_DEVICE"]
    file.write(f"{card} {shared or 'alone'} {os.environ.get('OMP_NUM_THREADS')}\n")
record = settings["records"][name]
write("record.json", json.dumps(record | {"status": "running"}))
print(f"record     {folder}", flush=True)
for epoch in range(done, settings["epochs"]):
    time.sleep(max(0, began + (epoch - done + 1) * 0.1 - time.time()))
    write("checkpoint.pt", str(epoch + 1))
    heartbeat.write_text(f"epoch {epoch + 1}")
    if stopped:
        print("interrupted", flush=True)
        event("stopped")
        sys.exit(130)
write("record.json", json.dumps(record))
event("done")
"""

Prepare = Callable[..., None]


@pytest.fixture
def prepare(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Prepare:
    """Sets how many epochs the cells of a command line have."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits.py").write_text(SCRIPT)
    (tmp_path / "cell.py").write_text(CELL)

    def write(line: str = LINE, epochs: int = 1, deaf: bool = False) -> None:
        records = {f"{each.config.model} {each.config.seed}": record_of(each) for each in cells(line)}
        for number, record in enumerate(records.values()):
            record["test"]["top1"] = number / 100
        content = {"records": records, "epochs": epochs, "deaf": deaf}
        (tmp_path / "settings.json").write_text(json.dumps(content))

    return write


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """Three nodes that run one cell each, and one that runs none, which the grid is on."""
    from ray.cluster_utils import Cluster

    made = Cluster(initialize_head=True, head_node_args=NODE | {"num_cpus": 0})
    for _ in range(3):
        made.add_node(**NODE)
    yield made
    made.shutdown()


def run(cluster: Any, line: str = LINE) -> int:
    return grid.main([*shlex.split(line), "--ray", cluster.address])


def events(what: str = "") -> list[list[str]]:
    path = Path("events.txt")
    rows = [line.split(",") for line in path.read_text().splitlines()] if path.exists() else []
    return [row for row in rows if row[0].startswith(what)]


def pids() -> list[int]:
    return [int(pid) for _, _, pid, _ in events("from")]


def top1() -> dict[str, float]:
    paths = Path("runs/digits/resnet").glob("*/record.json")
    return {path.parent.name: json.loads(path.read_text())["test"]["top1"] for path in paths}


def apart(monkeypatch: pytest.MonkeyPatch, **changes: Any) -> None:
    """As where nodes do not see --out."""

    def errand(*values: Any) -> Errand:
        return replace(Errand(*values), mark=Path("/nowhere"), **changes)

    monkeypatch.setattr("grids.on_ray.places.Errand", errand)


def scratch() -> list[Path]:
    return list((Path(tempfile.gettempdir()) / f"{SCRATCH}-{os.getuid()}").glob("*"))


def test_cells_run_on_nodes_and_write_to_a_shared_folder(cluster: Any, prepare: Prepare, capsys: Any) -> None:
    line = f"{LINE} --seeds 0-4"
    prepare(line, epochs=5)
    assert run(cluster, line) == 0
    assert top1() == {f"honest-seed{seed}-x": seed / 100 for seed in range(5)}
    assert Counter(name for _, name, _, _ in events("done")) == {f"resnet {seed}": 1 for seed in range(5)}
    printed = capsys.readouterr()
    assert "cells      5, 3 at a time" in printed.out
    assert re.search(r"^\[0/5\] started  digits resnet, seed 0 on node \S+$", printed.out, re.MULTILINE)
    assert printed.out.endswith("5 of 5 cells done, 0 failed, 0 left\n")
    assert printed.err == ""
    assert not ray.is_initialized()
    assert not [path for path in Path("runs/grid").iterdir() if path.suffix not in (".log", ".lock")]
    assert not any(map(alive, pids()))
    assert not scratch()
    assert "--seed 0" in next(Path("runs/grid").glob("*seed0*.log")).read_text()


def test_runs_of_nodes_that_see_nothing_of_out_come_back(
    cluster: Any, prepare: Prepare, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """With their logs; what they print and record names the folder that was asked for."""
    line = f"{LINE} --seeds 0-3"
    prepare(line, epochs=3)
    apart(monkeypatch)
    assert run(cluster, line) == 0
    assert top1() == {f"honest-seed{seed}-x": seed / 100 for seed in range(4)}
    folder = Path("runs/digits/resnet/honest-seed0-x")
    assert sorted(path.name for path in folder.iterdir()) == ["checkpoint.pt", "record.json"]
    printed = capsys.readouterr().out
    assert "does not see runs: its runs come back through Ray" in printed
    assert f"record     {folder}\n" in next(Path("runs/grid").glob("*seed0*.log")).read_text()
    assert not scratch()
    assert {path.suffix for path in Path("runs/grid").iterdir()} == {".log", ".lock"}


def test_ctrl_c_stops_after_the_epoch_and_the_same_command_goes_on_elsewhere(
    cluster: Any, prepare: Prepare, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """What was begun travels to a node that has not seen it."""
    prepare(epochs=300)
    apart(monkeypatch)
    thread = meanwhile(lambda: wait_for(lambda: events("from")), lambda: time.sleep(2), interrupt)
    assert run(cluster) == 130
    thread.join()
    assert "after the epochs that are running" in capsys.readouterr().out
    assert len(events("stopped")) == 1
    saved = int(Path("runs/digits/resnet/honest-seed0-x/checkpoint.pt").read_text())
    assert saved > 5
    prepare(epochs=saved + 3)
    assert run(cluster) == 0
    assert [what for what, *_ in events("from")] == ["from 0", f"from {saved}"]
    assert list(top1()) == ["honest-seed0-x"]


@pytest.mark.slow
@pytest.mark.timeout(120)
def test_ctrl_c_twice_ends_even_what_does_not_listen(cluster: Any, prepare: Prepare) -> None:
    prepare(epochs=3000, deaf=True)
    thread = meanwhile(
        lambda: wait_for(lambda: events("from")),
        lambda: time.sleep(2),
        interrupt,
        lambda: time.sleep(0.5),
        interrupt,
    )
    assert run(cluster) == 130
    thread.join()
    assert not any(map(alive, pids()))
    assert not list(Path("runs/grid").glob("*.json"))


def test_cards_take_as_many_cells_at_a_time_as_they_may(
    cluster: Any, prepare: Prepare, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """On a node of which Ray is told that it has two: each cell sees one, and its share of the processors."""
    line = f"{LINE.replace('cpu', 'cuda')} --seeds 0-3 --per-gpu 2"
    prepare(line, epochs=60)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    node = cluster.add_node(**NODE | {"num_cpus": 8, "num_gpus": 2})
    try:
        assert run(cluster, line) == 0
    finally:
        cluster.remove_node(node)
    seen = Path("cards.txt").read_text().splitlines()
    assert Counter(each.split()[0] for each in seen) == {"0": 2, "1": 2}
    assert {each.partition(" ")[2] for each in seen} == {"1 2"}
    starts, ends = ([float(moment) for *_, moment in events(what)] for what in ("from", "done"))
    assert max(starts) < min(ends), "they did not run at the same time"
    printed = capsys.readouterr().out
    assert "cells      4, 4 at a time on 2 cards" in printed
    assert top1() == {f"honest-seed{seed}-x": seed / 100 for seed in range(4)}


@pytest.mark.timeout(180)
def test_a_cell_whose_node_is_lost_goes_on_from_what_was_sent(
    cluster: Any, prepare: Prepare, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    """The cell is alone, and its node the one whose Ray is the parent of its process's parent."""
    prepare(epochs=120)
    apart(monkeypatch, send_seconds=1.0)
    sent = Path("runs/digits/resnet/honest-seed0-x/checkpoint.pt")

    def lose() -> None:
        wait_for(sent.exists)
        task = parent(pids()[0])
        (node,) = [node for node in cluster.worker_nodes if raylet(node) == parent(task)]
        cluster.remove_node(node, allow_graceful=False)

    thread = meanwhile(lose)
    assert run(cluster) == 0
    thread.join()
    cluster.add_node(**NODE)
    (_, *again) = [int(what.split()[1]) for what, *_ in events("from")]
    assert len(again) == 1
    assert again[0] > 0
    assert Counter(what for what, *_ in events("done")) == {"done": 1}
    assert "is lost to it, and it goes on elsewhere" in capsys.readouterr().out
    assert not any(map(alive, pids()))


def parent(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def raylet(node: Any) -> int:
    (found,) = node.all_processes["raylet"]
    return int(found.process.pid)


def in_another_process(cluster: Any, line: str = LINE) -> subprocess.Popen[bytes]:
    """The same grid, on a Ray of its own where there is no cluster."""
    where = [cluster.address] if cluster else []
    command = [sys.executable, PROJECT / "grid.py", *shlex.split(line), "--ray", *where]
    with Path("printed.txt").open("ab") as printed:
        return subprocess.Popen(command, stdout=printed, stderr=subprocess.STDOUT)


@pytest.mark.timeout(180)
def test_a_killed_grid_takes_its_cells_along_and_the_same_command_goes_on(cluster: Any, prepare: Prepare) -> None:
    line = f"{LINE} --seeds 0-1"
    prepare(line, epochs=60)
    process = in_another_process(cluster, line)
    wait_for(lambda: len(events("from")) == 2, 60)
    time.sleep(1)
    process.kill()
    process.wait()
    wait_for(lambda: not any(map(alive, pids())))
    assert run(cluster, line) == 0
    assert all(int(what.split()[1]) > 0 for what, *_ in events("from")[2:])
    assert len(events("done")) == 2
    assert not scratch()


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_two_grids_share_the_work(cluster: Any, prepare: Prepare) -> None:
    line = f"{LINE} --seeds 0-7"
    prepare(line, epochs=10)
    process = in_another_process(cluster, line)
    assert run(cluster, line) == 0
    assert process.wait() == 0, Path("printed.txt").read_text()
    assert Counter(name for _, name, _, _ in events("done")) == {f"resnet {seed}": 1 for seed in range(8)}


def test_a_node_without_the_data_says_so(
    cluster: Any, prepare: Prepare, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    line = f"{LINE} --seeds 0-5"
    prepare(line)
    apart(monkeypatch, needs=(Path("/data/not/here"),))
    assert run(cluster, line) == 3
    assert events() == []
    printed = capsys.readouterr().out
    assert re.search(
        r"failed     digits resnet, seed 0.*: node \S+ has no /data/not/here, which is there where", printed
    )
    assert "the same command tries 6 failed cells again" in printed


def test_a_cluster_that_is_not_what_was_asked_for(
    cluster: Any, prepare: Prepare, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    prepare()
    assert run(cluster, LINE.replace("cpu", "cuda")) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: --device cuda: no node of the Ray cluster at {cluster.address} has a GPU")
    assert run(cluster, f"{LINE} --per-gpu 2") == 2
    assert "on processors a node runs one cell at a time" in capsys.readouterr().err
    monkeypatch.setattr(ray, "__version__", "2.0.0")
    assert run(cluster) == 2
    error = capsys.readouterr().err
    assert "Ray: 2.0.0" in error
    assert "Expected the same Ray and Python on all nodes" in error
    assert error.count("\n") == 1
    assert not Path("runs").exists()


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_sixty_cells_on_three_nodes_of_which_one_is_lost_and_another_comes(
    cluster: Any, prepare: Prepare, capsys: Any
) -> None:
    """Every cell is done once, with its own numbers, within 15 % of what the nodes could have done it in.

    That is from the first cell's start to the last one's end: until the first starts, packages are imported.
    """
    line, seconds = f"{LINE} --seeds 0-59", 4.0
    prepare(line, epochs=40)
    process = in_another_process(cluster, line)
    wait_for(lambda: len(events("done")) >= 15, 300)
    lost = time.time()
    cluster.remove_node(next(iter(cluster.worker_nodes)), allow_graceful=False)
    wait_for(lambda: len(events("done")) >= 30, 300)
    cluster.add_node(**NODE)
    added = time.time()
    assert process.wait() == 0, Path("printed.txt").read_text()
    moments = [float(moment) for *_, moment in events()]
    makespan = max(moments) - min(moments)
    assert Counter(name for _, name, _, _ in events("done")) == {f"resnet {seed}": 1 for seed in range(60)}
    assert top1() == {f"honest-seed{seed}-x": seed / 100 for seed in range(60)}
    # what three nodes do but for the time in which they were two
    ideal = (60 * seconds + added - lost) / 3
    with capsys.disabled():
        print(f"\n60 cells of {seconds} s: {makespan:.1f} s, ideal {ideal:.1f} s, {makespan / ideal - 1:+.1%}")
    assert makespan < 1.15 * ideal


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_real_runs_have_the_numbers_of_a_serial_grid(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On nodes that share --out, on nodes that do not, and on a Ray that the grid starts itself."""
    line = "--datasets digits --models shufflenet --seeds 0-1 --shots 4 --epochs 1 --size 32 --weights none --plan off "
    line += "-bs 16 --device cpu"
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    assert grid.main(shlex.split(line)) == 0
    assert run(cluster, f"{line} --out shared") == 0
    assert in_another_process(None, f"{line} --out alone").wait() == 0, Path("printed.txt").read_text()
    apart(monkeypatch)
    assert run(cluster, f"{line} --out apart") == 0
    expected = outcomes(tmp_path / "runs")
    assert len(expected) == 2
    for out in ("shared", "alone", "apart"):
        assert outcomes(tmp_path / out) == expected, out


def outcomes(out: Path) -> dict[str, Any]:
    """By run: what must be equal, and where it was asked to lie."""
    found = {}
    for path in out.glob("*/*/*/record.json"):
        record = json.loads(path.read_text())
        assert record["status"] == "done"
        assert record["config"]["out"] == str(out)
        environment = {key: record["environment"][key] for key in ("git_commit", "code", "cpu_threads", "folder")}
        assert set(record["files"]) == {file.name for file in path.parent.iterdir()} - {".lock", path.name}
        found[record["run"]] = [record["test"], record["selection"], record["dataset"], environment]
    return found
