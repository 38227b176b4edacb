"""Training images/s of each backbone: the plain way, this project's, and the ceiling, in one run on the same images.

python benchmarks/speed.py [--quick] [--models NAME ...] [--columns NAME ...] [--batch-size 32] [--size 256] [--out DIR]

plain    in a process of its own, as the published comparison's scripts do it: torchvision's ImageFolder, PIL,
         TrivialAugmentWide and resizing image by image in two workers, forward in fp32 and autocast around the loss
         alone, NCHW, AdamW as it comes, the loss read after every step; WaveMix from its package
step     plain's step alone, on one batch that stays where the model is
ours     the scripts' own loop: from the cache, augmented in batch, in the form that the plan chose
ceiling  ours' step alone, on one batch that stays where the model is

All four take turns, in an order that is reversed every round, after a warm-up. Plain's workers are in the middle of an
epoch, with full queues; making the images and the cache is in no figure (benchmarks/cache.py measures that). The plan
is measured anew for every backbone, and not remembered. What fails is a dash with its reason; speed.json is written
after each backbone. On a card that benchmarks/roofs.py knows, model FLOP utilisation and the card's roofs stand beside
the figures.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import common
from benchmarks.columns import Found, measure
from benchmarks.plain import CLASSES
from benchmarks.roofs import find_card, roofs, utilisation
from benchmarks.setting import COLUMNS, Setting, add_flags, prepared
from benchmarks.tables import medians, notes, plot, ratios, speed_table
from engine.cli import Help, run_command
from engine.console import say
from engine.environment import environment
from engine.errors import RunError
from engine.files import write_json
from engine.models.cost import activations

PUBLISHED = [name for name, entry in common.BACKBONES.items() if entry.published]
QUICK = ["resnet", "mobilenet", "shufflenet"]


def describe(name: str, found: Found, setting: Setting) -> dict[str, Any]:
    """What speed.json says of the backbone `name`."""
    result: dict[str, Any] = {
        "images_per_second": found.images_per_second,
        "failed": found.failed,
        "late": found.late,
        "seconds": found.seconds,
        "peak_memory_mib": found.peak_memory_mib,
        **found.ours,
    }
    result["ratios"] = ratios(result)
    card = find_card(setting.plan.device_name) if setting.plan.device == "cuda" else None
    if card and found.ours:
        precision, macs = result["plan"]["precision"], result["macs"]
        numbers = activations(common.build_model(name, CLASSES, "none"), setting.size)
        result["roofs"] = roofs(card, macs, numbers, precision)
        result["mfu"] = {
            column: utilisation(macs, rate, card.peak(precision))
            for column, rate in medians(result).items()
            if column in ("ours", "ceiling")
        }
    return result


def about(name: str, result: dict[str, Any]) -> list[str]:
    """What is said of a backbone as soon as it is measured."""
    gain = result["ratios"]
    rates = [f"{column} {rate:,.2f} images/s" for column, rate in medians(result).items()]
    lines = [f"{name}: {', '.join(rates) or 'nothing could be measured'}"]
    if gain.keys() >= {"gain", "loader", "form", "of_ceiling"}:
        lines.append(
            f"  {gain['gain']:.2f} times as fast = {gain['loader']:.2f} (no loading beside the step) x "
            f"{gain['form']:.2f} (the step) x {gain['of_ceiling']:.3f} (of the ceiling)"
        )
    if "plan" in result:
        lines.append(f"  {result['form']} in {result['plan_seconds']:.1f} s: {result['plan']['reason']}")
    return [*lines, *(f"  {note}" for note in notes({name: result}))]


def main() -> None:
    """Time every backbone, print the table and write speed.json and the plot."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Help)
    parser.add_argument("--columns", nargs="+", choices=COLUMNS, default=COLUMNS, metavar="NAME", help="default: all")
    parser.add_argument("--quick", action="store_true", help=f"{', '.join(QUICK)}, 2 rounds, batches of 16: minutes")
    add_flags(parser, PUBLISHED, "the published")
    arguments = parser.parse_args()
    if arguments.quick:
        arguments.models = QUICK
        arguments.rounds, arguments.batch_size = arguments.rounds or 2, arguments.batch_size or 16
    columns = [column for column in COLUMNS if column in arguments.columns]

    stem = arguments.out / "speed"
    results: dict[str, dict[str, Any]] = {}
    with prepared(arguments, columns) as setting:
        try:
            for name in arguments.models:
                results[name] = describe(name, measure(name, setting), setting)
                say(*about(name, results[name]))
                # now, so that an end by force takes nothing of it
                content = {**setting.describe(), "environment": environment(), "results": results}
                write_json(stem.with_suffix(".json"), content)
        finally:  # so far as an interruption let it come
            say(speed_table(results, columns))
    drawn = plot(results, columns, setting.title, stem.with_suffix(".png"))
    say(f"written to {stem}.json" + (f" and {stem}.png" if drawn else ""))
    if not any(medians(result) for result in results.values()):
        raise RunError("nothing could be measured: the reasons are above")


if __name__ == "__main__":
    sys.exit(run_command(main))
