"""reporting/serve.py: read-only, on this machine only, rebuilt when records change."""

import http.client
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from engine.errors import UserError
from reporting.serve import TYPES, BuildStatus, open_server, rebuild, serve, snapshot, watch

PAGE = b"<html><head></head><body>the page</body></html>"


@pytest.fixture
def out(tmp_path: Path) -> Path:
    folder = tmp_path / "report"
    folder.mkdir()
    for name in TYPES:
        (folder / name).write_bytes(PAGE if name == "report.html" else name.encode())
    (folder / "secret.txt").write_text("secret")
    return folder


@pytest.fixture
def status() -> BuildStatus:
    return BuildStatus(version=7)


@pytest.fixture
def served(out: Path, status: BuildStatus) -> Iterator[ThreadingHTTPServer]:
    server = open_server(out, 0, status)
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    yield server
    server.shutdown()
    server.server_close()


def ask(
    server: ThreadingHTTPServer, path: str, method: str = "GET", host: str | None = None
) -> tuple[int, bytes, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
    connection.request(method, path, headers={"Host": host} if host else {})
    answer = connection.getresponse()
    return answer.status, answer.read(), dict(answer.getheaders())


def test_the_page_the_tables_and_nothing_else(served: ThreadingHTTPServer) -> None:
    for path in ("/", "/report.html", "/report.html?again"):
        status, body, headers = ask(served, path)
        assert status == 200
        assert b'<meta name="live-version" content="7"></head>' in body
        assert b"the page" in body
        assert headers["Cache-Control"] == "no-store"
        assert headers["Content-Type"].startswith("text/html")
    for name in ("results.csv", "results.md", "results.tex"):
        assert ask(served, f"/{name}")[:2] == (200, name.encode())
    for path in ("/secret.txt", "/../report/secret.txt", "/..%2fsecret.txt", "//etc/passwd", "/runs", "/report.html/"):
        assert ask(served, path)[0] == 404, path


def test_the_file_itself_knows_of_no_live_view(out: Path, served: ThreadingHTTPServer) -> None:
    ask(served, "/")
    assert b"live-version" not in (out / "report.html").read_bytes()


def test_read_only(served: ThreadingHTTPServer) -> None:
    status, body, headers = ask(served, "/report.html", "HEAD")
    assert (status, body) == (200, b"")
    assert int(headers["Content-Length"]) > len(PAGE)
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        assert ask(served, "/report.html", method)[0] == 405, method


def test_another_name_for_this_machine_is_refused(served: ThreadingHTTPServer) -> None:
    """DNS rebinding: a page of evil.example, whose name leads here, may not read."""
    port = served.server_port
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1", f"127.0.0.1:{port + 1}", ""):
        status, body, _ = ask(served, "/", host=host or " ")
        assert status == 403, host
        assert b"the page" not in body
    assert ask(served, "/", host=f"localhost:{port}")[0] == 200


def test_it_listens_on_this_machine_alone(served: ThreadingHTTPServer) -> None:
    assert served.server_address[0] == "127.0.0.1"


def test_a_port_in_use(out: Path, status: BuildStatus, served: ThreadingHTTPServer) -> None:
    with pytest.raises(UserError, match=rf"port {served.server_port} is in use\. Choose another: --serve"):
        open_server(out, served.server_port, status)
    with pytest.raises(UserError, match="port 70000 does not exist"):
        open_server(out, 70000, status)


def test_a_build_that_fails_is_told_and_changes_nothing(
    status: BuildStatus, served: ThreadingHTTPServer, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails() -> None:
        assert status.values()["building"]
        raise ValueError("a <bad> record")

    rebuild(fails, status)
    answer = json.loads(ask(served, "/status")[1])
    assert answer == {"version": 7, "building": False, "error": "ValueError: a <bad> record"}
    assert "could not be rebuilt" in capsys.readouterr().err
    assert ask(served, "/")[0] == 200
    rebuild(lambda: None, status)
    answer = json.loads(ask(served, "/status")[1])
    assert answer["version"] > 7
    assert answer["error"] is None


def test_what_counts_as_a_change(tmp_path: Path) -> None:
    runs, out = tmp_path / "runs", tmp_path / "runs" / "report"
    record = runs / "digits" / "resnet" / "honest" / "record.json"
    assert snapshot(runs, out) == snapshot(runs, out)
    seen = {snapshot(runs, out)}

    def changed() -> bool:
        now = snapshot(runs, out)
        new = now not in seen
        seen.add(now)
        return new

    record.parent.mkdir(parents=True)
    record.write_text("{}")
    assert changed()
    assert not changed()
    os.utime(record, ns=(1, 1))
    assert changed()
    (record.parent / "errors.npz").write_bytes(b"")
    assert changed()
    (record.parent / "checkpoint.pt").write_bytes(b"")
    (record.parent / ".record.json.12.tmp").write_bytes(b"")
    out.mkdir()
    (out / "report.html").write_bytes(b"")
    assert not changed()
    record.unlink()
    assert changed()


def test_one_rebuild_a_change_and_pauses_between(tmp_path: Path, status: BuildStatus) -> None:
    runs = tmp_path / "runs"
    runs.mkdir()
    built: list[float] = []
    steps = iter(["", "first", "", "second", "", "end"])

    def pauses(_: float) -> None:
        step = next(steps)
        if step == "end":
            raise KeyboardInterrupt
        if step:
            (runs / step).write_text(step)
        time.sleep(0.02)

    with pytest.raises(KeyboardInterrupt):
        watch(lambda: built.append(time.monotonic()), runs, tmp_path, status, snapshot(runs, tmp_path), 0, pauses)
    assert len(built) == 2
    assert status.values()["version"] > 7


def test_from_the_first_build_to_ctrl_c(tmp_path: Path, out: Path) -> None:
    seen = []

    def looks(seconds: float) -> None:
        with socket.create_connection(("127.0.0.1", port), timeout=10) as connection:
            connection.sendall(f"GET /status HTTP/1.0\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
            seen.append(connection.makefile("rb").read())
        raise KeyboardInterrupt

    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(KeyboardInterrupt):
        serve(lambda: seen.append(b"built"), tmp_path / "runs", out, port, looks)
    assert seen[0] == b"built"
    assert b'"version"' in seen[1]
    with pytest.raises(OSError, match="refused"):
        socket.create_connection(("127.0.0.1", port), timeout=10)


def test_a_first_build_that_fails_ends_it(tmp_path: Path, out: Path) -> None:
    def fails() -> None:
        raise UserError("no records")

    with pytest.raises(UserError, match="no records"):
        serve(fails, tmp_path, out, 0)
