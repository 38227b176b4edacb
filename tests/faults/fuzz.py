"""The project's readers, fed with bytes that are nearly right: by atheris, which follows the branches they take, where
it is installed, else by changes at random.

python -m tests.faults.fuzz READER FOLDER SECONDS SEED is one of them by atheris: a process that ends at a crash.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random

from engine.errors import RunError, UserError
from engine.paths import PROJECT
from tests import fakes
from tests.faults.programs import PROGRAMS, Undisturbed
from tests.faults.verdict import Verdict

seconds = 60.0  # for each reader
START = 20.0  # seconds, under which atheris has hardly begun
LARGEST = 1 << 16  # bytes of an input
Reader = Callable[[Path], object]


def record(path: Path) -> object:
    """record.json."""
    from engine.records.schema import RecordError, read_record

    try:
        return read_record(path)
    except RecordError:
        return None


def checkpoint(path: Path) -> object:
    """checkpoint.pt, by which a run goes on."""
    from engine.files import DamagedError
    from engine.records.checkpoint import load_checkpoint

    try:
        return load_checkpoint(path)
    except DamagedError:
        return None


def predictions(path: Path) -> object:
    """predictions.npz, of a report."""
    from reporting.predictions import _outcome

    return _outcome.__wrapped__(path, (0, 0), 360, 10, True, 1.0)


def image(path: Path) -> object:
    """An image's file."""
    from engine.data.decode_pool import readable

    return readable(path)


def split_json(path: Path) -> object:
    """split.json, of a folder that is trained on, and of one that is written over."""
    import folder
    from engine.data.split_output import _is_split

    return _is_split(path), folder.read_split(path.parent, ["train/cat/1.png"])


def lines(path: Path) -> object:
    """A list as text."""
    from engine.readers.annotations import read_columns, read_table

    return read_columns(path, 2), read_table(path)


def rows(path: Path) -> object:
    """A list as CSV."""
    from engine.readers.annotations import read_csv

    return read_csv(path, "patientId")


def labels(path: Path) -> object:
    """A user's file of labels."""
    from engine.readers.label_table import read_label_table

    return read_label_table(path, lambda text: text.endswith("1"))


def json_list(path: Path) -> object:
    """A list as JSON."""
    from engine.readers.annotations import read_json

    return read_json(path)


def matlab(path: Path) -> object:
    """A list of MATLAB's."""
    from engine.readers.annotations import read_matlab

    return read_matlab(path, "labels")


def pickled(path: Path) -> object:
    """A batch of CIFAR's."""
    from engine.readers.cifar import load_pickle

    return load_pickle(path, None)


def plan(path: Path) -> object:
    """What is remembered of a plan."""
    from engine.training.findings import remembered

    return remembered(path)


def checksums(path: Path) -> object:
    """What is remembered of checksums."""
    from engine.data.checksums import remembered

    return remembered(path.parent)


def extracted(path: Path) -> None:
    """An archive."""
    from tests.engine.data.test_unpack import extract_any

    extract_any(path.read_bytes(), path.parent, f"again{path.suffix}")


def weights(path: Path) -> None:
    """What is given by --weights."""
    from tests.engine.models.hostile import load_bytes

    load_bytes(path.read_bytes())


