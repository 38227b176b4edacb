"""What rank.py found out about a dataset, as files below the folder of runs: the scores, and the search that followed.

OUT/rank/<dataset key>-<digest>.rank.json has the scores, with a checksum; .search.json beside it, where there was one,
says how successive halving went.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from engine.errors import reason_of
from engine.files import is_sealed, json_digest, read_json, write_json
from engine.records.schema import RANK_FOLDER
from reporting.fields import Value, clean, maybe, number, shortened, some, text, whole
from reporting.search_results import MOST_BACKBONES, Search, as_search

SCHEMA = 1  # raised when a field changes its meaning
SCORES = ("knn1", "knn5", "probe", "logme", "hscore")
RANKED, SEARCHED = ".rank.json", ".search.json"  # how the files' names end
LARGEST = 4 << 20  # bytes of a file: 1,000 backbones have 0.5 MiB
# what a file can say and a report still shows
MOST_NOTES, MOST_RESULTS = 50, 50
MISTAKES = (KeyError, TypeError, ValueError, AttributeError, IndexError, ArithmeticError)


class RankError(ValueError):
    """A file is no result that can be used; the message says why."""


@dataclass(frozen=True)
class RankedData:
    """What was ranked for."""

    key: str
    name: str
    domain: str
    version: str
    split: str  # its hash
    test_part: str  # a hash of the test images and their labels, which were not looked at
    classes: int
    train_images: int
    size: tuple[int, int]  # pixels


@dataclass(frozen=True)
class RankedBackbone:
    """A backbone whose features were scored."""

    name: str
    weights: str
    weights_sha256: str | None
    top1: float | None  # on ImageNet, percent, of exactly these weights
    mean_rank_elsewhere: float | None  # over the user's own records of other datasets
    scores: Mapping[str, float | None]  # by SCORES; more is better
    pass_seconds: float | None  # of the pass that computed the features; None: it is not known
    train_images_per_second: float | None  # of fine-tuning
    speed_from: str | None  # "records", "plan" or "steps"
    parameters: int
    macs: int  # of one forward pass of one image


@dataclass(frozen=True)
class RankResult:
    """The order of backbones for a dataset, and what it rests on."""

    made: str  # UTC, ISO 8601
    dataset: RankedData
    backbones: tuple[RankedBackbone, ...]
    order: tuple[str, ...]  # names, the best first
    mean_rank: Mapping[str, float]  # by name; what the order is by, less is better
    rule: str  # how the order comes about, in words
    left_out: tuple[Mapping[str, str], ...] = ()  # name, reason
    notes: tuple[str, ...] = ()
    seed: int = 0
    code: str = ""  # a hash of the code that made it


@dataclass(frozen=True)
class Found:
    """One result, and the search that followed it."""

    path: str  # below the folder of all runs
    result: RankResult
    search: Search | None = None


@dataclass
class Results:
    """What lies in a folder's RANK_FOLDER."""

    found: list[Found] = field(default_factory=list)  # the newest first
    skipped: list[dict[str, str]] = field(default_factory=list)  # path, reason


def path_of(out: Path, key: str, digest: str, ending: str = RANKED) -> Path:
    """Where a result lies; `digest` is of what was asked for."""
    return out / RANK_FOLDER / f"{key}-{digest}{ending}"


def write(result: RankResult, path: Path) -> None:
    """Write a result, with a checksum, all at once. Raises ValueError where a number in it is not finite."""
    _write({"schema": SCHEMA, **asdict(result)}, path)


def write_search(content: Mapping[str, Any], path: Path) -> None:
    """Write how a search went, likewise, as read_search() reads it."""
    _write(content, path)


