"""What every command line shares: argparse with this project's errors, types for what flags take, exit codes."""

from __future__ import annotations

import argparse
import atexit
import difflib
import errno
import hashlib
import importlib.util
import math
import os
import re
import shlex
import signal
import sys
import textwrap
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from itertools import takewhile
from pathlib import Path
from types import ModuleType, TracebackType
from typing import Any, NoReturn, TypeVar

from engine import INTERRUPTED, end_at_once
from engine.console import fit_to_show, settle_streams, steady_streams
from engine.errors import (
    FAILURES,
    EndedElsewhereError,
    RunError,
    UserError,
    out_of_memory,
    reason_of,
    surely_out_of_memory,
)
from engine.paths import PROJECT, why_no_name
from engine.processes import peers

Value = TypeVar("Value")


class Help(argparse.HelpFormatter):
    """Fills a description's paragraphs; commands, which are indented, and lines of two columns keep their lines."""

    def _fill_text(self, text: str, width: int, indent: str) -> str:
        paragraphs = re.split(r"\n\s*\n", text.strip("\n"))
        return "\n\n".join("\n".join(_filled(paragraph.splitlines(), width)) for paragraph in paragraphs)


def _filled(lines: list[str], width: int) -> Iterator[str]:
    """A paragraph's lines, none wider than `width` where that can be; a line of two columns goes on in the second."""
    rows: list[tuple[str, int]] = []  # and where what goes on with it begins
    for line in lines:
        begin = len(line) - len(line.lstrip())
        columns = re.match(r"\s*\S.*?\s{2,}(?=\S)", line)
        if rows and not columns and begin == rows[-1][1]:
            rows[-1] = (f"{rows[-1][0]} {line.strip()}", begin)
        else:
            rows.append((line, columns.end() if columns else begin and begin + 4))
    for row, begin in rows:
        go_on = " " * begin
        yield from textwrap.wrap(row, width, subsequent_indent=go_on, break_long_words=False, break_on_hyphens=False)


