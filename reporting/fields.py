"""The values of a record's fields, held to be what they should be."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable
from typing import Any, TypeVar

from engine.errors import CONTROLS

Value = TypeVar("Value")
LONGEST_SHOWN = 1000  # letters
LONGEST_PATH = 4096
LARGEST_NUMBER = 1e18
LONGEST_LIST = 100  # values of a flag
# of no width, by which two names would look equal; but for the joiners, of which words and emoji are made
INVISIBLE = re.compile("[\u00ad\u180e\u200b\u2060-\u206f\ufeff\ufff9-\ufffb\U000e0000-\U000e007f]")


def clean(raw: str, lines: bool = False) -> str:
    """The text without what UTF-8 can't hold (halves of characters, bytes of file names that are no text), and without
    control characters, of which U+FFFD takes the place. With `lines` it keeps ends of lines, as \\n, and tabs.
    """
    if raw.isprintable():  # nearly every text, and much the fastest
        return raw
    raw = raw.encode("utf-8", "replace").decode()
    if lines:
        raw = raw.replace("\r\n", "\n")
    raw = CONTROLS.sub(lambda match: match[0] if lines and match[0] in "\n\t" else "\N{REPLACEMENT CHARACTER}", raw)
    return INVISIBLE.sub("\N{REPLACEMENT CHARACTER}", raw)


def shortened(raw: str, most: int = LONGEST_SHOWN, lines: bool = False) -> str:
    """The text as `clean` leaves it, cut where it is longer than anybody reads."""
    return clean(raw if len(raw) <= most else f"{raw[: most - 3]}...", lines)


def text(value: Any, most: int = LONGEST_SHOWN) -> str:
    """The value, which must be a text of at most so many letters, as `clean` leaves it. Raises TypeError."""
    if not isinstance(value, str):
        raise TypeError(f"expected a text, found {value!r:.40}")
    if len(value) > most:
        raise TypeError(f"expected a text, found one of {len(value):,} letters: {value[:40]!r}")
    return clean(value)


def whole(value: Any) -> int:
    """The value, which must be a whole number and not negative, such as a machine counts with. Raises TypeError."""
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= sys.maxsize:
        raise TypeError(f"expected a whole number, found {value!r:.40}")
    return value


def number(value: Any) -> float:
    """The value, which must be a number that can be squared and added up. Raises TypeError."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not abs(value) <= LARGEST_NUMBER:
        raise TypeError(f"expected a number, found {value!r:.40}")
    return float(value)


def option(value: Any) -> Any:
    """The value of a command's flag, such that it can be compared and hashed. Raises TypeError."""
    if isinstance(value, list) and len(value) <= LONGEST_LIST:
        return tuple(option(each) for each in value)
    if isinstance(value, str):
        return text(value)
    if not isinstance(value, bool) and value is not None:
        number(value)
    return value


def maybe(kind: Callable[[Any], Value], value: Any) -> Value | None:
    """The value, which must be null or what `kind` takes. Raises as that."""
    return None if value is None else kind(value)


def some(values: Any, most: int) -> list[Any]:
    """The values, which must be a list of at most so many. Raises TypeError."""
    if not isinstance(values, list):
        raise TypeError(f"expected a list, found {values!r:.40}")
    if len(values) > most:
        raise TypeError(f"expected {most:,} values at most, found {len(values):,}")
    return values
