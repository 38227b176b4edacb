"""What was scored -> an order, the result that is kept for the report, and what is printed."""

from __future__ import annotations

import shlex
import shutil
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from engine.code_hash import engine_hash
from engine.console import duration, table
from engine.errors import counted, disk_errors_explained
from engine.files import json_digest
from engine.models.backbone import WEIGHTS, stated_top1
from engine.models.weights import find_member
from engine.models.weights_folder import is_path
from engine.paths import script_path
from engine.records.schema import now
from grids.estimate import Speeds
from grids.ledger import all_records
from ranking.candidates import Candidate, Question, first_sentence
from ranking.kept import PLAN, STEPS
from ranking.order import combined
from ranking.scored import Scored, Scoring, score_all
from ranking.scores import SCORES
from reporting.agreement import Assessment, assess
from reporting.agreement_words import sentences
from reporting.entry import Entry
from reporting.rank_results import RankedBackbone, RankedData, RankResult, path_of, write
from reporting.truth import mean_ranks, verified_in

SHOWN = {"probe": "{:.1%}", "knn1": "{:.1%}", "knn5": "{:.1%}", "logme": "{:.3f}", "hscore": "{:.2f}"}
TOP = 3  # that are worth fine-tuning: where others published both, the best of so many was the best of all
RECORDS = "records"  # what a speed of training is known from, beside PLAN and STEPS
SPEEDS_FROM = {
    RECORDS: "of runs that are recorded here",
    PLAN: "as measured for a run's plan",
    STEPS: "of a few steps",
}


@dataclass(frozen=True)
class Answer:
    """What was asked, what was scored, and how far the order can be trusted."""

    question: Question
    scoring: Scoring
    result: RankResult
    assessment: Assessment
    path: Path  # of the result

    @property
    def ordered(self) -> list[Scored]:
        """What was scored, the best first."""
        by_name = {each.name: each for each in self.scoring.scored}
        return [by_name[name] for name in self.result.order]

    def lines(self) -> list[str]:
        """All that is printed of the order."""
        return [*left_out_lines(self.scoring.left_out), *lines(self.scoring, self.result, self.assessment)]

    def next_lines(self, words: Sequence[str]) -> list[str]:
        """What is worth doing next; `words` are those of the command."""
        return next_lines(self.question, self.result, words)

    def as_json(self) -> dict[str, Any]:
        """The result, with how far to trust it."""
        trusted = trust(self.scoring, self.assessment)
        return {**asdict(self.result), "top": list(self.result.order[:TOP]), "trust": trusted, "file": str(self.path)}


def answered(question: Question, candidates: Sequence[Candidate], left_out: Mapping[str, str]) -> Answer:
    """Score the candidates, order them, and keep the result. UserError: fewer than two can be scored."""
    scoring = score_all(candidates, left_out)
    config = scoring.config
    entries = verified_in(config.out)
    result = result_of(scoring, Speeds(scoring.plan.device_name, all_records(config.out)), entries)
    path = path_of(config.out, scoring.data.dataset.key, digest_of(scoring))
    with disk_errors_explained("the result can't be kept in", path.parent, "--out chooses another folder."):
        write(result, path)
    return Answer(question, scoring, result, assess(result, entries), path)


def result_of(scoring: Scoring, speeds: Speeds, entries: Sequence[Entry]) -> RankResult:
    """The order of what was scored, and all that is kept of it; `speeds` and `entries` of the runs recorded here."""
    data, config = scoring.data, scoring.config
    weights = {each.name: each.weights.sha256 for each in scoring.scored}
    found = mean_ranks(entries, data.dataset.key, weights)
    elsewhere: Mapping[str, float] = found[0] if found else {}
    top1 = {each.name: top1_of(each) for each in scoring.scored}
    by = {name: {each.name: each.values[name] for each in scoring.scored} for name in SCORES}
    order = combined(by["probe"], top1, elsewhere, by["knn5"])
    backbones = []
    for each in scoring.scored:
        speed, source = speed_of(each, speeds)
        backbones.append(
            RankedBackbone(
                each.name,
                each.weights.name,
                each.weights.sha256,
                top1[each.name],
                elsewhere.get(each.name),
                dict(each.values),
                each.about.seconds,
                speed,
                source,
                each.about.parameters,
                each.about.macs,
            )
        )
    splits = data.splits
    about = RankedData(
        data.dataset.key,
        data.dataset.name,
        data.dataset.domain,
        data.dataset.version,
        splits.hash,
        splits.test.fingerprint,
        len(data.raw.classes),
        len(splits.train),
        config.size,
    )
    notes = [*data.raw.notes, *(note for each in scoring.scored for note in each.notes), *few_images(scoring)]
    left_out = tuple({"name": name, "reason": first_sentence(why)} for name, why in scoring.left_out.items())
    return RankResult(
        now(),
        about,
        tuple(backbones),
        tuple(order.names),
        order.mean_rank,
        order.rule,
        left_out,
        tuple(dict.fromkeys(notes)),
        config.seed,
        engine_hash(),
    )


def few_images(scoring: Scoring) -> list[str]:
    """That records an order is held against are not of the same training images, where they are not."""
    if not scoring.config.shots and not scoring.config.fraction:
        return []
    few = counted(len(scoring.train), "training image")
    return [f"This is an order for {few} alone; records that it is held against are of runs on all of them."]


