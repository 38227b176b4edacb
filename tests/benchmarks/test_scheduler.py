"""The scheduler's simulation: the real grid on cards that are not there."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

import benchmarks.scheduler
import grids.running
from benchmarks.cluster import BROKEN, Assumed, Cluster, Lengths, VirtualClock
from benchmarks.scheduler import SILENT, Outcome, longest_first, simulate
from grids.estimate import Speeds
from tests.grids.cells import cells

LINE = "--datasets cifar10 dtd ucmerced --models resnet swin mobilenet --device cpu --seeds"


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def outcome(seeds: str, assumed: Assumed, nodes: int = 1, broken: dict[str, list[str]] | None = None) -> Outcome:
    return simulate(cells(f"{LINE} {seeds}"), Cluster(Lengths(assumed, 0), nodes, 4, 0, broken))


def test_cells_run_side_by_side_in_a_time_of_their_own() -> None:
    its = outcome("0-3", Assumed())
    assert its.statuses == {"done": 36}
    assert sum(its.each) / 4 <= its.seconds < 1.1 * longest_first(its.each, 4)
    assert its.cluster.starts.total() == 36
    assert its.cluster.lost_seconds == 0.0


def test_the_last_cells_are_not_waited_for() -> None:
    """In the order of the command line, the longest of the last seed would begin when all others have ended."""
    line = "--datasets dtd ucmerced cifar10 --models mobilenet resnet swin --device cpu --seeds 0-1"
    its = simulate(cells(line), Cluster(Lengths(Assumed(), 0), 2, 4, 0))
    assert its.seconds < 1.1 * longest_first(its.each, 8)


def test_nothing_fails_by_cards_and_nodes_that_do() -> None:
    assumed = Assumed(failures_per_card_hour=1.0, node_losses_per_hour=0.5)
    broken = {"node 0 card 1": [BROKEN], "node 1 card 2": SILENT}
    its = outcome("0-9", assumed, 3, broken)
    assert its.statuses == {"done": 90}
    assert its.told["no more cells"] >= 2
    assert its.cluster.losses > 0
    assert sum(its.cluster.ended_badly[name] for name in broken) < 15
    assert sum(its.cluster.ended_badly.values()) > sum(its.cluster.ended_badly[name] for name in broken)
    assert its.cluster.lost_seconds > 0


def test_bookkeeping_does_not_grow_with_the_grid(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of ten times as many cells, each costs as much: so many looks at the disk, estimates and sorted lists."""
    called: Counter[str] = Counter()

    def counting(where: Any, name: str) -> None:
        real = getattr(where, name)

        def count(*given: Any) -> Any:
            called[name] += 1
            return real(*given)

        monkeypatch.setattr(where, name, count)

    counting(grids.running, "standing_now")
    counting(grids.running, "total")
    counting(Speeds, "estimate")
    found = []
    for seeds in ("0-4", "0-49"):
        called.clear()
        (tmp_path / seeds).mkdir()
        monkeypatch.chdir(tmp_path / seeds)
        its = outcome(seeds, Assumed())
        found.append({name: number / len(its.each) for name, number in called.items()})
    few, many = found
    assert few["standing_now"] == many["standing_now"] == 2.0, "before the start and after the end"
    assert many["estimate"] < 1.5 * few["estimate"]
    assert many["total"] < 1.5 * few["total"]


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    benchmarks.scheduler.main(["--seeds", "1", "--cards", "16"])
    printed = capsys.readouterr().out
    assert "assumed: start_seconds 45, " in printed
    assert re.search(r"^done / failed / left +209 / 0 / 0$", printed, re.MULTILINE)
    benchmarks.scheduler.main(["--processes", "2", "--markdown"])
    assert "| 2 | " in capsys.readouterr().out


def test_a_clock_sleeps_until_the_next_thing_happens() -> None:
    clock, seen = VirtualClock(), []
    clock.at(100.0, lambda: seen.append(clock.now()))
    clock.at(0.5, lambda: seen.append(clock.now()))
    clock.sleep(1.0)
    assert (clock.now(), seen) == (1.0, [1.0])
    clock.sleep(1.0)
    assert (clock.now(), seen) == (100.0, [1.0, 100.0])


def test_longest_first() -> None:
    assert longest_first([3.0, 3.0, 2.0, 2.0, 2.0], 2) == 7.0  # the best possible is 6
    assert longest_first([5.0, 1.0], 8) == 5.0
