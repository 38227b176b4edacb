"""Which images are meant: files, folders, patterns, and paths on stdin, one after another and never all at once.

A folder is walked as those that one trains on are read: in the order of the paths below it, without what is hidden, or
what programs left there. A file that the user names is an image, whatever it is called; of what lies in a folder, or is
matched by a pattern, that is one which is called so or begins so.
"""

from __future__ import annotations

import glob
import os
import stat
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import filter as matching
from functools import cache
from itertools import repeat
from pathlib import Path
from typing import BinaryIO, NamedTuple

from engine.cli import nearest, without_quotes
from engine.data.file_kinds import (
    HEAD,
    IMAGE_SUFFIXES,
    is_conflict_copy,
    is_helper_folder,
    kind_of,
    remedy_for,
    suffix_of,
)
from engine.errors import UserError, one_line, reason_of
from engine.files import open_regular
from engine.paths import is_dir
from engine.readers.layout import stem_of

STDIN = "-"
MOST_KINDS = 5  # of files that are no images, which are named
UNUSED = "a format that nothing here reads: save it as PNG, say, by what made it"


class Found(NamedTuple):
    """An image, or what can be none."""

    path: str  # as the user leads to it; "" never
    root: str = ""  # the folder that it was found by; "": it was named otherwise
    problem: str = ""  # why it is not to be opened


