"""Likely label errors: of a run's test images, or with --folds of all, those whose label the predictions contradict."""

from __future__ import annotations

import csv
import hashlib
import io
import json
import shlex
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from engine.config import asked
from engine.console import say, table
from engine.errors import UserError, counted, disk_errors_explained, listed, one_line, reason_of
from engine.files import read_small, write_text
from engine.paths import exists, is_dir, script_path
from engine.records.identity import saw_test_images
from engine.records.mistakes import likely_label_errors, probabilities_of
from engine.records.schema import PREDICTIONS, RECORD, Record, RecordError, read_record
from reporting.files import arrays
from reporting.predictions import predictions_bytes, require_kinds

EXPECTED = "Expected the folder of a finished run: runs/DATASET/BACKBONE/RUN."
ROOM = "Make room, or let --out name a file elsewhere."


@dataclass(frozen=True)
class Suspect:
    """An image whose label is likely wrong."""

    rank: int  # from 1 on, the likeliest error first
    file: str  # as the dataset names it
    given: str
    suggested: str
    probability_given: float
    probability_suggested: float


@dataclass(frozen=True)
class HeldOut:
    """Images that the run which predicted them was not trained on."""

    names: list[str]
    labels: npt.NDArray[np.int64]  # (N,)
    probabilities: npt.NDArray[np.float64]  # (N, C), calibrated where the run has a temperature


def show_suspects(run: Path, out: Path | None, form: str) -> None:
    """Print the likely label errors of a finished run, or write them to `out`, as "csv", "json", "jsonl" or a table.

    `run` is its folder, or its checkpoint there. Of a fold, all folds of the cross-validation are taken together.
    UserError: what is needed is not there, damaged, or of another run.
    """
    images, records = held_out(run)
    found = suspects(images, records[0]["dataset"]["classes"])
    text = _written(found, form)
    if out:
        with disk_errors_explained("can't write", out.parent, ROOM):
            write_text(out, text)
    rows_alone = not out and form in ("csv", "json", "jsonl")
    with redirect_stdout(sys.stderr if rows_alone else sys.stdout):
        say(*_said(records, len(found), len(images.names)))
    if out:
        say(f"written    {out}", go_on=True)
    elif rows_alone:
        sys.stdout.write(text)
    elif found:
        say(text.rstrip("\n"), go_on=True)


def held_out(run: Path) -> tuple[HeldOut, list[Record]]:
    """The test images of a finished run, or of all folds, and the records of these. UserError as show_suspects()."""
    folders, records = _folds(*_of(run))
    return _together([_read(*each) for each in zip(folders, records, strict=True)]), records


def suspects(images: HeldOut, classes: Sequence[str]) -> list[Suspect]:
    """What confident learning names of them; see likely_label_errors()."""
    found = likely_label_errors(images.probabilities, images.labels)
    rows = zip(found.rows.tolist(), found.suggested.tolist(), strict=True)
    return [
        Suspect(
            rank,
            images.names[row],
            classes[images.labels[row]],
            classes[label],
            *(round(float(images.probabilities[row, of]), 4) for of in (images.labels[row], label)),
        )
        for rank, (row, label) in enumerate(rows, 1)
    ]


def _of(run: Path) -> tuple[Path, Record]:
    """The folder and the record of a finished run, which may be the only one in `run`."""
    if not exists(run):
        raise UserError(f"{one_line(str(run))} is not there. {EXPECTED}")
    folder = run if is_dir(run) else run.parent
    if is_dir(run) and not (run / RECORD).exists() and (within := sorted(run.glob(f"*/{RECORD}"))):
        if len(within) > 1:
            lines = listed(str(each.parent) for each in within)
            raise UserError(f"{run} holds {len(within):,} runs. Name one of them, or one of the folds:{lines}")
        folder = within[0].parent
    try:
        record = read_record(folder / RECORD)
    except RecordError as problem:
        raise UserError(f"{folder / RECORD} can't be used: {problem}. {EXPECTED}") from problem
    if record is None:
        found = f"has no {RECORD} in it" if is_dir(run) else "lies beside none"
        raise UserError(f"{run} {found}. {EXPECTED}")
    if record["status"] != "done":
        raise UserError(f"{folder} is of a run that has not ended. Let its own command finish it first.")
    return folder, record


