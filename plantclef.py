"""PlantCLEF: 20 kinds of plants out of PlantCLEF 2017, the subset of NVIDIA's jetson-inference tutorial.

    python plantclef.py -model convnext -bs 64

What      11,590 colour photographs from the web, noisy; and 30 without labels, which are not used
Counts    train 10,455, test 1,135: its folders train/ and val/. The tutorial says 10,475 and 1,155, which counts the 20
          class folders in each
Input     256x256 pixels; no augmentation
Traps     nobody publishes a checksum: the counts are checked, and the record keeps the sha256 of the archive. The
          classes are common names that lump species together
"""

from common import Dataset, File, RawSplits, ReadOptions, main
from engine.readers.class_folders import class_folders, class_part, with_notes


def read(options: ReadOptions) -> RawSplits:
    """Class folders in train/ and val/."""
    root, parts = options.folder, ("train", "val")
    found = {f"{part}/": class_folders(root / part, options.allow_partial, CLASSES.split()) for part in parts}
    classes = tuple(sorted({name for listing in found.values() for name in listing.classes}))
    train, test = (class_part(root, part, classes, found[f"{part}/"].classes) for part in parts)
    return with_notes(RawSplits(classes, train, test), root, found, options.allow_partial)


CLASSES = """ash beech cattail cedar clover cyprus daisy dandelion dogwood elm fern fig fir juniper maple poison_ivy
sweetgum sycamore trout_lily tulip_tree"""

DATASET = Dataset(
    key="plantclef",
    name="PlantCLEF",
    version="1",
    domain="plant",
    published=True,
    classes=20,
    train_images=10_455,
    test_images=1_135,
    size=(256, 256),
    augment="none",
    mean=(0.4298, 0.4588, 0.3523),
    std=(0.2322, 0.2313, 0.2459),
    read=read,
    files=(
        File(
            "PlantCLEF_Subset.tar.gz",
            ("https://nvidia.box.com/shared/static/vbsywpw5iqy7r38j78xs0ctalg7jrg79.gz",),
            None,
        ),
    ),
    folder="PlantCLEF_Subset",
    contains=("labels.txt", "val"),
    split="its own train/ and val/",
    licence="not stated for the subset; images under various Creative Commons licences; not to be passed on",
    citation="Goeau, Bonnet & Joly (2017), Plant Identification Based on Noisy Web Data, CLEF working notes",
    page="https://github.com/dusty-nv/jetson-inference/blob/master/docs/pytorch-plants.md",
)

if __name__ == "__main__":
    main(DATASET)
