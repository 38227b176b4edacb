"""`--weights`: which pretrained weights are meant, where their file lies, and the model that is built of them."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import torch
from torch import nn
from torchvision.models import WeightsEnum

from engine.data.declaration import File
from engine.data.download import fetch
from engine.data.part import Part
from engine.errors import UserError
from engine.files import digest
from engine.models.backbone import (
    IMAGENET_MEAN,
    IMAGENET_STD,
    WEIGHTS,
    Backbone,
    HubFile,
    WeightsFile,
    normalisation_of,
)
from engine.models.hub import hub_file
from engine.models.safe_file import facts_in, is_safetensors, load_safetensors
from engine.models.state_dict import LONGEST_NAME, load_file, read_weights
from engine.models.structure import linear_layer, replace_head
from engine.models.weights_folder import WeightsFolder, is_path, read_folder


@dataclass(frozen=True)
class Weights:
    """Weights that are at hand."""

    name: str  # as the record calls them; "none": random initialisation
    file: Path | None
    sha256: str | None
    mean: tuple[float, ...] = IMAGENET_MEAN  # of the images they were trained on, on a scale of 0 to 1
    std: tuple[float, ...] = IMAGENET_STD
    run: dict[str, Any] | None = None  # the earlier run that they are a checkpoint of
    # digests of the images that trained or chose them, in that run and in those before it; None: nobody knows
    seen: frozenset[str] | None = field(default=None, compare=False, repr=False)

    def seen_of(self, part: Part) -> int | None:
        """How many of the images of `part`, which are decoded, they have seen; None: nobody knows."""
        return None if self.seen is None else sum(digest in self.seen for digest in part.own_digests)


NONE = Weights("none", None, None)
OTHER_WEIGHTS = (
    "Or begin with others: --weights FILE (of this backbone, that you have), --weights none (random ones, from which "
    "few images seldom suffice to train), --weights auto (pretrained ones where they can be had, else random ones)."
)

# in a checkpoint: the digests of the images that its weights have seen; the record, while the run lasts
SEEN, UNFINISHED = "seen", "unfinished"
SEEN_FILE = "seen.safetensors"  # beside exported weights, with SEEN in it
RUN = {"schema", "run"}  # what a finished run's checkpoint has, and another program's hardly
SNAPSHOT = {"state", "model", "best", "optimizer", "scaler", "random"}  # likewise, that of a run that lasts
DIGEST_BYTES = 16


def find_weights(backbone: Backbone, choice: str) -> Weights:
    """The weights that `--weights choice` means for `backbone`, downloaded if need be.

    Raises UserError when they can be neither found nor downloaded; "auto" warns and gives NONE instead.
    """
    if choice == "none":
        return NONE
    if choice == "auto":
        try:
            return _pretrained(backbone.pretrained)
        except UserError as problem:
            print(f"warning: no pretrained weights, so training starts from random ones: {problem}", file=sys.stderr)
            return NONE
    if choice != "imagenet" and is_path(choice):
        return _of_folder(read_folder(Path(choice)), backbone) if Path(choice).is_dir() else _of_file(choice, backbone)
    member = None if choice == "imagenet" else find_member(backbone, choice)
    try:
        return _pretrained(member or backbone.pretrained)
    except UserError as problem:
        raise UserError(f"{problem}\n{OTHER_WEIGHTS}") from None


def find_member(backbone: Backbone, name: str) -> WeightsEnum:
    """The weights called `name` that torchvision has for the same model. Raises UserError where there are none."""
    weights = backbone.pretrained
    members = type(weights).__members__ if isinstance(weights, WeightsEnum) else {}
    if name not in members:
        names = ", ".join([*WEIGHTS, *members])
        raise UserError(f"--weights {name}: no such file, and for {backbone.builder_name} not one of {names}.")
    return members[name]


def _of_file(choice: str, backbone: Backbone) -> Weights:
    path = Path(choice)
    try:
        sha256 = digest(path)
    except OSError as problem:
        raise UserError(f"--weights {path}: the file can't be read ({problem.strerror}).") from problem
    content = read_weights(path)
    weights = Weights(f"file:{path.name}:{sha256[:12]}", path, sha256, *backbone.normalisation)
    if not isinstance(content, dict):
        return weights
    if is_safetensors(path) and (facts := facts_in(path)):
        return _of_export(weights, facts, path.parent)
    if UNFINISHED not in content and not content.keys() >= RUN:
        if content.keys() >= SNAPSHOT:
            raise UserError(
                f"--weights {path}: an unfinished run saved this, and it does not say which images its weights have "
                "seen.\nLet that run end, by its own command, and give the checkpoint.pt that it leaves."
            )
        return weights
    try:
        return _of_run(weights, content)
    # what entries of any kind lead to: a tensor has no entries of a name, an infinite number is no seed
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError) as problem:
        raise UserError(
            f"--weights {path}: what this checkpoint says of its run is damaged ({type(problem).__name__}: {problem}), "
            "so nobody knows which images its weights have seen.\nExpected a checkpoint.pt as a run left it: get that."
        ) from problem


def _of_folder(folder: WeightsFolder, backbone: Backbone) -> Weights:
    """The weights in a folder as timm and the Hugging Face hub have them."""
    by_timm = backbone.library == "timm"  # whose names are those of the file that timm reads
    tensors = folder.tensors if by_timm else folder.own_tensors
    mean, std = folder.normalisation or backbone.normalisation
    weights = Weights(f"folder:{folder.path.name}:{folder.sha256[:12]}", tensors, folder.sha256, mean, std)
    if folder.facts is None:
        return weights
    found = _of_export(weights, folder.facts, folder.path)
    return replace(found, mean=mean, std=std) if by_timm else found


def _of_export(weights: Weights, facts: Mapping[str, Any], place: Path) -> Weights:
    """The weights, with what export.py says of the run that they come from. UserError: it is damaged."""
    try:
        images = load_safetensors(place / SEEN_FILE) if (place / SEEN_FILE).is_file() else {}
        return _of_run(weights, {**facts, "normalisation": facts["preprocessing"], **images})
    except (LookupError, TypeError, ValueError, AttributeError, ArithmeticError, RuntimeError) as problem:
        raise UserError(
            f"--weights {place}: what this export says of its run is damaged ({type(problem).__name__}: {problem}), so "
            "nobody knows which images its weights have seen.\nExpected what export.py wrote: export it again."
        ) from problem


def _of_run(weights: Weights, content: Mapping[str, Any]) -> Weights:
    """The weights, with what a checkpoint of this project says of them. Raises what a damaged one leads to."""
    record = content.get(UNFINISHED, content)
    run: dict[str, Any] = {
        "run": _word(record["run"]),
        "dataset": _word(record["dataset"]["key"]),
        "protocol": _word(record["protocol"]),
    }
    run |= {"seed": int(record["seed"]), "weights": _word(record["backbone"]["weights"])}
    mean, std = normalisation_of(record["normalisation"])
    return replace(weights, mean=mean, std=std, run=run, seen=unpacked_digests(content.get(SEEN)))


def _word(value: Any) -> str:
    """The value, which a record is to keep. Raises ValueError where it is no text that can be shown."""
    if not isinstance(value, str) or not value.isprintable() or len(value) > LONGEST_NAME:
        raise ValueError("a name in it is none")
    return value


def require_digests(images: Any) -> None:
    """Raise ValueError where it is neither None nor what packed_digests() gives."""
    tensor = isinstance(images, torch.Tensor) and images.dtype == torch.uint8 and images.shape[1:] == (DIGEST_BYTES,)
    if images is not None and not tensor:
        raise ValueError(f"{SEEN} holds no digests of images")


def unpacked_digests(images: Any) -> frozenset[str] | None:
    """The digests that packed_digests() packed; None where there are none. ValueError: it is something else."""
    require_digests(images)
    if images is None:
        return None
    return frozenset(bytes(row).hex() for row in images.numpy())


def packed_digests(digests: Iterable[str]) -> torch.Tensor:
    """What a checkpoint keeps of the images that its weights have seen: uint8 (N, 16), sorted, each once."""
    packed = b"".join(map(bytes.fromhex, sorted(set(digests))))
    return torch.frombuffer(bytearray(packed), dtype=torch.uint8).reshape(-1, DIGEST_BYTES)


def build(backbone: Backbone, name: str, num_classes: int, weights: Weights) -> nn.Module:
    """The backbone called `name` with `weights` and a new head of `num_classes` outputs.

    Raises UserError when the weights don't fit it.
    """
    model = backbone.build()
    linear_layer(model, backbone.head)
    if weights.file:
        load_file(model, weights.file, backbone.head, name, getattr(backbone.builder, "adapted", None))
    replace_head(model, backbone.head, num_classes)
    return model


def _pretrained(weights: WeightsEnum | WeightsFile | HubFile) -> Weights:
    """Download, or find where torch keeps what it downloads (TORCH_HOME), and verify; a file:// URL stays in place.

    What is on the Hugging Face hub is found, or kept, where its own library keeps it (HF_HOME).
    """
    if isinstance(weights, HubFile):
        path = hub_file(weights)
        return Weights(weights.name, path, digest(path), weights.mean, weights.std)
    name, file, folder = where(weights)
    preset = weights if isinstance(weights, WeightsFile) else weights.transforms()
    if not file.urls and not (folder / file.name).is_file():
        raise UserError(f"the weights {name} are not at {folder / file.name}: no such file.")
    path = fetch(file, folder)
    return Weights(name, path, digest(path), tuple(preset.mean), tuple(preset.std))


def where(weights: WeightsEnum | WeightsFile) -> tuple[str, File, Path]:
    """The name of the weights, their file, and the folder that it lies in, or is fetched into."""
    url = urlsplit(weights.url)
    if isinstance(weights, WeightsFile):
        name, sha256 = weights.name, weights.sha256
    else:
        # torchvision ends its file names with the first digits of the sha256
        name, ending = str(weights), re.search(r"-([0-9a-f]{8,})\.\w+$", weights.url)
        sha256 = ending[1] if ending else None
    checksum = f"sha256:{sha256}" if sha256 else None
    if url.scheme == "file":
        path = Path(url2pathname(url.path))
        return name, File(path.name, (), checksum), path.parent
    folder = Path(torch.hub.get_dir()) / "checkpoints"
    return name, File(url.path.rpartition("/")[2], (weights.url,), checksum), folder
