"""Whole batches by a CUDA graph: the numbers of the eager step, no trace of the capture, what comes where it fails."""

import copy
import gc
import itertools
import os
import subprocess
import sys
import weakref
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import nn

import common
from engine.device import free_memory
from engine.paths import PROJECT
from engine.training import graph
from engine.training.agreement import copy_in_form, make_candidate, step_result
from engine.training.graph import WARM_UP
from engine.training.loop import fit
from engine.training.plan import Plan
from engine.training.saving import restore, take_snapshot
from engine.training.state import State
from engine.training.step import Step
from tests import toy
from tests.conftest import SHARED
from tests.engine.training.test_loop import Memory, batches, new_model, recipe, validation

EAGER = Plan("cpu", "", "fp32", "")
GRAPHED = replace(EAGER, graphed=True)
SIZE = 8  # of a batch

Batch = tuple[torch.Tensor, torch.Tensor]


class Recorder:
    """Stands for CUDA's capture: what is captured is done by a replay, and not before.

    As with a graph, a replay writes the tensors that were there at the capture, and nothing that Python changed since
    is seen by it: gradients, modes, probabilities of dropping something.
    """

    def __init__(self) -> None:
        self.captures = 0
        self.losses: list[weakref.ref[torch.Tensor]] = []
        self.problem: BaseException | None = None  # what the next capture fails with
        self.model: nn.Module = nn.Identity()

    def record(self, work: Callable[[], torch.Tensor]) -> tuple[Callable[[], None], torch.Tensor]:
        """What engine.training.graph.record() is on a card."""
        parameters = [*self.model.parameters()]
        assert all(parameter.grad is None for parameter in parameters)
        assert all(loss() is None for loss in self.losses), "what was captured before still takes memory"
        modes, buffers, random = self._modes(), copy.deepcopy([*self.model.buffers()]), torch.get_rng_state()
        loss = work()
        static = [parameter.grad for parameter in parameters]
        with torch.no_grad():
            for tensor in (loss, *static):
                if tensor is not None:
                    tensor.fill_(float("nan"))  # nothing has been computed
            for buffer, value in zip(self.model.buffers(), buffers, strict=True):
                buffer.copy_(value)
        torch.set_rng_state(random)
        if self.problem:
            problem, self.problem = self.problem, None
            raise problem
        self.captures += 1
        self.losses.append(weakref.ref(loss))

        def replay() -> None:
            now, gradients = self._modes(), [parameter.grad for parameter in parameters]
            self._set_modes(modes)
            for parameter in parameters:
                parameter.grad = None
            done = work()
            with torch.no_grad():
                loss.copy_(done)
                for written, parameter, gradient in zip(static, parameters, gradients, strict=True):
                    if written is not None and parameter.grad is not None:
                        written.copy_(parameter.grad)
                    parameter.grad = gradient
            self._set_modes(now)

        return replay, loss

    def _modes(self) -> list[tuple[bool, Any]]:
        return [(layer.training, vars(layer).get("p")) for layer in self.model.modules()]

    def _set_modes(self, modes: list[tuple[bool, Any]]) -> None:
        for layer, (training, probability) in zip(self.model.modules(), modes, strict=True):
            layer.training = training
            if probability is not None:
                layer.p = probability


@pytest.fixture
def recorder(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recorder]:
    """A processor that captures."""
    recorder = Recorder()
    monkeypatch.setattr(graph, "record", recorder.record)
    monkeypatch.setattr(graph, "aside", nullcontext)
    graph._tell.cache_clear()
    yield recorder
    graph._tell.cache_clear()


def new_step(recorder: Recorder, plan: Plan, model: nn.Module | None = None) -> tuple[nn.Module, Step]:
    """A step of SGD with momentum on the toy network, which has batch normalisation and dropout."""
    torch.manual_seed(0)
    recorder.model = model = (model or toy.tiny()).train()
    return model, Step(model, torch.optim.SGD(model.parameters(), 0.1, momentum=0.9), plan, SIZE)


