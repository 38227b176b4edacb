"""BreakHis: breast tumours under the microscope, benign or malignant, at four magnifications: four rows of the table.

    python breakhis.py --magnification 200 -model convnext -bs 32

What      7,909 colour images, 700x460 pixels, of 82 patients: 1,995 at 40x, 2,081 at 100x, 2,013 at 200x, 1,820 at 400x
Counts    `honest`: about 0.3 of each class for testing, no patient in both parts. `paper`: 0.3 of each class at random,
          1,395/600, 1,455/626, 1,408/605, 1,273/547. The table's counts are 3 and 6 higher at every magnification:
          folders were counted as images
Input     448x672 pixels; no augmentation
Traps     an image-level split has the same patients in train and test, and results of 98 to 99 %; by patient they are
          91 to 93 %. Patient 13412 has slides of two tumour types: one group here. 69 % is malignant. Nobody publishes
          a checksum: the counts are checked, and the record keeps the sha256 of the archive
"""

import re
from functools import partial
from pathlib import PurePosixPath

from common import Choice, Dataset, File, Part, RawSplits, ReadOptions, main
from engine.data.file_kinds import is_foreign
from engine.data.splits import divide_groups, fewest_names, split_names
from engine.errors import UserError

CLASSES = ("benign", "malignant")
# SOB_<class>_<type>-<year>-<patient><slide>-<magnification>-<number>.png; a letter marks a patient's further slides
NAME = re.compile(
    r"(benign|malignant)/.*/(?P<zoom>\d+)X/SOB_(?P<letter>[BM])_[A-Z]+-(?P<patient>\d+-\d+)[A-Z]*-(?P=zoom)-\d+\.png"
)


def read(options: ReadOptions, magnification: int) -> RawSplits:
    """Images by class, tumour type, slide and magnification; the patient is in the file's name."""
    import numpy as np

    root = options.folder / "histology_slides" / "breast"
    by_name = {
        path.relative_to(root).with_suffix(".png").as_posix(): path
        for path in root.glob(f"*/SOB/*/*/{magnification}X/[!.]*")
        if path.suffix.lower() == ".png" and not is_foreign(path.relative_to(root)) and not path.is_fifo()
    }
    names = sorted(by_name, key=PurePosixPath)
    paths = [by_name[name] for name in names]
    labels, patients = [], []
    for name in names:
        match = NAME.fullmatch(name)
        if not match or match["letter"].lower() != name[0]:
            raise UserError(f"{root / name} is not named as BreakHis names its images. Get the published files.")
        labels.append("bm".index(name[0]))
        patients.append(match["patient"])
    everything = Part([*paths], np.array(labels, dtype=np.int64), names, patients)
    notes: tuple[str, ...] = ()
    if options.protocol == "paper" and names:
        held: set[str] = set()
        for label in range(2):
            # validation and test were held out together, and both served as the test part
            of_class = [name for name, own in zip(names, labels, strict=True) if own == label]
            if len(of_class) >= fewest_names(0.2, 0.1):  # fewer, as partial data can have, are for training
                parts = split_names(of_class, 0.2, 0.1)
                held.update(parts["val"], parts["test"])
        in_test = np.array([name in held for name in names])
        notes = ("the table's counts are 3 (train) and 6 (test) higher: folders were counted as images",)
    else:
        parts_of = divide_groups(everything.labels, patients, (0.7, 0.3), 42) if names else np.zeros(0)
        in_test = parts_of.astype(bool)
    train, test = (everything.take(np.flatnonzero(chosen)) for chosen in (~in_test, in_test))
    return RawSplits(CLASSES, train, test, notes=notes)


def row(
    magnification: int,
    published: tuple[int, int],
    paper: tuple[int, int],
    images: tuple[int, int],
    mean: tuple[float, float, float],
    std: tuple[float, float, float],
) -> Dataset:
    """One magnification: counts of the table, of the `paper` protocol, of benign and of malignant images."""
    return Dataset(
        key=f"breakhis_{magnification}x",
        script="breakhis",
        subjects="breakhis",
        flags=f"--magnification {magnification}",
        name=f"BreakHis {magnification}x",
        version="1",
        domain="medical",
        published=True,
        classes=2,
        train_images=published[0],
        test_images=published[1],
        counts={"paper": paper, "honest": (sum(images),)},
        class_images=dict(zip(CLASSES, images, strict=True)),
        size=(448, 672),
        augment="none",
        mean=mean,
        std=std,
        read=partial(read, magnification=magnification),
        files=(File("BreaKHis_v1.tar.gz", ("https://www.inf.ufpr.br/vri/databases/BreaKHis_v1.tar.gz",), None),),
        folder="BreaKHis_v1",
        contains=("histology_slides",),
        split="by patient, about 0.3, seed 42",
        licence="CC BY 4.0 (sources disagree on commercial use); not to be passed on",
        citation="Spanhol, Oliveira, Petitjean & Heutte (2016), A Dataset for Breast Cancer Histopathological Image "
        "Classification, doi 10.1109/TBME.2015.2496264",
        page="https://web.inf.ufpr.br/vri/databases/breast-cancer-histopathological-database-breakhis/",
    )


MAGNIFICATIONS = {
    40: row(40, (1398, 606), (1395, 600), (625, 1370), (0.8018, 0.6498, 0.7656), (0.1105, 0.1555, 0.1126)),
    100: row(100, (1458, 632), (1455, 626), (644, 1437), (0.7940, 0.6362, 0.7699), (0.1279, 0.1791, 0.1167)),
    200: row(200, (1411, 611), (1408, 605), (623, 1390), (0.7895, 0.6215, 0.7696), (0.1266, 0.1784, 0.1077)),
    400: row(400, (1276, 553), (1273, 547), (588, 1232), (0.7562, 0.5913, 0.7426), (0.1425, 0.2017, 0.1156)),
}

DATASET = Choice(
    "--magnification",
    {"type": int, "choices": tuple(MAGNIFICATIONS), "default": 40, "help": "of the microscope (default: 40)"},
    MAGNIFICATIONS.__getitem__,
    example=MAGNIFICATIONS[40],
    every=tuple(MAGNIFICATIONS.values()),
)

if __name__ == "__main__":
    main(DATASET)
