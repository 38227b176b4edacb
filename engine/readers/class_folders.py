"""Class folders on disk, the images in them, and the parts of a dataset that are made of them."""

import os
import re
import shlex
import stat
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import numpy as np

from engine.data.file_kinds import (
    HEAD,
    IMAGE_SUFFIXES,
    PLUGINS,
    is_conflict_copy,
    is_helper_folder,
    kind_of,
    remedy_for,
    suffix_of,
)
from engine.data.names import composed, nfc
from engine.data.part import Part, RawSplits
from engine.data.splits import fewest_names, split_names
from engine.data.twins import near_twins
from engine.errors import LevelError, Refuse, UserError, listed, one_line, raised, refusing
from engine.paths import script_path, why_no_name
from engine.readers.layout import is_kind_of_file, is_part, stem_of

MOST_UNUSED = 0.01  # of the files that look like images
LAYOUT = "Expected one folder per class: {root}/cat/1.jpg, {root}/dog/2.jpg, ..."
TABLE = re.compile(r"(?i)^(?!\.|test|.*submission).*\.(csv|tsv)$")  # may label images; Kaggle's others do not
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


def list_classes(
    root: Path,
    allow_empty: bool = False,
    allow_twins: bool = False,
    skip: Collection[str] = (),
    refuse: Refuse = raised,
    part: bool = False,
) -> Listing:
    """Find the images of every class folder in `root`, at any depth, but for the class folders in `skip`.

    Every image is opened, so that all that can't be read is known before anything is made of them.

    UserError: no class folders. `refuse` has the UserErrors of what can do without what is wrong: something can't be
    read, a folder is reached twice, or a file (unless `allow_twins`), a class folder is without images (unless
    `allow_empty`). A `part` can have a single class: whoever has all parts compares them.
    """
    walk = _Walk(root, allow_twins, skip)
    while walk.pending:
        with refusing(refuse):
            walk.enter(walk.pending.pop())
    with refusing(refuse):
        walk.require_usable()
    listing = walk.close()
    for image in sorted(listing.sizes):
        listing.classes[image.partition("/")[0]].append(image)
    if not part and not allow_empty and len(listing.classes) > 1:
        with_images = [name for name, images in listing.classes.items() if images]
        _check_single(root, with_images, f"Found images in a single folder of {root}")
    _check_classes(root, listing, allow_empty, refuse)
    if not part:
        _check_level(root, listing)
    return listing


class _Walk:
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


class Files(_Walk):
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


def group_of(name: str, pattern: re.Pattern[str]) -> str | None:
    """What `pattern` finds in an image's own name, composed: its first group (...) if it has one, else all of it."""
    match = pattern.search(nfc(name.rpartition("/")[2]))
    return match and match[1 if pattern.groups else 0]


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


def _check_classes(root: Path, listing: Listing, allow_empty: bool, refuse: Refuse) -> None:
    layout = LAYOUT.format(root=root)
    if not listing.classes:
        found = f"{listing.loose:,} images but no class folders" if listing.loose else "no class folders"
        raise UserError(
            f"Found {found} in {root}. {layout} Move each image into a folder named after its class; or let folder.py "
            f"--labels take a CSV file that says what is in each.{labels_command(root)}"
        )
    with refusing(refuse):
        composed(listing.classes, root)
    if len(listing.classes) > 1 and all(map(is_kind_of_file, listing.classes)):
        raise UserError(
            f"Found {', '.join(listing.classes)} in {root}, which are called after what is in them and not after "
            f"classes, as where images have masks or boxes. {layout} Sort the images into such folders, or give the "
            f"folder in there that holds them.{labels_command(root)}"
        )
    empty = [name for name, images in listing.classes.items() if not images]
    if empty and not allow_empty:
        refuse(
            UserError(
                f"Found no images in {len(empty):,} of the {len(listing.classes):,} class folders of {root}:"
                f"{listed(empty)}\nExpected images ({' '.join(sorted(IMAGE_SUFFIXES))}) in each."
                f"{_reminder(listing)} Add them or remove the folders."
            )
        )


