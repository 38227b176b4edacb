"""EuroSAT (RGB): land use in Europe, seen by the Sentinel-2 satellites, 10 m a pixel.

    python eurosat.py -model convnext -bs 64

What      27,000 colour images, 64x64 pixels, 2,000 to 3,000 a class
Counts    train 18,900, test 8,100: 0.3 of each class at random, names sorted, seed 42, as there is no official split.
          The published lists are not known, only their sizes
Input     224x224 pixels, upsampled from 64x64; no augmentation
Traps     the edition on Zenodo has 26,998 images. Neighbouring tiles can be in train and in test
"""

from common import Dataset, File, RawSplits, ReadOptions, main
from engine.readers.class_folders import read_and_split


def read(options: ReadOptions) -> RawSplits:
    """Class folders."""
    return read_and_split(options.folder, test_size=0.3, allow_partial=options.allow_partial, published=[*IMAGES])


IMAGES = {
    "AnnualCrop": 3_000,
    "Forest": 3_000,
    "HerbaceousVegetation": 3_000,
    "Highway": 2_500,
    "Industrial": 2_500,
    "Pasture": 2_000,
    "PermanentCrop": 2_500,
    "Residential": 3_000,
    "River": 2_500,
    "SeaLake": 3_000,
}

DATASET = Dataset(
    key="eurosat",
    name="EuroSAT",
    version="1",
    domain="remote sensing",
    published=True,
    classes=10,
    train_images=18_900,
    test_images=8_100,
    class_images=IMAGES,
    size=(224, 224),
    cached_size=(64, 64),
    augment="none",
    mean=(0.3443, 0.3803, 0.4079),
    std=(0.2007, 0.1347, 0.1133),
    read=read,
    files=(
        File(
            "EuroSAT.zip",
            (
                "https://huggingface.co/datasets/torchgeo/eurosat/resolve/c877bcd43f099cd0196738f714544e355477f3fd/"
                "EuroSAT.zip",
            ),
            "sha256:8ebea626349354c5328b142b96d0430e647051f26efc2dc974c843f25ecf70bd",
            94_280_567,
        ),
    ),
    folder="2750",
    other_folders=("EuroSAT", "EuroSAT_RGB"),
    contains=("AnnualCrop",),
    split="0.3 of each class, seed 42",
    licence="MIT; Copernicus Sentinel data terms",
    citation="Helber, Bischke, Dengel & Borth (2019), EuroSAT: A Novel Dataset and Deep Learning Benchmark",
    page="https://github.com/phelber/EuroSAT",
)

if __name__ == "__main__":
    main(DATASET)
