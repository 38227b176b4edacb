"""The flags of a dataset's script, as the fields of one frozen Config, which is also what the record keeps."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import Field, dataclass, field, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from engine.cli import at_home, folder, positive, share, whole
from engine.data.declaration import AUGMENTS, LARGEST_SIDE, Dataset, Protocol
from engine.paths import with_home, without_home
from engine.training.recipe import DEFAULT, RECIPES, RecipeSpec

if TYPE_CHECKING:
    from engine.data.load import DecodeOptions

Tune = Literal["full", "linear"]

# What a flag is to a run's numbers. A WHAT says what is run, and a SETTING how it is trained: reports rank together
# only runs of the same settings. A MACHINE flag changes numbers as much as another machine does. A PLACE changes none.
WHAT, SETTING, MACHINE, PLACE = "what", "setting", "machine", "place"

MOST_FOLDS = 20


def flag(*names: str, role: str, default: Any = None, words: str = "", own: bool = False, **options: Any) -> Any:
    """A Config field that is a flag called `names`; `options` go to argparse.

    role: WHAT, SETTING, MACHINE or PLACE. words: how a report says a setting's value, as in "batches of {}"; else it
    says the flag and the value. own: only for images of the user's own. A default that depends on the dataset or on
    another flag is found by parse().
    """
    metadata = {"names": names, "role": role, "words": words, "own": own, "options": options}
    return field(default=default, metadata=metadata)


def switch(*names: str, role: str, help: str, words: str = "") -> Any:  # noqa: A002 (argparse's name)
    """A flag that takes no value."""
    return flag(*names, role=role, default=False, words=words, action="store_true", help=help)


def by_recipe(words: Callable[[RecipeSpec], str]) -> str:
    """A default that depends on the recipe, for `--help`."""
    return "; ".join(f"for {name} {words(spec)}" for name, spec in RECIPES.items() if words(spec))


@dataclass(frozen=True)
class Config:
    """One run, fully specified. The order of the fields is the order of `--help`."""

    model: str = flag(
        "-model",
        "--model",
        role=WHAT,
        required=True,
        metavar="NAME",
        help="the backbone: {backbones}; timm:NAME, or FILE.py:FUNCTION of your own; NAME@WEIGHTS is NAME with such "
        "--weights",
    )
    batch_size: int = flag(
        "-bs",
        "--batch-size",
        role=SETTING,
        default=64,
        words="batches of {}",
        type=whole(1),
        metavar="N",
        help="images a training step (default: {default})",
    )
    epochs: int | None = flag(
        "--epochs",
        role=SETTING,
        words="epochs a stage: {}",
        type=whole(1),
        metavar="N",
        help="epochs of each stage, at most N where patience can end it "
        f"(default: {by_recipe(lambda spec: spec.epochs_help)})",
    )
    recipe: str = flag(
        "--recipe",
        role=WHAT,
        default=DEFAULT,
        choices=RECIPES,
        help="; ".join(f"{name}: {spec.help}" for name, spec in RECIPES.items()) + " (default here: {recipe})",
    )
    lr: float | None = flag(
        "--lr",
        role=SETTING,
        words="learning rate {:g}",
        type=positive,
        metavar="LR",
        help="learning rate, the highest where it changes "
        f"(default: {by_recipe(lambda spec: str(spec.lr or 'that of the backbone'))})",
    )
    shots: int | None = flag(
        "--shots",
        role=WHAT,
        type=whole(2),
        metavar="N",
        help="train, and choose the epoch, on N of the training images of each class",
    )
    fraction: float | None = flag(
        "--fraction",
        role=WHAT,
        type=share,
        metavar="F",
        help="train, and choose the epoch, on this share of each class, such as 0.1",
    )
    folds: int | None = flag(
        "--folds",
        role=SETTING,
        words="{} folds",
        own=True,
        type=whole(2, MOST_FOLDS),
        metavar="K",
        help="cross-validation: divide all images into K folds, by class and group, and make K runs one after another, "
        "each of which is tested on one fold and trained on the others",
    )
    fold: int | None = flag(
        "--fold",
        role=WHAT,
        own=True,
        type=whole(1, MOST_FOLDS),
        metavar="I",
        help="of --folds, the run that is tested on fold I alone",
    )
    protocol: Protocol = flag(
        "--protocol",
        role=WHAT,
        default="honest",
        choices=["honest", "paper"],
        help="honest (default): val, held out of train, chooses the epoch and test is scored once; "
        "paper: all training images are trained on and test chooses, as published, which flatters",
    )
    weights: str = flag(
        "--weights",
        role=WHAT,
        default="imagenet",
        type=at_home,
        metavar="WHICH",
        help="imagenet (default), auto (imagenet, or none where they can't be had), none (random), "
        "the name of a torchvision weights enum member (IMAGENET1K_V2), a file, or a folder as export.py and timm "
        "write it",
    )
    tune: Tune = flag(
        "--tune",
        role=SETTING,
        default="full",
        words="the head only",
        choices=["full", "linear"],
        help="full (default): all layers; linear: the new head only; without augmentation, features are computed once",
    )
    seed: int = flag(
        "--seed",
        role=WHAT,
        default=0,
        type=whole(0, 2**32 - 1),
        metavar="N",
        help="of everything random (default: {default})",
    )
    size: tuple[int, int] = flag(
        "--size",
        role=WHAT,
        nargs="+",
        type=whole(1, LARGEST_SIDE),
        metavar=("H", "W"),
        help="input height and width in pixels; one number means a square (default: {size})",
    )
    augment: str = flag(
        "--augment",
        role=WHAT,
        choices=list(AUGMENTS),
        help="trivial: TrivialAugmentWide on the training images (default here: {augment})",
    )
    patience: int | None = flag(
        "--patience",
        role=SETTING,
        default=RECIPES[DEFAULT].patience,
        words="patience {}",
        type=whole(1),
        metavar="N",
        help="a stage ends when N epochs in a row bring no better top-1 (or what --select says) on val "
        f"(default: {by_recipe(lambda spec: str(spec.patience or ''))})",
    )
    class_weights: str = flag(
        "--class-weights",
        role=SETTING,
        default="none",
        words="class weights {}",
        choices=["none", "balanced"],
        help="balanced: in the loss, an image counts the more the fewer its class has to train on, so that all classes "
        "count the same; none (default): each image counts the same",
    )
    select: str = flag(
        "--select",
        role=SETTING,
        default="top1",
        words="epoch chosen by {}",
        choices=["top1", "balanced_accuracy", "macro_f1"],
        help="the metric on val that chooses the epoch, ends stages and chooses among learning rates (default: "
        "{default})",
    )
    lr_sweep: bool = switch(
        "--lr-sweep",
        role=SETTING,
        words="learning rate chosen by a sweep",
        help="first try 0.1, 0.3, 1 and 3 times the learning rate, a quarter as long, and take the best on val",
    )
    device: str = flag(
        "--device",
        role=MACHINE,
        default="auto",
        choices=["auto", "cuda", "cpu", "mps"],
        help="default: the best there is",
    )
    precision: str = flag(
        "--precision",
        role=MACHINE,
        default="auto",
        choices=["auto", "fp32", "bf16", "fp16"],
        help="auto (default): the faster of fp32 and the half precision of the device: bf16, or fp16 with a gradient "
        "scaler on a card that has no bf16",
    )
    compile: str = flag(
        "--compile",
        role=MACHINE,
        default="auto",
        choices=["auto", "on", "off"],
        help="torch.compile of the training step; auto (default): where the run is long enough to pay for it and it is "
        "measured to be faster",
    )
    plan: str = flag(
        "--plan",
        role=MACHINE,
        default="measure",
        choices=["measure", "off"],
        help="measure (default): try dtypes, memory layouts, numbers of a processor's threads and a card's CUDA graphs "
        "for some 20 seconds, take the fastest, and, unless others were at work meanwhile, remember it for the same "
        "backbone, size, batch size and device; off: the device's half precision, NCHW, not measured",
    )
    deterministic: bool = switch(
        "--deterministic",
        role=MACHINE,
        help="on a card, the same numbers each time, as on a processor anyway: only such operations, where PyTorch has "
        "them (the record names the others), and --plan off, since what the clock chooses may be another form each "
        "time; slower",
    )
    sync_batch_norm: bool = switch(
        "--sync-batch-norm",
        role=MACHINE,
        help="of several processes on cards, as torchrun starts them: batch normalisation's statistics are of a "
        "whole batch, not of each process's share of it; slower",
    )
    data_dir: Path = flag(
        "--data-dir",
        role=PLACE,
        type=folder,
        metavar="DIR",
        help="the folder that holds the dataset's archive or extracted folder, or a folder with it in {script}/, as "
        "grid.py and datasets.py take it (default: {data_dir})",
    )
    labels: Path | None = flag(
        "--labels",
        role=PLACE,
        own=True,
        type=folder,
        metavar="FILE",
        help="a CSV file that labels the images, which may then lie in any folders: columns file, label and, if you "
        "like, split (train, val, test) and group (what must stay on one side, such as a patient)",
    )
    cache_dir: Path = flag(
        "--cache-dir",
        role=PLACE,
        type=folder,
        metavar="DIR",
        help="where decoded images are kept for the next run (default: {data_dir}/.cache)",
    )
    no_cache: bool = switch(
        "--no-cache",
        role=PLACE,
        help="keep no decoded images, but decode them whenever they are needed: slower, and takes no room on the disk",
    )
    out: Path = flag(
        "--out",
        role=PLACE,
        default=Path("runs"),
        type=folder,
        metavar="DIR",
        help="where records go (default: {default})",
    )
    tensorboard: bool = switch(
        "--tensorboard", role=PLACE, help="keep an event file for TensorBoard in the record's folder, too"
    )
    allow_partial: bool = switch(
        "--allow-partial",
        role=PLACE,
        help="train on incomplete data, without the images that can't be read; the record is marked partial and no "
        "report ranks it",
    )
    check: bool = switch(
        "--check",
        role=PLACE,
        help="only tell whether the run would work: all images are decoded, and kept for the run as the run does, "
        "then one step of training, validation, saving, loading. Nothing but weights is fetched, and no record is "
        "left. Of images of your own, all that is to be mended is named at once, also without -model",
    )
    rerun: bool = switch("--rerun", role=PLACE, help="start over, even where a finished run lies")

    @property
    def budget(self) -> int | float | None:
        """Training images of each class, or a share of them; None: all."""
        return self.shots or self.fraction

    @property
    def runs(self) -> list[Config]:
        """A Config for each run that the command asks for: one, or of all folds one each."""
        if self.folds is None or self.fold is not None:
            return [self]
        return [replace(self, fold=fold) for fold in range(1, self.folds + 1)]

    def decode_options(self, dataset: Dataset) -> DecodeOptions:
        """How the dataset's images become pixels."""
        from engine.data.load import DecodeOptions  # with all that reads images, which `--help` does not need

        size, cache_dir = dataset.cached_size or self.size, None if self.no_cache else self.cache_dir
        return DecodeOptions(size, cache_dir, self.protocol, self.allow_partial, self.budget)

    def settings(self) -> dict[str, Any]:
        """Every field, JSON-ready, for others to read; paths are absolute, or begin with ~ for the user's home."""
        values = {f.name: getattr(self, f.name) for f in fields(self)} | {"size": list(self.size)}
        values = {name: str(value.absolute()) if isinstance(value, Path) else value for name, value in values.items()}
        return {name: without_home(value) if isinstance(value, str) else value for name, value in values.items()}


