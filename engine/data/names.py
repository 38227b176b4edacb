"""Names of files and classes, compared as people read them: macOS keeps "é" as two characters, most others as one."""

import unicodedata
from collections.abc import Iterable
from pathlib import Path

from engine.errors import UserError, listed


def nfc(name: str) -> str:
    """The name with its letters composed, by which names from two places are compared; files are opened by their own.

    https://unicode.org/reports/tr15/
    """
    return unicodedata.normalize("NFC", name)


def loose(path: str) -> str:
    """What is left of a path where capitals, composed letters and .jpeg for .jpg make no difference."""
    name = nfc(nfc(path).casefold())
    return f"{name[:-5]}.jpg" if name.endswith(".jpeg") else name


def composed(names: Iterable[str], folder: Path) -> dict[str, str]:
    """Composed name -> the name as it is in `folder`. UserError: two are one, which no message could tell apart."""
    own: dict[str, list[str]] = {}
    for name in sorted(names):
        own.setdefault(nfc(name), []).append(name)
    if twice := [" and ".join(map(ascii, same)) for same in own.values() if len(same) > 1]:
        raise UserError(
            f"{folder} has names that read the same, since an accented letter can be one character or two:"
            f"{listed(twice)}\nExpected each once: move what is in one of them into the other, and remove it."
        )
    return {name: same[0] for name, same in own.items()}


def told_apart(names: Iterable[str]) -> dict[str, str]:
    """Name -> how a message shows it: in quotes and ASCII where another of them looks nearly the same."""
    alike: dict[str, list[str]] = {}
    for name in set(names):
        letters = (letter for letter in unicodedata.normalize("NFKC", name).casefold() if letter.isprintable())
        alike.setdefault("".join("".join(letters).split()), []).append(name)
    return {name: name if len(same) == 1 else ascii(name) for same in alike.values() for name in same}
