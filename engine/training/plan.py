"""How a run computes: device, dtype, memory layout, compilation, micro-batches."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from math import inf
from pathlib import Path
from typing import Any

import torch
from torch import nn

from engine.console import say
from engine.device import device_name, find_working_device, usable_threads
from engine.errors import UserError, out_of_memory
from engine.processes.heartbeat import given_device

DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16}
LAYOUTS = {"NCHW": torch.contiguous_format, "NHWC": torch.channels_last}
ASKED = "as asked for"  # the reason of a precision that --precision names
SMALLEST_MICRO_BATCH = 2  # images: batch normalisation can't train on one

Forward = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True)
class Plan:
    """Part of the run: a resumed run keeps the plan it began with."""

    device: str  # "cuda", "cpu" or "mps"
    device_name: str
    precision: str  # "fp32", "bf16" or "fp16"
    reason: str
    threads: int = 1  # of the processor: another number adds in another order, so it is part of the plan
    layout: str = "NCHW"  # of images and weights in memory, or "NHWC"
    compiled: bool = False  # whether the training step's forward and backward pass are, by torch.compile
    graphed: bool = False  # whether they are replayed, for whole batches, from a CUDA graph
    micro_batch: int | None = None  # images that are in memory at a time; None: a whole batch
    memory: str | None = None  # why not a whole batch, and what that changes
    # under --deterministic: the operations without a deterministic form, as far as they were met; None: not asked for
    not_deterministic: list[str] | None = None
    images_per_second: float | None = None  # of training steps, as measured when the plan was made; None: not measured

    def like(self, other: Plan, seed: int, fold: str = "") -> Plan:
        """This plan in the form of another seed's or fold's, so that the spread of their results is of these alone.

        The number of threads is what the machine has to give now, and the precision that which was asked for, if any.
        """
        return replace(
            self,
            precision=self.precision if self.reason == ASKED else other.precision,
            layout=other.layout,
            compiled=other.compiled,
            graphed=other.graphed and self.device == "cuda",
            micro_batch=other.micro_batch,
            memory=(other.memory or "").partition(", from epoch")[0] or None,
            images_per_second=other.images_per_second,
            reason=f"as seed {seed}{f', {fold},' if fold else ''} was trained",
        )

    @property
    def with_others(self) -> Plan:
        """This plan as several processes follow it together: without a CUDA graph, which holds no exchange.

        Each has its part of the processor's threads, as torchrun says.
        """
        return replace(self, graphed=False, threads=min(self.threads, usable_threads()))

    @property
    def sound(self) -> bool:
        """Whether one can compute so, if it comes from a file that may have been damaged."""
        whole = [self.threads, 1 if self.micro_batch is None else self.micro_batch]
        numbers = all(type(number) is int and 0 < number < 1 << 31 for number in whole)
        speed = self.images_per_second
        numbers &= speed is None or (isinstance(speed, int | float) and 0 < speed < inf)
        words = (self.device, self.device_name, self.precision, self.layout, self.reason, self.memory or "")
        known = all(isinstance(word, str) for word in words) and self.precision in DTYPES and self.layout in LAYOUTS
        flags = isinstance(self.compiled, bool) and isinstance(self.graphed, bool)
        known &= self.not_deterministic is None or isinstance(self.not_deterministic, list)
        possible = not self.graphed or (self.device == "cuda" and not self.compiled)
        return numbers and known and flags and possible and self.device in ("cuda", "cpu", "mps")

    @property
    def dtype(self) -> torch.dtype:
        """What matrix products and convolutions compute in; weights stay in float32."""
        return DTYPES[self.precision]

    @property
    def memory_format(self) -> torch.memory_format:
        """The layout as PyTorch calls it."""
        return LAYOUTS[self.layout]

    @property
    def form(self) -> str:
        """What was chosen, in a few words."""
        return f"{self.precision} {self.layout}" + " compiled" * self.compiled + " graphed" * self.graphed

    @property
    def lines(self) -> list[str]:
        """What a run prints of it."""
        name, _, threads = self.device_name.partition(", ")
        name = f"{name}, {self.threads} of {threads}" if self.threads < _leading(threads) else self.device_name
        lines = [f"plan       {self.device} ({name}), {self.form}: {self.reason}"]
        return [*lines, f"memory     {self.memory}"] if self.memory else lines

    def autocast(self) -> AbstractContextManager[object]:
        """The context that forward and loss run in."""
        if self.precision == "fp32":
            return nullcontext()
        # a weight that was cast before a capture would not be cast again by its replays
        return torch.autocast(self.device, dtype=self.dtype, cache_enabled=not self.graphed)

    def gradient_scaler(self) -> torch.amp.GradScaler:
        """fp16 gradients underflow unless the loss is scaled up; bf16 has the range of fp32."""
        return torch.amp.GradScaler(self.device, enabled=self.precision == "fp16")

    def place(self, model: nn.Module) -> None:
        """Move the model, in place, to the device and into the layout; a processor works with the plan's threads."""
        model.to(self.device)
        model.to(memory_format=self.memory_format)
        self.use_threads()

    def use_threads(self) -> None:
        """Let a processor's kernels work with as many threads as the plan says."""
        if self.device == "cpu" and torch.get_num_threads() != self.threads:
            torch.set_num_threads(self.threads)

    def forward(self, model: nn.Module, images: int) -> Forward:
        """The model as training steps call it; compiled, if it is, for batches of just so many `images`.

        Any other batch, the last of an epoch, would be compiled again: it goes through the model as it is. A call
        raises UserError when the compiler fails.
        """
        if not self.compiled:
            return model
        compiled = torch.compile(model, dynamic=False)

        def forward(batch: torch.Tensor) -> torch.Tensor:
            if len(batch) != images:
                return model(batch)  # type: ignore[no-any-return]  # modules are untyped calls
            try:
                return compiled(batch)  # type: ignore[no-any-return]
            except Exception as problem:
                of_the_compiler = type(problem).__module__.startswith(("torch._dynamo", "torch._inductor"))
                if not of_the_compiler or out_of_memory(problem):
                    raise
                reason = str(problem).strip().partition("\n")[0][:200] or type(problem).__name__
                raise UserError(f"torch.compile fails here: {reason}. --compile off does without it.") from problem

        return forward

    def halved(self, batch_size: int, batch_norm: bool) -> Plan | None:
        """This plan with micro-batches of half the size; None below the floor of SMALLEST_MICRO_BATCH images.

        Where there is a CUDA graph, it goes first: its memory serves nothing else, and micro-batches may cost numbers.
        """
        if self.graphed:
            return replace(self, graphed=False, memory="out of memory: steps are not replayed from a CUDA graph")
        half = min(self.micro_batch or batch_size, batch_size) // 2
        if half < SMALLEST_MICRO_BATCH:
            return None
        memory = f"out of memory: the gradient of {batch_size} images is added up from {half} at a time"
        if batch_norm:
            memory += ", and so batch normalisation's statistics are of these"
        return replace(self, micro_batch=half, memory=memory, images_per_second=None)


