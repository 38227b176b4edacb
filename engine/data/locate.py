"""Where a dataset's files lie on the user's disk, whether they are the published ones, and what to tell a user who must
put them there."""

import os
from pathlib import Path

from engine.data.archives import is_archive
from engine.data.checksums import checksum, forget, remembered
from engine.data.declaration import Dataset, File
from engine.data.file_kinds import visible
from engine.data.unpack import is_readable
from engine.errors import UserError
from engine.files import digest


def locate(dataset: Dataset, data_dir: Path) -> Path | None:
    """The folder with the dataset's extracted files: in `data_dir`, or `data_dir` itself; None: there is none."""
    usual = data_dir / dataset.folder
    if usual.is_dir() and (not dataset.contains or any(usual.iterdir())):
        inner = _innermost(dataset, usual)
        # data/dtd/dtd is the dataset, data/dtd the folder with its archive
        if not dataset.contains or contains_one(dataset, inner) or not _archives_in(dataset, usual):
            return inner
    for place in dataset.other_folders:
        if contains_one(dataset, data_dir / place) or (not dataset.contains and (data_dir / place).is_dir()):
            return data_dir / place
    if contains_one(dataset, data_dir):
        return data_dir
    if dataset.folder in (data_dir.name, Path(os.path.realpath(data_dir)).name) and data_dir.is_dir():
        # data/dtd holds dtd's archive, data/dtd/dtd its files: the right name alone does not tell which it is
        entries = visible(data_dir)
        names = {entry.name for entry in entries}
        # a stray file, as browsers leave of a download, is not the dataset
        stray = bool(dataset.contains) and not any(entry.is_dir() for entry in entries)
        if names - {file.name for file in every_file(dataset)} and not _archives_in(dataset, data_dir) and not stray:
            return data_dir
    return None


def every_file(dataset: Dataset) -> list[File]:
    """The published files, and those of other sets that hold the same."""
    return [file for files in (dataset.files, *dataset.alternative_files) for file in files]


def _archives_in(dataset: Dataset, folder: Path) -> bool:
    return any((folder / file.name).exists() for file in every_file(dataset) if is_archive(file))


def contains_one(dataset: Dataset, folder: Path) -> bool:
    """Whether one of the dataset's marks is in `folder`."""
    return any((folder / mark).exists() for mark in dataset.contains)


def _innermost(dataset: Dataset, folder: Path) -> Path:
    """Kaggle's archives often have a folder of the same name in the folder, or the places of other copies."""
    if not contains_one(dataset, folder):
        for inside in (folder / folder.name, *(folder / place for place in dataset.other_folders)):
            if inside.is_dir() and (not dataset.contains or contains_one(dataset, inside)):
                return inside
        twice = folder / folder.name / folder.name
        if contains_one(dataset, twice):  # such an archive, extracted into a folder called after it
            return twice
    return folder


def wanted(dataset: Dataset, data_dir: Path) -> tuple[File, ...]:
    """The files to extract: the published ones, or another set that holds the same and that is there.

    UserError: what no program may or can fetch is not there; the message says how to get it.
    """
    absent = [file for file in dataset.files if not (data_dir / file.name).exists()]
    if absent:
        for files in dataset.alternative_files:
            if all((data_dir / file.name).exists() for file in files):
                return files
    by_hand = [file for file in absent if not file.urls]
    if by_hand or not dataset.files:
        raise UserError(_by_hand(dataset, data_dir, by_hand))
    return dataset.files


def _by_hand(dataset: Dataset, data_dir: Path, files: list[File]) -> str:
    how = f"{dataset.name} is not downloaded automatically (licence: {dataset.licence})."
    how += f"\n{dataset.steps}" if dataset.steps else f" Get it from {dataset.page}."
    place = data_dir.absolute()
    if files:
        groups = [
            files,
            *([file for file in group if not (data_dir / file.name).exists()] for group in dataset.alternative_files),
        ]
        lists = ["".join(f"\n  {file.name} ({description(file)})" for file in group) for group in groups]
        how += f"\nPut into {place} and run the same command again:" + "\nor:".join(lists)
    return (
        f"{how}\nOr extract it so that the folder {place / dataset.folder} exists, or name the folder that holds it "
        "with --data-dir."
    )


def description(file: File) -> str:
    """Size and checksum, for a user to compare with."""
    size = "size unknown" if file.bytes is None else f"{file.bytes:,} bytes"
    checksum = file.checksum or "checksum unknown"
    # torchvision publishes the first digits of a sha256 alone
    return f"{size}, {checksum}" + ("..." if checksum.startswith("sha256:") and len(checksum) < 71 else "")


def what_is_wrong(file: File, path: Path, remember: bool) -> str:
    """What is wrong with the file at `path`; "" if it is the published one, as far as that can be told."""
    wrong = _compare(file, path, remember)
    if wrong and remember:
        forget(path.parent, file.name)
    return wrong


def _compare(file: File, path: Path, remember: bool) -> str:
    if not path.is_file():  # a pipe would be waited for
        return "no regular file"
    size = path.stat().st_size
    algorithm, _, expected = (file.checksum or "sha256:").partition(":")
    value = checksum(path, algorithm, file.name) if remember else digest(path, algorithm)
    if value.startswith(expected.lower()) and file.bytes in (None, size):
        # a page that asks to log in comes with no error; where nobody states a checksum, this tells
        if file.checksum is None and is_archive(file) and not is_readable(path):
            return f"no archive ({size:,} bytes)"
        return ""
    what = "truncated" if file.bytes is not None and size < file.bytes else "another file"
    return f"{what} ({size:,} bytes, {algorithm}:{value})"


def verify_placed(file: File, folder: Path, remember: bool, fetched: bool = True) -> bool:
    """Whether the file is there; an error if it is, but is not the published one. fetched: it would be, if not."""
    path = folder / file.name
    if not path.exists():
        return False
    if wrong := what_is_wrong(file, path, remember):
        delete = ", or delete it for a download," if file.urls and fetched else ""
        raise UserError(
            f"{path.absolute()} is {wrong}; expected {description(file)}. It was left as it is: put the right file "
            f"in its place{delete} and run the same command again."
        )
    return True


def seen_checksums(dataset: Dataset, data_dir: Path) -> dict[str, str]:
    """The checksums of the dataset's archives as they were found in `data_dir`: "<algorithm>:<hex>" by file name.

    One that is not the published one can't have been found: such an archive is refused.
    """
    files = {file.name: file for file in every_file(dataset)}
    return {
        name: value
        for name, value in remembered(data_dir).items()
        if name in files and value.startswith((files[name].checksum or "").lower())
    }
