"""What a pass over an image costs, counted without computing: by it, one backbone's speed tells of another's."""

from __future__ import annotations

from functools import cache
from math import log2

from common import BACKBONES
from engine.models.names import find_backbone

# A pass over an image takes about as long as so many multiply-accumulates more as there are numbers that its operators
# write: with it, the time for one unit of work differs by 15 % (a standard deviation) among the published backbones on
# two cores, without by 50 %; on an RTX 3090, by timm's tables, by 19 % and 62 %.
MACS_OF_AN_ACTIVATION = 250
COUNTED_SIDE = 256  # pixels


def work_of(model: str, size: tuple[int, int]) -> float | None:
    """What a pass over one image costs, in multiply-accumulates; None for a backbone that can't be built here.

    Counted at the nearest power of two up to COUNTED_SIDE, and taken to grow with the image's area from there, as it
    does but for rounding where attention has windows.
    """
    area = size[0] * size[1]
    side = int(min(COUNTED_SIDE, 2 ** round(log2(area) / 2)))
    if near := _counted(model, (side, side)):
        return near * area / side**2
    return _counted(model, size)  # it may take no other


@cache
def _counted(model: str, size: tuple[int, int]) -> float | None:
    from engine.models.cost import activations, without_numbers
    from engine.models.structure import macs

    try:
        built = without_numbers(find_backbone(model, BACKBONES, by_user=False).backbone.at(size))
        return macs(built, size) + MACS_OF_AN_ACTIVATION * float(activations(built, size))
    except Exception:  # whatever a record names, or a builder of the user's own does
        return None
