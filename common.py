"""What every dataset script imports: the backbones, their factory, and `main()`: one run from flags to record."""

from __future__ import annotations

import signal
import sys
import traceback
from collections.abc import Sequence
from dataclasses import replace
from math import ceil
from typing import NoReturn

import torch
from torch import nn
from torchvision import models

from engine.config import parse
from engine.console import head_lines, result_line, say, steady_streams
from engine.data.batches import Batches, usable_batch_size
from engine.data.declaration import Choice, RawSplits, Dataset, File, Part, HDF5Image, ReadOptions
from engine.data.images import DECODER
from engine.data.load import divide, read, split_json
from engine.data.pixels import with_pixels
from engine.device import prepare
from engine.errors import RunError, UserError, out_of_memory
from engine.heartbeat import install_stop_handler
from engine.models.backbone import Backbone, WeightsFile, inception_v3, replace_head, require_size, trains_batch_norm
from engine.models.wavemix import wavemix
from engine.models.weights import NONE, Weights, find_weights, load_weights
from engine.records.run_folder import Run, describe
from engine.records.tensorboard import require_tensorboard
from engine.training.autotune import fastest_plan
from engine.training.check import check
from engine.training.loop import fit, freeze_body, predict
from engine.training.lr_sweep import best_rate
from engine.training.metrics import evaluate
from engine.training.plan import choose_plan, keep_plan
from engine.training.recipe import make_recipe

__all__ = [
    "BACKBONES",
    "Backbone",
    "Choice",
    "RawSplits",
    "Dataset",
    "File",
    "Part",
    "HDF5Image",
    "ReadOptions",
    "WeightsFile",
    "build_model",
    "main",
]

# one entry a backbone: its builder, its pretrained weights, the name of its last linear layer, and, where it is not the
# usual one, the highest rate of the recipe "cosine". 5e-5 is that of the fine-tuning of ConvNeXt (its TRAINING.md, 512
# images a step) and of Hugging Face's example for Swin-T on EuroSAT (128 images a step); Swin's own, for ImageNet, is
# 2e-5. The usual 3e-4 was measured with EfficientNet-Lite0 alone: see docs/recipes.md.
BACKBONES: dict[str, Backbone] = {
    "resnet": Backbone(models.resnet50, models.ResNet50_Weights.IMAGENET1K_V1, "fc"),
    "wavemix": Backbone(
        wavemix,
        WeightsFile(
            "wavemix_192_16_75.06",
            "https://huggingface.co/cloudwalker/wavemix/resolve/main/Saved_Models_Weights/ImageNet/"
            "wavemix_192_16_75.06.pth",
            top1=75.32,
        ),
        "pool.2",
    ),
    "convnext": Backbone(models.convnext_tiny, models.ConvNeXt_Tiny_Weights.IMAGENET1K_V1, "classifier.2", 5e-5),
    "swin": Backbone(models.swin_t, models.Swin_T_Weights.IMAGENET1K_V1, "head", 5e-5),
    "swinv2": Backbone(models.swin_v2_t, models.Swin_V2_T_Weights.IMAGENET1K_V1, "head", 5e-5),
    "efficientnet": Backbone(models.efficientnet_v2_s, models.EfficientNet_V2_S_Weights.IMAGENET1K_V1, "classifier.1"),
    "densenet": Backbone(models.densenet161, models.DenseNet161_Weights.IMAGENET1K_V1, "classifier"),
    "mobilenet": Backbone(models.mobilenet_v3_large, models.MobileNet_V3_Large_Weights.IMAGENET1K_V2, "classifier.3"),
    "regnet": Backbone(models.regnet_y_3_2gf, models.RegNet_Y_3_2GF_Weights.IMAGENET1K_V2, "fc"),
    "resnext": Backbone(models.resnext50_32x4d, models.ResNeXt50_32X4D_Weights.IMAGENET1K_V2, "fc"),
    "shufflenet": Backbone(models.shufflenet_v2_x2_0, models.ShuffleNet_V2_X2_0_Weights.IMAGENET1K_V1, "fc"),
    # outside the published table and the default grid; the original's command line takes it
    "inception": Backbone(inception_v3, models.Inception_V3_Weights.IMAGENET1K_V1, "fc"),
}


EVALUATED = 2  # times the images of a training batch are evaluated at once: no gradients take memory


def build_model(name: str, num_classes: int, weights: str | Weights = "imagenet") -> nn.Module:
    """The backbone `name` with a new head of `num_classes` outputs.

    Takes images (B, 3, H, W), normalised as the weights expect, and returns logits (B, num_classes), in train mode
    too. `weights` is what `--weights` takes. Raises UserError when the weights can't be had or don't fit.
    """
    backbone = BACKBONES[name]
    found = find_weights(backbone, weights) if isinstance(weights, str) else weights
    model = backbone.builder()
    if found != NONE:
        load_weights(model, found, backbone.head, name)
    replace_head(model, backbone.head, num_classes)
    return model


