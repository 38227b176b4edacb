"""Features that are kept beside the decoded images, so that a second question about them is answered in seconds."""

from __future__ import annotations

import io
import os
import shutil
import sys
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, fields
from hashlib import sha256
from math import isfinite
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from engine.console import size_text
from engine.errors import one_line
from engine.files import (
    DAMAGED_ARRAYS,
    DamagedError,
    atomic,
    is_sealed,
    json_digest,
    read_json,
    read_small,
    write_json,
)

FOLDER = "features"  # below the folder of decoded images
FORM = 1  # of these files: raised when the same images would get other features, or the files hold other things
SHARE = 0.1  # of the disk's free room, that all kept features together may take; the longest unused go first
PLAN, STEPS = "plan", "steps"  # a speed as the plan of a training run was measured; of a few steps
ROUNDING = 1e-3  # of the features' norm, that float16 may take: it rounds to half of 2^-10
LARGEST_MANIFEST = 1 << 20  # bytes

Features = npt.NDArray[np.floating]


@dataclass(frozen=True)
class About:
    """What the pass of the images through a frozen body found out beside the features."""

    form: str  # dtype and layout, as a plan has them
    seconds: float  # of the pass
    images_per_second: float  # likewise
    device: str  # its name
    parameters: int  # with a new head
    macs: int  # of an image
    train_images_per_second: float | None  # None: it could not be measured
    speed_from: str  # PLAN or STEPS

    @property
    def sound(self) -> bool:
        """Whether it can be so, if it comes from a file."""
        numbers = (self.seconds, self.images_per_second, self.parameters, self.macs)
        speed = 1.0 if self.train_images_per_second is None else self.train_images_per_second
        counted = all(type(number) in (int, float) and isfinite(number) and number >= 0 for number in (*numbers, speed))
        return counted and all(isinstance(word, str) for word in (self.form, self.device, self.speed_from))


@dataclass(frozen=True)
class Frozen:
    """What a frozen body makes of N images: features (N, D), float16 or float32, in the order of the part."""

    features: Features
    about: About
    scores: Mapping[str, Any]  # what was computed of them, as whoever kept it wrote it; {}: nothing yet

    def compact(self) -> Features:
        """The features as they are kept: in float16 where that holds them, else in float32."""
        # of four networks on two sets of images float16 moved accuracies by one image at most, LogME by 2e-6 and the
        # H-score by 3e-5, and no rank; but it ends at 65504, and random weights can give features of 1e-8
        if self.features.dtype == np.float16:
            return self.features
        with np.errstate(over="ignore", invalid="ignore"):
            half = self.features.astype(np.float16)
            error = np.linalg.norm(half.astype(np.float32) - self.features)
        return half if error <= ROUNDING * np.linalg.norm(self.features) else self.features.astype(np.float32)


class Kept:
    """The features of one backbone on one set of images: `<stem>-<digest>.npy`, and `.json`, which is written last.

    identity: all that can change the features. What does not fit the digests that the manifest has is damaged: it is
    named on stderr, never used, and made anew by whoever asked.
    """

    def __init__(self, cache: Path, stem: str, identity: Mapping[str, Any]) -> None:
        self._identity = json_digest({"form": FORM, **identity})
        self.path = cache / FOLDER / f"{stem}-{self._identity[:16]}.npy"

    @property
    def manifest(self) -> Path:
        """The file that says what the other holds."""
        return self.path.with_suffix(".json")

    @property
    def is_there(self) -> bool:
        """Whether features seem to be kept; what is damaged will show."""
        return self.manifest.is_file()

    def read(self, images: int) -> Frozen | None:
        """What is kept of so many images; None: nothing, or nothing that can be used."""
        try:
            frozen = self._read(images)
        except (FileNotFoundError, NotADirectoryError):
            return None
        except (*DAMAGED_ARRAYS, AttributeError) as problem:
            what = f"{problem}" if isinstance(problem, (OSError, DamagedError)) else type(problem).__name__
            print(one_line(f"the kept features {self.path} are damaged ({what}): computed anew"), file=sys.stderr)
            for path in (self.manifest, self.path):
                with suppress(OSError):
                    path.unlink(missing_ok=True)
            return None
        with suppress(OSError):  # the time of the last use, by which the longest unused are found
            os.utime(self.path)
        return frozen

    def _read(self, images: int) -> Frozen:
        """What read() returns. Raises what damage leads to."""
        content = read_json(self.manifest, LARGEST_MANIFEST)
        stated = content.pop("sha256")
        if not is_sealed(content, stated):
            raise DamagedError("its manifest is not what was written")
        if content["identity"] != self._identity:
            raise DamagedError("it is of other features")
        about = About(**content["about"])
        written = read_small(self.path, self.path.stat().st_size)
        if sha256(written).hexdigest() != content["features"] or not about.sound:
            raise DamagedError("it is not what was written")
        features = np.load(io.BytesIO(written), allow_pickle=False)
        if features.ndim != 2 or len(features) != images or features.dtype not in (np.float16, np.float32):
            raise DamagedError(f"{features.dtype} {features.shape} is not a row for each of {images:,} images")
        scores = content.get("scores")
        return Frozen(features, about, scores if isinstance(scores, dict) else {})

    def write(self, frozen: Frozen) -> str:
        """Keep it; returns why it is not kept, "" where it is. A second call with other scores keeps these alone."""
        features = frozen.compact()
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            if problem := self._make_room(features.nbytes):
                return problem
            buffer = io.BytesIO()
            np.save(buffer, features, allow_pickle=False)
            with atomic(self.path) as file:
                file.write(buffer.getbuffer())
            about = {each.name: getattr(frozen.about, each.name) for each in fields(About)}
            digest = sha256(buffer.getbuffer()).hexdigest()
            content = {
                "identity": self._identity,
                "about": about,
                "features": digest,
                "scores": dict(frozen.scores),
            }
            write_json(self.manifest, content | {"sha256": json_digest(content)})
        except OSError as problem:  # a cache that is only read, or full: computed anew next time
            return f"{problem.strerror or problem}"
        return ""

    def _make_room(self, needed: int) -> str:
        """Remove the longest unused features until `needed` bytes more are within SHARE; why not, where they can't."""
        others = []
        for path in self.path.parent.glob("*.npy"):
            with suppress(OSError):  # another process has just removed it
                state = path.stat()
                others += [(state.st_mtime, state.st_size, path)] if path != self.path else []
        taken = sum(size for _, size, _ in others)
        room = SHARE * (shutil.disk_usage(self.path.parent).free + taken)
        if needed > room:
            return f"{size_text(needed)} is more than {SHARE:.0%} of the disk's free room"
        for _, size, path in sorted(others):
            if taken + needed <= room:
                break
            for each in (path.with_suffix(".json"), path):
                each.unlink(missing_ok=True)
            taken -= size
        return ""
