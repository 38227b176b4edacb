"""What differs from one kind of device to another."""

import platform
import subprocess
import sys

import pytest
import torch

from engine.device import find_device, free_memory, prepare, synchronize
from engine.errors import UserError
from engine.paths import PROJECT

FAULTS = """
import resource
import torch
from engine.device import prepare

def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        torch.ones(16, 2**20) + 1  # two blocks of 64 MiB
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

faults()
plain = faults()
prepare("cpu")
faults()
print(plain, min(faults() for _ in range(3)))  # another thread's block can make the heap grow once
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="what is told to glibc")
def test_freed_memory_is_kept_instead_of_being_faulted_in_again() -> None:
    done = subprocess.run([sys.executable, "-c", FAULTS], cwd=PROJECT, capture_output=True, text=True, check=True)
    plain, prepared = map(int, done.stdout.split())
    assert prepared < plain / 20


@pytest.mark.parametrize(
    ("cuda", "mps", "expected"), [(True, True, "cuda"), (False, True, "mps"), (False, False, "cpu")]
)
def test_auto_is_the_best_there_is(monkeypatch: pytest.MonkeyPatch, cuda: bool, mps: bool, expected: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: mps)
    assert find_device("auto") == expected
    assert find_device("cpu") == "cpu"
    for kind, there in (("cuda", cuda), ("mps", mps)):
        if there:
            assert find_device(kind) == kind
        else:
            with pytest.raises(UserError, match=rf"--device {kind}: PyTorch \S+ finds none here, only .*cpu\."):
                find_device(kind)


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
