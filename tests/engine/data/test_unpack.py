"""Archives as no honest program packs them, and as some do: what is refused, in one sentence, and what comes of it."""

from __future__ import annotations

import gzip
import io
import os
import random
import shutil
import stat
import struct
import tarfile
import zipfile
from collections import namedtuple
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.data import unpack as module
from engine.data.archives import LEAST_BYTES, MOST_RATIO
from engine.data.declaration import File
from engine.data.download import obtain
from engine.data.unpack import DAMAGE, Limits, RefusedError, unpack
from engine.errors import RunError, UserError
from tests.engine.data.archived import dataset

LIMITS = Limits(entries=50, bytes=1 << 20)
Member = tuple[str, bytes]  # its name and content


def entry(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", size: int = 0, **pax: str) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.size, info.pax_headers = kind, link, size, pax
    return info


def tar(*members: Member | tarfile.TarInfo, end: bool = True) -> bytes:
    blocks = []
    for member in members:
        if isinstance(member, tarfile.TarInfo):
            blocks.append(
                member.tobuf(tarfile.PAX_FORMAT if member.pax_headers else tarfile.GNU_FORMAT, "utf-8", "strict")
            )
        else:
            name, content = member
            blocks.append(entry(name, size=len(content)).tobuf(tarfile.GNU_FORMAT, "utf-8", "surrogateescape"))
            blocks.append(content + bytes(-len(content) % 512))
    return b"".join(blocks) + bytes(1024 if end else 0)


def zipped(*members: Member | tuple[zipfile.ZipInfo, bytes], method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in members:
            archive.writestr(name, content)
    return buffer.getvalue()


LOCAL, LISTED = b"PK\3\4", b"PK\1\2"


def patched(body: bytes, *changes: tuple[bytes, int, bytes]) -> bytes:
    """The bytes with others at an offset from the first place of a mark."""
    changed = bytearray(body)
    for mark, offset, content in changes:
        place = changed.index(mark) + offset
        changed[place : place + len(content)] = content
    return bytes(changed)


def overlapping() -> bytes:
    """A member within another one, as in https://www.bamsoftware.com/hacks/zipbomb/."""
    inner = zipped(("b", b"1" * 1000))
    local, listed = inner[: inner.index(LISTED)], inner[inner.index(LISTED) : inner.index(b"PK\5\6")]
    outer = zipped(("a", local), method=zipfile.ZIP_STORED)
    end = outer.index(b"PK\5\6")
    both = outer[:end] + patched(listed, (LISTED, 42, struct.pack("<I", 31))) + outer[end:]
    return patched(both, (b"PK\5\6", 8, struct.pack("<HHI", 2, 2, end - outer.index(LISTED) + len(listed))))


LONG = "/".join(["d" * 200] * 6)
EVIL = {
    "a symbolic link": tar(entry("toy/link", tarfile.SYMTYPE, "a")),
    "a link in a link": tar(entry("toy/" + "d" * 247, tarfile.SYMTYPE, "d"), entry("toy/l", tarfile.SYMTYPE, "../..")),
    "a hard link out of it": tar(entry("toy/link", tarfile.LNKTYPE, "../secret")),
    "a hard link to nothing": tar(entry("toy/link", tarfile.LNKTYPE, "toy/later"), ("toy/later", b"1")),
    "a hard link to itself": tar(entry("toy/link", tarfile.LNKTYPE, "toy/link")),
    "a hard link to a folder": tar(entry("toy", tarfile.DIRTYPE), entry("toy/link", tarfile.LNKTYPE, "toy")),
    "a device": tar(entry("toy/device", tarfile.BLKTYPE)),
    "a pipe": tar(entry("toy/pipe", tarfile.FIFOTYPE)),
    "an unknown kind": tar(entry("toy/what", b"Z")),
    "a sparse file": tar(entry("toy/hole", tarfile.GNUTYPE_SPARSE)),
    "a way out": tar(("toy/../../evil", b"1")),
    "a drive": tar(("C:evil", b"1")),
    "a zero in a name": tar(entry("toy/a", path="toy/a\0b")),
    "a name too long": tar(("toy/" + "n" * 256, b"1")),
    "a path too long": tar((LONG, b"1")),
    "a path too deep": tar(("d/" * 41 + "a", b"1")),
    "no name": tar(("./", b"1")),
    "a file twice": tar(("toy/a", b"1"), ("toy/./a", b"2")),
    "a file for a folder": tar(("toy/a/b", b"1"), ("toy/a", b"2")),
    "a folder for a file": tar(("toy/a", b"1"), ("toy/a/b", b"2")),
    "a link for a file": tar(("toy/a", b"1"), ("toy/b", b"2"), entry("toy/b", tarfile.LNKTYPE, "toy/a")),
    "a size below zero": tar(entry("toy/a", size=-1)),
    "a header of its own size below zero": tar(entry("././@LongLink", tarfile.GNUTYPE_LONGNAME, size=-512)),
    "a name of a gigabyte": tar(entry("././@LongLink", tarfile.GNUTYPE_LONGNAME, size=1 << 30)),
    "headers without end": tar(*[entry("x", tarfile.XHDTYPE)] * 3000),
    "a gigabyte": tar(entry("toy/a", size=1 << 30)),
    "too many entries": tar(*[(f"toy/{number}", b"") for number in range(51)]),
    "too many bytes": tar(*[(f"toy/{number}", bytes(1 << 18)) for number in range(5)]),
    "a sum beyond 64 bits": tar(entry("toy/a", size=1 << 70)),
    "a cut member": tar(("toy/a", b"1" * 2000))[:1000],
    "a cut end": tar(("toy/a", b"1"), end=False),
    "garbage for a header": tar(("toy/a", b"1"), end=False) + b"x" * 512 + tar(),
    "a cut .gz": gzip.compress(tar(("toy/a", random.Random(0).randbytes(9000))))[:-9],
    "a .gz with another checksum": patched(gzip.compress(tar(("a", b"1"))) + b"END", (b"END", -8, b"12345678")),
    "a .gz that goes on": gzip.compress(tar(("toy/a", b"1")) + bytes(70 << 20)),
    "7-Zip": b"7z\xbc\xaf\x27\x1c" + bytes(600),
    "nothing": b"",
    "zip: a way out": zipped(("../evil", b"1")),
    "zip: an absolute path": zipped(("/tmp/evil", b"1")),
    "zip: no name": patched(zipped(("a", b"1")), (LOCAL, 26, b"\0\0\1"), (LISTED, 28, b"\0\0\1")),
    "zip: a name of a folder alone": zipped((".", b"1")),
    "zip: a name that ends at a zero": patched(zipped(("toy/a?b", b"1")), (LOCAL, 35, b"\0"), (LISTED, 51, b"\0")),
    "zip: a file twice": patched(zipped(("toy/a", b"1"), ("toy/b", b"2")).replace(b"toy/b", b"toy/a")),
    "zip: a file for a folder": zipped(("toy/a/b", b"1"), ("toy/a", b"2")),
    "zip: encrypted": patched(zipped(("toy/a", b"1")), (LOCAL, 6, b"\1"), (LISTED, 8, b"\1")),
    "zip: compressed by an unknown method": patched(
        zipped(("toy/a", b"1")), (LOCAL, 8, b"\x63"), (LISTED, 10, b"\x63")
    ),
    "zip: compressed by one without bounds": zipped(("toy/a", b"1"), method=zipfile.ZIP_LZMA),
    "zip: before its beginning": patched(zipped(("toy/a", b"1")), (LISTED, 42, b"\xff" * 4)),
    "zip: overlapping": overlapping(),
    "zip: too many entries": zipped(*[(f"toy/{number}", b"") for number in range(51)]),
    "zip: too many bytes": zipped(("toy/a", bytes(2 << 20))),
    "zip: more bytes than it says": patched(zipped(("toy/a", b"1" * 100)), (LISTED, 24, struct.pack("<I", 10))),
    "zip: fewer bytes than it says": patched(zipped(("toy/a", b"1" * 100)), (LISTED, 24, struct.pack("<I", 1000))),
    "zip: another checksum": patched(zipped(("toy/a", b"1" * 100)), (LISTED, 16, b"1234")),
    "zip: a place of its list before it begins": b"PK\6\7" + bytes(16) + b"PK\5\6" + b"\xff" * 16 + bytes(2),
    "zip: cut": zipped(("toy/a", b"1"))[:-9],
    "zip: another name in the list": patched(zipped(("toy/a", b"1")), (LISTED, 46, b"toy/b")),
}


WHY = {  # where something else would refuse it too, later or in other words
    "a symbolic link": "'toy/link' is a symbolic link",
    "a name of a gigabyte": "a header in it is larger than 1,048,576 bytes",
    "a header of its own size below zero": "a header in it is larger",
    "zip: encrypted": "'toy/a' is encrypted",
    "zip: overlapping": "its members overlap",
    "zip: before its beginning": "its members overlap",
    "7-Zip": "it is a 7-Zip archive",
}


@pytest.mark.parametrize("kind", EVIL)
def test_what_is_not_extracted(tmp_path: Path, kind: str) -> None:
    """Neither by itself, within the limits, nor by a run: one sentence, and nothing is left."""
    body = EVIL[kind]
    data = tmp_path / "data"
    data.mkdir()
    name = "toy.zip" if kind.startswith("zip") else "toy.tar.gz"
    (data / name).write_bytes(body)
    (tmp_path / "secret").write_text("mine")
    target = tmp_path / "target"
    target.mkdir()
    with pytest.raises((RefusedError, *DAMAGE, OSError)) as refused:
        unpack(data / name, target, LIMITS, verified=False)
    assert getattr(refused.value, "errno", None) is None
    assert WHY.get(kind, "") in str(refused.value)
    shutil.rmtree(target)
    toy = replace(dataset(File(name, (), None)), train_images=20_000)
    if kind.partition("too many")[1]:  # within the limits of a real one
        assert "safe" in str(refused.value)
    else:
        with pytest.raises(UserError) as said:
            obtain(toy, data)
        assert "\n" not in str(said.value)
        assert len(str(said.value)) < 900
        assert str(data / name) in str(said.value)
        assert sorted(path.name for path in data.iterdir()) in ([name], [".checksums.json", name])
    assert sorted(path.name for path in tmp_path.iterdir()) == ["data", "secret"]
    assert (tmp_path / "secret").read_text() == "mine"


@pytest.mark.parametrize("folder", ["", "toy"])
def test_what_is_no_file_is_not_waited_for(tmp_path: Path, folder: str) -> None:
    os.mkfifo(tmp_path / "toy.zip")
    with pytest.raises(UserError, match=r"toy\.zip is no regular file"):
        obtain(dataset(File("toy.zip", (), None), folder=folder), tmp_path)


def test_no_memory_is_taken_for_a_list_of_too_many_entries(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "toy.zip").write_bytes(EVIL["zip: too many entries"])
    monkeypatch.setattr(zipfile, "ZipInfo", lambda *_: pytest.fail("an entry was made"))
    with pytest.raises(RefusedError, match="more than 50 entries"):
        unpack(tmp_path / "toy.zip", tmp_path, LIMITS, verified=False)


def test_a_bomb_is_refused_before_it_grows(tmp_path: Path) -> None:
    """Twenty times a tar's zeros under one checksum of gzip, each member small."""
    toy = dataset(File("toy.tar.gz", (), None))
    zeros = tar(*[(f"toy/{number}", bytes(8 << 20)) for number in range(12)])
    (tmp_path / "toy.tar.gz").write_bytes(gzip.compress(zeros, 1))
    assert LEAST_BYTES + MOST_RATIO * (tmp_path / "toy.tar.gz").stat().st_size < len(zeros)
    with pytest.raises(UserError, match=r"would grow beyond \d+ MB.*extract it by hand in"):
        obtain(toy, tmp_path)
    assert not (tmp_path / "toy").exists()


@pytest.mark.parametrize("name", ["toy.zip", "toy.tar", "toy.tar.gz"])
def test_room_is_asked_for_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    noise = random.Random(0).randbytes(100_000)
    body = zipped(("toy/a", noise)) if name == "toy.zip" else tar(("toy/a", noise))
    (tmp_path / name).write_bytes(gzip.compress(body) if name.endswith("gz") else body)
    usage = namedtuple("usage", "total used free")
    made: list[str] = []
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(1 << 40, 1 << 40, 90_000))
    monkeypatch.setattr(module._Writer, "file", lambda self, path, size, source: made.append(path))
    with pytest.raises(RunError, match=r"extracts to 10\d kB or more, but there is room for 90 kB in .*Make room"):
        obtain(dataset(File(name, (), None)), tmp_path)
    assert made == []


def honest(content: bytes) -> list[tuple[str, bytes]]:
    folder, script = zipfile.ZipInfo("toy/sub/"), zipfile.ZipInfo("toy/sub/a")
    folder.external_attr, script.external_attr = (stat.S_IFDIR | 0o755) << 16, (stat.S_IFREG | 0o6755) << 16
    windows = zipped(("toy\\sub\\a", content)).replace(b"toy/sub/a", b"toy\\sub\\a")
    odd = entry("./toy/sub/a", size=len(content))
    odd.mode, odd.uid, odd.uname, odd.mtime = 0o6777, 2**20, "nobody-known", 253402300800 * 1000
    early = entry("toy//sub/./a", size=len(content))
    early.mtime = -(2**40)
    block = content + bytes(-len(content) % 512)
    return [
        ("toy.tar.gz", gzip.compress(tar(("toy/sub/a", content)))),
        ("toy.tar.gz", tar(("toy/sub/a", content))),
        ("toy.zip", gzip.compress(tar(("toy/sub/a", content)))),
        ("toy.tar", zipped(("toy/sub/a", content))),
        ("toy.zip", b"#!/bin/sh\n" + zipped(("toy/sub/a", content))),
        ("toy.zip", windows),
        ("toy.zip", zipped((folder, b""), (script, content))),
        ("toy.tar", tar(entry("toy", tarfile.DIRTYPE), entry("toy", tarfile.DIRTYPE), ("toy/sub/a", content))),
        ("toy.tar", tar(("/toy/sub/a", content))),
        ("toy.tar", tar(entry("x", size=len(content), path="toy/sub/a"), end=False) + block + bytes(1024)),
        ("toy.tar", tar(odd, end=False) + block + bytes(20_000)),
        ("toy.tar", tar(early, end=False) + block + bytes(1024)),
    ]


@pytest.mark.parametrize("number", range(12))
def test_what_is_extracted_whatever_it_is_called_and_says(tmp_path: Path, number: int) -> None:
    content = b"content" * 1000
    name, body = honest(content)[number]
    (tmp_path / name).write_bytes(body)
    folder = obtain(dataset(File(name, (), None)), tmp_path)
    assert (folder / "sub" / "a").read_bytes() == content
    status = (folder / "sub" / "a").stat()
    assert stat.S_IMODE(status.st_mode) & 0o7111 == 0
    assert status.st_uid == os.geteuid()
    assert abs(status.st_mtime - (tmp_path / name).stat().st_mtime) < 3600


@pytest.mark.parametrize("links", [True, False])
def test_a_second_name_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, links: bool) -> None:
    def without(*_: object) -> None:
        raise OSError(1, "no hard links here")

    if not links:
        monkeypatch.setattr(os, "link", without)
    body = tar(("toy/a", b"1"), entry("toy/sub/b", tarfile.LNKTYPE, "./toy/a"), ("toy/c", b"2"))
    (tmp_path / "toy.tar").write_bytes(body)
    folder = obtain(dataset(File("toy.tar", (), None)), tmp_path)
    assert [(folder / name).read_bytes() for name in ("a", "sub/b", "c")] == [b"1", b"1", b"2"]


