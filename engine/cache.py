"""Every image of a dataset decoded and resized once, into one memory-mapped file that later runs find again."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from io import BytesIO
from math import prod
from pathlib import Path
from typing import BinaryIO

import numpy as np
import numpy.typing as npt
from tqdm import tqdm

from engine.dataset import Contents, Part, Reference, Slice
from engine.errors import RunError, UserError
from engine.files import atomic, locked, write_json
from engine.folders import listed
from engine.images import DECODER, UnreadableError, decode, digest, resize

PIECE = 16  # images that a thread decodes at a time
MOST_RETRIED = 100  # of the images that could not be read
# the folder is not one to write in
REFUSED = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOENT)


@dataclass(frozen=True)
class Decoded:
    """The images of a dataset: a table of pixels, and where each reference's lie in it."""

    pixels: npt.NDArray[np.uint8]  # (M, H, W, 3)
    digests: Sequence[str]  # M, of the pixels before they were resized; "" for an image that can't be read
    row_of: dict[Reference, int]
    bad: dict[str, str]  # name -> why it can't be read, sorted

    def part(self, part: Part) -> Part:
        """`part` with pixels instead of references, and without the images that can't be read."""
        rows = np.array([self.row_of[reference] for reference in part.entries(references_of(part))], dtype=np.int64)
        whole = replace(part, images=self.pixels, digests=self.digests, rows=rows)
        return whole.take(np.flatnonzero([bool(self.digests[row]) for row in rows.tolist()]))


def decode_all(
    contents: Contents, key: str, size: tuple[int, int], folder: Path, allow_unreadable: bool
) -> Decoded | None:
    """Every image that the parts of `contents` refer to, at `size`, from the cache in `folder`, which is made if need
    be; None where the parts have their pixels already.

    A cache belongs to a set of files: another name, size in bytes, time or content makes a new one, and the old one
    of this `key` and size is removed. Images that could not be read are tried again each time, and if one can be read
    now, all are decoded anew. Two processes do not decode at once: the second waits.

    UserError: images that can't be read, all of them named (unless `allow_unreadable`), a folder that can't be
    written in, or too little room on the disk. RunError: the disk became full.
    """
    parts = [part for part in (contents.train, contents.select, contents.test) if part is not None]
    named: dict[Reference, str] = {}
    for part in parts:
        if not isinstance(part.images, np.ndarray):
            for reference, name in zip(part.entries(part.images), part.names, strict=True):
                named.setdefault(reference, name)
    if not named:
        return None
    # by place, not by name: protocols may name the same images in other ways
    places = _places(named)
    references = sorted(named, key=places.__getitem__)
    stem = f"{key}-{size[0]}x{size[1]}"
    fingerprint = _fingerprint(references, [places[reference] for reference in references], size)
    cache = Cache(folder, stem, fingerprint, (len(references), *size, 3))
    with _explained(folder):
        pixels, digests, bad_rows = cache.open(references)
    bad = {named[references[row]]: reason for row, reason in bad_rows.items()}
    if bad and not allow_unreadable:
        lines = [f"{name}: {reason}" for name, reason in sorted(bad.items())]
        raise UserError(
            f"{len(bad):,} of {len(references):,} images can't be read:{listed(lines, len(lines))}\nGet these again, "
            "or repair or remove them, or leave them out with --allow-partial: the record is then marked partial."
        )
    return Decoded(pixels, digests, {reference: row for row, reference in enumerate(references)}, bad)


def _places(references: Iterable[Reference]) -> dict[Reference, tuple[str, str, int]]:
    """Where each image lies, as far as it does not depend on where the whole lies."""
    paths = {reference: reference.path if isinstance(reference, Slice) else reference for reference in references}
    root = os.path.commonpath({str(path.absolute().parent) for path in paths.values()})
    found = {}
    for reference, path in paths.items():
        array, index = (reference.array, reference.index) if isinstance(reference, Slice) else ("", 0)
        found[reference] = (str(path.absolute())[len(root) :].lstrip(os.sep), array, index)
    return found


def references_of(part: Part) -> Sequence[Reference]:
    """What the part's rows refer to, before it is decoded."""
    if isinstance(part.images, np.ndarray):
        raise TypeError("these images are decoded already")
    return part.images


def _fingerprint(references: Sequence[Reference], places: Sequence[object], size: tuple[int, int]) -> str:
    """A hash that another set of files, or a changed file, changes."""
    found = hashlib.sha256(json.dumps([DECODER, size]).encode())
    status: dict[Path, os.stat_result | None] = {}
    for reference, place in zip(references, places, strict=True):
        path = reference.path if isinstance(reference, Slice) else reference
        if path not in status:
            try:
                status[path] = path.stat()
            except OSError:  # found when it is decoded, and reported with the others
                status[path] = None
        stat = status[path]
        found.update(json.dumps([place, stat and [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]]).encode())
    return found.hexdigest()[:16]


