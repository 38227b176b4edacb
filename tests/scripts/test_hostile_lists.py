"""Lists, labels and arrays of datasets that say what can't be: refused in one sentence, by each script."""

from __future__ import annotations

import re
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import galaxy10
from common import ReadOptions
from engine.data.load import read_files
from engine.errors import UserError
from tests import fakes
from tests.scripts.test_datasets import lay

LISTS = (".txt", ".csv", ".json")
KEYS = ("cub200", "dtd", "food101", "tinyimagenet", "rsna")


def read_any(key: str, root: Path) -> None:
    """Read a dataset whose lists may say anything: it is read, or refused."""
    dataset = fakes.made(key).dataset
    with suppress(UserError):
        read_files(dataset, root, ReadOptions(root / dataset.folder, allow_partial=True))


@cache
def lists_of(key: str) -> dict[str, bytes]:
    return {name: body for name, body in fakes.made(key).extracted.items() if name.endswith(LISTS)}


WORDS = st.sampled_from(
    [
        "-1",
        "0",
        "9" * 30,
        "9" * 5000,
        "1e400",
        "NaN",
        "../x",
        "a/b",
        "/x",
        "\0",
        "",
        "\u202e\x1b[2J",
        "null",
        "[",
        "x" * 300,
    ]
) | st.text(max_size=5)


@pytest.fixture(scope="module")
def roots(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    return {key: lay(tmp_path_factory.mktemp(key), fakes.made(key).extracted) for key in KEYS}


@settings(max_examples=100, deadline=None)
@given(data=st.data(), key=st.sampled_from(KEYS))
def test_any_word_in_any_list(roots: dict[str, Path], data: st.DataObject, key: str) -> None:
    name = data.draw(st.sampled_from(sorted(lists_of(key))))
    whole = lists_of(key)[name].decode()
    words = [match.span() for match in re.finditer(r"[^\s,\"/]+", whole)]
    begin, end = data.draw(st.sampled_from(words[:40]))
    changed = whole[:begin] + data.draw(WORDS) + whole[end:]
    path = roots[key] / name
    path.write_bytes(changed.encode("utf-8", "surrogatepass"))
    try:
        read_any(key, roots[key])
    finally:
        path.write_text(whole, "utf-8")


IMAGES = np.zeros((20, 8, 8, 3), np.uint8)
ANSWERS = np.arange(20) % 10
ARRAYS: dict[str, dict[str, Any]] = {
    "more images than labels": {"images": IMAGES[:-1], "ans": ANSWERS},
    "no colours": {"images": IMAGES[..., 0], "ans": ANSWERS},
    "images of another type": {"images": IMAGES.astype(np.float32), "ans": ANSWERS},
    "fractions": {"images": IMAGES, "ans": ANSWERS + 0.5},
    "NaN": {"images": IMAGES, "ans": np.full(20, np.nan)},
    "text": {"images": IMAGES, "ans": [b"a"] * 20},
    "two labels of each": {"images": IMAGES, "ans": np.zeros((20, 2), np.int64)},
    "a single label": {"images": IMAGES, "ans": 3},
    "no labels": {"images": IMAGES},
    "none of both": {"images": IMAGES[:0], "ans": ANSWERS[:0]},
    "a folder": {"images": IMAGES, "ans/x": ANSWERS},
    "a link to nothing": {"images": IMAGES, "ans": h5py.SoftLink("/nothing")},
    "another file's": {"images": IMAGES, "ans": h5py.ExternalLink("other.h5", "ans")},
}


@pytest.mark.parametrize("kind", ARRAYS)
def test_arrays_that_are_no_galaxies(tmp_path: Path, kind: str) -> None:
    path = tmp_path / galaxy10.DATASET.files[0].name
    with h5py.File(path, "w") as file:
        for name, content in ARRAYS[kind].items():
            file[name] = content
    with pytest.raises(UserError, match=r"Galaxy10_DECals\.h5.*[Gg]et the published file"):
        galaxy10.read(ReadOptions(tmp_path))


@pytest.mark.parametrize("shape", [(1 << 40, 8, 8, 3), (20, 1 << 20, 1 << 20, 3)])
def test_arrays_of_nothing_that_would_fill_all_memory(tmp_path: Path, shape: tuple[int, ...]) -> None:
    path = tmp_path / galaxy10.DATASET.files[0].name
    with h5py.File(path, "w") as file:
        file.create_dataset("images", shape, np.uint8, chunks=(1, 8, 8, 3))
        file.create_dataset("ans", shape[:1], np.int64, chunks=(8,))
    with pytest.raises(UserError, match=r"has images uint8 .* and labels \(ans\) int64 .*Expected"):
        galaxy10.read(ReadOptions(tmp_path))
