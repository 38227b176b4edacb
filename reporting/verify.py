"""Which records the files of their runs bear out: one that they contradict is not ranked, whatever it says."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

from engine.files import read_small
from engine.records.schema import PREDICTIONS, SPLIT
from reporting.comparable import Apart, not_to_be_ranked
from reporting.entry import Entry
from reporting.fields import clean
from reporting.files import read_start
from reporting.predictions import MOST_KEPT, MisfitError, outcome, predictions_bytes

UNFIT = "the files of the run contradict its record: "
HEAD_BYTES = 4096  # of split.json, at whose beginning its hash stands
HASH = re.compile(rb'^\{\s*"hash": "([0-9a-f]{64})"')


@dataclass
class Verified:
    """Records, those that their runs' files contradict apart from the others."""

    entries: list[Entry] = field(default_factory=list)
    unfit: Apart = field(default_factory=list)  # run, reason
    skipped: list[dict[str, str]] = field(default_factory=list)  # files that can't be read: path, reason


def verify(entries: Iterable[Entry]) -> Verified:
    """Compare each record that could be ranked with the predictions and the split beside it, where those are there.

    Of predictions whose sha256 the record names that alone is looked at here. All others are read, and give the record
    again: test images, classes, the confusion matrix, and every metric but the AUROC.
    """
    verified = Verified()
    for entry in entries:
        try:
            reason = "" if not_to_be_ranked(entry) else _other_split(entry) or _other_predictions(entry)
        except (OSError, ValueError) as problem:
            reason = ""
            verified.skipped.append({"path": f"{entry.run}/{PREDICTIONS}", "reason": clean(str(problem))})
        if reason:
            verified.unfit.append({"run": entry.run, "reason": reason})
        else:
            verified.entries.append(entry)
    return verified


def _other_split(entry: Entry) -> str:
    """Why split.json is of another split; "" where it is not, is not there or does not say."""
    try:
        found = HASH.match(read_start(entry.folder / SPLIT, HEAD_BYTES))
    except (OSError, ValueError):
        return ""
    if not found or found[1].decode() == entry.split:
        return ""
    return f"{UNFIT}{SPLIT} is of split {found[1][:8].decode()}, the record of {entry.split:.8}"


def _other_predictions(entry: Entry) -> str:
    """Why predictions.npz is not that of the record; "" where it is, or is not there.

    Raises OSError and ValueError where it can't be read.
    """
    path = entry.folder / PREDICTIONS
    try:
        status = path.stat()
        if named := entry.files.get(PREDICTIONS):
            most = predictions_bytes(entry.version.test_images, len(entry.version.classes))
            if _sha256(path, (status.st_mtime_ns, status.st_size), most) == named:
                return ""
        outcome(entry)
    except FileNotFoundError:
        return ""
    except MisfitError as problem:
        return f"{UNFIT}{PREDICTIONS}: {problem}"
    return ""


@lru_cache(MOST_KEPT)
def _sha256(path: Path, mark: tuple[int, int], most: int) -> str:
    """The digest of a file; `mark`, its time and size, tells it from an earlier one of its name."""
    return hashlib.sha256(read_small(path, most)).hexdigest()
