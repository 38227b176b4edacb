"""Heat maps: they lie where the evidence is, and leave the model and its surroundings as they were."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from benchmarks.pointing import SIDE, SIDES, play
from common import BACKBONES
from engine.data.part import Pixels
from engine.errors import UserError
from engine.inference.checkpoint import Trained
from engine.inference.preprocessing import Preprocessing
from predicting.explain import GRAD_CAM, OCCLUSION, Explainer, laid_over, windows
from tests.toy import TINY

SIZE = (32, 48)


def red_or_blue(layers: nn.Module | None = None) -> nn.Module:
    """Class 0 is how much red there is above a half, class 1 how much blue; pooled over an eighth of the sides."""
    first = nn.Conv2d(3, 2, 4, stride=4)
    with torch.no_grad():
        first.weight.zero_()
        first.weight[0, 0], first.weight[1, 2] = 1 / 16, 1 / 16
        first.bias.fill_(-0.5)  # type: ignore[union-attr]
    head = nn.Linear(2, 2, bias=False)
    with torch.no_grad():
        head.weight.copy_(torch.eye(2))
    return nn.Sequential(first, nn.ReLU(), layers or nn.AdaptiveAvgPool2d(1), nn.Flatten(), head)


class LastChannels(nn.Module):
    """As red_or_blue(), pooled by a function over (B, H, W, C)."""

    def __init__(self) -> None:
        super().__init__()
        self.first, _, _, _, self.head = red_or_blue().children()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        features = functional.relu(self.first(images).permute(0, 2, 3, 1), inplace=True)
        logits: torch.Tensor = self.head(features.mean((1, 2)))
        return logits


class Tokens(nn.Module):
    """As red_or_blue(), without a map of four dimensions behind the first layer."""

    def __init__(self) -> None:
        super().__init__()
        self.first, _, _, _, self.head = red_or_blue().children()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.first(images).flatten(2).relu().mean(2))
        return logits


class TwoPaths(nn.Module):
    """A path leads around the last feature map, so that the map is not all that the logits come from."""

    def __init__(self) -> None:
        super().__init__()
        self.model = red_or_blue()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        around = images.mean((2, 3))[:, :2]
        logits: torch.Tensor = self.model(images) + around
        return logits


def trained(size: tuple[int, int] = SIZE, stored: tuple[int, int] | None = None) -> Trained:
    """As much of a run as heat maps need."""
    return Trained(Path("run"), {}, {}, TINY, Preprocessing(stored or size, size, (0.0,) * 3, (1.0,) * 3))


def image(height: int = 32, width: int = 48) -> Pixels:
    """Black, with red at the top left and blue at the bottom right, of a quarter of the sides each."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 4, : width // 4, 0] = 255
    pixels[-height // 4 :, -width // 4 :, 2] = 255
    return pixels


METHODS = {
    "pooled": (red_or_blue, GRAD_CAM),
    "pooled by a function, channels last": (LastChannels, GRAD_CAM),
    "tokens": (Tokens, OCCLUSION),
    "two paths": (TwoPaths, OCCLUSION),
    "too few places": (lambda: nn.Sequential(nn.AvgPool2d((16, 4)), red_or_blue()), OCCLUSION),
    "places kept apart": (
        lambda: red_or_blue(nn.Sequential(nn.AdaptiveAvgPool2d((2, 1)), nn.Conv2d(2, 2, (2, 1)))),
        OCCLUSION,
    ),
}


@pytest.mark.parametrize(("make", "method"), METHODS.values(), ids=METHODS)
def test_the_method_is_one_that_suits_the_network(make: type[nn.Module], method: str) -> None:
    torch.manual_seed(0)
    size = (64, 64) if method == OCCLUSION else SIZE
    assert Explainer(trained(size), make(), "cpu").method == method


@pytest.mark.parametrize("make", [red_or_blue, LastChannels, Tokens], ids=[GRAD_CAM, "channels last", OCCLUSION])
def test_the_heat_lies_where_the_class_is(make: type[nn.Module]) -> None:
    explainer = Explainer(trained(), make(), "cpu")
    for label, colour in ((0, 0), (1, 2)):
        heat = explainer.heat(image(), label)
        assert heat.shape == SIZE
        assert heat.dtype == np.float32
        assert heat.min() >= 0
        assert heat.max() == 1
        inside = image()[..., colour] > 0
        assert inside[np.unravel_index(heat.argmax(), SIZE)]
        assert heat[inside].mean() > 5 * heat[~inside].mean()


def test_grad_cam_is_what_each_place_adds_to_the_logit() -> None:
    """By hand: the head has the unit matrix, so that the heat is the map of the class itself, enlarged."""
    torch.manual_seed(0)
    pixels = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), dtype=np.uint8)
    model = red_or_blue()
    heat = Explainer(trained(), model, "cpu").heat(pixels, 1)
    with torch.no_grad():
        own = model[:2](trained().preprocessing.to_input(torch.from_numpy(pixels)[None]))[:, 1:]  # type: ignore[index]
        grown = functional.interpolate(own, SIZE, mode="bilinear")[0, 0].numpy()
    np.testing.assert_allclose(heat, grown / grown.max(), atol=1e-5)


