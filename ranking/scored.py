"""Candidates -> their weights, features and scores: what is kept is read, and what is not is computed, and kept."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import ceil, isfinite
from pathlib import Path
from typing import Any

import sklearn

from engine.config import Config
from engine.console import duration, say
from engine.data.batches import usable_batch_size
from engine.data.part import Part
from engine.device import free_memory
from engine.errors import UserError, counted, out_of_memory
from engine.files import digest, json_digest
from engine.models.weights import Weights, find_weights
from engine.run import Data, decode_images, list_images, resolve_recipe
from engine.training.plan import Plan, choose_plan
from engine.training.recipe import Recipe
from ranking import probe, scaling, scores
from ranking.candidates import Candidate, require_enough
from ranking.frozen import Body, Images, frozen
from ranking.kept import About, Frozen, Kept
from ranking.scores import SCORES, all_scores, lonely_classes

MOST_NAMED = 5  # classes


@dataclass(frozen=True)
class Scored:
    """A backbone with what its features say."""

    candidate: Candidate
    weights: Weights
    recipe: Recipe  # of the run in full
    about: About
    values: Mapping[str, float | None]  # by the names of SCORES
    notes: tuple[str, ...]

    @property
    def name(self) -> str:
        """The backbone's."""
        return self.candidate.name


@dataclass(frozen=True)
class Scoring:
    """All that were scored, and on what."""

    data: Data
    plan: Plan
    scored: tuple[Scored, ...]
    left_out: Mapping[str, str]  # why, by name

    @property
    def config(self) -> Config:
        """That of the first: all differ in their backbones alone."""
        return self.scored[0].candidate.cell.config

    @property
    def train(self) -> Part:
        """The images that were looked at."""
        return self.data.splits.train


def score_all(candidates: Sequence[Candidate], left_out: Mapping[str, str]) -> Scoring:
    """Score every candidate that has weights here. UserError: fewer than two can be scored, or the data are refused."""
    first = candidates[0].cell
    plan = choose_plan(first.config.device, first.config.precision)
    listed = list_images(first.dataset, first.config)
    say(*head_lines(listed, first.config))
    out = dict(left_out)
    found: dict[str, Weights] = {}
    for candidate in candidates:
        try:
            found[candidate.name] = find_weights(candidate.cell.backbone, candidate.cell.config.weights)
        except UserError as problem:
            out[candidate.name] = str(problem)
    require_enough(list(found), out)
    data = decode_images(listed, first.config)
    images = Images(data.splits.train, len(data.raw.classes), data.dataset.key)
    scored: list[Scored] = []
    left = [candidate for candidate in candidates if candidate.name in found]
    bodies = [body_of(each, found[each.name], data, plan.device_name) for each in left]
    kept = [body.kept(images) for body in bodies]
    to_pass = sum(not (each and each.is_there) for each in kept)
    if to_pass < len(bodies):
        say(f"features   {len(bodies) - to_pass} of {counted(len(bodies), 'backbone')}: kept from before")
    clock = Clock(to_pass)
    for number, (candidate, body, where) in enumerate(zip(left, bodies, kept, strict=True), 1):
        title = f"{number} of {len(left)}, {candidate.name}"
        try:
            with clock.counting(not (where and where.is_there)):
                scored.append(_scored(candidate, body, where, images, plan, f"{title}{clock.left}"))
        except UserError as problem:
            out[candidate.name] = str(problem)
        except (RuntimeError, MemoryError) as problem:  # of a single image: smaller batches have been tried
            if not out_of_memory(problem):
                raise
            out[candidate.name] = "out of memory, with a single image at a time"
            free_memory(plan.device)
    require_enough([each.name for each in scored], out)
    return Scoring(data, plan, tuple(scored), out)


