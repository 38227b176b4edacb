"""Every image of a dataset decoded and resized once, into one file that later runs find again."""

from __future__ import annotations

import errno
import hashlib
import json
import os
import shutil
import sys
import zlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from io import BytesIO
from math import prod
from pathlib import Path
from typing import Any

import numpy as np

from engine.data.decode_pool import DecodeResult, Target, cpus, decode_rows, readable, write
from engine.data.images import DECODER, KEPT, has_remedy
from engine.data.kept_pixels import KeptPixels
from engine.data.lazy_images import LazyImages
from engine.data.part import HDF5Image, Part, Pixels, PixelSource, RawSplits, Reference
from engine.errors import Refuse, RunError, UserError, counted, disk_errors_explained, listed, one_line, raised
from engine.files import DamagedError, atomic, is_sealed, json_digest, locked
from engine.processes.peers import from_first

MOST_RETRIED = 100  # of the images that could not be read
CHECKED_AT_ONCE = 8  # pieces of the pixels, at most: a disk gives no more to more threads
ELSEWHERE = "--cache-dir chooses another folder, --no-cache keeps no decoded images."


class NotDecodedError(Exception):
    """The images, as they are now, are in no cache."""


@dataclass(frozen=True)
class Decoded:
    """The images of a dataset: a table of pixels, and where each reference's lie in it."""

    pixels: Pixels | PixelSource  # (M, H, W, 3)
    digests: Sequence[str]  # M, of the pixels before they were resized; "" for an image that can't be read
    row_of: dict[Reference, int]
    bad: dict[str, str]  # name -> why it can't be read, sorted
    notes: list[str]  # what should be known of those that were read

    def part(self, part: Part) -> Part:
        """`part` with pixels instead of references, and without the images that can't be read."""
        rows = np.array([self.row_of[reference] for reference in part.entries(part.references)], dtype=np.int64)
        whole = replace(part, images=self.pixels, digests=self.digests, rows=rows)
        return whole.take(np.flatnonzero([bool(self.digests[row]) for row in rows.tolist()]))


def decode_all(
    raw: RawSplits,
    key: str,
    size: tuple[int, int],
    folder: Path | None,
    allow_unreadable: bool,
    kept_only: bool = False,
    refuse: Refuse = raised,
) -> Decoded | None:
    """Every image that the parts of `raw` refer to, at `size`, from the cache in `folder`, which is made if need
    be; None where the parts have their pixels already. Without a `folder`, every image is looked at, but its pixels
    are decoded when they are asked for, and nothing is written.

    A cache belongs to a set of files: another name, label, size in bytes, time or content makes a new one, and the old
    one of this `key` and size is removed. One that is damaged is named on stderr and made anew. Images that could not
    be read are tried again each time, and if one can be read now, all are decoded anew. Two processes do not decode at
    once: the second waits. With `kept_only`, nothing is decoded or written: NotDecodedError, where there is no such
    cache.

    UserError: a folder that can't be written in, or too little room on the disk. `refuse` has that of images that can't
    be read, all of them named (unless `allow_unreadable`). RunError: the disk became full, or a process that decodes
    died.
    """
    images = _images(raw)
    if not images.references:
        return None
    pixels: Pixels | PixelSource
    if kept_only:
        kept = folder and Cache(folder, f"{key}-{size[0]}x{size[1]}", size, images).kept()
        if not kept:
            raise NotDecodedError
        pixels, outcomes = kept
    elif folder:
        pixels, outcomes = Cache(folder, f"{key}-{size[0]}x{size[1]}", size, images).open()
    else:
        outcomes = from_first(lambda: decode_rows(images.references, None, "reading"))
        pixels = LazyImages(images.references, images.names, [outcome.digest for outcome in outcomes], size)
    bad = sorted(
        (name, outcome.problem) for name, outcome in zip(images.names, outcomes, strict=True) if outcome.problem
    )
    if bad and not allow_unreadable:
        lines = [f"{name}: {reason}" for name, reason in bad]
        refuse(
            UserError(
                f"{len(bad):,} of {counted(len(outcomes), 'image')} can't be read:{listed(lines, len(lines))}\n"
                f"{_what_to_do([reason for _, reason in bad])}, or leave them out with --allow-partial: the record is "
                "then marked partial."
            )
        )
    row_of = {reference: row for row, reference in enumerate(images.references)}
    odd = Counter(outcome.oddity for outcome in outcomes if outcome.oddity)
    notes = [f"{number:,} of {len(outcomes):,} images: {oddity}" for oddity, number in sorted(odd.items())]
    return Decoded(pixels, [outcome.digest for outcome in outcomes], row_of, dict(bad), notes)


def _what_to_do(reasons: Sequence[str]) -> str:
    """The advice about images that can't be read, as far as the reasons do not say it themselves."""
    if all(map(has_remedy, reasons)):
        return "Do what these lines say"
    again = "et these again, or repair or remove them"
    return f"Do what a line says after its colon, or g{again}" if any(map(has_remedy, reasons)) else f"G{again}"


