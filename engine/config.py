"""The command line: flags -> one frozen Config, which is also what the record keeps."""

from __future__ import annotations

import difflib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from engine.cli import Parser, folder, rate, share, whole
from engine.data.declaration import Choice, Dataset
from engine.data.locate import cache_folder
from engine.errors import UserError
from engine.models.backbone import Backbone

PATIENCE = 10  # epochs, of the recipe adamw-sgd


def flag(*names: str, default: Any = None, identity: bool = True, depends: bool = False, **options: Any) -> Any:
    """A Config field that is a flag called `names`; `options` go to argparse.

    `identity` is False for what can't change a run's numbers: it has no part in the run's id. Where the default
    `depends` on the dataset or on another flag, parse() finds it.
    """
    metadata = {"names": names, "identity": identity, "depends": depends, "options": options}
    return field(default=default, metadata=metadata)


@dataclass(frozen=True)
class Config:
    """One run, fully specified. The order of the fields is the order of `--help`."""

    model: str = flag("-model", "--model", required=True, metavar="NAME", help="the backbone: {backbones}")
    batch_size: int = flag(
        "-bs", "--batch-size", default=64, type=whole(1), metavar="N", help="images a training step (default: 64)"
    )
    epochs: int | None = flag(
        "--epochs",
        type=whole(1),
        metavar="N",
        help="at most N epochs in each stage (default: patience alone decides); for cosine N epochs (default: 20, or "
        "as many as make 500 steps)",
    )
    recipe: str = flag(
        "--recipe",
        default="adamw-sgd",
        depends=True,
        choices=["adamw-sgd", "cosine"],
        help="adamw-sgd: AdamW, then SGD from the best epoch, each at a constant rate until patience ends it; cosine: "
        "AdamW, warm-up, then down to zero over a fixed number of epochs (default here: {recipe})",
    )
    lr: float | None = flag(
        "--lr",
        type=rate,
        metavar="RATE",
        help="learning rate, for cosine the highest (default: 1e-3; for cosine the backbone's own)",
    )
    shots: int | None = flag(
        "--shots", type=whole(2), metavar="N", help="train and select on N of the training images of each class"
    )
    fraction: float | None = flag(
        "--fraction", type=share, metavar="F", help="train and select on this share of each class, such as 0.1"
    )
    protocol: str = flag(
        "--protocol",
        default="honest",
        choices=["honest", "paper"],
        help="honest (default): held-out training images choose the epoch and test is scored once; "
        "paper: all training images are trained on and test chooses, as published, which flatters",
    )
    weights: str = flag(
        "--weights",
        default="imagenet",
        metavar="WHICH",
        help="imagenet (default), auto (imagenet, or none where they can't be had), none (random), "
        "the name of a torchvision weights enum member (IMAGENET1K_V2), or a file",
    )
    tune: str = flag(
        "--tune",
        default="full",
        choices=["full", "linear"],
        help="full (default): all layers; linear: the new head only",
    )
    seed: int = flag(
        "--seed", default=0, type=whole(0, 2**32 - 1), metavar="N", help="of everything random (default: 0)"
    )
    size: tuple[int, int] = flag(
        "--size",
        nargs="+",
        type=whole(1, 4096),
        metavar=("H", "W"),
        help="input height and width in pixels; one number means a square (default: {size})",
    )
    augment: str = flag(
        "--augment",
        choices=["trivial", "none"],
        help="trivial: TrivialAugmentWide on the training images (default here: {augment})",
    )
    patience: int | None = flag(
        "--patience",
        default=PATIENCE,
        depends=True,
        type=whole(1),
        metavar="N",
        help="of adamw-sgd: a stage ends when N epochs in a row bring no better selection score (default: 10)",
    )
    ema: bool = flag(
        "--ema",
        default=False,
        action="store_true",
        help="of cosine: score and keep a moving average of the weights",
    )
    layer_decay: float | None = flag(
        "--layer-decay",
        type=share,
        metavar="D",
        help="of cosine: every twelfth of the network learns at D times the rate of the next, such as 0.8",
    )
    lr_sweep: bool = flag(
        "--lr-sweep",
        default=False,
        action="store_true",
        help="first try 0.1, 0.3, 1 and 3 times the rate, a quarter as long, and take the one that the selection part "
        "likes best",
    )
    device: str = flag(
        "--device", default="auto", choices=["auto", "cuda", "cpu", "mps"], help="default: the best there is"
    )
    precision: str = flag(
        "--precision",
        default="auto",
        choices=["auto", "fp32", "bf16", "fp16"],
        help="auto (default): the faster of fp32 and the half precision of the device: bf16, or fp16 with a gradient "
        "scaler on a card that has no bf16",
    )
    compile: str = flag(
        "--compile",
        default="auto",
        choices=["auto", "on", "off"],
        help="torch.compile of the training step; auto (default): where the run is long enough to pay for it and it is "
        "measured to be faster",
    )
    plan: str = flag(
        "--plan",
        default="measure",
        choices=["measure", "off"],
        help="measure (default): dtype and memory layout are chosen by trying them for up to 30 seconds, once for a "
        "backbone, size, batch size and device; off: the device's half precision, NCHW, not measured",
    )
    data_dir: Path = flag(
        "--data-dir",
        type=folder,
        identity=False,
        metavar="DIR",
        help="the folder that holds the dataset's archive or extracted folder (default: {data_dir})",
    )
    cache_dir: Path = flag(
        "--cache-dir",
        type=folder,
        identity=False,
        metavar="DIR",
        help="where decoded images are kept for the next run (default: {data_dir}/.cache)",
    )
    no_cache: bool = flag(
        "--no-cache",
        default=False,
        identity=False,
        action="store_true",
        help="keep no decoded images, but decode them whenever they are needed: slower, and takes no room on the disk",
    )
    out: Path = flag(
        "--out",
        default=Path("runs"),
        type=folder,
        identity=False,
        metavar="DIR",
        help="where records go (default: runs)",
    )
    tensorboard: bool = flag(
        "--tensorboard",
        default=False,
        identity=False,
        action="store_true",
        help="keep an event file for TensorBoard in the record's folder, too",
    )
    allow_partial: bool = flag(
        "--allow-partial",
        default=False,
        identity=False,
        action="store_true",
        help="train on incomplete data, without the images that can't be read; the record is marked partial and no "
        "report ranks it",
    )
    check: bool = flag(
        "--check",
        default=False,
        identity=False,
        action="store_true",
        help="only tell whether the run would work: data, weights, one step of training, validation, saving, loading",
    )
    rerun: bool = flag(
        "--rerun",
        default=False,
        identity=False,
        action="store_true",
        help="start over, even where a finished run lies",
    )

    @property
    def budget(self) -> int | float | None:
        """Training images of each class, or a share of them; None: all."""
        return self.shots or self.fraction

    def settings(self) -> dict[str, Any]:
        """Every field, JSON-ready."""
        texts = {f.name: str(getattr(self, f.name)) for f in fields(self) if isinstance(getattr(self, f.name), Path)}
        return {f.name: getattr(self, f.name) for f in fields(self)} | {"size": list(self.size)} | texts

    def identity(self) -> dict[str, Any]:
        """The fields that can change the run's numbers, JSON-ready."""
        return {f.name: value for f in fields(self) if f.metadata["identity"] for value in [getattr(self, f.name)]}


