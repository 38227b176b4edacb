"""CIFAR-10 from its official archive, and from what users have instead."""

import hashlib
import io
import json
import pickle
import re
import tarfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torchvision.datasets import CIFAR10

import cifar10
from common import Dataset, File, ReadOptions
from tests.conftest import Command, only_run

BATCHES = [f"data_batch_{i}" for i in range(1, 6)] + ["test_batch"]
CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
QUICK = "-model tiny -bs 16 --weights none --epochs 1 --size 32"


def batch(seed: int, count: int = 20) -> dict[str, Any]:
    pixels = np.random.default_rng(seed).integers(0, 256, (count, 3072), dtype=np.uint8)
    return {"data": pixels, "labels": [i % 10 for i in range(count)], "batch_label": "b", "filenames": ["x"] * count}


def archive_of(contents: dict[str, bytes]) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as tar:
        for name, data in contents.items():
            member = tarfile.TarInfo(f"cifar-10-batches-py/{name}")
            member.size = len(data)
            tar.addfile(member, io.BytesIO(data))
    return file.getvalue()


@pytest.fixture
def fake(monkeypatch: pytest.MonkeyPatch) -> tuple[Dataset, bytes]:
    """A declaration whose official archive is one of 120 images, and that archive."""
    contents = {name: pickle.dumps(batch(seed), protocol=2) for seed, name in enumerate(BATCHES)}
    contents["batches.meta"] = pickle.dumps({"label_names": CLASSES}, protocol=2)
    sums = {name: hashlib.md5(data).hexdigest() for name, data in contents.items()}
    monkeypatch.setattr(CIFAR10, "train_list", [[name, sums[name]] for name in BATCHES[:5]])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", sums["test_batch"]]])
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": sums["batches.meta"]})
    archive = archive_of(contents)
    file = replace(
        cifar10.DATASET.files[0],
        urls=("http://127.0.0.1:9/cifar-10-python.tar.gz",),
        checksum=f"md5:{hashlib.md5(archive).hexdigest()}",
        bytes=len(archive),
    )
    return replace(cifar10.DATASET, files=(file,), train_images=100, test_images=20), archive


def test_the_declaration_is_the_published_one() -> None:
    declared = cifar10.DATASET
    assert (declared.train_images, declared.test_images, declared.classes) == (50_000, 10_000, 10)
    assert declared.files == (
        File(
            "cifar-10-python.tar.gz",
            ("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",),
            "md5:c58f30108f718f92721af3b95e74349a",
            170_498_071,
        ),
    )


@pytest.mark.parametrize("extracted", [False, True])
def test_a_hand_placed_archive_or_folder(
    command: Command, tmp_path: Path, fake: tuple[Dataset, bytes], extracted: bool
) -> None:
    dataset, archive = fake
    place = tmp_path / "data" / "cifar10"
    place.mkdir(parents=True)
    if extracted:
        with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
            tar.extractall(place, filter="data")
    else:
        (place / "cifar-10-python.tar.gz").write_bytes(archive)
    assert command(QUICK, dataset) == 0
    record = json.loads((only_run(tmp_path / "runs") / "record.json").read_text())
    assert record["dataset"]["partial"] is False
    assert record["dataset"]["classes"] == CLASSES
    assert record["dataset"]["counts"] == {"train": 100, "fit": 90, "select": 10, "test": 20}
    seen = {*BATCHES, "batches.meta"} | (set() if extracted else {"cifar-10-python.tar.gz"})
    assert set(record["dataset"]["checksums"]) == seen


def test_the_extracted_folder_itself_as_data_dir(command: Command, tmp_path: Path, fake: tuple[Dataset, bytes]) -> None:
    dataset, archive = fake
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(tmp_path / "mine", filter="data")
    assert command(f"{QUICK} --data-dir mine/cifar-10-batches-py", dataset) == 0


def test_pixels_are_where_they_belong(tmp_path: Path, fake: tuple[Dataset, bytes]) -> None:
    """A row is the red plane, then green, then blue, each row by row."""
    _, archive = fake
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(tmp_path, filter="data")
    contents = cifar10.DATASET.read(ReadOptions(tmp_path / "cifar-10-batches-py", allow_partial=False))
    row = batch(1)["data"][3]
    image = contents.train.pixels()[23]
    assert contents.train.names[23] == "data_batch_2/00003"
    assert image[5, 7].tolist() == [row[5 * 32 + 7], row[1024 + 5 * 32 + 7], row[2048 + 5 * 32 + 7]]
    assert contents.train.labels[23] == 3
    assert len(contents.test) == 20


def test_without_network_and_data_it_says_what_to_do(command: Command, tmp_path: Path, capsys: Any) -> None:
    dead = replace(
        cifar10.DATASET, files=(replace(cifar10.DATASET.files[0], urls=("http://127.0.0.1:9/cifar-10-python.tar.gz",)),)
    )
    assert command(QUICK, dead) == 2
    message = capsys.readouterr().err
    for fact in ("http://127.0.0.1:9/", "170,498,071", "c58f30108f718f92721af3b95e74349a", str(tmp_path / "data")):
        assert fact in message
    assert not (tmp_path / "runs").exists()


Damage = Callable[[Path], object]


def hostile(folder: Path) -> None:
    (folder / "data_batch_2").write_bytes(b"cos\nsystem\n(S'touch /tmp/never'\ntR.")


