"""The published counts and those of both protocols, from file lists at full size: real names and lists, no pixels.

Files by the hundred thousand are for `make slow`: here, the datasets of few files stand for the others.
"""

import csv
import hashlib
import os
import pickle
import random
import re
import shutil
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import combinations
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType
from typing import Any

import numpy as np
import pytest
from scipy.io import loadmat, savemat

import breakhis
import cifar10
import cifar100
import eurosat
import plantvillage
from common import Dataset, File, Part, RawSplits
from datasets import DATASETS, PUBLISHED
from engine.data.declaration import Protocol
from engine.data.load import divide, read
from engine.data.overlap import separate
from engine.data.part import Splits
from engine.paths import PROJECT
from engine.readers.cifar import CifarFiles
from tests.conftest import SHARED

DATA = SHARED / "data"


@dataclass(frozen=True)
class Row:
    """The images that a row of the table should have."""

    classes: int
    published: tuple[int, int]  # train and test, as the table has them
    paper: tuple[int, int]  # train and test under the `paper` protocol
    honest: tuple[int, ...]  # train and test under the `honest` protocol; BreakHis: all, as patients decide
    val: int = 0  # of them chooses the epoch under the `honest` protocol


ROWS = {
    "cifar10": Row(10, (50_000, 10_000), (50_000, 10_000), (50_000, 10_000), 5_000),
    "cifar100": Row(100, (50_000, 10_000), (50_000, 10_000), (50_000, 10_000), 5_000),
    "tinyimagenet": Row(200, (100_000, 10_000), (100_000, 10_000), (100_000, 10_000), 10_000),
    "stanford_dogs": Row(120, (12_000, 8_580), (12_000, 8_580), (12_000, 8_580), 1_200),
    "flowers102": Row(102, (2_040, 6_149), (2_040, 6_149), (2_040, 6_149), 204),
    "cub200": Row(200, (5_994, 5_794), (5_994, 5_794), (5_994, 5_794), 600),
    "stanford_cars": Row(196, (8_144, 8_041), (8_144, 8_041), (8_144, 8_041), 788),
    "food101": Row(101, (75_750, 25_250), (75_750, 25_250), (75_750, 25_250), 7_575),
    "dtd": Row(47, (1_880, 1_880), (1_880, 1_880), (1_880, 1_880), 1_880),
    "ucmerced": Row(21, (1_680, 420), (1_680, 420), (1_680, 420), 168),
    "eurosat": Row(10, (18_900, 8_100), (18_900, 8_100), (18_900, 8_100), 1_890),
    "plantvillage": Row(39, (44_343, 11_105), (44_343, 11_105), (44_343, 11_105), 4_434),
    "plantclef": Row(20, (10_455, 1_135), (10_455, 1_135), (10_455, 1_135), 1_040),
    "galaxy10": Row(10, (15_962, 1_774), (15_962, 1_774), (15_962, 1_774), 1_596),
    "breakhis_40x": Row(2, (1_398, 606), (1_395, 600), (1_995,)),
    "breakhis_100x": Row(2, (1_458, 632), (1_455, 626), (2_081,)),
    "breakhis_200x": Row(2, (1_411, 611), (1_408, 605), (2_013,)),
    "breakhis_400x": Row(2, (1_276, 553), (1_273, 547), (1_820,)),
    "rsna": Row(2, (24_181, 6_046), (24_181, 6_046), (21_347, 5_337), 2_135),
}
# of so few files that these are made in a moment, with each kind of list: class folders, HDF5, text, MATLAB, patients
SMALL = ["flowers102", "cub200", "dtd", "ucmerced", "galaxy10", "breakhis_40x"]


def tiered(*rows: str) -> list[Any]:
    """The rows; those of many files are for `make slow`."""
    return [row if row in SMALL else pytest.param(row, marks=pytest.mark.slow) for row in rows]


