"""Describable Textures Dataset (DTD): textures named by how people describe them.

    python dtd.py -model convnext -bs 64

What      5,640 colour photographs, about 300 to 640 pixels a side, 120 a class
Counts    train 1,880 (train1), test 1,880 (test1), 40 a class each: the first of ten official partitions. val1, another
          1,880, chooses the epoch under the `honest` protocol; the published way leaves it unused
Input     256x256 pixels; TrivialAugmentWide
Traps     an image can have several attributes; the folder is the main one. Papers often report the mean of all ten
          partitions
"""

from common import Dataset, File, RawSplits, ReadOptions, main
from engine.readers.annotations import part_by_folder, read_lines


def read(options: ReadOptions) -> RawSplits:
    """Lists of <class>/<image>."""
    paths = [options.folder / "labels" / f"{part}1.txt" for part in ("train", "test", "val")]
    lists = {path: read_lines(path) for path in paths}
    classes, (train, test, val), missing = part_by_folder(options.folder / "images", lists)
    return RawSplits(classes, train, test, val, missing=missing)


DATASET = Dataset(
    key="dtd",
    name="DTD",
    version="1",
    domain="texture",
    published=True,
    classes=47,
    train_images=1_880,
    test_images=1_880,
    val_images=1_880,
    size=(256, 256),
    augment="trivial",
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    read=read,
    files=(
        File(
            "dtd-r1.0.1.tar.gz",
            ("https://www.robots.ox.ac.uk/~vgg/data/dtd/download/dtd-r1.0.1.tar.gz",),
            "sha256:e42855a52a4950a3b59612834602aa253914755c95b0cff9ead6d07395f8e205",
            625_239_812,
        ),
    ),
    folder="dtd",
    contains=("labels/train1.txt",),
    split="official train1 / test1; val1 chooses the epoch",
    licence="for research purposes",
    citation="Cimpoi, Maji, Kokkinos, Mohamed & Vedaldi (2014), Describing Textures in the Wild",
    page="https://www.robots.ox.ac.uk/~vgg/data/dtd/",
)

if __name__ == "__main__":
    main(DATASET)