@pytest.mark.parametrize(
    ("damage", "flags", "expected"),
    [
        (lambda f: (f / "data_batch_3").unlink(), "", "lacks data_batch_3"),
        (lambda f: (f / "batches.meta").unlink(), "--allow-partial", "lacks batches.meta"),
        (lambda f: (f / "test_batch").write_bytes(b"short"), "", "test_batch is not the published file"),
        (lambda f: (f / "test_batch").write_bytes(b"short"), "--allow-partial", "test_batch is damaged"),
        (lambda f: (f / "test_batch").unlink(), "--allow-partial", "test part has no images"),
        (hostile, "", "data_batch_2 is not the published file"),
        (hostile, "--allow-partial", "os.system|posix.system"),
        (
            lambda f: (f / "data_batch_1").write_bytes(pickle.dumps({"data": [1], "labels": [1]}, protocol=2)),
            "--allow-partial",
            "not a CIFAR batch",
        ),
        (
            lambda f: (f / "data_batch_1").write_bytes(pickle.dumps(batch(0) | {"labels": [11] * 20}, protocol=2)),
            "--allow-partial",
            "labels from 0 to 11",
        ),
        (
            lambda f: (f / "data_batch_1").write_bytes(pickle.dumps(batch(0) | {"labels": [2**70] * 20}, protocol=2)),
            "--allow-partial",
            "not a CIFAR batch",
        ),
        (
            lambda f: (f / "batches.meta").write_bytes(pickle.dumps({"label_names": ["a", "a"]}, protocol=2)),
            "--allow-partial",
            "no list of class names",
        ),
        (
            lambda f: (f / "batches.meta").write_bytes(pickle.dumps({"names": 5}, protocol=2)),
            "--allow-partial",
            "no list of class names",
        ),
    ],
)
def test_damaged_folders_are_refused(
    command: Command,
    tmp_path: Path,
    fake: tuple[Dataset, bytes],
    capsys: Any,
    damage: Damage,
    flags: str,
    expected: str,
) -> None:
    dataset, archive = fake
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(tmp_path, filter="data")
    damage(tmp_path / "cifar-10-batches-py")
    assert command(f"{QUICK} --data-dir . {flags}", dataset) == 2
    message = capsys.readouterr().err
    assert re.search(expected, message)
    assert "Traceback" not in message
    assert not (tmp_path / "runs").exists()
    assert not Path("/tmp/never").exists()


def test_a_missing_batch_makes_a_partial_run(
    command: Command, tmp_path: Path, fake: tuple[Dataset, bytes], capsys: Any
) -> None:
    dataset, archive = fake
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        tar.extractall(tmp_path, filter="data")
    (tmp_path / "cifar-10-batches-py" / "data_batch_4").unlink()
    assert command(f"{QUICK} --data-dir . --allow-partial", dataset) == 0
    record = json.loads((only_run(tmp_path / "runs") / "record.json").read_text())
    assert record["dataset"]["differences"] == ["80 train images instead of 100", "data_batch_4 is missing"]


def test_real_images_have_the_labels_of_their_folders(shared_data: Path) -> None:
    """The file names in the real batches begin with what is in the picture."""
    folder = shared_data / "cifar10" / "cifar-10-batches-py"
    contents = cifar10.DATASET.read(ReadOptions(folder, allow_partial=True))
    assert contents.classes == tuple(CLASSES)
    names = []
    for batch_name in BATCHES:
        with (folder / batch_name).open("rb") as file:
            names += pickle.load(file, encoding="latin1")["filenames"]
    told = {"airplane": "airliner", "automobile": "auto(mobile)?", "cat": "cat", "deer": "elk", "dog": "pekinese"}
    told |= {"frog": "toad", "horse": "horse", "ship": "speedboat", "truck": "truck"}
    checked = 0
    for name, label in zip(names, [*contents.train.labels, *contents.test.labels], strict=True):
        for own, word in told.items():
            if re.match(rf"{word}_s_\d+\.png", name):
                assert contents.classes[label] == own, name
                checked += 1
    assert checked >= 30
    assert np.bincount(contents.train.labels).tolist() == [80] * 10
    assert np.bincount(contents.test.labels).tolist() == [20] * 10


def test_real_images_train_twice_to_the_same_metrics(command: Command, tmp_path: Path, shared_data: Path) -> None:
    """The command of the README at a smaller size; the slow tier runs it as it is."""
    line = "-model shufflenet -bs 32 --weights none --epochs 1 --allow-partial --size 48"
    records = []
    for out in ("first", "second"):
        assert command(f"{line} --out {out} --data-dir {shared_data / 'cifar10'}", cifar10.DATASET) == 0
        records.append(json.loads((only_run(tmp_path / out) / "record.json").read_text()))
    assert records[0]["test"] == records[1]["test"]
    assert records[0]["selection"] == records[1]["selection"]
    assert records[0]["dataset"]["counts"] == {"train": 800, "fit": 720, "select": 80, "test": 200}
    assert records[0]["dataset"]["partial"] is True
    assert records[0]["test"]["images"] == 200


@pytest.mark.slow
def test_the_command_as_written(command: Command, tmp_path: Path, shared_data: Path) -> None:
    line = "-model shufflenet -bs 32 --weights none --epochs 1 --allow-partial"
    metrics = []
    for out in ("first", "second"):
        assert command(f"{line} --out {out} --data-dir {shared_data / 'cifar10'}", cifar10.DATASET) == 0
        metrics.append(json.loads((only_run(tmp_path / out) / "record.json").read_text())["test"])
    assert metrics[0] == metrics[1]
