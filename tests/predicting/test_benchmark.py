"""benchmarks/predict.py and the loop that it compares with, on little."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest

import benchmarks.predict
from benchmarks.photographs import make_photographs
from predicting import decoding


def test_both_take_turns(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    scripts = []

    def call(command: Sequence[str | Path], folder: Path) -> str:
        script = Path(command[0]).name
        scripts.append(script)
        if script == "folder.py":
            (folder / "runs" / "folder-few" / "resnet" / "run").mkdir(parents=True)
            return ""
        return "images     12, 60.0 a second" if script == "predict.py" else "images 12 seconds 0.300"

    monkeypatch.setattr(benchmarks.predict, "call", call)
    line = f"predict.py --models resnet --images 12 --rounds 2 --size 32 --out {tmp_path}"
    monkeypatch.setattr(sys, "argv", line.split())
    benchmarks.predict.main()
    assert scripts == ["folder.py", "predict.py", "timm_inference.py", "timm_inference.py", "predict.py"]
    assert "60.0  timm    40.0 images/s: 1.50 times as fast" in capsys.readouterr().out
    result = json.loads((tmp_path / "predict.json").read_text())["results"]["resnet"]
    assert result == {"predict": [60, 60], "timm": [40, 40], "ratio": 1.5}


def test_timms_loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("timm")
    from benchmarks import timm_inference

    make_photographs(tmp_path, 3)
    line = f"timm_inference.py test_resnet {tmp_path} 64 --workers 1 --batch-size 2"
    monkeypatch.setattr(sys, "argv", line.split())
    timm_inference.main()
    assert re.fullmatch(r"images 3 seconds \d+\.\d{3}\n", capsys.readouterr().out)


def test_paths_of_which_none_is_decoded(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(decoding, "cpus", lambda: 2)
    monkeypatch.setattr(sys, "stdin", sys.stdin)
    assert benchmarks.predict._predict(run, b"", 1000) == 0
    assert len(Path("answers.csv").read_text().splitlines()) == 1001
