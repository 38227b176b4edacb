"""The plan by measurement: what is tried, what is chosen, what is remembered."""

import json
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.modules.module import register_module_forward_hook
from torch.optim.optimizer import register_optimizer_step_post_hook

from engine.data.batches import Batches
from engine.errors import UserError
from engine.models.structure import freeze_body, replace_head
from engine.training import autotune, threads
from engine.training.agreement import copy_in_form, make_candidate, step_result
from engine.training.autotune import fastest_plan, with_threads_of_now
from engine.training.findings import TuningRequest, TuningResult, remembered
from engine.training.plan import LAYOUTS, Plan
from engine.training.step import Step
from engine.training.trials import Race
from tests import toy
from tests.conftest import Command, only_run

PLAN = Plan("cpu", "a processor", "bf16", "the processor has bf16 instructions", 1)
TRAIN = Batches("train", toy.part(16, 1, "train"), 8, (8, 8), (0.4,) * 3, (0.2,) * 3, "cpu")
REQUEST = TuningRequest("tiny", "6", "full", "auto", "auto", measure=True)
LONG = replace(REQUEST, epochs=400_000)


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def chosen(
    request: TuningRequest = REQUEST, plan: Plan = PLAN, model: nn.Module | None = None, train: Batches = TRAIN
) -> Plan:
    torch.manual_seed(0)
    return fastest_plan(plan, model or toy.tiny(), train, request)


class Watch:
    """Stands for the clock: a pass of a model takes as long as `seconds` says of its form, for 8 images."""

    def __init__(self) -> None:
        self.now = self.processor = 0.0
        self.seconds: dict[str, float] = {}  # by form, or by form and threads: "fp32 NCHW x2"
        self.share = {1: 1.0, 2: 1.0}  # of a processor, that each of so many threads gets
        self.noise = [1.0]  # how many times as long the passes of a form take, over and over
        self.first: dict[str, float] = {}  # what the first step of a form takes beside
        self.steps: list[str] = []  # the form of every step
        self._form, self._compiled = "", ""

    def perf_counter(self) -> float:
        return self.now

    def process_time(self) -> float:
        return self.processor

    @contextmanager
    def compiled(self) -> Iterator[None]:
        """What runs inside is compiled."""
        self._compiled = " compiled"
        try:
            yield
        finally:
            self._compiled = ""

    def pass_through(self, layer: nn.Module, given: tuple[torch.Tensor, ...], output: torch.Tensor) -> None:
        """Every model here has one convolution, whose output tells the dtype."""
        if isinstance(layer, nn.Conv2d):
            layout = "NHWC" if given[0].is_contiguous(memory_format=torch.channels_last) else "NCHW"
            dtype = {torch.float32: "fp32", torch.bfloat16: "bf16"}[output.dtype]
            self._form = f"{dtype} {layout}{self._compiled}"
            more = 0.0 if self._form in self.steps else self.first.get(self._form, 0.0)
            threads = torch.get_num_threads()
            seconds = self.seconds.get(f"{self._form} x{threads}") or self.seconds[self._form]
            took = seconds * len(given[0]) / 8 * self._noise() + more
            self.now += took
            self.processor += took * threads * self.share.get(threads, 1.0)

    def step(self, *_: object) -> None:
        self.steps.append(self._form)

    def _noise(self) -> float:
        return self.noise[self.steps.count(self._form) % len(self.noise)]


Timed = Callable[[dict[str, float]], list[str]]


@pytest.fixture
def watch(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watch]:
    watch = Watch()
    clock = SimpleNamespace(perf_counter=watch.perf_counter, process_time=watch.process_time)
    monkeypatch.setattr("engine.training.trials.time", clock)
    monkeypatch.setattr("engine.training.trials.PRESSURE", Path("nowhere"))
    hooks = (register_module_forward_hook(watch.pass_through), register_optimizer_step_post_hook(watch.step))
    yield watch
    for hook in hooks:
        hook.remove()


