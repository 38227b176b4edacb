"""The search after the order: what rank.py --fine-tune asks of it, and what is said at its end."""

from __future__ import annotations

from contextlib import nullcontext
from typing import Any

from engine import INTERRUPTED
from engine.console import say, wrapped
from engine.errors import disk_errors_explained
from engine.files import json_digest
from engine.records.printed import result_line, where_lines
from engine.training.recipe import epochs_of_all
from grids.cells import Cell
from grids.ledger import standing_now
from grids.offer import Offer, of_ray
from ranking.answer import Answer, digest_of
from ranking.budget import Budget
from ranking.candidates import RECIPE, command_of
from ranking.outcome import folder_of
from ranking.scored import Scoring
from ranking.search import run_search
from ranking.trainings import Candidate, Request, train_winner
from reporting.rank_results import SEARCHED, path_of, write_search

START_SECONDS = 15.0  # of a run on a processor: its start, and the measurement of its plan, until some have been seen


def request_of(answer: Answer, offer: Offer | None = None) -> Request:
    """What is searched for: the backbones in the answer's order; `offer` as Request has it."""
    scoring, config = answer.scoring, answer.scoring.config
    speeds = {each.name: each.train_images_per_second for each in answer.result.backbones}

    def make(name: str, epochs: int | None) -> Cell:
        return answer.question.cell(name, *([] if epochs is None else ["--epochs", str(epochs)]))

    return Request(
        scoring.data.dataset.key,
        identity_of(scoring),
        [Candidate(each.name, each.weights.sha256, speeds[each.name], START_SECONDS) for each in answer.ordered],
        len(scoring.train),
        scoring.scored[0].recipe.epochs or 1,
        make,
        config.out,
        config.select,
        offer=offer,
        # of random weights there is no head to be solved for
        beside=epochs_of_all(RECIPE, 0) if any(each.weights.file for each in answer.ordered) else 0,
    )


def identity_of(scoring: Scoring) -> dict[str, Any]:
    """What tells a search from others: the split, and what its runs are told by: no places, no spelling."""
    runs = sorted(each.candidate.cell.key for each in scoring.scored)
    return {"split": scoring.data.splits.hash, "runs": json_digest(runs)}


def tuned(answer: Answer, budget: Budget | None, train: bool, ray: str | None = None) -> tuple[int, dict[str, Any]]:
    """Search, keep what came of it, and, to `train`, train the winner in full. The exit code, and what JSON says.

    ray: the address of the Ray cluster that trains, as of_ray() takes it; None: this machine does.
    """
    with of_ray(ray, answer.scoring.config) if ray else nullcontext() as offer:
        return _tuned(answer, request_of(answer, offer), budget, train)


def _tuned(answer: Answer, request: Request, budget: Budget | None, train: bool) -> tuple[int, dict[str, Any]]:
    found = run_search(request, budget)
    command = ""
    if found.recommendation:
        command = command_of(answer.question.cell(found.recommendation))
    content = {**found.as_json(), "command": command}
    path = path_of(request.out, request.dataset, digest_of(answer.scoring), SEARCHED)
    with disk_errors_explained("the search can't be kept in", path.parent, "--out chooses another folder."):
        write_search(content, path)
    say(*wrapped(found.lines()), go_on=True)
    if not found.recommendation:
        return found.exit_code, content
    in_full = standing_now(request.cell(found.recommendation, request.full, ""))
    if not found.complete or not (train or in_full.status == "done"):
        wait = "" if found.complete else ", once the search has come to its end"
        say(f"in full    {'--train does it' if train else 'the command'}{wait}:", f"           {command}", go_on=True)
        return found.exit_code, content
    done = train_winner(request, found.recommendation)
    if done.status != "done" or not done.record:
        return INTERRUPTED, content
    folder = folder_of(request.cell(found.recommendation, request.full, ""), done.record)
    say(*where_lines(folder), result_line(done.record), go_on=True)
    return 0, {**content, "record": str(folder)}
