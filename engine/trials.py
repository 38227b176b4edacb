"""The fastest sound form of a backbone on this machine: found by a short measurement, remembered for later runs."""

from __future__ import annotations

import copy
import hashlib
import json
import statistics
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from importlib.metadata import version
from pathlib import Path

import torch
from torch import nn
from torchvision.ops import StochasticDepth

from engine.backbone import has_batch_norm
from engine.batches import Batches
from engine.clock import synchronize
from engine.config import Config
from engine.console import say
from engine.errors import UserError, out_of_memory
from engine.files import write_json
from engine.places import user_cache
from engine.plan import DTYPES, LAYOUTS, Plan
from engine.step import Step
from engine.train import RECIPES, free_memory, random_state, set_mode, set_random_state

BUDGET = 30.0  # seconds, for all forms together, but for compilation
ROUNDS = 5
HOPELESS = 1.5  # times as slow as the fastest: not tried a third time
STEP_SECONDS = 1.0  # a step on a CPU is tried on so many images that it takes about this long
COMPARED = 8  # images that a form's loss and gradient are compared on with those of fp32

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


@dataclass
class Trial:
    """One form, a copy of the model in it, and the seconds that its steps took."""

    plan: Plan
    model: nn.Module
    head: nn.Module
    step: Step
    seconds: list[float] = field(default_factory=list)

    @classmethod
    def of(cls, plan: Plan, model: nn.Module, head: nn.Module, batch_size: int, config: Config) -> Trial:
        """With a step that takes as long as any other and, at a rate of 0, leaves the weights as they are."""
        trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
        return cls(plan, model, head, Step(model, RECIPES[config.recipe][0].optimizer(trained, 0.0), plan, batch_size))

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
    step_seconds: float  # of a whole batch
    compile_gain: float | None = None  # a step's time over that of a compiled one; None: not tried, or failed
    compile_problem: str | None = None

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
    path = user_cache() / "plans" / f"{_key(plan, model, head, train, config)}.json"
    finding = _remembered(path)
    with _undisturbed(plan.device):
        if finding is None:
            say(f"measuring  which form of {config.model} trains fastest here: about {BUDGET:.0f} s, once")
            finding = _measure(plan, model, head, train, config)
            if finding is None:
                return replace(plan, reason="no form could be measured")
            _remember(path, finding)
        chosen = finding.plan(plan)
        if not _worth_compiling(plan.device, finding.step_seconds, train.steps, config):
            return chosen
        if finding.compile_gain is None and (finding.compile_problem is None or config.compile == "on"):
            say(f"measuring  what compiling {config.model} brings: about {COMPILE_SECONDS:.0f} s and a few steps, once")
            finding = _measure_compiled(finding, chosen, model, head, train, config)
            _remember(path, finding)
    if finding.compile_gain is None:
        if config.compile == "on":
            raise UserError(f"--compile on: torch.compile fails here: {finding.compile_problem}. Leave it to auto.")
        return replace(chosen, reason=f"{chosen.reason}; torch.compile fails here")
    reason = f"{chosen.reason}; compiled it is {finding.compile_gain:.2f} times as fast"
    return replace(chosen, reason=reason, compiled=config.compile == "on" or finding.compile_gain > 1)


def _worth_compiling(device: str, step_seconds: float, steps: int, config: Config) -> bool:
    """Whether the run lasts long enough, even if no epoch brings a gain, for compilation to pay for itself."""
    if config.compile != "auto":
        return config.compile == "on"
    epochs = min(config.epochs or config.patience, config.patience) * len(RECIPES[config.recipe])
    saved = step_seconds * steps * epochs * (1 - 1 / COMPILE_GAIN.get(device, 1.0))
    return saved > PAYS_BACK * COMPILE_SECONDS


def _measure(plan: Plan, model: nn.Module, head: nn.Module, train: Batches, config: Config) -> Finding | None:
    """What _try_forms() finds, in micro-batches where memory is short."""
    while True:
        try:
            return _try_forms(plan, model, head, train, config)
        except RuntimeError as problem:
            smaller = plan.halved(train.batch_size, has_batch_norm(model)) if out_of_memory(problem) else None
            if smaller is None:
                raise
        # here, not in the handler: its traceback holds what was allocated
        free_memory(plan.device)
        plan = smaller


