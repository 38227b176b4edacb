"""In which form a checkpoint's model is computed here: exactly as its run evaluated it, or the fastest sound one."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, replace
from hashlib import sha256
from itertools import islice
from pathlib import Path

import torch

from engine.console import say
from engine.device import usable_threads
from engine.environment import versions
from engine.files import read_json, write_json
from engine.inference.checkpoint import Trained
from engine.models.names import folder_name
from engine.paths import user_cache
from engine.processes.heartbeat import device_is_shared
from engine.training.agreement import copy_in_form
from engine.training.plan import LAYOUTS, Plan, choose_plan
from engine.training.threads import thread_counts

FEW = 300  # images, for which it takes longer to measure forms than the better one saves
TRIED = 8  # images that forms are tried with
TIMED = 2  # passes, of which the faster counts
SOUND = 0.05  # of the norm of fp32's logits, that another form's may be off by: as ranking/frozen.py has it
LARGEST = 1 << 12  # bytes of what is remembered


@dataclass(frozen=True)
class Form:
    """How a model is computed."""

    plan: Plan
    folded: bool  # whether batch normalisation is folded into the convolutions before it


def form_for(trained: Trained, device: str, asked: str, images: Iterable[object]) -> Form:
    """The form that is `asked` for, "run" or "fastest", where it is for `images`, of which the first FEW are looked at.

    On a device like that of the run its plan is the fastest: it was measured when the run began. Elsewhere a processor
    tries what there is, once, unless there are but few images; a card takes what is usual there. UserError: there is no
    such device, or it can't compute so.
    """
    begun = Plan(**trained.record["plan"])
    if asked == "run":
        here = choose_plan(device, begun.precision)
        threads = min(begun.threads, usable_threads())
        plan = replace(begun, device=here.device, device_name=here.device_name, threads=threads)
        return Form(plan, folded=False)
    here = choose_plan(device, "auto")
    if begun.device == here.device and _model(begun.device_name) == _model(here.device_name):
        return Form(replace(begun, threads=min(begun.threads, usable_threads())), folded=True)
    usual = trained.backbone.usual_on_cuda if here.device == "cuda" else trained.backbone.usual_on_cpu
    precision, _, layout = usual.partition(" ")
    if here.precision == "fp32":  # the device has no other
        precision = "fp32"
    plan = replace(here, precision=precision, layout=layout, reason="usually the fastest")
    if here.device != "cpu" or len([*islice(images, FEW)]) < FEW:
        return Form(plan, folded=True)
    return Form(_tried(trained, plan), folded=True)


def _model(device_name: str) -> str:
    """What a device is called, without the number of threads that there were to be had."""
    return device_name.partition(",")[0]


def _tried(trained: Trained, plan: Plan) -> Plan:
    """The fastest of the processor's forms: as it was remembered, or as it is found now."""
    path = _path(trained, plan)
    forms = {f"{form.precision} {form.layout} {form.threads}": form for form in _forms(plan)}
    with suppress(OSError, ValueError, TypeError):  # nothing remembered, or nothing of ours
        if (known := read_json(path, LARGEST)) in forms:
            return forms[known]
    name = trained.record["backbone"]["name"]
    say(f"measuring  which form of {name} is fastest here, once: {len(forms)} of them, on {TRIED} images each")
    best = _fastest(trained, [*forms.values()])
    if not device_is_shared():
        with suppress(OSError):  # a cache folder that can't be written to: measured anew each time
            path.parent.mkdir(parents=True, exist_ok=True)
            write_json(path, f"{best.precision} {best.layout} {best.threads}")
    return best


def _forms(plan: Plan) -> list[Plan]:
    precisions = dict.fromkeys([plan.precision, "fp32"])
    return [
        replace(plan, precision=precision, layout=layout, threads=threads, reason="measured to be the fastest")
        for precision in precisions
        for layout in LAYOUTS
        for threads in thread_counts()
    ]


def _path(trained: Trained, plan: Plan) -> Path:
    """Where the form is remembered, by all that it depends on."""
    state = sorted((name, list(value.shape)) for name, value in trained.state.items())
    parts = [state, trained.preprocessing.size, plan.device_name, plan.precision, [*versions().values()]]
    digest = sha256(json.dumps(parts).encode()).hexdigest()[:16]
    return user_cache() / "forms" / f"{folder_name(trained.record['backbone']['name'])}-{digest}.json"


@torch.inference_mode()
def _fastest(trained: Trained, forms: list[Plan]) -> Plan:
    """The fastest of those whose logits of smooth random images are fp32's but for rounding."""
    random = torch.Generator().manual_seed(0)
    coarse = torch.randint(0, 256, (TRIED, 3, 8, 8), generator=random, dtype=torch.uint8).float()
    stored = torch.nn.functional.interpolate(coarse, trained.preprocessing.stored_size, mode="bilinear")
    stored = stored.to(torch.uint8).permute(0, 2, 3, 1)
    model = trained.model()
    expected = model(trained.preprocessing.to_input(stored))
    times: dict[Plan, float] = {}
    for form in forms:
        copied = copy_in_form(form, model).eval()
        images = trained.preprocessing.to_input(stored, form.memory_format)
        took = []
        for _ in range(1 + TIMED):
            start = time.perf_counter()
            with form.autocast():
                logits = copied(images).float()
            took.append(time.perf_counter() - start)
        if (logits - expected).norm() <= SOUND * expected.norm():
            times[form] = min(took[1:])
    return min(times, key=times.__getitem__, default=replace(forms[0], precision="fp32"))
