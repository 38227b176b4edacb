"""The published ranking.

Jeevan & Sethi, "Which Backbone to Use", arXiv:2406.05612, version 3, table of the two best backbones of each domain.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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


def beside_ours(rankings: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """The published ranking beside that of a comparable group under the paper protocol, by scope."""
    rows = []
    for domain, (best, better) in RANKING.items():
        ranking = rankings.get(domain)
        ranked = ranking is not None and ranking["kind"] != "none"
        ours = ranking["backbones"] if ranking and ranked else None
        why = None if ranked else ranking["answer"] if ranking else "no records"
        rows.append({"domain": domain, "best": best, "better": better, "ours": ours, "why": why})
    return {"note": NOTE, "rows": rows}
