"""What a dry run says of images, weights and room: with nothing fetched, and nothing written."""

from __future__ import annotations

import re
import shutil
import socket
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch
from PIL import Image

import grid
from engine.data.inventory import look
from grids.cells import Cell
from grids.estimate import Speeds
from grids.plan.missing import find_missing, missing_lines
from grids.plan.room import BYTES_OF_A_WEIGHT, WHILE_IT_RUNS, room_lines
from grids.plan.trial import measure_some
from tests.grids.cells import cells


@pytest.fixture(autouse=True)
def _alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No network, and no weights or plans of the user's own."""

    def refuse(*_: Any) -> NoReturn:
        raise AssertionError("a connection was asked for")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "user"))


def files_below(folder: Path) -> dict[Path, int]:
    return {path: path.stat().st_mtime_ns for path in sorted(folder.rglob("*"))}


def spaced(lines: Sequence[str]) -> str:
    """The lines in one, each word a blank from the next."""
    return " ".join(" ".join(lines).split())


def plan_of(line: str, capsys: pytest.CaptureFixture[str]) -> list[str]:
    assert grid.main([*line.split(), "--dry-run"]) == 0
    return capsys.readouterr().out.splitlines()


def test_a_dry_run_of_all_says_once_what_is_missing_and_touches_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = files_below(tmp_path)
    lines = plan_of("--datasets all --seeds 0-1", capsys)
    assert files_below(tmp_path) == before
    text = spaced(lines)
    (cifar10,) = (line for line in lines if line.startswith("cifar10 "))
    (rsna,) = (line for line in lines if line.startswith("rsna "))
    assert cifar10.endswith("not measured yet  fetched on first use (170 MB)")
    assert rsna.endswith("  by hand: python datasets.py rsna")
    assert "44 of 418 cells, for lack of data of stanford_cars, rsna" in text
    assert "to do 418, of which 374 can run, not measured yet" in text
    assert re.search(r"data 17 datasets fetched on first use, [\d.]+ GB", text)
    assert text.count("resnet50-0676ba61.pth (103 MB)") == 1
    assert "https://download.pytorch.org/models/: " in text
    assert "wavemix_192_16_75.06.pth (size not stated)" in text
    assert str(tmp_path / "torch" / "hub" / "checkpoints") in text
    assert [line for line in lines if len(line) > 120 and str(tmp_path) not in line] == []


def test_what_is_here_is_not_missing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = tmp_path / "torch" / "hub" / "checkpoints"
    place.mkdir(parents=True)
    (place / "resnet50-0676ba61.pth").touch()
    text = "\n".join(plan_of("--datasets digits --models resnet", capsys))
    assert not re.search("^(weights|data|can't run) ", text, re.MULTILINE)
    assert " there" in text
    text = "\n".join(plan_of("--datasets digits --models resnet swin", capsys))
    assert "weights    fetched on first use: 1 file" in text
    assert "resnet50" not in text
    assert "weights " not in "\n".join(plan_of("--datasets digits --models swin --weights none", capsys))


