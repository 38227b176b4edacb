"""The fastest sound form of a backbone on this machine: found by a short measurement, remembered for later runs."""

from __future__ import annotations

import copy
import hashlib
import json
import statistics
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from math import isfinite
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torchvision.ops import StochasticDepth

from engine.config import Config
from engine.console import say
from engine.data.batches import Batches
from engine.data.locate import user_cache
from engine.device import free_memory, random_state, set_random_state, synchronize
from engine.environment import versions
from engine.errors import UserError, out_of_memory
from engine.files import write_json
from engine.models.backbone import trains_batch_norm
from engine.training.loop import set_mode
from engine.training.plan import DTYPES, LAYOUTS, Plan
from engine.training.recipe import make_recipe
from engine.training.step import Step

BUDGET = 30.0  # seconds, for all forms together, but for compilation
ROUNDS = 5
HOPELESS = 1.5  # times as slow as the fastest: not tried a third time
STEP_SECONDS = 1.0  # a step on a CPU is tried on so many images that it takes about this long
COMPARED = (4, 8)  # images that a form's loss and gradient are compared on with those of fp32: at least, at most
COMPARED_PIXELS = 2**17  # of all of them together, about: a pass over more takes seconds on a CPU

# How far a form may be from fp32. The hardest case is a network with random weights, whose batch normalisation over few
# small images magnifies rounding: there, bf16 moved the loss by up to 5 %, the gradient's norm by up to 22 %, and the
# head's gradient kept a cosine of 0.57 or more (twelve backbones, 4 to 32 images of 64 to 224 pixels). The gradient of
# the first layers turns about there, which says nothing of the form.
LOSS_TOLERANCE = 0.15
NORM_FACTOR = 2.0
HEAD_COSINE = 0.3

# Compilation takes about a minute of a processor and of a card alike, and saves a few percent of a step on a processor
# (2 to 7 % in three backbones on two cores), a quarter on a card (https://github.com/pytorch/pytorch/pull/99773).
COMPILE_SECONDS = 60.0
COMPILE_GAIN = {"cpu": 1.05, "cuda": 1.3}
PAYS_BACK = 3.0  # times what it takes, at least
LEAST_GAIN = 1.03  # less may be noise
WITHOUT = "--compile off does without it."


@dataclass
class Trial:
    """One form, a copy of the model in it, and the seconds that its steps took."""

    plan: Plan
    model: nn.Module
    head: nn.Module
    step: Step
    seconds: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, plan: Plan, model: nn.Module, head: nn.Module, batch_size: int) -> Trial:
        """With a step that leaves the weights as they are, by an optimizer that takes no memory."""
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        return cls(plan, model, head, Step(model, torch.optim.SGD(trained, 0.0, fused=True), plan, batch_size))

    @property
    def median(self) -> float:
        """Seconds a step."""
        return statistics.median(self.seconds)

    def rate(self, images: int) -> str:
        """Images a second, where a step is of so many."""
        return f"{images / self.median:.1f}"


@dataclass(frozen=True)
class Finding:
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
        found = {name: getattr(self, name) for name in ("precision", "layout", "micro_batch", "memory", "reason")}
        return replace(plan, **found)


