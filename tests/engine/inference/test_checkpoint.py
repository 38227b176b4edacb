"""Checkpoints, opened for use: what they hold is what the run had."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import common
import digits
from common import load
from engine.errors import UserError
from tests import toy
from tests.toy import TINY


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run on digits."""
    return toy.finished_run(tmp_path_factory.mktemp("runs"))


def test_the_logits_are_those_of_the_run(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(common.BACKBONES, "tiny", TINY)
    trained = load(run)
    assert trained.classes == tuple("0123456789")
    assert trained.preprocessing.stored_size == (8, 8)
    kept = np.load(run / "predictions.npz")
    with torch.inference_mode():
        test = digits.read(None).test.pixels()  # type: ignore[arg-type]
        logits = trained.model()(trained.preprocessing.to_input(torch.from_numpy(test))).numpy()
    np.testing.assert_allclose(logits, kept["logits"], atol=1e-5)


def changed(run: Path, place: Path, path: str, value: Any) -> Path:
    """A checkpoint that says something else at `path`."""
    content = torch.load(run / "checkpoint.pt", weights_only=True)
    content.pop("checksum", None)
    *above, name = path.split("/")
    within = content
    for each in above:
        within = within[each]
    within[name] = value
    torch.save(content, place / "changed.pt")
    return place / "changed.pt"


@pytest.mark.parametrize(
    ("path", "value"),
    [
        *(("model", value) for value in (5, None, "x", [1], {7: torch.ones(1)}, {"0.weight": 1})),
        *(("config/size", value) for value in ([10**9, 10**9], [10**30, 1], "16", ["16", "16"], [float("inf")] * 2)),
        *(("dataset/stored_size", value) for value in ([10**9, 10**9], [0, 8], [8.5, 8], [True, True])),
        *(("dataset/classes", value) for value in ([], [1, 2], ["a", "\ud800"], "0123456789", None)),
        *(("batch_size", value) for value in (0, -1, 1.5, "x", None, True, 10**30)),
        *(("plan", value) for value in ({}, {"colour": 1})),
        *((f"plan/{name}", value) for name, value in (("precision", "fp8"), ("layout", "XX"), ("threads", "x"))),
        ("plan/threads", -5),
        *(("normalisation/mean", value) for value in ([float("nan")] * 3, [10**400] * 3, "abc")),
        *(("seen", value) for value in (5, torch.ones(3), torch.ones(3, 4, dtype=torch.uint8))),
        ("backbone/name", 5),
    ],
)
def test_what_is_not_of_its_kind_is_damage(
    run: Path, tmp_path: Path, path: str, value: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(common.BACKBONES, "tiny", TINY)
    with pytest.raises(UserError, match="what it says of its run is damaged"):
        load(changed(run, tmp_path, path, value))


def test_a_size_that_the_backbone_does_not_take(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(common.BACKBONES, "tiny", replace(TINY, smallest=3))
    with pytest.raises(
        UserError, match=r"damaged \(tiny can't take images of 1x1 pixels: the smallest that works is 3x3"
    ):
        load(changed(run, tmp_path, "config/size", [1, 1]))


@pytest.mark.parametrize("name", ["tinier", "timm:", "gone.py:net", "a" * 300, f"{'a' * 300}.py:net"])
def test_a_backbone_that_is_not_known_is_named(run: Path, tmp_path: Path, name: str) -> None:
    with pytest.raises(UserError, match=f"is of the backbone {re.escape(name)}, which can't be built here"):
        load(changed(run, tmp_path, "backbone/name", name))


@pytest.mark.parametrize("state", [{}, {"0.weight": torch.ones(1)}])
def test_weights_that_do_not_fit(
    run: Path, tmp_path: Path, state: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(common.BACKBONES, "tiny", TINY)
    with pytest.raises(UserError, match="its weights are not of tiny as it is built here"):
        load(changed(run, tmp_path, "model", state)).model()


@pytest.mark.parametrize("name", ["a" * 300, "a\0b"])
def test_names_that_no_file_can_have(name: str) -> None:
    with pytest.raises(UserError, match="is not there"):
        load(name)