def test_a_cut_that_the_checksum_excludes_is_no_matter(tmp_path: Path) -> None:
    """Some programs write no mark of the end."""
    (tmp_path / "toy.tar").write_bytes(tar(("toy/a", b"1"), end=False))
    unpack(tmp_path / "toy.tar", tmp_path, LIMITS, verified=True)
    assert (tmp_path / "toy" / "a").read_bytes() == b"1"


def test_nothing_that_this_program_believes_comes_out_of_an_archive(tmp_path: Path) -> None:
    body = tar(("toy/a", b"1"), (".checksums.json", b"{}"), (".cache/toy", b"1"), ("other.zip", b"1"), ("list", b"1"))
    (tmp_path / "toy.tar").write_bytes(body)
    toy = dataset(File("toy.tar", (), None))
    obtain(replace(toy, alternative_files=((File("other.zip", (), None),),)), tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".checksums.json", "list", "toy", "toy.tar"]
    assert (tmp_path / ".checksums.json").read_bytes() != b"{}"


def extract_any(body: bytes, folder: Path, name: str = "toy.tar.gz") -> None:
    """Extract what may be no archive: it is extracted, or refused, or damaged."""
    target = folder / "target"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    (folder / name).write_bytes(body)
    try:
        unpack(folder / name, target, LIMITS, verified=False)
    except (RefusedError, *DAMAGE):
        pass
    except OSError as error:
        if error.errno is not None:
            raise


