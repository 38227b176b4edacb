"""How many wrong labels are found: real images, some of which get another class's label, and real networks.

REAL=DIR python benchmarks/label_errors.py [--sets eurosat cifar10 food10 dtd10] [--tune linear full] [--seeds 2]

Images and networks are those of benchmarks/real_networks.py; a share of the labels, drawn at random, becomes another
class, drawn at random. Each set is cross-validated by the project's own runs, and what `--suspects` names of it is
compared with what was changed. Labels that were wrong before count as right: so precision is, if anything, too low. A
second command with the same --out goes on with the first.
"""

from __future__ import annotations

import argparse
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import common
from benchmarks.real_networks import DATASETS, REAL
from common import Dataset, Part, RawSplits, ReadOptions
from engine.cli import Help, share, whole
from engine.console import say, table
from engine.environment import environment
from engine.files import write_json
from engine.records.mistakes import likely_label_errors
from predicting.suspects import HeldOut, held_out

SETS = {"eurosat": 64, "cifar10": 128, "food10": 128, "dtd10": 128}  # the side that images are given at
SIDE = 64  # of other sets
TUNES = {  # flags of a run that trains the last layer, and of one that trains all
    "linear": ("--tune", "linear", "--augment", "none", "--epochs", "30", "--lr", "1e-3"),
    "full": ("--augment", "none", "--epochs", "8"),
}
FLAGS = ("-model", "tf2", "-bs", "16", "--recipe", "cosine", "--plan", "off", "--precision", "fp32", "--device", "cpu")
FOLDS = 5


@dataclass(frozen=True)
class Found:
    """What of the changed labels was found in one set of images."""

    images: int
    changed: int
    accuracy: float  # of the predictions, against the labels before the change
    named: int
    precision: float  # of those named, how many were changed
    recall: float  # of those changed, how many are named
    first: float  # precision of the first so many as were changed
    suggested: float  # of those changed and named, how many have their own class suggested


def changed(part: Part, portion: float, classes: int, seed: int) -> Part:
    """The part with another label for such a portion of its images, at random."""
    random = np.random.default_rng(seed)
    chosen = random.permutation(len(part.labels))[: round(portion * len(part.labels))]
    labels = part.labels.copy()
    labels[chosen] = (labels[chosen] + random.integers(1, classes, len(chosen))) % classes
    return replace(part, labels=labels)


def read(name: str, portion: float, options: ReadOptions) -> RawSplits:
    """A set of images, each part of it with changed labels."""
    raw = DATASETS[name].read(options)
    train, val, test = (changed(part, portion, len(raw.classes), seed) for seed, part in enumerate(parts_of(raw)))
    return replace(raw, train=train, val=val, test=test)


def parts_of(raw: RawSplits) -> tuple[Part, Part, Part]:
    """Train, val and test, which all of these sets have."""
    assert raw.val
    return raw.train, raw.val, raw.test


def labels_of(raw: RawSplits) -> dict[str, int]:
    """Image -> label, in all parts."""
    return {name: label for part in parts_of(raw) for name, label in zip(part.names, part.labels.tolist(), strict=True)}


def cross_validated(dataset: Dataset, tune: str, seed: int, out: Path) -> HeldOut:
    """The held-out predictions of all images, by runs that are made where they are not there."""
    place = out / tune
    words = [*FLAGS, *TUNES[tune], "--folds", str(FOLDS), "--seed", str(seed)]
    try:
        common.main(dataset, [*words, "--out", str(place), "--cache-dir", str(out / "cache")])
    except SystemExit as ended:
        if ended.code:
            raise
    first = next((place / dataset.key / "tf2").glob(f"*seed{seed}-fold1of{FOLDS}*"))
    return held_out(first)[0]


def compared(names: Sequence[str], probabilities: npt.NDArray[np.float64], of: RawSplits, true: RawSplits) -> Found:
    """What is found by these probabilities of the images."""
    given, right = (np.array([labels[name] for name in names]) for labels in map(labels_of, (of, true)))
    wrong = given != right
    found = likely_label_errors(probabilities, given)
    hits = wrong[found.rows]
    number = int(wrong.sum())
    own = found.suggested == right[found.rows]
    return Found(
        len(names),
        number,
        float((probabilities.argmax(axis=1) == right).mean()),
        len(found.rows),
        float(hits.mean()),
        float(hits.sum() / number),
        float(hits[:number].sum() / min(number, max(1, len(hits)))),
        float(own[hits].mean()),
    )


def measure(name: str, tune: str, arguments: argparse.Namespace) -> dict[str, Any]:
    """A set of images by each seed alone, and by the mean of all seeds' probabilities."""
    side = SETS.get(name, SIDE)
    dataset = replace(
        DATASETS[name],
        key=f"changed_{name}",
        read=partial(read, name, arguments.share),
        own_folder=REAL,
        size=(side, side),
    )
    options = ReadOptions(Path("unused"))
    raws = dataset.read(options), DATASETS[name].read(options)
    several = [cross_validated(dataset, tune, seed, arguments.out) for seed in range(arguments.seeds)]
    alone = [compared(each.names, each.probabilities, *raws) for each in several]
    assert len({tuple(each.names) for each in several}) == 1
    mean = np.mean([each.probabilities for each in several], axis=0)
    return {
        "set": name,
        "tune": tune,
        "seeds": [asdict(each) for each in alone],
        "mean": asdict(compared(several[0].names, mean, *raws)),
    }


def row(result: dict[str, Any]) -> tuple[str, ...]:
    """A line of the table: means over seeds, and recall and precision by the mean of their probabilities."""
    seeds, together = result["seeds"], result["mean"]
    means = {key: statistics.mean(each[key] for each in seeds) for key in seeds[0]}
    shares = [f"{means[key]:.1%}" for key in ("accuracy", "precision", "recall", "first", "suggested")]
    both = [f"{together[key]:.1%}" for key in ("precision", "recall", "first")]
    return result["set"], result["tune"], f"{seeds[0]['images']:,}", f"{seeds[0]['changed']}", *shares, *both


HEAD = (
    *("set", "tune", "images", "changed", "top-1", "precision", "recall", "first", "suggested"),
    *("precision, seeds together", "recall", "first"),
)


def main() -> None:
    """Run what is asked for, print the table and write label_errors.json."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Help)
    parser.add_argument("--sets", nargs="+", choices=list(DATASETS), default=list(SETS), help="of images")
    parser.add_argument("--tune", nargs="+", choices=list(TUNES), default=["linear"], help="what runs train")
    parser.add_argument("--seeds", type=whole(1), default=2, metavar="N", help="default: 2")
    parser.add_argument("--share", type=share, default=0.05, help="of labels that are changed (default: 0.05)")
    parser.add_argument("--out", type=Path, default=Path("build/label_errors"), help="default: build/label_errors")
    arguments = parser.parse_args()
    results = [measure(name, tune, arguments) for tune in arguments.tune for name in arguments.sets]
    say(table([HEAD, *map(row, results)]))
    arguments.out.mkdir(parents=True, exist_ok=True)
    write_json(arguments.out / "label_errors.json", {"results": results, "environment": environment()})


if __name__ == "__main__":
    main()
