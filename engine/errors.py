"""The ways a command can end badly, with the exit codes that tell them apart, and what their messages are made of."""

from __future__ import annotations

import errno
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

MOST_LISTED = 20  # lines of a list in a message
# what the system answers where a folder is not one to write in, beside a disk that is full or fails
REFUSALS = (errno.EACCES, errno.EPERM, errno.EROFS, errno.ENOTDIR, errno.EEXIST, errno.ENOENT, errno.EISDIR)

# and where it, or the network that it is reached by, does not do what was asked: no fault of the program
FAILURES = (
    *(errno.EIO, errno.ESTALE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM),
    *(errno.EMFILE, errno.ENFILE, errno.ENOLCK, errno.ETIMEDOUT, errno.ENODEV, errno.ENXIO, errno.EBUSY),
    *(errno.ENOTCONN, errno.EHOSTDOWN, errno.EHOSTUNREACH),
)

# C0, C1, the marks that turn the direction of text around, and the separators of lines and paragraphs
CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")


class UserError(Exception):
    """The user can mend it. The message says what was found, what was expected and how to fix it. Exit code 2."""

    exit_code = 2


Refuse = Callable[[UserError], None]  # what becomes of something that is wrong


def raised(problem: UserError) -> None:
    """Raise it: what a run does with the first thing that it refuses, where a check collects them all and goes on."""
    raise problem


@contextmanager
def refusing(refuse: Refuse) -> Iterator[None]:
    """Let `refuse` have the UserError that is raised inside, of what need not be done to go on."""
    try:
        yield
    except UserError as problem:
        refuse(problem)


class LevelError(UserError):
    """The folder holds no classes, but a folder inside it does, or may. Whoever knows the command adds it."""

    def __init__(self, message: str, inside: Path) -> None:
        super().__init__(message)
        self.inside = inside


class NotWholeError(UserError):
    """Files of a published dataset are not there. Whoever knows where it lies adds how to get them again.

    missing: the file's name, which may be that of one that is published by itself; "": several. or_partial: it can be
    trained on without, if the user says so.
    """

    def __init__(self, message: str, missing: str = "", or_partial: bool = False) -> None:
        super().__init__(message)
        self.missing, self.or_partial = missing, or_partial


class RunError(Exception):
    """The run itself failed (a non-finite loss, no memory left, a full disk). Exit code 3."""

    exit_code = 3


class DivergedError(RunError):
    """The loss, or what the model puts out, is not finite."""


class EndedElsewhereError(RunError):
    """Another process of this run failed, with such an exit code, and says so itself."""

    def __init__(self, message: str, exit_code: int) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class UnreadableError(Exception):
    """An image that can't be decoded; the message says why, without its name."""


# How libraries say that memory is short: PyTorch (its allocators; MPS: "MPS backend out of memory"), the CUDA driver,
# oneDNN, cuBLAS and cuDNN; "Invalid buffer size" is Metal's, for a tensor larger than it takes.
LACK_OF_MEMORY = (
    "out of memory",
    "can't allocate memory",
    "not enough memory",
    "could not create a primitive",
    "could not create a memory object",
    "CUDA_ERROR_OUT_OF_MEMORY",
    "_STATUS_ALLOC_FAILED",
    "ALLOCATION_FAILED",  # CUDNN_STATUS_INTERNAL_ERROR_DEVICE_ALLOCATION_FAILED
    "Invalid buffer size",
)
# What cuDNN and cuBLAS say where their workspace or handle does not fit (https://github.com/pytorch/pytorch/issues/81620
# has some), but also where they don't work at all.
PERHAPS_LACK_OF_MEMORY = (
    "nable to find an engine to execute this computation",
    "nable to find a valid cuDNN algorithm",
    "CUBLAS_STATUS_NOT_INITIALIZED",
    "CUBLAS_STATUS_INTERNAL_ERROR",
    "CUDNN_STATUS_NOT_INITIALIZED",
    "CUDNN_STATUS_INTERNAL_ERROR",
)


def out_of_memory(problem: BaseException) -> bool:
    """Whether a lack of memory raised it, or may have: PyTorch tells by the type only for CUDA's own allocator."""
    return surely_out_of_memory(problem) or any(words in str(problem) for words in PERHAPS_LACK_OF_MEMORY)


def surely_out_of_memory(problem: BaseException) -> bool:
    """Whether nothing but a lack of memory raises it."""
    return isinstance(problem, MemoryError) or any(words in str(problem) for words in LACK_OF_MEMORY)


def reason_of(error: OSError) -> str:
    """What the system says of an error, as the end of a sentence."""
    return (error.strerror or str(error)).lower()


@contextmanager
def disk_errors_explained(what: str, folder: Path, advice: str) -> Iterator[None]:
    """Turn what the disk refuses into "<what> <place>: <reason>. <advice>".

    A UserError where `folder` is not one to write in; a RunError for a full disk and the like.
    """
    try:
        yield
    except OSError as error:
        kind = UserError if error.errno in REFUSALS else RunError
        raise kind(f"{what} {error.filename or folder}: {reason_of(error)}. {advice}") from error


def one_line(text: str) -> str:
    """The text as it is safe to show: a name can have ends of lines, and what a terminal takes for its commands."""
    return text if text.isprintable() else CONTROLS.sub(lambda match: ascii(match[0])[1:-1], text)


def agreeing(number: int, verb: str) -> str:
    """The verb, given as one says it of several ("are", "have", "lie"), as one says it of so many."""
    singular = {"are": "is", "have": "has", "were": "was"}
    return verb if number != 1 else singular.get(verb) or f"{verb}s"


def counted(number: int, noun: str, verb: str = "") -> str:
    """ "2,000 images", or "1 image"; with a verb, as agreeing() takes it, "1 image is"."""
    plural = f"{noun}es" if noun.endswith(("s", "x", "tch", "sh")) else f"{noun}s"
    return f"{number:,} {noun if number == 1 else plural}" + (f" {agreeing(number, verb)}" if verb else "")


def listed(items: Iterable[str], most: int = MOST_LISTED) -> str:
    """One indented line an item, for an error message; beyond `most` items a count of the others."""
    items = iter(items)
    lines = list(islice(items, most))
    more = sum(1 for _ in items)
    return "".join(f"\n  {one_line(line)}" for line in lines) + (f"\n  ... and {more:,} more" if more else "")
