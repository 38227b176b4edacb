"""The answer in plain words: what to take, how sure that is, and what to run next."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from textwrap import shorten
from typing import Any, TypedDict

from common import BACKBONES
from engine.errors import counted
from engine.models.names import may_have_weights
from engine.records.schema import CHECKPOINT
from engine.training.metrics import METRICS
from reporting import commands, folds
from reporting.chance import balanced_accuracy
from reporting.comparable import ComparableGroup, Repeats, in_order, not_to_be_ranked
from reporting.entry import Budget, Entry
from reporting.one_dataset import OneDataset, share
from reporting.statistics import EQUAL, FEWEST_SEEDS, wilson
from reporting.words import OWN, capital, listed

UNSEEN = 0.0005  # a difference of accuracy that sentences, with one decimal of a percentage, don't show
MORE_SEEDS = 5  # with which tests are paired
WIDE = 0.05  # an interval of shares of which whole percentages say enough
MOST_OWN = 5  # datasets of the user's own that are answered for one by one
MOST_COMMANDS = 3
LONGEST_REASON = 200


class Command(TypedDict):
    """A command, and what it is for."""

    why: str
    command: str


class Taken(TypedDict):
    """The network that was trained of what is recommended."""

    backbone: str
    path: str  # of its weights, as a command takes it; "": they are not there
    why: str  # which of several trainings, and by what


class Advice(TypedDict):
    """Sentences for people who train networks to use them."""

    headline: str
    more: list[str]
    open: bool  # whether it recommends nothing, or may change with more trainings
    taken: Taken | None
    commands: list[Command]


@dataclass(frozen=True)
class Unfinished:
    """A run that left no result, as far as it is known."""

    dataset: str
    place: str
    backbone: str
    seed: int
    budget: str
    failed: str  # why; "": it was interrupted, or is going on
    entry: Entry | None = None  # of its record, if there is one
    command: str = ""  # of what grid.py keeps as failed; "": it does not say


def unfinished(entries: Iterable[Entry], failed: Iterable[Mapping[str, str]]) -> list[Unfinished]:
    """What began and did not end well: records that say so, and the cells that grid.py keeps as failed.

    A cross-validation that lacks a fold is one of these; a run of a search is not, which rank.py goes on with.
    """
    entries = [entry for entry in entries if not entry.setting.search]
    rankable = [entry for entry in entries if not not_to_be_ranked(entry)]
    found = [
        Unfinished(
            entry.version.key,
            "" if entry.published else entry.place,
            entry.backbone,
            entry.seed,
            str(entry.fold.budget if entry.fold else entry.budget),
            (entry.error or "failed").split("\n")[0] if entry.status == "failed" else "",
            entry,
        )
        for entry in (*folds.begun(rankable), *(entry for entry in entries if entry.status != "done"))
    ]
    for line in failed:
        seed = line.get("seed", "")
        if line.get("dataset") and line.get("model") and seed.isascii() and seed.isdigit() and len(seed) < 12:
            budget = line.get("budget", "all")
            kind, _, number = budget.partition(" ")
            budget = {"shots": f"{number} shots", "fraction": f"{number} of train"}.get(kind, "all")
            reason = " ".join(line["reason"].split())
            found.append(
                Unfinished(line["dataset"], "", line["model"], int(seed), budget, reason, None, line.get("command", ""))
            )
    return found


def advise(group: ComparableGroup, budget: Budget, ranking: Mapping[str, Any], begun: Sequence[Unfinished]) -> Advice:
    """What to say of a group's runs with one budget; `ranking` is that of all its datasets."""
    ran: dict[str, dict[str, Repeats]] = {}
    for (key, name, of), cell in group.cells.items():
        if of == budget:
            ran.setdefault(key, {})[name] = cell
    found = {key: OneDataset(ran[key]) for key in group.datasets if key in ran}
    lacking = {key: _lacking(each, group, str(budget), begun) for key, each in found.items()}
    if len(found) == 1:
        (key,) = found
        return _of_dataset(found[key], group, lacking[key])
    own = [key for key in found if group.examples[key].domain == OWN][:MOST_OWN]
    alone = {key: _of_dataset(found[key], group, [])["headline"] for key in own}
    return {
        "headline": ranking["plain"],
        "more": [
            *ranking["more"],
            *(f"{group.examples[key].name} alone: {headline}" for key, headline in alone.items()),
        ],
        "open": not ranking["enough"],
        "taken": None,
        "commands": [
            command
            for key, several in lacking.items()
            for each in several
            for command in _command(f"{group.examples[key].name}: {each['why']}", each["command"])
        ][:MOST_COMMANDS],
    }


