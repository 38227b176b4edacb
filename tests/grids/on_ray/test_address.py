"""Where a Ray cluster is, and what is said where there is none."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import grid
from engine.paths import PROJECT
from grids.on_ray import connect
from grids.on_ray.address import ray_address
from grids.on_ray.connect import copied

LINE = ["--datasets", "digits", "--models", "resnet", "--device", "cpu", "--ray"]


@pytest.mark.parametrize("text", ["auto", "local", "10.0.0.1:6379", "head.cluster:6379", "[fe80::1]:6379"])
def test_addresses(text: str) -> None:
    assert ray_address(text) == text


@pytest.mark.parametrize("text", ["", "10.0.0.1", "head:0", "head:65536", "head:six", "ray://head:10001", "a b:1"])
def test_what_is_none(text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError, match="address"):
        ray_address(text)


def test_without_the_package_the_line_that_installs_it_is_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any
) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    assert grid.main(LINE) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --ray needs the package ray")
    assert error.endswith("pip install -r requirements-ray.txt\n")
    assert error.count("\n") == 1
    assert list(tmp_path.iterdir()) == []


def test_where_nobody_answers(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    pytest.importorskip("ray", reason="needs ray")
    assert grid.main([*LINE, "127.0.0.1:1"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: --ray 127.0.0.1:1: no Ray cluster answers there. Expected the address of its head")
    assert error.count("\n") == 1


def test_where_something_else_answers(monkeypatch: pytest.MonkeyPatch, capsys: Any, server: Any) -> None:
    pytest.importorskip("ray", reason="needs ray")
    monkeypatch.setattr(connect, "HEALTH_SECONDS", 4.0)
    assert grid.main([*LINE, f"127.0.0.1:{server.server_address[1]}"]) == 2
    assert "no Ray cluster answers there" in capsys.readouterr().err


def test_a_machine_of_no_cluster(monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    """Ray looks for the processes of any cluster, of which another test may have one."""
    pytest.importorskip("ray", reason="needs ray")
    monkeypatch.setattr("grids.on_ray.connect.subprocess.run", lambda *_, **__: SimpleNamespace(returncode=1))
    assert grid.main([*LINE, "auto"]) == 2
    assert "--ray auto: no Ray cluster answers there" in capsys.readouterr().err


def test_what_travels_is_what_cells_need_of_the_project(tmp_path: Path) -> None:
    folder = copied(tmp_path / "project")
    top = {path.name for path in folder.iterdir()}
    assert {"digits.py", "common.py", "engine", "grids"} <= top
    assert not top & {"data", "runs", "tests", "benchmarks", "docs", ".git", ".venv", "build"}
    assert (folder / "engine/records/schema.json").read_bytes() == (PROJECT / "engine/records/schema.json").read_bytes()
    assert not list(folder.rglob("__pycache__"))
    assert sum(path.stat().st_size for path in folder.rglob("*")) < 10 << 20
