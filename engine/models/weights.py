"""`--weights`: which pretrained weights are meant, where their file lies, and the model that is built of them."""

from __future__ import annotations

import re
import sys
from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit
from urllib.request import url2pathname

import torch
from torch import nn
from torchvision.models import WeightsEnum

from engine.console import say
from engine.data.declaration import File
from engine.data.download import fetch
from engine.data.part import Part
from engine.errors import UserError, one_line
from engine.files import DamagedError, digest
from engine.models.backbone import IMAGENET_MEAN, IMAGENET_STD, WEIGHTS, Backbone, WeightsFile
from engine.models.structure import linear_layer, replace_head
from engine.models.tensor_file import require_plausible

# where training programs keep a state dict in their checkpoints; the moving average last, since few evaluate it alone
ENTRIES = (
    "state_dict",
    "model_state_dict",
    "model_state",
    "model",
    "module",
    "net",
    "network",
    "weights",
    "params",
    "state_dict_ema",
    "ema_state_dict",
    "model_ema",
    "ema_model",
    "ema",
)
# the attribute by which a wrapper knows the model within: DataParallel's, Lightning modules', encoders'
WRAPPERS = {"module", "model", "net", "network", "backbone", "encoder"}
# what torch.compile and others put into the names of the layers that they wrap, anywhere
INSERTED = re.compile(r"(?:_orig_mod|_fsdp_wrapped_module|_checkpoint_wrapped_module)\.")
AVERAGED = "n_averaged"  # beside the tensors of torch.optim.swa_utils.AveragedModel
LONGEST_NAME = 500  # of a tensor


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
    if choice != "imagenet" and Path(choice).is_file():
        return _of_file(Path(choice))
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


def _of_file(path: Path) -> Weights:
    try:
        sha256 = digest(path)
    except OSError as problem:
        raise UserError(f"--weights {path}: the file can't be read ({problem.strerror}).") from problem
    content = _load(path)
    weights = Weights(f"file:{path.name}:{sha256[:12]}", path, sha256)
    if not isinstance(content, dict):
        return weights
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


def _of_run(weights: Weights, content: Mapping[str, Any]) -> Weights:
    """The weights, with what a checkpoint of this project says of them. Raises what a damaged one leads to."""
    record = content.get(UNFINISHED, content)
    run: dict[str, Any] = {
        "run": _word(record["run"]),
        "dataset": _word(record["dataset"]["key"]),
        "protocol": _word(record["protocol"]),
    }
    run |= {"seed": int(record["seed"]), "weights": _word(record["backbone"]["weights"])}
    mean, std = (tuple(map(float, record["normalisation"][key])) for key in ("mean", "std"))
    if not len(mean) == len(std) == len(IMAGENET_MEAN) or min(std) <= 0 or not all(map(isfinite, mean + std)):
        raise ValueError("the normalisation is none")
    return replace(weights, mean=mean, std=std, run=run, seen=_seen(content))


def _word(value: Any) -> str:
    """The value, which a record is to keep. Raises ValueError where it is no text that can be shown."""
    if not isinstance(value, str) or not value.isprintable() or len(value) > LONGEST_NAME:
        raise ValueError("a name in it is none")
    return value


def _seen(checkpoint: Mapping[str, Any]) -> frozenset[str] | None:
    """The digests that packed_digests() packed; None where the checkpoint has none. ValueError: they are none."""
    images = checkpoint.get(SEEN)
    if images is None:
        return None
    if not isinstance(images, torch.Tensor) or images.dtype != torch.uint8 or images.shape[1:] != (DIGEST_BYTES,):
        raise ValueError(f"{SEEN} holds no digests of images")
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
    if weights != NONE:
        load_weights(model, weights, backbone.head, name)
    replace_head(model, backbone.head, num_classes)
    return model


