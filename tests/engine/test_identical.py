"""Two runs of one seed on a processor end with the same bits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

import digits
from common import BACKBONES
from tests.conftest import Command, only_run

QUICK = "shufflenet"


def bits(folder: Path) -> dict[str, bytes]:
    """All that a run learned, and all that it said of the test images."""
    model = torch.load(folder / "checkpoint.pt", weights_only=True)["model"]
    found = {name: value.numpy().tobytes() for name, value in model.items()}
    with np.load(folder / "predictions.npz") as predictions:
        return found | {name: predictions[name].tobytes() for name in predictions.files}


@pytest.mark.parametrize(
    ("name", "threads"),
    [
        pytest.param(name, threads, marks=[] if (name, threads) == (QUICK, 1) else [pytest.mark.slow])
        for name in BACKBONES
        for threads in (1, 2)
    ],
)
def test_two_runs_of_a_seed(name: str, threads: int, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.training.plan.usable_threads", lambda: threads)
    # so slow that no random weights diverge
    line = f"-model {name} --weights none --lr 1e-6 --epochs 1 --shots 4 -bs 20 --plan off --no-cache --augment trivial"
    line += f" --size {96 if name == 'inception' else 32}"
    before = torch.get_num_threads()
    try:
        for out in ("one", "other"):
            torch.manual_seed(len(out))  # what was drawn before a run is nothing to it
            assert command(f"{line} --out {out}", digits.DATASET) == 0
            assert torch.get_num_threads() == threads
    finally:
        torch.set_num_threads(before)
    one, other = bits(only_run(Path("one"))), bits(only_run(Path("other")))
    assert one.keys() == other.keys()
    assert [key for key in one if one[key] != other[key]] == []
