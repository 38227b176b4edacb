"""After which epochs a run is saved, and what a save holds."""

from __future__ import annotations

import inspect
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict
from math import inf
from typing import Any, Protocol

import torch
from torch import nn

from engine.device import random_state, set_random_state
from engine.errors import UserError, out_of_memory
from engine.training.plan import Plan
from engine.training.state import State
from engine.training.step import Step

StateDict = dict[str, torch.Tensor]
# Between two saves: as many times what the last one took, so that saving takes about a twentieth of the time, but no
# more seconds than anyone should lose to a crash, even where a save takes long.
PAUSE = 20.0
MOST_LOST = 30.0


class Checkpointer(Protocol):
    """Where fit() saves what it has reached, and finds what was saved before: a Run, say."""

    resumable: bool  # whether a later command can go on from what is saved

    def snapshot(self) -> dict[str, Any] | None:
        """What the last save() was given, or None."""

    def save(self, snapshot: Mapping[str, Any]) -> None:
        """After an epoch: everything that a resume needs."""

    def change_plan(self, plan: Plan) -> None:
        """The run goes on by another plan."""


class Saver:
    """Saves to `run` after an epoch if it is time to.

    That is after the first epoch of this process; then, as a save ends, PAUSE times as long as it took later, or
    MOST_LOST seconds if that is less; and whenever it has to be. So an end without notice costs the epochs that were
    finished in so many seconds, and the one that it fell into.
    """

    def __init__(self, run: Checkpointer) -> None:
        self._run = run
        self._next = float("-inf")

    def save(self, state: State, snapshot: Callable[[], Mapping[str, Any]], must: bool) -> float | None:
        """Save what `snapshot` makes, if it is time or a `must`, and let `state` count the seconds; None: not saved."""
        if not self._run.resumable:  # it keeps no weights, but is told of each epoch
            self._run.save(snapshot())
            return None
        start = time.perf_counter()
        if not must and start < self._next:
            return None
        self._run.save(snapshot())
        end = time.perf_counter()
        self._next = end + min(MOST_LOST, PAUSE * (end - start))
        if state.save_seconds is not None:
            state.save_seconds += end - start
        return end - start


def take_snapshot(state: State, model: nn.Module, best: StateDict, step: Step) -> dict[str, Any]:
    """All that restore() and State.restored() need."""
    return {
        "state": asdict(state),
        "model": model.state_dict(),
        "best": best,
        "optimizer": step.optimizer.state_dict(),
        "scaler": step.scaler.state_dict(),
        "random": random_state(step.plan.device),
    }


def resumed(saved: Mapping[str, Any], model: nn.Module, part: str, stages: int) -> tuple[State, StateDict]:
    """How far a run had come, in which `part` chooses the epoch, and its best weights. UserError as of restore()."""
    with _explained():
        state, best = State.restored(saved["state"], part), saved.get("best", saved["model"])
        if state.stage > stages:
            raise ValueError(f"it is in stage {state.stage + 1} of {stages}")
        _require_alike(best, model.state_dict())
    return state, best


def restore(saved: Mapping[str, Any], model: nn.Module, step: Step) -> None:
    """Put weights, optimizer and random numbers back to what take_snapshot() took.

    The settings of the optimizer are those of `step`. UserError: what was saved is not of such a model and optimizer;
    PyTorch would take some of it, and compute with memory that is not there.
    """
    with _explained():
        _require_alike(saved["model"], model.state_dict())
        moments = _moments(saved["optimizer"]["state"], step.optimizer)
        scaler = saved["scaler"]
        if scaler.keys() != step.scaler.state_dict().keys() or not all(
            0 <= float(scaler[name]) < inf for name in scaler
        ):
            raise ValueError(f"the scaler is {scaler!r:.80}")
        model.load_state_dict(saved["model"])
        step.optimizer.load_state_dict({**step.optimizer.state_dict(), "state": moments})
        step.scaler.load_state_dict(scaler)
        set_random_state(saved["random"], step.plan.device)


@contextmanager
def _explained() -> Iterator[None]:
    """Turn what a snapshot of something else leads to into a UserError."""
    try:
        yield
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as problem:
        if out_of_memory(problem):
            raise
        what = f"{type(problem).__name__}: {problem}".partition("\n")[0]
        raise UserError(
            f"the checkpoint is not one of this model and recipe ({what}). Start the run over with --rerun."
        ) from problem


def _require_alike(state: Mapping[str, Any], wanted: Mapping[str, torch.Tensor]) -> None:
    """Raise ValueError where a state dict has not the tensors of another, of the same shapes and types and finite."""
    if state.keys() != wanted.keys():
        raise ValueError(f"other tensors, such as {min(state.keys() ^ wanted.keys())!r:.80}")
    for name, value in state.items():
        _require_like(name, value, wanted[name].shape, wanted[name].dtype)


def _require_like(name: str, value: Any, shape: tuple[int, ...], dtype: torch.dtype) -> None:
    if not isinstance(value, torch.Tensor) or value.layout != torch.strided:
        raise ValueError(f"{name} is no tensor")
    if value.shape != shape or value.dtype != dtype:
        raise ValueError(f"{name} is {value.dtype} {tuple(value.shape)}, not {dtype} {tuple(shape)}")
    if not torch.isfinite(value).all():
        raise ValueError(f"{name} is not finite")


def _moments(saved: Mapping[int, Mapping[str, Any]], optimizer: torch.optim.Optimizer) -> dict[int, dict[str, Any]]:
    """What an optimizer's state dict has of each parameter, if it is what such an optimizer has. Raises ValueError."""
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    trial = torch.nn.Parameter(torch.zeros(2))
    trial.grad = torch.zeros(2)
    taken = inspect.signature(type(optimizer)).parameters  # "decoupled_weight_decay" of AdamW is none of them
    other = type(optimizer)([trial], **{name: value for name, value in optimizer.defaults.items() if name in taken})
    other.step()
    usual = other.state[trial]
    found = {}
    for index, moments in saved.items():
        if type(index) is not int or not 0 <= index < len(parameters):
            raise ValueError(f"the optimizer has moments of parameter {index!r:.20} of {len(parameters)}")
        if moments.keys() != usual.keys():
            raise ValueError(f"the optimizer's moments are {', '.join(map(str, moments))!r:.80}")
        for name, value in moments.items():
            alike = parameters[index] if usual[name].shape == trial.shape else usual[name]
            _require_like(f"{name} of parameter {index}", value, alike.shape, alike.dtype)
        found[index] = dict(moments)
    return found


def copy_of(model: nn.Module) -> StateDict:
    """The weights as they are now, in main memory: training goes on in the model's own."""
    state = model.state_dict()  # with the versions of its layers, which some models ask for when they load it
    for name, value in state.items():
        state[name] = value.detach().to("cpu", copy=True)
    return state
