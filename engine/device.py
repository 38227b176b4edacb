"""What differs from one kind of device to another, beside the plan: memory, waiting, random numbers."""

from __future__ import annotations

import ctypes
import gc
import platform
from functools import cache

import torch

from engine.errors import UserError

# of glibc's malloc.h
_M_TRIM_THRESHOLD, _M_MMAP_MAX = -1, -4


def find_device(asked: str) -> str:
    """What `--device` means here: "cuda", "mps" or "cpu". Raises UserError when there is none of the kind."""
    available = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available(), "cpu": True}
    there = [kind for kind, yes in available.items() if yes]
    if asked == "auto":
        return there[0]
    if asked not in there:
        raise UserError(f"--device {asked}: PyTorch {torch.__version__} finds none here, only {' and '.join(there)}.")
    return asked


def prepare(device: str) -> None:
    """Set what speeds every run up on the device, for the whole process."""
    if device == "cuda":
        torch.backends.cudnn.benchmark = True  # every batch but the last has the same shape
        torch.set_float32_matmul_precision("high")  # TF32, where fp32 is asked for
        torch.backends.cudnn.allow_tf32 = True
    elif device == "cpu" and _is_glibc():
        # By default large blocks go back to the system when they are freed, and come again as pages to be filled with
        # zeros, one fault each: a fifth of a training step. A tenth more memory is the price of keeping them.
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_MAX, 0)
        libc.mallopt(_M_TRIM_THRESHOLD, -1)


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
