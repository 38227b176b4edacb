"""A folder in the form of timm and of the Hugging Face hub."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from engine.errors import RunError, one_line, surely_out_of_memory
from engine.files import write_json, write_text
from engine.models.weights_folder import CONFIG, FACTS
from exporting.agreement import Agreement, require_agreement
from exporting.card import model_card
from exporting.forms import SAFETENSORS, Job, in_torch, put_seen, put_tensors, reloaded
from exporting.served import Served
from exporting.timm_form import TimmForm, built, config_of, timm_form

CARD = "README.md"
OURS = "torchvision.safetensors"  # where timm's names are not the run's own


def write_hub(job: Job, folder: Path) -> Agreement:
    """config.json, model.safetensors and README.md; by timm's names where timm has the network and agrees.

    Else, and then beside them, by the run's own names: config.json says in which file these are.
    """
    form, why = timm_form(job.trained), "timm has no such architecture"
    if form is not None:
        try:
            return _write_for_timm(job, folder, form)
        except RunError:
            height, width = job.trained.preprocessing.size
            why = f"timm's {form.architecture} computes something else of images of {height}x{width}"
        except (OSError, MemoryError):  # of the disk or the machine
            raise
        # whatever another version of timm raises where it has renamed or rebuilt something
        except Exception as problem:
            if surely_out_of_memory(problem):
                raise
            why = one_line(f"timm's {form.architecture} does not take the weights: {problem}".partition("\n")[0])
        for path in folder.iterdir():
            path.unlink()
    put_tensors(folder / SAFETENSORS, dict(job.trained.state), job.facts)
    backbone = job.facts["backbone"]
    config = {"architecture": backbone["builder"], **_described(job, SAFETENSORS), "not_in_timm": why}
    return _finished(job, folder, config, None)


def _write_for_timm(job: Job, folder: Path, form: TimmForm) -> Agreement:
    import timm

    shell = built(form, job.trained)
    state = form.convert(dict(job.trained.state), shell.state_dict())
    put_tensors(folder / SAFETENSORS, state, job.facts)
    ours = SAFETENSORS if state.keys() == job.trained.state.keys() else OURS
    if ours == OURS:
        put_tensors(folder / OURS, dict(job.trained.state), job.facts)
    preprocessing = form.preprocessing(job.trained.preprocessing)
    known = config_of(shell)
    config = {
        "architecture": form.architecture,
        **_described(job, ours),
        "num_features": shell.num_features,
        "model_args": dict(form.arguments),
        "pretrained_cfg": {
            "custom_load": False,
            "input_size": [3, *preprocessing.size],
            "fixed_input_size": bool(known.get("fixed_input_size")),
            "interpolation": "bilinear",
            "crop_pct": 1.0,
            "crop_mode": "squash",
            "mean": list(preprocessing.mean),
            "std": list(preprocessing.std),
            "num_classes": len(job.trained.classes),
            "pool_size": None,
            "first_conv": known.get("first_conv"),
            "classifier": known.get("classifier"),
        },
    }
    write_json(folder / CONFIG, config)
    loaded = timm.create_model(f"local-dir:{folder}", pretrained=True)
    network = Served(loaded, preprocessing, job.trained.temperature).eval()
    require_agreement(f"timm's {form.architecture}", in_torch(network), job.network, job.images.pixels)
    return _finished(job, folder, config, form.architecture)


def _described(job: Job, tensors: str) -> dict[str, Any]:
    """What config.json says whoever builds the network."""
    return {
        "num_classes": len(job.trained.classes),
        "label_names": list(job.trained.classes),
        FACTS: {**job.facts, "tensors": tensors},
    }


def _finished(job: Job, folder: Path, config: dict[str, Any], architecture: str | None) -> Agreement:
    """Write what goes with the tensors, and compare those by the run's own names."""
    normalisation = {name: job.facts["preprocessing"][name] for name in ("mean", "std")}
    config.setdefault("pretrained_cfg", {"input_size": [3, *job.facts["preprocessing"]["size"]], **normalisation})
    write_json(folder / CONFIG, config)
    put_seen(job.trained, folder)
    write_text(folder / CARD, model_card(job.facts, architecture, config.get("not_in_timm", "")))
    tensors = config[FACTS]["tensors"]
    return require_agreement(tensors, reloaded(job, folder / tensors), job.network, job.images.pixels)
