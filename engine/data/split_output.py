"""What split.py writes: the parts with their images, and split.json, which lists them."""

import errno
import os
import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from engine.console import bar
from engine.data.file_kinds import is_notes_of_system
from engine.data.new_folder import own_entries, replacing, require_place
from engine.data.splits import split_hash
from engine.errors import UserError, listed
from engine.files import is_sealed, json_digest, read_json, write_json

SPLIT_FILE = "split.json"
FORMAT = 1  # of split.json, raised when a reader has to know
FIELDS = frozenset(["format", "hash", "options", "classes", "counts", "files", "groups"])
MOST_BYTES = 1 << 29  # of split.json, as of three million images
MADE_OF = frozenset(["train", "val", "test", SPLIT_FILE])


def check_output(source: Path, output: Path, overwrite: bool) -> None:
    """UserError unless `output` can be made from what is in `source`, both resolved.

    It must lie apart, and be absent, empty or, with `overwrite`, an earlier output: its split.json, the parts with the
    images that it lists, and nothing else, since all of it goes, but for what systems leave in every folder and make
    anew.
    """
    if source == output:
        raise UserError(f"Input and output are the same folder, {source}. Expected two: choose another output.")
    if output.is_relative_to(source):
        raise UserError(
            f"The output {output} lies in the input {source}, where it would be taken for a class."
            " Expected it outside: choose another output."
        )
    if source.is_relative_to(output):
        raise UserError(f"The input {source} lies in the output {output}. Expected it outside: choose another output.")
    require_place(output, "split")
    names = own_entries(output)
    if not names:
        return
    strangers = [name for name in names if name not in MADE_OF] or _not_made(output)
    if strangers or not _is_split(output / SPLIT_FILE):
        raise UserError(
            f"{output} holds what split.py did not make:{listed(strangers or names)}\n"
            "Expected a new or an empty folder. Choose another output; --overwrite replaces nothing but an"
            " earlier output of split.py."
        )
    if not overwrite:
        raise UserError(
            f"{output} already holds a split. Expected a new or an empty folder. Choose another output,"
            " or add --overwrite to replace it."
        )


def _not_made(output: Path) -> list[str]:
    """The files in the parts that its split.json does not list, or lists with another size; [] where it is none."""
    try:
        files = read_json(output / SPLIT_FILE, MOST_BYTES)["files"]
        sizes = {f"{part}/{name}": size for part, images in files.items() for name, size in images.items()}
    except (OSError, ValueError, LookupError, TypeError, AttributeError):
        return []
    found = []
    for part in sorted(files):
        for folder, below, names in os.walk(output / part):
            below[:] = sorted(name for name in below if not is_notes_of_system(name))
            paths = [Path(folder, name) for name in sorted(names) if not is_notes_of_system(name)]
            found += [path for path in paths if not _is_of_size(path, sizes.get(str(path.relative_to(output))))]
    return [str(path.relative_to(output)) for path in found]


def _is_of_size(path: Path, size: int | None) -> bool:
    """Whether a listed file has the size it is listed with; one of which there is another name may have changed."""
    status = path.lstat()
    return size is not None and (path.is_symlink() or status.st_nlink > 1 or status.st_size == size)


def _is_split(path: Path) -> bool:
    """Whether this split.json is one of ours: other programs use the name too."""
    try:
        return _is_ours(read_json(path, MOST_BYTES))
    except (OSError, ValueError):
        return False


def _is_ours(content: Any) -> bool:
    """Whether split.py wrote it, if it has lost a field since."""
    return isinstance(content, dict) and ({"format", "hash", "files"} <= content.keys() or len(FIELDS & {*content}) > 4)


