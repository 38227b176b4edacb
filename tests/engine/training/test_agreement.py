"""Whether a form of the training step computes what fp32 computes."""

import copy
from dataclasses import replace

import pytest
import torch
from torch import nn

from engine.training.agreement import (
    FIRST_SCALE,
    Candidate,
    StepResult,
    copy_in_form,
    make_candidate,
    silence,
    step_result,
)
from engine.training.plan import Plan
from tests import toy

PLAN = Plan("cpu", "a processor", "fp32", "")

EXPECTED = StepResult(2.0, 1.0, torch.tensor([1.0, 2.0, 3.0]))


@pytest.mark.parametrize(
    ("found", "sound"),
    [
        (EXPECTED, True),
        (StepResult(2.1, 1.3, torch.tensor([1.1, 1.9, 3.3])), True),
        (StepResult(2.4, 1.0, EXPECTED.head), False),
        (StepResult(2.0, 2.1, EXPECTED.head), False),
        (StepResult(2.0, 0.4, EXPECTED.head), False),
        (StepResult(2.0, 1.0, torch.tensor([3.0, 0.0, -1.0])), False),
        (StepResult(float("nan"), 1.0, EXPECTED.head), False),
        (StepResult(2.0, float("inf"), EXPECTED.head), False),
        (StepResult(2.0, 1.0, torch.tensor([1.0, 2.0, float("nan")])), False),
    ],
)
def test_agreement_with_fp32(found: StepResult, sound: bool) -> None:
    assert found.agrees(EXPECTED) is sound


def candidate(plan: Plan = PLAN) -> Candidate:
    torch.manual_seed(0)
    return make_candidate(plan, copy_in_form(plan, toy.tiny()), "6", 8)


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(8, 3, 8, 8, generator=torch.Generator().manual_seed(1)), torch.arange(8) % 3


def test_a_step_tells_its_loss_and_its_gradients_and_leaves_nothing() -> None:
    trying = candidate()
    before = copy.deepcopy(trying.model.state_dict())
    found = step_result(trying, *batch())
    again = step_result(trying, *batch())
    assert (again.loss, again.norm) == (found.loss, found.norm)
    assert all(parameter.grad is None for parameter in trying.model.parameters())
    assert all(torch.equal(value, before[name]) for name, value in trying.model.named_parameters())
    assert [layer.p for layer in trying.model.modules() if isinstance(layer, nn.Dropout)] == [0.2]

    model = copy_in_form(PLAN, toy.tiny())
    model.load_state_dict(before)
    silence(model)
    images, labels = batch()
    loss = nn.functional.cross_entropy(model(images), labels)
    loss.backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    assert found.loss == pytest.approx(loss.item(), rel=1e-5)
    norm = torch.cat([gradient.flatten() for gradient in gradients.values()]).norm().item()
    assert found.norm == pytest.approx(norm, rel=1e-5)
    head = torch.cat([gradients["6.weight"].flatten(), gradients["6.bias"]]).double()
    torch.testing.assert_close(found.head, head, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_agrees_with_fp32_whatever_the_scale(precision: str) -> None:
    expected = step_result(candidate(), *batch())
    half = candidate(replace(PLAN, precision=precision))
    scale = half.step.scaler.get_scale()
    found = step_result(half, *batch())
    assert found.agrees(expected)
    assert found.norm == pytest.approx(expected.norm, rel=0.1)
    assert half.step.scaler.get_scale() == scale


def test_what_is_random_is_silenced() -> None:
    model = nn.Sequential(nn.Dropout(0.5), nn.Dropout2d(0.25), nn.Linear(2, 2))
    found = silence(model)
    assert [probability for _, probability in found] == [0.5, 0.25]
    images = torch.ones(4, 3, 2, 2)
    assert torch.equal(model[:2].train()(images), images)


def test_gradients_that_overflow_fp16_are_scaled_down_until_they_do_not() -> None:
    """Random weights have gradients of up to 4e7; a scaler comes down while training starts, and so does this."""
    torch.manual_seed(0)
    first, last = nn.Linear(192, 4), nn.Linear(4, 3)
    with torch.no_grad():
        first.weight *= 1e-4
        last.weight *= 2e3
    model = nn.Sequential(nn.Flatten(), first, last)
    images, labels = batch()
    found = []
    for precision in ("fp32", "fp16"):
        trying = make_candidate(replace(PLAN, precision=precision), copy.deepcopy(model), "2", 8)
        found.append(step_result(trying, images, labels))
    expected, half = found
    assert expected.norm * FIRST_SCALE > 65504
    assert half.agrees(expected)
    assert half.norm == pytest.approx(expected.norm, rel=0.05)


def test_what_is_never_finite_ends_the_search_for_a_scale() -> None:
    layer = nn.Linear(192, 3)
    nn.init.constant_(layer.bias, float("nan"))
    trying = make_candidate(replace(PLAN, precision="fp16"), nn.Sequential(nn.Flatten(), layer), "1", 8)
    assert not step_result(trying, *batch()).head.isfinite().any()
