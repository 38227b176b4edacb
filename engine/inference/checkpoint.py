"""A checkpoint, opened for use."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from engine.code_hash import code_of
from engine.data.declaration import LARGEST_SIDE
from engine.errors import UserError, listed, one_line, reason_of
from engine.files import DamagedError, digest
from engine.inference.preprocessing import Preprocessing
from engine.models.backbone import Backbone, normalisation_of
from engine.models.names import find_backbone
from engine.models.structure import replace_head
from engine.models.weights import SEEN, UNFINISHED, require_digests, unpacked_digests
from engine.paths import exists, is_dir, is_file
from engine.records.checkpoint import load_checkpoint
from engine.records.identity import codes_of
from engine.records.schema import CHECKPOINT, RECORD, Record, RecordError, as_record, read_record
from engine.training.plan import Plan

# The sides of the pixels that a dataset's arrays have, or are kept at, for records from before these were noted.
STORED_BEFORE = {"cifar10": 32, "cifar100": 32, "digits": 8, "eurosat": 64, "tinyimagenet": 64}
EXPECTED = "Expected a run's folder (runs/DATASET/BACKBONE/RUN) or the checkpoint.pt in it."
LARGEST_BATCH = (1 << 31) - 1  # images
LONGEST_REASON = 200  # letters
# what values that are not of the kind they are taken for raise
DAMAGE = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)


@dataclass(frozen=True)
class Trained:
    """What a finished run trained: all that its checkpoint says, and what the model and its images are made by."""

    path: Path  # of the checkpoint
    record: Record
    state: Mapping[str, torch.Tensor]  # of the model
    backbone: Backbone
    preprocessing: Preprocessing
    seen: torch.Tensor | None = None  # digests of the images that trained or chose the weights, as packed_digests() has

    @property
    def classes(self) -> tuple[str, ...]:
        """Their names, in the order of the logits."""
        return tuple(self.record["dataset"]["classes"])

    @property
    def seen_digests(self) -> frozenset[str]:
        """Of the images that trained the weights or chose them, as far as the checkpoint says."""
        return unpacked_digests(self.seen) or frozenset()

    @property
    def temperature(self) -> float | None:
        """That logits are divided by for calibrated probabilities; None: none was fitted."""
        calibration = self.record.get("calibration")
        return float(calibration["temperature"]) if calibration else None

    def model(self) -> nn.Module:
        """A new model with the weights, in evaluation mode, on the processor: (B, 3, H, W) -> logits (B, classes).

        UserError: the weights are not of this backbone.
        """
        model = self.backbone.build()
        replace_head(model, self.backbone.head, len(self.classes))
        try:
            model.load_state_dict(dict(self.state))
        except (RuntimeError, TypeError, ValueError, AttributeError) as problem:
            reason = " ".join(str(problem).split())[:LONGEST_REASON]
            name = self.record["backbone"]["name"]
            raise UserError(
                f"{self.path}: its weights are not of {name} as it is built here ({reason}). Was the backbone's code "
                "changed since? Get that of the run back."
            ) from problem
        return model.eval()


def open_checkpoint(path: Path, known: Mapping[str, Backbone]) -> Trained:
    """The checkpoint at `path`, a run's folder or its checkpoint.pt; `known` are the backbones.

    UserError: it is none, damaged, of a run that has not ended, or of a backbone that is not known.
    """
    file = checkpoint_of(path)
    content = _content(file)
    rest = {name: value for name, value in content.items() if name not in ("model", "state", SEEN)}
    try:
        record = as_record(rest)
        _require_own(file, path, record)
        _require_kinds(content, record)
        preprocessing = _preprocessing(record)
        backbone = _backbone(file, record, known).at(preprocessing.size)
        _require_size(file, record["backbone"]["name"], backbone, preprocessing.size)
        return Trained(file, record, content["model"], backbone, preprocessing, content.get(SEEN))
    except RecordError as problem:
        raise UserError(f"{file}: what it says of its run can't be used: {problem}.") from problem
    except DAMAGE as problem:
        raise damaged(file, problem) from problem


def damaged(file: Path, problem: Exception) -> UserError:
    """The error to raise where something in a checkpoint is not of the kind that it should be."""
    what = one_line(f"{type(problem).__name__}: {problem}"[:LONGEST_REASON])
    return UserError(f"{file}: what it says of its run is damaged ({what}). {EXPECTED}")


def _require_kinds(content: Mapping[str, Any], record: Record) -> None:
    """Raise one of DAMAGE where what a checkpoint is used by is not of its kind."""
    state, seen, classes = content["model"], content.get(SEEN), record["dataset"]["classes"]
    if not isinstance(state, Mapping) or not all(isinstance(name, str) for name in state):
        raise TypeError(f"the model is a {type(state).__name__}, not tensors by their names")
    if others := [name for name, value in state.items() if not isinstance(value, torch.Tensor)]:
        raise TypeError(f"{others[0]} of the model is a {type(state[others[0]]).__name__}, no tensor")
    require_digests(seen)
    if not isinstance(classes, list) or not classes or not all(isinstance(name, str) for name in classes):
        raise TypeError("the classes are no names")
    "".join(classes).encode()  # which a surrogate that stands alone can't be
    batch_size = record["batch_size"]
    if type(batch_size) is not int or not 1 <= batch_size <= LARGEST_BATCH:
        raise ValueError(f"a batch size of {batch_size!r:.40}")
    if not Plan(**record["plan"]).sound:
        raise ValueError("the plan is none")


def _require_size(file: Path, name: str, backbone: Backbone, size: tuple[int, int]) -> None:
    """UserError: the backbone can't take images of that size."""
    try:
        backbone.require_size(name, size)
    except UserError as problem:
        reason = str(problem).partition("\n")[0].rstrip(".")
        raise UserError(f"{file}: what it says of its run is damaged ({reason}). {EXPECTED}") from problem


