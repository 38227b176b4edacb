"""Names of classes that are perhaps the same, and the many that look so and are not."""

import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from scipy.io import loadmat
from torchvision.models import ResNet50_Weights

from engine.data.twins import near_twins


@pytest.mark.parametrize(
    "names",
    [
        ("apple_pie", "apple_pies"),
        ("Dog", "dogs"),
        ("berries", "berry"),
        ("potato", "potatoes"),
        ("cheese-cake", "cheesecake"),
        ("SeaLake", "sea lake"),
        ("apple pie", "apple_pie", "applepie"),
        ("apple", "apple "),
        (" !!", "!!"),
        ("cafe", "caf\u00e9", "cafe\u0301"),
        ("healthy", "healty"),
        ("receive", "recieve"),
        ("seperate", "separate"),
        ("strawberry", "strawbery"),
        ("Strawberry", "strawberry", "strawbery"),
        ("Quercus robur", "Quercus robbur"),
    ],
)
def test_names_that_are_perhaps_the_same(names: tuple[str, ...]) -> None:
    assert near_twins([*names, "something else"]) == [sorted(names)]


@pytest.mark.parametrize(
    "names",
    [
        ("class_01", "class_02", "class_11"),
        ("class_1_1", "class_11"),
        ("rose_a", "rose_b"),
        ("typeA", "typeB"),
        ("grade 1", "grade 10"),
        ("stage I", "stage II", "stage III"),
        ("hand_l", "hand_r"),
        ("HER2+", "HER2-"),
        ("cat", "cot"),
        ("horse", "house", "mouse"),
        ("goose", "moose"),
        ("eagle", "beagle"),
        ("plane", "plate"),
        ("typical", "atypical"),
        ("male", "female"),
        ("a", "as"),
        ("\u30cf", "\u30d0"),
        ("\u82f9\u679c", "\u82f9\u679c\u6d3e"),
        ("", "x"),
        (),
        *[tuple(f"sort {letter}estrel" for letter in "kmnprstvwz")],
    ],
)
def test_names_that_are_meant_to_differ(names: tuple[str, ...]) -> None:
    assert near_twins(names) == []


def cars(data: Path) -> list[str]:
    return [*loadmat(data / "stanford_cars/devkit/cars_meta.mat", simplify_cells=True)["class_names"]]


def dogs(data: Path) -> list[str]:
    files = loadmat(data / "stanford_dogs/lists/train_list.mat", simplify_cells=True)["file_list"]
    return sorted({file.partition("/")[0].partition("-")[2] for file in files})


def lines(path: str) -> Callable[[Path], list[str]]:
    return lambda data: (data / path).read_text("utf-8").splitlines()


REAL: dict[str, tuple[int, Callable[[Path], Any]]] = {
    "food101": (101, lines("food101/food-101/meta/classes.txt")),
    "cub200": (200, lambda data: [line.partition(".")[2] for line in lines("cub200/CUB_200_2011/classes.txt")(data)]),
    "cars": (196, cars),
    "dogs": (120, dogs),
    "dtd": (47, lambda data: {line.partition("/")[0] for line in lines("dtd/dtd/labels/train1.txt")(data)}),
    "tinyimagenet": (200, lines("tinyimagenet/tiny-imagenet-200/wnids.txt")),
}


@pytest.mark.parametrize("name", REAL)
def test_no_false_alarm_among_the_classes_of_published_datasets(name: str, shared_data: Path) -> None:
    count, classes = REAL[name]
    names = list(classes(shared_data))
    assert len(names) == count
    assert near_twins(names) == []


def test_imagenet_has_classes_of_one_name() -> None:
    """A dog and a jacket, and one thing twice: twins indeed. The others are none."""
    names = ResNet50_Weights.IMAGENET1K_V1.meta["categories"]
    assert near_twins(names) == [["Cardigan", "cardigan"], ["sunglass", "sunglasses"]]


def test_many_names_take_no_time() -> None:
    begin = time.perf_counter()
    assert near_twins(f"class {number} of the herbarium" for number in range(5_000)) == []
    assert time.perf_counter() - begin < 5
