"""Files from strangers: refused before memory is taken, nothing run, one message; honest ones loaded."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections import Counter, OrderedDict
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from engine.errors import UserError
from engine.models.state_dict import load_file, load_tensors
from engine.models.tensor_file import ImplausibleError
from engine.models.weights import find_weights
from engine.paths import PROJECT
from tests import toy
from tests.engine.models import hostile

MIB = 1 << 20


@pytest.mark.parametrize("name", hostile.HOSTILE)
def test_a_file_from_a_stranger_is_refused_before_it_is_believed(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "weights.pth"
    path.write_bytes(hostile.HOSTILE[name]())

    asked: list[object] = []
    monkeypatch.setattr(torch, "load", lambda *given, **_: asked.append(given))
    with pytest.raises(UserError, match="can't be read as PyTorch weights") as caught:
        find_weights(toy.TINY, str(path))
    assert len(str(caught.value).splitlines()) == 2
    assert asked == []
    assert list(tmp_path.iterdir()) == [path]


@pytest.mark.slow
def test_no_memory_is_taken_for_what_files_claim(tmp_path: Path) -> None:
    """In a process of its own, since what a process took at most is counted."""
    bombs = ["a tensor larger than its storage", "a storage larger than its entry", "a bytearray of a size"]
    bombs += ["a tensor of a size", "a zip bomb", "overlapping entries", "many empty lists", "a list doubled often"]
    bombs += ["the older format, a storage larger than the file", "the older format, many storages", "a tar archive"]
    for number, name in enumerate(bombs):
        (tmp_path / str(number)).write_bytes(hostile.HOSTILE[name]())
    program = (
        "import pathlib, resource, sys\n"
        "from tests.engine.models import hostile\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "for path in pathlib.Path(sys.argv[1]).iterdir(): hostile.load_bytes(path.read_bytes())\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    command = [sys.executable, "-c", program, str(tmp_path)]
    done = subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=True)
    assert int(done.stdout) * 1024 < 150 * MIB


@pytest.mark.parametrize("older", [False, True], ids=["archive", "older format"])
@pytest.mark.parametrize(
    "content",
    [
        OrderedDict(a=torch.zeros(2, 3).t(), b=torch.zeros(5)[2:], c=torch.zeros(3, 0)),
        {"tied": [weight := torch.ones(3, dtype=torch.bfloat16), weight], "half": torch.ones(2).half()},
        {"parameter": nn.Parameter(torch.ones(2)), "complex": torch.zeros(1, dtype=torch.complex64)},
        {"device": torch.device("cpu"), "dtype": torch.float32, "size": torch.Size((1, 2)), "bytes": b"\x00\xff"},
        {"milestones": Counter({3: 1}), "names": {"a", "b"}, "number": 2**70, "text": "ä\U0001f600", "complex": 1j},
        {"by threshold": {0.5: 1, 1e17: 2}},
        {"unsigned": torch.ones(3, dtype=torch.uint16), "eight": torch.ones(3).to(torch.float8_e5m2)},
        {"optimizer": torch.optim.AdamW([nn.Parameter(torch.ones(2))], fused=False).state_dict()},
        [[number % 7 for number in range(200)] for _ in range(200)],
    ],
    ids=["views", "shared", "parameter", "values", "sets", "fractions", "new dtypes", "optimizer", "confusion matrix"],
)
def test_what_pytorch_writes_is_loaded(content: Any, older: bool, tmp_path: Path) -> None:
    if older and "unsigned" in content:
        pytest.skip("PyTorch writes these in no older format")
    torch.save(content, tmp_path / "x.pt", _use_new_zipfile_serialization=not older)
    found = load_tensors(tmp_path / "x.pt")
    assert str(found) == str(torch.load(tmp_path / "x.pt", weights_only=True))


@pytest.mark.parametrize("kind", ["fifo", "folder", "device"])
def test_no_regular_file_is_opened(kind: str, tmp_path: Path) -> None:
    path = tmp_path / "checkpoint.pt"
    if kind == "fifo":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    else:
        path.symlink_to("/dev/zero")
    with pytest.raises(ImplausibleError, match="it is no regular file"):
        load_tensors(path)


def state_with(name: str, value: torch.Tensor) -> dict[str, torch.Tensor]:
    return toy.tiny().state_dict() | {name: value}


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (torch.full((8, 3, 3, 3), float("nan")), "has numbers that are not finite"),
        (torch.full((8, 3, 3, 3), float("inf")), "has numbers that are not finite"),
        (torch.zeros(8, 3, 3, 3, dtype=torch.int64), "is of torch.int64, not of torch.float32"),
        (torch.zeros(8, 3, 3, 3, dtype=torch.complex64), "is of torch.complex64, not of torch.float32"),
    ],
)
def test_numbers_that_are_no_weights(value: torch.Tensor, reason: str, tmp_path: Path) -> None:
    assert toy.tiny().state_dict()["0.weight"].shape == value.shape
    torch.save(state_with("0.weight", value), tmp_path / "x.pt")
    with pytest.raises(UserError, match=rf"can't be loaded into tiny: 0\.weight {reason}"):
        load_file(toy.tiny(), tmp_path / "x.pt", toy.TINY.head, "tiny")


def test_a_head_of_no_width_makes_no_layer_of_any_length(tmp_path: Path) -> None:
    torch.save(state_with(f"{toy.TINY.head}.weight", torch.zeros(10**15, 0)), tmp_path / "x.pt")
    with pytest.raises(UserError, match="of another shape"):
        load_file(toy.tiny(), tmp_path / "x.pt", toy.TINY.head, "tiny")


@pytest.mark.parametrize(
    "change",
    [
        {"run": ["x"]},
        {"run": "x\x1b[31m"},
        {"run": "\ud800"},
        {"seed": float("inf")},
        {"dataset": 3},
        {"normalisation": {"mean": [0.5, 0.5, float("nan")], "std": [1.0, 1.0, 1.0]}},
        {"normalisation": None},
        {"seen": torch.zeros(3, 16)},
        {"backbone": {}},
    ],
)
def test_what_a_checkpoint_says_of_its_run_can_be_anything(change: dict[str, Any], tmp_path: Path) -> None:
    record = {"schema": 3, "run": "0" * 16, "protocol": "honest", "seed": 0, "dataset": {"key": "toy"}}
    record |= {"backbone": {"weights": "none"}, "normalisation": {"mean": [0.5] * 3, "std": [0.5] * 3}}
    path = tmp_path / "checkpoint.pt"
    torch.save(record | {"model": toy.tiny().state_dict()}, path)
    assert find_weights(toy.TINY, str(path)).run
    torch.save(record | {"model": toy.tiny().state_dict()} | change, path)
    with pytest.raises(UserError, match="what this checkpoint says of its run is damaged"):
        find_weights(toy.TINY, str(path))


def seed(older: bool = False) -> bytes:
    stream = io.BytesIO()
    state = toy.tiny().state_dict()
    content = {"model": state, "history": [{"epoch": 1, "loss": 0.5, "ok": True}], "state_dict": dict(state)}
    torch.save(content, stream, _use_new_zipfile_serialization=not older)
    return stream.getvalue()


SEEDS = [seed(), seed(older=True), *(make() for name, make in hostile.HOSTILE.items() if "man" not in name[:5])]
SEEDS = [each for each in SEEDS if len(each) < MIB]
OPERATIONS = b"(.0123JKMNRUX])}abcehijlopqrstu\x80\x81\x85\x86\x87\x88\x89\x8a\x8f\x95"


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.sampled_from(SEEDS),
    st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(max_size=6)), max_size=4),
    st.floats(0, 1),
)
def test_changed_bytes_are_loaded_or_refused(body: bytes, changes: list[tuple[float, bytes]], kept: float) -> None:
    changed = bytearray(body)
    for place, content in changes:
        at = int(place * len(changed))
        changed[at : at + len(content)] = content
    hostile.load_bytes(bytes(changed[: max(int(len(changed) * kept), 0)] if kept < 0.5 else changed))


VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(max_size=5)
    | st.sampled_from([torch.zeros(()), torch.ones(2, 3), torch.zeros(0), torch.arange(3), torch.ones(8, 3, 3, 3)]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner)
        | st.dictionaries(
            st.sampled_from(["model", "state_dict", "0.weight", "run", "schema", "seen", "unfinished", "module.0"])
            | st.integers(0, 3),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(VALUES, st.booleans())
def test_any_structure_is_loaded_or_refused(content: Any, older: bool) -> None:
    stream = io.BytesIO()
    torch.save(content, stream, _use_new_zipfile_serialization=not older)
    hostile.load_bytes(stream.getvalue())


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.lists(st.sampled_from([bytes([each]) for each in OPERATIONS]) | st.binary(max_size=3), max_size=40))
def test_any_operations_are_loaded_or_refused(operations: list[bytes]) -> None:
    hostile.load_bytes(hostile.archive(b"\x80\x02" + b"".join(operations) + b"."))
