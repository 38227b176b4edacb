"""Many images decoded at once, by one process a CPU: their digests, and their pixels if they are to be kept."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import warnings
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from multiprocessing.connection import Connection, Pipe
from queue import SimpleQueue
from typing import NamedTuple

import numpy as np

from engine.console import bar
from engine.data.images import ODDITY, digest, load, resize
from engine.data.memory import RAN_OUT, TooLargeError, room_for_images
from engine.data.part import Pixels, Reference
from engine.errors import RunError, UnreadableError, UserError
from engine.paths import PROJECT
from engine.processes.heartbeat import alive, die_with

PIECE = 16  # images that are decoded at a time
ROW_BYTES = 8  # of a row's number between processes
FEW = 300  # images, for which starting processes takes longer than it saves
# not multiprocessing's: these would import the user's script, and PyTorch with it
CODE = (
    "import sys; sys.path[:] = [sys.argv[1], *filter(None, sys.path)]; "
    "from engine.data import decode_pool; decode_pool.serve(*sys.argv[2:])"
)


class DecodeResult(NamedTuple):
    """What became of an image: its digest, or why it can't be read; the other one is empty."""

    digest: str
    problem: str
    oddity: str = ""  # what engine/data/images.py says of one that was read, but perhaps not as it was meant
    checksum: int = 0  # CRC-32 of the pixels that were written
    too_large: bool = False  # to be decoded while others are


@dataclass(frozen=True)
class Target:
    """Where pixels go: row i, at `size` (height, width), begins at `start` + i * H * W * 3 of an open file."""

    file: int  # descriptor
    start: int
    size: tuple[int, int]
    digests: bool = True  # whether those of the images and of the written pixels are wanted, too

    def write(self, row: int, pixels: Pixels) -> int:
        """Write the pixels of the image at `row`; their CRC-32, if it is wanted. Raises OSError."""
        data = np.ascontiguousarray(pixels).data.cast("B")
        write(self.file, data, self.start + row * len(data))
        return zlib.crc32(data) if self.digests else 0


def decode_rows(references: Sequence[Reference], target: Target | None, what: str) -> list[DecodeResult]:
    """What becomes of each image; the pixels of those that can be read are written to `target`, if there is one.

    What takes more memory than is left for it beside others is decoded alone, last.

    `what` is the title of the progress bar. UserError: a package is missing. OSError: `target` can't be written.
    RunError: a process died. Whatever ends this call, an interruption too, leaves no process and no thread behind.
    """
    outcomes: list[DecodeResult] = []
    pieces = [range(row, min(row + PIECE, len(references))) for row in range(0, len(references), PIECE)]
    count = min(cpus(), len(pieces))
    alone = count == 1 or len(references) <= FEW
    room = room_for_images() / count
    shown = bar(desc=what, total=len(references), unit=" images", leave=False)
    with (
        shown,
        ThreadPoolExecutor(count) as threads,
        in_place(target) if alone else processes(target, count) as decoder,
    ):
        try:
            for results in threads.map(
                lambda piece: decoder(piece[0], [references[row] for row in piece], room), pieces
            ):
                outcomes += results
                shown.update(len(results))
                alive(f"{what}: {len(outcomes):,} of {len(references):,} images")
            for row in [row for row, outcome in enumerate(outcomes) if outcome.too_large]:
                (outcomes[row],) = decoder(row, [references[row]], room_for_images())
                alive(f"{what}: the largest images, one after another")
        except BaseException:
            threads.shutdown(wait=False, cancel_futures=True)
            raise
    return outcomes


def readable(reference: Reference) -> bool:
    """Whether an image can be decoded."""
    with quiet():
        return not _decode(0, [reference], room_for_images(), None)[0].problem


def cpus() -> int:
    """The CPUs that this process may use: by affinity, and by the quota of its control group."""
    import joblib

    return int(joblib.cpu_count())


def write(file: int, data: bytes | memoryview, offset: int) -> None:
    """Write all of `data` at `offset`; a disk that becomes full takes the beginning without a word."""
    # written, not mapped: the pages of a map would count as this process's memory
    while data:
        written = os.pwrite(file, data, offset)
        data, offset = data[written:], offset + written


