"""CIFAR-10 from its official archive, and the declarations of both CIFARs against torchvision's."""

import json
import pickle
import re
from dataclasses import replace
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from torchvision.datasets import CIFAR10, CIFAR100

import cifar10
import cifar100
from common import Dataset, ReadOptions
from engine.data.load import read
from tests import fakes
from tests.conftest import Command, only_run
from tests.fakes import Fake


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> Fake:
    """A declaration whose official archive is one of 36 images, and that archive."""
    return fakes.fake("cifar10", monkeypatch)


def offline(fake: Fake) -> Dataset:
    """The declaration without a server that answers."""
    (file,) = fake.dataset.files
    return replace(fake.dataset, files=(replace(file, urls=(f"http://127.0.0.1:9/{file.name}",)),))


@pytest.mark.parametrize(("script", "theirs"), [(cifar10, CIFAR10), (cifar100, CIFAR100)])
def test_the_files_are_those_that_torchvision_knows(script: ModuleType, theirs: type[CIFAR10]) -> None:
    (file,) = script.DATASET.files
    assert (file.name, file.checksum) == (theirs.filename, f"md5:{theirs.tgz_md5}")
    assert file.urls == (theirs.url,)
    assert script.DATASET.folder == theirs.base_folder
    batches = script.BATCHES
    assert list(batches.train.items()) == [(name, md5) for name, md5 in theirs.train_list]
    assert list(batches.test.items()) == [(name, md5) for name, md5 in theirs.test_list]
    assert batches.meta == {theirs.meta["filename"]: theirs.meta["md5"]}
    assert batches.class_names == theirs.meta["key"]


def test_a_run_from_the_archive(command: Command, tmp_path: Path, fake: Fake) -> None:
    (tmp_path / "mine").mkdir()
    for name, body in fake.bodies.items():
        (tmp_path / "mine" / name).write_bytes(body)
    line = "-model tiny -bs 16 --weights none --epochs 1 --plan off --size 32 --data-dir mine"
    assert command(line, offline(fake)) == 0
    found = json.loads((only_run(tmp_path / "runs") / "record.json").read_text())["dataset"]
    assert found["partial"] is False
    assert found["classes"] == [fake.order[label] for label in range(10)]
    assert found["counts"] == {"available": 30, "train": 20, "val": 10, "test": 6}
    assert set(found["checksums"]) == {*cifar10.BATCHES.files, *fake.bodies}


def test_the_extracted_folder_itself_as_data_dir(tmp_path: Path, fake: Fake) -> None:
    for name, body in fake.extracted.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(body)
    raw = read(offline(fake), tmp_path / "cifar-10-batches-py", False, "honest")
    assert (len(raw.train), len(raw.test), raw.differences) == (30, 6, ())


def test_real_images_have_the_labels_of_their_folders(shared_data: Path) -> None:
    """The file names in the real batches begin with what is in the picture."""
    folder = shared_data / "cifar10" / "cifar-10-batches-py"
    raw = cifar10.DATASET.read(ReadOptions(folder, allow_partial=True))
    assert raw.classes == ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
    names = []
    for batch_name in (*cifar10.BATCHES.train, *cifar10.BATCHES.test):
        with (folder / batch_name).open("rb") as file:
            names += pickle.load(file, encoding="latin1")["filenames"]
    told = {"airplane": "airliner", "automobile": "auto(mobile)?", "cat": "cat", "deer": "elk", "dog": "pekinese"}
    told |= {"frog": "toad", "horse": "horse", "ship": "speedboat", "truck": "truck"}
    checked = 0
    for name, label in zip(names, [*raw.train.labels, *raw.test.labels], strict=True):
        for own, word in told.items():
            if re.match(rf"{word}_s_\d+\.png", name):
                assert raw.classes[label] == own, name
                checked += 1
    assert checked >= 30
    assert np.bincount(raw.train.labels).tolist() == [80] * 10
    assert np.bincount(raw.test.labels).tolist() == [20] * 10


@pytest.mark.parametrize(
    "flags", ["-model tiny --size 32 --plan off", pytest.param("-model shufflenet", marks=pytest.mark.slow)]
)
def test_real_images_train_twice_to_the_same_metrics(
    command: Command, tmp_path: Path, shared_data: Path, flags: str
) -> None:
    line = f"{flags} -bs 32 --weights none --epochs 1 --allow-partial"
    records = []
    for out in ("first", "second"):
        assert command(f"{line} --out {out} --data-dir {shared_data / 'cifar10'}", cifar10.DATASET) == 0
        records.append(json.loads((only_run(tmp_path / out) / "record.json").read_text()))
    assert records[0]["test"] == records[1]["test"]
    assert records[0]["selection"] == records[1]["selection"]
    assert records[0]["dataset"]["counts"] == {"available": 800, "train": 720, "val": 80, "test": 200}
    assert records[0]["dataset"]["partial"] is True
