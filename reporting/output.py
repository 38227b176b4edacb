"""The files of a report, put into its folder all at once."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from engine.errors import UserError, disk_errors_explained
from engine.files import atomic
from reporting.files import read_start

PATIENCE_SECONDS = 10.0  # with another report that is at the same folder
MOMENT_SECONDS = 0.05
PAGE = "report.html"
MARK, HEAD_BYTES = b"<title>Which backbone? ", 65536  # at the beginning of the page


def write_report(out: Path, files: Mapping[str, str]) -> None:
    """Write the files, by name, into `out`: where one can't be, none of those that are there is touched.

    All are whole on the disk before the first takes its place, so that a kill leaves each as it was or as it is now,
    and of two reports at once the files of one. Raises UserError or RunError as disk_errors_explained() does.
    """
    with disk_errors_explained("the report can't be written to", out, "--out chooses another folder."):
        out.mkdir(parents=True, exist_ok=True)
        for name in files:
            if (out / name).is_dir():
                raise UserError(f"{out / name} is a folder, where the report has a file. --out chooses another folder.")
        _require_own(out, files)
        with _alone(out) as alone, ExitStack() as stack:
            if alone:
                for left in (path for name in files for path in out.glob(f".{name}.*.tmp")):  # by a kill
                    left.unlink(missing_ok=True)
            # what is entered last takes its place first: the page, by which the others are known to be a report's
            for name, text in sorted(files.items(), key=lambda each: each[0] == PAGE):
                file = stack.enter_context(atomic(out / name))
                file.write(text.encode())
                file.flush()
                os.fsync(file.fileno())


def _require_own(out: Path, names: Iterable[str]) -> None:
    """Raise UserError where a file of such a name is none that a report wrote."""
    try:
        own = MARK in read_start(out / PAGE, HEAD_BYTES)
    except (OSError, ValueError):
        own = False
    strange = [name for name in names if (out / name).exists()]
    if strange and not own:
        raise UserError(
            f"{out} holds {', '.join(strange)}, but no page of an earlier report: they may be yours. Move them away; "
            "or --out chooses another folder."
        )


@contextmanager
def _alone(out: Path) -> Iterator[bool]:
    """Hold the folder's lock, and say whether it could be had: another process may have been stopped with it."""
    descriptor = os.open(out, os.O_RDONLY)
    try:
        deadline, alone = time.monotonic() + PATIENCE_SECONDS, False
        with suppress(OSError):  # of a file system that has no locks
            while not alone and time.monotonic() < deadline:
                try:
                    fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    alone = True
                except BlockingIOError:
                    time.sleep(MOMENT_SECONDS)
        yield alone
    finally:
        os.close(descriptor)
