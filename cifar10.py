"""CIFAR-10: photographs of ten kinds of things, 32x32 pixels.

    python cifar10.py -model convnext -bs 64

What      60,000 colour photographs of aeroplanes, cars, birds, cats, deer, dogs, frogs, horses, ships and lorries
Counts    train 50,000, test 10,000: the official split, 5,000 and 1,000 a class
Input     256x256 pixels, upsampled from 32x32; TrivialAugmentWide before it, as in the original
Source    https://www.cs.toronto.edu/~kriz/cifar.html, one archive of 170 MB
Licence   none stated by the authors
Citation  Krizhevsky (2009), Learning Multiple Layers of Features from Tiny Images
Traps     3.25 % of the test images have a near-duplicate in train or test (Barz & Denzler 2020, arXiv:1902.00423)
"""

from torchvision.datasets import CIFAR10

from common import RawSplits, Dataset, File, ReadOptions, main
from engine.readers.cifar import read_batches


def read(source: ReadOptions) -> RawSplits:
    """The official Python batches."""
    return read_batches(source, CIFAR10, labels="labels")


DATASET = Dataset(
    key="cifar10",
    name="CIFAR-10",
    version="1",
    domain="natural",
    classes=10,
    train_images=50_000,
    test_images=10_000,
    size=(256, 256),
    augment="trivial",
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2470, 0.2435, 0.2616),
    read=read,
    files=(File(CIFAR10.filename, (CIFAR10.url,), f"md5:{CIFAR10.tgz_md5}", 170_498_071),),
    folder=CIFAR10.base_folder,
    licence="none stated by the authors",
    citation="Krizhevsky (2009), Learning Multiple Layers of Features from Tiny Images",
    page="https://www.cs.toronto.edu/~kriz/cifar.html",
)

if __name__ == "__main__":
    main(DATASET)
