"""The lists that come with datasets: text, CSV, JSON and MATLAB files, and the parts that such lists make."""

import csv
import io
import math
import operator
import os
import struct
import tarfile
import zlib
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence, Sized
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from engine import files
from engine.data.names import loose
from engine.data.part import Part
from engine.errors import NotWholeError, UserError, reason_of
from engine.paths import why_no_name

Content = TypeVar("Content")

MOST_BYTES = 1 << 28  # of a list; published ones have at most a few million
MOST_NAME = 255  # bytes, on nearly every file system
MOST_SHOWN = 300  # letters of what is wrong with a list
# Kinds of elements in MATLAB's files, version 5; those of an array's values; kinds of arrays, and a mark of them
INT8, INT32, UINT32, MATRIX, COMPRESSED = 1, 5, 6, 14, 15
VALUES = (1, 2, 3, 4, 5, 6, 7, 9, 12, 13, 16, 17, 18)
CELL, STRUCTURE, CHARACTERS, NUMBERS = 1, 2, 4, range(6, 16)
COMPLEX = 0x800
MOST_DEEP = 10  # arrays in arrays: scipy goes into each, and beyond some ten thousand breaks down
MOST_UNPACKED = 1 << 26  # bytes


def read_lines(path: Path) -> list[str]:
    """The lines of a text file, without the empty ones; there must be some."""
    return _read(path, lambda: _some([line.strip() for line in _text(path).splitlines() if line.strip()]))


def _text(path: Path) -> str:
    text = files.read_small(path, MOST_BYTES).decode("utf-8-sig")
    if "\0" in text:  # what a crash leaves of a file, and what no path can have in it
        raise ValueError("it has zeros in it")
    return text


def read_columns(path: Path, columns: int) -> list[list[str]]:
    """The first words of every line of a text file, `columns` of them; the last may go on to the line's end."""

    def split(line: str) -> list[str]:
        words = line.split(maxsplit=columns - 1)
        if len(words) < columns:
            raise ValueError(f"the line {line!r} has {len(words)} columns instead of {columns}")
        return words

    return _read(path, lambda: [split(line) for line in read_lines(path)])


def read_table(path: Path) -> dict[str, str]:
    """The first word of every line of a text file, which must be in one line alone -> the rest of the line."""
    rows = read_columns(path, 2)
    if twice := [key for key, times in Counter(key for key, _ in rows).items() if times > 1]:
        raise damaged(path, f"it has {twice[0]!r} in several lines")
    return dict(rows)


def read_csv(path: Path, *columns: str) -> list[dict[str, str]]:
    """The rows of a CSV file whose first line names at least `columns`; there must be some."""

    def rows() -> list[dict[str, str]]:
        reader = csv.DictReader(io.StringIO(_text(path), newline=""))
        names = Counter(reader.fieldnames or ())
        if wrong := [column for column in columns if names[column] != 1]:
            raise ValueError(f"it lacks the columns {', '.join(sorted(wrong))}, or has them twice")
        found = _some(list(reader))
        if short := [row for row in found if any(row[column] is None for column in columns)]:
            raise ValueError(f"the row {','.join(filter(None, short[0].values()))!r} has too few columns")
        return found

    return _read(path, rows)


def read_json(path: Path) -> Any:
    """What a JSON file holds, which must be something."""
    return _read(path, lambda: _some(files.read_json(path, MOST_BYTES)))


def read_matlab(path: Path, *names: str) -> list[Any]:
    """The arrays `names` of a MATLAB file, without dimensions of length 1; there must be several entries in each.

    The file may be in a tar file, as if that were a folder: lists.tar/train_list.mat.
    """
    from scipy.io import loadmat

    def arrays() -> list[Any]:
        content = _content(path)
        _require_whole(content)
        found = loadmat(io.BytesIO(content), squeeze_me=True, variable_names=names)
        if lacking := [name for name in names if name not in found]:
            raise ValueError(f"it lacks {', '.join(lacking)}")
        if single := [name for name in names if np.ndim(found[name]) == 0]:
            raise ValueError(f"its {', '.join(single)} is a single value instead of a list")
        return [_some(found[name]) for name in names]

    return _read(path, arrays)


def _content(path: Path) -> bytes:
    if path.parent.suffix != ".tar" or not path.parent.is_file():
        return files.read_small(path, MOST_BYTES)
    with tarfile.open(path.parent, "r:") as archive:
        member = next((member for member in archive if member.isfile() and Path(member.name).name == path.name), None)
        content = archive.extractfile(member) if member and 0 <= member.size <= MOST_BYTES else None
        if content is None:
            raise FileNotFoundError(path)
        return content.read()


