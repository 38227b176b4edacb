"""Which errors are a lack of memory, and what is said of them."""

from typing import Any

import pytest

from engine.cli import run_command
from engine.errors import RunError, out_of_memory, surely_out_of_memory

SURELY: list[Exception] = [
    MemoryError(),
    RuntimeError("CUDA error: out of memory\nCUDA kernel errors might be asynchronously reported"),
    RuntimeError("CUDA driver error: out of memory"),
    RuntimeError("Failed to load the kernel: CUDA_ERROR_OUT_OF_MEMORY"),
    RuntimeError(
        "MPS backend out of memory (MPS allocated: 5.56 GB, other allocations: 1.10 GB, max allowed: 6.80 GB)."
    ),
    RuntimeError("Invalid buffer size: 9.75 GB"),
    RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED"),
]
PERHAPS: list[Exception] = [
    RuntimeError("GET was unable to find an engine to execute this computation"),
    RuntimeError("FIND was unable to find an engine to execute this computation"),
    RuntimeError("Unable to find a valid cuDNN algorithm to run convolution"),
    RuntimeError("CUDA error: CUBLAS_STATUS_NOT_INITIALIZED when calling `cublasCreate(handle)`"),
    RuntimeError("CUDA error: CUBLAS_STATUS_INTERNAL_ERROR when calling `cublasCreate(handle)`"),
    RuntimeError("cuDNN error: CUDNN_STATUS_NOT_INITIALIZED"),
    RuntimeError("cuDNN error: CUDNN_STATUS_INTERNAL_ERROR"),
]
NOT: list[Exception] = [
    RuntimeError("CUDA error: an illegal memory access was encountered"),
    RuntimeError("CUDA error: no kernel image is available for execution on the device"),
    RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED"),
    RuntimeError("CUDA error: CUBLAS_STATUS_INVALID_VALUE when calling `cublasSgemm`"),
    ValueError("mat1 and mat2 shapes cannot be multiplied"),
]


@pytest.mark.parametrize("problem", SURELY + PERHAPS + NOT, ids=str)
def test_a_lack_of_memory(problem: Exception) -> None:
    assert out_of_memory(problem) is (problem not in NOT)
    assert surely_out_of_memory(problem) is (problem in SURELY)


@pytest.mark.parametrize("problem", SURELY + PERHAPS, ids=str)
def test_the_librarys_own_words_stand_beside_the_advice(problem: Exception, capsys: Any) -> None:
    def command() -> None:
        raise problem

    assert run_command(command) == RunError.exit_code
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: out of memory")
    assert "Try a smaller -bs or --size." in line
    assert (str(problem) or type(problem).__name__).partition("\n")[0] in line
    assert ("or a library that does not work with this device" in line) is (problem in PERHAPS)
