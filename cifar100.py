"""CIFAR-100: photographs of a hundred kinds of things, 32x32 pixels.

    python cifar100.py -model convnext -bs 64

What      60,000 colour photographs, 100 classes in 20 groups; the 100 fine labels are used
Counts    train 50,000, test 10,000: the official split, 500 and 100 a class
Input     256x256 pixels, upsampled from 32x32; TrivialAugmentWide before it, as in the original
Traps     10 % of the test images have a near-duplicate in train or test (Barz & Denzler 2020, arXiv:1902.00423).
          The original code normalises by CIFAR-10's constants; so does the `paper` protocol
"""

from common import Dataset, File, RawSplits, ReadOptions, main
from engine.readers.cifar import CifarFiles, read_batches

BATCHES = CifarFiles(
    train={"train": "16019d7e3df5f24257cddd939b257f8d"},
    test={"test": "f0ef6b0ae62326f3e7ffdfab6717acfc"},
    meta={"meta": "7973b15100ade9c7d40fb424638fde48"},
    class_names="fine_label_names",
    labels="fine_labels",
)


def read(options: ReadOptions) -> RawSplits:
    """The official Python batches."""
    return read_batches(options, BATCHES)


DATASET = Dataset(
    key="cifar100",
    name="CIFAR-100",
    version="1",
    domain="natural",
    published=True,
    classes=100,
    train_images=50_000,
    test_images=10_000,
    size=(256, 256),
    augment="trivial",
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2470, 0.2435, 0.2616),
    read=read,
    files=(
        File(
            "cifar-100-python.tar.gz",
            ("https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz",),
            "md5:eb9058c3a382ffc7106e4002c42a8d85",
        ),
    ),
    folder="cifar-100-python",
    licence="none stated by the authors",
    citation="Krizhevsky (2009), Learning Multiple Layers of Features from Tiny Images",
    page="https://www.cs.toronto.edu/~kriz/cifar.html",
)

if __name__ == "__main__":
    main(DATASET)
