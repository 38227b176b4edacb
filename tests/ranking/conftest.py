"""Questions to rank.py, in this process, in a folder of its own."""

from __future__ import annotations

import json
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

import common
import rank
import ranking.tuned  # noqa: F401 (all that a question imports: what comes later slows down each that frees memory)
from tests.conftest import on_the_processor
from tests.ranking import networks

FP32 = "--precision fp32"


@dataclass(frozen=True)
class Said:
    """What a command came to."""

    code: int
    out: str
    err: str

    @property
    def rows(self) -> list[str]:
        """The table."""
        lines = self.out.splitlines()
        return lines[next(number for number, line in enumerate(lines) if "backbone " in line) :]


class Asker:
    """Asks rank.py about a script's dataset; backbones that a test has changed stay as they are."""

    def __init__(self, folder: Path, weights: Path, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder, self.weights, self._capsys = folder, weights, capsys

    def __call__(self, line: str) -> Said:
        """What the command says, on the processor unless it names a device."""
        self._capsys.readouterr()
        code = rank.main(on_the_processor(shlex.split(line)))
        printed = self._capsys.readouterr()
        return Said(code, printed.out, printed.err)

    def toy(self, more: str = "", models: str = " ".join(networks.NAMES), **options: Any) -> Said:
        """Ask about networks.dataset(**options)."""
        networks.write_script(self.folder / "own.py", options)
        # no form of the pass that the clock chooses: their last digits differ
        return self(f"./own.py --models {models} --plan off {'' if '--precision' in more else FP32} {more}")

    def answer(self, more: str = "", models: str = " ".join(networks.NAMES), **options: Any) -> Mapping[str, Any]:
        """Likewise, as JSON, of what must succeed."""
        said = self.toy(f"{more} --json", models, **options)
        assert said.code == 0, said.err
        content: Mapping[str, Any] = json.loads(said.out)
        return content

    @property
    def kept(self) -> dict[str, int]:
        """The files of features, and when each was written."""
        return {path.name: path.stat().st_mtime_ns for path in self.folder.glob("data/*/.cache/features/*.json")}


@pytest.fixture(scope="session")
def weights_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("weights")


@pytest.fixture
def ask(
    tmp_path: Path,
    weights_folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> Asker:
    """Asks rank.py, with the backbones of networks.entries()."""
    for name, backbone in networks.entries(weights_folder).items():
        monkeypatch.setitem(common.BACKBONES, name, backbone)
    monkeypatch.chdir(tmp_path)
    # a collection of all that the tests of a session hold takes longer than the rest of a question
    monkeypatch.setattr("ranking.frozen.free_memory", lambda _: None)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    return Asker(tmp_path, weights_folder, capsys)
