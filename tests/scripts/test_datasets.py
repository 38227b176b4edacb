"""Every dataset from its published files, in small: whole, in part, damaged, and laid out as users have them."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import requests
from PIL import Image

import plantclef
import stanford_dogs
from common import Dataset, File, Part, RawSplits
from datasets import PUBLISHED
from engine.data import checksums
from engine.data.declaration import Protocol
from engine.data.images import decode
from engine.data.load import read
from engine.data.place import place_of
from engine.errors import UserError
from tests import fakes
from tests.fakes import CARS, Fake, Files, matlab
from tests.server import Server

EVERY = tuple(fakes.MAKERS)
MAGNIFICATIONS = tuple(key for key in EVERY if key.startswith("breakhis"))
KEYS = tuple(key for key in EVERY if key not in MAGNIFICATIONS[1:])  # one of every script: they have one archive
BY_HAND = ("stanford_cars", "rsna")
SERVED = tuple(key for key in KEYS if key not in BY_HAND)
UNSIGNED = ("plantclef", "breakhis_40x")  # nobody publishes a checksum
BY_PROTOCOL = ("rsna", "breakhis_40x")  # each protocol splits them in its own way
DEAD = "127.0.0.1:9"
HTML = b"<!DOCTYPE html><html><body>Please log in</body></html>"

Make = Callable[[str], Fake]


@pytest.fixture
def make(monkeypatch: pytest.MonkeyPatch) -> Make:
    return lambda key: fakes.fake(key, monkeypatch)


@pytest.fixture(autouse=True)
def _without_tls(monkeypatch: pytest.MonkeyPatch) -> None:
    """A file without a checksum can't be declared with http, and the local server has no certificate."""
    get = requests.get

    def plain(url: str, **arguments: Any) -> Any:
        return get(url.replace("https://127.0.0.1", "http://127.0.0.1"), **arguments)

    monkeypatch.setattr(requests, "get", plain)


def with_urls(dataset: Dataset, urls: Callable[[File], tuple[str, ...]]) -> Dataset:
    """The declaration with other addresses of what can be downloaded."""
    return replace(
        dataset, files=tuple(replace(file, urls=urls(file)) if file.urls else file for file in dataset.files)
    )


def serve(server: Server, fake: Fake, *behaviours: tuple[str, bytes | None, str | int]) -> Dataset:
    """The dataset with a mirror for each behaviour (name, other body, what the server does), in this order."""

    def urls(file: File) -> tuple[str, ...]:
        found = []
        for name, body, behave in behaviours:
            url = server.add(f"/{name}/{file.name}", fake.bodies[file.name] if body is None else body, behave)
            if name == "dead":
                url = f"http://{DEAD}/{file.name}"
            found.append(url if file.checksum else url.replace("http:", "https:"))
        return tuple(found)

    return with_urls(fake.dataset, urls)


def offline(fake: Fake) -> Dataset:
    """The dataset without any server that answers."""
    return with_urls(fake.dataset, lambda file: (f"https://{DEAD}/{file.name}",))


def lay(folder: Path, files: Files) -> Path:
    """Write `files` below `folder`."""
    for name, body in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(body)
    return folder


def visible(folder: Path) -> list[str]:
    return sorted(entry.name for entry in folder.iterdir() if entry.name != ".checksums.json")


def refusal(call: Callable[[], object]) -> str:
    """What the user is told; any other exception than the user's own fails the test."""
    with pytest.raises(UserError) as caught:
        call()
    return str(caught.value)


def refused(fake: Fake, data_dir: Path, allow_partial: bool) -> str:
    """What the user is told of a folder that can't be used."""
    return refusal(lambda: read(offline(fake), data_dir, allow_partial, "honest"))


def table(part: Part, classes: tuple[str, ...]) -> dict[str, str]:
    """Image -> class."""
    return {name: classes[label] for name, label in zip(part.names, part.labels.tolist(), strict=True)}


def tables(raw: RawSplits) -> dict[str, dict[str, str]]:
    parts = {"train": raw.train, "test": raw.test, "val": raw.val}
    return {name: table(part, raw.classes) for name, part in parts.items() if part is not None}


def joined(raw: RawSplits) -> dict[str, str]:
    """Image -> class, whatever the part."""
    found = tables(raw)
    every = {name: label for part in found.values() for name, label in part.items()}
    assert len(every) == sum(map(len, found.values())), "an image is in two parts"
    return every


def check_truth(fake: Fake, raw: RawSplits) -> None:
    """Every image is in its part, under its label, and what is read under its name is that image."""
    if "all" in fake.parts:
        assert joined(raw) == fake.parts["all"]
        assert min(len(raw.train), len(raw.test)) > 0
    else:
        assert tables(raw) == fake.parts
    assert {label: raw.classes[label] for label in fake.order} == fake.order
    assert len(raw.classes) == fake.dataset.classes
    check_pixels(fake, raw)


def check_pixels(fake: Fake, raw: RawSplits) -> None:
    for part in (raw.train, raw.test):
        if isinstance(part.images, np.ndarray):
            images = list(part.pixels())
        else:
            images = [decode(reference) for reference in part.entries(part.references)]
        for name, image in zip(part.names, images, strict=True):
            assert image.dtype == np.uint8
            assert image.shape[2] == 3
            assert np.abs(image.astype(int) - fake.colours[name]).max() <= 4, name


@pytest.mark.parametrize("key", SERVED)
def test_fresh_download_and_again(server: Server, tmp_path: Path, make: Make, key: str) -> None:
    fake = make(key)
    dataset = serve(server, fake, ("good", None, ""))
    data_dir = tmp_path / "data" / dataset.script_name
    data_dir.mkdir(parents=True)
    first = read(dataset, data_dir, False, "honest")
    check_truth(fake, first)
    assert first.differences == ()
    assert first.missing == ()
    assert sorted(server.seen) == sorted(f"/good/{file.name}" for file in dataset.files)
    second = read(dataset, data_dir, False, "honest")
    assert tables(second) == tables(first)
    assert len(server.seen) == len(dataset.files)
    for file in dataset.files:
        algorithm = (file.checksum or "sha256").partition(":")[0]
        expected = f"{algorithm}:{hashlib.new(algorithm, fake.bodies[file.name]).hexdigest()}"
        assert first.checksums[file.name] == second.checksums[file.name] == expected


@pytest.mark.parametrize("key", KEYS)
def test_archives_are_there_but_not_extracted(tmp_path: Path, make: Make, key: str) -> None:
    fake = make(key)
    data_dir = lay(tmp_path / fake.dataset.script_name, fake.bodies)
    raw = read(offline(fake), data_dir, False, "honest")
    check_truth(fake, raw)
    assert set(fake.bodies) <= raw.checksums.keys()
    for name, body in fake.bodies.items():
        assert (data_dir / name).read_bytes() == body
    beside = {path.partition("/")[0] for path in fake.extracted}
    assert set(visible(data_dir)) == set(fake.bodies) | beside


