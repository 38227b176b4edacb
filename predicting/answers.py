"""Logits -> what is said of an image: its likeliest classes with their probabilities, and whether they are too low."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.training.calibration import scaled

Logits = npt.NDArray[np.floating[Any]]
Probabilities = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Answer:
    """What became of an image."""

    path: str
    top: tuple[tuple[str, float], ...] = ()  # classes and their probabilities, the likeliest first
    label: str = ""  # what it is said to be; "": nobody says
    rejected: bool = False
    problem: str = ""  # why it could not be read


def probabilities(logits: Sequence[Logits], temperatures: Sequence[float]) -> Probabilities:
    """The mean of softmax(logits / temperature) over several logits (N, C), each with its own: float64 (N, C)."""
    total: Probabilities = np.zeros(logits[0].shape)
    for each, temperature in zip(logits, temperatures, strict=True):
        divided = scaled(each, temperature)
        powers = np.exp(divided - divided.max(axis=1, keepdims=True))
        total += powers / powers.sum(axis=1, keepdims=True)
    return total / len(logits)


def likeliest(chances: Probabilities, top: int) -> tuple[npt.NDArray[np.int64], Probabilities]:
    """Of (N, C) the `top` classes of each row, (N, top), of equals the first one first, and their probabilities."""
    order = np.argsort(-chances, axis=1, kind="stable")[:, :top]
    return order, np.take_along_axis(chances, order, axis=1)