def batch(seed: int, images: int = SIZE) -> Batch:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(images, 3, 8, 8, generator=random), torch.randint(3, (images,), generator=random)


EPOCHS = [batch(seed, images) for seed, images in enumerate((8, 8, 5, 8, 8, 5))]


def trained(recorder: Recorder, plan: Plan) -> dict[str, torch.Tensor]:
    """All that two epochs leave: the losses, weights and buffers, the scale, where the random numbers are."""
    model, step = new_step(recorder, plan)
    losses = [step(*each) for each in EPOCHS]
    assert all(parameter.grad is None for parameter in model.parameters())
    left = {"losses": torch.stack(losses), "scale": torch.tensor(step.scaler.get_scale())}
    return left | {"random": torch.get_rng_state()} | model.state_dict()


def assert_equal(found: dict[str, torch.Tensor], expected: dict[str, torch.Tensor]) -> None:
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(found[name], value), name


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
@pytest.mark.parametrize("micro_batch", [None, 3])
def test_a_graphed_run_is_the_eager_run(recorder: Recorder, precision: str, micro_batch: int | None) -> None:
    """To the last bit, with the odd batch at the end of each epoch: so the capture has left no trace either."""
    plan = replace(EAGER, precision=precision, micro_batch=micro_batch)
    expected = trained(recorder, plan)
    assert recorder.captures == 0
    assert_equal(trained(recorder, replace(plan, graphed=True)), expected)
    assert recorder.captures == 1
    assert expected["losses"].isfinite().all()
    assert len(expected["losses"].unique()) == len(EPOCHS)


def test_an_infinite_gradient_is_skipped_and_the_next_replay_has_another_scale(recorder: Recorder) -> None:
    plan = replace(GRAPHED, precision="fp16")
    results = []
    for each in (plan, replace(plan, graphed=False)):
        model, step = new_step(recorder, each)
        step(*batch(0))
        weights = copy.deepcopy(model.state_dict())
        step(batch(1)[0] * 1e30, batch(1)[1])
        assert all(torch.equal(value, weights[name]) for name, value in model.named_parameters())
        assert step.scaler.get_scale() == 2.0**15
        results.append(model)
    assert recorder.captures == 1
    for graphed, eager in zip(results[0].parameters(), results[1].parameters(), strict=True):
        assert torch.equal(graphed, eager)


def test_it_is_captured_at_the_first_whole_batch_after_a_warm_up(recorder: Recorder) -> None:
    model, step = new_step(recorder, GRAPHED)
    passes: list[int] = []
    model.register_forward_pre_hook(lambda _, given: passes.append(len(given[0])))
    step(*batch(0, 5))
    assert (passes, recorder.captures) == ([5], 0)
    before = copy.deepcopy(model.state_dict())
    step(*batch(1))
    assert passes == [5, *[SIZE] * (WARM_UP + 2)]  # the capture itself, and its replay
    assert model.state_dict()["1.num_batches_tracked"] == before["1.num_batches_tracked"] + 1
    step(*batch(2))
    assert passes == [5, *[SIZE] * (WARM_UP + 3)]
    assert (recorder.captures, step.graphed) == (1, True)


def test_a_loss_that_the_caller_holds_stays(recorder: Recorder) -> None:
    _, step = new_step(recorder, GRAPHED)
    first = step(*batch(0))
    value = first.item()
    second = step(*batch(1))
    assert first.item() == value != second.item()
    assert not second.requires_grad


def test_a_batch_that_the_caller_holds_stays(recorder: Recorder) -> None:
    _, step = new_step(recorder, GRAPHED)
    given = batch(0)
    for each in (given, batch(1)):
        step(*each)
    assert all(map(torch.equal, given, batch(0)))


def test_gradients_are_added_to_those_that_are_there(recorder: Recorder) -> None:
    found = []
    for plan in (GRAPHED, EAGER):
        model, step = new_step(recorder, plan)
        for seed in range(3):
            step.add_gradient(*batch(seed))
        found.append({name: each.grad for name, each in model.named_parameters() if each.grad is not None})
    assert len(found[0]) == 6
    assert_equal(*found)