@pytest.fixture
def timed(watch: Watch) -> Timed:
    """Lets a test dictate the seconds of a step of each form; returns the steps that were taken."""

    def dictate(seconds: dict[str, float]) -> list[str]:
        watch.seconds = seconds
        return watch.steps

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
    # six steps of the first form tell how many images to try with; then a warm-up and three rounds, which settle it
    assert counts == {"bf16 NCHW": 10, "bf16 NHWC": 4, "fp32 NHWC": 4, "fp32 NCHW": 3}


@pytest.mark.parametrize("first", [0.0, 4.0])
def test_first_steps_never_count_and_two_rounds_always_run(
    watch: Watch, timed: Timed, monkeypatch: pytest.MonkeyPatch, first: float
) -> None:
    """A card looks for its kernels in them, for seconds, and longest for what will then be the fastest."""
    seen = timed(FORMS)
    watch.first = {"bf16 NHWC": first}
    monkeypatch.setattr(autotune, "BUDGET", 0.0)
    assert chosen().form == "bf16 NHWC"
    assert {form: seen[6:].count(form) for form in FORMS} == dict.fromkeys(FORMS, 3)


def test_the_warm_up_takes_nothing_of_the_time_for_the_race(watch: Watch, timed: Timed) -> None:
    seen = timed(dict.fromkeys(FORMS, 0.02))
    watch.first = dict.fromkeys(FORMS, autotune.BUDGET)
    chosen()
    assert seen.count("bf16 NHWC") == 6


def test_precision_that_was_asked_for_is_kept(timed: Timed) -> None:
    seen = timed({"fp32 NCHW": 0.05, "fp32 NHWC": 0.04})
    assert chosen(replace(REQUEST, precision="fp32"), replace(PLAN, precision="fp32")).form == "fp32 NHWC"
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
    plan = chosen(replace(REQUEST, head="inner.6"), model=Wrong())
    assert plan.form == "fp32 NHWC"
    assert plan.reason.endswith("; fp32 NCHW 160.0, bf16 NHWC is inaccurate, bf16 NCHW is inaccurate")


def test_where_no_form_is_sound_nothing_is_claimed_and_nothing_remembered(timed: Timed, own_cache: Path) -> None:
    timed(FORMS)
    model = toy.tiny()
    nn.init.constant_(model.get_submodule("6").bias, float("nan"))  # type: ignore[arg-type]
    plan = chosen(model=model)
    assert plan.form == "fp32 NCHW"
    assert plan.reason == "no other form could be measured and agreed with fp32"
    assert chosen(replace(REQUEST, compile="on"), model=model).form == "fp32 NCHW compiled"
    assert not list(own_cache.rglob("*.json"))


def test_what_was_found_is_remembered_for_the_same_run(timed: Timed, own_cache: Path) -> None:
    seen = timed(FORMS)
    first = chosen()
    seen.clear()
    assert chosen() == first
    assert seen == []
    # another number of classes changes no step's time, another size or batch size does
    other_classes = toy.tiny()
    replace_head(other_classes, "6", 7)
    assert chosen(model=other_classes) == first
    assert seen == []
    linear = toy.tiny()
    freeze_body(linear, "6")
    chosen(replace(REQUEST, tune="linear"), model=linear)
    assert seen
    seen.clear()
    chosen(replace(REQUEST, precision="bf16"))
    assert seen
    for other in (replace(TRAIN, size=(16, 16)), replace(TRAIN, batch_size=4)):
        seen.clear()
        chosen(train=other)
        assert seen
    seen.clear()
    chosen(plan=replace(PLAN, device_name="another processor"))
    assert seen


