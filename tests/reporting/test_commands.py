"""reporting/commands.py: commands that ask for the very runs that the records are of."""

import json
import shlex
from pathlib import Path
from typing import Any

import pytest

import folder
import grid
from common import BACKBONES
from datasets import DATASETS
from engine.command_line import parse
from engine.config import Config
from engine.data.declaration import Dataset
from engine.paths import PROJECT
from grids.cells import key_of
from reporting import commands
from reporting.entry import Entry, read_entry
from tests.reporting import synthetic

SETTINGS: list[list[str]] = [
    [],
    ["-bs", "16", "--epochs", "2", "--weights", "none", "--size", "32", "48", "--device", "cpu"],
    ["--recipe", "adamw-sgd", "--patience", "3", "--lr", "0.00005", "--augment", "none", "--tune", "linear"],
    ["--shots", "10", "--protocol", "paper", "--plan", "off", "--lr-sweep", "--no-cache"],
    ["--fraction", "0.25", "--out", "other runs", "--cache-dir", "a cache", "--allow-partial"],
]


NETS = "from torch import nn\n\n\ndef wide():\n    return nn.Sequential(nn.Flatten(), nn.Linear(12, 1000))\n"


def entry_of(dataset: Dataset, config: Config, runs: Path = Path("runs")) -> Entry:
    """What a report keeps of a run of that command."""
    changes: dict[str, Any] = {"config": config.settings(), "recipe": config.recipe, "protocol": config.protocol}
    made = synthetic.record("digits", config.model, config.seed, **changes)
    made["dataset"] |= {"key": dataset.key, "name": dataset.name, "published": dataset.published}
    made["dataset"]["place"] = str(dataset.own_folder or "")
    entry = read_entry(synthetic.write(runs, made) / "record.json", "run")
    assert entry is not None
    return entry


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where the commands are given, with a folder of photographs, in a home."""
    monkeypatch.setenv("HOME", str(tmp_path))
    here = tmp_path / "here"
    for name in ("here/my photos; rm -rf $HOME", "elsewhere/fotos ü"):
        (tmp_path / name).mkdir(parents=True)
    monkeypatch.chdir(here)
    return tmp_path


def asked_for(command: str) -> list[Any]:
    """The cells of a grid's command, as a shell hands it on."""
    words = shlex.split(command)
    assert words[0] == "python"
    return grid.cells_of(grid.parser().parse_args(words[2:]))


@pytest.mark.parametrize("name", ["my photos; rm -rf $HOME", "../elsewhere/fotos ü"])
@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: "".join(settings)[:20] or "none")
def test_the_grid_asks_for_the_same_run(place: Path, settings: list[str], name: str) -> None:
    dataset, config = parse(folder.DATASET, BACKBONES, [name, "-model", "swin", "--seed", "4", *settings])
    entry = entry_of(dataset, config, config.out)
    cells = asked_for(commands.grid(entry, ["swin", "resnet"], {4, 0, 1}, "--retry-failed"))
    assert [(cell.config.model, cell.config.seed) for cell in cells] == [
        (model, seed) for seed in (0, 1, 4) for model in ("swin", "resnet")
    ]
    cell = cells[4]
    record = json.loads((entry.folder / "record.json").read_text())
    assert cell.key == key_of(dataset.key, dataset.version, record["config"])
    assert cell.dataset.own_folder == dataset.own_folder
    assert cell.config.settings() == config.settings()


def test_the_usual_is_not_said(place: Path) -> None:
    dataset, config = parse(folder.DATASET, BACKBONES, ["../elsewhere/fotos ü", "-model", "swin"])
    command = commands.grid(entry_of(dataset, config), ["swin"], {0, 1, 2})
    script = commands._path(str(PROJECT / "grid.py"))
    assert command == f"python {script} --datasets folder:~/'elsewhere/fotos ü' --models swin --seeds 0-2"
    assert commands.check(entry_of(dataset, config)).endswith("folder.py ~/'elsewhere/fotos ü' --check")


def test_published_datasets_are_called_as_the_grid_calls_them(place: Path) -> None:
    dataset = DATASETS["breakhis_40x"]
    Path("my data", dataset.folder, *dataset.contains[:1]).mkdir(parents=True)
    _, config = parse(dataset, BACKBONES, ["-model", "swin", "--data-dir", "my data"])
    entry = entry_of(dataset, config)
    command = commands.grid(entry, ["swin"], {0})
    assert "--datasets breakhis:40 " in command
    (cell,) = asked_for(command)
    assert cell.config == config
    assert "breakhis.py --magnification 40 -model swin" in commands.train(
        entry, "--weights", commands.checkpoint(entry), without=("weights",)
    )


