"""A dataset and a backbone that train in moments, added as a user would add theirs: one file, one entry.

python tests/toy.py -model tiny -bs 16
"""

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from multiprocessing import forkserver
from multiprocessing.context import ForkServerContext
from pathlib import Path
from unittest import mock

import numpy as np
from PIL import Image
from torch import nn
from tqdm import tqdm

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import common
import digits
from common import Backbone, Dataset, Part, RawSplits, ReadOptions, WeightsFile
from engine.data.batches import nothing

CLASSES = ("dark", "mid", "light")


def tiny() -> nn.Module:
    """Batch normalisation and dropout, so that running statistics and random numbers matter to a resume."""
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, stride=2),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(2),
        nn.Flatten(),
        nn.Dropout(0.2),
        nn.Linear(32, 1000),
    )


TINY = Backbone(tiny, WeightsFile("tiny", "http://127.0.0.1:9/tiny.pth"), "6")


def part(images: int, seed: int, name: str, classes: int = 3) -> Part:
    """Images that are brighter the higher their class, under much noise."""
    random = np.random.default_rng(seed)
    labels = np.arange(images) % classes
    pixels = 60 * labels[:, None, None, None] + random.integers(0, 120, (images, 8, 8, 3))
    return Part(pixels.clip(0, 255).astype(np.uint8), labels.astype(np.int64), [f"{name}/{i}" for i in range(images)])


def finished_run(out: Path) -> Path:
    """The folder of a run of TINY on digits, which are stored at 8x8 and given to it at 32x32."""
    import pytest  # which those who run this file do without

    with mock.patch.dict(common.BACKBONES, tiny=TINY):
        line = f"-model tiny -bs 64 --weights none --epochs 1 --size 32 --plan off --device cpu --out {out}"
        line += " --precision fp32"  # whatever the processor has
        with pytest.raises(SystemExit, match="0"):
            common.main(digits.DATASET, line.split())
    return next(out.glob("digits/tiny/*"))


def on_disk(given: Part, folder: Path) -> Part:
    """The same images as files, of which folds can be made."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = [folder / f"{name.replace('/', '-')}.png" for name in given.names]
    for path, pixels in zip(paths, given.pixels(), strict=True):
        Image.fromarray(pixels).save(path)
    return Part(paths, given.labels, given.names)


def dataset(train: int = 60, test: int = 21, classes: int = 3, augment: str = "trivial") -> Dataset:
    """A declaration of so many images, read without any file."""

    def read(_: ReadOptions) -> RawSplits:
        return RawSplits(
            CLASSES[:classes],
            part(train, 1, "train", classes),
            part(test, 2, "test", classes),
            checksums={"x": "md5:0"},
        )

    return Dataset(
        key="toy",
        name="Toy",
        version="1",
        domain="natural",
        classes=classes,
        train_images=train,
        test_images=test,
        size=(16, 16),
        augment=augment,
        mean=(0.4, 0.4, 0.4),
        std=(0.2, 0.2, 0.2),
        read=read,
        licence="none",
        citation="none",
        page="https://example.org",
        published=False,
    )


DATASET = dataset()


def main(arguments: Sequence[str] | None = None) -> None:
    """What this script does."""
    common.BACKBONES["tiny"] = TINY
    common.main(DATASET, arguments)


class Process:
    """This script at work in a process of its own, on the processor, in `folder`.

    It is forked from a process that has imported what a run needs, which takes seconds. `printed` and `problems` name
    the files that its output goes to; "": the stream is closed. most_lost: seconds between two saves, at most. first:
    what it does before all else; it is pickled.
    """

    def __init__(
        self,
        line: str,
        folder: Path,
        printed: str = "printed.txt",
        problems: str = "problems.txt",
        most_lost: float = 0.0,
        first: Callable[[], object] = nothing,
    ) -> None:
        self._printed, self._problems = folder / printed, folder / problems
        arguments = ["-model", "tiny", "--device", "cpu", *line.split()]
        given = (arguments, folder, (printed, problems), dict(os.environ), most_lost, first)
        self._process = _context().Process(target=_work, args=given, daemon=True)
        self._process.start()

    @property
    def printed(self) -> str:
        """What it has printed."""
        return self._printed.read_text()

    @property
    def problems(self) -> str:
        """What it has said on stderr."""
        return self._problems.read_text()

    @property
    def runs(self) -> bool:
        """Whether it has not ended."""
        return self._process.is_alive()

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        assert self._process.pid is not None
        os.kill(self._process.pid, number)

    def wait(self, seconds: float = 120.0) -> int:
        """Its exit code, once it has ended; the negative number of the signal that ended it."""
        self._process.join(seconds)
        assert self._process.exitcode is not None, "it does not end"
        return self._process.exitcode


@cache
def _context() -> ForkServerContext:
    """Processes of it are forked from one that is started now."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["engine.run", "sklearn.metrics", "sklearn.model_selection", "tests.toy"])
    places = [str(Path(__file__).resolve().parents[1]), *filter(None, [os.environ.get("PYTHONPATH")])]
    with mock.patch.dict(os.environ, PYTHONPATH=os.pathsep.join(places)):
        forkserver.ensure_running()
    return context


def go_to(folder: Path, environment: Mapping[str, str]) -> None:
    """Leave the environment in which the process was started that this one is forked from: some test's, long ago."""
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(folder)


def _work(
    arguments: Sequence[str],
    folder: Path,
    streams: tuple[str, str],
    environment: Mapping[str, str],
    most_lost: float,
    first: Callable[[], object],
) -> None:
    from engine.training import saving

    saving.MOST_LOST = most_lost
    go_to(folder, environment)
    for descriptor, (name, file) in enumerate(zip(("stdout", "stderr"), streams, strict=True), 1):
        stream = None
        if file:
            os.dup2(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_APPEND), descriptor)
            stream = os.fdopen(descriptor, "w", 1 if name == "stderr" else -1, closefd=False)
        else:
            os.close(descriptor)
        setattr(sys, name, stream)
    signal.signal(signal.SIGINT, signal.default_int_handler)
    first()
    tqdm.set_lock(threading.RLock())  # its own would be missed when the process is killed
    main(arguments)


if __name__ == "__main__":
    main()
