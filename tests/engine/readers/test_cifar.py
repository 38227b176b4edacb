"""CIFAR's batches, which are pickles: the real files, damaged ones, and some that would run code."""

import contextlib
import hashlib
import os
import pickle
import struct
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cifar10
from common import Dataset
from engine.data.load import read
from engine.errors import UserError
from engine.readers.cifar import CifarFiles, load_pickle, read_batches

REAL = [
    *(f"cifar10/cifar-10-batches-py/{name}" for name in ["data_batch_1", "data_batch_5", "test_batch", "batches.meta"]),
    *(f"cifar100/cifar-100-python/{name}" for name in ["train", "test", "meta"]),
]
DATA = np.arange(2 * 3072).reshape(2, 3072).astype(np.uint8)


def old_array(array: npt.NDArray[Any], name: bytes, order: bytes = b"|", fortran: bool = False) -> bytes:
    """An array as Python 2 and NumPy 1 pickled it with protocol 2."""
    shape = b"(" + b"".join(b"J" + struct.pack("<i", size) for size in array.shape) + b"t"
    data = array.tobytes(order="F" if fortran else "C")
    return (
        b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R"
        + (b"(K\x01" + shape + b"cnumpy\ndtype\nU" + bytes([len(name)]) + name + b"K\x00K\x01\x87R")
        + (b"(K\x03U\x01" + order + b"NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb")
        + (b"\x88" if fortran else b"\x89")
        + (b"T" + struct.pack("<i", len(data)) + data + b"tb")
    )


def old_batch(array: bytes) -> bytes:
    """{"data": array, "labels": [3, 1], "filenames": ["a.png"]}"""
    return b"\x80\x02}(U\x04data" + array + b"U\x06labels](K\x03K\x01eU\tfilenames](U\x05a.pngeu."


def write(folder: Path, data: bytes) -> Path:
    path = folder / "batch"
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("name", REAL)
def test_real_files(name: str, shared_data: Path) -> None:
    path = shared_data / name
    expected = pickle.loads(path.read_bytes(), encoding="latin1")
    found = load_pickle(path, hashlib.md5(path.read_bytes()).hexdigest().upper())
    assert list(found) == list(expected)
    for key, value in expected.items():
        assert type(found[key]) is type(value)
        np.testing.assert_array_equal(found[key], value)
    if "data" in found:
        assert found["data"].dtype == np.uint8
        assert found["data"].shape[1] == 3072


@pytest.mark.parametrize("fortran", [False, True])
def test_arrays_as_python_2_wrote_them(tmp_path: Path, fortran: bool) -> None:
    array = np.arange(12, dtype=np.uint8).reshape(3, 4)
    content = load_pickle(write(tmp_path, old_batch(old_array(array, b"u1", fortran=fortran))), None)
    np.testing.assert_array_equal(content["data"], array)
    assert content["data"].dtype == np.uint8
    assert content["labels"] == [3, 1]
    assert content["filenames"] == ["a.png"]


@pytest.mark.parametrize("protocol", range(5))
def test_every_protocol_and_both_module_names(tmp_path: Path, protocol: int) -> None:
    written = pickle.dumps({"data": DATA, "labels": [1, 2], "name": "é"}, protocol)
    for old, new in [(b"numpy._core", b"numpy.core"), (b"numpy.core", b"numpy._core")]:
        renamed = written
        if protocol < 4:  # later ones state the length of the name
            renamed = written.replace(old, new)
        content = load_pickle(write(tmp_path, renamed), None)
        np.testing.assert_array_equal(content["data"], DATA)
        assert (content["labels"], content["name"]) == ([1, 2], "é")


def test_checksum(tmp_path: Path) -> None:
    path = write(tmp_path, old_batch(old_array(DATA, b"u1")))
    found = hashlib.md5(path.read_bytes()).hexdigest()
    assert load_pickle(path, found)["labels"] == [3, 1]
    with pytest.raises(UserError) as caught:
        load_pickle(path, "0" * 32)
    for part in [str(path), found, "0" * 32, "--allow-partial", f"{path.stat().st_size:,} bytes"]:
        assert part in str(caught.value)


