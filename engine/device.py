"""What differs from one kind of device to another, beside the plan: memory, waiting, random numbers."""

from __future__ import annotations

import ctypes
import gc
import os
import platform
import re
import subprocess
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import joblib
import torch

from engine.errors import UserError
from engine.processes.peers import place

# of glibc's malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def find_device(asked: str) -> str:
    """What `--device` means here: "cuda", "mps" or "cpu". Raises UserError when there is none of the kind.

    PyTorch's word is taken for it: nothing is computed there, which would take memory of the device.
    """
    there = _kinds_there()
    if asked == "auto":
        return there[0]
    if asked not in there:
        raise UserError(f"--device {asked}: PyTorch {torch.__version__} finds none here, only {' and '.join(there)}.")
    return asked


def find_working_device(asked: str, note: Callable[[str], object]) -> str:
    """As find_device(), but a device that turns out not to compute is none.

    Where "auto" passes over one, `note` is given a line that says so. Raises UserError, with what is wrong and how to
    mend it, for one that was asked for.
    """
    if asked != "auto":
        found = find_device(asked)
        if reason := why_unusable(found):
            raise UserError(f"--device {found}: {_found(found)} does not compute: {reason}.\n{_remedy(found)}")
        return found
    for kind in _kinds_there():
        reason = why_unusable(kind)
        if not reason:
            break
        note(f"device     {_found(kind)} does not compute and is not used: {reason} (--device {kind} tells more)")
    return kind


def _kinds_there() -> list[str]:
    """Those that PyTorch knows of here, the fastest first."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    return [kind for kind, yes in available.items() if yes]


@cache
def why_unusable(kind: str) -> str:
    """Why nothing can be computed on the device, in PyTorch's first sentence; "" where it can.

    A card that PyTorch sees may be too old or too new for this build of it, taken by another process, or full.
    """
    if kind == "cpu":
        return ""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # whether what they warn of matters is found out here
            (torch.ones(1, device=kind) + 1).item()
    except (RuntimeError, AssertionError) as problem:
        return re.split(r"\.?(?:\s*\n|\. |$)", str(problem).strip())[0] or type(problem).__name__
    return ""


def _found(kind: str) -> str:
    """What is known of a device that does not compute."""
    if kind != "cuda":
        return processor_name()
    try:
        major, minor = torch.cuda.get_device_capability()
        return f"{torch.cuda.get_device_name()} (compute capability {major}.{minor})"
    except (RuntimeError, AssertionError):
        return "the CUDA device"


def _remedy(kind: str) -> str:
    """What can be done about a device that does not compute."""
    if kind != "cuda":
        return "Update macOS and PyTorch, or use --device cpu."
    built_for = torch.cuda.get_arch_list()
    about = f"PyTorch {torch.__version__} (CUDA {torch.version.cuda}) is built for {', '.join(built_for) or 'no card'}"
    try:
        supported = runs_on(built_for, torch.cuda.get_device_capability())
    except (RuntimeError, AssertionError):
        supported = True
    if not supported:
        return f"{about}: install a build for this card, as https://pytorch.org/get-started says, or use --device cpu."
    return f"{about}. See with nvidia-smi whether others use the card, or its driver is too old, or use --device cpu."


def runs_on(built_for: list[str], capability: tuple[int, int]) -> bool:
    """Whether code for such architectures ("sm_80", "compute_90") runs on a card of that compute capability.

    Machine code does on cards of the same major version and no lower minor one, PTX on all that are no older (CUDA C++
    Programming Guide, "Binary Compatibility" and "PTX Compatibility").
    """
    card = 10 * capability[0] + capability[1]
    for name in built_for:
        if match := re.match(r"(sm|compute)_(\d+)", name):
            built = int(match[2])
            if built <= card and (match[1] == "compute" or built // 10 == capability[0]):
                return True
    return False


def device_name(device: str) -> str:
    """What the card or chip is called; of a processor, which gives other numbers with other threads, their number.

    Of several processes that train together, how many there are comes first: their speed is that of all.
    """
    several = f"{count} x " if (count := place().count) > 1 else ""
    return f"{several}{_own_name(device)}"


def _own_name(device: str) -> str:
    if device == "cuda":
        return torch.cuda.get_device_name()
    if device == "mps":
        # older versions of PyTorch lack the function
        return str(getattr(torch.backends.mps, "get_name", processor_name)())
    threads = usable_threads()
    return f"{processor_name()}, {threads} thread{'s' if threads > 1 else ''}"


@cache
def usable_threads() -> int:
    """How many threads a processor's kernels may use: as PyTorch began, and as affinity and cgroup quota allow."""
    return min(torch.get_num_threads(), int(joblib.cpu_count()))


