"""How the run computes."""

from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.errors import UserError
from engine.processes import heartbeat
from engine.training.plan import Plan, choose_plan, cpu_has_bf16, keep_plan


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("fpu vme avx512f avx512_bf16 avx512_vnni", True),
        ("fpu vme amx_tile amx_bf16", True),
        ("fp asimd bf16 i8mm", True),  # ARM
        ("fpu vme avx2 avx512f", False),
        ("not_bf16", False),
    ],
)
def test_bf16_of_a_processor(tmp_path: Path, flags: str, expected: bool) -> None:
    (tmp_path / "cpuinfo").write_text(f"processor\t: 0\nflags\t\t: {flags}\n")
    assert cpu_has_bf16(tmp_path / "cpuinfo") is expected


def test_bf16_of_a_machine_without_cpuinfo(tmp_path: Path) -> None:
    assert cpu_has_bf16(tmp_path / "cpuinfo") is False


@pytest.mark.parametrize(("native", "precision"), [(True, "bf16"), (False, "fp32")])
def test_auto_on_a_processor(monkeypatch: pytest.MonkeyPatch, native: bool, precision: str) -> None:
    monkeypatch.setattr("engine.training.plan.cpu_has_bf16", lambda _: native)
    plan = choose_plan("cpu", "auto")
    assert (plan.device, plan.precision) == ("cpu", precision)
    assert "bf16" in plan.reason


