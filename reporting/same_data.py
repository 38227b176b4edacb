"""Which records are of the same images and of the same code, whatever their folders are called."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import PurePath

from reporting.entry import Entry

UNKNOWN_CODE = "not recorded"


def told_apart(entries: Sequence[Entry]) -> list[Entry]:
    """The entries, with names of their own for folders of one name that hold other images.

    A folder that was moved, or whose images were changed, is still the same: of its versions one is compared.
    """
    folders: dict[str, list[Entry]] = defaultdict(list)
    for entry in entries:
        if not entry.published and entry.place and entry.version.test_part:
            folders[entry.version.key].append(entry)
    renamed: dict[int, Entry] = {}
    for members in folders.values():
        several = _connected(members)
        names = _names([[entry.place for entry in each] for each in several])
        for each, name in zip(several, names, strict=True) if len(several) > 1 else ():
            for entry in each:
                version = replace(entry.version, key=f"{entry.version.key} ({name})")
                renamed[id(entry)] = replace(entry, version=version, name=name)
    return [renamed.get(id(entry), entry) for entry in entries]


def _connected(entries: Iterable[Entry]) -> list[list[Entry]]:
    """The entries by folder: two are of one folder if their place or their test part is the same, or through others."""
    groups: list[tuple[set[str], list[Entry]]] = []
    for entry in entries:
        marks, members = {f"place {entry.place}", f"test {entry.version.test_part}"}, [entry]
        for group in [group for group in groups if group[0] & marks]:
            groups.remove(group)
            marks, members = marks | group[0], group[1] + members
        groups.append((marks, members))
    return [members for _, members in groups]


def _names(places: Sequence[Sequence[str]]) -> list[str]:
    """What to call each of several folders: as much of the end of its path as tells it from the others."""
    paths = [PurePath(min(each)).parts for each in places]
    for parts in range(1, max(map(len, paths)) + 1):
        names = ["/".join(path[-parts:]) for path in paths]
        if len(set(names)) == len(names):
            break
    return names


def without_common_code(entries: Sequence[Entry]) -> list[Entry]:
    """The entries; their settings say which code made them only where other code made others of the same setting."""
    codes = defaultdict(set)
    for entry in entries:
        codes[replace(entry.setting, code="")].add(entry.setting.code)

    def named(entry: Entry) -> Entry:
        several = len(codes[replace(entry.setting, code="")]) > 1
        code = (entry.setting.code or UNKNOWN_CODE) if several else ""
        return entry if code == entry.setting.code else replace(entry, setting=replace(entry.setting, code=code))

    return [named(entry) for entry in entries]
