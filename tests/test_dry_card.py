"""The tests of tests/cards/ on dry cards: PyTorch's CUDA side on a runtime that computes nothing.

Devices, dtypes, memory, copies and waits are those of a card; values are not.
"""

import os
import re
import subprocess
import sys

import pytest

from engine.paths import PROJECT
from tests.conftest import SHARED

DRY_CARD = SHARED / "drycard" / "drycard"
CARDS = PROJECT / "tests" / "cards"
T4 = {"DRY_CC": "75", "DRY_NAME": "Dry T4", "DRY_MEM_GB": "15"}
SMALL = {"DRY_MEM_GB": "1.2", "DRY_NAME": "Dry card of 1.2 GB"}


def on_card(arguments: list[str], **card: str) -> subprocess.CompletedProcess[str]:
    """What Python does with the arguments on a dry card of that kind."""
    environment = {**os.environ, "PYTHON": sys.executable, "OMP_NUM_THREADS": "1", **card}
    command = [str(DRY_CARD), sys.executable, *arguments]
    return subprocess.run(command, cwd=PROJECT, env=environment, capture_output=True, text=True)


@pytest.fixture(scope="module", autouse=True)
def dry_card() -> None:
    """It is built in the tests' own cache folder, with g++ and headers from PyPI."""
    problem = f"needs {DRY_CARD}" if not DRY_CARD.is_file() else ""
    if not problem:
        done = on_card(["-c", "import torch; assert (torch.ones(2, device='cuda') + 1).shape == (2,)"])
        if done.returncode:
            problem = f"the dry card can't be built or does not work: {done.stdout}{done.stderr}"
    if problem:
        (pytest.fail if os.environ.get("REQUIRE_SHARED_DATA") else pytest.skip)(problem)


def pass_on_card(arguments: list[str], passed: int, **card: str) -> None:
    """Fails unless so many tests, at least, pass on a dry card of that kind and none fails."""
    done = on_card(["-m", "pytest", "-q", "-p", "no:cacheprovider", *arguments], **card)
    assert done.returncode == 0, done.stdout[-20_000:] + done.stderr[-5_000:]
    count = re.search(r"(\d+) passed", done.stdout)
    assert count, done.stdout
    assert int(count[1]) >= passed, done.stdout


def test_on_a_card_with_bf16() -> None:
    pass_on_card(["-m", "cuda and not slow", str(CARDS)], 37)


def test_on_a_card_without_bf16() -> None:
    pass_on_card(["-m", "cuda and not slow", str(CARDS / "test_main.py")], 15, **T4)


@pytest.mark.slow
def test_on_a_small_card() -> None:
    pass_on_card(["-m", "cuda and not slow", str(CARDS / "test_main.py"), "-k", "small or end"], 7, **SMALL)


def test_a_card_that_does_not_compute_is_passed_over() -> None:
    code = "from engine.device import find_working_device; print(find_working_device('auto', print))"
    done = on_card(["-c", code], DRY_MEM_GB="0.0001")
    line, chosen = done.stdout.splitlines()
    assert line.startswith(
        "device     Dry H100 (compute capability 9.0) does not compute and is not used: CUDA out of mem"
    )
    assert chosen == "cpu"


@pytest.mark.slow
def test_launches_are_counted() -> None:
    script = str(PROJECT / "benchmarks" / "launches.py")
    done = on_card([script, "--models", "mobilenet", "--size", "32", "--markdown"])
    heads, _, counts, about = done.stdout.splitlines()
    assert heads == "| backbone | fp32 NCHW | fp32 NHWC | bf16 NCHW | bf16 NHWC | fp16 NCHW | fp16 NHWC |"
    name, *found = counts.strip("| ").split(" | ")
    assert name == "mobilenet"
    assert all(300 < int(count.replace(",", "")) < 1500 for count in found)
    assert about.endswith("compute capability 9.0, 64 images of 32 px")
    alone = subprocess.run([sys.executable, script], capture_output=True, text=True)
    assert alone.returncode == 2
    assert "drycard" in alone.stderr


@pytest.mark.slow
@pytest.mark.parametrize("card", [{}, T4], ids=["bf16", "fp16"])
def test_all_backbones(card: dict[str, str]) -> None:
    pass_on_card(["-m", "cuda", str(CARDS / "test_steps.py")], 30, **card)
    backbones = PROJECT / "tests" / "engine" / "models" / "test_backbones.py"
    pass_on_card(["-m", "cuda", str(backbones)], 12, **card)
