"""What cards could do at most."""

import pytest

from benchmarks.roofs import CARDS, Card, find_card, roofs, utilisation
from common import build_model
from engine.models.cost import activations
from engine.models.structure import macs


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("NVIDIA H100 80GB HBM3", "H100"),
        ("NVIDIA H100 PCIe", "H100 PCIe"),
        ("NVIDIA H100 NVL", "H100 NVL"),
        ("NVIDIA H200", "H200"),
        ("NVIDIA A100-SXM4-40GB", "A100-SXM4-40GB"),
        ("NVIDIA A100 80GB PCIe", "A100 80GB PCIe"),
        ("NVIDIA L4", "L4"),
        ("NVIDIA L40S", "L40S"),
        ("Tesla T4", "Tesla T4"),
    ],
)
def test_a_card_is_known_by_its_name(name: str, known: str) -> None:
    assert find_card(name) is CARDS[known]


@pytest.mark.parametrize(
    "name",
    ["NVIDIA L40", "NVIDIA GeForce RTX 3090", "AMD EPYC, 2 threads", "H1000", "NVIDIA H100 80GB HBM3 MIG 1g.10gb"],
)
def test_another_card_is_unknown(name: str) -> None:
    assert find_card(name) is None


def test_peaks_are_those_of_the_precision() -> None:
    """A tensor core does twice as much in half precision as in TF32, by the makers' data sheets, but for the T4."""
    for name, card in CARDS.items():
        assert card.peak("bf16") == card.peak("fp16") == card.half
        assert card.half / card.peak("fp32") == pytest.approx(8 if name == "Tesla T4" else 2, rel=0.02)
        assert card.source


def test_utilisation_is_of_six_flop_a_mac() -> None:
    # an hour of arithmetic: 5 GMACs x 6 x 1000 images/s are 30 TFLOP/s, of 300
    assert utilisation(5_000_000_000, 1000.0, 300e12) == pytest.approx(0.1)


@pytest.mark.parametrize(
    ("backbone", "compute", "memory_ms"), [("resnet", 24_700, 6), ("mobilenet", 470_000, 3), ("shufflenet", 173_000, 3)]
)
def test_roofs_agree_with_a_count_by_others(backbone: str, compute: float, memory_ms: float) -> None:
    """Batches of 64 at 256x256 in bf16, at 790 TFLOP/s and 3.0 TB/s; memory's milliseconds came rounded to one."""
    card = Card(790e12, 395e12, 3.0e12, "a test")
    model = build_model(backbone, 101, "none")
    found = roofs(card, macs(model, (256, 256)), activations(model, (256, 256)), "bf16")
    assert found["compute"] == pytest.approx(compute, rel=0.01)
    assert 64 / found["memory"] * 1000 == pytest.approx(memory_ms, abs=0.5)
    # twice the bytes, half the arithmetic
    single = roofs(card, macs(model, (256, 256)), activations(model, (256, 256)), "fp32")
    assert single == pytest.approx({name: roof / 2 for name, roof in found.items()})
