"""Backbones and datasets of one's own, in scripts that lie elsewhere, as docs/own.md has them."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
import pytest
from PIL import Image

import common
import datasets
import grid
import report
from common import BACKBONES
from engine import code_hash
from engine.paths import PROJECT
from grids.images import forget

PAGE = (PROJECT / "docs" / "own.md").read_text("utf-8")
FLAGS = "--weights none --epochs 1 -bs 32 --size 32 --shots 20 --plan off --precision fp32 --device cpu"


@pytest.fixture(autouse=True)
def _backbones_as_they_were() -> Iterator[None]:
    with mock.patch.dict(BACKBONES):
        yield


def script(begins: str, path: Path) -> Path:
    """The script of docs/own.md that begins so, written to `path`."""
    (text,) = re.findall(rf"^```python\n({begins}.*?)^```", PAGE, re.MULTILINE | re.DOTALL)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")
    return path


def run(dataset: Any, line: str) -> int:
    with pytest.raises(SystemExit) as end:
        common.main(dataset, shlex.split(line))
    return int(end.value.code or 0)


def records() -> list[dict[str, Any]]:
    return [json.loads(path.read_text()) for path in Path("runs").glob("*/*/*/record.json")]


def test_a_function_a_class_and_a_partial_are_builders(tmp_path: Path, capsys: Any) -> None:
    nets = script("from functools", tmp_path / "else where" / "nets.py")
    declared = datasets.load(nets)
    for model in ("plain", "normalised"):
        assert run(declared, f"-model {model} {FLAGS}") == 0
    line = ["--datasets", str(nets), "--models", "plain", "wide", "normalised", *shlex.split(FLAGS)]
    assert grid.main(line) == 0
    made = {record["backbone"]["name"]: record for record in records()}
    assert {name: record["backbone"]["builder"] for name, record in made.items()} == {
        "plain": "plain",
        "wide": "plain(width=64)",
        "normalised": "Normalised",
    }
    codes = {name: record["environment"]["code"]["backbone"] for name, record in made.items()}
    assert codes["plain"] == codes["normalised"] != codes["wide"]
    capsys.readouterr()

    code_hash._file_hash.cache_clear()
    nets.write_text(nets.read_text().replace("width=64", "width=32"))
    assert grid.main([*line, "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert re.search(r"^done +3$", printed, re.MULTILINE)
    assert "note       3 cells made by other code than what is here" in printed
    assert len(report.make(Path("runs"), Path("report"))["groups"][0]["backbones"]) == 3


def test_the_smallest_script_of_a_dataset(tmp_path: Path, capsys: Any) -> None:
    """Nobody counts private images: other ones are another run, and what is there is what is meant."""
    mine = script('"""My photographs', tmp_path / "elsewhere" / "mine.py")
    random = np.random.default_rng(0)
    for label, number in ((label, number) for label in "abc" for number in range(20)):
        place = tmp_path / "data" / "mine" / label / f"{number}.png"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(random.integers(0, 256, (16, 16, 3), dtype=np.uint8)).save(place)
    BACKBONES["tiny"] = common.Backbone("tests.toy.tiny", None, "6")
    flags = FLAGS.replace("--shots 20 ", "")
    for protocol in ("honest", "paper"):
        assert run(datasets.load(mine), f"-model tiny {flags} --protocol {protocol}") == 0
        (record,) = [record for record in records() if record["protocol"] == protocol]
        assert record["normalisation"]["mean"] == [0.485, 0.456, 0.406]
        assert (record["dataset"]["counts"]["available"], record["dataset"]["partial"]) == (48, False)
    line = ["--datasets", str(mine), "--models", "tiny", *shlex.split(flags), "--dry-run"]
    capsys.readouterr()
    assert grid.main(line) == 0
    assert re.search(r"^done +1$", capsys.readouterr().out, re.MULTILINE)
    (tmp_path / "data" / "mine" / "a" / "0.png").unlink()
    forget()
    assert grid.main(line) == 0
    assert re.search(r"^done +0$", capsys.readouterr().out, re.MULTILINE)
