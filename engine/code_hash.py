"""Which code makes a run's numbers: a hash of it that comments, docstrings and empty lines do not change."""

from __future__ import annotations

import ast
import hashlib
import inspect
import io
import re
import sys
import tokenize
from collections.abc import Callable, Iterable
from functools import cache, partial
from pathlib import Path
from typing import Any

from engine.paths import PROJECT

DIGITS = 16
LONGEST_WRITTEN = 200  # letters of an argument
# From the files to the metrics. What only talks, fetches, or writes records is not among them; nor are other backbones
# than that of the run, so that one more does not set earlier runs of the others apart.
MAKES_NUMBERS = (
    "engine/run.py",
    "engine/device.py",
    "engine/data",
    "engine/readers",
    "engine/models/backbone.py",
    "engine/models/safe_file.py",
    "engine/models/state_dict.py",
    "engine/models/structure.py",
    "engine/models/weights.py",
    "engine/models/weights_folder.py",
    "engine/training",
)


def code_of(read: Callable[..., Any], backbone_source: str, backbone_arguments: str = "") -> dict[str, str]:
    """The hashes of the code that makes a run's numbers.

    "engine": what all runs share; "script": the file that holds `read`, the dataset's function; "backbone": that which
    builds the model, "" for torchvision's, whose version a record has anyway, and the arguments that are bound to it.
    What is in no file, as a function typed into an interpreter, has the hash of nothing.
    """
    backbone = _file_hash(backbone_source)
    if backbone_arguments:
        backbone = hashlib.sha256(f"{backbone}{backbone_arguments}".encode()).hexdigest()[:DIGITS]
    return {"engine": engine_hash(), "script": _file_hash(file_of(read)), "backbone": backbone}


def file_of(builder: Callable[..., Any]) -> str:
    """The file that a function, a class, or that of a callable object, was read from; "" where it is in none."""
    found = behind(builder)
    if isinstance(found, type):
        codes = [getattr(inspect.unwrap(each), "__code__", None) for each in vars(found).values() if callable(each)]
        files = [code.co_filename for code in codes if code and Path(code.co_filename).is_file()]
        return files[0] if files else str(getattr(sys.modules.get(found.__module__), "__file__", None) or "")
    code = getattr(found, "__code__", None)
    return code.co_filename if code else ""


def behind(builder: Callable[..., Any]) -> Callable[..., Any]:
    """The function or class that is called in the end: that of a functools.partial, the class of a callable object."""
    while isinstance(builder, partial):
        builder = builder.func
    builder = inspect.unwrap(builder)
    return builder if isinstance(getattr(builder, "__name__", None), str) else type(builder)


def as_written(value: Any) -> str:
    """How source code names a function, a class or a plain value; a functools.partial with the arguments it binds."""
    if isinstance(value, partial):
        bound = [*map(as_written, value.args), *(f"{name}={as_written(each)}" for name, each in value.keywords.items())]
        return f"{as_written(value.func)}({', '.join(bound)})"
    name = getattr(value, "__name__", None)
    if isinstance(name, str):
        return name
    text = repr(value)
    plain = text.isprintable() and len(text) <= LONGEST_WRITTEN and not re.search(r" at 0x[0-9a-fA-F]+", text)
    return text if plain else type(value).__name__


@cache
def engine_hash() -> str:
    """The hash of all code between a dataset's script and its metrics, but for the model's."""
    places = [PROJECT / name for name in MAKES_NUMBERS]
    return _hash(file for place in places for file in (sorted(place.rglob("*.py")) if place.is_dir() else [place]))


@cache
def _file_hash(file: str) -> str:
    return _hash([Path(file)] if Path(file).is_file() else [])


def _hash(files: Iterable[Path]) -> str:
    hasher = hashlib.sha256()
    for file in files:
        with tokenize.open(file) as opened:  # in the encoding that it declares
            hasher.update(f"\0{file.name}\0{without_words(opened.read())}".encode())
    return hasher.hexdigest()[:DIGITS]


def without_words(source: str) -> str:
    """Python's `source` without comments, docstrings, and what empty lines they leave.

    By their places in the text, which every version of Python agrees on; that of tokens, or of a tree that is printed,
    differs between them. Raises SyntaxError, or tokenize.TokenError.
    """
    lines = source.split("\n")
    spans = [*_docstrings(source), *_comments(source)]
    for (first, start), (last, end) in sorted(spans, reverse=True):
        lines[first - 1 : last] = [lines[first - 1][:start] + lines[last - 1][end:]]
    return "\n".join(line.rstrip() for line in lines if line.strip())


Span = tuple[tuple[int, int], tuple[int, int]]  # (line, column) of the beginning and of the end, lines from 1


def _docstrings(source: str) -> Iterable[Span]:
    lines = source.split("\n")

    def column(line: int, offset: int) -> int:  # a tree counts bytes
        return len(lines[line - 1].encode()[:offset].decode())

    for node in ast.walk(ast.parse(source)):
        body = getattr(node, "body", None)
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)) and body:
            first = body[0]
            if ast.get_docstring(node, clean=False) is not None:
                end = first.end_lineno or first.lineno
                yield (
                    (first.lineno, column(first.lineno, first.col_offset)),
                    (end, column(end, first.end_col_offset or 0)),
                )


def _comments(source: str) -> Iterable[Span]:
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            yield token.start, token.end