@contextmanager
def quiet() -> Iterator[None]:
    """Without Pillow's and pydicom's warnings about odd but readable files."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


# decodes the images from a row on, each in so many bytes, and may be called by several threads at once
Decoder = Callable[[int, Sequence[Reference], float], list[DecodeResult]]


@contextmanager
def in_place(target: Target | None) -> Iterator[Decoder]:
    """What decodes in this process."""
    with quiet():
        yield lambda first, references, room: _decode(first, references, room, target)


@contextmanager
def processes(target: Target | None, count: int) -> Iterator[Decoder]:
    """What decodes in `count` processes, as many calls at once. RunError: one can't be started."""
    idle: SimpleQueue[Process] = SimpleQueue()

    def decoder(first: int, references: Sequence[Reference], room: float) -> list[DecodeResult]:
        process = idle.get()
        try:
            return process.decode(first, references, room)
        finally:
            idle.put(process)

    with ExitStack() as stack:
        for _ in range(count):
            idle.put(stack.enter_context(Process(target)))
        yield decoder


class Process:
    """A process that decodes for this one, and ends with it. RunError: it can't be started."""

    def __init__(self, target: Target | None) -> None:
        self._target = target
        self._connection, theirs = Pipe()
        # the row of each image that it begins. Nobody waits for these: messages would take a tenth of the time of small
        # images
        self._begun, begun = os.pipe()
        own = [theirs.fileno(), os.getpid(), begun]
        # a session of its own, since Ctrl-C goes to all processes of the terminal's
        try:
            self._process = subprocess.Popen(  # noqa: S603 (its own code)
                [sys.executable, "-c", CODE, str(PROJECT), *map(str, own)],
                stdin=subprocess.DEVNULL,
                pass_fds=[theirs.fileno(), begun, *([target.file] if target else [])],
                start_new_session=True,
                env={**os.environ, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"},
            )
        except OSError as error:
            self._connection.close()
            os.close(self._begun)
            raise RunError(f"no process that decodes images can be started: {error}") from error
        finally:
            theirs.close()
            os.close(begun)

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._begun)

    def decode(self, first: int, references: Sequence[Reference], room: float) -> list[DecodeResult]:
        """Let the process decode images into the rows from `first` on. Raises RunError where it died."""
        try:
            self._connection.send((self._target, first, references, room))
            answer: list[DecodeResult] | Exception = self._connection.recv()
        except (EOFError, ConnectionError):
            raise RunError(self._death(first, references)) from None
        self._rows_begun(len(references))
        if isinstance(answer, Exception):
            raise answer
        return answer

    def _rows_begun(self, most: int) -> bytes:
        return os.read(self._begun, most * ROW_BYTES)

    def _death(self, first: int, references: Sequence[Reference]) -> str:
        code = self._process.wait()
        last = self._rows_begun(len(references))[-ROW_BYTES:]  # none, of one that died before
        reference = references[int.from_bytes(last, "big") - first if last else 0]
        how = f"exit code {code}: see above" if code >= 0 else signal.Signals(-code).name
        return (
            f"a process that decodes images died ({how}) at {reference}. If memory ran out (SIGKILL), close other "
            "programs. If it dies there again, get this image again, or remove it. The same command decodes anew."
        )


def serve(descriptor: str, parent: str, begun: str) -> None:
    """What such a process does: decode what comes through a connection, until the process at its other end is gone.

    Into the pipe `begun` it writes the row of each image beforehand.
    """
    die_with(int(parent))  # also while it waits for a file that nobody writes
    with Connection(int(descriptor)) as connection, quiet(), suppress(EOFError, ConnectionError):
        while True:
            target, first, references, room = connection.recv()
            try:
                answer: list[DecodeResult] | Exception = _decode(first, references, room, target, int(begun))
            except (UserError, OSError) as problem:
                answer = problem
            connection.send(answer)


def _decode(
    first: int,
    references: Sequence[Reference],
    room: float,
    target: Target | None,
    begun: int | None = None,
) -> list[DecodeResult]:
    """What becomes of each image; its row is written to the descriptor `begun` beforehand."""
    outcomes = []
    for row, reference in enumerate(references, first):
        if begun is not None:
            os.write(begun, row.to_bytes(ROW_BYTES, "big"))
        try:
            image = load(reference, room)
            own_digest = digest(image) if target is None or target.digests else ""
            oddity = "" if isinstance(image, np.ndarray) else image.info.get(ODDITY, "")
            # last: of what can't be read nothing is written
            checksum = target.write(row, resize(image, target.size)) if target else 0
            outcomes.append(DecodeResult(own_digest, "", oddity, checksum))
        except MemoryError:
            outcomes.append(DecodeResult("", RAN_OUT, too_large=True))
        except UnreadableError as problem:
            outcomes.append(DecodeResult("", str(problem), too_large=isinstance(problem, TooLargeError)))
    return outcomes