UCMERCED = """agricultural airplane baseballdiamond beach buildings chaparral denseresidential forest freeway golfcourse
harbor intersection mediumresidential mobilehomepark overpass parkinglot river runway sparseresidential storagetanks
tenniscourt"""
PLANTCLEF = """ash beech cattail cedar clover cyprus daisy dandelion dogwood elm fern fig fir juniper maple poison_ivy
sweetgum sycamore trout_lily tulip_tree"""


def dataset(row: str) -> Dataset:
    """The declaration behind a row; that of Galaxy10 without a checksum, which a file of black dots can't have."""
    found = DATASETS[row]
    return replace(found, files=(File(found.files[0].name, (), None),)) if row == "galaxy10" else found


def touch(root: Path, names: Iterable[str]) -> None:
    """Make empty files below `root`, in this order."""
    names = list(names)
    for folder in {name.rpartition("/")[0] for name in names}:
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name in names:
        os.close(os.open(f"{root}/{name}", os.O_CREAT | os.O_WRONLY))


def copy(root: Path, folder: str, *names: str) -> None:
    """Lay real lists below `root`, where the archive has them."""
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(DATA / folder / name, root / name)


def write_batches(root: Path, script: ModuleType, patch: pytest.MonkeyPatch) -> None:
    """CIFAR's batches, black, and the script's md5 sums changed to theirs."""
    folder, batches = root / script.DATASET.folder, script.BATCHES
    folder.mkdir()

    def write(name: str, content: dict[str, Any]) -> str:
        data = pickle.dumps(content, protocol=2)
        (folder / name).write_bytes(data)
        return hashlib.md5(data).hexdigest()

    def write_part(names: Iterable[str], images: int) -> dict[str, str]:
        data = np.zeros((images, 3072), np.uint8)
        labels = [index % script.DATASET.classes for index in range(images)]
        return {name: write(name, {"data": data, batches.labels: labels}) for name in names}

    classes = [f"class {n:02}" for n in range(script.DATASET.classes)]
    (meta,) = batches.meta
    changed = CifarFiles(
        write_part(batches.train, 50_000 // len(batches.train)),
        write_part(batches.test, 10_000),
        {meta: write(meta, {batches.class_names: classes})},
        batches.class_names,
        batches.labels,
    )
    patch.setattr(script, "BATCHES", changed)


def make_tinyimagenet(root: Path) -> None:
    root /= "tiny-imagenet-200"
    copy(root.parent, "tinyimagenet", *(f"{root.name}/{name}" for name in ("wnids.txt", "val/val_annotations.txt")))
    for wnid in (root / "wnids.txt").read_text().split():
        touch(root, [f"train/{wnid}/images/{wnid}_{n}.JPEG" for n in range(500)] + [f"train/{wnid}/{wnid}_boxes.txt"])
    touch(root, [f"val/images/val_{n}.JPEG" for n in range(10_000)])
    touch(root, [f"test/images/test_{n}.JPEG" for n in range(100)])  # have no labels and are not looked at


def dogs_training() -> list[tuple[str, int]]:
    """The official training files, in their order, with their labels from 1."""
    (lines,) = (path.read_text().split("\n") for path in (DATA / "stanford_dogs" / "found_lists").iterdir())
    return [(name, int(label)) for name, _, label in (line.partition(",") for line in lines if line)]


def make_stanford_dogs(root: Path) -> None:
    copy(root, "stanford_dogs", "lists/train_list.mat")
    train = [name for name, _ in dogs_training()]
    breeds = sorted({name.partition("/")[0] for name in train})
    test = [f"{breed}/{breed[:9]}_9{n:05}.jpg" for index, breed in enumerate(breeds) for n in range(71 + index % 2)]
    savemat(root / "lists" / "test_list.mat", {"file_list": np.array(test, object)[:, None]})
    touch(root / "Images", train + test)


def make_flowers102(root: Path) -> None:
    copy(root, "flowers102", "flowers-102/imagelabels.mat", "flowers-102/setid.mat")
    touch(root, [f"flowers-102/jpg/image_{n:05}.jpg" for n in range(1, 8_190)])


def columns(path: Path) -> dict[str, str]:
    return dict(line.split() for line in path.read_text().splitlines())


def make_cub200(root: Path) -> None:
    names = ("images", "classes", "image_class_labels", "train_test_split")
    copy(root, "cub200", *(f"CUB_200_2011/{name}.txt" for name in names))
    touch(root / "CUB_200_2011" / "images", columns(root / "CUB_200_2011" / "images.txt").values())


def cars_annotations(part: str) -> list[tuple[str, int]]:
    """File names and labels from 1."""
    name = "devkit/cars_train_annos.mat" if part == "train" else "cars_test_annos_withlabels.mat"
    found = loadmat(DATA / "stanford_cars" / name, squeeze_me=True)["annotations"]
    return list(zip(found["fname"].tolist(), found["class"].tolist(), strict=True))


def make_stanford_cars(root: Path) -> None:
    root /= "stanford_cars"
    devkit = ("devkit/cars_meta.mat", "devkit/cars_train_annos.mat", "devkit/cars_test_annos.mat")
    copy(root, "stanford_cars", "cars_test_annos_withlabels.mat", *devkit)
    for part in ("train", "test"):
        touch(root / f"cars_{part}", [name for name, _ in cars_annotations(part)])


def make_food101(root: Path) -> None:
    copy(root, "food101", "food-101/meta/train.json", "food-101/meta/test.json")
    for part in ("train", "test"):
        listed = re.findall(r'"(\w+/\d+)"', (root / "food-101" / "meta" / f"{part}.json").read_text())
        touch(root, [f"food-101/images/{name}.jpg" for name in listed])


def make_dtd(root: Path) -> None:
    lists = [f"dtd/labels/{part}1.txt" for part in ("train", "val", "test")]
    copy(root, "dtd", *lists)
    touch(root / "dtd" / "images", [name for part in lists for name in (root / part).read_text().split()])


def make_ucmerced(root: Path) -> None:
    touch(root / "UCMerced_LandUse" / "Images", [f"{c}/{c}{n:02}.tif" for c in UCMERCED.split() for n in range(100)])


def make_eurosat(root: Path) -> None:
    sizes = eurosat.DATASET.class_images
    assert isinstance(sizes, dict)
    touch(root / "2750", [f"{c}/{c}_{n}.jpg" for c, size in sizes.items() for n in range(1, size + 1)])


def make_plantvillage(root: Path) -> None:
    sizes = plantvillage.DATASET.class_images
    assert isinstance(sizes, dict)
    touch(
        root / plantvillage.FOLDER,
        [f"{c}/image ({n}).{'jpg' if c[0] == 'B' else 'JPG'}" for c, size in sizes.items() for n in range(1, size + 1)],
    )


def make_plantclef(root: Path) -> None:
    root /= "PlantCLEF_Subset"
    for part, images in (("train", 10_455), ("val", 1_135)):
        touch(root, [f"{part}/{PLANTCLEF.split()[n % 20]}/{n}.jpg" for n in range(images)])
    touch(root, ["labels.txt", *(f"test/{n}.jpg" for n in range(30))])


def galaxy_classes() -> list[int]:
    """The images of each class, as the authors state them."""
    lines = re.findall(r"Class \d \( *(\d+) images\)", (DATA / "galaxy10" / "README.rst").read_text())
    return [int(images) for images in lines]


def make_galaxy10(root: Path) -> None:
    import h5py

    labels = np.repeat(np.arange(10, dtype=np.uint8), galaxy_classes())
    with h5py.File(root / "Galaxy10_DECals.h5", "w") as file:
        file["ans"] = labels
        file["images"] = np.zeros((len(labels), 1, 1, 3), np.uint8)


# tumour type -> its folder, and the patients that have it; patient 13412 comes on top
TUMOURS = {
    "A": ("benign/SOB/adenosis", 4),
    "F": ("benign/SOB/fibroadenoma", 10),
    "PT": ("benign/SOB/phyllodes_tumor", 3),
    "TA": ("benign/SOB/tubular_adenoma", 7),
    "DC": ("malignant/SOB/ductal_carcinoma", 37),
    "LC": ("malignant/SOB/lobular_carcinoma", 5),
    "MC": ("malignant/SOB/mucinous_carcinoma", 9),
    "PC": ("malignant/SOB/papillary_carcinoma", 6),
}


def slides() -> list[tuple[str, str]]:
    """(tumour type, slide) of 82 patients, some with two slides, which differ in the letters after the number."""
    found = [("A", "14-22549AB"), ("A", "14-22549CD"), ("DC", "14-13412"), ("LC", "14-13412")]
    number = 3_000
    for kind, (_, patients) in TUMOURS.items():
        for patient in range(patients - (kind == "A")):
            number += 37
            year = 13 + patient % 3
            found += [(kind, f"{year}-{number}{letters}") for letters in (["AB", "CD"] if patient % 4 == 3 else [""])]
    return found


def make_breakhis(root: Path) -> None:
    """Images of each class in the right number, 5 to 50 a patient at each magnification."""
    for magnification, row in breakhis.MAGNIFICATIONS.items():
        assert isinstance(row.class_images, dict)
        for label, images in row.class_images.items():
            chosen = [(kind, slide) for kind, slide in slides() if TUMOURS[kind][0].startswith(label)]
            state = np.random.RandomState(magnification)
            weights = state.uniform(1, 4, len(chosen))
            counts = 1 + state.multinomial(images - len(chosen), weights / weights.sum())
            for (kind, slide), count in zip(chosen, counts.tolist(), strict=True):
                stem = f"SOB_{label[0].upper()}_{kind}"
                folder = f"BreaKHis_v1/histology_slides/breast/{TUMOURS[kind][0]}/{stem}_{slide}/{magnification}X"
                touch(root, [f"{folder}/{stem}-{slide}-{magnification}-{n:03}.png" for n in range(1, count + 1)])


def rsna_rows() -> list[tuple[str, str]]:
    """Image and Target of every row."""
    with (DATA / "rsna" / "stage_2_train_labels.csv").open(newline="") as file:
        return [(row["patientId"], row["Target"]) for row in csv.DictReader(file)]


def make_rsna(root: Path) -> None:
    root /= "rsna-pneumonia-detection-challenge"
    copy(root, "rsna", "stage_2_train_labels.csv")
    touch(root / "stage_2_train_images", {f"{image}.dcm" for image, _ in rsna_rows()})


MAKERS: dict[str, Callable[[Path], None]] = {
    "ucmerced": make_ucmerced,
    "eurosat": make_eurosat,
    "plantvillage": make_plantvillage,
    "plantclef": make_plantclef,
    "breakhis": make_breakhis,
}
MAKERS_WITH_REAL_LISTS: dict[str, Callable[[Path], None]] = {
    "tinyimagenet": make_tinyimagenet,
    "stanford_dogs": make_stanford_dogs,
    "flowers102": make_flowers102,
    "cub200": make_cub200,
    "stanford_cars": make_stanford_cars,
    "food101": make_food101,
    "dtd": make_dtd,
    "galaxy10": make_galaxy10,
    "rsna": make_rsna,
}

Trees = Callable[[str], Path]


def roomy(folder: Path, fallback: Path) -> Path:
    return folder if os.access(folder, os.W_OK) and shutil.disk_usage(folder).free > 2**31 else fallback


@pytest.fixture(scope="module")
def trees(tmp_path_factory: pytest.TempPathFactory, request: pytest.FixtureRequest) -> Iterator[Trees]:
    """Row -> its data folder, made when it is first asked for and removed at the end: 400,000 files are many."""
    made: dict[str, Path] = {}
    # in memory where that can be: a file takes 8 us there, and was seen to take 20 to 400 us on a disk
    place = roomy(Path("/dev/shm"), tmp_path_factory.getbasetemp())
    with TemporaryDirectory(prefix="test_counts-", dir=place) as everything, pytest.MonkeyPatch.context() as patch:

        def tree(row: str) -> Path:
            script = dataset(row).script_name
            if script not in made:
                if script in MAKERS_WITH_REAL_LISTS:
                    request.getfixturevalue("shared_data")
                made[script] = Path(everything, script)
                made[script].mkdir()
                if script in ("cifar10", "cifar100"):
                    write_batches(made[script], cifar10 if script == "cifar10" else cifar100, patch)
                else:
                    (MAKERS | MAKERS_WITH_REAL_LISTS)[script](made[script])
            return made[script]

        yield tree


def whole(row: str, folder: Path, protocol: Protocol = "honest") -> tuple[RawSplits, Splits]:
    """What a run would work with; anything that is not as published is an error."""
    raw = read(dataset(row), folder, False, protocol)
    assert raw.differences == ()
    assert raw.missing == ()
    return raw, divide(raw, protocol, seed=0)


@pytest.mark.parametrize("row", ROWS)
def test_what_is_declared(row: str) -> None:
    declared, expected = dataset(row), ROWS[row]
    assert declared.classes == expected.classes
    assert (declared.train_images, declared.test_images) == expected.published
    assert declared.expected("paper") == expected.paper
    assert declared.expected("honest") == expected.honest


@pytest.mark.parametrize("protocol", ["paper", "honest"])
@pytest.mark.parametrize("row", tiered(*ROWS))
def test_counts(row: str, protocol: Protocol, trees: Trees) -> None:
    expected = ROWS[row]
    raw, parts = whole(row, trees(row), protocol)
    found = (len(raw.train), len(raw.test))
    assert len(raw.classes) == len(set(raw.classes)) == expected.classes
    if protocol == "paper":
        assert found == expected.paper
        assert (len(parts.train), len(parts.test)) == expected.paper
        assert parts.val is parts.test
    elif not expected.val:
        assert (sum(found),) == expected.honest
        assert len(parts.train) + len(parts.val) + len(parts.test) == sum(found)
    else:
        assert found == expected.honest
        own = raw.val is not None
        trained = expected.honest[0] - (0 if own else expected.val)
        assert (len(parts.train), len(parts.val), len(parts.test)) == (trained, expected.val, expected.honest[1])
        names = [name for part in parts for name in part.names]
        assert len(set(names)) == len(names)
    for part in parts:
        assert np.unique(part.labels).tolist() == list(range(expected.classes))


def test_every_row_of_the_table_is_here() -> None:
    assert sorted(dataset.key for dataset in PUBLISHED) == sorted(ROWS)
    assert len(ROWS) == 19


@contextmanager
def shuffled_folders(patch: pytest.MonkeyPatch) -> Iterator[None]:
    """Let the file system list names in another order at every call."""
    scandir, listdir = os.scandir, os.listdir
    shuffle = random.Random(1)

    @contextmanager
    def scan(path: Any) -> Iterator[Iterator[os.DirEntry[str]]]:
        with scandir(path) as entries:
            found = list(entries)
        shuffle.shuffle(found)
        yield iter(found)

    with patch.context() as inner:
        inner.setattr(os, "scandir", scan)
        inner.setattr(os, "listdir", lambda path: shuffle.sample(names := listdir(path), len(names)))
        yield


@pytest.mark.parametrize("row", tiered("ucmerced", "eurosat", "plantvillage", "plantclef", "breakhis_40x"))
def test_the_order_of_the_file_system_plays_no_part(row: str, trees: Trees, monkeypatch: pytest.MonkeyPatch) -> None:
    first = trees(row)
    files = [f"{folder}/{name}"[len(f"{first}/") :] for folder, _, names in os.walk(first) for name in names]
    protocols: list[Protocol] = ["honest", "paper"] if row == "breakhis_40x" else ["honest"]
    with TemporaryDirectory(dir=first.parent) as second:
        touch(Path(second), sorted(files, reverse=True))
        for protocol in protocols:
            _, parts = whole(row, first, protocol)
            with shuffled_folders(monkeypatch):
                _, again = whole(row, Path(second), protocol)
            assert again.hash == parts.hash
            assert again.test.names == parts.test.names


def fingerprint(part: Part) -> str:
    return hashlib.sha256("\n".join(part.names).encode()).hexdigest()[:16]


PINNED = {  # of train, val and test
    "ucmerced": ("9fa2ec3e7473eb67", "ead41a3365f288a9", "bd63539efce26b51"),
    "eurosat": ("f3600ef34e14a45b", "5cd7085fbee88141", "71e10c68025c582f"),
    "plantvillage": ("6562ad32171d7e4a", "920bbf658c132af3", "3d01fa80ab7d3d35"),
    "galaxy10": ("f3dfa4c1c362fbf1", "0c72cdeaf940ec6b", "a0967ec19c42d443"),
}


@pytest.mark.parametrize("row", tiered(*PINNED))
def test_splits_are_pinned(row: str, trees: Trees) -> None:
    """Results compare only where the same images were held out: no change of ours or of a library may move one."""
    _, parts = whole(row, trees(row))
    assert tuple(fingerprint(part) for part in parts) == PINNED[row]


Labels = dict[str, int]  # name -> label from 1


def flowers_labels() -> Labels:
    (labels,) = (loadmat(DATA / "flowers102/flowers-102/imagelabels.mat", squeeze_me=True)["labels"],)
    return {f"jpg/image_{number:05}.jpg": label for number, label in enumerate(labels.tolist(), start=1)}


def cub_labels() -> Labels:
    names, labels = (columns(DATA / "cub200/CUB_200_2011" / f"{n}.txt") for n in ("images", "image_class_labels"))
    return {name: int(labels[number]) for number, name in names.items()}


def cars_labels() -> Labels:
    return {f"cars_{part}/{name}": label for part in ("train", "test") for name, label in cars_annotations(part)}


def some_dogs_labels() -> Labels:
    return dict(dogs_training())


# the row's own list, and some of its images with label and class as anybody can look them up
COUNTED_FROM_1: dict[str, tuple[Callable[[], Labels], dict[str, tuple[int, str | None]]]] = {
    # its classes.txt and folders have the number in the name
    "cub200": (cub_labels, {"001.Black_footed_Albatross/Black_Footed_Albatross_0046_18.jpg": (0, None)}),
    "flowers102": (flowers_labels, {"jpg/image_00001.jpg": (76, "passion flower")}),
    "stanford_cars": (
        cars_labels,
        {
            "cars_train/00001.jpg": (13, "Audi TTS Coupe 2012"),
            "cars_test/00001.jpg": (180, "Suzuki Aerio Sedan 2007"),
        },
    ),
    "stanford_dogs": (
        some_dogs_labels,
        {"n02116738-African_hunting_dog/n02116738_6754.jpg": (119, "n02116738-African_hunting_dog")},
    ),
}


@pytest.mark.parametrize("row", tiered(*COUNTED_FROM_1))
def test_labels_of_lists_that_count_from_1(row: str, trees: Trees) -> None:
    raw, parts = whole(row, trees(row))
    listed, known = COUNTED_FROM_1[row]
    found = {name: label for part in parts for name, label in zip(part.names, part.labels.tolist(), strict=True)}
    expected = {name: label - 1 for name, label in listed().items()}
    assert {name: found[name] for name in expected} == expected
    for name, (label, class_name) in known.items():
        assert found[name] == label
        if class_name is not None:
            assert raw.classes[label] == class_name


# which part of an image's name is its class
FOLDER_IS_CLASS = dict.fromkeys(("cub200", "dtd", "ucmerced", "breakhis_40x"), 0)
FOLDER_IS_CLASS |= dict.fromkeys(("stanford_dogs", "food101", "eurosat", "plantvillage"), 0) | {"plantclef": 1}


@pytest.mark.parametrize("row", tiered(*FOLDER_IS_CLASS))
def test_the_folder_is_the_class_and_classes_are_sorted(row: str, trees: Trees) -> None:
    raw, parts = whole(row, trees(row))
    assert list(raw.classes) == sorted(raw.classes)
    for part in parts:
        told = [raw.classes[label] for label in part.labels.tolist()]
        assert told == [name.split("/")[FOLDER_IS_CLASS[row]] for name in part.names]


@pytest.mark.slow
def test_labels_of_tinyimagenet(trees: Trees) -> None:
    """The class of a training image is its folder; validation images lie in one folder, with a list."""
    raw, parts = whole("tinyimagenet", trees("tinyimagenet"))
    assert list(raw.classes) == sorted(raw.classes)
    labels = raw.train.labels.tolist()
    assert [name.split("/")[0] for name in raw.train.names] == [raw.classes[label] for label in labels]
    lines = (DATA / "tinyimagenet/tiny-imagenet-200/val/val_annotations.txt").read_text().splitlines()
    told = {f"val/images/{line.split()[0]}": line.split()[1] for line in lines}
    labels = parts.test.labels.tolist()
    assert told == {n: raw.classes[label] for n, label in zip(parts.test.names, labels, strict=True)}


def test_labels_of_galaxy10(trees: Trees) -> None:
    raw, parts = whole("galaxy10", trees("galaxy10"))
    assert np.bincount(np.concatenate([part.labels for part in parts])).tolist() == galaxy_classes()
    assert (raw.classes[4], raw.classes[9]) == ("Cigar Shaped Smooth", "Edge-on with Bulge")


@pytest.mark.slow
def test_labels_of_rsna(trees: Trees) -> None:
    raw, parts = whole("rsna", trees("rsna"))
    assert raw.classes == ("negative", "positive")
    targets = {image: int(target) for image, target in rsna_rows()}
    for part in parts:
        assert [targets[Path(name).stem] for name in part.names] == part.labels.tolist()
    assert Counter(targets.values()) == {0: 20_672, 1: 6_012}
    assert np.bincount(parts.test.labels).tolist() == [4_135, 1_202]


def test_parts_of_dtd_are_its_first_partition(trees: Trees) -> None:
    """All three have 1,880 images, so that their numbers would not tell one from another."""
    _, parts = whole("dtd", trees("dtd"))
    for part, name in zip(parts, ("train1", "val1", "test1"), strict=True):
        assert list(part.names) == (DATA / "dtd" / "dtd" / "labels" / f"{name}.txt").read_text().split()


def groups_of(part: Part) -> set[str]:
    assert part.groups is not None
    return set(part.groups)


@pytest.mark.parametrize("magnification", [40, *(pytest.param(n, marks=pytest.mark.slow) for n in (100, 200, 400))])
@pytest.mark.parametrize("seed", [0, 1])
def test_no_patient_of_breakhis_is_in_two_parts(magnification: int, seed: int, trees: Trees) -> None:
    row = f"breakhis_{magnification}x"
    raw, _ = whole(row, trees(row))
    parts = divide(raw, "honest", seed)
    patients = [groups_of(part) for part in parts]
    assert not any(one & other for one, other in combinations(patients, 2))
    everybody = set.union(*patients)
    assert len(everybody) == 82
    assert {"14-13412", "14-22549"} <= everybody
    # the parts' own word for a patient might be wrong, the names of the files are not
    for words in (("DC_14-13412", "LC_14-13412"), ("A_14-22549AB", "A_14-22549CD")):
        sides = [{n for n, part in enumerate(parts) for name in part.names if f"_{word}/" in name} for word in words]
        assert sides[0] == sides[1]
        assert len(sides[0]) == 1
    totals = np.bincount(np.concatenate([part.labels for part in parts]))
    shares = [np.bincount(part.labels, minlength=2) / totals for part in parts]
    assert np.abs(shares[2] - 0.3).max() < 0.05
    assert np.abs(shares[1] - 0.07).max() < 0.02
    assert separate(with_pixels(parts), "honest", False, False)[1] == []


def with_pixels(parts: Splits) -> Splits:
    """The parts as if every image of their shared table had been decoded, each to other pixels."""
    table = len(parts.train.images)
    pixels, digests = np.zeros((table, 1, 1, 3), np.uint8), [f"{index:032x}" for index in range(table)]
    if parts.test.images is parts.train.images:
        return parts.map(lambda part: replace(part, images=pixels, digests=digests))
    raise ValueError("the parts don't share a table")


def test_the_leak_of_breakhis_is_told(trees: Trees) -> None:
    _, parts = whole("breakhis_40x", trees("breakhis_40x"), "paper")
    kept, notes = separate(with_pixels(parts), "paper", False, False)
    assert kept.hash == with_pixels(parts).hash
    patients = groups_of(parts.train)
    assert parts.test.groups is not None
    leaked = sum(patient in patients for patient in parts.test.groups)
    assert leaked > 590
    assert notes == [
        f"leakage: {leaked} of 600 test images ({leaked / 600:.1%}) are tied to training images: "
        f"{leaked} are of a group (a patient) that is in train"
    ]


@pytest.mark.slow
def test_the_leak_of_rsna_is_told(trees: Trees) -> None:
    _, parts = whole("rsna", trees("rsna"), "paper")
    kept, notes = separate(with_pixels(parts), "paper", False, False)
    assert (len(kept.train), len(kept.test)) == (24_181, 6_046)
    trained = {name.partition("#")[0] for name in parts.train.names}
    leaked = sum(name.partition("#")[0] in trained for name in parts.test.names)
    assert leaked / 6_046 == pytest.approx(0.186, abs=0.005)
    assert notes == [
        f"leakage: {leaked:,} of 6,046 test images ({leaked / 6_046:.1%}) are tied to training images: "
        f"{leaked:,} are training images"
    ]
    _, parts = whole("rsna", trees("rsna"))
    assert separate(with_pixels(parts), "honest", False, False)[1] == []


MEASURED = """
import os, resource, sys, time
from pathlib import Path
from engine.data.load import divide, read
from tests.scripts.test_counts import dataset

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // (2**20 if sys.platform == "darwin" else 2**10)

for row, folder in zip(sys.argv[1::2], sys.argv[2::2]):
    if os.fork():
        os.wait()
        continue
    imported, start = peak(), time.perf_counter()
    # black batches have other md5 sums than the published ones
    parts = divide(read(dataset(row), Path(folder), row.startswith("cifar"), "honest"), "honest", 0)
    parts.hash
    print(row, sum(map(len, parts)), round(time.perf_counter() - start, 2), imported, peak(), flush=True)
    os._exit(0)
"""


@pytest.mark.slow
def test_full_size_is_read_in_seconds_and_little_memory(trees: Trees, capsys: Any) -> None:
    """Each in a process of its own; what PyTorch takes to be imported depends on how it was built."""
    rows = ["cifar10", "cifar100", "tinyimagenet", "food101"]
    places = [word for row in rows for word in (row, str(trees(row)))]
    # the shell lies between, as a program that a process starts is told that process's peak as its own
    command = ["sh", "-c", '"$@"; exit $?', "sh", sys.executable, "-c", MEASURED, *places]
    done = subprocess.run(command, capture_output=True, text=True, cwd=PROJECT, check=False)
    found = [line.split() for line in done.stdout.splitlines()]
    assert [row for row, *_ in found] == rows, done.stderr
    for row, images, seconds, imported, peak in found:
        with capsys.disabled():
            print(f"\n{row}: {int(images):,} images read in {seconds} s, peak {peak} MiB ({imported} before)", end="")
        assert int(images) == sum(ROWS[row].published)
        assert float(seconds) < 30
        assert int(peak) - int(imported) < 1000
