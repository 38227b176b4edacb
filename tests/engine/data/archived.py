"""The declaration of a dataset that comes in archives, for processes too: it imports no more than that takes."""

import hashlib

from engine.data.declaration import Dataset, File, ReadOptions
from engine.data.part import RawSplits


def file_of(name: str, body: bytes, *urls: str, algorithm: str = "sha256") -> File:
    """The file with what there is to know of its content."""
    return File(name, urls, f"{algorithm}:{hashlib.new(algorithm, body).hexdigest()}", len(body))


def dataset(*files: File, folder: str = "toy") -> Dataset:
    """A dataset of these files, which nothing reads."""

    def read(_: ReadOptions) -> RawSplits:
        raise NotImplementedError

    return Dataset(
        key="toy",
        name="Toy",
        version="1",
        domain="natural",
        classes=2,
        train_images=2,
        test_images=2,
        size=(8, 8),
        augment="none",
        mean=(0.5, 0.5, 0.5),
        std=(0.5, 0.5, 0.5),
        read=read,
        licence="none stated",
        citation="",
        page="https://toy.example",
        files=files,
        folder=folder,
    )
