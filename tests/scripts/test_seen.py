# mypy: disable-error-code="func-returns-value"
"""Weights that have seen the test images: known by the images, whatever the folders are called."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

import folder
import split
from tests.conftest import Command, only_run
from tests.scripts.test_folder import tree

QUICK = "-model tiny -bs 4 --epochs 1 --size 16 --plan off --precision fp32"


@pytest.fixture
def trained(command: Command, tmp_path: Path) -> Path:
    """The checkpoint of a run on own/, of which own-split/ is a split."""
    tree(tmp_path / "own", "cat", "dog", images=20)
    assert split.main(["--input_dir", "own", "--output_dir", "own-split", "--random_state", "7"]) == 0
    assert command(f"own {QUICK} --weights none --out first", folder.DATASET) == 0
    return only_run(tmp_path / "first") / "checkpoint.pt"


def weights_run(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((only_run(out) / "record.json").read_text())["backbone"]["weights_run"]
    return found


def test_a_split_of_the_images_that_trained_the_weights(command: Command, trained: Path, capsys: Any) -> None:
    """The images that did not train or choose the weights are those that tested them."""
    listed = json.loads((trained.parent / "split.json").read_text())["parts"]
    tested = {name for name, _ in listed["test"]}
    again = json.loads(Path("own-split/split.json").read_text())["files"]["test"]
    seen = sum(name not in tested for name in again)
    assert 0 < seen < len(again)
    capsys.readouterr()
    assert command(f"own-split {QUICK} --weights {trained} --out second", folder.DATASET) == 0
    words = f"its weights have seen {seen} of the {len(again)} test images"
    printed = capsys.readouterr().out
    assert f"note       {words}: the result will flatter, and no report ranks it\n" in printed
    assert words in printed.splitlines()[-1]
    assert weights_run(Path("second"))["seen"] == seen


def test_unrelated_images_in_a_folder_of_the_same_name(command: Command, trained: Path, capsys: Any) -> None:
    tree(Path("elsewhere/own"), "cat", "dog", "boat", "car", images=8)
    for name in ("cat", "dog"):  # other ones than in own/
        shutil.rmtree(Path("elsewhere/own") / name)
    capsys.readouterr()
    assert command(f"elsewhere/own {QUICK} --weights {trained} --out second", folder.DATASET) == 0
    assert "its weights" not in capsys.readouterr().out
    assert weights_run(Path("second"))["seen"] == 0


def test_the_checkpoint_of_an_unfinished_run(
    command: Command, trained: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("engine.run.predict", stop)
        assert command(f"own-split {QUICK} --weights none --protocol paper --out half", folder.DATASET) == 130
    unfinished = only_run(Path("half")) / "checkpoint.pt"
    capsys.readouterr()
    assert command(f"own {QUICK} --weights {unfinished} --out second", folder.DATASET) == 0
    assert "its weights have seen 8 of the 8 test images; not pretrained]" in capsys.readouterr().out
    assert weights_run(Path("second"))["run"] == unfinished.parent.name


def test_the_checkpoint_of_an_unfinished_run_that_does_not_say_of_which(
    command: Command, trained: Path, capsys: Any
) -> None:
    """As earlier versions saved it."""
    model = torch.load(trained, weights_only=True)["model"]
    rest: dict[str, Any] = {name: {} for name in ("state", "best", "optimizer", "scaler", "random")}
    torch.save({"model": model, **rest}, "old.pt")
    assert command(f"own {QUICK} --weights old.pt --out second", folder.DATASET) == 2
    assert "old.pt: an unfinished run saved this, and it does not say which images" in capsys.readouterr().err


def test_what_the_weights_before_the_weights_saw(command: Command, trained: Path, capsys: Any) -> None:
    tree(Path("other"), "cat", "dog", "boat", "car", images=8)
    for name in ("cat", "dog"):
        shutil.rmtree(Path("other") / name)
    assert command(f"other {QUICK} --weights {trained} --out between", folder.DATASET) == 0
    between = only_run(Path("between")) / "checkpoint.pt"
    seen = [len(torch.load(file, weights_only=True)["seen"]) for file in (trained, between)]
    assert seen == [32, 32 + 12]
    capsys.readouterr()
    assert command(f"own-split {QUICK} --weights {between} --out second", folder.DATASET) == 0
    assert "its weights have seen " in capsys.readouterr().out


def test_a_checkpoint_that_does_not_say_what_it_saw(command: Command, trained: Path, capsys: Any) -> None:
    """Then all that is known is the dataset's name; what begins from it can't say either."""
    content = torch.load(trained, weights_only=True)
    del content["seen"]
    torch.save(content, "old.pt")
    capsys.readouterr()
    assert command(f"own-split {QUICK} --weights old.pt --out second", folder.DATASET) == 0
    assert "seen" not in capsys.readouterr().out
    assert weights_run(Path("second"))["seen"] is None
    assert "seen" not in torch.load(only_run(Path("second")) / "checkpoint.pt", weights_only=True)
    assert command(f"own {QUICK} --weights old.pt --out third", folder.DATASET) == 0
    assert "weights of an earlier run on this dataset, which may have seen" in capsys.readouterr().out


@pytest.mark.parametrize(
    "harm",
    [
        {"seen": 5},
        {"seen": torch.zeros(3, 5, dtype=torch.uint8)},
        {"dataset": "x"},
        {"backbone": {}},
        {"normalisation": {"mean": [0.5] * 3, "std": [0.0] * 3}},
        {"unfinished": 5},
    ],
    ids=lambda harm: "-".join(harm),
)
def test_a_checkpoint_that_is_damaged_where_it_says_what_it_saw(
    command: Command, trained: Path, capsys: Any, harm: dict[str, Any]
) -> None:
    torch.save(torch.load(trained, weights_only=True) | harm, "damaged.pt")
    capsys.readouterr()
    assert command(f"own-split {QUICK} --weights damaged.pt --out second", folder.DATASET) == 2
    said = capsys.readouterr().err
    assert "damaged.pt: what this checkpoint says of its run is damaged (" in said
    assert not Path("second").exists()


def test_a_checkpoint_of_another_program_that_has_the_same_names_in_it(command: Command, trained: Path) -> None:
    """It is a file of weights like any other."""
    weights = {"model": torch.load(trained, weights_only=True)["model"]}
    torch.save(weights | {"run": 3, "dataset": "own", "backbone": "tiny", "normalisation": None}, "theirs.pt")
    assert command(f"own-split {QUICK} --weights theirs.pt --out second", folder.DATASET) == 0
    assert weights_run(Path("second")) is None