@dataclass(frozen=True)
class Cache:
    """`<stem>-<fingerprint>.npy`, which holds the pixels, and the manifest `.json` beside it, which is written last."""

    folder: Path
    stem: str
    fingerprint: str
    shape: tuple[int, ...]

    @property
    def _path(self) -> Path:
        return self.folder / f"{self.stem}-{self.fingerprint}.npy"

    def open(self, references: Sequence[Reference]) -> tuple[npt.NDArray[np.uint8], list[str], dict[int, str]]:
        """The pixels (M, H, W, 3), mapped into memory, their digests and {row: why it can't be read}; made if need be.

        Where nothing has to be made, nothing is written, so that a cache can lie in a folder that is only read.
        """
        with _quiet():
            if found := self._found(references):
                return found
            lock, meanwhile = self.folder / f".{self.stem}.lock", "another process decodes these images into"
            with locked(lock, f"{meanwhile} {self.folder}"):
                if not (found := self._found(references)):
                    self._build(references)
                    found = self._found(())
                assert found is not None  # it has just been written
                return found

    def _found(self, retried: Sequence[Reference]) -> tuple[npt.NDArray[np.uint8], list[str], dict[int, str]] | None:
        """What open() returns; None: there is no such cache, not all of it, or a bad image of `retried` is good now."""
        try:
            found = json.loads(self._path.with_suffix(".json").read_text(encoding="utf-8"))
            digests = [text for text in found["digests"] if isinstance(text, str) and len(text) in (0, 32)]
            bad = {int(row): str(reason) for row, reason in dict(found["bad"]).items()}
            lost = [row for row, text in enumerate(digests) if not text]
            if len(digests) != self.shape[0] or sorted(bad) != lost or not self._is_whole():
                return None
            # rights and missing packages are mended without a trace in a file's size or time
            if retried and any(_readable(retried[row]) for row in lost[:MOST_RETRIED]):
                return None
            return np.load(self._path, mmap_mode="r"), digests, bad
        except (FileNotFoundError, ValueError, KeyError, TypeError, OverflowError, RecursionError):
            return None

    def _is_whole(self) -> bool:
        header = self._header()
        with self._path.open("rb") as file:
            return file.read(len(header)) == header and self._path.stat().st_size == len(header) + prod(self.shape)

    def _build(self, references: Sequence[Reference]) -> None:
        """Decode everything; the manifest, without which there is no cache, comes last."""
        self._make_room()
        digests = [""] * len(references)
        bad: dict[int, str] = {}
        with atomic(self._path) as file:
            self._decode(references, file, digests, bad)
        manifest = {"digests": digests, "bad": {str(row): reason for row, reason in sorted(bad.items())}}
        write_json(self._path.with_suffix(".json"), manifest)

    def _make_room(self) -> None:
        """Remove what was made of other files, or left by a killed process, and see that the disk has room."""
        for old in self.folder.iterdir():
            if old.name.startswith((f"{self.stem}-", f".{self.stem}-")) and old.suffix in (".npy", ".json", ".tmp"):
                old.unlink()
        needed, free = prod(self.shape), shutil.disk_usage(self.folder).free
        if needed > free:
            raise UserError(
                f"the decoded images take {needed:,} bytes, but {self.folder.absolute()} has {free:,} free. Free some "
                "space, choose another disk with --cache-dir, or a smaller --size."
            )

    def _header(self) -> bytes:
        header = np.lib.format.header_data_from_array_1_0(np.empty((0, *self.shape[1:]), np.uint8))
        header["shape"] = self.shape
        written = BytesIO()
        np.lib.format.write_array_header_1_0(written, header)
        return written.getvalue()

    def _decode(
        self, references: Sequence[Reference], target: BinaryIO, digests: list[str], bad: dict[int, str]
    ) -> None:
        header, image_bytes, file = self._header(), prod(self.shape[1:]), target.fileno()
        start = len(header)
        _reserve(file, start + image_bytes * len(references))
        _write(file, header, 0)

        def work(rows: range) -> int:
            for row in rows:
                try:
                    pixels = decode(references[row])
                    # written, not mapped: the pages of a map would count as this process's memory
                    _write(file, resize(pixels, (self.shape[1], self.shape[2])).tobytes(), start + row * image_bytes)
                    digests[row] = digest(pixels)
                except UnreadableError as problem:
                    bad[row] = str(problem)
            return len(rows)

        pieces = [range(row, min(row + PIECE, len(references))) for row in range(0, len(references), PIECE)]
        bar = tqdm(desc="decoding", total=len(references), unit=" images", leave=False, disable=None)
        # Pillow and hashlib let other threads run while they work, so threads are enough
        with bar, ThreadPoolExecutor(os.cpu_count()) as pool:
            try:
                for count in pool.map(work, pieces):
                    bar.update(count)
            except BaseException:
                pool.shutdown(cancel_futures=True)
                raise


def _reserve(file: int, size: int) -> None:
    """Let the file have `size` bytes on the disk, so that a full one is told now and not by a fault in the map."""
    if hasattr(os, "posix_fallocate"):
        try:
            return os.posix_fallocate(file, 0, size)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):  # a file system that has no such thing
                raise
    return os.truncate(file, size)


def _write(file: int, data: bytes, offset: int) -> None:
    # a disk that becomes full takes the beginning without a word
    while data:
        written = os.pwrite(file, data, offset)
        data, offset = data[written:], offset + written


def _readable(reference: Reference) -> bool:
    try:
        decode(reference)
    except UnreadableError:
        return False
    return True


@contextmanager
def _quiet() -> Iterator[None]:
    """Without Pillow's and pydicom's warnings about odd but readable files."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


@contextmanager
def _explained(folder: Path) -> Iterator[None]:
    """Turn what the disk refuses into the errors that the user sees."""
    try:
        yield
    except OSError as error:
        place = f"{error.filename or folder}: {(error.strerror or str(error)).lower()}"
        kind = UserError if error.errno in REFUSED else RunError
        raise kind(f"decoded images can't be kept in {place}. --cache-dir chooses another folder.") from error