def _try_forms(plan: Plan, model: nn.Module, head: nn.Module, train: Batches, config: Config) -> Finding | None:
    """The fastest sound form of dtype x layout, in about BUDGET seconds.

    None: no form gives the loss and gradient of fp32.
    """
    deadline = time.perf_counter() + BUDGET
    precisions = dict.fromkeys([plan.precision, "fp32"] if config.precision == "auto" else [plan.precision])
    forms = [replace(plan, precision=precision, layout=layout) for precision in precisions for layout in LAYOUTS]
    copies = {layout: _copy(replace(plan, layout=layout), model, head, config) for layout in LAYOUTS}
    images, labels = next(train.in_order())
    trials = [Trial.of(form, *copies[form.layout], len(labels), config) for form in forms]
    if plan.device == "cpu":
        count = _count(trials[0].step, images, labels)
        images, labels = images[:count], labels[:count]
    _race(trials, images, labels, deadline)
    few, their_labels = images[:COMPARED], labels[:COMPARED]
    expected = _outcome(Trial.of(replace(plan, precision="fp32"), *copies["NCHW"], len(few), config), few, their_labels)
    ranked = sorted(trials, key=lambda trial: trial.median)
    inaccurate = set()
    for best in ranked:
        if _outcome(best, few, their_labels).agrees(expected):
            break
        inaccurate.add(best.plan.form)
    else:
        return None
    rates = [
        f"{trial.plan.form} " + ("is inaccurate" if trial.plan.form in inaccurate else trial.rate(len(labels)))
        for trial in ranked
        if trial is not best
    ]
    reason = f"{best.rate(len(labels))} images/s ({len(labels)} a step); {', '.join(rates)}"
    found, seconds = best.plan, best.median * train.batch_size / len(labels)
    return Finding(found.precision, found.layout, found.micro_batch, found.memory, reason, seconds)


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
    """With nothing random in the model, and without the scaling of gradients, whose start may overflow."""
    layers = [
        layer for layer in trial.model.modules() if isinstance(layer, (nn.modules.dropout._DropoutNd, StochasticDepth))
    ]
    probabilities = [layer.p for layer in layers]
    for layer in layers:
        layer.p = 0.0
    with trial.plan.autocast():
        logits = trial.model(images.contiguous(memory_format=trial.plan.memory_format))
        loss = nn.functional.cross_entropy(logits, labels)
    loss.backward()
    gradients, head = (
        torch.cat([p.grad.detach().flatten() for p in module.parameters() if p.grad is not None]).double().cpu()
        for module in (trial.model, trial.head)
    )
    trial.step.optimizer.zero_grad(set_to_none=True)
    for layer, probability in zip(layers, probabilities, strict=True):
        layer.p = probability
    return Outcome(loss.item(), gradients.norm().item(), head)


def _count(step: Step, images: torch.Tensor, labels: torch.Tensor) -> int:
    """So many images that a step on a CPU takes about STEP_SECONDS, at most those that there are."""
    few = min(2, len(labels))
    step(images[:few], labels[:few])
    seconds = _seconds(step, images[:few], labels[:few], "cpu")
    return min(max(few, int(few * STEP_SECONDS / seconds)), len(labels))


def _race(trials: list[Trial], images: torch.Tensor, labels: torch.Tensor, deadline: float) -> None:
    """Time the forms in turn, after a warm-up, for ROUNDS rounds or until the deadline; the hopeless ones twice."""
    device = trials[0].plan.device
    batches = {layout: images.contiguous(memory_format=memory_format) for layout, memory_format in LAYOUTS.items()}
    for trial in trials:
        trial.seconds = [_seconds(trial.step, batches[trial.plan.layout], labels, device)]
    running = trials
    for turn in range(ROUNDS):
        if time.perf_counter() + sum(trial.median for trial in running) > deadline:
            break
        for trial in running:
            took = _seconds(trial.step, batches[trial.plan.layout], labels, device)
            trial.seconds = [*(trial.seconds if turn else ()), took]  # the warm-up does not count
        best = min(trial.median for trial in running)
        if turn:  # one slow step may be another program's doing
            running = [trial for trial in running if min(trial.seconds) < HOPELESS * best]


def _measure_compiled(
    finding: Finding, chosen: Plan, model: nn.Module, head: nn.Module, train: Batches, config: Config
) -> Finding:
    """What compiling the form that was found brings, on whole batches, as they will be trained on."""
    images, labels = next(train.in_order())
    copied = _copy(chosen, model, head, config)
    forms = (chosen, replace(chosen, compiled=True))
    trials = [Trial.of(form, *copied, len(labels), config) for form in forms]
    try:
        for trial in trials:
            trial.step(images.contiguous(memory_format=chosen.memory_format), labels)
        _race(trials, images, labels, time.perf_counter() + BUDGET)
    except Exception as problem:  # the compiler, and the compiler that it calls, raise nearly anything
        free_memory(chosen.device)
        reason = str(problem).strip().partition("\n")[0][:200] or type(problem).__name__
        return replace(finding, compile_gain=None, compile_problem=reason)
    eager, compiled = trials
    return replace(finding, compile_gain=eager.median / compiled.median, compile_problem=None)


def _seconds(step: Step, images: torch.Tensor, labels: torch.Tensor, device: str) -> float:
    """How long one step takes, until the device has done it."""
    synchronize(device)
    start = time.perf_counter()
    step(images, labels)
    synchronize(device)
    return time.perf_counter() - start


@contextmanager
def _undisturbed(device: str) -> Iterator[None]:
    """Random numbers go on afterwards as if nothing had been."""
    state = random_state(device)
    try:
        yield
    finally:
        set_random_state(state, device)


def _key(plan: Plan, model: nn.Module, head: nn.Module, train: Batches, config: Config) -> str:
    """Names all that a finding depends on: not the number of classes, so that datasets of one size share it."""
    body, top = (sum(parameter.numel() for parameter in module.parameters()) for module in (model, head))
    parts = {
        "model": [config.model, body - top],
        "trained": config.tune,
        "size": config.size,
        "batch_size": train.batch_size,
        "device": [plan.device, plan.device_name],
        "precision": config.precision,
        "versions": [version("torch"), version("torchvision"), torch.version.cuda],
        "form": 1,  # of what is measured and remembered
    }
    return f"{config.model}-{hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:16]}"


def _remembered(path: Path) -> Finding | None:
    try:
        finding = Finding(**json.loads(path.read_text(encoding="utf-8")))
        return finding if finding.precision in DTYPES and finding.layout in LAYOUTS else None
    except (OSError, ValueError, TypeError):  # none, or not one of ours: measured anew
        return None


def _remember(path: Path, finding: Finding) -> None:
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_json(path, asdict(finding))
    except OSError:  # a cache folder that can't be written to: measured anew each time
        pass
