"""Failures that other cells would share."""

from __future__ import annotations

from grids.faults import shared_fault
from grids.ledger import failure_now
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