def test_inputs_keep_their_layout(recorder: Recorder) -> None:
    model, step = new_step(recorder, replace(GRAPHED, layout="NHWC"))
    layouts: list[bool] = []
    model.register_forward_pre_hook(
        lambda _, given: layouts.append(given[0].is_contiguous(memory_format=torch.channels_last))
    )
    images, labels = batch(0)
    step(images.contiguous(memory_format=torch.channels_last), labels)
    assert layouts == [True] * (WARM_UP + 2)


def test_weights_are_cast_in_each_pass(recorder: Recorder) -> None:
    """Autocast's cache would hold what was cast before the capture."""
    for plan, cached in ((GRAPHED, False), (EAGER, True)):
        model, step = new_step(recorder, replace(plan, precision="bf16"))
        seen: list[bool] = []
        model.register_forward_pre_hook(lambda *_, seen=seen: seen.append(torch.is_autocast_cache_enabled()))
        step(*batch(0))
        assert set(seen) == {cached}


Change = Callable[[nn.Module, Step], object]


@pytest.mark.parametrize(
    ("change", "captures"),
    [
        (lambda model, _: model.eval(), 2),
        (lambda model, _: model.eval().train(), 1),  # as between two epochs
        (lambda model, _: setattr(model[5], "p", 0.5), 2),
        (lambda _, step: setattr(step, "scaler", torch.amp.GradScaler("cpu", init_scale=2.0)), 2),
        (lambda _, step: step.release(), 2),
        (lambda model, _: model.load_state_dict(copy.deepcopy(model.state_dict())), 1),
        (lambda _, step: step.optimizer.param_groups[0].update(lr=0.01), 1),
    ],
)
def test_what_a_graph_does_not_see_is_captured_anew(recorder: Recorder, change: Change, captures: int) -> None:
    found = []
    for plan in (EAGER, GRAPHED):
        model, step = new_step(recorder, plan)
        step(*batch(0))
        change(model, step)
        found.append([step(*batch(seed)) for seed in (1, 2)] + [value.float() for value in model.state_dict().values()])
    assert recorder.captures == captures
    assert all(map(torch.equal, *found))


def test_another_shape_is_captured_anew(recorder: Recorder) -> None:
    _, step = new_step(recorder, GRAPHED)
    images, labels = batch(0)
    step(images, labels)
    step(nn.functional.interpolate(images, 12), labels)
    assert recorder.captures == 2
    assert [loss() is None for loss in recorder.losses] == [True, False]


def test_a_resumed_run_goes_on_as_if_it_had_never_stopped(recorder: Recorder) -> None:
    """Whether the scale is loaded before the first capture or after it: it stays the tensor that replays read."""
    plan = replace(GRAPHED, precision="fp16")
    model, step = new_step(recorder, plan)
    step.scaler.load_state_dict({**step.scaler.state_dict(), "scale": 2.0**9})
    step(*batch(0))
    saved = copy.deepcopy(take_snapshot(State(), model, {}, step))
    expected = [step(*batch(seed)) for seed in (1, 2)]
    weights = copy.deepcopy(model.state_dict())
    del step
    for number in range(2):
        other, again = new_step(recorder, plan)
        if number:
            again(*batch(3))
        tensor = again.scaler._get_scale_async()
        restore(copy.deepcopy(saved), other, again)
        assert [again(*batch(seed)) for seed in (1, 2)] == expected
        assert again.scaler._get_scale_async() is tensor or not number
        assert again.scaler.get_scale() == 2.0**9
        assert_equal(other.state_dict(), weights)


