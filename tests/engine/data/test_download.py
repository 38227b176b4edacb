"""Downloads from a server on this machine that behaves, and misbehaves, as the real ones do."""

import errno
import hashlib
import io
import json
import os
import socket
import stat
import subprocess
import sys
import tarfile
import tempfile
import threading
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import filelock
import pytest
import requests

from engine.data import archives, download
from engine.data.declaration import File
from engine.data.download import fetch, obtain
from engine.errors import RunError, UserError
from engine.paths import PROJECT
from tests.engine.data.archived import dataset, file_of
from tests.engine.data.pictures import until
from tests.server import Server

CONTENT = {"toy/a.txt": b"a" * 50_000, "toy/deep/b.txt": b"b"}


def tar(content: dict[str, bytes | tarfile.TarInfo], mode: str = "w:gz") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for name, value in content.items():
            member = value if isinstance(value, tarfile.TarInfo) else tarfile.TarInfo(name)
            member.name = name
            if isinstance(value, bytes):
                member.size = len(value)
                archive.addfile(member, io.BytesIO(value))
            else:
                archive.addfile(member)
    return buffer.getvalue()


def zipped(content: dict[str, bytes], mode: int = stat.S_IFREG | 0o644) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, value in content.items():
            member = zipfile.ZipInfo(name)
            member.external_attr = mode << 16
            archive.writestr(member, value)
    return buffer.getvalue()


TAR = tar({**CONTENT})


def visible(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.name != ".checksums.json")


