"""Backbones of timm: names and tags, heads, sizes, and weights from the cache of the Hugging Face hub."""

from __future__ import annotations

import builtins
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from common import BACKBONES, build_model, load
from engine.errors import UserError
from engine.files import read_json
from engine.models import timm_models
from engine.models.names import find_backbone
from engine.models.timm_models import saw_more_than_imagenet
from engine.models.weights import find_weights
from tests.conftest import Command, only_run

timm = pytest.importorskip("timm", reason="needs timm")
safetensors_torch = pytest.importorskip("safetensors.torch", reason="needs safetensors")
constants = pytest.importorskip("huggingface_hub", reason="needs huggingface_hub").constants

VIT, NET = "timm:test_vit.r160_in1k", "timm:test_efficientnet.r160_in1k"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A cache as the hub's library leaves it, with the weights of two small networks; nothing is fetched."""
    folder = tmp_path / "hub"
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(folder))
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for name in (VIT, NET):
        name = name.removeprefix("timm:")
        place = folder / f"models--timm--{name}"
        snapshot = place / "snapshots" / "0123"
        snapshot.mkdir(parents=True)
        (place / "refs").mkdir()
        (place / "refs" / "main").write_text("0123")
        torch.manual_seed(0)
        safetensors_torch.save_file(
            timm.create_model(name.partition(".")[0]).state_dict(), snapshot / "model.safetensors"
        )
    return folder


def test_the_tag_is_part_of_the_name() -> None:
    found = find_backbone("timm:test_vit", BACKBONES)
    assert found.name == found.row == VIT
    assert find_backbone(VIT, BACKBONES) == found
    assert found.backbone.weights.name == "timm/test_vit.r160_in1k"  # type: ignore[union-attr]
    assert find_backbone("timm:resnet50", BACKBONES).row == "timm:resnet50.a1_in1k"
    assert find_backbone("timm:resnet50.tv_in1k", BACKBONES).row == "timm:resnet50.tv_in1k"


@pytest.mark.parametrize("name", [VIT, NET])
def test_a_model_gives_what_timm_gives(name: str, hub: Path) -> None:
    torch.manual_seed(0)
    theirs = timm.create_model(name.removeprefix("timm:").partition(".")[0]).eval()
    ours = build_model(name, 7).eval()
    images = torch.randn(2, 3, 160, 160)
    with torch.inference_mode():
        expected = theirs.forward_head(theirs.forward_features(images), pre_logits=True)
        given: list[Any] = []
        ours.get_submodule(find_backbone(name, BACKBONES).backbone.head).register_forward_pre_hook(
            lambda _, inputs: given.append(inputs[0])
        )
        assert ours(images).shape == (2, 7)
    torch.testing.assert_close(given[0], expected)


def test_a_run_records_the_tag_and_its_own_normalisation(hub: Path, command: Command) -> None:
    line = "-model timm:test_vit -bs 32 --epochs 1 --size 32 --plan off"
    assert command(line) == 0
    run = only_run(Path("runs"))
    record = read_json(run / "record.json")
    assert record["backbone"]["name"] == VIT
    assert record["backbone"]["builder"] == "test_vit"
    assert record["backbone"]["weights"] == "timm/test_vit.r160_in1k"
    assert record["normalisation"] == {"mean": [0.5] * 3, "std": [0.5] * 3}
    assert record["environment"]["packages"]["timm"] == timm.__version__
    assert run.parent.name == "timm-test_vit.r160_in1k"
    assert load(run).model()(torch.zeros(1, 3, 32, 32)).shape == (1, 3)


def test_position_embeddings_are_resampled_for_the_size(hub: Path) -> None:
    backbone = find_backbone(VIT, BACKBONES).backbone
    assert backbone.at((64, 96)).build().get_parameter("pos_embed").shape[1] == 1 + 4 * 6
    weights = find_weights(backbone, "imagenet")
    from engine.models.weights import build

    model, own = build(backbone.at((64, 96)), VIT, 3, weights), build(backbone, VIT, 3, weights)
    assert model(torch.zeros(1, 3, 64, 96)).shape == (1, 3)
    torch.testing.assert_close(model.blocks[0].attn.qkv.weight, own.blocks[0].attn.qkv.weight)  # type: ignore[index, union-attr]
    assert find_backbone(NET, BACKBONES).backbone.at((64, 96)) == find_backbone(NET, BACKBONES).backbone