def _pretrained(weights: WeightsEnum | WeightsFile) -> Weights:
    """Download, or find where torch keeps what it downloads (TORCH_HOME), and verify; a file:// URL stays in place."""
    if isinstance(weights, WeightsFile):
        name, sha256, mean, std = weights.name, weights.sha256, weights.mean, weights.std
    else:
        preset = weights.transforms()
        name, mean, std = str(weights), tuple(preset.mean), tuple(preset.std)
        # torchvision ends its file names with the first digits of the sha256
        ending = re.search(r"-([0-9a-f]{8,})\.\w+$", weights.url)
        sha256 = ending[1] if ending else None
    url = urlsplit(weights.url)
    mirrors: tuple[str, ...] = () if url.scheme == "file" else (weights.url,)
    if mirrors:
        path = Path(torch.hub.get_dir()) / "checkpoints" / url.path.rpartition("/")[2]
    else:
        path = Path(url2pathname(url.path))
        if not path.is_file():
            raise UserError(f"the weights {name} are not at {path}: no such file.")
    file = fetch(File(path.name, mirrors, f"sha256:{sha256}" if sha256 else None), path.parent)
    return Weights(name, file, digest(file), mean, std)


def load_weights(model: nn.Module, weights: Weights, head: str, backbone_name: str) -> None:
    """Load the file of `weights` into `model`, strictly; the head, named `head`, takes the size that the file has.

    Accepts a plain state dict, one that lies in another dict (a checkpoint.pt of this project, say), one whose names
    begin as a wrapper's do (a DataParallel model's, say), which is said, and one without any head. Raises UserError for
    anything else.
    """
    assert weights.file is not None
    state, how = _read_state(weights.file, model)
    size = state.get(f"{head}.weight", torch.empty(0)).shape
    # as the file has it, where its other side is the model's: else it could be of any size
    if len(size) == 2 and size[1:] == model.get_parameter(f"{head}.weight").shape[1:]:
        replace_head(model, head, size[0])
    wanted = model.state_dict()
    for key in wanted:
        # rounded, or infinite, where a whole file was converted or averaged; nothing is computed from them
        if key.endswith("num_batches_tracked") and key in state and state[key].is_floating_point():
            state[key] = wanted[key]
        if key in state and (reason := _what_is_wrong(state[key], wanted[key])):
            raise UserError(
                f"{weights.file} can't be loaded into {backbone_name}: {key} {reason}.\nGive a file of weights "
                "as they were trained."
            )
    misshapen = [key for key in wanted if key in state and wanted[key].shape != state[key].shape]
    for key in misshapen:
        del state[key]
    # not load_state_dict's own strictness: its message lists every tensor of a wrong file
    try:
        missing, unknown = model.load_state_dict(state, strict=False)
    # versions of layers can be anything, too
    except (RuntimeError, ValueError, TypeError, AttributeError, LookupError) as problem:
        reason = " ".join(line.strip() for line in str(problem).splitlines()[:2])
        raise UserError(f"{weights.file} can't be loaded into {backbone_name}: {reason}") from problem
    if (
        missing
        and not unknown
        and not misshapen
        and {*missing} == {key for key in wanted if key.startswith(f"{head}.")}
    ):
        missing = []  # another head takes its place anyway
        how.append(f"it has no {head}, the head")
    problems = [
        f"{len(keys)} {what} (the first: {one_line(keys[0])})"
        for keys, what in (
            ([key for key in missing if key not in misshapen], "missing"),
            (unknown, "unknown"),
            (misshapen, "of another shape"),
        )
        if keys
    ]
    if problems:
        raise UserError(
            f"{weights.file} does not hold weights of {backbone_name}: of {len(wanted)} tensors, "
            f"{', '.join(problems)}.\nGive the file of this architecture, or name the backbone that it belongs to with "
            "-model."
        )
    if how:
        say(f"note: {weights.file}: {'; '.join(how)}")


def load_tensors(path: Path) -> Any:
    """What a file of PyTorch's holds, in main memory; nothing but tensors and plain values is unpickled.

    Raises DamagedError for one whose bytes have changed, or that says what none does that PyTorch wrote, before memory
    is taken for what it says; and whatever else the bytes lead torch.load to.
    """
    require_plausible(path)
    with path.open("rb") as file:  # given its name, torch.load goes by what that ends with, too
        return torch.load(file, map_location="cpu", weights_only=True)


def _load(path: Path) -> Any:
    try:
        return load_tensors(path)
    except Exception as problem:  # whatever the bytes lead torch.load to
        raise UserError(
            f"{path} ({path.stat().st_size:,} bytes) can't be read as PyTorch weights: {_what_stopped(problem)}.\n"
            "If it was cut short, delete it and get it again; a file of pickled Python objects is refused on purpose: "
            "get one of model.state_dict() alone."
        ) from problem


