"""CIFAR-100: photographs of a hundred kinds of things, 32x32 pixels.

    python cifar100.py -model convnext -bs 64

What      60,000 colour photographs, 100 classes in 20 groups; the 100 fine labels are used
Counts    train 50,000, test 10,000: the official split, 500 and 100 a class
Input     256x256 pixels, upsampled from 32x32; TrivialAugmentWide before it, as in the original
Source    https://www.cs.toronto.edu/~kriz/cifar.html, one archive of 169 MB
Licence   none stated by the authors
Citation  Krizhevsky (2009), Learning Multiple Layers of Features from Tiny Images
Traps     10 % of the test images have a near-duplicate in train or test (Barz & Denzler 2020, arXiv:1902.00423).
          The original code normalises by CIFAR-10's constants; so does the `paper` protocol
"""

from torchvision.datasets import CIFAR100

from common import RawSplits, Dataset, File, ReadOptions, main
from engine.readers.cifar import read_batches


def read(source: ReadOptions) -> RawSplits:
    """The official Python batches."""
    return read_batches(source, CIFAR100, labels="fine_labels")


DATASET = Dataset(
    key="cifar100",
    name="CIFAR-100",
    version="1",
    domain="natural",
    classes=100,
    train_images=50_000,
    test_images=10_000,
    size=(256, 256),
    augment="trivial",
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2470, 0.2435, 0.2616),
    read=read,
    files=(File(CIFAR100.filename, (CIFAR100.url,), f"md5:{CIFAR100.tgz_md5}"),),
    folder=CIFAR100.base_folder,
    licence="none stated by the authors",
    citation="Krizhevsky (2009), Learning Multiple Layers of Features from Tiny Images",
    page="https://www.cs.toronto.edu/~kriz/cifar.html",
)

if __name__ == "__main__":
    main(DATASET)
