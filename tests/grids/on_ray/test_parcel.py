"""Folders of runs as bytes: what travels, and how it arrives."""

from __future__ import annotations

import pickle
from dataclasses import replace
from pathlib import Path

import filelock
import pytest

from engine.errors import UserError
from engine.files import atomic
from engine.records.schema import BUSY
from grids.on_ray import parcel
from grids.on_ray.errand import travelling
from grids.on_ray.parcel import begun_folders, packed, stamps, unpack
from tests.grids.cells import cells, record_of, write

RUN = Path("digits/resnet/honest-seed0-x")


def run_folder(out: Path, **files: str) -> Path:
    folder = out / RUN
    folder.mkdir(parents=True)
    for name, text in {"record.json": "{}", "checkpoint.pt": "5", **files}.items():
        (folder / name).write_text(text)
    return folder


def test_a_folder_arrives_whole(tmp_path: Path) -> None:
    there = tmp_path / "there"
    folder = run_folder(there, **{".lock": "", "checkpoint.previous.pt": "4", ".record.json.7.tmp": "{"})
    sent = packed(there, stamps(there))
    assert sent == {RUN.as_posix(): {"record.json": b"{}", "checkpoint.pt": b"5"}}
    assert next(iter(sent[RUN.as_posix()])) == "record.json"
    here = tmp_path / "here"
    unpack(sent, here, tmp_path / "aside")
    assert {path.name for path in (here / RUN).iterdir()} == {"record.json", "checkpoint.pt"}
    assert not (tmp_path / "aside").exists()
    assert stamps(there)[folder]["checkpoint.pt"][1] == 1


def test_a_disk_that_fills_up_leaves_nothing_of_a_new_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "aside").mkdir()
    (tmp_path / "aside" / "of a killed process").touch()

    def full(folder: Path, files: dict[str, bytes]) -> None:
        (folder / "checkpoint.pt").touch()
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(parcel, "_write", full)
    with pytest.raises(OSError, match="No space left"):
        unpack({RUN.as_posix(): {"record.json": b"{}"}}, tmp_path / "here", tmp_path / "aside")
    assert not (tmp_path / "here").exists()
    assert not (tmp_path / "aside").exists()


def test_a_folder_that_is_there_is_renewed_file_by_file_its_record_last(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = run_folder(tmp_path, **{"history.csv": "old", "checkpoint.previous.pt": "older"})
    written: list[str] = []

    def watched(path: Path) -> object:
        written.append(path.name)
        return atomic(path)

    monkeypatch.setattr("grids.on_ray.parcel.atomic", watched)
    unpack({RUN.as_posix(): {"record.json": b"[]", "checkpoint.pt": b"9"}}, tmp_path, tmp_path / "aside")
    assert written == ["checkpoint.pt", "record.json"]
    assert {path.name: path.read_text() for path in folder.iterdir() if path.name != ".lock"} == {
        "record.json": "[]",
        "checkpoint.pt": "9",
    }


def test_a_run_that_another_process_is_at_is_left_alone(tmp_path: Path) -> None:
    folder = run_folder(tmp_path)
    with filelock.FileLock(folder / ".lock"), pytest.raises(UserError, match=BUSY):
        unpack({RUN.as_posix(): {"record.json": b"[]"}}, tmp_path, tmp_path / "aside")
    assert (folder / "record.json").read_text() == "{}"


@pytest.mark.parametrize(
    ("name", "file"),
    [("../a/b", "x"), ("a/b", "x"), ("/a/b", "x"), ("a/b/c", "../x"), ("a/b/c", ".."), ("a/b/c/d", "x")],
)
def test_names_that_lead_elsewhere_are_refused(tmp_path: Path, name: str, file: str) -> None:
    with pytest.raises(ValueError, match="no folder of a run"):
        unpack({name: {file: b""}}, tmp_path / "out", tmp_path / "aside")
    assert list(tmp_path.iterdir()) == []


def test_what_was_begun_travels_and_what_is_of_other_cells_does_not() -> None:
    (cell, other) = cells("--datasets digits --models resnet --seeds 0-1 --device cpu")
    write(cell, record_of(cell, "running"), "x")
    write(other, record_of(other, "running"), "x")
    another = replace(cell, config=replace(cell.config, lr=0.5))
    write(another, record_of(another, "running"), "y")
    damaged = cell.folder / "honest-seed0-z"
    damaged.mkdir()
    (damaged / "record.json").write_text("{")
    assert [folder.name for folder in begun_folders(cell)] == ["honest-seed0-x", "honest-seed0-z"]
    assert begun_folders(replace(cell, config=replace(cell.config, rerun=True))) == ()


def test_a_cell_that_travels_has_the_same_id() -> None:
    """And is of no class or function that a node would have to find in a script of the user's own."""
    (cell,) = cells("--datasets digits --models resnet --seeds 3 --shots 4 --device cpu")
    sent = pickle.loads(pickle.dumps(travelling(cell)))
    assert (sent.id, sent.command, sent.config) == (cell.id, cell.command, cell.config)
