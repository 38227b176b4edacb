"""checkpoint.pt: while a run lasts, all that a resume needs; afterwards the chosen weights with the record."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import nn

from engine.errors import UserError
from engine.files import DamagedError, atomic
from engine.models.weights import SEEN, UNFINISHED, load_tensors, packed_digests
from engine.records.schema import CHECKPOINT
from engine.training.saving import copy_of
from engine.training.state import State

NEEDED = ("model", "best", "optimizer", "scaler", "random")  # beside the state, to go on
NEEDED_OF_FINISHED = ("model",)


def write_checkpoint(folder: Path, content: Mapping[str, Any]) -> None:
    """Put `content` into the folder's checkpoint, whole or not at all. Raises OSError or RuntimeError."""
    with atomic(folder / CHECKPOINT) as file:
        torch.save(dict(content), file)


def read_checkpoint(folder: Path) -> dict[str, Any] | None:
    """What the folder's checkpoint holds; None where there is none. Raises UserError where no run can go on from it."""
    path = folder / CHECKPOINT
    if not path.exists():
        return None
    try:
        saved: dict[str, Any] = load_tensors(path)
        State.restored(saved["state"], "val")
        if lacking := [name for name in (NEEDED_OF_FINISHED if "run" in saved else NEEDED) if name not in saved]:
            raise KeyError(*lacking)
    except Exception as problem:  # whatever the bytes lead torch.load to
        # what PyTorch says of a file is a page long
        reason = problem if isinstance(problem, DamagedError) else type(problem).__name__
        raise UserError(
            f"{path} can't be read, so the run can't go on from it ({reason}).\nStart the run over with --rerun."
        ) from problem
    return saved


def unfinished(snapshot: Mapping[str, Any], record: Mapping[str, Any], seen: Mapping[str, Any]) -> dict[str, Any]:
    """What the checkpoint of a run holds that has taken `snapshot`: with what tells --weights where it comes from.

    seen: what seen_images() gives.
    """
    origin = {name: record[name] for name in ("run", "protocol", "seed", "normalisation")}
    origin["dataset"] = {"key": record["dataset"]["key"]}
    origin["backbone"] = {"weights": record["backbone"]["weights"]}
    return {**snapshot, UNFINISHED: origin, **seen}


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
