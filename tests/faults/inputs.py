"""Bad input: command lines, class folders, images, a dataset's files, archives; refused in one message, or right."""

from __future__ import annotations

import gzip
import io
import os
import re
import struct
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import Random

import numpy as np
from PIL import Image

from engine.errors import CONTROLS
from tests import fakes
from tests.faults import damage
from tests.faults.programs import COMMON, Undisturbed, breakhis, pets
from tests.faults.verdict import Verdict
from tests.faults.zygote import Ended, World

ODD_VALUES = (
    *(
        "",
        "-1",
        "0",
        "nan",
        "inf",
        "1e999",
        "99999999999999999999",
        "\x1b[31mred",
        "ünï\u202e",
        "a" * 5000,
        ".",
        "0x10",
    ),
    *(
        "/dev/null",
        "/proc/1",
        "/dev/full",
        "~nobody-of-that-name/x",
        "--",
        "-",
        "no/such",
        "a\nb",
        "1_000",
        "\u0661",
        "no\udcffutf",
    ),
)
FLAGS = (
    *("-bs", "--epochs", "--lr", "--shots", "--fraction", "--size", "--patience", "--seed", "--data-dir", "--out"),
    *("--cache-dir", "--weights", "-model", "--recipe", "--protocol", "--device", "--precision", "--magnification"),
)
OF_OWN = ("--labels", "--folds", "--fold", "--class-weights", "--select", "-bs", "--shots", "--fraction", "--out")
OF_SPLIT = (
    "--labels",
    "--test_size",
    "--val_size",
    "--random_state",
    "--group_regex",
    "--input_dir",
    "--output_dir",
    "--link",
)
OF_GRID = ("--datasets", "--models", "--seeds", "--shots", "--stall-minutes", "--per-gpu", "--data-dir", "--out")
OF_RANK = ("--models", "--seed", "--shots", "--fraction", "--size", "--budget", "--labels", "-bs", "--epochs", "--out")
LINES = {  # command -> its flags
    f"digits.py --shots 4 --epochs 1 {COMMON}": FLAGS,
    f"folder.py pets --epochs 1 {COMMON}": FLAGS,
    f"folder.py pets --labels labels.csv --folds 2 --epochs 1 {COMMON}": OF_OWN,
    "folder.py pets --check": ("--labels", "--folds", "--fold", "--size", "--data-dir", "--cache-dir"),
    "split.py --input_dir pets --output_dir out": OF_SPLIT,
    "report.py": ("--out",),
    "grid.py --datasets digits --models tiny --dry-run": OF_GRID,
    "datasets.py": ("--data-dir",),
    f"rank.py pets --models tiny tiny2 --epochs 2 {OF_GRID}": OF_RANK,
}
HOSTILE_NAMES = (
    *("a\nb", "🐈", "é" * 127, "-rf", "--help", "\x1b[2J", "\u202egnp", "=1+1", "@SUM(1)", "a|b", "<b>x</b>", "a%b"),
    *("$(touch x)", "a'b\"c", "\\textbf{x}", " ", "...", "x" * 255, "\x9b31m", "a\tb", "a\rb", "nul\x7f", "con"),
    "\U0001d41a" * 60,
)
MOST_BYTES = 400 << 20  # that a case may leave


def line_case(case: int, random: Random, _: dict[str, Undisturbed], folder: Path) -> Verdict:
    """A command line with a value that is none."""
    world = World(folder)
    pets(world.place, 4)
    line = random.choice([*LINES])
    script, *words = line.split(" ")
    extra = [random.choice(LINES[line]), random.choice(ODD_VALUES)]
    if random.random() < 0.15:
        extra = [random.choice(ODD_VALUES)]
    verdict = Verdict("line", case, f"command line: {script}", f"{' '.join(extra)!a:.60}")
    judge(verdict, world, world.run([script, *words, *extra]))
    return verdict


def judge(verdict: Verdict, world: World, *ended: Ended, allowed: tuple[int, ...] = (0, 2)) -> None:
    """A refusal in one message or a result, nothing that a terminal obeys, and nothing beside the folders."""
    for each in ended:
        verdict.judge(each, allowed)
        if raw := CONTROLS.search(re.sub(r"[\n\t]", "", each.said)):
            verdict.add("other", f"{raw[0]!a} reaches the terminal: {each.said[-200:]!a}")
    verdict.judge_surroundings(world)
    size = sum(path.lstat().st_blocks * 512 for path in world.root.rglob("*"))
    if size > MOST_BYTES:
        verdict.add("other", f"{size >> 20:,} MiB were written")


