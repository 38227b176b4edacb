"""What the names of folders and images say against their being classes, and against their being images of their own."""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterable, Mapping, Sequence

from engine.data.file_kinds import IMAGE_SUFFIXES, PLUGINS, suffix_of
from engine.errors import agreeing, counted, one_line

PART = re.compile(
    r"(?:^|[\W\d_])(train|training|test|testing|val|valid|validation|dev|pred|predict)(?:$|[\W\d_])", re.IGNORECASE
)
# by which datasets for detection and segmentation are laid out: each image has its own in every folder
KIND_OF_FILE = re.compile(
    r"annotations?|bbox(es)?|boxes|ground_?truth|gt|(jpeg)?images?|imgs?|json|labels?|masks?|segmentations?|xml",
    re.IGNORECASE,
)
# what is put to an image's name in that of its mask
MASK = re.compile(
    r"[ _.-]*(mask|masks|seg|segmentation|groundtruth|ground_truth|gt|annotation|overlay)[ _.-]*\d*$", re.I
)
# what Roboflow puts to the names of the versions that it makes of an image: photo_jpg.rf.0a1b2c
VERSION = re.compile(r"\.rf\.[0-9A-Za-z]+$")


def is_part(name: str) -> bool:
    """Whether a folder is called as a part of a dataset, as training_set, seg_test or "1 - valid" are."""
    return bool(PART.search(name))


def is_kind_of_file(name: str) -> bool:
    """Whether a folder is called after what its files are, as images/ and masks/ are, and not after a class."""
    return bool(KIND_OF_FILE.fullmatch(name))


def stem_of(name: str) -> str:
    """An image's name without the suffix of a format; what else follows a dot can be a part of a number."""
    suffix = suffix_of(name.rpartition("/")[2])
    return name[: -len(suffix)] if suffix in IMAGE_SUFFIXES or suffix in PLUGINS else name


def layout_notes(classes: Mapping[str, Sequence[str]]) -> list[str]:
    """What is said of the images of class folders, class -> "class/sub/image.png", that are perhaps not meant so."""
    notes = []
    inside = [_folders(classes[name]) for name in sorted(classes)]
    same = sorted(set.intersection(*inside) if inside else ())
    if len(classes) > 1 and len(same) > 1 and not any("" in folders for folders in inside):
        shown = ", ".join(map(one_line, same[:3])) + (", ..." if len(same) > 3 else "")
        found = f"every class folder has the same {len(same):,} folders in it ({shown})"
        first = one_line(min(classes))
        if all(map(is_part, same)):
            notes.append(
                f"{found}, which are taken together and split anew: if they are parts, these come first, as in "
                f"DIR/{same[0]}/{first}"
            )
        else:
            command = f"python folder.py {shlex.quote(f'DIR/{first}')} --check"
            notes.append(f"{found}: if these are the classes, give a folder that holds each once, such as: {command}")
    elif len(classes) > 1 and all(_are_words(folders) for folders in inside):
        notes.append(
            f"all images lie in folders inside the class folders, {sum(map(len, inside)):,} in all (such as "
            f"{one_line(f'{min(classes)}/{min(inside[0])}')}): if these are the classes, move them one level up"
        )
    names = [name for images in classes.values() for name in images]
    stems = [stem_of(name) for name in names]
    there = set(stems)
    masks = [name for name, stem in zip(names, stems, strict=True) if _source(MASK, stem) in there]
    versions = len(stems) - len({VERSION.sub("", stem) for stem in stems}) if any(map(VERSION.search, stems)) else 0
    for number, what, advice in (
        (
            len(masks),
            f"called as masks of others ({one_line(masks[0]) if masks else ''})",
            "if they are, move them elsewhere",
        ),
        (versions, "versions of others (.rf.)", "split.py keeps them together with --group_regex '^(.*?)[.]rf[.]'"),
        (len(stems) - len(there), "called as others but for the suffix", "if they are the same pictures, remove them"),
    ):
        if number:
            notes.append(f"{counted(number, 'image')} {agreeing(number, 'are')} {what}: {advice}")
    return notes


def _folders(images: Iterable[str]) -> set[str]:
    """The folders in a class folder in which its images lie; "" for the class folder itself."""
    return {name.split("/")[1] if name.count("/") > 1 else "" for name in images}


def _are_words(folders: Collection[str]) -> bool:
    """Whether there are several, called as classes are: those of patients, days and cameras have numbers."""
    return len(folders) > 1 and not any(name == "" or re.search(r"\d", name) for name in folders)


def _source(pattern: re.Pattern[str], stem: str) -> str | None:
    """The stem without what the pattern finds at its end; None where it finds nothing."""
    match = pattern.search(stem)
    return stem[: match.start()] if match else None
