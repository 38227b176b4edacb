"""The backbones of one dataset: which are better than guessing, which is best, and what speed costs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

from engine.errors import counted
from reporting import outcomes
from reporting.chance import Chance, beats_chance, chance_of
from reporting.comparable import Repeats
from reporting.costs import geometric_mean
from reporting.statistics import EQUAL

CLOSE = 0.01  # accuracies that differ by no more than this, or by one test image, are as good as each other in practice
FASTER = 1.5  # times as fast is worth a sentence
SMALL_LOSS, LARGEST_LOSS = 0.02, 0.1  # of accuracy, for speed


@dataclass(frozen=True)
class OneDataset:
    """The backbones that were run on one dataset with one budget."""

    cells: Mapping[str, Repeats]  # by backbone

    @cached_property
    def means(self) -> dict[str, float]:
        """Backbone -> mean top-1, the highest first."""
        means = {name: cell.mean() for name, cell in self.cells.items()}
        return dict(sorted(means.items(), key=lambda item: -item[1]))

    @cached_property
    def ordered(self) -> list[str]:
        """The backbones, the best first."""
        return list(self.means)

    @cached_property
    def images(self) -> int:
        """Of the test part."""
        return self.cells[self.ordered[0]].runs[0].version.test_images

    @cached_property
    def chance(self) -> Chance:
        """What guessing gives."""
        return chance_of(self.cells[self.ordered[0]])

    @cached_property
    def good(self) -> list[str]:
        """Those that are better than guessing, the best first."""
        return [name for name in self.ordered if beats_chance(self.cells[name], self.chance, len(self.cells))]

    @cached_property
    def short(self) -> list[str]:
        """Those that have too few trainings for a claim."""
        return [name for name, cell in self.cells.items() if not cell.enough]

    @cached_property
    def marks(self) -> dict[str, str]:
        """Backbone -> "best", "tied" with it, or "", which is below it by more than chance gives.

        Not of those that have more right than the best that is better than guessing: they may find one class alone.
        """
        from_best = self.ordered[self.ordered.index(self.good[0]) :] if self.good else self.ordered
        return outcomes.marks({name: self.cells[name] for name in from_best})[0]

    @cached_property
    def even(self) -> list[str]:
        """Those that can't be told apart from the best, and are better than guessing, the best first."""
        return [name for name in self.good if self.marks[name]] or self.good[:1]  # of one, nothing is marked

    @cached_property
    def below(self) -> list[str]:
        """Those that are not as good as the best by more than chance gives; only where none is short of seeds."""
        return [name for name, mark in self.marks.items() if not mark and name not in self.even]

    @cached_property
    def close(self) -> float:
        """A difference that nobody would pay for: see CLOSE."""
        return max(CLOSE, 1 / max(1, self.images)) + EQUAL

    @cached_property
    def speeds(self) -> dict[str, float]:
        """How fast each backbone is, in what `speed_words` says; empty where that is not known of all."""
        trainings = [entry for cell in self.cells.values() for entry in cell.trainings]
        name = "train_images_per_second"
        known = {
            backbone: geometric_mean([entry.results.costs.get(name) for entry in cell.runs if entry.results])
            for backbone, cell in self.cells.items()
        }
        speeds = {backbone: speed for backbone, speed in known.items() if speed is not None}
        if len(speeds) == len(known) and len({entry.provenance.hardware for entry in trainings}) == 1:
            return speeds
        return {}

    @cached_property
    def lightness(self) -> dict[str, float]:
        """The inverse of what each backbone computes for an image; empty where that is not known of all."""
        macs = {name: _macs(cell) for name, cell in self.cells.items()}
        return {name: 1 / value for name, value in macs.items() if value} if all(macs.values()) else {}

    def times(self, fast: str, slow: str) -> str:
        """How much faster the first is, in words; "" where it is not, or it is not known."""
        speeds = self.speeds or self.lightness
        if not speeds or speeds[fast] < FASTER * speeds[slow]:
            return ""
        ratio = speeds[fast] / speeds[slow]
        number = f"{ratio:.1f}" if ratio < 10 else f"{ratio:,.0f}"
        if self.speeds:
            return f"{number} times as fast (images/s in training on {self.machine})"
        return f"{number} times less to compute (GMACs an image)"

    @property
    def machine(self) -> str:
        """What the first was trained on."""
        return self.cells[self.ordered[0]].runs[0].provenance.hardware

    def cheapest(self, names: Sequence[str]) -> str:
        """The fastest of these, or the first of them where that is not known."""
        speeds = self.speeds or self.lightness
        return max(names, key=lambda name: speeds[name]) if speeds else names[0]

    def quick(self, best: str) -> str:
        """A backbone that is much faster than this one, for little less accuracy; "" where there is none."""
        losses = {
            name: self.means[best] - self.means[name]
            for name in self.good
            if name != best and self.times(name, best) and 0 <= self.means[best] - self.means[name] <= LARGEST_LOSS
        }
        if little := [name for name, loss in losses.items() if loss <= max(SMALL_LOSS, self.close)]:
            return self.cheapest(little)
        return min(losses, key=lambda name: losses[name]) if losses else ""

    def result(self, name: str) -> str:
        """What share of the test images it got right, and over how many trainings."""
        seeds, folds = len(self.cells[name].runs), len(self.cells[name].runs[0].folds)
        trainings = "one training" if seeds == 1 else f"average of {seeds} trainings"
        images = counted(self.images, "test image")
        if folds:
            images = counted(self.images, "image")
            trainings = f"each tested once, by one of {folds} trainings"
            trainings += f"; average of {seeds} times {folds}" if seeds > 1 else ""
        return f"{share(self.means[name])} of {images} right ({trainings})"


def _macs(cell: Repeats) -> float | None:
    return geometric_mean([entry.results.costs.get("macs") for entry in cell.runs if entry.results])


def share(value: float) -> str:
    """A share as sentences have it."""
    return f"{100 * value:.1f} %"
