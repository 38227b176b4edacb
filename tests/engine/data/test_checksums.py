"""The memory of checksums: of which files it is believed, and what becomes of it where it is damaged."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data import checksums
from engine.data.checksums import NAME, checksum, forget, parse, remembered
from engine.data.declaration import File
from engine.data.download import obtain
from engine.data.locate import seen_checksums
from engine.errors import UserError
from engine.files import digest, json_digest
from tests.engine.data.archived import dataset, file_of
from tests.engine.data.test_unpack import tar
from tests.server import Server


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the files that are read for their digest."""
    names: list[str] = []

    def noted(path: Path, algorithm: str) -> str:
        names.append(path.name)
        return digest(path, algorithm)

    monkeypatch.setattr(checksums, "digest", noted)
    return names


def replaced(path: Path, content: bytes) -> None:
    """Another file of the same size and time of change."""
    times = path.stat()
    other = path.with_name("other")
    other.write_bytes(content)
    os.utime(other, ns=(times.st_atime_ns, times.st_mtime_ns))
    other.replace(path)


def rewritten(path: Path, content: bytes) -> None:
    """The same file with other content and the old time of change."""
    times = path.stat()
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))


@pytest.mark.parametrize("change", [replaced, rewritten])
def test_another_file_of_the_same_size_and_time_is_another_file(tmp_path: Path, change: Any) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"1")
    assert checksum(path, "sha256", "a") == sha256(b"1")
    change(path, b"2")
    assert checksum(path, "sha256", "a") == sha256(b"2")


def test_a_file_is_read_once_and_a_copy_again(tmp_path: Path, read: list[str]) -> None:
    (tmp_path / "own").mkdir()
    (tmp_path / "own" / "a").write_bytes(b"1")
    for _ in range(2):
        assert checksum(tmp_path / "own" / "a", "sha256", "a") == sha256(b"1")
    assert read == ["a"]
    shutil.copytree(tmp_path / "own", tmp_path / "copy", copy_function=shutil.copy2)
    assert checksum(tmp_path / "copy" / "a", "sha256", "a") == sha256(b"1")
    assert read == ["a", "a"]
    forget(tmp_path / "own", "a")
    assert remembered(tmp_path / "own") == {}


def test_what_was_downloaded_is_not_read_again(server: Server, tmp_path: Path, read: list[str]) -> None:
    """Its renaming is no change of it."""
    toy = dataset(file_of("toy.h5", b"123", server.add("/toy", b"123")), folder="")
    for _ in range(2):
        obtain(toy, tmp_path)
    assert len(read) == 1


def test_no_memory_stands_for_an_archive_that_is_extracted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is what was remembered told as what was found."""
    body, other = tar(("toy/a", b"1")), tar(("toy/a", b"2"))
    path = tmp_path / "toy.tar"
    path.write_bytes(other)
    forged = {**checksums._identity(path), "checksum": f"sha256:{sha256(body)}"}
    checksums._keep(tmp_path, {"toy.tar": forged})
    assert checksum(path, "sha256", "toy.tar") == sha256(body)
    with pytest.raises(UserError, match=f"another file .*sha256:{sha256(other)}"):
        obtain(dataset(file_of("toy.tar", body)), tmp_path)
    assert not (tmp_path / "toy").exists()
    checksums._keep(tmp_path, {"toy.tar": forged})
    unsigned = dataset(File("toy.tar", (), None))
    assert obtain(unsigned, tmp_path) == tmp_path / "toy"
    assert seen_checksums(unsigned, tmp_path) == {"toy.tar": f"sha256:{sha256(other)}"}


def test_the_record_claims_nothing_that_was_refused(tmp_path: Path) -> None:
    toy = dataset(File("toy.tar", (), "sha256:00ff"))
    checksums._keep(tmp_path, {"toy.tar": {"checksum": f"sha256:{sha256(b'1')}"}})
    assert seen_checksums(toy, tmp_path) == {}
    assert seen_checksums(replace(toy, files=(File("toy.tar", (), None),)), tmp_path) != {}


def test_what_an_earlier_version_wrote_is_still_known(tmp_path: Path, read: list[str]) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"1")
    status = path.stat()
    old = {"bytes": 1, "mtime_ns": status.st_mtime_ns, "checksum": f"md5:{'0' * 32}"}
    (tmp_path / NAME).write_text(json.dumps({"a": old}))
    assert remembered(tmp_path) == {"a": f"md5:{'0' * 32}"}
    assert checksum(path, "md5", "a") == hashlib.md5(b"1").hexdigest()


def damages(path: Path) -> dict[str, Any]:
    whole = json.loads(path.read_text())
    edited = json.loads(path.read_text())
    edited["files"]["a"]["checksum"] = f"sha256:{sha256(b'2')}"
    return {
        "edited": json.dumps(edited),
        "of a later version": json.dumps({**whole, "format": 3}),
        "cut": path.read_text()[:-20],
        "nested": "[" * 100_000,
        "null": json.dumps({**whole, "files": None}),
        "a list": "[1]",
        "no UTF-8": r'{"\ud800": {"checksum": "md5:%s"}}' % ("0" * 32),
        "empty": "",
        "large": " " * (17 << 20),
    }


@pytest.mark.parametrize(
    "kind",
    ["edited", "of a later version", "cut", "nested", "null", "a list", "no UTF-8", "empty", "large", "pipe", "folder"],
)
def test_a_damaged_memory_is_none(tmp_path: Path, kind: str) -> None:
    (tmp_path / "a").write_bytes(b"1")
    checksum(tmp_path / "a", "sha256", "a")
    path = tmp_path / NAME
    if kind == "pipe":
        path.unlink()
        os.mkfifo(path)
    elif kind == "folder":
        path.unlink()
        path.mkdir()
    else:
        path.write_text(damages(path)[kind])
    assert "a" not in remembered(tmp_path)
    assert checksum(tmp_path / "a", "sha256", "a") == sha256(b"1")
    assert kind in ("folder", "no UTF-8") or remembered(tmp_path) == {"a": f"sha256:{sha256(b'1')}"}


def test_a_file_that_is_written_to_meanwhile_is_not_remembered(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def meanwhile(path: Path, _: str) -> str:
        path.write_bytes(b"other")
        return sha256(b"1")

    monkeypatch.setattr(checksums, "digest", meanwhile)
    (tmp_path / "a").write_bytes(b"1")
    checksum(tmp_path / "a", "sha256", "a")
    assert remembered(tmp_path) == {}


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text() | st.sampled_from(["checksum"]), inner),
    max_leaves=8,
)


@settings(max_examples=60, deadline=None)
@given(files=JSON, form=st.sampled_from([None, 1, 2, "2"]), signed=st.booleans())
def test_any_content_is_a_memory_or_none(files: Any, form: Any, signed: bool) -> None:
    content = {"format": form, "files": files} if form else files
    if signed and isinstance(content, dict) and isinstance(files, dict):
        with suppress(ValueError):  # infinity
            content["sha256"] = json_digest(files)
    for entry in parse(content).values():
        assert checksums.CHECKSUM.fullmatch(entry["checksum"])


def test_an_archive_is_verified_before_it_is_extracted(tmp_path: Path, read: list[str]) -> None:
    body = tar(("toy/a", b"1"))
    (tmp_path / "toy.tar").write_bytes(body)
    toy = dataset(file_of("toy.tar", body))
    for _ in range(2):
        obtain(toy, tmp_path)
        shutil.rmtree(tmp_path / "toy")
    assert read == ["toy.tar"] * 2
