"""A file of labels as people and Kaggle's sets have them: a line a file, with its label and perhaps part and group."""

from __future__ import annotations

import csv
import hashlib
import io
import math
import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from engine import files
from engine.data.file_kinds import IMAGE_SUFFIXES, PLUGINS, suffix_of
from engine.data.names import nfc
from engine.errors import CONTROLS, UserError, counted, listed, one_line, reason_of

MOST_BYTES = 1 << 26  # of a file with some million lines
MOST_LETTERS = 200  # of a label or a group
MOST_SHOWN = 60  # letters of what a cell says, in a message
DELIMITERS = (",", "\t", ";")
EMPTY = ("", "nan")  # the latter as pandas writes it
PARTS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
# What a column can be called, in small letters without what joins words. Of two columns of one role that of the earlier
# line is taken; two of one line are refused.
ROLES: dict[str, tuple[frozenset[str], ...]] = {
    "file": tuple(
        frozenset(words.split())
        for words in (
            "file files filename filenames filepath path imagefile imagefilename imagepath imgpath imgfile",
            "image images img imageid imgid imagename imgname photo picture",
            "id idcode name",
        )
    ),
    "label": tuple(
        frozenset(words.split())
        for words in (
            "label labels",
            "class classes classname classid classlabel labelname labelid category categoryname categoryid target",
            "diagnosis dx disease condition breed species variety level grade",
        )
    ),
    "split": tuple(frozenset(words.split()) for words in ("split set subset part partition", "fold")),
    "group": tuple(
        frozenset(words.split())
        for words in (
            "group groups groupid",
            "patient patientid subject subjectid person personid participant participantid animal animalid",
            "individual individualid case caseid lesion lesionid specimen specimenid slide slideid",
        )
    ),
}
EXPECTED = (
    "Expected a first line that names them: file (or filename, path, image, image_id, id), label (or class, category, "
    "target, diagnosis, ...) and, if you like, split (train, val, test) and group (or patient_id, ...); or a column of "
    "0 and 1 for each class. Rename the columns so."
)


@dataclass(frozen=True)
class Row:
    """What one line says of a file."""

    line: int
    file: str
    label: str  # "": it has none
    part: str = ""  # "train", "val" or "test", where the table has parts
    group: str = ""


@dataclass(frozen=True)
class LabelTable:
    """What a file of labels says."""

    rows: list[Row]
    split: str  # what its column of parts is called; "": it has none
    group: str  # likewise
    unused: tuple[str, ...]  # the columns that say nothing here
    sha256: str


Lines = list[tuple[int, list[str]]]  # the number of each, and its cells


def read_label_table(path: Path, known: Callable[[str], bool]) -> LabelTable:
    """What the file of labels `path` says; `known` tells whether a text names a file that is there.

    UserError: it can't be read, or not be understood without a doubt.
    """
    content = _content(path)
    lines = _lines(path, _text(path, content))
    _, first = lines[0]
    columns = _columns(path, first)
    if "file" not in columns:
        if not (suffix_of(first[0]) in {*IMAGE_SUFFIXES, *PLUGINS} or known(first[0])):
            raise _unclear(path, first, "which of its columns has the names of files")
        columns, first = _unnamed(path, lines), [str(number + 1) for number in range(len(first))]
    else:
        lines = lines[1:]
        if not lines:
            raise UserError(f"{path} has a first line and nothing below it. Expected a line for each file.")
    if "split" in columns and _plain(first[columns["split"]]) == "fold" and _strange(lines, columns["split"]):
        del columns["split"]  # numbers, of a cross-validation
    rest = [
        i for i, name in enumerate(first) if i not in columns.values() and not re.match(r"(unnamed.*)?$", name.lower())
    ]
    if "label" in columns:
        labels = [cells[columns["label"]] for _, cells in lines]
    elif len(rest) == 1:
        labels = [cells[rest[0]] for _, cells in lines]
        rest = []
    else:
        labels, rest = _one_hot(path, first, rest, lines), []
    parts = _parts(path, first, columns, lines)
    groups = [nfc(cells[columns["group"]]) if "group" in columns else "" for _, cells in lines]
    rows = [
        Row(number, cells[columns["file"]], _known_or_empty(label), part, group)
        for (number, cells), label, part, group in zip(lines, labels, parts, groups, strict=True)
    ]
    _check(path, rows, "group" in columns)
    names = {role: first[index] for role, index in columns.items()}
    digest = hashlib.sha256(content).hexdigest()
    return LabelTable(rows, names.get("split", ""), names.get("group", ""), tuple(first[i] for i in rest), digest)