def _check_level(root: Path, listing: Listing) -> None:
    """Raise UserError where the folders are no classes: a single one, or parts."""
    layout = LAYOUT.format(root=root)
    if len(listing.classes) == 1:
        found = f"Found a single class folder in {root}"
        only = _check_single(root, [*listing.classes], found)
        raise UserError(f"{found}: {only}. {layout} Add a folder for each other class.{labels_command(root)}")
    if all(map(is_part, listing.classes)):
        raise UserError(
            f"Found the folders {', '.join(listing.classes)} in {root}: it looks split already. {layout}"
            f" If these are parts, folder.py takes them as train/, test/ and val/: rename them so. To split one part"
            f" further, give that part: {root / min(listing.classes, key=len)}{labels_command(root)}"
        )


def _check_single(root: Path, names: Sequence[str], found: str) -> str:
    """Return the first of `names`, or "". LevelError: it is the only one, and may hold the class folders."""
    if len(names) == 1 and (inside := folder_of_folders(root / names[0])):
        message = f"{found}: {names[0]}. {LAYOUT.format(root=root)}"
        raise LevelError(f"{message} If the classes are the folders inside {names[0]}, give {inside}", inside)
    return names[0] if names else ""


def labels_command(root: Path) -> str:
    """What is said of the one file that may label the images: the command that takes it; "" without one."""
    for place in (root, root.absolute().parent):
        names: list[str] = []
        with suppress(OSError):
            names = [entry.name for entry in place.iterdir() if TABLE.search(entry.name) and entry.is_file()]
        if len(names) == 1:
            file = place / names[0]
            command = shlex.join(["python", script_path("folder.py"), str(root), "--labels", str(file), "--check"])
            return f"\nIf {one_line(names[0])} says what is in each image:\n  {command}"
    return ""


def _reminder(listing: Listing) -> str:
    found = f" Not used: {by_kind(listing.unused)}, which look like images." if listing.unused else ""
    return found + "".join(f" {remedy}." for remedy in sorted(listing.remedies))


def by_kind(kinds: Mapping[str, int]) -> str:
    """ "2 .psd, 1 .svg" """
    return ", ".join(f"{number:,} {one_line(kind)}" for kind, number in sorted(kinds.items()))


def check_unused(
    root: Path, listings: Iterable[Listing], allow_partial: bool, refuse: Refuse = raised
) -> tuple[list[str], list[str]]:
    """What is said of the files below `root` that are not used: what makes the data partial, and what is but noted.

    `refuse` has the UserError (unless `allow_partial`) of more than MOST_UNUSED of what looks like images, or of a
    single placeholder of an image that lies elsewhere.
    """
    whole = Listing()
    used = 0
    for listing in listings:
        used += len(listing.sizes)
        whole.unused += listing.unused
        whole.beside += listing.beside
        whole.ignored += listing.ignored
        whole.foreign += listing.foreign
        whole.remedies |= listing.remedies
    differences, notes, unused = [], [], whole.unused.total()
    said = f"not used, but like images: {by_kind(whole.unused)}"
    remedies = "".join(f" {remedy}." for remedy in sorted(whole.remedies))
    if unused > MOST_UNUSED * (used + unused) or whole.unused["as placeholder"]:
        if allow_partial:
            differences.append(said)
        else:
            refuse(
                UserError(
                    f"Of {used + unused:,} files in {root} that look like images, {unused:,} would not be used: "
                    f"{by_kind(whole.unused)}.{remedies} Expected formats that are read: convert these (to PNG, say), "
                    "move them elsewhere, or go on without them with --allow-partial."
                )
            )
    elif unused:
        others = bool(whole.unused.keys() - PLUGINS.keys())
        notes.append(f"{said}.{remedies}" + " What else is here can be saved as PNG, say, by what made it" * others)
    if whole.beside:
        notes.append(f"not used, beside images of the same name: {by_kind(whole.beside)}")
    if kinds := {kind: number for kind, number in whole.ignored.items() if kind != "hidden"}:
        notes.append(f"not used, as they are no images: {by_kind(kinds)}")
    if whole.foreign:
        notes.append(f"not used, as other programs left them: {by_kind(whole.foreign)}")
    return differences, notes


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


