"""How the run computes: device and dtype, chosen with a reason."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from engine.console import say
from engine.errors import UserError

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Plan:
    """Part of the run: a resumed run keeps the plan it began with."""

    device: str  # "cuda", "cpu" or "mps"
    device_name: str
    precision: str  # "fp32", "bf16" or "fp16"
    reason: str
    threads: int = 1  # of the processor: another number adds in another order, so it is part of the plan

    @property
    def dtype(self) -> torch.dtype:
        """What matrix products and convolutions compute in; weights stay in float32."""
        return DTYPES[self.precision]

    def autocast(self) -> AbstractContextManager[object]:
        """The context that forward and loss run in."""
        return torch.autocast(self.device, dtype=self.dtype, enabled=self.precision != "fp32")

    def gradient_scaler(self) -> torch.amp.GradScaler:
        """fp16 gradients underflow unless the loss is scaled up; bf16 has the range of fp32."""
        return torch.amp.GradScaler(self.device, enabled=self.precision == "fp16")


def choose_plan(device: str, precision: str) -> Plan:
    """The plan for `--device` and `--precision`; raises UserError when this machine has no such device."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    if device == "auto":
        device = next(kind for kind, there in available.items() if there)
    elif not available[device]:
        there = " and ".join(kind for kind, yes in available.items() if yes)
        raise UserError(f"--device {device}: PyTorch {torch.__version__} finds none here, only {there}.")
    reason = "as asked for"
    if precision == "auto":
        precision, reason = _fastest_sound_dtype(device)
    elif device == "cuda" and precision == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise UserError(f"--precision bf16: {_name(device)} does not compute in bf16. Use fp16, or leave it to auto.")
    return Plan(device, _name(device), precision, reason, torch.get_num_threads())


def keep_plan(kept: Mapping[str, Any]) -> Plan:
    """The plan that an interrupted run began with, from its record; raises UserError when its device is gone."""
    torch.set_num_threads(kept["threads"])
    try:
        plan = choose_plan(kept["device"], kept["precision"])
    except UserError as problem:
        raise UserError(
            f"this run was interrupted on {kept['device']} ({kept['device_name']}) and can't go on here: {problem}\n"
            "Go on where it began, or start it over with --rerun."
        ) from problem
    if plan.device_name != kept["device_name"]:
        say(f"note: this run began on {kept['device_name']} and goes on on {plan.device_name}: its numbers may differ")
    return Plan(**kept)


def _fastest_sound_dtype(device: str) -> tuple[str, str]:
    if device == "cuda":
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16", "the card computes in bf16"
        return "fp16", "the card has no bf16; gradients are scaled"
    if device == "cpu" and cpu_has_bf16(Path("/proc/cpuinfo")):
        return "bf16", "the processor has bf16 instructions"
    if device == "mps":
        return "fp32", "half precision on this device has not been measured"
    return "fp32", "the processor has no bf16 instructions"


def cpu_has_bf16(cpuinfo: Path) -> bool:
    """Whether a Linux `cpuinfo` file lists bf16 arithmetic (AVX512-BF16 or AMX on x86, BF16 on ARM)."""
    try:
        words = set(cpuinfo.read_text().split())
    except OSError:
        return False
    return not words.isdisjoint({"avx512_bf16", "amx_bf16", "bf16"})


def _name(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    try:
        models = [line for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    except OSError:
        models = []
    name = models[0].partition(":")[2].strip() if models else platform.processor() or platform.machine()
    threads = torch.get_num_threads()
    return f"{name}, {threads} thread{'s' if threads > 1 else ''}"
