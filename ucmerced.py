"""UC Merced Land Use: aerial photographs of 21 kinds of land use, 0.3 m a pixel.

    python ucmerced.py -model convnext -bs 64

What      2,100 colour TIFF images, 100 a class, nominally 256x256 pixels
Counts    train 1,680, test 420 (80 + 20 a class): 0.2 of each class at random, names sorted, seed 42, as there is no
          official split. The published lists are not known, only their sizes
Input     256x256 pixels; no augmentation
Traps     some tiles have 247 to 254 pixels on a side. One test image is 0.24 points of accuracy. Tiles of one scene can
          be in train and in test
"""

from common import Dataset, File, RawSplits, ReadOptions, main
from engine.readers.class_folders import read_and_split


def read(options: ReadOptions) -> RawSplits:
    """Class folders."""
    images = options.folder / "Images"
    return read_and_split(images, test_size=0.2, allow_partial=options.allow_partial, published=CLASSES.split())


CLASSES = """agricultural airplane baseballdiamond beach buildings chaparral denseresidential forest freeway golfcourse
harbor intersection mediumresidential mobilehomepark overpass parkinglot river runway sparseresidential storagetanks
tenniscourt"""

DATASET = Dataset(
    key="ucmerced",
    name="UCMerced",
    version="1",
    domain="remote sensing",
    published=True,
    classes=21,
    train_images=1_680,
    test_images=420,
    class_images=100,
    size=(256, 256),
    augment="none",
    mean=(0.4820, 0.4889, 0.4487),
    std=(0.2196, 0.2033, 0.1971),
    read=read,
    files=(
        File(
            "UCMerced_LandUse.zip",
            (
                "https://hf.co/datasets/torchgeo/ucmerced/resolve/7c5ef3454d9b1cccfa7ccde0c01fc8f00a45909a/"
                "UCMerced_LandUse.zip",
                "http://weegee.vision.ucmerced.edu/datasets/UCMerced_LandUse.zip",
            ),
            "sha256:06c539ef28703a58fb07bd2837991ac7c48b813b00bb12ac197efd813a18daeb",
            332_468_434,
        ),
    ),
    folder="UCMerced_LandUse",
    contains=("Images",),
    split="0.2 of each class, seed 42",
    licence="public domain (USGS National Map)",
    citation="Yang & Newsam (2010), Bag-Of-Visual-Words and Spatial Extensions for Land-Use Classification",
    page="http://weegee.vision.ucmerced.edu/datasets/landuse.html",
)

if __name__ == "__main__":
    main(DATASET)