@pytest.mark.parametrize("key", EVERY)
def test_extracted_by_hand(tmp_path: Path, make: Make, key: str) -> None:
    fake = make(key)
    lay(tmp_path, fake.extracted)
    check_truth(fake, read(offline(fake), tmp_path, False, "honest"))


@pytest.mark.parametrize("key", [key for key in KEYS if fakes.made(key).dataset.contains])
def test_the_extracted_folder_under_any_other_name(tmp_path: Path, make: Make, key: str) -> None:
    fake = make(key)
    lay(tmp_path, fake.extracted)
    (tmp_path / fake.dataset.folder).rename(tmp_path / "mine")
    raw = read(offline(fake), tmp_path / "mine", False, "honest")
    check_truth(fake, raw)
    assert visible(tmp_path / "mine") == sorted(
        {p.split("/")[1] for p in fake.extracted if p.startswith(fake.dataset.folder + "/")}
    )


@pytest.mark.parametrize("key", [key for key in KEYS if fakes.made(key).dataset.folder])
def test_the_folder_in_a_folder_of_the_same_name(tmp_path: Path, make: Make, key: str) -> None:
    """As Kaggle's archives have it."""
    fake = make(key)
    folder = fake.dataset.folder
    for path, body in fake.extracted.items():
        inside = path.startswith(f"{folder}/")
        # Stanford Dogs: the lists lie beside the inner folder
        lay(tmp_path, {f"{folder}/{path}" if inside or key == "stanford_dogs" else path: body})
    check_truth(fake, read(offline(fake), tmp_path, False, "honest"))


@pytest.mark.parametrize("key", MAGNIFICATIONS)
def test_breakhis_by_image_and_by_patient(tmp_path: Path, make: Make, key: str) -> None:
    fake = make(key)
    lay(tmp_path, fake.extracted)
    honest = read(offline(fake), tmp_path, False, "honest")
    for part in (honest.train, honest.test):
        assert list(part.groups or ()) == [fake.groups[name] for name in part.names]
    assert not set(honest.train.groups or ()) & set(honest.test.groups or ())
    for part in (honest.train, honest.test):
        assert set(part.labels.tolist()) == {0, 1}
    paper = read(offline(fake), tmp_path, False, "paper")
    assert joined(paper) == fake.parts["all"]
    assert paper.differences == ()
    assert len(paper.test) == fake.dataset.counts["paper"][1]
    assert set(paper.train.groups or ()) & set(paper.test.groups or ())


def test_rsna_by_row(tmp_path: Path, make: Make) -> None:
    """The published counts are of rows: an image is there once for each of its boxes, and may be in both parts."""
    fake = make("rsna")
    lay(tmp_path, fake.extracted)
    paper = read(offline(fake), tmp_path, False, "paper")
    rows = fake.extracted[fake.lists[0]].decode().splitlines()[1:]
    expected = Counter((f"stage_2_train_images/{row.split(',')[0]}.dcm", row[-1]) for row in rows)
    found: Counter[tuple[str, str]] = Counter()
    for part in (paper.train, paper.test):
        for reference, name, label in zip(part.entries(part.references), part.names, part.labels.tolist(), strict=True):
            assert isinstance(reference, Path)
            own = name.partition("#")[0]
            assert reference.name == own.rpartition("/")[2]
            found[own, str(label)] += 1
    assert found == expected
    assert paper.differences == ()
    assert (len(paper.train), len(paper.test)) == (fake.dataset.train_images, fake.dataset.test_images)


def test_dtd_leaves_the_other_partitions_alone(tmp_path: Path, make: Make) -> None:
    fake = make("dtd")
    others = [name for name in fake.extracted if "/labels/" in name and name not in fake.lists]
    lay(tmp_path, {name: body for name, body in fake.extracted.items() if name not in others})
    assert len(others) == 4
    check_truth(fake, read(offline(fake), tmp_path, False, "honest"))


def bad_mirrors(fake: Fake) -> list[tuple[str, bytes | None, str | int]]:
    bad: list[tuple[str, bytes | None, str | int]] = [
        ("dead", None, ""),
        ("forbidden", None, 403),
        ("cut", None, "cut"),
        ("html", HTML, ""),
    ]
    if all(file.checksum for file in fake.dataset.files):
        # a little longer, so that it is another file whether or not the size is declared
        bad.append(("other", next(iter(fake.bodies.values())) + b"!", ""))
    return bad


@pytest.mark.parametrize("key", SERVED)
def test_mirrors_that_fail_and_one_that_does_not(server: Server, tmp_path: Path, make: Make, key: str) -> None:
    fake = make(key)
    bad = bad_mirrors(fake)
    dataset = serve(server, fake, *bad, ("good", None, ""), ("never", None, ""))
    check_truth(fake, read(dataset, tmp_path, False, "honest"))
    tried = [name for name, _, _ in bad if name != "dead"]
    expected = [f"/{name}/{file.name}" for file in dataset.files for name in [*tried, "good"]]
    assert server.seen == expected
    assert not [name for name in visible(tmp_path) if name.startswith(".")]


@pytest.mark.parametrize("key", SERVED)
def test_every_mirror_fails(server: Server, tmp_path: Path, make: Make, key: str) -> None:
    fake = make(key)
    dataset = serve(server, fake, *bad_mirrors(fake))
    message = refusal(lambda: read(dataset, tmp_path, False, "honest"))
    file = dataset.files[0]
    facts = [file.name, *file.urls, dataset.page, str(tmp_path), "connection refused", "HTTP 403", "connection cut"]
    facts.append(f"{file.bytes:,} bytes" if file.bytes else "size unknown")
    facts.append(file.checksum or "checksum unknown")
    facts.append(f"({len(HTML)} bytes")
    if file.checksum is None:
        facts.append("no archive")
    for fact in facts:
        assert fact in message
    assert visible(tmp_path) == []


@pytest.mark.parametrize("key", SERVED)
def test_interrupted_and_started_again(server: Server, tmp_path: Path, make: Make, key: str) -> None:
    fake = make(key)
    dataset = serve(server, fake, ("only", None, ""))
    *before, last = dataset.files
    server.behave[f"/only/{last.name}"] = "cut"
    assert last.name in refusal(lambda: read(dataset, tmp_path, False, "honest"))
    assert visible(tmp_path) == sorted(file.name for file in before)
    server.behave[f"/only/{last.name}"] = ""
    server.seen.clear()
    check_truth(fake, read(dataset, tmp_path, False, "honest"))
    assert server.seen == [f"/only/{last.name}"]


