"""`--weights FILE.safetensors` and `--weights DIR`: read without running anything; what does not fit is refused."""

from __future__ import annotations

import builtins
import json
import struct
from pathlib import Path
from typing import Any

import pytest
import torch

from common import BACKBONES
from engine.errors import UserError
from engine.files import read_json
from engine.models.backbone import IMAGENET_MEAN
from engine.models.weights import build, find_weights
from engine.models.weights_folder import digest_of
from tests.conftest import Command, only_run
from tests.toy import TINY, tiny

safetensors_torch = pytest.importorskip("safetensors.torch", reason="needs safetensors")

CFG = {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "input_size": [3, 32, 32], "classifier": "6"}
CONFIG = {"architecture": "tiny", "num_classes": 1000, "pretrained_cfg": CFG}


@pytest.fixture
def state() -> dict[str, torch.Tensor]:
    """What a trained model holds."""
    torch.manual_seed(1)
    return dict(tiny().state_dict())


@pytest.fixture
def folder(tmp_path: Path, state: dict[str, torch.Tensor]) -> Path:
    """A folder as timm and the hub have it."""
    path = tmp_path / "winner"
    path.mkdir()
    (path / "config.json").write_text(json.dumps(CONFIG))
    safetensors_torch.save_file(state, path / "model.safetensors")
    return path


def refused(choice: Path) -> str:
    """Why such weights are refused."""
    with pytest.raises(UserError) as caught:
        build(TINY, "tiny", 3, find_weights(TINY, str(choice)))
    return str(caught.value)


def test_a_file_of_safetensors_is_loaded_whatever_it_is_called(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    for name in ("tiny.safetensors", "tiny.bin"):
        safetensors_torch.save_file(state, tmp_path / name)
        weights = find_weights(TINY, str(tmp_path / name))
        torch.testing.assert_close(build(TINY, "tiny", 3, weights).state_dict()["0.weight"], state["0.weight"])
        assert weights.name.startswith(f"file:{name}:")
        assert weights.mean == IMAGENET_MEAN


def test_a_folder_brings_its_normalisation(folder: Path, command: Command, state: dict[str, torch.Tensor]) -> None:
    weights = find_weights(TINY, str(folder))
    assert (weights.mean, weights.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    torch.testing.assert_close(build(TINY, "tiny", 3, weights).state_dict()["0.weight"], state["0.weight"])
    assert command(f"-model tiny --weights {folder} -bs 32 --epochs 1 --plan off") == 0
    record = read_json(only_run(Path("runs")) / "record.json")
    assert record["normalisation"] == {"mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6]}
    assert record["backbone"]["weights_sha256"] == digest_of(folder)
    assert record["backbone"]["weights"] == f"folder:winner:{digest_of(folder)[:12]}"


def test_other_numbers_in_the_config_are_other_weights(folder: Path) -> None:
    before = digest_of(folder)
    (folder / "config.json").write_text(json.dumps(CONFIG | {"pretrained_cfg": CFG | {"mean": [0.5, 0.5, 0.5]}}))
    assert digest_of(folder) != before


def test_a_folder_that_does_not_say_is_normalised_as_the_backbones_own_weights(folder: Path) -> None:
    (folder / "config.json").write_text("{}")
    assert find_weights(TINY, str(folder)).mean == IMAGENET_MEAN
    (folder / "model.safetensors").rename(folder / "kept")
    torch.save(tiny().state_dict(), folder / "pytorch_model.bin")
    build(TINY, "tiny", 3, find_weights(TINY, str(folder)))


FACTS = {
    "format": 1,
    "run": "honest-seed0-0123456789",
    "dataset": {"key": "toy"},
    "protocol": "honest",
    "seed": 3,
    "backbone": {"weights": "none"},
    "preprocessing": {"mean": [0.4, 0.4, 0.4], "std": [0.2, 0.2, 0.2]},
}


def test_an_export_says_which_images_its_weights_have_seen(folder: Path, state: dict[str, torch.Tensor]) -> None:
    """In a folder, in which timm may have other names and another normalisation, and in a file by itself."""
    seen = torch.arange(32, dtype=torch.uint8).reshape(2, 16)
    safetensors_torch.save_file({"seen": seen}, folder / "seen.safetensors")
    texts = {name: fact if isinstance(fact, str) else json.dumps(fact) for name, fact in FACTS.items()}
    safetensors_torch.save_file(state, folder / "own.safetensors", texts)
    safetensors_torch.save_file({"other.name": torch.zeros(1)}, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(CONFIG | {"which_backbone": FACTS | {"tensors": "own.safetensors"}}))
    for choice in (folder, folder / "own.safetensors"):
        weights = find_weights(TINY, str(choice))
        assert weights.seen == frozenset((bytes(range(16)).hex(), bytes(range(16, 32)).hex()))
        assert weights.run == {
            "run": "honest-seed0-0123456789",
            "dataset": "toy",
            "protocol": "honest",
            "seed": 3,
            "weights": "none",
        }
        assert weights.mean == (0.4, 0.4, 0.4)
        build(TINY, "tiny", 3, weights)
    (folder / "seen.safetensors").unlink()
    assert find_weights(TINY, str(folder)).seen is None  # nobody knows


@pytest.mark.parametrize(
    ("facts", "says"),
    [
        ("text", "which_backbone is 'text', no object"),
        (
            FACTS | {"tensors": "../own.safetensors"},
            "the tensors are said to be in '../own.safetensors', no file there",
        ),
        (FACTS | {"seed": "x"}, "what this export says of its run is damaged (ValueError"),
        (FACTS | {"preprocessing": {"mean": [1], "std": [1]}}, "what this export says of its run is damaged"),
        ({}, "what this export says of its run is damaged (KeyError: 'preprocessing')"),
    ],
)
def test_an_export_that_is_damaged_is_refused(facts: object, says: str, folder: Path) -> None:
    (folder / "config.json").write_text(json.dumps(CONFIG | {"which_backbone": facts}))
    assert says in refused(folder)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (None, "the folder holds no config.json. Expected a folder with config.json and model.safetensors"),
        ("{", "config.json is no readable JSON"),
        ("[1]", "config.json holds a list, no object"),
        ('{"pretrained_cfg": {"mean": [0.5], "std": [0.5]}}', "are not three numbers each"),
        ('{"mean": [0.5, 0.5, "x"], "std": [1, 1, 1]}', "are not three numbers each"),
        ('{"mean": [0.5, 0.5, 0.5], "std": [1, 0, 1]}', "are not three numbers each, from 0 to 1, the std above 0"),
        ('{"mean": [NaN, 0.5, 0.5], "std": [1, 1, 1]}', "it has NaN in it"),
    ],
)
def test_a_config_that_is_none_is_refused(content: str | None, says: str, folder: Path) -> None:
    if content is None:
        (folder / "config.json").unlink()
    else:
        (folder / "config.json").write_text(content)
    assert says in refused(folder)


def test_a_folder_without_tensors_is_refused(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    assert "the folder holds no model.safetensors and no pytorch_model.bin" in refused(folder)


def header(length: int, text: bytes) -> bytes:
    return struct.pack("<Q", length) + text


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "it does not begin as one"),
        (b"PK\x03\x04 no such file", "it does not begin as one"),
        (header(1 << 60, b"{}" * 50), "it does not begin as one"),
        (header(100, b"{" * 100), "is no whole file of safetensors"),
        (header(2, b"{}") + b"more", "is no whole file of safetensors"),
        (
            header(64, b'{"a":{"dtype":"F32","shape":[9],"data_offsets":[0,36]}}'.ljust(64)),
            "is no whole file of safetensors",
        ),
        (
            header(80, b'{"a":{"dtype":"F32","shape":[999999999,999999999],"data_offsets":[0,4]}}'.ljust(80))
            + b"\0" * 4,
            "is no whole file of safetensors",
        ),
        (
            header(2, b"{}"),
            "does not hold weights of tiny: of 9 tensors, 8 missing (0.weight, 0.bias, 1.weight and 5 more)",
        ),
    ],
)
def test_what_no_file_of_safetensors_is_ends_with_one_message(content: bytes, says: str, tmp_path: Path) -> None:
    (tmp_path / "x.safetensors").write_bytes(content)
    assert says in refused(tmp_path / "x.safetensors")


