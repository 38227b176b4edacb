"""Flags -> Config."""

import json
import sys
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import pytest

import breakhis
import digits
import folder
from common import BACKBONES, Choice, Dataset
from engine.command_line import parse
from engine.config import FLAGS, MACHINE, PLACE, SETTING, WHAT, Config, asked, asked_settings, in_words
from engine.errors import UserError
from engine.paths import PROJECT
from tests import toy

DATASET = replace(toy.dataset(), size=(96, 96))


def config(line: str) -> Config:
    return parse(DATASET, BACKBONES, line.split())[1]


def test_the_users_two_flags_are_enough() -> None:
    found = config("-model convnext -bs 64")
    assert found == Config(
        model="convnext",
        batch_size=64,
        size=(96, 96),
        augment="trivial",
        data_dir=Path("data/toy"),
        cache_dir=Path("data/toy/.cache"),
    )
    assert (found.protocol, found.recipe, found.weights, found.lr, found.patience) == (
        "honest",
        "adamw-sgd",
        "imagenet",
        None,
        10,
    )
    assert found.epochs is None
    assert found == config("--model convnext")
    assert found == config("--model=convnext --batch-size 64")


@pytest.mark.parametrize(
    ("given", "meant"),
    [("resnet50", "resnet"), ("convnext_tiny", "convnext"), ("inception_v3", "inception"), ("wavemix", "wavemix")],
)
def test_torchvisions_names_are_accepted(given: str, meant: str) -> None:
    assert config(f"-model {given}").model == meant


def test_every_published_name_is_accepted() -> None:
    published = "resnet wavemix convnext swin swinv2 efficientnet densenet mobilenet regnet resnext shufflenet"
    for name in [*published.split(), "inception"]:
        assert config(f"-model {name}").model == name


def test_what_is_to_be_the_same_each_time_is_not_measured_by_the_clock() -> None:
    found = config("-model resnet --deterministic")
    assert found.plan == "off"
    assert found == config("-model resnet --deterministic --plan off")
    assert asked(vars(found)).keys() - asked(vars(config("-model resnet"))).keys() == {"deterministic", "plan"}
    with pytest.raises(UserError, match="--deterministic leaves no plan to be measured"):
        config("-model resnet --deterministic --plan measure")
    # a record from before there was the flag is of the same run
    older = vars(config("-model resnet")).copy()
    assert older.pop("deterministic") is False
    assert asked(older) == asked(vars(config("-model resnet")))


def test_size_is_one_number_or_two() -> None:
    assert config("-model resnet --size 128").size == (128, 128)
    assert config("-model resnet --size 448 672").size == (448, 672)


def test_a_size_that_the_backbone_does_not_take_is_refused_with_one_that_it_takes() -> None:
    with pytest.raises(UserError, match=r"(?s)wavemix can't take images of 96x100 pixels: .*Use --size 96 128\.$"):
        config("-model wavemix --size 96 100")
    assert config("-model resnet --size 96 100").size == (96, 100)


def test_a_near_miss_is_recognised() -> None:
    with pytest.raises(UserError, match="Did you mean convnext"):
        config("-model convnet")
    with pytest.raises(UserError, match="Did you mean resnet"):
        config("-model ResNet-50")


def test_help_lists_every_flag_with_a_word_on_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        config("--help")
    assert end.value.code == 0
    text = capsys.readouterr().out
    with pytest.raises(SystemExit):
        parse(folder.DATASET, BACKBONES, ["--help"])
    of_folder = capsys.readouterr().out
    for field in fields(Config):
        for name in field.metadata["names"]:
            assert name in (of_folder if field.metadata["own"] else text)
            assert not field.metadata["own"] or name not in text
        assert field.metadata["options"]["help"]
    assert not any(f"{{{word}}}" in text for word in ("backbones", "size", "augment", "data_dir"))


def test_every_flag_has_a_role_and_only_settings_words() -> None:
    roles = {name: f.metadata["role"] for name, f in FLAGS.items()}
    assert set(roles.values()) == {WHAT, SETTING, MACHINE, PLACE}
    assert {name for name, role in roles.items() if role == PLACE} >= {
        "data_dir",
        "cache_dir",
        "no_cache",
        "out",
        "tensorboard",
        "allow_partial",
        "check",
        "rerun",
    }
    assert all(roles[name] == SETTING for name, f in FLAGS.items() if f.metadata["words"])


