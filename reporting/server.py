"""Serves the files of a report to browsers on this machine, to be read only, however slow or broken a client is."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
import socket
import stat
import threading
from dataclasses import dataclass, field, replace
from html import escape
from http import HTTPStatus
from pathlib import Path
from typing import Any, BinaryIO

from engine.errors import UserError

ADDRESS = "127.0.0.1"
PAGE = "report.html"
TEXT = "text/plain; charset=utf-8"
TYPES = {
    PAGE: "text/html; charset=utf-8",
    "results.csv": "text/csv; charset=utf-8",
    "runs.csv": "text/csv; charset=utf-8",
    "results.md": "text/markdown; charset=utf-8",
    "results.tex": TEXT,
}
MOST_CLIENTS = 100  # at a time; one more ends that which has been there longest
REQUEST_BYTES = 16 << 10  # of a whole request, of which browsers send about 1 KiB
REQUEST_HEADERS = 100
REQUEST_SECONDS = 10.0  # from the connection to the last byte of a request
ANSWER_SECONDS = 60.0  # until a client has taken all of an answer
FAREWELL_SECONDS = 1.0  # in which a client may still send what nobody will read
HEAD_BYTES = 4096  # of a page, in which its <head> begins
REQUEST_LINE = re.compile(r"([A-Za-z]{1,20}) (/[!-~]*) HTTP/1\.[01]")
HEADER = re.compile(r"([!#$%&'*+.^_`|~0-9A-Za-z-]+):[ \t]*([\t -~\x80-\xff]*)")


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


@dataclass(frozen=True)
class Answer:
    """What a client is told: a text, or a file of the report."""

    status: HTTPStatus
    text: bytes = b""
    kind: str = TEXT
    file: str = ""  # its name; "": the text
    body: bool = True  # whether more than its head was asked for


class Server:
    """Answers GET and HEAD for the page, the tables and the build's status in the folder `out`; refuses all else.

    One thread has all clients, MOST_CLIENTS at a time, and holds no file in memory. Raises UserError when the port
    can't be had; 0 is any.
    """

    def __init__(self, out: Path, port: int, status: BuildStatus) -> None:
        self._out, self._status = out, status
        self._socket = bound(port)
        self.address: tuple[str, int] = self._socket.getsockname()
        self.port = self.address[1]
        end = "" if self.port == 80 else f":{self.port}"  # browsers leave that one out
        self._hosts = {f"{ADDRESS}{end}", f"localhost{end}"}
        self._clients: dict[asyncio.Task[None], None] = {}  # that which has been there longest first
        self._loop, self._over = asyncio.new_event_loop(), asyncio.Event()
        self._thread: threading.Thread | None = None

    def start(self) -> None:
        """Serve from now on, in a thread of its own."""
        self._thread = threading.Thread(target=self._loop.run_until_complete, args=(self._serve(),), daemon=True)
        self._thread.start()

    def close(self) -> None:
        """End all connections and give the port back."""
        if self._thread:
            self._loop.call_soon_threadsafe(self._over.set)
            self._thread.join()
        self._socket.close()
        self._loop.close()

    async def _serve(self) -> None:
        async with await asyncio.start_server(self._client, sock=self._socket, limit=REQUEST_BYTES):
            await self._over.wait()
            for client in self._clients:
                client.cancel()
            await asyncio.gather(*self._clients, return_exceptions=True)

    async def _client(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        client = asyncio.current_task()
        assert client is not None
        if len(self._clients) >= MOST_CLIENTS:
            longest = next(iter(self._clients))
            del self._clients[longest]
            longest.cancel()
        self._clients[client] = None
        try:
            answer = await self._answer(reader)
            await asyncio.wait_for(self._send(answer, writer), ANSWER_SECONDS)
            await asyncio.wait_for(_heard_out(reader, writer), FAREWELL_SECONDS)
        except (OSError, EOFError, asyncio.TimeoutError, asyncio.CancelledError):  # it is gone, or is sent away
            pass
        finally:
            self._clients.pop(client, None)
            writer.transport.abort()

    async def _answer(self, reader: asyncio.StreamReader) -> Answer:
        try:
            request = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), REQUEST_SECONDS)
        except asyncio.TimeoutError:
            return Answer(HTTPStatus.REQUEST_TIMEOUT)
        except asyncio.LimitOverrunError:
            return Answer(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        return replace(self._of(request), body=not request.startswith(b"HEAD "))

    def _of(self, request: bytes) -> Answer:
        """The answer to a request: its first line and its headers, with the empty line that ends them."""
        first, *lines = request.decode("latin-1").removesuffix("\r\n\r\n").split("\r\n")
        asked, headers = REQUEST_LINE.fullmatch(first), [HEADER.fullmatch(line) for line in lines]
        hosts = [header[2].strip().lower() for header in headers if header and header[1].lower() == "host"]
        if not asked or not all(headers) or len(hosts) > 1:
            return Answer(HTTPStatus.BAD_REQUEST)
        if len(headers) > REQUEST_HEADERS:
            return Answer(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE)
        # a page of another host, whose name was made to lead here, would send that name
        if not self._hosts.issuperset(hosts) or not hosts:
            return Answer(HTTPStatus.FORBIDDEN, f"open http://{ADDRESS}:{self.port}/\n".encode())
        method, target = asked.groups()
        if method not in ("GET", "HEAD"):
            return Answer(HTTPStatus.METHOD_NOT_ALLOWED, b"read only\n")
        name = target.partition("?")[0].removeprefix("/") or PAGE
        if name == "status":
            return Answer(HTTPStatus.OK, json.dumps(self._status.values()).encode(), "application/json")
        if name in TYPES:
            return Answer(HTTPStatus.OK, kind=TYPES[name], file=name)
        return Answer(HTTPStatus.NOT_FOUND)

    async def _send(self, answer: Answer, writer: asyncio.StreamWriter) -> None:
        if not answer.file:
            await _write(answer, answer.text or f"{answer.status.phrase.lower()}\n".encode(), 0, writer)
            return
        version = self._status.values()["version"]  # before the file, which may be newer: then the page asks again
        try:
            file = opened(self._out / answer.file)
        except FileNotFoundError:
            await _write(Answer(HTTPStatus.NOT_FOUND, body=answer.body), b"not built yet\n", 0, writer)
            return
        with file:
            size, start = os.fstat(file.fileno()).st_size, b""
            if answer.file == PAGE:  # by this mark the page knows that it is served, and what it is
                start = file.read(HEAD_BYTES)
                size -= len(start)
                mark = f'<head><meta name="live-version" content="{escape(str(version))}">'
                start = start.replace(b"<head>", mark.encode(), 1)
            await _write(answer, start, size, writer)
            if answer.body and size:
                await self._loop.sendfile(writer.transport, file, file.tell(), size)


async def _write(answer: Answer, start: bytes, more: int, writer: asyncio.StreamWriter) -> None:
    """Send the head of an answer and the `start` of its body, of which `more` bytes follow."""
    headers = {
        "Content-Type": answer.kind,
        "Content-Length": len(start) + more,
        "Connection": "close",
        "Cache-Control": "no-store",
        "X-Content-Type-Options": "nosniff",
        "X-Frame-Options": "DENY",
        "Cross-Origin-Resource-Policy": "same-origin",
        "Referrer-Policy": "no-referrer",
        "Allow": "GET, HEAD",
    }
    lines = [f"HTTP/1.1 {answer.status.value} {answer.status.phrase}", *(f"{k}: {v}" for k, v in headers.items())]
    writer.write("\r\n".join([*lines, "", ""]).encode() + (start if answer.body else b""))
    await writer.drain()


async def _heard_out(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Read what a client still sends, for nothing: were the connection ended before, it could lose the answer."""
    writer.write_eof()
    while await reader.read(REQUEST_BYTES):
        pass


def opened(path: Path) -> BinaryIO:
    """The file, open to be read. Raises FileNotFoundError where it can't be, is a link or no regular file."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as problem:
        raise FileNotFoundError from problem
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):  # a pipe would be waited for without end
        os.close(descriptor)
        raise FileNotFoundError
    return os.fdopen(descriptor, "rb")


def bound(port: int) -> socket.socket:
    """A socket at a port of this machine that nobody else has. Raises UserError when it can't be had."""
    try:
        return socket.create_server((ADDRESS, port), backlog=MOST_CLIENTS)
    except OverflowError:
        raise UserError(f"port {port} does not exist: expected one from 1 to 65535, such as --serve 8000") from None
    except OSError as problem:
        if problem.errno == errno.EADDRINUSE:
            another = port + 1 if port < 65535 else 8000
            raise UserError(f"port {port} is in use. Choose another: --serve {another}") from None
        advice = "Choose another, such as --serve 8000"
        raise UserError(f"port {port} can't be used: {problem.strerror}. {advice}") from problem
