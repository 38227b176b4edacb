"""Names of files and classes, compared as people read them: macOS keeps "é" as two characters, most others as one."""

import unicodedata
from collections.abc import Iterable
from pathlib import PurePosixPath


def nfc(name: str) -> str:
    """The name with every letter composed, by which names from two places are compared; files are opened by their own.

    https://unicode.org/reports/tr15/
    """
    return unicodedata.normalize("NFC", name)


def loose(path: str) -> str:
    """What is left of a path where capitals, composed letters and .jpeg for .jpg make no difference."""
    name = unicodedata.normalize("NFC", unicodedata.normalize("NFC", path).casefold())
    return name.removesuffix(".jpeg") + ".jpg" if name.endswith(".jpeg") else name


def visible(name: str) -> str:
    """The name as a message shows it: with every character that isn't plain text spelled out, as in 'cafe\\u0301'."""
    plain = name.isprintable() and name == name.strip() and name == unicodedata.normalize("NFKC", name)
    return name if plain else ascii(name)


def alike(names: Iterable[str]) -> list[list[str]]:
    """The groups of two and more among `names` that people take for the same: capitals, blanks, composed letters."""
    groups: dict[str, list[str]] = {}
    for name in sorted(set(names)):
        letters = (letter for letter in unicodedata.normalize("NFKC", name).casefold() if letter.isprintable())
        groups.setdefault(" ".join("".join(letters).split()), []).append(name)
    return [group for group in groups.values() if len(group) > 1]


def spelled(name: str) -> str:
    """`name` beside another that looks the same: every character that is not ASCII as its number."""
    return ascii(name)


def suffix_of(name: str) -> str:
    """The suffix, in small letters."""
    return PurePosixPath(name).suffix.lower()