def test_nothing_speaks_for_the_class() -> None:
    heat = Explainer(trained(), red_or_blue(), "cpu").heat(np.zeros((*SIZE, 3), np.uint8), 0)
    assert heat.max() == 0


def test_a_network_that_has_diverged_gives_no_heat() -> None:
    model = red_or_blue()
    for parameter in model.parameters():
        nn.init.constant_(parameter, math.nan)
    explainer = Explainer(trained(), model, "cpu")
    assert explainer.heat(image(), 0).max() == 0
    assert explainer.overlay(image(), 0).size == (336, 224)


def test_stored_at_another_size() -> None:
    explainer = Explainer(trained(stored=(16, 24)), red_or_blue(), "cpu")
    assert explainer.heat(image(16, 24), 0).shape == SIZE
    assert explainer.overlay(image(16, 24), 0).size == (336, 224)


@pytest.mark.parametrize("make", [red_or_blue, Tokens], ids=[GRAD_CAM, OCCLUSION])
def test_the_model_stays_as_it_is(make: type[nn.Module]) -> None:
    model = make().train()
    before = copy.deepcopy(model.state_dict())
    Explainer(trained(), model, "cpu").heat(image(), 0)
    assert model.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in model.parameters())
    assert all(not module._forward_hooks and not module._backward_hooks for module in model.modules())
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("make", [red_or_blue, Tokens], ids=[GRAD_CAM, OCCLUSION])
def test_whatever_the_caller_has_switched_off(make: type[nn.Module]) -> None:
    expected = Explainer(trained(), make(), "cpu").heat(image(), 0)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        model = make().requires_grad_(False)
        heat = Explainer(trained(), model, "cpu").heat(image(), 0)
    np.testing.assert_array_equal(heat, expected)
    assert not torch.is_inference_mode_enabled()


def test_images_in_which_there_are_no_places() -> None:
    with pytest.raises(UserError, match=r"7x9 pixels.*8x8 at least"):
        Explainer(trained((7, 9)), red_or_blue(), "cpu")


def test_other_weights_give_other_heat() -> None:
    """A heat map that stayed would be one of the image, not of the model (Adebayo et al. 2018, arXiv 1810.03292)."""
    model = red_or_blue()
    red = Explainer(trained(), model, "cpu").heat(image(), 0)
    for name, weights in model.named_parameters():
        if name == "0.weight":
            weights.data = weights.flip(0).detach()
    blue = Explainer(trained(), model, "cpu").heat(image(), 0)
    np.testing.assert_allclose(blue, red[::-1, ::-1], atol=1e-6)
    assert np.abs(blue - red).max() == 1


@pytest.mark.parametrize("size", [(8, 8), (9, 31), (64, 48)])
def test_windows_leave_no_pixel_out(size: tuple[int, int]) -> None:
    masks = windows(size)
    assert masks.shape == (49, *size)
    assert masks.any(0).all()
    assert {int(mask.sum()) for mask in masks} == {-(-size[0] // 4) * -(-size[1] // 4)}


def test_overlays_are_large_enough_and_show_the_image_where_there_is_no_heat() -> None:
    pixels = np.random.default_rng(0).integers(0, 256, (300, 400, 3), dtype=np.uint8)
    heat = np.zeros((30, 40), np.float32)
    heat[:, 20:] = 1
    shown = laid_over(pixels, heat)
    assert shown.size == (400, 300)
    grey = pixels @ (0.299, 0.587, 0.114)
    drawn = np.asarray(shown, np.float32)
    assert np.abs(drawn[:, :190] - grey[:, :190, None]).max() < 2
    assert drawn[:, 210:, 0].min() > drawn[:, 210:, 2].min()
    assert laid_over(pixels[:28, :30], heat).size == (240, 224)


@pytest.mark.slow
@pytest.mark.parametrize("name", BACKBONES)
def test_the_heat_of_every_backbone_lies_on_the_evidence(name: str) -> None:
    result = play(name, SIDES.get(name, SIDE), 40)
    assert result["method"] == GRAD_CAM
    assert result["accuracy"] > 0.8
    assert result["hits"] > result["hits of another image"] + 0.2