def _backbone(file: Path, record: Record, known: Mapping[str, Backbone]) -> Backbone:
    """What the run trained. UserError: it is not here, or its file is not as it was."""
    name = record["backbone"]["name"]
    try:
        backbone = find_backbone(name, known, by_user=False).backbone
    except UserError as problem:
        raise UserError(
            f"{file} is of the backbone {one_line(name)}, which can't be built here: {problem}"
        ) from problem
    made = codes_of(record)
    if backbone.file and made:
        now = code_of(_backbone, backbone.source, backbone.arguments)["backbone"]
        if now not in [each.get("backbone") for each in made]:
            raise UserError(
                f"{file} is of {one_line(name)}, and {backbone.file} has other code, comments aside, than when the run "
                "trained it. Put that of the run back."
            )
    return backbone


def checkpoint_of(path: Path) -> Path:
    """The file that is meant by a run's folder, by one that holds a single run, or by itself.

    UserError: there is none, or there are several.
    """
    file = path / CHECKPOINT if is_dir(path) else path
    if is_dir(path) and not exists(file) and (within := sorted(path.glob(f"*/{CHECKPOINT}"))):
        if len(within) > 1:
            lines = listed(str(each.parent) for each in within)
            raise UserError(f"{path} holds {len(within):,} runs. Name one of them:{lines}")
        file = within[0]
    if not is_file(file):
        found = "holds no checkpoint.pt" if is_dir(path) else "is no file" if exists(path) else "is not there"
        raise UserError(f"{one_line(str(path))} {found}. {EXPECTED}")
    return file


def _content(file: Path) -> dict[str, Any]:
    try:
        content = load_checkpoint(file)
    except OSError as problem:
        raise UserError(f"{file} can't be read: {reason_of(problem)}.") from problem
    except DamagedError as problem:
        raise UserError(f"{file} is no checkpoint that a run has left: {problem}. {EXPECTED}") from problem
    assert content is not None
    if UNFINISHED in content or "run" not in content:
        raise UserError(f"{file} is of a run that has not ended. Let its own command finish it first.")
    return content


def _require_own(file: Path, asked: Path, record: Record) -> None:
    """UserError: a run's folder is asked for, and its record says that the checkpoint beside it is another one."""
    if not asked.is_dir():
        return
    beside = read_record(file.with_name(RECORD))
    if beside is None:
        return
    stated = beside.get("files", {}).get(CHECKPOINT)
    if beside["run"] != record["run"] or stated not in (None, digest(file)):
        raise UserError(
            f"{file} is not the checkpoint that {file.with_name(RECORD)} is of. Put that back, or name the checkpoint "
            "itself."
        )


def _preprocessing(record: Record) -> Preprocessing:
    config, key = record["config"], record["dataset"]["key"]
    size = _pair(config["size"])
    before = STORED_BEFORE.get(key)
    stored = _pair(record["dataset"].get("stored_size") or ((before, before) if before else size))
    return Preprocessing(stored, size, *normalisation_of(record["normalisation"]))


def _pair(size: Any) -> tuple[int, int]:
    height, width = size
    if not all(type(side) is int and 1 <= side <= LARGEST_SIDE for side in (height, width)):
        raise ValueError(f"a size of {height!r:.40} x {width!r:.40}")
    return height, width
