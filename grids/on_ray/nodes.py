"""The nodes of a Ray cluster that cells can run on, and how many on each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from engine.errors import one_line


@dataclass(frozen=True)
class Node:
    """A node that cells can run on."""

    id: str
    name: str
    places: int  # cells at a time
    cpus: float  # of each cell
    gpus: float


def node_of(entry: Mapping[str, Any], cuda: bool, per_gpu: int) -> Node | None:
    """A node that is alive, as ray.nodes() has it; None: no cell can run there.

    On cards `per_gpu` cells run on each, and share the node's processors; without, one has all of them.
    """
    resources = entry["Resources"]
    cpus, cards = float(resources.get("CPU", 0)), int(resources.get("GPU", 0))
    places = cards * per_gpu if cuda else int(cpus >= 1)
    if not places or not entry["Alive"]:
        return None
    share = cpus / places
    return Node(
        entry["NodeID"],
        one_line(entry["NodeManagerHostname"]),
        places,
        float(int(share)) if share >= 1 else share,
        1 / per_gpu if cuda else 0,
    )
