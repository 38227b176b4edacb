"""One export, from a run's folder to a folder of files that were checked."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path
from typing import Any

from common import load
from engine.console import size_text
from engine.data.new_folder import own_entries, replacing, require_place
from engine.errors import UserError, disk_errors_explained, listed
from engine.files import read_json
from engine.inference.checkpoint import DAMAGE, Trained, damaged
from engine.models.weights import SEEN_FILE
from engine.models.weights_folder import CONFIG
from engine.models.weights_folder import FACTS as KEY
from exporting.agreement import Agreement
from exporting.card import model_card
from exporting.facts import facts_of
from exporting.forms import (
    FACTS,
    ONNX,
    PT2,
    SAFETENSORS,
    Job,
    write_onnx,
    write_safetensors,
    write_torch,
)
from exporting.hub import CARD, OURS, write_hub
from exporting.images import images_of
from exporting.served import served

WRITE: dict[str, Callable[[Job, Path], Agreement]] = {
    "onnx": write_onnx,
    "torch": write_torch,
    "safetensors": write_safetensors,
    "hub": write_hub,
}
MADE_OF = frozenset([FACTS, ONNX, PT2, SAFETENSORS, SEEN_FILE, CONFIG, CARD, OURS])
ADVICE = (
    "Nothing half-written is left. Expected a folder that can be written to, with room for the weights: mend that, or "
    "choose another."
)


def export(run: Path, form: str, out: Path, overwrite: bool) -> list[str]:
    """Put the run's network into the new folder `out`, in the form of that name; what was done, in lines.

    UserError: the run can't be used, or `out` may not be replaced; RunError: what was written does not compute what the
    network does, or the disk refuses it. Then `out` is as it was.
    """
    with disk_errors_explained("can't use", out, ADVICE):
        require_output(out, overwrite)
        trained = load(run)
        facts = _facts(trained)
        network, images = served(trained), images_of(trained)
        with replacing(out, overwrite) as folder:
            found = WRITE[form](Job(trained, network, images, facts), folder)
    files = ", ".join(f"{path.name} ({size_text(path.stat().st_size)})" for path in sorted(out.iterdir()))
    record = trained.record
    probabilities = "as fitted on val" if trained.temperature else "uncalibrated: the run fitted no temperature"
    return [
        f"run        {record['run']}: {record['backbone']['name']} on {record['dataset']['name']}",
        f"checked    on {images.what}",
        f"agreement  logits differ by up to {found.logits:.1e}, probabilities by {found.probabilities:.1e} "
        f"(limit {found.limit:.1g})",
        f"output     probabilities {probabilities}",
        f"written    {out}: {files}",
        *(hub_lines(out) if form == "hub" else ()),
    ]


def _facts(trained: Trained) -> dict[str, Any]:
    """What an export says of the run. UserError: the record is damaged."""
    try:
        facts = facts_of(trained)
        if not all(isinstance(facts["dataset"][name], str) for name in ("key", "name")):
            raise TypeError("the dataset has no name")
        config, place = trained.record["config"], trained.record["dataset"].get("place")
        for where in (config["data_dir"], config.get("labels") or "", place or ""):
            if not isinstance(where, str):
                raise TypeError(f"a place of the data is {where!r:.40}")
        # the card takes each fact for what it should be, and JSON and its encoding the others
        f"{model_card(facts, None)}{json.dumps(facts, ensure_ascii=False, allow_nan=False)}".encode()
    except DAMAGE as problem:
        raise damaged(trained.path, problem) from problem
    return facts


def hub_lines(out: Path) -> list[str]:
    """Whether timm can load a hub folder, and the command that would put it on the hub."""
    loads = f'timm.create_model("local-dir:{out}", pretrained=True) loads it'
    why = f"nothing was uploaded. Once {CARD} has been read, with names of your own:"
    command = shlex.join(["hf", "upload", "YOUR_NAME/YOUR_MODEL", str(out), "."])
    return [
        f"timm       {read_json(out / CONFIG).get('not_in_timm', loads)}",
        f"next       {why}",
        f"           {command}",
    ]


def require_output(out: Path, overwrite: bool) -> None:
    """UserError unless `out` is absent, empty or, with `overwrite`, an earlier export and nothing else."""
    require_place(out, "export")
    names = own_entries(out)
    if not names:
        return
    strangers = [name for name in names if name not in MADE_OF or (out / name).is_dir()]
    if strangers or not _is_export(out):
        raise UserError(
            f"{out} holds what export.py did not make:{listed(strangers or names)}\nExpected a new or an empty folder. "
            "Choose another; --overwrite replaces nothing but an earlier export."
        )
    if not overwrite:
        raise UserError(
            f"{out} already holds an export. Expected a new or an empty folder. Choose another, or add --overwrite to "
            "replace it."
        )


def _is_export(out: Path) -> bool:
    """Whether a file in it says what an export says of itself: other programs use the names of the files, too."""
    try:
        content = read_json(out / FACTS) if (out / FACTS).exists() else read_json(out / CONFIG)[KEY]
        return bool(content.keys() >= {"format", "run", "preprocessing"})
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return False
