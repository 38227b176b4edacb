"""fine_tune(): what a command of a dataset's script asks for, from its flags to a finished record, or one a fold."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import ceil
from pathlib import Path
from typing import Any

import torch
from torch import nn

from engine.code_hash import code_of
from engine.config import Config
from engine.console import say
from engine.data.batches import Batches, usable_batch_size
from engine.data.declaration import Dataset
from engine.data.folds import fold_of
from engine.data.images import DECODER
from engine.data.load import decode, divide, read
from engine.data.part import Part, RawSplits, Splits
from engine.data.splits import taken
from engine.device import find_device, not_deterministic, prepare
from engine.environment import environment
from engine.errors import UserError
from engine.models.backbone import Backbone
from engine.models.structure import freeze_body, macs, trains_batch_norm
from engine.models.weights import Weights, build, find_weights
from engine.processes import peers
from engine.processes.exchange import require_same
from engine.processes.heartbeat import out_here, seeds_to_come
from engine.processes.peers import from_first, in_turns, is_first, together
from engine.records.describe import Outcome, describe_data, describe_model, describe_processes, describe_training
from engine.records.identity import asked_beyond_result
from engine.records.printed import (
    fold_words,
    head_lines,
    other_code_lines,
    pooled_line,
    result_line,
    strange_lines,
    where_lines,
)
from engine.records.run_folder import Run
from engine.records.shared_run import SharedRun
from engine.training.autotune import fastest_plan, with_threads_of_now
from engine.training.calibration import calibration
from engine.training.check import check
from engine.training.evaluation import predict
from engine.training.features import with_features
from engine.training.findings import TuningRequest, promise_of
from engine.training.loop import fit, unheard
from engine.training.lr_sweep import best_lr
from engine.training.plan import Plan, choose_plan, keep_plan
from engine.training.recipe import RECIPES, Recipe, balanced_weights, default_epochs, make_recipe


@dataclass(frozen=True)
class Data:
    """The images of a run."""

    dataset: Dataset
    raw: RawSplits  # what the dataset's files hold
    splits: Splits  # what the protocol makes of it

    @property
    def train_images(self) -> int:
        """How many are trained on in an epoch."""
        return len(self.splits.train)


@dataclass(frozen=True)
class Trainee:
    """What is trained."""

    backbone: Backbone
    weights: Weights  # that it begins from
    model: nn.Module
    macs: int  # multiply-accumulates of one image


@dataclass(frozen=True)
class Setup:
    """All that training needs."""

    config: Config
    data: Data
    trainee: Trainee
    recipe: Recipe
    train: Batches
    plan: Plan

    @property
    def val(self) -> Batches:
        """The images that choose the epoch."""
        return self.train.for_evaluation("test" if self.config.protocol == "paper" else "val", self.data.splits.val)

    def with_plan(self, plan: Plan) -> Setup:
        """The same by another plan, with the model placed as it says."""
        plan.place(self.trainee.model)
        return replace(self, plan=plan, train=replace(self.train, memory_format=plan.memory_format))

    @property
    def tuning_request(self) -> TuningRequest:
        """What the plan is to be measured for."""
        return tuning_request(self.config, self.trainee.backbone, self.recipe, self.plan.device)


def fine_tune(dataset: Dataset, config: Config, backbone: Backbone) -> list[dict[str, Any]]:
    """Do what one command asks for: one run, or one for each fold, and then the result of all of these together.

    Returns their records, each with "folder", where it lies; none after --check. Of several processes, as torchrun
    starts them, all do this together and return the same.
    """
    if config.check:
        if is_first():
            one_run(dataset, config.runs[0], backbone)
        return []
    with together(find_device(config.device)):
        records = [one_run(dataset, each, backbone) for each in config.runs]
    if len(records) > 1:
        say(pooled_line(records), go_on=True)
    return records


def one_run(dataset: Dataset, config: Config, backbone: Backbone) -> dict[str, Any]:
    """Finish a run, or print the record of one that an earlier command finished; returns the record, and its folder.

    First the data, then the model and its recipe, then the run. What can be refused is refused before the images are
    decoded, which may take an hour.
    """
    plan = choose_plan(config.device, config.precision)
    require_same(plan.device, "kind of device")
    if config.sync_batch_norm and plan.device != "cuda":
        raise UserError(f"--sync-batch-norm: PyTorch has it on cards alone, and this is {plan.device}. Leave it out.")

    listed = in_turns(lambda: list_images(dataset, config))
    trainee = in_turns(lambda: make_model(config, backbone.at(config.size), listed))
    data = in_turns(lambda: decode_images(listed, config))
    require_same(f"{data.splits.hash} {trainee.weights.sha256}", "images and weights")

    batch_size = usable(config, data.train_images, trainee.model)
    recipe = resolve_recipe(config, backbone, ceil(data.train_images / batch_size))
    head = backbone.head if trainee.weights.file else ""
    recipe = replace(recipe, select=config.select, class_weights=class_weights(config, data.splits), head=head)

    identified = identity(config, data, trainee, recipe, batch_size)
    run = SharedRun(out_here(config.out), identified, config.rerun, config.tensorboard)
    other_code = other_code_lines(run.record, code_of(dataset.read, backbone.source, backbone.arguments))
    if run.done and not config.check:
        strange = strange_lines(run.folder, run.strange_files)
        say(*where_lines(run.folder), *strange, *other_code, result_line(run.record), go_on=True)
        return run.final
    if run.interrupted:
        plan = keep_plan(run.record["plan"], config.precision)
    train = make_batches(config, data, trainee.weights, batch_size, plan)
    setup = Setup(config, data, trainee, recipe, train, plan)
    description = describe(setup)
    if run.interrupted:
        description["lr"] = run.record["lr"]  # that of a sweep, if there was one
    say(*head_lines(description, recipe.summary, None if config.check else run.folder, run.interrupted), *other_code)
    if config.check:
        check_run(setup, run.folder)
    else:
        listing = data.splits.listing(config.protocol, config.seed)
        with run.writing(description, listing, seen_after(trainee.weights, data.splits)):
            train_and_test(setup, run)
        if run.run:
            say(*where_lines(run.folder), result_line(run.record), go_on=True)
    return run.final


def list_images(dataset: Dataset, config: Config) -> Data:
    """Which images there are, and in which part of the split; none of them is decoded yet."""
    fetch = not config.check
    raw = read(dataset, config.data_dir, config.allow_partial, config.protocol, fetch, config.folds)
    if config.folds and config.fold:
        raw = fold_of(raw, config.folds, config.fold)
    return Data(dataset, raw, divide(raw, config.protocol, config.seed, config.budget))


def make_model(config: Config, backbone: Backbone, listed: Data) -> Trainee:
    """The model with its weights and a new head. Raises UserError where it can't take such images, or so few."""
    weights = find_weights(backbone, config.weights)
    torch.manual_seed(config.seed)
    model = build(backbone, config.model, len(listed.raw.classes), weights)
    if config.tune == "linear":
        freeze_body(model, backbone.head)
    usable(config, listed.train_images, model)
    return Trainee(backbone, weights, model, macs(model, config.size, backbone.head))


