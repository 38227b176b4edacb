"""TinyImageNet: 200 classes of ImageNet, 64x64 pixels.

    python tinyimagenet.py -model convnext -bs 64

What      120,000 colour photographs, some of them grey
Counts    train 100,000 (500 a class); test 10,000 (50 a class): the official validation part, as the labels of the
          official test part are not public
Input     256x256 pixels, upsampled from 64x64; no augmentation
Traps     every class, and many an image, is in ImageNet: pretrained backbones have seen them, so this is no clean
          test of transfer. Labels are the sorted WordNet ids
"""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from common import Dataset, File, Part, RawSplits, ReadOptions, main
from engine.errors import UserError
from engine.readers.annotations import damaged, listed_part, read_columns, read_lines
from engine.readers.class_folders import class_folders, class_part, with_notes

# where a copy has the validation images: as published, or moved into class folders, as torchvision's ImageFolder asks
VAL_PLACES = ("val/images/{file}", "val/{wnid}/{file}", "val/{wnid}/images/{file}")


def read(options: ReadOptions) -> RawSplits:
    """Class folders to train on; a list with the labels of the validation images, or class folders of these."""
    classes = tuple(sorted(read_lines(options.folder / "wnids.txt")))
    if len(set(classes)) < len(classes):
        raise damaged(options.folder / "wnids.txt", "it names a class twice")
    found = class_folders(options.folder / "train", options.allow_partial, classes)
    train = found.classes
    test, missing = read_val(options.folder, classes)
    foreign = tuple(f"train/{name} is not in wnids.txt" for name in sorted(train.keys() - set(classes)))
    raw = RawSplits(
        classes,
        class_part(options.folder / "train", "", classes, train),
        test,
        missing=missing,
        differences=foreign,
        notes=("all classes are ImageNet's: weights pretrained on it have seen many of these images",),
    )
    return with_notes(raw, options.folder, {"train/": found}, options.allow_partial)


def read_val(folder: Path, classes: tuple[str, ...]) -> tuple[Part, tuple[str, ...]]:
    """The validation images by their published names, wherever they are in val/; and the names of those missing."""
    listed = folder / "val" / "val_annotations.txt"
    labels = {name: label for label, name in enumerate(classes)}
    if listed.exists() or not any((folder / "val" / wnid).is_dir() for wnid in classes):
        rows = {file: wnid for file, wnid, _ in read_columns(listed, 3)}
        if len(rows) < len(read_lines(listed)):
            raise damaged(listed, "it names an image twice")
    else:
        found = class_folders(folder / "val", True, classes).classes
        rows = {name.rpartition("/")[2]: wnid for wnid in classes for name in found.get(wnid, ())}
        if len(rows) < sum(len(found.get(wnid, ())) for wnid in classes):
            raise UserError(f"{folder / 'val'} has an image in two class folders. Get the published files again.")
    if strangers := sorted(set(rows.values()) - labels.keys()):
        raise damaged(listed, f"{strangers[0]} is not in wnids.txt")
    tried = []
    for place in VAL_PLACES:
        names = [place.format(file=file, wnid=wnid) for file, wnid in rows.items()]
        tried.append(listed_part(folder, names, [labels[wnid] for wnid in rows.values()]))
    part, missing = min(tried, key=lambda parts: len(parts[1]))

    def published(names: Sequence[str]) -> list[str]:
        return [VAL_PLACES[0].format(file=name.rpartition("/")[2]) for name in names]

    return replace(part, names=published(part.names)), tuple(published(missing))


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