def read_record(path: Path) -> dict[str, Any] | None:
    """What split.py wrote as split.json; None: there is no such file, or it is another program's.

    ValueError: it is damaged, has been changed, or is of a later version. OSError: it can't be read.
    """
    try:
        content: dict[str, Any] = read_json(path, MOST_BYTES)
    except FileNotFoundError:
        return None
    if not _is_ours(content):
        return None
    if lacking := FIELDS - content.keys():
        raise ValueError(f"it lacks {', '.join(sorted(lacking))}")
    if content["format"] != FORMAT:
        raise ValueError(f"its format is {content['format']!r}, and this version reads {FORMAT}")
    signed = content.get("sha256")
    if signed is not None and not is_sealed({key: value for key, value in content.items() if key != "sha256"}, signed):
        raise ValueError("it does not have the checksum that it states")
    try:
        _check_listing(content)
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"{type(error).__name__}: {error!s:.100}") from error
    return content


def _check_listing(content: Mapping[str, Any]) -> None:
    """Raise ValueError, or what a value of a wrong type raises, where the parts, groups and the hash do not agree."""
    labels = {name: label for label, name in enumerate(content["classes"])}
    parts = {
        part: [(name, labels[name.partition("/")[0]]) for name in names] for part, names in content["files"].items()
    }
    if split_hash(parts) != content["hash"]:
        raise ValueError("its hash is that of other files")
    groups, regex = content["groups"], content["options"]["group_regex"]
    column = (content["options"].get("labels") or {}).get("group")  # of the file of labels
    if (groups is None) != (regex is None and column is None):
        raise ValueError(f"it has {'no ' if groups is None else ''}groups, but the option group_regex {regex!r}")
    if groups is not None and groups.keys() != {name for names in parts.values() for name, _ in names}:
        raise ValueError("it has groups of other files")


def check_apart(source: Path, output: Path, names: Iterable[str]) -> None:
    """UserError: images of the input are links into an old output, which is about to go."""
    if not output.exists():
        return
    inside = [name for name in names if Path(os.path.realpath(source / name)).is_relative_to(output)]
    if inside:
        raise UserError(
            f"Images of the input are links into {output}, which would be replaced ({len(inside):,}):"
            f"{listed(sorted(inside))}\nExpected the input to stand alone: choose another --output_dir."
        )


def write(
    originals: Mapping[str, Path],
    output: Path,
    parts: Mapping[str, Sequence[str]],
    link: str,
    record: Mapping[str, Any],
    overwrite: bool,
) -> None:
    """Make `output`, all of it or nothing: part/class/image for those of `parts`, `record` as split.json.

    originals: "class/image" -> where it lies.
    link: "copy", "soft" or "hard". UserError: the disk can't hold such links.
    """
    with replacing(output, overwrite) as folder:
        pairs = [(originals[name], folder / part / name) for part, names in parts.items() for name in names]
        for parent in {target.parent for _, target in pairs}:
            parent.mkdir(parents=True, exist_ok=True)
        for original, target in bar(pairs, unit=" images"):
            _place(original, target, link)
        write_json(folder / SPLIT_FILE, {**record, "sha256": json_digest(record)})


def _place(original: Path, target: Path, link: str) -> None:
    """Copy or link one image. UserError: the disk can't hold such a link, or takes two names for the same."""
    if os.path.lexists(target):
        raise UserError(
            f"The output's disk does not tell {target.name} from another name, that differs in capitals perhaps."
            " Expected every name once: rename one, or choose an output on another disk."
        )
    if link == "copy":
        shutil.copyfile(original, target)
        return
    try:
        if link == "soft":
            target.symlink_to(original)
        else:
            os.link(os.path.realpath(original), target)
    except OSError as error:
        if error.errno not in (errno.EXDEV, errno.EPERM, errno.EMLINK, errno.ENOTSUP, errno.ENOSYS):
            raise
        others = "soft or --link copy" if link == "hard" else "copy"
        raise UserError(
            f"{original} can't be linked from the output's disk ({error.strerror}). Expected a disk that takes"
            f" {link} links to it: use --link {others}."
        ) from None