def usable(config: Config, images: int, model: nn.Module) -> int:
    """How many images a step has. UserError: too few."""
    return usable_batch_size(config.batch_size, images, trains_batch_norm(model), peers.place().count)


def decode_images(listed: Data, config: Config) -> Data:
    """The images as pixels."""
    dataset, splits = listed.dataset, listed.splits
    return Data(dataset, *decode(dataset, listed.raw, splits, config.decode_options(dataset)))


def resolve_recipe(config: Config, backbone: Backbone, steps: int) -> Recipe:
    """The recipe as this run follows it; `steps` are those of an epoch."""
    lr = config.lr or RECIPES[config.recipe].lr or backbone.lr
    epochs = config.epochs or default_epochs(config.recipe, steps)
    return make_recipe(config.recipe, lr, epochs, config.patience, config.seed)


def class_weights(config: Config, splits: Splits) -> tuple[float, ...] | None:
    """What an image of each class counts in the loss; None: one."""
    return balanced_weights(splits.train.labels, len(splits.classes)) if config.class_weights == "balanced" else None


def identity(config: Config, data: Data, trainee: Trainee, recipe: Recipe, batch_size: int) -> dict[str, Any]:
    """All that can change the run's numbers."""
    return {
        "asked": asked_beyond_result(vars(config)),
        "dataset": data.dataset.key,
        "version": data.dataset.version,
        "decoder": DECODER,
        "split": data.splits.hash,
        "weights": trainee.weights.sha256,
        "batch_size": batch_size,
        "lr": recipe.lr,
        "epochs": recipe.epochs,
    }


def make_batches(config: Config, data: Data, weights: Weights, batch_size: int, plan: Plan) -> Batches:
    """The training images as the model takes them; they come from main memory."""
    prepare(plan.device, config.deterministic)
    here = peers.place()
    mean, std = weights.mean, weights.std  # pretrained weights expect what they were trained with
    if config.protocol == "paper":  # the original normalises by its training set's statistics
        mean, std = data.dataset.mean or mean, data.dataset.std or std
    return Batches(
        "train",
        data.splits.train,
        batch_size,
        config.size,
        mean,
        std,
        plan.device,
        augment=config.augment == "trivial",
        process=here.rank,
        processes=here.count,
    )


