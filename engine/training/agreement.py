"""Whether a form of the training step computes what fp32 computes, but for rounding."""

from __future__ import annotations

import copy
import statistics
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn
from torchvision.ops import StochasticDepth

from engine.models.structure import set_train_mode
from engine.training.plan import Plan
from engine.training.step import Step

# How far a form may be from fp32. The hardest case is a network with random weights, whose batch normalisation over few
# small images magnifies rounding: there, bf16 moved the loss by up to 5 %, the gradient's norm by up to 22 %, and the
# head's gradient kept a cosine of 0.57 or more (twelve backbones, 4 to 32 images of 64 to 224 pixels). The gradient of
# the first layers turns about there, which says nothing of the form.
LOSS_TOLERANCE = 0.15
NORM_FACTOR = 2.0
HEAD_COSINE = 0.3

# What fp16's loss is multiplied by: not 1, which small gradients underflow at. Where large ones overflow it comes down,
# as a scaler lets it while training starts: random weights have gradients of up to 4e7, and fp16 ends at 65504.
FIRST_SCALE, LAST_SCALE = 2.0**10, 2.0**-14


@dataclass
class Candidate:
    """One form, a copy of the model in it, and what its steps took."""

    plan: Plan
    model: nn.Module
    head: nn.Module  # of `model`
    step: Step
    seconds: list[float] = field(default_factory=list)  # of a step, in each sample
    shares: list[float] = field(default_factory=list)  # of its threads' time that it had a processor, in each sample
    steps: int = 1  # in a sample

    @property
    def median(self) -> float:
        """Seconds a step."""
        return statistics.median(self.seconds)

    @property
    def fastest(self) -> float:
        """Seconds of the sample that others disturbed least."""
        return min(self.seconds)

    @property
    def spread(self) -> float:
        """How many times as long as the fastest sample the usual one takes."""
        return self.median / self.fastest

    def images_per_second(self, images: int) -> str:
        """The speed where nothing disturbs it, as a text, where a step is of so many images."""
        return f"{images / self.fastest:.1f}"


def make_candidate(plan: Plan, model: nn.Module, head: str, batch_size: int) -> Candidate:
    """A candidate whose step leaves the weights of `model` as they are, by an optimizer that takes no memory."""
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    step = Step(model, torch.optim.SGD(trained, 0.0, fused=True), plan, batch_size)
    return Candidate(plan, model, model.get_submodule(head), step)


def copy_in_form(plan: Plan, model: nn.Module) -> nn.Module:
    """A copy of the model, ready to be trained as `plan` says."""
    copied = copy.deepcopy(model)
    plan.place(copied)
    set_train_mode(copied)
    return copied


@dataclass(frozen=True)
class StepResult:
    """What a forward and backward pass gave, in float64 on the CPU."""

    loss: float
    norm: float  # of the gradient of all trained parameters
    head: torch.Tensor  # the gradient of the head's weights and biases, (P,)

    def agrees(self, expected: StepResult) -> bool:
        """Whether this is `expected`, but for rounding."""
        cosine = nn.functional.cosine_similarity(self.head, expected.head, dim=0).item()
        loss_error = abs(self.loss - expected.loss) / max(abs(expected.loss), 1e-2)
        close = expected.norm / NORM_FACTOR <= self.norm <= expected.norm * NORM_FACTOR
        return close and loss_error < LOSS_TOLERANCE and cosine > HEAD_COSINE


def step_result(candidate: Candidate, images: torch.Tensor, labels: torch.Tensor) -> StepResult:
    """What a batch, (B, 3, H, W) and (B,), gives in the candidate's micro-batches, with nothing random in the model."""
    silenced = silence(candidate.model)
    candidate.plan.use_threads()
    images = images.contiguous(memory_format=candidate.plan.memory_format)
    scaler, half = candidate.step.scaler, candidate.plan.precision == "fp16"
    candidate.step.scaler = torch.amp.GradScaler(candidate.plan.device, init_scale=FIRST_SCALE, enabled=half)
    while True:
        loss = candidate.step.add_gradient(images, labels)
        # in float64 on the CPU: not every device has it
        gradients, head = (
            torch.cat([p.grad.detach().flatten() for p in module.parameters() if p.grad is not None]).cpu().double()
            / candidate.step.scaler.get_scale()
            for module in (candidate.model, candidate.head)
        )
        candidate.step.optimizer.zero_grad(set_to_none=True)
        scale = candidate.step.scaler.get_scale()
        if not half or scale <= LAST_SCALE or gradients.isfinite().all():
            break
        candidate.step.scaler.update(scale / 4)
    candidate.step.scaler = scaler
    for layer, probability in silenced:
        layer.p = probability
    return StepResult(loss.item(), gradients.norm().item(), head)


def silence(model: nn.Module) -> list[tuple[Any, float]]:
    """Set all probabilities of dropping something to 0. Returns the layers with what they were."""
    kinds = (nn.modules.dropout._DropoutNd, StochasticDepth)
    layers = [layer for layer in model.modules() if isinstance(layer, kinds)]
    silenced = [(layer, layer.p) for layer in layers]
    for layer in layers:
        layer.p = 0.0
    return silenced
