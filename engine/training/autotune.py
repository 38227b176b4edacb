"""The fastest sound form of a backbone on this machine: found by a short measurement, remembered for later runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path

import torch
from torch import nn

from engine.console import say
from engine.data.batches import Batches
from engine.device import free_memory, random_state, set_random_state
from engine.errors import UserError, out_of_memory
from engine.models.structure import trains_batch_norm
from engine.processes.heartbeat import device_is_shared
from engine.training.agreement import Candidate, copy_in_form, make_candidate, silence, step_result
from engine.training.findings import TuningRequest, TuningResult, remember, remembered, result_path
from engine.training.graph import free_workspaces
from engine.training.meters import others_on_card
from engine.training.plan import LAYOUTS, Plan
from engine.training.threads import best_threads, thread_counts, threads_of_now
from engine.training.trials import LEAST_GAIN, Race, ranked

BUDGET = 20.0  # seconds for all forms together, once each has taken its first steps
COMPARED = (4, 8)  # images that a form's loss and gradient are compared on with those of fp32: at least, at most
COMPARED_PIXELS = 2**17  # of all of them together, about: a pass over more takes seconds on a CPU
GRAPHED = 4  # of the fastest forms are tried as a CUDA graph too

# Compilation saves a few percent of a step on a processor (2 to 7 % in three backbones on two cores), a quarter on a
# card (https://github.com/pytorch/pytorch/pull/99773), where it is said to take about a minute. On two cores resnet
# took 70 s, mobilenet 224 s, and each 6 s where Inductor's cache had the kernels.
COMPILE_SECONDS = {"cpu": 120.0, "cuda": 60.0}
COMPILE_AGAIN_SECONDS = 10.0
COMPILE_GAIN = {"cpu": 1.05, "cuda": 1.3}
PAYS_BACK = 3.0  # times what it takes, at least
WITHOUT = "--compile off does without it."


def fastest_plan(plan: Plan, model: nn.Module, train: Batches, request: TuningRequest) -> Plan:
    """`plan` in the form that trains `model` fastest, among those that agree with fp32 on the first images of `train`.

    What was found before, for the same backbone, size, batch size, device and versions, is taken from the user's cache
    folder; what is found while others are at work on the machine is not put there. Where nothing is to be measured,
    nothing is. Weights and random numbers stay as they are. Raises UserError when compilation is asked for and the
    compiler fails.
    """
    if not request.measure:
        return replace(plan, compiled=request.compile == "on")
    path = result_path(plan, model, train.size, train.batch_size, request)
    result, lasts = remembered(path), True
    if result and not _can_be(result, plan, request):
        result = None  # damaged, or another's: measured anew
    with _undisturbed(plan):
        if result:
            chosen = threads_of_now(result.plan(plan, train.batch_size), model, request.head, train)
        else:
            rule = f"once: first steps of each, then up to {BUDGET:.0f} s"
            say(f"measuring  which form of {request.backbone} trains fastest here, {rule}")
            finding = _measure(plan, model, train, request)
            if finding is None:
                sure = "fp32" if request.precision == "auto" else plan.precision
                reason = "no other form could be measured and agreed with fp32"
                return replace(plan, precision=sure, reason=reason, compiled=request.compile == "on")
            result, lasts = finding.result, finding.lasts
            if lasts:
                remember(path, result)
            chosen = result.plan(plan, train.batch_size)
        if not _worth_compiling(plan.device, result, train.steps, request):
            return chosen
        return _compiled(chosen, model, train, request, result, path if lasts else None)


def with_threads_of_now(plan: Plan, model: nn.Module, train: Batches, head: str) -> Plan:
    """`plan`, whose form was found by another run, with as many threads of a processor as train fastest at present.

    Where others are at work, few that are hardly interrupted are faster than many that wait for each other. Weights
    and random numbers stay as they are.
    """
    with _undisturbed(plan):
        return threads_of_now(plan, model, head, train)


def compile_seconds(device: str) -> float:
    """About how long a backbone takes to be compiled for the first time."""
    return COMPILE_SECONDS.get(device, max(COMPILE_SECONDS.values()))


def _worth_compiling(device: str, result: TuningResult, steps: int, request: TuningRequest) -> bool:
    """Whether what runs like this one last, even if no epoch brings a gain, pays for their compilation."""
    if request.compile != "auto":
        return request.compile == "on"
    gain = result.compile_gain or COMPILE_GAIN.get(device, 1.0)
    saved = result.step_seconds * steps * request.epochs * request.seeds * (1 - 1 / gain)
    first = compile_seconds(device) if result.compile_gain is None else COMPILE_AGAIN_SECONDS
    return saved > PAYS_BACK * (first + (request.seeds - 1) * COMPILE_AGAIN_SECONDS)


def _compiled(
    chosen: Plan, model: nn.Module, train: Batches, request: TuningRequest, result: TuningResult, path: Path | None
) -> Plan:
    """The chosen form, compiled where that is asked for or brings something, which is measured and remembered once."""
    gain = result.compile_gain
    if gain is None:
        about = f"about {compile_seconds(chosen.device):.0f} s and a few steps, once"
        say(f"measuring  what compiling {request.backbone} brings: {about}")
        gain, problem = _compile_gain(chosen, model, train, request.head)
        if gain is None:
            if request.compile == "on":
                raise UserError(problem)
            return replace(chosen, reason=f"{chosen.reason}; {problem}")
        if path:
            remember(path, replace(result, compile_gain=gain))
    asked = ", as asked for," if request.compile == "on" else ""
    reason = f"{chosen.reason}; compiled{asked} it is {gain:.2f} times as fast"
    if request.compile == "on" or gain > LEAST_GAIN:
        return in_compiled_form(replace(chosen, reason=reason))
    return replace(chosen, reason=reason)


@dataclass(frozen=True)
class Finding:
    """What came of a measurement."""

    result: TuningResult
    lasts: bool  # whether it says something of the machine, and not of the moment


def _measure(plan: Plan, model: nn.Module, train: Batches, request: TuningRequest) -> Finding | None:
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


def forms_of(plan: Plan, request: TuningRequest) -> list[Plan]:
    """The eager forms that are tried, each dtype in each layout, the usual one first."""
    precisions = [plan.precision]
    if request.precision == "auto":
        # in bf16, batch normalisation does without cuDNN: a third more kernels a step of resnet than in fp16
        precisions += ["fp16"] * (plan.device == "cuda") + ["fp32"]
    forms = [
        replace(plan, precision=precision, layout=layout)
        for precision in dict.fromkeys(precisions)
        for layout in LAYOUTS
    ]
    precision, _, layout = request.usual.partition(" ")
    usual = replace(plan, precision=precision if precision in precisions else plan.precision, layout=layout or "NCHW")
    return sorted(forms, key=lambda form: form != usual)


def _can_be(result: TuningResult, plan: Plan, request: TuningRequest) -> bool:
    """Whether a measurement for such a run could have found that."""
    forms = [(form.precision, form.layout) for form in forms_of(plan, request)]
    threads = plan.device != "cpu" or result.threads in thread_counts()
    return (result.precision, result.layout) in forms and threads and (plan.device == "cuda" or not result.graphed)


def _try_forms(plan: Plan, model: nn.Module, train: Batches, request: TuningRequest) -> Finding | None:
    """The fastest sound form, in about BUDGET seconds and first steps.

    None: no form computes the loss and gradient of fp32. A form that fails or that memory does not hold is left out;
    where memory holds none, the error of the last one comes through.
    """
    images, labels = next(train.sequential())
    whole = len(labels)
    few = min(max(COMPARED_PIXELS // (train.size[0] * train.size[1]), COMPARED[0]), COMPARED[1])

    def candidate(form: Plan) -> Candidate:
        # a graph is of whole batches alone
        return make_candidate(form, copy_in_form(form, model), request.head, few if form.graphed else whole)

    # one model a layout, which all its forms share
    models = {layout: copy_in_form(replace(plan, layout=layout), model) for layout in LAYOUTS}
    races = _raced(forms_of(plan, request), models, request.head, images, labels)
    race = races[-1]
    left_out = {form: problem for each in races for form, problem in each.left_out.items()}
    found = [*race.candidates]
    if plan.device == "cuda":
        found += _graphed(race, models, request.head, left_out)
    order = ranked(found, fastest_seconds)
    if not order:
        return None
    # with as many threads as do not wait for each other
    sure = replace(plan, precision="fp32", threads=order[0].plan.threads)
    expected = step_result(candidate(sure), images[:few], labels[:few])
    for best in order:
        # not with the weights that were trained on: infinite gradients reach them, even at a learning rate of 0
        if step_result(candidate(best.plan), images[:few], labels[:few]).agrees(expected):
            break
        left_out[best.plan.form] = "is inaccurate"
    else:
        return None
    alone = not device_is_shared() and not (plan.device == "cuda" and others_on_card())
    lasts = alone and not any(each.disturbed(best) for each in races)
    reason = _reason(best, order, left_out, len(race.labels), lasts)
    form, seconds = best.plan, best.median * whole / len(race.labels)
    result = TuningResult(
        form.precision, form.layout, form.micro_batch, form.memory, reason, seconds, form.threads, form.graphed
    )
    return Finding(result, lasts and form.micro_batch is None)  # another time there may be more memory


def _raced(
    forms: list[Plan], models: dict[str, nn.Module], head: str, images: torch.Tensor, labels: torch.Tensor
) -> list[Race]:
    """The forms against each other, last; before, on a processor, the numbers of threads."""
    before: list[Race] = []
    whole = len(labels)
    if forms[0].device == "cpu":
        found = best_threads(forms, models, head, images, labels)
        images, labels = found.images, found.labels
        if found.best:
            forms = [replace(form, threads=found.best.plan.threads) for form in forms]
        before += found.races
    race = Race([make_candidate(form, models[form.layout], head, whole) for form in forms], images, labels)
    race.warm_up()
    race.run(BUDGET)
    return [*before, race]


def _graphed(race: Race, models: dict[str, nn.Module], head: str, left_out: dict[str, str]) -> list[Candidate]:
    """The fastest of the forms as CUDA graphs, timed one by one: each holds memory of its own for as long as it lasts.

    What is wrong with the others goes to `left_out`.
    """
    found = []
    for eager in ranked(race.candidates, fastest_seconds)[:GRAPHED]:
        form = replace(eager.plan, graphed=True)
        alone = Race([make_candidate(form, models[form.layout], head, len(race.labels))], race.images, race.labels)
        try:
            alone.warm_up()
            alone.run(BUDGET)
        except (RuntimeError, MemoryError) as problem:
            if not out_of_memory(problem):
                raise
        left_out |= alone.left_out
        for candidate in alone.candidates:
            if candidate.step.graphed:
                found.append(candidate)
            else:
                left_out[form.form] = "can't be captured"
            candidate.step.release()
        if form.device == "cuda":
            free_workspaces()
        free_memory(form.device)
    return found


def fastest_seconds(candidate: Candidate) -> float:
    """What a step takes where nobody disturbs it."""
    return candidate.fastest


def _reason(best: Candidate, order: list[Candidate], left_out: dict[str, str], images: int, lasts: bool) -> str:
    """Why `best` was chosen: what the others were measured at, or what is wrong with them."""
    sound = [each for each in order if each.plan.form not in left_out]
    others = [f"{each.plan.form} {each.images_per_second(images)}" for each in sound if each is not best]
    others += [f"{form} {problem}" for form, problem in left_out.items()]
    moment = "" if lasts else "; others are at work here, so this is for this run alone"
    return f"{best.images_per_second(images)} images/s ({images} a step); {', '.join(others)}{moment}"


def in_compiled_form(plan: Plan) -> Plan:
    """`plan`, compiled, which takes the place of a CUDA graph."""
    return replace(plan, compiled=True, graphed=False)


def _compile_gain(chosen: Plan, model: nn.Module, train: Batches, head: str) -> tuple[float | None, str]:
    """How many times as fast the chosen form is if it is compiled, on whole batches; or None and the reason."""
    images, labels = next(train.sequential())
    images = images.contiguous(memory_format=chosen.memory_format)
    try:
        forms = (chosen, in_compiled_form(chosen))
        plain, compiled = (make_candidate(form, copy_in_form(form, model), head, len(labels)) for form in forms)
        # without what is random: with it, the model would have to be compiled again
        for candidate in (plain, compiled):
            silence(candidate.model)
        if not step_result(compiled, images, labels).agrees(step_result(plain, images, labels)):
            return None, f"torch.compile gives other numbers than the model itself. {WITHOUT}"
        race = Race([plain, compiled], images, labels)
        race.warm_up()
        race.run(BUDGET)
        if race.left_out:
            return None, ", ".join(f"{form} {problem}" for form, problem in race.left_out.items()) + f". {WITHOUT}"
    except UserError as problem:
        return None, str(problem)
    except (RuntimeError, MemoryError) as problem:
        reason = str(problem).partition("\n")[0][:200] or type(problem).__name__
        return None, f"torch.compile fails here: {reason}. {WITHOUT}"
    return plain.fastest / compiled.fastest, ""


@contextmanager
def _undisturbed(plan: Plan) -> Iterator[None]:
    """Random numbers and memory are afterwards as if nothing had been."""
    state = random_state(plan.device)
    try:
        yield
    finally:
        set_random_state(state, plan.device)
        plan.use_threads()
        if plan.device == "cuda":
            free_workspaces()
        free_memory(plan.device)
        if plan.device == "cuda":
            torch.cuda.reset_peak_memory_stats()  # the run's own is recorded
