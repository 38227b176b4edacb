"""What a user can get wrong, and what goes wrong by itself: one message, and nothing half-written."""

from __future__ import annotations

import errno
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import export
from engine.paths import PROJECT
from exporting import forms
from exporting.images import images_of
from exporting.packages import NEEDED
from exporting.served import Served, captured


@pytest.fixture
def place(run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder to work in, with the run in it."""
    shutil.copytree(run, tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def no_folder(place: Path) -> None:
    (place / "out").write_text("a letter")


def stranger(place: Path) -> None:
    (place / "out").mkdir()
    (place / "out" / "letter.txt").write_text("dear")


def same_names(place: Path) -> None:
    (place / "out").mkdir()
    (place / "out" / "model.safetensors").write_bytes(b"of another program")


def below_a_file(place: Path) -> None:
    (place / "file").write_text("")


def no_checkpoint(place: Path) -> None:
    (place / "run" / "checkpoint.pt").unlink()


def empty(place: Path) -> None:
    (place / "runs").mkdir()


def cut_short(place: Path) -> None:
    content = (place / "run" / "checkpoint.pt").read_bytes()
    (place / "run" / "checkpoint.pt").write_bytes(content[: len(content) // 2])


def changed_record(place: Path) -> None:
    record = json.loads((place / "run" / "record.json").read_text())
    (place / "run" / "record.json").write_text(json.dumps(record | {"seed": 7}))


def pickled(place: Path) -> None:
    torch.save(nn.Linear(2, 2), place / "run" / "checkpoint.pt")


def of_another_backbone(place: Path) -> None:
    (place / "run" / "record.json").unlink()
    content = torch.load(place / "run" / "checkpoint.pt", weights_only=True)
    content.pop("checksum", None)
    content["backbone"]["name"] = "resnet"
    torch.save(content, place / "run" / "checkpoint.pt")


def says(path: str, value: Any) -> Callable[[Path], None]:
    """A record that says something else at `path`."""

    def change(place: Path) -> None:
        (place / "run" / "record.json").unlink()
        content = torch.load(place / "run" / "checkpoint.pt", weights_only=True)
        content.pop("checksum", None)
        *above, name = path.split("/")
        within = content
        for each in above:
            within = within[each]
        within[name] = value
        torch.save(content, place / "run" / "checkpoint.pt")

    return change


def two_runs(place: Path) -> None:
    shutil.copytree(place / "run", place / "another")


def nothing(place: Path) -> None:
    pass


ROWS: list[tuple[Callable[[Path], None], str, str]] = [
    (nothing, "run out", "required: --to"),
    (nothing, "run --to torch", "required: DIR"),
    (nothing, "run --to onx out", "invalid choice: 'onx'"),
    (nothing, "run --to torch out more", "unrecognized arguments: more"),
    (nothing, "run --to torch out --overwrit", "unknown flag --overwrit"),
    (nothing, "run --to torch ''", "the path is empty"),
    (nothing, "nowhere --to torch out", "nowhere is not there"),
    (two_runs, ". --to torch out", ". holds 2 runs. Name one of them"),
    (empty, "runs --to torch out", "runs holds no checkpoint.pt"),
    (nothing, "run/history.csv --to torch out", "no checkpoint that a run has left"),
    (no_checkpoint, "run --to torch out", "run holds no checkpoint.pt"),
    (cut_short, "run --to torch out", "no checkpoint that a run has left"),
    (pickled, "run --to torch out", "no checkpoint that a run has left"),
    (changed_record, "run --to torch out", "changed"),
    (of_another_backbone, "run --to torch out", "not of resnet"),
    *(
        (says(path, value), "run --to safetensors out", "what it says of its run is damaged")
        for path, value in (
            *(("dataset/name", None), ("dataset/key", None), ("dataset/key", []), ("dataset/name", "\ud800")),
            *(("config/data_dir", 5), ("costs", {"parameters": 1}), ("test/top1", 2.0), ("protocol", "x")),
            *(("seen", 5), ("seed", torch.ones(1)), ("backbone/weights", 5), ("plan/device_name", 5)),
        )
    ),
    (no_folder, "run --to torch out", "out is a file"),
    (below_a_file, "run --to torch file/out", "file is a file"),
    (stranger, "run --to torch out", "export.py did not make"),
    (stranger, "run --to torch out --overwrite", "export.py did not make"),
    (same_names, "run --to torch out --overwrite", "export.py did not make"),
    (nothing, "run --to torch run", "export.py did not make"),
    (nothing, "run --to torch . --overwrite", "export.py did not make"),
]


@pytest.mark.parametrize(("prepare", "line", "message"), ROWS)
def test_one_message(
    prepare: Callable[[Path], None], line: str, message: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(place)
    before = sorted(place.rglob("*"))
    assert export.main(["" if word == "''" else word for word in line.split()]) == 2
    problems = capsys.readouterr().err
    assert problems.startswith("error: ")
    assert message in problems
    assert "Traceback" not in problems
    assert sorted(place.rglob("*")) == before


@pytest.mark.parametrize(("form", "package"), [(form, name) for form, names in NEEDED.items() for name in names])
def test_a_package_that_is_absent(
    form: str, package: str, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in NEEDED[form]:
        monkeypatch.setitem(sys.modules, name, None if name == package else sys)
    assert export.main(["run", "--to", form, "out"]) == 2
    assert f"needs the package {package}" in (said := capsys.readouterr().err)
    assert "pip install -r requirements-export.txt" in said
    assert not (place / "out").exists()


def export_fails(place: Path, code: int, what: str, capsys: pytest.CaptureFixture[str], form: str = "torch") -> None:
    """It ends with the code and the words, and leaves what was there before."""
    before = sorted(place.rglob("*"))
    assert export.main(["run", "--to", form, "out"]) == code
    assert what in capsys.readouterr().err
    assert sorted(place.rglob("*")) == before


def test_what_computes_something_else_is_not_written(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def other(network: Served) -> torch.export.ExportedProgram:
        return captured(Served(network.network, network.preprocessing, 3.0))

    monkeypatch.setattr(forms, "captured", other)
    export_fails(place, 3, "model.pt2 does not agree with PyTorch", capsys)


@pytest.mark.parametrize(("number", "code"), [(errno.ENOSPC, 3), (errno.EACCES, 2)])
def test_a_disk_that_refuses(
    number: int, code: int, place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(*_: Any) -> None:
        raise OSError(number, os.strerror(number), "model.pt2")

    monkeypatch.setattr(forms, "atomic", refuse)
    export_fails(place, code, os.strerror(number).lower(), capsys)


def test_an_interruption(place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def interrupt(*_: Any) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(forms, "require_agreement", interrupt)
    export_fails(place, 130, "no half-written export is left", capsys)


@pytest.mark.slow
def test_a_kill_leaves_nothing_under_the_name(
    place: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What it leaves beside, the next one removes."""
    done = subprocess.run([sys.executable, "-c", KILLED, "run", "out"], cwd=place, env=ENVIRONMENT, capture_output=True)
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert not (place / "out").exists()
    assert len(left := [*place.glob(".out.*.partial")]) == 1
    assert (left[0] / "model.json").exists()
    assert export.main(["run", "--to", "torch", "out"]) == 0
    assert not left[0].exists()
    assert (place / "out" / "model.pt2").exists()


ENVIRONMENT = {**os.environ, "PYTHONPATH": str(PROJECT)}
KILLED = """
import os, sys
import common, export
from exporting import forms
from tests.toy import TINY
common.BACKBONES["tiny"] = TINY
forms.require_agreement = lambda *_: os.kill(os.getpid(), 9)
export.main([sys.argv[1], "--to", "torch", sys.argv[2]])
"""


def test_an_earlier_export_is_replaced_if_that_is_said(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert export.main(["run", "--to", "torch", "out"]) == 0
    assert export.main(["run", "--to", "torch", "out"]) == 2
    assert "add --overwrite" in capsys.readouterr().err
    (place / "out" / "model.pt2").write_bytes(b"")
    assert export.main(["run", "--to", "torch", "out", "--overwrite"]) == 0
    assert (place / "out" / "model.pt2").stat().st_size > 0


def test_behind_a_link_it_is_the_folder_that_is_replaced(place: Path) -> None:
    (place / "link").symlink_to("out")
    assert export.main(["run", "--to", "torch", "link"]) == 0
    (place / "out" / "model.pt2").write_bytes(b"")
    assert export.main(["run", "--to", "torch", "link", "--overwrite"]) == 0
    assert (place / "link").is_symlink()
    assert (place / "out" / "model.pt2").stat().st_size > 0


def test_without_the_images_noise_is_taken_and_said(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from common import load

    monkeypatch.setattr("exporting.images.DATASETS", {})
    images = images_of(load(place / "run"))
    assert "noise" in images.what
    assert "digits is a dataset of another script" in images.what
    assert images.pixels.shape == (8, 8, 8, 3)
