"""CIFAR-10: photographs of ten kinds of things, 32x32 pixels.

    python cifar10.py -model convnext -bs 64

What      60,000 colour photographs of aeroplanes, cars, birds, cats, deer, dogs, frogs, horses, ships and lorries
Counts    train 50,000, test 10,000: the official split, 5,000 and 1,000 a class
Input     256x256 pixels, upsampled from 32x32; TrivialAugmentWide before it, as in the original
Traps     3.25 % of the test images have a near-duplicate in train or test (Barz & Denzler 2020, arXiv:1902.00423)
"""

from common import Dataset, File, RawSplits, ReadOptions, main
from engine.readers.cifar import CifarFiles, read_batches

BATCHES = CifarFiles(
    train={
        "data_batch_1": "c99cafc152244af753f735de768cd75f",
        "data_batch_2": "d4bba439e000b95fd0a9bffe97cbabec",
        "data_batch_3": "54ebc095f3ab1f0389bbae665268c751",
        "data_batch_4": "634d18415352ddfa80567beed471001a",
        "data_batch_5": "482c414d41f54cd18b22e5b47cb7c3cb",
    },
    test={"test_batch": "40351d587109b95175f43aff81a1287e"},
    meta={"batches.meta": "5ff9c542aee3614f3951f8cda6e48888"},
    class_names="label_names",
    labels="labels",
)


def read(options: ReadOptions) -> RawSplits:
    """The official Python batches."""
    return read_batches(options, BATCHES)


DATASET = Dataset(
    key="cifar10",
    name="CIFAR-10",
    version="1",
    domain="natural",
    published=True,
    classes=10,
    train_images=50_000,
    test_images=10_000,
    size=(256, 256),
    augment="trivial",
    mean=(0.4914, 0.4822, 0.4465),
    std=(0.2470, 0.2435, 0.2616),
    read=read,
    files=(
        File(
            "cifar-10-python.tar.gz",
            ("https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz",),
            "md5:c58f30108f718f92721af3b95e74349a",
            170_498_071,
        ),
    ),
    folder="cifar-10-batches-py",
    licence="none stated by the authors",
    citation="Krizhevsky (2009), Learning Multiple Layers of Features from Tiny Images",
    page="https://www.cs.toronto.edu/~kriz/cifar.html",
)

if __name__ == "__main__":
    main(DATASET)