def folders_case(case: int, random: Random, _: dict[str, Undisturbed], folder: Path) -> Verdict:
    """Classes, images and a data set of names that mean something elsewhere; trained on, reported, split."""
    world = World(folder)
    pets(world.place, 6)
    name = random.choice(HOSTILE_NAMES)
    what = random.choice(["class", "image", "dataset"])
    root = world.place / "pets"
    try:
        if what == "class":
            (root / "cat").rename(root / name)
        elif what == "image":
            (root / "cat" / "0.png").rename(root / "cat" / f"{name[:120]}.png")
        else:
            root = root.rename(world.place / name)
    except OSError as problem:
        return Verdict("folders", case, "names of folders and images", f"{name!a:.40}: {problem.strerror}", ["none"])
    verdict = Verdict("folders", case, f"names of a {what}", f"{name!a:.40}")
    given = f"./{root.name}"
    ended = [world.run(["folder.py", given, "--epochs", "1", *COMMON.split()])]
    ended.append(world.run(["report.py"]))
    ended.append(world.run(["split.py", "--input_dir", given, "--output_dir", "out"]))
    judge(verdict, world, *ended)
    for path in world.place.glob("report/results.*"):
        text = path.read_text("utf-8")
        if raw := CONTROLS.search(text.replace("\n", "")):
            verdict.add("other", f"{raw[0]!a} in {path.name}")
    page = world.place / "report" / "report.html"
    if page.exists() and "<b>x</b>" in page.read_text("utf-8"):
        verdict.add("other", "a name is markup in the page")
    return verdict