# reader -> the name of its file, and where files that are right lie: in the fakes, or in what a program left
READERS: dict[str, tuple[Reader, str, str]] = {
    "record": (record, "record.json", "digits: runs/*/*/*/record.json"),
    "checkpoint": (checkpoint, "checkpoint.pt", "digits: runs/*/*/*/checkpoint.pt"),
    "predictions": (predictions, "predictions.npz", "digits: runs/*/*/*/predictions.npz"),
    "split_json": (split_json, "split.json", "split: out/split.json"),
    "image": (image, "x.png", "split: pets/cat/*.png"),
    "jpeg": (image, "x.jpg", "food101 .jpg"),
    "tiff": (image, "x.tif", "ucmerced .tif"),
    "dicom": (image, "x.dcm", "rsna .dcm"),
    "lines": (lines, "list.txt", "cub200 .txt"),
    "rows": (rows, "list.csv", "rsna .csv"),
    "labels": (labels, "labels.csv", ""),
    "json_list": (json_list, "list.json", "food101 .json"),
    "matlab": (matlab, "list.mat", "flowers102 .mat"),
    "pickled": (pickled, "data_batch_1", "cifar10 _1"),
    "plan": (plan, "plan.json", ""),
    "checksums": (checksums, ".checksums.json", ""),
    "tar": (extracted, "x.tar", ""),
    "zip": (extracted, "x.zip", ""),
    "weights": (weights, "x.pth", "digits: runs/*/*/*/checkpoint.pt"),
}
PLAN = b'{"precision": "fp32", "layout": "NCHW", "micro_batch": null, "memory": null, "reason": "x", "step_seconds": 1}'
OF_MEMORY = {
    "plan": PLAN,
    "labels": b'image_id,label,split,group\na1,cat,train,g1\nb1.jpg,"dog, wolf",test,g2\n',
    "checksums": b'{"a.zip": {"checksum": "md5:0", "size": 1, "time": 2, "own": [1, "x", null]}}',
}
NEEDED = {name: PROGRAMS[name] for name in ("digits", "split")}


def others() -> dict[str, tuple[str, str]]:
    """Functions of the tests that are made for this, called fuzz_...(data: bytes): name -> module and function."""
    found = {}
    for path in sorted((PROJECT / "tests").rglob("test_*.py")):
        for node in ast.parse(path.read_text("utf-8")).body:
            if isinstance(node, ast.FunctionDef) and node.name.startswith("fuzz_"):
                module = ".".join(path.relative_to(PROJECT).with_suffix("").parts)
                found[node.name] = (module, node.name)
    return found


def target(name: str, folder: Path) -> Callable[[bytes], object]:
    """What is fed: it raises where a reader raises what it should not. Its file lies in `folder`."""
    if name not in READERS:
        module, function = others()[name]
        own: Callable[[bytes], object] = getattr(importlib.import_module(module), function)
        return own
    reader, file, _ = READERS[name]
    path = folder / file

    def feed(data: bytes) -> None:
        path.write_bytes(data)
        with suppress(UserError, RunError):
            reader(path)

    return feed


def corpus(name: str, alone: dict[str, Undisturbed]) -> list[bytes]:
    """Files that are right, or the beginning of what a reader takes."""
    place = READERS[name][2] if name in READERS else ""
    if ": " in place:
        program, _, pattern = place.partition(": ")
        root = alone[program].start.parent / "alone" / "place"
        return [path.read_bytes() for path in sorted(root.glob(pattern))[:3]]
    if place:
        key, _, end = place.partition(" ")
        return [body for path, body in fakes.made(key).extracted.items() if path.endswith(end)][:3]
    if name in ("tar", "zip"):
        from tests.engine.data.test_unpack import WHOLE

        return [body for file, body in WHOLE if file.endswith(name)]
    return [OF_MEMORY.get(name, b"{}")]


def mutated(random: Random, seeds: list[bytes]) -> bytes:
    """One of them with a few changes."""
    data = bytearray(random.choice(seeds))
    for _ in range(random.choice([1, 1, 2, 4, 16])):
        at = random.randrange(len(data) + 1)
        end = min(len(data), at + random.choice([1, 4, 32, 512]))
        match random.randrange(6):
            case 0 if data:
                data[at % len(data)] ^= 1 << random.randrange(8)
            case 1:
                data[at:end] = b""
            case 2:
                data[at:at] = random.choice(
                    [b"\0" * 8, b"[" * 5000, b"null", b"1e999", b"\xff\xfe", b"-1", data[at:end]]
                )
            case 3:
                data[at:end] = random.randbytes(end - at)
            case 4:
                data[at:end] = bytes(end - at)
            case 5:
                data = data[:at]
    return bytes(data[:LARGEST])


