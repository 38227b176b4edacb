"""What is written of the answers, a line or an entry at a time: for people, as CSV, as JSON, as a JSON text a line."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from tqdm import tqdm

from engine.console import fit_to_show
from engine.errors import UserError, disk_errors_explained, one_line
from engine.files import atomic
from predicting.answers import Answer

SUFFIXES = {".csv": "csv", ".json": "json", ".jsonl": "jsonl", ".ndjson": "jsonl", ".txt": "text"}
# how answers and suspects begin, as CSV, as JSON and as a JSON text a line
HEADS = (b"path,class,", b'{\n  "run": ', b'{"path": ', b"rank,file,", b'[\n  {\n    "rank": ', b"[]", b'{"rank": ')
LINE = re.compile(rb"[^\n]*  (?:[^\n]* \d+\.\d\d%|error: )|rank +labelled +likely +file\n")  # for people
ROOM = "Make room, or let --out name a file elsewhere."

Write = Callable[[str], None]
T = TypeVar("T")


@dataclass(frozen=True)
class Form:
    """How answers are written: as text, csv, json or jsonl."""

    name: str
    top: int  # classes an image
    rejects: bool  # whether some can be rejected

    def head(self, about: Mapping[str, Any]) -> str:
        """What comes before the first answer; `about` is what JSON says of the model."""
        if self.name == "csv":
            return _csv_line(self._columns())
        if self.name == "json":
            return json.dumps(dict(about), indent=2)[:-2] + ',\n  "predictions": ['
        return ""

    def rows(self, answers: Iterable[Answer], first: bool) -> str:
        """What is written of answers; `first`: none were written before."""
        if self.name == "text":
            return "".join(f"{self._line(each)}\n" for each in answers)
        if self.name == "csv":
            return "".join(_csv_line(self._cells(each)) for each in answers)
        texts = [json.dumps(self._entry(each)) for each in answers]
        if self.name == "jsonl":
            return "".join(f"{text}\n" for text in texts)
        return "".join(f"{'' if first and not number else ','}\n    {text}" for number, text in enumerate(texts))

    def tail(self, summary: Mapping[str, Any]) -> str:
        """What comes after the last answer."""
        if self.name != "json":
            return ""
        return "\n  ],\n" + json.dumps(dict(summary), indent=2)[2:] + "\n"

    def _columns(self) -> list[str]:
        columns = ["path", "class", "probability"]
        for rank in range(2, self.top + 1):
            columns += [f"class_{rank}", f"probability_{rank}"]
        return [*columns, *(["rejected"] if self.rejects else []), "label", "error"]

    def _cells(self, answer: Answer) -> list[str]:
        cells = [answer.path]
        for name, chance in answer.top or [("", None)] * self.top:
            cells += [name, "" if chance is None else f"{chance:.6g}"]
        rejected = ["" if answer.problem else str(int(answer.rejected))] if self.rejects else []
        return [*cells, *rejected, answer.label, answer.problem]

    def _entry(self, answer: Answer) -> dict[str, Any]:
        entry: dict[str, Any] = {"path": answer.path}
        entry["predictions"] = [{"class": name, "probability": float(f"{chance:.6g}")} for name, chance in answer.top]
        if self.rejects:
            entry["rejected"] = None if answer.problem else answer.rejected
        return entry | {"label": answer.label or None, "error": answer.problem or None}

    def _line(self, answer: Answer) -> str:
        path = one_line(answer.path)
        if answer.problem:
            return f"{path}  error: {one_line(answer.problem)}"
        said = "  ".join(f"{one_line(name)} {chance:.2%}" for name, chance in answer.top)
        label = f"  [{one_line(answer.label)}]" if answer.label else ""
        return f"{path}  {said}{'  rejected' if answer.rejected else ''}{label}"


def _csv_line(cells: list[str]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerow(cells)
    return text.getvalue()


def form_of(asked: str | None, out: Path | None) -> str:
    """The form that is asked for, or that the suffix of `out` says. UserError: it says none."""
    if asked or out is None:
        return asked or "text"
    form = SUFFIXES.get(out.suffix.lower())
    if form is None:
        raise UserError(f"--out {out}: its name does not say in which form. Add --csv, --json or --jsonl.")
    return form


def check_file(out: Path) -> None:
    """Raise UserError where `out` can't be a file that is written: a folder, a device, or in a folder that is none."""
    if out.is_dir():
        raise UserError(f"--out {out} is a folder. Expected the name of a file, such as {out / 'predictions.csv'}.")
    if out.exists() and not out.is_file():
        raise UserError(f"--out {out} is no regular file. Expected the name of a file; without --out, stdout has it.")
    if out.is_symlink():
        raise UserError(f"--out {out} is a link. Name the file itself, or another.")
    if out.exists() and not _is_ours(out):
        raise UserError(f"--out {out}: the file is there, and is none that predict.py wrote. Choose another name.")
    if not out.parent.is_dir():
        raise UserError(f"--out {out}: there is no folder {out.parent}. Make it first: mkdir -p {out.parent}")


def _is_ours(path: Path) -> bool:
    """Whether a file begins as those do that are written here; an empty one may be replaced, too."""
    with disk_errors_explained("can't read", path, "Choose another name."), path.open("rb") as file:
        head = file.read(4096)
    return not head or head.startswith(HEADS) or LINE.match(head) is not None


@contextmanager
def writing(out: Path | None) -> Iterator[Write]:
    """What writes text to the file `out`, which is whole or absent, or to stdout.

    UserError, RunError: the disk refuses. BrokenPipeError: whoever read stdout is gone.
    """
    if out is None:
        yield _to_stdout
        return
    explained = partial(disk_errors_explained, "can't write", out, ROOM)
    with at_its_ends(atomic(out), explained) as file:

        def write(text: str) -> None:
            with explained():
                file.write(text.encode("utf-8", "backslashreplace"))
                file.flush()  # what does not fit on the disk is said here

        yield write


@contextmanager
def at_its_ends(of: AbstractContextManager[T], explained: Callable[[], AbstractContextManager[None]]) -> Iterator[T]:
    """The context `of`, entered and left in another, in which what is done meanwhile is not."""
    with ExitStack() as stack:
        with explained():
            found = stack.enter_context(of)
        yield found
        with explained():
            stack.close()


def _to_stdout(text: str) -> None:
    if not text:
        return
    terminal = sys.stdout.isatty()
    with tqdm.external_write_mode(file=sys.stdout):
        # exactly, whatever the locale, where a program reads it; of a terminal nothing is to be commanded
        sys.stdout.buffer.write((fit_to_show(text) if terminal else text).encode("utf-8", "backslashreplace"))
        sys.stdout.flush()
