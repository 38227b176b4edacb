"""The published files of every dataset in small: the exact layout, the real formats, a few images of one colour each.

What is in which part and of which class is written down while the files are made, without the scripts that read them.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import pickle
import tarfile
import zipfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, cached_property
from typing import Any

import h5py
import numpy as np
import pydicom
import pytest
from PIL import Image
from pydicom.encaps import encapsulate
from pydicom.uid import UID, JPEGBaseline8Bit, SecondaryCaptureImageStorage
from scipy.io import savemat
from sklearn.model_selection import train_test_split

import breakhis
import cifar10
import cifar100
import cub200
import dtd
import eurosat
import flowers102
import food101
import galaxy10
import plantclef
import plantvillage
import rsna
import stanford_cars
import stanford_dogs
import tinyimagenet
import ucmerced
from common import Dataset

Files = dict[str, bytes]
Colour = tuple[int, int, int]


@dataclass
class Fake:
    """One dataset's published files, and what they hold."""

    dataset: Dataset  # the script's, with the checksums and counts of these files
    archives: dict[str, Files | bytes]  # published file -> what the archive holds, or the file itself
    order: Mapping[int, str]  # label -> class, of those in `parts` at least
    parts: dict[str, dict[str, str]]  # part -> image -> class; "all" where the part is for the loader to choose
    colours: dict[str, Colour] = field(default_factory=dict)  # image -> the colour that it has all over
    lists: tuple[str, ...] = ()  # the dataset's own lists, paths in the folder that everything is extracted to
    removable: str = ""  # a file that can be missing, a path in the same folder,
    named: str = ""  # and what tells the user that it is
    inside: str = ""  # the folder that the archives are extracted into, where they have none of their own
    groups: dict[str, str] = field(default_factory=dict)  # image -> patient

    @cached_property
    def bodies(self) -> Files:
        """The published files, as bytes."""
        return {name: packed(name, content) for name, content in self.archives.items()}

    @cached_property
    def extracted(self) -> Files:
        """What the data folder holds once everything is extracted, without the archives."""
        prefix = f"{self.inside}/" if self.inside else ""
        found: Files = {}
        for name, content in self.archives.items():
            members = {name: content} if isinstance(content, bytes) else content
            found |= {prefix + path: body for path, body in members.items()}
        return found


def packed(name: str, content: Mapping[str, bytes] | bytes) -> bytes:
    """The file itself, or an archive of the kind that its name says."""
    if isinstance(content, bytes):
        return content
    buffer = io.BytesIO()
    if name.endswith(".zip"):
        with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as zipped:
            for path, body in content.items():
                zipped.writestr(zipfile.ZipInfo(path), body)
        return buffer.getvalue()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for path, body in content.items():
            member = tarfile.TarInfo(path)
            member.size = len(body)
            tar.addfile(member, io.BytesIO(body))
    whole = buffer.getvalue()
    return whole if name.endswith(".tar") else gzip.compress(whole, mtime=0)  # the same content, the same bytes