def fuzz(case: int, random: Random, alone: dict[str, Undisturbed], folder: Path) -> Verdict:
    """One reader, for so many `seconds`."""
    names = [*READERS, *others()]
    name = names[case % len(names)]
    folder.mkdir(parents=True)
    verdict = Verdict("fuzz", case, f"fuzzed: {name}", name)
    seeds = [data[:LARGEST] for data in corpus(name, alone)]
    guided = seconds >= START and importlib.util.find_spec("atheris")
    runs, crash = (by_atheris if guided else by_chance)(name, folder, seeds, random)
    verdict.times, verdict.seen = runs, ["by atheris" if guided else "by chance"]
    if crash:
        verdict.add("traceback", crash)
    return verdict


def by_chance(name: str, folder: Path, seeds: list[bytes], random: Random) -> tuple[int, str]:
    """How many inputs were read, and what went wrong with the last, which is left in `folder`: a library may crash."""
    count, crash, said = folder / "count", folder / "crash", folder / "said.txt"
    if not (pid := os.fork()):
        try:
            feed, end, runs = target(name, folder), time.monotonic() + seconds, 0
            while time.monotonic() < end:
                data = mutated(random, seeds)
                runs += 1
                count.write_text(str(runs))
                crash.write_bytes(data)
                feed(data)
            crash.unlink()
        except Exception:
            said.write_text(traceback.format_exc()[-600:])
        finally:
            os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if not crash.exists():
        return int(count.read_text()), ""
    reason = said.read_text() if said.exists() else f"it died of signal {-code}"
    return int(count.read_text()), f"{reason} {crash.read_bytes()[:60]!r}"


def by_atheris(name: str, folder: Path, seeds: list[bytes], random: Random) -> tuple[int, str]:
    """The same, by a process of atheris."""
    (folder / "corpus").mkdir()
    for number, data in enumerate(seeds):
        (folder / "corpus" / str(number)).write_bytes(data)
    line = [
        sys.executable,
        "-m",
        "tests.faults.fuzz",
        name,
        str(folder),
        str(int(seconds)),
        str(random.randrange(1, 2**31)),
    ]
    said = folder / "said.txt"
    with said.open("wb") as file:
        process = subprocess.run(line, stdout=file, stderr=file, stdin=subprocess.DEVNULL, cwd=PROJECT, check=False)
    text = said.read_text("utf-8", errors="replace")
    runs = max(map(int, re.findall(r"^#(\d+)\t", text, re.MULTILINE)), default=0)
    if process.returncode:
        begin = max(text.find("Uncaught Python exception"), text.find("ERROR: libFuzzer"), 0)
        return runs, f"{text[begin:][:900]} {text[-300:]}"
    return runs, ""


def main() -> None:
    """Feed a reader by atheris."""
    atheris = importlib.import_module("atheris")  # which has no types
    name, folder, most, seed = sys.argv[1:]
    with atheris.instrument_imports(include=["engine", "folder", "reporting"]):
        for module in ("engine.records.checkpoint", "engine.data.decode_pool", "reporting.outcomes", "folder"):
            importlib.import_module(module)
        for module in (
            "engine.data.unpack",
            "engine.models.tensor_file",
            "engine.readers.annotations",
            "engine.readers.cifar",
            "engine.readers.label_table",
            "engine.training.findings",
        ):
            importlib.import_module(module)
    work = Path(tempfile.mkdtemp(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None))
    options = [f"-max_total_time={most}", f"-seed={seed}", f"-max_len={LARGEST}", "-rss_limit_mb=8192", "-timeout=30"]
    options += ["-close_fd_mask=1", f"-artifact_prefix={folder}/"]
    feed = target(name, work)
    atexit_remove(work)
    atheris.Setup([sys.argv[0], *options, f"{folder}/corpus"], lambda data: feed(bytes(data)) and None)
    atheris.Fuzz()


def atexit_remove(folder: Path) -> None:
    """Remove it when the process ends."""
    import atexit

    atexit.register(shutil.rmtree, folder, ignore_errors=True)


if __name__ == "__main__":
    main()
