"""What lies in folders: the images in class folders, or those that a list names, and all that is beside them."""

import os
import stat
from collections import Counter
from collections.abc import Collection, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from engine.data.file_kinds import HEAD, is_conflict_copy, is_helper_folder, kind_of, remedy_for, suffix_of
from engine.errors import Refuse, UserError, listed, raised, refusing
from engine.paths import why_no_name
from engine.readers.layout import stem_of

MOST_LEVELS = 8  # that are gone down in search of class folders: a link can lead back up


@dataclass
class Listing:
    """The images in class folders; nothing in it depends on the order in which the file system names them."""

    classes: dict[str, list[str]] = field(default_factory=dict)  # class -> sorted "class/sub/image.png"
    sizes: dict[str, int] = field(default_factory=dict)  # image -> bytes
    loose: int = 0  # images that lie in no class folder
    unused: Counter[str] = field(default_factory=Counter)  # suffix -> files that look like images and are not read
    beside: Counter[str] = field(default_factory=Counter)  # suffix -> such files beside an image of the same name
    remedies: set[str] = field(default_factory=set)  # what would make some of these readable
    ignored: Counter[str] = field(default_factory=Counter)  # suffix, or "hidden" -> files that are no images
    foreign: Counter[str] = field(default_factory=Counter)  # "@eaDir/" or another kind -> what programs left there
    strangers: tuple[str, ...] = ()  # folders of a published dataset that are none of its classes


class Walk:
    """What has been seen of the folders below `root`, and what is still to be seen."""

    def __init__(self, root: Path, allow_twins: bool, skip: Collection[str]) -> None:
        self.root = root
        self.pending = [""]  # paths of folders below the root
        self.listing = Listing(strangers=tuple(sorted(skip)))
        self.unreadable: list[str] = []
        self._unused: list[tuple[str, str, str]] = []  # what looks like an image: name, suffix, remedy
        self._allow_twins = allow_twins
        self._folders: dict[tuple[int, int], str] = {}
        self._files: dict[tuple[int, int], str] = {}

    def enter(self, folder: str) -> None:
        """Look at all that is in a folder. Raises UserError where it was reached before, by another way."""
        try:
            status = (self.root / folder).stat()
            with os.scandir(self.root / folder) as entries:
                ordered = sorted(entries, key=lambda entry: entry.name)
        except OSError as error:
            self.unreadable.append(f"{folder or self.root}/: {error.strerror}")
            return
        # a link back to a folder above would be walked for ever, and a second way to a folder would put its images
        # on both sides of the split
        first = self._folders.setdefault((status.st_dev, status.st_ino), folder)
        if first != folder:
            self.listing.classes.pop(folder, None)
            raise UserError(
                f"{self.root / folder} and {self.root / first} are the same folder, so its images would be split twice."
                " Expected every folder once: remove the link."
            )
        for entry in ordered:
            self._look_at(entry, folder)

    def _look_at(self, entry: os.DirEntry[str], folder: str) -> None:
        name = f"{folder}/{entry.name}".lstrip("/")
        is_folder = _is_folder(entry)
        if is_folder and is_helper_folder(entry.name, inside_class=bool(folder)):
            self.listing.foreign[f"{entry.name}/"] += 1
        elif entry.name.startswith(".") and not entry.name.endswith(".icloud"):
            self.listing.ignored["hidden"] += 1
        elif not is_folder:
            self._look_at_file(entry, folder, name)
        elif problem := why_no_name(entry.name):
            self.unreadable.append(f"{name}/: {problem}")
        elif name not in self.listing.strangers:
            self.pending.append(name)
            if not folder:
                self.listing.classes[name] = []

    def _look_at_file(self, entry: os.DirEntry[str], folder: str, name: str) -> None:
        if is_conflict_copy(entry.name):
            self.listing.foreign["after a conflict"] += 1
            return
        head = _Head(entry)
        kind = kind_of(entry.name, head)
        suffix = suffix_of(entry.name) or "no suffix"
        if problem := _problem(entry, head, kind != "image"):
            self.unreadable.append(f"{name}: {problem}")
        elif kind == "other" or (kind != "image" and not folder):
            self.listing.ignored[suffix] += 1
        elif kind != "image":
            shown = "as placeholder" if kind == "placeholder" else suffix
            self._unused.append((name, shown, remedy_for(entry.name, head())))
        elif not folder:
            self.listing.loose += 1
        else:
            status = entry.stat()
            twin = self._files.setdefault((status.st_dev, status.st_ino), name)
            if twin != name and not self._allow_twins:
                self.unreadable.append(
                    f"{name}: the same file as {twin}, and could land on the other side: remove one of the two names"
                )
            self.listing.sizes[name] = status.st_size

    def require_usable(self) -> None:
        """Raise UserError where something can't be read, with all of it."""
        if self.unreadable:
            raise UserError(
                f"Unusable in {self.root} ({len(self.unreadable):,}):{listed(sorted(self.unreadable))}\n"
                "Expected readable files and folders with UTF-8 names. Repair or remove these."
            )

    def close(self) -> Listing:
        """The listing, once everything was looked at."""
        stems = {stem_of(name) for name in self.listing.sizes}
        for name, suffix, remedy in self._unused:
            # a camera's raw file or an editor's work file beside its JPEG is no image that is lost
            if name.rpartition(".")[0] in stems:
                self.listing.beside[suffix] += 1
            else:
                self.listing.unused[suffix] += 1
                self.listing.remedies |= {remedy} if remedy else set()
        return self.listing