def test_what_is_not_known_here_is_in_no_command(place: Path) -> None:
    dataset, config = parse(folder.DATASET, BACKBONES, ["../elsewhere/fotos ü", "-model", "swin"])
    entry = entry_of(dataset, config)
    assert commands.grid(entry, ["$(reboot)"], {0}) == ""
    assert " --models swin --seeds 0 2" in commands.grid(entry, ["$(reboot)", "swin"], {2, 0})


def test_weights_of_one_architecture_are_asked_for_by_their_rows(place: Path) -> None:
    arguments = ["my photos; rm -rf $HOME", "-model", "resnet@IMAGENET1K_V2"]
    dataset, config = parse(folder.DATASET, BACKBONES, arguments)
    entry = entry_of(dataset, config)
    assert (entry.backbone, entry.setting.weights) == ("resnet@IMAGENET1K_V2", "imagenet")
    command = commands.grid(entry, ["resnet", entry.backbone], {0})
    assert " --models resnet resnet@IMAGENET1K_V2 --seeds 0" in command
    assert "--weights" not in command
    assert asked_for(command)[1].config == config
    assert commands.asks_for(shlex.join(["python", "folder.py", *arguments]), entry.setting)
    words = shlex.split(commands.train(entry, "--weights", "none", without=("weights",)))
    assert words[words.index("-model") + 1] == "resnet"


def test_a_file_of_ones_own_is_quoted(place: Path) -> None:
    (place / "my nets.py").write_text(NETS)
    arguments = ["my photos; rm -rf $HOME", "-model", "../my nets.py:wide", "--weights", "none"]
    dataset, config = parse(folder.DATASET, BACKBONES, arguments)
    entry = entry_of(dataset, config)
    assert entry.backbone == "~/my nets.py:wide"
    (cell,) = asked_for(commands.grid(entry, [entry.backbone], {0}))
    assert cell.config == config
    assert "-model '~/my nets.py:wide'" in commands.train(entry)
    (place / "my nets.py").unlink()
    assert commands.train(entry) == ""


def test_training_on_begins_from_the_checkpoint(place: Path) -> None:
    arguments = ["my photos; rm -rf $HOME", "-model", "swin", "--size", "64", "--weights", "none"]
    dataset, config = parse(folder.DATASET, BACKBONES, arguments)
    entry = entry_of(dataset, config, Path("the runs"))
    (entry.folder / "checkpoint.pt").touch()
    words = shlex.split(commands.train(entry, "--weights", commands.checkpoint(entry), without=("weights",)))
    again, asked = parse(folder.DATASET, BACKBONES, words[2:])
    assert again.own_folder == dataset.own_folder
    assert asked.weights == str((entry.folder / "checkpoint.pt").absolute())
    assert (asked.size, asked.out) == (config.size, Path("the runs"))


def test_a_check_is_of_the_images_by_the_same_labels(place: Path) -> None:
    (place / "the labels.csv").write_text("file,label\n")
    arguments = ["my photos; rm -rf $HOME", "-model", "swin", "--labels", str(place / "the labels.csv")]
    dataset, config = parse(folder.DATASET, BACKBONES, arguments)
    command = commands.check(entry_of(dataset, config))
    assert command.endswith("folder.py 'my photos; rm -rf $HOME' --labels ~/'the labels.csv' --check")


@pytest.mark.parametrize("settings", SETTINGS, ids=lambda settings: "".join(settings)[:20] or "none")
def test_the_command_of_a_failed_cell_tells_its_settings(place: Path, settings: list[str]) -> None:
    arguments = ["my photos; rm -rf $HOME", "-model", "swin", "--seed", "4", *settings]
    dataset, config = parse(folder.DATASET, BACKBONES, arguments)
    setting = entry_of(dataset, config).setting
    command = shlex.join(["python", "folder.py", *arguments])
    assert commands.asks_for(command, setting)
    assert not commands.asks_for(f"{command} --folds 3", setting)
    assert not commands.asks_for(f"{command} --class-weights balanced", setting)
    assert not commands.asks_for(f"{command} --lr", setting)
