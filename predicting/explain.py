"""Which places of an image speak for a class: heat maps, and overlays of them.

Grad-CAM (Selvaraju et al. 2017, arXiv 1610.02391) on the feature map that the network pools over its places, Swin's
last tokens among them; where there is no such map, or it is too coarse, occlusion (Zeiler & Fergus 2014, arXiv
1311.2901). docs/explain.md has how far either is to be trusted.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from engine.data.part import Pixels
from engine.errors import UserError
from engine.inference.checkpoint import Trained

GRAD_CAM, OCCLUSION = "Grad-CAM", "occlusion"
FEWEST_PLACES = 4  # along a side of the feature map that Grad-CAM is of: coarser ones fare worse than occlusion
SAME = 1e-3  # of how far two images' logits are apart: what another order of summation may change
WINDOWS = 7  # along a side, each a quarter of it wide: neighbours overlap by half
WINDOWS_AT_ONCE = 7
SMALLEST = 8  # pixels: a window is to be wider than one
SMALLEST_OVERLAY = 224  # pixels, of the shorter side
MOST_OPAQUE = 0.65
# anchors of matplotlib's "inferno" (CC0), evenly spaced: its lightness grows with the value
INFERNO = np.array(
    ((0, 0, 4), (40, 11, 84), (101, 21, 110), (159, 42, 99), (212, 72, 66), (245, 125, 21), (250, 193, 39),
     (252, 255, 164)),
    np.float32,
)  # fmt: skip

Heat = npt.NDArray[np.float32]


@dataclass(frozen=True)
class PooledMap:
    """Where, in the order of what a pass computes, the feature map is that the network pools over its places."""

    index: int
    places: tuple[int, int]  # its dimensions that are height and width


class Explainer:
    """Heat maps of one model, which is copied and stays as it is; `method` names how they are made."""

    def __init__(self, trained: Trained, model: nn.Module, device: str) -> None:
        """`model` is that of `trained`, on any device. UserError: its images are too small to tell places apart."""
        self._preprocessing = trained.preprocessing
        self._device = device
        height, width = self._preprocessing.size
        if min(height, width) < SMALLEST:
            raise UserError(
                f"{trained.path}: its model takes images of {height}x{width} pixels, in which no places can be told "
                f"apart. Expected {SMALLEST}x{SMALLEST} at least: leave --explain out."
            )
        with torch.inference_mode(False):  # a copy made within it could have no gradients
            self._model = copy.deepcopy(model).cpu().float().eval().requires_grad_(False)
            self._map = find_pooled_map(self._model, (height, width))
            self._model.to(device)
        self.method = GRAD_CAM if self._map else OCCLUSION

    def heat(self, stored: Pixels, label: int) -> Heat:
        """(H, W) of the model's input, 0 to 1: how much each place speaks for class `label`, relative to the most.

        `stored` is an image uint8 (H, W, 3) of the stored size. All 0 where nothing speaks for the class; what
        is not finite, as in a network that has diverged, speaks for none.
        """
        kind = torch.device(self._device).type
        with torch.inference_mode(False), torch.enable_grad(), torch.autocast(kind, enabled=False):
            image = self._preprocessing.to_input(torch.from_numpy(np.array(stored))[None].to(self._device))
            if self._map:
                evidence = grad_cam(self._model, image, label, self._map)
            else:
                evidence = occlusion(self._model, image, label)
        evidence = evidence.cpu().nan_to_num(0, 0, 0).clamp(min=0)
        grown = functional.interpolate(
            evidence[None, None], self._preprocessing.size, mode="bilinear", align_corners=False
        )
        heat: Heat = grown[0, 0].numpy()
        most = float(heat.max())
        return heat / most if most > 0 else heat

    def overlay(self, stored: Pixels, label: int) -> Image.Image:
        """The stored image with heat() over it, at its own size, or enlarged where it is tiny."""
        return laid_over(stored, self.heat(stored, label))


def grad_cam(model: nn.Module, image: torch.Tensor, label: int, pooled: PooledMap) -> torch.Tensor:
    """What each place of the pooled map adds to the class's logit, to first order: float32 (h, w).

    The sum over channels of gradient x activation. As all places have the same gradient under a pooling, this is
    Grad-CAM's weighted sum, and HiResCAM's (Draelos & Carin 2020, arXiv 2011.08891), before what is negative is cut.
    """
    with Watch(pooled.index, lambda features: features.detach().requires_grad_()) as watch:
        logits = model(image)
    features = watch.last
    (gradient,) = torch.autograd.grad(logits[0, label], features)
    (channels,) = {1, 2, 3} - set(pooled.places)
    evidence: torch.Tensor = (gradient * features).sum(channels)[0]
    return evidence.detach()


@torch.no_grad()
def occlusion(model: nn.Module, image: torch.Tensor, label: int) -> torch.Tensor:
    """How much the class's log-probability falls where a window is blurred away: float32 (H, W) of the image's size.

    The mean over the windows that a pixel is in; a window is a quarter of the image's sides.
    """
    size = (image.shape[-2], image.shape[-1])
    blurred = functional.interpolate(
        functional.adaptive_avg_pool2d(image, 4), size, mode="bilinear", align_corners=False
    )
    masks = windows(size).to(image.device)
    whole = model(image).log_softmax(1)[0, label]
    falls = [
        whole - model(torch.where(some[:, None], blurred, image)).log_softmax(1)[:, label]
        for some in masks.split(WINDOWS_AT_ONCE)
    ]
    weights = masks.float()
    return (torch.cat(falls)[:, None, None] * weights).sum(0) / weights.sum(0)


def windows(size: tuple[int, int]) -> torch.Tensor:
    """bool (49, H, W): the pixels of each window, of which every pixel is in one at least."""
    sides = []
    for side in size:
        width = -(-side // 4)
        starts = torch.linspace(0, side - width, WINDOWS).round()[:, None]
        pixels = torch.arange(side)[None]
        sides.append((pixels >= starts) & (pixels < starts + width))
    rows, columns = sides
    return (rows[:, None, :, None] & columns[None, :, None, :]).flatten(0, 1)


def find_pooled_map(model: nn.Module, size: tuple[int, int], fewest: int = FEWEST_PLACES) -> PooledMap | None:
    """The last feature map of `model` (on the processor, evaluated), where Grad-CAM on it is sound and fine enough.

    Sound means: all that the logits take from an image passes through it, and where in it is of no account. It is
    tried: the logits are to stay when the network looks at another image, and is given the map of this one with its
    places shuffled. None: there is no such map, or it has fewer than `fewest` places along a side.
    """
    random = torch.Generator().manual_seed(0)
    noise = torch.randn(1, 3, *size, generator=random)
    smooth = functional.interpolate(noise[..., :4, :4], size, mode="bilinear", align_corners=False)
    with torch.no_grad():
        with Watch() as watch:
            logits = model(noise)
        features = watch.last
        if features.ndim != 4:
            return None
        apart = (model(smooth) - logits).abs().max()
        for places in ((2, 3), (1, 2)):
            with Watch(watch.index, partial(_instead, shuffled(features, places, random))):
                off = (model(smooth) - logits).abs().max()
            if apart > 0 and off <= SAME * apart:
                enough = min(features.shape[side] for side in places) >= fewest
                return PooledMap(watch.index, places) if enough else None
    return None


def shuffled(features: torch.Tensor, places: tuple[int, int], random: torch.Generator) -> torch.Tensor:
    """The map with its places in another order, the same for all channels and images."""
    first, second = places
    height, width = features.shape[first], features.shape[second]
    order = torch.randperm(height * width, generator=random)
    mixed: torch.Tensor = features.flatten(first, second).index_select(first, order).unflatten(first, (height, width))
    return mixed


def _instead(put: torch.Tensor, found: torch.Tensor) -> torch.Tensor:
    """The former; the latter where it is of another kind, so that a network that computes now this, now that fails."""
    return put if put.shape == found.shape else found


class Watch(TorchFunctionMode):
    """Within it, what PyTorch's functions return is counted, and `last` is the last of it that has places.

    Functions and not layers, since a network may pool, or take the last ReLU, without a layer. With an index, what is
    counted there is replaced by what `put` makes of it, and is `last`.
    """

    last: torch.Tensor

    def __init__(self, index: int | None = None, put: Callable[[torch.Tensor], torch.Tensor] | None = None) -> None:
        super().__init__()
        self.index = -1  # of `last`
        self._wanted, self._put, self._count = index, put, 0
        self.last = torch.empty(0)

    def __torch_function__(
        self,
        function: Callable[..., Any],
        types: Sequence[type],
        args: Sequence[Any] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """What the function returns, or what is put in its place."""
        result = function(*args, **(kwargs or {}))
        if not isinstance(result, torch.Tensor):
            return result
        index, self._count = self._count, self._count + 1
        if self._wanted is None:
            # (B, 1, 1, C) is no map, but what a pooling has left
            if result.ndim >= 3 and sum(side > 1 for side in result.shape[1:]) > 1:
                self.index, self.last = index, result
        elif index == self._wanted and self._put:
            result = self.last = self._put(result)
        return result


def laid_over(stored: Pixels, heat: Heat) -> Image.Image:
    """The image, enlarged where it is tiny, with the heat map over it: grey where nothing is, light where most is."""
    height, width = stored.shape[:2]
    scale = max(1, -(-SMALLEST_OVERLAY // min(height, width)))
    size = (width * scale, height * scale)
    picture = Image.fromarray(stored).resize(size, Image.Resampling.BICUBIC)
    strength = np.asarray(Image.fromarray(heat).resize(size, Image.Resampling.BILINEAR)).clip(0, 1)
    grey = np.asarray(picture.convert("L"), np.float32)[..., None].repeat(3, 2)
    anchors = np.linspace(0, 1, len(INFERNO))
    colours = np.stack([np.interp(strength, anchors, channel) for channel in INFERNO.T], 2)
    opacity = MOST_OPAQUE * strength[..., None]
    return Image.fromarray((grey * (1 - opacity) + colours * opacity).round().clip(0, 255).astype(np.uint8))
