"""Which folder `--data-dir` means, the same to every command, and whether a dataset may be fetched into it."""

from __future__ import annotations

import itertools
import os
import re
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path

from engine.data.archives import is_archive
from engine.data.declaration import Dataset, File
from engine.data.file_kinds import visible
from engine.data.locate import contains_one, description, every_file, locate, verify_placed, wanted
from engine.data.names import loose
from engine.errors import UserError, listed
from engine.paths import nearest_existing

LEVELS_UP = 3  # from a class folder of TinyImageNet to the dataset's own
MOST_SHOWN = 10  # entries of a folder, in a message


def place_of(dataset: Dataset, data_dir: Path) -> Path:
    """The folder that `--data-dir DIR` means: the one that holds the dataset's archive or extracted folder.

    DIR, if it is there; else DIR/<script>; else the folder in DIR, or above it, in which the dataset lies under its
    own name. DIR where none is.
    """
    if not dataset.files or dataset.own:
        return data_dir
    try:
        if is_there(dataset, data_dir):
            return data_dir
        within = data_dir / dataset.script_name
        if within.is_dir() and not is_usual(dataset, data_dir):
            return within
        for near in (_below(dataset, data_dir), _above(dataset, data_dir)):
            if len(near) == 1:
                return near[0]
    except OSError:  # a folder that can't be looked into: whoever reads it says so
        pass
    return data_dir


def present(dataset: Dataset, data_dir: Path) -> Path | None:
    """The folder to return if nothing is left to do."""
    if dataset.folder:
        return locate(dataset, data_dir)
    return data_dir if all(placed(dataset, file, data_dir) for file in dataset.files) else None


def placed(dataset: Dataset, file: File, data_dir: Path) -> bool:
    """Whether the dataset's file is in `data_dir`. UserError: it is, but is not the published one."""
    return verify_placed(file, data_dir, remember=True, fetched=not why_not_into(dataset, data_dir))


def place_among(dataset: Dataset, data_dir: Path) -> Path:
    """`place_of` for a command that has many datasets: DIR/<script> where the dataset is not there yet."""
    place = place_of(dataset, data_dir)
    alone = place == data_dir and (not dataset.files or not is_there(dataset, data_dir))
    return data_dir / dataset.script_name if alone else place


def is_there(dataset: Dataset, data_dir: Path) -> bool:
    """Whether the dataset lies in `data_dir`: extracted, or some of its files."""
    found = locate(dataset, data_dir) if dataset.folder else None
    return found is not None or any((data_dir / file.name).is_file() for file in every_file(dataset))


def require_place(dataset: Dataset, data_dir: Path) -> None:
    """Raise UserError where what is missing in `data_dir` can't be had: with what was looked for and what is there.

    What no program may fetch, what lies there under another name, and what may not be fetched into that folder.
    """
    try:
        files = wanted(dataset, data_dir)
    except UserError as by_hand:
        _refuse_other_names(data_dir, every_file(dataset))
        if is_usual(dataset, data_dir) or is_there(dataset, data_dir):
            raise
        raise UserError(f"{by_hand}\n{what_was_seen(dataset, data_dir)}") from by_hand
    _refuse_other_names(data_dir, files)
    absent = any(not (data_dir / file.name).exists() for file in files)
    if absent and (why := why_not_into(dataset, data_dir)):
        raise UserError(
            f"{dataset.name} is not in {data_dir.absolute()}, which {why}.\n{what_was_seen(dataset, data_dir)}\n"
            + _how_to_have_it_fetched(dataset, data_dir)
        )


def _how_to_have_it_fetched(dataset: Dataset, data_dir: Path) -> str:
    usual = f"leave --data-dir out, which fetches into {usual_place(dataset).absolute()}"
    if _links_to_nothing(dataset, data_dir):
        return "Mount it, or remove the link and run the same command again."
    if data_dir.exists() and not data_dir.is_dir():
        return f"Expected a folder: name one with --data-dir, or {usual}."
    into = data_dir / dataset.script_name if data_dir.exists() else data_dir
    return (
        "Nothing is fetched into a folder that does not exist or has other things in it. To have it fetched: "
        f"mkdir -p {shlex.quote(str(into))}, and the same command again; or {usual}."
    )


