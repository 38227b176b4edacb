"""What of a dataset lies on the disk, found without downloading, extracting or decoding anything."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from pathlib import Path

from engine.console import size_text
from engine.data.declaration import Dataset, ReadOptions
from engine.data.load import differences, read_files
from engine.data.place import placed, present, why_not_into
from engine.errors import UserError


@dataclass(frozen=True)
class DiskState:
    """One dataset on this machine."""

    status: str  # complete, incomplete, unusable, archive, part of it or absent
    what_to_do: str  # "" where nothing is to be done
    differences: tuple[str, ...] = ()


def look(dataset: Dataset, data_dir: Path) -> DiskState:
    """The state of `dataset` in `data_dir`. Archives there are verified, lists read and files counted."""
    try:
        folder = present(dataset, data_dir)
        if folder is None:
            return _not_extracted(dataset, data_dir)
        raw = read_files(dataset, data_dir, ReadOptions(folder, allow_partial=True))
    except UserError as problem:
        return DiskState("unusable", str(problem))
    except OSError as problem:
        return DiskState("unusable", f"{problem.filename}: {problem.strerror}")
    lines = tuple(differences(dataset, raw, "honest"))
    if not lines:
        return DiskState("complete", "")
    return DiskState("incomplete", f"{lines[0]}; get it whole, or train with --allow-partial", lines)


def _not_extracted(dataset: Dataset, data_dir: Path) -> DiskState:
    sets = [files for files in (dataset.files, *dataset.alternative_files) if files]
    there = [[file for file in files if placed(dataset, file, data_dir)] for files in sets]
    if any(len(found) == len(files) for found, files in zip(there, sets, strict=True)):
        return DiskState("archive", "extracted on first use")
    status = "part of it" if any(there) else "absent"
    if not dataset.files or any(not file.urls for file in dataset.files if file not in there[0]):
        return DiskState(status, f"to be got by hand: python datasets.py {dataset.key}")
    sizes = [file.bytes for file in dataset.files if file not in there[0]]
    size = "" if None in sizes else f" ({size_text(sum(size or 0 for size in sizes))})"
    if why := why_not_into(dataset, data_dir):
        make = f"mkdir -p {shlex.quote(str(data_dir))}"
        size += f" after {make}" if not data_dir.exists() else f", but not into {data_dir}, which {why}"
    return DiskState(status, f"fetched on first use{size}")
