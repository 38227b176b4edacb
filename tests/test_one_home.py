"""A backbone, a dataset, a metric, a recipe and a flag are each added in one place, and are then everywhere.

They are added to a copy of the project, where a run, a grid and a report must know of them.
"""

from __future__ import annotations

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from sklearn.datasets import load_digits

from engine.paths import PROJECT

(SCRIPT,) = re.findall(r"^```python\n(\"\"\".*?)^```", (PROJECT / "docs" / "own.md").read_text("utf-8"), re.M | re.S)


@dataclass(frozen=True)
class Edit:
    """One place: what is put into a file, before a text that is there once."""

    file: str
    before: str
    text: str


ADDED = {
    "dataset": Edit("datasets.py", '    "digits",\n', '    "mine",\n'),
    "backbone": Edit(
        "common.py",
        "    # the original's command line takes it",
        '    "mobile": Backbone("mobilenet_v3_small", "MobileNet_V3_Small_Weights.IMAGENET1K_V1", "classifier.3"),\n',
    ),
    "metric": Edit(
        "engine/training/metrics.py",
        '    "nll": Metric(',
        '    "error_rate": Metric(\n'
        '        "error rate", "of wrong predictions", lambda predictions: float(1 - predictions.correct.mean()), 2\n'
        "    ),\n",
    ),
    "recipe": Edit(
        "engine/training/recipe.py",
        "    # how such networks are fine-tuned elsewhere",
        '    "brief": RecipeSpec(\n'
        '        help="SGD for an epoch",\n'
        '        stages=(Stage("brief", _sgd),),\n'
        '        summary=lambda recipe: f"SGD for {recipe.epochs} epochs",\n'
        "        lr=1e-3,\n"
        "        epochs=lambda steps: 1,\n"
        '        epochs_help="1",\n'
        "        patience=None,\n"
        "        latest_of_equals=False,\n"
        "    ),\n",
    ),
    "flag": Edit(
        "engine/config.py",
        "    device: str = flag(",
        '    smoothing: float = flag("--smoothing", role=SETTING, default=0.0, type=share, help="of labels")\n',
    ),
}
TABLES = [  # tests of what the tables hold
    "engine/test_config.py",
    "engine/training/test_metrics.py",
    "engine/records/test_schema.py",
    "engine/training/test_recipe.py",
    "reporting/test_collect.py",
    "scripts/test_overview.py",
    "test_docs.py",
    "test_house.py",
]
FLAGS = ["-bs", "16", "--size", "32", "--weights", "none", "--device", "cpu", "--plan", "off", "--precision", "fp32"]


