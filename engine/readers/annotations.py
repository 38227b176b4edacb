"""The lists that come with datasets: text, CSV, JSON and MATLAB files, and the parts that such lists make."""

import csv
import json
import operator
import os
from collections import Counter
from collections.abc import Callable, Mapping, Sequence, Sized
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from engine.data.part import Part
from engine.errors import UserError, reason_of

Content = TypeVar("Content")


def read_lines(path: Path) -> list[str]:
    """The lines of a text file, without the empty ones; there must be some."""

    def lines() -> list[str]:
        text = path.read_text("utf-8-sig")
        if "\0" in text:  # what a crash leaves of a file, and what no path can have in it
            raise ValueError("it has zeros in it")
        return _some([line.strip() for line in text.splitlines() if line.strip()])

    return _read(path, lines)


def read_columns(path: Path, columns: int) -> list[list[str]]:
    """The first words of every line of a text file, `columns` of them; the last may go on to the line's end."""

    def split(line: str) -> list[str]:
        words = line.split(maxsplit=columns - 1)
        if len(words) < columns:
            raise ValueError(f"the line {line!r} has {len(words)} columns instead of {columns}")
        return words

    return _read(path, lambda: [split(line) for line in read_lines(path)])


def read_csv(path: Path, *columns: str) -> list[dict[str, str]]:
    """The rows of a CSV file whose first line names at least `columns`; there must be some."""

    def rows() -> list[dict[str, str]]:
        with path.open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file)
            if lacking := set(columns) - set(reader.fieldnames or ()):
                raise ValueError(f"it lacks the columns {', '.join(sorted(lacking))}")
            return _some(list(reader))

    return _read(path, rows)


def read_json(path: Path) -> Any:
    """What a JSON file holds, which must be something."""
    return _read(path, lambda: _some(json.loads(path.read_text("utf-8"))))


def read_matlab(path: Path, *names: str) -> list[Any]:
    """The arrays `names` of a MATLAB file, without dimensions of length 1; there must be several entries in each."""
    from scipy.io import loadmat

    def arrays() -> list[Any]:
        # opened here: loadmat adds .mat to a name that it does not find
        with path.open("rb") as file:
            content = loadmat(file, squeeze_me=True)
        if lacking := [name for name in names if name not in content]:
            raise ValueError(f"it lacks {', '.join(lacking)}")
        if single := [name for name in names if np.ndim(content[name]) == 0]:
            raise ValueError(f"its {', '.join(single)} is a single value instead of a list")
        return [_some(content[name]) for name in names]

    return _read(path, arrays)


def whole_numbers(path: Path, values: Any) -> list[int]:
    """The entries of an array of a list, each of which must be a whole number."""
    try:
        return [operator.index(value) for value in values.tolist()]
    except TypeError as error:
        raise damaged(path, "it has text or fractions where whole numbers should be") from error


def damaged(path: Path, why: object) -> UserError:
    """The error for a list that does not hold what it should."""
    return UserError(f"{path} is damaged or another file: {why}. Put the published file in its place.")


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
        raise UserError(
            f"{path} is missing: it is one of the dataset's own lists, which say what is in each image. Get it again: "
            "delete the extracted folder to have it fetched where it can be, or put the file there."
        ) from None
    except OSError as error:
        raise UserError(f"{path} can't be read: {reason_of(error)}.") from error
    except Exception as error:  # damaged MATLAB files raise nearly everything
        raise damaged(path, error or type(error).__name__) from error


def listed_part(root: Path, names: Sequence[str], labels: Sequence[int]) -> tuple[Part, tuple[str, ...]]:
    """The images `names`, paths below `root`, as far as they are there; and the names of those that are not."""
    if len(set(names)) < len(names):
        twice = next(name for name, times in Counter(names).items() if times > 1)
        raise UserError(f"the lists in {root} name {twice} twice. Put the published lists in their place.")
    there: set[str] = set()
    for folder in {name.rpartition("/")[0] for name in names}:
        try:
            with os.scandir(root / folder) as entries:
                there.update(f"{folder}/{entry.name}".lstrip("/") for entry in entries)
        except (FileNotFoundError, NotADirectoryError):
            continue
        except OSError as error:
            raise UserError(
                f"{root / folder} can't be read: {reason_of(error)}. Make it readable, or get it again."
            ) from error
    kept = [index for index, name in enumerate(names) if name in there]
    part = Part(
        images=[root / names[index] for index in kept],
        labels=np.array([labels[index] for index in kept], dtype=np.int64),
        names=[names[index] for index in kept],
    )
    return part, tuple(name for name in names if name not in there)


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