def digest_of(scoring: Scoring) -> str:
    """By which the result of the same question, and of its search, is found again, and replaced."""
    asked = sorted((each.candidate.cell.key, each.weights.sha256 or "") for each in scoring.scored)
    return json_digest([scoring.data.splits.hash, asked])[:10]


def top1_of(scored: Scored) -> float | None:
    """ImageNet top-1 of the very weights, percent; None where nobody states it."""
    backbone, choice = scored.candidate.cell.backbone, scored.candidate.cell.config.weights
    if scored.weights.sha256 is None or is_path(choice):
        return None
    return stated_top1(backbone.pretrained if choice in WEIGHTS else find_member(backbone, choice))


def speed_of(scored: Scored, speeds: Speeds) -> tuple[float | None, str | None]:
    """Images/s of training, and where that is known from; None: it could not be measured."""
    recorded = speeds.train_images_per_second(scored.candidate.cell)
    if recorded is not None:
        return recorded, RECORDS
    measured = scored.about.train_images_per_second
    return measured, scored.about.speed_from if measured else None


def lines(scoring: Scoring, result: RankResult, assessment: Assessment) -> list[str]:
    """All that is printed of an order."""
    sources = sorted({str(each.speed_from) for each in result.backbones if each.speed_from})
    speeds = " or ".join(SPEEDS_FROM[source] for source in sources)
    text = score_table(scoring, result)
    if speeds:
        text.append(f"images/s   in training, {speeds}; full run: {full_words(scoring)} at that speed")
    text.append(f"order      {result.rule}")
    text += [f"note       {note}" for note in result.notes]
    first = result.order[:TOP]
    text.append(f"top {len(first)}      {', '.join(first)}")
    return [*text, *(f"trust      {sentence}" for sentence in trust(scoring, assessment))]


def trust(scoring: Scoring, assessment: Assessment) -> list[str]:
    """How far to trust the order."""
    random = [each.name for each in scoring.scored if each.weights.sha256 is None]
    if random:
        what = "All weights are" if len(random) == len(scoring.scored) else f"Those of {', '.join(random)} are"
        return [f"{what} random: features of such weights say nothing of pretrained ones. Leave --weights none out."]
    return sentences(assessment)


def full_words(scoring: Scoring) -> str:
    """What a run in full is."""
    return f"{counted(scoring.scored[0].recipe.epochs or 0, 'epoch')} of {counted(len(scoring.train), 'image')}"


def score_table(scoring: Scoring, result: RankResult) -> list[str]:
    """A line a backbone, in the order; on a terminal that is too narrow for that, first the scores, then the costs."""
    by_name = {each.name: each for each in result.backbones}
    epochs = {each.name: each.recipe.epochs or 0 for each in scoring.scored}
    elsewhere = any(each.mean_rank_elsewhere is not None for each in result.backbones)
    names = [("", "backbone")]
    scores = [(*(SCORES[name].label for name in SHOWN), "ImageNet", *["elsewhere"] * elsewhere)]
    costs = [("M params", "images/s", "full run")]
    for place, name in enumerate(result.order, 1):
        each = by_name[name]
        values = ["-" if (value := each.scores[key]) is None else form.format(value) for key, form in SHOWN.items()]
        values.append("-" if each.top1 is None else f"{each.top1:.1f}%")
        values += [f"{each.mean_rank_elsewhere:.1f}"] if elsewhere else []
        speed = each.train_images_per_second
        full = epochs[name] * len(scoring.train) / speed if speed else None
        cost = (f"{speed:,.1f}", duration(full)) if speed and full else ("-", "-")
        names.append((f"{place}.", name))
        scores.append(tuple(values))
        costs.append((f"{each.parameters / 1e6:.1f}", *cost))
    whole = _side_by_side(names, scores, costs)
    if sys.stdout.isatty() and max(map(len, whole)) > shutil.get_terminal_size().columns:
        return [*_side_by_side(names, scores), *_side_by_side(names, costs)]
    return whole


def _side_by_side(*blocks: Sequence[tuple[str, ...]]) -> list[str]:
    """The rows of one table, of blocks of its columns."""
    return table([sum(rows, ()) for rows in zip(*blocks, strict=True)]).split("\n")


def next_lines(question: Question, result: RankResult, words: Sequence[str]) -> list[str]:
    """What is worth doing next: the first few in full by grid.py, or the search; `words` are this command's own."""
    names = result.order[:TOP]
    grid = ["python", script_path("grid.py"), "--models", *names, *question.grid_flags]
    kept = [word for word in words if word != "--json"]
    flags = kept.index("--") if "--" in kept else len(kept)  # behind it, nothing is a flag
    search = ["python", script_path("rank.py"), *kept[:flags], "--fine-tune", *kept[flags:]]
    return [
        f"next       train the first {len(names)} in full, or search, which takes a quarter of what all in full take:",
        f"           {shlex.join(grid)}",
        f"           {shlex.join(search)}",
    ]


def left_out_lines(left_out: Mapping[str, str]) -> list[str]:
    """Who is not in the order, and why: each reason once."""
    reasons: dict[str, list[str]] = {}
    for name, reason in left_out.items():
        reasons.setdefault(first_sentence(reason), []).append(name)
    return [f"left out   {', '.join(names)}: {reason}" for reason, names in reasons.items()]
