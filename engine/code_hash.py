"""Which code makes a run's numbers: a hash of it that comments, docstrings and empty lines do not change."""

from __future__ import annotations

import ast
import hashlib
import inspect
import io
import tokenize
from collections.abc import Callable, Iterable
from functools import cache, partial
from pathlib import Path
from typing import Any

from engine.paths import PROJECT

DIGITS = 16
# From the files to the metrics. What only talks, fetches, or writes records is not among them; nor are other backbones
# than that of the run, so that one more does not set earlier runs of the others apart.
MAKES_NUMBERS = (
    "engine/run.py",
    "engine/device.py",
    "engine/data",
    "engine/readers",
    "engine/models/backbone.py",
    "engine/models/structure.py",
    "engine/models/weights.py",
    "engine/training",
    "engine/metrics.py",
)


def code_of(read: Callable[..., Any], backbone_source: str) -> dict[str, str]:
    """The hashes of the code that makes a run's numbers.

    "engine": what all runs share; "script": the file that holds `read`, the dataset's function; "backbone": that which
    builds the model, "" for torchvision's, whose version a record has anyway. What is in no file, as a function typed
    into an interpreter, has the hash of nothing.
    """
    return {"engine": engine_hash(), "script": _file_hash(file_of(read)), "backbone": _file_hash(backbone_source)}


def file_of(function: Callable[..., Any]) -> str:
    """The file that a function was read from; "" where it is in none."""
    while isinstance(function, partial):
        function = function.func
    code = getattr(inspect.unwrap(function), "__code__", None)
    return code.co_filename if code else ""


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
