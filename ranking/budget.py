"""What a search may cost: training images processed, or seconds, of all of its runs together."""

from __future__ import annotations

import argparse
import re
from dataclasses import dataclass

from engine.console import duration
from engine.errors import counted

UNITS = {"s": 1.0, "m": 60.0, "h": 3600.0}
EXPECTED = "Expected a time such as 45s, 30m or 2h, or training images processed such as images:100000"
MOST_SECONDS = 3600.0 * 24 * 365  # what is larger is a mistake
MOST_IMAGES = 10**15  # what is larger JSON's readers may round
# images that are trained on for a quarter of those of the full grid are what successive halving is to do with
SHARE_OF_GRID = 4


@dataclass(frozen=True)
class Budget:
    """One of the two."""

    images: int | None = None
    seconds: float | None = None

    def __str__(self) -> str:
        return images_text(self.images) if self.seconds is None else duration(self.seconds)

    @property
    def flag(self) -> str:
        """How a command line says it."""
        if self.seconds is None:
            return f"images:{self.images}"
        for unit in ("h", "m"):
            number = self.seconds / UNITS[unit]
            if number >= 1 and number == round(number, 2):
                return f"{number:g}{unit}"
        return f"{self.seconds:g}s"


def images_text(images: int | None) -> str:
    """So many images processed, for people."""
    return counted(images or 0, "training image")


def parse_budget(text: str) -> Budget:
    """What `--budget` says, a type for argparse: 45s, 30m, 2h, or images:100000."""
    word = text.strip()
    if match := re.fullmatch(r"images:([0-9]{1,15})", word):
        if images := int(match[1]):
            return Budget(images=images)
        raise argparse.ArgumentTypeError(f"{text!r:.40} is nothing to train with. {EXPECTED}")
    if match := re.fullmatch(r"([0-9]{1,9}(?:\.[0-9]{1,6})?)([smh])", word):
        seconds = float(match[1]) * UNITS[match[2]]
        if 0 < seconds <= MOST_SECONDS:
            return Budget(seconds=seconds)
        wrong = "no time at all" if not seconds else "longer than a year"
        raise argparse.ArgumentTypeError(f"{text!r:.40} is {wrong}. {EXPECTED}")
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", word):
        unit = f"is a number without its unit: {word}m are minutes, {word}h hours, images:{word} training images"
        raise argparse.ArgumentTypeError(f"{text!r:.40} {unit}")
    raise argparse.ArgumentTypeError(f"{text!r:.40} is no budget. {EXPECTED}")


def default_budget(candidates: int, images: int, full: int, beside: int = 0) -> Budget:
    """A quarter of what all candidates take in full: `full` epochs and so many passes `beside` of so many images each.

    Where that is less than an epoch of two, which is the least there is, an epoch of two.
    """
    return Budget(images=max(2 * (1 + beside) * images, candidates * (full + beside) * images // SHARE_OF_GRID))
