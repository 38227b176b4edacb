"""What a script declares, and what is said where it can't be."""

from __future__ import annotations

import copy
import pickle
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import datasets
import digits
from common import Backbone, Dataset, File, WeightsFile
from engine.data.declaration import ReadOptions
from engine.errors import UserError
from engine.paths import PROJECT
from tests import toy
from tests.conftest import Command

SMALLEST: dict[str, Any] = {"key": "mine", "read": digits.read}


def test_a_key_and_a_function_are_enough() -> None:
    made = Dataset(**SMALLEST)
    assert (made.name, made.version, made.domain) == ("mine", "1", "own")
    assert (made.size, made.augment) == ((256, 256), "trivial")
    assert made.mean is made.std is None
    assert made.expected("honest") == made.expected("paper") == ()
    assert Dataset(**SMALLEST | {"size": [64, 48]}).size == (64, 48)
    assert Dataset(**SMALLEST, train_images=5).expected("honest") == (5, 0)
    assert replace(made, name="Mine").name == "Mine"
    assert copy.copy(made) == pickle.loads(pickle.dumps(made)) == made


@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"licnce": "mine"}, "Dataset has no field 'licnce'. Did you mean licence? It has key, read, name, "),
        ({"key": None}, "the key is the name of a folder"),
        ({"key": "my birds"}, "Dataset 'my birds': the key is the name of a folder. Expected letters, digits, _"),
        ({"key": "a/b"}, "the key is the name of a folder"),
        ({"key": ".."}, "the key is the name of a folder"),
        ({"key": "x" * 101}, "the key is the name of a folder"),
        ({"key": "grid"}, "runs/grid is the folder of other things"),
        ({"version": 1}, "version is 1. Expected a text in quotes"),
        ({"classes": "3"}, "classes is '3'. Expected a whole number; 0: unknown"),
        ({"train_images": -1}, "train_images is -1. Expected a whole number"),
        ({"size": 64}, "size is 64. Expected (height, width) in pixels, such as (224, 224)"),
        ({"size": (64, 64, 3)}, "size is (64, 64, 3). Expected (height, width)"),
        ({"size": (64.0, 64)}, "size is (64.0, 64). Expected (height, width)"),
        ({"cached_size": 64}, "cached_size is 64. Expected (height, width)"),
        ({"augment": "flip"}, "augment is 'flip'. Expected 'trivial' or 'none'"),
        (
            {"mean": (124, 116, 104), "std": (58, 57, 57)},
            "mean is (124, 116, 104). Expected three numbers on a scale of 0",
        ),
        ({"mean": (0.5,) * 3, "std": (0, 0, 0)}, "std is (0, 0, 0). Expected three numbers on a scale of 0"),
        ({"mean": (0.5,) * 3}, "of mean and std one alone is given"),
        ({"read": "read"}, "read is 'read'. Expected a function"),
    ],
    ids=str,
)
def test_what_can_not_be_is_named(fields: dict[str, Any], says: str) -> None:
    with pytest.raises(UserError) as caught:
        Dataset(**{**SMALLEST, **fields})
    assert says in str(caught.value)


def test_what_is_missing_is_named() -> None:
    untyped: Any = Dataset
    for given, says in (
        ({"key": "mine"}, "Dataset lacks read. Expected at least key, read."),
        ({}, "Dataset lacks key, read."),
    ):
        with pytest.raises(UserError, match=says):
            untyped(**given)
    with pytest.raises(UserError, match="Dataset takes each value by the name of its field, but was given 'mine'"):
        untyped("mine")
    others: list[tuple[Any, Any, str]] = [
        (File, ("a.zip",), "File lacks urls, checksum. Expected at least name, urls, checksum"),
        (Backbone, ("resnet50",), "Backbone lacks weights, head"),
        (WeightsFile, ("a", "b", None, None, None, None, None), "WeightsFile takes 6 values without a name"),
    ]
    for kind, values, says in others:
        with pytest.raises(UserError, match=says):
            kind(*values)


def test_a_script_says_where_it_is_wrong_and_ends_with_2(tmp_path: Path) -> None:
    script = tmp_path / "mine.py"
    script.write_text("from common import Dataset\n\nDATASET = Dataset(\n    key='mine', reed=print\n)\n")
    line = [sys.executable, str(script), "-model", "resnet"]
    done = subprocess.run(line, env={"PYTHONPATH": str(PROJECT)}, capture_output=True, text=True)
    says = f"{script}, line 3: Dataset has no field 'reed'. Did you mean read?"
    assert (done.returncode, done.stderr.count("\n")) == (2, 1), done.stderr
    assert done.stderr.startswith(f"error: {says}")
    with pytest.raises(UserError) as caught:
        datasets.load(script)
    assert str(caught.value).startswith(says)


def test_what_is_read_is_looked_at(command: Command, capsys: Any) -> None:
    good = toy.DATASET.read(ReadOptions(Path()))
    halves: Any = np.zeros((21, 8, 8, 3))
    bad: list[tuple[Any, str]] = [
        (None, "Toy: read() returned a NoneType. Expected RawSplits(classes, train, test)."),
        (replace(good, train=replace(good.train, names=["a"] * 60)), "60 images, 60 labels, and 60 names, 1 of them"),
        (replace(good, test=replace(good.test, images=halves)), "images of float64 (21, 8, 8, 3). Expected uint8"),
    ]
    for raw, says in bad:
        dataset = replace(toy.DATASET, read=partial(_given, raw))
        assert command("-model tiny --weights none", dataset) == 2
        assert says in capsys.readouterr().err
    assert command("-model tiny --weights none", replace(toy.DATASET, recipe="none")) == 2
    assert "Dataset 'toy': unknown recipe 'none'. Expected one of adamw-sgd, cosine, fast." in capsys.readouterr().err


def _given(raw: Any, _: ReadOptions) -> Any:
    return raw
