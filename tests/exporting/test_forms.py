"""What is exported computes what the run's own network does, and says what one needs to know of it."""

from __future__ import annotations

import getpass
import io
import json
import zipfile
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch

import digits
import export
from common import load
from engine.data.part import Pixels
from engine.models.weights import unpacked_digests
from engine.paths import PROJECT
from exporting.build import WRITE
from exporting.facts import facts_of
from exporting.forms import Job
from exporting.images import Images
from exporting.packages import NEEDED
from exporting.served import served


@pytest.fixture(scope="module")
def pixels() -> Pixels:
    return digits.read(None).test.pixels()  # type: ignore[arg-type]


@pytest.fixture(scope="module")
def kept(run: Path) -> npt.NDArray[np.float32]:
    """The logits of the run's own test."""
    with np.load(run / "predictions.npz") as arrays:
        logits: npt.NDArray[np.float32] = arrays["logits"]
        return logits


def test_onnx(
    run: Path, tmp_path: Path, pixels: Pixels, kept: npt.NDArray[np.float32], capsys: pytest.CaptureFixture[str]
) -> None:
    onnx = pytest.importorskip("onnx")
    onnxruntime = pytest.importorskip("onnxruntime")
    assert export.main([str(run), "--to", "onnx", str(tmp_path / "out")]) == 0
    printed = capsys.readouterr().out
    assert "on 8 test images of the run" in printed
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == ["model.json", "model.onnx"]
    session = onnxruntime.InferenceSession(str(tmp_path / "out" / "model.onnx"))
    for batch in (pixels[:1], pixels):
        logits, probabilities = session.run(["logits", "probabilities"], {"pixels": batch})
        np.testing.assert_allclose(logits, kept[: len(batch)], atol=1e-4)
        np.testing.assert_allclose(probabilities.sum(1), 1, atol=1e-5)
    facts = session.get_modelmeta().custom_metadata_map
    assert json.loads(facts["classes"]) == list("0123456789")
    assert json.loads(facts["preprocessing"])["stored_size"] == [8, 8]
    assert facts["run"] == run.name
    assert facts["protocol"] == "honest"
    model = onnx.load(tmp_path / "out" / "model.onnx")
    assert [(each.domain, each.version) for each in model.opset_import if not each.domain] == [("", 18)]
    assert not any(node.metadata_props for node in model.graph.node)


def test_torch(run: Path, tmp_path: Path, pixels: Pixels, kept: npt.NDArray[np.float32]) -> None:
    assert export.main([str(run), "--to", "torch", str(tmp_path / "out")]) == 0
    extra = {"model.json": ""}
    network = torch.export.load(tmp_path / "out" / "model.pt2", extra_files=extra).module()
    assert json.loads(extra["model.json"])["run"] == run.name
    for batch in (pixels[:1], pixels):
        with torch.inference_mode():
            logits, _ = network(torch.from_numpy(batch))
        np.testing.assert_allclose(logits.numpy(), kept[: len(batch)], atol=1e-4)


def test_safetensors(run: Path, tmp_path: Path) -> None:
    safetensors = pytest.importorskip("safetensors")
    torch_files = pytest.importorskip("safetensors.torch")
    assert export.main([str(run), "--to", "safetensors", str(tmp_path / "out")]) == 0
    trained, out = load(run), tmp_path / "out"
    found = torch_files.load_file(out / "model.safetensors")
    assert found.keys() == trained.state.keys()
    assert all(torch.equal(found[name], trained.state[name]) for name in found)
    with safetensors.safe_open(out / "model.safetensors", "pt") as file:
        assert json.loads(file.metadata()["classes"]) == list("0123456789")
    assert json.loads((out / "model.json").read_text())["dataset"]["split"] == trained.record["dataset"]["split"]
    seen = torch_files.load_file(out / "seen.safetensors")["seen"]
    assert trained.seen is not None
    assert unpacked_digests(seen) == unpacked_digests(trained.seen)
    assert seen.shape == (1437, 16)


def everything_in(path: Path) -> bytes:
    """A file's bytes, and those of what is packed in it."""
    content = path.read_bytes()
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            content += b"".join(name.encode() + archive.read(name) for name in archive.namelist())
    return content


@pytest.mark.parametrize("form", ["onnx", "torch", "safetensors", "hub"])
def test_nothing_tells_of_the_machine(form: str, run: Path, tmp_path: Path) -> None:
    for package in NEEDED[form]:
        pytest.importorskip(package)
    out = tmp_path / "out"
    assert export.main([str(run), "--to", form, str(out)]) == 0
    places = [PROJECT, Path.home(), tmp_path, run.parents[2], Path(torch.__file__).parents[2]]
    words = [str(place).encode() for place in places] + [f"/{getpass.getuser()}/".encode()]
    for path in out.iterdir():
        content = everything_in(path)
        assert [word for word in words if word in content] == [], path.name


@pytest.mark.parametrize("form", ["onnx", "torch"])
def test_stored_images_that_are_larger_than_what_the_network_takes(form: str, run: Path, tmp_path: Path) -> None:
    """They are antialiased as one side shrinks."""
    for package in NEEDED[form]:
        pytest.importorskip(package)
    trained = load(run)
    trained = replace(trained, preprocessing=replace(trained.preprocessing, stored_size=(51, 20)))
    pixels = np.random.default_rng(0).integers(0, 256, (3, 51, 20, 3), dtype=np.uint8)
    found = WRITE[form](Job(trained, served(trained), Images(pixels, "noise"), facts_of(trained)), tmp_path)
    assert found.holds
    assert found.largest_logit > 0.1
