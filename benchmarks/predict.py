"""Images/s of predict.py beside timm's inference.py: the same photographs, image size and machine, in turns.

python benchmarks/predict.py [--models NAME ...] [--images 1000] [--rounds 3] [--size 224] [--out DIR]
python benchmarks/predict.py --memory

A run of each backbone is made first, from random weights on few photographs, with its plan as it is measured: that
is in no figure. Both then classify all images in processes of their own, which take turns, in an order that is reversed
every round. What is timed begins when all is imported and the model is built, and ends when the answers are written.
timm's decodes to the same side, with bicubic resizing and a crop in the middle, as it does.

--memory: the peak memory of predict.py at 2,000 and at 20,000 small images, and at a million paths of which none is
decoded, nor passed through the model.
"""

from __future__ import annotations

import argparse
import io
import os
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from benchmarks.photographs import make_photographs
from engine.cli import Help, run_command, whole
from engine.console import say
from engine.environment import environment
from engine.errors import RunError
from engine.files import check_output, write_json
from engine.paths import PROJECT

# ours, and what timm calls the same network
PAIRS = {
    "resnet": "resnet50",
    "mobilenet": "mobilenetv3_large_100",
    "regnet": "regnety_032",
    "convnext": "convnext_tiny",
}
FEW = 40  # photographs that a run is trained on
QUICK = ["resnet", "mobilenet", "regnet"]


def call(command: Sequence[str | Path], folder: Path) -> str:
    """What a Python command prints on stdout and stderr. RunError: it fails."""
    line = [sys.executable, *map(str, command)]
    done = subprocess.run(line, cwd=folder, capture_output=True, text=True)  # noqa: S603 (the project's own)
    if done.returncode:
        raise RunError(f"{' '.join(line)} ends with {done.returncode}: {done.stderr[-500:]}")
    return done.stdout + done.stderr


def trained(name: str, side: int, folder: Path) -> Path:
    """The folder of a run on few photographs."""
    if not (folder / "few").exists():
        make_photographs(folder / "few", FEW)
    flags = ["--weights", "none", "--size", str(side), "--shots", "8", "--epochs", "1", "-bs", "8", "--device", "cpu"]
    call([PROJECT / "folder.py", "few", "-model", name, *flags], folder)
    return next((folder / "runs" / "folder-few" / name).glob("*"))


def of_predict(run: Path, folder: Path) -> float:
    """Images/s of predict.py."""
    flags = ["--csv", "--out", "answers.csv", "--device", "cpu"]
    said = call([PROJECT / "predict.py", run, "photographs", *flags], folder)
    match = re.search(r"images +[\d,]+, ([\d,.]+) a second", said)
    assert match, said
    return float(match[1].replace(",", ""))


def of_timm(name: str, side: int, folder: Path) -> float:
    """Images/s of timm's loop."""
    said = call([PROJECT / "benchmarks" / "timm_inference.py", PAIRS[name], "photographs", str(side)], folder)
    match = re.search(r"images (\d+) seconds ([\d.]+)", said)
    assert match, said
    return int(match[1]) / float(match[2])


def compare(name: str, side: int, rounds: int, folder: Path) -> dict[str, Any]:
    """Images/s of both in each round, and the median of their ratios."""
    run = trained(name, side, folder)
    ours, theirs = [], []
    for number in range(rounds):
        if number % 2:
            theirs.append(of_timm(name, side, folder))
        ours.append(of_predict(run, folder))
        if not number % 2:
            theirs.append(of_timm(name, side, folder))
        say(f"{name:12} round {number + 1}: predict.py {ours[-1]:.1f}, timm {theirs[-1]:.1f} images/s")
    ratio = statistics.median(one / other for one, other in zip(ours, theirs, strict=True))
    return {"predict": ours, "timm": theirs, "ratio": ratio}