def png(width: int, height: int, rows: int) -> bytes:
    """A grey PNG that says it is so large, with so many rows of zeros."""

    def chunk(kind: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))

    packer = zlib.compressobj(9)
    body = b"".join(packer.compress(bytes(width + 1)) for _ in range(rows)) + packer.flush()
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
    return b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def saved(kind: str, mode: str = "RGB", size: tuple[int, int] = (16, 16), **options: object) -> bytes:
    """An image file of noise."""
    buffer = io.BytesIO()
    noise = np.random.default_rng(1).integers(0, 255, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(noise).convert(mode).save(buffer, kind, **options)
    return buffer.getvalue()


def changed(seed: int) -> bytes:
    """An image with one byte inverted, of its head or of its body."""
    body = bytearray(saved("JPEG", size=(64, 64)) if seed % 2 else saved("PNG"))
    body[Random(seed).randrange(len(body))] ^= 0xFF
    return bytes(body)


def half(body: bytes) -> bytes:
    """Its beginning."""
    return body[: len(body) // 2]


IMAGES: dict[str, Callable[[], bytes]] = {  # files that are called images
    "zero bytes": lambda: b"",
    "zeros": lambda: bytes(4096),
    "cut": lambda: half(saved("JPEG", size=(64, 64))),
    "cut png": lambda: half(saved("PNG")),
    "text": lambda: b"<html>404 not found</html>",
    "jpeg called png": lambda: saved("JPEG"),
    "169 megapixels": lambda: png(13_000, 13_000, 13_000),
    "100,000 wide": lambda: png(100_000, 10, 10),
    "100,000 high": lambda: png(10, 100_000, 100_000),
    "a header of 4 billion": lambda: png(2**31 - 1, 2**31 - 1, 0),
    "no rows": lambda: png(16, 16, 0),
    "no width": lambda: png(0, 16, 16),
    "1 by 1": lambda: saved("PNG", size=(1, 1)),
    "text bomb": lambda: saved("PNG")[:33] + _text_chunk(64 << 20) + saved("PNG")[33:],
    "rubbish behind": lambda: saved("PNG") + b"x" * 1000,
    "postscript": lambda: b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(x) run\nshowpage\n",
    "pdf": lambda: b"%PDF-1.4\n1 0 obj\n<<>>\nendobj\n",
    "svg": lambda: b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
    **{f"byte {seed}": partial(changed, seed) for seed in range(6)},
    **{kind.lower(): partial(saved, kind) for kind in ("GIF", "TIFF", "WEBP", "BMP")},
    **{f"mode {mode}": partial(saved, "PNG", mode) for mode in ("L", "1", "P", "RGBA", "I;16")},
    "mode CMYK": lambda: saved("JPEG", "CMYK"),
}


def _text_chunk(size: int) -> bytes:
    body = b"Comment\0\0" + zlib.compress(bytes(size))
    return struct.pack(">I", len(body)) + b"zTXt" + body + struct.pack(">I", zlib.crc32(b"zTXt" + body))


def image_case(case: int, random: Random, _: dict[str, Undisturbed], folder: Path) -> Verdict:
    """One image of a class folder is none, or too much of one."""
    world = World(folder)
    pets(world.place, 5)
    odd = ["fifo", "folder", "dangling", "loop", "/dev/zero"]
    names = [*IMAGES, *odd]
    name = names[case % len(names)]
    path = world.place / "pets" / "cat" / "0.png"
    if name in IMAGES:
        path.write_bytes(IMAGES[name]())
    elif name == "/dev/zero":
        path.unlink()
        path.symlink_to(name)
    else:
        getattr(damage, name)(path, random, None)
    allowed = case // len(names) % 2
    verdict = Verdict("image", case, "images", f"{name}{', --allow-partial' if allowed else ''}")
    ended = world.run(f"folder.py pets --epochs 1 {COMMON}{' --allow-partial' if allowed else ''}".split())
    judge(verdict, world, ended)
    if ended.code == 2 and ("cat/0.png" not in ended.said or allowed):
        verdict.add("other", f"{'stops all the same' if allowed else 'does not name it'}: {ended.problems[-300:]}")
    return verdict


DATASETS = (
    *("cub200", "stanford_dogs", "flowers102", "tinyimagenet", "cifar10", "cifar100", "dtd", "food101", "galaxy10"),
    *("rsna", "stanford_cars", "plantvillage", "breakhis_40x", "plantclef"),
)


def dataset_case(case: int, random: Random, _: dict[str, Undisturbed], folder: Path) -> Verdict:
    """A file of a dataset's own, extracted, is damaged: a list, an annotation, HDF5, DICOM, a pickle."""
    world = World(folder)
    key = DATASETS[case % len(DATASETS)]
    script = key.partition("_40x")[0]
    made = fakes.made(key)
    root = world.place / "data" / script
    for name, body in made.extracted.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(body)
    lists = [name for name in made.lists if name in made.extracted]
    name = random.choice(lists if lists and random.random() < 0.8 else [*made.extracted])
    harm = random.choice([*damage.KINDS, damage.deep, damage.fifo, damage.folder, damage.dangling])
    harm(root / name, random, None)
    verdict = Verdict("dataset", case, f"files of {script}", f"{name}: {harm.__name__}")
    ended = world.run(f"{script}.py --allow-partial --epochs 1 {COMMON}".split())
    judge(verdict, world, ended)
    return verdict


Entry = Callable[[tarfile.TarFile, World], object]


def _add(tar: tarfile.TarFile, name: str, body: bytes = b"evil\n", **fields: object) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.size = len(body)
    for field, value in fields.items():
        setattr(member, field, value)
    tar.addfile(member, io.BytesIO(body) if member.isreg() else None)
    return member


def _link(tar: tarfile.TarFile, name: str, target: str, kind: bytes = tarfile.SYMTYPE) -> tarfile.TarInfo:
    return _add(tar, name, b"", type=kind, linkname=target)


def _chain(tar: tarfile.TarFile, world: World) -> None:
    """Links so long that resolving them gives up, which lets the last one lead out (CVE-2025-4517)."""
    component, steps, path = "d" * 247, "abcdefghijklmnop", ""
    for letter in steps:
        _add(tar, os.path.join(path, component), b"", type=tarfile.DIRTYPE)  # noqa: PTH118
        _link(tar, os.path.join(path, letter), component)  # noqa: PTH118
        path = os.path.join(path, component)  # noqa: PTH118
    links = "/".join(steps)
    _link(tar, f"{links}/{'l' * 254}", "../" * len(steps))
    _link(tar, "escape", f"{links}/{'l' * 254}/{'../' * 6}beside")
    _link(tar, "hard", "escape/theirs.txt", tarfile.LNKTYPE)
    _add(tar, "hard")
    _add(tar, "escape/evil.txt")


OUT = "../" * 4 + "beside/evil.txt"
ENTRIES: dict[str, Entry] = {
    "absolute": lambda tar, world: _add(tar, str(world.beside / "evil.txt")),
    "..": lambda tar, world: _add(tar, OUT),
    ".. inside": lambda tar, world: _add(tar, f"BreaKHis_v1/../{OUT}"),
    "link out": lambda tar, world: (
        _link(tar, "BreaKHis_v1/l", str(world.beside)),
        _add(tar, "BreaKHis_v1/l/evil.txt"),
    ),
    "relative link out": lambda tar, world: (_link(tar, "l", "../" * 4 + "beside"), _add(tar, "l/evil.txt")),
    "hard link out": lambda tar, world: (
        _link(tar, "h", str(world.beside / "theirs.txt"), tarfile.LNKTYPE),
        _add(tar, "h"),
    ),
    "two links": lambda tar, world: (_link(tar, "a", "."), _link(tar, "a/b", ".."), _add(tar, "a/b/../../../evil.txt")),
    "chain of long links": _chain,
    "device": lambda tar, world: _add(tar, "dev", b"", type=tarfile.CHRTYPE, devmajor=1, devminor=5),
    "fifo": lambda tar, world: _add(tar, "BreaKHis_v1/histology_slides/breast/x.png", b"", type=tarfile.FIFOTYPE),
    "zeros": lambda tar, world: _add(tar, "BreaKHis_v1/zeros", bytes(600 << 20)),
    "30,000 entries": lambda tar, world: [_add(tar, f"BreaKHis_v1/{number}", b"") for number in range(30_000)],
    "the same name twice": lambda tar, world: (_add(tar, "BreaKHis_v1/x"), _add(tar, "BreaKHis_v1/x", b"other")),
    "file and folder": lambda tar, world: (_add(tar, "BreaKHis_v1/x"), _add(tar, "BreaKHis_v1/x/y")),
    "name of 300": lambda tar, world: _add(tar, "BreaKHis_v1/" + "n" * 300),
    "escape in a name": lambda tar, world: _add(tar, "BreaKHis_v1/\x1b[2J\n.png"),
    "no name": lambda tar, world: _add(tar, ""),
    "deep": lambda tar, world: _add(tar, "BreaKHis_v1/" + "d/" * 1500 + "x"),
    "set uid": lambda tar, world: _add(tar, "BreaKHis_v1/x", mode=0o6777),
    "hard link to nothing": lambda tar, world: _link(tar, "BreaKHis_v1/x", "BreaKHis_v1/none", tarfile.LNKTYPE),
    "link to itself": lambda tar, world: _link(tar, "BreaKHis_v1/x", "x"),
    "folder without rights": lambda tar, world: _add(tar, "BreaKHis_v1/x", b"", type=tarfile.DIRTYPE, mode=0),
}
WHOLE: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda body: body[: len(body) // 2],
    "cut near its end": lambda body: body[:-12],
    "rubbish behind": lambda body: body + b"\0rubbish" * 99,
    "a flipped byte": lambda body: (
        body[: len(body) // 3] + bytes([body[len(body) // 3] ^ 4]) + body[len(body) // 3 + 1 :]
    ),
    "no archive": lambda body: b"<html>404</html>" * 100,
    "empty": lambda body: b"",
    "gzip of gzip": lambda body: gzip.compress(body),
    "no gzip": lambda body: gzip.decompress(body),
}


def archive_case(case: int, random: Random, _: dict[str, Undisturbed], folder: Path) -> Verdict:
    """An archive of a dataset that publishes no checksum: a tar with an entry more, a zip likewise, or damaged."""
    world = World(folder)
    breakhis(world.place)
    path = world.place / "data" / "breakhis" / "BreaKHis_v1.tar.gz"
    zipped = [name for name in ENTRIES if name in ("absolute", "..", ".. inside", "zeros", "30,000 entries", "no name")]
    zipped += ["name of 300", "escape in a name", "deep", "the same name twice", "file and folder"]
    names = [f"tar: {name}" for name in ENTRIES] + [f"zip: {name}" for name in zipped] + [*WHOLE]
    name = names[case % len(names)]
    script = "breakhis"
    if name in WHOLE:
        path.write_bytes(WHOLE[name](path.read_bytes()))
    elif name.startswith("tar: "):
        body = gzip.decompress(path.read_bytes())
        buffer = io.BytesIO(body)
        with tarfile.open(fileobj=buffer, mode="a") as tar:
            ENTRIES[name[5:]](tar, world)
        path.write_bytes(gzip.compress(buffer.getvalue(), 1))
    else:
        script = "rsna"
        hostile_zip(world, name[5:])
    verdict = Verdict("archive", case, "hostile archives", name)
    judge(verdict, world, world.run(f"{script}.py --allow-partial --epochs 1 {COMMON}".split()))
    return verdict


def hostile_zip(world: World, name: str) -> None:
    """RSNA's archive, whose checksum nobody publishes, with the entries that a tar would have."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        ENTRIES[name](tar, world)
    buffer.seek(0)
    root = world.place / "data" / "rsna"
    root.mkdir(parents=True)
    ((published, body),) = fakes.made("rsna").bodies.items()
    (root / published).write_bytes(body)
    with tarfile.open(fileobj=buffer) as tar, zipfile.ZipFile(root / published, "a", zipfile.ZIP_DEFLATED) as archive:
        for member in tar:
            content = tar.extractfile(member)
            archive.writestr(member.name.replace("BreaKHis_v1/", "") or "/", content.read() if content else b"")
