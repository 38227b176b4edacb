"""A web server on this machine that behaves, and misbehaves, as real ones do."""

import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any


class Server(ThreadingHTTPServer):
    """Serves `bodies` by path; `behave` names what else a path does."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.bodies: dict[str, bytes] = {}
        self.behave: dict[str, str | int] = {}
        self.seen: list[str] = []
        self.go_on = threading.Event()

    def add(self, path: str, body: bytes, behave: str | int = "") -> str:
        self.bodies[path], self.behave[path] = body, behave
        return f"http://127.0.0.1:{self.server_port}{path}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        self.server.seen.append(self.path)
        body, behave = self.server.bodies[self.path], self.server.behave[self.path]
        if isinstance(behave, int):
            self.send_error(behave)
            return
        self.send_response(200)
        if behave == "labelled":
            self.send_header("Content-Encoding", "gzip")
        if behave == "senseless":
            self.send_header("Content-Length", "many")
        elif behave != "unsized":
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        if behave in ("cut", "stall"):
            self.wfile.write(body[: len(body) // 2])
            self.wfile.flush()
            if behave == "stall":
                self.server.go_on.wait(20)
                self.wfile.write(body[len(body) // 2 :])
            return
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass
