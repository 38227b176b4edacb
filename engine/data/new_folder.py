"""An output folder that is either whole or absent."""

import errno
import hashlib
import os
import platform
import re
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from engine.data.file_kinds import is_notes_of_system
from engine.errors import UserError
from engine.files import is_running
from engine.paths import nearest_existing, writable


def require_place(output: Path, example: str) -> None:
    """UserError where no folder `output` can be made, or replaced in one step; `example` is one for a folder in it."""
    output = _behind(output)
    above = nearest_existing(output.parent)
    if not above.is_dir():
        raise UserError(f"{above} is a file. Expected a folder to put {output} in: choose another output.")
    if not writable(above):
        raise UserError(f"No permission to write in {above}. Choose an output folder elsewhere, or ask its owner.")
    if not output.exists():
        return
    if not output.is_dir():
        raise UserError(f"{output} is a file. Expected a folder, or a name not yet taken: choose another output.")
    if os.path.ismount(output):
        raise UserError(
            f"{output} is a mount point, which can't be replaced in one step. Choose a folder in it: {output}/{example}"
        )


def own_entries(output: Path) -> list[str]:
    """The names of what is in a folder, if it is there, without what systems leave in every folder and make anew."""
    if not output.exists():
        return []
    return sorted(entry.name for entry in output.iterdir() if not is_notes_of_system(entry.name))


@contextmanager
def replacing(output: Path, overwrite: bool) -> Iterator[Path]:
    """A new hidden folder beside `output` that takes its name when the body is done, and is removed when it fails.

    What `output` held before stays until then; where it is a link, the folder that it leads to is meant. After a kill,
    `output` is as it was, and the hidden folder is removed by the next run on the same computer.
    """
    output = _behind(output)
    output.parent.mkdir(parents=True, exist_ok=True)
    _clean_up(output, overwrite)
    base = f".{_short(output.name)}.{platform.node()}.{os.getpid()}"
    partial, old = output.with_name(f"{base}.partial"), output.with_name(f"{base}.old")
    partial.mkdir()
    try:
        yield partial
        if output.exists() and (overwrite or not own_entries(output)):
            output.rename(old)
        try:
            partial.rename(output)
        except OSError as error:
            if error.errno not in (errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR):
                raise
            raise UserError(
                f"{output} was made by another program while this one worked, and is left as that made it. Expected a"
                " new or an empty folder: choose another output, or add --overwrite to replace it."
            ) from error
    except BaseException:
        if old.exists() and not output.exists():
            old.rename(output)
        shutil.rmtree(partial, ignore_errors=True)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _behind(output: Path) -> Path:
    """Where a link leads to: what is there is replaced, not the link, which somebody made for a reason."""
    return Path(os.path.realpath(output)) if output.is_symlink() else output


def _short(name: str) -> str:
    """The name, or what stands for one that would be too long for a file system with more beside it."""
    return name if len(os.fsencode(name)) <= 100 else hashlib.sha256(os.fsencode(name)).hexdigest()[:32]


def _clean_up(output: Path, overwrite: bool) -> None:
    """Remove what killed runs on this computer left beside `output`; another computer's may still be at work.

    Where a kill came between the two renames, the old output is put back: a UserError, unless it may be replaced.
    """
    ours = re.compile(rf"{re.escape(f'.{_short(output.name)}.{platform.node()}')}\.(\d+)\.(partial|old)")
    for entry in list(output.parent.iterdir()):
        match = ours.fullmatch(entry.name)
        if match is None or is_running(int(match[1])):
            continue
        if match[2] == "old" and not output.exists():
            entry.rename(output)
            if overwrite:  # it was looked at before it was set aside
                continue
            raise UserError(
                f"{output} had been set aside by a run that was killed, and is now back. Expected nothing there:"
                " choose another output, or add --overwrite to replace it."
            )
        shutil.rmtree(entry, ignore_errors=True)