class Calls:
    """Pickles as a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.call = (function, arguments)

    def __reduce__(self) -> tuple[Any, ...]:
        return self.call


def refused(path: Path, name: str, md5: str | None = None) -> None:
    with pytest.raises(UserError, match="could run code") as caught:
        load_pickle(path, md5)
    assert name in str(caught.value)
    assert str(path) in str(caught.value)


@pytest.mark.parametrize("checked", [False, True])
@pytest.mark.parametrize("protocol", range(6))
def test_code_is_not_run(tmp_path: Path, protocol: int, checked: bool) -> None:
    proof = tmp_path / "ran"
    for attack, name in [
        (Calls(os.system, f"touch {proof}"), "system"),
        (Calls(eval, f"open({str(proof)!r}, 'w')"), "eval"),
        (Calls(exec, f"open({str(proof)!r}, 'w')"), "exec"),
        (Calls(os.mkdir, str(proof)), "mkdir"),
        (Calls(np.load, str(proof)), "load"),
        (Calls(np.dtype, Calls(os.mkdir, str(proof))), "mkdir"),
    ]:
        for content in [attack, {"data": attack, "labels": [1]}, {"labels": [[1], [attack]]}]:
            data = pickle.dumps(content, protocol)
            refused(write(tmp_path, data), name, hashlib.md5(data).hexdigest() if checked else None)
    assert not proof.exists()


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"cos\nsystem\n(S'touch PROOF'\ntR.", "os.system"),
        (b"(cos\nsystem\nS'touch PROOF'\no.", "os.system"),
        (b"(S'touch PROOF'\nios\nsystem\n.", "os.system"),
        (b'c__builtin__\neval\n(S\'open("PROOF", "w")\'\ntR.', "__builtin__.eval"),
        (b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x0btouch PROOF\x85R.", "posix.system"),
        (b"\x80\x04\x8c\x05numpy\x8c\x19f2py.subprocess.getoutput\x93)R.", "numpy.f2py.subprocess.getoutput"),
        (b"\x80\x04\x8c\x07_codecs\x8c\x0fencode.__self__\x93.", "_codecs.encode.__self__"),
        (b"cnumpy.core.multiarray\nfromfile\n.", "numpy.core.multiarray.fromfile"),
        (b"cnumpy\nobject_\n.", "numpy.object_"),
    ],
)
def test_code_is_not_run_by_hand_written_pickles(tmp_path: Path, data: bytes, name: str) -> None:
    proof = tmp_path / "p"
    refused(write(tmp_path, data.replace(b"PROOF", str(proof).encode())), name)
    assert not proof.exists()


def others() -> dict[str, bytes]:
    """Arrays of anything but bytes: as NumPy writes them, and with flags that pass bytes for pointers."""
    pointers = np.full(2, 0x4141414141414141)
    numbers = np.arange(12).reshape(3, 4) % 2
    plain = {"b1": "|", "i1": "|", "u2": "<", "i4": ">", "i8": "<", "f4": "<", "f8": ">"}
    arrays = {
        name: old_batch(old_array(numbers.astype(order + name), name.encode(), order.encode()))
        for name, order in plain.items()
    }
    return arrays | {
        "objects": pickle.dumps({"data": np.array([[1], "a"], dtype=object)}, 2),
        "pointers": old_batch(old_array(pointers, b"O8")),
        "pointers by their order": old_batch(old_array(pointers, b"i8", b"O")),
        "fields": pickle.dumps({"data": np.zeros(2, [("a", "u1")])}, 2),
        "text": pickle.dumps({"data": np.array(["a"])}, 2),
        "dates": pickle.dumps({"data": np.zeros(2, "M8[s]")}, 2),
    }


@pytest.mark.parametrize("kind", others())
def test_arrays_of_anything_but_bytes_are_refused(tmp_path: Path, kind: str) -> None:
    with pytest.raises(UserError, match="not of bytes"):
        load_pickle(write(tmp_path, others()[kind]), None)


def test_flags_do_not_make_bytes_anything_else(tmp_path: Path) -> None:
    content = load_pickle(write(tmp_path, old_batch(old_array(DATA, b"u1", b"O"))), None)
    assert content["data"].dtype == np.uint8
    np.testing.assert_array_equal(content["data"], DATA)


def test_arrays_whose_data_do_not_fill_them_are_refused(tmp_path: Path) -> None:
    whole = old_batch(old_array(DATA, b"u1"))
    size, other = (b"J" + struct.pack("<i", number) for number in (3072, 3073))
    assert other not in whole
    with pytest.raises(UserError, match="damaged"):
        load_pickle(write(tmp_path, whole.replace(size, other)), None)


def test_a_pickle_cannot_change_what_it_is_given(tmp_path: Path) -> None:
    sets = b"N}U\x0c__setstate__K\x01s\x86b."
    for name in [
        b"numpy\nndarray\n",
        b"numpy\ndtype\n",
        b"_codecs\nencode\n",
        b"numpy._core.multiarray\n_reconstruct\n",
    ]:
        with pytest.raises(UserError, match="damaged"):
            load_pickle(write(tmp_path, b"\x80\x02c" + name + sets), None)
    content = load_pickle(write(tmp_path, old_batch(old_array(DATA, b"u1"))), None)
    np.testing.assert_array_equal(content["data"], DATA)


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"\x00" * 100,
        b"<html><body>404 Not Found</body></html>",
        b"\x1f\x8b\x08\x00garbage",
        b".",
        b"\x80\x02K\x01.",
        b"\x80\xff}.",
        b"\x80\x02}(K\x01u.",
        b"cnumpy\nndarray\n.",
        b"\x80\x02}U\x04datacnumpy\nndarray\n)\x81s.",
        b"\x80\x02]q\x00h\x01.",
        b"\x80\x02U\x04name\x8a\xff.",
        b"\x80\x02\x82\x01.",
        b"Pid\n.",
        b"c_codecs\nencode\n(S'a'\nS'no such codec'\ntR.",
        b"(" * 10 + b"l" * 100,
        b"\x80\x04\x8e" + struct.pack("<Q", 1 << 60),
        b"\x80\x05\x96" + struct.pack("<Q", 1 << 60),
    ],
)
def test_garbage(tmp_path: Path, data: bytes) -> None:
    path = write(tmp_path, data)
    with pytest.raises(UserError, match="damaged or is not a CIFAR batch") as caught:
        load_pickle(path, None)
    assert str(path) in str(caught.value)


def test_a_huge_index_takes_no_memory(tmp_path: Path) -> None:
    assert load_pickle(write(tmp_path, b"\x80\x02}r\xff\xff\xff\xff."), None) == {}


def doubled(times: int) -> bytes:
    """A tuple of two of the same, which are tuples of two of the same, and so on: small, until it is walked through."""
    return b"(t" + b"".join(b"q" + bytes([number]) + b"h" + bytes([number]) + b"\x86" for number in range(times))


BYTES = b"c_codecs\nencode\n(X\x01\x00\x00\x00aX"
BOMBS = {
    "a buffer": b"\x80\x05}U\x04data\x96" + struct.pack("<Q", 1 << 33) + b"s.",
    "a key": b"\x80\x02}" + doubled(80) + b"K\x01s.",
    "a key of the older kind": b"\x80\x02(" + doubled(80) + b"K\x01d.",
    "a member of a set": b"\x80\x04\x8f(" + doubled(80) + b"\x90.",
    "a member of a frozen set": b"\x80\x04(" + doubled(80) + b"\x91.",
    "a name of a type": b"\x80\x02cnumpy\ndtype\n" + doubled(80) + b"K\x00K\x01\x87R.",
    "a shape": b"\x80\x02cnumpy\nndarray\n)R(K\x01" + doubled(80) + b"cnumpy\ndtype\n(U\x02u1tRI00\nU\x01atb.",
    "bytes of bytes": b"\x80\x02" + BYTES + b"\x03\x00\x00\x00hextR.",
    "a slow codec": b"\x80\x02" + BYTES + b"\x08\x00\x00\x00punycodetR.",
    "the same again": b"\x80\x02}("
    + b"".join(b"U\x01%c" % n + BYTES + b"\x06\0\0\0latin1tR" for n in range(65, 97))
    + b"u.",
    "digits": b"\x80\x02I" + b"9" * 5000 + b"\n.",
}


@pytest.mark.parametrize("kind", BOMBS)
def test_nothing_grows_beyond_the_file(tmp_path: Path, kind: str) -> None:
    """Walking through any of these, or making it, would take years, or all memory."""
    with pytest.raises(UserError, match="damaged or is not a CIFAR batch") as caught:
        load_pickle(write(tmp_path, BOMBS[kind]), None)
    assert len(str(caught.value)) < 600


def load_any(data: bytes, folder: Path) -> None:
    """Read what may be no batch: it is one, or refused."""
    with contextlib.suppress(UserError):
        load_pickle(write(folder, data), None)


OPCODES = st.sampled_from([bytes([code]) for code in pickle._Unpickler.dispatch])
USUAL = st.sampled_from([b"(", b"U\x01a", b"K\x01", b"t", b"}", b"]"])


@settings(max_examples=150, deadline=None)
@given(
    parts=st.lists(OPCODES | st.binary(max_size=4) | st.sampled_from([b"(", b"U\x01a", b"K\x01", b"t"]), max_size=20)
)
def test_any_pickle_is_read_or_refused(tmp_path_factory: pytest.TempPathFactory, parts: list[bytes]) -> None:
    load_any(b"\x80\x02" + b"".join(parts) + b".", tmp_path_factory.getbasetemp())


def test_a_file_far_larger_than_any_batch_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / "batch").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(UserError, match="1,099,511,627,776 bytes"):
        load_pickle(tmp_path / "batch", None)


def test_truncated_anywhere(tmp_path: Path) -> None:
    whole = old_batch(old_array(DATA[:, :20], b"u1"))
    for length in range(len(whole)):
        with pytest.raises(UserError, match="batch"):
            load_pickle(write(tmp_path, whole[:length]), None)


def test_a_wrong_byte_anywhere(tmp_path: Path) -> None:
    whole = old_batch(old_array(DATA[:, :20], b"u1"))
    random = np.random.default_rng(0)
    for position in range(len(whole)):
        data = bytearray(whole)
        data[position] ^= int(random.integers(1, 256))
        with contextlib.suppress(UserError):
            assert isinstance(load_pickle(write(tmp_path, bytes(data)), None), dict)


def test_missing(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="batch cannot be read: no such file"):
        load_pickle(tmp_path / "batch", None)


CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]


def batch(seed: int, count: int = 20) -> dict[str, Any]:
    """One batch of noise."""
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 3072), dtype=np.uint8)
    return {"data": pixels, "labels": [i % 10 for i in range(count)], "batch_label": "b", "filenames": ["x"] * count}


@pytest.fixture
def published(tmp_path: Path) -> Dataset:
    """A declaration of six batches, 100 training and 20 test images, which lie in `data` extracted."""
    (tmp_path / "data").mkdir()

    def write(name: str, content: Any) -> str:
        body = pickle.dumps(content, protocol=2)
        (tmp_path / "data" / name).write_bytes(body)
        return hashlib.md5(body).hexdigest()

    train = {name: write(name, batch(seed)) for seed, name in enumerate(f"data_batch_{n}" for n in range(1, 6))}
    test, meta = write("test_batch", batch(5)), write("batches.meta", {"label_names": CLASSES})
    batches = CifarFiles(train, {"test_batch": test}, {"batches.meta": meta}, "label_names", "labels")
    return replace(
        cifar10.DATASET,
        read=lambda options: read_batches(options, batches),
        folder="data",
        train_images=100,
        test_images=20,
    )


def test_pixels_are_where_they_belong(tmp_path: Path, published: Dataset) -> None:
    """A row is the red plane, then green, then blue, each row by row."""
    raw = read(published, tmp_path, False, "honest")
    row = batch(1)["data"][3]
    image = raw.train.pixels()[23]
    assert raw.train.names[23] == "data_batch_2/00003"
    assert image[5, 7].tolist() == [row[5 * 32 + 7], row[1024 + 5 * 32 + 7], row[2048 + 5 * 32 + 7]]
    assert raw.train.labels[23] == 3
    assert (raw.classes, raw.differences) == (tuple(CLASSES), ())
    assert len(raw.test) == 20


def changed(**entries: Any) -> bytes:
    return pickle.dumps(batch(0) | entries, protocol=2)


@pytest.mark.parametrize(
    ("name", "content", "allow_partial", "expected"),
    [
        ("data_batch_3", None, False, "lacks data_batch_3"),
        ("batches.meta", None, True, "lacks batches.meta"),
        ("test_batch", b"short", False, "test_batch is not the published file"),
        ("test_batch", b"short", True, "test_batch is damaged"),
        ("test_batch", None, True, "test part has no images"),
        ("data_batch_2", b"cos\nsystem\n(S'touch PROOF'\ntR.", False, "data_batch_2 is not the published file"),
        ("data_batch_2", b"cos\nsystem\n(S'touch PROOF'\ntR.", True, "asks for os.system"),
        ("data_batch_1", changed(data=[1], labels=[1]), True, "not a CIFAR batch"),
        ("data_batch_1", changed(data=np.zeros((20, 3071), np.uint8)), True, "not a CIFAR batch"),
        ("data_batch_1", changed(labels=[1] * 19), True, "not a CIFAR batch"),
        ("data_batch_1", changed(labels=[2**70] * 20), True, "not a CIFAR batch"),
        ("data_batch_1", changed(labels=[11] * 20), True, "labels from 0 to 11"),
        ("batches.meta", pickle.dumps({"label_names": ["a", "a"]}, protocol=2), True, "no list of class names"),
        ("batches.meta", pickle.dumps({"names": 5}, protocol=2), True, "no list of class names"),
    ],
)
def test_damaged_folders_are_refused(
    tmp_path: Path, published: Dataset, name: str, content: bytes | None, allow_partial: bool, expected: str
) -> None:
    proof, path = tmp_path / "p", tmp_path / "data" / name
    if content is None:
        path.unlink()
    else:
        path.write_bytes(content.replace(b"PROOF", str(proof).encode()))
    with pytest.raises(UserError, match=expected):
        read(published, tmp_path, allow_partial, "honest")
    assert not proof.exists()


def test_a_missing_batch_makes_partial_data(tmp_path: Path, published: Dataset) -> None:
    (tmp_path / "data" / "data_batch_4").unlink()
    raw = read(published, tmp_path, True, "honest")
    assert raw.differences == ("80 train images instead of 100", "data_batch_4 is missing")
    assert raw.checksums.keys() == {*(f"data_batch_{n}" for n in (1, 2, 3, 5)), "test_batch", "batches.meta"}
