"""After which epochs a run is saved, and what a save holds."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any, Protocol

import torch
from torch import nn

from engine.device import random_state, set_random_state
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


def restore(saved: Mapping[str, Any], model: nn.Module, step: Step) -> None:
    """Put weights, optimizer and random numbers back to what take_snapshot() took."""
    model.load_state_dict(saved["model"])
    step.optimizer.load_state_dict(saved["optimizer"])
    step.scaler.load_state_dict(saved["scaler"])
    set_random_state(saved["random"], step.plan.device)


def copy_of(model: nn.Module) -> StateDict:
    """The weights as they are now, in main memory: training goes on in the model's own."""
    state = model.state_dict()  # with the versions of its layers, which some models ask for when they load it
    for name, value in state.items():
        state[name] = value.detach().to("cpu", copy=True)
    return state