def test_a_compressed_file_that_goes_on_with_zeros_is_refused_at_once(tmp_path: Path) -> None:
    """Python's gzip looks at them one by one."""
    with (tmp_path / "toy.tar.gz").open("wb") as file:
        file.write(gzip.compress(tar(("toy/a", b"1"))))
        file.truncate(2 << 30)
    (tmp_path / "target").mkdir()
    with pytest.raises(RefusedError, match="goes on behind its end"):
        unpack(tmp_path / "toy.tar.gz", tmp_path / "target", LIMITS, verified=False)


WHOLE = [
    ("toy.tar", tar(("toy/a", b"1" * 600), entry("toy/b", tarfile.LNKTYPE, "toy/a"), entry("c", path="toy/c"))),
    ("toy.tar.gz", gzip.compress(tar(("toy/" + "n" * 120, b"1")))),
    ("toy.zip", zipped(("toy/a", b"1" * 100), ("toy/b", b"2"))),
]


@settings(max_examples=60, deadline=None)
@given(
    whole=st.sampled_from(WHOLE),
    changes=st.lists(st.tuples(st.integers(0, 2000), st.binary(min_size=1, max_size=12)), max_size=4),
    end=st.integers(0, 20_000),
)
def test_no_change_of_bytes_is_anything_but_refused(
    tmp_path_factory: pytest.TempPathFactory,
    whole: tuple[str, bytes],
    changes: list[tuple[int, bytes]],
    end: int,
) -> None:
    name, body = whole
    changed = bytearray(body)
    for place, content in changes:
        changed[place % len(body) : place % len(body) + len(content)] = content
    folder = tmp_path_factory.getbasetemp() / "fuzzed"
    folder.mkdir(exist_ok=True)
    extract_any(bytes(changed[:end]), folder, name)
    assert {path.name for path in folder.iterdir()} <= {"target", "toy.tar", "toy.tar.gz", "toy.zip"}
