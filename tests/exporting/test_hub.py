"""A folder for timm and the hub."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import numpy as np
import pytest
import torch

import benchmarks.export
import export
from common import BACKBONES, load
from engine.errors import RunError
from engine.inference.preprocessing import Preprocessing
from engine.models.backbone import IMAGENET_MEAN, IMAGENET_STD
from exporting import hub as hub_form
from exporting.build import WRITE
from exporting.card import model_card
from exporting.facts import facts_of, without_folders
from exporting.timm_form import TimmForm

timm = pytest.importorskip("timm")
files = pytest.importorskip("safetensors.torch")


def test_a_network_that_timm_lacks(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "out"
    assert export.main([str(run), "--to", "hub", str(out)]) == 0
    printed = capsys.readouterr().out
    assert f"hf upload YOUR_NAME/YOUR_MODEL {out} ." in printed
    names = ["README.md", "config.json", "model.safetensors", "seen.safetensors"]
    assert sorted(path.name for path in out.iterdir()) == names
    config = json.loads((out / "config.json").read_text())
    trained = load(run)
    assert config["architecture"] == "tiny"
    assert config["label_names"] == list("0123456789")
    assert config["pretrained_cfg"]["mean"] == list(trained.preprocessing.mean)
    assert config["which_backbone"]["tensors"] == "model.safetensors"
    assert config["which_backbone"]["dataset"]["split"] == trained.record["dataset"]["split"]
    found = files.load_file(out / "model.safetensors")
    assert all(torch.equal(found[name], tensor) for name, tensor in trained.state.items())


@pytest.mark.parametrize(
    ("problem", "code", "says"),
    [
        (OSError(errno.ENOSPC, "No space left on device"), 3, "no space left on device"),
        (MemoryError(), 3, "out of memory"),
        (RuntimeError("out of memory"), 3, "out of memory"),
        (RunError("timm's resnet does not agree"), 0, "timm's resnet computes something else of images of"),
        (ValueError("timm's resnet does not agree"), 0, "timm's resnet does not take the weights"),
    ],
)
def test_timm_is_blamed_for_what_is_its_own(
    problem: Exception,
    code: int,
    says: str,
    run: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: object) -> None:
        raise problem

    out = tmp_path / "out"
    monkeypatch.setattr(hub_form, "timm_form", lambda _: TimmForm("resnet"))
    monkeypatch.setattr(hub_form, "_write_for_timm", fail)
    assert export.main([str(run), "--to", "hub", str(out)]) == code
    assert says in (capsys.readouterr().err if code else (out / "config.json").read_text())
    assert out.exists() == (code == 0)


def test_the_card_says_what_the_record_does(run: Path) -> None:
    hub = pytest.importorskip("huggingface_hub")
    trained = load(run)
    record = trained.record
    facts = facts_of(trained)
    card = hub.ModelCard(model_card(facts, None))
    (result,) = [each for each in card.data.eval_results if each.metric_type == "accuracy"]
    assert result.metric_value == record["test"]["top1"]
    assert result.dataset_name == "Digits"
    low, high = facts["metrics"]["top1_interval"]
    assert low < record["test"]["top1"] < high
    said = [f"{low:.2%} to {high:.2%}", record["dataset"]["split"], record["run"], "CC BY 4.0", "not pretrained"]
    assert [each for each in said if each not in card.text] == []


def test_the_card_takes_no_name_for_a_mark(run: Path) -> None:
    facts = facts_of(load(run))
    facts["classes"] = ["<script>", "[a](http://b)", "*x*", "a\nb: c"]
    facts["dataset"]["name"] = 'a"\n---\nb'
    card = model_card(facts, "resnet50")
    assert "<script>" not in card.replace("\\<script\\>", "")
    assert "[a](" not in card
    assert card.count("\n---\n") == 1


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("resnet", "resnet"),
        ("timm:resnet18.a1_in1k", "timm:resnet18.a1_in1k"),
        ("/home/ann/nets.py:wide", "nets.py:wide"),
    ],
)
def test_a_file_of_ones_own_is_named_without_its_folder(name: str, shown: str) -> None:
    assert without_folders(name) == shown


def test_what_inception_does_to_its_input_is_in_the_normalisation() -> None:
    ours = Preprocessing((4, 4), (4, 4), IMAGENET_MEAN, IMAGENET_STD)
    found = TimmForm("inception_v3", transforms_input=True).preprocessing(ours)
    np.testing.assert_allclose([*found.mean, *found.std], 0.5)


def test_names_of_tensors_as_timm_has_them(capsys: pytest.CaptureFixture[str]) -> None:
    """By a network whose names differ all; the others are slow."""
    benchmarks.export.main(["--models", "mobilenet", "--to", "hub", "--size", "64", "--stored", "8"])
    *_, line = capsys.readouterr().out.splitlines()
    assert line.endswith("| mobilenetv3_large_100, two files |")


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKBONES)
def test_every_backbone_in_every_form(name: str) -> None:
    """Of a size that all of them take."""
    line, found = benchmarks.export.row(name, 32, 96, list(WRITE))
    assert all(agreement is not None for agreement in found.values()), line
    in_timm = name not in ("wavemix", "shufflenet", "swin", "swinv2")
    assert line.endswith("| no |") != in_timm


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "size", "in_timm"), [("swin", 224, True), ("swin", 256, False), ("swinv2", 256, True)]
)
def test_windows_that_fit(name: str, size: int, in_timm: bool) -> None:
    """timm shifts an image and then pads it to whole windows, torchvision pads it first."""
    line, _ = benchmarks.export.row(name, 32, size, ["hub"])
    assert line.endswith("| no |") != in_timm, line