@pytest.mark.parametrize(("native", "precision"), [(True, "bf16"), (False, "fp16")])
def test_auto_on_a_card(monkeypatch: pytest.MonkeyPatch, native: bool, precision: str) -> None:
    """The choice alone: whether the card then computes so is for the tests marked cuda."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "is_bf16_supported", lambda **_: native)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a card")
    monkeypatch.setattr("engine.device.why_unusable", lambda _: "")
    plan = choose_plan("auto", "auto")
    assert (plan.device, plan.device_name, plan.precision) == ("cuda", "a card", precision)
    if not native:
        with pytest.raises(UserError, match="fp16"):
            choose_plan("cuda", "bf16")


def test_a_card_that_does_not_compute(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    monkeypatch.setattr("engine.device.why_unusable", lambda kind: "no kernel image" if kind == "cuda" else "")
    assert choose_plan("auto", "auto").device == "cpu"
    assert "does not compute and is not used: no kernel image" in capsys.readouterr().out
    with pytest.raises(UserError, match=r"--device cuda: .* does not compute: no kernel image"):
        choose_plan("cuda", "auto")
    monkeypatch.setenv(heartbeat.DEVICE, "cuda")  # as a grid does for a cell that it gives a card
    with pytest.raises(UserError, match="does not compute: no kernel image"):
        choose_plan("auto", "auto")
    assert choose_plan("cpu", "auto").device == "cpu"


def test_fp16_where_optimizers_ignore_the_scale_of_gradients(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    monkeypatch.setattr("engine.device.why_unusable", lambda _: "")
    monkeypatch.setattr(torch.backends.mps, "get_name", lambda: "Apple M2", raising=False)
    assert choose_plan("auto", "auto").precision == "fp32"
    assert choose_plan("mps", "bf16").device_name == "Apple M2"
    with pytest.raises(UserError, match=r"--precision fp16: .* Use fp32 or bf16\."):
        choose_plan("mps", "fp16")


@pytest.mark.parametrize("device", ["cuda", "mps"])
def test_a_device_that_is_not_there(monkeypatch: pytest.MonkeyPatch, device: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: False)
    with pytest.raises(UserError, match=f"--device {device}.*only cpu"):
        choose_plan(device, "auto")


@pytest.mark.parametrize(("precision", "dtype"), [("fp32", torch.float32), ("bf16", torch.bfloat16)])
def test_autocast_computes_in_the_dtype_that_it_says(precision: str, dtype: torch.dtype) -> None:
    layer = torch.nn.Linear(4, 4)
    with Plan("cpu", "", precision, "").autocast():
        assert layer(torch.ones(2, 4)).dtype is dtype
    assert layer.weight.dtype is torch.float32


@pytest.mark.parametrize(
    ("layout", "memory_format"), [("NCHW", torch.contiguous_format), ("NHWC", torch.channels_last)]
)
def test_a_model_is_placed_in_the_layout(layout: str, memory_format: torch.memory_format) -> None:
    model = torch.nn.Conv2d(3, 8, 3)
    Plan("cpu", "", "fp32", "", layout=layout).place(model)
    assert model.weight.is_contiguous(memory_format=memory_format)


def test_micro_batches_are_halved_down_to_the_floor() -> None:
    plan, sizes = Plan("cpu", "", "fp32", ""), []
    while smaller := plan.halved(33, batch_norm=True):
        plan = smaller
        sizes.append(plan.micro_batch)
        assert plan.memory is not None
        assert f"33 images is added up from {plan.micro_batch} at a time" in plan.memory
        assert "batch normalisation" in plan.memory
    assert sizes == [16, 8, 4, 2]
    without = Plan("cpu", "", "fp32", "").halved(8, batch_norm=False)
    assert without is not None
    assert without.memory is not None
    assert "normalisation" not in without.memory
    assert Plan("cpu", "", "fp32", "").halved(3, batch_norm=False) is None


def test_only_fp16_scales_gradients() -> None:
    scaled = {name: Plan("cpu", "", name, "").gradient_scaler().is_enabled() for name in ("fp32", "bf16", "fp16")}
    assert scaled == {"fp32": False, "bf16": False, "fp16": True}


@pytest.mark.parametrize(
    "damage",
    [
        {"precision": "fp8"},
        {"precision": []},
        {"layout": None},
        {"device": "tpu"},
        {"threads": 0},
        {"threads": "2"},
        {"micro_batch": 0},
        {"compiled": "no"},
        {"graphed": "no"},
        {"graphed": True},  # on a processor
        {"reason": 3},
        {"memory": 3},
    ],
)
def test_a_damaged_plan_of_an_interrupted_run(damage: dict[str, object]) -> None:
    whole = asdict(Plan("cpu", "a processor", "fp32", "as asked for", torch.get_num_threads()))
    assert asdict(keep_plan(whole)) == whole
    with pytest.raises(UserError, match="--rerun"):
        keep_plan({**whole, **damage})


def test_a_plan_of_another_precision_than_was_asked_for_is_not_obeyed() -> None:
    kept = Plan("cpu", "a processor", "bf16", "as asked for", torch.get_num_threads())
    assert keep_plan(asdict(kept), "bf16") == kept
    with pytest.raises(UserError, match="--rerun"):
        keep_plan(asdict(kept), "fp32")
    # nor that of another seed
    assert choose_plan("cpu", "fp32").like(kept, 1).precision == "fp32"
    assert choose_plan("cpu", "auto").like(kept, 1).precision == "bf16"


def test_a_record_from_before_there_were_graphs_has_none() -> None:
    whole = asdict(Plan("cpu", "a processor", "fp32", "as asked for", torch.get_num_threads()))
    assert whole.pop("graphed") is False
    assert keep_plan(whole).graphed is False


GRAPHED = Plan("cuda", "a card", "bf16", "", layout="NHWC", graphed=True)


def test_a_graphed_plan() -> None:
    assert GRAPHED.form == "bf16 NHWC graphed"
    assert GRAPHED.sound
    assert not replace(GRAPHED, compiled=True).sound
    assert not replace(GRAPHED, graphed=1).sound  # type: ignore[arg-type]
    assert replace(GRAPHED, compiled=True, graphed=False).sound


@pytest.mark.parametrize(("device", "graphed"), [("cuda", True), ("cpu", False)])
def test_another_seed_is_graphed_too_where_there_is_a_card(device: str, graphed: bool) -> None:
    plan = Plan(device, "", "fp32", "").like(GRAPHED, 1)
    assert (plan.form, plan.graphed, plan.sound) == ("bf16 NHWC" + " graphed" * graphed, graphed, True)
    assert not replace(GRAPHED, graphed=True).like(Plan("cuda", "", "fp32", ""), 1).graphed


def test_a_graph_is_given_up_before_the_batch_is_divided() -> None:
    first = GRAPHED.halved(2, batch_norm=True)
    assert first is not None
    assert (first.graphed, first.micro_batch) == (False, None)
    assert first.memory == "out of memory: steps are not replayed from a CUDA graph"
    assert first.halved(2, batch_norm=True) is None
    second = first.halved(8, batch_norm=False)
    assert second is not None
    assert (second.graphed, second.micro_batch) == (False, 4)


@pytest.mark.parametrize(
    ("device", "name", "threads", "shown"),
    [
        ("cpu", "a processor, 4 threads", 4, "cpu (a processor, 4 threads), "),
        ("cpu", "a processor, 4 threads", 1, "cpu (a processor, 1 of 4 threads), "),
        ("cpu", "", 1, "cpu (), "),
        ("cuda", "a card", 1, "cuda (a card), "),
    ],
)
def test_how_many_threads_are_used_is_said(device: str, name: str, threads: int, shown: str) -> None:
    (line,) = Plan(device, name, "fp32", "why", threads).lines
    assert line == f"plan       {shown}fp32 NCHW: why"
