"""The plan by measurement: what is tried, what is chosen, what is remembered."""

import json
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from engine.config import Config
from engine.data.batches import Batches
from engine.data.locate import user_cache
from engine.errors import UserError
from engine.training import autotune as trials
from engine.training.autotune import Finding, Outcome, fastest_plan
from engine.training.plan import Plan
from engine.training.step import Step
from tests import toy
from tests.conftest import Command, only_run

PLAN = Plan("cpu", "a processor", "bf16", "the processor has bf16 instructions", 1)
TRAIN = Batches(toy.part(16, 1, "train"), 8, (8, 8), (0.4,) * 3, (0.2,) * 3, "cpu")


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def config(**changes: Any) -> Config:
    return Config(model="tiny", size=(8, 8), augment="none", **changes)


def chosen(settings: Config | None = None, plan: Plan = PLAN, model: nn.Module | None = None) -> Plan:
    torch.manual_seed(0)
    model = model or toy.tiny()
    return fastest_plan(plan, model, model.get_submodule("6"), TRAIN, settings or config())


Timed = Callable[[dict[str, float]], list[str]]


@pytest.fixture
def timed(monkeypatch: pytest.MonkeyPatch) -> Timed:
    """Lets a test dictate the seconds of a step of each form; returns what was timed."""

    def dictate(seconds: dict[str, float]) -> list[str]:
        seen: list[str] = []

        def took(step: Step, images: torch.Tensor, labels: torch.Tensor, device: str) -> float:
            assert images.is_contiguous(memory_format=step.plan.memory_format)
            step(images, labels)
            seen.append(step.plan.form)
            return seconds[step.plan.form]

        monkeypatch.setattr(trials, "_seconds", took)
        return seen

    return dictate


FORMS = {"bf16 NCHW": 0.03, "bf16 NHWC": 0.02, "fp32 NCHW": 0.05, "fp32 NHWC": 0.04}


@pytest.mark.parametrize("best", FORMS)
def test_the_fastest_form_is_chosen_and_the_others_are_named(timed: Timed, best: str) -> None:
    timed(FORMS | {best: 0.01})
    plan = chosen()
    assert plan.form == best
    assert (plan.device, plan.device_name, plan.threads) == ("cpu", "a processor", 1)
    rate, _, others = plan.reason.partition("; ")
    assert rate == "800.0 images/s (8 a step)"
    for form, seconds in FORMS.items():
        assert (f"{form} {8 / seconds:.1f}" in others) is (form != best)


def test_the_hopeless_are_not_tried_again(timed: Timed) -> None:
    seen = timed({"bf16 NCHW": 0.02, "bf16 NHWC": 0.025, "fp32 NCHW": 0.05, "fp32 NHWC": 0.029})
    chosen()
    counts = {form: seen.count(form) for form in FORMS}
    # a warm-up, five rounds, and two steps that tell how many images to try with
    assert counts == {"bf16 NCHW": 8, "bf16 NHWC": 6, "fp32 NHWC": 6, "fp32 NCHW": 3}


