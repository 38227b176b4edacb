"""What processes that train a run together exchange every step and every epoch, through torch.distributed.

It gives up after peers.PATIENCE. One that is alone has all that there is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from engine.errors import UserError
from engine.processes.peers import is_first, joined, place

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt
    import torch

Made = TypeVar("Made")


def require_same(value: str, what: str) -> None:
    """Raise UserError, in all processes, where they have not all the same `value`."""
    if len(set(gathered(value))) > 1:
        raise UserError(f"the processes do not have the same {what}. Do all machines have the same files?")


def gathered(value: Made) -> list[Made]:
    """Each process's value, by rank."""
    if not joined():
        return [value]
    import torch.distributed

    values: list[Any] = [None] * place().count
    torch.distributed.all_gather_object(values, value)
    return values


def sent_by_first(value: Made | None) -> Made:
    """The first process's value, tensors of any size in it."""
    if not joined():
        return value  # type: ignore[return-value]  # of the only process, which has it
    import torch.distributed

    values = [value]
    torch.distributed.broadcast_object_list(values)
    return values[0]  # type: ignore[return-value]


def in_order(rows: npt.NDArray[np.int64] | None, values: torch.Tensor) -> torch.Tensor:
    """The values (N, ...) of all rows, of which this process has those of `rows` (M,), (M, ...); None: it has all.

    Where this process has no rows, what it gives has no other shape either.
    """
    if rows is None:
        return values
    import torch

    parts = [(some, theirs) for some, theirs in gathered((rows, values.cpu())) if len(some)]
    like = parts[0][1]
    every = like.new_empty(sum(len(some) for some, _ in parts), *like.shape[1:])
    for some, theirs in parts:
        every[torch.from_numpy(some)] = theirs
    return every.to(values.device)


def any_of(yes: bool) -> bool:
    """Whether it holds in any process."""
    return any(gathered(yes))


def total_of(number: float | None) -> float | None:
    """The sum over all processes; None where one does not know its own."""
    numbers = gathered(number)
    return None if None in numbers else sum(filter(None, numbers))


def add_up(tensor: torch.Tensor) -> torch.Tensor:
    """The sum of all processes' tensors, in place."""
    if joined():
        import torch.distributed

        torch.distributed.all_reduce(tensor)
    return tensor


def average(tensors: Sequence[torch.Tensor]) -> None:
    """Set each tensor to its mean over the processes."""
    if joined():
        for tensor in tensors:
            add_up(tensor).div_(place().count)


def own_random_numbers(seed: int, epoch: int) -> None:
    """Let the generators of dropout and the like go on with numbers that no other process has, in this epoch.

    The first process goes on with its own, which the run's checkpoint keeps.
    """
    import numpy as np
    import torch

    if joined() and not is_first():
        torch.manual_seed(int(np.random.default_rng([seed, epoch, place().rank]).integers(2**63)))