@dataclass(frozen=True)
class Images:
    """The images that the parts of a dataset refer to, each once, sorted by their places: M of each."""

    references: list[Reference]
    names: list[str]  # as the first part that has it calls it
    places: list[str]  # below the folder that holds them all: "train/cat/1.png", or "images.h5/images[7]"
    labels: list[int]  # the lowest, should an image have several
    classes: tuple[str, ...]

    @property
    def listing(self) -> dict[str, Any]:
        """What a cache's manifest says of its rows."""
        return {"classes": list(self.classes), "images": self.places, "labels": self.labels}


def _images(raw: RawSplits) -> Images:
    names: dict[Reference, str] = {}
    labels: dict[Reference, int] = {}
    for part in (raw.train, raw.val, raw.test):
        if part is not None and isinstance(part.images, Sequence):
            entries = zip(part.entries(part.images), part.names, part.labels.tolist(), strict=True)
            for reference, name, label in entries:
                names.setdefault(reference, name)
                labels[reference] = min(label, labels.get(reference, label))
    # by place, not by name: protocols may name the same images in other ways
    places = _places(list(names))
    references = sorted(names, key=places.__getitem__)
    return Images(
        references,
        [names[reference] for reference in references],
        [f"{path}/{array}[{index}]" if array else path for path, array, index in map(places.__getitem__, references)],
        [labels[reference] for reference in references],
        raw.classes,
    )


def _places(references: Sequence[Reference]) -> dict[Reference, tuple[str, str, int]]:
    """Where each image lies, as far as it does not depend on where the whole lies."""
    absolute = {path: str(path.absolute()) for path in {_path(reference) for reference in references}}
    root = os.path.commonpath({str(Path(path).parent) for path in absolute.values()}) if absolute else ""
    places = {}
    for reference in references:
        array, index = (reference.array, reference.index) if isinstance(reference, HDF5Image) else ("", 0)
        places[reference] = (absolute[_path(reference)][len(root) :].lstrip(os.sep), array, index)
    return places


def _path(reference: Reference) -> Path:
    return reference.path if isinstance(reference, HDF5Image) else reference


def _fingerprint(images: Images, size: tuple[int, int]) -> str:
    """A hash that another set of files, or a changed file, changes."""
    status: dict[Path, list[int] | None] = {}
    for path in map(_path, images.references):
        if path not in status:
            try:
                stat = path.stat()
                status[path] = [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns]
            except OSError:  # found when it is decoded, and reported with the others
                status[path] = None
    states = [status[_path(reference)] for reference in images.references]
    return hashlib.sha256(json.dumps([DECODER, KEPT, size, images.listing, states]).encode()).hexdigest()[:16]


