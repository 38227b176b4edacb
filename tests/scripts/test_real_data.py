"""The scripts on real images in the datasets' own layouts; labels checked against the datasets' own lists."""

import csv
import importlib
import json
import pickle
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import pytest
from scipy.io import savemat
from torchvision import datasets as theirs

import breakhis
import cub200
import dtd
import eurosat
import flowers102
import food101
import galaxy10
import plantvillage
import rsna
import stanford_cars
import stanford_dogs
import tinyimagenet
import ucmerced
from common import Dataset, Part, RawSplits, ReadOptions
from engine.data.declaration import Protocol
from engine.data.locate import locate
from engine.paths import PROJECT
from engine.records.schema import json_schema
from tests.conftest import Command, only_run

# script -> images to train on and to test with, in the subset; classes
TRAINABLE = {
    "cifar10": (800, 200, 10),
    "cifar100": (1000, 300, 100),
    "tinyimagenet": (320, 80, 200),
    "cub200": (32, 20, 200),
    "food101": (45, 25, 101),
    "dtd": (50, 50, 47),
    "ucmerced": (15, 6, 3),
    "eurosat": (660, 290, 10),
    "plantvillage": (120, 40, 10),
}


def read_partly(dataset: Dataset, shared_data: Path, protocol: Protocol = "honest") -> RawSplits:
    folder = locate(dataset, shared_data / dataset.script_name)
    assert folder is not None
    return dataset.read(ReadOptions(folder, allow_partial=True, protocol=protocol))


def labelled(found: RawSplits, part: Part) -> dict[str, str]:
    """Name -> class name."""
    return {name: found.classes[label] for name, label in zip(part.names, part.labels.tolist(), strict=True)}


def paths(part: Part) -> list[Path]:
    found = [reference for reference in part.entries(part.references) if isinstance(reference, Path)]
    assert len(found) == len(part)
    return found


@pytest.fixture(autouse=True, scope="module")
def _shared_data_stay_as_they_are(shared_data: Path) -> Iterator[None]:
    before = sorted(shared_data.rglob("*"))
    yield
    assert sorted(shared_data.rglob("*")) == before


@pytest.mark.parametrize("script", TRAINABLE)
def test_one_epoch(command: Command, tmp_path: Path, shared_data: Path, script: str) -> None:
    """Of a small network; `make slow` runs a real backbone at the size of the published runs."""
    dataset = importlib.import_module(script).DATASET
    line = f"-model tiny -bs 32 --weights none --epochs 1 --allow-partial --size 32 --cache-dir {tmp_path / 'cache'}"
    assert command(f"{line} --data-dir {shared_data / script}", dataset) == 0
    record = json.loads((only_run(tmp_path / "runs") / "record.json").read_text())
    jsonschema.validate(record, json_schema())
    train, test, classes = TRAINABLE[script]
    assert record["status"] == "done"
    assert record["dataset"]["partial"] is True
    assert record["dataset"]["counts"]["available"] == train
    assert record["dataset"]["counts"]["test"] == record["test"]["images"] == test
    assert len(record["dataset"]["classes"]) == classes
    assert record["dataset"]["differences"]


