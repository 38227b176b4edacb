"""Stanford Dogs: 120 breeds of dogs, photographs of ImageNet.

    python stanford_dogs.py -model convnext -bs 64

What      20,580 colour photographs of 97 to 3,264 pixels
Counts    train 12,000 (100 a class), test 8,580: the official split
Input     256x256 pixels; no augmentation
Traps     a part of ImageNet: pretrained backbones have been trained on these breeds and on at least some of the test
          images. n02105855_2933.jpg is a PNG file. There are exact duplicates: training images with
          the same pixels as a test image are left out
"""

from pathlib import Path

from common import Dataset, File, RawSplits, ReadOptions, main
from engine.data.locate import verify_placed
from engine.errors import NotWholeError
from engine.readers.annotations import find_list, part_by_folder, read_matlab

HOST = "http://vision.stanford.edu/aditya86/ImageNetDogs/"


def read(options: ReadOptions) -> RawSplits:
    """Lists of relative paths; the folder is the class. The lists lie beside the folder of the images."""
    lists = {}
    for path in find_lists(options.folder):
        (files,) = read_matlab(path, "file_list")
        lists[path] = [str(name) for name in files]
    classes, (train, test), missing = part_by_folder(options.folder, lists)
    note = "a part of ImageNet: weights pretrained on it have seen these breeds, and some of the test images"
    return RawSplits(classes, train, test, missing=missing, notes=(note,))


def find_lists(images: Path) -> list[Path]:
    """The lists of train and test: files, or members of lists.tar. Raises NotWholeError where there are none."""
    names = ("train_list.mat", "test_list.mat")
    for place in ("lists/", "", "splits/"):
        found = find_list(images, f"{place}{names[0]}", levels_up=2)
        if found and (found.parent / names[1]).exists():
            return [found.parent / name for name in names]
    if archive := find_list(images, "lists.tar", levels_up=2):
        verify_placed(DATASET.files[0], archive.parent, remember=False, fetched=False)
        return [archive / name for name in names]
    raise NotWholeError(
        f"{images} has no lists beside it ({' and '.join(names)}), which say what is in train and what in test. "
        f"Looked for them, and for lists.tar, which they come in, in {images.absolute().parent} and above.",
        "lists.tar",
    )


DATASET = Dataset(
    key="stanford_dogs",
    name="Stanford Dogs",
    version="1",
    domain="natural",
    published=True,
    classes=120,
    train_images=12_000,
    test_images=8_580,
    size=(256, 256),
    augment="none",
    mean=(0.485, 0.456, 0.406),  # the original has no script for this dataset: ImageNet's constants
    std=(0.229, 0.224, 0.225),
    read=read,
    files=(
        File(
            "lists.tar",
            (HOST + "lists.tar",),
            "sha256:34b47cacd9a98b5d150e084f24d29391c084c55272295ec65c85651bc35f4d6c",
            481_280,
        ),
        File(
            "images.tar",
            (HOST + "images.tar",),
            "sha256:a443fc2f9a851aa1a7b8e4fa4af94b8459fce2c9f5a2f4dd4669cf9673a4ec58",
            793_579_520,
        ),
    ),
    folder="Images",
    other_folders=("images/Images",),
    contains=("n02085620-Chihuahua", "n02105855-Shetland_sheepdog"),
    licence="none granted (photographs of ImageNet); not to be passed on",
    citation="Khosla, Jayadevaprakash, Yao & Fei-Fei (2011), Novel Dataset for Fine-Grained Image Categorization",
    page="http://vision.stanford.edu/aditya86/ImageNetDogs/",
)

if __name__ == "__main__":
    main(DATASET)