def main(dataset: Dataset | Choice, arguments: Sequence[str] | None = None) -> NoReturn:
    """Do what the command line of a dataset's script asks for, then exit.

    Exit codes: 0 done, 2 something to mend in the command or the data, 3 the run failed, 130 interrupted.
    """
    steady_streams()
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # a scheduler's polite end is an interruption too
    install_stop_handler()
    try:
        fine_tune(dataset, arguments)
    except (UserError, RunError) as problem:
        sys.exit(_complain(str(problem), problem.exit_code))
    except KeyboardInterrupt:
        sys.exit(
            _complain(
                "interrupted. Without --rerun, the same command goes on from the last epoch that it finished, if any.",
                130,
            )
        )
    except Exception as problem:
        if out_of_memory(problem):
            reason = str(problem).partition("\n")[0]
            sys.exit(_complain(f"out of memory. Try a smaller -bs or --size. ({reason})", RunError.exit_code))
        traceback.print_exc()
        sys.exit(_complain("this is a fault of the program; please report the lines above.", RunError.exit_code))
    sys.exit(0)


def fine_tune(dataset: Dataset | Choice, arguments: Sequence[str] | None = None) -> None:
    """One command, from its flags to a finished record, or to the record that an earlier command finished."""
    dataset, config = parse(dataset, BACKBONES, arguments)
    if config.tensorboard:
        require_tensorboard()
    backbone = BACKBONES[config.model]
    plan = choose_plan(config.device, config.precision)
    contents = read(dataset, config.data_dir, config.allow_partial, config.protocol, fetch=not config.check)
    weights = find_weights(backbone, config.weights)

    torch.manual_seed(config.seed)
    model = build_model(config.model, len(contents.classes), weights)
    head = model.get_submodule(backbone.head)
    require_size(model, config.model, config.size)
    listed = divide(contents, config.protocol, config.seed, config.budget)
    needs_pairs = trains_batch_norm(model, config.tune)
    usable_batch_size(config.batch_size, len(listed.fit), needs_pairs)  # better now than after an hour of decoding
    contents, parts = with_pixels(dataset, contents, listed, config)

    batch_size = usable_batch_size(config.batch_size, len(parts.fit), needs_pairs)
    told = listed if config.check else parts  # a check has decoded no more than it takes
    course = make_recipe(config, backbone.rate, ceil(len(told.fit) / batch_size))

    identity = config.identity() | {"dataset": dataset.key, "version": dataset.version, "decoder": DECODER}
    identity |= {"split": parts.hash, "weights": weights.sha256, "batch_size": min(config.batch_size, len(parts.fit))}
    identity |= {"lr": course.rate, "epochs": course.epochs}
    run = Run(config.out, identity, config.rerun, config.tensorboard)
    if run.done and not config.check:
        say(f"record     {run.folder}", result_line(run.record))
        return
    if run.interrupted:
        plan = keep_plan(run.record["plan"])

    if config.tune == "linear":
        freeze_body(model, head)
    prepare(plan.device)
    # the original normalises by its training set's statistics; pretrained weights expect what they were trained with
    mean, std = (dataset.mean, dataset.std) if config.protocol == "paper" else (weights.mean, weights.std)
    train = Batches(parts.fit, batch_size, config.size, mean, std, plan.device, augment=config.augment == "trivial")
    train = train.cached_on_device()
    select = train.of(parts.select, EVALUATED * batch_size)
    description = describe(dataset, contents, told, config, course, backbone, weights, plan, model, train)
    if run.interrupted:
        description["lr"] = run.record["lr"]  # that of a sweep, if there was one
    say(*head_lines(description, course.summary, None if config.check else run.folder, run.interrupted))
    if config.check:
        plan = fastest_plan(plan, model, head, train, replace(config, plan="off"))
        plan.place(model)
        check(model, head, train, select, config, course, plan)
        return
    with run.writing(description, split_json(parts, config.protocol, config.seed)):
        if not run.interrupted:
            plan = fastest_plan(plan, model, head, train, config)
            run.change_plan(plan)
        say(*plan.lines)
        plan.place(model)
        train, select = (replace(batches, memory_format=plan.memory_format) for batches in (train, select))
        if config.lr_sweep:
            rate, plan = best_rate(model, head, train, select, course, plan, run)
            course = replace(course, rate=rate)
        state = fit(model, head, train, select, course, plan, run)
        logits, test_speed = predict(model, train.of(parts.test, EVALUATED * batch_size), plan, "test")
        run.finish(model, state, parts.test, logits, evaluate(logits, parts.test.labels), test_speed)
    say(f"record     {run.folder}", result_line(run.record))


def _complain(message: str, exit_code: int) -> int:
    print(f"error: {message}", file=sys.stderr)
    return exit_code
