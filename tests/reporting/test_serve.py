"""reporting/serve.py: read-only, on this machine only, rebuilt when records change."""

import http.client
import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from engine.errors import UserError
from reporting import server
from reporting.serve import rebuild, serve, snapshot, watch
from reporting.server import MOST_CLIENTS, TYPES, BuildStatus, Server

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
def served(out: Path, status: BuildStatus) -> Iterator[Server]:
    server = Server(out, 0, status)
    server.start()
    yield server
    server.close()


def ask(server: Server, path: str, method: str = "GET", host: str | None = None) -> tuple[int, bytes, dict[str, str]]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        connection.request(method, path, headers={"Host": host} if host else {})
        answer = connection.getresponse()
        return answer.status, answer.read(), dict(answer.getheaders())
    finally:
        connection.close()


def say(server: Server, *pieces: bytes) -> bytes:
    """All that the server answers to these bytes, in which OWN_NAME stands for its name."""
    with socket.create_connection(server.address, timeout=10) as connection:
        for piece in pieces:
            connection.sendall(piece.replace(b"OWN_NAME", f"Host: 127.0.0.1:{server.port}".encode()))
        connection.shutdown(socket.SHUT_WR)
        return connection.makefile("rb").read()


def test_the_page_the_tables_and_nothing_else(served: Server) -> None:
    for path in ("/", "/report.html", "/report.html?again"):
        status, body, headers = ask(served, path)
        assert status == 200
        assert b'<head><meta name="live-version" content="7"></head>' in body
        assert b"the page" in body
        assert headers["Cache-Control"] == "no-store"
        assert headers["Content-Type"].startswith("text/html")
    for name in ("results.csv", "results.md", "results.tex", "runs.csv"):
        assert ask(served, f"/{name}")[:2] == (200, name.encode())
    for path in ("/secret.txt", "/../report/secret.txt", "/..%2fsecret.txt", "//etc/passwd", "/runs", "/report.html/"):
        assert ask(served, path)[0] == 404, path


def test_the_file_itself_knows_of_no_live_view(out: Path, served: Server) -> None:
    ask(served, "/")
    assert b"live-version" not in (out / "report.html").read_bytes()


def test_read_only(served: Server) -> None:
    status, body, headers = ask(served, "/report.html", "HEAD")
    assert (status, body) == (200, b"")
    assert int(headers["Content-Length"]) > len(PAGE)
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        assert ask(served, "/report.html", method)[0] == 405, method


def test_another_name_for_this_machine_is_refused(served: Server) -> None:
    """DNS rebinding: a page of evil.example, whose name leads here, may not read."""
    port = served.port
    for host in ("evil.example", f"evil.example:{port}", "127.0.0.1", f"127.0.0.1:{port + 1}", ""):
        status, body, _ = ask(served, "/", host=host or " ")
        assert status == 403, host
        assert b"the page" not in body
    assert ask(served, "/", host=f"localhost:{port}")[0] == 200


def test_it_listens_on_this_machine_alone(served: Server) -> None:
    assert served.address[0] == "127.0.0.1"


def test_a_port_in_use(out: Path, status: BuildStatus, served: Server) -> None:
    with pytest.raises(UserError, match=rf"port {served.port} is in use\. Choose another: --serve"):
        Server(out, served.port, status)
    with pytest.raises(UserError, match="port 70000 does not exist"):
        Server(out, 70000, status)


