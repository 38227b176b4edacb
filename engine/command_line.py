"""The command line of a dataset's script -> its dataset and a Config."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib.util import find_spec
from inspect import Parameter, Signature
from itertools import takewhile
from pathlib import Path
from typing import Any

from engine.cli import Parser, nearest
from engine.config import FLAGS, Config
from engine.data.declaration import Choice, Dataset
from engine.data.place import place_of, usual_place
from engine.errors import UserError
from engine.files import check_output
from engine.models.backbone import WEIGHTS, Backbone
from engine.models.names import MEMBER, Found, divided, find_backbone, is_elsewhere
from engine.models.weights_folder import is_path
from engine.paths import PROJECT, cache_folder
from engine.processes.heartbeat import out_here
from engine.training.recipe import DEFAULT, RECIPES


def parse(
    dataset: Dataset | Choice, known: Mapping[str, Backbone], arguments: Sequence[str] | None = None
) -> tuple[Dataset, Config]:
    """The dataset and the Config that the command line asks for; what is not given comes from the dataset.

    `known` are the backbones; the names of their builders, torchvision's, are accepted too. Raises UserError for
    unusable arguments and SystemExit(0) after `--help`.
    """
    choice = dataset if isinstance(dataset, Choice) else None
    words = sys.argv[1:] if arguments is None else arguments
    parser = _parser(dataset, known)
    namespace, extra = parser.parse_known_args(words)
    given = vars(namespace)
    if several := _several_backbones(words, known, "" if extra else str(given.get(_destination(choice)))):
        command = grid_command(dataset, several, given, extra)
        raise UserError(f"-model takes one backbone, not {' and '.join(several)}. grid.py runs several:\n  {command}")
    parser.refuse(extra, words)
    if choice:
        dataset = choice.dataset(given.pop(_destination(choice)))
    assert isinstance(dataset, Dataset)
    dataset = _labelled(dataset, given.get("labels"))
    values: dict[str, Any] = {name: f.default for name, f in FLAGS.items()}
    values |= {"size": dataset.size, "augment": dataset.augment, "recipe": dataset.recipe or DEFAULT}
    values |= {"data_dir": usual_place(dataset), **given}
    values["data_dir"] = place_of(dataset, values["data_dir"])
    values["patience"] = _patience(dataset, values["recipe"], given)
    if values["deterministic"]:
        if given.get("plan") == "measure":
            raise UserError("--deterministic leaves no plan to be measured by the clock. Give it, or --plan measure.")
        values |= {"plan": "off"}
    if values["shots"] and values["fraction"]:
        raise UserError("--shots and --fraction both say how many training images there are. Give one of them.")
    values["labels"] = values["labels"] and values["labels"].absolute()
    _check_folds(values["folds"], values["fold"], values["protocol"])
    values["cache_dir"] = values["cache_dir"] or cache_folder(values["data_dir"])
    if len(values["size"]) > 2:
        raise UserError(f"--size takes a height and a width, but {len(values['size'])} numbers were given.")
    values["size"] = (values["size"][0], values["size"][-1])
    if values["model"] is not None:
        found = find_backbone(values["model"], known)
        found.backbone.require_size(found.name, values["size"])
        values |= {"model": found.name, "weights": _weights(found, values["weights"], "weights" in given)}
    elif dataset.own and values["check"]:
        values["model"] = ""
    else:
        raise UserError(_without_a_backbone(dataset, known))
    check_weights(values["weights"])
    if values["weights"] not in WEIGHTS and is_path(values["weights"]):
        values["weights"] = str(Path(values["weights"]).absolute())
    check_output(out_here(values["out"]))
    if values["tensorboard"] and find_spec("tensorboard") is None:
        raise UserError("--tensorboard needs the package tensorboard: pip install 'tensorboard>=2.16.2'")
    for name, what in (("--out", values["out"]), ("--cache-dir", values["cache_dir"])):
        if dataset.own_folder and what.resolve().is_relative_to(dataset.own_folder):
            raise UserError(
                f"{name} {what} lies in {dataset.own_folder}, where it would be taken for images. Run the command in "
                "another folder, or give --out and --cache-dir folders elsewhere."
            )
    return dataset, Config(**values)


def arguments_of(flags: Mapping[str, Any]) -> list[str]:
    """The words of a command line with these flags, which are fields of Config; what is None is not given.

    UserError: there is no such flag, or one that takes no value has one.
    """
    words: list[str] = []
    for name, value in flags.items():
        if name not in FLAGS:
            raise UserError(f"unknown keyword {name}.{nearest(name, FLAGS, 0.5)} Known: {', '.join(FLAGS)}.")
        flag = FLAGS[name].metadata["names"][-1]
        if FLAGS[name].metadata["options"].get("action") == "store_true":
            if not isinstance(value, bool | None):
                raise UserError(f"{name} is {value!r:.60}. Expected True or False.")
            words += [flag] if value else []
        elif isinstance(value, tuple | list):
            words += [flag, *map(str, value)]
        elif value is not None:
            words.append(f"{flag}={value}")  # one word: a value may begin with -
    return words


def signature_with_flags(first: str) -> Signature:
    """That of a function with one parameter called `first`, whose keywords arguments_of() takes."""
    flags = [Parameter(name, Parameter.KEYWORD_ONLY, default=f.default) for name, f in FLAGS.items() if name != "model"]
    model = Parameter("model", Parameter.KEYWORD_ONLY)
    return Signature([Parameter(first, Parameter.POSITIONAL_OR_KEYWORD), model, *flags])


def _patience(dataset: Dataset, recipe: str, given: Mapping[str, Any]) -> int | None:
    """The epochs without a gain that end a stage, by the flags that were `given`, or as the recipe has it."""
    if recipe not in RECIPES:
        raise UserError(f"Dataset {dataset.key!r}: unknown recipe {recipe!r}. Expected one of {', '.join(RECIPES)}.")
    usual = RECIPES[recipe].patience
    if "patience" in given and usual is None:
        raise UserError(f"--patience can't be used with --recipe {recipe}, whose epochs are counted.")
    found: int | None = given.get("patience", usual)
    return found


def _labelled(dataset: Dataset, labels: Path | None) -> Dataset:
    """The dataset, labelled by the file where one is given."""
    if labels is None:
        return dataset
    if dataset.labelled is None:
        raise UserError(f"--labels {labels}: {dataset.script_name}.py has labels of its own. Leave the flag out.")
    return dataset.labelled(labels)


def _check_folds(folds: int | None, fold: int | None, protocol: str) -> None:
    if fold is not None and folds is None:
        raise UserError(f"--fold {fold} needs --folds: of how many?")
    if fold is not None and folds is not None and fold > folds:
        raise UserError(f"--fold {fold} of --folds {folds}. Expected a number from 1 to {folds}.")
    if folds is not None and protocol == "paper":
        raise UserError(
            "--folds can't be used with --protocol paper: each fold would choose the epoch that it is tested at, and "
            "the result of all of them would flatter. Leave one of them out."
        )


def _parser(dataset: Dataset | Choice, known: Mapping[str, Backbone]) -> Parser:
    choice = dataset if isinstance(dataset, Choice) else None
    shown = dataset.example if isinstance(dataset, Choice) else dataset
    words = {
        "backbones": ", ".join(known),
        "size": "{} {}".format(*shown.size),
        "augment": shown.augment,
        "recipe": shown.recipe or DEFAULT,
        "data_dir": usual_place(shown),
        "script": shown.script_name,
    }
    positional = f"{choice.argument} " if choice and not choice.argument.startswith("-") else ""
    parser = Parser(
        prog=f"{shown.script_name}.py",
        description=f"Fine-tune an ImageNet-pretrained backbone on {shown.name} and evaluate it.",
        epilog=f"Example: python {shown.script_name}.py {positional}-model convnext -bs 64. The same command again "
        "resumes an interrupted run and prints a finished one. Exit codes: 0 done, 2 something to mend in the command "
        "or the data, 3 the run failed, 130 interrupted.",
        allow_abbrev=False,
    )
    if choice:
        parser.add_argument(choice.argument, **choice.options)
    for f in FLAGS.values():
        options = dict(f.metadata["options"], dest=f.name, default=argparse.SUPPRESS)
        options["help"] = options["help"].format(default=f.default, **words)
        if f.name == "model" and shown.own:
            options["required"] = False  # a check of the images alone needs none: parse() asks for it
        if f.name == "data_dir" and shown.own:
            continue  # the images' folder has been named already
        if f.metadata["own"] and not shown.own:
            continue
        parser.add_argument(*f.metadata["names"], **options)
    return parser


def _without_a_backbone(dataset: Dataset, known: Iterable[str]) -> str:
    """The message for a command line that names none."""
    look = " (or --check alone, which looks at the images)" if dataset.own else ""
    needed = f"the following arguments are required: -model/--model, one of {', '.join(known)}{look}"
    return f"{needed}. See python {dataset.script_name}.py --help"


def _destination(choice: Choice | None) -> str:
    return choice.argument.lstrip("-").replace("-", "_") if choice else ""


def _several_backbones(words: Sequence[str], known: Mapping[str, Backbone], folder_named: str) -> list[str]:
    """The backbones behind `-model`, where there is more than one, or "all"; `folder_named` is no backbone."""
    behind: list[str] = []
    for number, word in enumerate(words):
        name, equals, value = word.partition("=")
        if name in FLAGS["model"].metadata["names"]:
            following = takewhile(lambda each: not each.startswith("-"), words[number + 1 :])
            behind += [value] if equals else [each for each in following if each != folder_named]
    names = {"all", *known, *(entry.builder_name for entry in known.values())}
    words_of = [name for word in behind for name in word.split(",")]
    asked = list(dict.fromkeys(name for name in words_of if divided(name)[0] in names or is_elsewhere(name)))
    return asked if len(asked) > 1 or "all" in asked else []


def grid_command(
    dataset: Dataset | Choice, models: Sequence[str], given: Mapping[str, Any], extra: Sequence[str]
) -> str:
    """The command of grid.py that runs a script for several backbones, as its own command line has it otherwise.

    given: its flags, as argparse has them; extra: words that it could not place.
    """
    script = Path(sys.argv[0])
    grid = script.with_name("grid.py") if script.absolute().parent == PROJECT else PROJECT / "grid.py"
    shown = dataset.example if isinstance(dataset, Choice) else dataset
    which = shown.script_name if (PROJECT / f"{shown.script_name}.py").is_file() else str(script)
    if isinstance(dataset, Choice):
        chosen = given[_destination(dataset)]
        if dataset.argument.startswith("-"):
            which += f":{dataset.dataset(chosen).flags.split()[-1]}"
        else:
            which += f":{next((word for word in (str(chosen), *extra) if word not in models), 'DIR')}"
    elif dataset.own_folder or dataset.flags:
        which += f":{dataset.own_folder or dataset.flags.split()[-1]}"
    command = ["python", str(grid), "--datasets", which, "--models", *models]
    for name, value in given.items():
        if name in FLAGS and name not in ("model", "check"):
            values = [] if value is True else value if isinstance(value, list) else [value]
            command += ["--seeds" if name == "seed" else FLAGS[name].metadata["names"][-1], *map(str, values)]
    return shlex.join(command)


def _weights(found: Found, flag: str, is_given: bool) -> str:
    """What the run begins from: by the name of its backbone, or by the flag. UserError: they say different things."""
    if found.weights is None:
        return flag
    if is_given and flag != found.weights and str(Path(flag).absolute()) != found.weights:
        raise UserError(
            f"-model {found.name}@{found.weights} and --weights {flag} say different things. Leave one of them out."
        )
    return found.weights


def check_weights(choice: str) -> None:
    """UserError: `--weights choice` can't be any weights; whether an enum has such a member is found later."""
    if choice not in WEIGHTS and not MEMBER.fullmatch(choice) and not is_path(choice):
        raise UserError(
            f"--weights {choice}: no such file. Expected one, or a folder with config.json and model.safetensors, or "
            f"{', '.join(WEIGHTS)}, or a member of the backbone's enum of weights in torchvision, such as "
            "IMAGENET1K_V1."
        )
