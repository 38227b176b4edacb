"""checkpoint.pt: while a run lasts, all that a resume needs; afterwards the chosen weights with the record."""

from __future__ import annotations

import stat
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, BinaryIO

import torch
from torch import nn

from engine.console import say
from engine.errors import UserError
from engine.files import DamagedError, atomic, set_aside
from engine.models.state_dict import load_tensors
from engine.models.weights import SEEN, UNFINISHED, packed_digests
from engine.records.schema import CHECKPOINT, PREVIOUS
from engine.training.saving import copy_of
from engine.training.state import State

NEEDED = ("model", "best", "optimizer", "scaler", "random")  # beside the state, to go on
NEEDED_OF_FINISHED = ("model",)
RERUN = "Start the run over with --rerun."


def write_checkpoint(folder: Path, content: Mapping[str, Any]) -> None:
    """Put `content` into the folder's checkpoint, whole or not at all; the one before it is kept until the next.

    Raises OSError, and RuntimeError for what PyTorch finds wrong itself.
    """
    with atomic(folder / CHECKPOINT, previous=folder / PREVIOUS) as file:
        written = _Written(file)
        try:
            torch.save(dict(content), written)  # type: ignore[arg-type]  # all that torch.save asks for
        except RuntimeError as problem:
            # PyTorch says nothing but at which place of the file it was
            raise written.problem or problem from None


class _Written:
    """A file to be written to that knows what went wrong with it."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self.problem: BaseException | None = None

    def write(self, piece: bytes) -> int:
        try:
            return self._file.write(piece)
        except BaseException as problem:
            self.problem = problem
            raise

    def flush(self) -> None:
        self._file.flush()


def has_checkpoint(folder: Path) -> bool:
    """Whether a save lies in the folder, of which nobody knows yet whether it is whole."""
    return any((folder / name).exists() for name in (CHECKPOINT, PREVIOUS))


def read_checkpoint(folder: Path, runs: Collection[str]) -> dict[str, Any] | None:
    """What the folder's checkpoint holds, if it is of one of the `runs`; None where there is none.

    A damaged one is set aside, with a line that says so, and the one before it is read. Raises UserError where no run
    can go on from what there is.
    """
    reasons = []
    for path in (folder / CHECKPOINT, folder / PREVIOUS):
        try:
            saved = load_checkpoint(path)
        except (DamagedError, OSError) as problem:
            reasons.append(f"{path} can't be read, so the run can't go on from it ({problem})")
            continue
        if saved is None:
            continue
        owner = saved.get(UNFINISHED, saved).get("run")
        if owner is not None and owner not in runs:  # one of an earlier version does not say
            raise UserError(f"{path} is of another run ({owner!r:.80}). Put back the run's own, or remove it.")
        if reasons:
            aside = set_aside(folder / CHECKPOINT)
            say(f"note       {reasons[0]}: it is {aside.name} now; the run goes on from the save before it")
            path.replace(folder / CHECKPOINT)
        return saved
    if reasons:
        raise UserError("".join(f"{reason}.\n" for reason in reasons) + RERUN)
    return None


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """What the checkpoint at `path` holds; None where there is none.

    Raises DamagedError where it is not what a run leaves, OSError where it can't be read.
    """
    try:
        if not stat.S_ISREG(path.stat().st_mode):  # a pipe would be waited for without end
            raise DamagedError("not a regular file")
    except FileNotFoundError:
        return None
    try:
        saved: dict[str, Any] = load_tensors(path)
        State.restored(saved["state"], "val")
        if lacking := [name for name in (NEEDED_OF_FINISHED if "run" in saved else NEEDED) if name not in saved]:
            raise KeyError(*lacking)
        if not isinstance(saved.get(UNFINISHED, {}), dict):
            raise TypeError
    except (DamagedError, OSError):
        raise
    except Exception as problem:  # whatever the bytes lead torch.load to
        # what PyTorch says of a file is a page long
        raise DamagedError(f"it is cut short, or no checkpoint: {type(problem).__name__}") from problem
    return saved


def record_in(folder: Path) -> dict[str, Any] | None:
    """The record of the run that the folder's checkpoint is of, as it was when that was saved.

    None where there is none, or where an earlier version saved it.
    """
    for path in (folder / CHECKPOINT, folder / PREVIOUS):
        try:
            saved = load_checkpoint(path)
        except (DamagedError, OSError):
            continue
        if saved is not None:
            content = saved.get(UNFINISHED) or {
                name: saved[name] for name in saved if name not in ("model", "state", SEEN)
            }
            return content if "status" in content else None
    return None


def unfinished(snapshot: Mapping[str, Any], record: Mapping[str, Any], seen: Mapping[str, Any]) -> dict[str, Any]:
    """What the checkpoint of a run holds that has taken `snapshot`: with its record, which can be lost.

    seen: what seen_images() gives.
    """
    return {**snapshot, UNFINISHED: dict(record), **seen}


def finished(
    model: nn.Module, state: Mapping[str, Any], record: Mapping[str, Any], seen: Mapping[str, Any]
) -> dict[str, Any]:
    """What the checkpoint of a finished run holds; `seen` is what seen_images() gives.

    The state is in it, so that a run which is cut off before its record says "done" has only test left to do.
    """
    weights = copy_of(model)
    for name, value in weights.items():
        weights[name] = value.contiguous()
    return {"model": weights, "state": state, **record, **seen}


def seen_images(digests: Collection[str] | None) -> dict[str, torch.Tensor]:
    """What a checkpoint says of the images that train or choose its weights; nothing where nobody knows them all."""
    return {} if digests is None else {SEEN: packed_digests(digests)}
