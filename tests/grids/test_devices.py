"""Cards that cells run on."""

from __future__ import annotations

import pytest
import torch

from grids.devices import find_slots


def test_cards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert find_slots("cuda", 1) == ["0", "1"]
    assert find_slots("cuda", 2) == ["0", "1", "0", "1"]
    assert find_slots("cpu", 1) == [None]
    assert find_slots("mps", 2) == [None, None]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "5, GPU-ab")
    assert find_slots("cuda", 1) == ["5", "GPU-ab"]
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert find_slots("cuda", 2) == ["5", "5"]