def processor_name() -> str:
    """The processor's, as the system calls it; on a Mac of Apple's, its graphics are of the same chip."""
    if platform.system() == "Darwin":
        command = ["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]
        try:
            name = subprocess.run(command, capture_output=True, text=True, timeout=10).stdout.strip()  # noqa: S603 (fixed)
        except (OSError, subprocess.TimeoutExpired):
            name = ""
    else:
        name = _model_name(Path("/proc/cpuinfo"))
    return name or platform.processor() or platform.machine()


def _model_name(cpuinfo: Path) -> str:
    """That of a Linux `cpuinfo` file; "" where it has none."""
    try:
        lines = cpuinfo.read_text().splitlines()
    except OSError:
        return ""
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def prepare(device: str, deterministic: bool = False) -> None:
    """Set what speeds every run up on the device, for the whole process.

    deterministic: on a card, only what gives the same bits each time, as far as PyTorch has it; not_deterministic()
    tells what it lacks. A processor's kernels do so anyway.
    """
    if device == "cuda" and deterministic:
        _make_deterministic()
    elif device == "cuda":
        torch.backends.cudnn.benchmark = True  # every batch but the last has the same shape
        torch.set_float32_matmul_precision("high")  # TF32, where fp32 is asked for
        torch.backends.cudnn.allow_tf32 = True
    elif device == "cpu" and _is_glibc():
        # By default large blocks go back to the system when they are freed, and come again as pages to be filled with
        # zeros, one fault each: a fifth of a training step. A tenth more memory is the price of keeping them.
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, -1)


@contextmanager
def as_found() -> Iterator[None]:
    """Leave to whoever else computes in this process the threads, random numbers and ways that PyTorch had before."""
    cudnn, threads = torch.backends.cudnn, torch.get_num_threads()
    ways = {name: getattr(cudnn, name) for name in ("benchmark", "deterministic", "allow_tf32")}
    precision, deterministic = torch.get_float32_matmul_precision(), torch.are_deterministic_algorithms_enabled()
    warn_only = torch.is_deterministic_algorithms_warn_only_enabled()
    try:
        with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
            yield
    finally:
        for name, value in ways.items():
            setattr(cudnn, name, value)
        torch.set_float32_matmul_precision(precision)
        torch.use_deterministic_algorithms(deterministic, warn_only=warn_only)
        torch.set_num_threads(threads)


def _make_deterministic() -> None:
    # read when cuBLAS is first used (https://docs.nvidia.com/cuda/cublas, "Results Reproducibility")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.backends.cudnn.benchmark = False  # a search by the clock
    torch.backends.cudnn.deterministic = True
    torch.use_deterministic_algorithms(True, warn_only=True)
    show = warnings.showwarning

    def note(message: Warning | str, category: type[Warning], *where: Any, **rest: Any) -> None:
        if "use_deterministic_algorithms" not in str(message):
            show(message, category, *where, **rest)
            return
        found = re.match(r"\S+(?= does not have a deterministic implementation)", str(message))
        _not_deterministic.add(found[0] if found else "cuBLAS" if "CuBLAS" in str(message) else str(message)[:100])

    warnings.showwarning = note
    warnings.filterwarnings("always", message=r"[\s\S]*use_deterministic_algorithms")


_not_deterministic: set[str] = set()


def not_deterministic() -> list[str]:
    """The operations that were met in this process and have no deterministic form, as PyTorch calls them, sorted."""
    return sorted(_not_deterministic)


def _is_glibc() -> bool:
    return platform.libc_ver()[0] == "glibc"


def synchronize(device: str) -> None:
    """Wait until the device has done all that it was given."""
    if device == "cuda":
        torch.cuda.synchronize()
    elif device == "mps":
        torch.mps.synchronize()


def free_memory(device: str) -> None:
    """Give back what nothing refers to any more."""
    gc.collect()
    if device == "cuda":
        torch.cuda.empty_cache()
    elif device == "mps":
        torch.mps.empty_cache()
    elif _is_glibc():
        ctypes.CDLL(None).malloc_trim(0)


def free_for_images(device: str) -> int:
    """Bytes of the device's own memory that nobody has taken; 0 where it has none: images lie in main memory anyway."""
    return torch.cuda.mem_get_info()[0] if device == "cuda" else 0


@cache
def copy_stream() -> torch.cuda.Stream:
    """The stream that images are sent to the card on: PyTorch keeps freed memory for the stream that it was taken on.

    One for each epoch would strand that of each.
    """
    return torch.cuda.Stream()


def random_state(device: str) -> dict[str, torch.Tensor]:
    """The state of the generators that dropout and stochastic depth draw from."""
    states = {"cpu": torch.get_rng_state()}
    if device == "cuda":
        states["cuda"] = torch.cuda.get_rng_state()
    elif device == "mps":
        states["mps"] = torch.mps.get_rng_state()
    return states


def set_random_state(states: dict[str, torch.Tensor], device: str) -> None:
    """Continue from what random_state() returned."""
    torch.set_rng_state(states["cpu"])
    if device == "cuda":
        torch.cuda.set_rng_state(states["cuda"])
    elif device == "mps":
        torch.mps.set_rng_state(states["mps"])
