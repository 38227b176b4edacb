"""The processes that train a run together, as torchrun starts them: which of them this is, what they tell each other.

Each knows its rank from the environment variables of torchrun (https://docs.pytorch.org/docs/stable/elastic/run.html).
The first, of rank 0, alone reads and writes the run's folder, decodes, downloads, measures and talks.

What takes long is waited for by looking into their common store again and again, so that Ctrl-C is heard and a failure
of another is seen.
"""

from __future__ import annotations

import os
import pickle
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, TypeVar

from engine import INTERRUPTED
from engine.errors import EndedElsewhereError, RunError, UserError, counted, out_of_memory
from engine.processes.arrival import arrival
from engine.processes.heartbeat import die_with

if "RANK" in os.environ:  # read as PyTorch is imported: of connections that end, the exceptions say enough
    os.environ.setdefault("TORCH_CPP_LOG_LEVEL", "ERROR")

Made = TypeVar("Made")

PATIENCE = timedelta(minutes=30)  # for what another process is to send, after which it hangs
LOOK_AGAIN = 0.05  # seconds between two looks into the store
LAST_WORDS = 2.0  # seconds in which a process that fails says so, after its connections are gone
NEEDED = ("RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
LEFT = "left"  # the store's key of how many have left, beside the first
FAILED = "failed"  # the store's key of the first failure: exit code, rank and reason


@dataclass(frozen=True)
class Place:
    """Which of how many processes one is."""

    rank: int = 0
    count: int = 1
    local: int = 0  # among those of its machine


ALONE = Place()
_joined = _has_joined = False
_last: BaseException | None = None  # the failure that the others have been told of
_failed_here = False  # and not in another process, which says so itself
_times = 0  # that this process has joined others: the same in all
_steps = 0  # exchanges through the store so far: the same in all processes, as they go the same way


def place() -> Place:
    """This process's, as the environment has it. Raises UserError where that makes no sense."""
    if os.environ.get("WORLD_SIZE", "1") == "1" or any(name not in os.environ for name in NEEDED):
        return ALONE
    try:
        rank, count, local = (int(os.environ.get(name, "0")) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
    except ValueError:
        rank = count = local = -1
    if not 0 <= local <= rank < count:
        given = ", ".join(f"{name}={os.environ.get(name, '')!r:.20}" for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
        raise UserError(f"the environment says {given}. Expected what torchrun sets, or none of these.")
    return Place(rank, count, local)


def is_first() -> bool:
    """Whether this process is the one that writes and talks; so is one that is alone."""
    with suppress(UserError):
        return place().rank == 0
    return True


def speaks() -> bool:
    """Whether this process says what is wrong: the first one, and one that failed by itself.

    Before they have joined, all fail by themselves: then the first of each machine speaks.
    """
    with suppress(UserError):
        if not _has_joined and place().local == 0:
            return True
    return _failed_here or is_first()


def whose() -> str:
    """How a message of a process that is not the first begins; "" for all others."""
    return "" if is_first() else f"process {place().rank + 1} of {place().count}: "


def joined() -> bool:
    """Whether this process works with others now."""
    return _joined


@contextmanager
def together(device: str) -> Iterator[None]:
    """Work with the other processes, each of which computes on a `device` ("cuda", "cpu") of its own, until the end.

    A failure of one ends all: it is raised where it happened, and in the others as EndedElsewhereError, or
    KeyboardInterrupt where it was that. Raises UserError where there are fewer cards than processes, or no way to work
    together on such a device.
    """
    global _joined
    if place() == ALONE or _joined:
        yield
        return
    _join(device)
    try:
        with failures_told():
            yield
            _wait_for_all(_next("the end"))
            _leave_last()
    finally:
        _joined = False


@contextmanager
def failures_told() -> Iterator[None]:
    """Raise what comes through as it is to be raised here, and told to the others: see together()."""
    try:
        yield
    except BaseException as problem:
        told = _told(problem) if _joined else problem
        if told is problem:
            raise
        raise told from problem


def _join(device: str) -> None:
    global _joined, _has_joined, _steps, _times
    import torch
    import torch.distributed
    from torch.distributed.rendezvous import rendezvous

    here = place()
    if "TORCHELASTIC_RUN_ID" in os.environ:  # torchrun has started it, and nobody else would end it or look after it
        die_with(os.getppid())
    if device == "cuda":
        cards, wanted = torch.cuda.device_count(), int(os.environ.get("LOCAL_WORLD_SIZE", here.local + 1))
        if wanted > cards:
            raise UserError(
                f"{wanted} processes on this machine, and {counted(cards, 'card')}: each needs one of its own. "
                f"Expected torchrun --nproc_per_node={cards} at most."
            )
        torch.cuda.set_device(here.local)
    elif device != "cpu":
        raise UserError(f"several processes can't train together on {device}. Leave torchrun out, or use --device cpu.")
    kinds = "cpu:gloo,cuda:nccl" if device == "cuda" else "gloo"
    others = counted(here.count - 1, "other process")
    try:
        with arrival(f"{others} of this run", speaks()):
            store, rank, count = next(rendezvous("env://", timeout=PATIENCE))
            # a script's next run, and torchrun --max-restarts, find the same store, and in it what was said before
            _times += 1
            name = f"{os.environ.get('TORCHELASTIC_RESTART_COUNT', '0')} {_times}"
            store = torch.distributed.PrefixStore(name, store)  # type: ignore[attr-defined]
            torch.distributed.init_process_group(kinds, timeout=PATIENCE, store=store, rank=rank, world_size=count)
    except (RuntimeError, ValueError) as problem:
        reason = str(problem).strip().partition("\n")[0]
        raise RunError(
            f"the {here.count} processes can't reach each other: {reason}. Where a machine has several networks, "
            "GLOO_SOCKET_IFNAME and NCCL_SOCKET_IFNAME name the one to use."
        ) from problem
    _joined, _has_joined, _steps = True, True, 0


def _leave_last() -> None:
    """Leave the others; the first, once they have left, where it keeps their store, as torchrun does otherwise."""
    import torch.distributed

    store = _store()
    if not is_first():
        store.add(LEFT, 1)
    torch.distributed.destroy_process_group()
    if not is_first() or os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        return
    until = time.monotonic() + LAST_WORDS
    while store.add(LEFT, 0) < place().count - 1 and time.monotonic() < until:
        time.sleep(LOOK_AGAIN)


def _told(problem: BaseException) -> BaseException:
    """Tell the others of this process's failure, or learn of theirs: what is to be raised here."""
    import torch.distributed

    global _failed_here, _last
    if problem is _last or isinstance(problem, EndedElsewhereError):
        return problem
    if lost := _is_of_connection(problem):
        time.sleep(2 * LOOK_AGAIN)  # for a Ctrl-C that came meanwhile, which Python raises here
    code = getattr(problem, "exit_code", INTERRUPTED if isinstance(problem, KeyboardInterrupt) else RunError.exit_code)
    reason = str(problem).partition("\n")[0] or type(problem).__name__
    until = time.monotonic() + LAST_WORDS
    while lost and time.monotonic() < until:
        if ended := _ended_elsewhere():
            return ended
        time.sleep(LOOK_AGAIN)
    if lost:
        problem = RunError(
            f"another of the {place().count} processes is gone, or gave no sign of life for "
            f"{PATIENCE.total_seconds() / 60:g} minutes ({reason}). What was saved is kept: the same command goes on."
        )
    _failed_here, _last = True, problem
    with suppress(RuntimeError):  # the store is gone with whoever kept it
        _store().compare_set(FAILED, "", pickle.dumps((code, place().rank, reason), 0).decode("ascii"))
        if not isinstance(problem, KeyboardInterrupt) and (ended := _ended_elsewhere()):
            _failed_here = False
            return ended
        # NCCL may wait for what will never come: there the end of this process ends its connections
        if torch.distributed.get_backend() == "gloo":
            _leave_last()
    return problem


def _is_of_connection(problem: BaseException) -> bool:
    """Whether that is how PyTorch says that another process is not there, rather than that this one fails."""
    import torch.distributed

    if not isinstance(problem, RuntimeError) or out_of_memory(problem):
        return False
    words = ("connection", "gloo", "nccl", "timed out", "peer", "broken pipe", "socket")
    return isinstance(problem, torch.distributed.DistError) or any(word in str(problem).lower() for word in words)


def _ended_elsewhere() -> BaseException | None:
    """What another process has said of its failure, as it is raised here; None: nothing. KeyboardInterrupt if so."""
    store = _store()
    try:
        if not store.check([FAILED]):
            return None
        code, rank, reason = pickle.loads(store.get(FAILED))  # noqa: S301 (of a process of this run)
    except RuntimeError:  # the store is gone with whoever kept it
        return None
    if rank == place().rank:
        return None
    if code == INTERRUPTED:
        return KeyboardInterrupt()
    return EndedElsewhereError(f"process {rank + 1} of {place().count} failed: {reason}", code)


def _store() -> Any:
    import torch.distributed

    return torch.distributed.distributed_c10d._get_default_store()  # there is no public way to it


def _next(what: str) -> str:
    """A key of the store, the same in all processes that have come as far."""
    global _steps
    _steps += 1
    return f"{_steps} {what}"


def _wait_for(key: str) -> bytes:
    """What is in the store under that key, once it is there. Raises what ended the process that was to put it there."""
    store = _store()
    while not store.check([key]):
        if ended := _ended_elsewhere():
            raise ended
        time.sleep(LOOK_AGAIN)
    found: bytes = store.get(key)
    return found


def _wait_for_all(key: str) -> None:
    """Until all processes have come here, as they say under that key."""
    _store().set(f"{key} {place().rank}", b"")
    for rank in range(place().count):
        _wait_for(f"{key} {rank}")


def from_first(make: Callable[[], Made]) -> Made:
    """What the first process makes; the others wait for it, however long that takes. Not for what is large."""
    if not _joined:
        return make()
    key = _next("from the first")
    if is_first():
        made = make()
        _store().set(key, pickle.dumps(made))
        return made
    found: Made = pickle.loads(_wait_for(key))  # noqa: S301 (of a process of this run)
    return found


def in_turns(make: Callable[[], Made]) -> Made:
    """What this process makes: after the first has, and, on each other machine, after its own first one has.

    So what the first leaves on a disk, such as decoded images or weights, is there for the others.
    """
    if not _joined:
        return make()
    here = place()
    turn = 0 if here.rank == 0 else 1 if here.local == 0 else 2
    # named before anything is made, which may be an exchange itself: each process would have come to another number
    for number, key in enumerate([_next(f"turn {number}") for number in range(3)]):
        if number == turn:
            made = make()
        _wait_for_all(key)
    return made
