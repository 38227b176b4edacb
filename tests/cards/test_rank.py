"""rank.py on a card: the form of its pass, and what it leaves there."""

import json
from pathlib import Path

import pytest
import torch

import common
import rank
from engine.device import free_memory
from tests import toy

pytestmark = pytest.mark.cuda


def test_images_pass_in_the_usual_form_and_leave_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("tiny", "tiny2"):
        monkeypatch.setitem(common.BACKBONES, name, toy.TINY)
    before = torch.cuda.memory_allocated()
    places = f"--out {tmp_path / 'runs'} --cache-dir {tmp_path / 'cache'}"
    line = f"digits --models tiny tiny2 --weights none --shots 10 --size 32 -bs 16 --device cuda --json {places}"
    assert rank.main(line.split()) == 0
    free_memory("cuda")
    # cuBLAS keeps what it computes in: up to 128 MiB
    assert torch.cuda.memory_allocated() - before <= 2**27
    answer = json.loads(capsys.readouterr().out)
    assert [each["speed_from"] for each in answer["backbones"]] == ["steps", "steps"]
    kept = [json.loads(path.read_bytes())["about"] for path in (tmp_path / "cache" / "features").glob("*.json")]
    half = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    assert [about["form"] for about in kept] == [f"{half} NHWC"] * 2