class House:
    """A copy of the project, to which things are added, and what its commands print."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder / "project"
        self.folder.mkdir()
        self.work = folder / "work"
        self.work.mkdir()
        for script in PROJECT.glob("*.py"):
            shutil.copy(script, self.folder)
        for package in ("engine", "exporting", "grids", "predicting", "ranking", "reporting"):
            shutil.copytree(PROJECT / package, self.folder / package, ignore=shutil.ignore_patterns("__pycache__"))
        digits = load_digits(n_class=3)
        for dataset, label in product(("mine", "theirs"), range(3)):
            place = self.work / "data" / dataset / str(label)
            place.mkdir(parents=True)
            for number, pixels in enumerate(digits.images[digits.target == label][:30]):
                Image.fromarray((pixels * 15).astype(np.uint8)).resize((32, 32)).save(place / f"{number}.png")

    def add(self, *what: str) -> None:
        """Make the edits of these, each in its one place."""
        for edit in map(ADDED.__getitem__, what):
            path = self.folder / edit.file
            before, after = path.read_text("utf-8").split(edit.before)
            path.write_text(f"{before}{edit.text}{edit.before}{after}", "utf-8")
            if edit is ADDED["dataset"]:
                (self.folder / "mine.py").write_text(SCRIPT, "utf-8")

    def run(self, script: str, *arguments: str) -> str:
        """What the script prints. Fails unless it ends well."""
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        environment.pop("PYTHONPATH", None)
        command = [sys.executable, str(self.folder / script), *arguments]
        done = subprocess.run(command, cwd=self.work, env=environment, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def records(self) -> list[dict[str, Any]]:
        """All that were made."""
        return [json.loads(path.read_text("utf-8")) for path in sorted(self.work.glob("runs/*/*/*/record.json"))]

    def record(self, dataset: str, recipe: str) -> dict[str, Any]:
        """The one of a dataset and recipe."""
        (record,) = [r for r in self.records() if (r["dataset"]["key"], r["recipe"]) == (dataset, recipe)]
        return record


@dataclass(frozen=True)
class Story:
    """What the commands of the copy printed, in their order."""

    house: House
    first: str  # a run, before metric, recipe and flag were there
    again: str  # the same command afterwards
    dry_run: str  # what a grid says of the same run
    table: Sequence[dict[str, str]]  # results.csv


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory) -> Story:
    """Everything is added, part of it after a first run, and seen by a run, a grid and a report."""
    house = House(tmp_path_factory.mktemp("house"))
    house.add("dataset", "backbone")
    old = ["-model", "mobile", "--epochs", "1", *FLAGS]
    first = house.run("mine.py", *old)
    house.add("metric", "recipe", "flag")
    again = house.run("mine.py", *old)
    grid = ["--models", "mobile", "--epochs", "1", *FLAGS]
    dry_run = house.run("grid.py", "--datasets", "mine", *grid, "--dry-run")
    outside = house.work / "theirs.py"
    outside.write_text(SCRIPT.replace("mine", "theirs"), "utf-8")
    new = ["--recipe", "brief", "--smoothing", "0.1"]
    house.run("grid.py", "--datasets", "mine", str(outside), *grid, *new)
    house.run("report.py", "--no-thumbnails")
    with (house.work / "report" / "results.csv").open(newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    return Story(house, first, again, dry_run, table)


def test_a_backbone(story: Story) -> None:
    assert "backbone   mobile, weights none" in story.first
    assert story.house.record("mine", "brief")["backbone"] | {"weights_run": None} == {
        "name": "mobile",
        "builder": "mobilenet_v3_small",
        "weights": "none",
        "weights_sha256": None,
        "weights_run": None,
    }
    assert {row["backbone"] for row in story.table} == {"mobile"}


def test_a_dataset(story: Story) -> None:
    assert story.first.startswith("Mine: train 72")
    assert "mine" in story.dry_run
    assert "mine" in {row["dataset"] for row in story.table}
    assert "mine" in story.house.run("datasets.py")


def test_a_dataset_whose_script_lies_elsewhere(story: Story) -> None:
    assert story.house.record("theirs", "brief")["status"] == "done"
    assert "theirs" in {row["dataset"] for row in story.table}


def test_a_metric(story: Story) -> None:
    test = story.house.record("mine", "brief")["test"]
    assert test["error_rate"] == pytest.approx(1 - test["top1"])
    assert "error_rate" not in story.house.record("mine", "adamw-sgd")["test"]
    for row in story.table:
        old = row["recipe"] == "adamw-sgd"
        assert row["error_rate"] == "" if old else float(row["error_rate"]) == pytest.approx(1 - float(row["top1"]))
    page = (story.house.work / "report" / "report.html").read_text("utf-8")
    assert '"label":"error rate"' in page


def test_a_recipe(story: Story) -> None:
    record = story.house.record("mine", "brief")
    assert record["selection"]["stage"] == "brief"
    assert record["lr"] == 1e-3
    assert {row["recipe"] for row in story.table} == {"adamw-sgd", "brief"}
    assert "brief: SGD for an epoch" in " ".join(story.house.run("mine.py", "--help").split())


def test_a_flag(story: Story) -> None:
    assert story.house.record("mine", "brief")["config"]["smoothing"] == 0.1
    page = (story.house.work / "report" / "report.html").read_text("utf-8")
    assert "smoothing 0.1" in page


def test_what_was_done_before_a_flag_came_is_still_done(story: Story) -> None:
    assert "epoch  stage" in story.first
    assert "epoch  stage" not in story.again
    assert story.again.splitlines()[-1] == story.first.splitlines()[-1]
    assert "done       1" in story.dry_run
    assert "to do      0" in story.dry_run


@pytest.mark.slow
def test_no_test_stands_in_the_way(story: Story) -> None:
    """No other test, and no page of docs/ that is not made from the tables, must be changed for an addition."""
    house = story.house.folder
    for folder in ("tests", "benchmarks", "docs"):
        shutil.copytree(PROJECT / folder, house / folder, ignore=shutil.ignore_patterns("__pycache__"))
    for file in PROJECT.glob("[!.]*.*"):
        if file.suffix in (".md", ".toml", ".txt"):
            shutil.copy(file, house)
    shutil.copy(PROJECT / "Makefile", house)
    story.house.run("datasets.py", "--write-docs")
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *(f"tests/{file}" for file in TABLES)]
    environment = {name: value for name, value in os.environ.items() if name != "REQUIRE_SHARED_DATA"}
    done = subprocess.run(command, cwd=house, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-5000:]
