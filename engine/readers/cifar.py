"""The official Python batches of CIFAR-10 and CIFAR-100 (https://www.cs.toronto.edu/~kriz/cifar.html)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.data.declaration import RawSplits, Part, ReadOptions
from engine.errors import UserError
from engine.files import digest
from engine.readers.pickles import load_pickle


def read_batches(source: ReadOptions, published: Any, labels: str) -> RawSplits:
    """Read what torchvision's class `published` lists, with its md5 sums; `labels` is the key of the labels wanted.

    Every file must be the published one, unless partial data is allowed: then what differs is listed.
    """
    meta = published.meta["filename"]
    files: dict[str, str] = dict([*published.train_list, *published.test_list, (meta, published.meta["md5"])])
    missing = [name for name in files if not (source.folder / name).is_file()]
    needed = [name for name in missing if name == meta or not source.allow_partial]
    if needed:
        raise UserError(
            f"{source.folder} lacks {', '.join(needed)}. Delete the folder to have the archive fetched and extracted "
            "anew" + ("." if source.allow_partial else ", or train on what there is with --allow-partial.")
        )
    found = {name: digest(source.folder / name, "md5") for name in files if name not in missing}
    differences = [f"{name} is missing" for name in missing]
    differences += [f"{name} is not the published file" for name, md5 in found.items() if md5 != files[name]]
    expected: Mapping[str, str | None] = dict.fromkeys(files) if source.allow_partial else files
    classes = load_pickle(source.folder / meta, expected[meta]).get(published.meta["key"])
    if (
        not isinstance(classes, list)
        or not all(isinstance(name, str) for name in classes)
        or len(set(classes)) < len(classes)
    ):
        raise UserError(f"{source.folder / meta} holds no list of class names. Put the published file in its place.")
    train, test = (
        _join([_batch(source.folder / name, expected[name], labels) for name, _ in listed if name in found])
        for listed in (published.train_list, published.test_list)
    )
    checksums = {name: f"md5:{md5}" for name, md5 in found.items()}
    return RawSplits(tuple(classes), train, test, checksums=checksums, differences=tuple(differences))


def _batch(path: Path, md5: str | None, key: str) -> tuple[npt.NDArray[np.uint8], list[int], list[str]]:
    """The images (N, 32, 32, 3), labels and names of one file."""
    content = load_pickle(path, md5)
    pixels, labels = content.get("data"), content.get(key)
    if not (
        isinstance(pixels, np.ndarray)
        and isinstance(labels, list)
        and pixels.dtype == np.uint8
        and pixels.shape == (len(labels), 3 * 32 * 32)
        and all(isinstance(label, int) and 0 <= label < 2**31 for label in labels)
    ):
        raise UserError(
            f"{path} is not a CIFAR batch: it should hold 'data', uint8 (N, 3072), and {key!r}, a list of N numbers. "
            "Put the published file in its place."
        )
    images = np.ascontiguousarray(pixels.reshape(-1, 3, 32, 32).transpose(0, 2, 3, 1))
    return images, labels, [f"{path.name}/{index:05}" for index in range(len(labels))]


def _join(batches: list[tuple[npt.NDArray[np.uint8], list[int], list[str]]]) -> Part:
    return Part(
        np.concatenate([np.zeros((0, 32, 32, 3), np.uint8), *(images for images, _, _ in batches)]),
        np.array([label for _, labels, _ in batches for label in labels], dtype=np.int64),
        [name for _, _, names in batches for name in names],
    )
