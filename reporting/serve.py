"""The live view: serves the report on this machine alone, to be read only, and rebuilds it when the records change."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from engine.console import fit_to_show, say
from engine.errors import UserError
from reporting.collect import MOST_DEPTH
from reporting.server import ADDRESS, BuildStatus, Server

LEAST_PAUSE_SECONDS = 1.0  # between two looks at the folder
LOOKING_SHARE = 0.05  # of the time may go into looking
PAUSE_PER_BUILD = 2.0  # times a build's own time, since a run that trains beside it needs the machine
UNWATCHED = (".log", ".pt")  # no report reads them


def serve(
    build: Callable[[], object], runs: Path, out: Path, port: int, pauses: Callable[[float], None] = time.sleep
) -> None:
    """Build the report into `out`, serve it at `port` of this machine (0: any), and build anew when `runs` changes.

    Ends by KeyboardInterrupt only, with the server closed. Raises UserError when the port can't be had, and whatever
    the first build raises; a later build that fails is reported on stderr and on the page, which stays as it was.
    """
    status = BuildStatus()
    server = Server(out, port, status)
    try:
        before = snapshot(runs, out)
        began = time.monotonic()
        build()
        pause = (time.monotonic() - began) * PAUSE_PER_BUILD
        status.change(version=version_now())
        server.start()
        say(f"serving    http://{ADDRESS}:{server.port}/ (this machine only; Ctrl-C ends it)")
        watch(build, runs, out, status, before, time.monotonic() + pause, pauses)
    finally:
        server.close()


def watch(
    build: Callable[[], object],
    runs: Path,
    out: Path,
    status: BuildStatus,
    before: int,
    not_before: float,
    pauses: Callable[[float], None],
) -> None:
    """Rebuild when `runs` differs from the snapshot `before`, but no sooner than `not_before` (monotonic seconds)."""
    while True:
        began = time.monotonic()
        now = snapshot(runs, out)
        looking = time.monotonic() - began
        if now != before and began >= not_before:
            before = now
            began = time.monotonic()
            rebuild(build, status)
            not_before = time.monotonic() + (time.monotonic() - began) * PAUSE_PER_BUILD
        pauses(max(LEAST_PAUSE_SECONDS, looking / LOOKING_SHARE))


def rebuild(build: Callable[[], object], status: BuildStatus) -> None:
    """Build once; what goes wrong is reported, and changes nothing."""
    status.change(building=True)
    try:
        build()
    except Exception as problem:
        text = str(problem) if isinstance(problem, UserError) else f"{type(problem).__name__}: {problem}"
        print(fit_to_show(f"the report could not be rebuilt: {text}"), file=sys.stderr, flush=True)
        status.change(building=False, error=text)
    else:
        say(f"rebuilt    {time.strftime('%H:%M:%S')}")
        status.change(building=False, error=None, version=version_now())


def version_now() -> int:
    """A number that no earlier build has, of this server or of one that ran before it at the same port."""
    return time.time_ns() // 1_000_000


def snapshot(runs: Path, out: Path) -> int:
    """A number that changes when a file under `runs` comes, goes or changes, by its size and modification time."""
    mark = 0
    for entry in _files(runs, out.absolute()):
        try:
            file = entry.stat()
        except OSError:  # removed meanwhile
            continue
        mark ^= hash((entry.path, file.st_mtime_ns, file.st_size))
    return mark


def _files(folder: Path | str, out: Path, depth: int = 0) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name.endswith(UNWATCHED):
                    continue
                if not entry.is_dir(follow_symlinks=False):
                    yield entry
                elif Path(entry.path).absolute() != out and depth < MOST_DEPTH:
                    yield from _files(entry.path, out, depth + 1)
    except OSError:  # not there, or no longer
        return