def choose_plan(device: str, precision: str) -> Plan:
    """The plan for `--device` and `--precision` as far as it is known without a measurement.

    Raises UserError when this machine has no such device, or the device no such precision.
    """
    if device == "auto":  # a card that does not compute is then no reason to train on the processor for days
        device = given_device() or device
    device = find_working_device(device, say)
    reason = ASKED
    if precision == "auto":
        precision, reason = _half_precision(device)
    elif device == "cuda" and precision == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        raise UserError(
            f"--precision bf16: {device_name(device)} does not compute in bf16. Use fp16, or leave it to auto."
        )
    elif device == "mps" and precision == "fp16":
        # https://github.com/pytorch/pytorch/pull/186360: its fused optimizers take scaled gradients as they are
        raise UserError("--precision fp16: PyTorch's gradient scaling can't be relied on here. Use fp32 or bf16.")
    return Plan(device, device_name(device), precision, reason, usable_threads())


def keep_plan(kept: Mapping[str, Any], precision: str = "auto") -> Plan:
    """The plan that an interrupted run began with, from its record; raises UserError when its device is gone.

    Or when it is none, or not of the `precision` that is asked for: the record is damaged.
    """
    begun = Plan(**kept)
    if not begun.sound or precision not in ("auto", begun.precision):
        raise UserError("the record of this run holds a plan that is none: it is damaged. Start it over with --rerun.")
    torch.set_num_threads(begun.threads)
    try:
        plan = choose_plan(begun.device, begun.precision)
    except UserError as problem:
        raise UserError(
            f"this run was interrupted on {begun.device} ({begun.device_name}) and can't go on here: {problem}\n"
            "Go on where it began, or start it over with --rerun."
        ) from problem
    if plan.device_name != begun.device_name:
        say(f"note: this run began on {begun.device_name} and goes on on {plan.device_name}: its numbers may differ")
    return begun


def _leading(text: str) -> int:
    """The number that a text begins with; 0 where it begins otherwise."""
    first = text.partition(" ")[0]
    return int(first) if first.isdecimal() else 0


def _half_precision(device: str) -> tuple[str, str]:
    """The half precision that the device computes in, or fp32 where it has none, and why."""
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