def _of_dataset(found: OneDataset, group: ComparableGroup, lacking: Sequence[Command]) -> Advice:
    if not found.good:
        headline, more, best = _guesses(found, group)
    elif len(found.cells) == 1:
        headline, more, best = _alone(found)
    elif found.short:
        headline, more, best = _so_far(found)
    elif len(found.even) == 1:
        headline, more, best = _winner(found)
    else:
        headline, more, best = _too_close(found)
    taken = _taken(found.cells[best]) if best else None
    further = _next(found, group, best, taken)
    return {
        "headline": headline,
        "more": [*more, *_beside_chance(found)] if best else [*_beside_chance(found), *more],
        "open": not best or bool(found.short) or len(found.cells) == 1,
        "taken": taken,
        "commands": [*lacking, *further] if best else [*further, *lacking],
    }


def _guesses(found: OneDataset, group: ComparableGroup) -> tuple[str, list[str], str]:
    """Where nothing is better than guessing."""
    best = found.ordered[0]
    verdict = "No" if found.means[best] <= found.chance.share + EQUAL else "Not clearly"
    which = best
    if len(found.cells) > 1:
        equal = [name for name in found.ordered if found.means[best] - found.means[name] < EQUAL]
        which = (
            f"{best}, the best of {len(found.cells)} backbones,"
            if len(equal) == 1
            else f"{best}, like {listed(equal[1:])},"
        )
    if group.setting.weights == "none" and any(may_have_weights(name, BACKBONES) for name in found.ordered):
        advice = (
            "These began from random weights, which takes far more images and epochs: begin from pretrained ones, that "
            "is, leave --weights none out"
        )
    else:
        advice = "What may help: more images, more epochs (--epochs), a larger --size; and a look at the labels"
    return f"{verdict} better than guessing: {which} has {found.result(best)}.", [f"{advice}."], ""


def _alone(found: OneDataset) -> tuple[str, list[str], str]:
    (name,) = found.ordered
    more = ["Which backbone is best can be said once others have one, too.", _of_test(found, name)]
    return f"Only {name} has a result so far: {found.result(name)}.", more, name


def _so_far(found: OneDataset) -> tuple[str, list[str], str]:
    """Where some backbone has too few seeds."""
    first, *others = found.good
    behind = f", {_ahead(found.means[first] - found.means[others[0]])} {others[0]}" if others else ""
    more = [
        f"That may be chance: to tell, each backbone takes {FEWEST_SEEDS} trainings from different random starts.",
        *_speed(found, first, " so far"),
        _of_test(found, first),
    ]
    return f"So far, take {first}: {found.result(first)}{behind}.", more, first


def _winner(found: OneDataset) -> tuple[str, list[str], str]:
    (best,) = found.even
    others = [name for name in found.ordered if name != best]
    if len(found.below) < len(others):
        ahead = ["No other is shown to be better than guessing."] if len(found.good) == 1 else _behind(found)
    else:
        rest = others[0] if len(others) == 1 else "every other"
        second = f"{others[0]}, {share(found.means[others[0]])}"
        ahead = [f"It is ahead of {rest} by more than chance gives; next is {second}."]
    return f"Take {best}: {found.result(best)}.", [*_speed(found, best), *ahead, _of_test(found, best)], best


def _too_close(found: OneDataset) -> tuple[str, list[str], str]:
    """Where some can't be told apart from the best: the cheapest of those that are as good in practice."""
    first, *others = found.even
    near = [name for name in found.even if found.means[first] - found.means[name] <= found.close]
    best = found.cheapest(near)
    if times := found.times(best, first):
        lost = _lost(found.means[first] - found.means[best])
        why = f"of those within {_points(found.close)} of the highest, {best} is the cheapest: {times}{lost}"
    else:
        best, why = first, f"{first} is the highest"
    named = listed([f"{first} ({share(found.means[first])})", *others])
    more = [
        f"{named} differ by no more than chance gives; {why}.",
        *_speed(found, best),
        *_behind(found),
        _of_test(found, best),
    ]
    return f"Too close to tell: take {best}, {found.result(best)}.", more, best


def _behind(found: OneDataset) -> list[str]:
    below = [name for name in found.below if name in found.good]
    return [f"Behind by more than chance gives: {listed(below)}."] if below else []


def _ahead(lead: float) -> str:
    return f"{_points(lead)} ahead of" if lead >= UNSEEN else "as many as"