def _write(content: Mapping[str, Any], path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    write_json(path, {**content, "checksum": json_digest(content)})


def read(path: Path) -> RankResult:
    """Read a result. Raises RankError where it is damaged or none of ours, and OSError where it can't be read."""
    content = _content(path)
    if content.get("schema") != SCHEMA:
        raise RankError(f"has schema {shortened(str(content.get('schema')), 40)}; this version reads {SCHEMA}")
    _require_checksum(content)
    try:
        return _result(content)
    except MISTAKES as problem:
        raise RankError(_damage(problem)) from problem


def read_search(path: Path) -> Search:
    """Read how a search went; what its file does not say is not known. Raises as read()."""
    content = _content(path)
    _require_checksum(content)
    try:
        return as_search(content)
    except MISTAKES as problem:
        raise RankError(_damage(problem)) from problem


def _require_checksum(content: Mapping[str, Any]) -> None:
    if "checksum" not in content:
        raise RankError("damaged: it has no checksum")


def _damage(problem: Exception) -> str:
    what = f"it lacks {problem}" if isinstance(problem, KeyError) else f"a field is not what it should be: {problem}"
    return f"damaged: {what}"


def _content(path: Path) -> dict[str, Any]:
    """What a file holds, which is what was written. Raises as read()."""
    try:
        content = read_json(path, LARGEST)
    except ValueError as problem:
        raise RankError(f"not readable JSON: {problem}") from problem
    if not isinstance(content, dict):
        raise RankError("no result of rank.py")
    rest = {name: value for name, value in content.items() if name != "checksum"}
    if "checksum" in content and not is_sealed(rest, content["checksum"]):
        raise RankError("damaged: something in it was changed after it was written (its checksum differs)")
    return content


def results(runs: Path) -> Results:
    """All results below a folder of runs; what is damaged or foreign is skipped with a reason."""
    folder = runs / RANK_FOLDER
    try:
        names = sorted(path.name for path in folder.iterdir() if not path.name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return Results()
    except OSError as problem:
        return Results([], [{"path": RANK_FOLDER, "reason": f"can't be read: {reason_of(problem)}"}])
    return in_folder(folder, names)


def in_folder(folder: Path, names: Sequence[str]) -> Results:
    """The results among the files of these names; others, such as features, are not the report's business."""
    all_ = Results()
    ranked = [name for name in names if name.endswith(RANKED)]
    for name in ranked:
        if result := _or_skipped(read, folder / name, all_):
            all_.found.append(Found(f"{RANK_FOLDER}/{clean(name)}", result))
    all_.found.sort(key=lambda found: (found.result.made, found.path), reverse=True)
    more = len(all_.found) - MOST_RESULTS
    if more > 0:
        all_.skipped += [
            {"path": found.path, "reason": f"older than {MOST_RESULTS} others"} for found in all_.found[MOST_RESULTS:]
        ]
        del all_.found[MOST_RESULTS:]
    for name in names:
        if name.endswith(SEARCHED) and (search := _or_skipped(read_search, folder / name, all_)):
            _pair(name.removesuffix(SEARCHED), search, all_)
    return all_


def _or_skipped(reader: Callable[[Path], Value], path: Path, all_: Results) -> Value | None:
    try:
        return reader(path)
    except OSError as problem:
        reason = f"can't be read: {reason_of(problem)}"
    except RankError as problem:
        reason = str(problem)
    all_.skipped.append({"path": f"{RANK_FOLDER}/{clean(path.name)}", "reason": shortened(reason)})
    return None


def _pair(stem: str, search: Search, all_: Results) -> None:
    """Put a search beside the result of its name."""
    for index, found in enumerate(all_.found):
        if found.path == f"{RANK_FOLDER}/{clean(stem)}{RANKED}":
            all_.found[index] = replace(found, search=search)
            return
    path = f"{RANK_FOLDER}/{clean(stem)}{SEARCHED}"
    all_.skipped.append({"path": path, "reason": "a search whose scores are not there"})


def _result(content: Mapping[str, Any]) -> RankResult:
    backbones = tuple(map(_backbone, some(content["backbones"], MOST_BACKBONES)))
    names = [backbone.name for backbone in backbones]
    order = tuple(text(name) for name in some(content["order"], MOST_BACKBONES))
    if len(set(names)) < len(names) or sorted(order) != sorted(names):
        raise ValueError("its order is not one of its backbones")
    return RankResult(
        made=text(content["made"]),
        dataset=_data(content["dataset"]),
        backbones=backbones,
        order=order,
        mean_rank={text(name): number(value) for name, value in dict(content["mean_rank"]).items() if name in names},
        rule=text(content["rule"]),
        left_out=tuple(
            {"name": text(line["name"]), "reason": shortened(str(line["reason"]))}
            for line in some(content["left_out"], MOST_BACKBONES)
        ),
        notes=tuple(shortened(str(note)) for note in some(content["notes"], MOST_NOTES)),
        seed=whole(content["seed"]),
        code=text(content["code"]),
    )


def _data(content: Mapping[str, Any]) -> RankedData:
    if len(content["size"]) != 2:
        raise ValueError(f"an input of {len(content['size']):,} sides")
    return RankedData(
        key=text(content["key"]),
        name=text(content["name"]),
        domain=text(content["domain"]),
        version=text(content["version"]),
        split=text(content["split"]),
        test_part=text(content["test_part"]),
        classes=whole(content["classes"]),
        train_images=whole(content["train_images"]),
        size=(whole(content["size"][0]), whole(content["size"][1])),
    )


def _backbone(content: Mapping[str, Any]) -> RankedBackbone:
    scores = content["scores"]
    return RankedBackbone(
        name=text(content["name"]),
        weights=text(content["weights"]),
        weights_sha256=maybe(text, content["weights_sha256"]),
        top1=maybe(number, content["top1"]),
        mean_rank_elsewhere=maybe(number, content["mean_rank_elsewhere"]),
        scores={name: maybe(number, scores.get(name)) for name in SCORES},
        pass_seconds=maybe(number, content["pass_seconds"]),
        train_images_per_second=maybe(number, content["train_images_per_second"]),
        speed_from=maybe(text, content["speed_from"]),
        parameters=whole(content["parameters"]),
        macs=whole(content["macs"]),
    )