def _require_whole(content: bytes) -> None:
    """Raise ValueError unless a MATLAB file, version 5, is built as it should be, throughout.

    scipy breaks down, and the process with it, over elements of the wrong kind or over arrays in arrays in arrays, and
    takes as much memory as a file states. https://www.mathworks.com/help/pdf_doc/matlab/matfile_format.pdf
    """
    order = {b"IM": "<", b"MI": ">"}.get(content[126:128])
    if order is None or struct.unpack_from(f"{order}H", content, 124) != (0x100,):
        raise ValueError("it is no MATLAB file of version 5 to 7")
    left = MOST_UNPACKED
    levels: list[tuple[memoryview, int]] = []
    for kind, body in _elements(memoryview(content)[128:], order):
        if kind == COMPRESSED:
            unpacked = memoryview(zlib.decompressobj().decompress(body, left + 1))
            left -= len(unpacked)
            if left < 0:
                raise ValueError(f"it unpacks to more than {MOST_UNPACKED:,} bytes")
            ((kind, body),) = _elements(unpacked, order)
        levels.append((_of_kind(body, kind, MATRIX), 0))
    while levels:
        level, depth = levels.pop()
        if depth > MOST_DEEP:
            raise ValueError("it has arrays in arrays, too deeply")
        levels += [(inner, depth + 1) for inner in _inner_arrays(level, order)]


def _inner_arrays(level: memoryview, order: str) -> list[memoryview]:
    """The arrays in an array, which must have as many as it states, and no others."""
    if not len(level):  # as MATLAB writes an empty one
        return []
    (flags_kind, flags), (dimensions_kind, dimensions), (name_kind, _), *rest = _elements(level, order)
    (flag, _) = struct.unpack(f"{order}II", _of_kind(flags, flags_kind, UINT32))
    sizes = struct.unpack(f"{order}{len(dimensions) // 4}i", _of_kind(dimensions, dimensions_kind, INT32))
    entries, kind = math.prod(sizes), flag & 0xFF
    if len(sizes) < 2 or min(sizes) < 0 or name_kind != INT8 or kind not in (CELL, STRUCTURE, CHARACTERS, *NUMBERS):
        raise ValueError("it has an array of a kind that no list has")
    if entries > len(level):
        raise ValueError("it states more entries than it has room for")
    if kind in (CHARACTERS, *NUMBERS):
        if len(rest) != (2 if flag & COMPLEX else 1):
            raise ValueError("it states more numbers or letters than it has")
        if any(kind not in VALUES for kind, _ in rest):
            raise ValueError("it has an array of what are no values")
        return []
    if kind == STRUCTURE:
        (size_kind, size), (names_kind, names), *rest = rest
        (length,) = struct.unpack(f"{order}i", _of_kind(size, size_kind, INT32))
        entries *= len(_of_kind(names, names_kind, INT8)) // max(length, 1)
    if len(rest) != entries:
        raise ValueError(f"it has {len(rest):,} arrays in an array that states {entries:,}")
    return [_of_kind(body, kind, MATRIX) for kind, body in rest]


def _of_kind(body: memoryview, kind: int, expected: int) -> memoryview:
    if kind != expected:
        raise ValueError(f"it has an element of kind {kind} where {expected} should be")
    return body


def _elements(level: memoryview, order: str) -> Iterator[tuple[int, memoryview]]:
    """The kind and the bytes of each element of a level."""
    place = 0
    while place < len(level):
        kind, size = struct.unpack_from(f"{order}II", level, place)
        begin = place + 8
        if kind >> 16:  # of four bytes at most, beside their number
            kind, size, begin = kind & 0xFFFF, kind >> 16, place + 4
            place += 8
        else:
            place += 8 + size + (-size % 8 if kind != COMPRESSED else 0)
        if begin + size > len(level) or begin + size > place:
            raise ValueError("it is cut short")
        yield kind, level[begin : begin + size]


def whole_numbers(path: Path, values: Any) -> list[int]:
    """The entries of an array of a list, each of which must be a whole number, of 32 bits."""
    try:
        numbers = [operator.index(value) for value in values.tolist()]
    except TypeError as error:
        raise damaged(path, "it has text or fractions where whole numbers should be") from error
    if strange := [number for number in numbers if not -(2**31) <= number < 2**31]:
        raise damaged(path, f"it has the number {strange[0]}")
    return numbers


def damaged(path: Path, why: object) -> UserError:
    """The error for a list that does not hold what it should."""
    shown = str(why)
    shown = shown if len(shown) <= MOST_SHOWN else f"{shown[:MOST_SHOWN]}..."
    return UserError(f"{path} is damaged or another file: {shown}. Put the published file in its place.")


def _some(content: Content) -> Content:
    if content is None or (isinstance(content, Sized) and not len(content)):
        raise ValueError("it is empty")
    return content


