"""Everything that a user can get wrong: one message that says what to do, exit code 2, nothing written."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import cifar10
from common import Dataset, Part, RawSplits, ReadOptions
from tests import toy
from tests.conftest import Command, only_run

GOOD = "-model tiny -bs 16 --weights none --epochs 1 --plan off"


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        ("", "-model"),
        ("-bs 16", "-model"),
        ("-model", "-model"),
        ("convnext", "-model"),
        ("-model nosuch", "unknown backbone 'nosuch'"),
        ("-model ''", "unknown backbone ''"),
        ("-model convnxt", "Did you mean convnext?"),
        (f"{GOOD} -bs 0", "'0' is not a whole number from 1"),
        (f"{GOOD} -bs -3", "'-3' is not a whole number"),
        (f"{GOOD} -bs many", "'many' is not a whole number"),
        (f"{GOOD} -bs 1.5", "'1.5' is not a whole number"),
        (f"{GOOD} -bs 99999999999999999999", "is not a whole number"),
        (f"{GOOD} -bs 1", "batch normalisation"),
        (f"{GOOD} --epochs 0", "--epochs"),
        (f"{GOOD} --patience 0", "--patience"),
        (f"{GOOD} --lr 0", "'0' is not a number above 0"),
        (f"{GOOD} --lr 1e38", "--lr"),
        (f"{GOOD} --data-dir ''", "the path is empty"),
        (f"{GOOD} --out ''", "the path is empty"),
        (f"{GOOD} --lr nan", "'nan' is not a number above 0"),
        (f"{GOOD} --lr inf", "'inf' is not a number above 0"),
        (f"{GOOD} --lr -1e-3", "--lr"),
        (f"{GOOD} --seed -1", "--seed"),
        (f"{GOOD} --seed 4294967296", "--seed"),
        (f"{GOOD} --size 0", "--size"),
        (f"{GOOD} --size", "--size"),
        (f"{GOOD} --size 8 8 8", "3 numbers"),
        (f"{GOOD} --size 1", "can't take images of 1x1"),
        (f"{GOOD} --nosuch", "--nosuch"),
        (f"{GOOD} --epoch 3", "--epoch"),  # no guessing at shortened flags
        (f"{GOOD} stray", "stray"),
        (f"{GOOD} --protocol cheat", "'honest', 'paper'"),
        (f"{GOOD} --recipe secret", "--recipe"),
        (f"{GOOD} --tune half", "--tune"),
        (f"{GOOD} --augment all", "--augment"),
        (f"{GOOD} --precision fp8", "--precision"),
        (f"{GOOD} --device tpu", "--device"),
        ("-model tiny --weights imagenet", "http://127.0.0.1:9/tiny.pth"),
        ("-model tiny --weights nosuch.pth", "no such file"),
        ("-model tiny --weights IMAGENET1K_V2", "not one of imagenet, auto, none"),
        ("-model tiny --weights .", "the folder holds no config.json"),
        ("-model tiny --weights empty.pth", "empty.pth (0 bytes) can't be read"),
        ("-model tiny --weights garbage.pth", "garbage.pth (4,000 bytes) can't be read"),
        ("-model tiny --weights cut.pth", "can't be read as PyTorch weights"),
        ("-model tiny --weights other.pth", "does not hold weights of tiny"),
        (f"{GOOD} --out file", "file"),
        (f"{GOOD} --out file/below", "--out"),
        (f"{GOOD} --out /proc/nowhere", "--out"),
        (f"{GOOD} --check --out file", "--out"),
    ],
)
def test_a_wrong_command_line(command: Command, tmp_path: Path, capsys: Any, line: str, expected: str) -> None:
    (tmp_path / "empty.pth").touch()
    (tmp_path / "garbage.pth").write_bytes(b"\x80\x02junk" + b"j" * 3994)
    torch.save(toy.tiny().state_dict(), tmp_path / "whole.pth")
    (tmp_path / "cut.pth").write_bytes((tmp_path / "whole.pth").read_bytes()[:-500])
    torch.save(torch.nn.Linear(3, 2).state_dict(), tmp_path / "other.pth")
    (tmp_path / "file").write_text("kept")
    before = sorted(path.name for path in tmp_path.iterdir())
    assert command(line) == 2
    printed = capsys.readouterr()
    assert expected in printed.err
    assert printed.err.count("error: ") == 1
    assert "Traceback" not in printed.err
    assert len(printed.err.partition("error: ")[2].splitlines()) <= 8
    assert [name for name in sorted(path.name for path in tmp_path.iterdir()) if name != "torch"] == before
    assert (tmp_path / "file").read_text() == "kept"
    assert not list(tmp_path.rglob("*.tmp"))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a CUDA device here")
def test_a_card_that_is_not_there(command: Command, capsys: Any) -> None:
    assert command(f"{GOOD} --device cuda") == 2
    assert "--device cuda" in capsys.readouterr().err


def reading(raw: Callable[[], RawSplits]) -> Dataset:
    return replace(toy.dataset(), read=lambda _: raw())


def some(train: Part, test: Part | None = None, classes: int = 3) -> RawSplits:
    return RawSplits(toy.CLASSES[:classes], train, toy.part(21, 2, "test") if test is None else test)


NOTHING = Part(np.zeros((0, 8, 8, 3), np.uint8), np.zeros(0, np.int64), [])


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (lambda: some(NOTHING), "the train part has no images"),
        (lambda: some(toy.part(60, 1, "train"), NOTHING), "the test part has no images"),
        (
            lambda: some(toy.part(3, 1, "train")),
            "Nothing can be held out of the training images: found 3 images",
        ),
        (lambda: some(toy.part(60, 1, "train"), classes=2), "labels from 0 to 2, but 2 classes"),
        (lambda: some(toy.part(6, 1, "train", classes=1), toy.part(6, 2, "test", classes=1), 1), "at least 2 classes"),
    ],
)
def test_unusable_data(
    command: Command, tmp_path: Path, capsys: Any, raw: Callable[[], RawSplits], expected: str
) -> None:
    assert command(f"{GOOD} --allow-partial", reading(raw)) == 2
    assert expected in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize(
    ("prepare", "expected"),
    [
        (lambda place: None, "could not be downloaded"),
        (lambda place: (place.parent.mkdir(parents=True), place.write_text("a file")), "Expected a folder"),
        (
            lambda place: (place.mkdir(parents=True), (place / "cifar-10-python.tar.gz").write_bytes(b"cut short")),
            "truncated (9 bytes",
        ),
        (
            lambda place: (place.mkdir(parents=True), (place / "cifar-10-python.tar.gz").write_bytes(b"0" * 1000)),
            "another file",
        ),
        (lambda place: (place / "cifar-10-batches-py").mkdir(parents=True), "lacks data_batch_1, data_batch_2"),
    ],
)
def test_data_that_is_not_there(
    command: Command, tmp_path: Path, capsys: Any, prepare: Callable[[Path], Any], expected: str
) -> None:
    dead = replace(cifar10.DATASET.files[0], urls=("http://127.0.0.1:9/cifar-10-python.tar.gz",), bytes=1000)
    place = tmp_path / "data" / "cifar10"
    prepare(place)
    assert command(GOOD, replace(cifar10.DATASET, files=(dead,))) == 2
    message = capsys.readouterr().err
    assert expected in message
    assert "data/cifar10" in message
    assert "Traceback" not in message
    assert not (tmp_path / "runs").exists()


def test_a_record_that_is_none(command: Command, tmp_path: Path, capsys: Any) -> None:
    assert command(GOOD) == 0
    folder = only_run(tmp_path / "runs")
    before, checkpoint = (folder / "record.json").read_text(), folder / "checkpoint.pt"
    for record in ("", "{", "[1]", '{"schema": 2, "run": "x"}'):
        (folder / "record.json").write_text(record)
        assert command(GOOD) == 0, record
        assert "made anew of what checkpoint.pt says" in capsys.readouterr().out
        assert (folder / "record.json").read_text() == before
    checkpoint.unlink()
    for record, expected in {
        "": "not readable JSON",
        "{": "not readable JSON",
        "[1]": "no record of this project",
        '{"schema": 2}': "no record of this project",
        '{"schema": 99, "run": "x"}': "has schema 99; this version reads 1 to 2",
        '{"schema": 2, "run": "x"}': "lacks status, started",
        '{"schema": 2, "run": "x", "status": "done"}': "lacks started, ",
    }.items():
        (folder / "record.json").write_text(record)
        assert command(GOOD) == 2, record
        message = capsys.readouterr().err
        assert f"record.json is not a readable record: {expected}" in message.replace("a damaged record: ", "")
        assert "--rerun" in message
        assert (folder / "record.json").read_text() == record
    assert command(f"{GOOD} --rerun") == 0


@pytest.mark.parametrize(
    ("line", "dataset", "said"),
    [
        (
            "-model tiny -bs 500 --weights none --epochs 1",
            toy.dataset(),
            "batches of 54 instead of 500 (there are no more images)",
        ),
        ("-model tiny -bs 1 --weights none --epochs 1 --tune linear", toy.dataset(), "the head only"),
        (f"{GOOD} --weights auto", toy.dataset(), "[not pretrained]"),
        (GOOD, toy.dataset(train=19, test=3), "train 19"),
        ("-model tiny -bs 16 --weights none --epochs 1", toy.dataset(train=6, test=3), "(3 to train + 3 val)"),
        (GOOD, toy.dataset(classes=2), "2 classes"),
        ("--model=tiny --batch-size=16 --weights=none --epochs=1 --plan=off", toy.dataset(), "batches of 16"),
    ],
)
def test_odd_but_fine(command: Command, capsys: Any, line: str, dataset: Dataset, said: str) -> None:
    assert command(line, dataset) == 0
    printed = capsys.readouterr()
    assert said in printed.out
    assert "error" not in printed.err


def test_reading_that_fails_leaves_no_half_of_a_record(command: Command, tmp_path: Path, capsys: Any) -> None:
    def read(_: ReadOptions) -> RawSplits:
        raise OSError(5, "Input/output error", "data/toy/images.bin")

    assert command(GOOD, replace(toy.dataset(), read=read)) != 0
    assert "images.bin" in capsys.readouterr().err
    assert not (tmp_path / "runs").exists()
