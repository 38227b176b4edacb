"""Folders that the user has not named: the project's own, the user's cache, and the nearest one that exists."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]  # where the dataset scripts lie


def script_path(name: str) -> str:
    """The path of one of the project's scripts as the user gives that of the one that runs; else its name.

    A command that is printed so can be copied in any folder.
    """
    running = Path(sys.argv[0])
    ours = running.name and running.resolve().parent == PROJECT
    return str(running.with_name(name)) if ours else name


def user_cache() -> Path:
    """The folder in the user's cache folder that is ours; it need not exist."""
    try:
        return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "which-backbone"
    except RuntimeError:  # a user that the system does not know, as in some containers
        return Path(tempfile.gettempdir()) / f"which-backbone-{os.getuid()}"


# Path's own methods raise for a name that is too long or has a NUL in it, which no file can have.


def exists(path: str | Path) -> bool:
    """Whether there is such a file or folder."""
    return os.path.exists(path)  # noqa: PTH110


def is_file(path: str | Path) -> bool:
    """Whether there is such a file."""
    return os.path.isfile(path)  # noqa: PTH113


def is_dir(path: str | Path) -> bool:
    """Whether there is such a folder."""
    return os.path.isdir(path)  # noqa: PTH112


def is_link(path: str | Path) -> bool:
    """Whether there is such a symbolic link."""
    return os.path.islink(path)  # noqa: PTH114


def without_home(text: str) -> str:
    """The text, in which the user's home folder, wherever a path begins with it, is a ~: its name may be a person's."""
    home = os.path.expanduser("~").rstrip("/")  # noqa: PTH111 (Path.home() raises for a user without one)
    return re.sub(rf"(?<![\w./~-]){re.escape(home)}(?=/|$)", "~", text) if home not in ("", "~") else text


def with_home(text: str) -> str:
    """The path that without_home() made the text of, if it did."""
    return os.path.expanduser(text) if text.startswith("~/") else text  # noqa: PTH111 (likewise)


def cache_folder(data_dir: Path) -> Path:
    """Where decoded images go if the user does not say: beside the data, or, where that can't be, in a cache folder
    of the user's."""
    return data_dir / ".cache" if writable(nearest_existing(data_dir)) else user_cache()


def nearest_existing(path: Path) -> Path:
    """`path` if it exists, else the nearest above it that does, even in a folder that may not be entered."""
    above = path.absolute()
    while not os.access(above, os.F_OK):
        above = above.parent
    return above


def writable(folder: Path) -> bool:
    """Whether this is a folder in which files can be made."""
    return folder.is_dir() and os.access(folder, os.W_OK | os.X_OK)


def why_no_name(name: str) -> str:
    """Why the name of a file can't be used, which records have in UTF-8; "": it can.

    Under a locale without UTF-8 Python reads every letter beyond ASCII wrong, or not at all.
    """
    encoding = sys.getfilesystemencoding()
    if encoding != "utf-8" and not name.isascii():
        return f"its name is read as {encoding}, by the locale: put PYTHONUTF8=1 before the command"
    try:
        name.encode()
    except UnicodeEncodeError:
        return "its name is not UTF-8"
    return "its name has a NUL in it" if "\0" in name else ""