@pytest.mark.slow
@pytest.mark.timeout(1800)  # minutes of training, on a machine that others use
@pytest.mark.parametrize("script", TRAINABLE)
def test_one_epoch_of_a_real_backbone(tmp_path: Path, shared_data: Path, script: str) -> None:
    """The command as a user gives it, at the published size."""
    line = [sys.executable, str(PROJECT / f"{script}.py"), "-model", "shufflenet", "-bs", "32", "--weights", "none"]
    line += ["--device", "cpu", "--epochs", "1", "--allow-partial", "--out", str(tmp_path)]
    line += ["--data-dir", str(shared_data / script), "--cache-dir", str(tmp_path / "cache")]
    done = subprocess.run(line, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    record = json.loads(only_run(tmp_path).joinpath("record.json").read_text())
    jsonschema.validate(record, json_schema())
    assert record["dataset"]["counts"]["available"] == TRAINABLE[script][0]
    assert np.isfinite(record["test"]["nll"])


def test_breakhis_trains_on_what_there_is(command: Command, tmp_path: Path, shared_data: Path, capsys: Any) -> None:
    line = f"-model tiny -bs 4 --weights none --epochs 1 --allow-partial --size 32 --cache-dir {tmp_path / 'cache'}"
    place = f"--data-dir {shared_data / 'breakhis'}"
    assert command(f"{line} {place} --magnification 400", breakhis.DATASET) == 2
    assert "the train part has no images" in capsys.readouterr().err
    assert command(f"{line} {place}", breakhis.DATASET) == 0
    assert (tmp_path / "runs" / "breakhis_40x").is_dir()
    record = json.loads((only_run(tmp_path / "runs") / "record.json").read_text())
    counts = record["dataset"]["counts"]
    assert counts["train"] + counts["val"] + counts["test"] == 8
    assert record["test"]["top5"] is None


def test_cifar100_has_the_fine_labels(shared_data: Path) -> None:
    found = read_partly(importlib.import_module("cifar100").DATASET, shared_data)
    folder = shared_data / "cifar100" / "cifar-100-python"
    for name, part in (("train", found.train), ("test", found.test)):
        official = pickle.loads((folder / name).read_bytes(), encoding="latin1")
        assert part.labels.tolist() == official["fine_labels"]
        assert part.pixels()[5].transpose(2, 0, 1).ravel().tolist() == official["data"][5].tolist()
    # the collector's file names tell what is in the picture: "bos_taurus_s_000507.png" is a cow
    words = {"apple": "apple", "bottle": "bottle", "castle": "castle", "rocket": "rocket", "tulip": "tulip"}
    files = pickle.loads((folder / "train").read_bytes(), encoding="latin1")["filenames"]
    named = [(file.partition("_s_")[0], label) for file, label in zip(files, found.train.labels, strict=True)]
    told = [(words[own], label) for own, label in named if own in words]
    assert len(told) >= 5
    assert all(found.classes[label] == word for word, label in told)


def test_tinyimagenet_labels(shared_data: Path) -> None:
    found = read_partly(tinyimagenet.DATASET, shared_data)
    folder = shared_data / "tinyimagenet" / "tiny-imagenet-200"
    assert list(found.classes) == sorted((folder / "wnids.txt").read_text().split())
    for name, wnid in labelled(found, found.train).items():
        assert name.partition("/")[0] == wnid
        assert Path(name).name.startswith(wnid)
    with (folder / "val" / "val_annotations.txt").open(newline="") as file:
        official = {row[0]: row[1] for row in csv.reader(file, delimiter="\t")}
    assert labelled(found, found.test) == {
        f"val/images/{path.name}": official[path.name] for path in (folder / "val" / "images").iterdir()
    }
    assert len(found.missing) == 10_000 - 80


def test_dogs_labels(shared_data: Path, tmp_path: Path) -> None:
    """The order of the official numbers 1 to 120 is that of the sorted folders. The official test list is not here."""
    (tmp_path / "Images").symlink_to(shared_data / "stanford_dogs" / "Images")
    shutil.copy(shared_data / "stanford_dogs" / "lists" / "train_list.mat", tmp_path)
    savemat(tmp_path / "test_list.mat", {"file_list": ["n02085620-Chihuahua/1.jpg", "n02085620-Chihuahua/2.jpg"]})
    found = stanford_dogs.DATASET.read(ReadOptions(tmp_path / "Images", allow_partial=True))
    with (shared_data / "stanford_dogs" / "found_lists" / "names+labels.txt").open(newline="") as file:
        official = dict(row for row in csv.reader(file) if row)
    assert len(official) == 12_000
    assert {found.classes[int(label) - 1] for label in official.values()} == set(found.classes)
    for name, label in official.items():
        assert found.classes[int(label) - 1] == name.partition("/")[0]
    assert set(labelled(found, found.train).values()) == {"n02108915-French_bulldog"}
    assert len(found.train) + len(found.missing) == 12_000 + 2


def test_flowers_labels(shared_data: Path) -> None:
    """The one image that is here, and torchvision's own reading of the whole lists."""
    found = read_partly(flowers102.DATASET, shared_data)
    parts = {split: theirs.Flowers102(shared_data / "flowers102", split) for split in ("train", "val", "test")}
    official = {
        f"jpg/{Path(path).name}": (split, label)
        for split, data in parts.items()
        for path, label in zip(data._image_files, data._labels, strict=True)
    }
    assert list(found.classes) == list(getattr(theirs.Flowers102, "classes", found.classes))  # new in torchvision
    (name,) = [*found.train.names, *found.test.names]
    split, label = official[name]
    part = found.test if split == "test" else found.train
    assert part.labels.tolist() == [label]
    assert len(found.missing) == 8_189 - 1
    missing_train = [name for name in found.missing if official[name][0] != "test"]
    assert len(missing_train) + len(found.train) == 2_040


def test_cub_labels_and_parts(shared_data: Path) -> None:
    found = read_partly(cub200.DATASET, shared_data)
    folder = shared_data / "cub200" / "CUB_200_2011"

    def table(name: str) -> dict[str, str]:
        return dict(line.split() for line in (folder / name).read_text().splitlines())

    names, labels, in_train, classes = map(
        table, ("images.txt", "image_class_labels.txt", "train_test_split.txt", "classes.txt")
    )
    assert found.classes[0] == "001.Black_footed_Albatross"
    assert len(found.missing) == 11_788 - 52
    for part, flag in ((found.train, "1"), (found.test, "0")):
        assert labelled(found, part) == {
            name: classes[labels[image]]
            for image, name in names.items()
            if in_train[image] == flag and (folder / "images" / name).exists()
        }


def test_cars_labels(shared_data: Path) -> None:
    """As torchvision reads the same .mat files; there is no test image here, but all labels."""
    found = read_partly(stanford_cars.DATASET, shared_data)
    official = theirs.StanfordCars(shared_data, "train")
    wanted = {Path(path).name: label for path, label in official._samples}
    assert len(found.train) == 220
    for path, label in zip(paths(found.train), found.train.labels.tolist(), strict=True):
        assert wanted[path.name] == label
    assert list(found.classes) == official.classes
    assert "Ram C/V Cargo Van Minivan 2012" in found.classes
    assert len(found.missing) == 8_144 - 220 + 8_041


@pytest.mark.parametrize("split", ["train", "test"])
def test_food_labels(shared_data: Path, split: str) -> None:
    found = read_partly(food101.DATASET, shared_data)
    official = theirs.Food101(shared_data / "food101", split)
    wanted = dict(zip(official._image_files, official._labels, strict=True))
    part = found.train if split == "train" else found.test
    assert list(found.classes) == official.classes
    assert len(part) == (45 if split == "train" else 25)
    assert len(found.missing) == 101_000 - 70
    assert [wanted[path] for path in paths(part)] == part.labels.tolist()


@pytest.mark.parametrize("split", ["train", "val", "test"])
def test_textures_labels(shared_data: Path, split: str) -> None:
    found = read_partly(dtd.DATASET, shared_data)
    official = theirs.DTD(shared_data, split, partition=1)
    wanted = dict(zip(official._image_files, official._labels, strict=True))
    part = {"train": found.train, "val": found.val, "test": found.test}[split]
    assert part is not None
    assert list(found.classes) == official.classes
    assert len(part) == 50
    assert len(found.missing) == 3 * 1_880 - 150
    assert [wanted[path] for path in paths(part)] == part.labels.tolist()


def test_eurosat_labels(shared_data: Path) -> None:
    found = read_partly(eurosat.DATASET, shared_data)
    official = theirs.EuroSAT(shared_data)
    wanted = {Path(path): label for path, label in official.samples}
    assert list(found.classes) == official.classes
    for part in (found.train, found.test):
        assert [wanted[path] for path in paths(part)] == part.labels.tolist()
    # 0.3 of 95, rounded up
    assert Counter(found.test.labels.tolist()) == dict.fromkeys(range(10), 29)


@pytest.mark.parametrize(
    ("dataset", "told"),
    [
        (ucmerced.DATASET, lambda path: path.stem.rstrip("0123456789")),
        (plantvillage.DATASET, lambda path: path.parent.name),
    ],
)
def test_class_folders(shared_data: Path, dataset: Dataset, told: Any) -> None:
    found = read_partly(dataset, shared_data)
    for part in (found.train, found.test):
        assert [found.classes[label] for label in part.labels] == [told(path) for path in paths(part)]
    assert list(found.classes) == sorted(found.classes)


def test_breakhis_classes_and_patients(shared_data: Path) -> None:
    """The letter after SOB_ says benign or malignant; the number of the slide, without letters, the patient."""
    found = read_partly(breakhis.MAGNIFICATIONS[40], shared_data)
    names = [*found.train.names, *found.test.names]
    labels = [*found.train.labels, *found.test.labels]
    groups = [*(found.train.groups or ()), *(found.test.groups or ())]
    assert len(names) == 8
    for name, label, group in zip(names, labels, groups, strict=True):
        letter = Path(name).name[4]
        assert found.classes[label] == {"B": "benign", "M": "malignant"}[letter]
        number = re.search(r"-14-(\d+)", name)
        assert number is not None
        assert group == f"14-{number[1]}"
    assert not set(found.train.groups or ()) & set(found.test.groups or ())


def test_galaxy_classes_are_those_of_the_readme(shared_data: Path) -> None:
    text = (shared_data / "galaxy10" / "README.rst").read_text()
    section = text[text.index("17736") :]
    official = re.findall(r"Class (\d)\s*\(\s*(\d+) images\): ([A-Za-z -]+)", section)
    decals = official[:10]
    assert [int(number) for number, _, _ in decals] == list(range(10))
    assert {name.strip().replace(" Galaxies", ""): int(count) for _, count, name in decals} == galaxy10.CLASS_IMAGES


def test_rsna_lists_every_missing_image(shared_data: Path) -> None:
    """No image of this dataset is here, but its whole list is."""
    with (shared_data / "rsna" / "stage_2_train_labels.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    protocols: tuple[Protocol, ...] = ("honest", "paper")
    for protocol in protocols:
        found = rsna.DATASET.read(ReadOptions(shared_data / "rsna", allow_partial=True, protocol=protocol))
        assert {Path(name).stem for name in found.missing} == {row["patientId"] for row in rows}
        assert len(found.missing) == 26_684