class Painter:
    """Images of one colour each, no two of the same."""

    def __init__(self) -> None:
        self.number = 0
        self.colours: dict[str, Colour] = {}

    def colour(self, name: str) -> Colour:
        """The next colour, which becomes that of the image `name`."""
        self.number += 1
        colour = (self.number * 37 % 256, self.number * 91 % 256, self.number * 53 % 256)
        if name:
            self.colours[name] = colour
        return colour

    def image(self, name: str, kind: str = "JPEG", mode: str = "RGB", size: tuple[int, int] = (8, 6)) -> bytes:
        """An image file; a grey one has the colour's first value, a half transparent one lies on white."""
        colour = self.colour(name)
        if mode == "L":
            self.colours[name] = (colour[0],) * 3
            picture = Image.new("L", size, colour[0])
        elif mode == "RGBA":
            red, green, blue = ((value + 255) // 2 for value in colour)
            self.colours[name] = (red, green, blue)
            picture = Image.new("RGBA", size, (*colour, 128))
        else:
            picture = Image.new(mode, size, colour)
        buffer = io.BytesIO()
        picture.save(buffer, kind, **({"quality": 98, "subsampling": 0} if kind == "JPEG" else {}))
        return buffer.getvalue()


def declared(dataset: Dataset, archives: Mapping[str, Files | bytes], **changes: Any) -> Dataset:
    """The declaration with the fake files' checksums and sizes, where it states any."""
    files = []
    for file in dataset.files:
        body = packed(file.name, archives[file.name])
        algorithm = (file.checksum or "").partition(":")[0]
        checksum = f"{algorithm}:{hashlib.new(algorithm, body).hexdigest()}" if algorithm else None
        files.append(replace(file, checksum=checksum, bytes=None if file.bytes is None else len(body)))
    by_name = {file.name: file for file in files}
    alternatives = tuple(tuple(by_name.get(file.name, file) for file in group) for group in dataset.alternative_files)
    return replace(dataset, files=tuple(files), alternative_files=alternatives, **changes)


def matlab(**arrays: Any) -> bytes:
    """A MATLAB file."""
    buffer = io.BytesIO()
    savemat(buffer, arrays)
    return buffer.getvalue()


def cells(values: Sequence[str], across: bool = False) -> Any:
    """A MATLAB cell array of texts, as a column or as a row."""
    array = np.empty(len(values), dtype=object)
    array[:] = values
    return array.reshape((1, -1) if across else (-1, 1))


def lines(*values: str) -> bytes:
    """A text file."""
    return "".join(f"{value}\n" for value in values).encode()


def split(names: Sequence[str], test_size: float) -> tuple[set[str], set[str]]:
    """The rule that the published counts follow, for the names of one class."""
    train, test = train_test_split(sorted(names), test_size=test_size, random_state=42)
    return set(train), set(test)


def split_classes(images: Mapping[str, str], test_size: float) -> dict[str, dict[str, str]]:
    """Image -> class, divided into train and test, one class at a time."""
    parts: dict[str, dict[str, str]] = {"train": {}, "test": {}}
    for label in sorted(set(images.values())):
        for part, names in zip(parts, split([n for n, own in images.items() if own == label], test_size), strict=True):
            parts[part] |= dict.fromkeys(names, label)
    return parts


def cifar(
    dataset: Dataset, folder: str, batches: Mapping[str, str], meta: Files, key: str, names: Sequence[str]
) -> Fake:
    """Pickles as Python 2 wrote them; `batches` is file -> part."""
    painter, content = Painter(), dict(meta)
    parts: dict[str, dict[str, str]] = {"train": {}, "test": {}}
    for batch, part in batches.items():
        labels = [(index * 3 + len(content)) % len(names) for index in range(6)]
        images = [f"{batch}/{index:05}" for index in range(len(labels))]
        rows = [np.repeat(painter.colour(image), 1024) for image in images]
        parts[part] |= {image: names[label] for image, label in zip(images, labels, strict=True)}
        content[batch] = python2(
            {
                "batch_label": batch,
                "data": np.stack(rows).astype(np.uint8),
                "filenames": [f"x_s_{index:06}.png" for index in range(len(labels))],
                key: labels,
                **({"coarse_labels": [label % 20 for label in labels]} if key == "fine_labels" else {}),
            }
        )
    archives: dict[str, Files | bytes] = {
        dataset.files[0].name: {f"{folder}/readme.html": b"<html></html>"}
        | {f"{folder}/{name}": body for name, body in content.items()}
    }
    changed = declared(dataset, archives, train_images=len(parts["train"]), test_images=len(parts["test"]))
    meta_name = next(iter(meta))
    removable = next(iter(batches))
    return Fake(
        changed,
        archives,
        dict(enumerate(names)),
        parts,
        painter.colours,
        lists=tuple(f"{folder}/{name}" for name in (meta_name, *batches)),
        removable=f"{folder}/{removable}",
        named=removable,
    )


def python2(content: Any) -> bytes:
    """A pickle of protocol 2, the highest that Python 2 knew."""
    return pickle.dumps(content, protocol=2)


def make_cifar10() -> Fake:
    names = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
    batches = {f"data_batch_{number}": "train" for number in range(1, 6)} | {"test_batch": "test"}
    meta = {"batches.meta": python2({"num_cases_per_batch": 6, "label_names": names, "num_vis": 3072})}
    fake = cifar(cifar10.DATASET, "cifar-10-batches-py", batches, meta, "labels", names)
    return replace(fake, removable="cifar-10-batches-py/data_batch_4", named="data_batch_4")


def make_cifar100() -> Fake:
    names = [f"thing_{number:03}" for number in range(100)]
    meta = {"meta": python2({"fine_label_names": names, "coarse_label_names": [f"group_{n}" for n in range(20)]})}
    batches = {"train": "train", "test": "test"}
    # both parts are one file each: without one there is nothing left to accept
    fake = cifar(cifar100.DATASET, "cifar-100-python", batches, meta, "fine_labels", names)
    return replace(fake, removable="", named="")


def make_tinyimagenet() -> Fake:
    painter, top = Painter(), "tiny-imagenet-200"
    wnids = ("n02123045", "n01443537", "n01629819")
    content = {f"{top}/wnids.txt": lines(*wnids), f"{top}/words.txt": lines("n01443537\tgoldfish, Carassius auratus")}
    parts: dict[str, dict[str, str]] = {"train": {}, "test": {}}
    for wnid in wnids:
        for index in range(3):
            name = f"{wnid}/images/{wnid}_{index}.JPEG"
            content[f"{top}/train/{name}"] = painter.image(name, mode="L" if index == 1 else "RGB")
            parts["train"][name] = wnid
        content[f"{top}/train/{wnid}/{wnid}_boxes.txt"] = lines(*(f"{wnid}_{i}.JPEG\t0\t10\t63\t58" for i in range(3)))
    rows = []
    for index in range(6):
        wnid, name = wnids[index % 3], f"val/images/val_{index}.JPEG"
        content[f"{top}/{name}"] = painter.image(name, mode="L" if index == 4 else "RGB")
        parts["test"][name] = wnid
        rows.append(f"val_{index}.JPEG\t{wnid}\t0\t32\t44\t62")
    content[f"{top}/val/val_annotations.txt"] = lines(*rows)
    for index in range(2):
        content[f"{top}/test/images/test_{index}.JPEG"] = painter.image("")
    archives: dict[str, Files | bytes] = {"tiny-imagenet-200.zip": content}
    dataset = declared(tinyimagenet.DATASET, archives, classes=3, train_images=9, test_images=6, class_images=5)
    return Fake(
        dataset,
        archives,
        dict(enumerate(sorted(wnids))),
        parts,
        painter.colours,
        lists=(f"{top}/wnids.txt", f"{top}/val/val_annotations.txt"),
        removable=f"{top}/val/images/val_2.JPEG",
        named="val/images/val_2.JPEG",
    )


def make_stanford_dogs() -> Fake:
    painter = Painter()
    breeds = {"n02085620-Chihuahua": (7, 1271, 199), "n02105855-Shetland_sheepdog": (2933, 19, 5)}
    images: Files = {}
    lists: dict[str, list[str]] = {"train": [], "test": []}
    parts: dict[str, dict[str, str]] = {"train": {}, "test": {}}
    for breed, numbers in breeds.items():
        for position, number in enumerate(numbers):
            name = f"{breed}/{breed.partition('-')[0]}_{number}.jpg"
            kind, mode = ("PNG", "RGBA") if number == 2933 else ("JPEG", "RGB")
            images[f"Images/{name}"] = painter.image(name, kind, mode, size=(8 + position, 6))
            part = "test" if position == 2 else "train"
            lists[part].append(name)
            parts[part][name] = breed
    lists["file"] = lists["train"] + lists["test"]
    numbered = {breed: number for number, breed in enumerate(breeds, 1)}
    archives: dict[str, Files | bytes] = {
        "lists.tar": {
            f"{kind}_list.mat": matlab(
                file_list=cells(names),
                annotation_list=cells([name.removesuffix(".jpg") for name in names]),
                labels=np.array([[numbered[name.partition("/")[0]]] for name in names], dtype=np.uint8),
            )
            for kind, names in lists.items()
        },
        "images.tar": images,
    }
    return Fake(
        declared(stanford_dogs.DATASET, archives, classes=2, train_images=4, test_images=2),
        archives,
        dict(enumerate(breeds)),
        parts,
        painter.colours,
        lists=("train_list.mat", "test_list.mat"),
        removable="Images/n02085620-Chihuahua/n02085620_1271.jpg",
        named="n02085620_1271.jpg",
    )


def make_flowers102() -> Fake:
    painter = Painter()
    names = {77: "passion flower", 1: "pink primrose", 102: "blackberry lily"}
    labels = [77, 77, 1, 102, 1, 102, 77, 1, 102, 77]
    setid = {"trnid": [8, 2, 4], "valid": [6, 3, 1], "tstid": [5, 10, 7, 9]}
    jpg: Files = {}
    parts: dict[str, dict[str, str]] = {"train": {}, "test": {}}
    for kind, numbers in setid.items():
        for number in numbers:
            name = f"jpg/image_{number:05}.jpg"
            parts["test" if kind == "tstid" else "train"][name] = names[labels[number - 1]]
    for number in range(1, len(labels) + 1):
        name = f"jpg/image_{number:05}.jpg"
        jpg[name] = painter.image(name)
    archives: dict[str, Files | bytes] = {
        "imagelabels.mat": matlab(labels=np.array([labels], dtype=np.uint8)),
        "setid.mat": matlab(**{kind: np.array([numbers], dtype=np.uint16) for kind, numbers in setid.items()}),
        "102flowers.tgz": jpg,
    }
    return Fake(
        declared(flowers102.DATASET, archives, train_images=6, test_images=4),
        archives,
        {number - 1: name for number, name in names.items()},
        parts,
        painter.colours,
        lists=("flowers-102/imagelabels.mat", "flowers-102/setid.mat"),
        removable="flowers-102/jpg/image_00003.jpg",
        named="jpg/image_00003.jpg",
        inside="flowers-102",
    )


def make_cub200() -> Fake:
    painter, top = Painter(), "CUB_200_2011"
    birds = {1: "001.Black_footed_Albatross", 2: "002.Laysan_Albatross", 10: "010.Red_winged_Blackbird"}
    content: Files = {"attributes.txt": lines("1 has_bill_shape::curved_(up_or_down)"), f"{top}/README": b"Birds\n"}
    parts: dict[str, dict[str, str]] = {"train": {}, "test": {}}
    rows: dict[str, list[str]] = {"images": [], "image_class_labels": [], "train_test_split": []}
    image = 0
    for number, bird in birds.items():
        for index in range(4):
            image += 1
            name = f"{bird}/{bird[4:]}_{index:04}_{700 + image}.jpg"
            content[f"{top}/images/{name}"] = painter.image(name, mode="L" if index == 2 else "RGB")
            part = "test" if (index + number) % 2 else "train"
            parts[part][name] = bird
            rows["images"].append(f"{image} {name}")
            rows["image_class_labels"].append(f"{image} {number}")
            rows["train_test_split"].append(f"{image} {int(part == 'train')}")
    rows["classes"] = [f"{number} {bird}" for number, bird in birds.items()]
    rows["bounding_boxes"] = [f"{number} 60.0 27.0 325.0 304.0" for number in range(1, image + 1)]
    content |= {f"{top}/{name}.txt": lines(*row) for name, row in rows.items()}
    content[f"{top}/parts/parts.txt"] = lines("1 back", "2 beak")
    archives: dict[str, Files | bytes] = {"CUB_200_2011.tgz": content}
    gone = list(parts["test"])[1]
    return Fake(
        declared(cub200.DATASET, archives, classes=3, train_images=6, test_images=6),
        archives,
        dict(enumerate(birds.values())),
        parts,
        painter.colours,
        lists=tuple(f"{top}/{name}.txt" for name in list(rows)[:4]),
        removable=f"{top}/images/{gone}",
        named=gone,
    )


CARS = ("AM General Hummer SUV 2000", "Ram C/V Cargo Van Minivan 2012", "Acura RL Sedan 2012")
BOX = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2")


def structures(names: Sequence[str], labels: Sequence[int] | None) -> bytes:
    """A MATLAB structure array as the authors of Stanford Cars made it."""
    fields = [*BOX, *(["class"] if labels else []), "fname"]
    rows = np.empty((1, len(names)), dtype=[(name, object) for name in fields])
    for index, name in enumerate(names):
        rows[0, index] = (1, 1, 7, 5, *([labels[index]] if labels else []), name)
    return matlab(annotations=rows)


def make_stanford_cars() -> Fake:
    painter = Painter()
    content: dict[str, Files] = {"cars_train": {}, "cars_test": {}}
    parts: dict[str, dict[str, str]] = {"train": {}, "test": {}}
    names = [f"{index:05}.jpg" for index in range(1, 7)]
    labels = {"cars_train": [3, 1, 2, 2, 3, 1], "cars_test": [2, 3, 1, 3, 1, 2]}
    for folder, images in content.items():
        for name, label in zip(names, labels[folder], strict=True):
            path = f"{folder}/{name}"
            images[path] = painter.image(path, mode="L" if name == "00004.jpg" else "RGB")
            parts[folder.removeprefix("cars_")][path] = CARS[label - 1]
    archives: dict[str, Files | bytes] = {
        "cars_train.tgz": content["cars_train"],
        "cars_test.tgz": content["cars_test"],
        "car_devkit.tgz": {
            "devkit/README.txt": b"Cars\n",
            "devkit/cars_meta.mat": matlab(class_names=cells(CARS, across=True)),
            "devkit/cars_train_annos.mat": structures(names, labels["cars_train"]),
            "devkit/cars_test_annos.mat": structures(names, None),
        },
        "cars_test_annos_withlabels.mat": structures(names, labels["cars_test"]),
    }
    return Fake(
        declared(stanford_cars.DATASET, archives, classes=3, train_images=6, test_images=6),
        archives,
        dict(enumerate(CARS)),
        parts,
        painter.colours,
        lists=(
            "stanford_cars/devkit/cars_meta.mat",
            "stanford_cars/devkit/cars_train_annos.mat",
            "stanford_cars/cars_test_annos_withlabels.mat",
        ),
        removable="stanford_cars/cars_test/00003.jpg",
        named="cars_test/00003.jpg",
        inside="stanford_cars",
    )


def make_food101() -> Fake:
    painter, top = Painter(), "food-101"
    content: Files = {f"{top}/license_agreement.txt": b"fair use\n", f"{top}/README.txt": b"Food\n"}
    dishes = ("apple_pie", "baklava", "churros")
    parts: dict[str, dict[str, str]] = {"train": {}, "test": {}}
    lists: dict[str, dict[str, list[str]]] = {"train": {}, "test": {}}
    for dish in reversed(dishes):
        for index in range(4):
            part = "test" if index == 3 else "train"
            stem = f"{dish}/{1004234 - 7 * index}"
            lists[part].setdefault(dish, []).append(stem)
            name = f"{stem}.jpg"
            content[f"{top}/images/{name}"] = painter.image(name, mode="L" if index == 2 else "RGB")
            parts[part][name] = dish
    for part, listed in lists.items():
        content[f"{top}/meta/{part}.json"] = json.dumps(listed).encode()
        content[f"{top}/meta/{part}.txt"] = lines(*(stem for stems in listed.values() for stem in stems))
    content[f"{top}/meta/classes.txt"] = lines(*dishes)
    content[f"{top}/meta/labels.txt"] = lines("Apple pie", "Baklava", "Churros")
    archives: dict[str, Files | bytes] = {"food-101.tar.gz": content}
    return Fake(
        declared(food101.DATASET, archives, classes=3, train_images=9, test_images=3, class_images=4),
        archives,
        dict(enumerate(dishes)),
        parts,
        painter.colours,
        lists=(f"{top}/meta/train.json", f"{top}/meta/test.json"),
        removable=f"{top}/images/baklava/1004227.jpg",
        named="baklava/1004227.jpg",
    )


def make_dtd() -> Fake:
    painter, top = Painter(), "dtd"
    content: Files = {}
    parts: dict[str, dict[str, str]] = {"train": {}, "test": {}, "val": {}}
    listed: dict[str, list[str]] = {f"{part}{n}": [] for n in (1, 2) for part in ("train", "val", "test")}
    for texture in ("banded", "polka-dotted", "zigzagged"):
        for index in range(6):
            name = f"{texture}/{texture}_{index:04}.jpg"
            content[f"{top}/images/{name}"] = painter.image(name)
            kind = ("train", "val", "test")[index % 3]
            parts[kind][name] = texture
            listed[f"{kind}1"].append(name)
            listed[("train", "val", "test")[(index + 1) % 3] + "2"].append(name)
    content |= {f"{top}/labels/{name}.txt": lines(*names) for name, names in listed.items()}
    content[f"{top}/labels/labels_joint_anno.txt"] = lines("banded/banded_0000.jpg banded zigzagged ")
    content[f"{top}/imdb/imdb.mat"] = matlab(images=np.zeros((1, 1)))
    archives: dict[str, Files | bytes] = {"dtd-r1.0.1.tar.gz": content}
    return Fake(
        declared(dtd.DATASET, archives, classes=3, train_images=6, test_images=6, val_images=6),
        archives,
        dict(enumerate(("banded", "polka-dotted", "zigzagged"))),
        parts,
        painter.colours,
        lists=tuple(f"{top}/labels/{part}1.txt" for part in ("train", "val", "test")),
        removable=f"{top}/images/banded/banded_0002.jpg",
        named="banded/banded_0002.jpg",
    )


def make_ucmerced() -> Fake:
    painter, top = Painter(), "UCMerced_LandUse"
    content: Files = {f"{top}/readme.txt": b"Land\n"}
    images: dict[str, str] = {}
    for land in ("agricultural", "airplane", "tenniscourt"):
        for index in range(7):
            name = f"{land}/{land}{index:02}.tif"
            content[f"{top}/Images/{name}"] = painter.image(name, "TIFF", size=(16 - index % 3, 16 - index % 2))
            images[name] = land
    archives: dict[str, Files | bytes] = {"UCMerced_LandUse.zip": content}
    return Fake(
        declared(ucmerced.DATASET, archives, classes=3, train_images=15, test_images=6, class_images=7),
        archives,
        dict(enumerate(("agricultural", "airplane", "tenniscourt"))),
        split_classes(images, 0.2),
        painter.colours,
        removable=f"{top}/Images/airplane/airplane03.tif",
        named="airplane",
    )


def make_eurosat() -> Fake:
    painter = Painter()
    content: Files = {}
    images: dict[str, str] = {}
    for land, count in {"AnnualCrop": 7, "Forest": 5, "SeaLake": 4}.items():
        for index in range(1, count + 1):
            name = f"{land}/{land}_{index}.jpg"
            content[f"2750/{name}"] = painter.image(name)
            images[name] = land
    archives: dict[str, Files | bytes] = {"EuroSAT.zip": content}
    return Fake(
        declared(
            eurosat.DATASET,
            archives,
            classes=3,
            train_images=9,
            test_images=7,
            class_images=dict(Counter(images.values())),
        ),
        archives,
        dict(enumerate(("AnnualCrop", "Forest", "SeaLake"))),
        split_classes(images, 0.3),
        painter.colours,
        removable="2750/Forest/Forest_2.jpg",
        named="Forest",
    )


def make_plantvillage() -> Fake:
    painter, top = Painter(), "Plant_leave_diseases_dataset_without_augmentation"
    leaves = (
        "Apple___Apple_scab",
        "Background_without_leaves",
        "Corn___Cercospora_leaf_spot Gray_leaf_spot",
        "Grape___Esca_(Black_Measles)",
        "Pepper,_bell___healthy",
        "Tomato___healthy",
    )
    endings = {"JPG": "JPEG", "jpg": "JPEG", "JPEG": "JPEG", "png": "PNG", "jpeg": "JPEG"}
    content: Files = {}
    images: dict[str, str] = {}
    for leaf in leaves:
        for index, (ending, kind) in enumerate(endings.items(), 1):
            name = f"{leaf}/image ({index}).{ending}"
            content[f"{top}/{name}"] = painter.image(name, kind)
            images[name] = leaf
    archives: dict[str, Files | bytes] = {"Plant_leaf_diseases_dataset_without_augmentation.zip": content}
    return Fake(
        declared(
            plantvillage.DATASET,
            archives,
            classes=6,
            train_images=24,
            test_images=6,
            class_images=dict(Counter(images.values())),
        ),
        archives,
        dict(enumerate(leaves)),
        split_classes(images, 0.2),
        painter.colours,
        removable=f"{top}/Grape___Esca_(Black_Measles)/image (4).png",
        named="Grape___Esca_(Black_Measles)",
    )


def make_plantclef() -> Fake:
    painter, top = Painter(), "PlantCLEF_Subset"
    content: Files = {f"{top}/labels.txt": lines("ash", "beech", "cattail")}
    parts: dict[str, dict[str, str]] = {"train": {}, "test": {}}
    for plant in ("ash", "beech", "cattail"):
        for index in range(4):
            name = f"{'val' if index == 0 else 'train'}/{plant}/{plant}-{index}{index}.jpg"
            content[f"{top}/{name}"] = painter.image(name)
            parts["train" if index else "test"][name] = plant
    for index in range(3):
        content[f"{top}/test/{index}.jpg"] = painter.image("")
    archives: dict[str, Files | bytes] = {"PlantCLEF_Subset.tar.gz": content}
    return Fake(
        declared(plantclef.DATASET, archives, classes=3, train_images=9, test_images=3),
        archives,
        dict(enumerate(("ash", "beech", "cattail"))),
        parts,
        painter.colours,
        removable=f"{top}/train/ash/ash-22.jpg",
        named="8 train images instead of 9",  # nobody publishes how many images each class has
    )


def make_galaxy10() -> Fake:
    painter = Painter()
    classes = (
        "Disturbed",
        "Merging",
        "Round Smooth",
        "In-between Round Smooth",
        "Cigar Shaped Smooth",
        "Barred Spiral",
        "Unbarred Tight Spiral",
        "Unbarred Loose Spiral",
        "Edge-on without Bulge",
        "Edge-on with Bulge",
    )
    labels = [label for label in range(10) for _ in range(3)]
    names = [f"{index:05}" for index in range(len(labels))]
    buffer = io.BytesIO()
    with h5py.File(buffer, "w") as file:
        pixels = np.stack([np.full((8, 8, 3), painter.colour(name), np.uint8) for name in names])
        file.create_dataset("images", data=pixels, chunks=(4, 8, 8, 1), compression="gzip")
        file["ans"] = np.array(labels, dtype=np.uint8)
        for name in ("ra", "dec", "redshift", "pxscale"):
            file[name] = np.linspace(0, 1, len(labels))
    archives: dict[str, Files | bytes] = {"Galaxy10_DECals.h5": buffer.getvalue()}
    train, test = train_test_split(np.arange(len(labels)), test_size=0.1, random_state=42)
    parts = {
        part: {names[index]: classes[labels[index]] for index in indices}
        for part, indices in {"train": train, "test": test}.items()
    }
    return Fake(
        declared(galaxy10.DATASET, archives, train_images=27, test_images=3, class_images=dict.fromkeys(classes, 3)),
        archives,
        dict(enumerate(classes)),
        parts,
        painter.colours,
    )


SLIDES = (
    ("benign", "adenosis", "B", "A", "14-22549", "AB"),
    ("benign", "adenosis", "B", "A", "14-22549", "CD"),
    ("benign", "fibroadenoma", "B", "F", "14-9133", ""),
    ("benign", "phyllodes_tumor", "B", "PT", "14-21998", "AB"),
    ("benign", "tubular_adenoma", "B", "TA", "14-3411", "F"),
    ("malignant", "ductal_carcinoma", "M", "DC", "14-13412", ""),
    ("malignant", "lobular_carcinoma", "M", "LC", "14-13412", ""),
    ("malignant", "ductal_carcinoma", "M", "DC", "14-2523", ""),
    ("malignant", "mucinous_carcinoma", "M", "MC", "14-10147", ""),
    ("malignant", "papillary_carcinoma", "M", "PC", "14-9146", ""),
)


@cache
def slides() -> tuple[Files, dict[int, dict[str, str]], dict[str, Colour], dict[str, str]]:
    """The archive of BreakHis; by magnification its images with their classes; their colours; their patients."""
    painter, top = Painter(), "BreaKHis_v1/histology_slides/breast"
    content: Files = {f"{top}/README.txt": b"Slides\n", f"{top}/count_files.py": b"print(7909)\n"}
    images: dict[int, dict[str, str]] = {}
    patients: dict[str, str] = {}
    for power, count in ((40, 3), (100, 2), (200, 4), (400, 2)):
        images[power] = {}
        for label, tumour, kind, abbreviation, patient, slide in SLIDES:
            folder = f"{label}/SOB/{tumour}/SOB_{kind}_{abbreviation}_{patient}{slide}/{power}X"
            for index in range(1, count + 1):
                name = f"{folder}/SOB_{kind}_{abbreviation}-{patient}{slide}-{power}-{index:03}.png"
                content[f"{top}/{name}"] = painter.image(name, "PNG", size=(10, 7))
                images[power][name] = label
                patients[name] = patient
    return content, images, painter.colours, patients


def make_breakhis(power: int) -> Fake:
    content, all_images, colours, patients = slides()
    images = all_images[power]
    archives: dict[str, Files | bytes] = {"BreaKHis_v1.tar.gz": content}
    held = 0
    for label in ("benign", "malignant"):
        names = [name for name, own in images.items() if own == label]
        held += len(train_test_split(names, test_size=0.2 + 0.1, random_state=42)[1])
    gone = list(images)[1]
    return Fake(
        declared(
            breakhis.MAGNIFICATIONS[power],
            archives,
            counts={"paper": (len(images) - held, held), "honest": (len(images),)},
            class_images=dict(Counter(images.values())),
        ),
        archives,
        {0: "benign", 1: "malignant"},
        {"all": images},
        colours,
        removable=f"BreaKHis_v1/histology_slides/breast/{gone}",
        named="benign",
        groups=patients,
    )


def dicom(painter: Painter, name: str) -> bytes:
    """A radiograph as the challenge has them: grey, 8 bits, JPEG baseline."""
    picture = painter.image(name, mode="L", size=(8, 8))
    header = pydicom.Dataset()
    header.file_meta = pydicom.dataset.FileMetaDataset()
    header.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    header.file_meta.MediaStorageSOPClassUID = header.SOPClassUID = SecondaryCaptureImageStorage
    header.file_meta.MediaStorageSOPInstanceUID = header.SOPInstanceUID = UID(f"1.2.276.0.7230010.{painter.number}")
    header.PatientID = name.rpartition("/")[2].removesuffix(".dcm")
    header.Modality, header.ViewPosition = "CR", "PA"
    header.SamplesPerPixel, header.PhotometricInterpretation = 1, "MONOCHROME2"
    header.Rows = header.Columns = 8
    header.BitsAllocated = header.BitsStored = 8
    header.HighBit, header.PixelRepresentation = 7, 0
    header.LossyImageCompression, header.LossyImageCompressionMethod = "01", "ISO_10918_1"
    header.PixelData = encapsulate([picture])
    buffer = io.BytesIO()
    pydicom.dcmwrite(buffer, header, enforce_file_format=True)
    return buffer.getvalue()


def make_rsna() -> Fake:
    painter = Painter()
    # images with so many boxes; none: without signs of pneumonia
    boxes = {
        f"{number * 7919 % 65536:08x}-55d7-4d95-8957-{number:012x}": (0, 0, 2, 0, 0, 1, 0, 3)[number % 8]
        for number in range(24)
    }
    rows, info, images, content = [], [], {}, {}
    for image, count in boxes.items():
        name = f"stage_2_train_images/{image}.dcm"
        content[name] = dicom(painter, name)
        images[name] = "positive" if count else "negative"
        rows += [f"{image},{10.0 * box},152.0,213.0,379.0,1" for box in range(count)] or [f"{image},,,,,0"]
        info += [f"{image},{'Lung Opacity' if count else 'Normal'}"] * max(count, 1)
    content["stage_2_train_labels.csv"] = lines("patientId,x,y,width,height,Target", *rows)
    content["stage_2_detailed_class_info.csv"] = lines("patientId,class", *info)
    content["stage_2_sample_submission.csv"] = lines("patientId,PredictionString")
    content["stage_2_test_images/0000a175-0e68-4ca4-b1af-167204a7e0bc.dcm"] = dicom(painter, "")
    painter.colours.pop("", None)
    archives: dict[str, Files | bytes] = {"rsna-pneumonia-detection-challenge.zip": content}
    names = sorted(images)
    train, test = train_test_split(names, test_size=0.2, random_state=42, stratify=[images[name] for name in names])
    held = -(-len(rows) // 5)
    return Fake(
        declared(
            rsna.DATASET,
            archives,
            train_images=len(rows) - held,
            test_images=held,
            counts={"honest": (len(train), len(test))},
        ),
        archives,
        {0: "negative", 1: "positive"},
        {"train": {name: images[name] for name in train}, "test": {name: images[name] for name in test}},
        painter.colours,
        lists=("rsna-pneumonia-detection-challenge/stage_2_train_labels.csv",),
        removable=f"rsna-pneumonia-detection-challenge/{names[3]}",
        named=names[3],
        inside="rsna-pneumonia-detection-challenge",
    )


MAKERS: dict[str, Callable[[], Fake]] = {
    "cifar10": make_cifar10,
    "cifar100": make_cifar100,
    "tinyimagenet": make_tinyimagenet,
    "stanford_dogs": make_stanford_dogs,
    "flowers102": make_flowers102,
    "cub200": make_cub200,
    "stanford_cars": make_stanford_cars,
    "food101": make_food101,
    "dtd": make_dtd,
    "ucmerced": make_ucmerced,
    "eurosat": make_eurosat,
    "plantvillage": make_plantvillage,
    "plantclef": make_plantclef,
    "galaxy10": make_galaxy10,
    "breakhis_40x": lambda: make_breakhis(40),
    "breakhis_100x": lambda: make_breakhis(100),
    "breakhis_200x": lambda: make_breakhis(200),
    "breakhis_400x": lambda: make_breakhis(400),
    "rsna": make_rsna,
}

made = cache(lambda key: MAKERS[key]())


def fake(key: str, monkeypatch: pytest.MonkeyPatch) -> Fake:
    """The fake of one dataset; for CIFAR, the script's list of checksums becomes that of the fake."""
    found: Fake = made(key)
    if key in ("cifar10", "cifar100"):
        script = cifar10 if key == "cifar10" else cifar100
        sums = {path.rpartition("/")[2]: hashlib.md5(body).hexdigest() for path, body in found.extracted.items()}
        kinds = {kind: getattr(script.BATCHES, kind) for kind in ("train", "test", "meta")}
        own: dict[str, Any] = {kind: {name: sums[name] for name in names} for kind, names in kinds.items()}
        monkeypatch.setattr(script, "BATCHES", replace(script.BATCHES, **own))
    return found
