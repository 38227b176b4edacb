"""How many cells a node takes, and a grid whose places are lost."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from engine.paths import PROJECT
from grids.cells import Cell
from grids.estimate import Speeds
from grids.ledger import Standing, make_folder, read_failure
from grids.on_ray.nodes import Node, node_of
from grids.places import Places
from grids.running import MOST_LOSSES, Grid
from tests.grids.cells import cells


def entry(**resources: float) -> dict[str, Any]:
    return {"NodeID": "a", "NodeManagerHostname": "node", "Alive": True, "Resources": resources}


@pytest.mark.parametrize(
    ("resources", "cuda", "per_gpu", "expected"),
    [
        ({"CPU": 8.0}, False, 1, (1, 8.0, 0)),
        ({"CPU": 8.0, "GPU": 2.0}, False, 1, (1, 8.0, 0)),
        ({"CPU": 64.0, "GPU": 8.0}, True, 1, (8, 8.0, 1)),
        ({"CPU": 64.0, "GPU": 8.0}, True, 3, (24, 2.0, 1 / 3)),
        ({"CPU": 1.0, "GPU": 2.0}, True, 2, (4, 0.25, 0.5)),
        ({"GPU": 1.0}, True, 1, (1, 0.0, 1)),
    ],
)
def test_what_a_node_has_room_for(
    resources: dict[str, float], cuda: bool, per_gpu: int, expected: tuple[int, float, float]
) -> None:
    assert node_of(entry(**resources), cuda, per_gpu) == Node("a", "node", *expected)


def test_nodes_that_no_cell_can_run_on() -> None:
    assert node_of(entry(CPU=8.0), True, 1) is None
    assert node_of(entry(CPU=0.5), False, 1) is None
    assert node_of(entry(), False, 1) is None
    assert node_of({**entry(CPU=8.0), "Alive": False}, False, 1) is None
    assert node_of({**entry(), "Alive": False}, True, 1) is None


class Lost:
    """Work that is lost as soon as it is begun, so often."""

    stalled, stopping, doing, seconds, where = False, 0, "", 0.0, "node x"

    def __init__(self, cell: Cell, lock: int) -> None:
        self.cell, self.lock, self.lost = cell, lock, True

    def watch(self, stall_seconds: float) -> int | None:
        return -9

    def stop(self, level: int) -> None: ...

    def tail(self) -> list[str]:
        return ["The node died."]

    def close(self) -> None:
        os.close(self.lock)


class Sinking(Places):
    """Places that lose all that runs there."""

    at_once, has_room = 1, True

    def __init__(self) -> None:
        self.started: list[str] = []

    def start(self, cell: Cell, lock: int, seeds: int) -> Any:
        self.started.append(cell.id)
        return Lost(cell, lock)

    def leave(self, work: Any) -> None: ...

    def avoid(self, where: str) -> None: ...

    def readmit(self, where: str) -> None: ...


class Silent:
    """A view that keeps what it is told."""

    def __init__(self) -> None:
        self.said: list[str] = []

    def note(self, text: str) -> None:
        self.said.append(text)

    def ended(self, cell: Cell, status: str, what: str, progress: Any) -> None:
        self.said.append(f"{status}: {what}")

    def started(self, *_: object) -> None: ...

    def refresh(self, *_: object) -> None: ...


def test_a_cell_that_is_lost_again_and_again_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may be what breaks its nodes."""
    monkeypatch.setattr("grids.running.MOMENT", 0.0)
    (cell,) = cells("--datasets digits --models resnet --device cpu")
    make_folder(cell.config.out)
    places, view = Sinking(), Silent()
    made: Any = view
    Grid([cell], {cell.id: Standing("new")}, Speeds(None), places, False, 30).run(made)
    assert places.started == [cell.id] * (MOST_LOSSES + 1)
    assert view.said[0].endswith("node x is lost to it, and it goes on elsewhere")
    assert len(view.said) == MOST_LOSSES + 1
    kept = read_failure(cell)
    assert kept is not None
    assert kept.reason == "what it ran on was lost 4 times; the last was node x"
    assert kept.tail == ["The node died."]


def test_no_module_of_the_grid_needs_ray_to_be_imported() -> None:
    for path in (PROJECT / "grids").rglob("*.py"):
        assert "\nimport ray" not in path.read_text("utf-8"), path
