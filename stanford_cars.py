"""Stanford Cars: 196 makes, models and years of cars. To be got by hand: the original server is gone.

    python stanford_cars.py -model convnext -bs 64

What      16,185 colour photographs, a few of them grey
Counts    train 8,144, test 8,041: the official split, about half of each class
Input     256x256 pixels; no augmentation
Traps     devkit/cars_test_annos.mat has no labels: cars_test_annos_withlabels.mat has. The file names of train and test
          are the same. The class 'Ram C/V Cargo Van Minivan 2012' can't be the name of a folder: copies with class
          folders call it otherwise
"""

from dataclasses import replace
from pathlib import Path

from common import Dataset, File, Part, RawSplits, ReadOptions, main
from engine.errors import UserError
from engine.readers.annotations import damaged, find_list, listed_part, read_matlab, whole_numbers
from engine.readers.class_folders import class_folders, class_part, with_notes


def read(options: ReadOptions) -> RawSplits:
    """The original lists, with labels 1 to 196; or class folders in train/ and test/, as one of Kaggle's copies has."""
    root = options.folder
    if not (root / "cars_train").is_dir() and (root / "train").is_dir():
        return read_class_folders(root, options.allow_partial)

    def find(name: str) -> Path:
        """The devkit's lists lie in its folder, or without it, among the images or beside them."""
        places = [f"{place}{name}" for place in ("devkit/", "car_devkit/devkit/", "")]
        return find_list(root, *places) or root / name

    meta = find("cars_meta.mat")
    (names,) = read_matlab(meta, "class_names")
    if not all(isinstance(name, str) for name in names) or len({*names}) < len(names):
        raise damaged(meta, "its class_names are no names, or one is there twice")
    lists = {"cars_train": find("cars_train_annos.mat"), "cars_test": find("cars_test_annos_withlabels.mat")}
    parts: list[Part] = []
    missing: list[str] = []
    for folder, path in lists.items():
        (annotations,) = read_matlab(path, "annotations")
        if not {"fname", "class"} <= set(annotations.dtype.names or ()):
            raise damaged(path, "its annotations have no labels")
        # Kaggle's archive has each folder in another of the same name
        place = root / folder / folder if (root / folder / folder).is_dir() else root / folder
        labels = [label - 1 for label in whole_numbers(path, annotations["class"])]
        if not all(0 <= label < len(names) for label in labels):
            raise damaged(path, f"its labels go from {min(labels) + 1} to {max(labels) + 1}, of {len(names)} classes")
        part, lost = listed_part(place, [str(name) for name in annotations["fname"].tolist()], labels)
        parts.append(replace(part, names=[f"{folder}/{name}" for name in part.names]))
        missing += [f"{folder}/{name}" for name in lost]
    return RawSplits(tuple(map(str, names)), parts[0], parts[1], missing=tuple(missing))


def read_class_folders(root: Path, allow_partial: bool) -> RawSplits:
    """train/<class>/ and test/<class>/."""
    found = {f"{part}/": class_folders(root / part, allow_partial) for part in ("train", "test")}
    there = {part: listing.classes for part, listing in found.items()}
    classes = tuple(sorted(there["train/"].keys() | there["test/"].keys()))
    strange = sorted(there["train/"].keys() ^ there["test/"].keys())
    if len(classes) - len(strange) == DATASET.classes:  # nobody lists the names: what both have are the classes
        classes = tuple(name for name in classes if name not in strange)
        for listing in found.values():
            listing.strangers += tuple(name for name in strange if name in listing.classes)
    elif strange and not allow_partial:
        raise UserError(
            f"{root} has {', '.join(strange[:5])} in one of train/ and test/ alone. Expected the same classes in both: "
            "get the copy again."
        )
    train, test = (class_part(root, part.rstrip("/"), classes, images) for part, images in there.items())
    note = "class folders: classes are numbered in the order of their names, not as in cars_meta.mat"
    return with_notes(RawSplits(classes, train, test, notes=(note,)), root, found, allow_partial)


DEVKIT = (
    File("car_devkit.tgz", (), "sha256:b97deb463af7d58b6bfaa18b2a4de9829f0f79e8ce663dfa9261bf7810e9accd", 330_960),
    File(
        "cars_test_annos_withlabels.mat",
        (),
        "sha256:790f75be8ea34eeded134cc559332baf23e30e91367e9ddca97d26ed9b895f05",
        185_758,
    ),
)

DATASET = Dataset(
    key="stanford_cars",
    name="Stanford Cars",
    version="1",
    domain="natural",
    published=True,
    classes=196,
    train_images=8_144,
    test_images=8_041,
    size=(256, 256),
    augment="none",
    mean=(0.485, 0.456, 0.406),  # the original has no script for this dataset: ImageNet's constants
    std=(0.229, 0.224, 0.225),
    read=read,
    files=(
        File(
            "cars_train.tgz", (), "sha256:512b227b30e2f0a8aab9e09485786ab4479582073a144998da74d64b801fd288", 979_269_282
        ),
        File(
            "cars_test.tgz", (), "sha256:bffea656d6f425cba3c91c6d83336e4c5f86c6cffd8975b0f375d3a10da8e243", 977_350_468
        ),
        *DEVKIT,
    ),
    alternative_files=(
        (File("stanford-cars-dataset.zip", (), None), *DEVKIT),
        (File("archive.zip", (), None), *DEVKIT),
        (File("stanford-cars-by-classes-folder.zip", (), None),),
    ),
    folder="stanford_cars",
    other_folders=("car_data", "car_data/car_data"),
    contains=("cars_train", "train"),
    steps="""The original server is gone. 1. Get the images from Kaggle (account needed; non-commercial research):
https://www.kaggle.com/datasets/jessicali9530/stanford-cars-dataset (saved as archive.zip or stanford-cars-dataset.zip).
2. Get car_devkit.tgz: https://github.com/pytorch/vision/files/11644847/car_devkit.tgz
3. Get cars_test_annos_withlabels.mat as https://github.com/pytorch/vision/issues/7545#issuecomment-1631441616 says.
Or get one copy with class folders, and call it stanford-cars-by-classes-folder.zip:
https://www.kaggle.com/datasets/cyizhuo/stanford-cars-by-classes-folder""",
    licence="non-commercial research; not to be passed on",
    citation="Krause, Stark, Deng & Fei-Fei (2013), 3D Object Representations for Fine-Grained Categorization",
    page="https://github.com/pytorch/vision/issues/7545",
)

if __name__ == "__main__":
    main(DATASET)