def _points(difference: float) -> str:
    text = f"{100 * difference:.1f}".removesuffix(".0")
    return f"{text} point{'' if text == '1' else 's'}"


def _lost(loss: float) -> str:
    return f", for {_points(loss)} less" if loss >= UNSEEN else ", with the same accuracy"


def _speed(found: OneDataset, best: str, so_far: str = "") -> list[str]:
    """What to take for speed, where that is another."""
    name = found.quick(best)
    if not name:
        return []
    maybe = ", which chance alone can give" if not so_far and name in found.even else so_far
    lost = _lost(found.means[best] - found.means[name])
    return [f"If speed matters, take {name}: {found.times(name, best)}{lost}{maybe}."]


def _of_test(found: OneDataset, name: str) -> str:
    """How far the number holds for other images."""
    if found.cells[name].runs[0].setting.protocol == "paper":
        return f"Of other images of the kind, {name} may get fewer right: test chose the epoch."
    low, high = wilson(found.means[name], found.images) or (0.0, 1.0)
    digits = 0 if high - low >= WIDE else 1
    ends = f"{100 * low:.{digits}f} to {100 * high:.{digits}f} %"
    images = counted(found.images, "image" if found.cells[name].runs[0].folds else "test image", "say")
    return f"Of other images of the kind, {name} may get {ends} right: {images} no more."


def _beside_chance(found: OneDataset) -> list[str]:
    """What guessing gives, and who does no better."""
    chance = found.chance
    lines = [f"{capital(chance.words)} {share(chance.share)}."]
    best = (found.good or found.ordered)[0]
    balanced = balanced_accuracy(found.cells[best])
    if not chance.equal and balanced is not None:
        lines[0] = lines[0][:-1] + (
            f"; with every class counted alike (balanced accuracy) {best} has {share(balanced)}, and guessing "
            f"{share(1 / chance.classes)}."
        )
    if found.good and (idle := [name for name in found.ordered if name not in found.good]):
        more = [name for name in idle if found.means[name] > found.means[best]]
        named = [f"{name} ({share(found.means[name])})" if name in more else name for name in idle]
        lines.append(f"Not shown to be better than guessing: {listed(named)}.")
    return lines


def _taken(cell: Repeats) -> Taken:
    """The training that was best on the images that chose its epoch."""
    trainings = cell.trainings
    best = max(trainings, key=lambda entry: (entry.chosen[1] if entry.chosen else -math.inf, -entry.seed))
    there = (best.folder / CHECKPOINT).is_file()
    part = "test, as the paper protocol has it" if best.setting.protocol == "paper" else "val; test chose nothing"
    value = _chosen_by(*best.chosen) if best.chosen else ""
    which = f"seed {best.seed}" + (f", fold {best.fold.number}" if best.fold else "")
    why = f"its training with {which}"
    if len(trainings) > 1:
        why = f"of its {len(trainings)} trainings that with {which}"
        why += f", the best on the images that chose the epoch ({value}{part})"
    return {"backbone": cell.backbone, "path": commands.checkpoint(best) if there else "", "why": why}


def _chosen_by(metric: str, value: float) -> str:
    return f"{share(value)} of " if metric == "top1" else f"{METRICS[metric].text(value)} on "


def _command(why: str, command: str) -> list[Command]:
    """The command, if there is one."""
    return [{"why": why, "command": command}] if command else []


def _next(found: OneDataset, group: ComparableGroup, best: str, taken: Taken | None) -> list[Command]:
    """What is worth running where nothing is missing."""
    example, weights = found.cells[found.ordered[0]].runs[-1], group.setting.weights
    seeds = _wanted(found)
    lines: list[Command] = []
    if weights == "none" and (pretrained := [name for name in found.ordered if may_have_weights(name, BACKBONES)]):
        command = commands.grid(example, pretrained, seeds, without=("weights",))
        lines += _command("The same from pretrained weights, which need far fewer images", command)
    others = [name for name, of in BACKBONES.items() if of.published and name not in found.cells]
    if not best:
        return lines + _command("A look at the images", commands.check(example))
    if others and weights == "imagenet":
        which = f"the other {len(others)} backbones" if len(others) > 1 else f"the other backbone, {others[0]}"
        lines += _command(f"To compare {which} as well", commands.grid(example, others, seeds))
    fewest = min(len(found.cells[name].trainings) for name in found.even)
    if not found.short and len(found.even) > 1 and fewest < MORE_SEEDS:
        more = sorted({*seeds, *range(MORE_SEEDS)})[: max(MORE_SEEDS, len(seeds))]
        of_each = f"{MORE_SEEDS} seeds of each" if example.folds else f"{MORE_SEEDS} trainings of each"
        images = "images" if example.folds else "test images"
        why = f"To tell closer ones apart, {of_each} may do; so may more {images}"
        lines += _command(why, commands.grid(example, found.even, more))
    if found.cells[best].runs[0].folds:  # its checkpoints have each seen all images but those of a fold
        why = "To train one network for use, with a part held out to test it"
        lines += _command(why, commands.train(found.cells[best].runs[0], without=("folds",)))
    elif taken and taken["path"]:
        run = next(run for run in found.cells[best].runs if commands.checkpoint(run) == taken["path"])
        why = "To train the recommended network on from what it has learned"
        lines += _command(why, commands.train(run, "--weights", taken["path"], without=("weights",)))
    return lines