FLAGS: dict[str, Field[Any]] = {f.name: f for f in fields(Config)}


def default_of(name: str, recipe: str) -> Any:
    """The default of a flag, as far as it does not depend on the dataset."""
    if name == "patience":
        return RECIPES[recipe].patience if recipe in RECIPES else None
    return FLAGS[name].default


def asked(config: Mapping[str, Any]) -> dict[str, Any]:
    """The flags that can change a run's numbers, as far as they are not the default: what its id and its cell rest on.

    `config` is a Config's fields, or those that a record kept. A flag that is newer than the record had its default;
    one that is gone since counts unless it was off.
    """
    changed: dict[str, Any] = {}
    for name in sorted(config):
        value = list(config[name]) if isinstance(config[name], tuple) else config[name]
        value = with_home(value) if isinstance(value, str) else value  # a file of weights
        known = FLAGS.get(name)
        if known is None:
            usual = value in (None, False)
        else:
            usual = known.metadata["role"] == PLACE or value == default_of(name, config["recipe"])
        if not usual:
            changed[name] = value
    return changed


def asked_settings(config: Mapping[str, Any]) -> dict[str, Any]:
    """Those of asked() that say how a run is trained."""
    return {
        name: value
        for name, value in asked(config).items()
        if name not in FLAGS or FLAGS[name].metadata["role"] == SETTING
    }


def in_words(name: str, value: Any) -> str:
    """What a report says of a setting."""
    known = FLAGS.get(name)
    words: str = known.metadata["words"] if known else ""
    return words.format(value) if words else f"{name.replace('_', ' ')} {'' if value is True else value}".rstrip()