def test_time_is_limited(timed: Timed, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = timed(FORMS)
    monkeypatch.setattr(trials, "BUDGET", 0.0)
    assert chosen().form == "bf16 NHWC"
    assert sorted(seen[2:]) == sorted(FORMS)  # the warm-up decides


def test_precision_that_was_asked_for_is_kept(timed: Timed) -> None:
    seen = timed({"fp32 NCHW": 0.05, "fp32 NHWC": 0.04})
    assert chosen(config(precision="fp32"), replace(PLAN, precision="fp32")).form == "fp32 NHWC"
    assert set(seen) == {"fp32 NCHW", "fp32 NHWC"}


class Wrong(nn.Module):
    """Computes something else in half precision, as a broken kernel would."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = toy.tiny()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.inner(images)
        return logits if logits.dtype == torch.float32 else logits.flip(1) * 3


def test_a_form_that_is_not_what_fp32_computes_is_not_chosen(timed: Timed) -> None:
    timed(FORMS)
    torch.manual_seed(0)
    model = Wrong()
    plan = fastest_plan(PLAN, model, model.inner.get_submodule("6"), TRAIN, config())
    assert plan.form == "fp32 NHWC"
    assert plan.reason.endswith("; fp32 NCHW 160.0, bf16 NHWC is inaccurate, bf16 NCHW is inaccurate")


def test_where_no_form_is_sound_nothing_is_claimed_and_nothing_remembered(timed: Timed, own_cache: Path) -> None:
    timed(FORMS)
    model = toy.tiny()
    nn.init.constant_(model.get_submodule("6").bias, float("nan"))  # type: ignore[arg-type]
    plan = chosen(model=model)
    assert plan.form == "fp32 NCHW"
    assert plan.reason == "no other form could be measured and agreed with fp32"
    assert not list(own_cache.rglob("*.json"))


EXPECTED = Outcome(2.0, 1.0, torch.tensor([1.0, 2.0, 3.0]))


@pytest.mark.parametrize(
    ("found", "sound"),
    [
        (EXPECTED, True),
        (Outcome(2.1, 1.3, torch.tensor([1.1, 1.9, 3.3])), True),
        (Outcome(2.4, 1.0, EXPECTED.head), False),
        (Outcome(2.0, 2.1, EXPECTED.head), False),
        (Outcome(2.0, 0.4, EXPECTED.head), False),
        (Outcome(2.0, 1.0, torch.tensor([3.0, 0.0, -1.0])), False),
        (Outcome(float("nan"), 1.0, EXPECTED.head), False),
        (Outcome(2.0, float("inf"), EXPECTED.head), False),
        (Outcome(2.0, 1.0, torch.tensor([1.0, 2.0, float("nan")])), False),
    ],
)
def test_agreement_with_fp32(found: Outcome, sound: bool) -> None:
    assert found.agrees(EXPECTED) is sound


def test_what_was_found_is_remembered_for_the_same_run(timed: Timed, own_cache: Path) -> None:
    seen = timed(FORMS)
    first = chosen()
    seen.clear()
    assert chosen() == first
    assert seen == []
    # another number of classes or seed changes no step's time, another size or batch size does
    assert chosen(config(seed=3)) == first
    assert seen == []
    for other in (config(tune="linear"), config(precision="bf16"), replace(config(), size=(16, 16))):
        seen.clear()
        chosen(other)
        assert seen
    seen.clear()
    chosen(plan=replace(PLAN, device_name="another processor"))
    assert seen
    for path in own_cache.rglob("*.json"):
        path.write_text("{}")
    seen.clear()
    assert chosen() == first
    assert seen


WHOLE = {"precision": "fp32", "layout": "NCHW", "micro_batch": None, "memory": None, "reason": "x", "step_seconds": 1.0}
DAMAGED = [
    *({**WHOLE, **change} for change in ({"precision": "fp8"}, {"memory": ["x"]}, {"reason": "\ud800"}, {"reason": 3})),
    *({**WHOLE, "step_seconds": seconds} for seconds in (float("nan"), None, "1")),
    {**WHOLE, "compile_gain": float("inf")},
    {**WHOLE, "more": 1},
]


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"\xff", b"[" * 200_000, *(json.dumps(damaged).encode() for damaged in DAMAGED)]
)
def test_a_damaged_memory_is_measured_anew(timed: Timed, own_cache: Path, content: bytes) -> None:
    seen = timed(FORMS)
    first = chosen()
    (path,) = own_cache.rglob("*.json")
    path.write_bytes(content)
    seen.clear()
    assert chosen() == first
    assert seen
    assert Finding(**json.loads(path.read_text())).layout == "NHWC"


def test_a_cache_folder_that_cannot_be_written_is_no_obstacle(timed: Timed, own_cache: Path) -> None:
    timed(FORMS)
    own_cache.write_text("a file")
    assert chosen().form == "bf16 NHWC"


def test_nothing_is_measured_if_not_wanted(timed: Timed, own_cache: Path) -> None:
    seen = timed(FORMS)
    assert chosen(config(plan="off")) == PLAN
    assert chosen(config(plan="off", compile="on")) == replace(PLAN, compiled=True)
    assert seen == []
    assert not own_cache.exists()


def test_weights_statistics_and_random_numbers_stay_as_they_are() -> None:
    torch.manual_seed(0)
    model = toy.tiny()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    training = model.training
    torch.manual_seed(1)
    expected = torch.rand(3)
    torch.manual_seed(1)
    fastest_plan(PLAN, model, model.get_submodule("6"), TRAIN, config())
    assert torch.equal(torch.rand(3), expected)
    assert model.training is training
    assert all(parameter.grad is None for parameter in model.parameters())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
        assert value.is_contiguous(), name


def test_a_slow_backbone_is_tried_on_few_images(monkeypatch: pytest.MonkeyPatch) -> None:
    class Slow(nn.Sequential):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            time.sleep(0.05 * len(images))
            logits: torch.Tensor = super().forward(images)
            return logits

    monkeypatch.setattr(trials, "STEP_SECONDS", 0.2)
    monkeypatch.setattr(trials, "BUDGET", 2.0)
    start = time.perf_counter()
    plan = chosen(model=Slow(*toy.tiny().children()))
    assert any(f"({count} a step)" in plan.reason for count in (2, 3, 4))
    assert time.perf_counter() - start < 20


def test_out_of_memory_smaller_micro_batches_are_tried(timed: Timed, own_cache: Path) -> None:
    timed(FORMS)
    sizes: list[int] = []

    class Greedy(nn.Sequential):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            sizes.append(len(images))
            if len(images) > 3:
                raise torch.OutOfMemoryError("CUDA out of memory.")
            logits: torch.Tensor = super().forward(images)
            return logits

    plan = chosen(model=Greedy(*toy.tiny().children()))
    assert (plan.micro_batch, max(sizes)) == (2, 8)
    assert plan.memory is not None
    assert "8 images is added up from 2 at a time" in plan.memory
    assert plan.form == "bf16 NHWC"
    # another time there may be more memory
    assert not list(own_cache.rglob("*.json"))


class Picky(nn.Sequential):
    """Raises `problem` when it trains in the dtype `dtype`."""

    dtype, problem = torch.float32, RuntimeError("no such kernel")

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = super().forward(images)
        if logits.dtype == self.dtype:
            raise self.problem
        return logits


def test_a_form_that_fails_is_left_out(timed: Timed, monkeypatch: pytest.MonkeyPatch) -> None:
    timed(FORMS)
    monkeypatch.setattr(Picky, "dtype", torch.bfloat16)
    monkeypatch.setattr(trials, "_count", lambda *_: 8)  # which the first form, which fails, can't tell
    plan = chosen(model=Picky(*toy.tiny().children()))
    assert plan.form == "fp32 NHWC"
    assert plan.reason.endswith("fp32 NCHW 160.0, bf16 NCHW fails, bf16 NHWC fails")


def test_a_form_that_does_not_fit_shrinks_no_other(timed: Timed, monkeypatch: pytest.MonkeyPatch) -> None:
    timed(FORMS)
    monkeypatch.setattr(Picky, "dtype", torch.bfloat16)
    monkeypatch.setattr(Picky, "problem", torch.OutOfMemoryError("CUDA out of memory."))
    monkeypatch.setattr(trials, "_count", lambda *_: 8)  # which the first form, which fails, can't tell
    plan = chosen(model=Picky(*toy.tiny().children()))
    assert (plan.form, plan.micro_batch) == ("fp32 NHWC", None)
    assert plan.reason.endswith("fp32 NCHW 160.0, bf16 NCHW does not fit, bf16 NHWC does not fit")


class Poisoned(nn.Sequential):
    """In half precision, its logits are not numbers."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = super().forward(images)
        return logits if logits.dtype == torch.float32 else logits * float("nan")


def test_half_precision_that_overflows_leaves_fp32_sound(timed: Timed) -> None:
    """Its gradients reach the weights that the forms share, even at a rate of 0."""
    timed(FORMS)
    assert chosen(model=Poisoned(*toy.tiny().children())).form == "fp32 NHWC"


COMPILED = FORMS | {"bf16 NHWC compiled": 0.01}


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Stands in for torch.compile, which takes a minute; counts its calls."""
    calls: list[int] = []

    def compiled(model: nn.Module, dynamic: bool) -> nn.Module:
        calls.append(1)
        return model

    monkeypatch.setattr(torch, "compile", compiled)
    return calls


def test_a_long_run_is_compiled_where_that_is_faster(timed: Timed, compiler: list[int], own_cache: Path) -> None:
    # 2 steps of 0.02 s an epoch, 2 stages
    seen = timed(COMPILED)
    assert not chosen(config(patience=10)).compiled
    assert compiler == []
    long = chosen(config(patience=200_000))
    assert long.compiled
    assert long.reason.endswith("; compiled it is 2.00 times as fast")
    seen.clear()
    assert chosen(config(patience=200_000)) == long
    assert seen == []
    assert not chosen(config(patience=200_000, epochs=5)).compiled
    assert not chosen(config(patience=200_000, compile="off")).compiled
    asked = chosen(config(compile="on"))
    assert asked.compiled
    assert asked.reason.endswith("; compiled, as asked for, it is 2.00 times as fast")


def test_what_compilation_does_not_speed_up_is_left(timed: Timed, compiler: list[int]) -> None:
    timed(FORMS | {"bf16 NHWC compiled": 0.021})
    plan = chosen(config(patience=200_000))
    assert not plan.compiled
    assert plan.reason.endswith("; compiled it is 0.95 times as fast")
    assert chosen(config(compile="on")).compiled


def test_a_compiler_that_fails(timed: Timed, monkeypatch: pytest.MonkeyPatch) -> None:
    timed(COMPILED)

    error = type("InductorError", (Exception,), {"__module__": "torch._inductor.exc"})

    def compiled(model: nn.Module, dynamic: bool) -> Any:
        def fail(images: torch.Tensor) -> torch.Tensor:
            raise error("no C++ compiler\nand much more")

        return fail

    monkeypatch.setattr(torch, "compile", compiled)
    plan = chosen(config(patience=200_000))
    assert plan.form == "bf16 NHWC"
    assert "; torch.compile fails here: no C++ compiler. --compile off" in plan.reason
    for flags in ({"plan": "measure"}, {"plan": "off"}):
        with pytest.raises(UserError, match=r"^torch.compile fails here: no C\+\+ compiler\. --compile off does"):
            step_of(chosen(config(compile="on", **flags)))


def step_of(plan: Plan) -> None:
    model = toy.tiny()
    step = Step(model, torch.optim.SGD(model.parameters(), 0.1), plan, 8)
    step(torch.zeros(8, 3, 8, 8), torch.zeros(8, dtype=torch.int64))


@pytest.mark.parametrize(("gain", "form"), [(0.98, "bf16 NCHW"), (0.96, "fp32 NHWC")])
def test_what_may_be_noise_decides_nothing(timed: Timed, gain: float, form: str) -> None:
    timed({"bf16 NCHW": 0.02, "bf16 NHWC": 0.02, "fp32 NCHW": 0.02, "fp32 NHWC": 0.02 * gain})
    assert chosen().form == form


def test_a_compiler_that_computes_something_else(timed: Timed, monkeypatch: pytest.MonkeyPatch) -> None:
    timed(COMPILED)
    monkeypatch.setattr(torch, "compile", lambda model, dynamic: lambda images: model(images).flip(1) * 3)
    plan = chosen(config(patience=200_000))
    assert not plan.compiled
    assert "; torch.compile gives other numbers than the model itself." in plan.reason


def test_a_run_records_its_plan(command: Command, tmp_path: Path, timed: Timed, capsys: Any) -> None:
    timed({form: 0.01 if form == "fp32 NHWC" else 0.02 for form in FORMS})
    assert command("-model tiny -bs 16 --weights none --epochs 1 --device cpu") == 0
    record = json.loads((only_run(tmp_path / "runs") / "record.json").read_text())
    plan = record["plan"]
    assert (plan["precision"], plan["layout"], plan["compiled"], plan["micro_batch"]) == ("fp32", "NHWC", False, None)
    printed = capsys.readouterr().out
    assert f"fp32 NHWC: {plan['reason']}" in printed
    assert printed.count("measuring") == 1
    # in the checkpoint, too, weights are as any program expects them
    checkpoint = torch.load(only_run(tmp_path / "runs") / "checkpoint.pt", weights_only=True)
    assert all(value.is_contiguous() for value in checkpoint["model"].values())


@pytest.mark.slow
def test_compiled_for_real_it_trains_as_it_does_otherwise(command: Command, tmp_path: Path) -> None:
    for flag in ("on", "off"):
        assert (
            command(f"-model tiny -bs 16 --weights none --epochs 3 --compile {flag} --precision fp32 --out {flag}") == 0
        )
    on, off = (json.loads((only_run(tmp_path / flag) / "record.json").read_text()) for flag in ("on", "off"))
    assert on["plan"]["compiled"]
    assert on["test"]["nll"] == pytest.approx(off["test"]["nll"], rel=0.05)  # dropout draws other numbers


def test_a_user_without_a_home_has_a_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", fail)
    assert user_cache().name.startswith("which-backbone-")
