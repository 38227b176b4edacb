"""What is known of the labels of the images: by the folders that they lie in, or by a file that lists them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from engine.data.names import loose, nfc
from engine.errors import UserError, agreeing, counted, one_line
from engine.readers.label_file import shared_folders
from engine.readers.label_table import read_label_table
from engine.readers.layout import stem_of
from predicting.inputs import Found


class Source(Protocol):
    """What knows labels."""

    name: str

    def label_of(self, found: Found) -> str:
        """The label of an image; "": it is not known."""


@dataclass
class Truth:
    """Labels as numbers of the model's classes, and a count of what is none of these."""

    classes: Sequence[str]
    source: Source
    unlabelled: int = 0  # images whose label is not known
    strange: Counter[str] = field(default_factory=Counter)  # label that is no class -> images

    def __post_init__(self) -> None:
        self._numbers = {nfc(name): number for number, name in enumerate(self.classes)}

    def of(self, found: Found) -> tuple[str, int | None]:
        """The label of an image, "" where it is not known, and its class; None: it is none."""
        label = self.source.label_of(found)
        number = self._numbers.get(nfc(label)) if label else None
        if not label:
            self.unlabelled += 1
        elif number is None:
            self.strange[label] += 1
        return label, number

    def lines(self) -> list[str]:
        """What is said of images that the metrics are not of."""
        said = []
        if self.unlabelled:
            said.append(f"note       {counted(self.unlabelled, 'image')} without a label by {self.source.name}")
        if self.strange:
            names = ", ".join(one_line(name) for name, _ in self.strange.most_common(5))
            more = ", ..." if len(self.strange) > 5 else ""
            number = self.strange.total()
            said.append(
                f"note       {counted(number, 'image')} {agreeing(number, 'are')} of "
                f"{counted(len(self.strange), 'class')} that the model does not know ({names}{more}): not in the result"
            )
        return said


class Folders:
    """Labels by class folders: of an image in DIR/CLASS/..., or DIR itself, where that is called as a class is."""

    name = "its folder"

    def __init__(self, classes: Sequence[str]) -> None:
        self._classes = {nfc(name) for name in classes}

    def label_of(self, found: Found) -> str:
        """The first folder below the one that was given that is called as a class; else that one, if it is."""
        if not found.root:
            return ""
        *inside, _ = found.path.removeprefix(str(Path(found.root))).split("/")
        own = Path(os.path.abspath(found.root)).name  # noqa: PTH100 (which leaves no ..)
        return next((name for name in (*inside, own) if nfc(name) in self._classes), "")


class Listed:
    """Labels by a file of them. UserError: it can't be understood, or none of its labels is a class of the model."""

    def __init__(self, path: Path, classes: Sequence[str]) -> None:
        self.name = one_line(str(path))
        table = read_label_table(path, os.path.lexists)
        known = {nfc(name) for name in classes}
        labels = {row.label for row in table.rows if row.label}
        if not any(nfc(label) in known for label in labels):
            raise UserError(
                f"--labels {path}: none of its {counted(len(labels), 'label')} is a class of the model: it has "
                f"{_some(labels)}, say, and the model knows {_some(classes)}. Expected the labels that it was trained "
                "with."
            )
        self._rows: dict[str, list[tuple[list[str], str]]] = {}
        for row in table.rows:
            *folders, name = _parts(row.file)
            self._rows.setdefault(loose(name), []).append((folders, row.label))

    def label_of(self, found: Found) -> str:
        """Of the line that shares the most folders with the image's path; "" where several say different things."""
        *folders, name = _parts(found.path)
        for called in (name, stem_of(name)):
            rows = [(shared_folders(own, folders), label) for own, label in self._rows.get(loose(called), ())]
            most = max((number for number, _ in rows), default=-1)
            if most >= 0:
                labels = {label for number, label in rows if number == most}
                return labels.pop() if len(labels) == 1 else ""
        return ""


def _parts(path: str) -> list[str]:
    return [part for part in path.replace("\\", "/").split("/") if part not in ("", ".", "..")] or [path]


def _some(names: Sequence[str] | set[str]) -> str:
    return ", ".join(map(one_line, sorted(names)[:3]))