@pytest.mark.parametrize("key", KEYS)
def test_a_truncated_file_that_the_user_put_there(server: Server, tmp_path: Path, make: Make, key: str) -> None:
    fake = make(key)
    dataset = serve(server, fake, ("good", None, ""))
    lay(tmp_path, fake.bodies)
    for file in dataset.files:
        path, body = tmp_path / file.name, fake.bodies[file.name]
        path.write_bytes(body[: len(body) // 2])
        message = refusal(lambda: read(dataset, tmp_path, True, "honest"))
        assert str(path) in message
        kind = "truncated" if file.bytes else "another file" if file.checksum else "cut short|no archive"
        assert any(word in message for word in kind.split("|")), message
        assert path.read_bytes() == body[: len(body) // 2]
        assert visible(tmp_path) == sorted(fake.bodies)
        path.write_bytes(body)
    assert server.seen == []
    check_truth(fake, read(dataset, tmp_path, False, "honest"))


@pytest.mark.parametrize("key", [*UNSIGNED, "rsna"])
def test_a_page_instead_of_a_file_without_a_checksum(tmp_path: Path, make: Make, key: str) -> None:
    fake = make(key)
    (file,) = fake.dataset.files
    (tmp_path / file.name).write_bytes(HTML)
    message = refusal(lambda: read(offline(fake), tmp_path, True, "honest"))
    for fact in (f"{tmp_path / file.name} is no archive", f"{len(HTML)} bytes"):
        assert fact in message
    assert visible(tmp_path) == [file.name]


@pytest.mark.parametrize("key", UNSIGNED)
def test_a_server_that_stops_early_without_a_size(server: Server, tmp_path: Path, make: Make, key: str) -> None:
    """Nothing tells that the file is cut before it is extracted; then the message does."""
    fake = make(key)
    (file,) = fake.dataset.files
    body = fake.bodies[file.name]
    dataset = serve(server, fake, ("short", body[: len(body) // 2], "unsized"))
    message = refusal(lambda: read(dataset, tmp_path, False, "honest"))
    for fact in (str(tmp_path / file.name), "cut short", "Delete it"):
        assert fact in message
    assert visible(tmp_path) == [file.name]
    (tmp_path / file.name).unlink()
    check_truth(fake, read(serve(server, fake, ("good", None, "")), tmp_path, False, "honest"))


@pytest.mark.parametrize("placed", [True, False])
@pytest.mark.parametrize("key", ["plantclef", "dtd", "galaxy10"])
def test_the_checksum_of_a_refused_file_is_not_the_datasets(
    server: Server, tmp_path: Path, make: Make, key: str, placed: bool
) -> None:
    fake = make(key)
    (file,) = fake.dataset.files
    if placed:
        (tmp_path / file.name).write_bytes(HTML)
    refusal(lambda: read(serve(server, fake, ("html", HTML, "")), tmp_path, False, "honest"))
    (tmp_path / file.name).unlink(missing_ok=True)
    lay(tmp_path, fake.extracted)
    found = read(offline(fake), tmp_path, False, "honest").checksums
    whole = {file.name: f"sha256:{hashlib.sha256(fake.bodies[file.name]).hexdigest()}"}
    assert found == (whole if key == "galaxy10" else {})


@pytest.mark.parametrize("text", ["", "[1]", '{"PlantCLEF_Subset.tar.gz": 1}', '{"PlantCLEF_Subset.tar.gz": {}}', "\0"])
def test_a_damaged_note_of_checksums(tmp_path: Path, make: Make, text: str) -> None:
    fake = make("plantclef")
    lay(tmp_path, fake.bodies)
    (tmp_path / checksums.NAME).write_text(text)
    (body,) = fake.bodies.values()
    found = read(offline(fake), tmp_path, False, "honest").checksums
    assert list(found.values()) == [f"sha256:{hashlib.sha256(body).hexdigest()}"]


@pytest.mark.parametrize("stray", ["dtd-r1.0.1.tar.gz.part", "notes.txt"])
def test_a_stray_file_in_a_data_folder_of_the_same_name(
    server: Server, tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch, stray: str
) -> None:
    """data/dtd holds the archive, and dtd is what it extracts to."""
    fake = make("dtd")
    monkeypatch.chdir(tmp_path)
    data_dir = lay(tmp_path / "data" / "dtd", {stray: b"mine"})
    check_truth(fake, read(serve(server, fake, ("good", None, "")), data_dir, False, "honest"))
    assert (data_dir / stray).read_bytes() == b"mine"


def test_the_extracted_folder_without_its_mark(server: Server, tmp_path: Path, make: Make) -> None:
    """Named by --data-dir, and of the right name: what is missing is told, and nothing is fetched into it."""
    fake = make("dtd")
    lay(tmp_path, fake.extracted)
    (tmp_path / "dtd" / "labels" / "train1.txt").unlink()
    message = refusal(lambda: read(serve(server, fake, ("good", None, "")), tmp_path / "dtd", False, "honest"))
    assert "train1.txt is missing" in message
    assert server.seen == []


def test_a_replaced_archive_has_another_checksum(tmp_path: Path, make: Make) -> None:
    """The checksum is remembered, but not that of another file."""
    fake = make("plantclef")
    (file,) = fake.dataset.files
    lay(tmp_path, fake.bodies)
    first = read(offline(fake), tmp_path, False, "honest").checksums[file.name]
    shutil.rmtree(tmp_path / fake.dataset.folder)
    content = fake.archives[file.name]
    assert isinstance(content, dict)
    other = fakes.packed(file.name, content | {"more.txt": b"more"})
    (tmp_path / file.name).write_bytes(other)
    second = read(offline(fake), tmp_path, False, "honest").checksums[file.name]
    assert first != second == f"sha256:{hashlib.sha256(other).hexdigest()}"


def test_galaxy10_is_not_hashed_again(tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    fake = make("galaxy10")
    lay(tmp_path, fake.bodies)
    first = read(offline(fake), tmp_path, False, "honest")

    def never(*_: object) -> str:
        raise AssertionError("hashed again")

    with monkeypatch.context() as patch:
        patch.setattr(checksums, "digest", never)
        second = read(offline(fake), tmp_path, False, "honest")
    assert second.checksums == first.checksums
    # a file that changed, though not in size, is hashed
    path = tmp_path / "Galaxy10_DECals.h5"
    body = bytearray(path.read_bytes())
    body[-1] ^= 1
    path.write_bytes(body)
    assert "another file" in refusal(lambda: read(offline(fake), tmp_path, False, "honest"))


@pytest.mark.parametrize("dataset", PUBLISHED, ids=lambda dataset: dataset.key)
def test_the_declaration(dataset: Dataset) -> None:
    assert dataset.files
    for file in (file for files in (dataset.files, *dataset.alternative_files) for file in files):
        assert file.checksum or not any(url.lower().startswith("http:") for url in file.urls)
        algorithm, _, value = (file.checksum or "").partition(":")
        assert len(value) == {"": 0, "md5": 32, "sha256": 64}[algorithm]
    # a file that the download itself puts into the data folder does not tell that all is extracted there
    assert not set(dataset.contains) & {file.name for file in dataset.files}
    assert dataset.contains or dataset.folder in ("", "Images") or dataset.key.startswith("cifar")
    assert bool(dataset.steps) == any(not file.urls for file in dataset.files)
    # of every class, so many images: together as many as of the parts
    if isinstance(dataset.class_images, int):
        total = dataset.class_images * dataset.classes
    else:
        total = sum(dataset.class_images.values())
        assert len(dataset.class_images) == dataset.classes
    assert total in (0, sum(dataset.expected("honest")))


@pytest.mark.parametrize("scheme", ["http", "HTTP"])
def test_plain_http_needs_a_checksum(scheme: str) -> None:
    file = File("a.zip", (f"{scheme}://toy.example/a.zip",), None)
    with pytest.raises(UserError, match="has no checksum"):
        replace(plantclef.DATASET, files=(file,))


@pytest.mark.parametrize("key", [key for key in KEYS if fakes.made(key).removable])
def test_one_image_is_missing(tmp_path: Path, make: Make, key: str) -> None:
    fake = make(key)
    lay(tmp_path, fake.extracted)
    (tmp_path / fake.removable).unlink()
    message = refusal(lambda: read(offline(fake), tmp_path, False, "honest"))
    for fact in (fake.named, str(tmp_path), "--allow-partial"):
        assert fact in message
    raw = read(offline(fake), tmp_path, True, "honest")
    assert any(fake.named in line for line in raw.differences)
    assert any(" images instead of " in line for line in raw.differences)
    every = {name: label for part in fake.parts.values() for name, label in part.items()}
    found = joined(raw)
    assert found.items() < every.items()
    gone = every.keys() - found.keys()
    if key == "cifar10":
        assert gone == {f"{fake.named}/{index:05}" for index in range(6)}
    else:
        (only,) = gone
        assert fake.removable.endswith(only)
    check_pixels(fake, raw)


@pytest.mark.parametrize("key", [key for key in KEYS if fakes.made(key).removable and key != "cifar10"])
def test_an_image_too_many(tmp_path: Path, make: Make, key: str) -> None:
    """Where lists say what belongs to the dataset, other files are ignored; where folders do, they are counted."""
    fake = make(key)
    lay(tmp_path, fake.extracted)
    path = tmp_path / fake.removable
    name = path.name.replace("-001.", "-901.").replace("-002.", "-902.")
    shutil.copyfile(path, path.with_name(name if name != path.name else f"new_{path.name}"))
    if fake.lists and key != "tinyimagenet":
        assert read(offline(fake), tmp_path, False, "honest").differences == ()
    elif key != "tinyimagenet":  # its missing image is one of the list
        message = refusal(lambda: read(offline(fake), tmp_path, False, "honest"))
        assert fake.named.replace("8 train", "10 train") in message


def damages(path: Path, kind: str) -> None:
    """Do to a list what `kind` says."""
    if kind == "deleted":
        path.unlink()
    elif kind == "emptied":
        path.write_bytes(b"")
    elif kind == "zeros":
        path.write_bytes(bytes(512))
    elif kind == "noise":
        path.write_bytes(bytes(range(128, 256)) * 4)
    elif kind == "words":
        path.write_bytes(b"this is not the list\nthat was looked for\n")
    elif kind == "page":
        path.write_bytes(HTML)
    elif path.suffix == ".mat":  # well-formed, with nothing or with a single number in it
        names = ("file_list", "labels", "trnid", "valid", "tstid", "annotations", "class_names")
        path.write_bytes(matlab() if kind == "hollow" else matlab(**dict.fromkeys(names, 3.0)))
    elif path.suffix == ".json":
        path.write_bytes(b"{}" if kind == "hollow" else b"[3]")
    elif path.suffix == ".csv":
        path.write_bytes(b"patientId,x,y,width,height,Target\n" + (b"" if kind == "hollow" else b"3,,,,,yes\n"))
    else:
        path.write_bytes(b"\n\n" if kind == "hollow" else b"3 4 5\n")


LISTS = [(key, path) for key in KEYS for path in fakes.made(key).lists]


@pytest.mark.parametrize(("key", "path"), LISTS, ids=[path.rpartition("/")[2] for _, path in LISTS])
def test_damaged_lists(tmp_path: Path, make: Make, key: str, path: str) -> None:
    """The message names the file, also where partial data are allowed: without its lists nothing has a label."""
    fake = make(key)
    lay(tmp_path, fake.extracted)
    for kind in ("deleted", "emptied", "zeros", "noise", "words", "page", "hollow", "other"):
        damages(tmp_path / path, kind)
        for allow_partial in (False, True):
            if key.startswith("cifar") and kind == "deleted" and allow_partial and "meta" not in path:
                continue  # a batch is not a list: what is left is accepted
            assert path.rpartition("/")[2] in refused(fake, tmp_path, allow_partial), kind


def doubled(body: bytes) -> bytes:
    return body * 2


def swapped(old: bytes, new: bytes) -> Callable[[bytes], bytes]:
    def change(body: bytes) -> bytes:
        assert old in body
        return body.replace(old, new, 1)

    return change


@pytest.mark.parametrize(
    ("key", "list_index", "change"),
    [
        ("tinyimagenet", 0, doubled),
        ("tinyimagenet", 1, doubled),
        ("tinyimagenet", 1, swapped(b"n01443537", b"n99999999")),
        ("cub200", 1, swapped(b"\n2 1\n", b"\n2 7\n")),
        ("cub200", 2, swapped(b"\n2 ", b"\n2 2")),
        ("cub200", 3, swapped(b"\n2 ", b"\n3 ")),
        ("dtd", 0, doubled),
        ("dtd", 1, swapped(b"banded/", b"ban\0ded/")),
        ("dtd", 2, swapped(b"banded/", b"images/banded/")),
        ("rsna", 0, swapped(b",0\n", b",2\n")),
        ("rsna", 0, swapped(b",,0\n", b",,")),
        ("rsna", 0, lambda body: body + body.splitlines(keepends=True)[1][:-2] + b"1\n"),
    ],
)
def test_lists_with_a_fault_in_them(
    tmp_path: Path, make: Make, key: str, list_index: int, change: Callable[[bytes], bytes]
) -> None:
    """Nothing is left out or put under another label in silence."""
    fake = make(key)
    path = lay(tmp_path, fake.extracted) / fake.lists[list_index]
    path.write_bytes(change(path.read_bytes()))
    for allow_partial in (False, True):
        message = refused(fake, tmp_path, allow_partial)
        assert path.name in message or "twice" in message


@pytest.mark.parametrize(
    ("key", "protocol"),
    [
        *((key, "honest") for key in KEYS if fakes.made(key).dataset.folder),
        ("rsna", "paper"),
        ("breakhis_40x", "paper"),
    ],
)
def test_an_empty_folder_of_the_right_name(tmp_path: Path, make: Make, key: str, protocol: Protocol) -> None:
    fake = make(key)
    folder = tmp_path / fake.dataset.folder
    folder.mkdir()
    assert str(tmp_path) in refusal(lambda: read(offline(fake), tmp_path, False, protocol))
    refusal(lambda: read(offline(fake), tmp_path, True, protocol))
    assert visible(tmp_path) == [folder.name]


def test_a_validation_part_of_its_own_without_images(tmp_path: Path, make: Make) -> None:
    """Nothing would choose the epoch."""
    fake = make("dtd")
    gone = {f"dtd/images/{name}" for name in fake.parts["val"]}
    lay(tmp_path, {path: body for path, body in fake.extracted.items() if path not in gone})
    assert "no images" in refusal(lambda: read(offline(fake), tmp_path, True, "honest"))


CLASS_FOLDERS = {
    "stanford_dogs": "Images/n02085620-Chihuahua",
    "cub200": "CUB_200_2011/images/002.Laysan_Albatross",
    "food101": "food-101/images/baklava",
    "dtd": "dtd/images/polka-dotted",
    "ucmerced": "UCMerced_LandUse/Images/airplane",
    "eurosat": "2750/Forest",
    "plantvillage": "Plant_leave_diseases_dataset_without_augmentation/Pepper,_bell___healthy",
    "plantclef": "PlantCLEF_Subset/train/beech",
    "tinyimagenet": "tiny-imagenet-200/train/n01629819",
}


@pytest.mark.parametrize("key", CLASS_FOLDERS)
def test_a_class_is_missing(tmp_path: Path, make: Make, key: str) -> None:
    fake = make(key)
    lay(tmp_path, fake.extracted)
    folder = tmp_path / CLASS_FOLDERS[key]
    own = [path for path in fake.extracted if path.startswith(f"{CLASS_FOLDERS[key]}/")]
    gone = {name for name in fake.colours if any(path.endswith(f"/{name}") for path in own)}
    assert gone
    shutil.rmtree(folder)
    refusal(lambda: read(offline(fake), tmp_path, False, "honest"))
    raw = read(offline(fake), tmp_path, True, "honest")
    every = {name: label for part in fake.parts.values() for name, label in part.items() if name not in gone}
    assert joined(raw) == every
    assert raw.differences


@pytest.mark.parametrize("key", CLASS_FOLDERS)
def test_a_folder_that_cannot_be_read(tmp_path: Path, make: Make, key: str) -> None:
    fake = make(key)
    lay(tmp_path, fake.extracted)
    folder = tmp_path / CLASS_FOLDERS[key]
    shutil.rmtree(folder)
    folder.symlink_to(folder)
    for allow_partial in (False, True):
        message = refused(fake, tmp_path, allow_partial)
        assert folder.name in message


@pytest.mark.parametrize("left", [(0, 1), (0, 3), (1, 0), (1, 1), (1, 2), (1, 3), (2, 1), (2, 2), (3, 4), (3, 3)])
@pytest.mark.parametrize(("key", "classes"), [("rsna", "negative positive"), ("breakhis_40x", "benign malignant")])
def test_what_is_left_may_be_too_little_to_split(
    tmp_path: Path, make: Make, key: str, classes: str, left: tuple[int, int]
) -> None:
    """Two classes of which so many images are there: read or refused, but no fault of the program."""
    fake = make(key)
    every = {name: label for part in fake.parts.values() for name, label in part.items()}
    kept: set[str] = set()
    for label, count in zip(classes.split(), left, strict=True):
        kept.update([name for name, own in every.items() if own == label][:count])
    images = {path for path in fake.extracted if any(path.endswith(f"/{name}") for name in fake.colours)}
    dropped = {path for path in images if not any(path.endswith(f"/{name}") for name in kept)}
    lay(tmp_path, {path: body for path, body in fake.extracted.items() if path not in dropped})
    protocols: tuple[Protocol, ...] = ("honest", "paper")
    for protocol in protocols:
        try:
            raw = read(offline(fake), tmp_path, True, protocol)
        except UserError as problem:
            assert "images" in str(problem)  # noqa: PT017 (either is right)
        else:
            assert {name.partition("#")[0] for name in tables(raw)["train"] | tables(raw)["test"]} == kept


@pytest.mark.parametrize("key", BY_HAND)
def test_the_message_says_how_to_get_it_by_hand(tmp_path: Path, make: Make, key: str) -> None:
    fake = make(key)
    data_dir = tmp_path / "data"
    message = refusal(lambda: read(fake.dataset, data_dir, False, "honest"))
    facts = [fake.dataset.steps, fake.dataset.licence, str(data_dir), str(data_dir / fake.dataset.folder)]
    for file in (file for files in (fake.dataset.files, *fake.dataset.alternative_files) for file in files):
        facts += [file.name, file.checksum or "checksum unknown"]
    for fact in facts:
        assert fact in message
    assert not data_dir.exists()


def test_cars_with_some_of_the_files(tmp_path: Path, make: Make) -> None:
    """What is there already is not asked for, and nothing is extracted before all is there."""
    fake = make("stanford_cars")
    lay(tmp_path, {"car_devkit.tgz": fake.bodies["car_devkit.tgz"]})
    message = refusal(lambda: read(fake.dataset, tmp_path, False, "honest"))
    first, *_ = message.partition("\nor:")[0].partition("Put into")[2:]
    for name in ("cars_train.tgz", "cars_test.tgz", "cars_test_annos_withlabels.mat"):
        assert name in first
    assert "car_devkit.tgz" not in first
    assert visible(tmp_path) == ["car_devkit.tgz"]


def test_cars_with_images_alone(tmp_path: Path, make: Make) -> None:
    """In data/stanford_cars, which has the name of the extracted folder, too."""
    fake = make("stanford_cars")
    archive = fakes.packed("archive.zip", kaggle_cars(fake))
    data_dir = lay(tmp_path / "stanford_cars", {"archive.zip": archive, "notes/of_mine.txt": b"1"})
    message = refusal(lambda: read(fake.dataset, data_dir, False, "honest"))
    for fact in ("archive.zip", "car_devkit.tgz", "cars_test_annos_withlabels.mat", str(data_dir)):
        assert fact in message
    assert visible(data_dir) == ["archive.zip", "notes"]


def kaggle_cars(fake: Fake) -> Files:
    """Kaggle's archive: each folder in another of the same name."""
    return {
        f"{path.partition('/')[0]}/{path}": body
        for name in ("cars_train.tgz", "cars_test.tgz")
        for path, body in members(fake, name).items()
    }


def members(fake: Fake, archive: str) -> Files:
    found = fake.archives[archive]
    assert isinstance(found, dict)
    return found


def devkit(fake: Fake) -> Files:
    return {name: fake.bodies[name] for name in ("car_devkit.tgz", "cars_test_annos_withlabels.mat")}


def folder_cars(fake: Fake) -> Files:
    """A copy with class folders; no folder can have a slash in its name."""
    return {
        f"{part}/{label.replace('/', '-')}/{part}_{path.rpartition('/')[2]}": members(fake, f"cars_{part}.tgz")[path]
        for part, images in fake.parts.items()
        for path, label in images.items()
    }


def below(folder: str, files: Files) -> Files:
    return {f"{folder}/{path}": body for path, body in files.items()}


def converted(fake: Fake, suffix: str) -> Files:
    """RSNA's radiographs as another kind of image."""
    files = {}
    for path, body in fake.extracted.items():
        own = path.partition("/")[2]
        if own in fake.colours:
            buffer = io.BytesIO()
            Image.new("L", (8, 8), fake.colours[own][0]).save(buffer, "PNG" if suffix == "png" else "JPEG")
            files[path.replace(".dcm", f".{suffix}")] = buffer.getvalue()
        elif not path.endswith(".dcm"):
            files[path] = body
    return files


def flat(fake: Fake) -> Files:
    """What the one folder holds, without the folder."""
    return {path.removeprefix(f"{fake.dataset.folder}/"): body for path, body in fake.extracted.items()}


Layout = Callable[[Fake], Files]

LAYOUTS: dict[str, tuple[str, Layout]] = {
    "cars: Kaggle's zip": (
        "stanford_cars",
        lambda fake: {"archive.zip": fakes.packed("archive.zip", kaggle_cars(fake)), **devkit(fake)},
    ),
    "cars: Kaggle's zip by another name": (
        "stanford_cars",
        lambda fake: {"stanford-cars-dataset.zip": fakes.packed("a.zip", kaggle_cars(fake)), **devkit(fake)},
    ),
    "cars: Kaggle's zip extracted": (
        "stanford_cars",
        lambda fake: below("stanford_cars", kaggle_cars(fake) | flat(fake_devkit(fake))),
    ),
    "cars: all in the data folder": ("stanford_cars", lambda fake: flat(fake)),
    "cars: the lists without their folder": (
        "stanford_cars",
        lambda fake: {path.replace("devkit/", ""): body for path, body in fake.extracted.items()},
    ),
    "cars: the labels in devkit": (
        "stanford_cars",
        lambda fake: {
            path.replace("cars_test_annos_with", "devkit/cars_test_annos_with"): body
            for path, body in fake.extracted.items()
        },
    ),
    "cars: class folders, zip": (
        "stanford_cars",
        lambda fake: {"stanford-cars-by-classes-folder.zip": fakes.packed("a.zip", folder_cars(fake))},
    ),
    "cars: class folders in folders, zip": (
        "stanford_cars",
        lambda fake: {
            "stanford-cars-by-classes-folder.zip": fakes.packed("a.zip", below("car_data/car_data", folder_cars(fake)))
        },
    ),
    "cars: class folders": ("stanford_cars", lambda fake: below("stanford_cars", folder_cars(fake))),
    "cars: class folders in the data folder": ("stanford_cars", folder_cars),
    "cars: class folders in car_data": ("stanford_cars", lambda fake: below("car_data", folder_cars(fake))),
    "cars: class folders in car_data twice": (
        "stanford_cars",
        lambda fake: below("car_data/car_data", folder_cars(fake)),
    ),
    "rsna: all in the data folder": ("rsna", flat),
    "rsna: PNG": ("rsna", lambda fake: converted(fake, "png")),
    "rsna: JPEG": ("rsna", lambda fake: converted(fake, "jpg")),
    "dogs: Kaggle's": ("stanford_dogs", lambda fake: below("images", fake.extracted)),
    "dogs: lists in splits": (
        "stanford_dogs",
        lambda fake: {f"splits/{p}" if p.endswith(".mat") else p: body for p, body in fake.extracted.items()},
    ),
    "cars: packed anew on a Mac": (
        "stanford_cars",
        lambda fake: {
            "archive.zip": fakes.packed(
                "a.zip", below("stanford-cars", kaggle_cars(fake)) | {"__MACOSX/stanford-cars/._cars_train": b"1"}
            ),
            **devkit(fake),
        },
    ),
    "cars: packed anew by PowerShell": (
        "stanford_cars",
        lambda fake: {
            "archive.zip": fakes.packed(
                "a.zip", {path.replace("/", "\\"): body for path, body in kaggle_cars(fake).items()}
            ),
            **devkit(fake),
        },
    ),
    "dogs: lists in a folder": (
        "stanford_dogs",
        lambda fake: {f"lists/{p}" if p.endswith(".mat") else p: body for p, body in fake.extracted.items()},
    ),
    "food: all in the data folder": ("food101", flat),
    "ucmerced: all in the data folder": ("ucmerced", flat),
    "flowers: torchvision's": ("flowers102", lambda fake: fake.extracted),
    "flowers: extracted without a folder": ("flowers102", flat),
    "cars: another of Kaggle's": (
        "stanford_cars",
        lambda fake: {
            path.replace("devkit/", "car_devkit/devkit/"): body
            for path, body in (kaggle_cars(fake) | flat(fake_devkit(fake))).items()
        },
    ),
    "eurosat: Kaggle's": ("eurosat", lambda fake: below("EuroSAT", flat(fake))),
    "food: Kaggle's, beside its lists": (
        "food101",
        lambda fake: below("food-101", fake.extracted | {"food-101/meta/old.txt": b"1"}),
    ),
    "dtd: torchvision's": ("dtd", lambda fake: below("dtd", fake.extracted)),
    "dtd: twice in a folder of its name": ("dtd", lambda fake: below("dtd/dtd", fake.extracted)),
    "dtd: with what macOS adds to archives": (
        "dtd",
        lambda fake: (
            {
                f"{folder}{path.replace('banded_0', f'{mark}banded_0')}": body
                for path, body in fake.extracted.items()
                for folder, mark in (("", ""), ("__MACOSX/", "._"))
            }
            | {"dtd/images/banded/._banded_0000.jpg": b"1", "dtd/images/.DS_Store": b"1"}
        ),
    ),
}


def fake_devkit(fake: Fake) -> Fake:
    """Stanford Cars without its images."""
    return replace(
        fake,
        archives={
            name: body for name, body in fake.archives.items() if not name.startswith("cars_t") or name.endswith(".mat")
        },
    )


@pytest.mark.parametrize("layout", LAYOUTS)
def test_layouts_that_users_have(tmp_path: Path, make: Make, layout: str) -> None:
    key, files = LAYOUTS[layout]
    fake = make(key)
    data_dir = lay(tmp_path / fake.dataset.script_name, files(fake))
    raw = read(offline(fake), data_dir, False, "honest")
    assert raw.differences == ()
    pairs: list[Counter[tuple[str, str]]] = []
    for found in (tables(raw), fake.parts):
        # copies name the images and the class with a slash otherwise
        pairs.append(
            Counter((part, label.replace("/", "-")) for part, images in found.items() for label in images.values())
        )
    assert pairs[0] == pairs[1]
    if key != "rsna" and "class folders" not in layout:
        # where a copy lies must not change the names, which the run's id is made of
        assert {*joined(raw)} == {name for part in fake.parts.values() for name in part}
    for part in (raw.train, raw.test):
        for name, reference in zip(part.names, part.entries(part.references), strict=True):
            own = original(key, name)
            assert np.abs(decode(reference).astype(int) - fake.colours[own]).max() <= 4, name
            label = raw.classes[part.labels[list(part.names).index(name)]]
            every = {image: label for images in fake.parts.values() for image, label in images.items()}
            assert every[own].replace("/", "-") == label.replace("/", "-")


@pytest.mark.parametrize("extracted", [True, False])
@pytest.mark.parametrize("key", KEYS)
def test_every_way_to_name_the_place(server: Server, tmp_path: Path, make: Make, key: str, extracted: bool) -> None:
    """The folder of all datasets, the dataset's own, the extracted one, and those within it; nothing is fetched."""
    fake = make(key)
    dataset = serve(server, fake, ("never", None, ""))
    own = lay(tmp_path / "data" / dataset.script_name, fake.extracted if extracted else fake.bodies)
    (tmp_path / "data" / "other").mkdir()
    (tmp_path / "link").symlink_to(own)
    inside = [path for path in sorted(own.rglob("*")) if path.is_dir() and len(path.relative_to(own).parts) <= 3]
    if key == "cifar10":
        assert len(inside) == extracted  # the folder with the batches
    before = sorted(tmp_path.rglob("*")) if extracted else []
    for place in (tmp_path / "data", own, tmp_path / "link", tmp_path / "data" / ".." / "data", *inside):
        raw = read(dataset, place_of(dataset, place), False, "honest")
        check_truth(fake, raw)
    assert server.seen == []
    # the checksum of a file that is the dataset is remembered
    assert not before or {*tmp_path.rglob("*")} - {own / checksums.NAME} == {*before}


@pytest.mark.parametrize("key", KEYS)
def test_a_place_that_is_not_the_datasets(server: Server, tmp_path: Path, make: Make, key: str) -> None:
    """Nothing is fetched into it, made or left, and the message says what was seen."""
    fake = make(key)
    dataset = serve(server, fake, ("never", None, ""))
    lay(tmp_path / "photos", {"cats/1.jpg": b"1", "readme.md": b"1"})
    before = sorted(tmp_path.rglob("*"))
    for name in ("photos", "photos/cats", "photos/readme.md", "typo", "typo/deeper"):
        message = refusal(lambda name=name: read(dataset, place_of(dataset, tmp_path / name), True, "honest"))  # type: ignore[misc]
        for fact in (str(tmp_path / name), dataset.files[0].name, "there is"):
            assert fact in message
    assert server.seen == []
    assert sorted(tmp_path.rglob("*")) == before


def test_dogs_through_a_link(tmp_path: Path, make: Make) -> None:
    """The lists lie beside the link, or where it leads to."""
    fake = make("stanford_dogs")
    lay(tmp_path / "disk", fake.extracted)
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "Images").symlink_to(tmp_path / "disk" / "Images")
    (tmp_path / "mine").symlink_to(tmp_path / "disk" / "Images")
    for place in (tmp_path / "data", tmp_path / "mine"):
        check_truth(fake, read(offline(fake), place, False, "honest"))
    for name in fake.lists:
        (tmp_path / "disk" / name).rename(tmp_path / "data" / name)
    check_truth(fake, read(offline(fake), tmp_path / "data", False, "honest"))


def test_dogs_without_lists(tmp_path: Path, make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    """As Kaggle's copy comes: lists.tar is asked for, and read where it is put; another one is refused."""
    fake = make("stanford_dogs")
    lay(tmp_path / "images", members(fake, "images.tar"))
    message = refused(fake, tmp_path, True)
    for fact in (
        "train_list.mat",
        f"Get lists.tar ({len(fake.bodies['lists.tar']):,} bytes",
        f"https://{DEAD}/lists.tar",
    ):
        assert fact in message
    assert str(tmp_path / "images") in message
    monkeypatch.setattr(stanford_dogs, "DATASET", fake.dataset)
    for place in (tmp_path, tmp_path / "images"):
        path = lay(place, {"lists.tar": fake.bodies["lists.tar"]}) / "lists.tar"
        before = sorted(tmp_path.rglob("*"))
        check_truth(fake, read(offline(fake), tmp_path, False, "honest"))
        check_truth(fake, read(offline(fake), tmp_path / "images" / "Images", False, "honest"))
        assert sorted(tmp_path.rglob("*")) == before
        path.write_bytes(b"another")
        assert f"{path} is truncated" in refused(fake, tmp_path, True)
        path.unlink()


RENAMED = [(key, fakes.made(key).removable) for key in KEYS if Path(fakes.made(key).removable).suffix]


@pytest.mark.parametrize(("key", "path"), [pair for pair in RENAMED if pair[0] != "rsna"])
def test_a_suffix_in_capitals(tmp_path: Path, make: Make, key: str, path: str) -> None:
    """As cameras and Windows write it; the names, which the run's id is made of, stay the listed ones."""
    fake = make(key)
    lay(tmp_path, fake.extracted)
    old = tmp_path / path
    old.rename(old.with_suffix(old.suffix.swapcase()))
    raw = read(offline(fake), tmp_path, False, "honest")
    if key not in ("ucmerced", "eurosat", "plantvillage", "plantclef"):  # whose folders are their lists
        check_truth(fake, raw)
    assert raw.differences == ()


@pytest.mark.parametrize("annotated", [True, False])
@pytest.mark.parametrize("inside", ["", "images/"])
def test_tinyimagenet_with_class_folders_of_val(tmp_path: Path, make: Make, annotated: bool, inside: str) -> None:
    """As everyone's script makes them, for torchvision's ImageFolder; with the list, or without."""
    fake = make("tinyimagenet")
    lay(tmp_path, fake.extracted)
    val = tmp_path / "tiny-imagenet-200" / "val"
    for name, wnid in fake.parts["test"].items():
        file = val / wnid / inside / name.rpartition("/")[2]
        file.parent.mkdir(parents=True, exist_ok=True)
        (val.parent / name).rename(file)
    if not annotated:
        (val / "val_annotations.txt").unlink()
    raw = read(offline(fake), tmp_path, False, "honest")
    check_truth(fake, raw)
    next(val.glob("*/**/val_2.JPEG")).unlink()
    assert "test images instead of 6" in refused(fake, tmp_path, False)


def test_what_to_do_about_missing_files_is_true(server: Server, tmp_path: Path, make: Make) -> None:
    """Only what can be fetched is said to be, and only where it would be."""
    fake = make("dtd")
    dataset = serve(server, fake, ("good", None, ""))
    data_dir = lay(tmp_path / "mine", fake.extracted)

    def said(place: Path) -> str:
        return refusal(lambda: read(dataset, place, False, "honest"))

    (data_dir / fake.removable).unlink()
    assert f"Move {data_dir / 'dtd'} away, and the same command fetches it again" in said(data_dir)
    assert "name an empty folder with --data-dir" in said(data_dir / "dtd")
    (data_dir / "dtd" / "labels" / "train1.txt").unlink()
    assert f"Move {data_dir / 'dtd'} away, and the same command fetches it again" in said(data_dir)
    (data_dir / "notes.txt").touch()
    assert "name an empty folder with --data-dir" in said(data_dir)
    (data_dir / "notes.txt").unlink()
    lay(data_dir, fake.bodies)
    assert f"Delete {data_dir / 'dtd'}, and the same command extracts it again from dtd-r1.0.1.tar.gz" in said(data_dir)
    shutil.rmtree(data_dir / "dtd")  # as it says
    check_truth(fake, read(dataset, data_dir, False, "honest"))
    assert server.seen == []
    cars = make("stanford_cars")
    lay(tmp_path / "cars", cars.extracted)
    (tmp_path / "cars" / cars.removable).unlink()
    message = refusal(lambda: read(cars.dataset, tmp_path / "cars", False, "honest"))
    assert f"Get it again from {cars.dataset.page}, or train on" in message
    assert "fetched" not in message


def test_a_wrong_archive_among_other_files_is_not_said_to_be_downloaded(tmp_path: Path, make: Make) -> None:
    fake = make("dtd")
    lay(tmp_path, {"dtd-r1.0.1.tar.gz": b"short"})
    assert "or delete it for a download" in refused(fake, tmp_path, False)
    lay(tmp_path, {"notes.txt": b"mine"})
    assert "download" not in refused(fake, tmp_path, False)


@pytest.mark.parametrize("key", ["flowers102", "stanford_cars"])
def test_lists_that_lie_beside_the_images_folder(tmp_path: Path, make: Make, key: str) -> None:
    fake = make(key)
    lay(tmp_path, fake.extracted)
    for name in fake.lists:
        path = tmp_path / name
        path.rename(tmp_path / path.name)
    check_truth(fake, read(offline(fake), tmp_path, False, "honest"))
    if key == "flowers102":
        (tmp_path / "setid.mat").unlink()
        message = refused(fake, tmp_path, False)
        assert f"Get setid.mat ({fake.dataset.files[1].bytes:,} bytes" in message


@pytest.mark.parametrize("key", KEYS)
def test_lists_as_windows_programs_save_them(tmp_path: Path, make: Make, key: str) -> None:
    """With a byte order mark, and lines that end in CR LF."""
    fake = make(key)
    lay(tmp_path, fake.extracted)
    texts = [name for name in fake.lists if name.endswith((".txt", ".csv", ".json"))]
    for name in texts:
        body = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(b"\xef\xbb\xbf" + body.replace(b"\n", b"\r\n"))
    if texts:
        check_truth(fake, read(offline(fake), tmp_path, False, "honest"))


def original(key: str, name: str) -> str:
    """The image's name in the published layout."""
    if key == "rsna":
        return f"{name.rpartition('.')[0]}.dcm"
    if key == "stanford_cars":
        file = name.rpartition("/")[2]
        part = "train" if "train" in name else "test"
        return f"cars_{part}/{file.rpartition('_')[2]}"
    return name


def test_cars_class_folders_that_do_not_agree(tmp_path: Path, make: Make) -> None:
    fake = make("stanford_cars")
    files = {path: body for path, body in folder_cars(fake).items() if not path.startswith(f"test/{CARS[0]}")}
    lay(tmp_path / "stanford_cars", files)
    assert CARS[0] in refusal(lambda: read(offline(fake), tmp_path, False, "honest"))
    assert len(read(offline(fake), tmp_path, True, "honest").test) == 4


GITHUB = {"Corn___Cercospora_leaf_spot Gray_leaf_spot": "Corn_(maize)___Cercospora_leaf_spot Gray_leaf_spot"}


@pytest.mark.parametrize("place", ["PlantVillage-Dataset/raw/color", "raw/color", "PlantVillage-Dataset"])
def test_plantvillage_of_github(tmp_path: Path, make: Make, place: str) -> None:
    """One class less, and other names: only if partial data are allowed."""
    fake = make("plantvillage")
    files: Files = {}
    for path, body in flat(fake).items():
        leaf, _, name = path.partition("/")
        if leaf != "Background_without_leaves":
            files[f"raw/color/{GITHUB.get(leaf, leaf)}/{name}"] = body
            files[f"raw/segmented/{GITHUB.get(leaf, leaf)}/{name}"] = b"not to be read"
    lay(tmp_path / "PlantVillage-Dataset", files)
    data_dir = tmp_path if place.startswith("PlantVillage-Dataset/") else tmp_path / "PlantVillage-Dataset"
    if place == "PlantVillage-Dataset":
        data_dir = data_dir / "raw" / "color"
    message = refusal(lambda: read(offline(fake), data_dir, False, "honest"))
    for fact in ("5 classes instead of 6", "class Background_without_leaves: 0 images instead of 5"):
        assert fact in message
    raw = read(offline(fake), data_dir, True, "honest")
    assert len(raw.classes) == 5
    assert len(raw.train) + len(raw.test) == 25


@pytest.mark.parametrize("inside", [False, True])
def test_plantvillage_with_augmentation_is_refused(tmp_path: Path, make: Make, inside: bool) -> None:
    fake = make("plantvillage")
    folder = tmp_path / "Plant_leave_diseases_dataset_with_augmentation"
    lay(folder, flat(fake))
    message = refusal(lambda: read(offline(fake), folder if inside else tmp_path, True, "honest"))
    for fact in ("augmented", "Plant_leaf_diseases_dataset_without_augmentation.zip", fake.dataset.page):
        assert fact in message


def test_zenodo_lists_of_dtd_name_their_class(tmp_path: Path, make: Make) -> None:
    """A list of file names alone is refused, as the folder is the label."""
    fake = make("dtd")
    lay(tmp_path, fake.extracted)
    path = tmp_path / fake.lists[0]
    path.write_text("".join(f"{line.rpartition('/')[2]}\n" for line in path.read_text().splitlines()))
    assert "is not <class>/<image>" in refusal(lambda: read(offline(fake), tmp_path, True, "honest"))


def test_food101_lists_are_of_classes(tmp_path: Path, make: Make) -> None:
    fake = make("food101")
    lay(tmp_path, fake.extracted)
    path = tmp_path / fake.lists[1]
    path.write_text(json.dumps([name for names in json.loads(path.read_text()).values() for name in names]))
    assert "test.json" in refusal(lambda: read(offline(fake), tmp_path, True, "honest"))