def _read_state(path: Path, model: nn.Module) -> tuple[OrderedDict[str, torch.Tensor], list[str]]:
    """The state dict in a file, with names as `model` has them, and what had to be done to it, in words."""
    content, how = _unwrapped(_load(path))
    if not isinstance(content, dict) or not all(
        isinstance(key, str) and len(key) <= LONGEST_NAME and isinstance(value, torch.Tensor)
        for key, value in content.items()
    ):
        raise UserError(f"{path} holds a {type(content).__name__}, not a state dict (names -> tensors).")
    # the versions of the layers: BatchNorm tells by them whether a count may be missing, MNASNet its architecture
    versions = getattr(content, "_metadata", {})
    if not isinstance(versions, dict) or not all(isinstance(layer, str) for layer in versions):
        versions = {}
    # without what a file can give a tensor beside its numbers: attributes, in the place of its methods
    entries = {key: value.data for key, value in content.items() if key != AVERAGED}
    state = OrderedDict((INSERTED.sub("", key), value) for key, value in entries.items())
    versions = {INSERTED.sub("", f"{layer}.").rstrip("."): version for layer, version in versions.items()}
    begun = "".join(sorted({match[0] for match in map(INSERTED.search, entries) if match}))
    own = {key.partition(".")[0] for key in model.state_dict()}
    while (prefix := _shared_prefix(state)) and own != {prefix[:-1]}:
        begun += prefix
        state = OrderedDict((key.removeprefix(prefix), value) for key, value in state.items())
        # the wrapper itself stands before the first of its layers
        versions = {f"{layer}.".removeprefix(prefix).rstrip("."): version for layer, version in versions.items()}
    if begun:
        how.append(f"the names of its tensors without {begun!r}")
    state = OrderedDict((_todays_name(key), value) for key, value in state.items())
    vars(state).update(_metadata=versions)
    return state, how


def _what_is_wrong(found: torch.Tensor, wanted: torch.Tensor) -> str:
    """Why the numbers can't be those that are wanted, whatever their shape; "" where they can."""
    if found.is_complex() or (wanted.is_floating_point() and not found.is_floating_point()):
        return f"is of {found.dtype}, not of {wanted.dtype}"
    if not found.isfinite().all():
        return "has numbers that are not finite"
    if found.is_floating_point() and not wanted.is_floating_point():
        exact = 2 / torch.finfo(found.dtype).eps  # up to here, such a number can be any whole one
        if (found.abs() > exact).any() or found.frac().any():
            return f"is of {found.dtype}, in which its whole numbers can't be told"
    return ""


def _unwrapped(content: Any) -> tuple[Any, list[str]]:
    """The state dict within the dicts of a training program's checkpoint, and by which entries it is reached."""
    how = []
    while isinstance(content, dict):
        inner = [key for key in ENTRIES if isinstance(content.get(key), dict)]
        if not inner:
            break
        content = content[inner[0]]
        others = f", not {', '.join(map(repr, inner[1:]))}" if inner[1:] else ""
        how.append(f"its entry {inner[0]!r}{others}")
    return content, how


def _shared_prefix(state: Mapping[str, torch.Tensor]) -> str:
    """What a wrapper has put before all names, with its dot; "" where it is none."""
    beginnings = {key.partition(".")[0] for key in state}
    return f"{beginnings.pop()}." if len(beginnings) == 1 and beginnings <= WRAPPERS else ""


def _what_stopped(problem: Exception) -> str:
    """Why torch.load gave up, without its advice to load the file unsafely."""
    text = str(problem)
    if unsupported := re.search(r"GLOBAL (\S+)", text):
        return f"it holds a pickled {unsupported[1]}, and nothing but tensors is loaded"
    if "weights_only" in text:
        return "it is a file of another kind"
    if isinstance(problem, DamagedError):
        return text
    return text.partition("\n")[0].rstrip(".") or "it ends too soon"


def _todays_name(key: str) -> str:
    """torchvision's DenseNet files still say `norm.1` for today's `norm1`."""
    return re.sub(r"(denselayer\d+\.(?:norm|relu|conv))\.([12])\.", r"\1\2.", key)