def _read(path: Path, reader: Callable[[], Content]) -> Content:
    try:
        return reader()
    except UserError:
        raise
    except FileNotFoundError:
        raise NotWholeError(
            f"{path} is missing: it is one of the dataset's own lists, which say what is in each image.", path.name
        ) from None
    except OSError as error:
        raise UserError(f"{path} can't be read: {reason_of(error)}.") from error
    except Exception as error:  # damaged MATLAB files raise nearly everything
        raise damaged(path, error or type(error).__name__) from error


def listed_part(root: Path, names: Sequence[str], labels: Sequence[int]) -> tuple[Part, tuple[str, ...]]:
    """The images `names`, paths below `root`, as far as they are there; and the names of those that are not.

    An image that is there as A.JPG or with its letters decomposed is the listed a.jpg, unless two could be.
    """
    for name in names:
        parts = name.split("/")
        if (
            not {"", ".", ".."}.isdisjoint(parts)
            or "\\" in name
            or "\0" in name
            or why_no_name(name)
            or max(len(part.encode()) for part in parts) > MOST_NAME
        ):
            shown = name if len(name) <= MOST_SHOWN else f"{name[:MOST_SHOWN]}..."
            raise UserError(
                f"the lists in {root} name {shown!r}, which is no path of an image below it. Put the published lists "
                "in their place."
            )
    if len(set(names)) < len(names):
        twice = next(name for name, times in Counter(names).items() if times > 1)
        raise UserError(f"the lists in {root} name {twice} twice. Put the published lists in their place.")
    of_folder: dict[str, list[str]] = {}
    for name in names:
        folder, _, file = name.rpartition("/")
        of_folder.setdefault(folder, []).append(file)
    there: dict[str, Path] = {}
    for folder, inside in of_folder.items():
        place = _folder_on_disk(root, folder)
        there |= {f"{folder}/{file}".lstrip("/"): place / own for file, own in _files_on_disk(place, inside).items()}
    kept = [index for index, name in enumerate(names) if name in there]
    part = Part(
        images=[there[names[index]] for index in kept],
        labels=np.array([labels[index] for index in kept], dtype=np.int64),
        names=[names[index] for index in kept],
    )
    return part, tuple(name for name in names if name not in there)


def _entries(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if _may_be_opened(entry))
    except (FileNotFoundError, NotADirectoryError):
        return []
    except OSError as error:
        raise UserError(f"{folder} can't be read: {reason_of(error)}. Make it readable, or get it again.") from error


def _may_be_opened(entry: os.DirEntry[str]) -> bool:
    """Whether it is no pipe or device, which would be waited for; a link to nothing is told of by whoever reads it."""
    if entry.is_file() or entry.is_dir():
        return True
    try:
        entry.stat()
    except OSError:
        return True
    return False


def _folder_on_disk(root: Path, folder: str) -> Path:
    """The folder of that path below `root`, also if it is written in other letters."""
    place = root
    for name in folder.split("/") if folder else ():
        names = [] if os.path.lexists(place / name) else [own for own in _entries(place) if loose(own) == loose(name)]
        place = place / (names[0] if len(names) == 1 else name)
    return place


def _files_on_disk(folder: Path, names: Sequence[str]) -> dict[str, str]:
    """Of the listed `names`, those that are in `folder` -> what they are called there."""
    entries = _entries(folder)
    found = {name: name for name in set(entries).intersection(names)}
    if len(found) < len(names):
        others: dict[str, list[str]] = {}
        for entry in set(entries).difference(found):
            others.setdefault(loose(entry), []).append(entry)
        wanted = Counter(loose(name) for name in names if name not in found)
        for name in names:
            if name not in found and wanted[loose(name)] == 1 and len(own := others.get(loose(name), [])) == 1:
                found[name] = own[0]
    return found


def find_list(folder: Path, *names: str, levels_up: int = 1) -> Path | None:
    """The first of `names` that is there: in `folder`, or above it, which for a link is where it lies or leads to."""
    tops = [folder]
    for place in (folder.absolute(), folder.resolve()):
        tops += place.parents[:levels_up]
    return next((top / name for top in tops for name in names if (top / name).exists()), None)


def part_by_folder(
    root: Path, lists: Mapping[Path, Sequence[str]]
) -> tuple[tuple[str, ...], list[Part], tuple[str, ...]]:
    """A part for each of `lists` of "<class>/<image>", paths below `root`: the classes, the parts, and what is missing.

    UserError, which names the list: an entry of another form.
    """
    for path, names in lists.items():
        if strange := [name for name in names if name.count("/") != 1]:
            raise damaged(path, f"{strange[0]!r} is not <class>/<image>")
    classes = tuple(sorted({name.partition("/")[0] for names in lists.values() for name in names}))
    labels = {name: label for label, name in enumerate(classes)}
    found = [listed_part(root, names, [labels[name.partition("/")[0]] for name in names]) for names in lists.values()]
    return classes, [part for part, _ in found], tuple(name for _, missing in found for name in missing)
