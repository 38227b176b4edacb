"""Images for measurements: files as photographs are, in class folders."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image
from torchvision.datasets import ImageFolder

from engine.data.part import Part, RawSplits

DISTINCT = 200  # photographs that are made where nobody says otherwise; the others are links to them


def make_photographs(folder: Path, images: int, distinct: int | None = None) -> None:
    """Smooth JPEG files of 500x375 and 50 to 80 kB, in two class folders; all but the first `distinct` are links."""
    distinct = DISTINCT if distinct is None else distinct
    random = np.random.default_rng(0)
    for number in range(images):
        path = folder / str(number % 2) / f"{number:06}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        if number >= distinct:
            path.hardlink_to(folder / str(number % 2) / f"{number % distinct:06}.jpg")
            continue
        picture = np.zeros((375, 500, 3))
        for side, strength in ((4, 60), (16, 30), (64, 15), (256, 15)):
            noise = Image.fromarray(random.integers(0, 256, (side, side, 3), dtype=np.uint8))
            picture += strength * (np.asarray(noise.resize((500, 375), Image.Resampling.BICUBIC)) / 128.0 - 1)
        Image.fromarray((128 + picture).clip(0, 255).astype(np.uint8)).save(path, quality=92)


def raw_splits(folder: Path, images: int) -> RawSplits:
    """The first `images` of class folders, as a dataset's script would list them."""
    found = ImageFolder(str(folder))
    paths, labels = zip(*found.samples[:images], strict=True)
    names = [str(Path(path).relative_to(folder)) for path in paths]
    whole = Part([Path(path) for path in paths], np.array(labels, np.int64), names)
    return RawSplits(tuple(found.classes), whole.take(np.arange(1, len(whole))), whole.take(np.arange(1)))
