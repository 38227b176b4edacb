"""A file of weights -> a model: which tensors it holds, under which names, and whether they are the model's."""

from __future__ import annotations

import math
import re
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import nn

from engine.console import say
from engine.errors import UserError, one_line
from engine.files import DamagedError
from engine.models.safe_file import is_safetensors, load_safetensors
from engine.models.structure import replace_head
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
MOST_NAMED = 3  # tensors of a kind

State = OrderedDict[str, torch.Tensor]


def load_file(
    model: nn.Module, file: Path, head: str, backbone_name: str, adapt: Callable[[State], State] | None = None
) -> None:
    """Load a file of weights into `model`, strictly; the head, named `head`, takes the size that the file has.

    Accepts a plain state dict, one that lies in another dict (a checkpoint.pt of this project, say), one whose names
    begin as a wrapper's do (a DataParallel model's, say), which is said, and one without any head. `adapt` is given
    what the file holds, and returns it as the model has it. Raises UserError for anything else.
    """
    state, how = _read_state(file, model)
    if adapt:
        state = adapt(state)
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
                f"{file} can't be loaded into {backbone_name}: {key} {reason}.\nGive a file of weights "
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
        raise UserError(f"{file} can't be loaded into {backbone_name}: {reason}") from problem
    of_head = {key for key in wanted if key.startswith(f"{head}.")}
    if missing and not unknown and not misshapen and {*missing} == of_head:
        missing = []  # another head takes its place anyway
        how.append(f"it has no {head}, the head")
    absent = [key for key in missing if key not in misshapen]
    if absent or unknown or misshapen:
        what = _what_does_not_fit(absent, unknown, misshapen)
        body = wanted.keys() - of_head
        fitting = len(body.difference(missing))
        raise UserError(
            f"{file} does not hold weights of {backbone_name}: of {len(wanted)} tensors, {what}. Of the {len(body)} "
            f"beside the head {fitting} fit ({math.floor(100 * fitting / max(1, len(body)))} %), and all must.\nGive "
            "the file of this architecture, or name the backbone that it belongs to with -model."
        )
    if how:
        say(f"note: {file}: {'; '.join(how)}")


def _what_does_not_fit(missing: Sequence[str], unknown: Sequence[str], misshapen: Sequence[str]) -> str:
    """How many tensors, and the first of them by name."""
    kinds = {"missing": missing, "unknown": unknown, "of another shape": misshapen}
    parts = []
    for what, keys in kinds.items():
        named = ", ".join(map(one_line, keys[:MOST_NAMED]))
        more = f" and {len(keys) - MOST_NAMED} more" if len(keys) > MOST_NAMED else ""
        parts += [f"{len(keys)} {what} ({named}{more})"] if keys else []
    return ", ".join(parts)


def load_tensors(path: Path) -> Any:
    """What a file of PyTorch's holds, in main memory; nothing but tensors and plain values is unpickled.

    Raises DamagedError for one whose bytes have changed, or that says what none does that PyTorch wrote, before memory
    is taken for what it says; and whatever else the bytes lead torch.load to.
    """
    require_plausible(path)
    with path.open("rb") as file:  # given its name, torch.load goes by what that ends with, too
        return torch.load(file, map_location="cpu", weights_only=True)


def read_weights(path: Path) -> Any:
    """What a file of PyTorch's or of safetensors' holds. Raises UserError where it can't be read."""
    if is_safetensors(path):
        return load_safetensors(path)
    try:
        return load_tensors(path)
    except Exception as problem:  # whatever the bytes lead torch.load to
        raise UserError(
            f"{path} ({path.stat().st_size:,} bytes) can't be read as PyTorch weights: {_what_stopped(problem)}.\n"
            "If it was cut short, delete it and get it again; a file of pickled Python objects is refused on purpose: "
            "get one of model.state_dict() alone."
        ) from problem


def _read_state(path: Path, model: nn.Module) -> tuple[State, list[str]]:
    """The state dict in a file, with names as `model` has them, and what had to be done to it, in words."""
    content, how = _unwrapped(read_weights(path))
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
