"""What a grid's cells can run on: this machine's cards, or its processor, the nodes of a Ray cluster, or Slurm."""

from __future__ import annotations

import argparse
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

from engine.cli import importing
from engine.config import Config
from engine.errors import counted
from engine.records.schema import Record
from grids.cells import Cell
from grids.devices import Slots, device_name, find_slots
from grids.estimate import Speeds, latest_device
from grids.on_ray.address import LOCAL
from grids.places import Places
from grids.slurm.places import Cluster, QueueView
from grids.slurm.script import Request, request_of, script_lines
from grids.view import View

# a cell's process takes so many times as long to begin as PyTorch to be imported: 3 on two cores
START_UP = 3.0


@dataclass(frozen=True)
class Offer:
    """Places, as far as they are known before the plan is printed."""

    places: Callable[[Speeds], Places]  # for cells that take as long as these say
    at_once: int  # cells at a time; 0: nobody knows
    what: str  # in words
    device: str | None = None  # of this machine, on which they would run: it can be measured. None: of others
    # what records call the device, by all of them; None: nobody knows
    device_name: Callable[[Sequence[Record]], str | None] = lambda _: None
    start_seconds: float = 0.0  # that a cell's process takes beside its run, about
    # the view, made to show what is to be seen of such places alone
    shown: Callable[[Places, View], View] = lambda _, view: view
    # what --dry-run says of how such cells would be started
    script: Callable[[Sequence[Cell], Speeds], list[str]] = lambda *_: []


@contextmanager
def offered(options: argparse.Namespace, given: Sequence[str], config: Config) -> Iterator[Offer]:
    """What the command line asks for, whose words are `given`, as long as it is needed. UserError: it can't be had."""
    if options.slurm is not None:
        yield _of_slurm(request_of(options, given, config.device), config.out)
        return
    if options.ray in (None, LOCAL):
        offer = of_this_machine(config, options.per_gpu)
        if options.ray is None or options.dry_run:
            yield offer
            return
    with of_ray(options.ray, config, options.per_gpu) as cluster:
        if options.ray == LOCAL:
            cluster = replace(cluster, device_name=offer.device_name, start_seconds=offer.start_seconds)
        yield cluster


@contextmanager
def of_ray(address: str, config: Config, per_gpu: int = 1) -> Iterator[Offer]:
    """The nodes of the Ray cluster at that address, as ray_places() has it, while it lasts."""
    from grids.on_ray.connect import ray_places

    with ray_places(address, config.device, per_gpu, config.out) as cluster:
        what = f"{_pace(cluster.at_once)} on {cluster.what}"
        yield Offer(
            lambda _: cluster,
            cluster.at_once,
            what,
            device_name=latest_device,
            shown=lambda _, view: cluster.told_to(view),
        )


def of_this_machine(config: Config, per_gpu: int = 1) -> Offer:
    """Its cards, or its processor. UserError: there is no such device."""
    began = time.perf_counter()
    with importing():
        from engine.device import find_device  # PyTorch: not before the command line is known to be right

    start_seconds = START_UP * (time.perf_counter() - began)
    device = find_device(config.device)
    slots = find_slots(device, per_gpu)
    on = "" if slots[0] is None else f" on {counted(len(set(slots)), 'card')}"
    name = device_name(device, slots[0])
    what = f"{_pace(len(slots))}{on}"
    return Offer(lambda _: Slots(slots), len(slots), what, device, lambda _: name, start_seconds)


def _of_slurm(request: Request, out: Path) -> Offer:
    def shown(places: Places, view: View) -> View:
        assert isinstance(places, Cluster)
        return QueueView(view, places)

    return Offer(
        lambda speeds: Cluster(out, request, speeds),
        0,
        request.what,
        device_name=latest_device,
        shown=shown,
        script=lambda cells, speeds: script_lines(request, cells, speeds),
    )


def _pace(at_once: int) -> str:
    return "one at a time" if at_once == 1 else f"{at_once:,} at a time"
