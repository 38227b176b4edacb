"""The nodes of a Ray cluster as the places that cells run on, as they come and go."""

from __future__ import annotations

import os
import re
import secrets
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.errors import RunError, counted
from engine.files import open_regular
from grids.cells import Cell
from grids.ledger import HEARTBEAT, MENDABLE, grid_folder
from grids.on_ray.errand import KILLED, Ending, Errand, Order, Sign, needs_of, threads, travelling
from grids.on_ray.node import attempt
from grids.on_ray.nodes import Node, node_of
from grids.on_ray.parcel import begun_folders
from grids.places import Places, Work
from grids.view import View
from grids.worker import GRACE_SECONDS

LOOK_SECONDS = 0.5  # between two looks at which nodes there are
HEAR_SECONDS = 0.02  # between two looks at what has ended
EXCHANGE_SECONDS = 0.5  # between two exchanges with the post
FORCE_SECONDS = 2 * GRACE_SECONDS  # from the demand to stop at once to the end of what does not answer
LEFT_SECONDS = 60.0  # for the post to learn that an attempt has been left
COLOURS = re.compile("\x1b\\[[0-9;]*m")  # in what Ray says
POST_LASTS = {"max_restarts": -1, "max_task_retries": -1}  # the post knows nothing that is not told it again


@dataclass
class Attempt:
    """A cell that runs on a node, or waits for its room there, and what is known of it."""

    cell: Cell
    node: Node
    token: str
    lock: int
    task: Any  # the reference of what it returns
    places: RayPlaces
    begun: tuple[Path, ...]
    stalled: bool = False
    stopping: int = 0
    stall_seconds: float = float("inf")
    sign: Sign | None = None
    ending: Ending | None = None
    lost: bool = False
    deadline: float | None = None  # when it is ended by force
    started: float = field(default_factory=time.monotonic)

    @property
    def where(self) -> str:
        """Its node, and its card there."""
        card = f", card {self.sign.card}" if self.sign and self.sign.card else ""
        return f"node {self.node.name}{card}"

    @property
    def doing(self) -> str:
        """What its process said last."""
        return self.sign.doing if self.sign else "waits for the node"

    @property
    def seconds(self) -> float:
        """Since its start."""
        return time.monotonic() - self.started

    @property
    def mark(self) -> Path:
        """The file that a node sees if it shares --out; after a kill it is removed as signs of life are."""
        return grid_folder(self.cell.config.out).absolute() / f"{self.cell.id}{HEARTBEAT}.{self.token}"

    @property
    def order(self) -> Order:
        """What is wanted of it."""
        out = self.cell.config.out.absolute()
        return Order(self.cell.id, out, self.begun, self.stopping, self.stall_seconds)

    def watch(self, stall_seconds: float) -> int | None:
        """Its exit code, once it has ended. The node ends it where it gives no sign of life for so long."""
        self.stall_seconds = stall_seconds
        self.places.hear()
        if self.ending is None and self.deadline is not None and time.monotonic() > self.deadline:
            self.places.end(self)
        return self.ending.code if self.ending else None

    def stop(self, level: int) -> None:
        """Ask it to stop: 1 after the epoch that it is in, 2 at once."""
        if level <= self.stopping or self.ending:
            return
        self.stopping = level
        if level > 1:
            self.deadline = time.monotonic() + FORCE_SECONDS
        if self.sign is None:  # it waits, perhaps for hours, for what others have of the node
            self.places.end(self)
        else:
            self.places.tell()

    def tail(self) -> list[str]:
        """The last lines that it printed."""
        return self.ending.tail if self.ending else []

    def close(self) -> None:
        """When it has ended and what came of it is written down: let others have the cell."""
        os.close(self.lock)