@dataclass
class Inputs:
    """The images that `words` mean, each time they are iterated over, and what was passed over meanwhile."""

    words: Sequence[str]
    stdin: BinaryIO
    passed_over: Counter[str] = field(default_factory=Counter)  # suffix -> files that are no images

    def require(self) -> None:
        """Raise UserError where a word means nothing: no file, no image below a folder, no match of a pattern."""
        if self.words.count(STDIN) > 1:
            raise UserError(f"{STDIN} twice: stdin can be read once. Leave one of them out.")
        for position, word in enumerate(self.words):
            if not word:
                raise UserError("the path of an image is empty: is a shell variable not set?")
            if word != STDIN:
                self._require(word, without_quotes(self.words[position:]))
        self.passed_over.clear()

    def _require(self, word: str, hint: str) -> None:
        there, is_folder = _exists(word), is_dir(word)
        if not there and not glob.has_magic(word):
            near = f"{hint}." if hint else f".{nearest(Path(word).name, _names(Path(word).parent), 0.6)}"
            raise UserError(
                f"{one_line(word)}: no such file or folder{near} Expected an image, a folder of images, a pattern in "
                f"quotes, or {STDIN} for paths on stdin."
            )
        if there and not is_folder and (problem := _problem(Path(word))):
            raise UserError(f"{word}: {problem}. Expected an image, or a folder of images.")
        if next(self._of(word), None) is None:
            others = f" Of what is there, {self.kinds_passed_over} are none." if self.passed_over else ""
            what = "holds no image" if is_folder else "matches no image"
            raise UserError(f"{word} {what}.{others} Expected images, such as .jpg, .png, .tif or .dcm.")

    def __iter__(self) -> Iterator[Found]:
        """Each image in the order of the words. UserError: nothing comes from stdin."""
        for word in self.words:
            yield from self._of(word)

    def first(self) -> Iterator[Found | None]:
        """As many as there are, for whoever wants to know whether there are many; of stdin it is not known: endless."""
        aside = replace(self, passed_over=Counter())
        for word in self.words:
            yield from repeat(None) if word == STDIN else aside._of(word)

    @property
    def kinds_passed_over(self) -> str:
        """The most frequent suffixes of files that are no images, with their numbers."""
        most = sorted(self.passed_over.items(), key=lambda pair: (-pair[1], pair[0]))[:MOST_KINDS]
        return ", ".join(f"{number:,} {one_line(suffix)}" for suffix, number in most)

    @property
    def folders(self) -> bool:
        """Whether some are found by a folder, which can be one of class folders."""
        return any(word != STDIN and is_dir(word) for word in self.words)

    @property
    def number(self) -> int | None:
        """How many there are; None: that is not known before they are listed."""
        alone = all(word != STDIN and _exists(word) and not is_dir(word) for word in self.words)
        return len(self.words) if alone else None

    def _of(self, word: str) -> Iterator[Found]:
        if word == STDIN:
            yield from self._lines()
        elif is_dir(word):
            yield from self._walk(Path(word), word, set())
        elif _exists(word):
            yield Found(word, problem=_problem(Path(word)))
        else:
            yield from self._matches(word)

    def _lines(self) -> Iterator[Found]:
        empty = True
        for line in self.stdin:
            if path := os.fsdecode(line.rstrip(b"\r\n")):
                empty = False
                yield Found(path, problem=_problem(Path(path)))
        if empty:
            raise UserError("nothing came from stdin. Expected paths of images, one a line.")

    def _matches(self, pattern: str) -> Iterator[Found]:
        """What a pattern means: folders in the order of their paths, and of one at a time the names."""
        above, slash, name = pattern.rstrip("/").rpartition("/")
        folders = sorted(glob.iglob(f"{above}/", recursive=True)) if slash else [""]  # noqa: PTH207 (it has hidden ones)
        seen: set[tuple[int, int]] = set()
        for folder in map(Path, folders):
            if name == "**":
                yield from self._walk(folder, "", seen)
            else:
                yield from self._in_folder(folder, name, seen)

    def _in_folder(self, folder: Path, pattern: str, seen: set[tuple[int, int]]) -> Iterator[Found]:
        for name in sorted(matching(_names(folder), pattern)):
            path = folder / name
            if name.startswith(".") and not pattern.startswith("."):
                continue
            if path.is_dir():
                yield from self._walk(path, "", seen)
            else:
                yield from self._file(path, "", tuple)

    def _walk(self, folder: Path, root: str, seen: set[tuple[int, int]]) -> Iterator[Found]:
        """The images below a folder, by the order of their paths; a folder that a link leads back to is left out."""
        try:
            status = folder.stat()
            if (status.st_dev, status.st_ino) in seen:
                return
            seen.add((status.st_dev, status.st_ino))
            with os.scandir(folder) as entries:  # names alone, of one folder at a time: it can have a million
                names = sorted(f"{entry.name}/" if _is_folder(entry) else entry.name for entry in entries)
        except OSError as problem:
            yield Found(f"{folder}/", root, reason_of(problem))
            return
        stems = cache(lambda: {stem_of(name) for name in names if suffix_of(name) in IMAGE_SUFFIXES})
        inside = folder != Path(root)
        for name in names:
            if name.endswith("/"):
                if not name.startswith(".") and not is_helper_folder(name[:-1], inside):
                    yield from self._walk(folder / name, root, seen)
            elif not name.startswith(".") or name.endswith(".icloud"):
                yield from self._file(folder / name, root, stems)

    def _file(self, path: Path, root: str, stems: Callable[[], Collection[str]]) -> Iterator[Found]:
        """The file, if it is an image, or looks like one; what is beside an image of the same name is its raw form."""
        name, suffix = path.name, suffix_of(path.name)
        if is_conflict_copy(name):
            return
        if suffix in IMAGE_SUFFIXES:  # of any other, its first bytes tell
            yield Found(str(path), root, _problem(path))
            return
        kind = kind_of(name, lambda: _head(path))
        if kind == "image":
            yield Found(str(path), root)
        elif kind == "other":
            self.passed_over[suffix or "no suffix"] += 1
        elif name.rpartition(".")[0] not in stems():
            yield Found(str(path), root, remedy_for(name, _head(path)) or UNUSED)


def _exists(word: str) -> bool:
    try:
        return os.path.lexists(word)
    except ValueError:  # a NUL in it
        return False


def _names(folder: Path) -> list[str]:
    """What is in a folder; nothing where that can't be told."""
    try:
        with os.scandir(folder) as entries:
            return [entry.name for entry in entries]
    except (OSError, ValueError):
        return []


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _problem(path: Path) -> str:
    """Why the file is not to be opened: a pipe would be waited for; "": it can be."""
    try:
        mode = path.stat().st_mode
    except OSError as problem:
        return "a link to nothing" if path.is_symlink() else reason_of(problem)
    except ValueError:
        return "no path: it has a NUL in it"
    if stat.S_ISDIR(mode):
        return "a folder, no image"
    return "" if stat.S_ISREG(mode) else "not a regular file"


def _head(path: Path) -> bytes:
    """The first bytes of a file; none of what is no regular file, or can't be read."""
    try:
        with open_regular(path) as file:
            return file.read(HEAD)
    except (OSError, ValueError):
        return b""
