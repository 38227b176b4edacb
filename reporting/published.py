"""The published comparison: the order of its rows, and its ranking.

Jeevan & Sethi, "Which Backbone to Use", arXiv:2406.05612, version 3, table of the two best backbones of each domain.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

# as in common.BACKBONES and datasets.DATASETS, whose import takes seconds; a test holds them to be equal
BACKBONES = (
    *("resnet", "wavemix", "convnext", "swin", "swinv2", "efficientnet", "densenet", "mobilenet", "regnet"),
    *("resnext", "shufflenet", "inception"),
)
DATASETS = {  # key -> domain
    "cifar10": "natural",
    "cifar100": "natural",
    "tinyimagenet": "natural",
    "stanford_dogs": "natural",
    "flowers102": "natural",
    "cub200": "natural",
    "stanford_cars": "natural",
    "food101": "natural",
    "dtd": "texture",
    "ucmerced": "remote sensing",
    "eurosat": "remote sensing",
    "plantvillage": "plant",
    "plantclef": "plant",
    "galaxy10": "astronomy",
    "breakhis_40x": "medical",
    "breakhis_100x": "medical",
    "breakhis_200x": "medical",
    "breakhis_400x": "medical",
    "rsna": "medical",
}
BREAKHIS = "breakhis_"  # its magnifications are four rows of one dataset: the same patients
DOMAINS = ("natural", "texture", "remote sensing", "plant", "astronomy", "medical")

# domain -> (best, better); None: not known to this project
RANKING: dict[str, tuple[str, str | None]] = {
    "natural": ("convnext", "efficientnet"),
    "texture": ("convnext", "resnext"),
    "remote sensing": ("resnext", "efficientnet"),
    "plant": ("regnet", "convnext"),
    "astronomy": ("wavemix", "convnext"),
    "medical": ("wavemix", None),
    "overall": ("convnext", None),
}
NOTE = (
    "Published: Jeevan & Sethi, arXiv:2406.05612v3, the two best backbones of each domain, by their names here. Ours: "
    "the same protocol, in which test chooses the epoch. Only the order can be compared: the published accuracies are "
    "not at hand, nor are the lists behind the published random splits."
)


def in_order(names: Iterable[str], order: Iterable[str]) -> list[str]:
    """The names as `order` has them; those that it lacks follow, by name."""
    place = {name: index for index, name in enumerate(order)}
    return sorted(names, key=lambda name: (place.get(name, len(place)), name))


def beside_ours(rankings: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The published ranking beside a paper-protocol league's own, by scope."""
    rows = []
    for domain, (best, better) in RANKING.items():
        ranking = rankings.get(domain)
        told = ranking is not None and ranking["kind"] != "none"
        ours = list(ranking["backbones"]) if ranking is not None and told else None
        why = None if told else "no records" if ranking is None else str(ranking["answer"])
        rows.append({"domain": domain, "best": best, "better": better, "ours": ours, "why": why})
    return {"note": NOTE, "rows": rows}
