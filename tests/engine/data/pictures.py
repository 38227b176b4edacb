"""Images and files of them, and what is decoded of those, as several test modules share them."""

import io
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from engine.data.cache import Decoded, decode_all
from engine.data.images import decode, digest, resize
from engine.data.part import HDF5Image, Part, Pixels, RawSplits, Reference
from engine.errors import UnreadableError

SIZE = (9, 14)  # height, width
CLASSES = ("dark", "mid", "light")
BAD = {  # the images of the fixture `spoilt` that can't be read
    "test/2.png": "no such file or directory",
    "train/17.png": "text, no image",
    "train/4.png": "empty",
}

GREY = np.arange(35, dtype=np.uint8).reshape(5, 7) * 7
COLOURS = np.random.default_rng(0).integers(0, 256, (5, 7, 3), dtype=np.uint8)
# colours that change little from pixel to pixel, as JPEG takes them for granted
SMOOTH = np.stack(np.meshgrid(np.arange(48) * 5, np.arange(40) * 6, indexing="xy"), 2).sum(2).clip(0, 255)
SMOOTH = np.stack([SMOOTH, SMOOTH[::-1], np.full_like(SMOOTH, 90)], 2).astype(np.uint8)
# 16 bits, with the darkest and the brightest
WIDE = (np.arange(35, dtype=np.uint16).reshape(5, 7) * 1900 + 130).astype(np.uint16)
WIDE[0, :3] = 0, 128, 65_535
# four colours, and which of them each pixel has
TABLE = np.array([[0, 0, 0], [250, 20, 3], [4, 200, 40], [255, 255, 255]], np.uint8)
PLACES = np.arange(35, dtype=np.uint8).reshape(5, 7) % 4
PALETTE_COLOURS = TABLE[PLACES]


def three(grey: npt.NDArray[Any]) -> Pixels:
    """The grey image (H, W) as three equal channels."""
    return np.repeat(grey.astype(np.uint8)[..., None], 3, axis=2)


def encoded(image: Image.Image, kind: str, **options: Any) -> bytes:
    """The image as a file of that format."""
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def unreadable(reference: Path | HDF5Image) -> str:
    """The reason for which `reference` can't be decoded, which is fit to be read."""
    with pytest.raises(UnreadableError) as caught:
        decode(reference)
    reason = str(caught.value)
    assert reason
    assert len(reason) <= 300
    assert not any(sign in reason for sign in ("\n", "Traceback", "<", " object at ", "0x", "NoneType", "Error("))
    return reason


def save(path: Path, seed: int) -> Path:
    """A PNG of noise, of a size that its seed chooses."""
    random = np.random.default_rng(seed)
    path.parent.mkdir(exist_ok=True)
    Image.fromarray(random.integers(0, 256, (8 + seed % 5, 11, 3), dtype=np.uint8)).save(path)
    return path


def part(paths: list[Path]) -> Part:
    """These images, of three classes in turn."""
    return Part(paths, np.arange(len(paths), dtype=np.int64) % 3, [f"{path.parent.name}/{path.name}" for path in paths])


def listed(data: Path) -> RawSplits:
    """What is in `data` now."""
    train, test = (part(sorted((data / name).iterdir())) for name in ("train", "test"))
    return RawSplits(CLASSES, train, test)


def decoded(data: Path, size: tuple[int, int] = SIZE, allow_unreadable: bool = False, key: str = "toy") -> Decoded:
    """What is in `data`, from a cache in it."""
    found = decode_all(listed(data), key, size, data / "cache", allow_unreadable)
    assert found is not None
    return found


def table(found: Decoded) -> Pixels:
    """All pixels."""
    return found.pixels[np.arange(len(found.pixels))]


def kept(data: Path) -> list[str]:
    """What lies in the cache folder, without what is under a lock's name."""
    return sorted(path.name for path in (data / "cache").iterdir() if path.suffix != ".lock")


def references(part: Part) -> list[Reference]:
    """What each image of the part is decoded from."""
    return part.entries(part.references)


def check(part: Part, original: Part, size: tuple[int, int] = SIZE) -> None:
    """`part` has the pixels, digests and order of the references of `original`."""
    pixels = [decode(reference) for reference in references(original)]
    np.testing.assert_array_equal(part.pixels(), [resize(image, size) for image in pixels])
    assert part.own_digests == [digest(image) for image in pixels]
    assert part.names == original.names
    np.testing.assert_array_equal(part.labels, original.labels)


@contextmanager
def without_rights(path: Path, left: int = 0) -> Iterator[None]:
    """Within it this process has no more rights to `path` than `left`, a file mode, says, even if it runs as root."""
    mode = path.stat().st_mode
    path.chmod(left)
    if root := os.geteuid() == 0:
        os.seteuid(65_534)
    try:
        yield
    finally:
        if root:
            os.seteuid(0)
        path.chmod(mode)


def until(condition: Callable[[], object]) -> None:
    """Wait for what another thread or process does; an AssertionError after half a minute."""
    end = time.monotonic() + 30
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)
