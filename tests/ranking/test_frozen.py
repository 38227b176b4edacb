"""ranking/frozen.py: features are what the head is given, one row an image, whatever form the pass is in."""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
from torch import nn
from torch.nn import functional

import common
import rank
from common import BACKBONES, Part
from engine.errors import UserError
from engine.models.weights import build, find_weights
from engine.run import resolve_recipe
from engine.training.plan import choose_plan
from ranking.candidates import Question, find_question
from ranking.frozen import TRIED, Body, Images, frozen
from ranking.kept import Frozen
from tests.ranking import networks
from tests.ranking.conftest import Asker

PUBLISHED = [name for name, backbone in BACKBONES.items() if backbone.published]


def asked(line: str) -> Question:
    options: argparse.Namespace = rank.parser().parse_args(line.split())
    return find_question(options)


def body(name: str, line: str = "") -> Body:
    """A backbone as a question about the toy images has it."""
    networks.write_script(Path("own.py"), {})
    cell = asked(f"./own.py --device cpu --plan off --precision fp32 {line}").cell(name)
    backbone = common.BACKBONES[name]
    weights = find_weights(backbone, cell.config.weights)
    return Body(name, backbone, weights, cell.config, resolve_recipe(cell.config, backbone, 4), "this one")


def images(number: int, size: int) -> Images:
    labels = np.arange(number) % 3
    names = [str(each) for each in range(number)]
    return Images(Part(networks.random_pixels(number, size), labels, names, digests=names), 3, "toy")


def passed(of: Body, on: Images) -> Frozen:
    return frozen(of, on, choose_plan("cpu", of.config.precision), "title")


def plain(of: Body, on: Images) -> npt.NDArray[np.float32]:
    """What is left of the model when an identity takes the head's place, of pixels that are normalised by hand."""
    torch.manual_seed(of.config.seed)
    model = build(of.backbone, of.name, on.classes, of.weights).eval()
    parent, _, last = of.backbone.head.rpartition(".")
    setattr(model.get_submodule(parent), last, nn.Identity())
    pixels = torch.from_numpy(on.part.pixels()).permute(0, 3, 1, 2).float()
    if tuple(pixels.shape[2:]) != of.config.size:
        pixels = functional.interpolate(pixels, of.config.size, mode="bilinear")
    mean, std = (torch.tensor(each).view(3, 1, 1) for each in (of.weights.mean, of.weights.std))
    with torch.no_grad():
        found: npt.NDArray[np.float32] = model((pixels / 255 - mean) / std).numpy()
    return found


def off_by(found: Any, expected: Any) -> float:
    return float(np.linalg.norm(found - expected) / np.linalg.norm(expected))


@pytest.mark.parametrize("name", ["tiny", "wide", "flat", "huge"])
def test_features_are_what_the_head_is_given(ask: Asker, name: str) -> None:
    of, on = body(name), images(45, 8)  # more than a batch of a processor, and not a multiple of it
    found = passed(of, on)
    expected = plain(of, on)
    assert found.features.shape == expected.shape
    assert found.features.dtype == np.float32
    assert off_by(found.features, expected) < 1e-5
    assert (found.about.form, found.about.speed_from) == ("fp32 NCHW", "steps")
    assert found.about.parameters == sum(each.numel() for each in build(of.backbone, name, 3, of.weights).parameters())
    assert found.about.macs > 0
    assert found.about.train_images_per_second
    again = passed(of, on)
    assert (again.features == found.features).all()


def test_every_form_that_is_tried_gives_these_features(ask: Asker) -> None:
    of, on = body("wide"), images(20, 8)
    measured = replace(of, config=replace(of.config, plan="measure", precision="auto"))
    assert off_by(passed(measured, on).features, plain(of, on)) < 0.05


def test_a_form_that_gives_other_features_is_not_taken(ask: Asker, monkeypatch: pytest.MonkeyPatch) -> None:
    """However fast it is."""
    of, on = body("wide"), images(20, 8)
    real = frozen.__globals__["_timed"]

    def wrong(form: Any, *given: Any) -> tuple[torch.Tensor, float]:
        found, _ = real(form, *given)
        return (found, 1.0) if (form.precision, form.layout) == ("fp32", "NCHW") else (found * 1.1, 1e-3)

    monkeypatch.setattr("ranking.frozen._timed", wrong)
    measured = replace(of, config=replace(of.config, plan="measure", precision="auto"))
    assert passed(measured, on).about.form == "fp32 NCHW"


def test_fewer_images_than_a_form_is_tried_with(ask: Asker) -> None:
    for number in (1, 2, TRIED - 1):
        of, on = body("tiny"), images(number, 8)
        found = passed(of, on)
        assert off_by(found.features, plain(of, on)) < 1e-5
        assert (found.about.train_images_per_second is None) == (number == 1)


def test_the_weights_stay_as_they_are(ask: Asker) -> None:
    """The training step that is timed is of a copy: batch normalisation would move otherwise."""
    of, on = body("tiny"), images(40, 8)
    first = passed(of, on).features
    untimed = replace(of, config=replace(of.config, batch_size=1))
    assert off_by(first, passed(untimed, on).features) < 1e-6


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("rows", "is given (2, 8, 4) for 2 images, and not a row of features for each"),
        ("twice", "is not called once, with one input"),
        ("endless", "its features are not finite in fp32. Try --precision fp32"),
    ],
)
def test_a_model_that_has_no_features(ask: Asker, name: str, says: str) -> None:
    with pytest.raises(UserError) as problem:
        passed(body(name), images(9, 8))
    assert says in str(problem.value)


def test_an_image_size_that_a_model_does_not_take(ask: Asker) -> None:
    networks.write_script(Path("own.py"), {})
    said = ask("./own.py --models tiny wide --size 2 --device cpu --plan off")
    assert said.code == 2
    assert "can't take images of 2x2 pixels" in said.err


def test_the_identity_is_of_the_training_images_alone(ask: Asker) -> None:
    of, on = body("tiny"), images(12, 8)
    path = of.kept(on).path  # type: ignore[union-attr]
    assert path == of.kept(images(12, 8)).path  # type: ignore[union-attr]
    turned = replace(on, part=on.part.take(np.arange(12)[::-1].copy()))
    smaller = replace(on, part=replace(on.part, images=networks.random_pixels(12, 4)))  # of the same originals
    others = [of.kept(each).path for each in (turned, smaller, images(11, 8))]  # type: ignore[union-attr]
    others += [replace(of, device="another").kept(on).path]  # type: ignore[union-attr]
    assert len({path, *others}) == 5
    assert replace(of, config=replace(of.config, no_cache=True)).kept(on) is None


@pytest.mark.slow
@pytest.mark.parametrize("name", PUBLISHED)
def test_features_of_the_eleven(ask: Asker, name: str) -> None:
    """A row an image, finite, and as a plain forward has them."""
    size = 96 if name == "wavemix" else 64
    of = body(name, f"--weights none --size {size}")
    on = images(6, size)
    found = passed(of, on)
    expected = plain(of, on)
    assert found.features.shape == expected.shape
    assert found.features.ndim == 2
    assert np.isfinite(found.features).all()
    assert off_by(found.features, expected) < 1e-4