def test_a_file_of_a_models_weights_will_do(hub: Path, tmp_path: Path) -> None:
    (file,) = hub.glob("*test_vit*/snapshots/*/model.safetensors")
    copied = tmp_path / "mine.safetensors"
    copied.write_bytes(file.read_bytes())
    weights = find_weights(find_backbone(VIT, BACKBONES).backbone, str(copied))
    assert weights.mean == (0.5, 0.5, 0.5)
    ours, theirs = build_model(VIT, 3, str(copied)), build_model(VIT, 3)
    name = "patch_embed.proj.weight"
    torch.testing.assert_close(ours.get_parameter(name), theirs.get_parameter(name))


def test_weights_that_are_not_there_are_named(hub: Path) -> None:
    name = "timm:test_resnet"
    with pytest.raises(UserError, match=r"the weights timm/test_resnet\.r160_in1k can't be fetched: ") as caught:
        find_weights(find_backbone(name, BACKBONES).backbone, "imagenet")
    assert "hf_hub_download" in str(caught.value)
    assert str(hub) in str(caught.value)
    assert "--weights FILE" in str(caught.value)


def test_damaged_weights_are_named(hub: Path) -> None:
    (file,) = hub.glob("*test_vit*/snapshots/*/model.safetensors")
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(UserError, match=r"model\.safetensors \([\d,]+ bytes\) is no whole file of safetensors"):
        build_model(VIT, 3)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("timm:", "timm has no model ''"),
        ("timm:test_vti", "timm has no model 'test_vti'. Did you mean timm:test_vit"),
        ("timm:../test_vit", "timm has no model '../test_vit'"),
        ("timm:test_vit.", "timm has no weights '' of test_vit. Known: r160_in1k."),
        ("timm:test_vit.r161", "timm has no weights 'r161' of test_vit. Did you mean r160_in1k? Known: r160_in1k."),
        ("timm:deit_tiny_distilled_patch16_224", "has 2 heads (head, head_dist), and a backbone here has one"),
    ],
)
def test_what_timm_does_not_have(name: str, says: str) -> None:
    with pytest.raises(UserError, match=re.escape(says)):
        find_backbone(name, BACKBONES)


def test_a_head_that_is_no_linear_layer_is_refused() -> None:
    with pytest.raises(UserError, match=r"the head of timm:dla34 is a Conv2d, and a backbone here has a linear layer"):
        build_model("timm:dla34", 3, "none")


def test_a_size_that_it_does_not_take(hub: Path, command: Command, capfd: pytest.CaptureFixture[str]) -> None:
    assert command("-model timm:test_vit --size 40 -bs 32") == 2
    assert "this backbone can't take images of 40x40 pixels: " in capfd.readouterr().err


def test_without_timm_the_line_of_pip_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **named: Any) -> Any:
        if name.startswith("timm"):
            raise ModuleNotFoundError("No module named 'timm'")
        return real(name, *rest, **named)

    timm_models._found.cache_clear()
    monkeypatch.setattr(builtins, "__import__", without)
    with pytest.raises(UserError, match=r"-model timm:test_vit needs the package timm .*pip install 'timm>="):
        find_backbone("timm:test_vit", BACKBONES)


@pytest.mark.parametrize(
    ("tag", "more"),
    [
        ("a1_in1k", False),
        ("in1k", False),
        ("in1k_288", False),
        ("fb_dist_in1k", False),
        ("augreg_in21k_ft_in1k", True),
        ("fb_in22k", True),
        ("fb_swsl_ig1b_ft_in1k", True),
        ("ns_jft_in1k", True),
        ("lvd142m", True),
    ],
)
def test_what_weights_saw(tag: str, more: bool) -> None:
    assert saw_more_than_imagenet(f"timm/vit.{tag}") is more
