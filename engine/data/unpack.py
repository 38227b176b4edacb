"""What is in a tar or zip archive, written below a folder: every member is looked at before anything is made of it.

Python's own extraction is not relied on: on some of its versions links lead out of the folder (CVE-2025-4517) or a
header is read for ever (CVE-2025-8194). No symbolic link is ever made, so no path can lead out through one.
"""

from __future__ import annotations

import bz2
import gzip
import lzma
import os
import shutil
import stat
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from itertools import pairwise
from pathlib import Path, PureWindowsPath
from typing import Any, BinaryIO, cast

from engine.console import size_text
from engine.errors import RunError
from engine.processes.heartbeat import alive

# what the libraries raise where an archive is damaged; OSError without a number comes from gzip and bz2
DAMAGE = (
    *(tarfile.TarError, zipfile.BadZipFile, zlib.error, lzma.LZMAError, struct.error),
    *(EOFError, RuntimeError, ValueError, OverflowError, IndexError, KeyError),
)
PIECE = 1 << 18  # bytes that are copied at a time
HEADERS = 1 << 20  # bytes that the headers before a tar's member may take
TRAILER = 1 << 26  # bytes that may follow the end of a tar, in zeros mostly
MOST_DEEP = 40  # folders in each other
MOST_PATH = 1000  # bytes of a path; systems take 4,096 or, macOS, 1,024
MOST_NAME = 255  # bytes of a name, on nearly every file system

