"""What a pass costs, counted without computing."""

from __future__ import annotations

from torch import nn

from engine.models.cost import activations


def test_activations_are_what_is_computed_into_memory_of_its_own() -> None:
    layers = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(inplace=True), nn.GELU(), nn.Flatten())
    model = nn.Sequential(layers, nn.Dropout(), nn.Linear(4 * 8 * 8, 5))
    # the convolution and GELU; what is in place, a view or dropped at random takes none
    assert activations(model, (8, 8)) == 2 * 4 * 8 * 8 + 5
