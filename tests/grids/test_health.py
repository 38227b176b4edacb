"""What tells a place that fails cells from cells that fail."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from grids.health import PAUSE_SECONDS, Health, Kind, sign_of
from grids.ledger import failure_now
from tests.grids.cells import cells

CUDA = ["RuntimeError: CUDA error: an illegal memory access was encountered", "Compile with `TORCH_USE_CUDA_DSA`"]
SOME = "--datasets digits cifar10 dtd --models resnet swin regnet"


def sign(seconds: float, code: int | None, *tail: str) -> Kind | None:
    (cell, *_) = cells("--datasets digits --models resnet")
    found = sign_of(failure_now(cell, code, tail[-1] if tail else "killed by a signal", tail), seconds)
    return found and found[0]


@pytest.mark.parametrize(
    "line",
    [
        CUDA[0],
        "torch.AcceleratorError: CUDA error: uncorrectable ECC error encountered",
        "RuntimeError: CUDA error: no kernel image is available for execution on the device",
        "error: --device cuda: NVIDIA H100 (compute capability 9.0) does not compute: CUDA error: unknown error",
        "error: --device cuda: PyTorch 2.14.1 finds none here, only cpu.",
        "ModuleNotFoundError: No module named 'torch'",
        "ImportError: libcudart.so.13: cannot open shared object file: No such file or directory",
        "error: the checkpoint can't be written to runs/x: no space left on device.",
        "OSError: [Errno 116] Stale file handle",
    ],
)
def test_what_names_the_place(line: str) -> None:
    assert sign(3600, 3, "epoch 1", line) is Kind.NAMED
    if not line.startswith("error:"):
        assert sign(3600, 1, line, *(f"line {number}" for number in range(20))) is None, "long before the end"


def test_what_does_not() -> None:
    assert sign(5, 3, "error: the loss became nan in epoch 1") is None
    assert sign(5, 2, "error: no images in data/dtd") is None
    assert sign(5, 1, "RuntimeError: CUDA error: device-side assert triggered") is Kind.EARLY
    assert sign(3600, 1, "RuntimeError: CUDA error: device-side assert triggered") is None
    assert sign(3600, -9) is None
    assert sign(5, 2, "UserWarning: CUDA initialization: the NVIDIA driver is too old", "error: no data") is None


def test_what_is_early() -> None:
    assert sign(5, -9) is Kind.EARLY
    assert sign(5, 1, "ValueError: odd") is Kind.EARLY
    assert sign(5, 3, "error: out of memory with 2 images at a time") is Kind.EARLY
    assert sign(500, 3, "error: out of memory with 2 images at a time") is None
    assert sign(5, None) is None


class Ends:
    """Cells that end on two cards, or on one, one a minute."""

    def __init__(self, line: str = SOME, places: str = "ab") -> None:
        self.cells, self.now = {f"{cell.dataset.key} {cell.row}": cell for cell in cells(line)}, 0.0
        self.health = Health(list(self.cells.values()))
        self.health.seen(places)
        self.running: list[Any] = []

    def work(self, name: str, where: str, seconds: float = 10.0) -> Any:
        return SimpleNamespace(cell=self.cells[name], where=where, seconds=seconds)

    def fails(self, name: str, where: str, *tail: str, code: int = 1) -> bool:
        """Whether it is laid on the place."""
        self.now += 60
        failure = failure_now(self.cells[name], code, (tail or ("x",))[-1], tail)
        return self.health.may_be_the_place(self.work(name, where), failure, self.now)

    def ends_well(self, name: str, where: str) -> None:
        self.now += 60
        self.health.well(self.cells[name], where, self.now)

    @property
    def out(self) -> list[str]:
        return self.health.newly_out(self.running, self.now)


def test_two_cells_that_share_nothing_tell_by_what_names_the_place() -> None:
    ends = Ends()
    assert ends.fails("dtd resnet", "a", *CUDA)
    assert ends.out == []
    assert ends.fails("dtd swin", "a", *CUDA)
    assert ends.out == [], "it may be that dataset"
    assert ends.fails("cifar10 swin", "a", *CUDA)
    assert ends.out == ["a"]
    assert ends.health.out == {"a": CUDA[0]}
    assert ends.out == [], "that is said once"


def test_a_cell_that_ends_well_clears_its_place() -> None:
    ends = Ends()
    ends.fails("dtd resnet", "a", *CUDA)
    ends.ends_well("dtd regnet", "a")
    ends.fails("cifar10 swin", "a", *CUDA)
    assert ends.out == []


def test_a_grid_of_one_dataset_tells_by_its_backbones() -> None:
    ends = Ends("--datasets digits --models resnet swin")
    ends.fails("digits resnet", "a", *CUDA)
    assert ends.out == []
    ends.fails("digits swin", "a", *CUDA)
    assert ends.out == ["a"]


def test_early_ends_tell_where_others_go_on() -> None:
    for others in ("nothing", "well", "running", "just started"):
        ends = Ends()
        assert ends.fails("dtd resnet", "a")
        if others == "well":
            ends.ends_well("dtd regnet", "b")
        elif others in ("running", "just started"):
            ends.running = [ends.work("dtd regnet", "b", 61.0 if others == "running" else 9.0)]
        assert ends.fails("cifar10 swin", "a")
        assert ends.out == (["a"] if others in ("well", "running") else []), others


def test_a_cell_that_ends_well_elsewhere_tells_of_where_it_failed() -> None:
    """Whatever the two that failed there have in common."""
    ends = Ends("--datasets digits cifar10 --models resnet swin")
    ends.fails("digits resnet", "a")
    ends.fails("digits swin", "a")
    assert ends.out == []
    ends.ends_well("digits resnet", "b")
    assert ends.out == ["a"]


def test_a_cell_that_fails_everywhere_is_at_fault() -> None:
    ends = Ends(places="abc")
    assert ends.fails("dtd resnet", "a", *CUDA)
    assert ends.fails("dtd resnet", "b", *CUDA)
    assert not ends.fails("dtd resnet", "c", *CUDA)
    assert ends.fails("dtd swin", "a")
    assert not ends.fails("dtd swin", "b"), "twice early"
    assert ends.out == []


def test_the_only_place_is_given_up_after_three() -> None:
    ends = Ends(places="a")
    given_up = []
    for name in ("dtd resnet", "cifar10 swin", "digits regnet"):
        assert not ends.fails(name, "a", *CUDA), "there is no other"
        given_up.append(ends.out)
    assert given_up == [[], [], ["a"]]
    assert [f"{cell.dataset.key} {cell.row}" for cell in ends.health.failed_there()] == [
        "dtd resnet",
        "cifar10 swin",
        "digits regnet",
    ]
    early = Ends(places="a")
    for name in ("dtd resnet", "cifar10 swin", "digits regnet"):
        early.fails(name, "a")
    assert early.out == [], "nothing says that others do better"


def test_a_place_is_tried_again_with_one_cell_and_for_twice_as_long_afterwards() -> None:
    ends = Ends()
    ends.fails("dtd resnet", "a", *CUDA)
    ends.fails("cifar10 swin", "a", *CUDA)
    assert ends.out == ["a"]
    assert ends.health.due(ends.now + PAUSE_SECONDS - 1) == []
    ends.now += PAUSE_SECONDS
    assert ends.health.due(ends.now) == ["a"]
    assert ends.health.out == {}
    ends.fails("digits regnet", "a", *CUDA)
    assert ends.out == ["a"]
    assert ends.health.due(ends.now + 2 * PAUSE_SECONDS - 1) == []
    assert ends.health.due(ends.now + 2 * PAUSE_SECONDS) == ["a"]
    ends.ends_well("dtd swin", "a")
    ends.fails("digits swin", "a", *CUDA)
    assert ends.out == []


def test_where_nobody_knows_where_a_cell_ran_no_place_is_blamed() -> None:
    ends = Ends()
    assert not ends.fails("dtd resnet", "", *CUDA)
    assert not ends.fails("cifar10 swin", "", *CUDA)
    assert ends.out == []
