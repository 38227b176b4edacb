"""`--weights DIR`: a folder as timm and the Hugging Face hub have it, config.json beside the tensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from engine.errors import UserError, reason_of
from engine.files import digest, json_digest, read_json
from engine.models.backbone import Channels, normalisation_of
from engine.paths import is_dir, is_file

CONFIG = "config.json"
# the first that is there; the second is read as all files of PyTorch's are, and nothing but tensors is unpickled
TENSORS = ("model.safetensors", "pytorch_model.bin")
FACTS = "which_backbone"  # in the config of an export: what it says of its run
LARGEST_CONFIG = 16 << 20  # bytes


@dataclass(frozen=True)
class WeightsFolder:
    """What such a folder holds."""

    path: Path
    tensors: Path  # the file of them
    config: Mapping[str, Any]  # what config.json says

    @cached_property
    def sha256(self) -> str:
        """Of its files together."""
        files = dict.fromkeys((self.path / CONFIG, self.tensors, self.own_tensors))
        return json_digest([digest(file) for file in files])

    @property
    def facts(self) -> Mapping[str, Any] | None:
        """What export.py says of the run that they come from; None: another program wrote the folder."""
        found = self.config.get(FACTS)
        if found is not None and not isinstance(found, Mapping):
            raise UserError(f"{self.path / CONFIG}: {FACTS} is {found!r:.60}, no object. Export it again.")
        return found

    @property
    def own_tensors(self) -> Path:
        """The file that has them by this project's names, where timm has others."""
        name = (self.facts or {}).get("tensors")
        if name is None:
            return self.tensors
        if not isinstance(name, str) or Path(name).name != name or not is_file(self.path / name):
            raise UserError(f"{self.path}: the tensors are said to be in {name!r:.60}, no file there. Export it again.")
        return self.path / name

    @property
    def normalisation(self) -> tuple[Channels, Channels] | None:
        """Mean and standard deviation of its images, from 0 to 1; None: it does not say. UserError: they are none."""
        stated = self.config.get("pretrained_cfg", self.config)
        if not isinstance(stated, Mapping) or not {"mean", "std"} <= stated.keys():
            return None
        try:
            return normalisation_of(stated)
        except (TypeError, ValueError, OverflowError) as problem:
            raise UserError(
                f"{self.path / CONFIG}: the mean {stated['mean']!r:.60} and the std {stated['std']!r:.60} are not "
                "three numbers each, from 0 to 1, the std above 0."
            ) from problem


def read_folder(path: Path) -> WeightsFolder:
    """What the folder holds. UserError: not what such a folder does."""
    expected = f"Expected a folder with {CONFIG} and {TENSORS[0]} in it, as export.py and timm write it."
    try:
        config = read_json(path / CONFIG, LARGEST_CONFIG)
    except FileNotFoundError:
        raise UserError(f"--weights {path}: the folder holds no {CONFIG}. {expected}") from None
    except OSError as problem:
        raise UserError(f"--weights {path}: {CONFIG} can't be read: {reason_of(problem)}.") from problem
    except ValueError as problem:
        raise UserError(f"--weights {path}: {CONFIG} is no readable JSON: {problem}. {expected}") from problem
    if not isinstance(config, dict):
        raise UserError(f"--weights {path}: {CONFIG} holds a {type(config).__name__}, no object. {expected}")
    tensors = next((path / name for name in TENSORS if (path / name).is_file()), None)
    if tensors is None:
        raise UserError(f"--weights {path}: the folder holds no {' and no '.join(TENSORS)}. {expected}")
    return WeightsFolder(path, tensors, config)


def is_path(choice: str) -> bool:
    """Whether there is a file or a folder that `--weights choice` can mean."""
    return bool(choice) and (is_file(choice) or is_dir(choice))


def digest_of(path: Path) -> str:
    """The sha256 that a record has of the weights at `path`, a file or a folder. Raises OSError, and as read_folder."""
    return read_folder(path).sha256 if path.is_dir() else digest(path)
