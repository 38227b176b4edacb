# mypy: disable-error-code="func-returns-value"
"""Which images a cell's records are of: the folder's name alone says nothing."""

from __future__ import annotations

import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import folder
import grid
import grids.images
from grids.images import forget, without_equals
from grids.ledger import OTHER_CODE, OTHER_IMAGES, Standing, standing_now
from grids.plan.lines import remark_lines
from tests.conftest import Command
from tests.grids.cells import cells
from tests.scripts.test_folder import picture, tree

FLAGS = "-bs 4 --weights none --epochs 1 --size 16 --plan off --precision fp32 --device cpu"
Stands = Callable[..., Standing]


@pytest.fixture
def stands(command: Command, tmp_path: Path) -> Stands:
    """How far the cell of a folder has come; pets/ has been run."""
    tree(tmp_path / "pets", "cat", "dog")
    assert command(f"pets -model tiny {FLAGS}", folder.DATASET) == 0

    def now(place: str = "pets", flags: str = "") -> Standing:
        forget()
        (cell,) = cells(f"--datasets folder:{place} --models tiny {FLAGS} --out {tmp_path}/runs {flags}")
        return standing_now(cell)

    return now


def test_the_same_images(stands: Stands) -> None:
    now = stands()
    assert (now.status, now.remarks) == ("done", [])
    assert now.record is not None
    assert now.record["dataset"]["place"] == str(Path("pets").resolve())


def test_a_fold_of_the_same_images(stands: Stands, command: Command) -> None:
    assert stands(flags="--folds 3 --fold 2").status == "new"
    assert command(f"pets -model tiny {FLAGS} --folds 3 --fold 2", folder.DATASET) == 0
    assert stands(flags="--folds 3 --fold 2").status == "done"
    assert stands(flags="--folds 3 --fold 1").status == "new"


def test_another_folder_of_the_same_name(stands: Stands, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Started elsewhere, with the same --out and the very same words."""
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    tree(Path("pets"), "x", "y", "cat", "dog")
    for name in ("x", "y"):
        shutil.rmtree(Path("pets") / name)
    now = stands()
    assert (now.status, now.remarks) == ("new", [OTHER_IMAGES])


@pytest.mark.parametrize("change", ["class", "pixels", "added", "removed", "moved"])
def test_images_that_were_changed_since(stands: Stands, command: Command, change: str) -> None:
    first = Path("pets/cat/0.png")
    if change == "class":
        Path("pets/dog").rename("pets/wolf")
    elif change == "pixels":
        status = first.stat()
        picture(first, 77)
        assert first.stat().st_size == status.st_size
        os.utime(first, ns=(status.st_atime_ns, status.st_mtime_ns))
    elif change == "added":
        picture(Path("pets/cat/new.png"), 77)
    elif change == "removed":
        first.unlink()
    else:
        first.rename("pets/dog/moved.png")
    now = stands()
    assert (now.status, now.remarks) == ("new", [OTHER_IMAGES])
    assert command(f"pets -model tiny {FLAGS}", folder.DATASET) == 0
    assert stands().status == "done"
    assert len(list(Path("runs").glob("*/*/*/record.json"))) == 2


def test_files_that_were_only_touched(stands: Stands, command: Command) -> None:
    """Nobody knows before they are decoded again; then the script finds its run, and so does the grid."""
    os.utime("pets/cat/0.png")
    assert stands().remarks == [OTHER_IMAGES]
    assert command(f"pets -model tiny {FLAGS}", folder.DATASET) == 0
    assert stands().status == "done"
    assert len(list(Path("runs").glob("*/*/*/record.json"))) == 1


def test_a_moved_folder(stands: Stands, command: Command) -> None:
    Path("moved").mkdir()
    Path("pets").rename("moved/pets")
    assert stands("moved/pets").status == "new"
    assert command(f"moved/pets -model tiny {FLAGS}", folder.DATASET) == 0
    assert stands("moved/pets").status == "done"
    assert len(list(Path("runs").glob("*/*/*/record.json"))) == 1


def test_seeds_have_splits_of_their_own(stands: Stands, command: Command) -> None:
    assert stands(flags="--seeds 1").status == "new"
    assert command(f"pets -model tiny {FLAGS} --seed 1", folder.DATASET) == 0
    assert stands(flags="--seeds 1").status == "done"
    assert stands().status == "done"


def test_seeds_share_what_is_read(stands: Stands, command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    """20 seeds of 5,000 images must not take 20 times as long to look at as one."""
    assert command(f"pets -model tiny {FLAGS} --seed 1", folder.DATASET) == 0
    stands()
    looked: list[str] = []
    for name in ("read", "images_of"):
        original = getattr(grids.images, name)

        def noted(*arguments: Any, name: str = name, original: Any = original, **named: Any) -> Any:
            looked.append(name)
            return original(*arguments, **named)

        monkeypatch.setattr(grids.images, name, noted)
    forget()
    several = cells(f"--datasets folder:pets --models tiny {FLAGS} --out runs --seeds 0-2")
    assert [standing_now(cell).status for cell in several] == ["done", "done", "new"]
    assert looked == ["read", "images_of"]


def test_other_code(stands: Stands, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("grids.ledger.code_of", lambda *_: {"engine": "other"})
    now = stands()
    assert (now.status, now.remarks) == ("done", [OTHER_CODE])
    assert remark_lines({"a": now, "b": now, "c": Standing("new")}) == [f"note       2 cells {OTHER_CODE}"]
    assert remark_lines({"a": now}) == [f"note       1 cell {OTHER_CODE}"]


def test_budgets_that_leave_no_image_out_are_one(capsys: Any) -> None:
    """digits has 142 to 147 training images of each class."""
    line = "--datasets digits --models resnet swin --seeds 0 1 --device cpu"
    for shots, kept, said in (
        (
            "--shots 10 200 all",
            {"shots 10", "all"},
            "digits, shots 200: no class has more images to train on, so that ",
        ),
        ("--shots 10 300 200", {"shots 10", "shots 200"}, "digits, shots 300: no class has more images to train on"),
        ("--fraction 0.9999 0.5 all", {"fraction 0.5", "all"}, "digits, fraction 0.9999: no class has more images"),
    ):
        assert {cell.budget for cell in without_equals(cells(f"{line} {shots}"))[0]} == kept
        assert grid.main([*line.split(), *shots.split(), "--dry-run"]) == 0
        printed = capsys.readouterr().out
        assert re.search(r"^cells      8, ", printed, re.MULTILINE)
        assert f"\nnote       {said}" in printed
    for whole in ("--shots 10 all", "--shots 10", "--shots 200"):
        made = cells(f"{line} {whole}")
        assert without_equals(made) == (made, [])
    elsewhere = cells("--datasets eurosat --models resnet --shots 3000 all")  # whose images are not here
    assert without_equals(elsewhere) == (elsewhere, [])