def _wanted(found: OneDataset) -> list[int]:
    """The seeds that every backbone should have: those that some have, and as many more as a claim takes."""
    used = {entry.seed for cell in found.cells.values() for entry in cell.runs}
    if not found.short:  # of folds, one seed may be enough
        return sorted(used)
    free = (seed for seed in range(len(used) + FEWEST_SEEDS) if seed not in used)
    while len(used) < FEWEST_SEEDS:
        used.add(next(free))
    return sorted(used)


def _lacking(found: OneDataset, group: ComparableGroup, budget: str, begun: Sequence[Unfinished]) -> list[Command]:
    """The command of the runs without which nothing can be claimed, and of those that did not end well."""
    example = found.cells[found.ordered[0]].runs[-1]
    have = {name: {entry.seed for entry in cell.runs} for name, cell in found.cells.items()}
    wanted = _wanted(found)[:FEWEST_SEEDS]
    missing = {(name, seed) for name in found.short for seed in wanted if seed not in have[name]}
    broken = {
        (each.backbone, each.seed): each.failed
        for each in begun
        if each.budget == budget and _is_of(each, example, group) and each.seed not in have.get(each.backbone, ())
    }
    missing |= {(name, seed) for name, _ in broken if name not in have for seed in wanted}
    missing.update(broken)
    if not missing:
        return []
    names, seeds = {name for name, _ in missing}, {seed for _, seed in missing}
    models = in_order(names, BACKBONES)
    runs = sum(seed not in have.get(name, ()) for name in models for seed in seeds)
    reasons = [f"{name}, seed {seed}, failed: {why}" for (name, seed), why in broken.items() if why]
    parts = [f"{name} has {len(have[name])} of {FEWEST_SEEDS} trainings" for name in found.short]
    parts += [f"{len(broken) - len(reasons)} not finished"] if len(broken) > len(reasons) else []
    parts += [shorten(reasons[0], LONGEST_REASON, placeholder="...")] if reasons else []
    parts += [f"and {len(reasons) - 1} more failed"] if len(reasons) > 1 else []
    what = "cross-validation" if example.folds else "run"
    why = f"What is missing, {counted(runs, what)} ({'; '.join(parts)})"
    more = ["--retry-failed"] if reasons else []
    return _command(why, commands.grid(example, models, seeds, *more))


def _is_of(each: Unfinished, example: Entry, group: ComparableGroup) -> bool:
    """Whether a run is one of those of the example's dataset and group, as far as is known of it."""
    if each.entry is None:
        return example.version.key.partition(" ")[0] == each.dataset and (
            not each.command or commands.asks_for(each.command, group.setting)
        )
    if replace(each.entry.setting, code="") != replace(group.setting, code=""):
        return False
    return each.dataset == example.version.key or bool(each.place and each.place == example.place)


def unranked(begun: Sequence[Unfinished]) -> list[Command]:
    """The commands of what began and did not end well, where there is nothing else."""
    together: dict[Any, list[Unfinished]] = {}
    for each in begun:
        if each.entry is not None:
            together.setdefault((each.dataset, each.place, each.entry.given), []).append(each)
    lines: list[Command] = []
    for several in together.values():
        example = several[0].entry
        assert example is not None
        models = list(dict.fromkeys(each.backbone for each in several))
        reasons = [each.failed for each in several if each.failed]
        why = f"{example.name}: {counted(len(several), 'run')} not finished"
        why += f" ({shorten(reasons[0], LONGEST_REASON, placeholder='...')})" if reasons else ""
        more = ["--retry-failed"] if reasons else []
        command = commands.grid(example, models, {each.seed for each in several}, *more)
        lines += _command(why, command)
    return lines[:MOST_COMMANDS]