def test_the_comparison_with_fp32_goes_through_the_graph_and_training_through_another(recorder: Recorder) -> None:
    """Nothing is random while it is compared, and another scaler is there."""
    found = []
    for plan in (EAGER, GRAPHED):
        torch.manual_seed(0)
        recorder.model = copy_in_form(plan, toy.tiny())
        candidate = make_candidate(replace(plan, precision="fp16"), recorder.model, "6", SIZE)
        results = [step_result(candidate, *batch(0)) for _ in range(2)]
        assert recorder.captures == 2 * plan.graphed
        found.append((results, [candidate.step(*batch(seed)) for seed in range(2)]))
    assert recorder.captures == 3
    (eager, losses), (graphed, same) = found
    for one, other in zip(graphed, eager, strict=True):
        assert (one.loss, one.norm) == (other.loss, other.norm)
        assert torch.equal(one.head, other.head)
    assert same == losses


def test_each_stage_of_a_recipe_has_a_graph_of_its_own(recorder: Recorder) -> None:
    found, rows = [], []
    for plan in (EAGER, GRAPHED):
        recorder.model = model = new_model()
        state = fit(model, batches(), validation(), recipe(epochs=3), plan, Memory())
        found.append(model.state_dict())
        rows.append([(row["stage"], row["train_loss"], row["val_loss"]) for row in state.history])
    assert recorder.captures == 2
    assert len(rows[0]) == 6
    assert rows[1] == rows[0]
    assert_equal(*found)


PROBLEM = "CUDA error: operation not permitted when stream is capturing\nCompile with ..."


def test_where_a_capture_fails_steps_are_eager_and_that_is_said_once(recorder: Recorder, capsys: Any) -> None:
    expected = trained(recorder, EAGER)
    for _ in range(2):
        recorder.problem = RuntimeError(PROBLEM)
        assert_equal(trained(recorder, GRAPHED), expected)
    assert recorder.captures == 0
    printed = capsys.readouterr().out
    assert printed == f"note: the training step can't be a CUDA graph here and goes on without: {PROBLEM[:60]}\n"
    _, step = new_step(recorder, GRAPHED)
    recorder.problem = RuntimeError()
    step(*batch(0))
    assert not step.graphed
    assert "without: RuntimeError\n" in capsys.readouterr().out


@pytest.mark.parametrize("when", ["warm-up", "capture"])
def test_running_out_of_memory_comes_through_and_leaves_no_trace(recorder: Recorder, when: str) -> None:
    problem = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
    model, step = new_step(recorder, GRAPHED)
    before, random, passes = copy.deepcopy(model.state_dict()), torch.get_rng_state(), []

    def short_of_memory(*_: Any) -> None:
        passes.append(1)
        if len(passes) == 2:
            raise problem

    if when == "capture":
        recorder.problem = problem
    else:
        hook = model[5].register_forward_pre_hook(short_of_memory)  # type: ignore[index]
    with pytest.raises(torch.OutOfMemoryError):
        step(*batch(0))
    assert all(parameter.grad is None for parameter in model.parameters())
    assert_equal(model.state_dict(), before)
    assert torch.equal(torch.get_rng_state(), random)
    assert step.graphed
    if when == "warm-up":
        hook.remove()
    step(*batch(0))  # where memory suffices now
    assert recorder.captures == 1


def test_an_error_of_another_kind_is_no_failed_capture(recorder: Recorder) -> None:
    _, step = new_step(recorder, GRAPHED)
    images, _ = batch(0)
    with pytest.raises(IndexError):
        step(images, torch.full((SIZE,), 2000))
    assert step.graphed


@pytest.mark.parametrize("end", ["step", "release", "other"])
def test_what_was_captured_goes_with_its_step(recorder: Recorder, end: str) -> None:
    """Without the garbage collector: there is no circle. A stage follows another in the memory that it leaves."""
    model, step = new_step(recorder, GRAPHED)
    step(*batch(0))
    assert recorder.losses[0]() is not None
    gc.collect()
    gc.disable()
    try:
        if end == "step":
            del step
        elif end == "release":
            step.release()
        else:
            model.eval()
            step(*batch(0))
        assert recorder.losses[0]() is None
    finally:
        gc.enable()


