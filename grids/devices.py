"""This machine's cards, or its processor, as the places that cells run on."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Sequence
from functools import cache

from engine.errors import UserError
from engine.paths import PROJECT
from grids.cells import Cell
from grids.places import Places, Work
from grids.worker import Worker, place_of, start


class Slots(Places):
    """Places of this machine: cards, as find_slots() has them, each of which takes one cell at a time."""

    def __init__(self, slots: Sequence[str | None]) -> None:
        self._slots, self._free = list(slots), list(slots)
        self._shared = len(set(slots)) < len(slots)
        self._avoided: set[str] = set()

    @property
    def at_once(self) -> int:
        """How many cells run at a time: one on each card that is not avoided."""
        return sum(place_of(slot) not in self._avoided for slot in self._slots)

    @property
    def has_room(self) -> bool:
        """Whether a card is free."""
        return any(place_of(slot) not in self._avoided for slot in self._free)

    def start(self, cell: Cell, lock: int, seeds: int) -> Worker:
        """Start the cell's command on the card that has been free for longest."""
        slot = next(slot for slot in self._free if place_of(slot) not in self._avoided)
        worker = start(cell, lock, slot, seeds, self._shared)
        self._free.remove(slot)
        return worker

    def avoid(self, where: str) -> None:
        """Start nothing more on that card."""
        self._avoided.add(where)

    def readmit(self, where: str) -> None:
        """Start cells on that card again."""
        self._avoided.discard(where)

    def leave(self, work: Work) -> None:
        """Its card is free."""
        assert isinstance(work, Worker)
        self._free.append(work.slot)


def find_slots(device: str, per_gpu: int) -> list[str | None]:
    """Where cells can run at the same time: cards, as CUDA_VISIBLE_DEVICES names them, or None for anything else."""
    if device == "cpu" and per_gpu > 1:
        raise UserError(f"--per-gpu {per_gpu}: cells run on the processor here, one at a time with all of its cores.")
    if device != "cuda":
        return [None] * per_gpu
    import torch

    count = torch.cuda.device_count()  # makes no context: the cards' memory is the cells'
    listed = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    cards = [name.strip() for name in listed.split(",") if name.strip()] or [str(number) for number in range(count)]
    return [card for _ in range(per_gpu) for card in cards[:count]]


@cache
def device_name(device: str, visible: str | None) -> str | None:
    """What records call the device ("cuda", "cpu" or "mps"); None where it does not say.

    `visible`: the first card that may be used. Another process asks for a card's name: asking makes a context in the
    card's memory, which lasts as long as the process.
    """
    from engine.training.plan import choose_plan

    if device != "cuda":
        return choose_plan(device, "fp32").device_name
    code = "from engine.training.plan import choose_plan; print(choose_plan('cuda', 'fp32').device_name)"
    environment = {**os.environ, **({} if visible is None else {"CUDA_VISIBLE_DEVICES": visible})}
    try:
        answer = subprocess.run(  # noqa: S603 (its own code)
            [sys.executable, "-c", code], cwd=PROJECT, env=environment, capture_output=True, text=True, timeout=300
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() or None
