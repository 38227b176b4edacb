"""What of a dataset lies on the disk, found without downloading, extracting or decoding anything."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from engine.console import size_text
from engine.data.declaration import Dataset, File, ReadOptions
from engine.data.load import differences, read_files
from engine.data.locate import description
from engine.data.place import placed, present, why_not_into
from engine.errors import UserError


@dataclass(frozen=True)
class DiskState:
    """One dataset on this machine."""

    status: str  # complete, incomplete, unusable, archive, part of it or absent
    what_to_do: str  # "" where nothing is to be done
    differences: tuple[str, ...] = ()
    fetched: bool = False  # whether what lacks is fetched on first use
    bytes: int | None = None  # that are then fetched; None: nobody states them
    # "train", "val" and "test" images that lie there, and "classes" of them; empty: nobody can tell
    counts: Mapping[str, int] = field(default_factory=dict)


def look(dataset: Dataset, data_dir: Path, verify: bool = True) -> DiskState:
    """The state of `dataset` in `data_dir`. Archives there are verified, lists read and files counted.

    verify: compute checksums, which takes minutes for large archives and remembers them in `data_dir`; else sizes tell.
    """
    there = placed if verify else _has_its_size
    try:
        if dataset.own_folder or dataset.folder:
            folder = dataset.own_folder or present(dataset, data_dir)
        else:
            folder = data_dir if all(there(dataset, file, data_dir) for file in dataset.files) else None
        if folder is None:
            return _not_extracted(dataset, data_dir, there)
        raw = read_files(dataset, data_dir, ReadOptions(folder, allow_partial=True))
    except UserError as problem:
        return DiskState("unusable", str(problem))
    except OSError as problem:
        return DiskState("unusable", f"{problem.filename}: {problem.strerror}")
    lines = tuple(differences(dataset, raw, "honest"))
    parts = {"train": raw.train, "val": raw.val, "test": raw.test}
    counts = {name: 0 if part is None else len(part) for name, part in parts.items()} | {"classes": len(raw.classes)}
    if not lines:
        return DiskState("complete", "", counts=counts)
    what_to_do = f"{lines[0]}; get it whole, or train with --allow-partial"
    return DiskState("incomplete", what_to_do, lines, counts=counts)


def _has_its_size(_dataset: Dataset, file: File, data_dir: Path) -> bool:
    """Whether the file is in `data_dir`. UserError: it is, but is not as long as the published one."""
    path = data_dir / file.name
    if not path.exists():
        return False
    if file.bytes not in (None, size := path.stat().st_size):
        raise UserError(f"{path.absolute()} has {size:,} bytes; expected {description(file)}.")
    return True


def _not_extracted(dataset: Dataset, data_dir: Path, is_there: Callable[[Dataset, File, Path], bool]) -> DiskState:
    sets = [files for files in (dataset.files, *dataset.alternative_files) if files]
    there = [[file for file in files if is_there(dataset, file, data_dir)] for files in sets]
    if any(len(found) == len(files) for found, files in zip(there, sets, strict=True)):
        return DiskState("archive", "extracted on first use")
    status = "part of it" if any(there) else "absent"
    if not dataset.files or any(not file.urls for file in dataset.files if file not in there[0]):
        return DiskState(status, f"to be got by hand: python datasets.py {dataset.key}")
    sizes = [file.bytes for file in dataset.files if file not in there[0]]
    whole = None if None in sizes else sum(size or 0 for size in sizes)
    size = "" if whole is None else f" ({size_text(whole)})"
    if why := why_not_into(dataset, data_dir):
        make = f"mkdir -p {shlex.quote(str(data_dir))}"
        size += f" after {make}" if not data_dir.exists() else f", but not into {data_dir}, which {why}"
        return DiskState(status, f"fetched on first use{size}", bytes=whole)
    return DiskState(status, f"fetched on first use{size}", fetched=True, bytes=whole)
