"""Backbones of one's own, and several weights of one architecture, as rows of a grid, a ranking and a report."""

from __future__ import annotations

import re
import shlex
import sys
from dataclasses import replace
from pathlib import Path

import pytest

import digits
import grid
import rank
import report
from common import BACKBONES, main
from engine.command_line import grid_command, parse
from engine.errors import UserError
from grids.cells import Cell, check_members, find_datasets, find_models, make_cells
from reporting.comparable import in_order
from tests import toy

OWN = """
from torch import nn


def wide() -> nn.Module:
    return nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 1000))
"""


def cells(models: list[str], *flags: str) -> list[Cell]:
    """Those of the digits."""
    return make_cells(find_datasets(["digits"]), find_models(models), [0], [("all", "")], flags, None)


def test_weights_of_one_architecture_are_rows() -> None:
    first, second = cells(["resnet", "resnet@IMAGENET1K_V2"])
    assert [cell.row for cell in (first, second)] == ["resnet", "resnet@IMAGENET1K_V2"]
    assert first.id != second.id
    assert first.folder == second.folder
    assert (second.config.model, second.config.weights) == ("resnet", "IMAGENET1K_V2")
    assert second.title == "digits resnet@IMAGENET1K_V2, seed 0"
    (by_flag,) = cells(["resnet"], "--weights", "IMAGENET1K_V2")
    assert (by_flag.row, by_flag.key) == (second.row, second.key)
    check_members([first, second])


def test_the_same_weights_are_one_row() -> None:
    assert find_models(["resnet", "resnet50@IMAGENET1K_V1", "resnet@imagenet"]) == ["resnet"]
    assert find_models(["all"]) == [name for name, backbone in BACKBONES.items() if backbone.published]


def test_members_that_are_not_there_are_named() -> None:
    with pytest.raises(UserError, match="--weights IMAGENET1K_V9: no such file, and for resnet50 not one of"):
        check_members(cells(["resnet@IMAGENET1K_V9"]))
    with pytest.raises(UserError, match="-model resnet@IMAGENET1K_V2 and --weights none say different things"):
        cells(["resnet", "resnet@IMAGENET1K_V2"], "--weights", "none")


def test_a_file_of_ones_own_is_a_row_that_can_be_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path])
    folder = tmp_path / "my nets"
    folder.mkdir()
    (folder / "own.py").write_text(OWN)
    (tmp_path / "own.py").write_text(OWN)
    first, second = cells([f"{folder}/own.py:wide@none", f"{tmp_path}/own.py:wide"], "--weights", "none")
    assert first.row == f"{folder}/own.py:wide@none"
    assert len({first.folder, second.folder}) == len({first.id, second.id}) == 2
    assert not set(first.id) & set('/: "')
    assert shlex.split(shlex.join(first.command)) == [*first.command]
    assert first.backbone.source == f"{folder}/own.py"
    dataset, config = parse(toy.DATASET, BACKBONES, first.command[1:])
    assert (config.model, config.weights) == (first.config.model, "none")
    assert dataset == toy.DATASET


def test_several_backbones_of_any_kind_are_a_grids() -> None:
    with pytest.raises(UserError, match="-model takes one backbone") as caught:
        parse(toy.DATASET, BACKBONES, ["-model", "resnet@IMAGENET1K_V2", "timm:resnet18"])
    assert "--models resnet@IMAGENET1K_V2 timm:resnet18" in str(caught.value)
    assert "'my nets/own.py:wide'" in grid_command(toy.DATASET, ["my nets/own.py:wide"], {}, [])


def test_rows_stand_behind_their_architecture() -> None:
    names = ["swin", "timm:x.a", "resnet@IMAGENET1K_V2", "resnet", "convnext"]
    assert in_order(names, BACKBONES) == ["resnet", "resnet@IMAGENET1K_V2", "convnext", "swin", "timm:x.a"]


def test_two_files_of_one_name_are_run_ranked_and_reported_apart(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    files = [tmp_path / name / "own.py" for name in ("one", "two")]
    for file in files:
        file.parent.mkdir()
        file.write_text(OWN)
    models = [f"{file.parent.name}/own.py:wide@none" for file in files]
    flags = ["--epochs", "1", "-bs", "64", "--size", "16", "--shots", "10", "--plan", "off", "--device", "cpu"]
    flags += ["--cache-dir", "kept"]
    for model in models:
        with pytest.raises(SystemExit, match="0"):
            main(digits.DATASET, ["-model", model, *flags])
    capsys.readouterr()
    assert grid.main(["--datasets", "digits", "--models", *models, *flags, "--dry-run"]) == 0
    assert re.search(r"^done +2$", capsys.readouterr().out, re.MULTILINE)
    (group,) = report.make(Path("runs"), Path("report"))["groups"]
    assert [backbone["name"] for backbone in group["backbones"]] == [f"{file}:wide" for file in files]
    kept = [cell.folder for cell in cells(models)]
    assert len({folder.name for folder in kept}) == 2
    assert rank.main(["digits", "--models", *models, *flags]) == 0
    assert len([*Path("kept").rglob("features/digits-own-wide-*.npy")]) == 2


def test_cells_without_a_name_of_their_own_are_called_as_their_backbone() -> None:
    (cell,) = cells(["resnet"])
    assert replace(cell, named="").row == "resnet"