def test_a_build_that_fails_is_told_and_changes_nothing(
    status: BuildStatus, served: Server, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails() -> None:
        assert status.values()["building"]
        raise ValueError("a <bad> record\x1b[2J")

    rebuild(fails, status)
    answer = json.loads(ask(served, "/status")[1])
    assert answer == {"version": 7, "building": False, "error": "ValueError: a <bad> record\x1b[2J"}
    assert "could not be rebuilt: ValueError: a <bad> record\\x1b[2J" in capsys.readouterr().err
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


@pytest.mark.parametrize(
    ("request_", "answer"),
    [
        (b"GET / HTTP/1.1\r\nOWN_NAME\r\n\r\n", 200),
        (b"GET / HTTP/1.1\r\nhost:   LOCALHOST:PORT\t\r\n\r\n", 200),
        (b"GET / HTTP/1.1\r\nOWN_NAME\r\nRange: bytes=2-4\r\n\r\n", 200),  # the whole: nobody needs a part
        (b"GET / HTTP/1.1\r\nOWN_NAME\r\nHost: evil.example\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nOWN_NAME\r\nOWN_NAME\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 403),
        (b"GET / HTTP/1.1\r\nHost : localhost:PORT\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nOWN_NAME\r\n folded\r\n\r\n", 400),
        (b"GET / HTTP/1.1\r\nOWN_NAME\r\nX: a\0b\r\n\r\n", 400),
        (b"GET http://evil.example/ HTTP/1.1\r\nOWN_NAME\r\n\r\n", 400),
        (b"GET http://127.0.0.1:PORT/ HTTP/1.1\r\nOWN_NAME\r\n\r\n", 400),
        (b"GET * HTTP/1.1\r\nOWN_NAME\r\n\r\n", 400),
        (b"GET /../report.html HTTP/1.1\r\nOWN_NAME\r\n\r\n", 404),
        (b"GET /%2e%2e/secret.txt HTTP/1.1\r\nOWN_NAME\r\n\r\n", 404),
        (b"GET /report.html%00.txt HTTP/1.1\r\nOWN_NAME\r\n\r\n", 404),
        (b"GET /report.html\0 HTTP/1.1\r\nOWN_NAME\r\n\r\n", 400),
        (b"GET /" + b"a" * 9000 + b" HTTP/1.1\r\nOWN_NAME\r\n\r\n", 404),
        (b"GET /" + b"a" * 99_000 + b" HTTP/1.1\r\nOWN_NAME\r\n\r\n", 431),
        (b"GET / HTTP/1.1\r\nOWN_NAME\r\n" + b"X: y\r\n" * 200 + b"\r\n", 431),
        (b"GET /\r\n\r\n", 400),  # HTTP/0.9
        (b"GET / HTTP/2.0\r\nOWN_NAME\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\0\x01\r\n\r\n", 400),  # TLS
        (b"get / HTTP/1.1\r\nOWN_NAME\r\n\r\n", 405),
        (b"CONNECT / HTTP/1.1\r\nOWN_NAME\r\n\r\n", 405),
        (b"POST / HTTP/1.1\r\nOWN_NAME\r\nContent-Length: 999999\r\n\r\n" + b"x" * 300_000, 405),
    ],
)
def test_strange_requests(served: Server, request_: bytes, answer: int) -> None:
    said = say(served, request_.replace(b"PORT", str(served.port).encode()))
    assert int(said.split()[1]) == answer
    assert (b"the page" in said) == (answer == 200)
    assert b"secret" not in said


def test_of_several_requests_in_a_row_the_first_is_answered(served: Server) -> None:
    said = say(served, b"GET /results.md HTTP/1.1\r\nOWN_NAME\r\n\r\n" * 5)
    assert said.count(b"HTTP/1.1 200 OK") == 1
    assert b"Connection: close" in said


def test_a_head_has_no_body_whatever_the_answer(served: Server) -> None:
    for target in (b"/", b"/status", b"/results.csv", b"/nothing"):
        assert say(served, b"HEAD " + target + b" HTTP/1.1\r\nOWN_NAME\r\n\r\n").endswith(b"\r\n\r\n")


def test_what_is_no_file_of_the_report_is_not_served(out: Path, served: Server) -> None:
    """A link leads out of the folder, and a pipe would be waited for without end."""
    for name, make in (
        ("results.csv", lambda path: path.symlink_to(out / "secret.txt")),
        ("results.md", os.mkfifo),
        ("results.tex", os.mkdir),
    ):
        (out / name).unlink()
        make(out / name)
        assert ask(served, f"/{name}")[:2] == (404, b"not built yet\n")


def test_a_page_that_is_replaced_while_it_is_sent_is_sent_whole(out: Path, served: Server) -> None:
    old = PAGE + b"old" * 3_000_000
    (out / "report.html").write_bytes(old)
    with socket.create_connection(served.address, timeout=10) as connection:
        connection.sendall(f"GET / HTTP/1.1\r\nHost: localhost:{served.port}\r\n\r\n".encode())
        answer = connection.makefile("rb")
        assert answer.readline() == b"HTTP/1.1 200 OK\r\n"
        (out / "new").write_bytes(b"new")
        (out / "new").replace(out / "report.html")
        assert answer.read().endswith(old[len(PAGE) :])
    assert ask(served, "/")[1] == b"new"


def memory_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def test_clients_that_say_or_read_nothing_neither_stop_it_nor_take_memory(
    out: Path, served: Server, capfd: pytest.CaptureFixture[str]
) -> None:
    """200 half a request each, 200 that do not read their answer: 4 MB each would be 800 MB."""
    if not Path("/proc/self/statm").exists():
        pytest.skip("the memory of a process that it has just now is known on Linux only")
    (out / "report.html").write_bytes(PAGE + bytes(4 << 20))
    ask(served, "/")
    threads, memory = threading.active_count(), memory_bytes()
    host = f"Host: 127.0.0.1:{served.port}\r\n".encode()
    with ExitStack() as stack:
        for request in (b"GET / HTTP/1.1\r\n" + host, b"GET / HTTP/1.1\r\n" + host + b"\r\n"):
            for _ in range(200):
                client = stack.enter_context(socket.create_connection(served.address, timeout=10))
                client.sendall(request)
                assert len(served._clients) <= MOST_CLIENTS
            assert ask(served, "/status")[0] == 200
        assert memory_bytes() - memory < 60e6
        assert threading.active_count() == threads
    for _ in range(200):  # and 200 that hang up at once
        with socket.create_connection(served.address, timeout=10) as client:
            client.sendall(b"GET / HTTP/1.1\r\n" + host + b"\r\n")
    assert len(ask(served, "/")[1]) > 4 << 20
    assert capfd.readouterr().err == ""


def test_a_request_in_drops_has_a_deadline(served: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "REQUEST_SECONDS", 0.05)
    with socket.create_connection(served.address, timeout=10) as client:
        client.setblocking(False)
        answer = b""
        while not answer:  # a byte at a time: each is a sign of life, and yet no request
            try:
                answer = client.recv(4096)
            except BlockingIOError:
                client.send(b"G")
                time.sleep(0.001)
    assert answer.startswith(b"HTTP/1.1 408 ")


def test_an_answer_that_nobody_takes_has_a_deadline(out: Path, served: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(server, "ANSWER_SECONDS", 0.05)
    (out / "report.html").write_bytes(PAGE + bytes(16 << 20))
    with socket.create_connection(served.address, timeout=10) as client:
        client.sendall(f"GET / HTTP/1.1\r\nHost: localhost:{served.port}\r\n\r\n".encode())
        while not served._clients:
            time.sleep(0.001)
        while served._clients:
            time.sleep(0.001)
        assert len(client.makefile("rb").read()) < 16 << 20


@pytest.mark.slow
def test_ten_thousand_requests_leave_nothing_behind(served: Server) -> None:
    for _ in range(1000):
        ask(served, "/")
    threads, memory = threading.active_count(), memory_bytes()
    for _ in range(10_000):
        assert ask(served, "/")[0] == 200
    print(f"{(memory_bytes() - memory) / 1e6:.1f} MB more")
    assert memory_bytes() - memory < 20e6
    assert threading.active_count() == threads
    assert len(served._clients) <= 1  # the last may not have been seen to go
