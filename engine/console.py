"""What every command prints by: steady streams, a progress bar on a terminal, columns."""

from __future__ import annotations

import io
import os
import shutil
import sys
import textwrap
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib.util import find_spec
from pathlib import Path
from typing import Any, TextIO, TypeVar

from tqdm import tqdm

from engine.errors import RunError, one_line
from engine.processes.heartbeat import alive
from engine.processes.peers import is_first

Item = TypeVar("Item")
FORMATTED_BY_PYTHON = warnings.formatwarning


def steady_streams() -> None:
    """Let no missing stream, and no character that the terminal lacks, end a run; nor a warning give it commands."""
    warnings.formatwarning = _formatted
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115 (for as long as the process lives)
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def bar(items: Iterable[Any] | None = None, **options: Any) -> tqdm[Any]:
    """tqdm's bar: on a terminal, and in a notebook that has ipywidgets as one; elsewhere it shows nothing."""
    if in_notebook() and find_spec("ipywidgets"):
        from tqdm.notebook import tqdm as widget

        return widget(items, **options)
    return tqdm(items, disable=None if is_first() else True, file=sys.stderr, **options)


def in_notebook() -> bool:
    """Whether this is the process of a notebook, as Jupyter starts it: tqdm.autonotebook asks the same."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return "IPKernelApp" in getattr(shell, "config", ())


def progress(items: Iterable[Item], what: str, total: int) -> Iterator[Item]:
    """The items, with a bar() that is wiped when they are through."""
    for number, item in enumerate(bar(items, desc=what, total=total, leave=False, unit="batch"), 1):
        yield item
        alive(f"{what}: {number:,} of {total:,} batches")


def say(*lines: str, go_on: bool = False) -> None:
    """Print lines at once, without breaking a progress bar.

    Where whoever read the output is gone, as after `| head`, that is an interruption; or nothing, to `go_on` with work
    that takes moments, or is done. Of several processes that work together, the first one speaks for all.
    """
    if not is_first():
        return
    try:
        tqdm.write(fit_to_show("\n".join(lines)), file=sys.stdout)
        sys.stdout.flush()
    except OSError as problem:
        _silence(sys.stdout)
        if not isinstance(problem, BrokenPipeError):
            raise RunError(f"the output can't be written: {problem}") from problem
        if not go_on:
            raise KeyboardInterrupt from None


def fit_to_show(text: str) -> str:
    """Lines of text without what a terminal takes for its commands: names of files can hold anything."""
    return "\n".join(map(one_line, text.split("\n")))


def wrapped(lines: Iterable[str], indent: int = 11) -> list[str]:
    """The lines as a terminal has room for them, broken between words; elsewhere, and commands, as they are."""
    if not sys.stdout.isatty():
        return list(lines)
    fill = textwrap.TextWrapper(
        width=max(indent + 20, shutil.get_terminal_size().columns),
        subsequent_indent=" " * indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [
        row
        for line in lines
        for row in ([line] if line.lstrip().startswith("python ") else fill.wrap(one_line(line)) or [""])
    ]


def _formatted(*warning: Any, **named: Any) -> str:
    """What Python prints of a warning, which can have names out of a file in it."""
    return fit_to_show(FORMATTED_BY_PYTHON(*warning, **named))


def settle_streams() -> None:
    """Write what is still to be written, so that nothing fails after the last line of the program."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except OSError:
            _silence(stream)


def _silence(stream: TextIO) -> None:
    """Let what is still to be written, and all that follows, go nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def epoch_columns(part: str, metric: str) -> str:
    """The heads of epoch_line()'s columns.

    `part` chooses the epoch ("val", or "test" under the `paper` protocol), by the `metric` of that label.
    """
    loss, name = f"{part} loss", metric.partition(" ")[0]
    score = f"{part} {name}" if len(f"{part} {name}") <= 12 else name
    return f" epoch  stage   train loss  {loss:>10} {score:>12}     best  images/s   compute   wait  seconds  saved"


def epoch_line(row: Mapping[str, Any], part: str, select: str, saved: float | None) -> str:
    """A row of the history under epoch_columns(), with the metric called `select`; `*` marks a new best epoch.

    saved: the seconds that saving took; None: not saved.
    """
    mark = "*" if row["best_epoch"] == row["epoch"] else " "
    return (
        f"{row['epoch']:>6}  {row['stage']:<6} {row['train_loss']:>11.4f}  {row[f'{part}_loss']:>10.4f} "
        f"{row[f'{part}_{select}']:>12.2%}{mark} {row[f'best_{select}']:>7.2%} {row['images_per_second']:>9,.1f} "
        f"{row['compute_images_per_second']:>9,.1f} "
        f"{row['data_wait_share']:>6.1%} {row['seconds']:>8.1f} " + ("     -" if saved is None else f"{saved:>6.1f}")
    )


def size_text(size: int) -> str:
    """A number of bytes for people, in decimal units."""
    return (
        f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:,.0f} MB" if size >= 1e6 else f"{size / 1e3:,.0f} kB"
    )


def table(rows: Sequence[tuple[str, ...]]) -> str:
    """Columns of text, two blanks apart; the last one is as wide as it is."""
    rows = [tuple(map(one_line, row)) for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]) - 1)]
    return "\n".join(
        "  ".join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[-1]]).rstrip()
        for row in rows
    )


def duration(seconds: float) -> str:
    """For people: 0.4 s, 45 s, 12 min, 3.2 h, 5.4 days."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 5400:
        return f"{seconds / 60:.0f} min"
    days = seconds / 86400
    return f"{seconds / 3600:.1f} h" if days < 3 else f"{days:.1f} days" if days < 9.95 else f"{days:,.0f} days"
