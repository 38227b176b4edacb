"""What a run prints of its record: the lines before the first epoch, and the result."""

from __future__ import annotations

import math
import shlex
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from engine.errors import agreeing, counted
from engine.paths import PROJECT, script_path
from engine.records.identity import other_codes, saw_test_images
from engine.training.metrics import MEANS_OF_FOLDS, METRICS, of_confusion, pooled

RECORD_LINE = "record     "  # what comes before the folder of a run
# the parts of the code that a record has hashes of
CODE = {"engine": "engine/", "script": "the dataset's script", "backbone": "what builds the model"}
MOST_DIFFERENCES = 5  # that are printed
IMBALANCE = 20  # times as many test images as another class has: top-1 is then no measure of all classes


def head_lines(description: Mapping[str, Any], recipe: str, folder: Path | None, resumed: bool) -> list[str]:
    """What is trained on what and how (`recipe`), and where the record goes, before anything is trained."""
    dataset, backbone, costs = description["dataset"], description["backbone"], description["costs"]
    config = description["config"]
    honest = description["protocol"] == "honest"
    tuned = "all layers" if config["tune"] == "full" else "the head only"
    weighted = ", classes weighted to count the same" if description.get("class_weights") else ""
    select = config.get("select", "top1")
    by = "" if select == "top1" else f" by {METRICS[select].label}"
    batches = f"{description['batch_size']}"
    if description["batch_size"] < config["batch_size"]:
        batches += f" instead of {config['batch_size']} (there are no more images)"
    lines = [
        f"backbone   {backbone['name']}, weights {backbone['weights']}, {costs['parameters'] / 1e6:.1f} M parameters, "
        f"{costs['macs'] / 1e9:.2f} GMACs at {config['size'][0]}x{config['size'][1]}",
        f"recipe     {description['recipe']}: {recipe}",
        f"training   {tuned}, batches of {batches}, learning rate {description['lr']:g}, "
        f"augmentation {config['augment']}{weighted}, seed {description['seed']}",
        f"protocol   honest: val, held out of train, chooses the epoch{by}; test is scored once"
        if honest
        else f"protocol   paper: test chooses the epoch{by}, which flatters",
    ]
    if shared := description["environment"].get("processes"):
        lines.insert(3, _processes_line(shared))
    if saw_test_images(description):
        lines.insert(1, f"note       {seen_in_words(description)}: the result will flatter, and no report ranks it")
    if folder:
        lines.append(f"{RECORD_LINE}{folder}" + (" (goes on from where it was)" if resumed else ""))
    return [_counts_line(description), *_data_lines(dataset), *lines]


def _processes_line(shared: Mapping[str, Any]) -> str:
    """How a batch is divided among processes."""
    sizes = sorted(set(shared["images"]))
    each = f"{' or '.join(map(str, sizes))} of its images each"
    statistics = "the whole batch" if shared["sync_batch_norm"] else "these"
    return f"processes  {shared['count']}, which take {each}; any batch normalisation's statistics are of {statistics}"


def _counts_line(description: Mapping[str, Any]) -> str:
    """How many images are in which part, those that are published in sight."""
    dataset, config = description["dataset"], description["config"]
    counts = dataset["counts"]
    few = ""
    if dataset["taken"] and config["shots"]:
        few = f", {'up to ' if min(dataset['taken']) < config['shots'] else ''}{config['shots']:,} a class"
    elif dataset["taken"]:
        few = f", {config['fraction']:.3g} of each class"
    train, test = f"train {counts['available']:,}", f"test {counts['test']:,}"
    if description["protocol"] == "paper":
        used = f" ({counts['train']:,} of them used{few})" if few else ""
        parts = f"{train}{used}, {test} (also chooses the epoch)"
    elif dataset["own_validation"] and not few:
        parts = f"train {counts['train']:,}, val {counts['val']:,}, {test}"
    else:
        parts = f"{train} ({counts['train']:,} to train + {counts['val']:,} val{few}), {test}"
    fold = f", {words}" if (words := fold_words(config)) else ""
    return f"{dataset['name']}{fold}: {parts}, {counted(len(dataset['classes']), 'class')}"


def other_code_lines(record: Mapping[str, Any], code: Mapping[str, str]) -> list[str]:
    """What is said of a record, if there is one, that other code than `code` made."""
    others = other_codes(record, code) if record else []
    if not others:
        return []
    where = " and ".join(name for part, name in CODE.items() if any(each.get(part) != code[part] for each in others))
    what = "this result was made" if record["status"] == "done" else "the epochs so far were trained"
    return [f"note       {what} by other code than what is here now ({where} differs): --rerun starts over"]


