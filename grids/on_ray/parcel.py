"""Folders of runs that travel as bytes where a grid and a node share no disk; each arrives whole or not at all."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path, PurePosixPath

import filelock

from engine.errors import UserError
from engine.files import atomic
from engine.records.run_lock import RunLock
from engine.records.schema import BUSY, PREVIOUS, RECORD
from grids.cells import Cell
from grids.ledger import read_records, record_key
from grids.on_ray.errand import Parcel


def begun_folders(cell: Cell) -> tuple[Path, ...]:
    """The folders of the cell's earlier attempts, those that can't be read too; none where it is to start over."""
    if cell.config.rerun:
        return ()
    folders = sorted(path for path in cell.folder.absolute().glob(f"*-seed{cell.config.seed}-*") if path.is_dir())
    records = {folder: read_records([folder / RECORD]) for folder in folders}
    return tuple(f for f, found in records.items() if not found or record_key(found[0]) == cell.key)


def stamps(out: Path) -> dict[Path, dict[str, tuple[int, int]]]:
    """The folders of runs under `out`, with the time and the size of each of their files."""
    return {folder: _stamps(folder) for folder in sorted(out.glob("*/*/*")) if folder.is_dir()}


def _stamps(folder: Path) -> dict[str, tuple[int, int]]:
    found = {}
    for path in _files(folder):
        with suppress(FileNotFoundError):  # it was replaced just now
            status = path.stat()
            found[path.name] = (status.st_mtime_ns, status.st_size)
    return found


def _files(folder: Path) -> list[Path]:
    """Those of a run, the record first: what it says must not be ahead of the others, which are read later.

    Without the save before the last, which is for a disk that fails.
    """
    names = [path for path in folder.iterdir() if not path.name.startswith(".") and path.name != PREVIOUS]
    return sorted((path for path in names if path.is_file()), key=lambda path: (path.name != RECORD, path.name))


def packed(out: Path, folders: Iterable[Path]) -> Parcel:
    """What lies in these folders of `out` now; of a run that is done, its record alone, which says so."""
    parcel: Parcel = {}
    for folder in folders:
        files = {}
        for path in _files(folder):
            with suppress(FileNotFoundError):
                files[path.name] = path.read_bytes()
        parcel[folder.relative_to(out).as_posix()] = files
    return parcel


def unpack(parcel: Parcel, out: Path, aside: Path) -> None:
    """Put the folders in their places under `out`. `aside`, on the same disk, is a folder for what is not yet whole.

    A folder that is there already gets its new files one by one, its record last, as a run there would write them.
    UserError: another process is at such a run; OSError.
    """
    for name, files in parcel.items():
        _require_plain(name, files)
        folder = out / name
        if folder.exists():
            _renew(folder, files)
            continue
        shutil.rmtree(aside, ignore_errors=True)  # of a process that was killed
        try:
            aside.mkdir(parents=True)
            _write(aside, files)
            folder.parent.mkdir(parents=True, exist_ok=True)
            aside.rename(folder)
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def _renew(folder: Path, files: dict[str, bytes]) -> None:
    try:
        lock = RunLock(folder / ".lock")
    except filelock.Timeout:
        raise UserError(f"{BUSY}: {folder}. Wait for it, or stop it.") from None
    try:
        for path in _files(folder):
            if path.name not in files:
                path.unlink()
        (folder / PREVIOUS).unlink(missing_ok=True)  # older than what comes
        _write(folder, files)
    finally:
        lock.release()


def _write(folder: Path, files: dict[str, bytes]) -> None:
    for name in sorted(files, key=lambda name: (name == RECORD, name)):
        with atomic(folder / name) as file:
            file.write(files[name])


def _require_plain(name: str, files: dict[str, bytes]) -> None:
    """ValueError: a name that leads elsewhere."""
    parts = PurePosixPath(name).parts
    if len(parts) != 3 or any(part in (".", "..", "/") or "/" in part for part in (*parts, *files)):
        raise ValueError(f"{name!r} is no folder of a run")