def test_a_header_larger_than_any_models_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    length = (16 << 20) + 1
    path.write_bytes(header(length, b"{".ljust(length)))
    assert "its header is said to have 16,777,217 bytes" in refused(path)


def test_without_the_package_the_line_of_pip_is_given(
    tmp_path: Path, state: dict[str, torch.Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    safetensors_torch.save_file(state, tmp_path / "x.safetensors")
    real = builtins.__import__

    def without(name: str, *rest: Any, **named: Any) -> Any:
        if name.startswith("safetensors"):
            raise ModuleNotFoundError("No module named 'safetensors'")
        return real(name, *rest, **named)

    monkeypatch.setattr(builtins, "__import__", without)
    assert "pip install 'safetensors>=" in refused(tmp_path / "x.safetensors")


def test_what_does_not_fit_is_named_and_counted(tmp_path: Path, state: dict[str, torch.Tensor]) -> None:
    """Of the 7 tensors of the body, 6 fit, 86 %, and 5; and one that fits but for an additional tensor."""
    del state["1.bias"]
    path = tmp_path / "x.safetensors"
    safetensors_torch.save_file(state, path)
    problem = refused(path)
    assert (
        f"{path} does not hold weights of tiny: of 9 tensors, 1 missing (1.bias). Of the 7 beside the head" in problem
    )
    assert "6 fit (85 %), and all must." in problem
    state["0.weight"] = torch.zeros(8, 3, 5, 5)
    safetensors_torch.save_file(state | {f"more.{i}": torch.zeros(1) for i in range(5)}, path)
    problem = refused(path)
    assert "1 missing (1.bias), 5 unknown (more.0, more.1, more.2 and 2 more), 1 of another shape (0.weight)" in problem
    assert "5 fit (71 %), and all must." in problem


def test_a_file_that_fits_98_percent_is_refused_too(tmp_path: Path) -> None:
    """Strictly: what is missing would be random, in a network that is then ranked as a pretrained one."""
    state = dict(BACKBONES["shufflenet"].build().state_dict())
    for key in [key for key in state if key.startswith("conv5.")]:
        del state[key]
    path = tmp_path / "x.safetensors"
    safetensors_torch.save_file({key: value.contiguous() for key, value in state.items()}, path)
    with pytest.raises(
        UserError, match=r"5 missing \(conv5\.0\.weight, .* and 2 more\)\..* fit \(9\d %\), and all must"
    ):
        build(BACKBONES["shufflenet"], "shufflenet", 3, find_weights(BACKBONES["shufflenet"], str(path)))
