"""Failures that other cells would share."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from grids.faults import shared_fault
from grids.ledger import failure_now
from grids.worker import reason_of
from tests.grids.cells import cells


def test_a_shared_mistake_is_of_the_seed_only_where_it_draws_the_images() -> None:
    first, second, other = (
        cells(f"--datasets digits --models {name} --shots 5")[0] for name in ("resnet", "swin", "regnet")
    )
    (later,) = cells("--datasets digits --models regnet --shots 5 --seeds 1")
    failures = [failure_now(cell, 2, "no", ["error: no validation part"]) for cell in (first, second)]
    fault = shared_fault(second, failures[1], [(first, failures[0])])
    assert fault is not None
    assert fault.concerns(other)
    assert not fault.concerns(later)


def test_a_mistake_in_one_folder_is_not_laid_on_another_of_its_name(tmp_path: Path) -> None:
    for place in ("a/pets", "b/pets"):
        (tmp_path / place).mkdir(parents=True)
    folders = f"folder:{tmp_path}/a/pets folder:{tmp_path}/b/pets"
    first, second, *others = cells(f"--datasets {folders} --models resnet swin")
    failures = [failure_now(cell, 2, "no", ["error: no images"]) for cell in (first, second)]
    fault = shared_fault(second, failures[1], [(first, failures[0])])
    assert fault is not None
    assert fault.concerns(first)
    assert not any(fault.concerns(other) for other in others)


def test_a_reason_is_the_whole_message_in_a_line() -> None:
    worker: Any = SimpleNamespace(stalled=False)
    tail = ["error: 2 images can't be read:", "  a.png: cut short", "  b.png: empty", "Get these again."]
    said = "2 images can't be read: a.png: cut short. b.png: empty. Get these again."
    assert reason_of(2, worker, tail, 30) == said
