"""Galaxy10 DECaLS: galaxies by their shape.

    python galaxy10.py -model convnext -bs 64

What      17,736 colour images, 256x256 pixels, 334 to 2,645 a class
Counts    train 15,962, test 1,774: 0.1 of the whole set at random, seed 42, as there is no official split. The original
          has no seed, so its lists are not known
Input     256x256 pixels; no augmentation
Traps     not Galaxy10 SDSS (69x69 pixels). The file is sorted by class. The original feeds pixels of 0 to 255 without
          any normalisation; the `paper` protocol here normalises by ImageNet's constants
"""

from common import Dataset, File, HDF5Image, Part, RawSplits, ReadOptions, main
from engine.data.images import array_of, open_hdf5
from engine.data.splits import split_indices
from engine.errors import UserError

CLASS_IMAGES = {
    "Disturbed": 1081,
    "Merging": 1853,
    "Round Smooth": 2645,
    "In-between Round Smooth": 2027,
    "Cigar Shaped Smooth": 334,
    "Barred Spiral": 2043,
    "Unbarred Tight Spiral": 1829,
    "Unbarred Loose Spiral": 2628,
    "Edge-on without Bulge": 1423,
    "Edge-on with Bulge": 1873,
}

MOST_IMAGES = 1_000_000
MOST_PIXELS = 10_000  # on a side


def read(options: ReadOptions) -> RawSplits:
    """Two arrays of one file: `images` (N, 256, 256, 3) and `ans`, labels 0 to 9."""
    import numpy as np

    path = options.folder / DATASET.files[0].name
    file = open_hdf5(path)
    if lacking := {"images", "ans"} - set(file):
        raise UserError(f"{path} lacks {', '.join(sorted(lacking))}. Get the published file.")
    try:
        images, answers = array_of(file, "images"), array_of(file, "ans")
        found = [f"{array.dtype} {array.shape}" for array in (images, answers)]
        if (
            not (images.ndim == 4 and images.shape[3] == 3 and images.dtype == np.uint8 and answers.ndim == 1)
            or answers.dtype.kind not in "iu"
            or len(images) != len(answers)
            or not 1 < len(images) <= MOST_IMAGES
            or max(images.shape[1:3]) > MOST_PIXELS
        ):
            raise UserError(
                f"{path} has images {found[0]} and labels (ans) {found[1]}. Expected uint8 (N, height, width, 3) and N "
                "whole numbers: get the published file."
            )
        labels = answers[:].astype(np.int64)
    except (OSError, KeyError, AttributeError, TypeError, RuntimeError) as error:  # damaged within, or no arrays
        raise UserError(f"{path} is damaged ({type(error).__name__}: {error}). Get the published file.") from error
    everything = Part(
        [HDF5Image(path, "images", index) for index in range(len(labels))],
        labels,
        [f"{index:05}" for index in range(len(labels))],
    )
    train, test = split_indices(len(labels), 0.1)
    return RawSplits(tuple(CLASS_IMAGES), everything.take(train), everything.take(test))


DATASET = Dataset(
    key="galaxy10",
    name="Galaxy10 DECaLS",
    version="1",
    domain="astronomy",
    published=True,
    classes=10,
    train_images=15_962,
    test_images=1_774,
    class_images=CLASS_IMAGES,
    size=(256, 256),
    augment="none",
    mean=(0.485, 0.456, 0.406),  # the original does not normalise: ImageNet's constants
    std=(0.229, 0.224, 0.225),
    read=read,
    files=(
        File(
            "Galaxy10_DECals.h5",
            (
                "https://zenodo.org/records/10845026/files/Galaxy10_DECals.h5",
                "https://astro.utoronto.ca/~hleung/shared/Galaxy10/Galaxy10_DECals.h5",
            ),
            "sha256:19aefc477c41bb7f77ff07599a6b82a038dc042f889a111b0d4d98bb755c1571",
        ),
    ),
    split="0.1 of the whole set, seed 42",
    licence="code MIT; images DESI Legacy Imaging Surveys, labels Galaxy Zoo: their acknowledgements are asked for",
    citation="Leung & Bovy (2019), doi 10.1093/mnras/sty3217; Walmsley et al. (2022), Galaxy Zoo DECaLS",
    page="https://github.com/henrysky/Galaxy10",
)

if __name__ == "__main__":
    main(DATASET)
