"""What differs from one kind of device to another."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from engine.device import free_memory, prepare, synchronize

FAULTS = """
import resource, sys
import torch
from engine.device import prepare

def step():
    return torch.ones(16, 2**20) + 1  # two blocks of 64 MiB

if sys.argv[1] == "prepared":
    prepare("cpu")
for _ in range(10):
    step()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    step()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="what is told to glibc")
def test_freed_memory_is_kept_instead_of_being_faulted_in_again() -> None:
    faults = {}
    for how in ("plain", "prepared"):
        done = subprocess.run(
            [sys.executable, "-c", FAULTS, how],
            cwd=Path(__file__).resolve().parents[1],
            capture_output=True,
            text=True,
            check=True,
        )
        faults[how] = int(done.stdout)
    assert faults["prepared"] < faults["plain"] / 20


def test_what_a_card_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    before = torch.get_float32_matmul_precision()
    try:
        prepare("cuda")
        assert torch.backends.cudnn.benchmark
        assert torch.backends.cudnn.allow_tf32
        assert torch.get_float32_matmul_precision() == "high"
    finally:
        torch.set_float32_matmul_precision(before)


def test_a_processor_is_never_waited_for() -> None:
    synchronize("cpu")
    free_memory("cpu")
