"""RSNA Pneumonia Detection Challenge (2018): chest radiographs with and without signs of pneumonia. To be got by hand.

    python rsna.py -model convnext -bs 64

What      26,684 grey images, 1024x1024 pixels, in DICOM: 6,012 with signs of pneumonia (Target 1), 20,672 without
Counts    `honest`: train 21,347, test 5,337: 0.2 of the images at random, stratified, seed 42. `paper`: train 24,181,
          test 6,046: 0.2 of the 30,227 rows of the label file, sorted, seed 42. There is a row for each box drawn on an
          image, so the same image is in train and in test; the run says how often. There is no official split with
          labels
Input     256x256 pixels; no augmentation
Traps     patientId is one an image, not one a person: films of one person can be in both parts. 77.5 % of the images
          are negative: look at balanced accuracy and AUROC
"""

from collections.abc import Collection
from dataclasses import replace
from pathlib import Path

from common import Dataset, File, RawSplits, ReadOptions, main
from engine.data.splits import split_indices
from engine.readers.annotations import damaged, listed_part, read_csv


def read(options: ReadOptions) -> RawSplits:
    """A CSV file with a row for each box, or one for an image without any; its Target is the label."""
    import numpy as np

    path = options.folder / "stage_2_train_labels.csv"
    rows = sorted((row["patientId"], row["Target"]) for row in read_csv(path, "patientId", "Target"))
    if strange := [target for _, target in rows if target not in ("0", "1")]:
        raise damaged(path, f"a Target is {strange[0]!r} instead of 0 or 1")
    labels = {image: int(target) for image, target in rows}
    if len(set(rows)) > len(labels):
        raise damaged(path, "it gives an image both Targets")
    suffix = usual_suffix(options.folder / "stage_2_train_images", labels)
    names = {image: f"stage_2_train_images/{image}.{suffix}" for image in sorted(labels)}
    images, missing = listed_part(options.folder, list(names.values()), [labels[image] for image in names])
    if options.protocol == "honest":
        everything = images
    else:
        # a row for each box: the same image as often as it has boxes
        position = {name: index for index, name in enumerate(images.names)}
        found = [image for image, _ in rows if names[image] in position]
        indices = np.array([position[names[image]] for image in found], dtype=np.int64)
        everything = images.take(indices)
        everything = replace(everything, names=[f"{name}#{row}" for row, name in enumerate(everything.names)])
    if len(everything) < 2:
        return RawSplits(("negative", "positive"), everything, everything.take(np.zeros(0, np.int64)), missing=missing)
    # of partial data there can be too few to have both classes in both parts
    enough = len(everything) >= 6 and np.bincount(everything.labels, minlength=2).min() >= 2
    stratify = everything.labels if options.protocol == "honest" and enough else None
    train, test = (everything.take(part) for part in split_indices(len(everything), 0.2, stratify))
    return RawSplits(("negative", "positive"), train, test, missing=missing)


def usual_suffix(folder: Path, images: Collection[str]) -> str:
    """The suffix of most of the listed images: copies as PNG or JPEG exist, with a stray DICOM file among them."""
    there = {path.name for path in folder.iterdir()} if folder.is_dir() else set()
    suffixes = ("dcm", "dicom", "png", "jpg", "jpeg")
    return max(suffixes, key=lambda suffix: sum(f"{image}.{suffix}" in there for image in images))


DATASET = Dataset(
    key="rsna",
    name="RSNA Pneumonia",
    version="1",
    domain="medical",
    published=True,
    classes=2,
    train_images=24_181,
    test_images=6_046,
    counts={"honest": (21_347, 5_337)},
    size=(256, 256),
    augment="none",
    mean=(0.485, 0.456, 0.406),  # the original has no script for this dataset: ImageNet's constants
    std=(0.229, 0.224, 0.225),
    read=read,
    files=(File("rsna-pneumonia-detection-challenge.zip", (), None),),
    folder="rsna-pneumonia-detection-challenge",
    contains=("stage_2_train_labels.csv",),
    steps="""1. Sign in at https://www.kaggle.com/competitions/rsna-pneumonia-detection-challenge and accept the rules.
2. Download all (3.7 GB), with the browser or: kaggle competitions download -c rsna-pneumonia-detection-challenge
What is used of it: stage_2_train_labels.csv and stage_2_train_images/ (26,684 .dcm files).""",
    split="one row an image, 0.2, stratified, seed 42",
    licence="RSNA: academic, educational and other use with attribution; Kaggle's rules for its copy",
    citation="Shih et al. (2019), Augmenting the NIH Chest Radiograph Dataset with Expert Annotations of Possible "
    "Pneumonia, doi 10.1148/ryai.2019180041",
    page="https://www.kaggle.com/competitions/rsna-pneumonia-detection-challenge",
)

if __name__ == "__main__":
    main(DATASET)