WHOLE: dict[str, Any] = {
    "precision": "fp32",
    "layout": "NCHW",
    "micro_batch": None,
    "memory": None,
    "reason": "x",
    "step_seconds": 1.0,
}
DAMAGED = [
    *({**WHOLE, **change} for change in ({"precision": "fp8"}, {"memory": ["x"]}, {"reason": "\ud800"}, {"reason": 3})),
    *({**WHOLE, "step_seconds": seconds} for seconds in (float("nan"), None, "1", -1, 0)),
    *({**WHOLE, "compile_gain": gain} for gain in (float("inf"), 0, -1, "", list[int]())),
    *({**WHOLE, "micro_batch": number} for number in (0, "")),
    {**WHOLE, "memory": ""},
    *({**WHOLE, "threads": number} for number in (0, -1, "2", True, 1.0, 10**9)),
    {**WHOLE, "graphed": 1},
    *({name: value for name, value in WHOLE.items() if name != lacking} for lacking in WHOLE),
    {**WHOLE, "more": 1},
]


@pytest.mark.parametrize(
    "content", [b"", b"[]", b"\xff", b"[" * 200_000, *(json.dumps(damaged).encode() for damaged in DAMAGED)]
)
def test_a_damaged_result_is_none(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "result.json"
    path.write_text(json.dumps(WHOLE))
    assert remembered(path) == TuningResult(**WHOLE)
    path.write_bytes(content)
    assert remembered(path) is None


def test_no_file_is_no_result(tmp_path: Path) -> None:
    assert remembered(tmp_path / "nowhere" / "result.json") is None
    assert remembered(tmp_path) is None
    # nor one that would be waited for, or read for ever
    os.mkfifo(tmp_path / "pipe.json")
    assert remembered(tmp_path / "pipe.json") is None
    (tmp_path / "device.json").symlink_to("/dev/zero")
    assert remembered(tmp_path / "device.json") is None
    (tmp_path / "long.json").write_text(json.dumps(WHOLE) + " " * (1 << 16))
    assert remembered(tmp_path / "long.json") is None


def test_where_memory_ran_short_is_not_gone_by_another_time(tmp_path: Path) -> None:
    path = tmp_path / "result.json"
    path.write_text(json.dumps(WHOLE | {"micro_batch": 2}))
    assert remembered(path) is None


@pytest.mark.parametrize("change", [{"precision": "bf16"}, {"precision": "fp16"}, {"graphed": True}, {"threads": 77}])
def test_a_result_that_is_not_what_was_asked_for_is_measured_anew(
    change: dict[str, Any], timed: Timed, own_cache: Path
) -> None:
    seen = timed(FORMS)
    request = replace(REQUEST, precision="fp32")
    first = chosen(request, replace(PLAN, precision="fp32"))
    assert first.precision == "fp32"
    (path,) = own_cache.rglob("*.json")
    seen.clear()
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert chosen(request, replace(PLAN, precision="fp32")).form == first.form
    assert seen


def test_after_a_damage_it_is_measured_anew(timed: Timed, own_cache: Path) -> None:
    seen = timed(FORMS)
    first = chosen()
    (path,) = own_cache.rglob("*.json")
    path.write_text("[]")
    seen.clear()
    assert chosen() == first
    assert seen
    assert TuningResult(**json.loads(path.read_text())).layout == "NHWC"


@pytest.mark.parametrize(
    "wrong", [{"graphed": True}, {"precision": "fp16"}, {"precision": "bf16"}, {"threads": 65535}], ids=str
)
def test_what_could_not_have_been_found_here_is_measured_anew(
    timed: Timed, own_cache: Path, wrong: dict[str, Any]
) -> None:
    seen = timed(FORMS)
    request = replace(REQUEST, precision="fp32")
    fp32 = replace(PLAN, precision="fp32")
    chosen(request, fp32)
    (path,) = own_cache.glob("which-backbone/plans/*.json")
    path.write_text(json.dumps(json.loads(path.read_text()) | wrong))
    seen.clear()
    plan = chosen(request, fp32)
    assert plan.form == "fp32 NHWC"
    assert plan.threads == 1
    assert plan.sound
    assert set(seen) == {"fp32 NCHW", "fp32 NHWC"}


def test_a_cache_folder_that_cannot_be_written_is_no_obstacle(timed: Timed, own_cache: Path) -> None:
    timed(FORMS)
    own_cache.write_text("a file")
    assert chosen().form == "bf16 NHWC"


def test_nothing_is_measured_if_not_wanted(timed: Timed, own_cache: Path) -> None:
    seen = timed(FORMS)
    unmeasured = replace(REQUEST, measure=False)
    assert chosen(unmeasured) == PLAN
    assert chosen(replace(unmeasured, compile="on")) == replace(PLAN, compiled=True)
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
    fastest_plan(PLAN, model, TRAIN, REQUEST)
    assert torch.equal(torch.rand(3), expected)
    assert model.training is training
    assert all(parameter.grad is None for parameter in model.parameters())
    for name, value in model.state_dict().items():
        assert torch.equal(value, before[name]), name
        assert value.is_contiguous(), name


@pytest.fixture
def two_threads(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A processor whose kernels may use two of them."""
    before = torch.get_num_threads()
    monkeypatch.setattr("engine.training.threads.usable_threads", lambda: 2)
    yield
    torch.set_num_threads(before)


TWO = replace(PLAN, threads=2)
BUSY = {1: 0.95, 2: 0.5}  # two threads wait for each other whenever one is interrupted


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize(("alone", "together", "expected"), [(0.2, 0.1, 2), (0.1, 0.4, 1), (0.1, 0.1, 2)])
def test_threads_are_tried_too(timed: Timed, alone: float, together: float, expected: int) -> None:
    timed({f"{form} x{n}": seconds for form in FORMS for n, seconds in ((1, alone), (2, together))})
    plan = chosen(plan=TWO)
    assert plan.threads == expected
    assert plan.images_per_second == pytest.approx(8 / min(alone, together))
    # the caller's own go on until the plan is followed
    assert torch.get_num_threads() == 2
    plan.place(toy.tiny())
    assert torch.get_num_threads() == expected


def busy(watch: Watch, _: pytest.MonkeyPatch) -> None:
    watch.share = BUSY


def uneven(watch: Watch, _: pytest.MonkeyPatch) -> None:
    watch.noise = [1.0, 3.0, 2.0]


def crowded(watch: Watch, monkeypatch: pytest.MonkeyPatch) -> None:
    """Others wait for a processor, half of the time: the system counts that as microseconds."""

    def read_text() -> str:
        return f"some avg10=1.00 avg60=1.00 avg300=1.00 total={int(watch.now * 0.5e6)}\nfull ...\n"

    monkeypatch.setattr("engine.training.trials.PRESSURE", SimpleNamespace(read_text=read_text))
    monkeypatch.setattr("engine.training.trials.cpus", os.cpu_count)


@pytest.mark.usefixtures("two_threads")
@pytest.mark.parametrize("others", [busy, uneven, crowded])
def test_what_is_found_while_others_are_at_work_serves_this_run_alone(
    watch: Watch,
    timed: Timed,
    monkeypatch: pytest.MonkeyPatch,
    own_cache: Path,
    others: Callable[[Watch, pytest.MonkeyPatch], None],
) -> None:
    timed(FORMS | {f"{form} x2": 2 * seconds for form, seconds in FORMS.items()})
    others(watch, monkeypatch)
    plan = chosen(plan=TWO)
    assert plan.reason.endswith("; others are at work here, so this is for this run alone")
    assert not list(own_cache.rglob("*.json"))
    watch.noise, watch.share = [1.0], {}
    monkeypatch.setattr("engine.training.trials.PRESSURE", Path("nowhere"))
    assert "others" not in chosen(plan=TWO).reason
    assert list(own_cache.rglob("*.json"))


def test_where_the_clock_is_in_doubt_what_is_usual_decides(
    watch: Watch, timed: Timed, monkeypatch: pytest.MonkeyPatch
) -> None:
    forms = dict.fromkeys(FORMS, 0.02) | {"bf16 NHWC": 0.015}
    usual = replace(REQUEST, usual="fp32 NHWC")
    timed(forms)
    uneven(watch, monkeypatch)
    assert chosen(usual).form == "fp32 NHWC"
    watch.noise = [1.0]
    assert chosen(usual).form == "bf16 NHWC"
    timed(dict.fromkeys(FORMS, 0.02))
    assert chosen(replace(usual, backbone="another")).form == "fp32 NHWC"


@pytest.mark.parametrize(
    ("usual", "expected"), [("", "bf16 NCHW"), ("bf16 NHWC", "bf16 NHWC"), ("fp16 NHWC", "bf16 NHWC")]
)
def test_a_usual_form_that_cannot_be_is_taken_for_the_nearest(usual: str, expected: str) -> None:
    forms = autotune.forms_of(PLAN, replace(REQUEST, usual=usual))
    assert forms[0].form == expected
    assert sorted(form.form for form in forms) == sorted(FORMS)


def test_a_card_tries_both_half_precisions() -> None:
    forms = autotune.forms_of(replace(PLAN, device="cuda"), REQUEST)
    assert {form.precision for form in forms} == {"bf16", "fp16", "fp32"}
    asked = autotune.forms_of(replace(PLAN, device="cuda"), replace(REQUEST, precision="bf16"))
    assert {form.precision for form in asked} == {"bf16"}


@pytest.mark.usefixtures("two_threads")
def test_a_finding_is_followed_with_the_threads_of_now(watch: Watch, timed: Timed) -> None:
    seconds = FORMS | {f"{form} x1": 1.5 * each for form, each in FORMS.items()}
    seen = timed(seconds)
    quiet = chosen(plan=TWO)
    assert quiet.threads == 2
    seen.clear()
    assert chosen(plan=TWO) == quiet
    assert len(seen) == 3  # a warm-up and two that tell whether it is as it was
    watch.share = BUSY
    timed(seconds | {f"{form} x2": 9 * each for form, each in FORMS.items()})
    crowd = chosen(plan=TWO)
    assert (crowd.form, crowd.threads) == (quiet.form, 1)
    assert crowd.images_per_second == pytest.approx(8 / 0.03)
    assert crowd.reason.endswith("; others are at work here: 266.7 images/s at present, with 1 thread")
    # and so is the plan of another seed
    like = TWO.like(quiet, 0)
    assert with_threads_of_now(like, toy.tiny(), TRAIN, "6").threads == 1
    watch.share = {}
    timed(seconds)
    assert chosen(plan=TWO) == quiet
    assert with_threads_of_now(like, toy.tiny(), TRAIN, "6") == like


def test_forms_are_compared_on_the_same_batch_normalisation(timed: Timed, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where time suffices for steps of few images: the comparison is not in micro-batches of so many."""
    timed(FORMS)
    monkeypatch.setattr(threads, "STEP_SECONDS", 1e-9)
    batches: set[int] = set()
    plain = step_result

    def compared(candidate: Any, images: torch.Tensor, labels: torch.Tensor) -> Any:
        hook = candidate.model.register_forward_pre_hook(lambda _, given: batches.add(len(given[0])))
        result = plain(candidate, images, labels)
        hook.remove()
        return result

    monkeypatch.setattr("engine.training.autotune.step_result", compared)
    plan = chosen()
    assert batches == {8}
    assert plan.reason.startswith("400.0 images/s (2 a step); ")
    assert "inaccurate" not in plan.reason


def test_a_slow_backbone_is_tried_on_few_images(watch: Watch, timed: Timed, monkeypatch: pytest.MonkeyPatch) -> None:
    """An image takes 0.05 s in every form, so that four take a step's time."""
    seen = timed(dict.fromkeys(FORMS, 0.4))
    monkeypatch.setattr(threads, "STEP_SECONDS", 0.21)
    monkeypatch.setattr(autotune, "BUDGET", 2.5)
    plan = chosen()
    assert plan.reason.startswith("20.0 images/s (4 a step); ")
    # steps that tell how many images to try with; then a warm-up, and time suffices for three rounds
    assert len(seen) == 6 + 4 * len(FORMS)
    assert watch.now < 5


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
    """Raises `problem` when it trains on more than `most` images in the dtype `dtype`."""

    dtype, most, problem = torch.float32, 0, RuntimeError("no such kernel")

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = super().forward(images)
        if logits.dtype == self.dtype and len(images) > self.most:
            raise self.problem
        return logits


def test_a_form_that_fails_is_left_out(timed: Timed, monkeypatch: pytest.MonkeyPatch) -> None:
    timed(FORMS)
    monkeypatch.setattr(Picky, "dtype", torch.bfloat16)
    plan = chosen(model=Picky(*toy.tiny().children()))
    assert plan.form == "fp32 NHWC"
    assert plan.reason.endswith("fp32 NCHW 160.0, bf16 NCHW fails, bf16 NHWC fails")


def test_a_form_that_does_not_fit_shrinks_no_other(timed: Timed, monkeypatch: pytest.MonkeyPatch) -> None:
    timed(FORMS)
    monkeypatch.setattr(Picky, "dtype", torch.bfloat16)
    monkeypatch.setattr(Picky, "most", 2)
    monkeypatch.setattr(Picky, "problem", torch.OutOfMemoryError("CUDA out of memory."))
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
def compiler(monkeypatch: pytest.MonkeyPatch, watch: Watch) -> list[int]:
    """Stands in for torch.compile, which takes a minute; counts its calls."""
    calls: list[int] = []

    def compiled(model: nn.Module, dynamic: bool) -> Callable[[torch.Tensor], torch.Tensor]:
        calls.append(1)

        def forward(images: torch.Tensor) -> torch.Tensor:
            with watch.compiled():
                logits: torch.Tensor = model(images)
            return logits

        return forward

    monkeypatch.setattr(torch, "compile", compiled)
    return calls


def test_a_long_run_is_compiled_where_that_is_faster(timed: Timed, compiler: list[int], own_cache: Path) -> None:
    # 2 steps of 0.02 s an epoch
    seen = timed(COMPILED)
    assert not chosen(replace(REQUEST, epochs=20)).compiled
    assert compiler == []
    long = chosen(LONG)
    assert long.compiled
    assert long.reason.endswith("; compiled it is 2.00 times as fast")
    seen.clear()
    assert chosen(LONG) == long
    assert seen == []
    assert not chosen(replace(LONG, epochs=10)).compiled
    assert not chosen(replace(LONG, compile="off")).compiled
    asked = chosen(replace(REQUEST, compile="on"))
    assert asked.compiled
    assert asked.reason.endswith("; compiled, as asked for, it is 2.00 times as fast")


def test_compilation_pays_for_all_that_follow(timed: Timed, compiler: list[int]) -> None:
    """Of three seeds, the later two find the kernels in Inductor's cache."""
    timed(COMPILED)
    # 2 steps of 0.02 s an epoch, a twentieth of which is the usual gain on a processor
    saved = 0.04 * (1 - 1 / autotune.COMPILE_GAIN["cpu"])
    alone = autotune.PAYS_BACK * autotune.compile_seconds("cpu") / saved
    three = autotune.PAYS_BACK * (autotune.compile_seconds("cpu") + 2 * autotune.COMPILE_AGAIN_SECONDS) / saved / 3
    assert three < alone
    assert not chosen(replace(REQUEST, epochs=int(0.99 * three), seeds=3)).compiled
    assert not chosen(replace(REQUEST, epochs=int(0.99 * alone))).compiled
    assert compiler == []
    assert chosen(replace(REQUEST, epochs=int(1.01 * three), seeds=3)).compiled


def test_what_compilation_does_not_speed_up_is_left(timed: Timed, compiler: list[int]) -> None:
    timed(FORMS | {"bf16 NHWC compiled": 0.021})
    plan = chosen(LONG)
    assert not plan.compiled
    assert plan.reason.endswith("; compiled it is 0.95 times as fast")
    assert chosen(replace(REQUEST, compile="on")).compiled


def test_a_compiler_that_fails(timed: Timed, monkeypatch: pytest.MonkeyPatch) -> None:
    timed(COMPILED)

    error = type("InductorError", (Exception,), {"__module__": "torch._inductor.exc"})

    def compiled(model: nn.Module, dynamic: bool) -> Any:
        def fail(images: torch.Tensor) -> torch.Tensor:
            raise error("no C++ compiler\nand much more")

        return fail

    monkeypatch.setattr(torch, "compile", compiled)
    plan = chosen(LONG)
    assert plan.form == "bf16 NHWC"
    assert "; torch.compile fails here: no C++ compiler. --compile off" in plan.reason
    for measure in (True, False):
        with pytest.raises(UserError, match=r"^torch.compile fails here: no C\+\+ compiler\. --compile off does"):
            step_of(chosen(replace(REQUEST, compile="on", measure=measure)))


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
    plan = chosen(LONG)
    assert not plan.compiled
    assert "; torch.compile gives other numbers than the model itself." in plan.reason


def test_a_run_records_its_plan(command: Command, tmp_path: Path, timed: Timed, capsys: Any) -> None:
    timed({form: 0.01 if form == "fp32 NHWC" else 0.02 for form in FORMS})
    assert command("-model tiny -bs 16 --weights none --epochs 1") == 0
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


def forms_as_graphs(problems: dict[str, RuntimeError]) -> tuple[list[str], dict[str, str]]:
    """Which forms are timed as graphs, and what is wrong with others; a capture of a form raises what it has here."""

    def record(work: Callable[[], torch.Tensor]) -> Any:
        form = names[len(tried)]
        tried.append(form)
        if form in problems:
            raise problems[form]
        return (lambda: None), work()

    tried: list[str] = []
    models = {layout: copy_in_form(replace(PLAN, layout=layout), toy.tiny()) for layout in LAYOUTS}
    forms = autotune.forms_of(PLAN, REQUEST)
    images, labels = next(TRAIN.sequential())
    race = Race([make_candidate(form, models[form.layout], "6", 8) for form in forms], images, labels)
    for candidate, seconds in zip(race.candidates, (0.01, 0.02, 0.03, 0.04), strict=True):
        candidate.seconds = [seconds]
    names = [candidate.plan.form for candidate in race.candidates]
    left_out: dict[str, str] = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("engine.training.graph.record", record)
        patch.setattr("engine.training.graph.aside", nullcontext)
        found = autotune._graphed(race, models, "6", left_out)
    assert tried == names
    assert all(candidate.plan.graphed and len(candidate.seconds) == 2 for candidate in found)
    return [candidate.plan.form for candidate in found], left_out


def test_the_fastest_forms_are_tried_as_graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.training.graph._tell", lambda _: None)
    names = [form.form for form in autotune.forms_of(PLAN, REQUEST)]
    found, left_out = forms_as_graphs(
        {
            names[1]: RuntimeError("not permitted when stream is capturing"),
            names[2]: torch.OutOfMemoryError("CUDA out of memory."),
        }
    )
    assert found == [f"{names[0]} graphed", f"{names[3]} graphed"]
    assert left_out == {f"{names[1]} graphed": "can't be captured", f"{names[2]} graphed": "does not fit"}