def _refuse_other_names(data_dir: Path, files: Iterable[File]) -> None:
    """Raise UserError where a file that is missing lies there as browsers call a second copy, or uncompressed."""
    absent = [file.name for file in files if not os.path.lexists(data_dir / file.name)]
    for name, found in itertools.product(absent, _entries(data_dir) if absent else ()):
        if _first_name(found) == _first_name(name):
            move = shlex.join(["mv", "-n", str(data_dir / found), str(data_dir / name)])
            raise UserError(f"{data_dir.absolute()} has {found!r}. Expected the name {name}: {move}")
        if f"{_first_name(found)}.gz" == _first_name(name):
            unpack = shlex.join(["tar", "-xf", str(data_dir / found), "-C", str(data_dir)])
            raise UserError(
                f"{data_dir.absolute()} has {found!r}, which is {name} without its compression, as some browsers keep "
                f"it: it has no published checksum. Extract it by hand: {unpack}"
            )


def _first_name(name: str) -> str:
    """The name of a download without what is added to that of a second copy: "a (1).tar.gz" is "a.tar.gz"."""
    name = re.sub(r"( ?\(\d+\)| - copy| copy)(?=\.|$)", "", loose(name))
    return f"{name[:-4]}.tar.gz" if name.endswith(".tgz") else name


def why_not_into(dataset: Dataset, data_dir: Path) -> str:
    """Why nothing may be fetched into `data_dir`, to follow "which"; "" where it may."""
    if links := _links_to_nothing(dataset, data_dir):
        link = "" if links[0] == data_dir else f"has {links[0].name}, which "
        if links[0] in data_dir.parents:
            link = f"is to lie in {links[0]}, which "
        return f"{link}is a link to {links[0].readlink()}, where there is nothing: is its disk mounted?"
    if is_usual(dataset, data_dir):
        return ""
    if not data_dir.exists():
        return "does not exist"
    if not data_dir.is_dir():
        return f"is a file (its folder is {data_dir.absolute().parent})"
    own = {dataset.folder} | {place.partition("/")[0] for place in dataset.other_folders}
    names = tuple(file.name for file in every_file(dataset))  # also of what browsers leave of a download, a.zip.part
    strangers = [name for name in _entries(data_dir) if name.rstrip("/") not in own and not name.startswith(names)]
    return f"has {_some(strangers)} in it" if strangers else ""


def _links_to_nothing(dataset: Dataset, data_dir: Path) -> list[Path]:
    names = [name for name in (dataset.folder, *(file.name for file in dataset.files)) if name]
    paths = [*reversed(data_dir.parents), data_dir, *(data_dir / name for name in names)]
    return [path for path in paths if path.is_symlink() and not path.exists()]


def how_to_get_again(dataset: Dataset, data_dir: Path, folder: Path, missing: str = "") -> str:
    """How the user gets what is missing in `folder`, where the dataset lies: a sentence without its end.

    missing: the name of a file that is perhaps published by itself.
    """
    if file := next((file for file in every_file(dataset) if file.name == missing and file.urls), None):
        return f"Get {missing} ({description(file)}) at {file.urls[0]} and put it there"
    sets = [files for files in (dataset.files, *dataset.alternative_files) if files]
    if folder != data_dir and folder.is_relative_to(data_dir):
        top = data_dir / folder.relative_to(data_dir).parts[0]
        for files in sets:
            if all((data_dir / file.name).exists() for file in files):
                names = " and ".join(file.name for file in files)
                return f"Delete {top}, and the same command extracts it again from {names}"
        if _can_be_fetched(dataset, data_dir) and not why_not_into(dataset, data_dir):
            return f"Move {top} away, and the same command fetches it again"
    if not dataset.files:
        return f"Put back what {dataset.script_name}.py reads"
    if not _can_be_fetched(dataset, data_dir):
        return f"Get it again from {dataset.page}"
    usual = usual_place(dataset)
    elsewhere = "" if usual.exists() else f", or leave it out to have it fetched into {usual.absolute()}"
    return f"To have it fetched again, name an empty folder with --data-dir{elsewhere}"


