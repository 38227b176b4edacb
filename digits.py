"""Digits: 1,797 handwritten digits, 8x8 pixels, embedded in scikit-learn: the first run, with nothing to download.

    python digits.py -model shufflenet -bs 32

What      the test part of the UCI set "Optical Recognition of Handwritten Digits": bitmaps of 43 writers, 17 grey
          levels, 10 classes
Counts    train 1,437, test 360: an 80/20 split, stratified, seed 42, as the data has no official one here
Input     64x64 pixels, upsampled from 8x8
Traps     not a row of the published table: it shows that a run works, not which backbone is best
"""

from common import Dataset, Part, RawSplits, ReadOptions, main
from engine.data.splits import split_indices


def read(_: ReadOptions) -> RawSplits:
    """The images as scikit-learn has them, in RGB."""
    import numpy as np
    from sklearn.datasets import load_digits  # a second that `--help` does not need

    digits = load_digits()
    grey = np.round(digits.images * (255 / 16)).astype(np.uint8)
    images = np.repeat(grey[..., None], 3, axis=3)
    labels = digits.target.astype(np.int64)
    everything = Part(images, labels, [f"{index:04}" for index in range(len(labels))])
    train, test = split_indices(len(labels), 0.2, labels)
    return RawSplits(tuple("0123456789"), everything.take(train), everything.take(test))


DATASET = Dataset(
    key="digits",
    name="Digits",
    version="1",
    domain="natural",
    classes=10,
    train_images=1437,
    test_images=360,
    size=(64, 64),
    augment="none",
    mean=(0.3060, 0.3060, 0.3060),
    std=(0.3762, 0.3762, 0.3762),
    read=read,
    licence="CC BY 4.0",
    citation="Alpaydin & Kaynak (1998), UCI Machine Learning Repository, doi 10.24432/C50P49",
    page="https://scikit-learn.org/stable/datasets/toy_dataset.html",
    split="0.2, stratified, seed 42",
)

if __name__ == "__main__":
    main(DATASET)
