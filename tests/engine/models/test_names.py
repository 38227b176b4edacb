"""What `-model` takes: entries, models of timm's, functions in files of one's own; with weights behind an @."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

import common
from common import BACKBONES, build_model, load
from engine import code_hash
from engine.data.declaration import LONGEST_KEY
from engine.errors import UserError
from engine.files import read_json
from engine.models import own_file
from engine.models.names import find_backbone, folder_name, is_here, row_name
from engine.models.weights_folder import read_folder
from tests.conftest import Command, only_run
from tests.toy import TINY

NETS = '''
from dataclasses import dataclass

from torch import nn

from common import Backbone


def wide(width: int = 8) -> nn.Module:
    """A convolution, and two linear layers."""
    body = [nn.Conv2d(3, width, 3, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*body, nn.Linear(width, 16), nn.ReLU(), nn.Linear(16, 1000))


ENTRY = Backbone(wide, None, "6", lr=1e-3, smallest=16)
OF_LAYER_4 = Backbone(wide, None, "4")
NUMBER = 3


def raises() -> nn.Module:
    raise ValueError("no such width")


def ends() -> nn.Module:
    raise SystemExit(3)


def text() -> str:
    return "a model"


def without_head() -> nn.Module:
    return nn.Sequential(nn.Conv2d(3, 10, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())


def entry() -> Backbone:
    return ENTRY


class Misled(nn.Module):
    """The last linear layer is not the one that gives the logits."""

    def __init__(self) -> None:
        super().__init__()
        self.pool, self.fc, self.unused = nn.AdaptiveAvgPool2d(1), nn.Linear(3, 1000), nn.Linear(3, 1000)

    def forward(self, images):
        return self.fc(self.pool(images).flatten(1))
'''
LINE = "-bs 32 --epochs 1 --size 16 --plan off"


@pytest.fixture
def nets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file of one's own, in the folder that commands run in."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    path = tmp_path / "nets.py"
    path.write_text(NETS)
    return path


def test_weights_behind_an_at_set_rows_apart() -> None:
    found = find_backbone("resnet50@IMAGENET1K_V2", BACKBONES)
    assert (found.name, found.weights, found.row) == ("resnet", "IMAGENET1K_V2", "resnet@IMAGENET1K_V2")
    assert find_backbone(found.row, BACKBONES) == found
    assert find_backbone("resnet@IMAGENET1K_V1", BACKBONES).row == "resnet"  # what it is anyway
    assert find_backbone("resnet@none", BACKBONES).row == "resnet@none"
    assert row_name("mobilenet", "IMAGENET1K_V2", BACKBONES["mobilenet"]) == "mobilenet"


def test_both_spellings_are_the_same_run(command: Command, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    assert command(f"-model tiny@none {LINE}") == 0
    assert command(f"-model tiny --weights none {LINE}") == 0
    assert "    1  adamw" not in capfd.readouterr().out.split("record ")[-1]  # the finished run is printed
    assert only_run(tmp_path / "runs").parent.name == "tiny"


@pytest.mark.parametrize("asked", ["nets.py:wide", "./nets.py:ENTRY"])
def test_a_function_and_an_entry_of_a_file_are_trained_and_opened(asked: str, nets: Path, command: Command) -> None:
    assert command(f"-model {asked} --weights none {LINE}") == 0
    run = only_run(Path("runs"))
    record = read_json(run / "record.json")
    name = f"{nets}:{asked.partition(':')[2]}"
    assert (record["backbone"]["name"], record["backbone"]["builder"]) == (name, "wide")
    assert len(record["environment"]["code"]["backbone"]) == 16
    assert run.parent.name == folder_name(name)
    trained = load(run)
    assert trained.model()(torch.zeros(2, 3, 16, 16)).shape == (2, 3)
    assert command(f"-model {name} --weights none {LINE}") == 0
    assert only_run(Path("runs")) == run
    assert build_model(f"{asked}@none", 5)(torch.zeros(2, 3, 16, 16)).shape == (2, 5)


def test_an_entry_says_more_than_a_function(nets: Path) -> None:
    entry, function = (find_backbone(f"nets.py:{name}", BACKBONES).backbone for name in ("ENTRY", "wide"))
    assert (entry.lr, entry.smallest, function.lr, function.head) == (1e-3, 16, 3e-4, "6")
    assert entry.source == function.source == str(nets)


def test_files_of_one_name_are_two_backbones(nets: Path) -> None:
    (nets.parent / "other").mkdir()
    other = nets.parent / "other" / "nets.py"
    other.write_text(NETS.replace("int = 8", "int = 4"))
    mine, theirs = (find_backbone(f"{path}:wide", BACKBONES) for path in (nets, other))
    assert mine.name != theirs.name
    assert folder_name(mine.name) != folder_name(theirs.name)
    assert mine.backbone.build()[0].out_channels == 8  # type: ignore[index]
    assert theirs.backbone.build()[0].out_channels == 4  # type: ignore[index]


def test_a_file_that_changes_is_run_anew(nets: Path) -> None:
    before = find_backbone("nets.py:wide", BACKBONES).backbone
    nets.write_text(NETS.replace("int = 8", "int = 24"))
    after = find_backbone("nets.py:wide", BACKBONES).backbone
    assert [backbone.build()[0].out_channels for backbone in (before, after)] == [8, 24]  # type: ignore[index]


def test_names_in_the_home_folder_hold_in_another_home(
    nets: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    assert find_backbone("nets.py:wide", BACKBONES).name == "~/nets.py:wide"
    assert find_backbone("~/nets.py:wide", BACKBONES).backbone.source == str(nets)
    assert is_here("~/nets.py:wide@none", BACKBONES)


@pytest.mark.parametrize(
    ("model", "says"),
    [
        ("resnett", "unknown backbone 'resnett'. Did you mean resnet?"),
        ("resnet@", "resnet@ names no weights"),
        ("nets.py", "nets.py names no function in it: nets.py:FUNCTION"),
        ("nets.py:", "is named without a function. It has wide, ENTRY, OF_LAYER_4, raises"),
        ("nets.py:wid", "has no 'wid'. Did you mean wide?"),
        ("gone.py:wide", "gone.py is not there"),
        ("folder.py:wide", "folder.py is a folder"),
        ("nets.py:NUMBER", "NUMBER is of type int. Expected FILE.py:NAME"),
        ("nets.py:raises", "fails: ValueError: no such width (line 21)"),
        ("nets.py:ends", "fails: SystemExit: 3 (line 25)"),
        ("nets.py:text", "returns a str. Expected FILE.py:NAME"),
        ("nets.py:without_head", "returns a Sequential without a linear layer"),
        ("nets.py:entry", "returns a Backbone. Let entry be that itself"),
        ("nets.py:OF_LAYER_4", "this backbone can't take images of 16x16 pixels: a and b must have same reduction dim"),
        ("nets.py:Misled", "gives (1, 1000) for one image, where its head, unused, gives (1, 3)"),
        ("broken.py:wide", "broken.py can't be run: SyntaxError: "),
        ("stops.py:wide", "stops.py can't be run: SystemExit: 1 (line 2)"),
        ("imports.py:wide", "imports.py can't be run: ModuleNotFoundError: No module named 'no_such_package' (line 1)"),
    ],
)
def test_what_no_backbone_is_ends_with_one_message(
    model: str, says: str, nets: Path, command: Command, capfd: pytest.CaptureFixture[str]
) -> None:
    (nets.parent / "folder.py").mkdir()
    (nets.parent / "broken.py").write_text("def (:\n")
    (nets.parent / "stops.py").write_text("import sys\nsys.exit(1)\n")
    (nets.parent / "imports.py").write_text("import no_such_package\n")
    assert command(f"-model {model} {LINE} {'' if '@' in model else '--weights none'}") == 2
    problem = capfd.readouterr().err
    assert says in problem
    assert "Traceback" not in problem
    assert not Path("runs").exists()


def test_two_kinds_of_weights_are_refused(nets: Path, command: Command, capfd: pytest.CaptureFixture[str]) -> None:
    assert command(f"-model tiny@none --weights auto {LINE}") == 2
    assert "-model tiny@none and --weights auto say different things" in capfd.readouterr().err
    assert command(f"-model nets.py:wide {LINE}") == 2
    assert f"wide has no pretrained weights: {nets} states none." in capfd.readouterr().err
    with pytest.raises(UserError, match="resnet@IMAGENET1K_V2 names its weights, and 'none' are others"):
        build_model("resnet@IMAGENET1K_V2", 3, "none")


def test_a_checkpoint_whose_file_is_gone_or_changed_names_it(
    nets: Path, command: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert command(f"-model nets.py:wide --weights none {LINE}") == 0
    run = only_run(Path("runs"))
    nets.write_text(NETS.replace("nn.ReLU(), nn.Linear(16", "nn.GELU(), nn.Linear(16"))
    with pytest.raises(UserError, match=rf"to open it is to run {nets}, and you have not named that file here, or it"):
        load(run)
    find_backbone("nets.py:wide", BACKBONES)
    code_hash._file_hash.cache_clear()  # as in a process that has not read the file before
    with pytest.raises(UserError, match=rf"{nets} has other code, comments aside, than when the run trained it"):
        load(run)
    nets.write_text(NETS + "\n\n# a comment\n")
    find_backbone("nets.py:wide", BACKBONES)
    code_hash._file_hash.cache_clear()
    assert load(run).classes
    nets.unlink()
    with pytest.raises(UserError, match=rf"which can't be built here: {nets} is not there"):
        load(run)


def test_a_checkpoint_of_others_runs_nothing(
    nets: Path, command: Command, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    assert command(f"-model nets.py:wide --weights none {LINE}") == 0
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache of others"))
    monkeypatch.setattr(own_file, "_named_by_user", set())
    own_file._found.cache_clear()
    ran = tmp_path / "ran"
    nets.write_text(f"open({str(ran)!r}, 'w')\n{NETS}")
    with pytest.raises(UserError, match=r"you have not named that file here.* common\.build_model\("):
        load(only_run(Path("runs")))
    assert not ran.exists()


@pytest.mark.parametrize("name", ["~/a/nets.py:wide", "/x y/é.py:f", 'a<b>"c|d?e*f', "timm:vit_tiny.a_in1k", "n" * 300])
def test_folders_have_names_that_every_system_takes(name: str) -> None:
    folder = folder_name(name)
    assert not set(folder) & set('<>:"/\\|?*')
    assert 0 < len(folder) < LONGEST_KEY
    assert folder_name("resnet") == "resnet"
    assert folder_name("my net") == "my net"


def test_a_checkpoint_of_a_script_that_brings_its_own(command: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    assert command(f"-model tiny --weights none {LINE}") == 0
    run = only_run(Path("runs"))
    assert np.isfinite(load(run).model()(torch.zeros(1, 3, 16, 16)).detach().numpy()).all()
    monkeypatch.delitem(common.BACKBONES, "tiny")
    with pytest.raises(UserError, match="is of the backbone tiny, which can't be built here: unknown backbone 'tiny'"):
        load(run)
    assert TINY.file == ""


@pytest.mark.parametrize(
    ("model", "weights", "says"),
    [
        (f"{'a' * 400}.py:f", "none", "is not there: -model"),
        ("resnet", "a" * 400, "--weights a"),
        ("resnet", "a\0b", "--weights a"),
    ],
)
def test_names_that_no_file_can_have(model: str, weights: str, says: str) -> None:
    assert not is_here(f"{'a' * 400}.py:f", BACKBONES)
    with pytest.raises(UserError, match=says):
        build_model(model, 3, weights)


def test_tensors_that_are_said_to_be_in_no_file(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps({"which_backbone": {"tensors": "a" * 5000}}))
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(UserError, match="the tensors are said to be in 'a"):
        _ = read_folder(tmp_path).own_tensors