def require_label_file(path: Path, images: Path | None = None) -> None:
    """Raise UserError where `path` is no file; it may be one below the folder `images`."""
    if path.is_file():
        return
    wrong = "does not exist"
    if images and (images / path).is_file():
        wrong += f", but {images / path} does"
    if path.is_dir():
        wrong = "is a folder"
    elif path.exists():
        wrong = "is no regular file"
    elif path.is_symlink():
        wrong = f"is a link to {path.readlink()}, where there is nothing"
    raise UserError(f"--labels {path} {wrong}. Expected a CSV file: a line a file, with its name and its label.")


def _content(path: Path) -> bytes:
    require_label_file(path)
    try:
        content = files.read_small(path, MOST_BYTES)
    except OSError as error:
        raise UserError(f"{path} can't be read: {reason_of(error)}. Make it readable.") from error
    except ValueError as error:
        raise UserError(f"{path}: {error}. Expected a CSV file: a line a file.") from error
    return content


def _text(path: Path, content: bytes) -> str:
    if content.startswith(b"PK\x03\x04"):
        raise UserError(f"{path} is a workbook of a spreadsheet, or an archive. Save it as CSV (UTF-8), and give that.")
    if content.startswith((b"\xff\xfe", b"\xfe\xff")) or b"\0" in content:
        raise UserError(f"{path} is in UTF-16, or no text. Expected text in UTF-8: save it as CSV (UTF-8).")
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise UserError(
            f"{path} is not in UTF-8: line {line:,} has the byte {content[error.start]:#x}, as files of Windows "
            f"(Latin-1) have it. Save it as CSV (UTF-8), or: iconv -f WINDOWS-1252 -t UTF-8 {path.name} > utf8.csv"
        ) from None


def _lines(path: Path, text: str) -> Lines:
    """The lines with anything in them, all of as many cells, by the delimiter that makes the most of them."""
    found = [_split(text, delimiter) for delimiter in DELIMITERS]
    lines, problem = max(found, key=lambda each: (_width(each[0]) > 1, not each[1], _width(each[0])))
    if not lines and not problem:
        raise UserError(f"{path} is empty. Expected a line a file, with its name and its label.")
    if problem:
        raise UserError(f"{path}: {problem}. Expected every line with the same columns.")
    if _width(lines) == 1:
        raise UserError(
            f"{path} has a single column ({_shown(lines[0][1][0])}). Expected the names of files and their labels, "
            "with a comma, a semicolon or a tab in between."
        )
    return lines


def _width(lines: Lines) -> int:
    return len(lines[0][1]) if lines else 0


def _split(text: str, delimiter: str) -> tuple[Lines, str]:
    """The lines, and what is wrong with the first that does not fit ("": nothing)."""
    lines: Lines = []
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, skipinitialspace=True, strict=True)
    begun = 1
    try:
        for row in reader:
            begun = reader.line_num + 1
            cells = [cell.strip() for cell in row]
            if not any(cells):
                continue
            lines.append((reader.line_num, cells))
            if len(cells) != len(lines[0][1]):
                has, first = counted(len(cells), "column"), counted(len(lines[0][1]), "column")
                return lines, f"line {reader.line_num:,} has {has}, the first {first}: put names with a comma in quotes"
    except csv.Error as error:
        begins = f", in what begins in line {begun:,}: is a quote not closed" if reader.line_num > begun else ""
        return lines, f"line {reader.line_num:,}: {error}{begins}"
    return lines, ""


def _plain(name: str) -> str:
    """A column's name as ROLES has it."""
    return re.sub(r"[\W_]+", "", nfc(name).casefold())


def _columns(path: Path, first: Sequence[str]) -> dict[str, int]:
    """Role -> the column that has it, by its name."""
    found = {}
    for role, ranks in ROLES.items():
        for names in ranks:
            own = [index for index, name in enumerate(first) if _plain(name) in names]
            if len(own) > 1:
                raise _unclear(
                    path, first, f"which of {' and '.join(_shown(first[index]) for index in own)} is the {role}"
                )
            if own:
                found[role] = own[0]
                break
    return found