def test_only_trained_parameters_get_gradients(recorder: Recorder) -> None:
    found = []
    for plan in (EAGER, GRAPHED):
        model = toy.tiny()
        model[0].requires_grad_(False)  # type: ignore[index]
        model, step = new_step(recorder, plan, model.apply(start_again))
        step(*batch(0))
        step.add_gradient(*batch(1))
        found.append({name: each.grad for name, each in model.named_parameters() if each.grad is not None})
    assert_equal(found[1], found[0])
    assert list(found[1]) == ["1.weight", "1.bias", "6.weight", "6.bias"]


def start_again(layer: nn.Module) -> None:
    if isinstance(layer, (nn.Conv2d, nn.Linear)):
        nn.init.constant_(layer.weight, 0.1)
        nn.init.zeros_(layer.bias)  # type: ignore[arg-type]


on_a_card = [pytest.mark.cuda, pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")]
CARD = Plan("cuda", "", "bf16", "", layout="NHWC")


def on_cuda(test: Any) -> Any:
    """Marks a test that needs a card."""
    for mark in on_a_card:
        test = mark(test)
    return test


def on_the_card(plan: Plan, seed: int, images: int, side: int) -> Batch:
    random = torch.Generator().manual_seed(seed)
    pixels = torch.randn(images, 3, side, side, generator=random).cuda()
    labels = torch.randint(5, (images,), generator=random).cuda()
    return pixels.contiguous(memory_format=plan.memory_format), labels


@on_cuda
@pytest.mark.parametrize("precision", ["bf16", "fp16"])
@pytest.mark.parametrize("name", common.BACKBONES)
def test_every_backbone_graphed_is_the_eager_one_on_a_card(name: str, precision: str) -> None:
    """But for rounding; with the same draws of dropout and stochastic depth."""
    plan = replace(CARD, precision=precision)
    model = common.build_model(name, 5, "none")
    found: list[tuple[torch.Tensor, torch.Tensor, list[torch.Tensor], int]] = []
    for each in (plan, replace(plan, graphed=True)):
        trying = make_candidate(each, copy_in_form(each, model), common.BACKBONES[name].head, SIZE)
        trying.step.scaler = torch.amp.GradScaler("cuda", init_scale=16.0, enabled=precision == "fp16")
        torch.cuda.manual_seed(1)
        losses = []
        for seed, images in enumerate((SIZE, SIZE, 5, SIZE)):
            losses.append(trying.step.add_gradient(*on_the_card(plan, seed, images, 96)))
            head = torch.cat([p.grad.flatten() for p in trying.head.parameters() if p.grad is not None])
            trying.step.optimizer.zero_grad(set_to_none=True)
        assert trying.step.graphed is each.graphed
        buffers = [buffer.float() for buffer in trying.model.buffers()]
        found.append((torch.stack(losses), head, buffers, torch.cuda.default_generators[0].get_offset()))
    (losses_eager, head_eager, buffers_eager, offset_eager), (losses_found, head_found, buffers_found, offset) = found
    torch.testing.assert_close(losses_found, losses_eager, rtol=0.05, atol=0.02)
    assert nn.functional.cosine_similarity(head_found, head_eager, dim=0) > 0.9
    for one, other in zip(buffers_found, buffers_eager, strict=True):
        torch.testing.assert_close(one, other, rtol=0.1, atol=0.05 * float(other.abs().max()) + 1e-3)
    assert offset == offset_eager


class Dropping(nn.Module):
    """A network whose loss tells what dropout has drawn."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.layers = nn.Sequential(nn.Conv2d(3, 64, 3), nn.Flatten(), nn.Dropout(0.5), nn.LazyLinear(5))

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.layers(images)
        return logits


class Waiting(nn.Module):
    """What a capture does not permit."""

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        features.sum().item()
        return features


def card_step(*extra: nn.Module, plan: Plan = CARD) -> tuple[nn.Module, Step]:
    model = nn.Sequential(Dropping(), *extra).cuda()
    model(torch.zeros(1, 3, 16, 16, device="cuda"))
    return model, Step(model, torch.optim.SGD(model.parameters(), 0.0, fused=True), replace(plan, graphed=True), SIZE)


@on_cuda
def test_random_numbers_are_other_ones_at_each_replay_and_can_be_set_back() -> None:
    _, step = card_step()
    given = on_the_card(CARD, 0, SIZE, 16)
    step(*given)
    state = torch.cuda.get_rng_state()
    losses = [step(*given).item() for _ in range(4)]
    assert len(set(losses)) == 4
    torch.cuda.set_rng_state(state)
    assert [step(*given).item() for _ in range(4)] == losses


@on_cuda
def test_the_memory_of_a_graph_comes_back_on_a_card() -> None:
    given = on_the_card(CARD, 0, SIZE, 16)
    left = []
    for _ in range(3):
        model, step = card_step()
        step(*given)
        assert step.graphed
        del model, step
        free_memory("cuda")
        left.append((torch.cuda.memory_allocated(), torch.cuda.memory_reserved()))
    assert left[1] == left[2]  # the first has made the workspaces


@on_cuda
def test_a_capture_that_fails_leaves_the_card_usable() -> None:
    given = on_the_card(CARD, 0, SIZE, 16)
    stream, generator = torch.cuda.current_stream(), torch.cuda.default_generators[0]
    left = []
    for _ in range(3):
        model, step = card_step(Waiting())
        offsets = [generator.get_offset()]
        for _ in range(3):
            step(*given)
            offsets.append(generator.get_offset())
        assert not step.graphed
        assert len({after - before for before, after in itertools.pairwise(offsets)}) == 1
        assert offsets[1] > offsets[0]
        assert torch.cuda.current_stream() == stream
        del model, step
        lent = torch.zeros(2**22, device="cuda")
        lent.record_stream(torch.cuda.Stream())
        del lent
        free_memory("cuda")
        left.append((torch.cuda.memory_allocated(), torch.cuda.memory_reserved()))
    assert left[1] == left[2]  # the first has made the workspaces


@on_cuda
def test_after_a_capture_that_fails_another_succeeds() -> None:
    given = on_the_card(CARD, 0, SIZE, 16)
    for layers, graphed in (((Waiting(),), False), ((), True)):
        _, step = card_step(*layers)
        losses = [step(*given).item() for _ in range(3)]
        assert step.graphed is graphed
        assert len(set(losses)) == 3


DRY_CARD = SHARED / "drycard" / "drycard"  # PyTorch's CUDA side on a runtime that computes nothing


@pytest.mark.skipif(not DRY_CARD.is_file() or torch.cuda.is_available(), reason="needs the dry card, and no real one")
def test_a_capture_that_fails_leaves_a_dry_card_usable() -> None:
    test = f"{__file__}::{test_a_capture_that_fails_leaves_the_card_usable.__name__}"
    command = [str(DRY_CARD), sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-m", "cuda", test]
    environment = {**os.environ, "PYTHON": sys.executable, "PYTHONPATH": str(PROJECT)}
    environment.pop("XDG_CACHE_HOME", None)  # of the tests alone: it would be built anew each time
    done = subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True)
    assert "1 passed" in done.stdout, done.stdout[-3000:] + done.stderr[-1000:]


@on_cuda
def test_a_scale_that_has_changed_is_seen_by_the_next_replay() -> None:
    model, step = card_step(plan=replace(CARD, precision="fp16"))
    given = on_the_card(CARD, 0, SIZE, 16)
    model[0].layers[2].p = 0.0  # type: ignore[index]
    norms = []
    for scale in (2.0**8, 2.0**10):
        step.scaler.load_state_dict({**step.scaler.state_dict(), "scale": scale})
        step.add_gradient(*given)
        norms.append(torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None]).norm().item())
        step.optimizer.zero_grad(set_to_none=True)
    assert norms[1] == pytest.approx(4 * norms[0], rel=1e-2)
