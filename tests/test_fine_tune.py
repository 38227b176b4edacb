"""common.fine_tune(): what a script's command does, as a call from Python."""

from __future__ import annotations

import errno
import json
import os
import signal
import sys
import types
import warnings
from collections.abc import Callable
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import folder
from common import fine_tune
from engine import end_at_once
from engine.config import FLAGS
from engine.errors import RunError, UserError
from engine.records.run_folder import Run
from tests import toy
from tests.conftest import Command, only_run

LINE = "-model tiny -bs 16 --weights none --plan off --epochs 2"
QUICK = {"model": "tiny", "batch_size": 16, "weights": "none", "plan": "off", "epochs": 2, "device": "cpu"}


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes of twelve images each."""
    random = np.random.default_rng(0)
    for label in ("cat", "dog"):
        (tmp_path / "photos" / label).mkdir(parents=True)
        for number in range(12):
            pixels = random.integers(0, 256, (16, 16, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "photos" / label / f"{number}.png")
    return tmp_path / "photos"


def test_it_is_the_run_of_the_command(command: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    record = fine_tune(toy.dataset(), **QUICK)
    called = capsys.readouterr()
    written = only_run(tmp_path / "runs")
    assert record["folder"] == str(written.relative_to(tmp_path))
    kept = json.loads((written / "record.json").read_text())
    assert kept.pop("checksum")
    assert json.loads(json.dumps({name: value for name, value in record.items() if name != "folder"})) == kept
    assert command(LINE) == 0
    assert capsys.readouterr().out.splitlines() == called.out.splitlines()[-3:]
    assert fine_tune(toy.dataset(), **QUICK)["run"] == record["run"]
    assert capsys.readouterr().out.splitlines() == called.out.splitlines()[-3:]
    assert command(f"{LINE} --out other") == 0
    heads = [line for line in capsys.readouterr().out.splitlines() if not line.startswith("record")]
    assert heads[:5] == [line for line in called.out.splitlines() if not line.startswith("record")][:5]


@pytest.mark.parametrize("spelled", [str, Path, lambda path: f"folder:{path}"])
def test_a_folder_of_images(
    spelled: Callable[[Path], Any], photos: Path, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    record = fine_tune(spelled(photos), **QUICK, size=16)
    assert record["dataset"]["classes"] == ["cat", "dog"]
    shown = capsys.readouterr().out.splitlines()[-3:]
    assert command(f"{photos} {LINE} --size 16", folder.DATASET) == 0
    assert capsys.readouterr().out.splitlines() == shown


@pytest.mark.usefixtures("command")
def test_all_folds_are_a_list(photos: Path) -> None:
    records = fine_tune(photos, **QUICK, size=16, folds=2)
    assert [record["config"]["fold"] for record in records] == [1, 2]
    assert fine_tune(photos, **QUICK, size=16, folds=2, fold=2)["run"] == records[1]["run"]


@pytest.mark.usefixtures("command")
def test_a_check_leaves_nothing(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert fine_tune(photos, check=True) is None
    assert capsys.readouterr().out.splitlines()[-1] == f"ready: python folder.py {photos} -model convnext"
    assert fine_tune(photos, **QUICK, check=True) is None
    assert not (tmp_path / "runs").exists()


def test_keywords_are_the_flags() -> None:
    taken = signature(fine_tune).parameters
    assert [*taken] == ["images", *FLAGS]
    assert taken["batch_size"].default == 64


# what is given -> what a command with the same mistake says
WRONG = [
    ({"model": "tinny"}, "-model tinny"),
    ({"batch_size": 0}, "-model tiny --batch-size 0"),
    ({"batch_size": True}, "-model tiny --batch-size True"),
    ({"lr": -1}, "-model tiny --lr=-1"),
    ({"size": (16, 16, 3)}, "-model tiny --size 16 16 3"),
    ({"recipe": "cosin"}, "-model tiny --recipe cosin"),
    ({"weights": "nowhere.pth"}, "-model tiny --weights nowhere.pth"),
    ({"shots": 3, "fraction": 0.1}, "-model tiny --shots 3 --fraction 0.1"),
    ({"folds": 3}, "-model tiny --folds 3"),
    ({"model": None}, ""),
]


@pytest.mark.parametrize(("wrong", "line"), WRONG)
def test_a_wrong_value_is_told_as_on_the_command_line(
    wrong: dict[str, Any], line: str, command: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(UserError) as caught:
        fine_tune(toy.dataset(), **{"model": "tiny", **wrong})
    assert command(line) == 2
    assert capsys.readouterr().err == f"error: {caught.value}\n"


@pytest.mark.parametrize(
    ("images", "flags", "says"),
    [
        ("digits", {"batchsize": 3}, "unknown keyword batchsize. Did you mean batch_size? Known: model, batch_size,"),
        ("digits", {"model": "tiny", "rerun": "yes"}, "rerun is 'yes'. Expected True or False."),
        ("digits", {"model": ["resnet", "swin"]}, "--datasets digits --models resnet swin"),
        ("breakhis:40", {"model": ["resnet", "swin"]}, "--datasets breakhis:40 --models resnet swin"),
        ("cifra10", {"model": "resnet"}, "unknown dataset 'cifra10'. Did you mean cifar10?"),
        ("breakhis", {"model": "resnet"}, "breakhis names 4 datasets, and a run is of one. Name one, such as"),
        ("./nowhere", {"model": "resnet"}, "./nowhere: no such folder"),
        (Path("nowhere"), {"model": "resnet"}, "nowhere does not exist. Expected a folder with images"),
        (" ", {"model": "resnet"}, "the dataset's name is empty"),
        ("photos", {"model": "resnet", "data_dir": "there"}, "unknown flag --data-dir"),
    ],
)
@pytest.mark.usefixtures("photos", "command")
def test_other_mistakes(images: str | Path, flags: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as caught:
        fine_tune(images, **flags)
    assert says in str(caught.value)


def test_another_package_may_be_called_datasets(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "datasets", types.ModuleType("datasets"))
    with pytest.raises(UserError, match="Did you mean resnet"):
        fine_tune("digits", model="resnt")


@pytest.mark.usefixtures("command")
def test_an_interrupted_call_goes_on(capsys: pytest.CaptureFixture[str]) -> None:
    save = Run.save

    def saved_and_interrupted(run: Run, snapshot: Any) -> None:
        save(run, snapshot)
        os.kill(os.getpid(), signal.SIGINT)  # as Jupyter interrupts a cell

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Run, "save", saved_and_interrupted)
        with pytest.raises(KeyboardInterrupt):
            fine_tune(toy.dataset(), **QUICK)
    capsys.readouterr()
    record = fine_tune(toy.dataset(), **QUICK)
    assert (record["status"], len(record["resumed"])) == ("done", 1)
    epochs = [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.split()[0].isdecimal()]
    assert epochs == ["2", "3", "4"]


@pytest.mark.usefixtures("command")
def test_what_others_use_is_left_as_it_was() -> None:
    def found() -> list[Any]:
        handlers = [signal.getsignal(each) for each in (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)]
        hooks = [sys.excepthook, sys.unraisablehook, warnings.showwarning, warnings.formatwarning]
        return [*handlers, *hooks, torch.get_num_threads(), torch.get_rng_state().tolist(), sys.argv, Path.cwd()]

    torch.manual_seed(3)
    before = found()
    fine_tune(toy.dataset(), **QUICK, deterministic=True)
    assert found() == before


def test_a_script_in_the_projects_folder_can_be_interrupted() -> None:
    """There Ctrl-C ends a process at once until its imports are done."""
    before = signal.signal(signal.SIGINT, end_at_once)
    try:
        with pytest.raises(UserError):
            fine_tune("digits", model="resnt")
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("problem", "says"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "runs/x"), "runs/x: no space left on device. Once that is"),
        (MemoryError(), "out of memory. Try a smaller -bs"),
    ],
)
@pytest.mark.usefixtures("command")
def test_what_the_machine_fails_by(problem: Exception, says: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: Any) -> None:
        raise problem

    monkeypatch.setattr("engine.run.fine_tune", fail)
    with pytest.raises(RunError) as caught:
        fine_tune(toy.dataset(), **QUICK)
    assert says in str(caught.value)


@pytest.mark.parametrize(
    ("images", "says"),
    [
        ("a" * 300, "unknown dataset"),
        ("a" * 300 + "/b", "no such folder"),
        ("a\0b", "no such folder"),
        ("folder:" + "a" * 300, "longer than this disk takes"),
        (Path("a\0b"), "NUL"),
        (5, "the images are 5. Expected a folder of them"),
        (None, "the images are None. Expected"),
    ],
)
def test_what_names_no_images(images: Any, says: str) -> None:
    with pytest.raises(UserError, match=says):
        fine_tune(images, **QUICK)
