"""A backbone from a file of one's own: `-model path/to/file.py:FUNCTION`."""

from __future__ import annotations

import hashlib
import os
import sys
import traceback
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from types import ModuleType
from typing import Any

from engine.cli import at_home, importing, nearest, run_file
from engine.errors import RunError, UserError, one_line, out_of_memory, reason_of
from engine.files import digest
from engine.models.backbone import Backbone
from engine.paths import is_dir, is_file, user_cache, why_no_name, without_home

_named_by_user: set[Path] = set()  # in this process
EXPECTED = (
    "Expected FILE.py:NAME, where NAME is a function that is called without arguments and returns the model (an "
    "nn.Module, randomly initialised), or a common.Backbone that says more: head, weights, learning rate, sizes."
)


def find_own(file: str, name: str, by_user: bool = True) -> tuple[str, Backbone]:
    """The name, by an absolute path, and the backbone that `file:name` means; the file is run.

    Where not the user names it, but a checkpoint, it is run only if the user has named the same file before. UserError:
    else; there is no such file, it can't be run, or holds no such function, or one that makes no backbone.
    """
    path = Path(os.path.abspath(at_home(file)))  # noqa: PTH100 (links stay as they are, .. does not)
    problem = why_no_name(str(path)) or ("" if str(path).isprintable() else "its name can't be shown")
    if problem:
        raise UserError(f"{str(path)!a}: {problem}. Rename it.")
    if not is_file(path):
        found = "is a folder" if is_dir(path) else "is not there"
        raise UserError(f"{path} {found}: -model {one_line(file)}:{one_line(name)} names what is in it. {EXPECTED}")
    mark = _mark(path)
    if by_user:
        _named_by_user.add(mark)
        with suppress(OSError):  # then it is named again, where another process is to know
            mark.parent.mkdir(parents=True, exist_ok=True)
            mark.touch()
    elif mark not in _named_by_user and not mark.exists():
        raise UserError(
            f"to open it is to run {path}, and you have not named that file here, or it has changed since. If you "
            f"trust it, name it once: common.build_model({f'{path}:{name}'!r}, 2, 'none') in Python, or -model."
        )
    state = path.stat()
    return f"{without_home(str(path))}:{name}", _found(path, name, (state.st_mtime_ns, state.st_size))


def _mark(path: Path) -> Path:
    """The file that says that the user has named this one, as it is now."""
    try:
        mark = hashlib.sha256(f"{path}\0{digest(path)}".encode()).hexdigest()
    except OSError as problem:
        raise UserError(f"{path} can't be read: {reason_of(problem)}.") from problem
    return user_cache() / "named" / mark[:32]


@lru_cache
def _found(path: Path, name: str, _state: tuple[int, int]) -> Backbone:
    module = _run(path)
    made_here = [each for each, value in vars(module).items() if _is_of(module, value) and not each.startswith("_")]
    if name not in vars(module):
        known = f" It has {', '.join(made_here)}." if made_here else ""
        what = f"has no {one_line(name)!r}" if name else "is named without a function"
        raise UserError(f"{path} {what}.{nearest(name, made_here, 0.5)}{known} {EXPECTED}")
    found = vars(module)[name]
    if isinstance(found, Backbone):
        return replace(found, file=str(path))
    if not callable(found):
        raise UserError(f"{path}: {name} is of type {type(found).__name__}. {EXPECTED}")
    return Backbone(found, None, _last_linear_layer(path, name, found), file=str(path))


def _run(path: Path) -> ModuleType:
    """The file as a module, run anew. What lies beside it can be imported by it."""
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    try:
        with importing():
            return run_file(path)
    except (Exception, SystemExit) as problem:  # whatever is in a file of the user's own
        if isinstance(problem, RunError) or out_of_memory(problem):
            raise
        raise UserError(f"{path} can't be run: {_what(problem, path)}.") from problem


def _is_of(module: ModuleType, value: Any) -> bool:
    """Whether it can be meant, and the file itself made it."""
    own = getattr(value, "__module__", None) == module.__name__ and callable(value)
    return own or isinstance(value, Backbone)


def _last_linear_layer(path: Path, name: str, builder: Callable[[], Any]) -> str:
    """The dotted name of the last of the model's linear layers, in the order in which they were added to it."""
    from torch import nn

    try:
        model = builder()
    except (Exception, SystemExit) as problem:
        if isinstance(problem, RunError) or out_of_memory(problem):
            raise
        raise UserError(f"{name} of {path} fails: {_what(problem, path)}. {EXPECTED}") from problem
    if isinstance(model, Backbone):
        raise UserError(f"{name} of {path} returns a Backbone. Let {name} be that itself: {name} = Backbone(...).")
    if not isinstance(model, nn.Module):
        raise UserError(f"{name} of {path} returns a {type(model).__name__}. {EXPECTED}")
    layers = [each for each, layer in model.named_modules() if isinstance(layer, nn.Linear) and each]
    if not layers:
        raise UserError(
            f"{name} of {path} returns a {type(model).__name__} without a linear layer, which a new head could take "
            f"the place of. Let it end with one: nn.Linear(features, classes)."
        )
    return str(layers[-1])


def _what(problem: BaseException, path: Path) -> str:
    """What stopped it, and where in the file."""
    if isinstance(problem, SyntaxError) and problem.filename == str(path):
        return f"{type(problem).__name__}: {problem.msg} (line {problem.lineno})"
    lines = [frame.lineno for frame in traceback.extract_tb(problem.__traceback__) if frame.filename == str(path)]
    where = f" (line {lines[-1]})" if lines else ""
    return f"{type(problem).__name__}: {one_line(str(problem))}{where}"