def _unclear(path: Path, first: Sequence[str], what: str) -> UserError:
    shown = ", ".join(map(_shown, first[:30])) + (", ..." if len(first) > 30 else "")
    return UserError(f"{path}: it is not clear {what}. Its columns: {shown}. {EXPECTED}")


def _unnamed(path: Path, lines: Lines) -> dict[str, int]:
    """The columns of a file without names of them: file, label, and perhaps part and group, in this order."""
    width = _width(lines)
    if width > 4 or (width > 2 and _strange(lines, 2)):
        raise _unclear(path, lines[0][1], "what its columns are")
    return dict(zip(("file", "label", "split", "group"), range(width), strict=False))


def _strange(lines: Lines, column: int) -> Counter[str]:
    """What a column has that is no part."""
    return Counter(cells[column] for _, cells in lines if cells[column].casefold() not in PARTS)


def _parts(path: Path, first: Sequence[str], columns: dict[str, int], lines: Lines) -> list[str]:
    if "split" not in columns:
        return [""] * len(lines)
    column = columns["split"]
    if strange := _strange(lines, column):
        what = (f"{_shown(text) or 'nothing'}: {counted(times, 'line')}" for text, times in strange.most_common())
        raise UserError(
            f"{path}: its column {_shown(first[column])} has what is no part:{listed(what, 10)}\nExpected train, val "
            "or test in every line. Write these, or rename the column, to have test images held out at random."
        )
    return [PARTS[cells[column].casefold()] for _, cells in lines]


def _one_hot(path: Path, first: Sequence[str], columns: Sequence[int], lines: Lines) -> list[str]:
    """The label of each line where each class has a column: the one that has a 1."""
    values = {"0": 0, "1": 1, "0.0": 0, "1.0": 1}
    odd = [index for index in columns if any(cells[index] not in values for _, cells in lines)]
    if len(columns) < 2 or odd:
        raise _unclear(path, first, "which of its columns is the label")
    labels, several = [], []
    for number, cells in lines:
        own = [first[index] for index in columns if values[cells[index]]]
        labels.append(own[0] if own else "")
        if len(own) > 1:
            several.append(f"line {number:,}: {' and '.join(map(_shown, own))}")
    if several:
        raise _multiple(path, several)
    return labels


def _multiple(path: Path, lines: Sequence[str]) -> UserError:
    return UserError(
        f"{path} gives several classes to an image ({len(lines):,}):{listed(lines)}\nExpected one class an image. "
        "Choose one of them, make a class of each combination, or remove these lines."
    )


def _known_or_empty(label: str) -> str:
    return "" if label.casefold() in EMPTY else nfc(label)


def _check(path: Path, rows: Iterable[Row], grouped: bool) -> None:
    """Raise UserError where a line has no file, several labels, no group, or texts that are none."""
    several, wrong = [], []
    for row in rows:
        if "|" in row.label:
            several.append(f"line {row.line:,}: {_shown(row.label)}")
        if not row.file:
            wrong.append(f"line {row.line:,} names no file")
        if grouped and row.group.casefold() in EMPTY:
            wrong.append(f"line {row.line:,} has no group")
        for text in (row.label, row.group):
            if len(text) > MOST_LETTERS or CONTROLS.search(text):
                wrong.append(f"line {row.line:,}: {_shown(text)}, which is no name")
    if several:
        raise _multiple(path, several)
    if wrong:
        raise UserError(f"{path} has lines that say too little ({len(wrong):,}):{listed(wrong)}\nMend or remove these.")


def in_order(labels: Iterable[str]) -> list[str]:
    """Labels sorted: by their values, where all are numbers."""
    known = list(labels)

    def value(label: str) -> float:
        try:
            return float(label)
        except ValueError:
            return math.nan

    values = {label: value(label) for label in known}
    numbers = all(map(math.isfinite, values.values()))
    return sorted(known, key=lambda label: (values[label] if numbers else 0.0, label))


def _shown(text: str) -> str:
    """What a cell says, as a message shows it."""
    return one_line(text if len(text) <= MOST_SHOWN else f"{text[:MOST_SHOWN]}...")
