"""What a run prints: a progress bar on a terminal, one line an epoch, the result."""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from engine.errors import RunError
from engine.heartbeat import alive

Item = TypeVar("Item")

MOST_DIFFERENCES = 5  # that are printed


def steady_streams() -> None:
    """Let no missing stream, and no character that the terminal lacks, end a run."""
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 (for as long as the process lives)
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def progress(items: Iterable[Item], what: str, total: int) -> Iterator[Item]:
    """The items, with a bar that is wiped when they are through; on a terminal only."""
    bar = tqdm(items, what, total, leave=False, unit="batch", disable=not sys.stderr.isatty(), file=sys.stderr)
    for number, item in enumerate(bar, 1):
        yield item
        alive(f"{what}: {number:,} of {total:,} batches")


def say(*lines: str) -> None:
    """Print lines at once, without breaking a progress bar."""
    try:
        tqdm.write("\n".join(lines), file=sys.stdout)
        sys.stdout.flush()
    except OSError as problem:
        # what is still to be written goes nowhere: no flush at exit may fail again
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if isinstance(problem, BrokenPipeError):  # whoever read the output is gone, as after `| head`: an interruption
            raise KeyboardInterrupt from None
        raise RunError(f"the output can't be written: {problem}") from problem


def epoch_columns(part: str) -> str:
    """The heads of epoch_line()'s columns; `part` chooses the epoch: "val", or "test" under the `paper` protocol."""
    loss, top1 = f"{part} loss", f"{part} top-1"
    return f" epoch  stage   train loss  {loss:>10}  {top1:>11}     best  images/s   compute   wait  seconds"


def epoch_line(row: Mapping[str, Any], part: str) -> str:
    """A row of the history under epoch_columns(); `*` marks a new best epoch."""
    mark = "*" if row["best_epoch"] == row["epoch"] else " "
    return (
        f"{row['epoch']:>6}  {row['stage']:<6} {row['train_loss']:>11.4f}  {row[f'{part}_loss']:>10.4f} "
        f"{row[f'{part}_top1']:>12.2%}{mark} {row['best_top1']:>7.2%} {row['images_per_second']:>9,.1f} "
        f"{row['compute_images_per_second']:>9,.1f} "
        f"{row['data_wait_share']:>6.1%} {row['seconds']:>8.1f}"
    )


def head_lines(description: Mapping[str, Any], recipe: str, folder: Path | None, resumed: bool) -> list[str]:
    """What is trained on what and how (`recipe`), and where the record goes, before anything is trained."""
    dataset, backbone, costs = description["dataset"], description["backbone"], description["costs"]
    config = description["config"]
    honest = description["protocol"] == "honest"
    tuned = "all layers" if config["tune"] == "full" else "the head only"
    batches = f"{description['batch_size']}"
    if description["batch_size"] < config["batch_size"]:
        batches += f" instead of {config['batch_size']} (there are no more images)"
    lines = [
        f"backbone   {backbone['name']}, weights {backbone['weights']}, {costs['parameters'] / 1e6:.1f} M parameters, "
        f"{costs['macs'] / 1e9:.2f} GMACs at {config['size'][0]}x{config['size'][1]}",
        f"recipe     {description['recipe']}: {recipe}",
        f"training   {tuned}, batches of {batches}, learning rate {description['lr']:g}, "
        f"augmentation {config['augment']}, seed {description['seed']}",
        "protocol   honest: val, held out of train, chooses the epoch; test is scored once"
        if honest
        else "protocol   paper: test chooses the epoch, which flatters",
    ]
    if folder:
        lines.append(f"record     {folder}" + (" (goes on from where it was)" if resumed else ""))
    return [_counts_line(description), *_data_lines(dataset), *lines]


def _counts_line(description: Mapping[str, Any]) -> str:
    """How many images are in which part, those that are published in sight."""
    dataset, config = description["dataset"], description["config"]
    counts = dataset["counts"]
    few = f", {config['shots']:,} a class" if config["shots"] else ""
    few = f", {config['fraction']:.3g} of each class" if config["fraction"] else few
    train, test = f"train {counts['available']:,}", f"test {counts['test']:,}"
    if description["protocol"] == "paper":
        used = f" ({counts['train']:,} of them used{few})" if few else ""
        parts = f"{train}{used}, {test} (also chooses the epoch)"
    elif dataset["own_validation"] and not few:
        parts = f"train {counts['train']:,}, val {counts['val']:,}, {test}"
    else:
        parts = f"{train} ({counts['train']:,} to train + {counts['val']:,} val{few}), {test}"
    return f"{dataset['name']}: {parts}, {len(dataset['classes']):,} classes"


def _data_lines(dataset: Mapping[str, Any]) -> list[str]:
    differences = dataset["differences"]
    lines = [f"partial    {difference}" for difference in differences[:MOST_DIFFERENCES]]
    if len(differences) > MOST_DIFFERENCES:
        lines.append(f"partial    and {len(differences) - MOST_DIFFERENCES:,} more, in the record")
    return lines + [f"note       {note}" for note in dataset["notes"]]


def result_line(record: Mapping[str, Any]) -> str:
    """The result in one line, with whatever limits what it means."""
    test = record["test"]
    numbers = [f"top-1 {test['top1']:.2%}"]
    if test["top5"] is not None:
        numbers.append(f"top-5 {test['top5']:.2%}")
    numbers.append(f"balanced {test['balanced_accuracy']:.2%}, macro-F1 {test['macro_f1']:.4f}")
    if test["auroc"] is not None:
        numbers.append(f"AUROC {test['auroc']:.4f}")
    limits = []
    if record["protocol"] == "paper":
        limits.append("optimistic: test chose the epoch")
    if record["dataset"]["partial"]:
        limits.append("partial data: not to be compared")
    earlier = record["backbone"]["weights_run"]
    if earlier and earlier["dataset"] == record["dataset"]["key"]:
        limits.append("weights of an earlier run on this dataset, which may have seen the images that now judge")
    if "none" in (record["backbone"]["weights"], earlier and earlier["weights"]):
        limits.append("not pretrained")
    return (
        f"{record['backbone']['name']} on {record['dataset']['name']}, {test['images']:,} test images: "
        + ", ".join(numbers)
        + (f" [{'; '.join(limits)}]" if limits else "")
    )


def size_text(size: int) -> str:
    """A number of bytes for people, in decimal units."""
    return (
        f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:,.0f} MB" if size >= 1e6 else f"{size / 1e3:,.0f} kB"
    )


def table(rows: Sequence[tuple[str, ...]]) -> str:
    """Columns of text, two blanks apart; the last one is as wide as it is."""
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip()
        for row in rows
    )
