"""Food-101: dishes as people photograph them.

    python food101.py -model convnext -bs 64

What      101,000 colour photographs, at most 512 pixels on a side
Counts    train 75,750, test 25,250: the official split, 750 and 250 a class
Input     256x256 pixels; TrivialAugmentWide
Traps     the training part is noisy on purpose: wrong labels, strong colours. The test part was cleaned
"""

from common import Dataset, File, RawSplits, ReadOptions, main
from engine.readers.annotations import damaged, part_by_folder, read_json


def read(options: ReadOptions) -> RawSplits:
    """For each part a list of images by class."""
    lists = {}
    for path in (options.folder / "meta" / "train.json", options.folder / "meta" / "test.json"):
        images = read_json(path)
        if not isinstance(images, dict) or not all(isinstance(names, list) for names in images.values()):
            raise damaged(path, "it is not an object with a list of images for each class")
        lists[path] = [f"{name}.jpg" for names in images.values() for name in names]
    classes, (train, test), missing = part_by_folder(options.folder / "images", lists)
    return RawSplits(classes, train, test, missing=missing)


DATASET = Dataset(
    key="food101",
    name="Food-101",
    version="1",
    domain="natural",
    published=True,
    classes=101,
    train_images=75_750,
    test_images=25_250,
    class_images=1_000,
    size=(256, 256),
    augment="trivial",
    mean=(0.5453, 0.4438, 0.3439),
    std=(0.2698, 0.2722, 0.2768),
    read=read,
    files=(
        File(
            "food-101.tar.gz",
            ("http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz",),
            "sha256:d97d15e438b7f4498f96086a4f7e2fa42a32f2712e87d3295441b2b6314053a4",
            4_996_278_331,
        ),
    ),
    folder="food-101",
    contains=("meta/train.json",),
    licence="the photographs belong to Foodspotting's users: scientific fair use; not to be passed on",
    citation="Bossard, Guillaumin & Van Gool (2014), Food-101 - Mining Discriminative Components with Random Forests",
    page="https://data.vision.ee.ethz.ch/cvl/datasets_extra/food-101/",
)

if __name__ == "__main__":
    main(DATASET)
