"""What differs from one kind of device to another."""

import os
import platform
import subprocess
import sys
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from engine.device import (
    device_name,
    find_device,
    find_working_device,
    free_memory,
    not_deterministic,
    prepare,
    processor_name,
    runs_on,
    synchronize,
    why_unusable,
)
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


NO_CODE = "CUDA error: no kernel image is available for execution on the device\nCompile with `TORCH_USE_CUDA_DSA`."
BUSY = "CUDA error: all CUDA-capable devices are busy or unavailable"
FULL = "CUDA out of memory. Tried to allocate 2.00 MiB. GPU 0 has a total capacity of 1 GiB."


class Card:
    """A card that PyTorch sees, and on which the first kernel ends as it is said."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.problem: Exception | None = None
        self.tries = 0
        self._ones = torch.ones
        patch.setattr(torch, "ones", self.ones)
        patch.setattr(torch.cuda, "is_available", lambda: True)
        patch.setattr(torch.backends.mps, "is_available", lambda: False)
        patch.setattr(torch.cuda, "get_device_name", lambda: "GeForce GTX 780")
        patch.setattr(torch.cuda, "get_device_capability", lambda: (3, 5))
        patch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_90"])

    def ones(self, *size: int, device: str = "cpu") -> torch.Tensor:
        self.tries += device == "cuda"
        if device == "cuda" and self.problem:
            raise self.problem
        return self._ones(*size)


@pytest.fixture
def card(monkeypatch: pytest.MonkeyPatch) -> Iterator[Card]:
    why_unusable.cache_clear()
    yield Card(monkeypatch)
    why_unusable.cache_clear()


def test_a_card_is_tried_once(card: Card) -> None:
    lines: list[str] = []
    assert [find_working_device(asked, lines.append) for asked in ("auto", "cuda", "auto", "cpu")] == [
        "cuda",
        "cuda",
        "cuda",
        "cpu",
    ]
    assert (card.tries, lines) == (1, [])


@pytest.mark.parametrize(
    ("problem", "words"),
    [
        (NO_CODE, "no kernel image is available for execution on the device ("),
        (BUSY, "all CUDA-capable devices are busy or unavailable ("),
        (FULL, "CUDA out of memory ("),
        ("", "RuntimeError ("),
    ],
)
def test_auto_passes_over_a_card_that_does_not_compute(card: Card, problem: str, words: str) -> None:
    card.problem = RuntimeError(problem)
    lines: list[str] = []
    assert find_working_device("auto", lines.append) == "cpu"
    (line,) = lines
    assert line.startswith("device     GeForce GTX 780 (compute capability 3.5) does not compute and is not used: ")
    assert words in line
    assert "\n" not in line


def test_the_next_best_takes_its_place(card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    card.problem = RuntimeError(NO_CODE)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert find_working_device("auto", print) == "mps"


def test_a_card_that_does_not_compute_is_an_error_where_it_is_asked_for(
    card: Card, monkeypatch: pytest.MonkeyPatch
) -> None:
    card.problem = RuntimeError(NO_CODE)
    with pytest.raises(UserError) as caught:
        find_working_device("cuda", print)
    message = str(caught.value)
    assert message.startswith(
        "--device cuda: GeForce GTX 780 (compute capability 3.5) does not compute: CUDA error: no k"
    )
    assert (
        f"PyTorch {torch.__version__} (CUDA {torch.version.cuda}) is built for sm_75, sm_90: install a build" in message
    )
    assert message.endswith("or use --device cpu.")
    why_unusable.cache_clear()
    card.problem = RuntimeError(BUSY)
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda: (7, 5))
    with pytest.raises(UserError, match="nvidia-smi"):
        find_working_device("cuda", print)


def test_a_card_that_does_not_even_tell_its_name(card: Card, monkeypatch: pytest.MonkeyPatch) -> None:
    card.problem = RuntimeError(BUSY)

    def fail() -> None:
        raise card.problem or AssertionError

    monkeypatch.setattr(torch.cuda, "get_device_capability", fail)
    with pytest.raises(UserError, match=r"--device cuda: the CUDA device does not compute: .*busy(.|\n)*nvidia-smi"):
        find_working_device("cuda", print)


@pytest.mark.parametrize(
    ("capability", "expected"), [((7, 0), False), ((7, 5), True), ((8, 9), True), ((9, 0), False), ((12, 1), True)]
)
def test_which_cards_code_is_for(capability: tuple[int, int], expected: bool) -> None:
    assert runs_on(["sm_75", "sm_80", "sm_86", "sm_120"], capability) is expected
    assert runs_on(["sm_50", "compute_70"], capability)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_a_card_computes() -> None:
    why_unusable.cache_clear()
    assert why_unusable("cuda") == ""


def test_names(monkeypatch: pytest.MonkeyPatch) -> None:
    assert processor_name()
    monkeypatch.setattr("engine.device.usable_threads", lambda: 1)
    assert device_name("cpu") == f"{processor_name()}, 1 thread"
    monkeypatch.setattr("engine.device.usable_threads", lambda: 4)
    assert device_name("cpu") == f"{processor_name()}, 4 threads"
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda: "a card")
    assert device_name("cuda") == "a card"


@pytest.mark.parametrize("ends", ["well", "badly"])
def test_names_on_a_mac(monkeypatch: pytest.MonkeyPatch, ends: str) -> None:
    asked: list[list[str]] = []

    def run(command: list[str], **_: Any) -> subprocess.CompletedProcess[str]:
        asked.append(command)
        if ends == "badly":
            raise FileNotFoundError(command[0])
        return subprocess.CompletedProcess(command, 0, "Apple M2\n", "")

    monkeypatch.setattr(platform, "system", lambda: "Darwin")
    monkeypatch.setattr(platform, "processor", lambda: "arm")
    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr("engine.device.usable_threads", lambda: 8)
    chip = "Apple M2" if ends == "well" else "arm"
    assert device_name("cpu") == f"{chip}, 8 threads"
    assert asked == [["/usr/sbin/sysctl", "-n", "machdep.cpu.brand_string"]]
    monkeypatch.setattr(torch.backends.mps, "get_name", lambda: "Apple M2 GPU", raising=False)
    assert device_name("mps") == "Apple M2 GPU"
    monkeypatch.delattr(torch.backends.mps, "get_name")
    assert device_name("mps") == chip


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        ("processor\t: 0\nmodel name\t: AMD EPYC: 7B13\nmodel name\t: two\n", "AMD EPYC: 7B13"),
        ("CPU part: 0xd40\n", "arm"),
    ],
)
def test_the_name_of_a_processor_under_linux(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cpuinfo: str, expected: str
) -> None:
    (tmp_path / "cpuinfo").write_text(cpuinfo)
    monkeypatch.setattr("engine.device.Path", lambda _: tmp_path / "cpuinfo")
    monkeypatch.setattr(platform, "system", lambda: "Linux")
    monkeypatch.setattr(platform, "processor", lambda: "arm")
    assert processor_name() == expected
    (tmp_path / "cpuinfo").unlink()
    assert processor_name() == "arm"


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


def test_a_card_is_told_to_be_deterministic_and_what_is_not_is_noted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CUBLAS_WORKSPACE_CONFIG", "x")
    del os.environ["CUBLAS_WORKSPACE_CONFIG"]
    monkeypatch.setattr("engine.device._not_deterministic", set())
    for name in ("benchmark", "deterministic"):
        monkeypatch.setattr(torch.backends.cudnn, name, name == "benchmark")
    rule = "but you set 'torch.use_deterministic_algorithms(True, warn_only=True)'. You can file an issue at x."
    with pytest.warns(UserWarning, match="another matter") as shown:  # noqa: PT031 (what is set is set back inside)
        try:
            prepare("cuda", deterministic=True)
            assert torch.are_deterministic_algorithms_enabled()
            assert (torch.backends.cudnn.benchmark, torch.backends.cudnn.deterministic) == (False, True)
            assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
            for _ in range(2):
                warnings.warn(f"b_cuda does not have a deterministic implementation, {rule}", stacklevel=1)
            warnings.warn(f"a_cuda does not have a deterministic implementation, {rule}", stacklevel=1)
            warnings.warn("another matter", stacklevel=1)
            assert not_deterministic() == ["a_cuda", "b_cuda"]
        finally:
            torch.use_deterministic_algorithms(False)
    assert [str(each.message) for each in shown] == ["another matter"]


def test_what_pytorch_says_of_an_operation_is_known() -> None:
    """It is what a processor says, too."""
    program = (
        "import torch\n"
        "from engine import device\n"
        "device._make_deterministic()\n"
        "torch.zeros(3).put_(torch.tensor([0, 0]), torch.ones(2))\n"
        "print(device.not_deterministic())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=PROJECT, capture_output=True, text=True, check=True)
    assert (done.stdout, done.stderr) == ("['put_']\n", "")


def test_a_processor_is_never_waited_for() -> None:
    synchronize("cpu")
    free_memory("cpu")
