"""What a pass over an image costs, counted without computing: by it, one backbone's speed tells of another's."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from math import log2

from common import BACKBONES
from engine.models.backbone import Backbone
from engine.models.names import find_backbone

# A training step takes about as long as so many multiply-accumulates more as its images have numbers that operators
# write, as there are weights to change, and as there are layers to call. With them, the time for one unit of work
# differs by 15 to 19 % (a standard deviation) between backbones and sizes of 32 to 256 pixels on one core and on two,
# and by 18 % on an RTX 3090, by timm's tables, all of which chose these constants together; with multiply-accumulates
# alone by 50 to 86 %. On a fast card, layers cost more than here: not measured.
OF_AN_ACTIVATION, OF_A_WEIGHT, OF_A_LAYER = 300, 400, 3.2e7
COUNTED_SIDE = 256  # pixels


@dataclass(frozen=True)
class _Counts:
    of_an_image: float  # in multiply-accumulates
    of_a_step: float


def work_of(model: str, size: tuple[int, int], batch_size: int) -> float | None:
    """An image's share of a step of training, in multiply-accumulates; None for a backbone that can't be built here.

    Counted at the nearest power of two up to COUNTED_SIDE, and taken to grow with the image's area from there, as it
    does but for rounding where attention has windows.
    """
    try:
        backbone = find_backbone(model, BACKBONES, by_user=False).backbone
    except Exception:  # whatever a record names
        return None
    area = size[0] * size[1]
    side = int(min(COUNTED_SIDE, 2 ** round(log2(area) / 2)))
    if counts := _counted(backbone, (side, side)):
        return counts.of_an_image * area / side**2 + counts.of_a_step / batch_size
    if counts := _counted(backbone, size):  # it may take no other
        return counts.of_an_image + counts.of_a_step / batch_size
    return None


@cache
def _counted(backbone: Backbone, size: tuple[int, int]) -> _Counts | None:
    from engine.models.cost import activations, without_numbers
    from engine.models.structure import macs

    try:
        built = without_numbers(backbone.at(size))
        of_an_image = macs(built, size) + OF_AN_ACTIVATION * float(activations(built, size))
        weights = sum(parameter.numel() for parameter in built.parameters())
        layers = sum(not any(module.children()) for module in built.modules())
    except Exception:  # whatever a builder of the user's own does
        return None
    return _Counts(of_an_image, OF_A_WEIGHT * weights + OF_A_LAYER * layers)
