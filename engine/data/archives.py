"""Tar and zip archives, extracted so that nothing lands outside the target and nothing half-done looks complete."""

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

from engine.data.declaration import Dataset, File
from engine.data.unpack import DAMAGE, Limits, RefusedError, unpack
from engine.errors import UserError, one_line

# An archive may have OTHER_ENTRIES, and ENTRIES_PER_IMAGE for each published image: BreakHis has four times as many in
# it as are of one magnification, PlantVillage on GitHub has each image in three forms, and macOS doubles them.
# MOST_ENTRIES where nobody states how many images there are.
ENTRIES_PER_IMAGE = 8
OTHER_ENTRIES = 10_000
MOST_ENTRIES = 2_000_000
# It may extract to LEAST_BYTES, and MOST_RATIO times its size: photographs hardly shrink, bitmaps of drawings perhaps
# thirty times; a bomb grows a thousand times.
LEAST_BYTES = 64 << 20
MOST_RATIO = 50

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
                print(one_line(f"extracting {file.name}"), file=sys.stderr, flush=True)
                path = data_dir / file.name
                _unpack(path, target, _limits(dataset, path), file.checksum is not None)
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
        there = {entry.name for entry in data_dir.iterdir()} | {dataset.folder}
        there |= {file.name for others in (dataset.files, *dataset.alternative_files) for file in others}
        for name in names:
            if name not in there and not name.startswith("."):  # nor a file that only this program writes
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


def _unpack(archive: Path, target: Path, limits: Limits, verified: bool) -> None:
    try:
        unpack(archive, target, limits, verified)
    except RefusedError as error:
        raise UserError(
            f"{archive.absolute()} {error}. Nothing was extracted: get the published file, or, if you trust this one, "
            f"extract it by hand in {archive.parent.absolute()}."
        ) from error
    except DAMAGE as error:
        raise _damaged(archive, error, verified) from error
    except OSError as error:
        if error.errno is None:  # gzip and bz2 report damage so; a full disk and the like have a number
            raise _damaged(archive, error, verified) from error
        raise


def _limits(dataset: Dataset, archive: Path) -> Limits:
    """How much the archive may hold: beside the images there are lists, boxes, masks and what macOS adds."""
    images = max(dataset.train_images + dataset.test_images + dataset.val_images, *map(sum, dataset.counts.values()), 0)
    return Limits(
        entries=OTHER_ENTRIES + ENTRIES_PER_IMAGE * images if images else MOST_ENTRIES,
        bytes=LEAST_BYTES + MOST_RATIO * archive.stat().st_size,
    )


def _damaged(archive: Path, error: Exception, verified: bool) -> UserError:
    if verified:
        why = "It has the published checksum, so it was published damaged or in a format that Python cannot read: "
        why += "extract it there by hand, or please report it."
    else:
        why = "Nobody publishes its checksum: it was perhaps cut short on the way, or is another file. Delete it "
        why += "and get it again."
    return UserError(f"{archive.absolute()} cannot be extracted: {str(error)[:200]}. {why}")