def head_lines(listed: Data, config: Config) -> list[str]:
    """What is scored on what."""
    train, classes = len(listed.splits.train), len(listed.raw.classes)
    size = "x".join(map(str, config.size))
    lonely = [listed.raw.classes[label] for label in lonely_classes(listed.splits.train.labels, None)]
    named = ", ".join(lonely[:MOST_NAMED]) + (f" and {len(lonely) - MOST_NAMED:,} more" * (len(lonely) > MOST_NAMED))
    notes = [f"note       {counted(len(lonely), 'class')} with a single training image: {named}"] if lonely else []
    return [
        f"{listed.dataset.name}: {counted(train, 'training image')} at {size}, {counted(classes, 'class')}; "
        "validation and test images are not looked at",
        *notes,
    ]


def body_of(candidate: Candidate, weights: Weights, data: Data, device: str) -> Body:
    """What is passed through, and how it would be trained."""
    config, backbone = candidate.cell.config, candidate.cell.backbone
    batch_size = usable_batch_size(config.batch_size, data.train_images, batch_norm=False)
    recipe = resolve_recipe(config, backbone, ceil(data.train_images / batch_size))
    return Body(candidate.name, backbone, weights, config, recipe, device)


class Clock:
    """How long the backbones that are left take, by those that images were passed through."""

    def __init__(self, bodies: int) -> None:
        self._bodies = bodies  # that are yet to be passed through
        self._seconds: list[float] = []

    @contextmanager
    def counting(self, passes: bool) -> Iterator[None]:
        """Time what is done inside, if it is one of those."""
        start = time.perf_counter()
        yield
        if passes:
            self._seconds.append(time.perf_counter() - start)

    @property
    def left(self) -> str:
        """For a bar's title; "" before it is known."""
        if not self._seconds:
            return ""
        mean = sum(self._seconds) / len(self._seconds)
        return f" (all: about {duration(mean * max(1, self._bodies - len(self._seconds)))} left)"


def _scored(candidate: Candidate, body: Body, kept: Kept | None, images: Images, plan: Plan, title: str) -> Scored:
    found = kept.read(len(images.part)) if kept else None
    passed = found is None
    if found is None:
        found = frozen(body, images, plan, title)
        found = Frozen(found.compact(), found.about, {})  # what is read the next time is the same to the last bit
    code = code_of_scores(body.config.seed, images.part.groups)
    values = known_scores(found.scores, code)
    if values is None:
        computed = all_scores(found.features, images.part.labels, images.part.groups, body.config.seed)
        values, notes = computed.values, tuple(computed.notes)
        found = Frozen(found.features, found.about, {"code": code, "values": dict(values), "notes": list(notes)})
        if kept and (problem := kept.write(found)):
            say(f"note       the features of {body.name} are not kept: {problem}")
    else:
        notes = tuple(found.scores["notes"])
    about = found.about
    if passed:
        what = f"{about.images_per_second:,.0f} images/s in {about.form}, {duration(about.seconds)}"
        say(f"features   {title.partition(' (')[0]}: {what}")
    return Scored(candidate, body.weights, body.recipe, about, values, notes)


def code_of_scores(seed: int, groups: Sequence[str] | None) -> str:
    """What gives the scores beside features and labels: code, the seed of the probe's folds, groups of images."""
    code = json_digest([digest(Path(module.__file__ or "")) for module in (scores, probe, scaling)])
    together = f", groups {json_digest(list(groups))[:16]}" if groups is not None else ""
    return f"{code[:16]}, scikit-learn {sklearn.__version__}, seed {seed}{together}"


def known_scores(kept: Mapping[str, Any], code: str) -> Mapping[str, float | None] | None:
    """The scores that were kept, if that code made them; None where there are none."""
    values, notes = kept.get("values"), kept.get("notes")
    if kept.get("code") != code or not isinstance(values, dict) or not isinstance(notes, list):
        return None
    sound = all(isinstance(note, str) for note in notes)
    sound &= all(value is None or (isinstance(value, float) and isfinite(value)) for value in values.values())
    return values if values.keys() == SCORES.keys() and sound else None
