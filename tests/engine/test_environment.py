"""What a record says of who ran it, and where: nothing that is private."""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

import pytest

from common import BACKBONES
from engine.command_line import parse
from engine.config import asked
from engine.environment import environment, without_secrets
from engine.paths import with_home, without_home
from tests import toy


@pytest.mark.parametrize(
    ("text", "short"),
    [
        ("/home/ann lee/data", "~/data"),
        ("/home/ann lee", "~"),
        ("--out=/home/ann lee/runs", "--out=~/runs"),
        ("/home/ann leela/data", "/home/ann leela/data"),
        ("/mnt/home/ann lee/data", "/mnt/home/ann lee/data"),
        ("none", "none"),
    ],
)
def test_a_home_folder_has_no_name(text: str, short: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/ann lee")
    assert without_home(text) == short
    if text.startswith("/"):
        assert with_home(short) == text or short == "~"


def test_where_there_is_no_home_nothing_is_shortened(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/")
    assert without_home("/data/x") == "/data/x"


@pytest.mark.parametrize(
    ("word", "shown"),
    [
        ("https://ann:s3cret@example.org/w.pth", "https://***@example.org/w.pth"),
        ("https://example.org/w.pth?token=s3cret&x=1", "https://example.org/w.pth?token=***&x=1"),
        ("--password=s3cret", "--password=***"),
        ("HF_TOKEN=s3cret", "HF_TOKEN=***"),
        ("hf_abcdefghijklmnopqrs3cret", "***"),
        ("ghp_abcdefghijklmnopqrs3cret", "***"),
        ("resnet", "resnet"),
        ("IMAGENET1K_V1", "IMAGENET1K_V1"),
        ("data/a@b", "data/a@b"),
    ],
)
def test_what_looks_like_a_password_is_not_kept(word: str, shown: str) -> None:
    assert without_secrets(word) == shown
    assert "s3cret" not in shown


def test_a_record_knows_no_variable_and_no_home(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    home = tmp_path / "ann"
    (home / "work").mkdir(parents=True)
    weights = home / "weights.pth"
    weights.touch()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("PRIVATE", "hidden-7f3a")
    monkeypatch.chdir(home / "work")
    line = ["-model", "resnet", "--weights", str(weights), "--out", f"{home}/runs", "--data-dir", "here"]
    monkeypatch.setattr(sys, "argv", ["/somewhere/toy.py", *line])
    config = parse(toy.dataset(), BACKBONES, line)[1]
    kept = config.settings()
    text = json.dumps([environment(), kept])
    assert "hidden-7f3a" not in text
    assert str(home) not in text
    assert os.environ["HOME"] not in text
    assert (kept["weights"], kept["out"], kept["data_dir"]) == ("~/weights.pth", "~/runs", "~/work/here")
    # it is the same run as one whose record has the path in full
    assert asked(kept) == asked(kept | {"weights": str(weights)}) == asked(vars(config))