def content(folder: Path) -> dict[str, bytes]:
    return {
        f"{folder.name}/{path.relative_to(folder).as_posix()}": path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def refusal(call: Callable[[], object]) -> str:
    with pytest.raises(UserError) as caught:
        call()
    return str(caught.value)


@pytest.mark.parametrize("algorithm", ["md5", "sha256"])
@pytest.mark.parametrize(
    ("name", "body"),
    [
        ("toy.tar.gz", TAR),
        ("toy.tgz", TAR),
        ("toy.tar", tar({**CONTENT}, "w")),
        ("toy.tar.xz", tar({**CONTENT}, "w:xz")),
        ("toy.tar.bz2", tar({**CONTENT}, "w:bz2")),
        ("toy.ZIP", zipped(CONTENT)),
    ],
)
def test_fresh_download(server: Server, tmp_path: Path, name: str, body: bytes, algorithm: str) -> None:
    toy = dataset(file_of(name, body, server.add("/toy", body), algorithm=algorithm))
    data_dir = tmp_path / "data" / "toys"
    data_dir.mkdir(parents=True)
    assert obtain(toy, data_dir) == data_dir / "toy"
    assert content(data_dir / "toy") == CONTENT
    assert visible(data_dir) == sorted(["toy", name])
    assert obtain(toy, data_dir) == data_dir / "toy"
    assert server.seen == ["/toy"]


def test_extracted_already(tmp_path: Path) -> None:
    (tmp_path / "toy").mkdir()
    toy = dataset(file_of("toy.tar.gz", TAR))
    assert obtain(toy, tmp_path) == tmp_path / "toy"
    (tmp_path / "toy" / "a.txt").touch()
    assert obtain(toy, tmp_path / "toy") == tmp_path / "toy"
    (tmp_path / "link").symlink_to(tmp_path / "toy")
    assert obtain(toy, tmp_path / "link") == tmp_path / "link"
    assert visible(tmp_path) == ["link", "toy"]
    assert not (tmp_path / ".download.lock").exists()


def test_the_folder_of_the_archive_may_have_the_name_of_the_extracted_one(server: Server, tmp_path: Path) -> None:
    toy = dataset(file_of("toy.tar.gz", TAR, server.add("/toy", TAR)))
    data_dir = tmp_path / "toy"
    data_dir.mkdir()
    assert obtain(toy, data_dir) == data_dir / "toy"
    for path in [*(data_dir / "toy").rglob("*.txt")]:
        path.unlink()
    (data_dir / "toy").rename(tmp_path / "elsewhere")
    assert obtain(toy, data_dir) == data_dir / "toy"
    assert content(data_dir / "toy") == CONTENT
    assert server.seen == ["/toy"]


def test_archive_is_there_but_not_extracted(tmp_path: Path) -> None:
    (tmp_path / "toy.tar.gz").write_bytes(TAR)
    assert obtain(dataset(file_of("toy.tar.gz", TAR)), tmp_path) == tmp_path / "toy"
    assert content(tmp_path / "toy") == CONTENT


def test_nothing_to_download_and_no_folder(tmp_path: Path) -> None:
    assert obtain(dataset(folder=""), tmp_path / "absent") == tmp_path / "absent"
    assert visible(tmp_path) == []


def test_to_be_got_by_hand(tmp_path: Path) -> None:
    message = refusal(lambda: obtain(dataset(), tmp_path / "data"))
    for part in ["Toy", "https://toy.example", "none stated", str(tmp_path / "data" / "toy"), "--data-dir"]:
        assert part in message
    here, absent = file_of("here.zip", b"1"), file_of("absent.zip", b"12")
    (tmp_path / "here.zip").write_bytes(b"1")
    message = refusal(lambda: obtain(dataset(here, absent), tmp_path))
    for part in ["absent.zip", "2 bytes", absent.checksum or "", str(tmp_path), "https://toy.example"]:
        assert part in message
    assert "here.zip" not in message
    assert visible(tmp_path) == ["here.zip"]


@pytest.mark.parametrize(
    ("placed", "words"), [(TAR[:-9], "truncated"), (TAR[:-1] + b"!", "another file"), (TAR + b"!", "another file")]
)
def test_wrong_file_put_there(server: Server, tmp_path: Path, placed: bytes, words: str) -> None:
    toy = dataset(file_of("toy.tar.gz", TAR, server.add("/toy", TAR)))
    path = tmp_path / "toy.tar.gz"
    path.write_bytes(placed)
    message = refusal(lambda: obtain(toy, tmp_path))
    for part in [f"{path} is {words}", f"{len(placed):,} bytes", hashlib.sha256(placed).hexdigest(), "delete it"]:
        assert part in message
    for part in [f"{len(TAR):,} bytes", hashlib.sha256(TAR).hexdigest()]:
        assert part in message
    assert path.read_bytes() == placed
    assert server.seen == []
    path.unlink()
    assert obtain(toy, tmp_path) == tmp_path / "toy"


def test_wrong_file_is_found_before_the_others_are_downloaded(server: Server, tmp_path: Path) -> None:
    first = file_of("first.tar.gz", TAR, server.add("/first", TAR))
    (tmp_path / "second.tar.gz").write_bytes(b"short")
    refusal(lambda: obtain(dataset(first, file_of("second.tar.gz", TAR)), tmp_path))
    assert server.seen == []


def test_mirrors_are_tried_in_order(server: Server, tmp_path: Path) -> None:
    urls = [
        server.add("/403", b"", 403),
        server.add("/html", b"<html>log in</html>"),
        server.add("/other", TAR[:-1] + b"!"),
        server.add("/good", TAR),
        server.add("/never", TAR),
    ]
    assert obtain(dataset(file_of("toy.tar.gz", TAR, *urls)), tmp_path) == tmp_path / "toy"
    assert server.seen == ["/403", "/html", "/other", "/good"]
    assert visible(tmp_path) == ["toy", "toy.tar.gz"]


def closed_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def test_every_mirror_fails(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    look_up = socket.getaddrinfo

    def no_network(host: str, *arguments: Any, **named: Any) -> Any:
        if host.endswith(".example"):
            raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        return look_up(host, *arguments, **named)

    monkeypatch.setattr(socket, "getaddrinfo", no_network)
    monkeypatch.setattr(download, "SILENCE_SECONDS", 0.3)
    half = len(TAR) // 2
    reasons = {
        server.add("/403", b"", 403): "HTTP 403 Forbidden",
        server.add("/404", b"", 404): "HTTP 404 Not Found",
        server.add("/500", b"", 500): "HTTP 500 Internal Server Error",
        server.add("/cut", TAR, "cut"): f"connection cut after {half:,} bytes",
        server.add("/stall", TAR, "stall"): "silent for 0.3 s",
        server.add("/short", TAR[:half], "unsized"): f"truncated ({half:,} bytes, sha256:",
        server.add("/other", TAR + b"!"): f"another file ({len(TAR) + 1:,} bytes, sha256:",
        server.add("/senseless", TAR, "senseless"): "",
        f"http://127.0.0.1:{closed_port()}/": "connection refused",
        f"https://127.0.0.1:{server.server_port}/": "TLS error: ",
        "http://toys.example/toy.tar.gz": "host name not found",
        "nonsense": "Invalid URL",
    }
    toy = file_of("toy.tar.gz", TAR, *reasons)
    lines = refusal(lambda: obtain(dataset(toy), tmp_path)).split("\n")
    for url, reason in reasons.items():
        found = lines[lines.index(f"  {url}") + 1].strip()
        assert found.startswith(reason), found
        assert 0 < len(found) < 250, found
    for part in ["by hand", "toy.tar.gz", f"{len(TAR):,} bytes", toy.checksum or "", str(tmp_path), "toy.example"]:
        assert part in lines[-1]
    assert visible(tmp_path) == []


def test_reasons_that_a_local_server_cannot_give(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def failing(error: Exception) -> str:
        def get(*_: Any, **__: Any) -> None:
            raise error

        monkeypatch.setattr(requests, "get", get)
        return refusal(lambda: obtain(dataset(file_of("toy.zip", b"", "http://toy.example")), tmp_path))

    assert "no connection in 15 s" in failing(requests.ConnectTimeout())
    assert "the proxy cannot be used" in failing(requests.exceptions.ProxyError("novel"))
    assert "invalid path: nowhere.pem" in failing(OSError("TLS CA bundle, invalid path: nowhere.pem"))


def test_certificates_are_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked: dict[str, Any] = {}

    def get(*_: Any, **named: Any) -> None:
        asked.update(named)
        raise requests.ConnectionError

    monkeypatch.setattr(requests, "get", get)
    refusal(lambda: obtain(dataset(file_of("toy.zip", b"", "https://toy.example")), tmp_path))
    assert asked.get("verify", True) is True
    connect, silence = asked["timeout"]
    assert 5 <= connect <= 30
    assert 5 <= silence <= 60


def test_archive_that_the_server_labels_as_compressed_arrives_as_it_is(server: Server, tmp_path: Path) -> None:
    toy = dataset(file_of("toy.tar.gz", TAR, server.add("/toy", TAR, "labelled")))
    assert obtain(toy, tmp_path) == tmp_path / "toy"


def test_progress_bar_on_a_terminal_only(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    toy = dataset(file_of("toy.tar.gz", TAR, server.add("/toy", TAR)))
    for name in ("plain", "terminal"):
        (tmp_path / name).mkdir()
    obtain(toy, tmp_path / "plain")
    assert "%|" not in capsys.readouterr().err
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    obtain(toy, tmp_path / "terminal")
    assert "100%|" in capsys.readouterr().err


def test_what_killed_processes_left_is_removed(server: Server, tmp_path: Path) -> None:
    for leftover in [".toy.1.partial/toy/a.txt", ".toy.99999999.partial/x"]:
        (tmp_path / leftover).parent.mkdir(parents=True)
        (tmp_path / leftover).write_text("half")
    for name in [".toy.tar.gz.99999999.tmp", ".other.tar.gz.1.tmp", ".toybox.1.partial"]:
        (tmp_path / name).write_text("half")
    toy = dataset(file_of("toy.tar.gz", TAR, server.add("/toy", TAR)))
    assert content(obtain(toy, tmp_path)) == CONTENT
    assert visible(tmp_path) == [".other.tar.gz.1.tmp", ".toybox.1.partial", "toy", "toy.tar.gz"]


def test_interrupted_extraction_never_looks_complete(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(_: Path, target: Path, *__: Any) -> None:
        (target / "toy").mkdir()
        raise KeyboardInterrupt

    (tmp_path / "toy.tar.gz").write_bytes(TAR)
    toy = dataset(file_of("toy.tar.gz", TAR))
    with monkeypatch.context() as patch:
        patch.setattr(archives, "unpack", interrupted)
        with pytest.raises(KeyboardInterrupt):
            obtain(toy, tmp_path)
    assert visible(tmp_path) == ["toy.tar.gz"]
    assert content(obtain(toy, tmp_path)) == CONTENT


def test_other_entries_come_along_but_overwrite_nothing(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("mine")
    body = tar({**CONTENT, "readme.txt": b"theirs", "lists/train.txt": b"1"})
    (tmp_path / "toy.tar.gz").write_bytes(body)
    obtain(dataset(file_of("toy.tar.gz", body)), tmp_path)
    assert visible(tmp_path) == ["lists", "readme.txt", "toy", "toy.tar.gz"]
    assert (tmp_path / "readme.txt").read_text() == "mine"
    assert (tmp_path / "lists" / "train.txt").read_text() == "1"


def test_several_archives(server: Server, tmp_path: Path) -> None:
    lists = zipped({"train.txt": b"1"})
    toy = dataset(
        file_of("toy.tar.gz", TAR, server.add("/toy", TAR)), file_of("lists.zip", lists, server.add("/lists", lists))
    )
    obtain(toy, tmp_path)
    assert visible(tmp_path) == ["lists.zip", "toy", "toy.tar.gz", "train.txt"]


@pytest.mark.parametrize("links", [True, False])
def test_plain_files_beside_an_archive(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool
) -> None:
    def without_links(*_: Any) -> None:
        raise OSError(errno.EPERM, "no hard links here")

    if not links:
        monkeypatch.setattr(Path, "hardlink_to", without_links)
    body = tar({"jpg/1.jpg": b"1"})
    toy = dataset(
        file_of("jpg.tgz", body, server.add("/jpg", body)), file_of("labels.mat", b"1 2", server.add("/mat", b"1 2"))
    )
    assert content(obtain(toy, tmp_path)) == {"toy/jpg/1.jpg": b"1", "toy/labels.mat": b"1 2"}
    assert visible(tmp_path) == ["jpg.tgz", "labels.mat", "toy"]


def test_plain_file_that_is_the_dataset(server: Server, tmp_path: Path) -> None:
    toy = dataset(file_of("toy.h5", b"123", server.add("/toy", b"123")), folder="")
    assert obtain(toy, tmp_path) == tmp_path
    assert obtain(toy, tmp_path) == tmp_path
    assert server.seen == ["/toy"]
    (tmp_path / "toy.h5").write_bytes(b"12")
    assert "truncated" in refusal(lambda: obtain(toy, tmp_path))


def test_archive_without_the_folder(tmp_path: Path) -> None:
    for body, found in [
        (tar({"other/a": b"1", "more": b"2"}), "more, other"),
        (tar({}), "nothing"),
        (tar({f"{index:02}": b"" for index in range(12)}), "09 and 2 more"),
        (tar({"toy": b"a file"}), "found toy"),
    ]:
        (tmp_path / "toy.tar.gz").write_bytes(body)
        message = refusal(lambda body=body: obtain(dataset(file_of("toy.tar.gz", body)), tmp_path))  # type: ignore[misc]
        assert found in message
        assert visible(tmp_path) == ["toy.tar.gz"]


@pytest.mark.parametrize("name", ["toy.tar.gz", "toy.tar.bz2", "toy.tar.xz", "toy.tar", "toy.zip"])
def test_published_damaged(tmp_path: Path, name: str) -> None:
    noise = {"toy/a.txt": hashlib.shake_128(b"").digest(200_000)}
    whole = zipped(noise) if name == "toy.zip" else tar({**noise}, "w:" + name.removeprefix("toy.tar").strip("."))
    middle = len(whole) // 2
    damaged = [b"", b"<html></html>", whole[:middle]]
    if name == "toy.zip":  # only this format has a checksum of each file
        damaged.append(whole[:middle] + bytes(100) + whole[middle + 100 :])
    for body in damaged:
        (tmp_path / name).write_bytes(body)
        message = refusal(lambda body=body: obtain(dataset(file_of(name, body)), tmp_path))  # type: ignore[misc]
        assert f"{tmp_path / name} cannot be extracted" in message
        assert visible(tmp_path) == [name]


def member(kind: bytes, target: str = "") -> tarfile.TarInfo:
    info = tarfile.TarInfo()
    info.type, info.linkname = kind, target
    return info


@pytest.mark.parametrize(
    "evil",
    [
        {"../evil": b"1"},
        {"toy/../../evil": b"1"},
        {"toy/link": member(tarfile.SYMTYPE, "../../evil")},
        {"toy/link": member(tarfile.SYMTYPE, "/etc")},
        {"toy/link": member(tarfile.SYMTYPE, "../.."), "toy/link/evil": b"1"},
        {"toy/link": member(tarfile.LNKTYPE, "../../secret")},
        {"toy/device": member(tarfile.CHRTYPE)},
        {"toy/pipe": member(tarfile.FIFOTYPE)},
    ],
)
def test_evil_tar(tmp_path: Path, evil: dict[str, bytes | tarfile.TarInfo]) -> None:
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    (tmp_path / "secret").write_text("mine")
    body = tar({**CONTENT, **evil})
    (data_dir / "toy.tar.gz").write_bytes(body)
    assert "not safe to extract" in refusal(lambda: obtain(dataset(file_of("toy.tar.gz", body)), data_dir))
    assert visible(data_dir) == ["toy.tar.gz"]
    assert visible(tmp_path) == ["data", "secret"]


def test_absolute_names_in_a_tar_stay_inside(tmp_path: Path) -> None:
    evil = tmp_path / "evil"
    body = tar({**CONTENT, str(evil): b"1"})
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    (data_dir / "toy.tar.gz").write_bytes(body)
    obtain(dataset(file_of("toy.tar.gz", body)), data_dir)
    assert not evil.exists()
    assert visible(tmp_path) == ["data"]


@pytest.mark.parametrize("name", ["../evil", "/tmp/evil", "toy/../../evil", "..\\evil", "C:\\evil", "C:evil", "\\evil"])
def test_evil_zip(tmp_path: Path, name: str) -> None:
    body = zipped({**CONTENT, name: b"1"})
    (tmp_path / "toy.zip").write_bytes(body)
    assert "not safe to extract" in refusal(lambda: obtain(dataset(file_of("toy.zip", body)), tmp_path))
    assert visible(tmp_path) == ["toy.zip"]


def test_links_in_a_zip(tmp_path: Path) -> None:
    body = zipped({"toy/link": b"/etc/passwd"}, stat.S_IFLNK | 0o777)
    (tmp_path / "toy.zip").write_bytes(body)
    assert "not safe to extract" in refusal(lambda: obtain(dataset(file_of("toy.zip", body)), tmp_path))


def test_encrypted_zip(tmp_path: Path) -> None:
    body = bytearray(zipped({"toy/a": b"1"}))
    for header, flags in [(b"PK\x03\x04", 6), (b"PK\x01\x02", 8)]:
        body[body.index(header) + flags] |= 1
    (tmp_path / "toy.zip").write_bytes(body)
    assert "encrypted" in refusal(lambda: obtain(dataset(file_of("toy.zip", bytes(body))), tmp_path))


PROGRAM = """
import json, sys
from pathlib import Path
from engine.data.declaration import File
from engine.data.download import obtain
from tests.engine.data.archived import dataset
name, urls, checksum, size, folder = json.loads(sys.argv[1])
print(obtain(dataset(File(name, tuple(urls), checksum, size)), Path(folder)))
"""


def start(toy: File, data_dir: Path) -> subprocess.Popen[str]:
    arguments = json.dumps([toy.name, toy.urls, toy.checksum, toy.bytes, str(data_dir)])
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, arguments],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def test_two_processes_at_once(server: Server, tmp_path: Path) -> None:
    toy = file_of("toy.tar.gz", TAR, server.add("/toy", TAR, "stall"))
    with start(toy, tmp_path) as first:
        until(lambda: server.seen)
        with start(toy, tmp_path) as second:
            assert second.stderr is not None
            assert "waiting" in second.stderr.readline()
            server.go_on.set()
            for process in (first, second):
                assert process.communicate(timeout=15)[0].strip() == str(tmp_path / "toy")
    assert server.seen == ["/toy"]
    assert content(tmp_path / "toy") == CONTENT
    assert visible(tmp_path) == ["toy", "toy.tar.gz"]


def test_killed_while_downloading(server: Server, tmp_path: Path) -> None:
    large = {"toy/a": hashlib.shake_128(b"").digest(500_000)}
    toy = file_of("toy.tar.gz", tar({**large}), server.add("/toy", tar({**large}), "stall"))
    with start(toy, tmp_path) as process:
        until(lambda: any(path.stat().st_size for path in tmp_path.glob(".toy.tar.gz.*.tmp")))
        process.kill()
    assert visible(tmp_path) == [".download.lock", f".toy.tar.gz.{process.pid}.tmp"]
    server.go_on.set()
    assert content(obtain(dataset(toy), tmp_path)) == large
    assert visible(tmp_path) == ["toy", "toy.tar.gz"]


@contextmanager
def read_only_folder() -> Iterator[Path]:
    """A folder that this process may not write to, not even where it runs as root."""
    root = os.geteuid() == 0
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name) / "data"
        folder.mkdir()
        (folder / "toy.tar.gz").write_bytes(TAR)
        (folder / "done" / "toy").mkdir(parents=True)
        folder.parent.chmod(0o755)
        folder.chmod(0o555)
        (folder / "done").chmod(0o555)
        if root:
            os.seteuid(65534)
        try:
            yield folder
        finally:
            if root:
                os.seteuid(0)
            for writable in (folder, folder / "done"):
                writable.chmod(0o755)


def test_folder_that_cannot_be_written() -> None:
    toy = dataset(file_of("toy.tar.gz", TAR))
    with read_only_folder() as folder:
        assert obtain(toy, folder / "done") == folder / "done" / "toy"
        assert fetch(toy.files[0], folder) == folder / "toy.tar.gz"
        message = refusal(lambda: obtain(toy, folder))
        absent = file_of("other.zip", b"1", "http://toy.example")
        other = refusal(lambda: fetch(absent, folder / "deeper"))
    for text, remedy in ((message, "choose another folder with --data-dir"), (other, "put the file there by hand")):
        assert "permission denied" in text
        assert remedy in text
        assert str(folder) in text


def test_a_file_where_the_folder_should_be(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    toy = dataset(file_of("toy.zip", b"1", "http://toy.example"))
    assert "--data-dir" in refusal(lambda: obtain(toy, tmp_path / "data"))
    assert "--data-dir" in refusal(lambda: obtain(toy, tmp_path / "data" / "deeper"))


def test_disk_full(server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device", str(path))

    monkeypatch.setattr(download, "atomic", full)
    with pytest.raises(RunError, match=r"toy\.tar\.gz: no space left on device"):
        obtain(dataset(file_of("toy.tar.gz", TAR, server.add("/toy", TAR))), tmp_path)


def test_fetch_one_file(server: Server, tmp_path: Path) -> None:
    url = server.add("/weights", b"1234")
    whole = file_of("weights.pth", b"1234", url)
    assert whole.checksum is not None
    for folder, checksum, size in [("a", whole.checksum, 4), ("b", whole.checksum[:15], None), ("c", None, None)]:
        for _ in range(2):
            path = fetch(File("weights.pth", (url,), checksum, size), tmp_path / folder)
            assert path.read_bytes() == b"1234"
        assert visible(tmp_path / folder) == ["weights.pth"]
    assert server.seen == ["/weights"] * 3
    wrong = File("weights.pth", (url,), "sha256:00000000", None)
    assert "another file" in refusal(lambda: fetch(wrong, tmp_path / "a"))
    assert "another file" in refusal(lambda: fetch(wrong, tmp_path / "d"))
    assert visible(tmp_path / "d") == []


def test_fetch_waits_for_another_process(server: Server, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toy = file_of("toy", b"1", server.add("/toy", b"1"))
    held = threading.Event()

    def other() -> None:
        with filelock.FileLock(tmp_path / ".download.lock"):
            held.set()
            until(lambda: "waiting" in capsys.readouterr().err)
            (tmp_path / "toy").write_bytes(b"1")

    thread = threading.Thread(target=other)
    thread.start()
    held.wait()
    assert fetch(toy, tmp_path) == tmp_path / "toy"
    thread.join()
    assert server.seen == []


@pytest.mark.parametrize(
    ("url", "location", "refused"),
    [
        ("https://a.example/x.gz", "http://b.example/x.gz", True),
        ("https://a.example/x.gz", "HTTP://b.example/x.gz", True),
        ("https://a.example/x.gz", "ftp://b.example/x.gz", True),
        ("https://a.example/x.gz", "https://b.example/x.gz", False),
        ("https://a.example/x.gz", "/elsewhere/x.gz", False),
        ("https://a.example/x.gz", None, False),
    ],
)
def test_no_way_from_tls_to_plain_http_without_a_checksum(url: str, location: str | None, refused: bool) -> None:
    response = requests.Response()
    response.url, response.status_code = url, 200 if location is None else 302
    response.headers.update({} if location is None else {"Location": location})
    if refused:
        with pytest.raises(ValueError, match="without TLS"):
            download.refuse_plain(response)
    else:
        download.refuse_plain(response)
