"""CUB-200-2011: 200 species of North American birds.

    python cub200.py -model convnext -bs 64

What      11,788 colour photographs, a few of them grey
Counts    train 5,994, test 5,794: the official split, about 30 and 30 a class
Input     256x256 pixels; no augmentation
Traps     the authors warn that some images are in ImageNet too
"""

import re

from common import Dataset, File, RawSplits, ReadOptions, main
from engine.readers.annotations import damaged, listed_part, read_table


def read(options: ReadOptions) -> RawSplits:
    """Four lists, by image or class number from 1: names, labels, parts (1 train, 0 test) and class names."""

    def table(name: str) -> dict[str, str]:
        return read_table(options.folder / name)

    names, labels, in_train = table("images.txt"), table("image_class_labels.txt"), table("train_test_split.txt")
    classes = table("classes.txt")
    for name, found in (("image_class_labels.txt", labels), ("train_test_split.txt", in_train)):
        if found.keys() != names.keys():
            raise damaged(options.folder / name, "it does not list the images of images.txt")
    if strange := [number for number in classes if not re.fullmatch(r"\d{1,9}", number, re.ASCII)]:
        raise damaged(options.folder / "classes.txt", f"{strange[0]!r} is not the number of a class")
    if len({*classes.values()}) < len(classes):
        raise damaged(options.folder / "classes.txt", "it gives two classes one name")
    if strange := [value for value in in_train.values() if value not in ("0", "1")]:
        raise damaged(options.folder / "train_test_split.txt", f"{strange[0]!r} is neither 1 (train) nor 0 (test)")
    order = {number: label for label, number in enumerate(sorted(classes, key=int))}
    if unknown := labels.values() - order.keys():
        raise damaged(options.folder / "image_class_labels.txt", f"class {min(unknown)} is not in classes.txt")
    (train, lost), (test, missing) = (
        listed_part(
            options.folder / "images",
            [name for image, name in names.items() if in_train[image] == wanted],
            [order[labels[image]] for image in names if in_train[image] == wanted],
        )
        for wanted in ("1", "0")
    )
    return RawSplits(tuple(classes[number] for number in order), train, test, missing=lost + missing)


DATASET = Dataset(
    key="cub200",
    name="CUB-200-2011",
    version="1",
    domain="natural",
    published=True,
    classes=200,
    train_images=5_994,
    test_images=5_794,
    size=(256, 256),
    augment="none",
    mean=(0.4855, 0.4993, 0.4318),
    std=(0.2274, 0.2227, 0.2613),
    read=read,
    files=(
        File(
            "CUB_200_2011.tgz",
            ("https://data.caltech.edu/records/65de6-vp158/files/CUB_200_2011.tgz?download=1",),
            "md5:97eceeb196236b17998738112f37df78",
        ),
    ),
    folder="CUB_200_2011",
    contains=("train_test_split.txt",),
    licence="non-commercial research and education; the photographers keep their rights",
    citation="Wah, Branson, Welinder, Perona & Belongie (2011), The Caltech-UCSD Birds-200-2011 Dataset",
    page="https://www.vision.caltech.edu/datasets/cub_200_2011/",
)

if __name__ == "__main__":
    main(DATASET)
