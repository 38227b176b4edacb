"""What a card could do at most: its peak rates by its maker's data sheets, and the images/s that they allow.

Model FLOP utilisation (MFU) is the share of the peak that a model's own arithmetic reaches: 2 FLOP for each
multiply-accumulate, of which a training step does three times those of a forward pass (forward 1, backward 2), so
6 x MACs x images/s / peak. The definition is that of PaLM (arXiv 2204.02311, appendix B).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

FLOP_OF_A_MAC = 6  # in a training step
PASSES = 5  # over the activations in a training step: written and read forward, read, written and read backward


@dataclass(frozen=True)
class Card:
    """Peak rates of a card, dense: without structured sparsity."""

    half: float  # FLOP/s of matrix products in bf16 or fp16 with fp32 sums
    single: float  # FLOP/s in fp32: in TF32 where the card has it, as engine.device lets it
    bandwidth: float  # bytes/s of its memory
    source: str

    def peak(self, precision: str) -> float:
        """FLOP/s in "fp32", "bf16" or "fp16"."""
        return self.single if precision == "fp32" else self.half


H100 = "NVIDIA H100 Tensor Core GPU datasheet"
A100 = "NVIDIA A100 Tensor Core GPU datasheet"
# by what is in a card's name as PyTorch reports it; the first that fits
CARDS: Mapping[str, Card] = {
    "H200 NVL": Card(835e12, 417e12, 4.8e12, "NVIDIA H200 Tensor Core GPU datasheet (NVL)"),
    "H200": Card(989e12, 494e12, 4.8e12, "NVIDIA H200 Tensor Core GPU datasheet (SXM)"),
    "H100 NVL": Card(835e12, 417e12, 3.9e12, H100 + " (NVL)"),
    "H100 PCIe": Card(756e12, 378e12, 2.0e12, H100 + " (PCIe)"),
    "H100": Card(989e12, 494e12, 3.35e12, H100 + " (SXM)"),
    "A100-SXM4-40GB": Card(312e12, 156e12, 1.555e12, A100),
    "A100-PCIE-40GB": Card(312e12, 156e12, 1.555e12, A100),
    "A100 80GB PCIe": Card(312e12, 156e12, 1.935e12, A100),
    "A100-SXM4-80GB": Card(312e12, 156e12, 2.039e12, A100),
    "L40S": Card(362e12, 183e12, 0.864e12, "NVIDIA L40S datasheet"),
    "L4": Card(121e12, 60e12, 0.3e12, "NVIDIA L4 Tensor Core GPU datasheet"),
    "Tesla T4": Card(65e12, 8.1e12, 0.32e12, "NVIDIA T4 Tensor Core GPU datasheet"),
}


def find_card(name: str) -> Card | None:
    """The whole card of that name; None for one whose rates are not in CARDS, and for a slice of one (MIG)."""
    if " MIG " in f" {name} ":
        return None
    # whole words: an L40 is no L4
    return next((card for known, card in CARDS.items() if f" {known} " in f" {name} "), None)


def utilisation(macs: int, images_per_second: float, peak: float) -> float:
    """Model FLOP utilisation, 0 to 1: `macs` of an image's forward pass, `peak` in FLOP/s."""
    return FLOP_OF_A_MAC * macs * images_per_second / peak


def roofs(card: Card, macs: int, numbers: int, precision: str) -> dict[str, float]:
    """Images/s of training that `card` allows: its arithmetic ("compute"), and its "memory".

    Compute: 6 FLOP for each of the `macs` of a forward pass at the peak of `precision`. Memory: PASSES over the
    activations, so many `numbers`, at full bandwidth, one operator after the other: fused ones may need fewer passes.
    Weights and the optimizer, which a batch shares, are not in it.
    """
    width = 4 if precision == "fp32" else 2
    return {
        "compute": card.peak(precision) / (FLOP_OF_A_MAC * macs),
        "memory": card.bandwidth / (PASSES * width * numbers),
    }
