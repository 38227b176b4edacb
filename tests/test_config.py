"""Flags -> Config."""

from dataclasses import fields
from pathlib import Path

import pytest

from common import BACKBONES, Dataset
from engine.config import Config, parse
from engine.errors import UserError
from tests import toy


def config(line: str, dataset: Dataset | None = None) -> Config:
    return parse(dataset or toy.dataset(), BACKBONES, line.split())[1]


def test_the_users_two_flags_are_enough() -> None:
    found = config("-model convnext -bs 64")
    assert found == Config(
        model="convnext",
        batch_size=64,
        size=(16, 16),
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


def test_size_is_one_number_or_two() -> None:
    assert config("-model resnet --size 96").size == (96, 96)
    assert config("-model resnet --size 448 672").size == (448, 672)


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
    for field in fields(Config):
        for name in field.metadata["names"]:
            assert name in text
        assert field.metadata["options"]["help"]
    assert not any(f"{{{word}}}" in text for word in ("backbones", "size", "augment", "data_dir"))
    assert len(fields(Config)) <= 29


def test_what_cannot_change_numbers_has_no_part_in_the_identity() -> None:
    first = config(
        "-model resnet --out a --data-dir b --cache-dir c --check --rerun --allow-partial --no-cache --tensorboard"
    ).identity()
    assert first == config("-model resnet").identity()
    assert first != config("-model resnet --precision fp32").identity()
    assert set(first) == {field.name for field in fields(Config)} - {
        "data_dir",
        "cache_dir",
        "no_cache",
        "out",
        "allow_partial",
        "check",
        "rerun",
        "tensorboard",
    }
