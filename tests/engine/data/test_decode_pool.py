"""Images decoded by processes: the same as by threads, and no process, thread or file is left, however it ends."""

import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from engine.data import decode_pool as decoding
from engine.data import images
from engine.data.cache import Decoded
from engine.data.decode_pool import DecodeResult, Target, decode_rows
from engine.data.images import decode, digest
from engine.data.part import HDF5Image, Reference
from engine.errors import RunError, UserError
from engine.paths import PROJECT
from tests.engine.data.pictures import BAD, SIZE, check, decoded, kept, listed, references, until


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[list["subprocess.Popen[bytes]"]]:
    """Every image is decoded by one of two processes, which are listed here."""
    monkeypatch.setattr(decoding, "FEW", 0)
    monkeypatch.setattr(decoding, "PIECE", 4)
    monkeypatch.setattr(decoding, "cpus", lambda: 2)
    popen, found = subprocess.Popen, []

    def start(*arguments: Any, **options: Any) -> "subprocess.Popen[bytes]":
        process = popen(*arguments, **options)
        if decoding.CODE in arguments[0]:
            found.append(process)
        return process

    monkeypatch.setattr(subprocess, "Popen", start)
    yield found
    assert len(found) == 2
    assert all(process.poll() is not None for process in found)
    assert not [thread for thread in threading.enumerate() if thread.name.startswith("ThreadPoolExecutor")]


def test_processes_decode_as_this_one(spoilt: Path, started: list[Any], monkeypatch: pytest.MonkeyPatch) -> None:
    found, original = decoded(spoilt, allow_unreadable=True), listed(spoilt)
    assert found.bad == BAD
    for whole in (original.train, original.test):
        good = whole.take(np.flatnonzero([name not in BAD for name in whole.names]))
        check(found.part(whole), good)
    files = {name: (spoilt / "cache" / name).read_bytes() for name in kept(spoilt)}
    shutil.rmtree(spoilt / "cache")
    monkeypatch.setattr(decoding, "FEW", 300)
    decoded(spoilt, allow_unreadable=True)
    assert {name: (spoilt / "cache" / name).read_bytes() for name in kept(spoilt)} == files


def test_slices(tmp_path: Path, started: list[Any]) -> None:
    images = np.random.default_rng(0).integers(0, 256, (30, 7, 8, 3), dtype=np.uint8)
    with h5py.File(tmp_path / "images.h5", "w") as file:
        file.create_dataset("images", data=images, chunks=(3, 7, 8, 3), compression="gzip")
    slices = [HDF5Image(tmp_path / "images.h5", "images", index) for index in range(30)]
    assert [outcome.digest for outcome in decode_rows(slices, None, "reading")] == [digest(image) for image in images]


@pytest.mark.parametrize("images", [decoding.FEW, decoding.FEW + 1])
def test_few_images_start_no_process(images: int, data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    processes = decoding.Process
    started = []

    def start(target: Target | None) -> decoding.Process:
        started.append(target)
        return processes(target)

    monkeypatch.setattr(decoding, "cpus", lambda: 2)
    monkeypatch.setattr(decoding, "Process", start)
    outcomes = decode_rows([data / "train" / "0.png"] * images, None, "reading")
    assert outcomes == [DecodeResult(digest(decode(data / "train" / "0.png")), "")] * images
    assert len(started) == (2 if images > decoding.FEW else 0)


def test_they_import_no_more_than_they_need() -> None:
    code = "import sys, engine.data.decode_pool; print(*{name.partition('.')[0] for name in sys.modules})"
    names = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=True).stdout
    assert {"numpy", "PIL"} <= set(names.split())
    assert not {"torch", "torchvision", "sklearn", "scipy", "h5py", "pydicom"} & set(names.split())


def blocking(data: Path) -> Path:
    """An image that whoever opens it waits for."""
    path = data / "train" / "2.png"
    path.unlink()
    os.mkfifo(path)
    return path


def test_a_process_that_is_killed(data: Path, started: list["subprocess.Popen[bytes]"]) -> None:
    blocking(data)

    def kill() -> None:
        until(lambda: len(started) == 2)
        for process in started:
            process.send_signal(signal.SIGKILL)

    killer = threading.Thread(target=kill)
    killer.start()
    with pytest.raises(RunError) as caught:
        decoded(data)
    killer.join()
    message = str(caught.value)
    assert message.startswith("a process that decodes images died (SIGKILL) at ")
    assert str(data) in message
    assert "memory" in message
    assert kept(data) == []