COMPRESSED: dict[bytes, Callable[[BinaryIO], Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ\0": lzma.open,
}
FOREIGN = {
    b"7z\xbc\xaf\x27\x1c": "a 7-Zip archive",
    b"Rar!": "a RAR archive",
    b"\x28\xb5\x2f\xfd": "compressed by zstd",
    b"\x1f\x9d": "compressed by compress (.Z)",
}


class RefusedError(Exception):
    """The archive is not extracted. The message says why, as the rest of a sentence that begins with its name."""


@dataclass(frozen=True)
class Limits:
    """How much an archive may hold."""

    entries: int
    bytes: int


def unpack(archive: Path, target: Path, limits: Limits, verified: bool) -> None:
    """Write what is in `archive` below the folder `target`; `verified` says that it is known to be whole.

    Raises RefusedError, RunError where it does not fit on the disk, what is in DAMAGE, and OSError, which has no number
    where the archive is damaged. Files get the usual permissions and the present time, whatever the archive says.
    """
    size = archive.stat().st_size
    writer = _Writer(archive, target, limits)
    if is_zip(archive):
        _unpack_zip(archive, writer)
    else:
        writer.ask_for_room(size)  # images hardly take less room than their archive
        with _tar_stream(archive) as stream:
            _unpack_tar(stream, writer, verified)


def is_readable(archive: Path) -> bool:
    """Whether the file begins as an archive does that can be read here."""
    try:
        if is_zip(archive):
            return zipfile.is_zipfile(archive)
        with _tar_stream(archive) as stream, _opened_tar(stream):
            return True
    except (*DAMAGE, RefusedError):
        return False
    except OSError as error:
        if error.errno is None:
            return False
        raise


def is_zip(archive: Path) -> bool:
    """Whether it is a zip archive: by its first bytes, and by its name where something stands before these."""
    with archive.open("rb") as file:
        head = file.read(6)
    known = head.startswith((*COMPRESSED, *FOREIGN))
    return head.startswith(b"PK") or (not known and archive.name.lower().endswith(".zip"))


class _Writer:
    """Makes files and folders below `target`, as long as they are within the limits and on the disk there is room."""

    def __init__(self, archive: Path, target: Path, limits: Limits) -> None:
        self.target = os.fspath(target)
        self.limits = limits
        self._archive = archive
        self._folders = {""}
        self._free = shutil.disk_usage(target).free
        self._entries = 0
        self._bytes = 0

    def ask_for_room(self, size: int) -> None:
        """Raise RunError where so many bytes do not fit on the disk."""
        if size > self._free:
            raise RunError(
                f"{self._archive.absolute()} extracts to {size_text(size)} or more, but there is room for "
                f"{size_text(self._free)} in {self._archive.absolute().parent}. Make room there, or choose another "
                "folder with --data-dir."
            )

    def expect(self, entries: int, size: int) -> None:
        """Take note of so many entries, of `size` bytes in all. Raises RefusedError beyond the limits, or RunError."""
        self._entries += entries
        self._bytes += size
        if self._entries > self.limits.entries:
            raise RefusedError(f"is not safe to extract: it has more than {self.limits.entries:,} entries")
        if self._bytes > self.limits.bytes:
            raise RefusedError(
                f"is not safe to extract: it would grow beyond {size_text(self.limits.bytes)}, far more than its own "
                "size explains"
            )
        self.ask_for_room(self._bytes)

    def folder(self, path: str) -> None:
        """Make a folder, and those above it."""
        if path in self._folders:
            return
        above, _, _ = path.rpartition("/")
        self.folder(above)
        try:
            os.mkdir(f"{self.target}/{path}")  # noqa: PTH102 (twice as fast, for a hundred thousand members)
        except FileExistsError:
            raise _twice(path) from None
        self._folders.add(path)

    def file(self, path: str, size: int, source: BinaryIO) -> None:
        """Make a file of what `source` gives, which must be `size` bytes."""
        with self._new(path) as file:
            left = size
            while piece := source.read(min(PIECE, left)) if left else b"":
                file.write(piece)
                left -= len(piece)
                alive("extracting")
            if left:
                raise EOFError(f"{path!r} is cut short")

    def link(self, path: str, to: str) -> None:
        """Make a second name of a file that was made before, or a copy where the disk takes none."""
        if not os.path.isfile(f"{self.target}/{to}"):  # noqa: PTH113
            raise RefusedError(f"cannot be extracted: {path!r} is a link to {to!r}, which is not in it before the link")
        self.folder(path.rpartition("/")[0])
        try:
            os.link(f"{self.target}/{to}", f"{self.target}/{path}")
        except FileExistsError:
            raise _twice(path) from None
        except OSError:
            with self._new(path) as file, open(f"{self.target}/{to}", "rb") as source:  # noqa: PTH123
                self.expect(0, os.fstat(source.fileno()).st_size)
                shutil.copyfileobj(source, file)

    def _new(self, path: str) -> BinaryIO:
        self.folder(path.rpartition("/")[0])
        try:
            return open(f"{self.target}/{path}", "xb")  # noqa: PTH123
        except FileExistsError:
            raise _twice(path) from None


def _twice(path: str) -> RefusedError:
    return RefusedError(
        f"is not safe to extract: it has {path!r} twice, as it is or in letters that this disk does not tell apart, or "
        "has a file where a folder is to be"
    )


def _path(name: str) -> str:
    """A member's path below the folder. Raises RefusedError where it has none, or one that no disk takes."""
    windows = PureWindowsPath(name)  # knows both separators, and drives
    if windows.anchor or ".." in windows.parts:
        raise RefusedError(f"is not safe to extract: {name!r} leads out of the folder")
    parts = [part for part in name.split("/") if part not in ("", ".")]
    path = "/".join(parts)
    if (
        len(os.fsencode(path)) > MOST_PATH
        or len(parts) > MOST_DEEP
        or any(len(os.fsencode(part)) > MOST_NAME for part in parts)
    ):
        shown = name if len(name) < 80 else f"{name[:80]}..."
        raise RefusedError(f"is not safe to extract: {shown!r} is longer or deeper than a path may be")
    return path


class _TarStream:
    """The uncompressed bytes of a tar archive, read forward, and only as many as are `allowed`."""

    def __init__(self, raw: BinaryIO) -> None:
        self.raw = raw
        self.allowed = HEADERS
        self.last = b""  # of what was read
        self._position = 0

    def tell(self) -> int:
        """How many bytes have been read."""
        return self._position

    def read(self, size: int) -> bytes:
        """The next `size` bytes, or those that are left."""
        if not 0 <= size <= self.allowed:
            raise RefusedError(f"is not safe to extract: a header in it is larger than {HEADERS:,} bytes")
        self.last = self.raw.read(size)
        self._position += len(self.last)
        self.allowed -= len(self.last)
        return self.last

    def seek(self, position: int) -> None:
        """Skip what is before `position`."""
        self.read(position - self._position)


@contextmanager
def _tar_stream(archive: Path) -> Iterator[_TarStream]:
    with archive.open("rb") as file:
        head = file.read(6)
        file.seek(0)
        for mark, what in FOREIGN.items():
            if head.startswith(mark):
                raise RefusedError(f"cannot be extracted: it is {what}, which Python cannot read")
        opener = next((opener for mark, opener in COMPRESSED.items() if head.startswith(mark)), None)
        if opener is None:
            yield _TarStream(file)
        else:
            # gzip skips zeros behind its end one by one
            if file.seek(0, os.SEEK_END) > PIECE and not (file.seek(-PIECE, os.SEEK_END), file.read())[1].strip(b"\0"):
                raise RefusedError("is not safe to extract: it goes on behind its end")
            file.seek(0)
            with opener(file) as raw:
                yield _TarStream(raw)


def _opened_tar(stream: _TarStream) -> tarfile.TarFile:
    return tarfile.open(fileobj=cast(Any, stream), mode="r:")


def _unpack_tar(stream: _TarStream, writer: _Writer, verified: bool) -> None:
    with _opened_tar(stream) as opened:
        while member := opened.next():
            path = _path(member.name.lstrip("/"))
            if member.size < 0 or member.issparse() or not (member.isreg() or member.isdir() or member.islnk()):
                raise RefusedError(
                    f"is not safe to extract: {member.name!r} is a symbolic link, a device or the like. Expected files "
                    "and folders"
                )
            writer.expect(1, member.size if member.isreg() else 0)
            if member.isdir():
                writer.folder(path)
            elif not path:
                raise RefusedError("is not safe to extract: it has a file without a name")
            elif member.islnk():
                writer.link(path, _path(member.linkname.lstrip("/")))
            else:
                stream.allowed = member.size
                writer.file(path, member.size, cast(BinaryIO, stream))
            stream.allowed = HEADERS
            cast(Any, opened).members.clear()  # or all of them would be kept
    if not verified:
        if stream.last.strip(b"\0") or not stream.last:  # tarfile takes whatever is no header for the end
            raise EOFError("it ends without a mark of its end")
        _read_on(stream.raw)


def _read_on(raw: BinaryIO) -> None:
    """Read to the end, where compressed files have their checksum."""
    left = TRAILER
    while piece := raw.read(PIECE):
        left -= len(piece)
        if left < 0:
            raise RefusedError("is not safe to extract: it goes on behind its end")


class _ZipFile(FileIO):
    """A zip archive's file that gives away no list of more entries than it may have."""

    def __init__(self, archive: Path, limits: Limits) -> None:
        super().__init__(archive)
        self._limits = limits

    def read(self, size: int | None = -1, /) -> bytes:
        """As any file does; the list of all entries is read at once."""
        if size is not None and size > HEADERS + 1000 * self._limits.entries:
            raise RefusedError(f"is not safe to extract: the list of its entries is larger than {size:,} bytes")
        content = super().read(-1 if size is None else size) or b""
        if content.count(b"PK\1\2") > self._limits.entries:
            raise RefusedError(f"is not safe to extract: it has more than {self._limits.entries:,} entries")
        return content


def _unpack_zip(archive: Path, writer: _Writer) -> None:
    with _ZipFile(archive, writer.limits) as file, zipfile.ZipFile(file) as opened:
        members = opened.infolist()
        paths = [_path_in_zip(member) for member in members]
        _refuse_overlap(members, opened.start_dir)
        writer.expect(len(members), sum(member.file_size for member in members))
        for member, path in zip(members, paths, strict=True):
            if path.endswith("/") or not path:
                writer.folder(path.rstrip("/"))
                continue
            with opened.open(member) as source:
                writer.file(path, member.file_size, cast(BinaryIO, source))


def _path_in_zip(member: zipfile.ZipInfo) -> str:
    """Where it is to lie, a folder with a slash. Raises RefusedError where it is neither a file nor a folder."""
    # PowerShell 5 writes Windows's separator: https://github.com/python/cpython/issues/91036
    name = member.orig_filename.replace("\\", "/")
    path = _path(name)
    if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
        raise RefusedError(f"is not safe to extract: {name!r} is a link, a device or the like")
    if member.flag_bits & 1:
        raise RefusedError(f"cannot be extracted: {name!r} is encrypted")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise RefusedError(
            f"cannot be extracted: {name!r} is compressed by method {member.compress_type}. Expected deflate (8) or "
            "none (0)"
        )
    if name.endswith("/"):
        return f"{path}/"
    if not path:
        raise RefusedError("is not safe to extract: it has a file without a name")
    return path


def _refuse_overlap(members: list[zipfile.ZipInfo], end: int) -> None:
    """Raise RefusedError where bytes of the archive are those of several members, as in bombs."""
    header = 30  # bytes, at least
    spans = sorted((member.header_offset, member.header_offset + header + member.compress_size) for member in members)
    if any(stop > start for (_, stop), (start, _) in pairwise([(0, 0), *spans, (end, end)])):
        raise RefusedError("is not safe to extract: its members overlap")
