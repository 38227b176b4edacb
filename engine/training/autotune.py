"""The fastest sound form of a backbone on this machine: found by a short measurement, remembered for later runs."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from math import inf
from pathlib import Path

import torch
from torch import nn

from engine.console import say
from engine.data.batches import Batches
from engine.device import free_memory, random_state, set_random_state, synchronize
from engine.environment import versions
from engine.errors import UserError, out_of_memory
from engine.files import write_json
from engine.models.structure import trains_batch_norm
from engine.paths import user_cache
from engine.training.agreement import Candidate, copy_in_form, make_candidate, silence, step_result
from engine.training.plan import DTYPES, LAYOUTS, Plan
from engine.training.step import Step

BUDGET = 30.0  # seconds, for all forms together, but for compilation
ROUNDS = 5
HOPELESS = 1.5  # times as slow as the fastest: not tried a third time
STEP_SECONDS = 1.0  # a step on a CPU is tried on so many images that it takes about this long
COMPARED = (4, 8)  # images that a form's loss and gradient are compared on with those of fp32: at least, at most
COMPARED_PIXELS = 2**17  # of all of them together, about: a pass over more takes seconds on a CPU

# Compilation takes about a minute of a processor and of a card alike, and saves a few percent of a step on a processor
# (2 to 7 % in three backbones on two cores), a quarter on a card (https://github.com/pytorch/pytorch/pull/99773).
COMPILE_SECONDS = 60.0
COMPILE_GAIN = {"cpu": 1.05, "cuda": 1.3}
PAYS_BACK = 3.0  # times what it takes, at least
LEAST_GAIN = 1.03  # less may be noise
WITHOUT = "--compile off does without it."


@dataclass(frozen=True)
class TuningRequest:
    """What is to be trained, and what the command line leaves open."""

    backbone: str  # its name
    head: str  # the dotted name of its last layer
    tune: str  # "full" or "linear"
    precision: str  # as asked for: "auto" leaves it open
    compile: str  # "auto", "on" or "off"
    measure: bool
    epochs: int = 1  # that the run is sure to last


@dataclass(frozen=True)
class TuningResult:
    """What is remembered of a backbone on a machine."""

    precision: str
    layout: str
    micro_batch: int | None
    memory: str | None
    reason: str
    step_seconds: float  # of a whole batch; on a CPU, as many times that of an image as it has
    compile_gain: float | None = None  # a step's time over that of a compiled one; None: not tried

    def plan(self, plan: Plan) -> Plan:
        """`plan` in the form that was found fastest."""
        form = {name: getattr(self, name) for name in ("precision", "layout", "micro_batch", "memory", "reason")}
        return replace(plan, **form)


def fastest_plan(plan: Plan, model: nn.Module, train: Batches, request: TuningRequest) -> Plan:
    """`plan` in the form that trains `model` fastest, among those that agree with fp32 on the first images of `train`.

    What was found before, for the same backbone, size, batch size, device and versions, is taken from the user's cache
    folder. Where nothing is to be measured, nothing is. Weights and random numbers stay as they are. Raises UserError
    when compilation is asked for and the compiler fails.
    """
    if not request.measure:
        return replace(plan, compiled=request.compile == "on")
    path = result_path(plan, model, train.size, train.batch_size, request)
    result = remembered(path)
    with _undisturbed(plan.device):
        if result is None:
            say(f"measuring  which form of {request.backbone} trains fastest here: up to {BUDGET:.0f} s, once")
            result = _measure(plan, model, train, request)
            if result is None:
                sure = "fp32" if request.precision == "auto" else plan.precision
                return replace(plan, precision=sure, reason="no other form could be measured and agreed with fp32")
            if result.micro_batch is None:  # another time there may be more memory
                _remember(path, result)
        chosen = result.plan(plan)
        if not _worth_compiling(plan.device, result, train.steps, request):
            return chosen
        return _compiled(chosen, model, train, request, result, path)


def _worth_compiling(device: str, result: TuningResult, steps: int, request: TuningRequest) -> bool:
    """Whether the run lasts long enough, even if no epoch brings a gain, for compilation to pay for itself."""
    if request.compile != "auto":
        return request.compile == "on"
    gain = result.compile_gain or COMPILE_GAIN.get(device, 1.0)
    return result.step_seconds * steps * request.epochs * (1 - 1 / gain) > PAYS_BACK * COMPILE_SECONDS


def _compiled(
    chosen: Plan, model: nn.Module, train: Batches, request: TuningRequest, result: TuningResult, path: Path
) -> Plan:
    """The chosen form, compiled where that is asked for or brings something, which is measured and remembered once."""
    gain = result.compile_gain
    if gain is None:
        say(f"measuring  what compiling {request.backbone} brings: about {COMPILE_SECONDS:.0f} s and a few steps, once")
        gain, problem = _compile_gain(chosen, model, train, request.head)
        if gain is None:
            if request.compile == "on":
                raise UserError(problem)
            return replace(chosen, reason=f"{chosen.reason}; {problem}")
        _remember(path, replace(result, compile_gain=gain))
    asked = ", as asked for," if request.compile == "on" else ""
    reason = f"{chosen.reason}; compiled{asked} it is {gain:.2f} times as fast"
    return replace(chosen, reason=reason, compiled=request.compile == "on" or gain > LEAST_GAIN)


def _measure(plan: Plan, model: nn.Module, train: Batches, request: TuningRequest) -> TuningResult | None:
    """What _try_forms() finds, in micro-batches where memory is short; None also where even those are too large."""
    trying: Plan | None = plan
    while trying:
        try:
            return _try_forms(trying, model, train, request)
        except (RuntimeError, MemoryError) as problem:
            if not out_of_memory(problem):
                raise
        # here, not in the handler: its traceback holds what was allocated
        free_memory(plan.device)
        trying = trying.halved(train.batch_size, trains_batch_norm(model))
    return None


def _try_forms(plan: Plan, model: nn.Module, train: Batches, request: TuningRequest) -> TuningResult | None:
    """The fastest sound form of dtype x layout, in about BUDGET seconds.

    None: no form computes the loss and gradient of fp32. A form that fails or that memory does not hold is left out;
    where memory holds none, the error of the last one comes through.
    """
    deadline = time.perf_counter() + BUDGET
    precisions = dict.fromkeys([plan.precision, "fp32"] if request.precision == "auto" else [plan.precision])
    forms = [replace(plan, precision=precision, layout=layout) for precision in precisions for layout in LAYOUTS]
    images, labels = next(train.sequential())
    few = min(max(COMPARED_PIXELS // (train.size[0] * train.size[1]), COMPARED[0]), COMPARED[1])
    compared = images[:few], labels[:few]

    def candidate(form: Plan) -> Candidate:
        return make_candidate(form, copy_in_form(form, model), request.head, len(labels))

    expected = step_result(candidate(replace(plan, precision="fp32")), *compared)
    # one model a layout, which all its forms share
    models = {layout: copy_in_form(replace(plan, layout=layout), model) for layout in LAYOUTS}
    candidates = [make_candidate(form, models[form.layout], request.head, len(labels)) for form in forms]
    if plan.device == "cpu":
        count = _count(candidates, images, labels)
        images, labels = images[:count], labels[:count]
    running, left_out = _warmed_up(candidates, images, labels)
    _race(running, images, labels, deadline)
    ranked = _ranked(running)
    for best in ranked:
        # not with the weights that were trained on: infinite gradients reach them, even at a learning rate of 0
        if step_result(candidate(best.plan), *compared).agrees(expected):
            break
        left_out[best.plan.form] = "is inaccurate"
    else:
        return None
    form, seconds = best.plan, best.median * train.batch_size / len(labels)
    reason = _reason(best, ranked, left_out, len(labels))
    return TuningResult(form.precision, form.layout, form.micro_batch, form.memory, reason, seconds)


def _ranked(running: list[Candidate]) -> list[Candidate]:
    """The fastest first; among those that noise may have put in order, as they were given.

    So the same machine chooses the same again.
    """
    fastest = min((candidate.median for candidate in running), default=0.0)
    return sorted(running, key=lambda candidate: (candidate.median > LEAST_GAIN * fastest) * candidate.median)


def _reason(best: Candidate, ranked: list[Candidate], left_out: dict[str, str], images: int) -> str:
    """Why `best` was chosen: what the others were measured at, or what is wrong with them."""
    sound = [each for each in ranked if each.plan.form not in left_out]
    others = [f"{each.plan.form} {each.images_per_second(images)}" for each in sound[1:]]
    others += [f"{form} {problem}" for form, problem in left_out.items()]
    return f"{best.images_per_second(images)} images/s ({images} a step); {', '.join(others)}"


def _warmed_up(
    candidates: list[Candidate], images: torch.Tensor, labels: torch.Tensor
) -> tuple[list[Candidate], dict[str, str]]:
    """Those that can take a step, each with the seconds of its first; and what is wrong with the other forms."""
    running, left_out = [], {}
    lack: BaseException | None = None
    for candidate in candidates:
        batch = images.contiguous(memory_format=candidate.plan.memory_format)
        try:
            candidate.seconds = [_seconds(candidate.step, batch, labels, candidate.plan.device)]
        except (RuntimeError, MemoryError) as problem:
            if out_of_memory(problem):
                lack = problem.with_traceback(None)
            left_out[candidate.plan.form] = "does not fit" if out_of_memory(problem) else "fails"
        else:
            running.append(candidate)
            continue
        candidate.step.optimizer.zero_grad(set_to_none=True)
        free_memory(candidate.plan.device)
    if lack and not running:
        raise lack
    return running, left_out


def _count(candidates: list[Candidate], images: torch.Tensor, labels: torch.Tensor) -> int:
    """So many images that a step on a CPU takes about STEP_SECONDS, at most those that there are."""
    few = min(2, len(labels))
    running, _ = _warmed_up(candidates[:1], images[:few], labels[:few])
    if not running:
        return few
    seconds = _seconds(running[0].step, images[:few], labels[:few], "cpu")
    return min(max(few, int(few * STEP_SECONDS / seconds)), len(labels))


def _race(candidates: list[Candidate], images: torch.Tensor, labels: torch.Tensor, deadline: float) -> None:
    """Time the forms in turn, for ROUNDS rounds or until the deadline; the hopeless ones twice.

    Their first step counts only where there is no time for a second.
    """
    batches = {layout: images.contiguous(memory_format=memory_format) for layout, memory_format in LAYOUTS.items()}
    running = candidates
    for turn in range(ROUNDS):
        if time.perf_counter() + sum(candidate.median for candidate in running) > deadline:
            break
        for candidate in running:
            took = _seconds(candidate.step, batches[candidate.plan.layout], labels, candidate.plan.device)
            candidate.seconds = [*(candidate.seconds if turn else ()), took]
        best = min(candidate.median for candidate in running)
        if turn:  # one slow step may be another program's doing
            running = [candidate for candidate in running if min(candidate.seconds) < HOPELESS * best]


def _compile_gain(chosen: Plan, model: nn.Module, train: Batches, head: str) -> tuple[float | None, str]:
    """How many times as fast the chosen form is if it is compiled, on whole batches; or None and the reason."""
    images, labels = next(train.sequential())
    images = images.contiguous(memory_format=chosen.memory_format)
    try:
        forms = (chosen, replace(chosen, compiled=True))
        eager, compiled = (make_candidate(form, copy_in_form(form, model), head, len(labels)) for form in forms)
        # without what is random: with it, the model would have to be compiled again
        for candidate in (eager, compiled):
            silence(candidate.model)
        if not step_result(compiled, images, labels).agrees(step_result(eager, images, labels)):
            return None, f"torch.compile gives other numbers than the model itself. {WITHOUT}"
        running, left_out = _warmed_up([eager, compiled], images, labels)
        if left_out:
            return None, ", ".join(f"{form} {problem}" for form, problem in left_out.items()) + f". {WITHOUT}"
        _race(running, images, labels, time.perf_counter() + BUDGET)
    except UserError as problem:
        return None, str(problem)
    except (RuntimeError, MemoryError) as problem:
        reason = str(problem).partition("\n")[0][:200] or type(problem).__name__
        return None, f"torch.compile fails here: {reason}. {WITHOUT}"
    return eager.median / compiled.median, ""


def _seconds(step: Step, images: torch.Tensor, labels: torch.Tensor, device: str) -> float:
    """How long one step takes, until the device has done it."""
    synchronize(device)
    start = time.perf_counter()
    step(images, labels)
    synchronize(device)
    return time.perf_counter() - start


@contextmanager
def _undisturbed(device: str) -> Iterator[None]:
    """Random numbers and memory are afterwards as if nothing had been."""
    state = random_state(device)
    try:
        yield
    finally:
        set_random_state(state, device)
        free_memory(device)
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()  # the run's own is recorded


def result_path(plan: Plan, model: nn.Module, size: tuple[int, int], batch_size: int, request: TuningRequest) -> Path:
    """Where a result is remembered, by all that it depends on: not the number of classes, so that datasets share it.

    Of `plan`, the device and its name count; of the model and its head, how many parameters they have.
    """
    body, head = (
        sum(parameter.numel() for parameter in module.parameters())
        for module in (model, model.get_submodule(request.head))
    )
    parts = {
        "model": [request.backbone, body - head],
        "trained": request.tune,
        "size": size,
        "batch_size": batch_size,
        "device": [plan.device, plan.device_name],
        "precision": request.precision,
        "versions": [*versions().values(), torch.version.cuda],
        "form": 1,  # of what is measured and remembered
    }
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
    return user_cache() / "plans" / f"{request.backbone}-{digest}.json"


def remembered(path: Path) -> TuningResult | None:
    """The result in that file; None where there is none that can be used."""
    try:
        result = TuningResult(**json.loads(path.read_text(encoding="utf-8")))
        known = result.precision in DTYPES and result.layout in LAYOUTS and result.reason.isprintable()
        gain = 1.0 if result.compile_gain is None else result.compile_gain
        numbers = 0 < result.step_seconds < inf and 0 < gain < inf
        return result if known and numbers and result.micro_batch is None and result.memory is None else None
    # none, or not one of ours: measured anew
    except (OSError, ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        return None


def _remember(path: Path, result: TuningResult) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, asdict(result))
    except OSError:  # a cache folder that can't be written to: measured anew each time
        pass