class Files(Walk):
    """The files below a folder, of which a list says which are used, and what is in each."""

    def __init__(self, root: Path, refuse: Refuse = raised) -> None:
        super().__init__(root, False, ())
        self.entries: dict[str, os.DirEntry[str]] = {}  # by their paths below the root
        self._refuse = refuse
        while self.pending:
            with refusing(refuse):
                self.enter(self.pending.pop())
        with refusing(refuse):
            self.require_usable()

    def _look_at_file(self, entry: os.DirEntry[str], folder: str, name: str) -> None:
        self.entries[name] = entry

    def chosen(self, names: Iterable[str]) -> Listing:
        """A listing without classes of the files `names`, each of which is opened; those that can't be are refused."""
        for name in sorted(names):
            before = len(self.listing.sizes) + len(self._unused) + len(self.unreadable)
            super()._look_at_file(self.entries[name], ".", name)
            if len(self.listing.sizes) + len(self._unused) + len(self.unreadable) == before:
                self.unreadable.append(f"{name}: no image")
        with refusing(self._refuse):
            self.require_usable()
        return self.close()


class _Head:
    """The first bytes of a file, read when they are asked for; none of what is no regular file, or can't be read."""

    def __init__(self, entry: os.DirEntry[str]) -> None:
        self._entry = entry
        self._bytes: bytes | None = None
        self.error: OSError | None = None

    def __call__(self) -> bytes:
        if self._bytes is None:
            self._bytes = b""
            try:
                # a pipe would wait for whoever writes into it
                if stat.S_ISREG(self._entry.stat().st_mode):
                    with Path(self._entry.path).open("rb", buffering=0) as file:
                        self._bytes = file.read(HEAD)
            except OSError as error:
                self.error = error
        return self._bytes


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _problem(entry: os.DirEntry[str], head: _Head, other: bool) -> str | None:
    """Why a file can't be used; None: it can, or it is no image (`other`) and nobody misses it."""
    try:
        # also for other names: a broken link can be a class folder on a disk that isn't mounted
        mode = entry.stat().st_mode
        if other:
            return None
        if not stat.S_ISREG(mode):
            return "not a regular file"
        if problem := why_no_name(entry.name):
            return problem
        head()
        if head.error:
            raise head.error
    except OSError as error:
        if not entry.is_symlink() or Path(entry.path).exists():
            return error.strerror
        annexed = ".git/annex/" in str(Path(entry.path).readlink())
        return f"a link to nothing{': git annex get' if annexed else ''}"
    return None


def folders_in(place: Path) -> list[str]:
    """The names of the visible folders in `place`, without those that programs made for themselves."""
    with os.scandir(place) as entries:  # which knows folders without a look at every image
        names = [entry.name for entry in entries if not entry.name.startswith(".") and _is_folder(entry)]
    return sorted(name for name in names if not is_helper_folder(name))


def folder_of_folders(place: Path) -> Path | None:
    """The first folder, from `place` down, that has several in it, where single ones lead to it; None: none has."""
    with suppress(OSError):  # whoever reads all that is in there says so
        for _ in range(MOST_LEVELS):
            inside = folders_in(place)
            if len(inside) != 1:
                return place if inside else None
            place /= inside[0]
    return None


def helpers_in(place: Path) -> Listing:
    """A listing of nothing but the folders in `place` that programs made for themselves."""
    names = [f"{entry.name}/" for entry in place.iterdir() if entry.is_dir() and is_helper_folder(entry.name)]
    return Listing(foreign=Counter(names))
