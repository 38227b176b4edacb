"""The commands that run what a report lacks, as they are typed in the folder where it was made."""

from __future__ import annotations

import argparse
import shlex
from collections.abc import Collection, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from common import BACKBONES
from datasets import DATASETS
from engine.cli import at_home, folder
from engine.config import FLAGS, asked_settings, default_of
from engine.models.backbone import WEIGHTS
from engine.models.names import divided, is_here
from engine.paths import PROJECT, user_cache, with_home, without_home
from engine.records.schema import CHECKPOINT
from engine.training.recipe import DEFAULT
from folder import dataset as own_dataset
from reporting.entry import Entry, Setting
from reporting.fields import option

DEPTH = 3  # of a run's folder, in that of all runs
PATHS = (at_home, folder)  # argparse's types of flags whose values are paths, or may be
UNKNOWN = "DIR"  # for a folder that an older record does not name


def grid(entry: Entry, models: Sequence[str], seeds: Collection[int], *more: str, without: Collection[str] = ()) -> str:
    """The command that runs every one of `models` with every one of `seeds`, all else as the run of `entry` was.

    `more` are further words of it; `without` the flags, by the names of Config's fields, that are left out. "" where
    none of the backbones is known here.
    """
    models = [_model(name, without) for name in models if is_here(name, BACKBONES)]
    if not models:
        return ""
    if any("@" in name for name in models):  # each says its weights
        without = (*without, "weights")
    dataset = _dataset(entry)
    words = ["--datasets", dataset, "--models", *models, "--seeds", *_ranges(seeds)]
    return " ".join(["python", _script("grid.py"), *words, *_flags(entry, without), *more])


def train(entry: Entry, *more: str, without: Collection[str] = ()) -> str:
    """The command of one training with the run's own images and settings; `more`, `without` and "" as above."""
    if not is_here(entry.backbone, BACKBONES):
        return ""
    place = _dataset(entry)
    script, _, which = place.partition(":")
    if script == "folder":
        script, which = "folder.py", which if entry.place else UNKNOWN
    elif entry.version.key in DATASETS:
        declared = DATASETS[entry.version.key]
        script, which = f"{declared.script_name}.py", declared.flags
    words = [_script(script), which, "-model", _model(entry.backbone, without), *_flags(entry, without)]
    return " ".join(["python", *filter(None, words), *more])


def _model(row: str, without: Collection[str]) -> str:
    """What a command calls the backbone of a row."""
    return shlex.quote(divided(row)[0] if "weights" in without else row)


def checkpoint(entry: Entry) -> str:
    """The path of the weights that a run kept, as a command takes it."""
    return _path(str(entry.folder.absolute() / CHECKPOINT))


def check(entry: Entry) -> str:
    """The command that looks at the images of one's own; "" where they are a published dataset's."""
    place = _dataset(entry).partition("folder:")[2]
    if not place or not entry.place:
        return ""
    labels = [f"--labels {_path(value)}" for name, value in entry.given if name == "labels"]
    return " ".join(["python", _script("folder.py"), place, *labels, "--check"])


def asks_for(command: str, setting: Setting) -> bool:
    """Whether a script's command, as grid.py keeps it of what failed, can be that of a run with these settings."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False, exit_on_error=False)
    for name, flag in FLAGS.items():
        options = {key: value for key, value in flag.metadata["options"].items() if key not in ("help", "required")}
        parser.add_argument(*flag.metadata["names"], dest=name, default=argparse.SUPPRESS, **options)
    try:
        given = vars(parser.parse_known_args(shlex.split(command)[2:])[0])
    except (argparse.ArgumentError, ValueError, SystemExit):
        return False
    values = {name: flag.default for name, flag in FLAGS.items()} | {"recipe": setting.recipe}
    values |= {"patience": default_of("patience", setting.recipe)} | given
    flags = tuple((name, option(value)) for name, value in asked_settings(values).items())
    weights = divided(str(values.get("model", "")))[1] or str(values["weights"])
    weights = "imagenet" if weights == "auto" or weights.startswith("IMAGENET") else weights
    known = setting.weights not in WEIGHTS or weights == setting.weights
    return (values["protocol"], values["recipe"], flags) == (setting.protocol, setting.recipe, setting.flags) and known


def _dataset(entry: Entry) -> str:
    """What grid.py calls the dataset of a run."""
    if entry.version.key in DATASETS:
        declared = DATASETS[entry.version.key]
        which = declared.flags.split()[-1:]
        return ":".join([declared.script_name, *which])
    if entry.version.key.startswith("folder-"):
        return f"folder:{_path(entry.place) if entry.place else UNKNOWN}"
    return shlex.quote(entry.script or f"{entry.version.key}.py")


def _flags(entry: Entry, without: Collection[str]) -> Iterator[str]:
    """The flags of a run's command, as far as they are not what its dataset's script does by itself."""
    usual = _usual(entry)
    out = entry.folder.absolute().parents[DEPTH - 1]
    for name, value in (*entry.given, ("out", str(out))):
        if name in without or (name in usual and usual[name] == value):
            continue
        options = FLAGS[name].metadata["options"]
        yield FLAGS[name].metadata["names"][0]
        if options.get("action") != "store_true":
            is_path = options.get("type") in PATHS and "/" in str(value)
            values = value if isinstance(value, tuple) else (value,)
            values = values[:1] if name == "size" and len(set(values)) == 1 else values  # a square
            yield from (_path(str(each)) if is_path else shlex.quote(str(each)) for each in values)


def _usual(entry: Entry) -> dict[str, Any]:
    """What the flags are that need not be given, as records have them."""
    usual: dict[str, Any] = {"out": str(Path("runs").absolute()), "no_cache": False}
    own = entry.version.key.startswith("folder-")
    declared = own_dataset(Path(entry.name)) if own else DATASETS.get(entry.version.key)
    if declared is not None:
        usual |= {"size": declared.size, "augment": declared.augment, "recipe": declared.recipe or DEFAULT}
    given = dict(entry.given)
    place = given.get("data_dir", "")
    script = declared.script_name if declared else entry.version.key
    if own or Path(with_home(place)).absolute() == Path("data", script).absolute():
        usual["data_dir"] = place
    if given.get("cache_dir") in (f"{place}/.cache", without_home(str(user_cache()))):
        usual["cache_dir"] = given["cache_dir"]
    return usual


def _script(name: str) -> str:
    """The path of one of the project's scripts; of one of the user's own, its name."""
    return _path(str(PROJECT / name)) if (PROJECT / name).is_file() else shlex.quote(name)


def _path(text: str) -> str:
    """A path as a shell takes it: from this folder, where it lies in it; that of one's home with its ~."""
    path = Path(with_home(text))
    if path.is_relative_to(Path.cwd()):
        inside = str(path.relative_to(Path.cwd()))
        return shlex.quote(f"./{inside}" if inside.startswith(("-", "~")) else inside)
    text = without_home(str(path))
    return f"~/{shlex.quote(text[2:])}" if text.startswith("~/") else shlex.quote(text)


def _ranges(seeds: Iterable[int]) -> list[str]:
    """Numbers as `--seeds` takes them: 0-2 and 7."""
    runs: list[list[int]] = []
    for seed in sorted(seeds):
        if runs and seed == runs[-1][1] + 1:
            runs[-1][1] = seed
        else:
            runs.append([seed, seed])
    return [str(first) if first == last else f"{first}-{last}" for first, last in runs]