class Parser(argparse.ArgumentParser):
    """Raises a wrong command line as the UserError that every other mistake is."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does, but a flag that does not exist is named before one that is missing."""
        known = self._option_string_actions
        words = [*takewhile(lambda word: word != "--", sys.argv[1:] if args is None else args)]
        names = [] if "-h" in words or "--help" in words else [word.partition("=")[0] for word in words]
        for name in names:
            # a word with a blank is a value, as argparse has it
            if re.fullmatch(r"--?[A-Za-z]\S*", name) and name not in known:
                raise UserError(f"unknown flag {name}.{nearest(name, known, 0.6)} See python {self.prog} --help")
        return super().parse_known_args(args, namespace)

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse does; of words that are too many, it is said whether they are a path that lacks its quotes."""
        found, extra = self.parse_known_args(args, namespace)
        self.refuse(extra, sys.argv[1:] if args is None else args)
        return found

    def print_help(self, file: Any = None) -> None:
        """As argparse does; of several processes, as torchrun starts them, the first one alone."""
        if peers.is_first():
            super().print_help(file)

    def refuse(self, extra: Sequence[str], words: Sequence[str]) -> None:
        """Raise a UserError where there are `extra` words among those of the command line."""
        if extra:
            hint = next(filter(None, (without_quotes(words[first:]) for first in range(len(words)))), "")
            self.error(f"unrecognized arguments: {' '.join(extra)}{hint}")

    def error(self, message: str) -> NoReturn:
        """Raise `message` as a UserError that names --help."""
        raise UserError(f"{message}{'' if message.endswith('?') else '.'} See python {self.prog} --help")


def run_command(command: Callable[[], int | None], interrupted: str = "", together: bool = False) -> int:
    """Do what `command` does and return its exit code: its own, or 2, 3 or 130 with a message on stderr.

    interrupted: what is said after Ctrl-C, a scheduler's polite end, or when whoever read the output is gone. together:
    whether several processes may work at it, as torchrun starts them.
    """
    steady_streams()
    sys.unraisablehook = _interrupt_again
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    let_interrupt()
    try:
        with failures_explained():
            if peers.place().count > 1 and not together:
                raise UserError("torchrun is for the datasets' scripts, such as cifar10.py. Give this command without.")
            return command() or 0
    except EndedElsewhereError as problem:
        return problem.exit_code
    except (UserError, RunError) as problem:
        return _complain(f"error: {problem}", problem.exit_code)
    except (KeyboardInterrupt, BrokenPipeError):
        return _complain((interrupted and peers.is_first() and f"error: {interrupted}") or "", INTERRUPTED)
    except Exception:
        if peers.speaks():
            print(fit_to_show(traceback.format_exc().rstrip("\n")), file=sys.stderr)
        message = "error: this is a fault of the program; please report the lines above."
        return _complain(message, RunError.exit_code)
    finally:
        settle_streams()
        # last, so that it comes first: before what packages do as the process ends
        atexit.unregister(_end_undisturbed)
        atexit.register(_end_undisturbed)


@contextmanager
def failures_explained() -> Iterator[None]:
    """Raise what the machine fails by, its disks, its network or its memory, as a RunError that says what to do."""
    try:
        _require_folder()
        yield
    except (UserError, RunError):
        raise
    except Exception as problem:
        if isinstance(problem, OSError) and problem.errno in FAILURES:
            where = f"{problem.filename}: " if problem.filename else ""
            reason = f"{where}{reason_of(problem)}. Once that is mended, give the same command again."
            raise RunError(reason) from problem
        if out_of_memory(problem):
            reason = str(problem).partition("\n")[0] or type(problem).__name__
            or_what = "" if surely_out_of_memory(problem) else ", or a library that does not work with this device"
            raise RunError(f"out of memory{or_what}. Try a smaller -bs or --size. ({reason})") from problem
        raise


def let_interrupt() -> None:
    """Let Ctrl-C raise KeyboardInterrupt again, where it ended the process at once while packages were imported."""
    if signal.getsignal(signal.SIGINT) is end_at_once:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def show_uncaught(kind: type[BaseException], problem: BaseException, trace: TracebackType | None) -> None:
    """For sys.excepthook: a UserError outside of main(), as of a declaration, ends a script as all others do."""
    if not isinstance(problem, UserError) or hasattr(sys, "ps1"):  # where somebody types, Python goes on
        sys.__excepthook__(kind, problem, trace)
        return
    raise SystemExit(_complain(f"error: {place_in(trace)}{problem}", problem.exit_code))


def place_in(trace: TracebackType | None) -> str:
    """The last place of a traceback that is not the engine's, as "FILE, line N: "; "" where there is none."""
    engine = f"{PROJECT / 'engine'}{os.sep}"
    places = [each for each in traceback.extract_tb(trace) if not each.filename.startswith((engine, "<"))]
    return f"{places[-1].filename}, line {places[-1].lineno}: " if places else ""


def _interrupt_again(found: sys.UnraisableHookArgs) -> None:
    """Where Ctrl-C comes while an object is deleted, Python would show it and go on as if there had been none."""
    if isinstance(found.exc_value, KeyboardInterrupt):
        again = threading.Timer(0.05, signal.pthread_kill, [threading.get_ident(), signal.SIGINT])
        again.daemon = True
        again.start()
    else:
        sys.__unraisablehook__(found)


def _end_undisturbed() -> None:
    """All is done but the end of the process, and what comes in between would show as a traceback."""
    for each in (signal.SIGINT, signal.SIGTERM):
        signal.signal(each, signal.SIG_IGN)


def _require_folder() -> None:
    try:
        Path.cwd()
    except FileNotFoundError:
        raise UserError("the folder that this command runs in is gone. Change to another one: cd") from None


@contextmanager
def importing() -> Iterator[None]:
    """Let Ctrl-C end the process at once while packages are imported: see end_at_once()."""
    usual = signal.getsignal(signal.SIGINT) is signal.default_int_handler
    if usual:
        signal.signal(signal.SIGINT, end_at_once)
    try:
        yield
    finally:
        if usual:
            signal.signal(signal.SIGINT, signal.default_int_handler)