def fastest_plan(plan: Plan, model: nn.Module, head: nn.Module, train: Batches, config: Config) -> Plan:
    """`plan` in the form that trains `model` fastest, among those that agree with fp32 on the first images of `train`.

    What was found before, for the same backbone, size, batch size, device and versions, is taken from the user's cache
    folder. With `--plan off` nothing is measured. Weights and random numbers stay as they are. Raises UserError when
    `--compile on` is asked for and the compiler fails.
    """
    if config.plan == "off":
        return replace(plan, compiled=config.compile == "on")
    path = finding_path(plan, model, head, train.batch_size, config)
    finding = remembered(path)
    with _undisturbed(plan.device):
        if finding is None:
            say(f"measuring  which form of {config.model} trains fastest here: up to {BUDGET:.0f} s, once")
            finding = _measure(plan, model, head, train, config)
            if finding is None:
                sure = "fp32" if config.precision == "auto" else plan.precision
                return replace(plan, precision=sure, reason="no other form could be measured and agreed with fp32")
            if finding.micro_batch is None:  # another time there may be more memory
                _remember(path, finding)
        chosen = finding.plan(plan)
        if not _worth_compiling(plan.device, finding, train.steps, config):
            return chosen
        gain = finding.compile_gain
        if gain is None:
            say(f"measuring  what compiling {config.model} brings: about {COMPILE_SECONDS:.0f} s and a few steps, once")
            gain, problem = _compile_gain(chosen, model, head, train, config)
            if gain is None:
                if config.compile == "on":
                    raise UserError(problem)
                return replace(chosen, reason=f"{chosen.reason}; {problem}")
            _remember(path, replace(finding, compile_gain=gain))
    asked = ", as asked for," if config.compile == "on" else ""
    reason = f"{chosen.reason}; compiled{asked} it is {gain:.2f} times as fast"
    return replace(chosen, reason=reason, compiled=config.compile == "on" or gain > LEAST_GAIN)


def _worth_compiling(device: str, finding: Finding, steps: int, config: Config) -> bool:
    """Whether the run lasts long enough, even if no epoch brings a gain, for compilation to pay for itself."""
    if config.compile != "auto":
        return config.compile == "on"
    course = make_recipe(config, 0.0, steps)
    epochs = min(course.epochs or sys.maxsize, course.patience or sys.maxsize) * len(course.stages)
    gain = finding.compile_gain or COMPILE_GAIN.get(device, 1.0)
    return finding.step_seconds * steps * epochs * (1 - 1 / gain) > PAYS_BACK * COMPILE_SECONDS


def _measure(plan: Plan, model: nn.Module, head: nn.Module, train: Batches, config: Config) -> Finding | None:
    """What _try_forms() finds, in micro-batches where memory is short; None also where even those are too large."""
    trying: Plan | None = plan
    while trying:
        try:
            return _try_forms(trying, model, head, train, config)
        except (RuntimeError, MemoryError) as problem:
            if not out_of_memory(problem):
                raise
        # here, not in the handler: its traceback holds what was allocated
        free_memory(plan.device)
        trying = trying.halved(train.batch_size, trains_batch_norm(model, config.tune))
    return None