def test_only_what_is_not_the_default_and_can_change_numbers_is_asked() -> None:
    plain = asked(vars(config("-model resnet")))
    assert plain == {"model": "resnet", "size": [96, 96], "augment": "trivial"}
    elsewhere = "--out a --data-dir b --cache-dir c --check --rerun --allow-partial --no-cache --tensorboard"
    assert asked(vars(config(f"-model resnet {elsewhere}"))) == plain
    defaults = "-bs 64 --seed 0 --patience 10 --protocol honest --precision auto --recipe adamw-sgd --weights imagenet"
    assert asked(vars(config(f"-model resnet50 {defaults} --size 96 96 --augment trivial"))) == plain
    assert asked(vars(config("-model resnet --recipe cosine"))) == plain | {"recipe": "cosine"}
    for line, name, value in (
        ("--precision fp32", "precision", "fp32"),
        ("--device cpu", "device", "cpu"),
        ("--tune linear", "tune", "linear"),
        ("--lr-sweep", "lr_sweep", True),
        ("--shots 5", "shots", 5),
        ("--patience 3", "patience", 3),
        ("--plan off", "plan", "off"),
    ):
        assert asked(vars(config(f"-model resnet {line}"))) == plain | {name: value}


def test_what_a_record_kept_asks_the_same() -> None:
    for line in ("-model resnet", "-model resnet --recipe cosine --size 32 64 --tune linear --out elsewhere"):
        found = config(line)
        assert asked(json.loads(json.dumps(found.settings()))) == asked(vars(found))


def test_a_flag_that_the_record_lacks_had_its_default() -> None:
    settings = config("-model resnet").settings()
    for name in ("shots", "lr_sweep", "tensorboard", "plan"):
        assert asked({key: value for key, value in settings.items() if key != name}) == asked(settings)


@pytest.mark.parametrize(("value", "counts"), [(False, False), (None, False), (True, True), (0.7, True), ("", True)])
def test_a_flag_that_is_gone_counts_unless_it_was_off(value: Any, counts: bool) -> None:
    settings = config("-model resnet").settings()
    expected = asked(settings) | ({"ema": value} if counts else {})
    assert asked(settings | {"ema": value}) == expected


def test_settings_are_told_in_words() -> None:
    found = asked_settings(
        vars(config("-model resnet -bs 16 --lr 0.001 --patience 3 --tune linear --device cpu --seed 1"))
    )
    assert found == {"batch_size": 16, "lr": 0.001, "patience": 3, "tune": "linear"}
    told = [in_words(name, value) for name, value in found.items()]
    assert told == ["batches of 16", "learning rate 0.001", "patience 3", "the head only"]
    gone = asked_settings(config("-model resnet").settings() | {"ema": True, "layer_decay": 0.7})
    assert [in_words(name, value) for name, value in gone.items()] == ["ema", "layer decay 0.7"]


@pytest.mark.parametrize(
    ("declared", "line", "models", "command"),
    [
        (digits.DATASET, "-model all -bs 32 --seed 3 --check", "all", "digits --models all --batch-size 32 --seeds 3"),
        (digits.DATASET, "-model convnext,swin", "convnext and swin", "digits --models convnext swin"),
        (digits.DATASET, "-model convnext swin_t", "convnext and swin_t", "digits --models convnext swin_t"),
        (digits.DATASET, "-model resnet --model=swin", "resnet and swin", "digits --models resnet swin"),
        (folder.DATASET, "D -model all --lr-sweep", "all", "folder:D --models all --lr-sweep"),
        (
            folder.DATASET,
            "-model resnet swin D --size 8 9",
            "resnet and swin",
            "folder:D --models resnet swin --size 8 9",
        ),
        (breakhis.DATASET, "--magnification 200 -model all", "all", "breakhis:200 --models all"),
    ],
)
def test_several_backbones_are_for_the_grid(
    declared: Dataset | Choice, line: str, models: str, command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for script, grid in ((f"{PROJECT}/digits.py", f"{PROJECT}/grid.py"), ("elsewhere/mine.py", f"{PROJECT}/grid.py")):
        monkeypatch.setattr(sys, "argv", [script])
        with pytest.raises(UserError) as caught:
            parse(declared, BACKBONES, line.split())
        said = f"-model takes one backbone, not {models}. grid.py runs several:\n  python {grid} --datasets {command}"
        assert str(caught.value) == said
    with pytest.raises(UserError, match=r"--datasets elsewhere/mine.py --models all$"):
        parse(DATASET, BACKBONES, ["-model", "all"])


def test_a_folder_may_be_called_as_a_backbone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "swin").mkdir()
    for line in ("-model resnet swin", "swin -model resnet"):
        assert parse(folder.DATASET, BACKBONES, line.split())[1].model == "resnet"
