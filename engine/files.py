"""Files that are either whole or absent: written under a temporary name, then renamed."""

import errno
import hashlib
import io
import json
import lzma
import os
import re
import stat
import struct
import sys
import time
import tokenize
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

import filelock

from engine.errors import UserError, one_line
from engine.paths import nearest_existing, writable
from engine.processes.heartbeat import alive

# what zipfile and NumPy raise where an archive of arrays is damaged: nearly anything
DAMAGED_ARRAYS = (
    *(OSError, KeyError, IndexError, TypeError, ValueError, ArithmeticError, EOFError, MemoryError, RuntimeError),
    *(SyntaxError, struct.error, tokenize.TokenError, zipfile.BadZipFile, zlib.error, lzma.LZMAError),
)
SMALL_BYTES = 16 << 20  # of a state file, unless whoever reads it says more
LEFT_SECONDS = 60.0  # after which a temporary file that no process of this machine writes is nobody's
WAIT_SECONDS = 5.0  # between two signs of life of a process that waits


@contextmanager
def atomic(path: Path, previous: Path | None = None) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path`; on success flush it to the disk and rename it to `path`, else remove it.

    What was called `path` is renamed to `previous`, where that is given, once the new one is safe. What a process that
    was killed left of an earlier try is removed.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    _remove_left(path)
    try:
        temporary.unlink(missing_ok=True)  # of a process that had the same number
        with temporary.open("xb") as file:  # through no link that somebody put there
            yield file
            file.flush()
            os.fsync(file.fileno())
        if previous:
            with suppress(FileNotFoundError):
                path.replace(previous)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def _remove_left(path: Path) -> None:
    """Remove the temporary files beside `path` that no process writes any more."""
    with suppress(OSError):
        for entry in path.parent.iterdir():
            if not (entry.name.startswith(f".{path.name}.") and entry.name.endswith(".tmp")):
                continue
            process = entry.name.removesuffix(".tmp").rpartition(".")[2]
            # another machine, or container, may be at one whose process is not here
            old = entry.stat().st_mtime < time.time() - LEFT_SECONDS
            if old and process.isdecimal() and not is_running(int(process)):
                entry.unlink(missing_ok=True)


def is_running(process: int) -> bool:
    """Whether another process of this machine has this number; where that can't be asked, True."""
    if process == os.getpid():
        return False
    if os.name != "posix":
        return True
    try:
        with suppress(PermissionError):  # it runs, for another user
            os.kill(process, 0)
    except (ProcessLookupError, OverflowError):
        return False
    return True


@contextmanager
def file_lock(path: Path) -> Iterator[filelock.FileLock]:
    """A lock by the file `path`, not yet acquired. OSError, in the block: the file system has no locks, or no such."""
    try:
        yield filelock.FileLock(path)
    except NotImplementedError as problem:  # so filelock says it
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK), str(path)) from problem


@contextmanager
def locked(path: Path, meanwhile: str) -> Iterator[None]:
    """Hold the lock file `path`, alone; where another process holds it, say on stderr what it does, and wait."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with file_lock(path) as lock:
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            path.touch()  # where no file can be made, as in /proc, it is told to be held, and nobody would release it
            print(one_line(f"{meanwhile}: waiting for it"), file=sys.stderr, flush=True)
            while not lock.is_locked:
                alive("waiting for another process")
                with suppress(filelock.Timeout):
                    lock.acquire(timeout=WAIT_SECONDS)
    try:
        yield
    finally:
        with suppress(OSError):  # the end of the process lets others have it, too
            lock.release()


def write_text(path: Path, text: str) -> None:
    """Write `text` in UTF-8."""
    with atomic(path) as file:
        file.write(text.encode())


def write_json(path: Path, content: Any) -> None:
    """Write `content` as indented JSON, a list of numbers in a line. Raises ValueError for NaN and infinity."""
    text = json.dumps(content, indent=2, allow_nan=False, ensure_ascii=False)
    # no text in JSON holds a line break, so what is found here are lists
    text = re.sub(r"\[\n[-+\d.eEnul,\s]+\]", lambda match: f"[{' '.join(match[0][1:-1].split())}]", text)
    write_text(path, text + "\n")


def digest(path: Path, algorithm: str = "sha256") -> str:
    """The hexadecimal digest of a file, read in pieces of 1 MiB."""
    hasher = hashlib.new(algorithm, usedforsecurity=False)
    with path.open("rb") as file:
        while piece := file.read(1 << 20):
            hasher.update(piece)
    return hasher.hexdigest()


def json_digest(content: Any) -> str:
    """The sha256 of what JSON says, however it is indented and in whatever order its keys are.

    Raises ValueError for NaN and infinity, which JSON can't say, and RecursionError.
    """
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def is_sealed(content: Any, stated: Any) -> bool:
    """Whether `stated` is the json_digest() of `content`, which was read from a file; what has none is not."""
    try:
        return bool(stated == json_digest(content))
    except (ValueError, RecursionError):  # a number too large for a float, say, which is never written
        return False


class DamagedError(ValueError):
    """The bytes of a file are not those that were written; the message says where."""


def set_aside(path: Path) -> Path:
    """Give a damaged file a name under which nothing looks for it, in place of what was set aside before."""
    aside = path.with_name(f"{path.name}.damaged")
    path.replace(aside)
    return aside


def require_whole(path: Path) -> None:
    """Raise DamagedError where an entry of a ZIP archive has other bytes than were written.

    PyTorch's files are such archives, and torch.load does not look at their checksums (CRC-32). A file of another kind
    passes, and one that was written without them, which PyTorch can do. Raises what zipfile raises where an archive is
    no whole one.
    """
    if not zipfile.is_zipfile(path):
        return
    with zipfile.ZipFile(path) as archive:
        entry = archive.testzip() if any(entry.CRC for entry in archive.infolist()) else None
    if entry:
        raise DamagedError(f"its entry {entry} is damaged")


def check_output(out: Path) -> None:
    """Raise UserError where --out can be no folder: it or a part of its path is a file, or it may not be made.

    One that is there may hold what is asked for, even where nothing can be added to it.
    """
    above = nearest_existing(out)
    if not above.is_dir():
        raise UserError(f"--out {out}: {above} is a file. Expected a folder, or a name not yet taken.")
    if not out.exists() and not writable(above):
        raise UserError(f"--out {out}: no permission to write in {above}. Choose a folder elsewhere.")


def open_regular(path: Path, append: bool = False) -> BinaryIO:
    """Open a file to read, or to add to; a link to one is followed. OSError: it can't be.

    io.UnsupportedOperation, a ValueError as well: it is none, such as a pipe, which would be waited for without end.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT if append else os.O_RDONLY
    descriptor = os.open(path, flags | os.O_NONBLOCK, 0o666)
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise io.UnsupportedOperation("it is no regular file")
    return os.fdopen(descriptor, "ab" if append else "rb")


def read_small(path: Path, most: int = SMALL_BYTES) -> bytes:
    """The content of a regular file of at most `most` bytes. Raises as open_regular(); ValueError: it is larger."""
    with open_regular(path) as file:
        content = file.read(min(most, os.fstat(file.fileno()).st_size) + 1)
    if len(content) > most:
        raise ValueError(f"it is larger than {most:,} bytes")
    return content


def read_json(path: Path, most: int = SMALL_BYTES) -> Any:
    """What a JSON file in UTF-8 holds, read as read_small() reads, which has its errors.

    ValueError: it is no JSON, has NaN or infinity in it, or is nested deeper than Python can read.
    """

    def refuse(constant: str) -> None:
        raise ValueError(f"it has {constant} in it")

    try:
        return json.loads(read_small(path, most).decode("utf-8-sig"), parse_constant=refuse)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