def run_file(path: Path) -> ModuleType:
    """The Python file as a module, run anew, under a name that no other has. Raises what it raises."""
    called = f"_own_{hashlib.sha256(str(path.absolute()).encode()).hexdigest()[:16]}"
    spec = importlib.util.spec_from_file_location(called, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[called] = module  # dataclasses look their module up
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[called]
        raise
    return module


def _complain(message: str, exit_code: int) -> int:
    if message and peers.speaks():
        with suppress(OSError):  # whoever read it is gone
            print(fit_to_show(f"{peers.whose()}{message}"), file=sys.stderr)
    return exit_code


def without_quotes(words: Sequence[str]) -> str:
    """What is said where the first of the words are a path that has blanks and no quotes; "": they are none."""
    for last in range(len(words), 1, -1):
        joined = " ".join(words[:last])
        # behind folder:, and behind the name of a flag
        places = [joined, joined.partition(":")[2], joined.partition("=")[2]]
        if any(word.startswith("-") for word in words[1:last]):
            continue
        with suppress(OSError, ValueError):  # longer than a path can be
            if any(place and os.path.lexists(Path(place).expanduser()) for place in places):
                return f". A path with a space in it must be in quotes: {shlex.quote(joined)}"
    return ""


class Several(argparse.Action):
    """For a flag of several values: given again, it adds to what it was given before, not to its default."""

    def __call__(self, parser: Any, namespace: Any, values: Any, option_string: str | None = None) -> None:
        """Keep them."""
        given = vars(namespace).setdefault("given_before", set())
        before = getattr(namespace, self.dest) if self.dest in given else []
        given.add(self.dest)
        setattr(namespace, self.dest, [*before, *values])


def nearest(name: str, known: Iterable[str], cutoff: float = 0.4) -> str:
    """' Did you mean ...?', where one of the `known` names is near; else ''."""
    near = difflib.get_close_matches(name.lower(), list(known), n=1, cutoff=cutoff)
    return f" Did you mean {near[0]}?" if near else ""


def checked(flag: str, kind: Callable[[str], Value], text: str) -> Value:
    """What a type for argparse makes of a part of a flag's value. Raises UserError where it refuses it."""
    try:
        return kind(text)
    except argparse.ArgumentTypeError as problem:
        raise UserError(f"{flag}: {problem}.") from None


def whole(least: int, most: int = 2**31 - 1) -> Callable[[str], int]:
    """A type for argparse: a whole number from `least` to `most`."""

    def parse(text: str) -> int:
        try:
            number = int(text)
        except ValueError:
            number = least - 1
        if not least <= number <= most:
            raise argparse.ArgumentTypeError(f"{text!r} is not a whole number from {least} to {most}")
        return number

    return parse


def positive(text: str) -> float:
    """A type for argparse: a number above 0, and up to a million."""
    number = _number(text)
    if not 0 < number <= 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0 (and up to a million), such as 1e-3")
    return number


def share(text: str) -> float:
    """A type for argparse: a number above 0 and below 1."""
    number = _number(text)
    if not 0 < number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number between 0 and 1, such as 0.1")
    return number


def _number(text: str) -> float:
    try:
        return float(text)
    except ValueError:
        return math.nan


def at_home(text: str) -> str:
    """A type for argparse: a path with the home that a leading ~ or ~user stands for, as a shell has it.

    Shells leave a ~ as it is behind a `=` or a `:`.
    """
    user, slash, rest = text.partition("/")
    if not user.startswith("~"):
        return text
    try:
        return f"{Path(user).expanduser()}{slash}{rest}"
    except RuntimeError:
        if os.path.lexists(user):
            return text
    raise argparse.ArgumentTypeError(f"{text!r}: there is no home of {user}. A folder of that name is ./{user}")


def folder(text: str) -> Path:
    """A type for argparse: the path of a folder, which need not exist; not empty, and in UTF-8, as records are."""
    if problem := why_no_name(text):
        raise argparse.ArgumentTypeError(f"{text!a}: {problem}")
    if not text:
        raise argparse.ArgumentTypeError("the path is empty: is a shell variable not set?")
    path = Path(at_home(text))
    try:
        path.lstat()
    except OSError as error:
        if error.errno == errno.ENAMETOOLONG:
            raise argparse.ArgumentTypeError(f"{text!a} is longer than this disk takes names or paths") from None
    return path
