"""One pass of the training images through each frozen body, in its fastest sound form: features, and what it took."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from engine.code_hash import code_of
from engine.config import Config
from engine.data.batches import Batches
from engine.data.images import DECODER, KEPT
from engine.data.part import Part
from engine.device import free_memory
from engine.environment import versions
from engine.errors import UserError, out_of_memory
from engine.files import digest, json_digest
from engine.models.backbone import Backbone
from engine.models.names import folder_name
from engine.models.structure import macs
from engine.models.weights import Weights, build
from engine.run import tuning_request
from engine.training.agreement import copy_in_form, make_candidate
from engine.training.autotune import forms_of
from engine.training.features import Source
from engine.training.findings import remembered, result_path
from engine.training.plan import Plan
from engine.training.recipe import Recipe
from engine.training.threads import thread_counts
from engine.training.trials import seconds_of
from ranking.kept import PLAN, STEPS, About, Frozen, Kept

# A processor gains nothing from larger batches, and their activations leave its caches.
BATCH_OF_A_PROCESSOR = 32
TRIED = 8  # images that forms are tried with on a processor, and a training step is timed with
# of the norm of fp32's features, that another form's may be off by: bf16 rounds each product to 0.4 %, and errors of
# the layers add up to about 1 % in the eleven; what is wrong is off by far more
SOUND = 0.05
TIMED = 2  # passes, or steps, of which the faster counts


@dataclass(frozen=True)
class Images:
    """The training part, decoded."""

    part: Part
    classes: int
    key: str  # that names of files begin with

    @cached_property
    def digest(self) -> str:
        """Of the pixels and labels, in the order of the rows; what is in other parts has no share in it."""
        return json_digest(list(zip(self.part.own_digests, self.part.labels.tolist(), strict=True)))


@dataclass(frozen=True)
class Body:
    """A backbone whose features are asked for, by its name."""

    name: str
    backbone: Backbone
    weights: Weights
    config: Config
    recipe: Recipe  # that it would be trained by
    device: str  # its name

    def kept(self, images: Images) -> Kept | None:
        """Where its features are kept; None: nowhere, as --no-cache has it."""
        config = self.config
        if config.no_cache:
            return None
        code = code_of(_no_reader, self.backbone.source, self.backbone.arguments)
        identity = {
            "backbone": [self.name, self.backbone.builder_name, self.backbone.head],
            "code": [code["engine"], code["backbone"], digest(Path(__file__))],
            "weights": [self.weights.sha256, list(self.weights.mean), list(self.weights.std)],
            "random": None if self.weights.sha256 else config.seed,  # of random weights
            "images": images.digest,
            "size": [list(config.size), list(images.part.stored_size)],
            "decoder": [DECODER, KEPT],
            "asked": [config.precision, config.plan],
            "device": self.device,  # of which the speeds beside the features are
            "versions": versions(self.backbone.library),
        }
        return Kept(config.cache_dir, f"{images.key}-{folder_name(self.name)}", identity)


def _no_reader() -> None:
    """Stands for a dataset's: what its images are, their digests say."""


def frozen(body: Body, images: Images, plan: Plan, title: str) -> Frozen:
    """The features of the training images, (N, D), float32, and what it took; `title` is what the bar says.

    Nothing else is looked at. Raises UserError where the model can't be divided into a body and a head.
    """
    torch.manual_seed(body.config.seed)
    model = build(body.backbone, body.name, images.classes, body.weights)
    cost = macs(model, body.config.size)
    _require_rows(model, body.backbone.head, body.config.size)
    batches = _batches(body, images, plan)
    plan, speed, source = _form(body, plan, model, batches)
    plan.place(model)
    model.eval()
    features, seconds = _pass(model, body, replace(batches, name=title, memory_format=plan.memory_format), plan)
    about = About(
        f"{plan.precision} {plan.layout}",
        seconds,
        len(images.part) / seconds,
        plan.device_name,
        sum(parameter.numel() for parameter in model.parameters()),
        cost,
        speed,
        source,
    )
    del model
    free_memory(plan.device)
    return Frozen(features, about, {})


@torch.inference_mode()
def _require_rows(model: nn.Module, head: str, size: tuple[int, int]) -> None:
    """Raise UserError where the head is not called once, with one row of features an image."""
    model.eval()
    given: list[tuple[Any, ...]] = []
    with model.get_submodule(head).register_forward_pre_hook(lambda _, inputs: given.append(inputs)):
        model(torch.zeros(2, 3, *size))
    if len(given) != 1 or len(given[0]) != 1:
        raise UserError(f"its head, {head}, is not called once, with one input, so that nothing can be its features")
    shape = tuple(given[0][0].shape)
    if len(shape) != 2 or shape[0] != 2:
        raise UserError(f"its head, {head}, is given {shape} for 2 images, and not a row of features for each")


