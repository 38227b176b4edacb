"""What every dataset script imports: the backbones, their factory, the classes of a declaration, and main()."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from runpy import run_path
from typing import TYPE_CHECKING, Any, NoReturn

from engine.cli import failures_explained, importing, let_interrupt, run_command, show_uncaught
from engine.command_line import arguments_of, parse, signature_with_flags
from engine.config import Config
from engine.console import say
from engine.data.declaration import Choice, Dataset, File, ReadOptions
from engine.data.part import HDF5Image, Part, RawSplits
from engine.errors import UserError
from engine.models.backbone import Backbone, WeightsFile
from engine.models.names import find_backbone
from engine.paths import PROJECT
from engine.processes.heartbeat import install_stop_handler

if TYPE_CHECKING:
    from torch import nn

    from engine.inference.checkpoint import Trained
    from engine.models.weights import Weights

__all__ = [
    "BACKBONES",
    "Backbone",
    "Choice",
    "Dataset",
    "File",
    "HDF5Image",
    "Part",
    "RawSplits",
    "ReadOptions",
    "WeightsFile",
    "build_model",
    "fine_tune",
    "load",
    "main",
]

sys.excepthook = show_uncaught  # declarations are made before main() runs

# One entry a backbone: its builder, its pretrained weights, the name of its last linear layer, and what else differs
# from the usual. An lr of 5e-5 is that of the fine-tuning of ConvNeXt (its TRAINING.md, 512 images a step) and of
# Hugging Face's example for Swin-T on EuroSAT (128 images a step); Swin's own, for ImageNet, is 2e-5. The usual 3e-4
# was measured with EfficientNet-Lite0 alone: see docs/recipes.md. The smallest sides were found by trying. What is
# usual on a processor was measured (docs/speed.md; not inception's), on a card it is what timm's tables have (RTX 3090,
# AMP: NHWC trains at least as fast, but for RegNet's 0.71); wavemix, which they lack, is taken to be as on a processor.
BACKBONES: dict[str, Backbone] = {
    "resnet": Backbone("resnet50", "ResNet50_Weights.IMAGENET1K_V1", "fc", published=True),
    "wavemix": Backbone(
        "engine.models.wavemix_model.wavemix",
        WeightsFile(
            "wavemix_192_16_75.06",
            "https://huggingface.co/cloudwalker/wavemix/resolve/main/Saved_Models_Weights/ImageNet/"
            "wavemix_192_16_75.06.pth",
            top1=75.32,
        ),
        "pool.2",
        smallest=32,
        multiple_of=32,
        usual_on_cpu="bf16 NCHW",
        usual_on_cuda="bf16 NCHW",
        published=True,
    ),
    "convnext": Backbone(
        "convnext_tiny", "ConvNeXt_Tiny_Weights.IMAGENET1K_V1", "classifier.2", lr=5e-5, smallest=32, published=True
    ),
    "swin": Backbone(
        "swin_t",
        "Swin_T_Weights.IMAGENET1K_V1",
        "head",
        lr=5e-5,
        smallest=4,
        usual_on_cpu="bf16 NCHW",
        published=True,
    ),
    "swinv2": Backbone(
        "swin_v2_t",
        "Swin_V2_T_Weights.IMAGENET1K_V1",
        "head",
        lr=5e-5,
        smallest=4,
        usual_on_cpu="bf16 NCHW",
        published=True,
    ),
    "efficientnet": Backbone(
        "efficientnet_v2_s", "EfficientNet_V2_S_Weights.IMAGENET1K_V1", "classifier.1", published=True
    ),
    "densenet": Backbone("densenet161", "DenseNet161_Weights.IMAGENET1K_V1", "classifier", smallest=29, published=True),
    "mobilenet": Backbone(
        "mobilenet_v3_large",
        "MobileNet_V3_Large_Weights.IMAGENET1K_V2",
        "classifier.3",
        usual_on_cpu="fp32 NHWC",
        published=True,
    ),
    "regnet": Backbone(
        "regnet_y_3_2gf", "RegNet_Y_3_2GF_Weights.IMAGENET1K_V2", "fc", usual_on_cuda="bf16 NCHW", published=True
    ),
    "resnext": Backbone("resnext50_32x4d", "ResNeXt50_32X4D_Weights.IMAGENET1K_V2", "fc", published=True),
    "shufflenet": Backbone(
        "shufflenet_v2_x2_0",
        "ShuffleNet_V2_X2_0_Weights.IMAGENET1K_V1",
        "fc",
        usual_on_cpu="bf16 NCHW",
        published=True,
    ),
    # the original's command line takes it, its table has no row of it
    "inception": Backbone(
        "engine.models.inception.inception_v3", "Inception_V3_Weights.IMAGENET1K_V1", "fc", smallest=75
    ),
}


def build_model(name: str, num_classes: int, weights: str | Weights = "imagenet") -> nn.Module:
    """The backbone `name`, whatever -model takes, with a new head of `num_classes` outputs.

    Takes images (B, 3, H, W), normalised as the weights expect, and returns logits (B, num_classes), in train mode
    too. `weights` is what `--weights` takes. Raises UserError when the weights can't be had or don't fit.
    """
    from engine.models.weights import build, find_weights

    found = find_backbone(name, BACKBONES)
    if found.weights is not None and weights not in ("imagenet", found.weights):
        raise UserError(f"{name} names its weights, and {weights!r} are others. Leave one of them out.")
    of = found.weights or weights
    return build(
        found.backbone, found.name, num_classes, find_weights(found.backbone, of) if isinstance(of, str) else of
    )


def load(checkpoint: str | os.PathLike[str]) -> Trained:
    """What a finished run trained, of its folder or its checkpoint.pt: .model(), .classes, .preprocessing, .record.

    Nothing but tensors and plain values is unpickled. Raises UserError where it can't be used.
    """
    from pathlib import Path

    from engine.inference.checkpoint import open_checkpoint

    return open_checkpoint(Path(checkpoint), BACKBONES)


def fine_tune(images: str | os.PathLike[str] | Dataset | Choice, **flags: Any) -> Any:
    """Do what a script's command does; returns the record, with "folder", where it lies. Of all folds: a list of them.

    fine_tune("photos", model="mobilenet", batch_size=32, epochs=3) is `python folder.py photos --model mobilenet
    --batch-size 32 --epochs 3`: the same run, which either goes on with where the other was interrupted. `images` is a
    folder of images, the name of a dataset as grid.py takes it ("digits", "breakhis:40"), or a declaration; the
    keywords are the flags, with _ for -, True for those that take no value. Nothing comes back from check=True.
    Raises UserError for what is to be mended, RunError where the run fails.
    """
    let_interrupt()
    with failures_explained():
        dataset = images if isinstance(images, Dataset | Choice) else _named(images)
        words = arguments_of(flags)
        chosen, config = parse(dataset, BACKBONES, words)
        from engine.device import as_found

        which = [str(chosen.own_folder)] if chosen.own_folder else chosen.flags.split()
        with as_found():
            records = _run(chosen, config, [*which, *words], nullcontext())
    if config.check:
        return None
    return records if len(config.runs) > 1 else records[0]


# what an editor, or ? in a notebook, shows of it
setattr(fine_tune, "__signature__", signature_with_flags("images"))  # noqa: B010 (mypy takes no assignment)


def _named(images: str | os.PathLike[str]) -> Dataset:
    """The dataset of that name, or the images in that folder."""
    if not isinstance(images, str | os.PathLike) or not isinstance(os.fspath(images), str):
        raise UserError(
            f"fine_tune: the images are {images!r:.80}. Expected a folder of them, the name of a dataset, or a "
            "declaration."
        )
    # Names lead to scripts, which import this module. In a notebook, another package may have the name `datasets`.
    scripts = run_path(str(PROJECT / "datasets.py"))
    text = images if isinstance(images, str) else f"folder:{os.fspath(images)}"
    dataset: Dataset = scripts["find_one"](text, "a run")[1].dataset
    return dataset


def _run(
    chosen: Dataset, config: Config, arguments: Sequence[str], imports: AbstractContextManager[None]
) -> list[dict[str, Any]]:
    """Do what `arguments` ask a script for, of which the dataset and the Config are; returns the records."""
    records = []
    if own_check := config.check and chosen.own:
        from engine.data.inspection import check_images, ready_line

        first = config.runs[0]
        fold = (first.folds, first.fold) if first.folds and first.fold else None
        check_images(chosen, config.data_dir, config.seed, config.decode_options(chosen), fold)
    if config.model:
        # PyTorch takes seconds to import: neither `--help` nor a mistake in the command should wait for it
        with imports:
            from engine import run

        records = run.fine_tune(chosen, config, find_backbone(config.model, BACKBONES).backbone)
    if own_check:
        say(ready_line(chosen.script_name, arguments, config.model))
    return records


def main(dataset: Dataset | Choice, arguments: Sequence[str] | None = None) -> NoReturn:
    """Do what the command line of a dataset's script asks for, then exit.

    Exit codes: 0 done, 2 something to mend in the command or the data, 3 the run failed, 130 interrupted.
    """

    def command() -> None:
        install_stop_handler()
        chosen, config = parse(dataset, BACKBONES, arguments)
        _run(chosen, config, sys.argv[1:] if arguments is None else arguments, importing())

    goes_on = "interrupted. Without --rerun, the same command goes on from the last epoch that it saved, if any."
    sys.exit(run_command(command, goes_on, together=True))
