"""What is the same for all backbones of a comparison."""

import argparse
import math
from pathlib import Path

import numpy as np
import pytest

from benchmarks.photographs import make_photographs
from benchmarks.setting import add_flags, prepared
from engine.errors import UserError


def parsed(*words: str) -> argparse.Namespace:
    parser = argparse.ArgumentParser()
    add_flags(parser, ["resnet"], "resnet")
    return parser.parse_args(words)


SMALL = ["--device", "cpu", "--size", "32", "--batch-size", "2", "--rounds", "1"]


def test_images_are_made_before_anything_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("benchmarks.photographs.DISTINCT", 4)
    flags = ["--plan-seconds", "3", "--no-hold", "--limit-seconds", "9", "--compile", "off"]
    with prepared(parsed(*SMALL, *flags), ["ours"]) as setting:
        # a round and a warm-up of a step each, and what plain's workers are ahead
        assert len(list(setting.folder.rglob("*.jpg"))) == ((1 + 1) * 1 + 2 + 4) * 2
        assert setting.part.pixels(np.arange(4)).shape == (4, 32, 32, 3)
        assert len(setting.part) == 4
    assert not setting.folder.exists()
    assert (setting.plan_seconds, setting.hold, setting.limit_seconds, setting.compile) == (3, False, 9, "off")
    told = setting.describe()
    assert (told["plan_seconds_at_most"], told["hold"], told["limit_seconds"]) == (3, False, 9)
    assert told["prepared_seconds"] > 0
    assert told["columns"] == ["ours"]


def test_without_flags_a_plan_is_measured_as_in_a_run() -> None:
    given = parsed()
    assert (given.plan_seconds, given.no_hold, given.limit_seconds) == (None, False, math.inf)


def test_a_folder_that_holds_too_few_is_refused(tmp_path: Path) -> None:
    make_photographs(tmp_path, 15)
    refused = pytest.raises(UserError, match="15 images, but 1 rounds of 1 steps of 2 take 16")
    with refused, prepared(parsed(*SMALL, "--source", str(tmp_path)), ["plain"]):
        pass
    make_photographs(tmp_path / "more", 1)
    (tmp_path / "more" / "0" / "000000.jpg").rename(tmp_path / "0" / "more.jpg")
    (tmp_path / "more" / "0").rmdir()
    (tmp_path / "more").rmdir()
    with prepared(parsed(*SMALL, "--source", str(tmp_path)), ["plain"]) as setting:
        assert setting.folder == tmp_path
    assert tmp_path.is_dir()


@pytest.mark.parametrize(("flag", "reason"), [("--source", "Not a directory"), ("--out", "is a file")])
def test_a_file_is_no_folder(flag: str, reason: str, tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    with (
        pytest.raises(UserError, match=f"{flag} {file}: .*{reason}"),
        prepared(parsed("--out", str(tmp_path), *SMALL, flag, str(file)), ["plain"]),
    ):
        pass


@pytest.mark.parametrize(
    "words", [["--limit-seconds", "0"], ["--plan-seconds", "-1"], ["--rounds", "0"], ["--steps", "x"]]
)
def test_nonsense_is_refused(words: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        parsed(*words)
    assert "is not a" in capsys.readouterr().err