def parse(
    dataset: Dataset | Choice, known: Mapping[str, Backbone], arguments: Sequence[str] | None = None
) -> tuple[Dataset, Config]:
    """The dataset and the Config that the command line asks for; what is not given comes from the dataset.

    `known` are the backbones; the names of their builders, torchvision's, are accepted too. Raises UserError for
    unusable arguments and SystemExit(0) after `--help`.
    """
    backbones = {entry.builder.__name__: name for name, entry in known.items()} | {name: name for name in known}
    choice = dataset if isinstance(dataset, Choice) else None
    shown = dataset.example if isinstance(dataset, Choice) else dataset
    words = {
        "backbones": ", ".join(known),
        "size": "{} {}".format(*shown.size),
        "augment": shown.augment,
        "recipe": shown.recipe,
        "data_dir": Path("data") / shown.script_name,
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
    for f in fields(Config):
        options = dict(f.metadata["options"], dest=f.name, default=None if f.metadata["depends"] else f.default)
        options["help"] = options["help"].format(**words)
        if f.name == "data_dir" and positional:
            continue  # the images' folder has been named already
        parser.add_argument(*f.metadata["names"], **options)
    values = vars(parser.parse_args(arguments))

    if choice:
        dataset = choice.dataset(values.pop(choice.argument.lstrip("-").replace("-", "_")))
    assert isinstance(dataset, Dataset)
    defaults: dict[str, Any] = {"size": dataset.size, "augment": dataset.augment, "recipe": dataset.recipe}
    defaults |= {"data_dir": Path("data") / dataset.script_name}
    values |= {name: value for name, value in defaults.items() if values.get(name) is None}
    _check_recipe(values)
    values["cache_dir"] = values["cache_dir"] or cache_folder(values["data_dir"])
    if values["model"] not in backbones:
        near = difflib.get_close_matches(values["model"].lower(), backbones, n=1, cutoff=0.5)
        hint = f" Did you mean {backbones[near[0]]}?" if near else ""
        raise UserError(f"unknown backbone {values['model']!r}.{hint} Known: {words['backbones']}.")
    values["model"] = backbones[values["model"]]
    if len(values["size"]) > 2:
        raise UserError(f"--size takes a height and a width, but {len(values['size'])} numbers were given.")
    values["size"] = (values["size"][0], values["size"][-1])
    for name, what in (("--out", values["out"]), ("--cache-dir", values["cache_dir"])):
        if dataset.place and what.resolve().is_relative_to(dataset.place):
            raise UserError(
                f"{name} {what} lies in {dataset.place}, where it would be taken for images. Run the command in "
                "another folder, or give --out and --cache-dir folders elsewhere."
            )
    return dataset, Config(**values)


def _check_recipe(values: dict[str, Any]) -> None:
    """Raise UserError for flags that do not go together; give patience its default where it counts."""
    given = {"--ema": values["ema"], "--layer-decay": values["layer_decay"]}
    if values["recipe"] == "cosine":
        given = {"--patience": values["patience"]}
    if wrong := [name for name, value in given.items() if value]:
        why = "has a fixed number of epochs: see --epochs" if values["recipe"] == "cosine" else "has none: see cosine"
        raise UserError(f"{' and '.join(wrong)} can't be used with --recipe {values['recipe']}, which {why}.")
    if values["layer_decay"] and values["tune"] == "linear":
        raise UserError("--layer-decay can't be used with --tune linear, which trains the head alone.")
    if values["recipe"] != "cosine" and values["patience"] is None:
        values["patience"] = PATIENCE
    if values["shots"] and values["fraction"]:
        raise UserError("--shots and --fraction both say how many training images there are. Give one of them.")