def _try_forms(plan: Plan, model: nn.Module, head: nn.Module, train: Batches, config: Config) -> Finding | None:
    """The fastest sound form of dtype x layout, in about BUDGET seconds.

    None: no form computes the loss and gradient of fp32. A form that fails or that memory does not hold is left out;
    where memory holds none, the error of the last one comes through.
    """
    deadline = time.perf_counter() + BUDGET
    precisions = dict.fromkeys([plan.precision, "fp32"] if config.precision == "auto" else [plan.precision])
    forms = [replace(plan, precision=precision, layout=layout) for precision in precisions for layout in LAYOUTS]
    images, labels = next(train.sequential())
    few = min(max(COMPARED_PIXELS // (train.size[0] * train.size[1]), COMPARED[0]), COMPARED[1])
    compared = images[:few], labels[:few]

    def trial(form: Plan) -> Trial:
        return Trial.of(form, *_copy(form, model, head, config), len(labels))

    expected = _outcome(trial(replace(plan, precision="fp32")), *compared)
    # one model a layout, which all its forms share
    models = {layout: _copy(replace(plan, layout=layout), model, head, config) for layout in LAYOUTS}
    trials = [Trial.of(form, *models[form.layout], len(labels)) for form in forms]
    if plan.device == "cpu":
        count = _count(trials, images, labels)
        images, labels = images[:count], labels[:count]
    running, left_out = _warmed_up(trials, images, labels)
    _race(running, images, labels, deadline)
    fastest = min((trial.median for trial in running), default=0.0)
    # among those that noise may have put in order, the first: so that the same machine chooses the same again
    ranked = sorted(running, key=lambda trial: (trial.median > LEAST_GAIN * fastest) * trial.median)
    for best in ranked:
        # not with the weights that were trained on: gradients that are not finite reach them, even at a rate of 0
        if _outcome(trial(best.plan), *compared).agrees(expected):
            break
        left_out[best.plan.form] = "is inaccurate"
    else:
        return None
    others = [f"{each.plan.form} {each.rate(len(labels))}" for each in ranked if each.plan.form not in left_out]
    reasons = [*others[1:], *(f"{form} {problem}" for form, problem in left_out.items())]
    reason = f"{best.rate(len(labels))} images/s ({len(labels)} a step); {', '.join(reasons)}"
    found, seconds = best.plan, best.median * train.batch_size / len(labels)
    return Finding(found.precision, found.layout, found.micro_batch, found.memory, reason, seconds)


def _warmed_up(trials: list[Trial], images: torch.Tensor, labels: torch.Tensor) -> tuple[list[Trial], dict[str, str]]:
    """The trials that can take a step, each with the seconds of its first; and what is wrong with the other forms."""
    running, left_out = [], {}
    lack: BaseException | None = None
    for trial in trials:
        batch = images.contiguous(memory_format=trial.plan.memory_format)
        try:
            trial.seconds = [_seconds(trial.step, batch, labels, trial.plan.device)]
        except (RuntimeError, MemoryError) as problem:
            if out_of_memory(problem):
                lack = problem.with_traceback(None)
            left_out[trial.plan.form] = "does not fit" if out_of_memory(problem) else "fails"
        else:
            running.append(trial)
            continue
        trial.step.optimizer.zero_grad(set_to_none=True)
        free_memory(trial.plan.device)
    if lack and not running:
        raise lack
    return running, left_out


def _copy(form: Plan, model: nn.Module, head: nn.Module, config: Config) -> tuple[nn.Module, nn.Module]:
    """A copy of the model and its head, ready to be trained in this form."""
    body, top = copy.deepcopy((model, head))
    form.place(body)
    set_mode(body, top, config.tune)
    return body, top


@dataclass(frozen=True)
class Outcome:
    """What a forward and backward pass gave, in float64 on the CPU."""

    loss: float
    norm: float  # of the gradient of all trained parameters
    head: torch.Tensor  # the gradient of the head's weights and biases, (P,)

    def agrees(self, expected: Outcome) -> bool:
        """Whether this is `expected`, but for rounding."""
        cosine = nn.functional.cosine_similarity(self.head, expected.head, dim=0).item()
        loss_error = abs(self.loss - expected.loss) / max(abs(expected.loss), 1e-2)
        close = expected.norm / NORM_FACTOR <= self.norm <= expected.norm * NORM_FACTOR
        return close and loss_error < LOSS_TOLERANCE and cosine > HEAD_COSINE


def _outcome(trial: Trial, images: torch.Tensor, labels: torch.Tensor) -> Outcome:
    """Of a batch, (B, 3, H, W) and (B,), in the trial's micro-batches, with nothing random in the model."""
    silenced = _silence(trial.model)
    # not as training starts, which fp16 overflows at and then corrects; nor 1, which it underflows at
    scaler, trial.step.scaler = (
        trial.step.scaler,
        torch.amp.GradScaler(trial.plan.device, init_scale=2.0**10, enabled=trial.plan.precision == "fp16"),
    )
    loss = trial.step.add_gradient(images.contiguous(memory_format=trial.plan.memory_format), labels)
    scale, trial.step.scaler = trial.step.scaler.get_scale(), scaler
    gradients, head = (
        torch.cat([p.grad.detach().flatten() for p in module.parameters() if p.grad is not None]).double().cpu() / scale
        for module in (trial.model, trial.head)
    )
    trial.step.optimizer.zero_grad(set_to_none=True)
    for layer, probability in silenced:
        layer.p = probability
    return Outcome(loss.item(), gradients.norm().item(), head)


def _silence(model: nn.Module) -> list[tuple[Any, float]]:
    """Set all probabilities of dropping something to 0; what they were."""
    kinds = (nn.modules.dropout._DropoutNd, StochasticDepth)
    layers = [layer for layer in model.modules() if isinstance(layer, kinds)]
    silenced = [(layer, layer.p) for layer in layers]
    for layer in layers:
        layer.p = 0.0
    return silenced


def _count(trials: list[Trial], images: torch.Tensor, labels: torch.Tensor) -> int:
    """So many images that a step on a CPU takes about STEP_SECONDS, at most those that there are."""
    few = min(2, len(labels))
    running, _ = _warmed_up(trials[:1], images[:few], labels[:few])
    if not running:
        return few
    seconds = _seconds(running[0].step, images[:few], labels[:few], "cpu")
    return min(max(few, int(few * STEP_SECONDS / seconds)), len(labels))


def _race(trials: list[Trial], images: torch.Tensor, labels: torch.Tensor, deadline: float) -> None:
    """Time the forms in turn, for ROUNDS rounds or until the deadline; the hopeless ones twice.

    Their first step counts only where there is no time for a second.
    """
    batches = {layout: images.contiguous(memory_format=memory_format) for layout, memory_format in LAYOUTS.items()}
    running = trials
    for turn in range(ROUNDS):
        if time.perf_counter() + sum(trial.median for trial in running) > deadline:
            break
        for trial in running:
            took = _seconds(trial.step, batches[trial.plan.layout], labels, trial.plan.device)
            trial.seconds = [*(trial.seconds if turn else ()), took]
        best = min(trial.median for trial in running)
        if turn:  # one slow step may be another program's doing
            running = [trial for trial in running if min(trial.seconds) < HOPELESS * best]


def _compile_gain(
    chosen: Plan, model: nn.Module, head: nn.Module, train: Batches, config: Config
) -> tuple[float | None, str]:
    """How many times as fast the chosen form is if it is compiled, on whole batches; or None and the reason."""
    images, labels = next(train.sequential())
    images = images.contiguous(memory_format=chosen.memory_format)
    try:
        forms = (chosen, replace(chosen, compiled=True))
        eager, compiled = (Trial.of(f, *_copy(f, model, head, config), len(labels)) for f in forms)
        # without what is random: with it, the model would have to be compiled again
        for trial in (eager, compiled):
            _silence(trial.model)
        if not _outcome(compiled, images, labels).agrees(_outcome(eager, images, labels)):
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


def finding_path(plan: Plan, model: nn.Module, head: nn.Module, batch_size: int, config: Config) -> Path:
    """Where a finding is remembered, by all that it depends on: not the number of classes, so that datasets share it.

    Of `plan`, the device and its name count; of the model and its head, how many parameters they have.
    """
    body, top = (sum(parameter.numel() for parameter in module.parameters()) for module in (model, head))
    parts = {
        "model": [config.model, body - top],
        "trained": config.tune,
        "size": config.size,
        "batch_size": batch_size,
        "device": [plan.device, plan.device_name],
        "precision": config.precision,
        "versions": [*versions().values(), torch.version.cuda],
        "form": 1,  # of what is measured and remembered
    }
    digest = hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]
    return user_cache() / "plans" / f"{config.model}-{digest}.json"


def remembered(path: Path) -> Finding | None:
    """The finding in that file; None where there is none that can be used."""
    try:
        finding = Finding(**json.loads(path.read_text(encoding="utf-8")))
        known = finding.precision in DTYPES and finding.layout in LAYOUTS and finding.reason.isprintable()
        numbers = isfinite(finding.step_seconds) and isfinite(finding.compile_gain or 1.0)
        return finding if known and numbers and not finding.micro_batch and not finding.memory else None
    # none, or not one of ours: measured anew
    except (OSError, ValueError, TypeError, AttributeError, OverflowError, RecursionError):
        return None


def _remember(path: Path, finding: Finding) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, asdict(finding))
    except OSError:  # a cache folder that can't be written to: measured anew each time
        pass