def test_a_process_that_dies_at_an_image_is_named_with_it(
    data: Path, started: list[Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    dies = (
        "import os; decode_pool.load = lambda path, _: os.kill(os.getpid(), 9) if path.name == '13.png' else load(path)"
    )
    begin, serve = decoding.CODE.split("decode_pool.serve")
    monkeypatch.setattr(decoding, "CODE", f"{begin}load = decode_pool.load; {dies}; decode_pool.serve{serve}")
    with pytest.raises(RunError, match=f"died \\(SIGKILL\\) at {data / 'train' / '13.png'}. If memory ran out"):
        decoded(data)


@pytest.mark.parametrize("processes", [False, True])
def test_what_is_too_large_beside_others_is_decoded_alone(
    processes: bool, data: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """Each image takes 2,200 to 3,300 bytes by its size, and half of 6,000 are left for each of two at once."""
    if processes:
        request.getfixturevalue("started")
    monkeypatch.setattr(decoding, "cpus", lambda: 2)
    asked: list[int] = []

    def room() -> float:
        asked.append(len(asked))
        return 6000

    monkeypatch.setattr(decoding, "room_for_images", room)
    found, original = decoded(data), listed(data)
    assert not found.bad
    for whole in (original.train, original.test):
        check(found.part(whole), whole)
    pixels = [decode(reference) for part in (original.train, original.test) for reference in references(part)]
    assert 0 < sum(25 * image.shape[0] * image.shape[1] > 3000 for image in pixels) == len(asked) - 1 < 27


def test_what_is_too_large_alone_is_left_out_if_that_is_allowed(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "room_for_images", lambda: 25 * 11 * 11)
    bad = decoded(data, allow_unreadable=True).bad
    assert 0 < len(bad) < 27
    assert set(bad.values()) == {
        "11 x 12 pixels take up to 0.0 GB of memory, more than the 0.0 GB that are left for it: close other programs, "
        "make it smaller, or cut it"
    }
    with pytest.raises(UserError) as caught:
        decoded(data)
    assert "Do what these lines say, or leave them out with --allow-partial" in str(caught.value)


def test_memory_that_runs_out_at_an_image(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def resize(image: Any, size: tuple[int, int]) -> Any:
        if image.height == 12:
            raise MemoryError
        return images.resize(image, size)

    monkeypatch.setattr(decoding, "resize", resize)
    bad = decoded(data, allow_unreadable=True).bad
    assert 0 < len(bad) < 27
    assert all(
        reason.startswith("memory ran out while it was decoded: close other programs") for reason in bad.values()
    )
    assert len(decoded(data, allow_unreadable=True).bad) == len(bad)


def test_a_process_that_fails(data: Path, started: list[Any], monkeypatch: pytest.MonkeyPatch, capfd: Any) -> None:
    monkeypatch.setattr(decoding, "CODE", "import sys; sys.exit('a fault')")
    with pytest.raises(RunError, match=r"died \(exit code 1: see above\)"):
        decoded(data)
    assert "a fault" in capfd.readouterr().err
    assert kept(data) == []


def test_what_a_process_can_not_write(data: Path, started: list[Any]) -> None:
    (data / "file").touch()
    with (data / "file").open("rb") as file, pytest.raises(OSError, match="Bad file descriptor"):
        decode_rows(references(listed(data).train), Target(file.fileno(), 0, SIZE), "decoding")


def test_an_error_that_the_user_can_mend(tmp_path: Path, started: list[Any]) -> None:
    (tmp_path / "images.h5").write_text("a text")
    slices: list[Reference] = [HDF5Image(tmp_path / "images.h5", "images", index) for index in range(30)]
    with pytest.raises(UserError, match=r"images\.h5 can't be read as HDF5"):
        decode_rows(slices, None, "reading")


COMMAND = """
import signal, subprocess, sys
from pathlib import Path
import numpy as np
from engine.data import decode_pool as decoding
from engine.data.cache import decode_all
from engine.data.part import RawSplits, Part
decoding.FEW, decoding.PIECE, decoding.cpus = 0, 4, lambda: 2
for number in (signal.SIGINT, signal.SIGTERM):  # a shell's background job starts with the first ignored
    signal.signal(number, signal.default_int_handler)
popen = subprocess.Popen
def start(*arguments, **options):
    process = popen(*arguments, **options)
    print(process.pid, flush=True)
    return process
subprocess.Popen = start
data = Path(sys.argv[1])
def part(name):
    paths = sorted((data / name).iterdir())
    return Part(paths, np.zeros(len(paths), np.int64), [f"{name}/{path.name}" for path in paths])
decode_all(RawSplits(("a",), part("train"), part("test")), "toy", (9, 14), data / "cache", False)
"""


Start = Callable[[], "tuple[subprocess.Popen[str], list[int]]"]


@pytest.fixture
def command(data: Path) -> Iterator[Start]:
    """Starts a command that decodes `data`; also the ids of its processes."""
    commands: list[subprocess.Popen[str]] = []
    decoders: list[int] = []

    def start() -> "tuple[subprocess.Popen[str], list[int]]":
        child = subprocess.Popen(
            [sys.executable, "-c", COMMAND, str(data)],
            cwd=PROJECT,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        commands.append(child)
        assert child.stdout is not None
        own = [int(child.stdout.readline()) for _ in range(2)]
        decoders.extend(own)
        return child, own

    yield start
    for process in filter(alive, decoders):  # they have the pipes open that are read to their ends below
        os.kill(process, signal.SIGKILL)
    for child in commands:
        child.kill()
        child.communicate()


def alive(process: int) -> bool:
    # one that has ended, and that nobody has waited for, is no longer at work
    status = subprocess.run(["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True).stdout
    return bool(status.strip()) and not status.startswith("Z")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_command_leaves_nothing(number: signal.Signals, data: Path, command: Start) -> None:
    blocking(data)
    child, processes = command()
    time.sleep(0.5)  # until one of them waits
    assert all(map(alive, processes))
    if number == signal.SIGINT:  # as a terminal does
        os.killpg(child.pid, number)
    else:
        child.send_signal(number)
    # nobody ever writes to what one of them waits for: whoever waits for that process is never done
    errors = child.communicate(timeout=60)[1]
    assert child.returncode != 0
    assert errors.count("Traceback") == 1
    assert errors.rstrip().endswith("KeyboardInterrupt")
    assert not any(map(alive, processes))
    assert kept(data) == []


def test_a_killed_command_takes_its_processes_along(data: Path, command: Start) -> None:
    for number in range(20, 1000):
        (data / "train" / f"{number}.png").hardlink_to(data / "train" / "0.png")
    for number in range(2):
        (data / "train" / "0.png").touch()  # or it would find what was made before it was killed
        child, processes = command()
        time.sleep(random.Random(number).uniform(0, 0.5))
        child.kill()
        child.wait()
        until(lambda: not any(map(alive, processes)))  # noqa: B023
    found: Decoded = decoded(data)
    check(found.part(listed(data).train), listed(data).train)
    assert sorted(Path(name).suffix for name in kept(data)) == [".json", ".npy"]


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux can end a process with its parent")
def test_a_killed_command_takes_along_a_process_that_waits(data: Path, command: Start) -> None:
    blocking(data)
    child, processes = command()
    time.sleep(0.5)  # until one of them waits
    child.kill()
    child.wait()
    until(lambda: not any(map(alive, processes)))


MEMORY = """
import resource, sys
from pathlib import Path
import h5py
import numpy as np
from engine.data import decode_pool as decoding
from engine.data.cache import decode_all
from engine.data.part import RawSplits, Part, HDF5Image
decoding.cpus = lambda: 2
def peak():
    (line,) = [line for line in open("/proc/self/status") if line.startswith("VmHWM")]
    return int(line.split()[1]) * 1024
def part(name, rows):
    path = Path(sys.argv[1]) / "images.h5"
    images = [HDF5Image(path, "images", row) for row in rows]
    return Part(images, np.zeros(len(rows), np.int64), [f"{row:05}" for row in rows])
count, before = int(sys.argv[2]), peak()
found = decode_all(
    RawSplits(("a",), part("train", range(200, count)), part("test", range(200))), "toy", (256, 256),
    Path(sys.argv[1]) / "cache", False,
)
unit = 1 if sys.platform == "darwin" else 1024
print(peak() - before, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit, *found.pixels.shape)
print(*found.digests)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads the peak of the memory from /proc")
@pytest.mark.parametrize("count", [1200, pytest.param(6200, marks=pytest.mark.slow)])
def test_memory_does_not_grow_with_the_data(tmp_path: Path, count: int) -> None:
    """0.24 and 1.2 GB of pixels. The peak is VmHWM, since ru_maxrss of a new process begins with that of its parent."""
    random = np.random.default_rng(0)
    chunk = np.repeat(random.integers(0, 256, (10, 256, 1, 3), dtype=np.uint8), 256, 2)
    with h5py.File(tmp_path / "images.h5", "w") as file:
        images = file.create_dataset(
            "images", (count, 256, 256, 3), np.uint8, chunks=chunk.shape, compression="gzip", compression_opts=1
        )
        packed = zlib.compress(chunk.tobytes(), 1)
        for row in range(0, count, 10):
            images.id.write_direct_chunk((row, 0, 0, 0), packed)
    try:
        result = subprocess.run(
            [sys.executable, "-c", MEMORY, str(tmp_path), str(count)],
            cwd=PROJECT,
            capture_output=True,
            text=True,
            check=True,
        )
    finally:
        shutil.rmtree(tmp_path / "cache", ignore_errors=True)
    words = result.stdout.split()
    assert words[2:6] == [str(count), "256", "256", "3"]
    assert words[6:] == [digest(image) for image in chunk] * (count // 10)
    assert int(words[0]) < 200e6  # of this process
    assert 0 < int(words[1]) < 400e6  # of one of those that decode, with 128 MiB of HDF5's