def describe(setup: Setup) -> dict[str, Any]:
    """What the record says of the run before it begins."""
    config, trainee, data = setup.config, setup.trainee, setup.data
    backbone = trainee.backbone
    few = taken(data.raw.train.labels, len(data.raw.classes), config.budget)
    seen = trainee.weights.seen_of(data.splits.test)
    return {
        **describe_data(data.dataset, data.raw, data.splits, few, config.data_dir),
        **describe_model(config.model, backbone, trainee.weights, trainee.model, trainee.macs, seen),
        **describe_training(config, setup.recipe, setup.train, setup.plan),
        "environment": environment(backbone.library)
        | {"code": code_of(data.dataset.read, backbone.source, backbone.arguments)}
        | describe_processes(setup.train, config.sync_batch_norm),
    }


def seen_after(weights: Weights, splits: Splits) -> frozenset[str] | None:
    """The digests of all images that train or choose the weights of a run that begins from `weights`; None: unknown."""
    before = weights.seen if weights.run else frozenset()
    return None if before is None else before.union(splits.train.own_digests, splits.val.own_digests)


def may_have_seen(weights: Weights, val: Part) -> bool:
    """Whether weights of an earlier run are known to have seen images of val, or may have."""
    return weights.run is not None and weights.seen_of(val) != 0


def trains_on_features(config: Config) -> bool:
    """Whether images pass through the frozen body only once."""
    return config.tune == "linear" and config.augment == "none"


def tuning_request(config: Config, backbone: Backbone, recipe: Recipe, device: str) -> TuningRequest:
    """What the plan of such a run is to be measured for."""
    # one pass of each image goes through a body whose features are trained on: no time to win
    wanted = "off" if trains_on_features(config) else config.compile
    if wanted == "auto" and peers.joined():  # what it brings there was not measured
        wanted = "off"
    return TuningRequest(
        config.model,
        backbone.head,
        config.tune,
        config.precision,
        wanted,
        measure=config.plan == "measure",
        epochs=recipe.fewest_epochs,
        seeds=seeds_to_come(),
        usual=backbone.usual_on_cuda if device == "cuda" else backbone.usual_on_cpu,
    )


def check_run(setup: Setup, folder: Path) -> None:
    """`--check`: one step of everything; `folder` is where the record would go."""
    model = setup.trainee.model
    unmeasured = replace(setup.tuning_request, measure=False)
    setup = setup.with_plan(fastest_plan(setup.plan, model, setup.train, unmeasured))
    check(model, setup.train, setup.val, setup.recipe, setup.plan, folder)


def measured_plan(setup: Setup, run: Run) -> Plan:
    """The plan that a new run follows: that of another seed, or the fastest."""
    config, model, plan, train = setup.config, setup.trainee.model, setup.plan, setup.train.alone
    other = run.other_seed(plan.device_name) if config.plan == "measure" else None
    if other:
        plan = plan.like(Plan(**other["plan"]), other["seed"], fold_words(other["config"]))
        plan = with_threads_of_now(plan, model, train, setup.trainee.backbone.head)
    else:
        plan = fastest_plan(plan, model, train, setup.tuning_request)
    return replace(plan, compiled=False, graphed=False) if trains_on_features(config) else plan


def train_and_test(setup: Setup, run: SharedRun) -> None:
    """Train, from what an interrupted run left or from the start; score test once, from the best epoch."""
    config, model, recipe, plan = setup.config, setup.trainee.model, setup.recipe, setup.plan
    if not run.interrupted:
        measured = from_first(lambda: measured_plan(setup, run.first))
        plan = replace(measured, device_name=plan.device_name)
    if peers.joined():
        plan = plan.with_others
    if not run.interrupted:
        run.change_plan(plan)
    say(*plan.lines)
    setup = setup.with_plan(plan)
    if config.sync_batch_norm and peers.joined():
        nn.SyncBatchNorm.convert_sync_batchnorm(model)
    train, val = setup.train, setup.val
    if trains_on_features(config):
        train, val = with_features(model, setup.trainee.backbone.head, train, val, plan)
    if config.lr_sweep:
        lr, plan = best_lr(model, train, val, recipe, plan, run)
        recipe = replace(recipe, lr=lr)
    # others may hold this process up, of which its plan knows nothing
    promise = unheard if peers.joined() else promise_of(plan, model, setup.train, setup.tuning_request)
    state = fit(model, train, val, recipe, plan, run, promise)
    # one more pass over val: a run that was interrupted at any point fits the same temperature
    fitted = None
    if config.protocol != "paper" and not may_have_seen(setup.trainee.weights, setup.data.splits.val):
        fitted = calibration(predict(model, val, plan)[0], val.part.labels)
    logits, speed = predict(model, setup.train.for_evaluation("test", setup.data.splits.test), plan)
    if config.deterministic and run.run:
        run.change_plan(replace(Plan(**run.record["plan"]), not_deterministic=not_deterministic()))
    run.finish(model, state, Outcome(setup.data.splits.test, logits, speed, fitted))