class RayPlaces(Places):
    """The nodes of the cluster that Ray is connected to.

    Cells are given to Ray as there is room for them, so that their order stays the grid's.
    """

    def __init__(self, cuda: bool, per_gpu: int, out: Path) -> None:
        import ray
        from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

        from grids.on_ray.post import Post

        self._ray, self._on = ray, NodeAffinitySchedulingStrategy
        self.note: Callable[[str], None] = lambda text: None
        self._cuda, self._per_gpu, self._out = cuda, per_gpu, out
        self._nodes: dict[str, Node] = {}
        self._known_as: dict[str, set[str]] = {}  # ids of nodes, by what their cells say where they run
        self._avoided: set[str] = set()
        self._gone: set[str] = set()  # nodes that a cell was lost on: Ray may take long to say so
        self._unfit: dict[str, str] = {}  # nodes that lack what cells need, and what that is
        self._noted: set[str] = set()
        self._running: dict[str, Attempt] = {}
        self._looked = self._heard = self._exchanged = -LOOK_SECONDS
        self._signs: Any = None  # the reference of what the post says next
        mine = self._on(ray.get_runtime_context().get_node_id(), soft=False)
        self._post = ray.remote(Post).options(num_cpus=0, scheduling_strategy=mine, **POST_LASTS).remote()
        self._task = ray.remote(attempt)
        self._look()

    @property
    def what(self) -> str:
        """The nodes, in words."""
        nodes = self._usable()
        cards = sum(node.places for node in nodes) // self._per_gpu if self._cuda else 0
        with_cards = f" with {counted(cards, 'card')}" if cards else ""
        return f"{counted(len(nodes), 'node')} of a Ray cluster{with_cards}"

    def told_to(self, view: View) -> View:
        """The view, which learns what befalls nodes."""
        self.note = view.note
        return view

    def avoid(self, where: str) -> None:
        """Start nothing more on that node: which of its cards a cell gets is for Ray to say."""
        self._avoided |= self._known_as.get(where, set())

    def readmit(self, where: str) -> None:
        """Start cells there again."""
        self._avoided -= self._known_as.get(where, set())

    @property
    def at_once(self) -> int:
        """How many cells the nodes that are there now have room for."""
        nodes = self._usable()
        avoided = sum(node.places for node in nodes if node.id in self._avoided)
        return max(0 if avoided else 1, sum(node.places for node in nodes) - avoided)

    @property
    def has_room(self) -> bool:
        """Whether a node has."""
        self.hear()
        return self._freest() is not None

    def start(self, cell: Cell, lock: int, seeds: int) -> Attempt:
        """Give the cell to Ray, for the node that has most room."""
        node = self._freest()
        assert node is not None
        token = secrets.token_hex(8)
        work = Attempt(cell, node, token, lock, None, self, begun_folders(cell))
        work.mark.write_text(token, encoding="utf-8")
        errand = Errand(travelling(cell), token, seeds, self._per_gpu > 1, threads(), work.mark, needs_of(cell))
        self._running[token] = work
        self.tell()
        options = {"num_cpus": node.cpus, "num_gpus": node.gpus, "name": cell.id, "max_retries": 0}
        where = self._on(node.id, soft=False)
        work.task = self._task.options(scheduling_strategy=where, **options).remote(errand, self._post)
        return work

    def leave(self, work: Work) -> None:
        """It has ended: another cell may have its place. Nothing that its node still sends is kept."""
        assert isinstance(work, Attempt)
        self._running.pop(work.token, None)
        self._known_as.setdefault(work.where, set()).add(work.node.id)
        with suppress(OSError):
            work.mark.unlink(missing_ok=True)
        if work.lost:
            with self._connection():
                self._ray.get(self._exchange(), timeout=LEFT_SECONDS)
        if work.ending and work.ending.log:
            path = grid_folder(work.cell.config.out) / f"{work.cell.id}.log"
            with suppress(OSError), open_regular(path, append=True) as log:
                log.write(work.ending.log)

    def tell(self) -> None:
        """Let the post know what is wanted of each attempt."""
        self._signs = self._exchange()

    def end(self, work: Attempt) -> None:
        """End it by force."""
        with self._connection():
            self._ray.cancel(work.task, force=True)
        work.ending = Ending(KILLED, [])

    def hear(self) -> None:
        """Take in what has ended, what is said, and which nodes there are."""
        now = time.monotonic()
        if now - self._heard < HEAR_SECONDS:
            return
        self._heard = now
        with self._connection():
            self._take_endings()
            if self._signs is not None and self._ray.wait([self._signs], timeout=0)[0]:
                self._take_signs(self._ray.get(self._signs))
                self._signs = None
            if now - self._exchanged > EXCHANGE_SECONDS:
                self.tell()
            if now - self._looked > LOOK_SECONDS:
                self._look()

    def _exchange(self) -> Any:
        self._exchanged = time.monotonic()
        return self._post.exchange.remote({token: work.order for token, work in self._running.items()})

    @contextmanager
    def _connection(self) -> Iterator[None]:
        """RunError: Ray can't be reached."""
        try:
            yield
        except (self._ray.exceptions.RayError, ConnectionError) as problem:
            reason = COLOURS.sub("", str(problem)).strip().partition("\n")[0].rstrip(".")
            raise RunError(f"Ray can't be reached any more: {reason}. The same command continues.") from problem

    def _usable(self) -> list[Node]:
        """The nodes that lack nothing; where all lack something, all: what it is, their cells say."""
        there = [node for node in self._nodes.values() if node.id not in self._gone]
        return [node for node in there if node.id not in self._unfit] or there

    def _freest(self) -> Node | None:
        taken = [work.node.id for work in self._running.values()]
        usable = [node for node in self._usable() if node.id not in self._avoided]
        room = {node.id: node.places - taken.count(node.id) for node in usable}
        best = max(usable, key=lambda node: room[node.id], default=None)
        return best if best and room[best.id] > 0 else None

    def _look(self) -> None:
        self._looked = time.monotonic()
        found = [node_of(entry, self._cuda, self._per_gpu) for entry in self._ray.nodes()]
        now = {node.id: node for node in found if node}
        if self._nodes and not now:
            self._note_once("no node is left that cells can run on; the grid waits for one")
        self._nodes = now

    def _take_endings(self) -> None:
        left = {work.task: work for work in self._running.values() if work.ending is None and work.task is not None}
        if not left:
            return
        ended, _ = self._ray.wait(list(left), num_returns=len(left), timeout=0)
        for task in ended:
            self._take_ending(left[task])

    def _take_ending(self, work: Attempt) -> None:
        errors = self._ray.exceptions
        name = work.node.name
        try:
            work.ending = self._ray.get(work.task)
            work.stalled, work.lost = work.ending.stalled, work.ending.left
        except errors.OutOfMemoryError:
            line = f"error: Ray ended it, since the memory of node {name} ran out. Try a smaller -bs or --size."
            work.ending = Ending(KILLED, [line])
        except errors.RuntimeEnvSetupError as problem:
            reason = f"node {name} can't unpack the project: {str(problem).strip().splitlines()[-1]}"
            work.ending = Ending(MENDABLE, [f"error: {reason}"], unfit=reason)
        except errors.RayTaskError as problem:  # a fault of this project's
            work.ending = Ending(RunError.exit_code, str(problem).splitlines())
        except errors.RayError as problem:
            work.ending, work.lost = Ending(KILLED, str(problem).splitlines()), True
            if not isinstance(problem, errors.WorkerCrashedError):
                self._gone.add(work.node.id)
        if work.ending.unfit:
            self._unfit[work.node.id] = work.ending.unfit
            work.lost = any(node.id not in self._unfit for node in self._usable())
            if work.lost:
                self._note_once(f"no more cells for node {name}: {work.ending.unfit}")

    def _take_signs(self, signs: Mapping[str, Sign]) -> None:
        for token, sign in signs.items():
            work = self._running.get(token)
            if work is None:
                continue
            if work.sign is None:
                work.started = time.monotonic()
            work.sign = sign
            if not sign.sees_out:
                self._note_once(f"node {work.node.name} does not see {self._out}: its runs come back through Ray")

    def _note_once(self, text: str) -> None:
        if text not in self._noted:
            self._noted.add(text)
            self.note(text)
