"""The live view: serves the report on this machine alone, to be read only, and rebuilds it when the records change."""

from __future__ import annotations

import errno
import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from html import escape
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from engine.console import say
from engine.errors import UserError

ADDRESS = "127.0.0.1"
PAGE = "report.html"
TYPES = {
    PAGE: "text/html; charset=utf-8",
    "results.csv": "text/csv; charset=utf-8",
    "results.md": "text/markdown; charset=utf-8",
    "results.tex": "text/plain; charset=utf-8",
}
LEAST_PAUSE_SECONDS = 1.0  # between two looks at the folder
LOOKING_SHARE = 0.05  # of the time may go into looking
PAUSE_PER_BUILD = 2.0  # times a build's own time, since a run that trains beside it needs the machine
REQUEST_SECONDS = 30  # a connection that says nothing for so long is closed
UNWATCHED = (".log", ".pt")  # no report reads them


@dataclass
class BuildStatus:
    """What the page asks for: which build it is, whether another is being made, and why the last one failed."""

    version: int = 0
    building: bool = False
    error: str | None = None
    lock: threading.Lock = field(default_factory=threading.Lock)

    def change(self, **values: Any) -> None:
        """Set these fields, all at once."""
        with self.lock:
            for name, value in values.items():
                setattr(self, name, value)

    def values(self) -> dict[str, Any]:
        """Return what the page asks for, all of one moment."""
        with self.lock:
            return {"version": self.version, "building": self.building, "error": self.error}


def serve(
    build: Callable[[], object], runs: Path, out: Path, port: int, pauses: Callable[[float], None] = time.sleep
) -> None:
    """Build the report into `out`, serve it at `port` of this machine (0: any), and build anew when `runs` changes.

    Ends by KeyboardInterrupt only, with the server closed. Raises UserError when the port can't be had, and whatever
    the first build raises; a later build that fails is reported on stderr and on the page, which stays as it was.
    """
    status = BuildStatus()
    server = open_server(out, port, status)
    thread = threading.Thread(target=server.serve_forever, args=(0.1,), daemon=True)
    try:
        before = snapshot(runs, out)
        began = time.monotonic()
        build()
        pause = (time.monotonic() - began) * PAUSE_PER_BUILD
        status.change(version=version_now())
        thread.start()
        say(f"serving    http://{ADDRESS}:{server.server_port}/ (this machine only; Ctrl-C ends it)")
        watch(build, runs, out, status, before, time.monotonic() + pause, pauses)
    finally:
        if thread.is_alive():
            server.shutdown()
        server.server_close()


def open_server(out: Path, port: int, status: BuildStatus) -> ThreadingHTTPServer:
    """A server at `port` that is yet to be started. Raises UserError when the port can't be had."""
    handler = type("Handler", (Handler,), {"out": out, "status": status})
    try:
        server = ThreadingHTTPServer((ADDRESS, port), handler)
    except OverflowError:
        raise UserError(f"port {port} does not exist: expected one from 1 to 65535, such as --serve 8000") from None
    except OSError as problem:
        if problem.errno == errno.EADDRINUSE:
            raise UserError(
                f"port {port} is in use. Choose another: --serve {port + 1 if port < 65535 else 8000}"
            ) from None
        advice = "Choose another, such as --serve 8000"
        raise UserError(f"port {port} can't be used: {problem.strerror}. {advice}") from problem
    server.daemon_threads = True
    return server


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
        print(f"the report could not be rebuilt: {text}", file=sys.stderr, flush=True)
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


def _files(folder: Path | str, out: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if entry.name.startswith(".") or entry.name.endswith(UNWATCHED):
                    continue
                if not entry.is_dir(follow_symlinks=False):
                    yield entry
                elif Path(entry.path).absolute() != out:
                    yield from _files(entry.path, out)
    except OSError:  # not there, or no longer
        return


class Handler(BaseHTTPRequestHandler):
    """Answers GET and HEAD for the page, the tables and the build's status; refuses all else."""

    server: ThreadingHTTPServer
    out: Path
    status: BuildStatus
    timeout = REQUEST_SECONDS
    server_version = "report"
    sys_version = ""

    def do_GET(self) -> None:
        """Send the page, a table or the build's status."""
        # a page of another host, whose name was made to lead here, would send that name
        port = self.server.server_port
        if self.headers.get("Host") not in (f"{ADDRESS}:{port}", f"localhost:{port}"):
            self._send(HTTPStatus.FORBIDDEN, f"open http://{ADDRESS}:{port}/\n".encode())
            return
        path = self.path.partition("?")[0].removeprefix("/") or PAGE
        if path == "status":
            self._send(HTTPStatus.OK, json.dumps(self.status.values()).encode(), "application/json")
        elif path in TYPES:
            self._send_file(path)
        else:
            self._send(HTTPStatus.NOT_FOUND, b"not found\n")

    do_HEAD = do_GET  # noqa: N815 (the name is http.server's)

    def refuse(self) -> None:
        """Say that nothing can be changed here."""
        self._send(HTTPStatus.METHOD_NOT_ALLOWED, b"read only\n")

    do_POST = do_PUT = do_DELETE = do_PATCH = do_OPTIONS = refuse  # noqa: N815 (names of http.server)

    def _send_file(self, name: str) -> None:
        version = self.status.values()["version"]
        try:
            content = (self.out / name).read_bytes()
        except OSError:
            self._send(HTTPStatus.NOT_FOUND, b"not built yet\n")
            return
        if name == PAGE:  # by this the page knows that it is served, and what it is
            mark = f'<meta name="live-version" content="{escape(str(version))}">'
            content = content.replace(b"</head>", mark.encode() + b"</head>", 1)
        self._send(HTTPStatus.OK, content, TYPES[name])

    def _send(self, status: HTTPStatus, content: bytes, kind: str = "text/plain; charset=utf-8") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(content)))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("X-Frame-Options", "DENY")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.send_header("Referrer-Policy", "no-referrer")
        if status is HTTPStatus.METHOD_NOT_ALLOWED:
            self.send_header("Allow", "GET, HEAD")
            self.close_connection = True
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(content)

    def log_message(self, *_: Any) -> None:
        """Requests are not worth a line each."""
