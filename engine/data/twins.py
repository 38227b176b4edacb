"""Names of classes that are nearly the same, as where one of them was mistyped."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Iterator
from itertools import combinations

from engine.data.names import nfc

SINGULAR = 3  # letters, at least, of a word whose plural is looked for
SHORTEST = 5  # letters of a word in which a letter too many, too few or out of place is taken for a slip
LONG = 8  # letters of one in which any other letter is, too: plate and plane are two words, as are many short ones
MOST_ALIKE = 8  # names that one slip could turn into each other: more are a series
WORD = re.compile(r"\d+|[^\d ]+")
ACCENTS = re.compile(r"[\u0300-\u036f]")  # of Latin, Greek and Cyrillic letters; those of other scripts are letters
HUMP = re.compile(r"(?<=[^\W\d_A-Z])(?=[A-Z])")  # between the words of "SeaLake"


def near_twins(names: Iterable[str]) -> list[list[str]]:
    """The names that are perhaps meant to be the same, in sorted groups of two or more, themselves sorted.

    They differ in nothing but capitals, accents and what is between words; or by a plural; or by a slip in one word.
    Numbers, and single letters in place of them, are always meant: class_01 is not class_02, nor rose_a rose_b.
    """
    own: dict[str, list[str]] = {}
    words: dict[str, tuple[str, ...]] = {}
    for name in sorted(set(names)):
        found = _words(name)
        key = _joined(found) or nfc(name).strip()
        own.setdefault(key, []).append(name)
        words.setdefault(key, found)
    group = {key: {key} for key in own}
    for one, other in (*_plurals(words), *_slips(words)):
        whole = group[one] | group[other]
        group.update(dict.fromkeys(whole, whole))
    found_groups = {frozenset(keys) for keys in group.values()}
    twins = [sorted(name for key in keys for name in own[key]) for keys in found_groups]
    return sorted(names for names in twins if len(names) > 1)


def _words(name: str) -> tuple[str, ...]:
    """A name's words and numbers, small and without accents; signs such as + belong to a word, what parts words not."""
    plain = unicodedata.normalize("NFC", ACCENTS.sub("", unicodedata.normalize("NFKD", HUMP.sub(" ", nfc(name)))))
    parted = "".join(" " if unicodedata.category(letter)[0] in "CPZ" else letter for letter in plain)
    return tuple(WORD.findall(parted.casefold()))


def _joined(words: Iterable[str]) -> str:
    """The words as one, but for numbers side by side, which would become another."""
    text = ""
    for word in words:
        text += f" {word}" if text[-1:].isdigit() and word[0].isdigit() else word
    return text


def _plurals(words: dict[str, tuple[str, ...]]) -> Iterator[tuple[str, str]]:
    """The pairs of keys of which one has a word in the plural."""
    for key, own in words.items():
        for place, word in enumerate(own):
            for end, instead in (("s", ""), ("es", ""), ("ies", "y")):
                singular = word.removesuffix(end) + instead
                if word.endswith(end) and len(singular) >= SINGULAR:
                    other = _joined((*own[:place], singular, *own[place + 1 :]))
                    if other in words and other != key:
                        yield key, other


def _slips(words: dict[str, tuple[str, ...]]) -> Iterator[tuple[str, str]]:
    """The pairs of keys whose words are the same but for one, in which there is a slip."""
    near: dict[tuple[str, ...], list[tuple[str, str]]] = {}  # words, one without a letter -> the keys, and that one
    for key, own in words.items():
        for place, word in enumerate(own):
            if len(word) >= SHORTEST and word.isalpha():
                for less in {word, *(word[:letter] + word[letter + 1 :] for letter in range(len(word)))}:
                    near.setdefault((*own[:place], f"{less}?", *own[place + 1 :]), []).append((key, word))
    for found in near.values():
        if len(found) <= MOST_ALIKE:
            yield from (
                (key, other) for (key, word), (other, second) in combinations(found, 2) if _is_slip(word, second)
            )


def _is_slip(word: str, other: str) -> bool:
    """Whether a letter more, less or other, or two that changed places, make one of two words the other."""
    shorter = min(len(word), len(other))
    begin = next((place for place in range(shorter) if word[place] != other[place]), shorter)
    rest = shorter - begin
    end = next((place for place in range(rest) if word[-1 - place] != other[-1 - place]), rest)
    changed = word[begin : len(word) - end], other[begin : len(other) - end]
    if not begin:  # few mistype the first letter, and many words rhyme
        return False
    if len(word) != len(other):
        return sorted(map(len, changed)) == [0, 1]
    if len(changed[0]) == 1:
        vowels = all(letter in "aeiouy" for letter in changed)
        return vowels or (shorter >= LONG and end > 0)
    return len(changed[0]) == 2 and changed[0] == changed[1][::-1]
