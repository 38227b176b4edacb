"""Folders that the user has not named."""

import os
import sys
from pathlib import Path

import pytest

from engine.paths import PROJECT, cache_folder, nearest_existing, script_path, user_cache, writable


def test_a_user_without_a_home_has_a_cache_folder(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setattr(Path, "home", fail)
    assert user_cache().name.startswith("which-backbone-")


def test_the_nearest_folder_that_exists(tmp_path: Path) -> None:
    assert nearest_existing(tmp_path / "a" / "b") == tmp_path
    assert nearest_existing(tmp_path) == tmp_path
    assert writable(tmp_path)
    assert not writable(tmp_path / "a")


def test_decoded_images_go_beside_the_data_where_they_can(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert cache_folder(tmp_path / "data") == tmp_path / "data" / ".cache"
    (tmp_path / "file").touch()
    assert cache_folder(tmp_path / "file" / "data") == tmp_path / "cache" / "which-backbone"


def test_a_script_is_called_as_the_running_one_was(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """So that a printed command can be copied in the folder in which the running one was given."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "link").symlink_to(PROJECT)
    relative = os.path.relpath(PROJECT)
    for given, expected in (
        (f"{PROJECT}/grid.py", f"{PROJECT}/folder.py"),
        (f"{relative}/folder.py", f"{relative}/folder.py"),
        ("link/grid.py", "link/folder.py"),
        ("elsewhere/grid.py", "folder.py"),
        ("-c", "folder.py"),
    ):
        monkeypatch.setattr(sys, "argv", [given])
        assert script_path("folder.py") == expected
    monkeypatch.chdir(PROJECT)
    monkeypatch.setattr(sys, "argv", ["grid.py"])
    assert script_path("folder.py") == "folder.py"
    monkeypatch.chdir(PROJECT / "docs")
    monkeypatch.setattr(sys, "argv", [""])  # of an interpreter that was given no script
    assert script_path("folder.py") == "folder.py"
