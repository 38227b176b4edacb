"""Whatever bytes lie in the place of a run's files, a report ends with what it could read, or says what is wrong."""

import io
import json
import struct
import zipfile
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.errors import UserError
from reporting import files, predictions
from reporting.build import build
from reporting.collect import collect
from reporting.tables import csv_text, latex_text, markdown_text
from tests.reporting import synthetic

NAMES = ("record.json", "history.csv", "predictions.npz", "errors.npz", "split.json", "../grid/cell.json")
FEW = settings(
    max_examples=40, deadline=None, derandomize=True, database=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)  # fmt: skip

# what an editor, or another program, puts in the place of a value
VALUES = st.one_of(
    st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5), st.just([]), st.just({}),
    st.lists(st.integers(-2, 2), max_size=3), st.dictionaries(st.text(max_size=2), st.none(), max_size=2),
    st.sampled_from([10**400, -1, 2**63, 1e308, "a" * 2000, [[1]], [None], {"a": {"b": []}}]),
)  # fmt: skip


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run's folder, one of three seeds of two backbones on a small test part."""
    folder = tmp_path_factory.mktemp("runs")
    for name in ("swin", "resnet"):
        for seed in range(3):
            last = synthetic.write_outcome(folder, "dtd", name, seed, [index < 30 + seed for index in range(40)])
    rows = np.array([38, 39])
    np.savez_compressed(last / "errors.npz", tiles=np.zeros((2, 8, 8, 3), np.uint8), rows=rows)
    (last / "split.json").write_text('{\n  "hash": "' + "a" * 64 + '"}')
    (folder / "grid").mkdir()
    (folder / "grid" / "cell.json").write_text('{"cell": "x", "reason": "y", "tail": ["z"]}')
    return last


def reported(run: Path) -> None:
    """Make the report but for its page, which others test; nothing but a UserError may end it."""
    runs = run.parents[2]
    try:
        made = build(collect(runs), runs)
    except UserError:
        return
    json.dumps(made, allow_nan=False)
    for table in (csv_text, markdown_text, latex_text):
        table(made).encode()


def with_content(run: Path, name: str, content: bytes) -> None:
    path = run.parents[2] / "grid" / "cell.json" if name.startswith("..") else run / name
    whole = path.read_bytes()
    path.write_bytes(content)
    try:
        reported(run)
    finally:
        path.write_bytes(whole)


def path_of(run: Path, name: str) -> Path:
    return run.parents[2] / "grid" / "cell.json" if name.startswith("..") else run / name


@pytest.mark.parametrize("name", NAMES)
@FEW
@given(st.data())
def test_bytes_that_were_changed_cut_or_added(run: Path, name: str, data: Any) -> None:
    whole = bytearray(path_of(run, name).read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        place = data.draw(st.integers(0, len(whole)))
        length = data.draw(st.integers(0, 40))
        whole[place : place + length] = data.draw(st.binary(max_size=8))
    with_content(run, name, bytes(whole))


def replaced(content: Any, data: Any) -> Any:
    """The JSON with one of its values replaced, or taken out."""
    if isinstance(content, dict) and content and data.draw(st.integers(0, 9)):
        name = data.draw(st.sampled_from(sorted(content)))
        changed = {**content, name: replaced(content[name], data)}
        if not data.draw(st.integers(0, 9)):
            del changed[name]
        return changed
    if isinstance(content, list) and content and data.draw(st.booleans()):
        place = data.draw(st.integers(0, len(content) - 1))
        return [*content[:place], replaced(content[place], data), *content[place + 1 :]]
    return data.draw(VALUES)


@pytest.mark.parametrize("name", ["record.json", "../grid/cell.json"])
@settings(FEW, max_examples=50)
@given(st.data())
def test_values_of_another_kind(run: Path, name: str, data: Any) -> None:
    content = json.loads(path_of(run, name).read_text("utf-8"))
    for _ in range(data.draw(st.integers(1, 3))):
        content = replaced(content, data)
    with_content(run, name, json.dumps(content).encode())


KINDS = ["i8", "u1", "f2", "f4", "f8", "?", "U3", "S2", "c8", "M8[s]"]
SHAPES = st.lists(st.integers(0, 41), max_size=3)
ARRAYS = st.builds(
    lambda shape, kind, value: np.full(shape, value).astype(kind), SHAPES, st.sampled_from(KINDS), st.integers(-2, 3)
)


@pytest.mark.parametrize("name", ["predictions.npz", "errors.npz"])
@FEW
@given(st.data())
def test_arrays_of_another_kind(run: Path, name: str, data: Any) -> None:
    with np.load(path_of(run, name)) as content:
        parts = dict(content)
    part = data.draw(st.sampled_from(sorted(parts)))
    parts[part] = data.draw(ARRAYS)
    file = io.BytesIO()
    np.savez(file, **parts)
    with_content(run, name, file.getvalue())


def archive(header: bytes, body: bytes = b"", kind: int = zipfile.ZIP_DEFLATED, name: str = "logits.npy") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", kind) as content:
        content.writestr(name, b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header + body)
    return file.getvalue()


HEADER = b"{'descr': '<f4', 'fortran_order': False, 'shape': (%s,), }\n"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (archive(HEADER % str(1 << 60).encode()), "."),
        (archive(HEADER % str(1 << 80).encode()), "."),
        (archive(HEADER % b"-5"), "."),
        (archive(b"{'descr': '|O', 'fortran_order': False, 'shape': (1,), }\n", b"cos\nsystem\n"), "Object arrays"),
        (archive(b"(" * 9000), "."),
        (archive(b"__import__('os').system('false')"), "."),
        (archive(HEADER % b"4", b"x" * 16, zipfile.ZIP_BZIP2), "not packed as NumPy does"),
        (archive(HEADER % b"4", b"x" * 16, zipfile.ZIP_LZMA), "not packed as NumPy does"),
        (archive(HEADER % b"4", b"x" * 16, name="other.npy"), "logits"),
    ],
)
def test_archives_that_are_crafted(content: bytes, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        files.arrays(content, ["logits"], 1 << 20)


def test_4_gib_of_zeros_are_not_unpacked(tmp_path: Path) -> None:
    """They are 4 MB of a file, whose directory says the size."""
    piece = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = b"".join(piece.compress(bytes(1 << 20)) for _ in range(16)) + piece.flush()
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as content:
        content.writestr("logits.npy", packed)
    raw = file.getvalue()
    place = raw.rindex(b"PK\x01\x02")  # the directory's entry: packed, of 4 GiB
    raw = (
        raw[: place + 10]
        + struct.pack("<H", 8)
        + raw[place + 12 : place + 24]
        + struct.pack("<I", 0xFFFFFFFE)
        + raw[place + 28 :]
    )
    with pytest.raises(ValueError, match="4,294,967,294 bytes, expected 1,048,576 at most"):
        files.arrays(raw, ["logits"], 1 << 20)
    most = predictions.predictions_bytes(10**12, 10**4)
    with pytest.raises(ValueError, match="expected 2,147,483,648 at most"):
        files.arrays(raw, ["logits"], most)
