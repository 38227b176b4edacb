"""The files of a report, put into its folder all at once."""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from engine.errors import UserError, disk_errors_explained
from engine.files import atomic

PATIENCE_SECONDS = 10.0  # with another report that is at the same folder
MOMENT_SECONDS = 0.05


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
        with _alone(out) as alone, ExitStack() as stack:
            if alone:
                for left in (path for name in files for path in out.glob(f".{name}.*.tmp")):  # by a kill
                    left.unlink(missing_ok=True)
            for name, text in files.items():
                file = stack.enter_context(atomic(out / name))
                file.write(text.encode())
                file.flush()
                os.fsync(file.fileno())


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
