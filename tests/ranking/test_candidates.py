"""ranking/candidates.py: from the words of a command to one dataset and the backbones that can be asked about."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import rank
from common import BACKBONES
from datasets import find_one
from engine.config import FLAGS
from engine.errors import UserError
from ranking.candidates import (
    OWN,
    PASSED_ON,
    Question,
    advice,
    command_of,
    find_candidates,
    find_question,
    first_sentence,
    require_enough,
)

NOT_FOR_RANKING = {
    *("model", "recipe", "patience", "lr", "lr_sweep", "tune"),  # what is compared, and by what
    *("protocol", "folds", "fold", "check", "rerun", "tensorboard", "sync_batch_norm"),
}


@pytest.fixture(autouse=True)
def _own_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "pets").mkdir()


def question(line: str) -> Question:
    return find_question(rank.parser().parse_args(line.split()))


def test_every_flag_of_the_scripts_is_taken_or_has_no_place_here() -> None:
    assert {*OWN, *PASSED_ON} | NOT_FOR_RANKING == {*FLAGS}
    assert not {*OWN, *PASSED_ON} & NOT_FOR_RANKING


@pytest.mark.parametrize(
    ("text", "named", "key"),
    [
        ("digits", "digits", "digits"),
        ("breakhis:40", "breakhis:40", "breakhis_40x"),
        ("breakhis_40x", "breakhis_40x", "breakhis_40x"),
        ("pets", "folder:pets", "folder-pets"),
        ("./pets/", "folder:./pets/", "folder-pets"),
        ("folder:pets", "folder:pets", "folder-pets"),
    ],
)
def test_one_dataset(text: str, named: str, key: str) -> None:
    found, chosen = find_one(text, "an order")
    assert (found, chosen.dataset.key) == (named, key)


def test_a_folder_that_is_called_as_a_dataset_is_the_dataset(tmp_path: Path) -> None:
    """As for grid.py; a path to it is the folder."""
    (tmp_path / "digits").mkdir()
    assert find_one("digits", "an order")[1].dataset.own_folder is None
    assert find_one("./digits", "an order")[1].dataset.own_folder == tmp_path / "digits"


@pytest.mark.parametrize("text", ["breakhis", "all"])
def test_several_datasets_are_refused(text: str) -> None:
    with pytest.raises(UserError, match=re.escape(f"{text} names ")):
        find_one(text, "an order")


def test_the_flags_of_a_command_of_the_grid() -> None:
    asked = question("digits --seed 3 --shots 5 -bs 16 --size 64 --weights none --data-dir d --no-cache")
    assert asked.grid_flags == [
        *("--datasets", "digits", "--recipe", "fast", "--batch-size", "16", "--weights", "none", "--size", "64"),
        *("--no-cache", "--seeds", "3", "--shots", "5", "--data-dir", "d"),
    ]
    cell = asked.cell("resnet", "--epochs", "2")
    config = cell.config
    assert (config.recipe, config.epochs, config.seed, config.shots, config.size) == ("fast", 2, 3, 5, (64, 64))
    assert command_of(cell).startswith("python ")
    assert "digits.py -model resnet --seed 3 --shots 5 --recipe fast" in command_of(cell)
    assert question("digits").grid_flags == ["--datasets", "digits", "--recipe", "fast"]


def test_backbones_that_can_not_take_such_images_are_left_out() -> None:
    candidates, left_out = find_candidates(question("digits --size 33"), ["resnet", "wavemix", "swin", "inception"])
    assert [each.name for each in candidates] == ["resnet", "swin"]
    assert left_out.keys() == {"wavemix", "inception"}
    assert left_out["wavemix"].startswith("wavemix can't take images of 33x33 pixels")


def test_what_is_wrong_with_all_is_of_the_command() -> None:
    with pytest.raises(UserError, match=r"^--size takes a height and a width"):
        find_candidates(question("digits --size 1 2 3"), ["resnet", "swin"])


def test_two_are_enough() -> None:
    require_enough(["a", "b"], {"c": "x"})
    with pytest.raises(UserError, match=r"only a can be scored.*\n  b: x\n  c: y\nMend one of these"):
        require_enough(["a"], {"b": "x:\n1", "c": "y"})
    with pytest.raises(UserError, match="no backbone can be scored"):
        require_enough([], {"b": "x", "c": "y"})
    with pytest.raises(UserError, match=r"^x$"):
        require_enough([], {"b": "x", "c": "x"})
    with pytest.raises(UserError) as problem:
        require_enough(["resnet"], {})
    other = re.search(r"--models resnet (\w+), or all", str(problem.value))
    assert other
    assert BACKBONES[other[1]].published


def test_the_first_line_says_what_is_wrong() -> None:
    assert first_sentence("a is gone:\n  b\nMend it") == "a is gone: b"
    assert advice("a is gone:\n  b\nMend it") == "Mend it"