def alike(classes: Iterable[str]) -> list[str]:
    """A note for the names of classes that are perhaps meant to be the same: see near_twins()."""
    return [
        f"{' and '.join(map(repr, names))} are taken for different classes: if they are not, give them one name"
        for names in near_twins(classes)
    ]


def class_folders(folder: Path, allow_partial: bool, published: Collection[str] = ()) -> Listing:
    """A published dataset's class folders; where most are called as `published`, the others are none and are left out.

    One file under two names is no reason to refuse it: programs that save space make such links, and images of the same
    pixels are found later. UserError: no such folder, or what list_classes and check_unused say.
    """
    if not folder.is_dir():
        raise UserError(f"{folder} is missing: it holds a folder for each class. Get the dataset whole.")
    there = folders_in(folder)
    strangers = [name for name in there if nfc(name) not in published]
    if 2 * len(strangers) > len(there):  # called otherwise altogether, in another copy
        strangers = []
    listing = list_classes(folder, allow_partial, True, strangers)
    listing.classes = by_composed_name(listing.classes)
    if allow_partial:
        for name in [name for name, images in listing.classes.items() if not images and name not in published]:
            del listing.classes[name]
            listing.strangers += (name,)
    return listing


def with_notes(raw: RawSplits, folder: Path, listings: Mapping[str, Listing], allow_partial: bool) -> RawSplits:
    """`raw`, and what is said of all that lies in a published dataset's class folders and is not used.

    `listings` has what class_folders found, by the path in `folder` where it looked. UserError: as check_unused.
    """
    bare = [replace(listing, ignored=Counter()) for listing in listings.values()]
    differences, notes = check_unused(folder, bare, allow_partial)
    for part, listing in listings.items():
        notes += [f"{part}{one_line(name)}/ is none of the classes and is not used" for name in listing.strangers]
    return replace(raw, differences=(*raw.differences, *differences), notes=(*raw.notes, *notes))


def by_composed_name(classes: Mapping[str, list[str]]) -> dict[str, list[str]]:
    """Class -> images, where each class has the name by which classes of several folders are compared."""
    merged: dict[str, list[str]] = {}
    for name, images in classes.items():  # a check goes on where two folders have such a name
        merged.setdefault(nfc(name), []).extend(images)
    return merged


def class_part(root: Path, folder: str, classes: Sequence[str], images: Mapping[str, Sequence[str]]) -> Part:
    """The images of class folders in `root / folder`, as `list_classes` names them, of the given `classes`."""
    prefix = f"{folder}/" if folder else ""
    names = [f"{prefix}{name}" for label in classes for name in images.get(label, ())]
    labels = [label for label, name in enumerate(classes) for _ in images.get(name, ())]
    return Part([root / name for name in names], np.array(labels, dtype=np.int64), names)


def split_classes(classes: Mapping[str, Sequence[str]], test_size: float) -> tuple[dict[str, list[str]], ...]:
    """Class -> names of the train and of the test part: every class split alone by `split_names`, seed 42.

    A class that is too small to be split, as partial data can have it, is for training.
    """
    train: dict[str, list[str]] = {}
    test: dict[str, list[str]] = {}
    for name, images in classes.items():
        if len(images) < fewest_names(test_size):
            train[name], test[name] = sorted(images), []
        else:
            parts = split_names(images, test_size)
            train[name], test[name] = parts["train"], parts["test"]
    return train, test


def read_and_split(root: Path, test_size: float, allow_partial: bool, published: Collection[str] = ()) -> RawSplits:
    """A dataset without an official split: class folders in `root`, of which `test_size` of each is for testing.

    `published` are the classes' names, if they are known: other folders are then none.
    """
    listing = class_folders(root, allow_partial, published)
    return with_notes(split_listed(root, listing.classes, test_size), root, {"": listing}, allow_partial)


def split_listed(root: Path, images: Mapping[str, Sequence[str]], test_size: float) -> RawSplits:
    """`read_and_split` of class folders that have been listed: class -> images."""
    classes = tuple(sorted(images))
    train, test = (class_part(root, "", classes, part) for part in split_classes(images, test_size))
    return RawSplits(classes, train, test)