def _can_be_fetched(dataset: Dataset, data_dir: Path) -> bool:
    return bool(dataset.files) and all(file.urls or (data_dir / file.name).exists() for file in dataset.files)


def usual_place(dataset: Dataset) -> Path:
    """Where a dataset lies if the command line does not say."""
    return Path("data") / dataset.script_name


def is_usual(dataset: Dataset, data_dir: Path) -> bool:
    """Whether it lies where it does if the command line does not say."""
    return data_dir.absolute() == usual_place(dataset).absolute()


def what_was_seen(dataset: Dataset, data_dir: Path) -> str:
    """What was looked for and where, what is there instead, and where the dataset seems to lie."""
    wanted = list(dict.fromkeys(file.name for file in every_file(dataset)))
    if dataset.folder:
        wanted.append(f"{dataset.folder}/")
    if dataset.contains:
        wanted.append(f"a folder with {' or '.join(dataset.contains)} in it")
    there = nearest_existing(data_dir)
    there = there if there.is_dir() else there.parent
    text = f"Looked for {', '.join(wanted)}: in it, in {dataset.script_name}/ and the other folders in it, and above."
    text += f"\nIn {there} there is {_some(_entries(there))}."
    if near := list(dict.fromkeys(_suspects(dataset, data_dir))):
        text += f"\nIt may lie in one of these:{listed(f'--data-dir {shlex.quote(str(place))}' for place in near)}"
    return text


def _entries(folder: Path) -> list[str]:
    """The names of what is visible in a folder, folders with a slash; none where it can't be read."""
    try:
        return sorted(f"{entry.name}/" if entry.is_dir() else entry.name for entry in visible(folder))
    except OSError:
        return []


def _some(names: list[str]) -> str:
    more = f" and {len(names) - MOST_SHOWN:,} more" if len(names) > MOST_SHOWN else ""
    return (", ".join(names[:MOST_SHOWN]) or "nothing") + more


def _folders(data_dir: Path) -> list[Path]:
    return [data_dir / name for name in _entries(data_dir) if name.endswith("/")]


def _below(dataset: Dataset, data_dir: Path) -> list[Path]:
    """The folders in `data_dir` in which the dataset lies, or which it is, under its own name: that leaves no doubt."""
    folders = _folders(data_dir)
    own = [inside for inside in folders if loose(inside.name) == loose(dataset.folder) and _is_marked(dataset, inside)]
    return own + [inside for inside in folders if _is_marked(dataset, inside / dataset.folder)]


def _above(dataset: Dataset, data_dir: Path) -> list[Path]:
    """The dataset's own folder, if `data_dir` lies in it."""
    if not data_dir.is_dir():
        return []
    above = (data_dir.absolute(), *data_dir.absolute().parents[:LEVELS_UP])
    real = (data_dir.resolve(), *data_dir.resolve().parents[:LEVELS_UP])
    return [
        folder
        for folder in (*above, *real)
        if loose(folder.name) == loose(dataset.folder) and _is_marked(dataset, folder)
    ][:1]


def _is_marked(dataset: Dataset, folder: Path) -> bool:
    """Whether a folder of the dataset's own name holds it, as far as its marks tell."""
    return bool(dataset.folder) and folder.is_dir() and bool(dataset.contains) and contains_one(dataset, folder)


def _suspects(dataset: Dataset, data_dir: Path) -> Iterator[Path]:
    """Where the dataset may lie, near `data_dir`: for the user to say."""
    archives = [file.name for file in dataset.files if is_archive(file) or not dataset.folder]
    nearest = nearest_existing(data_dir)  # which may be looked into, as those above it
    for folder in (*_folders(nearest), *(nearest, *nearest.parents)[: LEVELS_UP + 1]):
        inside = folder / dataset.folder
        named = bool(dataset.folder) and bool(_entries(inside))
        marked = bool(dataset.folder) and contains_one(dataset, folder)
        if named or marked or any((folder / name).exists() for name in archives):
            yield folder