def speed(names: Sequence[str], images: int, rounds: int, side: int, out: Path) -> None:
    """Compare each backbone, print a line of it, and write predict.json."""
    check_output(out)
    out.mkdir(parents=True, exist_ok=True)
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        make_photographs(folder / "photographs", images)
        for name in names:
            results[name] = compare(name, side, rounds, folder)
            ours, theirs = (statistics.median(results[name][key]) for key in ("predict", "timm"))
            ratio = results[name]["ratio"]
            say(f"{name:12} predict.py {ours:7.1f}  timm {theirs:7.1f} images/s: {ratio:.2f} times as fast")
            about = {"images": images, "side": side, "environment": environment()}
            write_json(out / "predict.json", about | {"results": results})


def memory() -> None:
    """The peak of this process, in MiB, at numbers of images that are ten times as large and more."""
    with tempfile.TemporaryDirectory() as made:
        folder = Path(made)
        run = trained("shufflenet", 32, folder)
        for number in (2_000, 20_000):
            paths = "".join(f"few/{index % 2}/{index % FEW:06}.jpg\n" for index in range(number)).encode()
            say(f"{number:>9,} images: {_peak(run, paths, folder):,.0f} MiB")
        say(f"1,000,000 paths alone: {_peak(run, b'', folder, 10**6):,.0f} MiB")


def _peak(run: Path, paths: bytes, folder: Path, fake: int = 0) -> float:
    """The most memory that predict.py takes, in a process that is forked from this one and then ends."""
    child = os.fork()
    if not child:
        os.chdir(folder)
        os._exit(_predict(run, paths, fake))
    _, status, usage = os.wait4(child, 0)
    if status:
        raise RunError(f"predict.py ended with {os.waitstatus_to_exitcode(status)}")
    return usage.ru_maxrss / (1024 if sys.platform == "linux" else 2**20)


def _predict(run: Path, paths: bytes, fake: int) -> int:
    import predict

    with _undecoded(fake) as stdin:
        sys.stdin = io.TextIOWrapper(stdin or io.BytesIO(paths))
        return predict.main([str(run), "-", "--csv", "--out", "answers.csv", "--device", "cpu"])


class _Lines(io.RawIOBase):
    """So many paths, a line each, none of which is held."""

    def __init__(self, number: int) -> None:
        self._lines = (b"%d.jpg\n" % index for index in range(number))

    def __iter__(self) -> Iterator[bytes]:
        return self._lines

    def readable(self) -> bool:
        """As a stream says it."""
        return True


@contextmanager
def _undecoded(fake: int) -> Iterator[_Lines | None]:
    """Let so many paths on stdin be images that are not looked at, if it is any."""
    if not fake:
        yield None
        return
    import torch

    from engine.data.decode_pool import DecodeResult

    @contextmanager
    def decoder(*_: object) -> Iterator[Any]:
        yield lambda first, references, room: [DecodeResult("", "")] * len(references)

    def none(*_: object) -> str:
        return ""

    def unasked(network: Any, stored: Any) -> Any:
        return torch.zeros(len(stored), len(network.trained.classes))

    # functions: a mock would keep all that it is called with
    with ExitStack() as stack:
        for name, instead in (
            ("decoding.Stream._read", none),
            ("decoding.in_place", decoder),
            ("decoding.processes", decoder),
            ("inputs._problem", none),
            ("network.Network.logits", unasked),
        ):
            stack.enter_context(mock.patch(f"predicting.{name}", instead))
        yield _Lines(fake)


def main() -> None:
    """Do what the command line asks for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=Help)
    parser.add_argument(
        "--models", nargs="+", choices=PAIRS, default=QUICK, metavar="NAME", help=f"of {', '.join(PAIRS)}"
    )
    parser.add_argument("--images", type=whole(1), default=1000, metavar="N", help="photographs (default: 1000)")
    parser.add_argument("--rounds", type=whole(1), default=3, metavar="N", help="turns of each (default: 3)")
    parser.add_argument("--size", type=whole(32), default=224, metavar="S", help="their side for the models (224)")
    parser.add_argument("--out", type=Path, default=Path("build"), metavar="DIR", help="default: build")
    parser.add_argument("--memory", action="store_true", help="measure memory instead")
    arguments = parser.parse_args()
    if arguments.memory:
        memory()
    else:
        speed(arguments.models, arguments.images, arguments.rounds, arguments.size, arguments.out)


if __name__ == "__main__":
    sys.exit(run_command(main))