@dataclass(frozen=True)
class Cache:
    """`<stem>-<fingerprint>.npy`, which holds the pixels, and the manifest `.json` beside it, which is written last.

    The manifest says of each row which image it is ("images": where it lies below the folder that holds them all), its
    label (an index into "classes"), its digest and the CRC-32 of its bytes ("checksums"), of a row that could not be
    read why ("bad"), and what is odd about another ("odd"). "sha256" is of all that.

    What does not fit these is damaged: it is named, removed and made anew. None of it is set aside: it can be tens of
    gigabytes, which the images give again.
    """

    folder: Path
    stem: str
    size: tuple[int, int]  # height, width
    images: Images

    @cached_property
    def _path(self) -> Path:
        return self.folder / f"{self.stem}-{_fingerprint(self.images, self.size)}.npy"

    @property
    def _shape(self) -> tuple[int, ...]:
        return (len(self.images.references), *self.size, 3)

    def kept(self) -> tuple[KeptPixels, list[DecodeResult]] | None:
        """What open() returns, if nothing has to be made for it; the pixels are not looked at before they are read."""
        try:
            return self._found(MOST_RETRIED)
        except (OSError, DamagedError):
            return None

    def open(self) -> tuple[KeptPixels, list[DecodeResult]]:
        """The pixels (M, H, W, 3) and what became of each image; made if need be. What is damaged is named on stderr.

        Where nothing has to be made, nothing is written, so that a cache can lie in a folder that is only read.
        """
        with disk_errors_explained("decoded images can't be kept in", self.folder, ELSEWHERE):
            kept, damage = self._checked()
        if kept:
            return kept
        meanwhile = f"another process decodes these images into {self.folder}"
        fails = f"{damage}, and can't be decoded anew in" if damage else "decoded images can't be kept in"
        with (
            disk_errors_explained(fails, self.folder, ELSEWHERE),
            locked(self.folder / f".{self.stem}.lock", meanwhile),
        ):
            kept, damage = self._checked()
            if not kept:
                if damage:
                    print(f"{damage}: decoded anew", file=sys.stderr, flush=True)
                self._build()
                kept, damage = self._checked(0)
        if not kept:
            raise RunError(f"{damage or self._path}: what has just been written is not what is read. {ELSEWHERE}")
        return kept

    def _checked(self, retried: int = MOST_RETRIED) -> tuple[tuple[KeptPixels, list[DecodeResult]] | None, str]:
        """What _found() returns once every row is checked; or None, and what is damaged, if that is why."""
        try:
            if (kept := self._found(retried)) and (rows := kept[0].damaged(min(cpus(), CHECKED_AT_ONCE))):
                first = one_line(self.images.names[rows[0]])
                raise DamagedError(f"{len(rows):,} of {counted(len(kept[0]), 'image')}, the first {first}")
            return kept, ""
        except FileNotFoundError:  # another process has just removed it
            return None, ""
        except DamagedError as problem:
            return None, f"the decoded images in {self._path} are damaged ({problem})"

    def _found(self, retried: int) -> tuple[KeptPixels, list[DecodeResult]] | None:
        """The pixels, which are yet to be checked, and what became of each image; None: there is no such cache, or one
        of the first `retried` bad images can be read now.

        DamagedError: the manifest is not as it was written, or the pixels are not of its size.
        """
        if not self._path.is_file() or not self._path.with_suffix(".json").is_file():  # anything else may wait for ever
            return None
        try:
            manifest = _without_checksum(dict(json.loads(self._path.with_suffix(".json").read_bytes())))
            checksums = [int(number) for number in manifest["checksums"]]
            bad = {int(row): str(reason) for row, reason in dict(manifest["bad"]).items()}
            odd = {int(row): str(oddity) for row, oddity in dict(manifest["odd"]).items()}
            outcomes = [
                DecodeResult(str(text), bad.get(row, ""), odd.get(row, ""), checksums[row])
                for row, text in enumerate(manifest["digests"])
            ]
        except (ValueError, LookupError, TypeError, OverflowError, RecursionError):
            raise DamagedError("its manifest is not what was written") from None
        lost = [row for row, outcome in enumerate(outcomes) if not outcome.digest]
        if len(outcomes) != self._shape[0] or sorted(bad) != lost or {**manifest, **self.images.listing} != manifest:
            return None
        if not self._is_whole():
            raise DamagedError("its size or its beginning is not what was written")
        # rights and missing packages are mended without a trace in a file's size or time
        if any(readable(self.images.references[row]) for row in lost[:retried]):
            return None
        return KeptPixels(self._path, len(self._header()), self._shape, checksums), outcomes

    def _is_whole(self) -> bool:
        header = self._header()
        with self._path.open("rb") as file:
            return file.read(len(header)) == header and self._path.stat().st_size == len(header) + prod(self._shape)

    def _build(self) -> None:
        """Decode everything; the manifest, without which there is no cache, comes last."""
        self._make_room()
        header = self._header()
        with atomic(self._path) as file:
            _reserve(file.fileno(), len(header) + prod(self._shape))
            write(file.fileno(), header, 0)
            outcomes = decode_rows(self.images.references, Target(file.fileno(), len(header), self.size), "decoding")
        empty = zlib.crc32(bytes(prod(self._shape[1:])))  # what nothing was written to
        manifest = self.images.listing | {
            "digests": [outcome.digest for outcome in outcomes],
            "bad": {str(row): outcome.problem for row, outcome in enumerate(outcomes) if outcome.problem},
            "odd": {str(row): outcome.oddity for row, outcome in enumerate(outcomes) if outcome.oddity},
            "checksums": [outcome.checksum if outcome.digest else empty for outcome in outcomes],
        }
        with atomic(self._path.with_suffix(".json")) as file:
            # ASCII, since a path need not be Unicode
            file.write(json.dumps(manifest | {"sha256": json_digest(manifest)}).encode())

    def _make_room(self) -> None:
        """Remove what was made of other files, or left by a killed process, and see that the disk has room."""
        for old in self.folder.iterdir():
            if old.name.startswith((f"{self.stem}-", f".{self.stem}-")) and old.suffix in (".npy", ".json", ".tmp"):
                old.unlink()
        needed, free = prod(self._shape), shutil.disk_usage(self.folder).free
        if needed > free:
            raise UserError(
                f"the decoded images take {needed:,} bytes, but {self.folder.absolute()} has {free:,} free. Free some "
                "space, choose another disk with --cache-dir or a smaller --size, or let them be decoded whenever they "
                "are needed, with --no-cache."
            )

    def _header(self) -> bytes:
        header = np.lib.format.header_data_from_array_1_0(np.empty((0, *self._shape[1:]), np.uint8))
        header["shape"] = self._shape
        written = BytesIO()
        np.lib.format.write_array_header_1_0(written, header)
        return written.getvalue()


def _without_checksum(manifest: dict[str, Any]) -> dict[str, Any]:
    """What is in a manifest beside its checksum. ValueError: that is of another. KeyError: there is none."""
    checksum = manifest.pop("sha256")
    if not is_sealed(manifest, checksum):
        raise ValueError("another checksum")
    return manifest


def _reserve(file: int, size: int) -> None:
    """Let the file have `size` bytes on the disk, so that a full one is told now and not by a fault in the map."""
    if hasattr(os, "posix_fallocate"):
        try:
            return os.posix_fallocate(file, 0, size)
        except OSError as error:
            if error.errno not in (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP):  # a file system that has no such thing
                raise
    return os.truncate(file, size)
