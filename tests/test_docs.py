"""Every command in the README and in docs/ is run here; the longest of them on little, or as far as a plan."""

from __future__ import annotations

import importlib
import re
import runpy
import shlex
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from PIL import Image

import common
import datasets
import export
import grid
import predict
import rank
import report
import split
from engine.paths import PROJECT
from tests import fakes, toy
from tests.grids.fake_slurm import install

PAGES = [PROJECT / "README.md", PROJECT / "CONTRIBUTING.md", *sorted((PROJECT / "docs").glob("*.md"))]
LINE = re.compile(r"^(?:\$ )?((?:PYTHONPATH=\. )?(?:python3?|make|pip) .*)$", re.MULTILINE)
MOST_BYTES_OF_README = 9_000
RESNET = common.BACKBONES["resnet"]


def commands() -> dict[str, str]:
    """Every command that a page names, in a block or between backticks -> the page."""
    found: dict[str, str] = {}
    for page in PAGES:
        text = page.read_text("utf-8")
        blocks = re.findall(r"^```\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
        lines = [line for block in blocks for line in LINE.findall(block)]
        lines += re.findall(r"`((?:python|make|pip) [^`]+)`", re.sub(r"^```\n.*?^```", "", text, flags=re.M | re.S))
        found |= {re.split(r"\s+#", line)[0].strip(): page.name for line in lines}
    return found


def own_backbones() -> str:
    """The script of docs/own.md that brings backbones of its own."""
    (script,) = re.findall(
        r"^```python\n(from functools.*?)^```", (PROJECT / "docs/own.md").read_text("utf-8"), re.M | re.S
    )
    return str(script)


def test_the_files_that_pages_name_are_there() -> None:
    """Of the project's own folders; those of a run, an archive or an example are no files of the project."""
    named = {
        (page.name, path)
        for page in PAGES
        for path in re.findall(
            r"\b((?:engine|grids|reporting|benchmarks|tests|docs)/[\w/.]+\.\w+)", page.read_text("utf-8")
        )
    }
    assert len(named) > 20
    assert [each for each in sorted(named) if not (PROJECT / each[1]).exists()] == []


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A folder with what the commands name, where every backbone is a tiny one with weights that are at hand."""
    folder = tmp_path_factory.mktemp("docs")
    random = np.random.default_rng(0)
    for name in ("photos", "IN", "DIR"):
        for label in ("cat", "dog"):
            (folder / name / label).mkdir(parents=True)
            for number in range(12):
                pixels = random.integers(0, 256, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / name / label / f"{number}.png")
    rows = []
    for number in range(24):
        pixels = random.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        (folder / "dogs").mkdir(exist_ok=True)
        Image.fromarray(pixels).save(folder / "dogs" / f"{number:02}.jpg")
        rows.append(f"{number:02},{('whippet', 'beagle')[number % 2]},{number // 4}")
    (folder / "labels.csv").write_text("\n".join(["image_id,breed,patient_id", *rows]))
    torch.save(toy.tiny().state_dict(), folder / "tiny.pth")
    weights = common.WeightsFile("tiny", (folder / "tiny.pth").as_uri())
    (folder / "mine.py").write_text("from common import main\nfrom digits import DATASET\n")
    (folder / "nets.py").write_text(own_backbones(), "utf-8")
    with mock.patch.dict(common.BACKBONES), pytest.MonkeyPatch.context() as patch:
        cifar = fakes.fake("cifar10", patch)
        for path, body in cifar.extracted.items():
            target = folder / "data" / "cifar10" / path
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(body)
        patch.chdir(folder)
        patch.setenv("HOME", str(folder))
        patch.setattr("cifar10.DATASET", cifar.dataset)
        for name, backbone in common.BACKBONES.items():
            patch.setitem(common.BACKBONES, name, replace(toy.TINY, weights=weights, published=backbone.published))
        yield folder


def run_script(script: str, arguments: list[str]) -> int:
    """The exit code of a dataset's script, on the processor and for an epoch."""
    few = [] if "--epochs" in arguments else ["--epochs", "1"]
    few += [] if "-model" in arguments or "--check" in arguments else ["-model", "resnet"]
    dataset = importlib.import_module(script.removesuffix(".py")).DATASET
    with pytest.raises(SystemExit) as end:
        common.main(dataset, [*arguments, "--size", "32", "--device", "cpu", "--plan", "off", *few])
    return int(end.value.code or 0)


def run_report(arguments: list[str], patch: pytest.MonkeyPatch) -> int:
    """The exit code of report.py; a server is not started."""
    served: list[int] = []
    patch.setattr("reporting.serve.serve", lambda build, runs, out, port: served.append(port))
    run_script("digits.py", ["-model", "resnet"])  # so that there is something to report
    code = report.main([argument if argument != "DIR" else "runs" for argument in arguments])
    assert bool(served) == ("--serve" in arguments)
    return code


def run_rank(arguments: list[str]) -> int:
    """The exit code of rank.py; what it fine-tunes, in processes of their own, are real backbones for two epochs."""
    few = [] if "--models" in arguments else ["--models", "mobilenet", "shufflenet"]
    few += ["--weights", "none"] if "--fine-tune" in arguments else []
    return rank.main([*arguments, "--size", "32", "--device", "cpu", "--plan", "off", "--epochs", "2", *few])


def a_run() -> Path:
    """What was trained on photos/."""
    runs = Path("runs/folder-photos/convnext")
    if not runs.exists():
        assert run_script("folder.py", ["photos", "-model", "convnext"]) == 0
    return next(runs.glob("*"))


def run_predict(arguments: list[str]) -> int:
    """The exit code of predict.py, of a run on photos/ and images in there."""
    run = str(a_run())
    named = {
        "RUN": run,
        "runs/folder-photos/convnext": run,
        "runs/folder-split/mobilenet": run,
        "IMAGE": "photos/cat/1.png",
        "holiday": "photos",
    }
    where = [] if "--suspects" in arguments else ["--device", "cpu"]
    return predict.main([*(named.get(argument, argument) for argument in arguments), *where])


def python_blocks(page: str) -> list[str]:
    """The Python on a page that opens a checkpoint."""
    blocks: list[str] = re.findall(r"^```python\n(.*?)^```", (PROJECT / page).read_text("utf-8"), re.M | re.S)
    return [block for block in blocks if "load(" in block]


@pytest.mark.parametrize("page", ["README.md", "docs/predict.md"])
@pytest.mark.usefixtures("place")
def test_a_checkpoint_is_used_as_the_page_says(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    (block,) = python_blocks(page)
    run = a_run()
    capsys.readouterr()
    names: dict[str, object] = {}
    exec(block.replace('"RUN"', repr(str(run))).replace("IMAGE", "photos/cat/1.png"), names)
    logits = names["logits"]
    assert isinstance(logits, torch.Tensor)
    assert logits.shape == (1, 2)
    assert ("%" in capsys.readouterr().out) == (page != "README.md")


def run_export(arguments: list[str]) -> int:
    """The exit code of export.py, of a run on photos/."""
    _, *others = ("exported" if word == "DIR" else word for word in arguments)  # DIR has images in it
    return export.main([str(a_run()), *others, "--overwrite"])


@pytest.mark.parametrize("command", commands())
@pytest.mark.usefixtures("place")
def test_the_command_works(
    command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    words = [str(Path(word).expanduser()) for word in shlex.split(command.removeprefix("PYTHONPATH=. "))]
    program, script, *arguments = words
    if program == "make":
        subprocess.run(["make", "-n", script], cwd=PROJECT, check=True, capture_output=True)
    elif "pip" in words:
        assert (PROJECT / words[-1]).is_file()
        assert f"pip install --disable-pip-version-check -r {words[-1]}" in (PROJECT / "Makefile").read_text()
    elif script == "-m":
        monkeypatch.delitem(sys.modules, arguments[0])
        with pytest.raises(SystemExit, match="0"):
            runpy.run_module(arguments[0], run_name="__main__")
        assert capsys.readouterr().out.startswith("{")
    elif script.startswith("benchmarks/"):
        # each is run on little by its own test, in this process or, on a dry card, in one of its own
        tests = "".join(path.read_text("utf-8") for path in (PROJECT / "tests").rglob("test_*.py"))
        stem = Path(script).stem
        assert f"import benchmarks.{stem}\n" in tests or f'"benchmarks" / "{stem}.py"' in tests
        text = (PROJECT / script).read_text("utf-8")
        assert all(f'"{argument}"' in text for argument in arguments if re.fullmatch(r"--[a-z-]+", argument))
    elif script == "split.py":
        assert split.main([*arguments, "--overwrite"]) == 0
    elif script == "grid.py":
        if any(word.startswith("timm:") for word in words):
            pytest.importorskip("timm", reason="needs timm")
        if "resnet@IMAGENET1K_V2" in words:  # of the real one's enum
            monkeypatch.setitem(common.BACKBONES, "resnet", RESNET)
        monkeypatch.setattr("grids.plan.trial.SECONDS", 0.0)  # of training steps
        if any(word.partition("=")[0] == "--slurm" for word in words):
            monkeypatch.setenv("PATH", install(tmp_path))
        if "--ray" in words:  # a plan needs none that is started here
            arguments[arguments.index("--ray") + 1] = "local"
        assert grid.main([*arguments, *([] if "--dry-run" in arguments else ["--dry-run"])]) == 0
    elif script == "predict.py":
        assert run_predict(arguments) == 0
    elif script == "rank.py":
        assert run_rank(arguments) == 0
    elif script == "export.py":
        assert run_export(arguments) == 0
    elif script == "datasets.py":
        assert datasets.main(arguments) == 0
    elif script == "report.py":
        assert run_report(arguments, monkeypatch) == 0
    else:
        if script.endswith("nets.py"):
            datasets.load(Path(script))
        assert run_script("digits.py" if script.endswith(("mine.py", "nets.py")) else script, arguments) == 0


@pytest.mark.parametrize("page", ["using.md", "export.md"])
@pytest.mark.usefixtures("place")
def test_an_exported_network_is_served_in_ten_lines(page: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Of the run that the page's commands left, or of one that is made for it."""
    text = (PROJECT / "docs" / page).read_text("utf-8")
    (program,) = re.findall(r"^```python\n(import json.*?)^```", text, re.M | re.S)
    run = Path("runs/folder-split/mobilenet")
    if page == "export.md" or not run.is_dir():
        run = a_run()
    assert export.main([str(run), "--to", "onnx", "served", "--overwrite"]) == 0
    pixels = np.random.default_rng(1).integers(0, 256, (8, 8, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((300, 200)).save("new.jpg")
    capsys.readouterr()
    exec(program, {})
    answer, share = capsys.readouterr().out.split()
    trained = common.load(run)
    with torch.inference_mode():
        logits = trained.model()(trained.preprocessing("new.jpg")[None])
    probabilities = (logits / (trained.temperature or 1.0)).softmax(1)[0]
    assert answer == trained.classes[int(probabilities.argmax())]
    assert share == f"{probabilities.max():.1%}"


def test_commands_are_found() -> None:
    assert {"make demo", "make test", "python report.py", "python cifar10.py -model convnext -bs 64"} <= set(commands())
    assert len(commands()) > 25


def test_the_readme_is_a_door() -> None:
    assert (PROJECT / "README.md").stat().st_size <= MOST_BYTES_OF_README


def test_links_lead_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\((?!https?:)([^)#]+)\)", page.read_text("utf-8")):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_page_is_in_the_index() -> None:
    index = (PROJECT / "docs" / "README.md").read_text("utf-8")
    for page in (PROJECT / "docs").glob("*.md"):
        assert page.name == "README.md" or f"({page.name})" in index


def test_the_list_of_backbones_is_whole() -> None:
    rows = re.findall(r"`(\w+)` \|", (PROJECT / "README.md").read_text("utf-8").partition("`-model`")[2])
    published = [name for name, backbone in common.BACKBONES.items() if backbone.published]
    assert [name for name in rows if name != "model"] == [*published, "inception"]
