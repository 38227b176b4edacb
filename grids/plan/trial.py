"""How fast this device trains, by a few steps of some of a grid's backbones, where no record tells."""

from __future__ import annotations

import time
from collections.abc import Sequence

import torch

from engine.console import say
from engine.device import as_found, prepare
from engine.errors import RunError, UserError, out_of_memory
from engine.models.structure import freeze_body
from engine.training.agreement import Candidate, copy_in_form, make_candidate
from engine.training.autotune import forms_of
from engine.training.findings import TuningRequest
from engine.training.meters import others_on_card
from engine.training.plan import Plan, choose_plan
from engine.training.threads import best_threads
from engine.training.trials import seconds_of
from grids.cells import Cell
from grids.estimate import Speeds
from grids.work import work_of

SECONDS = 6.0  # for all backbones together; the first is measured in any case
LEAST_STEPS, STEPS_SECONDS = 3, 2.0  # that count, of each: where others are at work, one step says little of the next


def measure_some(cells: Sequence[Cell], device: str, speeds: Speeds) -> list[str]:
    """Take a few training steps of the backbones of `cells`, those that cost least first, as far as SECONDS go.

    `speeds` takes in what they reach; returns what is to be said of it. Nothing is kept for later.
    """
    works = [
        (work_of(cell.config.model, cell.config.size, cell.config.batch_size), cell)
        for cell in _of_each_backbone(cells)
    ]
    order = sorted(((work, cell) for work, cell in works if work), key=lambda each: each[0])
    if not order:
        return []
    if device == "cuda" and others_on_card():
        return ["speed      not measured: others are at work on the card, and would be disturbed"]
    say(f"measuring  how fast this device trains, by a few steps, since no record tells: about {SECONDS:.0f} s")
    found, notes, took = [], [], 0.0
    begin = time.perf_counter()
    with as_found():
        for number, (work, cell) in enumerate(order):
            expected = took * work / order[number - 1][0] if number else 0.0
            if time.perf_counter() - begin + expected > SECONDS and number:
                break
            before = time.perf_counter()
            try:
                rate, disturbed = _measured(cell, device)
            except (RuntimeError, MemoryError, UserError, RunError) as problem:
                what = "memory does not hold a step" if out_of_memory(problem) else str(problem).partition("\n")[0]
                notes = [f"speed      {cell.config.model} can't be measured: {what}"]
                break
            took = time.perf_counter() - before
            speeds.add_now(cell, rate, disturbed)
            busy = " (others were at work here)" if disturbed else ""
            found.append(f"{cell.config.model} {rate:,.1f} images/s{busy}")
    return [*([f"speed      in a few steps of training: {', '.join(found)}"] if found else []), *notes]


def _work(cell: Cell) -> float | None:
    config = cell.config
    return work_of(config.model, config.size, config.batch_size)


def _of_each_backbone(cells: Sequence[Cell]) -> list[Cell]:
    """A cell for each backbone, at the size that most of its cells are of."""
    counts: dict[str, dict[tuple[int, int], list[Cell]]] = {}
    for cell in cells:
        counts.setdefault(cell.config.model, {}).setdefault(cell.config.size, []).append(cell)
    return [max(of_model.values(), key=len)[0] for of_model in counts.values()]


def _measured(cell: Cell, device: str) -> tuple[float, bool]:
    """Images a second, on one batch of noise, in the form that is usually the fastest; whether others disturbed it."""
    config, backbone = cell.config, cell.backbone
    plan = choose_plan(device, config.precision)
    prepare(device)
    usual = backbone.usual_on_cuda if device == "cuda" else backbone.usual_on_cpu
    request = TuningRequest(
        config.model, backbone.head, config.tune, config.precision, "off", measure=True, usual=usual
    )
    form = forms_of(plan, request)[0]
    model = backbone.build()
    if config.tune == "linear":
        freeze_body(model, backbone.head)
    images = torch.rand(config.batch_size, 3, *config.size, device=device)
    labels = torch.zeros(config.batch_size, dtype=torch.long, device=device)
    candidate, images, disturbed = _warm(form, copy_in_form(form, model), backbone.head, images, labels)
    begin, steps = time.perf_counter(), 0
    while steps < LEAST_STEPS or time.perf_counter() - begin < STEPS_SECONDS:
        seconds_of(candidate, images, labels[: len(images)])
        steps += 1
    return steps * len(images) / (time.perf_counter() - begin), disturbed


def _warm(
    form: Plan, model: torch.nn.Module, head: str, images: torch.Tensor, labels: torch.Tensor
) -> tuple[Candidate, torch.Tensor, bool]:
    """A candidate that has taken its first steps, the images that a step of it needs, whether others disturbed it."""
    if form.device == "cpu":  # with as many threads as do not wait for each other, and no more images than are needed
        threads = best_threads([form], {form.layout: model}, head, images, labels)
        if threads.best:
            return threads.best, threads.images, threads.races[-1].disturbed(threads.best)
    candidate = make_candidate(form, model, head, len(labels))
    for _ in range(2):
        seconds_of(candidate, images, labels)
    return candidate, images, False
