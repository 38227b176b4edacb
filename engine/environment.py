"""What a run's numbers may depend on beside its command."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from engine.paths import PROJECT, without_home
from engine.processes.heartbeat import commit_of_copy

# who asks, in a URL; the value of what is named so; the tokens of services that begin with their mark
SECRET = re.compile(
    r"(?P<name>://)[^/\s@]+(?P<end>@)"
    r"|(?P<name2>[\w.-]*(?:token|secret|passw|api_?key|signature|credential)[\w.-]*=)[^&\s]+"
    r"|\b(?:hf|gh[opsu]|glpat|sk|xox[bp])[_-]\w{16,}",
    re.IGNORECASE,
)
PACKAGES = ("torch", "torchvision", "numpy", "scikit-learn", "wavemix")


def versions(library: str = "") -> dict[str, str | None]:
    """Return the versions of the packages that compute, with the `library` of a backbone; None: it is not installed."""
    installed: dict[str, str | None] = {}
    for package in filter(None, (*PACKAGES, library)):
        try:
            installed[package] = version(package)
        except PackageNotFoundError:
            installed[package] = None
    return installed


def environment(library: str = "") -> dict[str, Any]:
    """Return what the numbers may depend on beside the command and the code; `library` as versions() has it."""
    import torch

    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": versions(library),
        "cuda": torch.version.cuda if torch.cuda.is_available() else None,
        "cudnn": torch.backends.cudnn.version() if torch.cuda.is_available() else None,
        "cpu_threads": torch.get_num_threads(),
        "git_commit": git_commit(),
        "git_changed": git_changed(),
        "command": [Path(sys.argv[0]).name, *map(without_secrets, sys.argv[1:])],
        "folder": without_home(str(Path.cwd())),
    }


def without_secrets(word: str) -> str:
    """A word of a command as others may read it: without the home folder's name, and what looks like a password."""
    return SECRET.sub(
        lambda match: f"{match['name'] or match['name2'] or ''}***{match['end'] or ''}", without_home(word)
    )


def git_commit() -> str | None:
    """The commit of this project's checkout, or of the one that it is a copy of; None outside one."""
    copied = commit_of_copy()
    return copied[0] if copied else _git("rev-parse", "HEAD")


def git_changed() -> bool | None:
    """Whether files differ from git_commit(); None outside a checkout."""
    copied = commit_of_copy()
    if copied:
        return copied[1]
    changes = _git("status", "--porcelain")
    return None if changes is None else bool(changes)


def _git(*arguments: str) -> str | None:
    """What git says of this project's checkout; None outside one."""
    try:
        answer = subprocess.run(  # noqa: S603 (fixed arguments)
            ["git", *arguments],  # noqa: S607 (the git of whoever runs it)
            cwd=PROJECT,
            capture_output=True,
            text=True,
            timeout=10,
            env={**os.environ, "GIT_OPTIONAL_LOCKS": "0"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return answer.stdout.strip() if answer.returncode == 0 else None
