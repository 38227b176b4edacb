"""`--weights`: which pretrained weights are meant, where their file lies, and how it gets into a model."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchvision.models import WeightsEnum

from engine.backbone import IMAGENET_MEAN, IMAGENET_STD, Backbone, WeightsFile, replace_head
from engine.dataset import File
from engine.download import fetch
from engine.errors import UserError
from engine.files import digest


@dataclass(frozen=True)
class Weights:
    """Weights that are at hand."""

    name: str  # as the record calls them; "none": random initialisation
    file: Path | None
    sha256: str | None
    mean: tuple[float, ...] = IMAGENET_MEAN  # of the images they were trained on, on a scale of 0 to 1
    std: tuple[float, ...] = IMAGENET_STD


NONE = Weights("none", None, None)


def find_weights(backbone: Backbone, choice: str) -> Weights:
    """The weights that `--weights choice` means for `backbone`, downloaded if need be.

    Raises UserError when they can be neither found nor downloaded; "auto" warns and gives NONE instead.
    """
    if choice == "none":
        return NONE
    if choice == "imagenet":
        return _pretrained(backbone.weights)
    if choice == "auto":
        try:
            return _pretrained(backbone.weights)
        except UserError as problem:
            print(f"warning: no pretrained weights, so training starts from random ones: {problem}", file=sys.stderr)
            return NONE
    members = type(backbone.weights).__members__ if isinstance(backbone.weights, WeightsEnum) else {}
    if choice in members:
        return _pretrained(members[choice])
    path = Path(choice)
    if path.is_file():
        sha256 = digest(path)
        return Weights(f"file:{path.name}:{sha256[:12]}", path, sha256)
    names = ", ".join(["imagenet", "auto", "none", *members])
    raise UserError(f"--weights {choice}: no such file, and not one of {names}.")


def _pretrained(weights: WeightsEnum | WeightsFile) -> Weights:
    """Download, or find where torch keeps what it downloads (TORCH_HOME), and verify."""
    if isinstance(weights, WeightsFile):
        name, checksum, mean, std = weights.name, weights.sha256, weights.mean, weights.std
    else:
        preset = weights.transforms()
        name, mean, std = str(weights), tuple(preset.mean), tuple(preset.std)
        # torchvision ends its file names with the first digits of the sha256
        checksum = re.fullmatch(r".*-([0-9a-f]{8,})\.\w+", weights.url)[1]  # type: ignore[index]
    file_name = weights.url.rpartition("/")[2]
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    file = fetch(File(file_name, (weights.url,), f"sha256:{checksum}" if checksum else None), folder)
    return Weights(name, file, digest(file), mean, std)


def load_weights(model: nn.Module, weights: Weights, head: str, backbone_name: str) -> None:
    """Load the file of `weights` into `model`, strictly; the head, named `head`, takes the size that the file has.

    Accepts a plain state dict, one that was wrapped in {"model": ...} or {"state_dict": ...} (a checkpoint.pt of
    this project, say), and one of a DataParallel model. Raises UserError for anything else.
    """
    assert weights.file is not None
    state = _read_state(weights.file)
    size = state.get(f"{head}.weight", torch.empty(0)).shape
    if len(size) == 2:
        replace_head(model, head, size[0])
    wanted = model.state_dict()
    # what a load hook of the model drops or renames is not for this comparison to judge
    try:
        model.load_state_dict(state)
    except (RuntimeError, TypeError) as problem:
        missing = [key for key in wanted if key not in state]
        unknown = [key for key in state if key not in wanted]
        shapes = [key for key in wanted if key in state and wanted[key].shape != state[key].shape]
        found = [
            f"{len(keys)} {what} (the first: {keys[0]})"
            for keys, what in ((missing, "tensors missing"), (unknown, "unknown"), (shapes, "of another shape"))
            if keys
        ]
        raise UserError(
            f"{weights.file} does not hold weights of {backbone_name}: of {len(wanted)} tensors, {', '.join(found)}.\n"
            "Give the file of this architecture, or name the backbone that it belongs to with -model."
        ) from problem


def _read_state(path: Path) -> dict[str, Any]:
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as problem:  # whatever the bytes lead torch.load to
        raise UserError(
            f"{path} ({path.stat().st_size:,} bytes) can't be read as PyTorch weights: {str(problem).splitlines()[0]}\n"
            "If it was cut short, delete it and get it again; a file of pickled Python objects is refused on purpose."
        ) from problem
    for key in ("model", "state_dict"):
        if isinstance(content, dict) and isinstance(content.get(key), dict):
            content = content[key]
    if not isinstance(content, dict) or not all(isinstance(value, torch.Tensor) for value in content.values()):
        raise UserError(f"{path} holds a {type(content).__name__}, not a state dict (names -> tensors).")
    return {_todays_name(key): value for key, value in content.items()}


def _todays_name(key: str) -> str:
    """Without DataParallel's prefix; and torchvision's DenseNet files still say `norm.1` for today's `norm1`."""
    return re.sub(r"(denselayer\d+\.(?:norm|relu|conv))\.([12])\.", r"\1\2.", key.removeprefix("module."))
