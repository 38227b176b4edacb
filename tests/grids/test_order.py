"""Which cell is started next, and what it costs to know."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from types import SimpleNamespace
from typing import Any

from grids.cells import Cell, key_of
from grids.estimate import Estimate
from grids.order import Order
from tests.grids.cells import cells

LINE = "--datasets digits --device cpu --models"


class Known:
    """Lengths by the name of the backbone; counts how often it is asked."""

    def __init__(self, seconds: Mapping[str, float | None]) -> None:
        self.seconds, self.asked = seconds, 0

    def estimate(self, cell: Cell) -> Estimate | None:
        self.asked += 1
        seconds = self.seconds[cell.config.model]
        return None if seconds is None else Estimate(seconds, "speeds")


def order_of(all_cells: list[Cell], seconds: Mapping[str, float | None]) -> Order:
    known: Any = Known(seconds)
    return Order(all_cells, all_cells, known)


def work(*running: Cell) -> list[Any]:
    return [SimpleNamespace(cell=cell, seconds=0.0) for cell in running]


def names(given: Iterable[Cell | None]) -> list[str]:
    return [f"{cell.config.model} {cell.config.seed}" for cell in given if cell]


def in_order(order: Order, places: int = 1) -> list[str]:
    """As on a machine where each cell is done before the next starts."""
    given = []
    while cell := order.next([], places):
        order.done(cell)
        given.append(cell)
    return names(given)


def test_seeds_come_in_order_and_in_each_the_longest_first() -> None:
    some = cells(f"{LINE} resnet swin regnet --seeds 0-2")
    longest_first = ["swin", "regnet", "resnet"]
    expected = [f"{model} {seed}" for seed in range(3) for model in longest_first]
    assert in_order(order_of(some, {"resnet": 1.0, "swin": 3.0, "regnet": 2.0})) == expected


def test_whole_data_come_first() -> None:
    some = cells(f"{LINE} resnet swin --shots 5 all")
    order = order_of(some, {"resnet": 1.0, "swin": 3.0})
    budgets = [cell.budget for _ in range(4) if (cell := order.next([], 1))]
    assert budgets == ["all", "all", "shots 5", "shots 5"]


def test_what_was_never_measured_counts_as_the_longest() -> None:
    some = cells(f"{LINE} resnet swin regnet")
    assert in_order(order_of(some, {"resnet": 1.0, "swin": 3.0, "regnet": None})) == ["swin 0", "regnet 0", "resnet 0"]
    nothing_known = dict.fromkeys(("resnet", "swin", "regnet"))
    assert in_order(order_of(some, nothing_known)) == ["resnet 0", "swin 0", "regnet 0"]


def test_a_cell_that_would_be_waited_for_does_not_wait_for_its_seed() -> None:
    """Two places, and 106 s of work: after the first seed, 100 s of one cell are all that counts."""
    some = cells(f"{LINE} resnet swin --seeds 0-2")
    order = order_of(some, {"resnet": 1.0, "swin": 100.0})
    first, second = order.next([], 2), order.next([], 2)
    assert names([first, second]) == ["swin 0", "swin 1"]
    far_from_the_end = order_of(some, {"resnet": 1.0, "swin": 1.2})
    assert names([far_from_the_end.next([], 2), far_from_the_end.next([], 2)]) == ["swin 0", "resnet 0"]


def test_a_plan_is_measured_by_one_seed_unless_nothing_else_is_there() -> None:
    some = cells(f"{LINE} resnet swin regnet --seeds 0-9")
    order = order_of(some, dict.fromkeys(("resnet", "swin", "regnet"), 10.0))
    running = [order.next([], 1) for _ in range(3)]
    for cell in filter(None, running):
        order.started(cell)
    assert names([order.next([], 1)]) == ["resnet 1"]
    regnet = running[-1]
    assert regnet
    order.ended(regnet)
    order.done(regnet)
    assert names([order.next([], 1), order.next([], 1), order.next([], 1)]) == ["regnet 1", "regnet 2", "regnet 3"]


def test_what_another_grid_has_is_tried_again_in_its_turn() -> None:
    some = cells(f"{LINE} resnet swin --seeds 0-9")
    order = order_of(some, {"resnet": 1.0, "swin": 1.1})
    swin = order.next([], 1)
    assert swin
    order.lend(swin, now=5.0)
    assert (len(order), order.waiting, order.elsewhere) == (20, 19, 1)
    order.take_back(since=4.9)
    assert names([order.next([], 1)]) == ["resnet 0"]
    order.take_back(since=5.0)
    assert in_order(order)[:2] == ["swin 0", "swin 1"]
    assert len(order) == 0


def test_places_of_other_grids_bring_the_end_nearer() -> None:
    """What is left is done by them as well, so that a long cell has to start sooner."""
    some = cells(f"{LINE} resnet swin --seeds 0-9")
    for is_shared, following in ((False, "resnet 4"), (True, "swin 5")):
        order = order_of(some, {"resnet": 1.0, "swin": 3.0})
        begun = [order.next([], 2) for _ in range(9)]
        assert names(begun)[-1] == "swin 4"
        for cell in filter(None, begun):
            if is_shared:
                order.lend(cell, now=0.0)
        assert names([order.next([], 2)]) == [following]


def test_how_many_seeds_are_to_come() -> None:
    some = cells(f"{LINE} resnet swin --seeds 0-3")
    order = order_of(some, {"resnet": 1.0, "swin": 1.1})
    swin = order.next([], 1)
    assert swin
    assert order.seeds_to_come(swin) == 3
    order.lend(swin, now=0.0)
    assert order.seeds_to_come(swin) == 4
    assert Counter(each.seconds for each in order.estimates() if each) == {1.0: 4, 1.1: 4}


def test_lengths_are_predicted_once_for_all_seeds() -> None:
    known: Any = Known({"resnet": 1.0, "swin": 1.1})
    some = cells(f"{LINE} resnet swin --seeds 0-99")
    order = Order(some, some, known)
    assert known.asked == 2
    in_order(order)
    assert known.asked == 2


def test_a_seeds_key_is_what_its_own_flags_say() -> None:
    for cell in cells(f"{LINE} resnet swin --seeds 0-2 --shots 5 all -bs 32 --recipe cosine"):
        assert cell.key == key_of(cell.dataset.key, cell.dataset.version, vars(cell.config))
