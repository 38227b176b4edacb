"""Whether the weights that a backbone is to begin from are on this machine, found without fetching anything."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from engine.errors import UserError
from engine.models.backbone import Backbone, HubFile, WeightsFile
from engine.models.hub import kept_file
from engine.models.weights import find_member, where


@dataclass(frozen=True)
class WeightsState:
    """The weights of one backbone, which are not on this machine."""

    file: str = ""  # the name of what is to be fetched on first use; "": nothing is
    source: str = ""  # the address of the folder that it is in
    folder: Path | None = None  # where it is looked for; None: where the hub's own library keeps it
    bytes: int | None = None  # None: nobody states them
    problem: str = ""  # why they can't be had; "": they can


def look_for(backbone: Backbone, choice: str) -> WeightsState | None:
    """What is known of pretrained weights for `backbone`: "imagenet", "auto", or of that name; None: they are here."""
    try:
        weights = backbone.pretrained if choice in ("imagenet", "auto") else find_member(backbone, choice)
        if isinstance(weights, HubFile):
            if kept_file(weights):
                return None
            return WeightsState(weights.files[0], f"https://huggingface.co/{weights.repository}")
        _, file, folder = where(weights)
    except UserError as problem:
        return WeightsState(problem=str(problem))
    if (folder / file.name).is_file():
        return None
    if not file.urls:
        return WeightsState(problem=f"{folder / file.name}: no such file")
    mib = None if isinstance(weights, WeightsFile) else weights.meta.get("_file_size")  # as torchvision states it
    return WeightsState(
        file.name, file.urls[0].rpartition("/")[0], folder, None if mib is None else round(float(mib) * 2**20)
    )