def _batches(body: Body, images: Images, plan: Plan) -> Batches:
    config, weights = body.config, body.weights
    whole = Batches("train", images.part, config.batch_size, config.size, weights.mean, weights.std, plan.device)
    if plan.device == "cpu":
        return replace(whole, batch_size=min(config.batch_size, BATCH_OF_A_PROCESSOR))
    return whole.for_evaluation("train", images.part)


def _pass(model: nn.Module, body: Body, batches: Batches, plan: Plan) -> tuple[np.ndarray[Any, Any], float]:
    """The features and the seconds. UserError: they are not finite."""
    start = time.perf_counter()
    computed, _ = Source(model, body.backbone.head, batches, plan).computed()
    values = computed.float().cpu().numpy()
    if not np.isfinite(values).all():
        raise UserError(f"its features are not finite in {plan.precision}. Try --precision fp32")
    return values, max(time.perf_counter() - start, 1e-9)


def _form(body: Body, plan: Plan, model: nn.Module, batches: Batches) -> tuple[Plan, float | None, str]:
    """The plan that images pass by; images/s of training steps, and where that is known from.

    What a training run has measured here is taken for both. Else a processor tries each form on a few images; a card,
    on which a first pass takes longer than all others, takes the usual one.
    """
    request = tuning_request(body.config, body.backbone, body.recipe, plan.device)
    training = min(body.config.batch_size, len(batches.part))
    if found := remembered(result_path(plan, model, batches.size, training, request)):
        known = found.plan(plan, training)
        return replace(known, graphed=False), known.images_per_second, PLAN
    forms = forms_of(plan, request) if request.measure else [plan]
    if request.measure and plan.device == "cpu":  # where others are at work, threads that wait for each other crawl
        forms = [replace(form, threads=threads) for threads in thread_counts() for form in forms]
    few = TRIED if plan.device == "cpu" else training
    images, labels = next(replace(batches, batch_size=min(few, len(batches.part))).sequential())
    chosen = _fastest(forms, model, body.backbone.head, images) if plan.device == "cpu" else forms[0]
    return chosen, _training_speed(chosen, model, body.backbone.head, images, labels), STEPS


def _fastest(forms: Sequence[Plan], model: nn.Module, head: str, images: torch.Tensor) -> Plan:
    """The form that a forward pass is fastest in, of those whose features are fp32's but for rounding."""
    sure = replace(forms[0], precision="fp32", layout="NCHW")
    expected, seconds = _timed(sure, model, head, images)
    times = {sure: seconds}
    for form in forms:
        if form != sure:
            found, seconds = _timed(form, model, head, images)
            if (found - expected).norm() <= SOUND * expected.norm():
                times[form] = seconds
    return min(times, key=times.__getitem__)


@torch.inference_mode()
def _timed(form: Plan, model: nn.Module, head: str, images: torch.Tensor) -> tuple[torch.Tensor, float]:
    """What the head is given, float32, and the seconds of a pass once memory is taken and kernels are chosen."""
    copied = copy_in_form(form, model).eval()
    images = images.contiguous(memory_format=form.memory_format)
    given: list[torch.Tensor] = []
    took = []
    with copied.get_submodule(head).register_forward_pre_hook(lambda _, inputs: given.append(inputs[0])):
        for _ in range(1 + TIMED):
            start = time.perf_counter()
            with form.autocast():
                copied(images)
            took.append(time.perf_counter() - start)
    return given[-1].float(), min(took[1:])


def _training_speed(
    form: Plan, model: nn.Module, head: str, images: torch.Tensor, labels: torch.Tensor
) -> float | None:
    """Images/s of a step that leaves the weights as they are; None where it can't be taken, as for lack of memory."""
    if len(images) < 2:  # batch normalisation can't train on one
        return None
    try:
        candidate = make_candidate(form, copy_in_form(form, model), head, len(images))
        took = [seconds_of(candidate, images, labels) for _ in range(1 + TIMED)]
        return len(images) / min(took[1:])
    except (RuntimeError, MemoryError) as problem:
        if not out_of_memory(problem):
            raise
        return None
    finally:
        free_memory(form.device)
