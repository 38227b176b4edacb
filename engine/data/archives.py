"""Tar and zip archives, extracted so that nothing lands outside the target and nothing half-done looks complete."""

import lzma
import os
import shutil
import stat
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Sequence
from pathlib import Path, PureWindowsPath

from engine.data.declaration import Dataset, File
from engine.errors import UserError

ARCHIVES = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")


def is_archive(file: File) -> bool:
    """Whether the file's name is that of a tar or zip archive."""
    return file.name.lower().endswith(ARCHIVES)


def extract(dataset: Dataset, files: Sequence[File], data_dir: Path) -> None:
    """Extract into a temporary folder and rename, so that an extraction cut short never looks complete."""
    partial = data_dir / f".{dataset.folder}.{os.getpid()}.partial"
    whole = partial / dataset.folder
    plain = [file for file in files if not is_archive(file)]
    target = whole if plain else partial
    try:
        target.mkdir(parents=True)
        for file in files:
            if is_archive(file):
                print(f"extracting {file.name}", file=sys.stderr, flush=True)
                _unpack(data_dir / file.name, target, file.checksum is not None)
        for file in plain:
            try:
                (target / file.name).hardlink_to(data_dir / file.name)
            except OSError:  # a file system without hard links
                shutil.copyfile(data_dir / file.name, target / file.name)
        if not whole.is_dir() and _holds(dataset, partial):
            partial.rename(data_dir / dataset.folder)  # an archive without a folder of its own
            return
        names = sorted(entry.name for entry in partial.iterdir() if entry.name != "__MACOSX")
        if not whole.is_dir():
            own = [name for name in names if _holds(dataset, partial / name)]
            if len(own) != 1:
                raise UserError(_without_folder(dataset, files, names))
            (partial / own[0]).rename(whole)  # packed anew, in a folder of another name
            names.remove(own[0])
        _lift(dataset, whole)
        there = {entry.name for entry in data_dir.iterdir()}
        for name in names:
            if name != dataset.folder and name not in there:
                (partial / name).rename(data_dir / name)
        whole.rename(data_dir / dataset.folder)
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def _holds(dataset: Dataset, folder: Path) -> bool:
    """Whether the dataset is in `folder`, or in a place in it where copies have it, as far as its marks tell."""
    places = [folder / place for place in ("", *dataset.other_folders)]
    return any((place / mark).exists() for place in places for mark in dataset.contains)


def _lift(dataset: Dataset, whole: Path) -> None:
    """Move what is in a folder in `whole` up into it, where an archive that was packed anew put the dataset there."""
    if dataset.contains and not _holds(dataset, whole):
        own = [folder for folder in whole.iterdir() if _holds(dataset, folder)]
        if len(own) == 1 and own[0].name != whole.name:
            for entry in own[0].iterdir():
                if not (whole / entry.name).exists():
                    entry.rename(whole / entry.name)


def _without_folder(dataset: Dataset, files: Sequence[File], names: Sequence[str]) -> str:
    return (
        f"{dataset.name}: {', '.join(file.name for file in files)} should extract to a folder "
        f"{dataset.folder}, but found {', '.join(names[:10]) or 'nothing'}"
        f"{f' and {len(names) - 10:,} more' if len(names) > 10 else ''}. "
        + (
            "The dataset's declaration does not fit its archive: please report it."
            if all(file.checksum for file in files)
            else f"Is it another archive of that name? See {dataset.page}"
        )
    )


def _unpack(archive: Path, target: Path, verified: bool) -> None:
    if not hasattr(tarfile, "data_filter"):
        raise UserError(
            f"Python {sys.version.split()[0]} cannot extract {archive} safely: use 3.10.12, 3.11.4, 3.12 or later, or "
            f"extract it by hand in {archive.parent.absolute()}."
        )
    try:
        if archive.name.lower().endswith(".zip"):
            with zipfile.ZipFile(archive) as opened:
                members = opened.infolist()
                for member in members:
                    _refuse_unsafe(member, archive)
                    # PowerShell 5 writes Windows's separator: https://github.com/python/cpython/issues/91036
                    member.filename = member.filename.replace("\\", "/")
                opened.extractall(target, members)  # noqa: S202 (each member was looked at)
        else:
            with tarfile.open(archive) as opened:
                opened.extractall(target, filter="data")
    except tarfile.FilterError as error:
        raise UserError(f"{archive.absolute()} is not safe to extract: {error}. Nothing was extracted.") from error
    except (tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, EOFError, RuntimeError) as error:
        raise _damaged(archive, error, verified) from error
    except OSError as error:
        if error.errno is None:  # gzip and bz2 report damage so; a full disk and the like have a number
            raise _damaged(archive, error, verified) from error
        raise


def _refuse_unsafe(member: zipfile.ZipInfo, archive: Path) -> None:
    path = PureWindowsPath(member.filename)  # knows both separators, and drives
    kind = stat.S_IFMT(member.external_attr >> 16)
    if path.anchor or ".." in path.parts or kind not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise UserError(
            f"{archive.absolute()} is not safe to extract: {member.filename!r} is a link or leads out of the "
            "folder. Nothing was extracted."
        )


def _damaged(archive: Path, error: Exception, verified: bool) -> UserError:
    if verified:
        why = "It has the published checksum, so it was published damaged or in a format that Python cannot read: "
        why += "extract it there by hand, or please report it."
    else:
        why = "Nobody publishes its checksum: it was perhaps cut short on the way, or is another file. Delete it "
        why += "and get it again."
    return UserError(f"{archive.absolute()} cannot be extracted: {error}. {why}")
