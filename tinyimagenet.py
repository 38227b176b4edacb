"""TinyImageNet: 200 classes of ImageNet, 64x64 pixels.

    python tinyimagenet.py -model convnext -bs 64

What      120,000 colour photographs, some of them grey
Counts    train 100,000 (500 a class); test 10,000 (50 a class): the official validation part, as the labels of the
          official test part are not public
Input     256x256 pixels, upsampled from 64x64; no augmentation
Traps     every class, and many an image, is in ImageNet: pretrained backbones have seen them, so this is no clean
          test of transfer. Labels are the sorted WordNet ids
"""

from common import Dataset, File, RawSplits, ReadOptions, main
from engine.readers.annotations import damaged, listed_part, read_columns, read_lines
from engine.readers.class_folders import class_folders, class_part, with_notes


def read(options: ReadOptions) -> RawSplits:
    """Class folders to train on; a list with the labels of the validation images."""
    classes = tuple(sorted(read_lines(options.folder / "wnids.txt")))
    if len(set(classes)) < len(classes):
        raise damaged(options.folder / "wnids.txt", "it names a class twice")
    found = class_folders(options.folder / "train", options.allow_partial, classes)
    train = found.classes
    labels = {name: label for label, name in enumerate(classes)}
    listed = options.folder / "val" / "val_annotations.txt"
    rows = read_columns(listed, 3)
    if strangers := sorted({wnid for _, wnid, _ in rows} - labels.keys()):
        raise damaged(listed, f"{strangers[0]} is not in wnids.txt")
    names = [f"val/images/{file}" for file, _, _ in rows]
    test, missing = listed_part(options.folder, names, [labels[wnid] for _, wnid, _ in rows])
    foreign = tuple(f"train/{name} is not in wnids.txt" for name in sorted(train.keys() - labels.keys()))
    raw = RawSplits(
        classes,
        class_part(options.folder / "train", "", classes, train),
        test,
        missing=missing,
        differences=foreign,
        notes=("all classes are ImageNet's: weights pretrained on it have seen many of these images",),
    )
    return with_notes(raw, options.folder, {"train/": found}, options.allow_partial)


DATASET = Dataset(
    key="tinyimagenet",
    name="TinyImageNet",
    version="1",
    domain="natural",
    published=True,
    classes=200,
    train_images=100_000,
    test_images=10_000,
    class_images=550,
    size=(256, 256),
    cached_size=(64, 64),
    augment="none",
    mean=(0.4803, 0.4481, 0.3975),
    std=(0.2764, 0.2689, 0.2816),
    read=read,
    files=(
        File(
            "tiny-imagenet-200.zip",
            ("http://cs231n.stanford.edu/tiny-imagenet-200.zip",),
            "md5:90528d7ca1a48142e341f4ef8d21d0de",
            248_100_043,
        ),
    ),
    folder="tiny-imagenet-200",
    contains=("wnids.txt",),
    split="official train / official val",
    licence="ImageNet's terms: non-commercial research; not to be passed on",
    citation="Le & Yang (2015), Tiny ImageNet Visual Recognition Challenge, Stanford CS 231N",
    page="http://cs231n.stanford.edu/reports/2015/pdfs/yle_project.pdf",
)

if __name__ == "__main__":
    main(DATASET)