def _folds(folder: Path, record: Record) -> tuple[list[Path], list[Record]]:
    """The run itself, or the finished runs on all folds of its cross-validation, in their order."""
    of = record["config"].get("folds")
    if not of:
        return [folder], [record]
    found = {record["config"]["fold"]: (folder, record)}
    for path in sorted(folder.parent.glob(f"*/{RECORD}")):
        try:
            other = read_record(path)
        except RecordError:  # what is wrong with it, a report says
            continue
        if other and other["status"] == "done" and _is_fold(other, record):
            found.setdefault(other["config"]["fold"], (path.parent, other))
    if missing := [str(number) for number in range(1, of + 1) if number not in found]:
        script, *words = _without_fold(record["environment"].get("command", [])) or ["folder.py"]
        command = shlex.join(["python", script if "/" in script else script_path(script), *words])
        raise UserError(
            f"{folder} is a fold of {of}, of which {counted(len(missing), 'fold', 'are')} not finished beside it "
            f"({', '.join(missing)}). Expected all of them: finish them, by the command of the run without --fold: "
            f"{command}"
        )
    ordered = [found[number] for number in range(1, of + 1)]
    return [path for path, _ in ordered], [each for _, each in ordered]


def _is_fold(other: Record, record: Record) -> bool:
    """Whether a record is of the same cross-validation."""

    def common(of: Record) -> tuple[object, ...]:
        flags = {name: value for name, value in asked(of["config"]).items() if name != "fold"}
        return flags, of["dataset"].get("division"), of["dataset"]["version"], of["backbone"]["weights_sha256"]

    try:
        return common(other) == common(record)
    except (KeyError, TypeError, AttributeError):
        return False


def _without_fold(words: Sequence[str]) -> list[str]:
    return [
        word
        for place, word in enumerate(words)
        if word != "--fold" and not word.startswith("--fold=") and words[max(0, place - 1)] != "--fold"
    ]


def _read(folder: Path, record: Record) -> HeldOut:
    """The predictions of a finished run. UserError: they can't be used."""
    path, classes = folder / PREDICTIONS, len(record["dataset"]["classes"])
    most = predictions_bytes(record["dataset"]["counts"]["test"], classes)
    rerun = "Put the run's own back, or start the run over with --rerun."
    try:
        content = read_small(path, most)
        stated = record.get("files", {}).get(PREDICTIONS)
        if stated not in (None, hashlib.sha256(content).hexdigest()):
            raise UserError(f"{path} is damaged, or of another run: it is not the file that the record names. {rerun}")
        names, labels, logits = arrays(content, ("names", "labels", "logits"), most)
        require_kinds(names, logits, labels.size, classes)
        calibration = record.get("calibration")
        probabilities = probabilities_of(logits, labels, calibration["temperature"] if calibration else None)
    except FileNotFoundError as problem:
        raise UserError(f"{path} is not there: the run's predictions of its test images. {rerun}") from problem
    except OSError as problem:
        raise UserError(f"{path} can't be read: {reason_of(problem)}. {rerun}") from problem
    except ValueError as problem:
        raise UserError(f"{path} is damaged: {problem}. {rerun}") from problem
    return HeldOut([str(name) for name in names], labels, probabilities)


def _together(parts: Sequence[HeldOut]) -> HeldOut:
    return HeldOut(
        [name for part in parts for name in part.names],
        np.concatenate([part.labels for part in parts]),
        np.concatenate([part.probabilities for part in parts]),
    )


def _written(found: Sequence[Suspect], form: str) -> str:
    """The rows in a form, each with an end of line."""
    rows = [asdict(each) for each in found]
    if form == "json":
        return json.dumps(rows, indent=2, ensure_ascii=False) + "\n"
    if form == "jsonl":
        return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    if form == "csv":
        text = io.StringIO()
        writer = csv.DictWriter(text, list(Suspect.__dataclass_fields__), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
        return text.getvalue()
    head = ("rank", "labelled", "likely", "file")
    lines = [
        (
            f"{each.rank:>4}",
            f"{each.given} {each.probability_given:.1%}",
            f"{each.suggested} {each.probability_suggested:.1%}",
            each.file,
        )
        for each in found
    ]
    return table([head, *lines]) + "\n"


def _said(records: Sequence[Record], found: int, images: int) -> list[str]:
    """What was looked at, and what was not."""
    record = records[0]
    dataset, folds = record["dataset"], record["config"].get("folds")
    seed, place = f"seed {record['seed']}", dataset.get("place", "")
    of = f"{record['backbone']['name']} on {dataset['name']}, {seed}{f', {folds} folds' if folds else ''}"
    lines = [
        f"suspects   {found:,} of {counted(images, 'image')}: {of}",
        "note       likely label errors, or images that are hard: look before you change a label",
    ]
    if place:
        lines.append(f"note       the images lie in {place}")
    if not folds:
        counts = dataset["counts"]
        rest = counts["available"] + (counts["val"] if dataset["own_validation"] else 0)
        lines.append(
            f"note       only the {images:,} test images were looked at: what it was trained on, a model knows by "
            f"heart. Of images of your own, runs with --folds 5 look at the other {rest:,}, too"
        )
    if any(map(saw_test_images, records)):
        lines.append("note       its weights have seen images that were looked at: some errors are not found")
    return lines