def test_weights_that_can_not_be_had_stop_cells(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(
        "from torch import nn\n\n\ndef net():\n    return nn.Sequential(nn.Flatten(), nn.Linear(3, 1000))\n"
    )
    both = cells(f"--datasets digits --models resnet {tmp_path / 'mine.py'}:net")
    missing = find_missing(both, [])
    assert [missing.stops(cell) for cell in both] == [False, True]
    told = spaced(missing_lines(both, missing))
    assert "mine.py:net has none here: " in told
    assert "can't run 1 of 2 cells, for lack of weights of" in told
    random = cells(f"--datasets digits --models {tmp_path / 'mine.py'}:net --weights auto")
    missing = find_missing(random, [])
    assert not missing.stops(random[0])
    assert "it would begin from random ones" in spaced(missing_lines(random, missing))


@pytest.fixture
def few_images(tmp_path: Path) -> Path:
    """EuroSAT with an image in each of its ten classes, where there should be thousands."""
    (cell,) = cells("--datasets eurosat --models resnet")
    assert isinstance(cell.dataset.class_images, dict)
    for name in cell.dataset.class_images:
        folder = tmp_path / "data" / "eurosat" / "2750" / name
        folder.mkdir(parents=True)
        for number in (1, 2):
            Image.new("RGB", (64, 64)).save(folder / f"{name}_{number}.jpg")
    return tmp_path / "data"


@pytest.mark.usefixtures("few_images")
def test_incomplete_images_stop_cells_unless_they_may_be() -> None:
    line = "--datasets eurosat --models resnet --weights none"
    (cell,) = cells(line)
    missing = find_missing([cell], [])
    assert missing.stops(cell)
    lacks = "incomplete: 10 train images instead of 18,900"
    assert missing.data_words(cell) == f"{lacks}; get it whole, or train with --allow-partial"
    (partial,) = cells(f"{line} --allow-partial")
    missing = find_missing([partial], [])
    assert not missing.stops(partial)
    assert missing.data_words(partial) == lacks


def test_an_archive_that_is_too_short_is_seen_without_a_checksum(tmp_path: Path) -> None:
    (cell,) = cells("--datasets cifar10 --models resnet --weights none")
    folder = tmp_path / "data" / "cifar10"
    folder.mkdir(parents=True)
    (folder / cell.dataset.files[0].name).write_bytes(b"no archive")
    before = files_below(tmp_path)
    missing = find_missing([cell], [])
    assert files_below(tmp_path) == before
    assert missing.stops(cell)
    assert "unusable: " in missing.data_words(cell)
    assert "has 10 bytes; expected" in look(cell.dataset, folder, verify=False).what_to_do
    # with its length, it is taken for the published one, until its script computes the checksum
    with (folder / cell.dataset.files[0].name).open("wb") as file:
        file.truncate(cell.dataset.files[0].bytes)
    missing = find_missing([cell], [])
    assert missing.data_words(cell) == "extracted on first use"
    assert not missing.stops(cell)
    assert sorted(path.name for path in folder.iterdir()) == [cell.dataset.files[0].name]


def test_folders_that_the_grid_makes_are_fetched_into(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "store").mkdir()
    text = "\n".join(plan_of("--datasets cifar10 --models resnet --weights none --data-dir store", capsys))
    assert "fetched on first use (170 MB)" in text
    assert "can't run" not in text
    assert not list((tmp_path / "store").iterdir())


def room_of(line: str) -> str:
    asked = cells(line)
    return spaced(room_lines(asked, find_missing(asked, []), 1, {}))


def test_room_is_counted_and_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    line = "--datasets ucmerced --models resnet --seeds 0-9"
    (cell, *_) = cells(line)
    weights = 25_557_032 * BYTES_OF_A_WEIGHT
    text = room_of(line)
    assert f"decoded images {2100 * 256 * 256 * 3 / 1e6:.0f} MB" in text
    assert f"runs {10 * weights / 1e9:.1f} GB" in text
    assert f"checkpoints while they run {weights * WHILE_IT_RUNS / 1e6:.0f} MB" in text
    assert f"datasets, packed and extracted {2 * (cell.dataset.files[0].bytes or 0) / 1e6:.0f} MB" in text
    assert "pretrained weights 103 MB" in text
    assert "too little" not in text
    assert "decoded images" not in room_of(f"{line} --no-cache")
    real = shutil.disk_usage(".")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: real._replace(free=1_000_000_000))
    assert re.search(r"1\.0 GB free \([\d.]+ GB too little\)", room_of(line))


@pytest.fixture
def few_threads() -> Iterator[None]:
    threads = torch.get_num_threads()
    yield
    torch.set_num_threads(threads)


@pytest.mark.usefixtures("few_threads")
def test_a_few_steps_are_measured_where_no_record_tells(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Of the cheapest backbone, where there is no time for more; and the others' speed is taken from that."""
    monkeypatch.setattr("grids.plan.trial.SECONDS", 0.0)
    asked = cells("--datasets digits --models resnet shufflenet --weights none --epochs 2 -bs 8 --size 32")
    speeds = Speeds("this one")
    before = files_below(tmp_path)
    (told,) = measure_some(asked, "cpu", speeds)
    assert files_below(tmp_path) == before
    assert capsys.readouterr().out.startswith("measuring  how fast")
    assert re.match(r"speed      in a few steps of training: shufflenet [\d,.]+ images/s", told)
    found = {cell.config.model: speeds.estimate(cell) for cell in asked}
    assert {name: each.basis for name, each in found.items() if each} == {"shufflenet": "now", "resnet": "backbones"}


@pytest.mark.usefixtures("few_threads")
def test_what_can_not_be_measured_ends_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(_cell: Cell, _device: str) -> NoReturn:
        raise RuntimeError("not enough memory: you tried to allocate 8 bytes")

    monkeypatch.setattr("grids.plan.trial._measured", fails)
    speeds = Speeds("this one")
    asked = cells("--datasets digits --models shufflenet --weights none --epochs 2 -bs 8 --size 32")
    assert measure_some(asked, "cpu", speeds) == [
        "speed      shufflenet can't be measured: memory does not hold a step"
    ]
    assert speeds.estimate(asked[0]) is None


def test_others_on_a_card_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("grids.plan.trial.others_on_card", lambda: True)
    asked = cells("--datasets digits --models shufflenet --weights none --epochs 2 -bs 8 --size 32")
    (told,) = measure_some(asked, "cuda", Speeds("this one"))
    assert "others are at work on the card" in told


def test_weights_on_the_hub_are_looked_for_where_its_library_keeps_them(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    pytest.importorskip("timm", reason="needs timm")
    asked = cells("--datasets digits --models timm:resnet18")
    monkeypatch.setattr("engine.models.at_hand.kept_file", lambda _: None)
    told = spaced(missing_lines(asked, find_missing(asked, [])))
    assert "https://huggingface.co/timm/resnet18.a1_in1k/: model.safetensors (size not stated)" in told
    monkeypatch.setattr("engine.models.at_hand.kept_file", lambda _: tmp_path / "model.safetensors")
    assert missing_lines(asked, find_missing(asked, [])) == []