def strange_lines(folder: Path, names: Sequence[str]) -> list[str]:
    """What is said of files beside a finished run's record that are not those which the run wrote."""
    return [
        f"note       {folder / name} is damaged, or of another run: nothing should be made of it (--rerun starts over)"
        for name in names
    ]


def seen_in_words(*records: Mapping[str, Any]) -> str:
    """What is said of test images, of one run or of all folds, that the weights a run began from have seen."""
    seen = [record["backbone"]["weights_run"].get("seen") for record in records]
    if None in seen:
        return "weights of an earlier run on this dataset, which may have seen the images that now judge"
    test = sum(record["dataset"]["counts"]["test"] for record in records)
    return f"its weights have seen {sum(seen):,} of the {test:,} test images"


def _data_lines(dataset: Mapping[str, Any]) -> list[str]:
    differences = dataset["differences"]
    lines = [f"partial    {difference}" for difference in differences[:MOST_DIFFERENCES]]
    if len(differences) > MOST_DIFFERENCES:
        lines.append(f"partial    and {len(differences) - MOST_DIFFERENCES:,} more, in the record")
    return lines + [f"note       {note}" for note in dataset["notes"]]


def imbalance(tests: Iterable[Mapping[str, Any]]) -> float:
    """How many times the test images of its smallest class the largest one has, of those that have any."""
    images: Counter[int] = Counter()
    for test in tests:
        confusion = test.get("confusion") or {"true": [], "images": []}
        for label, count in zip(confusion["true"], confusion["images"], strict=True):
            images[label] += count
    return max(images.values(), default=1) / min(images.values(), default=1)


def fold_words(config: Mapping[str, Any]) -> str:
    """Which fold a run is of, by its flags: "fold 2 of 5"; "" without folds."""
    return f"fold {config['fold']} of {config['folds']}" if config.get("folds") else ""


def where_lines(folder: Path) -> list[str]:
    """Where a finished run lies, and the command that classifies new images with it, which works where one stands."""
    script = script_path("predict.py")
    script = script if Path(script).exists() else str(PROJECT / script)  # where another script runs than the project's
    command = shlex.join(["python", script, str(folder)])
    return [f"{RECORD_LINE}{folder}", f"predict    {command} IMAGE"]


def result_line(record: Mapping[str, Any]) -> str:
    """The result in one line, with whatever limits what it means."""
    test = record["test"]
    fold = fold_words(record["config"])
    what = f"{f'{fold}, ' if fold else ''}{test['images']:,} test images"
    return _result_line([record], what, test, test.get("per_class_recall") or [])


def pooled_line(records: Sequence[Mapping[str, Any]]) -> str:
    """The result of all folds together, in one line like that of a run."""
    tests = [record["test"] for record in records]
    images, classes = [test["images"] for test in tests], len(records[0]["dataset"]["classes"])
    true, predicted, counts = (
        np.array([number for test in tests for number in test["confusion"][of]], dtype=np.int64)
        for of in ("true", "predicted", "images")
    )
    counted_metrics, recalls = of_confusion(true * classes + predicted, counts, classes)
    what = f"{len(records)} folds, {sum(images):,} images, each tested once"
    of_classes = [None if math.isnan(recall) else recall for recall in recalls.tolist()]
    return _result_line(records, what, pooled(tests, images) | counted_metrics, of_classes)


def _result_line(
    records: Sequence[Mapping[str, Any]],
    what: str,
    values: Mapping[str, float | None],
    recall: Sequence[float | None],
) -> str:
    record = records[0]
    known = {name: value for name in METRICS if (value := values.get(name)) is not None}
    limits = []
    if len(records) > 1 and (means := [METRICS[name].label for name in MEANS_OF_FOLDS if name in known]):
        limits.append(f"{' and '.join(means)}: mean over folds")
    if record["protocol"] == "paper":
        limits.append("optimistic: test chose the epoch")
    if any(each["dataset"]["partial"] for each in records):
        limits.append("partial data: not to be compared")
    if (times := imbalance(each["test"] for each in records)) > IMBALANCE:
        limits.append(f"a class has {times:,.0f} times the test images of another: judge by balanced accuracy")
    if untested := sum(value is None for value in recall):
        limits.append(f"{untested:,} of {counted(len(recall), 'class')} {agreeing(untested, 'have')} no test image")
    earlier = record["backbone"]["weights_run"]
    if any(map(saw_test_images, records)):
        limits.append(seen_in_words(*records))
    if "none" in (record["backbone"]["weights"], earlier and earlier["weights"]):
        limits.append("not pretrained")
    return (
        f"{record['backbone']['name']} on {record['dataset']['name']}, {what}: "
        + ", ".join(METRICS[name].text(value) for name, value in known.items())
        + (f" [{'; '.join(limits)}]" if limits else "")
    )
