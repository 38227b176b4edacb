"""argparse with errors in this project's own form, and types for what flags take."""

import argparse
import math
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from engine.errors import UserError


class Parser(argparse.ArgumentParser):
    """Raises a wrong command line as the UserError that every other mistake is."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message}{'' if message.endswith('?') else '.'} See python {self.prog} --help")


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


def rate(text: str) -> float:
    """A type for argparse: a number above 0."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number <= 1e6:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number above 0 (and up to a million), such as 1e-3")
    return number


def share(text: str) -> float:
    """A type for argparse: a number above 0 and below 1."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number between 0 and 1, such as 0.1")
    return number


def folder(text: str) -> Path:
    """A type for argparse: the path of a folder, which need not exist; not empty, and in UTF-8, as records are."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise argparse.ArgumentTypeError(f"{text!r} is not valid UTF-8") from None
    if not text:
        raise argparse.ArgumentTypeError("the path is empty: is a shell variable not set?")
    return Path(text)
